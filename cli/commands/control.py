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
}

MOST_LINES = 20
"""Jobs that are told of one by one; more are counted."""

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
    done = [item for item in results if item.get("ok")]
    refused = [_refusal(item) for item in results if not item.get("ok")]
    if options.json:
        output.write(output.to_json({"items": results}))
    elif verb == "retry" and options.quiet:
        output.write("".join(f"{item['job']['id']}\n" for item in done))
    elif not options.quiet and len(done) > MOST_LINES and verb != "retry":
        output.write(f"{len(done)} of {len(results)} jobs are {_DONE[verb]}\n")
    elif not options.quiet:
        output.write("".join(f"job {item['id']} is {_came_of(verb, item)}\n" for item in done))
    for message, _ in refused:
        output.say(output.one_line(f"simyard {verb}: {message}"))
    if not refused:
        return OK
    return NOT_FOUND if all(missing for _, missing in refused) else REFUSED


def _came_of(verb: str, item: dict[str, Any]) -> str:
    job = item["job"]
    if verb == "retry":
        return f"submitted again as job {job['id']}"
    return "cancelled" if verb == "cancel" and job["state"] == "cancelled" else _DONE[verb]


def _refusal(item: dict[str, Any]) -> tuple[str, bool]:
    """Return what the service says against it, and whether there is no such job."""
    error = item.get("error") or {}
    message = error.get("detail") or error.get("title") or f"job {item['id']} was refused"
    return str(message), error.get("code") == "not_found"
