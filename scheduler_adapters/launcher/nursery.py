"""Jobs that have just started. Most end before the keeping of their limits costs them anything."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .job import Job

if TYPE_CHECKING:
    from .loop import Launcher

YOUNG_SECONDS = 0.3
"""Jobs that end sooner are never shown to the sampler."""


class Nursery:
    """Owns the young jobs; hands those that grew up to the sampler and the walltimes."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._young: dict[str, Job] = {}
        self._ticking = False

    def add(self, job: Job) -> None:
        """Take a job that was just started."""
        self._young[job.tag] = job
        if job.walltime is not None and job.walltime < 2 * YOUNG_SECONDS:
            self._launcher.walltimes.arm(job.tag, job.walltime)
        self._tick_later()

    def forget(self, job: Job) -> None:
        """Drop a job that is over."""
        self._young.pop(job.tag, None)

    def _tick_later(self) -> None:
        if not self._ticking:
            self._ticking = True
            self._launcher.timers.at(YOUNG_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = time.monotonic()
        grown = [job for job in self._young.values() if now - job.began >= YOUNG_SECONDS]
        for job in grown:
            del self._young[job.tag]
            if job.walltime is not None and job.walltime >= 2 * YOUNG_SECONDS:
                self._launcher.walltimes.arm(job.tag, job.walltime - (now - job.began))
            self._launcher.sampling.watch(job)
        if self._young:
            self._tick_later()
