"""The operations of the service: everything a door (REST, WebSocket) may ask for.

Owns the yard, the dispatcher and the follower, and their start and stop. It must not
know HTTP: requests come as specs, ids and filters; answers are jobs.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import Conflict, InvalidInput, NotFound
from ..scheduler_adapters.contract import KnownAttempt, SchedulerAdapter
from .dispatcher import Dispatcher
from .environment import job_environment
from .events import EventLog
from .faults import faultpoint
from .follower import CURSOR, Follower
from .home import Home
from .host import HostMonitor
from .inquiry import ExplanationView, explanation_view
from .intake import Intake
from .job_folder import JobFolder
from .model import Bytes, Event, Job, JobSpec, Outcome, OutcomeReason, Seconds
from .pending import Waiting, why
from .pruning import Pruned, Pruner
from .quantities import format_duration
from .resources import HostFacts, Limits
from .retention import Retention
from .scheduling import Policy
from .settings import Settings
from .states import JobState
from .store.batch import Batch
from .store.filters import JobFilter, Page
from .store.store import Store
from .uploads import Uploads
from .yard import Entry, Observer, Yard

log = logging.getLogger(__name__)

LIMITS = "limits"
SWEEP_EVERY = 600.0
"""Seconds between two looks for uploads that nobody needs any longer."""


class JobChanges(BaseModel):
    """What may be changed of a job that has not started."""

    model_config = ConfigDict(extra="forbid")

    priority: int | None = Field(default=None, ge=-1_000_000, le=1_000_000)
    cores: int | None = Field(default=None, ge=1, le=1_000_000)
    memory: Bytes | None = None
    disk: Bytes | None = None
    gpus: int | None = Field(default=None, ge=0, le=10_000)
    walltime: Seconds | None = None
    name: str | None = None


class Manager:
    """One home's jobs: submitted, started, followed, controlled, remembered."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        store: Store,
        adapter: SchedulerAdapter,
        host: HostMonitor,
    ) -> None:
        self.home = home
        self.settings = settings
        self.started_at = time.time()
        self.host = host
        self.events = EventLog(
            lambda since, limit, job_id: store.events(since, limit, job_id),
            latest=store.last_seq(),
        )
        self.uploads = Uploads(
            home.uploads,
            most=settings.max_upload,
            keep=settings.keep_uploads,
            reserve=settings.min_free_disk,
        )
        self._sweeping: asyncio.Task[None] | None = None
        self._store = store
        self._adapter = adapter
        self._yard = Yard(
            store, self.events, keep_events=settings.keep_events, grace=settings.grace
        )
        policy = Policy(
            overtake_limit=settings.overtake_limit, reserve_after=settings.reserve_after
        )
        self._dispatcher = Dispatcher(
            self._yard,
            adapter,
            self.job_folder,
            self._facts,
            _initial_limits(settings, store),
            policy,
        )
        self._follower = Follower(self._yard, adapter, self._dispatcher, self.job_folder)
        self._pruner = Pruner(self._yard, home)
        self._intake = Intake(
            self._yard,
            lambda: self.limits,
            self._facts,
            host=socket.gethostname(),
            default_scheduler=settings.default_scheduler,
            uploads=self.uploads,
        )

    def job_folder(self, job_id: int) -> JobFolder:
        return JobFolder(self.home.jobs, job_id, self.home.uploads)

    def observe(self, observer: Observer) -> None:
        """Have every durable change told to `observer`, too; the latest one counts."""
        self._yard.observer = observer

    # -- life --------------------------------------------------------------------------

    async def start(self) -> None:
        """Read the store back, ask the outside world what became of it, and go on."""
        yard = self._yard
        await asyncio.to_thread(yard.load)
        self.events.latest = self._store.last_seq()
        self._intake.next_id = max(self._store.next_job_id(), self.home.highest_job_folder() + 1)
        out_there = yard.live(JobState.SUBMITTING, JobState.SCHEDULED, JobState.RUNNING)
        known = [
            KnownAttempt(
                tag=entry.job.tag,
                native_id=entry.job.native_id,
                claimed_only=entry.job.state is JobState.SUBMITTING,
            )
            for entry in out_there
            if entry.job.tag is not None
        ]
        await self._adapter.open(self._follower.take, cursor=self._store.meta(CURSOR), known=known)
        await self._dispatcher.take_back(yard.live(JobState.SUBMITTING))
        for entry in out_there:
            if entry.job.cancel_requested:
                await self._end_outside(entry)
        await self._intake.resume_dependencies()
        batch = Batch()
        yard.note(batch, "service.started", data={"host": socket.gethostname()})
        await yard.commit(batch)
        self._dispatcher.start()
        self._sweeping = asyncio.create_task(self._sweep_uploads(), name="uploads")

    async def stop(self) -> None:
        """Stop deciding and following. What runs goes on."""
        faultpoint("shutdown.begun")
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self._dispatcher.stop()
        await self._adapter.close()
        await self._follower.settle()
        batch = Batch()
        self._yard.note(batch, "service.stopping")
        await self._yard.commit(batch)

    async def _sweep_uploads(self) -> None:
        """Remove, now and then, the uploads that no job needs any longer."""
        while True:
            needed = {digest for entry in self._yard.entries.values() for digest in entry.uploads}
            removed = await asyncio.to_thread(self.uploads.sweep, needed)
            if removed:
                log.info("removed %s uploads that no job needs any longer", removed)
            await asyncio.sleep(min(SWEEP_EVERY, self.uploads.keep / 4))

    @property
    def has_work(self) -> bool:
        """True while any job is not over, held ones aside."""
        return any(entry.job.state is not JobState.HELD for entry in self._yard.entries.values())

    # -- submitting --------------------------------------------------------------------

    async def submit(
        self, specs: Sequence[JobSpec], *, idempotency_key: str | None = None, digest: str = ""
    ) -> list[Job]:
        """Accept all of `specs` or none; see `Intake.submit`."""
        jobs = await self._intake.submit(specs, idempotency_key=idempotency_key, digest=digest)
        self._dispatcher.wake()
        return jobs

    # -- reading -----------------------------------------------------------------------

    async def get(self, job_id: int) -> Job:
        """Return one job; raises `NotFound`."""
        job = await self._store.get(job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id}; 'simyard jobs' lists those that exist")
        return job

    async def wait_for_change(self, job_id: int, *, version: int | None, timeout: float) -> Job:
        """Return the job when its version differs from `version`, or after `timeout` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            changed = self._yard.watch(job_id)
            try:
                job = await self.get(job_id)
                version = job.version if version is None else version
                left = deadline - asyncio.get_running_loop().time()
                if job.version != version or job.state.terminal or left <= 0:
                    return job
                await asyncio.wait({changed}, timeout=left)
            finally:
                changed.cancel()

    async def list_jobs(
        self, wanted: JobFilter, *, limit: int, cursor: str | None, count: bool
    ) -> Page:
        return await self._store.list_jobs(wanted, limit=limit, cursor=cursor, count=count)

    async def select_ids(self, wanted: JobFilter, limit: int) -> list[int]:
        return await self._store.select_ids(wanted, limit)

    async def job_events(self, job_id: int, limit: int) -> list[Event]:
        """Return the events of one job, oldest first."""
        return await self._store.events(0, limit, job_id=job_id)

    async def queue(self, limit: int) -> list[Job]:
        """Return the jobs that wait to start, in the order in which they stand."""
        waiting = self._yard.live(JobState.QUEUED, JobState.HELD)
        ordered = sorted(
            waiting,
            key=lambda entry: (
                entry.job.state is JobState.HELD,
                bool(entry.waits_for) or entry.not_before is not None,
                -entry.job.priority,
                entry.id,
            ),
        )
        return [entry.job for entry in ordered[:limit]]

    def queue_position(self, job: Job) -> int | None:
        """Return how many ready jobs stand before this one, plus one; None if it is not ready."""
        return self._yard.queue.position(job.id)

    def pending_reason(self, job: Job) -> str | None:
        """Say in plain words what a job that has not started waits for."""
        entry = self._yard.entries.get(job.id)
        if entry is None or not job.state.waiting:
            if job.state is JobState.SUBMITTING:
                return "is being started, or stands right behind a short job that runs"
            return None
        if job.state is JobState.HELD:
            return "held: 'release' lets it go"
        if entry.waits_for:
            return self._named(entry.waits_for)
        if entry.not_before is not None and entry.retries is not None:
            left = max(1.0, math.ceil(entry.not_before - time.monotonic()))
            return (
                f"tries again in {format_duration(left)} "
                f"(attempt {job.attempt + 1} of {entry.retries.limit + 1})"
            )
        return why(
            self._yard.queue,
            job.id,
            Waiting(request=entry.request, walltime=entry.walltime),
            self._yard.grants.ledger,
            self.limits,
            self._facts(),
        )

    async def explain(self, job_id: int) -> ExplanationView:
        """Say why a job is where it is, and what would change that; raises `NotFound`."""
        job = await self.get(job_id)
        return explanation_view(
            self._yard, job, self.pending_reason(job), self.limits, self._facts()
        )

    def _named(self, waits_for: Mapping[int, str]) -> str:
        others = sorted(waits_for)
        names = ", ".join(
            f"job {other} ({self._yard.entries[other].job.state.value})"
            if other in self._yard.entries
            else f"job {other}"
            for other in others[:3]
        )
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        return f"after {names}{more}"

    @property
    def limits(self) -> Limits:
        return self._dispatcher.limits

    def resources(self) -> dict[str, Any]:
        """What this host has, what of it may be used, and what is in use."""
        used = self._yard.grants.ledger.used
        sample = self.host.latest
        return {
            "host": sample.as_dict() if sample is not None else None,
            "limits": self.limits.to_wire(),
            "in_use": used.to_wire(),
            "states": {state.value: count for state, count in self._yard.counts.items()},
        }

    def _facts(self) -> HostFacts:
        sample = self.host.latest
        if sample is None:
            return HostFacts()
        return HostFacts(
            cpu_count=sample.cpu_count,
            memory_total=sample.memory_total,
            disk_total=sample.disk_total,
            disk_free=sample.disk_free,
            cpu_percent=sample.cpu_percent,
        )

    def schedulers(self) -> list[dict[str, Any]]:
        used = self._yard.grants.ledger.used.queues
        queues = [
            {"name": name, **limits.model_dump(), "in_use": dict(used.get(name, {}))}
            for name, limits in sorted(self.limits.queues.items())
        ]
        local = {"name": "local", "kind": "process", "default": True, "host": socket.gethostname()}
        return [{**local, "queues": queues}]

    async def environment_of(self, job: Job) -> dict[str, str]:
        """Return the whole environment that the job gets, or got."""
        spec = job.spec()
        base = None
        if job.environment is not None:
            base = await self._store.environment(job.environment)
        return job_environment(
            spec,
            base=base,
            grant_gpu_ids=job.gpu_ids,
            counts_gpus=bool(self.limits.gpus),
            job_id=str(job.id),
            name=job.name,
            attempt=job.attempt,
            tag=job.tag or "",
            workdir=str(self.job_folder(job.id).workdir(spec)),
        )

    # -- control -----------------------------------------------------------------------

    async def cancel(self, job_id: int) -> Job:
        """Ask for the end of a job; of one that waits it is done at once. Idempotent.

        Raises `Conflict` for a job that is over and was not cancelled.
        """
        entry = await self._live(job_id, "cancel", done=JobState.CANCELLED)
        if entry is None:
            return await self.get(job_id)
        batch = Batch()
        if entry.job.state.waiting:
            outcome = Outcome(reason=OutcomeReason.CANCELLED, message="cancelled before it started")
            self._yard.finish(batch, entry, JobState.CANCELLED, outcome, cancel_requested=True)
            await self._yard.commit(batch)
            return await self.get(job_id)
        if not entry.job.cancel_requested:
            self._yard.change(
                batch, entry, entry.job.state, event="job.changed", cancel_requested=True
            )
            await self._yard.commit(batch)
            faultpoint("cancel.committed")
        await self._end_outside(entry)
        faultpoint("cancel.sent")
        return await self.get(job_id)

    async def _end_outside(self, entry: Entry) -> None:
        tag = entry.job.tag
        if tag is None or entry.job.state.terminal or self._dispatcher.is_being_handed_over(tag):
            return
        if entry.job.state is JobState.SUBMITTING:
            taken_back = await self._adapter.withdraw([tag])
            if taken_back.get(tag):
                return
        await self._adapter.cancel([tag], grace=entry.grace)

    async def hold(self, job_id: int) -> Job:
        """Keep a job that has not started from starting."""
        entry = await self._live(job_id, "hold")
        assert entry is not None
        if entry.job.state is JobState.SUBMITTING:
            entry.hold_requested = True
            await self._dispatcher.take_back([entry])
            if entry.job.state is JobState.SUBMITTING:
                await asyncio.wait({self._yard.watch(job_id)}, timeout=5)
            entry.hold_requested = entry.job.state is JobState.SUBMITTING
        if entry.job.state is JobState.HELD:
            return await self.get(job_id)
        if entry.job.state is not JobState.QUEUED:
            entry.hold_requested = False
            raise Conflict(f"job {job_id} has started already: it is {entry.job.state.value}")
        batch = Batch()
        self._yard.change(batch, entry, JobState.HELD)
        await self._yard.commit(batch)
        return await self.get(job_id)

    async def release(self, job_id: int) -> Job:
        """Let a held job go; of one that is not held it says so with `Conflict`."""
        entry = await self._live(job_id, "release")
        assert entry is not None
        if entry.job.state is not JobState.HELD:
            raise Conflict(f"job {job_id} is not held: it is {entry.job.state.value}")
        batch = Batch()
        self._yard.change(
            batch, entry, JobState.QUEUED, event="job.released", queued_at=time.time()
        )
        await self._yard.commit(batch)
        self._dispatcher.wake()
        return await self.get(job_id)

    async def retry(self, job_id: int) -> Job:
        """Submit a finished job's spec again, as a new job that names it."""
        old = await self.get(job_id)
        if not old.state.terminal:
            raise Conflict(f"job {job_id} is not over yet: it is {old.state.value}")
        base = await self._store.environment(old.environment) if old.environment else None
        spec = old.spec().model_copy(update={"base_env": base, "hold": False})
        (job,) = await self._intake.submit([spec], retry_of=job_id)
        self._dispatcher.wake()
        return job

    async def change(self, job_id: int, changes: JobChanges) -> Job:
        """Change the priority or the request of a job that has not started."""
        entry = await self._live(job_id, "change")
        assert entry is not None
        if entry.job.state is JobState.SUBMITTING:
            await self._dispatcher.take_back([entry])
            if entry.job.state is JobState.SUBMITTING:
                await asyncio.wait({self._yard.watch(job_id)}, timeout=5)
        if not entry.job.state.waiting:
            raise Conflict(
                f"job {job_id} has started already: it is {entry.job.state.value}; "
                "only jobs that wait can be changed"
            )
        wanted = changes.model_dump(exclude_unset=True, exclude_none=True)
        spec = _changed_spec(await self._yard.spec_of(job_id), wanted)
        self._intake.check_possible(spec)
        if not entry.job.state.waiting:
            raise Conflict(f"job {job_id} has just started")
        batch = Batch()
        self._yard.respecify(entry, spec)
        self._yard.change(
            batch,
            entry,
            entry.job.state,
            event="job.changed",
            data={"changed": sorted(wanted)},
            priority=spec.priority,
            name=spec.title,
            spec_json=spec.model_dump_json(exclude={"base_env"}, exclude_defaults=True),
        )
        entry.job = entry.job.without_spec()
        await self._yard.commit(batch)
        self._dispatcher.wake()
        return await self.get(job_id)

    async def delete(self, job_id: int) -> None:
        """Forget a finished job: its record and its folder."""
        job = await self.get(job_id)
        if not job.state.terminal:
            raise Conflict(f"job {job_id} is {job.state.value}; cancel it before deleting it")
        await self._pruner.forget([job])

    async def prune(self, rules: Retention, wanted: JobFilter, *, dry_run: bool) -> Pruned:
        """Forget finished jobs by the rules of retention; see `Pruner.prune`."""
        return await self._pruner.prune(rules, wanted, dry_run=dry_run)

    async def set_limits(self, changes: Mapping[str, Any]) -> Limits:
        """Put changed limits in force and keep them; returns all that are in force now.

        Fields that are not named stay as they are. Raises `InvalidInput`.
        """
        limits = self.limits.changed(changes)
        batch = Batch()
        batch.meta[LIMITS] = json.dumps(limits.to_wire())
        self._yard.note(batch, "limits.changed", data=limits.to_wire())
        await self._yard.commit(batch)
        self._dispatcher.limits = limits
        await self._dispatcher.take_back()
        self._dispatcher.wake()
        return limits

    async def _live(self, job_id: int, verb: str, done: JobState | None = None) -> Entry | None:
        """Return the entry of a job that is not over; None where it ended as `done`."""
        while True:
            entry = self._yard.entries.get(job_id)
            if entry is not None and not entry.job.state.terminal:
                return entry
            job = entry.job if entry is not None else await self.get(job_id)
            if job.state.terminal:
                break
            await asyncio.sleep(0)  # committed, and about to be taken up
        if job.state is done:
            return None
        raise Conflict(f"cannot {verb} job {job_id}: it is over, it {_ended_word(job.state)}")


def _ended_word(state: JobState) -> str:
    return "was cancelled" if state is JobState.CANCELLED else state.value


def _changed_spec(spec: JobSpec, changes: Mapping[str, Any]) -> JobSpec:
    """Return the spec with `changes`, validated as a whole."""
    try:
        return JobSpec.model_validate({**spec.model_dump(exclude_defaults=True), **changes})
    except ValidationError as error:
        raise InvalidInput(str(error)) from error


def _initial_limits(settings: Settings, store: Store) -> Limits:
    """The limits kept in the store where somebody changed them, else the settings'."""
    kept = store.meta(LIMITS)
    limits = Limits.from_settings(settings)
    return limits.changed(json.loads(kept)) if kept else limits
