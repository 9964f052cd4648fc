"""A job that is tried again by itself after a while: what it says, and what can be done meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest_asyncio
from wire_service import WireService, wire_service

from simyard.scheduler_adapters.contract import Ending


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path) as running:
        yield running


async def failed_once(service: WireService, **retries: Any) -> str:
    job = await service.running(retries={"limit": 3, **retries})
    before = await shown(service, job)
    await service.adapter.end(job, Ending(exit_code=1))
    while (await shown(service, job))["version"] == before["version"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return job


async def shown(service: WireService, job: str) -> Any:
    return await service.ask("GET", f"/api/jobs/{job}")


async def test_a_job_that_waits_for_its_next_attempt_says_when(service: WireService) -> None:
    job = await failed_once(service, delay="20s")
    told = await shown(service, job)
    assert (told["state"], told["attempt"]) == ("queued", 1)
    assert told["pending_reason"] == "tries again in 20s (attempt 2 of 4)"
    (listed,) = (await service.ask("GET", "/api/queue"))["items"]
    assert listed["pending_reason"].startswith("tries again in ")
    (event,) = [
        one
        for one in (await service.ask("GET", f"/api/jobs/{job}/events"))["items"]
        if one["type"] == "job.retry"
    ]
    assert event["data"]["delay"] == 20 and event["data"]["ended"]["exit_code"] == 1
    other = await service.running()
    assert (await shown(service, job))["state"] == "queued", (
        "others are not held up, nor is it woken"
    )
    await service.end(other)


async def test_its_time_comes_without_anybody_asking_and_each_wait_is_longer(
    service: WireService,
) -> None:
    job = await failed_once(service, delay=0.2, backoff=3)
    for attempt in (2, 3, 4):
        told = await shown(service, job)
        while (told["state"], told["attempt"]) != ("running", attempt):
            query = f"?wait=5&version={told['version']}"
            told = await service.ask("GET", f"/api/jobs/{job}{query}")
        await service.adapter.end(job, Ending(exit_code=1))
    ended = await service.until(job, "failed")
    # Its fourth attempt was the last one.
    assert ended["attempt"] == 4 and ended["outcome"]["exit_code"] == 1
    events = (await service.ask("GET", f"/api/jobs/{job}/events"))["items"]
    moments = [
        (one["type"], datetime.fromisoformat(one["time"].replace("Z", "+00:00")))
        for one in events
        if one["type"] in ("job.retry", "job.submitting")
    ][1:]
    waited = [
        (begun - ended).total_seconds()
        for (_, ended), (_, begun) in zip(moments[::2], moments[1::2], strict=True)
    ]
    for seconds, asked in zip(waited, (0.2, 0.6, 1.8), strict=True):
        assert asked - 0.05 < seconds < asked + 5


async def test_it_can_be_cancelled_while_it_waits(service: WireService) -> None:
    job = await failed_once(service, delay=3600)
    assert (await service.ask("POST", f"/api/jobs/{job}/cancel", {}))["state"] == "cancelled"
    assert service.manager.queue_position(await service.manager.get(int(job))) is None


async def test_it_can_be_held_while_it_waits_and_goes_at_once_when_released(
    service: WireService,
) -> None:
    job = await failed_once(service, delay=0.3)
    held = await service.ask("POST", f"/api/jobs/{job}/hold", {})
    assert held["state"] == "held"
    await asyncio.sleep(0.5)  # its time comes, and goes by
    assert (await shown(service, job))["state"] == "held"
    long = await failed_once(service, delay=3600)
    await service.ask("POST", f"/api/jobs/{long}/hold", {})
    for one in (job, long):
        await service.ask("POST", f"/api/jobs/{one}/release", {})
        await service.until(one, "running")
        await service.end(one)


async def test_a_change_of_priority_does_not_make_it_start_before_its_time(
    service: WireService,
) -> None:
    job = await failed_once(service, delay=3600)
    await service.ask("PATCH", f"/api/jobs/{job}", {"priority": 100})
    other = await service.running()
    told = await shown(service, job)
    assert told["state"] == "queued" and told["pending_reason"].startswith("tries again in ")
    await service.end(other)


async def test_the_wait_survives_a_restart(tmp_path: Path) -> None:
    async with wire_service(tmp_path) as service:
        soon = await failed_once(service, delay=1.5)
        late = await failed_once(service, delay=3600, max_delay="10min")
    async with wire_service(tmp_path) as service:
        told = await shown(service, late)
        assert told["state"] == "queued"
        assert told["pending_reason"].startswith(("tries again in 9m", "tries again in 10m"))
        running = await service.until(soon, "running")
        assert running["attempt"] == 2
        assert (await shown(service, late))["state"] == "queued"
        await service.end(soon)


async def test_waits_are_bounded_and_checked(service: WireService) -> None:
    for wrong in ({"delay": -1}, {"backoff": 0.5}, {"delay": "1 year"}, {"backoff": "NaN"}):
        spec = {"command": ["x"], "retries": {"limit": 1, **wrong}}
        await service.refused(400, "POST", "/api/jobs", spec)
