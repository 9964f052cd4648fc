"""Adoption: what became of the attempts that an earlier launcher left open.

Evidence only: its records, the processes that live, and what the kernel keeps. Where
there is none, an attempt is lost or interrupted, never a success.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import processes
from .job import Job
from .journal import Record, generations, read_unfinished
from .log import log
from .processes import Process
from .reaping import LEFTOVER_GRACE

if TYPE_CHECKING:
    from .loop import Launcher


class Adoption:
    """Decides what became of the attempts that an earlier launcher left open."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.records: list[Record] = []
        self._running: list[Job] = []
        self._leftover: list[Job] = []
        self._tagged: dict[str, list[Process]] = {}

    def from_records(self) -> list[Record]:
        """Read the newest generation; return the head of the next one."""
        journal = self._launcher.journal
        known = generations(journal.folder)
        self.records = [self._launcher.birth_record()]
        if known:
            unfinished, boot = read_unfinished(journal.path(known[-1]))
            if unfinished:
                log("taking over %d attempts of an earlier launcher", len(unfinished))
            self.search(set(unfinished))
            if any("started" not in unfinished[tag] for tag in unfinished.keys() - self._tagged):
                # Between two steps of execve(2) a process shows no environment at all.
                time.sleep(0.1)
                self.search(set(unfinished))
            for tag, facts in unfinished.items():
                try:
                    self.consider(tag, facts, boot)
                except Exception:
                    log("cannot take over %s: %s", tag, traceback.format_exc())
                    self._over(tag, "lost", "the records of it cannot be understood")
        return self.records

    def search(self, tags: set[str]) -> None:
        """Find the living processes of all `tags` in one pass."""
        self._tagged = processes.find_tagged(tags)

    def consider(self, tag: str, facts: Mapping[str, Record], boot: str) -> None:
        """Decide about one attempt; later `follow` what lives."""
        started = facts.get("started")
        if started is not None:
            started = {**facts.get("starting", {}), **started}
        living = self._tagged.get(tag, [])
        if started is not None:
            if str(started.get("boot") or boot) != self._launcher.boot:
                self._interrupted(tag, facts)
                return
            self._consider_started(tag, started, living, "ended" in facts)
        elif boot and boot != self._launcher.boot:
            self._interrupted(tag, facts)
        else:
            self._consider_starting(tag, facts.get("starting") or {}, living)

    def _interrupted(self, tag: str, facts: Mapping[str, Record]) -> None:
        if "ended" in facts:
            self.records.append({"r": "cleared", "tag": tag, "t": time.time()})
        else:
            self._over(tag, "interrupted", "the host was restarted while the job ran")

    def _consider_started(
        self, tag: str, record: Record, living: list[Process], ended: bool
    ) -> None:
        job = self._job(tag, record, int(record["pid"]), int(record["start"]))
        process = processes.read_process(job.pid)
        mine = process is not None and process.start == job.start
        if mine and processes.read_tag(job.pid) not in (None, tag):
            mine = False
        if ended:
            self._leftover.append(job)
            self.records.append(job.again_record(self._launcher.boot))
            self.records.append({"r": "ended", "tag": tag, "left": True, "again": True})
        elif mine and process is not None and not process.dead:
            self._running.append(job)
            self.records.append(job.again_record(self._launcher.boot))
        else:
            status = processes.zombie_status(job.pid) if mine else None
            left = any(other.pid != job.pid for other in living) or job.inhabited
            if left:
                self.records.append(job.again_record(self._launcher.boot))
            self._over(
                tag,
                "lost",
                "its launcher was killed, and it ended before the next one could see how",
                left=left,
                status=status,
            )
            if left:
                self._leftover.append(job)

    def _consider_starting(self, tag: str, record: Record, living: list[Process]) -> None:
        leaders = [process for process in living if process.session == process.pid]
        if not living:
            self._over(
                tag,
                "lost",
                "its launcher was killed while it started it; no process of it is left, and "
                "whether it ran is not known",
            )
            return
        first = min(leaders or living, key=lambda process: process.start)
        job = self._job(tag, record, first.pid, first.start)
        fresh = {**job.again_record(self._launcher.boot)}
        del fresh["again"]
        self.records.append(fresh)
        if first in leaders:
            self._running.append(job)
        else:
            message = "its launcher was killed while it started it; its leader is gone"
            self._over(tag, "lost", message, left=True)
            self._leftover.append(job)

    def _job(self, tag: str, record: Record, pid: int, start: int) -> Job:
        job = Job({**record, "tag": tag, "argv": ["?"]})
        job.pid, job.start, job.adopted, job.state = pid, start, True, "running"
        job.grace = float(record.get("grace", 10.0))
        job.cgroup = self._launcher.cgroups.find(record.get("cgroup"))
        return job

    def _over(
        self, tag: str, cause: str, message: str, *, left: bool = False, status: int | None = None
    ) -> None:
        record: Record = {"r": "ended", "tag": tag, "t": time.time(), "left": left}
        if status is None:
            record.update(cause=cause, msg=message)
        elif os.WIFSIGNALED(status):
            record.update(cause="own", sig=os.WTERMSIG(status))
        else:
            record.update(cause="own", code=os.WEXITSTATUS(status))
        self.records.append(record)

    def follow(self) -> None:
        """Take up what lives; call it once the records of it are written."""
        launcher = self._launcher
        for job in self._running:
            launcher.roster.adopt(job)
            launcher.following.follow(job)
        for job in self._leftover:
            job.state = "ended"
            launcher.roster.adopt(job)
            launcher.ending.end_leftover(job, LEFTOVER_GRACE)
