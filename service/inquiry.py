"""A question about one job, answered from what the service holds in memory.

Gathers the facts for `explanation` from the yard and shows what that finds as the
wire has it. Changes nothing; it must not know HTTP.
"""

from __future__ import annotations

import time
from typing import Any

from typing_extensions import TypedDict

from .explanation import Holder, Lack, explain, explain_dependencies
from .model import Job
from .pending import Waiting
from .quantities import format_duration
from .resources import HostFacts, Limits
from .states import JobState
from .views import optional_timestamp
from .yard import Entry, Yard


class HeldByView(TypedDict):
    """What one job holds of something that is lacking."""

    id: str
    name: str
    count: int
    ends_by: str | None


class LackView(TypedDict):
    """One thing that a waiting job does not get now; memory and disk are bytes."""

    resource: str
    needs: int
    total: int
    in_use: int
    free_by: str | None
    held_by: list[HeldByView]
    more: int


class AheadView(TypedDict):
    """One job ahead in line."""

    id: str
    name: str
    priority: int


class ExplanationView(TypedDict):
    """Why a job is where it is. `free_by` is when walltimes will have freed all it lacks."""

    id: str
    name: str
    state: str
    reason: str
    position: int | None
    ahead: list[AheadView]
    lacks: list[LackView]
    reserved_by: str | None
    has_reserved: bool
    overtaken: int
    free_by: str | None
    advice: list[str]


def explanation_view(
    yard: Yard, job: Job, reason: str | None, limits: Limits, host: HostFacts
) -> ExplanationView:
    """Explain `job`; `reason` is why it waits, in one line, where it does."""
    entry = yard.entries.get(job.id)
    if entry is None or not job.state.waiting:
        words, advice = _of_one_that_does_not_wait(job, entry, reason)
        return _view(job, reason=words, advice=advice)
    if job.state is JobState.HELD:
        advice = [f"'simyard release {job.id}' lets it go; nothing else will"]
        return _view(job, reason=reason or "held", advice=advice)
    if entry.waits_for:
        states = {
            other: yard.entries[other].job.state.value
            for other in entry.waits_for
            if other in yard.entries
        }
        advice = explain_dependencies(entry.waits_for, states)
        return _view(job, reason=reason or "waits for other jobs", advice=advice)
    found = explain(
        yard.queue,
        job.id,
        Waiting(request=entry.request, walltime=entry.walltime),
        yard.grants.ledger,
        limits,
        host,
        holders_of(yard),
    )
    ahead: list[AheadView] = [
        {"id": str(other.id), "name": other.job.name, "priority": other.job.priority}
        for other in map(yard.entries.get, found.ahead)
        if other is not None
    ]
    return _view(
        job,
        reason=reason or "is about to start",
        advice=list(found.advice),
        position=found.position,
        ahead=ahead,
        lacks=[_lack_view(lack) for lack in found.lacks],
        reserved_by=None if found.reserved_by is None else str(found.reserved_by),
        has_reserved=found.has_reserved,
        overtaken=found.overtaken,
        free_by=optional_timestamp(found.free_by),
    )


def holders_of(yard: Yard) -> list[Holder]:
    """Return who holds grants now, and until when at the latest."""
    now = time.time()
    found = []
    for slot in yard.grants:
        entry = yard.by_tag.get(slot.current)
        if entry is not None:
            ends = None
            if entry.walltime is not None and not slot.waiting:
                ends = (entry.job.started_at or now) + entry.walltime
            found.append(Holder(key=slot.key, job_id=entry.id, name=entry.job.name, ends_by=ends))
    return found


def _of_one_that_does_not_wait(
    job: Job, entry: Entry | None, reason: str | None
) -> tuple[str, list[str]]:
    """Say how a job stands that is on its way, runs, or is over."""
    if job.state is JobState.RUNNING:
        ends = None
        if entry is not None and entry.walltime is not None and job.started_at is not None:
            ends = optional_timestamp(job.started_at + entry.walltime)
        until = f"its walltime ends it by {ends}" if ends else "no walltime ends it"
        ending = ", being cancelled" if job.cancel_requested else ""
        return f"runs{ending}; {until}", [f"'simyard logs -f {job.id}' follows what it prints"]
    if not job.state.terminal:
        return reason or "is being started", []
    outcome = job.outcome
    ran = f" after {format_duration(job.wall_seconds)}" if job.wall_seconds else ""
    why = outcome.message or outcome.reason.value.replace("_", " ") if outcome is not None else ""
    text = f"is over: {job.state.value}{ran}" + (f": {why}" if why else "")
    if job.state is JobState.COMPLETED:
        return text, []
    return text, [
        f"'simyard logs --stderr {job.id}' shows what it said",
        f"'simyard retry {job.id}' submits it again",
    ]


def _lack_view(lack: Lack) -> LackView:
    return {
        "resource": lack.resource,
        "needs": lack.needs,
        "total": lack.total,
        "in_use": lack.in_use,
        "free_by": optional_timestamp(lack.free_by),
        "held_by": [
            {
                "id": str(item.job_id),
                "name": item.name,
                "count": item.count,
                "ends_by": optional_timestamp(item.ends_by),
            }
            for item in lack.held_by
        ],
        "more": lack.more,
    }


def _view(job: Job, *, reason: str, advice: list[str], **facts: Any) -> ExplanationView:
    view: ExplanationView = {
        "id": str(job.id),
        "name": job.name,
        "state": job.state.value,
        "reason": reason,
        "position": facts.get("position"),
        "ahead": facts.get("ahead", []),
        "lacks": facts.get("lacks", []),
        "reserved_by": facts.get("reserved_by"),
        "has_reserved": facts.get("has_reserved", False),
        "overtaken": facts.get("overtaken", 0),
        "free_by": facts.get("free_by"),
        "advice": advice,
    }
    return view
