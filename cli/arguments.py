"""Parsing shared by both programs: the parser, and the options that every command takes.

Standard library only: this module is on the submit path.
"""

from __future__ import annotations

import argparse
import os
import re

from ..errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn


# argparse's own words for where it was: "argument --cores/-c: …".
_ARGUMENT = re.compile(r"^argument ([^/:]+)(?:/[^:]+)?: ")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ours, and that knows what was probably meant."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("add_help", False)
        options.setdefault("formatter_class", _Help)
        super().__init__(**options)
        self.add_argument("--help", "-h", action="help", help="show this help and exit")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all of `arguments`; raises `UsageError` with a sentence."""
        parsed, unknown = self.parse_known_args(list(arguments))
        if unknown:
            self.error(self._about(unknown[0]))
        return parsed

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would have printed."""
        text = _ARGUMENT.sub(r"\1: ", message)
        end = "" if text.endswith((".", "?")) else "."
        raise UsageError(f"{text}{end} See '{self.prog} --help'.")

    def option_names(self) -> list[str]:
        """Name every option, for suggestions and for the test of the documentation."""
        return [name for action in self._actions for name in action.option_strings]

    def _about(self, word: str) -> str:
        if not word.startswith("-"):
            return f"{word!r} is one argument too many"
        name = word.partition("=")[0]
        return f"there is no option {name!r}{meant(name, self.option_names())}"


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help with room for long option names.

    The width is asked for here, as argparse would import `shutil` for it, and makes a
    formatter for every option that is added.
    """

    def __init__(self, prog: str, **options: Any) -> None:
        try:
            columns = os.get_terminal_size(1).columns
        except OSError:
            columns = 100
        options["width"] = max(min(columns, 100) - 2, 40)
        options["max_help_position"] = 30
        super().__init__(prog, **options)


def meant(word: str, known: Sequence[str]) -> str:
    """Return "; did you mean …?" where something known is close to `word`, else nothing."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:
        close = [name for name in known if len(word) > 3 and name.startswith(word)][:1]
    return f"; did you mean {close[0]!r}?" if close else ""


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which service is spoken to."""
    group = parser.add_argument_group("which service")
    add_home(group)
    group.add_argument("--url", metavar="URL", help="address of the service (SIMYARD_URL)")
    group.add_argument("--host", metavar="HOST", help="host of the service (SIMYARD_HOST)")
    group.add_argument(
        "--port", type=port, metavar="PORT", help="port of the service (SIMYARD_PORT)"
    )
    group.add_argument(
        "--token",
        metavar="TOKEN",
        help="credential for --url or --host; better in SIMYARD_TOKEN, where no process list shows it",
    )


def add_home(group: argparse._ActionsContainer) -> None:
    """Add the option that says which home folder is meant."""
    group.add_argument("--home", metavar="DIR", help="home folder of the service (SIMYARD_HOME)")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the result is printed."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON")
    group.add_argument("--quiet", action="store_true", help="print no more than ids")


def port(text: str) -> int:
    """Read a port number."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; write a number up to 65535")
    return number


def count(text: str) -> int:
    """Read a whole number that is not negative."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return number


def integer(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def seconds(text: str) -> float:
    """Read seconds, also as "90s", "5m" or "2h"."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    unit = units.get(text[-1:].lower())
    try:
        value = float(text[:-1] if unit else text) * (unit or 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e10:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time; write such as 30, 90s, 5m or 2h")
    return value


def job_id(text: str) -> str:
    """Read the id of a job."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a job id; ids are numbers such as 17, and 'simyard jobs' lists them"
        )
    return text


def job_ids(words: Sequence[Any]) -> list[str]:
    """Return the ids without repetition, in order."""
    return list(dict.fromkeys(str(word) for word in words))


def pair(text: str, what: str, example: str) -> tuple[str, str]:
    """Split KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}; write it such as {example}")
    return key, value
