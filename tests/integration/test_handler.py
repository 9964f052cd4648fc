"""The handler with a real service: hosted here, hosted elsewhere, handed over, killed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_service import LiveService, wait_until
from scripted_server import ScriptedServer

from simyard import JobManager, JobManagerHandler, JobSpec
from simyard.errors import (
    Conflict,
    ImpossibleRequest,
    InvalidInput,
    JobFailed,
    NotFound,
    NotRunning,
    PermissionDenied,
    WaitTimeout,
)
from simyard.handler import discovery
from simyard.handler.endpoint import find_endpoint

PATIENCE = 60


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a home without a service; end all that was started for it."""
    monkeypatch.setenv("SIMYARD_LAUNCHER_IDLE", "1")
    monkeypatch.setenv("SIMYARD_PORT", "0")
    place = tmp_path / "home"
    yield place
    end_service(place)
    if (place / "store.db").exists():
        LiveService(place).end_everything()


def end_service(home: Path) -> None:
    """End a service that runs for `home` in a process other than this one."""
    try:
        pid = json.loads((home / "run" / "endpoint.json").read_bytes())["pid"]
        process = psutil.Process(pid)
    except (OSError, ValueError, psutil.Error):
        return
    if pid != os.getpid():
        with contextlib.suppress(psutil.Error):
            process.terminate()
            process.wait(10)


