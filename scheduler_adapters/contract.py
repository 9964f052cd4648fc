"""What the service and an adapter say to each other.

Holds frozen words only: what is handed to an adapter (`Submission`), what comes
back (`Report`, `Ending`), and the `SchedulerAdapter` protocol. It must not know
jobs, stores, priorities or HTTP.

One attempt of a job is named by its `tag`, a mark that is unique for all time
and all homes. Whoever starts an attempt marks it with the tag so that it can be
found again by asking the outside world, never by trusting memory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRequest:
    """What one attempt occupies while it runs. Memory and disk are bytes."""

    cores: int = 1
    memory: int = 0
    """Bytes; 0 means nothing was stated: nothing is reserved and nothing is enforced."""
    disk: int = 0
    gpus: int = 0
    licenses: tuple[tuple[str, int], ...] = ()
    """Named counters, sorted by name, each at least 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Everything an adapter needs to start one attempt."""

    job_id: str
    attempt: int
    tag: str
    name: str
    argv: tuple[str, ...]
    workdir: str
    env: Mapping[str, str]
    """The whole environment of the job, the grant's variables and our own included."""
    stdout: str
    stderr: str
    resources: ResourceRequest
    walltime: float | None = None
    """Seconds from the start; None means no limit."""
    grace: float = 10.0
    """Seconds between the polite signal and the kill."""
    output_limit: int | None = None
    """Bytes of stdout and stderr together after which the job is ended."""
    usage_path: str | None = None
    """Where samples of CPU and memory over the job's life are appended, if anywhere."""
    soft_limits: Mapping[str, int] = field(default_factory=dict)
    """The caller's soft resource limits by the names of ``resource`` without
    ``RLIMIT_``, lower case ("stack", "core", …); -1 is unlimited."""
    after: str | None = None
    """Local only: tag of the attempt whose grant this one inherits when it is over."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options of external schedulers (queue, account, …)."""


class ReportKind(str, Enum):
    """What kind of news a report brings."""

    STARTING = "starting"
    """Written just before the outside world is touched: it may or may not exist."""
    STARTED = "started"
    """The work runs; `native_id` is known."""
    SCHEDULED = "scheduled"
    """An external scheduler took it; it is pending there."""
    ENDED = "ended"
    """The leader is gone; `ending` says how. Its tree may still be being ended."""
    CLEARED = "cleared"
    """Nothing of the attempt is left: what it occupied is free."""
    WITHDRAWN = "withdrawn"
    """It was handed over but never started, and never will be under this tag."""


class Cause(str, Enum):
    """Why an attempt ended, where that was not its own doing."""

    OWN = "own"
    """By itself: exit code or signal tell."""
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_LIMIT = "output_limit"
    START_FAILED = "start_failed"
    NODE_FAILURE = "node_failure"
    INTERRUPTED = "interrupted"
    """The host was restarted while it ran."""
    LOST = "lost"
    """It is over, and no evidence of how is left anywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an attempt used; seconds and bytes."""

    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    max_rss_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended."""

    cause: Cause = Cause.OWN
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One piece of news about one attempt, in the order in which it happened."""

    tag: str
    kind: ReportKind
    time: float
    """Wall clock of the host where it happened, seconds since the epoch."""
    native_id: str | None = None
    ending: Ending | None = None
    cursor: str | None = None
    """Position right behind this report in the adapter's own durable record; the
    service stores it together with what it made of the report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownAttempt:
    """An attempt that the service believes is out there, for recovery."""

    tag: str
    native_id: str | None
    claimed_only: bool
    """True while it was committed as claimed and nothing else is known of it."""


Listener = Callable[[Sequence[Report]], Awaitable[None]]
"""Takes reports in order; the adapter waits for it before it delivers more."""


class SchedulerAdapter(Protocol):
    """One way to run work: the local launcher, or an external scheduler."""

    name: str

    async def open(
        self, listener: Listener, *, cursor: str | None, known: Sequence[KnownAttempt]
    ) -> None:
        """Take up the work: replay what happened since `cursor`, adopt `known`, follow.

        When it returns, every attempt of `known` has been reported on or is being
        followed; one that was claimed only and is proven never started was reported
        `withdrawn`.

        Raises `LauncherError` or `SchedulerError` where the other side cannot be
        reached: nothing is concluded from silence.
        """

    async def submit(self, submissions: Sequence[Submission]) -> None:
        """Hand over attempts whose intention is committed; the outcome comes as reports.

        Raises before anything was handed over, or not at all.
        """

    async def withdraw(self, tags: Sequence[str]) -> Mapping[str, bool]:
        """Take back what has not started; True where it will now never start."""

    async def cancel(self, tags: Sequence[str], *, grace: float | None = None) -> None:
        """End the whole tree of each: polite signal, grace, kill. Idempotent."""

    async def forget_before(self, cursor: str) -> None:
        """Let go of the adapter's own records before `cursor`, which is durable elsewhere."""

    async def close(self) -> None:
        """Stop following. What runs goes on."""
