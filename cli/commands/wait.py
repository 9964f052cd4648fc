"""`simyard wait`: until jobs are over."""

from __future__ import annotations

import argparse

from .. import output
from ..arguments import job_id, job_ids, seconds
from ..exits import INTERRUPTED, Ending
from ..following import describe, exit_status, wait_for
from ..link import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = (
        "Exit code of one job: its own; 128 + its signal; 124 when its walltime, or --timeout,\n"
        "came first. Of several: 0 when all completed, else 1."
    )
    parser.add_argument("ids", nargs="+", type=job_id, metavar="ID")
    parser.add_argument(
        "--timeout", type=seconds, metavar="TIME", help="stop waiting, not the jobs, after TIME"
    )


def run(options: argparse.Namespace) -> int:
    """Wait for jobs."""
    ids = job_ids(options.ids)
    with connect(options) as connection:
        try:
            jobs = wait_for(connection, ids, quiet=options.quiet, timeout=options.timeout)
        except KeyboardInterrupt:
            word = f"job {ids[0]} goes" if len(ids) == 1 else "the jobs go"
            raise Ending(INTERRUPTED, f"stopped waiting; {word} on") from None
    if options.json:
        output.write(output.to_json(jobs[0] if len(jobs) == 1 else {"items": jobs}))
    elif not options.quiet:
        for job in jobs:
            output.say(describe(job))
    if len(jobs) == 1:
        return exit_status(jobs[0])
    return 0 if all(job["state"] == "completed" for job in jobs) else 1
