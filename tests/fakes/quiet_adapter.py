"""A scheduler adapter that starts nothing: tests say what becomes of what it was given."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from simyard.scheduler_adapters.contract import (
    Ending,
    KnownAttempt,
    Listener,
    Report,
    ReportKind,
    Submission,
)


class QuietAdapter:
    """Takes submissions and reports them started; ends them when told to."""

    name = "local"

    def __init__(self) -> None:
        self.running: dict[str, Submission] = {}
        self._listener: Listener | None = None
        self._reports = 0

    async def open(
        self, listener: Listener, *, cursor: str | None, known: Sequence[KnownAttempt]
    ) -> None:
        self._listener = listener

    async def submit(self, submissions: Sequence[Submission]) -> None:
        for submission in submissions:
            self.running[submission.tag] = submission
            await self._report(submission.tag, ReportKind.STARTING)
            await self._report(submission.tag, ReportKind.STARTED, native_id="4711")

    async def withdraw(self, tags: Sequence[str]) -> Mapping[str, bool]:
        return dict.fromkeys(tags, False)

    async def cancel(self, tags: Sequence[str], *, grace: float | None = None) -> None:
        return None

    async def forget_before(self, cursor: str) -> None:
        return None

    async def close(self) -> None:
        self._listener = None

    async def end(self, job_id: str, ending: Ending) -> None:
        """Report that the attempt of a job ended, and that nothing of it is left."""
        (tag,) = [tag for tag, given in self.running.items() if given.job_id == job_id]
        del self.running[tag]
        await self._report(tag, ReportKind.ENDED, ending=ending)
        await self._report(tag, ReportKind.CLEARED)

    async def _report(
        self,
        tag: str,
        kind: ReportKind,
        *,
        native_id: str | None = None,
        ending: Ending | None = None,
    ) -> None:
        assert self._listener is not None
        self._reports += 1
        report = Report(
            tag=tag,
            kind=kind,
            time=time.time(),
            native_id=native_id,
            ending=ending,
            cursor=f"1:{self._reports}",
        )
        await self._listener([report])
