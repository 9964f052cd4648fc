"""Jobs over REST: what is asked comes to pass, and what cannot be is said in plain words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import TypeAdapter
from wire_service import WireService, wire_service

from simyard.service.views import JobView


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path, licenses={"hfss": 2}) as running:
        yield running


async def test_a_job_is_accepted_shown_and_ends_with_its_own_exit_code(
    service: WireService,
) -> None:
    answer = await service.send(
        "POST", "/api/jobs", {"command": ["pw.x", "-in", "si.in"], "memory": "4 GiB", "priority": 3}
    )
    assert answer.status == 201
    job = answer.json
    assert answer.header("Location") == f"/api/jobs/{job['id']}"
    assert job["name"] == "pw.x" and job["state"] in ("queued", "submitting")
    assert job["spec"]["memory"] == 4 << 30
    await service.until(job["id"], "running")
    await service.end(job["id"], exit_code=3)
    over = await service.ask("GET", f"/api/jobs/{job['id']}")
    assert over["state"] == "failed"
    assert over["outcome"]["reason"] == "exit_code" and over["outcome"]["exit_code"] == 3
    assert over["finished_at"].endswith("Z") and over["version"] > job["version"]


async def test_every_view_of_a_job_has_exactly_the_documented_fields(service: WireService) -> None:
    shape = TypeAdapter(JobView)
    documented = set(JobView.__annotations__)
    waiting = await service.submit(hold=True, tags={"sweep": "a"})
    running = await service.running()
    listed = (await service.ask("GET", "/api/jobs"))["items"]
    shown = [await service.ask("GET", f"/api/jobs/{job}") for job in (waiting, running)]
    for view in [*listed, *shown]:
        shape.validate_python(view, strict=True)
        assert set(view) | {"queue_position"} == documented


async def test_secrets_in_the_environment_are_shown_nowhere(service: WireService) -> None:
    secret = "s3cr3t-value"
    job = await service.submit(
        hold=True,
        env={"API_TOKEN": secret, "DB_PASSWORD": secret, "PLAIN": "seen"},
        base_env={"MY_SECRET_KEY": secret, "PATH": "/bin", "OTHER": "from-the-caller"},
    )
    for path in ("", "/script", "/events"):
        answer = await service.send("GET", f"/api/jobs/{job}{path}")
        assert answer.status == 200 and secret.encode() not in answer.body
    assert b"base_env" not in (await service.send("GET", f"/api/jobs/{job}")).body
    env = (await service.ask("GET", f"/api/jobs/{job}/script"))["env"]
    assert env["API_TOKEN"] == env["MY_SECRET_KEY"] == "•••"
    assert env["PLAIN"] == "seen" and env["OTHER"] == "from-the-caller"


async def test_the_script_is_shown_exactly_as_it_is_run(service: WireService) -> None:
    job = await service.submit(hold=True, script="echo one", setup=["module load qe"])
    told = await service.ask("GET", f"/api/jobs/{job}/script")
    assert told["argv"][0] == "/bin/sh" and told["argv"][1].endswith("/script.sh")
    assert told["script"].splitlines() == ["module load qe", "echo one"]
    assert told["workdir"] == str(service.folder(job) / "work")
    assert not service.folder(job).joinpath("script.sh").exists(), "showing must not write"


async def test_a_batch_is_accepted_whole_or_not_at_all(service: WireService) -> None:
    good = {"command": ["a"], "hold": True}
    made = await service.ask("POST", "/api/jobs/batch", {"jobs": [good] * 250})
    assert len({item["id"] for item in made["items"]}) == 250
    bad = await service.refused(
        400, "POST", "/api/jobs/batch", {"jobs": [good, {**good, "cores": -1}]}
    )
    assert bad["errors"] == [
        {"field": "jobs.1.cores", "message": "should be greater than or equal to 1"}
    ]
    assert (await service.ask("GET", "/api/jobs?count=1&limit=1"))["total"] == 250


async def test_a_repeated_key_gives_the_same_job_and_other_content_a_conflict(
    service: WireService,
) -> None:
    spec = {"command": ["solver"], "hold": True, "cores": 2}
    headers = {"Idempotency-Key": "k-1"}
    first = await service.ask("POST", "/api/jobs", spec, headers=headers)
    again = await service.ask("POST", "/api/jobs", dict(reversed(spec.items())), headers=headers)
    assert again["id"] == first["id"]
    other = await service.refused(409, "POST", "/api/jobs", {**spec, "cores": 3}, headers=headers)
    assert other["code"] == "conflict" and "Idempotency-Key" in other["detail"]
    both = {"jobs": [spec]}
    await service.refused(409, "POST", "/api/jobs/batch", both, headers=headers)
    for key in ("", "x" * 201, "white space", "ümlaut"):
        await service.refused(400, "POST", "/api/jobs", spec, headers={"Idempotency-Key": key})


async def test_waiting_for_a_change_ends_when_there_is_one(service: WireService) -> None:
    job = await service.running()
    version = (await service.ask("GET", f"/api/jobs/{job}"))["version"]
    path = f"/api/jobs/{job}?wait=30&version={version}"
    waiting = asyncio.ensure_future(service.ask("GET", path))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await service.end(job)
    assert (await asyncio.wait_for(waiting, 5))["state"] == "completed"
    assert (await service.ask("GET", path))["state"] == "completed", "answered at once"


async def test_waiting_in_vain_ends_after_the_time_that_was_given(service: WireService) -> None:
    job = await service.submit(hold=True)
    begun = asyncio.get_running_loop().time()
    assert (await service.ask("GET", f"/api/jobs/{job}?wait=0.2"))["state"] == "held"
    assert 0.15 < asyncio.get_running_loop().time() - begun < 5


async def test_lists_are_filtered_and_paged(service: WireService) -> None:
    for number in range(5):
        await service.submit(name=f"sweep-{number}", hold=True, project="antenna")
    done = await service.running(name="other", group="g1")
    await service.end(done)
    first = await service.ask("GET", "/api/jobs?project=antenna&limit=3")
    rest = await service.ask(
        "GET", f"/api/jobs?project=antenna&limit=3&cursor={first['next_cursor']}"
    )
    names = [item["name"] for item in first["items"] + rest["items"]]
    assert names == [f"sweep-{number}" for number in (4, 3, 2, 1, 0)]
    assert first["total"] is None and rest["next_cursor"] is None
    for query, count in (
        ("state=success", 1),
        ("state=held,completed", 6),
        ("state=held&state=completed", 6),
        ("name=sweep-*", 5),
        ("q=state:held", 5),
        ("group=g1", 1),
        ("active=true", 5),
    ):
        found = await service.ask("GET", f"/api/jobs?{query}&count=1")
        assert (found["total"], len(found["items"])) == (count, count), query
    assert (await service.ask("GET", "/api/jobs"))["total"] == 6


async def test_hold_release_cancel_retry_and_delete(service: WireService) -> None:
    job = await service.submit(hold=True, cores=3)
    assert (await service.ask("POST", f"/api/jobs/{job}/release", {}))["state"] != "held"
    await service.until(job, "running")
    await service.refused(409, "POST", f"/api/jobs/{job}/retry", {})
    await service.refused(409, "DELETE", f"/api/jobs/{job}")
    await service.end(job)
    late = await service.refused(409, "POST", f"/api/jobs/{job}/cancel", {})
    assert "over" in late["detail"]
    answer = await service.send("POST", f"/api/jobs/{job}/retry", {})
    assert answer.status == 201 and answer.json["retry_of"] == job
    assert answer.json["spec"]["cores"] == 3
    assert answer.header("Location") == f"/api/jobs/{answer.json['id']}"
    assert (await service.send("DELETE", f"/api/jobs/{job}")).status == 204
    await service.refused(404, "GET", f"/api/jobs/{job}")


async def test_a_waiting_job_can_be_changed_and_a_started_one_cannot(service: WireService) -> None:
    job = await service.submit(hold=True)
    changed = await service.ask(
        "PATCH", f"/api/jobs/{job}", {"priority": 7, "memory": "2 GiB", "walltime": "1h"}
    )
    assert changed["priority"] == 7
    assert changed["spec"]["memory"] == 2 << 30 and changed["spec"]["walltime"] == 3600
    await service.refused(400, "PATCH", f"/api/jobs/{job}", {})
    await service.refused(400, "PATCH", f"/api/jobs/{job}", {"command": ["other"]})
    running = await service.running()
    await service.refused(409, "PATCH", f"/api/jobs/{running}", {"priority": 1})


async def test_bulk_control_says_of_each_job_what_came_of_it(service: WireService) -> None:
    held = [await service.submit(hold=True, group="g") for _ in range(3)]
    over = await service.running(group="g")
    await service.end(over)
    done = await service.ask("POST", "/api/jobs/cancel", {"ids": [*held[:2], over, "999", "x"]})
    results = {item["id"]: item for item in done["items"]}
    assert [results[job]["ok"] for job in (*held[:2], over, "999", "x")] == [True] * 2 + [False] * 3
    assert results[held[0]]["job"]["state"] == "cancelled"
    assert results[over]["error"]["code"] == "conflict"
    assert results["999"]["error"]["code"] == results["x"]["error"]["code"] == "not_found"
    rest = await service.ask(
        "POST", "/api/jobs/release", {"filter": {"state": ["held"], "group": "g"}}
    )
    assert [item["id"] for item in rest["items"]] == [held[2]]
    wrong: list[Any] = [{}, {"ids": ["1"], "filter": {"group": "g"}}, {"filter": {}}, {"ids": "1"}]
    for body in wrong:
        await service.refused(400, "POST", "/api/jobs/cancel", body)


async def test_the_queue_says_who_waits_and_for_what(service: WireService) -> None:
    running = [await service.running(licenses={"hfss": 1}) for _ in range(2)]
    waiting = await service.submit(licenses={"hfss": 1}, name="starved")
    held = await service.submit(hold=True, priority=9)
    queue = await service.ask("GET", "/api/queue")
    assert [item["id"] for item in queue["items"]] == [waiting, held] and queue["total"] == 2
    assert "hfss" in queue["items"][0]["pending_reason"]
    job = await service.ask("GET", f"/api/jobs/{waiting}")
    assert job["pending_reason"] == queue["items"][0]["pending_reason"]
    assert job["queue_position"] == 1
    for one in running:
        await service.end(one)
    await service.until(waiting, "running")


async def test_limits_are_changed_one_by_one(service: WireService) -> None:
    changed = await service.ask("PUT", "/api/limits", {"max_memory": "2 GiB", "gpus": 1})
    assert changed["max_memory"] == 2 << 30 and changed["gpus"] == 1
    assert changed["licenses"] == {"hfss": 2}, "what was not named stays"
    assert (await service.ask("GET", "/api/limits")) == changed
    assert (await service.ask("GET", "/api/resources"))["limits"] == changed
    wrong = await service.refused(400, "PUT", "/api/limits", {"max_core": 4})
    assert "max_cores" in wrong["detail"]
    await service.refused(400, "PUT", "/api/limits", {"max_memory": "a lot"})
    await service.refused(400, "PUT", "/api/limits", [1])


async def test_resources_schedulers_health_version_and_metrics_answer(
    service: WireService,
) -> None:
    job = await service.running(cores=2)
    resources = await service.ask("GET", "/api/resources")
    assert resources["in_use"]["cores"] == 2 and resources["states"]["running"] == 1
    assert resources["host"]["memory_total"] > 0
    assert [one["name"] for one in (await service.ask("GET", "/api/schedulers"))["items"]] == [
        "local"
    ]
    assert await service.ask("GET", "/api/schedulers/local/queues") == {"items": []}
    await service.refused(404, "GET", "/api/schedulers/slurm/queues")
    assert (await service.ask("GET", "/api/health"))["status"] == "ok"
    assert (await service.ask("GET", "/api/version"))["version"]
    metrics = (await service.send("GET", "/metrics")).body.decode()
    assert 'simyard_jobs{state="running"} 1.0' in metrics
    assert 'simyard_in_use{resource="cores"} 2.0' in metrics
    assert 'route="/api/jobs/{id}"' in metrics and job
    await service.end(job)


async def test_an_unexpected_failure_tells_nothing_of_the_inside(
    service: WireService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> dict[str, Any]:
        raise RuntimeError("a path of ours: /secret")

    monkeypatch.setattr(service.manager, "resources", broken)
    answer = await service.send("GET", "/api/resources")
    assert answer.status == 500 and answer.json["code"] == "error"
    assert b"secret" not in answer.body and b"Runtime" not in answer.body
    number = answer.header("X-Request-ID")
    assert number and number in answer.json["detail"] and number in caplog.text
    assert "a path of ours" in caplog.text


async def test_the_end_of_the_service_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with wire_service(tmp_path / "other") as service:
        job = await service.submit(hold=True)
        waiting = asyncio.ensure_future(service.send("GET", f"/api/jobs/{job}?wait=60"))
        await asyncio.sleep(0.1)
        begun = asyncio.get_running_loop().time()
        await service.runner.cleanup()
        assert asyncio.get_running_loop().time() - begun < 2.5
        assert (await waiting).json["state"] == "held"
