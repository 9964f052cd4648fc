"""Several jobs in a list: a table in a notebook, a data frame where pandas is there.

A list like any other, of handles as they were told last; it asks nobody. pandas is
imported by the call that needs it and by nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib import import_module
from typing import Any, Protocol, TypeVar

from ..errors import UsageError
from .job_handle import why_ended

MOST_ROWS = 60
"""Jobs that a notebook shows; of the others only the number is told."""

_TIMES = ("created_at", "started_at", "finished_at")
_COLOURS = {
    "running": "#0b7285",
    "completed": "#2b8a3e",
    "failed": "#c92a2a",
    "held": "#862e9c",
    "cancelled": "#868e96",
}


class Handle(Protocol):
    """Whatever holds a job as it was told last."""

    @property
    def last(self) -> Mapping[str, Any]:
        """The whole job."""
        raise NotImplementedError


H = TypeVar("H", bound=Handle)


class JobList(list[H]):
    """A list of job handles that a notebook shows as a table."""

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` with one row for each job; see `to_frame`."""
        return to_frame(self)

    def _repr_html_(self) -> str:
        return as_table([handle.last for handle in self])


def to_frame(handles: Iterable[Handle]) -> Any:
    """Return a `pandas.DataFrame` of jobs as they were told last, indexed by their ids.

    Columns: name, state, reason, exit_code, cores, memory, wall_seconds, cpu_seconds,
    max_rss_bytes, created_at, started_at, finished_at (in UTC), priority, project, group,
    attempt, pending_reason, workdir, and one for each tag, such as `tag.mesh`. Raises
    `UsageError` where pandas is not installed.
    """
    try:
        pandas = import_module("pandas")
    except ImportError as error:
        raise UsageError("data frames need pandas: install it with 'pip install pandas'") from error

    jobs = [handle.last for handle in handles]
    rows = [_row(job) for job in jobs]
    tags = sorted({f"tag.{name}" for job in jobs for name in job.get("tags") or {}})
    index = pandas.Index([str(job["id"]) for job in jobs], name="id", dtype=object)
    frame = pandas.DataFrame(rows, index=index, columns=[*_COLUMNS, *tags])
    for name in _TIMES:
        frame[name] = pandas.to_datetime(frame[name], utc=True)
    # Whole numbers that may be missing: pandas' own kind, not fractions.
    return frame.astype({"exit_code": "Int64", "cores": "Int64", "memory": "Int64"})


_COLUMNS = (
    "name",
    "state",
    "reason",
    "exit_code",
    "cores",
    "memory",
    "wall_seconds",
    "cpu_seconds",
    "max_rss_bytes",
    *_TIMES,
    "priority",
    "project",
    "group",
    "attempt",
    "pending_reason",
    "workdir",
)


def _row(job: Mapping[str, Any]) -> dict[str, Any]:
    outcome, spec, usage = (job.get(name) or {} for name in ("outcome", "spec", "usage"))
    row: dict[str, Any] = {name: job.get(name) for name in _COLUMNS}
    row.update(
        reason=outcome.get("reason"),
        exit_code=outcome.get("exit_code"),
        cores=spec.get("cores", 1) if spec else None,
        memory=spec.get("memory"),
        **{name: usage.get(name) for name in ("wall_seconds", "cpu_seconds", "max_rss_bytes")},
        **{name: _moment(job.get(name)) for name in _TIMES},
        **{f"tag.{name}": value for name, value in (job.get("tags") or {}).items()},
    )
    return row


def _moment(text: str | None) -> datetime | None:
    # Python 3.10 does not read a "Z" at the end.
    if not text:
        return None
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=timezone.utc)


def as_table(jobs: list[Mapping[str, Any]]) -> str:
    """Return a table of jobs for a notebook; every word that comes from a job is escaped."""
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in _HEADER)
    rows = "".join(f"<tr>{_cells(job)}</tr>" for job in jobs[:MOST_ROWS])
    counts: dict[str, int] = {}
    for job in jobs:
        state = str(job.get("state", "unknown"))
        counts[state] = counts.get(state, 0) + 1
    told = ", ".join(f"{number} {state}" for state, number in counts.items())
    more = f"; the first {MOST_ROWS} are shown" if len(jobs) > MOST_ROWS else ""
    number = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
    caption = html.escape(f"{number}{': ' + told if told else ''}{more}")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><p>{caption}</p>"


_HEADER = ("id", "name", "state", "ran", "detail")


def _cells(job: Mapping[str, Any]) -> str:
    state = str(job.get("state", "unknown"))
    ran = (job.get("usage") or {}).get("wall_seconds")
    outcome = job.get("outcome") or {}
    detail = job.get("pending_reason") or (
        why_ended(outcome) if outcome and state != "completed" else ""
    )
    words = (job.get("id"), job.get("name", ""), state, f"{ran:.1f} s" if ran else "", detail)
    colour = _COLOURS.get(state, "inherit")
    styles = {2: f"text-align:left;color:{colour}"}
    return "".join(
        f"<td style='{styles.get(place, 'text-align:left')}'>{html.escape(str(word))}</td>"
        for place, word in enumerate(words)
    )
