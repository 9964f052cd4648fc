"""Who starts now.

Pure: no clock, no loop, no store; the time, the host's facts and what runs come in as
arguments. A decision looks at the first job of each shape and at those it starts, so
its cost does not grow with the length of the line.

The order is by priority, then age, then id. A job that does not fit lets others pass
(backfill), but not for ever: after `Policy.overtake_limit` of them, or
`Policy.reserve_after` seconds, it reserves what it lacks. From then on only those slip
past that do not put off its turn: they end by their walltime before it, or fit beside
it (the rule of EASY backfilling, Lifka 1995). Where nobody knows when what runs will
end, there is no turn to end before: what becomes free is kept, and only what fits beside
the job when it has got all it lacks slips past.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush, merge
from itertools import islice

from ..scheduler_adapters.contract import ResourceRequest
from .pending import Waiting, why
from .ready_queue import Ready, ReadyQueue, Shape, Stalled
from .resources import (
    CORES,
    DISK,
    JOBS,
    LOCAL,
    QUEUE,
    HostFacts,
    Ledger,
    Limits,
    Needs,
    below_class,
    beyond,
    capacity,
    closed,
    needs_of,
    size_class,
)

__all__ = [
    "Decision",
    "Policy",
    "ReadyQueue",
    "Running",
    "Waiting",
    "decide",
    "successors",
    "why",
]

_SET_ASIDE_AT_ONCE = 256
"""Impossible jobs among possible ones of the same shape that one decision looks at."""


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
    """By the clock of the decision's `now`; None where nobody knows."""
    target: str = LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Which jobs start now."""

    starts: tuple[int, ...] = ()
    """In order. They are still in line and not granted yet: that is the caller's to do."""
    again: bool = False
    """True where the decision was cut short: there is more to decide at once."""
    recheck: bool = False
    """True where jobs wait for the host itself: decide again when its facts change."""


def decide(
    queue: ReadyQueue,
    ledger: Ledger,
    limits: Limits,
    host: HostFacts,
    *,
    running: Sequence[Running] = (),
    now: float,
    policy: Policy = Policy(),
    at_most: int | None = None,
) -> Decision:
    """Decide which jobs start now within `limits`, at most `at_most` of them.

    `running` tells of the grants in the ledger when they will be over; those it leaves
    out may last for ever. The caller takes the starts out of the line and grants them,
    in their order, before it asks again.
    """
    return _Round(queue, ledger, limits, host, running, now, policy).decide(at_most)


@dataclass(slots=True)
class _Reservation:
    """What one stalled job keeps for itself, for the length of one decision."""

    turn: float
    """When it will be able to start; infinite where nobody knows."""
    spare: dict[str, int]
    """By reserved dimension, what others may occupy at its turn and beyond."""

    def admits(self, needs: Needs, ends_by: float) -> bool:
        """True where a job that starts now does not put off the turn."""
        if self._is_over_before(ends_by):
            return True
        spare = self.spare
        return all(count <= spare.get(name, count) for name, count in needs)

    def charge(self, needs: Needs, ends_by: float) -> None:
        """Take note that such a job starts."""
        if not self._is_over_before(ends_by):
            for name, count in needs:
                if name in self.spare:
                    self.spare[name] -= count

    def _is_over_before(self, ends_by: float) -> bool:
        return ends_by <= self.turn < math.inf