@pytest.fixture
def handler(home: Path) -> Iterator[JobManagerHandler]:
    one = JobManagerHandler(home, on_close="leave")
    yield one
    one.close()


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that is the current one."""
    folder = tmp_path / "case"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def run_python(home: Path, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a script of a user's on `home`."""
    return subprocess.run(
        [sys.executable, "-c", code, str(home)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


def serving_pid(home: Path) -> int:
    return int(json.loads((home / "run" / "endpoint.json").read_bytes())["pid"])


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_wait_for_many_shows_on_a_terminal_how_far_it_is(
    handler: JobManagerHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    jobs = handler.submit_batch([["true"], ["true"], ["false"]])
    assert len(list(handler.as_completed(jobs, PATIENCE, progress=True))) == 3
    assert "3 of 3 over · 1 failed" in screen.getvalue().splitlines()[-1]

    monkeypatch.setattr(sys, "stderr", screen := Screen())
    handler.submit_batch([["sleep", "2"], ["sleep", "2"]])
    handler.wait_until_all_done(PATIENCE, progress=True)
    assert "2 of 2 over" in screen.getvalue()
    assert screen.getvalue().count("\n") == 1


def test_a_list_of_jobs_is_a_table_and_a_frame_and_a_job_explains_itself(
    handler: JobManagerHandler,
) -> None:
    pytest.importorskip("pandas")
    over = handler.submit(["true"], tags={"mesh": "fine"}, wait=True)
    held = handler.submit(["true"], hold=True)
    jobs = handler.jobs()
    assert "1 completed" in jobs._repr_html_()
    frame = jobs.to_frame()
    assert list(frame.index) == [held.id, over.id]
    assert frame.loc[over.id, "tag.mesh"] == "fine"
    assert frame.loc[over.id, "finished_at"] >= frame.loc[over.id, "started_at"]
    assert "release" in held.explain()["advice"][0]

    assert handler.prune(keep=0, dry_run=True)["ids"] == [over.id]
    assert handler.prune(older_than="30d")["jobs"] == 0
    assert handler.prune(keep=0)["ids"] == [over.id]
    assert [job.id for job in handler.jobs()] == [held.id]
    with pytest.raises(InvalidInput, match="keep"):
        handler.prune()


# -- the everyday way ----------------------------------------------------------------------


def test_a_job_runs_where_and_as_its_caller_stands(
    handler: JobManagerHandler, case: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAVOUR", "vanilla")
    monkeypatch.setenv("MY_API_KEY", "s3cret")
    job = handler.submit(script="pwd; echo $FLAVOUR; echo key=$MY_API_KEY; echo oops >&2")
    assert job.wait(PATIENCE) == "completed"
    assert job.stdout().splitlines() == [str(case), "vanilla", "key="]
    assert job.stderr() == "oops\n"
    assert job.result()["exit_code"] == 0
    assert job.done()
    assert job.usage()["wall_seconds"] > 0


def test_a_spec_an_id_and_a_final_state(handler: JobManagerHandler, case: Path) -> None:
    job_id = handler.submit_job(JobSpec(command=("true",)), priority=5)
    assert isinstance(job_id, str)
    assert handler.wait_until_done(job_id, PATIENCE) == "completed"
    assert handler.get(job_id).last["priority"] == 5


def test_a_failed_job_raises_with_the_end_of_its_stderr(
    handler: JobManagerHandler, case: Path
) -> None:
    job = handler.submit(script="echo 'SCF did not \033[31mconverge' >&2; exit 3", name="si")
    with pytest.raises(JobFailed, match=r"\(si\) failed: .*3") as caught:
        job.result(PATIENCE)
    assert "SCF did not" in str(caught.value)
    assert "\033" not in str(caught.value)
    assert caught.value.details["outcome"]["exit_code"] == 3
    assert isinstance(job.exception(), JobFailed)


def test_lines_arrive_while_the_job_runs(handler: JobManagerHandler, case: Path) -> None:
    job = handler.submit(script="echo one; until [ -e go ]; do sleep 0.05; done; printf two")
    lines = job.logs(follow=True)
    assert next(lines) == "one"
    assert job.status() in ("submitting", "running"), (
        "its line may come before the news of its start"
    )
    (case / "go").touch()
    assert list(lines) == ["two"]
    assert list(job.logs()) == ["one", "two"]
    assert list(job.logs(tail=1)) == ["two"]


def test_a_wait_with_a_timeout_leaves_the_job_alone(handler: JobManagerHandler, case: Path) -> None:
    job = handler.submit(["sleep", "600"])
    with pytest.raises(WaitTimeout, match="goes on"):
        job.wait(0.3)
    with pytest.raises(WaitTimeout):
        handler.wait_until_all_done(0.3)
    with pytest.raises(WaitTimeout):
        next(handler.as_completed([job], timeout=0.3))
    assert job.status() in ("queued", "submitting", "running")
    job.cancel()
    assert job.wait(PATIENCE) == "cancelled"


def test_jobs_come_back_as_they_end(handler: JobManagerHandler, case: Path) -> None:
    slow = handler.submit(script="until [ -e go ]; do sleep 0.05; done")
    quick = handler.submit_batch([["true"], ["false"]])
    ended = handler.as_completed([slow, *quick], timeout=PATIENCE)
    first = [next(ended), next(ended)]
    assert {job.id for job in first} == {job.id for job in quick}
    (case / "go").touch()
    assert [job.id for job in ended] == [slow.id]
    assert {job.state for job in quick} == {"completed", "failed"}


def test_waiting_for_all_overlooks_what_is_held(handler: JobManagerHandler, case: Path) -> None:
    held = handler.submit(["true"], hold=True)
    handler.submit_batch([["true"]] * 20)
    handler.wait_until_all_done(PATIENCE)
    states = handler.resources()["states"]
    assert (states["completed"], states["held"], states["queued"]) == (20, 1, 0)
    held.release()
    handler.wait_until_all_done(PATIENCE)
    assert held.status() == "completed"


def test_jobs_are_listed_controlled_and_limited(handler: JobManagerHandler, case: Path) -> None:
    handler.set_limits(max_concurrent_jobs=0)
    first, second = handler.submit_batch(
        [{"command": ["true"], "name": "a", "project": "p"}, {"command": ["true"], "name": "b"}]
    )
    assert handler.limits()["max_concurrent_jobs"] == 0
    assert [job.id for job in handler.jobs(project="p")] == [first.id]
    assert {job.id for job in handler.jobs(state=["queued", "held"])} == {first.id, second.id}
    assert len(handler.jobs(limit=1)) == 1
    handler.set_priority(second, 9)
    assert [item["id"] for item in handler.queue()] == [second.id, first.id]
    assert handler.queue()[0]["pending_reason"]
    assert handler.hold(first) == "held"
    assert handler.release(first.id) == "queued"
    assert handler.cancel(first.id) == "cancelled"
    handler.set_limits(max_concurrent_jobs=None)
    assert second.wait(PATIENCE) == "completed"
    again = handler.retry(first)
    assert again.id not in (first.id, second.id)
    assert again.wait(PATIENCE) == "completed"
    assert again.last["retry_of"] == first.id
    first.delete()
    with pytest.raises(NotFound):
        handler.get(first.id)


def test_files_are_fetched_safely(handler: JobManagerHandler, case: Path, tmp_path: Path) -> None:
    (case / "in.dat").write_text("42")
    job = handler.submit(
        script="mkdir out; cat in.dat > out/a.csv; echo done; ln -s /etc/passwd leak",
        files=["in.dat"],
    )
    job.result(PATIENCE)
    fetched = job.download("*.csv", to=tmp_path / "to", progress=False)
    assert fetched == [tmp_path / "to" / "work" / "out" / "a.csv"]
    assert fetched[0].read_text() == "42"
    everything = job.download(to=tmp_path / "all")
    assert {path.name for path in everything} >= {"a.csv", "in.dat", "stdout.log"}
    assert "leak" not in {path.name for path in everything}
    assert not list((tmp_path / "all").rglob("*.part"))
    with pytest.raises(NotFound, match="no file"):
        job.download("nothing.txt", to=tmp_path / "to")


def test_what_lies_in_a_folder_of_mine_is_not_copied_about(
    handler: JobManagerHandler, case: Path, tmp_path: Path
) -> None:
    job = handler.submit(script="echo mine > result.txt; echo said")
    job.result(PATIENCE)
    assert {p.name for p in job.download(to=tmp_path / "to")} >= {"stdout.log"}
    assert not (tmp_path / "to" / "work").exists()
    assert job.download("result.txt", to=tmp_path / "to")[0].read_text() == "mine\n"


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"command": ["no-such-solver"]}, InvalidInput, "no-such-solver"),
        ({"command": ["true"], "memory": "4 gigglebytes"}, InvalidInput, "memory"),
        ({"command": ["true"], "cores": 100_000}, ImpossibleRequest, "cores"),
        ({"command": ["true"], "workdir": "not/here"}, InvalidInput, "not/here"),
        ({"command": ["true"], "depends_on": ["999"]}, InvalidInput, "999"),
    ],
)
def test_a_mistake_gets_a_sentence_and_no_job(
    handler: JobManagerHandler, case: Path, fields: dict[str, Any], error: Any, says: str
) -> None:
    with pytest.raises(error, match=says):
        handler.submit(**fields)
    assert handler.jobs() == []


