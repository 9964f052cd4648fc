"""`simyard priority`: what starts first."""

from __future__ import annotations

import argparse

from .. import output
from ..arguments import integer, job_id, job_ids
from ..link import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ids", nargs="+", type=job_id, metavar="ID")
    parser.add_argument("priority", type=integer, metavar="N", help="higher starts first")


def run(options: argparse.Namespace) -> int:
    """Change the priority of waiting jobs."""
    with connect(options) as connection:
        changed = [
            connection.request("PATCH", f"/api/jobs/{number}", json={"priority": options.priority})
            for number in job_ids(options.ids)
        ]
    if options.json:
        output.write(output.to_json(changed[0] if len(changed) == 1 else {"items": changed}))
    elif not options.quiet:
        for job in changed:
            output.write(f"job {job['id']} has priority {job['priority']}\n")
    return 0