class _Round:
    """The work of one decision."""

    def __init__(
        self,
        queue: ReadyQueue,
        ledger: Ledger,
        limits: Limits,
        host: HostFacts,
        running: Sequence[Running],
        now: float,
        policy: Policy,
    ) -> None:
        self._queue = queue
        self._ledger = ledger
        self._limits = limits
        self._host = host
        self._running = running
        self._now = now
        self._policy = policy
        self._capacity = capacity(limits, host)
        granted = ledger.amounts
        self._left = {name: total - granted.get(name, 0) for name, total in self._capacity.items()}
        """Of every limited dimension; below 0 where a limit was lowered under what runs."""
        self._starts: list[int] = []
        self._started: list[tuple[Needs, float]] = []
        self._first: dict[str, Stalled] = {}
        """Of each target, and of each queue that is full, the first one that does not fit."""
        self._reservations: list[_Reservation] = []
        self._too_large: list[Ready] = []
        self._again = False
        self._recheck = False

    def decide(self, at_most: int | None) -> Decision:
        """Walk through the firsts of all shapes in the order of the line."""
        queue = self._queue
        queue.bind(self._limits, self._host)
        queue.reserving = []
        queue.closed = closed(self._limits, self._host) is not None
        heads = iter(queue.heads)
        head = next(heads, None)
        following: list[tuple[Ready, Iterator[Ready]]] = []
        """The next ones of shapes of which the first has been dealt with."""
        while head is not None or following:
            if at_most is not None and len(self._starts) >= at_most:
                self._again = True
                break
            if self._is_exhausted():
                break
            rest: Iterator[Ready] | None = None
            if head is not None and (not following or head < following[0][0]):
                entry = head
                head = next(heads, None)
            else:
                entry, rest = heappop(following)
            if self._consider(entry):
                if rest is None:
                    rest = islice(entry.shape.ranking, 1, None)
                after = next(rest, None)
                if after is not None:
                    heappush(following, (after, rest))
        for entry in self._too_large:
            queue.set_aside(entry)
        queue.left = self._left
        return Decision(starts=tuple(self._starts), again=self._again, recheck=self._recheck)

    def _is_exhausted(self) -> bool:
        """True where none of those that are left can start, and it is known who waits first."""
        left = self._left
        return (
            (left.get(CORES, 1) < 1 or left.get(JOBS, 1) < 1)
            and LOCAL in self._first
            and not self._queue.elsewhere
        )

    # -- one job at a time -------------------------------------------------------------

    def _consider(self, entry: Ready) -> bool:
        """Start a job if it may; True where the next one of its shape is to be considered."""
        shape = entry.shape
        if self._queue.closed and shape.target == LOCAL:
            self._recheck = True
            return False
        if shape.possible is not True:
            if not self._is_worth_asking(shape):
                return False
            if not self._is_possible(entry):
                return self._pass_over(entry)
        needs = shape.needs_for(entry.request)
        left = self._left
        for name, count in needs:
            if left.get(name, count) < count:
                if name == DISK:
                    # It comes last among the needs: nothing else is lacking.
                    self._recheck = True
                lacks = [n for n, c in needs if left.get(n, c) < c]
                line, lacks = _line(shape.target, lacks)
                if line not in self._first and self._is_held_by_jobs(needs):
                    self._stall(line, entry, lacks)
                return False
        ends_by = math.inf if entry.walltime is None else self._now + entry.walltime
        for reservation in self._reservations:
            if not reservation.admits(needs, ends_by):
                return False
        self._start(entry, needs, ends_by)
        return True

    def _is_worth_asking(self, shape: Shape) -> bool:
        """False where no job of the shape is possible under the limits in force.

        In a shape only memory and disk differ, and these within bounds. The bounds are
        asked, so that a million jobs that are too large cost two questions.
        """
        if shape.possible is None:
            request = shape.request
            memory, disk = size_class(request.memory), size_class(request.disk)
            if self._could_be(shape, memory, disk):
                shape.possible = True
            else:
                memory = below_class(request.memory) + 1 if request.memory else 0
                disk = below_class(request.disk) + 1 if request.disk else 0
                if not self._could_be(shape, memory, disk):
                    shape.possible = False
        return shape.possible is not False

    def _could_be(self, shape: Shape, memory: int, disk: int) -> bool:
        asked = replace(shape.request, memory=memory, disk=disk)
        return beyond(asked, self._limits, self._host, target=shape.target) is None

    def _is_possible(self, entry: Ready) -> bool:
        if entry.shape.possible:
            return True
        target = entry.shape.target
        return beyond(entry.request, self._limits, self._host, target=target) is None

    def _pass_over(self, entry: Ready) -> bool:
        """Take note that a job is to be set aside; False where enough were in this decision."""
        self._too_large.append(entry)
        if len(self._too_large) < _SET_ASIDE_AT_ONCE:
            return True
        self._again = True
        return False

    def _start(self, entry: Ready, needs: Needs, ends_by: float) -> None:
        self._starts.append(entry.id)
        self._started.append((needs, ends_by))
        for name, count in needs:
            if name in self._left:
                self._left[name] -= count
        for reservation in self._reservations:
            reservation.charge(needs, ends_by)
        for stalled in self._first.values():
            if any(name in stalled.lacks for name, _ in needs):
                stalled.overtaken += 1
                if not stalled.reserved and stalled.overtaken >= self._policy.overtake_limit:
                    self._reserve(stalled, stalled.lacks)

    def _is_held_by_jobs(self, needs: Needs) -> bool:
        """True where what is lacking will be free when jobs end: else waiting is nobody's fault."""
        return all(count <= self._capacity.get(name, count) for name, count in needs)

    # -- those that wait first ---------------------------------------------------------

    def _stall(self, line: str, entry: Ready, lacks: list[str]) -> None:
        stalled = self._queue.stalled.get(entry.id)
        if stalled is None:
            stalled = self._queue.stalled[entry.id] = Stalled(entry, self._now)
        self._first[line] = stalled
        if not stalled.reserved:
            stalled.lacks = frozenset(lacks)
        waited = self._now - stalled.since
        if (
            stalled.reserved
            or stalled.overtaken >= self._policy.overtake_limit
            or waited >= self._policy.reserve_after
        ):
            self._reserve(stalled, lacks)

    def _reserve(self, stalled: Stalled, lacks: Sequence[str] | frozenset[str]) -> None:
        """Keep what is lacking, and all that was lacking since it reserved first."""
        ends = self._ends()
        if not stalled.reserved.keys() >= set(lacks):
            serial = self._ledger.serial + len(self._starts)
            for name in lacks:
                stalled.reserved.setdefault(name, serial)
            stalled.lacks = frozenset(stalled.reserved)
            stalled.horizon = ends[-1][0] if ends else self._now
        self._reservations.append(self._reservation(stalled, ends))
        self._queue.reserving.append(stalled)

    def _reservation(self, stalled: Stalled, ends: list[tuple[float, Needs]]) -> _Reservation:
        """Find out when the stalled job's turn comes, and what is to spare then.

        A turn is never later than the last known end at the time of the reservation:
        else those that slip past would move it on and on.
        """
        entry = stalled.entry
        need = {
            name: count
            for name, count in entry.shape.needs_for(entry.request)
            if name in stalled.reserved and name in self._capacity
        }
        left = {name: self._left[name] for name in need}
        for moment, needs in ends:
            if moment > stalled.horizon:
                break
            if _gives_enough(needs, left, need):
                return _Reservation(moment, {name: left[name] - need[name] for name in need})
        left = {name: self._left[name] for name in need}
        for needs in self._held_since_before(stalled, need):
            if _gives_enough(needs, left, need):
                break
        return _Reservation(math.inf, {name: left[name] - need[name] for name in need})

    def _ends(self) -> list[tuple[float, Needs]]:
        """What will be given back when, as far as that is known, soonest first."""
        ends = [
            (max(self._now, item.ends_by), needs_of(item.request, item.target))
            for item in self._running
            if item.ends_by is not None
        ]
        ends += [(ends_by, needs) for needs, ends_by in self._started if ends_by < math.inf]
        ends.sort(key=lambda end: end[0])
        return ends

    def _held_since_before(self, stalled: Stalled, need: Mapping[str, int]) -> list[Needs]:
        """What jobs hold that were started before the reservation, the smallest first.

        These will all be over one day, so the turn will come; that the small ones end
        first leaves the least to spare. Those that slipped past may not be counted as
        over: each could be replaced by another for ever.
        """
        first = self._ledger.serial
        granted = [(grant.serial, grant.needs) for grant in self._ledger.grants.values()]
        granted += [(first + place, needs) for place, (needs, _) in enumerate(self._started)]
        held: list[Needs] = []
        for serial, needs in granted:
            counted = tuple(
                (name, count)
                for name, count in needs
                if name in need and serial < stalled.reserved[name]
            )
            if counted:
                held.append(counted)
        return sorted(held, key=lambda needs: [count for _, count in needs])


