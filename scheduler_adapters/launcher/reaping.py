"""Taking exit statuses from the kernel, and recording how each leader ended."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING

from . import processes
from .faultpoint import faultpoint
from .job import Job
from .journal import Record

if TYPE_CHECKING:
    from .loop import Launcher

LEFTOVER_GRACE = 2.0
"""Seconds that what a leader leaves behind gets between the polite signal and the kill."""


class Reaping:
    """Meets the end of every child of the launcher."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def reap(self) -> None:
        """Take all exit statuses there are, record them, and look at what was left behind."""
        launcher = self._launcher
        over: list[tuple[Job, int, resource.struct_rusage]] = []
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            job = launcher.roster.by_pid.pop(pid, None)
            if job is not None:
                over.append((job, status, used))
            elif not launcher.sampling.ended(pid):
                launcher.lineage.reaped(pid)
                launcher.ending.look_soon()
        if over:
            faultpoint("launcher.reaped")
            left = launcher.lineage.left_behind([job for job, _, _ in over])
            for job, status, used in over:
                self.ended(job, status, used, left=job.tag in left or job.inhabited)
            launcher.journal.flush()
            faultpoint("launcher.recorded-ended")
            launcher.lineage.sweep_later()

    def ended(
        self, job: Job, status: int | None, used: resource.struct_rusage | None, *, left: bool
    ) -> None:
        """Record how a leader ended, and end what it left behind.

        `status` is None where it is lost, and `used` where somebody else reaped it.
        """
        launcher = self._launcher
        record: Record = {"r": "ended", "tag": job.tag, "t": time.time()}
        if status is None:
            record["cause"] = job.cause or "lost"
        else:
            if os.WIFSIGNALED(status):
                record["sig"] = os.WTERMSIG(status)
            else:
                record["code"] = os.WEXITSTATUS(status)
            record["cause"] = job.cause or "own"
        if record.get("sig") == signal.SIGKILL and job.cause is None:
            # The cgroup of the job knows; without one, what happened on the host may explain it.
            if job.cgroup is not None and job.cgroup.oom_kills():
                record["cause"] = "out_of_memory"
            elif job.cgroup is None and launcher.oom.acted_lately():
                record["cause"] = "out_of_memory"
                job.message = (
                    "it was ended by SIGKILL while the system's out-of-memory killer was at work"
                )
        if job.message:
            record["msg"] = job.message
        if used is None:
            record["wall"] = round(processes.age(job.start), 4)
            record["utime"], record["stime"], record["rss"] = round(job.cpu, 2), 0.0, job.peak
        else:
            record["wall"] = round(time.monotonic() - job.began, 4)
            record["utime"], record["stime"] = round(used.ru_utime, 4), round(used.ru_stime, 4)
            record["rss"] = max(_own_peak(used.ru_maxrss), job.peak)
        record["left"] = left
        launcher.journal.add(record)
        job.state = "ended"
        if left:
            launcher.ending.end_leftover(job, min(job.grace, LEFTOVER_GRACE))
        else:
            launcher.release(job)


def _own_peak(maxrss: int) -> int:
    """Return the peak of a leader in bytes, 0 where it hides behind ours.

    A child of posix_spawn runs in our memory until it has its own, and the kernel
    takes that for a peak of the child.
    """
    if maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        return 0
    return maxrss * (1 if sys.platform == "darwin" else 1024)
