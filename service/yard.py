"""What the service holds in memory of every job that is not over, and how it changes.

The index decides, the store follows: `change` applies one transition to the index
and notes it in a batch, `commit` makes the batch durable and only then tells the
world. Everything runs on the event loop, so a decision sees one consistent state.
It must not know HTTP, nor how work is started.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

from ..errors import ServiceUnavailable, SimyardError
from ..scheduler_adapters.contract import ResourceRequest
from .events import EventLog
from .grants import Grants
from .model import Event, Job, JobSpec, Outcome, OutcomeReason, Retries
from .scheduling import ReadyQueue
from .states import JobState, check
from .store.batch import Batch
from .store.store import Store

log = logging.getLogger(__name__)

FORGET_EVERY = 1000
"""Events between two clearings of what is old enough to be forgotten."""
KEEP_KEYS = 86_400.0
"""Seconds for which an Idempotency-Key is remembered."""
PAY_EVERY = 0.5
"""Seconds between attempts to write what the store could not take."""
SPECS_KEPT = 4096
"""Specs of recent submissions kept parsed, so that a job that starts at once is not read back."""


class Entry:
    """One job that is not over: its durable record, and of its spec what decisions need."""

    __slots__ = (
        "expects_outputs",
        "grace",
        "hold_requested",
        "job",
        "memory",
        "output_limit",
        "request",
        "retries",
        "waits_for",
        "walltime",
    )

    def __init__(
        self, job: Job, spec: JobSpec, request: ResourceRequest, default_grace: float
    ) -> None:
        self.job = job
        self.request = request
        self.walltime = spec.walltime
        self.grace = default_grace if spec.grace is None else spec.grace
        self.memory = spec.memory
        self.output_limit = spec.output_limit
        self.retries: Retries | None = spec.retries if spec.retries.limit else None
        self.expects_outputs = bool(spec.expected_outputs)
        self.waits_for: dict[int, str] | None = None
        """Jobs whose end this one awaits, with the condition; None where there are none."""
        self.hold_requested = False

    @property
    def id(self) -> int:
        return self.job.id


class Yard:
    """The index of live jobs, the ready queue, the grants, and the one way to change a job."""

    def __init__(self, store: Store, events: EventLog, *, keep_events: int, grace: float) -> None:
        self._grace = grace
        self._keep_events = keep_events
        self.store = store
        self.events = events
        self.entries: dict[int, Entry] = {}
        self.by_tag: dict[str, Entry] = {}
        self.dependents: dict[int, set[int]] = {}
        self.queue = ReadyQueue()
        self.grants = Grants()
        self.counts: dict[JobState, int] = dict.fromkeys(JobState, 0)
        self._specs: OrderedDict[int, JobSpec] = OrderedDict()
        self._requests: dict[ResourceRequest, ResourceRequest] = {}
        self._sequence = 0
        self._forget_at = 0
        self._watchers: dict[int, set[asyncio.Future[None]]] = {}
        self._owed: list[tuple[Batch, asyncio.Future[None]]] = []
        """Decided, but not written: the store had no room. In order; nothing may overtake it."""
        self._paying: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Read every job that is not over back from the store. Blocking; called once, at start."""
        self._sequence = self.store.last_seq()
        self.counts.update(self.store.counts())
        for job in self.store.load_active():
            spec = job.spec()
            entry = self._enter(job, spec)
            if job.state.waiting and spec.depends_on:
                entry.waits_for = {int(other.job): other.condition for other in spec.depends_on}
            if job.tag is not None and not job.state.waiting:
                self.by_tag[job.tag] = entry
                self.grants.give(job.tag, entry.request, gpu_ids=job.gpu_ids)
            self._place(entry)

    def admit(self, job: Job, spec: JobSpec, waits_for: Mapping[int, str]) -> Entry:
        """Take a job up whose insertion is committed."""
        entry = self._enter(job, spec)
        self.counts[job.state] += 1
        if waits_for:
            entry.waits_for = dict(waits_for)
            for other in waits_for:
                self.dependents.setdefault(other, set()).add(job.id)
        self._specs[job.id] = spec
        if len(self._specs) > SPECS_KEPT:
            self._specs.popitem(last=False)
        self._place(entry)
        return entry

    def await_others(self, entry: Entry, waits_for: Mapping[int, str]) -> None:
        """Make `entry` wait for the end of other jobs; used when dependencies are read back."""
        entry.waits_for = dict(waits_for) or None
        for other in waits_for:
            self.dependents.setdefault(other, set()).add(entry.id)
        self._place(entry)

    def no_longer_awaits(self, entry: Entry, other: int) -> None:
        """The dependency on `other` is satisfied."""
        if entry.waits_for is not None:
            entry.waits_for.pop(other, None)
            if not entry.waits_for:
                entry.waits_for = None
                self._place(entry)

    async def spec_of(self, job_id: int) -> JobSpec:
        """Return the spec of a live job, from memory where it is recent."""
        spec = self._specs.get(job_id)
        if spec is None:
            job = await self.store.get(job_id)
            assert job is not None, "a live job is in the store"
            spec = job.spec()
        return spec

    def respecify(self, entry: Entry, spec: JobSpec) -> None:
        """Put a changed spec in force for a job that waits."""
        entry.request = self._interned(spec.resource_request())
        entry.walltime = spec.walltime
        entry.memory = spec.memory
        self._specs[entry.id] = spec

    # -- the one way to change a job ---------------------------------------------------

    def change(
        self,
        batch: Batch,
        entry: Entry,
        state: JobState,
        *,
        event: str | None = None,
        data: Mapping[str, Any] | None = None,
        now: float | None = None,
        **fields: Any,
    ) -> None:
        """Move `entry` to `state`, setting `fields`, and note it with one event in `batch`.

        Raises `Conflict` where the state machine has no such way; then nothing changed.
        """
        old = entry.job
        if state is not old.state:
            check(old.state, state)
        moment = time.time() if now is None else now
        if state.terminal:
            fields.setdefault("finished_at", moment)
        entry.job = old.evolve(state=state, **fields)
        if state is not old.state:
            self.counts[old.state] -= 1
            self.counts[state] += 1
        batch.updates.append(entry.job)
        told: dict[str, Any] = {
            "state": state.value,
            "name": entry.job.name,
            "version": entry.job.version,
            "attempt": entry.job.attempt,
        }
        if entry.job.outcome is not None:
            told["outcome"] = describe_outcome(entry.job.outcome)
        if data:
            told.update(data)
        self.note(batch, event or f"job.{state.value}", entry.id, told, now=moment)
        self._place(entry)

    def note(
        self,
        batch: Batch,
        kind: str,
        job_id: int | None = None,
        data: Mapping[str, Any] | None = None,
        *,
        now: float | None = None,
    ) -> None:
        """Append one event to `batch`."""
        self._sequence += 1
        if self._sequence >= self._forget_at:
            self._forget_at = self._sequence + FORGET_EVERY
            batch.forget_events_before = self._sequence - self._keep_events
            batch.forget_keys_before = time.time() - KEEP_KEYS
        moment = time.time() if now is None else now
        batch.events.append(
            Event(seq=self._sequence, time=moment, type=kind, job_id=job_id, data=data or {})
        )

    def finish(
        self, batch: Batch, entry: Entry, state: JobState, outcome: Outcome, **fields: Any
    ) -> None:
        """Bring a job to its terminal state, and what depended on it along."""
        self.change(batch, entry, state, outcome=outcome, **fields)
        ended = [entry.job]
        while ended:
            job = ended.pop()
            for dependent in self._dependents_of(job):
                condition = (dependent.waits_for or {})[job.id]
                if satisfied(condition, job.state):
                    self.no_longer_awaits(dependent, job.id)
                else:
                    reason = dependency_outcome(condition, job)
                    self.change(batch, dependent, JobState.FAILED, outcome=reason)
                    ended.append(dependent.job)

    def _dependents_of(self, ended: Job) -> list[Entry]:
        """The live jobs that still wait for `ended`; each is returned once only."""
        waiting = [self.entries.get(job_id) for job_id in self.dependents.pop(ended.id, ())]
        return [
            entry
            for entry in waiting
            if entry is not None
            and not entry.job.state.terminal
            and entry.waits_for is not None
            and ended.id in entry.waits_for
        ]

    def commit(self, batch: Batch, *, refusable: bool = False) -> Coroutine[Any, Any, None]:
        """Queue `batch` for the store at once; awaited, it is durable and everybody knows.

        What is `refusable` (a submission: nothing of it is in memory yet) is given up
        where the store has no room or is locked, and the error says so. What the index
        has decided already is kept and written as soon as the store can, in order.

        Raises `StorageFull` or `ServiceUnavailable` for what is refusable; any other
        error of the store is final, and the service ends.
        """
        if self._owed and refusable and batch:
            raise ServiceUnavailable("the store cannot be written now; try again in a moment")
        if self._owed and batch:
            return self._owed_is_paid(self._owe(batch))
        # In the order of the calls, whenever they are awaited: each batch rests on those before.
        written = self.store.enqueue(batch) if batch else None
        return self._committed(batch, written, refusable)

    async def _committed(
        self, batch: Batch, written: asyncio.Future[None] | None, refusable: bool
    ) -> None:
        if written is None:
            return
        try:
            await written
        except ServiceUnavailable as error:
            if refusable:
                raise
            log.warning("the store cannot be written now, what happened is kept: %s", error)
            await self._owe(batch)
            return
        self._publish(batch)

    @staticmethod
    async def _owed_is_paid(paid: asyncio.Future[None]) -> None:
        await paid

    def _owe(self, batch: Batch) -> asyncio.Future[None]:
        """Keep `batch` until the store takes it, behind those that are kept already."""
        paid: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owed.append((batch, paid))
        if self._paying is None or self._paying.done():
            self._paying = asyncio.create_task(self._pay(), name="owed-writes")
        return paid

    async def _pay(self) -> None:
        """Write what is owed, as one batch each time the store may have recovered."""
        while self._owed:
            await asyncio.sleep(PAY_EVERY)
            due = list(self._owed)
            whole = Batch()
            for batch, _ in due:
                whole.merge(batch)
            try:
                await self.store.enqueue(whole)
            except ServiceUnavailable:
                continue
            except SimyardError as error:
                self._owed.clear()
                for _, written in due:
                    written.set_exception(error)
                return
            del self._owed[: len(due)]
            for batch, written in due:
                self._publish(batch)
                if not written.done():
                    written.set_result(None)

    def _publish(self, batch: Batch) -> None:
        self.events.publish(batch.events)
        for job in batch.updates:
            self._notify(job.id)
            if job.state.terminal:
                entry = self.entries.get(job.id)
                if entry is not None and entry.job.version == job.version:
                    self._forget(entry)

    def new_tag(self, job_id: int, attempt: int) -> str:
        """Make a mark that no attempt of any home has or will have.

        An attempt that was taken back before it started is counted again, under
        another mark: the event sequence sets them apart.
        """
        self._sequence += 1
        return f"sy-{self.store.uuid[:12]}-{job_id}.{attempt}-{self._sequence}"

    # -- watching ----------------------------------------------------------------------

    def watch(self, job_id: int) -> asyncio.Future[None]:
        """Return a future that is done at the next committed change of a job."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watchers = self._watchers.setdefault(job_id, set())
        watchers.add(future)
        future.add_done_callback(lambda done: self._unwatch(job_id, done))
        return future

    def _unwatch(self, job_id: int, future: asyncio.Future[None]) -> None:
        watchers = self._watchers.get(job_id)
        if watchers is not None:
            watchers.discard(future)
            if not watchers:
                del self._watchers[job_id]

    def _notify(self, job_id: int) -> None:
        for future in list(self._watchers.get(job_id, ())):
            if not future.done():
                future.set_result(None)

    # -- the index ---------------------------------------------------------------------

    def _enter(self, job: Job, spec: JobSpec) -> Entry:
        request = self._interned(spec.resource_request())
        entry = Entry(job.without_spec(), spec, request, self._grace)
        self.entries[job.id] = entry
        return entry

    def _interned(self, request: ResourceRequest) -> ResourceRequest:
        return self._requests.setdefault(request, request)

    def _place(self, entry: Entry) -> None:
        """Put a job that could start into the ready queue, and take any other out."""
        job = entry.job
        ready = job.state is JobState.QUEUED and not entry.waits_for and not entry.hold_requested
        self.queue.remove(job.id)
        if ready:
            self.queue.add(
                job.id,
                priority=job.priority,
                age=job.id,
                request=entry.request,
                walltime=entry.walltime,
            )

    def _forget(self, entry: Entry) -> None:
        job = entry.job
        self.entries.pop(job.id, None)
        self._specs.pop(job.id, None)
        if job.tag is not None and self.by_tag.get(job.tag) is entry:
            del self.by_tag[job.tag]
        for other in entry.waits_for or ():
            waiting = self.dependents.get(other)
            if waiting is not None:
                waiting.discard(job.id)
                if not waiting:
                    del self.dependents[other]

    def live(self, *states: JobState) -> Iterable[Entry]:
        """Iterate over the live jobs in any of `states`."""
        return [entry for entry in self.entries.values() if entry.job.state in states]


def satisfied(condition: str, state: JobState) -> bool:
    """True where a dependency with `condition` is met by a job that ended in `state`."""
    if condition == "afterany":
        return True
    return (state is JobState.COMPLETED) == (condition == "afterok")


def dependency_outcome(condition: str, ended: Job) -> Outcome:
    """Say why a job that depended on `ended` can never run."""
    wanted = "complete" if condition == "afterok" else "fail"
    return Outcome(
        reason=OutcomeReason.DEPENDENCY_FAILED,
        message=f"it was to run only if job {ended.id} ({ended.name}) would {wanted}, "
        f"but that one {_ended_how(ended)}",
    )


def _ended_how(ended: Job) -> str:
    if ended.state is JobState.COMPLETED:
        return "completed"
    return "was cancelled" if ended.state is JobState.CANCELLED else "failed"


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as it stands on the wire."""
    return {
        "reason": outcome.reason.value,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "message": outcome.message,
    }
