"""A store that several hosts can reach has one manager: the one whose lease and epoch hold."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_service import LiveService, wait_until
from postgres_server import PostgresServer
from sqlalchemy import event
from store_samples import make_job, open_store, submission

from simyard.errors import HomeInUse, ServiceUnavailable, SimyardError, StoreTaken
from simyard.service.model import Event
from simyard.service.states import JobState
from simyard.service.store.batch import Batch
from simyard.service.store.store import Store

pytestmark = [pytest.mark.faults, pytest.mark.postgresql]

ELSEWHERE = {"pid": 99, "host": "elsewhere", "lock": "boot:8:9", "home_id": "h2", "home": "/two"}
TESTS = Path(__file__).parents[1]


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


@pytest.fixture
def own_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that a test may stop and start; nobody else is on it."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


def test_a_second_manager_is_refused_and_told_who_has_the_store(url: str) -> None:
    first = open_store(url)
    with pytest.raises(HomeInUse, match=r"process 4711 on workstation, home /home/one") as refused:
        open_store(url, owner=ELSEWHERE)
    assert "its lease ends in" in refused.value.message
    first.close()
    second = open_store(url, owner=ELSEWHERE)
    assert second.epoch == first.epoch + 1, "one that was closed properly is not waited for"
    second.close()


def test_an_idle_manager_keeps_its_lease(url: str) -> None:
    first = open_store(url, lease=0.6)
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        with pytest.raises(HomeInUse):
            open_store(url, owner=ELSEWHERE)
        time.sleep(0.1)
    first.close()


CHILD = """
import asyncio, os, signal, sys, time
sys.path.insert(0, sys.argv[2])
from store_samples import make_job, open_store, submission
from simyard.errors import StoreTaken
from simyard.service.store import changes

async def main():
    store = open_store(sys.argv[1], lease=1.0)
    await store.apply(submission(make_job(1)))
    if sys.argv[3] == "within":
        apply = changes.apply
        def stopped(connection, batch):
            apply(connection, batch)
            print("ready", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(0.2)  # another thread may be the one that the signal stops first
        changes.apply = stopped
    else:
        print("ready", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        await store.apply(submission(make_job(2)))
        print("written")
        sys.stdout.flush()
    except Exception as error:
        print(type(error).__name__, error, flush=True)
        changes.apply = apply if sys.argv[3] == "within" else changes.apply
        try:
            await store.apply(submission(make_job(3)))
            print("written")
        except StoreTaken as error:
            print("StoreTaken", error)
    store.close()

asyncio.run(main())
"""


@contextlib.contextmanager
def child(url: str, where: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a manager in a process of its own, which is gone at the end, stopped or not."""
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(TESTS), where],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(TESTS.parent / "typings")},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def taken_over(url: str) -> Store:
    """Open as the manager of another home, as soon as it is let in."""

    def attempt() -> Store | None:
        try:
            return open_store(url, owner=ELSEWHERE)
        except HomeInUse:
            return None

    found = wait_until(attempt, "the lease ends", 20)
    assert isinstance(found, Store)
    return found


def test_a_dead_manager_of_another_host_is_followed_when_its_lease_ends(url: str) -> None:
    with child(url, "between") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        with pytest.raises(HomeInUse, match="4711 on workstation"):
            open_store(url, owner=ELSEWHERE)
        store = taken_over(url)
    assert [job.id for job in store.load_active()] == [1]
    store.close()


@pytest.mark.parametrize("where", ["between", "within"])
def test_a_paused_manager_whose_lease_was_taken_writes_nothing_more(url: str, where: str) -> None:
    with child(url, where) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        store = taken_over(url)
        asyncio.run(store.apply(Batch(meta={"by": "the second"})))
        process.send_signal(signal.SIGCONT)
        said = process.stdout.read().decode()
    assert "written" not in said
    assert "StoreTaken another Simyard service (process 99 on elsewhere) has taken over" in said
    assert [job.id for job in store.load_active()] == [1]
    store.close()


async def test_an_idle_manager_that_was_replaced_hears_of_it(url: str) -> None:
    first = open_store(url, lease=0.6)
    told: list[SimyardError] = []
    first.on_fatal = told.append
    second = open_store(url)
    wait_until(lambda: told, "the first is told", 10)
    assert isinstance(told[0], StoreTaken)
    first.close()
    second.close()


OPENER = """
import sys
sys.path.insert(0, sys.argv[2])
from store_samples import open_store
from simyard.errors import HomeInUse
sys.stdin.readline()
try:
    store = open_store(sys.argv[1], owner={"pid": int(sys.argv[3]), "host": "many"})
    print("manager", store.epoch, flush=True)
    sys.stdin.readline()
    store.close()
except HomeInUse as error:
    print("refused", error, flush=True)
"""


def test_of_many_that_open_a_new_store_at_once_one_becomes_its_manager(url: str) -> None:
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, url, str(TESTS), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(TESTS.parent / "typings")},
        )
        for number in range(5)
    ]
    said = []
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write(b"go\n")
        opener.stdin.flush()
    for opener in openers:
        assert opener.stdout is not None
        said.append(opener.stdout.readline().decode())
    for opener in openers:
        opener.communicate(b"end\n", timeout=30)
        assert opener.returncode == 0
    assert sorted(line.split()[0] for line in said) == ["manager", *["refused"] * 4]
    assert [line.split()[1] for line in said if line.startswith("manager")] == ["1"]


