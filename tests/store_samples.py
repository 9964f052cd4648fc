"""Jobs, events and batches for the tests of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simyard.service.model import Event, Job
from simyard.service.states import JobState
from simyard.service.store.batch import Batch
from simyard.service.store.store import Store

OWNER = {"pid": 4711, "host": "workstation", "started_at": "2026-01-01T00:00:00Z"}
SAME_HOME = {"lock": "boot:1:2", "home_id": "h1", "home": "/home/one"}
"""Who holds the lock of a home may follow another holder of it at once."""


def open_store(url: Path | str, **options: Any) -> Store:
    """Open a store as a service does."""
    return Store.open(url, **{"owner": {**OWNER, **SAME_HOME}, **options})


def make_job(job_id: int, *, tags: Mapping[str, str] | None = None, **fields: Any) -> Job:
    """Make a queued job as it is right after its submission."""
    spec: dict[str, Any] = {"command": ["solve", str(job_id)]}
    if tags:
        spec["tags"] = dict(tags)
    values: dict[str, Any] = {
        "id": job_id,
        "state": JobState.QUEUED,
        "version": 1,
        "spec_json": json.dumps(spec, separators=(",", ":")),
        "name": f"job {job_id}",
        "priority": 0,
        "scheduler": "local",
        "created_at": 1000.0 + job_id,
    }
    return Job(**{**values, **fields})


def submission(*jobs: Job, durable: bool = False) -> Batch:
    """Make what a submission of `jobs` writes."""
    events = [
        Event(seq=job.id, time=job.created_at, type="job.queued", job_id=job.id) for job in jobs
    ]
    return Batch(inserts=list(jobs), events=events, durable=durable)
