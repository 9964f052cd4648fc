"""`simyard cancel`, `hold`, `release`, `retry`: by ids or by a filter."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...errors import UsageError
from .. import output
from ..arguments import job_id, job_ids
from ..exits import NOT_FOUND, OK, REFUSED, Ending
from ..filters import add_filters, as_query, chosen
from ..link import connect, pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...handler.wire import Connection

_DONE = {
    "cancel": "being cancelled",
    "hold": "held",
    "release": "released",
    "retry": "submitted again",
}

_MEANT_STATES = {
    "cancel": ["held", "queued", "submitting", "scheduled", "running"],
    "hold": ["queued"],
    "release": ["held"],
    "retry": ["failed", "cancelled"],
}
"""What a filter without --state picks: only those with which something can be done."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ids", nargs="*", type=job_id, metavar="ID")
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help="all jobs for which it makes sense")
    parser.add_argument("--yes", "-y", action="store_true", help="do not ask before --all")


def run(options: argparse.Namespace) -> int:
    """Do it to all of them."""
    verb, ids, found = options.command, job_ids(options.ids), chosen(options)
    if ids and (found or options.all):
        raise UsageError(f"give ids or a filter to 'simyard {verb}', not both")
    if not (ids or found or options.all):
        raise UsageError(
            f"{verb} what? Give ids, such as 'simyard {verb} 17', or a filter, or --all. "
            f"See 'simyard {verb} --help'."
        )
    with connect(options) as connection:
        if not ids:
            found.setdefault("state", _MEANT_STATES[verb])
            # The filter is made ids here, so that what was confirmed is what is done.
            ids = [job["id"] for job in pages(connection, as_query(found), None)]
            if not ids:
                output.say(f"no job to {verb}")
                return OK
            if options.all and not options.yes:
                _confirm(verb, len(ids))
        results = [item for part in _parts(ids) for item in _ask(connection, verb, part)]
    return _report(verb, results, options)


def _parts(ids: list[str]) -> list[list[str]]:
    return [ids[at : at + 1000] for at in range(0, len(ids), 1000)]


def _ask(connection: Connection, verb: str, ids: list[str]) -> list[dict[str, Any]]:
    answer = connection.request("POST", f"/api/jobs/{verb}", json={"ids": ids}, timeout=120)
    items: list[dict[str, Any]] = answer["items"]
    return items


def _confirm(verb: str, number: int) -> None:
    question = f"{verb} {number} job{'s' if number != 1 else ''}? [y/N] "
    if not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)):
        raise UsageError(f"'simyard {verb} --all' asks before it acts; say --yes where nobody can")
    sys.stderr.write(question)
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Ending(REFUSED, "nothing was done")


def _report(verb: str, results: list[dict[str, Any]], options: argparse.Namespace) -> int:
    if options.json:
        output.write(output.to_json({"items": results}))
    code = OK
    for item in results:
        if not item.get("ok"):
            message, missing = _refusal(item)
            output.say(output.one_line(f"simyard {verb}: {message}"))
            code = NOT_FOUND if missing and code in (OK, NOT_FOUND) else REFUSED
        elif options.json:
            continue
        elif verb == "retry":
            new = new_id(item)
            if options.quiet:
                output.write(f"{new or item['id']}\n")
            else:
                output.write(f"job {item['id']} is submitted again" + _as(new) + "\n")
        elif not options.quiet and len(results) <= 20:
            output.write(f"job {item['id']} is {_DONE[verb]}\n")
    if len(results) > 20 and not (options.json or options.quiet) and verb != "retry":
        done = sum(1 for item in results if item.get("ok"))
        output.write(f"{done} of {len(results)} jobs are {_DONE[verb]}\n")
    return code


def _as(new: str | None) -> str:
    return f" as job {new}" if new else ""


def new_id(item: dict[str, Any]) -> str | None:
    """Return the id of the job that a retry made."""
    job = item.get("job")
    return str(job["id"]) if isinstance(job, dict) and "id" in job else None


def _refusal(item: dict[str, Any]) -> tuple[str, bool]:
    error = item.get("error")
    if isinstance(error, dict):
        message = error.get("detail") or error.get("message") or error.get("title")
        return str(message or "refused"), error.get("code") == "not_found"
    return str(error or f"job {item.get('id')} was refused"), "no job" in str(error)
