"""The manager is killed with SIGKILL; every job is there once, with its real ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from live_service import LiveService

from simyard.service.faults import POINTS

START_POINTS = (
    "submit.committed",
    "dispatch.before-claim",
    "dispatch.claimed",
    "dispatch.handed-over",
    "report.received",
    "report.committed",
)


def test_fifty_jobs_that_end_while_no_manager_lives_keep_their_exit_codes_and_output(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--max-cores", "50"])
    gate = tmp_path / "gate"
    script = f"echo begun $0; while [ ! -e {gate} ]; do sleep 0.05; done; echo over; exit $CODE"
    ids = service.submit_many(
        [{"command": ["sh", "-c", script], "env": {"CODE": str(n)}} for n in range(50)]
    )
    for job_id in ids:
        service.wait_for(job_id, "running")

    service.kill()
    gate.touch()
    service.wait_for_no_process_of(ids)
    service.start()

    for code, job_id in enumerate(ids):
        job = service.wait_for_end(job_id)
        assert job["outcome"]["exit_code"] == code
        assert job["state"] == ("completed" if code == 0 else "failed")
        assert service.stdout(job_id).splitlines()[-1] == "over"
        assert job["usage"]["wall_seconds"] > 0
    assert service.states()["running"] == 0


@pytest.mark.parametrize("point", START_POINTS)
def test_a_manager_killed_around_a_start_never_starts_an_attempt_twice(
    service_at: Callable[..., LiveService], tmp_path: Path, point: str
) -> None:
    service = service_at(tmp_path, fault=f"{point}:1")
    marks = tmp_path / "marks"
    marks.mkdir()
    spec = {"script": f"mktemp {marks}/XXXXXX\nsleep 0.3\nexit 7"}

    accepted = service.submit_expecting_death(spec, key="only-once")
    service.wait_until_dead()
    service.start()
    job_id = service.submit(spec, key="only-once")

    assert accepted in (None, job_id), "an acknowledged job is the one that is there"
    job = service.wait_for_end(job_id)
    assert (job["state"], job["outcome"]["exit_code"]) == ("failed", 7)
    assert len(list(marks.iterdir())) == 1, "the work was done exactly once"
    assert service.total() == 1


@pytest.mark.parametrize("point", ["cancel.committed", "cancel.sent"])
def test_a_manager_killed_during_a_cancel_ends_the_job_as_cancelled(
    service_at: Callable[..., LiveService], tmp_path: Path, point: str
) -> None:
    service = service_at(tmp_path, fault=f"{point}:1")
    job_id = service.submit({"command": ["sleep", "300"]})
    service.wait_for(job_id, "running")

    service.request_expecting_death("POST", f"/api/jobs/{job_id}/cancel")
    service.wait_until_dead()
    service.start()

    assert service.wait_for_end(job_id)["state"] == "cancelled"
    service.wait_for_no_process_of([job_id])


def test_sigterm_ends_the_service_within_seconds_and_leaves_its_jobs_running(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    gate = tmp_path / "gate"
    job_id = service.submit({"script": f"while [ ! -e {gate} ]; do sleep 0.05; done; exit 5"})
    service.wait_for(job_id, "running")

    assert service.terminate(within=5) == 0
    assert not service.endpoint_file.exists()
    assert service.has_processes_of(job_id)

    gate.touch()
    service.start()
    assert service.wait_for_end(job_id)["outcome"]["exit_code"] == 5


def test_a_second_service_on_one_home_is_refused_and_told_who_holds_it(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)

    code, said = service.run_another()

    assert code != 0
    assert f"process {service.pid}" in said
    assert "Traceback" not in said


def test_the_home_of_a_killed_service_is_taken_over_at_once(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    service.kill()
    service.start()
    assert service.states()["queued"] == 0


def test_the_launcher_killed_with_its_manager_leaves_no_false_success(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    job_id = service.submit({"command": ["sh", "-c", "sleep 2; exit 7"]})
    service.wait_for(job_id, "running")
    launcher = service.launcher_pid()

    service.kill()
    service.kill_process(launcher)
    service.wait_for_no_process_of([job_id])
    service.start()

    job = service.wait_for_end(job_id)
    assert job["state"] == "failed"
    # A zombie that its new parent has not reaped yet still tells its exit code.
    ending = (job["outcome"]["reason"], job["outcome"]["exit_code"])
    assert ending in (("lost", None), ("exit_code", 7))


def test_the_launcher_killed_alone_is_replaced_and_the_job_it_had_is_followed_on(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    gate = tmp_path / "gate"
    job_id = service.submit({"script": f"while [ ! -e {gate} ]; do sleep 0.05; done; exit 3"})
    service.wait_for(job_id, "running")

    service.kill_process(service.launcher_pid())
    other = service.submit({"command": ["true"]})
    assert service.wait_for_end(other)["state"] == "completed"
    assert service.job(job_id)["state"] == "running"
    gate.touch()

    job = service.wait_for_end(job_id)
    assert job["state"] == "failed", "never a success without evidence"
    assert job["outcome"]["exit_code"] in (3, None)


def test_every_fault_point_of_the_manager_is_named_in_the_code() -> None:
    root = Path(__file__).parents[2] / "service"
    code = "\n".join(path.read_text() for path in root.rglob("*.py") if path.name != "faults.py")
    assert {point for point in POINTS if f'faultpoint("{point}")' not in code} == set()