async def test_what_another_home_has_started_is_left_to_it(url: str) -> None:
    first = open_store(url)
    await first.apply(submission(make_job(1, state=JobState.RUNNING), make_job(2)))
    await first.apply(Batch(meta={"cursor.local": "3:100", "limits": "{}"}))
    first.close()
    with pytest.raises(HomeInUse, match=r"1 jobs .* started from the home /home/one on workst"):
        open_store(url, owner=ELSEWHERE)
    again = open_store(url)
    (job,) = [job for job in again.load_active() if job.id == 1]
    await again.apply(Batch(updates=[job.evolve(state=JobState.COMPLETED)]))
    again.close()
    second = open_store(url, owner=ELSEWHERE)
    assert [job.id for job in second.load_active()] == [2]
    assert second.meta("cursor.local") is None, "a position in the records of another home"
    assert second.meta("limits") == "{}"
    second.close()


# -- commits whose answer is lost ------------------------------------------------------


def lose_an_answer(store: Store, *, committed: bool) -> None:
    """Break the connection at the next commit, after or before it took place."""
    import psycopg

    dialect = store._engine.dialect
    commit = dialect.do_commit

    def broken(connection: Any) -> None:
        dialect.do_commit = commit  # type: ignore[method-assign]
        if committed:
            commit(connection)
        connection.driver_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    dialect.do_commit = broken  # type: ignore[method-assign,assignment]


async def test_a_commit_whose_answer_is_lost_is_not_denied(url: str) -> None:
    store = open_store(url)
    job = make_job(1)
    lose_an_answer(store, committed=True)
    await store.apply(submission(job))
    assert await store.get(1) == job
    await store.apply(Batch(updates=[job.evolve(priority=1)]))
    store.close()


async def test_a_commit_that_did_not_take_place_is_not_promised(url: str) -> None:
    store = open_store(url)
    lose_an_answer(store, committed=False)
    with pytest.raises(ServiceUnavailable, match="cannot be written now"):
        await store.apply(submission(make_job(1)))
    assert await store.get(1) is None
    await store.apply(submission(make_job(1)))
    assert await store.get(1) is not None
    store.close()


# -- the server --------------------------------------------------------------------


async def test_changes_of_jobs_are_synced_and_what_is_said_about_them_need_not_be(
    url: str,
) -> None:
    levels: dict[str, list[str]] = {}
    for durability in ("default", "full"):
        store = open_store(url, durability=durability)
        seen = levels.setdefault(durability, [])

        @event.listens_for(store._engine, "commit")
        def _look(connection: Any, seen: list[str] = seen) -> None:
            seen.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar_one())

        number = store.next_job_id()
        said = Event(seq=100 + number, time=0.0, type="job.output")
        await store.apply(submission(make_job(number)))
        await store.apply(Batch(events=[said]))
        await store.apply(Batch(updates=[make_job(number).evolve(priority=1)]))
        await store.apply(Batch(meta={"a": durability}, durable=True))
        store.close()
    assert levels["default"][:4] == ["on", "off", "on", "on"]
    assert levels["full"][:4] == ["on"] * 4


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_a_restart_of_the_server_costs_nothing_that_was_acknowledged(
    own_server: PostgresServer, how: str
) -> None:
    store = open_store(own_server.new_database())
    for number in range(1, 21):
        await store.apply(submission(make_job(number)))
    own_server.stop(how)
    with pytest.raises(ServiceUnavailable, match="cannot be written now"):
        await store.apply(submission(make_job(21)))
    with pytest.raises(ServiceUnavailable, match="cannot be read now"):
        await store.get(1)
    own_server.start()
    assert len((await store.list_jobs(limit=100)).jobs) == 20
    await store.apply(submission(make_job(21)))
    assert [job.id for job in store.load_active()] == list(range(1, 22))
    store.close()


def test_a_service_whose_database_restarts_refuses_submissions_and_keeps_what_happened(
    own_server: PostgresServer, service_at: Any, tmp_path: Path
) -> None:
    service: LiveService = service_at(tmp_path, store=own_server.new_database())
    gate = tmp_path / "gate"
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; exit 7"
    job_id = service.submit({"script": script})
    waiting = service.submit({"command": ["true"], "depends_on": [f"afterany:{job_id}"]})
    service.wait_for(job_id, "running")
    assert service.has_processes_of(job_id)

    own_server.stop("immediate")
    status, problem = service.request("POST", "/api/jobs", {"command": ["true"]})
    assert (status, problem["code"]) == (503, "service_unavailable")
    assert service.request("GET", "/api/health")[0] < 500
    gate.touch()
    wait_until(lambda: not service.has_processes_of(job_id), "the job has ended")
    own_server.start()

    job = service.wait_for_end(job_id)
    assert (job["state"], job["outcome"]["exit_code"]) == ("failed", 7)
    assert service.wait_for_end(waiting)["state"] == "completed"
    later = service.submit({"command": ["true"]})
    assert service.wait_for_end(later)["state"] == "completed"
    assert service.total() == 3, "what was refused is not there"
