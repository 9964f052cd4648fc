"""`simyard explain`: why a job waits, and what would free it."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .. import output
from ..arguments import job_id, job_ids
from ..link import connect

_SIZES = frozenset({"memory", "disk"})


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ids", nargs="+", type=job_id, metavar="ID")


def run(options: argparse.Namespace) -> int:
    """Explain jobs."""
    with connect(options) as connection:
        found = [
            connection.request("GET", f"/api/jobs/{number}/explanation")
            for number in job_ids(options.ids)
        ]
    if options.json:
        output.write(output.to_json(found[0] if len(found) == 1 else {"items": found}))
    elif options.quiet:
        output.write("".join(f"{item['id']}\n" for item in found))
    else:
        output.write("\n".join(page(item) for item in found))
    return 0


def page(item: dict[str, Any]) -> str:
    """Write an explanation for a person."""
    colour = output.wants_colour(sys.stdout)
    state = output.paint(item["state"], output.STATE_STYLES.get(item["state"]), colour)
    title = output.paint(f"job {item['id']}  {output.one_line(item['name'])}", "bold", colour)
    lines = [f"{title}  {state}", f"  {output.one_line(item['reason'])}"]
    if item["position"] is not None:
        lines.append(f"  place in line: {item['position']}{_ahead(item)}")
    for lack in item["lacks"]:
        lines += _lack(lack)
    if item["free_by"]:
        lines.append(f"  all of it will be free by {output.moment(item['free_by'])}")
    if item["has_reserved"]:
        lines.append(
            f"  {item['overtaken']} others have slipped past; room is kept for it from now on"
        )
    if item["reserved_by"]:
        lines.append(f"  room is kept for job {item['reserved_by']}, which is before it")
    if item["advice"]:
        lines.append("  what would help:")
        lines += [f"    - {output.one_line(text)}" for text in item["advice"]]
    return "\n".join(lines) + "\n"


def _ahead(item: dict[str, Any]) -> str:
    named = ", ".join(f"{job['id']} ({output.one_line(job['name'])})" for job in item["ahead"])
    if not named:
        return ""
    more = item["position"] - 1 - len(item["ahead"])
    return f", behind {named}" + (f" and {more} more" if more > 0 else "")


def _lack(lack: dict[str, Any]) -> list[str]:
    name = str(lack["resource"])
    free = max(lack["total"] - lack["in_use"], 0)
    needs, there, total = (_amount(name, lack[key]) for key in ("needs", "in_use", "total"))
    lines = [
        (
            f"  lacks {name.replace('license:', 'licence of ')}: needs {needs}, {there} of {total} in "
            f"use, {_amount(name, free)} free"
        )
    ]
    for held in lack["held_by"]:
        until = f"until {output.moment(held['ends_by'])}" if held["ends_by"] else "without an end"
        lines.append(
            f"    job {held['id']} ({output.one_line(held['name'])}) holds "
            f"{_amount(name, held['count'])} {until}"
        )
    if lack["more"]:
        lines.append(f"    and {lack['more']} jobs more")
    return lines


def _amount(name: str, count: int) -> str:
    return output.size(count) if name in _SIZES else str(count)
