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
from .spec import add_spec, build, read_texts, to_send

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

_HERE = (None, "auto", "local")

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
    built = Parser(
        prog=program,
        usage=f"{program} [options] -- COMMAND [ARGUMENT …]",
        description="Submit one job and print its id.",
        epilog=_EPILOG,
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
    texts = read_texts(options)
    # What can be refused without the service is refused before one is started.
    body = _body(options, command, texts, local=_looks_local(options))
    if options.dry_run:
        output.write(output.to_json(_without_environment(body)))
        return 0
    from ..handler.discovery import connect

    with connect(
        options.home,
        url=options.url,
        host=options.host,
        port=options.port,
        token=options.token,
        start=True,
        say=output.say,
    ) as connection:
        if connection.endpoint.on_this_host != _looks_local(options):
            local = connection.endpoint.on_this_host
            body = _body(options, command, texts, local=local)
        try:
            for digest, path in to_send(options, body).items():
                connection.upload(digest, path)
            job = connection.submit(body)
        except InvalidInput as error:
            raise _named_as_options(error) from error
        except KeyboardInterrupt:
            raise Ending(
                INTERRUPTED, "interrupted; 'simyard jobs' tells whether the job was accepted"
            ) from None
        try:
            if not (options.wait and options.json):
                output.write(output.to_json(job) if options.json else f"{job['id']}\n")
            return _wait(connection, job, options) if options.wait else 0
        except KeyboardInterrupt:
            raise Ending(
                INTERRUPTED,
                f"stopped waiting; job {job['id']} goes on. 'simyard wait {job['id']}' waits "
                f"again, 'simyard cancel {job['id']}' ends it",
            ) from None


def _split(words: list[str], program: str) -> tuple[argparse.Namespace, list[str]]:
    """Separate our options from the command."""
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    built = parser(program)
    options, rest = built.parse_known_args(words)
    stray = next((word for word in rest if not word.startswith("-")), None)
    if rest and rest[0].startswith("-"):
        built.read(words)
    if stray is not None:
        if command:
            raise UsageError(f"{stray!r} stands before --, but is no option; is a quote missing?")
        raise UsageError(
            f"the command goes after --, such as: {program} --cores 2 -- {' '.join(rest)}"
        )
    if not command and options.script is None and options.file is None:
        raise UsageError(
            f"no command: it goes after --, such as: {program} --cores 2 -- pw.x -in si.in"
        )
    return options, command


def _looks_local(options: argparse.Namespace) -> bool:
    """Guess whether the service runs here; the connection tells it for sure."""
    if options.home:
        return not (options.url or options.host)
    named = ("SIMYARD_URL", "SIMYARD_HOST")
    return not (options.url or options.host or any(os.environ.get(name) for name in named))


def _body(
    options: argparse.Namespace, command: list[str], texts: dict[str, str], *, local: bool
) -> dict[str, Any]:
    """Return all of what is sent; raises `InvalidInput` for what cannot work from here."""
    from ..handler import capture

    body = build(options, command, texts, local=local)
    if "yaml" not in body:
        if local:
            return capture.complete(body, export=options.export)
        return {**capture.captured(options.export or "none", local=False), **body}
    # A job file may bring its own environment: what is only assumed must not beat it.
    export = options.export or ("all" if local and options.scheduler in _HERE else "none")
    body["spec" if options.export else "defaults"].update(capture.captured(export, local=local))
    return body


def _without_environment(body: dict[str, Any]) -> dict[str, Any]:
    """Return `body` as a person wants to see it: the captured environment only counted."""
    shown = dict(body)
    if "base_env" in shown:
        shown["base_env"] = f"{len(shown['base_env'])} variables of this shell"
    for name in ("spec", "defaults"):
        if isinstance(shown.get(name), dict):
            shown[name] = _without_environment(shown[name])
    return shown


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
    (ended,) = wait_for(connection, [job_id], quiet=options.quiet)
    if options.json:
        output.write(output.to_json(ended))
    if ended["state"] != "completed" and not options.quiet:
        output.say(describe(ended))
        if ended.get("started_at"):
            output.say(f"  'simyard logs {job_id} --stderr' shows what it said")
    return exit_status(ended)


if __name__ == "__main__":
    sys.exit(main())
