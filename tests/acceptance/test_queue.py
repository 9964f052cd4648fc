"""The queue as its users see it: order, limits, dependencies, retries, reasons; real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from live_service import LiveService, wait_until

TRUE = {"command": ["true"]}


def gated(gate: Path, **fields: Any) -> dict[str, Any]:
    """A job that runs until a file appears."""
    return {"script": f"while [ ! -e {gate} ]; do sleep 0.02; done", **fields}


def started_in_order(service: LiveService, ids: list[str]) -> list[str]:
    jobs = [service.wait_for_end(job_id) for job_id in ids]
    return [job["id"] for job in sorted(jobs, key=lambda job: str(job["started_at"]))]


@pytest.fixture
def one_core(service_at: Callable[..., LiveService], tmp_path: Path) -> LiveService:
    return service_at(tmp_path, flags=["--max-cores", "1"])


def test_priority_goes_first_then_age(one_core: LiveService, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    blocker = one_core.submit(gated(gate))
    one_core.wait_for(blocker, "running")
    nap = {"command": ["sleep", "0.05"]}
    low, old, young, high = one_core.submit_many(
        [{**nap, "priority": -1}, nap, nap, {**nap, "priority": 9}]
    )
    queue = [item["id"] for item in one_core.ask("GET", "/api/queue")["items"]]
    assert queue == [high, old, young, low]
    gate.touch()
    assert started_in_order(one_core, [low, old, young, high]) == [high, old, young, low]


def test_a_changed_priority_takes_effect_on_what_waits(
    one_core: LiveService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    one_core.wait_for(one_core.submit(gated(gate)), "running")
    nap = {"command": ["sleep", "0.05"]}
    first, second = one_core.submit_many([nap, nap])
    changed = one_core.ask("PATCH", f"/api/jobs/{second}", {"priority": 5})
    assert (changed["priority"], changed["spec"]["priority"]) == (5, 5)
    gate.touch()
    assert started_in_order(one_core, [first, second]) == [second, first]


def test_a_waiting_job_says_in_plain_words_what_for(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--max-cores", "8", "--licenses", "hfss=1"])
    gate = tmp_path / "gate"
    users = service.submit_many(
        [gated(gate, cores=2), gated(gate, cores=3), gated(gate, licenses={"hfss": 1})]
    )
    for job_id in users:
        service.wait_for(job_id, "running")
    many, licence = service.submit_many([{**TRUE, "cores": 4}, {**TRUE, "licenses": {"hfss": 1}}])
    after = service.submit({**TRUE, "depends_on": many})
    held = service.submit({**TRUE, "hold": True})

    reason = {job_id: service.job(job_id)["pending_reason"] for job_id in (many, licence)}
    assert "4 cores: 6 of 8 in use by 3 jobs" in reason[many]
    assert "1 licence of hfss" in reason[licence]
    assert f"after job {many}" in service.job(after)["pending_reason"]
    assert "release" in service.job(held)["pending_reason"]

    gate.touch()
    for job_id in (many, licence, after):
        assert service.wait_for_end(job_id)["state"] == "completed"
    assert service.job(held)["state"] == "held"
    service.ask("POST", f"/api/jobs/{held}/release")
    assert service.wait_for_end(held)["state"] == "completed"


def test_limits_change_while_jobs_run(one_core: LiveService, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first, second = one_core.submit_many([gated(gate), gated(gate)])
    one_core.wait_for(first, "running")
    assert one_core.job(second)["state"] == "queued"
    one_core.ask("PUT", "/api/limits", {"max_cores": 2})
    one_core.wait_for(second, "running")
    one_core.ask("PUT", "/api/limits", {"max_cores": 1})
    third = one_core.submit(TRUE)
    assert "2 of 1 in use" in one_core.job(third)["pending_reason"]
    gate.touch()
    assert one_core.wait_for_end(third)["state"] == "completed"


def test_limits_outlive_the_service(one_core: LiveService) -> None:
    one_core.ask("PUT", "/api/limits", {"licenses": {"hfss": 3}})
    one_core.kill()
    one_core.start()
    limits = one_core.ask("GET", "/api/resources")["limits"]
    assert (limits["licenses"], limits["max_cores"]) == ({"hfss": 3}, 1)


def test_what_could_never_run_is_refused_with_the_reason(one_core: LiveService) -> None:
    status, problem = one_core.request("POST", "/api/jobs", {**TRUE, "cores": 2})
    assert (status, problem["code"]) == (422, "impossible_request")
    assert "needs 2 cores but the limit is 1" in problem["detail"]
    assert one_core.total() == 0


@pytest.mark.parametrize(
    ("condition", "first_code", "expected"),
    [
        ("afterok", 0, "completed"),
        ("afterok", 1, "failed"),
        ("afternotok", 1, "completed"),
        ("afternotok", 0, "failed"),
        ("afterany", 1, "completed"),
    ],
)
def test_dependencies(
    one_core: LiveService, tmp_path: Path, condition: str, first_code: int, expected: str
) -> None:
    gate = tmp_path / "gate"
    first = one_core.submit(
        {"script": f"while [ ! -e {gate} ]; do sleep 0.02; done; exit {first_code}"}
    )
    second = one_core.submit({**TRUE, "depends_on": f"{condition}:{first}"})
    third = one_core.submit({**TRUE, "depends_on": f"afterany:{second}"})
    gate.touch()
    job = one_core.wait_for_end(second)
    assert job["state"] == expected
    if expected == "failed":
        assert job["outcome"]["reason"] == "dependency_failed"
        assert f"job {first}" in job["outcome"]["message"]
        assert job["started_at"] is None
    assert one_core.wait_for_end(third)["state"] == "completed"


def test_a_chain_of_dependents_falls_with_its_first_link(
    one_core: LiveService, tmp_path: Path
) -> None:
    script = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; exit 1"
    ids = [one_core.submit({"script": script})]
    for _ in range(50):
        ids.append(one_core.submit({**TRUE, "depends_on": ids[-1]}))
    (tmp_path / "gate").touch()
    assert one_core.wait_for_end(ids[-1])["outcome"]["reason"] == "dependency_failed"


def test_dependencies_survive_the_kill_of_the_manager(
    one_core: LiveService, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = one_core.submit(gated(gate))
    second = one_core.submit({**TRUE, "depends_on": first})
    one_core.wait_for(first, "running")
    one_core.kill()
    one_core.start()
    assert one_core.job(second)["state"] == "queued"
    gate.touch()
    assert one_core.wait_for_end(second)["state"] == "completed"


def test_a_dependency_on_nothing_is_refused(one_core: LiveService) -> None:
    status, problem = one_core.request("POST", "/api/jobs", {**TRUE, "depends_on": "99"})
    assert status == 400
    assert "job 99, which does not exist" in problem["detail"]


def test_automatic_retries_stop_at_the_first_success(one_core: LiveService, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 3 ] || exit 5"
    job = one_core.wait_for_end(one_core.submit({"script": script, "retries": 4}))
    assert (job["state"], job["attempt"]) == ("completed", 3)
    events = one_core.ask("GET", f"/api/jobs/{job['id']}/events")["items"]
    kinds = [event["type"] for event in events]
    assert kinds.count("job.retry") == 2
    assert kinds[-1] == "job.completed"


def test_automatic_retries_end_with_the_last_failure(one_core: LiveService) -> None:
    job = one_core.wait_for_end(one_core.submit({"command": ["sh", "-c", "exit 5"], "retries": 2}))
    assert (job["state"], job["attempt"], job["outcome"]["exit_code"]) == ("failed", 3, 5)


def test_a_retry_by_a_person_is_a_new_job_that_names_the_old(one_core: LiveService) -> None:
    old = one_core.wait_for_end(one_core.submit({"command": ["sh", "-c", "exit 5"]}))
    new = one_core.ask("POST", f"/api/jobs/{old['id']}/retry")
    assert new["retry_of"] == old["id"]
    assert one_core.wait_for_end(new["id"])["outcome"]["exit_code"] == 5
    assert one_core.job(old["id"]) == old, "a terminal state never changes"


def test_a_repeated_submission_with_one_key_is_one_job(one_core: LiveService) -> None:
    first = one_core.submit(TRUE, key="k-1")
    assert one_core.submit(TRUE, key="k-1") == first
    assert one_core.total() == 1
    status, problem = one_core.request(
        "POST", "/api/jobs", {"command": ["false"]}, headers={"Idempotency-Key": "k-1"}
    )
    assert (status, problem["code"]) == (409, "conflict")


def test_a_job_gets_what_it_was_granted_and_what_its_spec_says(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--gpus", "2", "--max-cores", "4"])
    (tmp_path / "mesh.dat").write_text("nodes\n")
    job_id = service.submit(
        {
            "command": ["sh", "-c", "cat mesh.dat note.txt; env"],
            "setup": ["export FROM_SETUP=yes"],
            "files": [
                str(tmp_path / "mesh.dat"),
                {"content": "note\n", "target": "note.txt"},
            ],
            "env": {"MKL_NUM_THREADS": "7", "SPACED": "a  b\nc"},
            "base_env": {"PATH": "/usr/bin:/bin", "CALLERS": "own", "OMP_NUM_THREADS": "99"},
            "cores": 3,
            "gpus": 1,
        }
    )
    assert service.wait_for_end(job_id)["state"] == "completed"
    lines = service.stdout(job_id).splitlines()
    assert lines[:2] == ["nodes", "note"]
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert found["CALLERS"] == "own"
    assert found["OMP_NUM_THREADS"] == "3", "the grant beats what was captured"
    assert found["MKL_NUM_THREADS"] == "7", "the spec beats the grant"
    assert found["CUDA_VISIBLE_DEVICES"] == "0"
    assert found["FROM_SETUP"] == "yes"
    assert found["SIMYARD_JOB_ID"] == job_id
    assert "SIMYARD_HOME" not in found
    assert service.token not in json.dumps(found)
    shown = service.ask("GET", f"/api/jobs/{job_id}/script")
    assert shown["env"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert "base_env" not in service.job(job_id)["spec"]


def test_two_jobs_with_a_gpu_each_get_different_ones_also_after_a_restart(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--gpus", "2", "--max-cores", "4"])
    script = "echo $CUDA_VISIBLE_DEVICES; while [ ! -e GATE ]; do sleep 0.02; done"
    gates = [tmp_path / "first", tmp_path / "second", tmp_path / "third"]
    specs = [{"script": script.replace("GATE", str(gate)), "gpus": 1} for gate in gates]
    first, second = service.submit_many(specs[:2])
    for job_id in (first, second):
        service.wait_for(job_id, "running")
    service.kill()
    service.start()
    third = service.submit(specs[2])
    assert "1 GPU" in service.job(third)["pending_reason"]
    gates[1].touch()
    service.wait_for(third, "running")
    gates[0].touch()
    gates[2].touch()
    seen = []
    for job_id in (first, second, third):
        service.wait_for_end(job_id)
        seen.append(service.stdout(job_id).strip())
    assert seen[0] != seen[1]
    assert seen[2] == seen[1], "the one that became free"


def test_a_large_job_is_not_starved_by_small_ones(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--max-cores", "2", "--overtake-limit", "3"])
    nap = {"command": ["sleep", "0.2"]}
    service.submit_many([nap, nap])
    large = service.submit({**nap, "cores": 2})
    small = service.submit_many([nap] * 30)
    assert service.wait_for_end(large)["state"] == "completed"
    begun = service.job(large)["started_at"]
    overtook = [job_id for job_id in small if service.wait_for_end(job_id)["started_at"] < begun]
    assert len(overtook) <= 5


def test_short_jobs_handed_over_ahead_obey_a_cancel_a_hold_and_a_limit(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--max-cores", "2"])
    service.submit_many([TRUE] * 300)
    ids = service.submit_many([{"command": ["sleep", "0.01"]}] * 400)
    wait_until(lambda: service.job(ids[20])["state"] == "completed", "the flood has begun")

    held, cancelled = ids[-1], ids[-2]
    service.ask("POST", f"/api/jobs/{held}/hold")
    service.ask("POST", f"/api/jobs/{cancelled}/cancel")
    service.ask("PUT", "/api/limits", {"max_concurrent_jobs": 1})
    wait_until(
        lambda: service.ask("GET", "/api/resources")["in_use"]["jobs"] <= 1, "the limit holds"
    )

    for job_id in ids[:-2]:
        assert service.wait_for_end(job_id)["state"] == "completed"
    assert service.job(held)["state"] == "held"
    assert service.job(held)["attempt"] == 0
    job = service.job(cancelled)
    assert (job["state"], job["started_at"]) == ("cancelled", None)


def test_no_short_job_waits_behind_one_that_proved_long(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--max-cores", "2"])
    for job_id in service.submit_many([TRUE] * 100):
        service.wait_for_end(job_id)  # so that jobs like these are known to be short
    gate = tmp_path / "gate"
    ids = service.submit_many([TRUE] * 20 + [gated(gate)] + [TRUE] * 200)
    long = ids.pop(20)

    for job_id in ids:
        assert service.wait_for_end(job_id)["state"] == "completed"

    assert service.job(long)["state"] == "running"
    gate.touch()
    assert service.wait_for_end(long)["state"] == "completed"


def test_cancelling_is_idempotent_and_a_finished_job_says_that_it_is_over(
    one_core: LiveService,
) -> None:
    running = one_core.submit({"command": ["sleep", "60"]})
    one_core.wait_for(running, "running")
    for _ in range(3):
        one_core.ask("POST", f"/api/jobs/{running}/cancel")
    assert one_core.wait_for_end(running)["state"] == "cancelled"
    assert one_core.request("POST", f"/api/jobs/{running}/cancel")[0] == 200

    done = one_core.submit(TRUE)
    one_core.wait_for_end(done)
    status, problem = one_core.request("POST", f"/api/jobs/{done}/cancel")
    assert status == 409
    assert "it completed" in problem["detail"]


def test_deleting_removes_record_and_files_of_finished_jobs_only(one_core: LiveService) -> None:
    job = one_core.wait_for_end(one_core.submit({"command": ["echo", "x"]}))
    folder = Path(job["folder"])
    assert folder.exists()
    one_core.ask("DELETE", f"/api/jobs/{job['id']}")
    assert not folder.exists()
    assert one_core.request("GET", f"/api/jobs/{job['id']}")[0] == 404
    running = one_core.submit({"command": ["sleep", "60"]})
    one_core.wait_for(running, "running")
    assert one_core.request("DELETE", f"/api/jobs/{running}")[0] == 409
    assert one_core.submit(TRUE) not in (job["id"],), "ids are never used again"
