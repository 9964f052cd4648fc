"""Who starts now, who waits and for what.

Pure: no clock, no loop, no store; the time, the host's facts and what runs come in as
arguments. What is remembered between decisions is in the `ReadyQueue`: the waiting
jobs, grouped by the shape of their requests, and how long the one that waits first has
been passed by others. A decision looks at one job of each shape and at those it starts.

Order is by priority, then by age, then by id. A job that does not fit lets others pass
(backfill), but not for ever: after `Policy.overtake_limit` of them, or
`Policy.reserve_after` seconds, it reserves what it lacks. From then on only jobs slip
past that do not put off its turn: they end by their walltime before it, or fit beside
it. (The rule is that of EASY backfilling: Lifka 1995, "The ANL/IBM SP scheduling
system".) Where nobody knows when running jobs will end there is no turn to end before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace
from itertools import islice
from typing import NamedTuple

from ..scheduler_adapters.contract import ResourceRequest
from .ranking import Ranking
from .resources import (
    CORES,
    DISK,
    GPUS,
    JOBS,
    LICENSE,
    LOCAL,
    MEMORY,
    SUBMITTED,
    HostFacts,
    Ledger,
    Limits,
    Needs,
    amount,
    below_class,
    beyond,
    capacity,
    closed,
    needs_of,
    size_class,
)
from .quantities import format_size

_SET_ASIDE_AT_ONCE = 64
"""Jobs of one shape that one decision may set aside as impossible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long the first waiting job lets others pass."""

    overtake_limit: int = 20
    reserve_after: float = 300.0
    """Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What holds a grant, and when it will be over at the latest."""

    request: ResourceRequest
    ends_by: float | None = None
    """By the clock of the decisions' `now`; None where nobody knows."""
    target: str = LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job about which somebody asks why it waits."""

    request: ResourceRequest
    walltime: float | None = None
    target: str = LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which jobs start now, in this order."""

    starts: tuple[int, ...] = ()
    again: bool = False
    """True where more could be decided at once: the decision was cut short."""
    recheck: bool = False
    """True where jobs wait for the host itself: decide again when its facts change."""


class Ready(NamedTuple):
    """One ready job. The order of these tuples is the order of the jobs."""

    rank: int
    """The priority, negated: higher ones come first."""
    age: float
    id: int
    request: ResourceRequest
    walltime: float | None
    shape: Shape


class Shape:
    """The ready jobs whose requests are alike: equal but for the last eighth of their sizes."""

    __slots__ = ("aside", "key", "lacks", "needs", "possible", "ranking", "request", "target")

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
        """Under the limits in force: every one, none, or (None) some or not known."""
        self.lacks: tuple[int, frozenset[str]] | None = None
        """The job that was first at the last decision, and what it did not get."""

    def needs_for(self, request: ResourceRequest) -> Needs:
        """Return the exact needs of one job of this shape."""
        return self.needs if request is self.request else needs_of(request, self.target)


class Stalled:
    """A job that is first in line and does not fit: what it has suffered so far."""

    __slots__ = ("entry", "lacks", "overtaken", "reserved", "since")

    def __init__(self, entry: Ready, since: float) -> None:
        self.entry = entry
        self.since = since
        self.overtaken = 0
        self.lacks: frozenset[str] = frozenset()
        self.reserved: dict[str, int] = {}
        """What it has reserved: dimension, and the serial of the first grant made since."""


