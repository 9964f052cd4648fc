"""What is written together: one batch is applied whole or not at all.

Plain data. Knows nothing of tables, threads or files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..model import Event, Job


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyRecord:
    """What a client's key stood for when it was first used."""

    key: str
    digest: str
    """Of the request's content: the same key with another content is refused."""
    job_ids: tuple[int, ...]
    created_at: float


@dataclass(slots=True)
class Batch:
    """Changes that belong together, in one transaction."""

    inserts: list[Job] = field(default_factory=list)
    updates: list[Job] = field(default_factory=list)
    """New values; each replaces the version right before its own."""
    deletes: list[int] = field(default_factory=list)
    """Ids of terminal jobs; one that is gone already, or not terminal, is passed over."""
    events: list[Event] = field(default_factory=list)
    environments: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Captured environments by their hash; one that is known already is passed over."""
    idempotency: list[IdempotencyRecord] = field(default_factory=list)
    meta: dict[str, str] = field(default_factory=dict)
    forget_events_before: int = 0
    """Drop events with a smaller number; the newest event always stays."""
    forget_keys_before: float = 0.0
    """Drop idempotency records that are older."""
    forget_environments: bool = False
    """Drop captured environments that no job refers to any more."""
    durable: bool = False
    """Survive a power cut, not only the death of a process."""

    def keep_environment(self, environment: Mapping[str, str]) -> str:
        """Store an environment once for all jobs that share it; return its hash."""
        digest = hashlib.sha256()
        for name, value in sorted(environment.items()):
            digest.update(f"{name}={value}\0".encode("utf-8", "surrogateescape"))
        key = digest.hexdigest()
        self.environments[key] = environment
        return key

    def merge(self, other: Batch) -> None:
        """Take in what `other` holds, to be applied after what is here."""
        self.inserts += other.inserts
        self.updates += other.updates
        self.deletes += other.deletes
        self.events += other.events
        self.environments.update(other.environments)
        self.idempotency += other.idempotency
        self.meta.update(other.meta)
        self.forget_events_before = max(self.forget_events_before, other.forget_events_before)
        self.forget_keys_before = max(self.forget_keys_before, other.forget_keys_before)
        self.forget_environments = self.forget_environments or other.forget_environments
        self.durable = self.durable or other.durable

    @property
    def of_jobs(self) -> bool:
        """True where it changes jobs, not only what is said about them."""
        return bool(self.inserts or self.updates or self.deletes)

    def __len__(self) -> int:
        """Count the rows that this writes."""
        return (
            len(self.inserts)
            + len(self.updates)
            + len(self.deletes)
            + len(self.events)
            + len(self.environments)
            + len(self.idempotency)
            + len(self.meta)
        )

    def __bool__(self) -> bool:
        return bool(
            len(self)
            or self.forget_events_before
            or self.forget_keys_before
            or self.forget_environments
        )
