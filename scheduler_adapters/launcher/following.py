"""Following adopted jobs: those whose parent the launcher is not, so that it reaps none of them."""

from __future__ import annotations

import contextlib
import os
import selectors
from typing import TYPE_CHECKING

from . import processes
from .job import Job

if TYPE_CHECKING:
    from .loop import Launcher

LOOK = 0.25
"""Seconds between looks at a process of which no pidfd can be had."""


class Following:
    """Learns when an adopted leader is gone, and how it ended where the kernel tells."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def follow(self, job: Job) -> None:
        """Watch for the end of `job`, and have its limits kept until then."""
        launcher = self._launcher
        job.pidfd = processes.open_pidfd(job.pid, job.start)
        if job.pidfd is not None:
            launcher.selector.register(
                job.pidfd, selectors.EVENT_READ, lambda _mask: self._ended(job)
            )
        else:
            launcher.timers.at(0.0, lambda: self._look_at(job))
        if job.walltime is not None:
            launcher.walltimes.arm(job.tag, job.walltime - processes.age(job.start))
        launcher.sampling.watch(job)

    def _look_at(self, job: Job) -> None:
        if job.state == "running" and self._launcher.roster.jobs.get(job.tag) is job:
            process = processes.read_process(job.pid)
            if process is None or process.start != job.start or process.dead:
                self._ended(job)
            else:
                self._launcher.timers.at(LOOK, lambda: self._look_at(job))

    def _ended(self, job: Job) -> None:
        """Take the exit status from the kernel where it keeps one, else say that it is lost."""
        if job.state != "running":
            return
        launcher = self._launcher
        status = processes.pidfd_status(job.pidfd) if job.pidfd is not None else None
        if status is None:
            status = processes.zombie_status(job.pid)
        if job.pidfd is not None:
            with contextlib.suppress(KeyError):
                launcher.selector.unregister(job.pidfd)
        process = processes.read_process(job.pid)
        waiting = process is not None and process.start == job.start
        if status is None and job.pidfd is not None and job.tries < (200 if waiting else 3):
            # Its parent has not reaped it yet; the kernel tells the status afterwards.
            job.tries += 1
            launcher.timers.at(0.01, lambda: self._ended(job))
            return
        if job.pidfd is not None:
            os.close(job.pidfd)
            job.pidfd = None
        launcher.roster.by_pid.pop(job.pid, None)
        job.state = "ended"
        left = bool(launcher.lineage.members([job])) or job.inhabited
        if status is None and job.cause is None:
            job.message = "its launcher was killed, and the system did not keep how it ended"
        launcher.reaping.ended(job, status, None, left=left)
