"""Ending whole trees: the polite signal, a grace, the kill, until nobody is left."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import processes
from .job import Job
from .processes import Process

if TYPE_CHECKING:
    from .loop import Launcher

ROUNDS = 5


class Ending:
    """Owns the trees that shall end, and when to look at them next."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._jobs: dict[str, Job] = {}
        self.next: float | None = None
        """Monotonic time of the next look, None without any."""

    def end(self, job: Job, cause: str, grace: float, message: str = "") -> None:
        """End all processes of a job: polite signal, `grace` seconds, kill. Idempotent."""
        if job.state == "running" and job.cause is None:
            job.cause, job.message = cause, message
        self._want(job, max(0.0, grace))

    def end_leftover(self, job: Job, grace: float) -> None:
        """End what the leader of a job left behind."""
        self._want(job, grace)

    def forget(self, job: Job) -> None:
        """Drop a job whose tree is empty."""
        self._jobs.pop(job.tag, None)

    def look_soon(self) -> None:
        """Look at the trees at the next occasion, as something in them has changed."""
        if self._jobs:
            self._look_later(0.0)

    def look_if_due(self) -> None:
        """Look at the trees where it is time for that."""
        if self.next is not None and self.next <= time.monotonic():
            self.next = None
            self._look()

    def _want(self, job: Job, grace: float) -> None:
        now = time.monotonic()
        kill_at = now + grace
        job.kill_at = kill_at if job.kill_at is None else min(job.kill_at, kill_at)
        if job.tag not in self._jobs:
            job.asked_at = now
            self._jobs[job.tag] = job
        self._look_later(0.0)

    def _look_later(self, delay: float) -> None:
        due = time.monotonic() + delay
        if self.next is None or due < self.next:
            self.next = due

    def _look(self) -> None:
        """Signal every process of every tree that shall end; let go of those that are empty."""
        launcher = self._launcher
        for _round in range(ROUNDS):
            jobs = list(self._jobs.values())
            if not jobs:
                break
            found = launcher.lineage.members(jobs)
            killed = False
            now = time.monotonic()
            for job in jobs:
                members = found.get(job.tag, ())
                if job.state == "ended" and not members and not job.inhabited:
                    launcher.journal.add({"r": "cleared", "tag": job.tag, "t": time.time()})
                    launcher.release(job)
                elif job.kill_at is not None and now >= job.kill_at:
                    for process in members:
                        killed |= processes.send_signal(process.pid, process.start, signal.SIGKILL)
                    if job.cgroup is not None:
                        killed |= job.cgroup.kill()
                else:
                    _ask(job, members)
            # Only a look that finds nobody proves that nobody was born meanwhile.
            if not killed:
                break
            launcher.reaping.reap()
        if self._jobs:
            self._look_later(min(map(_next_look, self._jobs.values())))


def _ask(job: Job, members: Iterable[Process]) -> None:
    for process in members:
        identity = (process.pid, process.start)
        if identity not in job.politely:
            job.politely.add(identity)
            # A stopped process only hears the polite signal once it goes on.
            processes.send_signal(*identity, signal.SIGTERM, signal.SIGCONT)


def _next_look(job: Job) -> float:
    """Look again soon at first, more seldom at who does not listen or cannot die."""
    now = time.monotonic()
    delay = max(0.02, min(0.5, (now - job.asked_at) / 8))
    if job.kill_at is not None and now < job.kill_at:
        return min(delay, job.kill_at - now)
    return delay