class ReadyQueue:
    """The jobs that could start as far as they themselves are concerned."""

    def __init__(self) -> None:
        self._jobs: dict[int, Ready] = {}
        self._order: Ranking[Ready] = Ranking()
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._stalled: dict[int, Stalled] = {}
        self._reserving: list[Stalled] = []
        self._bounds: tuple[object, ...] = ()
        self._over: frozenset[str] = frozenset()
        self._closed = False

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    @property
    def shapes(self) -> int:
        """How many different shapes wait; the cost of a decision grows with it."""
        return len(self._shapes)

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
        """Put a job in line; smaller `age` is older. One that is in line is put anew."""
        self.remove(job_id)
        key = (
            target,
            request.cores,
            size_class(request.memory),
            size_class(request.disk),
            request.gpus,
            request.licenses,
            _walltime_class(walltime),
        )
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = Shape(key, request, target)
        elif request == shape.request:
            request = shape.request
        entry = Ready(-priority, age, job_id, request, walltime, shape)
        self._jobs[job_id] = entry
        self._order.add(entry)
        shape.ranking.add(entry)

    def remove(self, job_id: int) -> bool:
        """Take a job out of the line; False where it is not in it."""
        entry = self._jobs.pop(job_id, None)
        if entry is None:
            return False
        self._order.remove(entry)
        shape = entry.shape
        if shape.aside.pop(job_id, None) is None:
            shape.ranking.remove(entry)
        if not shape.ranking and not shape.aside:
            del self._shapes[shape.key]
        if self._stalled.pop(job_id, None) is not None:
            self._reserving = [item for item in self._reserving if item.entry.id != job_id]
        return True

    def change(
        self,
        job_id: int,
        *,
        priority: int | None = None,
        request: ResourceRequest | None = None,
        walltime: float | None = None,
    ) -> None:
        """Change what is given of a job in line, its age and the rest stay.

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
        """Return how many jobs are in line before this one, plus one; None if it is not in line."""
        entry = self._jobs.get(job_id)
        return None if entry is None else self._order.before(entry) + 1

    def in_order(self, limit: int | None = None) -> list[int]:
        """Return the ids of the first `limit` jobs in line."""
        return [entry.id for entry in islice(self._order, limit)]

    def _bound(self, limits: Limits, host: HostFacts) -> None:
        """Forget what was found impossible when what is possible has changed."""
        bounds = (limits, host.disk_total)
        if self._bounds and self._bounds[0] is limits and self._bounds[1] == host.disk_total:
            return
        self._bounds = bounds
        for shape in self._shapes.values():
            shape.possible = None
            for entry in shape.aside.values():
                shape.ranking.add(entry)
            shape.aside.clear()


def _walltime_class(walltime: float | None) -> int:
    """Group walltimes by powers of four: jobs that end soon are found behind ones that do not."""
    return -1 if walltime is None else int(walltime).bit_length() // 2


# -- deciding --------------------------------------------------------------------------


@dataclass(slots=True)
class _Reservation:
    """What one stalled job keeps for itself, for the length of one decision."""

    turn: float
    """When it will be able to start; infinite where nobody knows."""
    spare: dict[str, int]
    """By reserved dimension, what may be occupied beyond the turn without harm."""

    def admits(self, needs: Needs, ends_by: float) -> bool:
        """True where a job that starts now does not put off the turn."""
        spare = self.spare
        touched = [(name, count) for name, count in needs if name in spare]
        if not touched or (ends_by <= self.turn and self.turn < math.inf):
            return True
        return all(count <= spare[name] for name, count in touched)

    def charge(self, needs: Needs, ends_by: float) -> None:
        """Take note that such a job starts."""
        if ends_by > self.turn or self.turn == math.inf:
            for name, count in needs:
                if name in self.spare:
                    self.spare[name] -= count


class _Round:
    """The work of one decision."""

    def __init__(
        self,
        queue: ReadyQueue,
        ledger: Ledger,
        limits: Limits,
        host: HostFacts,
        running: Sequence[Running],
        policy: Policy,
        now: float,
    ) -> None:
        self.queue = queue
        self.ledger = ledger
        self.limits = limits
        self.host = host
        self.running = running
        self.policy = policy
        self.now = now
        self.capacity = capacity(limits, host)
        self.free = ledger.free(limits, host)
        self.closed = closed(limits, host) is not None
        self.starts: list[int] = []
        self.started: list[tuple[Needs, float]] = []
        self.first: dict[str, Stalled] = {}
        """The first one in line of each target that does not fit."""
        self.reservations: list[_Reservation] = []
        self.reserving: list[Stalled] = []
        self.again = False
        self.recheck = False

    def decide(self, at_most: int | None) -> Decision:
        """Walk the heads of the shapes in the order of the line."""
        queue = self.queue
        queue._bound(self.limits, self.host)
        heads = self._heads()
        heapify(heads)
        while heads:
            if at_most is not None and len(self.starts) >= at_most:
                self.again = True
                break
            entry, others = heads[0]
            following = self._next(entry, others) if self._consider(entry) else None
            if following is None:
                heappop(heads)
            else:
                heapreplace(heads, (following, others))
        queue._reserving = self.reserving
        queue._closed = self.closed
        queue._over = frozenset(
            name
            for name, count in self.ledger.amounts.items()
            if count > self.capacity.get(name, count)
        )
        return Decision(starts=tuple(self.starts), again=self.again, recheck=self.recheck)

    def _heads(self) -> list[tuple[Ready, Iterator[Ready]]]:
        heads: list[tuple[Ready, Iterator[Ready]]] = []
        for shape in self.queue._shapes.values():
            if self.closed and shape.target == LOCAL:
                self.recheck = True
                continue
            if shape.possible is None:
                self._judge(shape)
            if shape.possible is False:
                continue
            others = iter(shape.ranking)
            entry = next(others, None)
            if entry is not None:
                heads.append((entry, others))
        return heads

    def _judge(self, shape: Shape) -> None:
        """See whether all jobs of a shape are possible, or none; else set aside those that are not.

        All but memory and disk is the same in a shape; of these, its bounds are asked
        first, so that a million of jobs that are too large cost one question.
        """
        request = shape.request
        if not self._beyond(request, size_class(request.memory), size_class(request.disk), shape):
            shape.possible = True
            return
        least = (below_class(request.memory) + 1, below_class(request.disk) + 1)
        memory = least[0] if request.memory else 0
        disk = least[1] if request.disk else 0
        if self._beyond(request, memory, disk, shape):
            shape.possible = False
            return
        too_large = []
        for entry in shape.ranking:
            if beyond(entry.request, self.limits, self.host, target=shape.target) is None:
                break
            if len(too_large) == _SET_ASIDE_AT_ONCE:
                self.again = True
                break
            too_large.append(entry)
        for entry in too_large:
            shape.ranking.remove(entry)
            shape.aside[entry.id] = entry

    def _beyond(self, like: ResourceRequest, memory: int, disk: int, shape: Shape) -> bool:
        asked = ResourceRequest(
            cores=like.cores, memory=memory, disk=disk, gpus=like.gpus, licenses=like.licenses
        )
        return beyond(asked, self.limits, self.host, target=shape.target) is not None

    def _consider(self, entry: Ready) -> bool:
        """Start one job, or note why not; True where the next of its shape is to be considered."""
        shape = entry.shape
        needs = shape.needs_for(entry.request)
        if shape.possible is None and entry in shape.aside.values():  # pragma: no cover
            return True
        free = self.free
        lacks = [name for name, count in needs if free.get(name, count) < count]
        if lacks:
            shape.lacks = (entry.id, frozenset(lacks))
            if shape.target not in self.first and self._blocked_by_jobs(needs):
                self._stall(entry, needs, lacks)
            elif DISK in lacks:
                self.recheck = True
            return False
        ends_by = math.inf if entry.walltime is None else self.now + entry.walltime
        for reservation in self.reservations:
            if not reservation.admits(needs, ends_by):
                shape.lacks = (entry.id, frozenset(reservation.spare))
                return False
        self._start(entry, needs, ends_by)
        return True

    def _start(self, entry: Ready, needs: Needs, ends_by: float) -> None:
        self.starts.append(entry.id)
        self.started.append((needs, ends_by))
        for name, count in needs:
            if name in self.free:
                self.free[name] -= count
        for reservation in self.reservations:
            reservation.charge(needs, ends_by)
        for stalled in self.first.values():
            if any(name in stalled.lacks for name, _ in needs):
                stalled.overtaken += 1
                if not stalled.reserved and stalled.overtaken >= self.policy.overtake_limit:
                    self._reserve(stalled)
""" PLACEHOLDER """
