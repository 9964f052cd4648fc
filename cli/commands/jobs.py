"""`simyard jobs`: the list."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from .. import output
from ..arguments import count, seconds
from ..filters import add_filters, as_query, chosen
from ..following import detail, wall_seconds
from ..link import connect, pages

HEADER = ("ID", "NAME", "STATE", "RAN", "SUBMITTED", "DETAIL")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_filters(parser)
    parser.add_argument(
        "--limit", "-l", type=count, default=100, metavar="N", help="at most N (default: 100)"
    )
    parser.add_argument("--all", "-a", action="store_true", help="without a bound")
    parser.add_argument(
        "--watch",
        nargs="?",
        const=2.0,
        type=seconds,
        metavar="SECONDS",
        help="draw the list again every 2 seconds, or as often as given; Ctrl-C ends it",
    )


def run(options: argparse.Namespace) -> int:
    """List jobs."""
    found = chosen(options)
    with connect(options) as connection:
        while True:
            limit = None if options.all else options.limit
            jobs = list(pages(connection, as_query(found), limit))
            watching = options.watch is not None and output.is_terminal(sys.stdout)
            if watching:
                sys.stdout.write("\x1b[H\x1b[2J")
            _print(jobs, options)
            if not watching:
                break
            time.sleep(max(options.watch, 0.5))
    if limit is not None and len(jobs) == limit and not options.quiet and not options.json:
        output.say(f"the first {limit}; --limit N or --all shows more")
    return 0


def _print(jobs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        output.write(output.to_json({"items": jobs}))
    elif options.quiet:
        output.write("".join(f"{job['id']}\n" for job in jobs))
    elif not jobs:
        output.say("no jobs" + (" match" if chosen(options) else " yet: submit_job -- COMMAND"))
    else:
        output.write(
            output.table(
                HEADER, [row(job) for job in jobs], right=(0, 3), styles={2: output.STATE_STYLES}
            )
        )


def row(job: dict[str, Any]) -> tuple[object, ...]:
    """Return one line of the list; in a pipe with exact times and seconds."""
    if output.is_terminal(sys.stdout):
        ran: object = output.duration(wall_seconds(job))
        submitted = output.moment(job["created_at"])
    else:
        seconds_run = wall_seconds(job)
        ran = "" if seconds_run is None else f"{seconds_run:.3f}"
        submitted = job["created_at"]
    return job["id"], job["name"], job["state"], ran, submitted, detail(job)
