"""From the launcher's records to reports.

Pure: text in, `Report`s out; no files, no clock, no connection. What the records
mean is written in ``docs/architecture-launcher.md``. A record that cannot be
understood is left out and logged; it never stops those behind it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import LauncherError
from .contract import Cause, Ending, Report, ReportKind, Usage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """A place in the launcher's records: everything before it was processed."""

    generation: int = 0
    offset: int = 0

    def __str__(self) -> str:
        return f"{self.generation}:{self.offset}"

    @classmethod
    def parse(cls, text: str | None) -> Cursor:
        """Read what `str` wrote; None is the beginning. Raises `LauncherError`."""
        if text is None:
            return cls()
        generation, colon, offset = text.partition(":")
        if not (colon and generation.isdecimal() and offset.isdecimal()):
            raise LauncherError(f"{text!r} is no place in the launcher's records")
        return cls(int(generation), int(offset))


def read_reports(lines: str, end: Cursor) -> list[Report]:
    """Turn whole lines of records that end at `end` into reports, in order.

    The last report carries the cursor: whoever stores it must store it together with
    all of the batch. `STARTING` is left out where the same lines tell more.
    """
    reports: list[Report] = []
    starting: dict[str, int] = {}
    superseded: set[int] = set()
    for line in lines.splitlines():
        try:
            news = _reports_of(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.warning("a record of the launcher cannot be understood: %.200r", line)
            continue
        for report in news:
            if report.kind is ReportKind.STARTING:
                starting[report.tag] = len(reports)
            elif starting and report.tag in starting:
                superseded.add(starting.pop(report.tag))
            reports.append(report)
    if superseded:
        reports = [report for place, report in enumerate(reports) if place not in superseded]
    if reports:
        reports[-1] = replace(reports[-1], cursor=str(end))
    return reports


def _reports_of(record: Mapping[str, Any]) -> list[Report]:
    kind = record["r"]
    if kind == "launcher" or record.get("again"):
        return []
    tag, time = record["tag"], float(record["t"])
    if not isinstance(tag, str):
        raise TypeError("a tag is text")
    if kind == "started":
        native_id = str(record["pid"])
        return [Report(tag=tag, kind=ReportKind.STARTED, time=time, native_id=native_id)]
    if kind == "starting":
        return [Report(tag=tag, kind=ReportKind.STARTING, time=time)]
    if kind == "cleared":
        return [Report(tag=tag, kind=ReportKind.CLEARED, time=time)]
    if kind == "withdrawn":
        return [Report(tag=tag, kind=ReportKind.WITHDRAWN, time=time)]
    if kind == "failed":
        ending = Ending(cause=Cause.START_FAILED, message=str(record.get("msg", "")))
    elif kind == "ended":
        ending = _ending(record)
    else:
        raise ValueError(f"unknown record {kind!r}")
    ended = Report(tag=tag, kind=ReportKind.ENDED, time=time, ending=ending)
    if record.get("left"):
        return [ended]
    return [ended, Report(tag=tag, kind=ReportKind.CLEARED, time=time)]


def _ending(record: Mapping[str, Any]) -> Ending:
    usage = Usage(
        wall_seconds=max(0.0, float(record.get("wall", 0.0))),
        cpu_seconds=float(record.get("utime", 0.0)) + float(record.get("stime", 0.0)),
        max_rss_bytes=int(record.get("rss", 0)),
    )
    cause = Cause(record["cause"])
    code, number = record.get("code"), record.get("sig")
    if cause is Cause.OWN and code is None and number is None:
        cause = Cause.LOST
    return Ending(
        cause=cause,
        exit_code=None if code is None else int(code),
        signal=None if number is None else int(number),
        message=str(record.get("msg", "")),
        usage=usage,
    )
