"""Why one job is where it is, and what would change that, as facts and as sentences.

Pure; derived when somebody asks and stored nowhere. Times are seconds since the epoch.
It must not know the store, the wire, nor how a decision is made: what the line
remembers of the last decision is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .pending import Waiting
from .ready_queue import ReadyQueue, Stalled
from .resources import (
    CORES,
    DISK,
    GPUS,
    JOBS,
    LICENSE,
    LOCAL,
    MEMORY,
    HostFacts,
    Ledger,
    Limits,
    amount,
    beyond,
    capacity,
    closed,
    needs_of,
)
from .views import timestamp

MOST_NAMED = 10
"""Jobs that are named in one list; of the others only the number is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """An attempt that holds a grant now."""

    key: str
    """Of the grant in the ledger."""
    job_id: int
    name: str
    ends_by: float | None
    """When its walltime ends it; None where it has none, or where heirs stand behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBy:
    """What one job holds of something that another one lacks."""

    job_id: int
    name: str
    count: int
    ends_by: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One thing that a waiting job does not get now."""

    resource: str
    """``jobs``, ``cores``, ``memory``, ``disk``, ``gpus`` or ``license:NAME``."""
    needs: int
    total: int
    in_use: int
    free_by: float | None
    """When walltimes will have given enough back; None where nobody knows."""
    held_by: tuple[HeldBy, ...] = ()
    more: int = 0
    """Holders beyond those that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What there is to say about a job in line."""

    position: int | None = None
    """1 for the first in line; None for a job that is not ready."""
    ahead: tuple[int, ...] = ()
    """The first of those ahead in line."""
    lacks: tuple[Lack, ...] = ()
    reserved_by: int | None = None
    """A job ahead for which room is kept that this one would take."""
    has_reserved: bool = False
    """Room is kept for this job: what becomes free of what it lacks goes to it."""
    overtaken: int = 0
    free_by: float | None = None
    """When walltimes will have freed all it lacks; others may still take it before."""
    advice: tuple[str, ...] = field(default=())


def explain(
    queue: ReadyQueue,
    job_id: int,
    waiting: Waiting,
    ledger: Ledger,
    limits: Limits,
    host: HostFacts,
    holders: Sequence[Holder],
) -> Explanation:
    """Explain a job that is ready: what it lacks, who holds that, what would free it."""
    position = queue.position(job_id)
    line = queue.in_order(min(position or 1, MOST_NAMED + 1) - 1)
    stalled = queue.stalled.get(job_id)
    other = _reservation_against(queue, job_id, waiting)
    lacks = _lacks(waiting, ledger, limits, host, holders)
    frees = [lack.free_by for lack in lacks]
    known = [moment for moment in frees if moment is not None]
    shut = closed(limits, host) if waiting.target == LOCAL else None
    never = beyond(waiting.request, limits, host, target=waiting.target)
    sure = bool(lacks) and len(known) == len(frees) and shut is None and never is None
    return Explanation(
        position=position,
        ahead=tuple(line),
        lacks=lacks,
        reserved_by=None if other is None else other.entry.id,
        has_reserved=bool(stalled is not None and stalled.reserved),
        overtaken=0 if stalled is None else stalled.overtaken,
        free_by=max(known) if sure else None,
        advice=tuple(_advice(job_id, waiting, lacks, other, position, never, shut)),
    )


def explain_dependencies(waits_for: Mapping[int, str], states: Mapping[int, str]) -> list[str]:
    """Say what must happen to the jobs that a job waits for; `states` of those still known."""
    words = {"afterok": "complete", "afterany": "be over", "afternotok": "end without completing"}
    found = [
        f"job {other} ({states.get(other, 'over')}) must {words.get(condition, condition)}; "
        f"'simyard explain {other}' tells how it stands"
        for other, condition in sorted(waits_for.items())[:MOST_NAMED]
    ]
    more = len(waits_for) - len(found)
    return [*found, f"so must {more} more"] if more > 0 else found


