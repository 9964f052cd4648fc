"""What comes of the attempts: reports turned into changes of jobs.

Reports come in the order in which things happened, each with its position in the
adapter's own durable record. The position is committed together with what was made
of the report, so that each is taken exactly once, whatever is killed in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..scheduler_adapters.contract import Cause, Ending, Report, ReportKind, SchedulerAdapter
from .dispatcher import Dispatcher, never_started
from .faults import faultpoint
from .job_folder import JobFolder
from .outcomes import judge, may_retry
from .states import JobState
from .store.batch import Batch
from .yard import Entry, Yard, describe_outcome

log = logging.getLogger(__name__)

CURSOR = "cursor.local"
"""Name under which the position in the local adapter's record is stored."""

MOST_WRITING = 32
"""Deliveries whose commits are awaited before more is taken."""


class Follower:
    """Takes the reports of an adapter."""

    def __init__(
        self,
        yard: Yard,
        adapter: SchedulerAdapter,
        dispatcher: Dispatcher,
        folder_of: Callable[[int], JobFolder],
    ) -> None:
        self._yard = yard
        self._adapter = adapter
        self._generation = ""
        self._writing: deque[asyncio.Task[None]] = deque()
        """Deliveries that are applied and not durable yet, oldest first."""
        self._dispatcher = dispatcher
        self._folder_of = folder_of

    async def take(self, reports: Sequence[Report]) -> None:
        """Apply `reports` in order, to be committed together.

        Returns before the commit, so that many small deliveries share one; a stored
        position never runs ahead of what was made of the reports, as both are in one batch.
        """
        faultpoint("report.received")
        missing = await self._missing_outputs(reports)
        batch = Batch()
        for report in reports:
            if report.cursor is not None:
                batch.meta[CURSOR] = report.cursor
            entry = self._yard.by_tag.get(report.tag)
            if entry is not None and entry.job.tag == report.tag:
                self._apply(batch, entry, report, missing.get(report.tag, ()))
            elif report.kind is ReportKind.ENDED:
                log.info("late news of %s: it ended", report.tag)
            if report.kind in (ReportKind.CLEARED, ReportKind.WITHDRAWN):
                self._yard.grants.clear(report.tag)
        committed = self._yard.commit(batch)
        self._writing.append(asyncio.create_task(self._finish(batch, committed)))
        self._dispatcher.wake()
        while len(self._writing) > MOST_WRITING or (self._writing and self._writing[0].done()):
            await self._writing.popleft()

    async def _finish(self, batch: Batch, committed: Coroutine[Any, Any, None]) -> None:
        await committed
        faultpoint("report.committed")
        await self._forget_records(batch.meta.get(CURSOR))

    async def settle(self) -> None:
        """Wait until everything that was taken is durable."""
        while self._writing:
            await self._writing.popleft()

    async def _forget_records(self, cursor: str | None) -> None:
        """Have the adapter delete what it wrote before this generation of its records."""
        generation = (cursor or "").partition(":")[0]
        if cursor is not None and generation != self._generation:
            self._generation = generation
            await self._adapter.forget_before(cursor)

    def _apply(self, batch: Batch, entry: Entry, report: Report, missing: Sequence[str]) -> None:
        state = entry.job.state
        if state.terminal or state.waiting:
            return
        if report.kind is ReportKind.STARTED and state is not JobState.RUNNING:
            self._yard.change(
                batch,
                entry,
                JobState.RUNNING,
                native_id=report.native_id,
                started_at=report.time,
                now=report.time,
            )
        elif report.kind is ReportKind.WITHDRAWN:
            never_started(self._yard, batch, entry)
        elif report.kind is ReportKind.ENDED:
            self._ended(batch, entry, report, report.ending or Ending(cause=Cause.LOST), missing)

    def _ended(
        self, batch: Batch, entry: Entry, report: Report, ending: Ending, missing: Sequence[str]
    ) -> None:
        state, outcome = judge(
            ending,
            walltime=entry.walltime,
            memory=entry.memory,
            output_limit=entry.output_limit,
            missing_outputs=missing,
        )
        usage = ending.usage
        if ending.cause is Cause.OWN:
            self._dispatcher.learn(entry.request, usage.wall_seconds)
        used = {
            "wall_seconds": usage.wall_seconds,
            "cpu_seconds": entry.job.cpu_seconds + usage.cpu_seconds,
            "max_rss_bytes": max(entry.job.max_rss_bytes, usage.max_rss_bytes),
        }
        if entry.job.started_at is None:
            used["started_at"] = report.time - usage.wall_seconds
        retries = entry.retries
        if retries is not None and may_retry(
            state,
            outcome,
            tried=entry.job.attempt,
            limit=retries.limit,
            on=retries.on,
            cancelled=entry.job.cancel_requested,
        ):
            told = {"ended": describe_outcome(outcome), "attempt": entry.job.attempt}
            tag = entry.job.tag
            again = {**used, "started_at": None, "tag": None, "native_id": None}
            self._yard.change(batch, entry, JobState.QUEUED, event="job.retry", data=told, **again)
            if tag is not None:
                self._yard.by_tag.pop(tag, None)
            return
        self._yard.finish(batch, entry, state, outcome, now=report.time, **used)

    async def _missing_outputs(self, reports: Sequence[Report]) -> dict[str, list[str]]:
        """Look for the expected outputs of those that say they succeeded."""
        missing: dict[str, list[str]] = {}
        for report in reports:
            entry = self._yard.by_tag.get(report.tag)
            if entry is None or not entry.expects_outputs or report.ending is None:
                continue
            if report.ending.cause is Cause.OWN and report.ending.exit_code == 0:
                spec = await self._yard.spec_of(entry.id)
                folder = self._folder_of(entry.id)
                _, lacking = await asyncio.to_thread(folder.expected_outputs, spec)
                missing[report.tag] = list(lacking)
        return missing
