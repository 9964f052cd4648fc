"""Queues of this machine over the wire."""

from __future__ import annotations

from pathlib import Path

from wire_service import wire_service

QUEUES = {"short": {"max_concurrent_jobs": 1}, "long": {"max_cores": 4}}


async def test_a_job_waits_for_its_queue_and_says_so(tmp_path: Path) -> None:
    async with wire_service(tmp_path, queues=QUEUES) as service:
        first = await service.running(queue="short")
        second = await service.submit(queue="short")
        other = await service.running(queue="long")
        told = await service.ask("GET", f"/api/jobs/{second}")
        assert told["state"] == "queued"
        assert "the limit of 1 concurrent job of the queue 'short'" in told["pending_reason"]
        listed = await service.ask("GET", "/api/schedulers/local/queues")
        assert [item["name"] for item in listed["items"]] == ["long", "short"]
        assert listed["items"][1]["in_use"]["jobs"] == 1
        await service.end(first)
        await service.until(second, "running")
        await service.end(second)
        await service.end(other)


async def test_an_unknown_queue_is_refused_with_those_there_are(tmp_path: Path) -> None:
    async with wire_service(tmp_path, queues=QUEUES) as service:
        body = {"command": ["x"], "queue": "batch"}
        told = await service.refused(422, "POST", "/api/jobs", body)
        assert "'batch'" in told["detail"] and "long, short" in told["detail"]
    async with wire_service(tmp_path / "other") as service:
        told = await service.refused(422, "POST", "/api/jobs", body)
        assert "it has none" in told["detail"]


async def test_a_queue_that_was_taken_away_leaves_its_jobs_waiting_with_a_reason(
    tmp_path: Path,
) -> None:
    async with wire_service(tmp_path, queues=QUEUES) as service:
        job = await service.submit(queue="short", hold=True)
    async with wire_service(tmp_path) as service:
        await service.ask("POST", f"/api/jobs/{job}/release", {})
        plain = await service.running()
        told = await service.ask("GET", f"/api/jobs/{job}")
        assert told["state"] == "queued"
        assert "is for the queue 'short', which there is not here" in told["pending_reason"]
        await service.end(plain)
