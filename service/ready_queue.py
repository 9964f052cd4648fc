"""The jobs that could start as far as they themselves are concerned, in line.

Pure. Jobs are grouped by the shape of their requests, so that a decision looks at one
job of each shape and not at every job. Also remembered here between decisions: how
long the job that is first in line has been passed by, and what it has reserved. It must
not decide anything: that is `scheduling`.
"""

from __future__ import annotations

from itertools import islice
from typing import NamedTuple

from ..scheduler_adapters.contract import ResourceRequest
from .model import QueuedRequest
from .ranking import Ranking
from .resources import LOCAL, HostFacts, Limits, Needs, needs_of, size_class


class Ready(NamedTuple):
    """One job in line. The order of these tuples is the order of the line."""

    rank: int
    """The priority, negated: higher ones come first."""
    age: float
    id: int
    request: ResourceRequest
    walltime: float | None
    shape: Shape


class Shape:
    """The jobs in line whose requests are alike: equal but for the last eighth of their sizes."""

    __slots__ = ("aside", "key", "needs", "possible", "ranking", "request", "target")

    def __init__(self, key: tuple[object, ...], request: ResourceRequest, target: str) -> None:
        self.key = key
        self.target = target
        self.request = request
        """The first one seen; most others are this very object."""
        self.needs = needs_of(request, target)
        self.ranking: Ranking[Ready] = Ranking()
        self.aside: dict[int, Ready] = {}
        """Jobs that are impossible under the limits in force, out of the others' way."""
        self.possible: bool | None = None
        """Under the limits in force: all of them, none, or (None) some or not known."""

    def needs_for(self, request: ResourceRequest) -> Needs:
        """Return the exact needs of one job of this shape."""
        return self.needs if request is self.request else needs_of(request, self.target)


class Stalled:
    """A job that is first in line and does not fit: what it has suffered so far."""

    __slots__ = ("entry", "horizon", "lacks", "overtaken", "reserved", "since")

    def __init__(self, entry: Ready, since: float) -> None:
        self.entry = entry
        self.since = since
        self.overtaken = 0
        self.lacks: frozenset[str] = frozenset()
        self.reserved: dict[str, int] = {}
        """Reserved dimensions, each with the serial of the first grant made since."""
        self.horizon = since
        """The last known end of all that ran when it reserved."""


class ReadyQueue:
    """The line: by priority, then by age, then by id.

    The attributes below are the memory of `scheduling` between two decisions.
    """

    def __init__(self) -> None:
        self._jobs: dict[int, Ready] = {}
        self._order: Ranking[Ready] = Ranking()
        self.shapes: dict[tuple[object, ...], Shape] = {}
        self.heads: Ranking[Ready] = Ranking()
        """The first of each shape, of those that are not set aside."""
        self.elsewhere = 0
        """How many of the jobs are for other targets than this machine."""
        self.stalled: dict[int, Stalled] = {}
        self.reserving: list[Stalled] = []
        """Those that had reserved something at the last decision, in the order of the line."""
        self.left: dict[str, int] = {}
        """What the last decision left of every limited dimension; below 0 where a limit
        was lowered under what runs."""
        self.closed = False
        """No local job could start at the last decision, for reasons outside."""
        self._bounds: tuple[Limits, int | None] | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def get(self, job_id: int) -> Ready | None:
        """Return a job in line, None where it is not."""
        return self._jobs.get(job_id)

    def add(
        self,
        job_id: int,
        *,
        priority: int,
        age: float,
        request: ResourceRequest,
        walltime: float | None = None,
        target: str = LOCAL,
    ) -> None:
        """Put a job in line; the smaller `age` is the older. One in line is put anew."""
        self.remove(job_id)
        key = (
            target,
            request.cores,
            size_class(request.memory),
            size_class(request.disk),
            request.gpus,
            request.licenses,
            request.queue if isinstance(request, QueuedRequest) else None,
            walltime_class(walltime),
        )
        shape = self.shapes.get(key)
        if shape is None:
            shape = self.shapes[key] = Shape(key, request, target)
        elif request is not shape.request and request == shape.request:
            request = shape.request
        entry = Ready(-priority, age, job_id, request, walltime, shape)
        self._jobs[job_id] = entry
        self._order.add(entry)
        self._line_up(entry)
        if target != LOCAL:
            self.elsewhere += 1

    def remove(self, job_id: int) -> bool:
        """Take a job out of the line; False where it was not in it."""
        entry = self._jobs.pop(job_id, None)
        if entry is None:
            return False
        self._order.remove(entry)
        shape = entry.shape
        if shape.aside.pop(job_id, None) is None:
            self._step_out(entry)
        if shape.target != LOCAL:
            self.elsewhere -= 1
        if not shape.ranking and not shape.aside:
            del self.shapes[shape.key]
        if self.stalled.pop(job_id, None) is not None:
            self.reserving = [item for item in self.reserving if item.entry.id != job_id]
        return True

    def change(
        self,
        job_id: int,
        *,
        priority: int | None = None,
        request: ResourceRequest | None = None,
        walltime: float | None = None,
    ) -> None:
        """Change what is given of a job in line; its age and the rest stay.

        Raises `KeyError` where it is not in line. To take a walltime away, add it anew.
        """
        entry = self._jobs[job_id]
        self.add(
            job_id,
            priority=-entry.rank if priority is None else priority,
            age=entry.age,
            request=entry.request if request is None else request,
            walltime=entry.walltime if walltime is None else walltime,
            target=entry.shape.target,
        )

    def position(self, job_id: int) -> int | None:
        """Return 1 for the first in line, 2 for the next, …; None where it is not in line."""
        entry = self._jobs.get(job_id)
        return None if entry is None else self._order.before(entry) + 1

    def in_order(self, limit: int | None = None) -> list[int]:
        """Return the ids of the first `limit` jobs in line."""
        return [entry.id for entry in islice(self._order, limit)]

    def bind(self, limits: Limits, host: HostFacts) -> None:
        """Forget what was found impossible where the limits are not those of before."""
        if self._bounds is not None:
            before, disk_total = self._bounds
            if before is limits and disk_total == host.disk_total:
                return
        self._bounds = (limits, host.disk_total)
        for shape in self.shapes.values():
            shape.possible = None
            for entry in shape.aside.values():
                self._line_up(entry)
            shape.aside.clear()

    def set_aside(self, entry: Ready) -> None:
        """Put an impossible job out of the way of the others of its shape."""
        self._step_out(entry)
        entry.shape.aside[entry.id] = entry

    def _line_up(self, entry: Ready) -> None:
        ranking = entry.shape.ranking
        head = ranking.first
        ranking.add(entry)
        if head is None or entry < head:
            if head is not None:
                self.heads.remove(head)
            self.heads.add(entry)

    def _step_out(self, entry: Ready) -> None:
        ranking = entry.shape.ranking
        is_head = ranking.first is entry
        ranking.remove(entry)
        if is_head:
            self.heads.remove(entry)
            head = ranking.first
            if head is not None:
                self.heads.add(head)


def walltime_class(walltime: float | None) -> int:
    """Group walltimes by powers of four, so that jobs that end soon are found behind long ones."""
    return -1 if walltime is None else int(walltime).bit_length() // 2