def test_a_finished_job_cannot_be_cancelled(handler: JobManagerHandler, case: Path) -> None:
    job = handler.submit(["true"], wait=True, timeout=PATIENCE)
    with pytest.raises(Conflict, match="over"):
        job.cancel()


def test_a_batch_is_accepted_whole_or_not_at_all(handler: JobManagerHandler, case: Path) -> None:
    with pytest.raises(ImpossibleRequest):
        handler.submit_batch([["true"], {"command": ["true"], "cores": 100_000}])
    assert handler.jobs() == []
    assert handler.submit_batch([]) == []


async def test_the_native_face_does_the_same(home: Path, case: Path) -> None:
    async with JobManager(home, on_close="leave") as manager:
        job_id = await manager.submit_job(["true"], priority=5)
        assert await manager.wait_until_done(job_id, PATIENCE) == "completed"
        job = await manager.submit(script="echo a; echo b")
        assert [line async for line in job.logs(follow=True)] == ["a", "b"]
        jobs = await manager.submit_batch([["true"]] * 5)
        ended = [job.id async for job in manager.as_completed(jobs, timeout=PATIENCE)]
        assert sorted(ended) == sorted(job.id for job in jobs)
        await manager.wait_until_all_done(PATIENCE)
    assert not (home / "run" / "endpoint.json").exists()


# -- one home, several processes -----------------------------------------------------------


def test_the_second_becomes_a_client_of_the_first(
    handler: JobManagerHandler, home: Path, case: Path
) -> None:
    job = handler.submit(["true"], wait=True, timeout=PATIENCE)
    code = (
        "import sys, simyard\n"
        "handler = simyard.JobManagerHandler(sys.argv[1])\n"
        f"print(handler.get({job.id!r}).state, handler)\n"
        "print(handler.submit(['true']).wait(30))\n"
    )
    done = run_python(home, code)
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith("completed")
    assert "client" in first
    assert second == "completed"
    assert serving_pid(home) == os.getpid()


