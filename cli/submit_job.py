"""`submit_job`: put one job into the queue, print its id, and be gone.

Standard library only, and of ours only what is light: the whole program must cost
little more than a bare interpreter (a test of the imports keeps it so). The
service validates; here only what is lost in transit is checked.
"""

from __future__ import annotations

import os
import sys

from ..errors import InvalidInput, SimyardError, UsageError
from . import output
from .arguments import Parser, add_connection, add_output
from .exits import INTERRUPTED, Ending, guarded
from .spec import add_spec, build

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from typing import Any

    from ..handler.wire import Connection

_EPILOG = """\
The id alone is printed on stdout. Exit codes: 0 accepted, 1 refused or not
reachable, 2 unexpected failure. With --wait, those of the job: its own code,
128 + its signal, 124 when its walltime ended it; 130 when the wait was
interrupted (the job goes on)."""

# What a spec's field is called on the command line, where that is another word.
_OPTIONS = {
    "command": "the command",
    "files": "--input",
    "licenses": "--license",
    "tags": "--tag",
    "expected_outputs": "--expect",
    "extra_args": "--scheduler-arg",
    "base_env": "the environment",
    "soft_limits": "the resource limits of this shell",
    "yaml": "--file",
}


def parser(program: str = "submit_job") -> Parser:
    """Build the parser; the command after ``--`` is not its business."""
    import argparse

    built = Parser(
        prog=program,
        usage=f"{program} [options] -- COMMAND [ARGUMENT …]",
        description="Submit one job and print its id.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_spec(built)
    after = built.add_argument_group("afterwards")
    after.add_argument(
        "--wait", action="store_true", help="wait for its end, and exit with its own status"
    )
    after.add_argument(
        "--dry-run", action="store_true", help="print what would be sent, and send nothing"
    )
    add_output(built)
    add_connection(built)
    return built


def main(argv: Sequence[str] | None = None, *, program: str = "submit_job") -> int:
    """Run the program and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    return guarded(program, lambda: _run(words, program), submitting=True)


def _run(words: list[str], program: str) -> int:
    options, command = _split(words, program)
    if options.dry_run:
        output.write(output.to_json(build(options, command, local=not options.url)))
        return 0
    # What can be refused without the service is refused before one is started.
    build(options, command, local=False)
    from ..handler.wire import connect

    with connect(
        options.home,
        url=options.url,
        host=options.host,
        port=options.port,
        token=options.token,
        start=True,
        say=output.say,
    ) as connection:
        local = connection.endpoint.on_this_host
        body = build(options, command, local=local)
        _add_environment(body, options, local)
        if command and local:
            _check_program(body, options, command)
        try:
            job = connection.submit(body)
        except InvalidInput as error:
            raise _named_as_options(error) from error
        if not (options.wait and options.json):
            output.write(output.to_json(job) if options.json else f"{job['id']}\n")
        return _wait(connection, job, options) if options.wait else 0


def _split(words: list[str], program: str) -> tuple[argparse.Namespace, list[str]]:
    """Separate our options from the command."""
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    built = parser(program)
    options, rest = built.parse_known_args(words)
    stray = next((word for word in rest if not word.startswith("-")), None)
    option = next((word for word in rest if word.startswith("-")), None)
    if option is not None and (stray is None or rest.index(option) < rest.index(stray)):
        built.read([*words])
    if stray is not None:
        if command:
            raise UsageError(f"{stray!r} stands before --, but is no option; is a quote missing?")
        raise UsageError(
            f"the command goes after --, such as: {program} --cores 2 -- {' '.join(rest)}"
        )
    if not (command or options.script or options.file):
        raise UsageError(
            f"no command: it goes after --, such as: {program} --cores 2 -- pw.x -in si.in"
        )
    return options, command


def _add_environment(body: dict[str, Any], options: argparse.Namespace, local: bool) -> None:
    """Capture what the job sees of this shell; a job file may say something else."""
    from ..handler import capture

    away = options.scheduler not in (None, "auto", "local")
    export = options.export or ("all" if local and not away else "none")
    assumed = body["defaults"] if "yaml" in body and not options.export else body.get("spec", body)
    captured: dict[str, Any] = capture.captured(export, local=local)
    assumed.update(captured)


def _check_program(
    body: dict[str, Any], options: argparse.Namespace, command: Sequence[str]
) -> None:
    """Refuse a program that is not there, unless something before the start may bring it."""
    brought = options.setup or options.depends_on or options.input or options.file
    away = options.scheduler not in (None, "auto", "local")
    if brought or away or "PATH" in dict(options.env or ()):
        return
    from .program import check

    path = body.get("base_env", {}).get("PATH") or os.environ.get("PATH") or os.defpath
    check(command, body.get("workdir") or os.getcwd(), path)


def _named_as_options(error: InvalidInput) -> SimyardError:
    """Return the same refusal with its fields named as they are typed here."""
    details = error.details.get("errors")
    if not isinstance(details, list) or not details:
        return error
    lines = []
    for item in details:
        field, _, inner = str(item.get("field") or "").partition(".")
        if field in ("spec", "defaults"):
            field, _, inner = inner.partition(".")
        if field == "cluster" and inner:
            field, _, inner = inner.partition(".")
        shown = _OPTIONS.get(field, f"--{field.replace('_', '-')}" if field else "")
        message = str(item.get("message") or "")
        lines.append(f"{shown}: {message}" if shown else message)
    renamed = type(error)("\n".join(lines))
    renamed.__cause__ = error
    return renamed


def _wait(connection: Connection, job: dict[str, Any], options: argparse.Namespace) -> int:
    from .following import describe, exit_status, wait_for

    job_id = job["id"]
    try:
        (ended,) = wait_for(connection, [job_id], quiet=options.quiet)
    except KeyboardInterrupt:
        raise Ending(
            INTERRUPTED,
            f"stopped waiting; job {job_id} goes on. 'simyard wait {job_id}' waits again, "
            f"'simyard cancel {job_id}' ends it",
        ) from None
    if options.json:
        output.write(output.to_json(ended))
    if ended["state"] != "completed" and not options.quiet:
        output.say(describe(ended))
        if ended.get("started_at"):
            output.say(f"  'simyard logs {job_id} --stderr' shows what it said")
    return exit_status(ended)


if __name__ == "__main__":
    sys.exit(main())
