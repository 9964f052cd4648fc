"""`simyard`: find the command, read its options, run it, end with its exit code.

Knows the names of the commands and in which module each lives; a module is
imported only when its command is used, so that a short command starts quickly.
"""

from __future__ import annotations

import sys

from ..errors import UsageError
from . import output
from .arguments import Parser, add_connection, add_home, add_output, meant
from .exits import guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

COMMANDS: dict[str, tuple[str, str]] = {
    "submit": ("submit", "put a job into the queue (the same as submit_job)"),
    "jobs": ("jobs", "list jobs"),
    "show": ("show", "show all of one job"),
    "explain": ("explain", "say why a job waits, and what would free it"),
    "logs": ("logs", "print what a job prints, -f while it runs"),
    "wait": ("wait", "wait until jobs are over"),
    "cancel": ("control", "end jobs, whole trees of processes"),
    "hold": ("control", "keep waiting jobs from starting"),
    "release": ("control", "let held jobs go"),
    "retry": ("control", "submit finished jobs again"),
    "priority": ("priority", "change what starts first"),
    "files": ("files", "list the files of a job"),
    "download": ("download", "copy the files of a job"),
    "prune": ("prune", "forget finished jobs by age, number and size"),
    "limits": ("limits", "show or change what jobs may use together"),
    "top": ("top", "watch what runs and what waits, on a terminal"),
    "status": ("status", "show the service and what is in use"),
    "serve": ("serve", "run the service"),
    "stop": ("stop", "stop the service; running jobs go on"),
    "dashboard": ("dashboard", "open the dashboard in a browser"),
    "doctor": ("doctor", "look for what could go wrong on this machine"),
    "config": ("config", "show the settings in force, and where they came from"),
    "schema": ("schema", "print the JSON schema of job.yaml, for editors"),
    "completion": ("completion", "make bash, zsh or fish complete command lines"),
    "version": ("version", "print the version"),
}
"""Every command: the module of `commands` that holds it, and one line of help."""

ALIASES = {
    "ls": "jobs",
    "list": "jobs",
    "clean": "prune",
    "delete": "prune",
    "settings": "config",
    "why": "explain",
    "queue": "jobs",
    "info": "show",
    "log": "logs",
    "kill": "cancel",
    "start": "serve",
    "tail": "logs",
}
"""What people try first; suggested, not accepted, so that each thing has one name."""

_GLOBALS_WITH_VALUE = frozenset({"--home", "--url", "--host", "--port", "--token"})
_GLOBALS = frozenset({"--json", "--quiet"})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        name, rest = find_command(words)
    except UsageError as error:
        message = error
        return guarded("simyard", lambda: _raise(message))
    if name is None:
        return guarded("simyard", _print_help)
    if name == "submit":
        from .submit_job import main as submit

        return submit(rest, program="simyard submit")
    return guarded(f"simyard {name}", lambda: _run(name, rest))


def find_command(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """Split off the command; common options before it count as if they stood behind it.

    The command is None where help is asked for. Raises `UsageError` for an unknown one.
    """
    leading: list[str] = []
    waiting = list(words)
    while waiting and waiting[0].startswith("-"):
        word = waiting.pop(0)
        name = word.partition("=")[0]
        if word in ("-h", "--help"):
            return None, []
        if word in ("-V", "--version"):
            return "version", leading
        if name not in _GLOBALS and name not in _GLOBALS_WITH_VALUE:
            known = [*_GLOBALS, *_GLOBALS_WITH_VALUE, "--help", "--version"]
            raise UsageError(_see(f"there is no option {name!r} here{meant(name, known)}"))
        leading.append(word)
        if name in _GLOBALS_WITH_VALUE and "=" not in word and waiting:
            leading.append(waiting.pop(0))
    if not waiting:
        if leading:
            raise UsageError(_see("no command given"))
        return None, []
    name = waiting.pop(0)
    if name == "help":
        return (waiting[0], ["--help"]) if waiting and waiting[0] in COMMANDS else (None, [])
    if name not in COMMANDS:
        hint = f"; did you mean {ALIASES[name]!r}?" if name in ALIASES else ""
        hint = hint or meant(name, list(COMMANDS))
        raise UsageError(_see(f"there is no command {name!r}{hint}"))
    return name, [*leading, *waiting]


def _see(text: str) -> str:
    return f"{text}{'' if text.endswith('?') else '.'} See 'simyard --help'."


def command_parser(name: str) -> tuple[Parser, Callable[[argparse.Namespace], int]]:
    """Return the parser of a command and what runs it."""
    from importlib import import_module

    module = import_module(f".commands.{COMMANDS[name][0]}", __package__)
    parser = Parser(prog=f"simyard {name}", description=COMMANDS[name][1].capitalize() + ".")
    parser.set_defaults(command=name)
    module.arguments(parser)
    if getattr(module, "HOME_ONLY", False):
        add_home(parser)
    else:
        add_connection(parser)
    add_output(parser)
    run: Callable[[argparse.Namespace], int] = module.run
    return parser, run


def _run(name: str, words: Sequence[str]) -> int:
    parser, run = command_parser(name)
    return run(parser.read(words))


def _print_help() -> int:
    width = max(len(name) for name in COMMANDS)
    lines = [
        "usage: simyard COMMAND [options]",
        "",
        "Runs simulations in the background: submit them, go away, come back.",
        "",
        *(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()),
        "",
        "'simyard COMMAND --help' explains one of them. First steps:",
        "  submit_job --cores 2 -- python run.py     prints the id of the job",
        "  simyard logs -f 1                         follows what it prints",
        "",
    ]
    output.write("\n".join(lines))
    return 0


def _raise(error: UsageError) -> int:
    raise error


if __name__ == "__main__":
    sys.exit(main())