def test_settings_that_cannot_be_applied_are_not_swallowed(
    handler: JobManagerHandler, home: Path
) -> None:
    handler.start_service()
    with JobManagerHandler(home) as second:
        assert second.resources()
    with pytest.warns(UserWarning, match="max_cores"):
        JobManagerHandler(home, max_cores=1).start_service()


def test_starting_twice_is_no_harm_and_closing_leaves_no_thread(home: Path) -> None:
    before = threads()
    one = JobManagerHandler(home, on_close="leave")
    assert one.start_service() == one.start_service()
    assert "simyard" in threads()
    one.close()
    one.close()
    wait_until(lambda: threads() <= before, f"the threads are gone: {threads() - before}")
    assert not (home / "run" / "endpoint.json").exists()


def test_however_many_start_a_service_at_once_one_comes_up(home: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: discovery.start_detached(home), range(4)))
    assert len({endpoint.pid for endpoint in found}) == 1
    assert len({endpoint.token for endpoint in found}) == 1
    services = [
        process
        for process in psutil.process_iter(["cmdline"])
        if "serve" in (process.info["cmdline"] or []) and str(home) in process.info["cmdline"]
    ]
    assert [process.pid for process in services if process.pid == found[0].pid]
    wait_until(
        lambda: not any(p.is_running() and p.pid != found[0].pid for p in services),
        "no second service stays",
    )


def test_two_processes_that_both_would_host_agree(home: Path, case: Path) -> None:
    code = (
        "import sys, simyard\n"
        "with simyard.JobManagerHandler(sys.argv[1]) as handler:\n"
        "    print(handler.submit(['true']).wait(40))\n"
    )
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: run_python(home, code), range(3)))
    assert [(one.stdout, one.returncode) for one in done] == [("completed\n", 0)] * 3, [
        one.stderr for one in done
    ]


# -- going away ----------------------------------------------------------------------------

FIFTY = """
import sys, time, simyard
handler = simyard.JobManagerHandler(sys.argv[1], max_concurrent_jobs=2)
jobs = handler.submit_batch([{"script": "sleep 0.1; echo $SIMYARD_JOB_ID >> ran"}] * 50)
print(len(jobs))
"""


def finish_fifty(home: Path, case: Path) -> None:
    """Wait until the fifty jobs are over, and see that each ran exactly once."""
    with discovery.connect(home) as connection:
        wait_until(
            lambda: connection.request("GET", "/api/resources")["states"]["completed"] == 50,
            "all fifty jobs are completed",
        )
        assert connection.endpoint.pid == serving_pid(home)
    ran = (case / "ran").read_text().split()
    assert len(ran) == len(set(ran)) == 50


@pytest.mark.parametrize("ending", ["handler.close()", "", "sys.exit(3)", "raise SystemError"])
def test_a_script_that_ends_with_fifty_jobs_left_hands_them_over(
    home: Path, case: Path, ending: str
) -> None:
    done = run_python(home, FIFTY + ending)
    assert done.stdout == "50\n", done.stderr
    assert done.stderr.count("a service in the background goes on") == 1
    if not ending.startswith("raise"):
        assert len(done.stderr.splitlines()) == 1, done.stderr
    finish_fifty(home, case)


def test_a_native_script_that_forgets_to_close_hands_over_too(home: Path, case: Path) -> None:
    code = """
import asyncio, sys, simyard
async def main():
    manager = simyard.JobManager(sys.argv[1], max_concurrent_jobs=2)
    jobs = await manager.submit_batch([{"script": "sleep 0.1; echo $SIMYARD_JOB_ID >> ran"}] * 50)
    print(len(jobs))
asyncio.run(main())
"""
    done = run_python(home, code)
    assert done.stdout == "50\n", done.stderr
    assert "a service in the background goes on" in done.stderr
    wait_until(lambda: answers(home), "the service in the background answers")
    finish_fifty(home, case)


def answers(home: Path) -> bool:
    try:
        discovery.connect(home).close()
    except NotRunning:
        return False
    return True


