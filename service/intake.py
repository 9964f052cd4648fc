"""What comes in: specs checked, made durable, and only then taken up as jobs.

Knows the yard and the limits; nothing of HTTP, and nothing of how jobs are started.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from ..errors import Conflict, ImpossibleRequest, InvalidInput, NotFound
from .faults import faultpoint
from .model import Job, JobSpec, Outcome
from .resources import HostFacts, Limits, impossible
from .states import JobState
from .store.batch import Batch, IdempotencyRecord
from .uploads import Uploads, refused
from .yard import Entry, Yard, dependency_outcome, satisfied

AUTO = "auto"
LOCAL_NAMES = frozenset({AUTO, "local", "none"})


class Intake:
    """Accepts submissions."""

    def __init__(
        self,
        yard: Yard,
        limits: Callable[[], Limits],
        facts: Callable[[], HostFacts],
        *,
        host: str,
        default_scheduler: str,
        uploads: Uploads,
    ) -> None:
        self.next_id = 1
        self._default_scheduler = default_scheduler
        self._yard = yard
        self._limits = limits
        self._facts = facts
        self._host = host
        self._uploads = uploads
        self._under_way: dict[str, asyncio.Future[None]] = {}
        """Idempotency keys whose first use is not committed yet."""

    async def submit(
        self,
        specs: Sequence[JobSpec],
        *,
        idempotency_key: str | None = None,
        digest: str = "",
        retry_of: int | None = None,
    ) -> list[Job]:
        """Accept all of `specs` or none; return their jobs once they are durable.

        A repeated `idempotency_key` returns the jobs of its first use. Raises
        `ImpossibleRequest` for what could never run here, `InvalidInput` for unknown
        dependencies or schedulers, `Conflict` where the key was used for something else.
        """
        if not specs:
            raise InvalidInput("there is no job in the request")
        if idempotency_key is None:
            return await self._accept(specs, None, retry_of)
        while idempotency_key in self._under_way:
            await asyncio.wait({self._under_way[idempotency_key]})
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way[idempotency_key] = done
        try:
            earlier = await self._yard.store.idempotent(idempotency_key)
            if earlier is not None:
                return await self._replayed(earlier, digest)
            return await self._accept(specs, (idempotency_key, digest), retry_of)
        finally:
            del self._under_way[idempotency_key]
            done.set_result(None)

    async def _accept(
        self, specs: Sequence[JobSpec], key: tuple[str, str] | None, retry_of: int | None
    ) -> list[Job]:
        """Check, commit, take up. Many submissions may be here at once: they share a commit."""
        await self._check_uploads(specs)
        for position, spec in enumerate(specs):
            self.check_possible(spec, position if len(specs) > 1 else None)
            _, broken = await self._dependencies(spec)
            if broken is not None:
                raise InvalidInput(f"this job could never start: {broken.message}")
        # From here to the commit nothing is awaited: ids and events are in the order of the store.
        now = time.time()
        batch = Batch(durable=True)
        jobs = [
            self._new_job(batch, self.next_id + number, spec, now, retry_of)
            for number, spec in enumerate(specs)
        ]
        self.next_id += len(jobs)
        if key is not None:
            ids = tuple(job.id for job in jobs)
            batch.idempotency.append(
                IdempotencyRecord(key=key[0], digest=key[1], job_ids=ids, created_at=now)
            )
        faultpoint("submit.before-commit")
        await self._yard.commit(batch, refusable=True)
        faultpoint("submit.committed")
        await self._admit(jobs, specs)
        return jobs

    async def _check_uploads(self, specs: Sequence[JobSpec]) -> None:
        wanted = {digest for spec in specs for digest in spec.uploads()}
        missing = await asyncio.to_thread(self._uploads.missing, sorted(wanted)) if wanted else []
        if missing:
            raise refused(missing, self._uploads.keep)

    async def _admit(self, jobs: Sequence[Job], specs: Sequence[JobSpec]) -> None:
        """Take up jobs that are durable now; what they depend on may have ended meanwhile."""
        commits = []
        for job, spec in zip(jobs, specs, strict=True):
            waits_for, broken = await self._dependencies(spec, accepted=True)
            entry = self._yard.admit(job, spec, waits_for)
            if broken is not None:
                commits.append(self._fall(entry, broken))
        for commit in commits:
            await commit

    def _fall(self, entry: Entry, broken: Outcome) -> Coroutine[Any, Any, None]:
        """End a job whose dependency can never be satisfied."""
        batch = Batch()
        self._yard.finish(batch, entry, JobState.FAILED, broken)
        return self._yard.commit(batch)

    def _new_job(
        self, batch: Batch, job_id: int, spec: JobSpec, now: float, retry_of: int | None
    ) -> Job:
        environment = None
        if spec.base_env is not None:
            environment = batch.keep_environment(spec.base_env)
        state = JobState.HELD if spec.hold else JobState.QUEUED
        job = Job(
            id=job_id,
            state=state,
            version=1,
            spec_json=spec.model_dump_json(exclude={"base_env"}, exclude_defaults=True),
            name=spec.title,
            priority=spec.priority,
            scheduler="local",
            project=spec.project,
            group=spec.group,
            environment=environment,
            host=self._host,
            retry_of=retry_of,
            created_at=now,
            queued_at=None if spec.hold else now,
        )
        batch.inserts.append(job)
        told = {"state": state.value, "name": job.name, "version": 1, "attempt": 0}
        self._yard.note(batch, f"job.{state.value}", job_id, told, now=now)
        return job

    async def _replayed(self, earlier: IdempotencyRecord, digest: str) -> list[Job]:
        if earlier.digest != digest:
            raise Conflict(
                "this Idempotency-Key was used before for another request; use a new key"
            )
        by_id = {job.id: job for job in await self._yard.store.get_many(earlier.job_ids)}
        if len(by_id) < len(set(earlier.job_ids)):
            raise Conflict(
                "this Idempotency-Key was used before, for jobs that have been deleted since; "
                "use a new key to submit them again"
            )
        return [by_id[job_id] for job_id in earlier.job_ids]

    def check_possible(self, spec: JobSpec, position: int | None = None) -> None:
        """Raise where `spec` could never run here, saying why."""
        where = "" if position is None else f"job {position} of the batch: "
        wanted = self._default_scheduler if spec.scheduler == AUTO else spec.scheduler
        if wanted not in LOCAL_NAMES:
            raise InvalidInput(
                f"{where}there is no scheduler {wanted!r} here; this service has 'local'"
            )
        limits = self._limits()
        if spec.queue is not None and spec.queue not in limits.queues:
            known = ", ".join(sorted(limits.queues))
            raise ImpossibleRequest(
                f"{where}there is no queue {spec.queue!r} on this machine; "
                + (f"there are {known}" if known else "it has none (setting queues)")
            )
        reason = impossible(spec.resource_request(), limits, self._facts())
        if reason is not None:
            raise ImpossibleRequest(where + reason)

    async def _dependencies(
        self, spec: JobSpec, *, accepted: bool = False
    ) -> tuple[dict[int, str], Outcome | None]:
        """Return which jobs `spec` has to wait for, or why it can never start.

        Of a job that was `accepted` before, one that is gone by now (deleted, pruned) had
        met its condition: had it not, this job would have failed together with its end.
        """
        entries = self._yard.entries
        over: dict[int, Job] = {}
        gone: set[int] = set()
        for dependency in spec.depends_on:
            other = parse_id(dependency.job)
            if other not in entries:
                job = await self._yard.store.get(other)
                if job is None and accepted:
                    gone.add(other)
                    continue
                if job is None:
                    raise InvalidInput(f"it depends on job {other}, which does not exist")
                over[other] = job
        # Nothing is awaited from here on: the answer holds when it is returned.
        waits_for: dict[int, str] = {}
        for dependency in spec.depends_on:
            other = parse_id(dependency.job)
            job = entries[other].job if other in entries else over.get(other)
            if other in gone:
                continue
            if job is None:
                # It has just ended: the store knows how.
                return await self._dependencies(spec, accepted=accepted)
            if not job.state.terminal:
                waits_for[other] = dependency.condition
            elif not satisfied(dependency.condition, job.state):
                return {}, dependency_outcome(dependency.condition, job)
        return waits_for, None

    async def resume_dependencies(self) -> None:
        """Ask again, after a restart, what the jobs that waited for others still wait for."""
        for entry in self._yard.live(JobState.HELD, JobState.QUEUED):
            if entry.waits_for:
                waits_for, broken = await self._dependencies(
                    await self._yard.spec_of(entry.id), accepted=True
                )
                if entry.job.state.terminal:
                    continue
                if broken is not None:
                    await self._fall(entry, broken)
                else:
                    self._yard.await_others(entry, waits_for)


def parse_id(text: str) -> int:
    """Read a job id as it stands on the wire; raises `NotFound` for what cannot be one."""
    if text.isascii() and text.isdigit() and len(text) <= 15:
        return int(text)
    raise NotFound(f"there is no job {text!r}; ids are numbers such as 17")
