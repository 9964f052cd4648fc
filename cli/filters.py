"""The options that pick jobs, shared by listing and control."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from .arguments import meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

STATES = (
    "held",
    "queued",
    "submitting",
    "scheduled",
    "running",
    "completed",
    "failed",
    "cancelled",
)
OTHER_WORDS = ("pending", "submitted", "started", "success", "complete", "killed", "canceled")
GROUPS = {
    "active": STATES[:5],
    "waiting": STATES[:2],
    "over": STATES[5:],
}
"""Words for several states, written out before they are sent."""


def add_filters(parser: argparse.ArgumentParser) -> None:
    """Add the options that pick jobs."""
    group = parser.add_argument_group("which jobs")
    group.add_argument(
        "--state",
        "-s",
        action="append",
        type=states,
        metavar="STATE",
        help=f"{', '.join(STATES)}; or active, waiting, over; repeatable, or with commas",
    )
    group.add_argument(
        "--name", "-n", metavar="TEXT", help="part of the name, or a pattern with * and ?"
    )
    group.add_argument("--project", metavar="NAME")
    group.add_argument("--group", metavar="NAME")
    group.add_argument("--tag", metavar="K[=V]", help="label, with any value or this one")
    group.add_argument("--search", metavar="TEXT", help="words to find")


def states(text: str) -> list[str]:
    """Read states with commas between them."""
    found: list[str] = []
    for word in (part.strip().lower() for part in text.split(",")):
        if word in GROUPS:
            found += GROUPS[word]
        elif word in STATES or word in OTHER_WORDS:
            found.append(word)
        else:
            hint = meant(word, [*STATES, *GROUPS]) or f"; they are {', '.join(STATES)}"
            raise argparse.ArgumentTypeError(f"there is no state {word!r}{hint}")
    return found


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """Return the filter that was given, by the names of the wire; empty where none was."""
    words = {
        "name": options.name,
        "project": options.project,
        "group": options.group,
        "tag": options.tag,
        "q": options.search,
    }
    found: dict[str, Any] = {name: value for name, value in words.items() if value is not None}
    if any(not value for value in found.values()):
        raise UsageError("an option that picks jobs is empty; leave it out to mean all")
    if options.state:
        found["state"] = list(dict.fromkeys(state for part in options.state for state in part))
    return found


def as_query(found: dict[str, Any]) -> dict[str, Any]:
    """Write a filter as the query of a list."""
    return {
        name: ",".join(value) if isinstance(value, list) else value for name, value in found.items()
    }
