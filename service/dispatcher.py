"""Who starts now: decisions turned into claims, claims into submissions.

A claim (`submitting`, attempt, tag) is committed before anything outside is
touched. Short jobs are handed over ahead of need: a job may inherit the grant of a
running one of the same request, so that the launcher starts it without a word from
here. The window is small, and everything that was handed over and has not started
can be taken back.

It must not know HTTP, nor what comes of the attempts: that is the follower's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ..errors import SimyardError
from ..scheduler_adapters.contract import ResourceRequest, SchedulerAdapter, Submission
from .environment import job_environment
from .faults import faultpoint
from .grants import Slot
from .job_folder import JobFolder
from .model import JobSpec, Outcome, OutcomeReason
from .resources import HostFacts, Limits
from .scheduling import Decision, Policy, Running, decide, successors
from .states import JobState
from .store.batch import Batch
from .yard import Entry, Yard

log = logging.getLogger(__name__)

WINDOW = 0.2
"""Seconds of work that may be handed over behind a running job."""
MOST_AHEAD = 64
"""Attempts that may wait behind one running job, however short they are."""
ROUND = 256
"""Claims of one round: a commit and a message to the launcher stay small."""
STUCK = 2 * WINDOW
"""Seconds after which who waits behind a job that proved long is taken back."""
RETRY_AFTER = 1.0
LOOK_AGAIN = 2.0
"""Seconds after which jobs that wait for the host itself (disk, load) are looked at again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One attempt that is committed as ours to start."""

    entry: Entry
    tag: str
    attempt: int
    gpu_ids: tuple[int, ...]
    after: str | None


class Dispatcher:
    """Starts what is ready and fits, for as long as it runs."""

    def __init__(
        self,
        yard: Yard,
        adapter: SchedulerAdapter,
        folder_of: Callable[[int], JobFolder],
        facts: Callable[[], HostFacts],
        limits: Limits,
        policy: Policy,
    ) -> None:
        self.limits = limits
        self._yard = yard
        self._adapter = adapter
        self._folder_of = folder_of
        self._facts = facts
        self._policy = policy
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._recheck = False
        self._durations: dict[ResourceRequest, float] = {}
        self._handing_over: set[str] = set()
        self._environments: dict[str, dict[str, str]] = {}

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="dispatcher")
        self.wake()

    async def stop(self) -> None:
        """Start nothing more; claims that are under way are finished first."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    def wake(self) -> None:
        """Something changed: look again for what can start."""
        self._wake.set()

    def learn(self, request: ResourceRequest, seconds: float) -> None:
        """Take note of how long a job of this request ran, to know which are short."""
        known = self._durations.get(request)
        self._durations[request] = seconds if known is None else 0.8 * known + 0.2 * seconds
        if len(self._durations) > 1000:
            self._durations.pop(next(iter(self._durations)))

    def is_being_handed_over(self, tag: str) -> bool:
        """True between the commit of a claim and the adapter's taking it."""
        return tag in self._handing_over

    async def take_back(self, entries: Iterable[Entry] | None = None) -> None:
        """Withdraw what was handed over and has not started: of `entries`, or all of it."""
        if entries is None:
            tags = self._yard.grants.waiting()
        else:
            tags = [entry.job.tag for entry in entries if entry.job.tag is not None]
        if tags:
            await self._adapter.withdraw(tags)

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._patience())
            self._wake.clear()
            try:
                await self._take_back_stuck()
                while not self._stopping and await self._round():
                    pass
            except SimyardError as error:
                log.warning("nothing could be started, trying again soon: %s", error)
                asyncio.get_running_loop().call_later(RETRY_AFTER, self.wake)
            except Exception:
                log.exception("unexpected while starting jobs, trying again soon")
                asyncio.get_running_loop().call_later(RETRY_AFTER, self.wake)

    def _patience(self) -> float | None:
        """Seconds after which to look again although nobody said that anything changed."""
        if self._yard.grants.waiting():
            return STUCK
        return LOOK_AGAIN if self._recheck else None

    async def _take_back_stuck(self) -> None:
        """Who was put behind a job that proved long shall not wait for it while others start."""
        tags = [
            tag
            for tag in self._yard.grants.waiting(longer_than=STUCK)
            if not self.is_being_handed_over(tag)
        ]
        if tags:
            await self._adapter.withdraw(tags)

    async def _round(self) -> int:
        """Claim and hand over at most one round of attempts; return how many."""
        claims = self._claims_that_fit()
        claims += self._claims_ahead(ROUND - len(claims))
        if not claims:
            return 0
        batch = Batch()
        for claim in claims:
            self._yard.change(
                batch,
                claim.entry,
                JobState.SUBMITTING,
                attempt=claim.attempt,
                tag=claim.tag,
                native_id=None,
                gpu_ids=claim.gpu_ids,
            )
        self._handing_over.update(claim.tag for claim in claims)
        faultpoint("dispatch.before-claim")
        try:
            await self._yard.commit(batch)
            faultpoint("dispatch.claimed")
            await self._hand_over(claims)
            faultpoint("dispatch.handed-over")
        except Exception:
            # An adapter raises before it has taken anything: none of these was started.
            await self._give_up([claim.tag for claim in claims])
            raise
        finally:
            self._handing_over.difference_update(claim.tag for claim in claims)
        return len(claims)

    # -- deciding ----------------------------------------------------------------------

    def _claims_that_fit(self) -> list[Claim]:
        yard = self._yard
        decision = self._decide()
        while decision.again and not decision.starts:
            decision = self._decide()
        self._recheck = decision.recheck
        claims = []
        for job_id in decision.starts:
            entry = yard.entries[job_id]
            yard.queue.remove(job_id)
            attempt, tag = self._next_attempt(entry)
            yard.grants.give(tag, entry.request)
            claims.append(self._claim(entry, attempt, tag, tag, None))
        return claims

    def _decide(self) -> Decision:
        yard = self._yard
        return decide(
            yard.queue,
            yard.grants.ledger,
            self.limits,
            self._facts(),
            running=self._running(),
            policy=self._policy,
            now=time.monotonic(),
            at_most=ROUND,
        )

    def _claims_ahead(self, room: int) -> list[Claim]:
        """Let short jobs inherit the grants of running ones, a small window of work ahead."""
        yard = self._yard
        claims: list[Claim] = []
        if not yard.queue or not self._durations:
            return claims
        for slot in yard.grants:
            wanted = min(self._ahead(slot), room - len(claims))
            if wanted <= 0:
                continue
            request = yard.grants.request_of(slot)
            for job_id in successors(yard.queue, request, wanted):
                entry = yard.entries[job_id]
                yard.queue.remove(job_id)
                attempt, tag = self._next_attempt(entry)
                after = slot.last
                yard.grants.inherit(slot, tag)
                claims.append(self._claim(entry, attempt, tag, slot.key, after))
        return claims

    def _ahead(self, slot: Slot) -> int:
        """How many more attempts to put behind a slot: none while enough wait there."""
        seconds = self._durations.get(self._yard.grants.request_of(slot))
        if seconds is None or seconds > WINDOW:
            return 0
        if self._yard.grants.age(slot) > max(4 * seconds, WINDOW / 4):
            return 0  # what runs there is no short job, whatever others like it were
        window = max(1, min(MOST_AHEAD, int(WINDOW / max(seconds, 1e-4))))
        return window - len(slot.waiting) if len(slot.waiting) * 2 <= window else 0

    def _next_attempt(self, entry: Entry) -> tuple[int, str]:
        attempt = entry.job.attempt + 1
        tag = self._yard.new_tag(entry.id, attempt)
        self._yard.by_tag[tag] = entry
        return attempt, tag

    def _claim(self, entry: Entry, attempt: int, tag: str, grant: str, after: str | None) -> Claim:
        gpu_ids = tuple(self._yard.grants.ledger.gpu_ids(grant))
        return Claim(entry=entry, tag=tag, attempt=attempt, gpu_ids=gpu_ids, after=after)

    def _running(self) -> list[Running]:
        """What holds grants, and when each will be over at the latest."""
        yard, now, clock = self._yard, time.time(), time.monotonic()
        found = []
        for slot in yard.grants:
            last = yard.by_tag.get(slot.last)
            ends = None
            if last is not None and last.walltime is not None and not slot.waiting:
                ran = max(0.0, now - (last.job.started_at or now))
                ends = clock + max(0.0, last.walltime - ran)
            found.append(Running(request=yard.grants.request_of(slot), ends_by=ends))
        return found

    # -- handing over ------------------------------------------------------------------

    async def _hand_over(self, claims: list[Claim]) -> None:
        specs: dict[int, JobSpec] = {}
        for claim in claims:
            specs[claim.entry.id] = await self._yard.spec_of(claim.entry.id)
            await self._environment(claim.entry.job.environment)
        submissions, failures = await asyncio.to_thread(self._prepare, claims, specs)
        batch = Batch()
        for claim, reason in failures:
            outcome = Outcome(reason=OutcomeReason.START_FAILED, message=reason)
            self._yard.finish(batch, claim.entry, JobState.FAILED, outcome)
            self._yard.grants.clear(claim.tag)
        await self._yard.commit(batch)
        wanted = [item for item in submissions if self._still_wanted(item.tag)]
        if wanted:
            await self._adapter.submit(wanted)
        # A cancel or hold that came while they were being prepared ends these here.
        await self._give_up([item.tag for item in submissions if item not in wanted])

    def _still_wanted(self, tag: str) -> bool:
        entry = self._yard.by_tag.get(tag)
        return entry is not None and not entry.job.cancel_requested and not entry.hold_requested

    async def _give_up(self, tags: Iterable[str]) -> None:
        """Take attempts back that were claimed and never handed over."""
        batch = Batch()
        for tag in tags:
            entry = self._yard.by_tag.get(tag)
            if entry is not None and entry.job.state is JobState.SUBMITTING:
                never_started(self._yard, batch, entry)
            self._yard.grants.clear(tag)
        await self._yard.commit(batch)

    async def _environment(self, key: str | None) -> None:
        if key is not None and key not in self._environments:
            if len(self._environments) > 64:
                self._environments.clear()
            self._environments[key] = await self._yard.store.environment(key) or {}

    def _prepare(
        self, claims: list[Claim], specs: Mapping[int, JobSpec]
    ) -> tuple[list[Submission], list[tuple[Claim, str]]]:
        """Lay out each job's folder and say exactly what to start. Runs in a thread."""
        submissions: list[Submission] = []
        failures: list[tuple[Claim, str]] = []
        for claim in claims:
            try:
                submissions.append(self._submission(claim, specs[claim.entry.id]))
            except SimyardError as error:
                failures.append((claim, error.message))
            except OSError as error:
                failures.append((claim, f"its folder could not be prepared: {error}"))
        return submissions, failures

    def _submission(self, claim: Claim, spec: JobSpec) -> Submission:
        entry = claim.entry
        folder: JobFolder = self._folder_of(entry.id)
        folder.create(spec)
        folder.stage(spec)
        key = entry.job.environment
        environment = job_environment(
            spec,
            base=self._environments[key] if key is not None else None,
            grant_gpu_ids=claim.gpu_ids,
            counts_gpus=bool(self.limits.gpus),
            job_id=str(entry.id),
            name=entry.job.name,
            attempt=claim.attempt,
            tag=claim.tag,
            workdir=str(folder.workdir(spec)),
        )
        return Submission(
            job_id=str(entry.id),
            attempt=claim.attempt,
            tag=claim.tag,
            name=entry.job.name,
            argv=tuple(folder.write_script(spec)),
            workdir=str(folder.workdir(spec)),
            env=environment,
            stdout=str(folder.stdout),
            stderr=str(folder.stderr),
            resources=entry.request,
            walltime=entry.walltime,
            grace=entry.grace,
            output_limit=entry.output_limit,
            usage_path=str(folder.usage),
            soft_limits=spec.soft_limits,
            after=claim.after,
        )


def never_started(yard: Yard, batch: Batch, entry: Entry) -> None:
    """An attempt that was claimed is proven never to have started: back to the queue, or out."""
    if entry.job.cancel_requested:
        outcome = Outcome(reason=OutcomeReason.CANCELLED, message="cancelled before it started")
        yard.finish(batch, entry, JobState.CANCELLED, outcome)
        return
    tag = entry.job.tag
    yard.change(
        batch, entry, JobState.QUEUED, tag=None, native_id=None, attempt=entry.job.attempt - 1
    )
    if tag is not None:
        yard.by_tag.pop(tag, None)
    if entry.hold_requested:
        entry.hold_requested = False
        yard.change(batch, entry, JobState.HELD)
