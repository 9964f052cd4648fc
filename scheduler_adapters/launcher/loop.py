"""The launcher itself: one thread that waits, and the parts that do the work.

Each part owns its state and reaches the others through the `Launcher` that all share.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable

from . import processes
from .cgroup import Cgroups
from .connection import Connection
from .ending import Ending
from .following import Following
from .job import Job
from .journal import Journal, Record
from .lineage import Lineage, become_subreaper
from .listener import Listener
from .log import log
from .nursery import Nursery
from .oom import OomKiller
from .operations import Operations
from .reaping import Reaping
from .roster import Roster
from .sampling import Sampling
from .starting import Starting
from .timers import Timers, Walltimes

STUCK_PAUSE = 0.5
"""Seconds between attempts to write while the disk refuses."""


class Launcher:
    """Waits for requests, ends of processes and times, and has each met in turn."""

    def __init__(self, home: str, *, sync: bool, idle: float, cgroup_root: str | None) -> None:
        self.boot = processes.boot_id()
        self.journal = Journal(os.path.join(home, "launcher"), sync=sync)
        self.selector = selectors.DefaultSelector()
        self.timers = Timers()
        self.roster = Roster()
        self.walltimes = Walltimes(self.roster.jobs)
        self.oom = OomKiller()
        self.cgroups = Cgroups(cgroup_root, self.timers)
        self.lineage = Lineage(self.roster, self.timers, reaper=become_subreaper())
        self.starting = Starting(self)
        self.nursery = Nursery(self)
        self.sampling = Sampling(self)
        self.following = Following(self)
        self.reaping = Reaping(self)
        self.ending = Ending(self)
        self.operations = Operations(self)
        self.connection: Connection | None = None
        """The one to the present manager."""
        self.epoch = 0
        """The latest manager's."""
        self.leaving = False
        self._idle = idle
        self._idle_since: float | None = time.monotonic()

    def run(self, listener: Listener) -> None:
        """Serve until there is nothing left to do."""
        woken = _wakeup_by_signals()
        self.selector.register(woken, selectors.EVENT_READ, lambda _mask: _drain(woken))
        self.selector.register(listener, selectors.EVENT_READ, lambda _mask: self._accept(listener))
        while not self.leaving:
            for key, mask in self.selector.select(self._patience()):
                try:
                    key.data(mask)
                except Exception:
                    log("unexpected: %s", traceback.format_exc())
            self._guarded(self.reaping.reap)
            self._run_timers()
            self._guarded(self.starting.start_ready)
            self._guarded(self._settle)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            # No job, however strange, may end the launcher of all the others.
            log("unexpected in %s: %s", step.__name__, traceback.format_exc())

    def _patience(self) -> float | None:
        if self.roster.ready and not self.journal.stuck:
            return 0.0
        now = time.monotonic()
        times = (
            self.timers.next,
            self.walltimes.next,
            self.ending.next,
            now + STUCK_PAUSE if self.journal.stuck else None,
            self._idle_since + self._idle if self._idle_since is not None else None,
        )
        due = min((when for when in times if when is not None), default=None)
        return max(0.0, due - now) if due is not None else None

    def _run_timers(self) -> None:
        for action in self.timers.due():
            self._guarded(action)
        self._guarded(self._end_overdue)
        self._guarded(self.ending.look_if_due)

    def _end_overdue(self) -> None:
        for tag in self.walltimes.due():
            self.reaping.reap()  # who has ended by himself already was not ended by us
            job = self.roster.jobs.get(tag)
            if job is not None and job.state == "running":
                self.ending.end(job, "timeout", job.grace)

    def _settle(self) -> None:
        """End an iteration: write, tell, and see whether we are still needed."""
        if self.journal.flush() and self.journal.full:
            self.journal.rotate(self._head())
        if self.connection is not None:
            self.connection.pump()
        if self.roster.jobs or self.connection is not None or self.journal.stuck:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()
        elif time.monotonic() >= self._idle_since + self._idle:
            self.leaving = True

    def _head(self) -> list[Record]:
        """Repeat all that is open, for the head of a generation."""
        head = [self.birth_record()]
        for job in self.roster.jobs.values():
            if job.state != "waiting":
                head.append(job.again_record(self.boot))
            if job.state == "ended":
                head.append({"r": "ended", "tag": job.tag, "left": True, "again": True})
        return head

    def birth_record(self) -> Record:
        """Tell who writes a generation."""
        return {"r": "launcher", "t": time.time(), "pid": os.getpid(), "boot": self.boot}

    def _accept(self, listener: Listener) -> None:
        link = listener.accept()
        if link is not None:
            connection = Connection(self, link)
            self.selector.register(link, selectors.EVENT_READ, connection.ready)

    def take_over(self, connection: Connection, epoch: int) -> bool:
        """Let the newest manager in and the one before out; False where it is older."""
        if epoch < self.epoch:
            return False
        self.epoch = epoch
        if self.connection is not None and self.connection is not connection:
            # Its unread requests must not be obeyed after the new manager took stock.
            self.connection.close("another manager took over")
        self.connection = connection
        return True

    def withdraw(self, tag: str) -> bool:
        """Have an attempt that waits never start; False where there is none."""
        job = self.roster.jobs.get(tag)
        if job is None or job.state != "waiting":
            return False
        self.roster.withdraw(job)
        self.journal.add({"r": "withdrawn", "tag": tag, "t": time.time()})
        self.release(job)
        return True

    def release(self, job: Job) -> None:
        """Let go of a job that is over; who waited for it may start."""
        self.roster.remove(job)
        self.nursery.forget(job)
        self.ending.forget(job)
        self.sampling.forget(job)
        if job.kill_at is not None or job.watched:
            self.lineage.forget(job.tag)
        if job.cgroup is not None:
            self.cgroups.drop(job.cgroup)


def _wakeup_by_signals() -> int:
    """Return a descriptor that is readable after a child has ended."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    return reading


def _drain(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError, InterruptedError):
        while os.read(descriptor, 4096):
            pass