def _lacks(
    waiting: Waiting,
    ledger: Ledger,
    limits: Limits,
    host: HostFacts,
    holders: Sequence[Holder],
) -> tuple[Lack, ...]:
    total, used = capacity(limits, host), ledger.amounts
    return tuple(
        _lack(name, count, total[name], used.get(name, 0), ledger, holders)
        for name, count in needs_of(waiting.request, waiting.target)
        if name in total and total[name] - used.get(name, 0) < count
    )


def _lack(
    name: str, count: int, total: int, used: int, ledger: Ledger, holders: Sequence[Holder]
) -> Lack:
    held = [
        HeldBy(job_id=holder.job_id, name=holder.name, count=part, ends_by=holder.ends_by)
        for holder in holders
        for dimension, part in _needs_of_grant(ledger, holder.key)
        if dimension == name
    ]
    # Those that end first come first; those of which nobody knows come last.
    held.sort(key=lambda item: (item.ends_by is None, item.ends_by or 0.0, item.job_id))
    free, free_by = total - used, None
    for item in held:
        if item.ends_by is None:
            break
        free += item.count
        if free >= count:
            free_by = item.ends_by
            break
    return Lack(
        resource=name,
        needs=count,
        total=total,
        in_use=used,
        free_by=free_by,
        held_by=tuple(held[:MOST_NAMED]),
        more=max(len(held) - MOST_NAMED, 0),
    )


def _needs_of_grant(ledger: Ledger, key: str) -> tuple[tuple[str, int], ...]:
    grant = ledger.grants.get(key)
    return () if grant is None else tuple(grant.needs)


def _reservation_against(queue: ReadyQueue, job_id: int, waiting: Waiting) -> Stalled | None:
    entry = queue.get(job_id)
    if entry is None:
        return None
    names = {name for name, _ in needs_of(waiting.request, waiting.target)}
    for stalled in queue.reserving:
        if stalled.entry < entry and names & stalled.reserved.keys():
            return stalled
    return None


# -- in words --------------------------------------------------------------------------


def _advice(
    job_id: int,
    waiting: Waiting,
    lacks: Sequence[Lack],
    other: Stalled | None,
    position: int | None,
    never: str | None,
    shut: str | None,
) -> list[str]:
    if never is not None:
        return [
            (
                f"it {never}, so it can never start: raise the limit ('simyard limits --set …'), or "
                f"cancel it ('simyard cancel {job_id}') and ask for less"
            )
        ]
    found = [] if shut is None else [f"{shut}: no job starts until then"]
    for lack in lacks:
        found += _about(lack)
    if other is not None:
        text = f"room is kept for job {other.entry.id}, which has waited long"
        if waiting.walltime is None:
            text += "; a job with a walltime may slip past where it ends in time, this one has none"
        found.append(text)
    if position is not None and position > 1:
        found.append(
            f"{position - 1} ahead in line; 'simyard priority {job_id} N' with a higher N moves it up"
        )
    return found or ["nothing is lacking: it is about to start"]


def _about(lack: Lack) -> list[str]:
    """Say who will give back what is lacking, and when; else what else would help."""
    name = lack.resource
    missing = lack.needs - (lack.total - lack.in_use)
    if name == DISK and lack.needs > lack.total:
        return [f"{amount(DISK, lack.needs - lack.total)} must be freed on the disk of the home"]
    setting = _SETTINGS.get(name) or (
        f"licenses.{name.removeprefix(LICENSE)}" if name.startswith(LICENSE) else None
    )
    raising = f"; or raise the limit: 'simyard limits --set {setting}=…'" if setting else ""
    if not lack.held_by:
        return [f"{amount(name, missing)} more must become free{raising}"]
    if lack.free_by is not None:
        return [
            (
                f"{amount(name, missing)} more will be free by {timestamp(lack.free_by)} at the latest, "
                f"when walltimes end what holds it{raising}"
            )
        ]
    first = [item for item in lack.held_by if item.ends_by is None][:3]
    names = ", ".join(f"job {item.job_id} ({amount(name, item.count)})" for item in first)
    return [
        (
            f"{amount(name, missing)} more must become free; nobody knows when, as no walltime ends "
            f"{names}{raising}"
        )
    ]


_SETTINGS = {
    JOBS: "max_concurrent_jobs",
    CORES: "max_cores",
    MEMORY: "max_memory",
    GPUS: "gpus",
}
