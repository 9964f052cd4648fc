"""Why a job in line has not started, in plain words.

Pure; derived when somebody asks and stored nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..scheduler_adapters.contract import ResourceRequest
from .quantities import format_size
from .ready_queue import Ready, ReadyQueue
from .resources import (
    CORES,
    DISK,
    GPUS,
    JOBS,
    LOCAL,
    MEMORY,
    QUEUE,
    SUBMITTED,
    HostFacts,
    Ledger,
    Limits,
    amount,
    beyond,
    capacity,
    closed,
    needs_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job about which somebody asks."""

    request: ResourceRequest
    walltime: float | None = None
    target: str = LOCAL


def why(
    queue: ReadyQueue,
    job_id: int,
    waiting: Waiting,
    ledger: Ledger,
    limits: Limits,
    host: HostFacts,
) -> str:
    """Say in plain words what the job waits for, and how many are before it in line."""
    request, target = waiting.request, waiting.target
    too_much = beyond(request, limits, host, target=target)
    if too_much is not None:
        return f"{too_much}; raise the limit or cancel it"
    before = (queue.position(job_id) or 1) - 1
    reason = closed(limits, host) if target == LOCAL else None
    if reason is None:
        reason = _lacking(request, target, ledger, limits, host)
    if reason is None:
        entry = queue.get(job_id)
        reason = _reserved_by_another(queue, entry) if entry is not None else None
    if reason is not None:
        return f"{reason}; {_ahead(before)}" if before else reason
    return f"waits for its turn: {_ahead(before)}" if before else "is about to start"


def _ahead(count: int) -> str:
    if count == 1:
        return "1 job of the same or higher priority is ahead"
    return f"{count} jobs of the same or higher priority are ahead"


def _lacking(
    request: ResourceRequest, target: str, ledger: Ledger, limits: Limits, host: HostFacts
) -> str | None:
    total, used = capacity(limits, host), ledger.amounts
    lacking = [
        (name, count)
        for name, count in needs_of(request, target)
        if name in total and total[name] - used.get(name, 0) < count
    ]
    if not lacking:
        return None
    if lacking[0][0] == JOBS:
        most = total[JOBS]
        return f"the limit of {most} concurrent job{'' if most == 1 else 's'} is reached"
    of_queue = f"{QUEUE}{JOBS}:"
    if lacking[0][0].startswith(of_queue):
        most, name = total[lacking[0][0]], lacking[0][0].removeprefix(of_queue)
        jobs = f"{most} concurrent job{'' if most == 1 else 's'}"
        return f"the limit of {jobs} of the queue {name!r} is reached"
    parts = [
        f"{amount(name, count)}: {_state_of(name, total[name], ledger, limits, host)}"
        for name, count in lacking
    ]
    return "waits for " + ", and for ".join(parts)


def _state_of(name: str, total: int, ledger: Ledger, limits: Limits, host: HostFacts) -> str:
    used = ledger.amounts.get(name, 0)
    if name == DISK:
        parts = [f"{format_size(host.disk_free or 0)} free"]
        if limits.min_free_disk:
            parts.append(f"{format_size(limits.min_free_disk)} must stay free")
        if used:
            parts.append(f"{format_size(used)} promised to {_jobs(ledger.users(name))}")
        return ", ".join(parts)
    if name == MEMORY:
        return f"{format_size(used)} of {format_size(total)} in use by {_jobs(ledger.users(name))}"
    if name in (CORES, GPUS):
        return f"{used} of {total} in use by {_jobs(ledger.users(name))}"
    if name.startswith(QUEUE):
        if name.startswith(f"{QUEUE}{MEMORY}:"):
            return f"{format_size(used)} of {format_size(total)} in use there"
        return f"{used} of {total} in use there"
    if name.startswith(SUBMITTED):
        return f"{used} of {total} taken"
    return f"{used} of {total} in use"


def _jobs(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'}"


def _reserved_by_another(queue: ReadyQueue, entry: Ready) -> str | None:
    names = {name for name, _ in needs_of(entry.request, entry.shape.target)}
    for stalled in queue.reserving:
        if stalled.entry < entry and names & stalled.reserved.keys():
            first = stalled.entry
            reserved = [
                amount(name, count)
                for name, count in needs_of(first.request, first.shape.target)
                if name in stalled.reserved
            ]
            return f"job {first.id} has waited long and has reserved {' and '.join(reserved)}"
    return None
