"""The launcher's side of the sampler: who is watched, and what follows from what was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import processes
from .job import Job
from .journal import Record
from .log import log
from .sampler_link import SamplerLink

if TYPE_CHECKING:
    from .loop import Launcher

OVERRUN_GRACE = 2.0
"""Seconds that a job over a limit gets at most between the polite signal and the kill."""
MAX_FAILURES = 100


class Sampling:
    """Keeps a sampler alive while there is somebody to watch; obeys its word."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._link: SamplerLink | None = None
        self._failures = 0

    def watch(self, job: Job) -> None:
        """Have the processes of `job` sampled."""
        job.watched = True
        if self._link is None and self._failures < MAX_FAILURES:
            lineage = self._launcher.lineage
            self._link = SamplerLink(
                self._launcher.selector, reaper=lineage.reaper, hear=self._hear
            )
            lineage.helpers.add(self._link.pid)
            for other in self._launcher.roster.jobs.values():
                if other.watched and other is not job:
                    self._link.send(_watch_request(other))
        if self._link is not None:
            self._link.send(_watch_request(job))

    def forget(self, job: Job) -> None:
        """Have a job whose tree is empty watched no more."""
        if job.watched and self._link is not None:
            self._link.send({"forget": job.tag})

    def ended(self, pid: int) -> bool:
        """Learn that a child is gone; True where it was the sampler, and another will follow."""
        if self._link is None or pid != self._link.pid:
            return False
        log("the sampler ended unexpectedly; starting another")
        self._link.close()
        self._link = None
        self._launcher.lineage.helpers.discard(pid)
        self._failures += 1
        if self._running():
            self._launcher.timers.at(min(5.0, 0.1 * self._failures), self._watch_again)
        return True

    def _watch_again(self) -> None:
        running = self._running()
        if running and self._link is None:
            self.watch(running[0])

    def _running(self) -> list[Job]:
        jobs = self._launcher.roster.jobs.values()
        return [job for job in jobs if job.watched and job.state == "running"]

    def _hear(self, message: Mapping[str, Any]) -> None:
        """Take the sampler's word."""
        launcher = self._launcher
        jobs = launcher.roster.jobs
        if "oom_kills" in message:
            launcher.oom.note(int(message["oom_kills"]))
        for tag, (peak, cpu) in message.get("peaks", {}).items():
            job = jobs.get(tag)
            if job is not None:
                job.peak, job.cpu = max(job.peak, peak), max(job.cpu, cpu)
        for tag, identities in message.get("seen", {}).items():
            if tag in jobs:
                launcher.lineage.remember(tag, [(pid, start) for pid, start in identities])
        if "over" in message:
            job = jobs.get(message["tag"])
            launcher.reaping.reap()
            if job is not None and job.state == "running":
                job.peak = max(job.peak, int(message.get("rss", 0)))
                grace = min(job.grace, OVERRUN_GRACE)
                launcher.ending.end(job, message["over"], grace, str(message.get("msg", "")))


def _watch_request(job: Job) -> Record:
    return {
        "watch": job.tag,
        "pid": job.pid,
        "start": job.start,
        "age": processes.age(job.start),
        "memory": job.memory,
        "output_limit": job.output_limit,
        "stdout": job.stdout,
        "stderr": job.stderr,
        "usage": job.usage,
        "adopted": job.adopted,
    }
