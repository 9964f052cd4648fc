"""Who is here and who waits for whom. Pure: no processes, no clock, no records."""

from __future__ import annotations

from collections import OrderedDict

from .job import Job

REMEMBERED = 20_000


class Roster:
    """The attempts that the launcher holds."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.by_pid: dict[int, Job] = {}
        """Those that run and whose parent we are, by the pid of their leader."""
        self.ready: list[Job] = []
        """Those that are to be started now, in order."""
        self._followers: dict[str, list[Job]] = {}
        """Those that wait until the tree of this tag is empty."""
        self._recent: OrderedDict[str, None] = OrderedDict()

    def knows(self, tag: str) -> bool:
        """Return whether `tag` is here, or was lately: a start is never repeated."""
        return tag in self.jobs or tag in self._recent

    def add(self, job: Job) -> None:
        """Take an attempt: it starts at once, or after the one that it names."""
        self.adopt(job)
        if job.after is not None and job.after in self.jobs:
            self._followers.setdefault(job.after, []).append(job)
        else:
            self.ready.append(job)

    def adopt(self, job: Job) -> None:
        """Take an attempt that has started already."""
        self.jobs[job.tag] = job
        self._recent[job.tag] = None
        while len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)

    def withdraw(self, job: Job) -> None:
        """Have an attempt that waits never start."""
        if job in self.ready:
            self.ready.remove(job)
        before = self._followers.get(job.after, []) if job.after is not None else []
        if job in before:
            before.remove(job)
            # Who waited for this one now waits for the one before it: the grant is still in use.
            heirs = self._followers.pop(job.tag, [])
            for heir in heirs:
                heir.after = job.after
            before += heirs

    def remove(self, job: Job) -> None:
        """Let go of an attempt that is over; who waited for it is ready."""
        self.jobs.pop(job.tag, None)
        self.ready.extend(self._followers.pop(job.tag, ()))