def test_with_leave_nothing_is_started_and_the_next_goes_on(home: Path, case: Path) -> None:
    code = FIFTY.replace("max_concurrent_jobs=2", "max_concurrent_jobs=2, on_close='leave'")
    done = run_python(home, code + "handler.close()")
    assert (done.stdout, done.stderr) == ("50\n", "")
    assert not (home / "run" / "endpoint.json").exists()
    with JobManagerHandler(home, on_close="leave") as handler:
        handler.wait_until_all_done(PATIENCE)
        assert len(handler.jobs(state="completed")) == 50


def test_without_jobs_left_nothing_is_started(home: Path, case: Path) -> None:
    code = (
        "import sys, simyard\n"
        "handler = simyard.JobManagerHandler(sys.argv[1])\n"
        "handler.submit(['true']).wait(30)\n"
    )
    done = run_python(home, code)
    assert (done.stderr, done.returncode) == ("", 0)
    assert not (home / "run" / "endpoint.json").exists()


def test_a_handle_works_across_a_hand_over(home: Path, case: Path) -> None:
    script = "import sys, simyard\nhandler = simyard.JobManagerHandler(sys.argv[1])\n"
    script += "handler.start_service(); print('up', flush=True); sys.stdin.read(1); handler.close()"
    host = subprocess.Popen(
        [sys.executable, "-c", script, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert host.stdout is not None
    assert host.stdin is not None
    assert host.stdout.readline() == b"up\n"
    with JobManagerHandler(home) as handler:
        job = handler.submit(script="echo one; until [ -e go ]; do sleep 0.05; done; echo two")
        lines = job.logs(follow=True)
        assert next(lines) == "one"
        with ThreadPoolExecutor(3) as pool:
            waits: list[Future[Any]] = [
                pool.submit(job.wait, PATIENCE),
                pool.submit(lambda: [one.id for one in handler.as_completed([job], PATIENCE)]),
                pool.submit(handler.wait_until_all_done, PATIENCE),
            ]
            _, said = host.communicate(b"x", timeout=PATIENCE)
            assert b"1 job is left" in said
            assert serving_pid(home) != host.pid
            early = [wait.exception() or wait.result() for wait in waits if wait.done()]
            assert early == [], "nobody's wait ends before the job does"
            (case / "go").touch()
            assert waits[0].result(PATIENCE) == "completed"
            assert waits[1].result(PATIENCE) == [job.id]
            waits[2].result(PATIENCE)
        assert list(lines) == ["two"]


def test_a_killed_host_is_replaced_by_the_next_client(home: Path, case: Path) -> None:
    script = (
        "import sys, simyard\n"
        "handler = simyard.JobManagerHandler(sys.argv[1], max_concurrent_jobs=2)\n"
        "handler.submit_batch([{'script': 'sleep 0.3; exit 7'}] * 10)\n"
        "print('up', flush=True); sys.stdin.read(1)\n"
    )
    host = subprocess.Popen(
        [sys.executable, "-c", script, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert host.stdout is not None
    assert host.stdin is not None
    assert host.stdout.readline() == b"up\n"
    with JobManagerHandler(home) as handler:
        jobs = handler.jobs()
        with ThreadPoolExecutor(1) as pool:
            wait = pool.submit(handler.wait_until_all_done, PATIENCE)
            host.kill()
            host.communicate()
            wait.result(PATIENCE)
        assert serving_pid(home) not in (host.pid, os.getpid())
        assert [job.exception(PATIENCE).details["outcome"]["exit_code"] for job in jobs] == [  # type: ignore[union-attr]
            7
        ] * 10


def test_a_service_that_was_stopped_on_purpose_is_not_started_by_a_wait(
    home: Path, case: Path
) -> None:
    endpoint = discovery.start_detached(home)
    with JobManagerHandler(home) as handler:
        job = handler.submit(["sleep", "5"])
        with ThreadPoolExecutor(1) as pool:
            wait = pool.submit(job.wait, PATIENCE)
            wait_until(lambda: job.status() == "running", "the job runs")
            os.kill(endpoint.pid or 0, signal.SIGTERM)
            with pytest.raises(NotRunning):
                wait.result(PATIENCE)
        assert not (home / "run" / "endpoint.json").exists()
        # A call of its own right starts one, and nothing was lost.
        assert job.wait(PATIENCE) == "completed"


def test_an_interrupt_ends_the_wait_and_not_the_job(home: Path, case: Path) -> None:
    code = """
import sys, simyard
handler = simyard.JobManagerHandler(sys.argv[1])
job = handler.submit(script="until [ -e go ]; do sleep 0.05; done; exit 5")
print("waiting", flush=True)
try:
    job.wait()
except KeyboardInterrupt:
    print("interrupted", job.status(), flush=True)
open("go", "w").close()
print(job.wait(30), job.last["outcome"]["exit_code"])
handler.close()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.3)  # nothing tells from outside that the wait has begun; earlier is as good
    # As a terminal does: to the whole group, the processes of the service included.
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert out.splitlines() == ["interrupted running", "failed 5"], err
    assert err == ""


def test_a_forked_child_neither_uses_nor_ends_what_its_parent_hosts(home: Path, case: Path) -> None:
    code = """
import os, sys, warnings, simyard
warnings.simplefilter("ignore")
handler = simyard.JobManagerHandler(sys.argv[1])
job = handler.submit(["true"], wait=True)
child = os.fork()
if child == 0:
    try:
        job.status()
    except simyard.UsageError as error:
        print("child:", error, flush=True)
    sys.exit(0)
os.waitpid(child, 0)
print("parent:", handler.submit(["true"]).wait(30))
handler.close()
"""
    done = run_python(home, code)
    first, second = done.stdout.splitlines()
    assert first.startswith("child:")
    assert "forked" in first
    assert second == "parent: completed", done.stderr


def test_a_coroutine_is_sent_to_the_native_face(home: Path) -> None:
    code = """
import asyncio, sys, simyard
handler = simyard.JobManagerHandler(sys.argv[1])
async def main():
    handler.start_service()
try:
    asyncio.run(main())
except simyard.UsageError as error:
    print(error)
"""
    done = run_python(home, code)
    assert "simyard.JobManager" in done.stdout
    assert not home.exists()


# -- nobody else ---------------------------------------------------------------------------


async def test_whoever_takes_the_port_of_a_dead_service_gets_no_token(
    home: Path, case: Path
) -> None:
    endpoint = await asyncio.to_thread(discovery.start_detached, home)
    manager = JobManager(home)
    await manager.submit(["true"], wait=True, timeout=PATIENCE)
    service = psutil.Process(endpoint.pid)
    service.kill()
    service.wait(10)
    squatter = ScriptedServer("not the token", port=endpoint.address()[2])
    try:
        job = await manager.submit(["true"])
        assert await job.wait(PATIENCE) == "completed"
    finally:
        squatter.close()
        await manager.close()
    assert b"Bearer" not in squatter.received
    assert endpoint.token.encode() not in squatter.received
    assert find_endpoint(str(home)).pid != endpoint.pid


async def test_an_address_given_by_a_person_is_proven_and_never_replaced(
    home: Path, tmp_path: Path
) -> None:
    endpoint = await asyncio.to_thread(discovery.start_detached, home)
    other_home = tmp_path / "other"
    async with JobManager(other_home, url=endpoint.url, token=endpoint.token) as manager:
        assert (await manager.resources())["states"]["queued"] == 0
    with pytest.raises(PermissionDenied, match="did not prove"):
        await JobManager(other_home, url=endpoint.url, token="wrong").start_service()
    with pytest.raises(NotRunning, match="nothing answers"):
        await JobManager(other_home, url="http://127.0.0.1:9", token="t").start_service()
    assert not other_home.exists()


async def test_a_store_of_endpoints_that_others_can_read_is_refused(home: Path) -> None:
    await asyncio.to_thread(discovery.start_detached, home)
    path = home / "run" / "endpoint.json"
    path.chmod(0o644)
    with pytest.raises(PermissionDenied, match="others can reach it"):
        await JobManager(home).start_service()
    path.chmod(0o600)


async def test_the_token_of_the_service_before_is_replaced_by_that_of_the_present_one(
    home: Path,
) -> None:
    async with JobManager(home) as manager:
        client = await manager.client()
        assert await manager.jobs() == []
        client.endpoint.token = "of the service before"
        assert await manager.jobs() == [], "another service has the address: found, and asked again"
        assert client.endpoint.token != "of the service before"
