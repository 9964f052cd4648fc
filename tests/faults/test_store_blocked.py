"""The store when it cannot write: another owner, another program's lock, a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import make_job, open_store, submission

from simyard.errors import HomeInUse, ServiceUnavailable, SimyardError, StoreTaken
from simyard.service.store.batch import Batch

pytestmark = pytest.mark.faults


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock as another program would."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


async def test_the_second_manager_stops_the_first(tmp_path: Path) -> None:
    first = open_store(tmp_path / "store.db")
    told: list[SimyardError] = []
    first.on_fatal = told.append
    await first.apply(submission(make_job(1)))
    second = open_store(tmp_path / "store.db", owner={"pid": 99, "host": "elsewhere"})
    assert second.epoch == first.epoch + 1
    waits = [first.enqueue(submission(make_job(i))) for i in range(2, 20)]
    for wait in waits:
        with pytest.raises(StoreTaken, match="process 99 on elsewhere"):
            await wait
    with pytest.raises(HomeInUse):
        await first.apply(Batch(meta={"a": "b"}))
    assert len(told) == 1
    await second.apply(submission(make_job(2)))
    assert [job.id for job in second.load_active()] == [1, 2]
    assert second.meta("a") is None
    first.close()
    await second.apply(submission(make_job(3)))
    second.close()


async def test_a_lock_that_is_given_back_only_delays(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    with locked(tmp_path / "store.db"):
        waits = [store.enqueue(submission(make_job(i))) for i in range(1, 10)]
        done, _ = await asyncio.wait(waits, timeout=0.6)
        assert not done
    await asyncio.gather(*waits)
    assert len(store.load_active()) == 9
    store.close()


async def test_a_lock_that_stays_ends_in_an_answer_and_the_writer_lives(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db", busy_seconds=0.5)
    told: list[SimyardError] = []
    store.on_fatal = told.append
    with locked(tmp_path / "store.db"):
        began = time.monotonic()
        with pytest.raises(ServiceUnavailable, match="locked by another program"):
            await store.apply(submission(make_job(1)))
        assert 0.4 < time.monotonic() - began < 5
        assert store.load_active() == [], "reading goes on"
    await store.apply(submission(make_job(2)))
    assert [job.id for job in store.load_active()] == [2]
    assert told == []
    store.close()


async def test_what_rests_on_a_failed_batch_fails_with_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db", busy_seconds=0.3)
    job = make_job(1)
    with locked(tmp_path / "store.db"):
        first = store.enqueue(submission(job))
        deadline = time.monotonic() + 5
        while not store._writer._queue.empty() and time.monotonic() < deadline:
            time.sleep(0.001)  # not awaited: the loop shall hear of nothing
        # The writer tries the first alone; this one comes while it does, unaware.
        second = store.enqueue(Batch(updates=[job.evolve(priority=1)]))
        while store._writer._refusal is None and time.monotonic() < deadline:
            time.sleep(0.001)
        third = store.enqueue(Batch(updates=[job.evolve(priority=2)]))
    for wait in (first, second, third):
        with pytest.raises(ServiceUnavailable, match="locked"):
            await wait
    await store.apply(submission(job))
    assert await store.get(1) == job
    store.close()


def test_opening_waits_for_a_lock_and_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    open_store(path).close()
    with locked(path) as other:
        with pytest.raises(ServiceUnavailable, match="locked by another program"):
            open_store(path, busy_seconds=0.3)
        opened: list[int] = []

        def attempt() -> None:
            store = open_store(path, busy_seconds=20)
            opened.append(store.epoch)
            store.close()

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        other.execute("ROLLBACK")
        thread.join(10)
    assert opened == [2]


FULL = """
import asyncio, json, resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from store_samples import make_job, open_store, submission
from simyard.errors import StorageFull
from simyard.service.store.batch import Batch

async def main():
    store = open_store(Path(sys.argv[1]))
    fatal = []
    store.on_fatal = fatal.append
    room = 300_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    written, refused, others = [], [], []
    for number in range(1, 400, 2):
        jobs = [make_job(n, spec_json="x" * 2000) for n in (number, number + 1)]
        try:
            await store.apply(submission(*jobs))
            written.append(number)
        except StorageFull as error:
            refused.append(str(error))
            if len(refused) > 5:
                break
    listed = len((await store.list_jobs(limit=1000)).jobs)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.apply(submission(make_job(1000)))
    store.close()
    print(json.dumps({"written": written, "refused": refused, "listed": listed,
                      "fatal": len(fatal)}))

asyncio.run(main())
"""


def test_a_full_disk_is_answered_and_survived(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    tests = Path(__file__).parents[1]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(tests)],
        env={"PYTHONPATH": str(tests.parent / "typings")},
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    told = json.loads(ended.stdout)
    assert told["written"]
    assert len(told["refused"]) == 6
    assert "free some space" in told["refused"][0]
    assert told["fatal"] == 0
    assert told["listed"] == 2 * len(told["written"])
    store = open_store(path)
    expected = sorted([*told["written"], *(n + 1 for n in told["written"]), 1000])
    assert [job.id for job in store.load_active()] == expected
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
