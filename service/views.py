"""How things look on the wire: shapes, times, masked secrets, and their JSON text.

Pure. The shapes are typed dictionaries, so that the OpenAPI document is made from
what the code builds. It must not know HTTP or the manager.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from typing_extensions import NotRequired, TypedDict

from .environment import masked
from .model import Event, Job, Outcome


class OutcomeView(TypedDict):
    """How a job ended."""

    reason: str
    exit_code: int | None
    signal: int | None
    message: str


class UsageView(TypedDict):
    """What a job used; seconds and bytes."""

    wall_seconds: float
    cpu_seconds: float
    max_rss_bytes: int


class JobView(TypedDict):
    """One job."""

    id: str
    name: str
    state: str
    outcome: OutcomeView | None
    pending_reason: str | None
    attempt: int
    native_id: str | None
    scheduler: str
    spec: dict[str, Any]
    usage: UsageView
    created_at: str
    started_at: str | None
    finished_at: str | None
    priority: int
    project: str | None
    group: str | None
    tags: dict[str, str]
    cancel_requested: bool
    retry_of: str | None
    workdir: str
    folder: str
    host: str | None
    version: int
    queue_position: NotRequired[int]


class EventView(TypedDict):
    """One line of the numbered history."""

    seq: int
    time: str
    type: str
    job_id: str | None
    data: dict[str, Any]


def timestamp(seconds: float) -> str:
    """Write seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def optional_timestamp(seconds: float | None) -> str | None:
    """The same, for a time that may not have come."""
    return None if seconds is None else timestamp(seconds)


def encode(document: object) -> bytes:
    """Write a document as JSON; bytes that are no UTF-8 (in names, in variables) are escaped."""
    try:
        return to_json(document)
    except PydanticSerializationError:
        return json.dumps(document).encode("ascii")


def readable(name: str) -> str:
    """Return a name of the file system as text that can be sent and shown."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def outcome_view(outcome: Outcome) -> OutcomeView:
    """Show how a job ended."""
    return {
        "reason": outcome.reason.value,
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "message": outcome.message,
    }


def spec_view(spec_json: str) -> dict[str, Any]:
    """Show the spec as it was accepted, without the captured environment, secrets masked."""
    spec: dict[str, Any] = json.loads(spec_json) if spec_json else {}
    spec.pop("base_env", None)
    env = spec.get("env")
    if env:
        spec["env"] = masked(env)
    return spec


def job_view(
    job: Job,
    *,
    folder: str,
    pending_reason: str | None = None,
    queue_position: int | None = None,
) -> JobView:
    """Show one job; `folder` is the absolute path of what is kept of it."""
    spec = spec_view(job.spec_json)
    view: JobView = {
        "id": str(job.id),
        "name": job.name,
        "state": job.state.value,
        "outcome": None if job.outcome is None else outcome_view(job.outcome),
        "pending_reason": pending_reason,
        "attempt": job.attempt,
        "native_id": job.native_id,
        "scheduler": job.scheduler,
        "spec": spec,
        "usage": {
            "wall_seconds": job.wall_seconds,
            "cpu_seconds": job.cpu_seconds,
            "max_rss_bytes": job.max_rss_bytes,
        },
        "created_at": timestamp(job.created_at),
        "started_at": optional_timestamp(job.started_at),
        "finished_at": optional_timestamp(job.finished_at),
        "priority": job.priority,
        "project": job.project,
        "group": job.group,
        "tags": spec.get("tags") or {},
        "cancel_requested": job.cancel_requested,
        "retry_of": None if job.retry_of is None else str(job.retry_of),
        "workdir": spec.get("workdir") or f"{folder}/work",
        "folder": folder,
        "host": job.host,
        "version": job.version,
    }
    if queue_position is not None:
        view["queue_position"] = queue_position
    return view


def event_view(event: Event) -> EventView:
    """Show one event."""
    return {
        "seq": event.seq,
        "time": timestamp(event.time),
        "type": event.type,
        "job_id": None if event.job_id is None else str(event.job_id),
        "data": dict(event.data),
    }
