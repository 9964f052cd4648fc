"""From our words to rows and back.

Pure. Environments and event data are JSON in ASCII: what a caller's environment
holds need not be valid Unicode, and must come back as it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from ..model import Event, Job, Outcome, OutcomeReason
from ..states import JobState
from .batch import IdempotencyRecord


def dump(value: object) -> str:
    """Write JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def job_values(job: Job) -> dict[str, Any]:
    """Return all columns of one job."""
    outcome = job.outcome
    return {
        "id": job.id,
        "state": job.state.value,
        "version": job.version,
        "spec_json": job.spec_json,
        "name": job.name,
        "priority": job.priority,
        "scheduler": job.scheduler,
        "project": job.project,
        "group": job.group,
        "tags": tags_text(job.spec_json),
        "attempt": job.attempt,
        "tag": job.tag,
        "native_id": job.native_id,
        "outcome_reason": outcome.reason.value if outcome else None,
        "outcome_exit_code": outcome.exit_code if outcome else None,
        "outcome_signal": outcome.signal if outcome else None,
        "outcome_message": outcome.message if outcome else None,
        "cancel_requested": job.cancel_requested,
        "retry_of": job.retry_of,
        "environment": job.environment,
        "host": job.host,
        "wall_seconds": job.wall_seconds,
        "cpu_seconds": job.cpu_seconds,
        "max_rss_bytes": job.max_rss_bytes,
        "created_at": job.created_at,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }


def job_of(row: Row[Any]) -> Job:
    """Build a job from a row with all columns of `schema.jobs`."""
    reason = row.outcome_reason
    outcome = None
    if reason is not None:
        outcome = Outcome(
            reason=OutcomeReason(reason),
            exit_code=row.outcome_exit_code,
            signal=row.outcome_signal,
            message=row.outcome_message or "",
        )
    return Job(
        id=row.id,
        state=JobState(row.state),
        version=row.version,
        spec_json=row.spec_json,
        name=row.name,
        priority=row.priority,
        scheduler=row.scheduler,
        project=row.project,
        group=row.group,
        attempt=row.attempt,
        tag=row.tag,
        native_id=row.native_id,
        outcome=outcome,
        cancel_requested=row.cancel_requested,
        retry_of=row.retry_of,
        environment=row.environment,
        host=row.host,
        wall_seconds=row.wall_seconds,
        cpu_seconds=row.cpu_seconds,
        max_rss_bytes=row.max_rss_bytes,
        created_at=row.created_at,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def tags_text(spec_json: str) -> str | None:
    """Return a spec's tags as lines that can be searched, None where it has none."""
    # Most jobs have none, and parsing a spec costs more than writing the row.
    if '"tags"' not in spec_json or '"tags":{}' in spec_json:
        return None
    tags = json.loads(spec_json).get("tags")
    if not isinstance(tags, Mapping) or not tags:
        return None
    return "\n" + "".join(f"{key}={value}\n" for key, value in tags.items())


def event_values(event: Event) -> dict[str, Any]:
    """Return all columns of one event."""
    return {
        "seq": event.seq,
        "time": event.time,
        "type": event.type,
        "job_id": event.job_id,
        "data": dump(dict(event.data)),
    }


def event_of(row: Row[Any]) -> Event:
    """Build an event from a row of `schema.events`."""
    return Event(
        seq=row.seq, time=row.time, type=row.type, job_id=row.job_id, data=json.loads(row.data)
    )


def key_values(record: IdempotencyRecord) -> dict[str, Any]:
    """Return all columns of one idempotency record."""
    return {
        "key": record.key,
        "digest": record.digest,
        "job_ids": dump(record.job_ids),
        "created_at": record.created_at,
    }


def key_of(row: Row[Any]) -> IdempotencyRecord:
    """Build an idempotency record from a row of `schema.idempotency`."""
    return IdempotencyRecord(
        key=row.key,
        digest=row.digest,
        job_ids=tuple(json.loads(row.job_ids)),
        created_at=row.created_at,
    )
