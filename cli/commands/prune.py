"""`simyard prune`: finished jobs forgotten by age, number and size."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...errors import UsageError
from .. import output
from ..arguments import count
from ..exits import REFUSED, Ending
from ..filters import add_filters, chosen
from ..link import connect

PATIENCE = 3600.0
"""Seconds: the folders of a hundred thousand jobs are not gone in a moment."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = "A finished job goes when any of the rules says so; no other ever does."
    rules = parser.add_argument_group("what goes")
    rules.add_argument(
        "--older-than", metavar="TIME", help="those that ended longer ago, such as 30d"
    )
    rules.add_argument("--keep", type=count, metavar="N", help="all but the N that ended last")
    rules.add_argument(
        "--max-size",
        metavar="SIZE",
        help="the oldest, until the folders of the others are no larger, such as '20 GiB'",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would go, and let it stay"
    )
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask")
    add_filters(parser)


def run(options: argparse.Namespace) -> int:
    """Prune, after asking."""
    body: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("older_than", "keep", "max_size")
        if getattr(options, name) is not None
    }
    if not body:
        raise UsageError(
            "prune what? Say what is kept: --older-than 30d, --keep 1000 or --max-size '20 GiB'. "
            "See 'simyard prune --help'."
        )
    if found := chosen(options):
        body["filter"] = found
    with connect(options) as connection:
        if not (options.dry_run or options.yes):
            would = _ask(connection, {**body, "dry_run": True})
            if would["jobs"]:
                _confirm(would)
        answer = _ask(connection, {**body, "dry_run": options.dry_run})
    if options.json:
        output.write(output.to_json(answer))
    elif options.quiet:
        output.write("".join(f"{number}\n" for number in answer["ids"]))
    else:
        word = "would be" if options.dry_run else "were" if answer["jobs"] != 1 else "was"
        output.write(f"{_what(answer)} {word} forgotten{_leftovers(answer)}\n")
    return 0


def _ask(connection: Any, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = connection.request("POST", "/api/prune", json=body, timeout=PATIENCE)
    return answer


def _what(answer: dict[str, Any]) -> str:
    jobs = answer["jobs"]
    return f"{jobs} job{'' if jobs == 1 else 's'} ({output.size(answer['bytes'])})"


def _leftovers(answer: dict[str, Any]) -> str:
    number = answer["leftovers"]
    if not number:
        return ""
    return f", with {number} folder{'' if number == 1 else 's'} that belonged to no job any more"


def _confirm(would: dict[str, Any]) -> None:
    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)):
        raise UsageError("'simyard prune' asks before it acts; say --yes where nobody can")
    sys.stderr.write(f"forget {_what(would)} with their files? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Ending(REFUSED, "nothing was done")
