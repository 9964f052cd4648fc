"""`simyard files`: what lies in a job's folder."""

from __future__ import annotations

import argparse
import sys

from .. import output
from ..arguments import job_id
from ..link import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("id", type=job_id, metavar="ID")


def run(options: argparse.Namespace) -> int:
    """List the files of a job."""
    with connect(options) as connection:
        answer = connection.request("GET", f"/api/jobs/{options.id}/files")
    items = answer["items"]
    if options.json:
        output.write(output.to_json(answer))
        return 0
    if options.quiet:
        output.write("".join(f"{output.one_line(item['path'])}\n" for item in items))
    elif not items:
        output.say(f"job {options.id} has no files yet")
    else:
        person = output.is_terminal(sys.stdout)
        rows = [
            (
                output.size(item["size"]) if person else item["size"],
                output.moment(item.get("modified")) if person else item.get("modified"),
                item["path"],
            )
            for item in items
        ]
        output.write(output.table(("SIZE", "MODIFIED", "PATH"), rows, right=(0,)))
    if answer.get("truncated"):
        output.say("the list is cut: there are more files than the service shows")
    return 0