def _line(target: str, lacks: list[str]) -> tuple[str, list[str]]:
    """Return in which line a job that lacks so much is waiting, and what it may reserve there.

    One whose queue is full is first in that queue only: others that lack cores are not
    behind it, and it keeps no cores from anybody until its queue has room.
    """
    of_queue = [name for name in lacks if name.startswith(QUEUE)]
    if not of_queue:
        return target, lacks
    return QUEUE + of_queue[0].split(":", 2)[2], of_queue


def _gives_enough(needs: Needs, left: dict[str, int], wanted: Mapping[str, int]) -> bool:
    """Add to `left` what is given back; True where that is all that is wanted."""
    for name, count in needs:
        if name in left:
            left[name] += count
    return all(left[name] >= count for name, count in wanted.items())


def successors(
    queue: ReadyQueue, request: ResourceRequest, count: int, *, target: str = LOCAL
) -> list[int]:
    """Return up to `count` jobs that may inherit the grant of a running job of `request`.

    They ask for exactly the same, and nobody before them in line could start, then or
    later, on what that job gives back. All this as of the last decision. They are still
    in line: the caller takes out those it hands over. Empty while a limit is exceeded or
    the host is too full or too busy, for then what runs is to end without an heir.
    """
    uses = {name for name, _ in needs_of(request, target)}
    if count <= 0 or (queue.closed and target == LOCAL):
        return []
    if any(queue.left.get(name, 0) < 0 for name in uses):
        return []
    alike: list[Shape] = []
    barrier: Ready | None = None
    for head in queue.heads:
        shape = head.shape
        if shape.target == target and head.request == request:
            alike.append(shape)
        elif shape.possible is not False and _would_profit(queue, head, uses):
            barrier = head
            break
    heirs: list[int] = []
    for entry in islice(merge(*(shape.ranking for shape in alike)), count):
        if entry.request != request or (barrier is not None and barrier < entry):
            break
        heirs.append(entry.id)
    return heirs


def _would_profit(queue: ReadyQueue, entry: Ready, uses: set[str]) -> bool:
    """True where a job may start sooner when what is in `uses` is given back."""
    stalled = queue.stalled.get(entry.id)
    if stalled is not None and uses & stalled.reserved.keys():
        return True
    left = queue.left
    needs = entry.shape.needs_for(entry.request)
    return uses.issuperset(name for name, count in needs if left.get(name, count) < count)
