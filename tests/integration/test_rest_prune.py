"""Retention over REST: finished jobs go with their folders, and nothing else does."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from wire_service import WireService, wire_service

from simyard.scheduler_adapters.contract import Ending, ReportKind
from simyard.service import pruning


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path) as running:
        yield running


async def finished(service: WireService, number: int, **spec: Any) -> list[str]:
    """Return the ids of so many jobs that are over, each with 1,000 bytes in its folder."""
    ids = []
    for _ in range(number):
        job_id = await service.running(**spec)
        (service.folder(job_id) / "work" / "result.dat").write_bytes(b"x" * 1000)
        await service.end(job_id)
        ids.append(job_id)
    return ids


async def listed(service: WireService) -> set[str]:
    return {job["id"] for job in (await service.ask("GET", "/api/jobs?limit=1000"))["items"]}


async def test_finished_jobs_go_with_their_folders_and_live_ones_stay(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "AT_ONCE", 2)
    over = await finished(service, 5)
    live = [await service.submit(hold=True), await service.running()]
    answer = await service.ask("POST", "/api/prune", {"keep": 0})
    assert answer["ids"] == over and answer["jobs"] == 5
    assert answer["bytes"] >= 5000 and answer["leftovers"] == 0
    assert await listed(service) == set(live)
    assert [job_id for job_id in over if service.folder(job_id).exists()] == []
    assert service.folder(live[1]).exists()
    states = (await service.ask("GET", "/api/resources"))["states"]
    assert {name: number for name, number in states.items() if number} == {"held": 1, "running": 1}
    for job_id in over:
        await service.refused(404, "GET", f"/api/jobs/{job_id}")
    assert (await service.ask("POST", "/api/prune", {"keep": 0}))["jobs"] == 0
    # The numbers of those that went are not given out again.
    assert int(await service.submit(hold=True)) > int(live[1])


async def test_a_dry_run_tells_and_changes_nothing(service: WireService) -> None:
    over = await finished(service, 3)
    answer = await service.ask("POST", "/api/prune", {"keep": 1, "dry_run": True})
    assert (answer["ids"], answer["dry_run"]) == (over[:2], True)
    assert answer["bytes"] >= 2000
    assert await listed(service) == set(over)
    assert all(service.folder(job_id).exists() for job_id in over)


async def test_by_size_and_by_age(service: WireService) -> None:
    over = await finished(service, 4)
    body = {"older_than": "1h", "dry_run": True}
    assert (await service.ask("POST", "/api/prune", body))["jobs"] == 0
    answer = await service.ask("POST", "/api/prune", {"max_size": 2500})
    assert answer["ids"] == over[:2]
    assert await listed(service) == set(over[2:])


async def test_a_filter_narrows_what_is_looked_at(service: WireService) -> None:
    mine = await finished(service, 2, project="mine")
    other = await finished(service, 2, project="other")
    body = {"keep": 1, "filter": {"project": "mine"}}
    assert (await service.ask("POST", "/api/prune", body))["ids"] == mine[:1]
    assert await listed(service) == {mine[1], *other}


async def test_a_job_whose_processes_are_still_being_ended_stays(service: WireService) -> None:
    job_id = await service.running()
    (tag,) = service.adapter.running
    await service.adapter._report(tag, ReportKind.ENDED, ending=Ending(exit_code=0))
    await service.until(job_id, "completed")
    assert (await service.ask("POST", "/api/prune", {"keep": 0}))["jobs"] == 0
    await service.adapter._report(tag, ReportKind.CLEARED)
    assert (await service.ask("POST", "/api/prune", {"keep": 0}))["ids"] == [job_id]


async def test_folders_without_a_record_are_found_and_removed(service: WireService) -> None:
    (over,) = await finished(service, 1)
    stray = service.folder("777")
    (stray / "work").mkdir(parents=True)
    (stray / "work" / "big").write_bytes(b"x" * 5000)
    body = {"older_than": "1h", "dry_run": True}
    told = await service.ask("POST", "/api/prune", body)
    assert (told["jobs"], told["leftovers"]) == (0, 1) and told["bytes"] >= 5000
    assert stray.exists()
    assert (await service.ask("POST", "/api/prune", {"older_than": "1h"}))["leftovers"] == 1
    assert not stray.exists()
    assert service.folder(over).exists()


async def test_links_in_a_folder_are_not_followed(service: WireService, tmp_path: Path) -> None:
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "file").write_bytes(b"x" * 100_000)
    job_id = await service.running(workdir=str(outside))
    (service.folder(job_id) / "link").symlink_to(outside)
    await service.end(job_id)
    answer = await service.ask("POST", "/api/prune", {"keep": 0})
    assert answer["ids"] == [job_id] and answer["bytes"] < 50_000
    assert (outside / "file").stat().st_size == 100_000


async def test_an_event_tells_of_each_job_that_went(service: WireService) -> None:
    over = await finished(service, 2)
    latest = (await service.ask("GET", "/api/health"))["latest_event"]
    await service.ask("POST", "/api/prune", {"keep": 0})
    async with service.websocket(f"?since={latest}") as connection:
        await connection.receive_json(timeout=10)
        told = [await connection.receive_json(timeout=10) for _ in over]
    assert {(event["type"], event["job_id"]) for event in told} == {
        ("job.deleted", job_id) for job_id in over
    }


async def test_environments_that_no_job_has_any_more_go_too(
    service: WireService, tmp_path: Path
) -> None:
    await finished(service, 2, base_env={"ONLY": "gone"})
    (shared,) = await finished(service, 1, base_env={"BOTH": "kept"})
    live = await service.submit(hold=True, base_env={"BOTH": "kept"})
    assert environments(tmp_path) == 2
    assert (await service.ask("POST", "/api/prune", {"keep": 0}))["jobs"] == 3
    assert environments(tmp_path) == 1
    await service.refused(404, "GET", f"/api/jobs/{shared}")
    script = await service.ask("GET", f"/api/jobs/{live}/script")
    assert script["env"]["BOTH"] == "kept"
    # One that went comes back with the next job that brings it.
    again = await service.submit(hold=True, base_env={"ONLY": "gone"})
    assert (await service.ask("GET", f"/api/jobs/{again}/script"))["env"]["ONLY"] == "gone"


def environments(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "home" / "store.db")) as store:
        return int(store.execute("SELECT count(*) FROM environments").fetchone()[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"dry_run": True},
        {"keep": -1},
        {"older_than": 0},
        {"older_than": "soon"},
        {"max_size": "-1 GiB"},
        {"keep": 1, "age": 3},
        {"keep": 1, "filter": {"colour": "red"}},
    ],
)
async def test_what_makes_no_sense_is_refused(service: WireService, wrong: dict[str, Any]) -> None:
    over = await finished(service, 1)
    await service.refused(400, "POST", "/api/prune", wrong)
    assert await listed(service) == set(over)


async def test_a_key_whose_job_was_deleted_is_refused_in_words(service: WireService) -> None:
    body, headers = {"command": ["a"], "hold": True}, {"Idempotency-Key": "once"}
    job_id = (await service.ask("POST", "/api/jobs", body, headers=headers))["id"]
    await service.ask("POST", f"/api/jobs/{job_id}/cancel", {})
    await service.ask("POST", "/api/prune", {"keep": 0})
    told = await service.refused(409, "POST", "/api/jobs", body, headers=headers)
    assert "deleted" in told["detail"]


async def test_a_job_waits_on_after_a_restart_though_what_it_depended_on_has_gone(
    tmp_path: Path,
) -> None:
    async with wire_service(tmp_path) as service:
        (first,) = await finished(service, 1)
        second = await service.running()
        third = await service.submit(depends_on=[first, second])
        assert (await service.ask("POST", "/api/prune", {"keep": 0}))["ids"] == [first]
        await service.ask("POST", f"/api/jobs/{third}/hold", {})
    async with wire_service(tmp_path) as service:
        job = await service.ask("GET", f"/api/jobs/{third}")
        assert job["state"] == "held"
