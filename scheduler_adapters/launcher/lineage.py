"""Whose each process is, as the launcher sees it: the parent of every orphan of its jobs.

As a subreaper the launcher becomes the parent of an orphan at the moment of its
parent's death. So a tree without a leader lives below direct children of the
launcher that are no leaders, and mostly there are none: one cheap look tells.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable

from . import processes
from .job import Job
from .log import log
from .processes import Process
from .roster import Roster
from .timers import Timers
from .trees import Trees

SWEEP_DELAY = 0.2


class Lineage:
    """Attributes processes to the jobs of the roster."""

    def __init__(self, roster: Roster, timers: Timers, *, reaper: bool) -> None:
        self.reaper = os.getpid() if reaper else None
        """The pid of the process that orphans come to: ours, None where that cannot be."""
        self.helpers: set[int] = set()
        """Children of ours that belong to no job."""
        self._roster = roster
        self._timers = timers
        self._trees = Trees(self.reaper)
        self._strangers: dict[int, str | None] = {}
        """Orphans that became our children, and whose they are."""
        self._sweeping = False

    def remember(self, tag: str, identities: Iterable[tuple[int, int]]) -> None:
        """Take somebody else's word for it that these (pid, start) belong to `tag`."""
        self._trees.remember(tag, identities)

    def forget(self, tag: str) -> None:
        """Drop what was remembered of a tree that is gone."""
        self._trees.forget(tag)

    def reaped(self, pid: int) -> None:
        """Learn that an orphan is gone."""
        self._strangers.pop(pid, None)

    def members(self, jobs: Iterable[Job]) -> dict[str, list[Process]]:
        """Return the living processes of these jobs by tag; those without any are left out."""
        wanted = {job.tag for job in jobs}
        leaders = [job.leader for job in self._roster.jobs.values() if job.pid]
        adopted = any(job.adopted for job in self._roster.jobs.values())
        table = processes.table()
        found = self._trees.sort(table, leaders, everyone=adopted)
        if self.reaper is not None:
            for process in table.values():
                if process.ppid == self.reaper and process.pid in self._strangers:
                    tag = self._strangers[process.pid]
                    if tag in wanted and process not in found.get(tag, ()) and not process.dead:
                        found.setdefault(tag, []).append(process)
        return {tag: members for tag, members in found.items() if tag in wanted}

    def left_behind(self, over: list[Job]) -> set[str]:
        """Return the tags of those trees that live on without their leader."""
        direct = processes.children(self.reaper) if self.reaper is not None else None
        if direct is None or any(job.adopted for job in over):
            return set(self.members(over))
        orphans = [
            pid for pid in direct if pid not in self._roster.by_pid and pid not in self.helpers
        ]
        if not orphans:
            self._strangers.clear()
            return set()
        owners = self._attribute(orphans, over)
        return {job.tag for job in over if job.tag in owners}

    def sweep_later(self) -> None:
        """Look again at orphans whose owner could not be told when they were seen."""
        if None in self._strangers.values() and not self._sweeping:
            self._sweeping = True
            self._timers.at(SWEEP_DELAY, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = False
        self._attribute([pid for pid, tag in self._strangers.items() if tag is None], [])

    def _attribute(self, orphans: list[int], over: list[Job]) -> set[str]:
        """Tell whose the orphans are that live below us; returns all owners."""
        jobs = self._roster.jobs
        leaders = {job.pid: job for job in [*jobs.values(), *over] if job.pid}
        found = set()
        for pid in orphans:
            tag = self._strangers.get(pid)
            if tag is None or tag not in jobs:
                process = processes.read_process(pid)
                if process is None or process.dead:
                    continue
                owner = leaders.get(process.session) or leaders.get(process.pgrp)
                tag = owner.tag if owner is not None else processes.read_tag(pid)
                if tag not in jobs:
                    tag = self._only_candidate(process)
                self._strangers[pid] = tag
            if tag is not None:
                found.add(tag)
        return found

    def _only_candidate(self, process: Process) -> str | None:
        """Attribute an orphan that hides its origin, where only one job can have made it."""
        able = [job for job in self._roster.jobs.values() if job.pid and job.start <= process.start]
        if len(able) == 1:
            self._trees.remember(able[0].tag, [(process.pid, process.start)])
            return able[0].tag
        if not able:
            log("process %d is left over from a job that is gone, and is ended", process.pid)
            processes.send_signal(process.pid, process.start, signal.SIGKILL)
        return None


def become_subreaper() -> bool:
    """Have orphans of our jobs become our children (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if not processes.LINUX:
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.prctl(36, 1, 0, 0, 0) == 0 and processes.children(os.getpid()) is not None
    except (OSError, AttributeError):
        return False
