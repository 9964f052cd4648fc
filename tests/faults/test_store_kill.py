"""What was acknowledged is there after a kill, and nothing is there by halves."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import open_store

pytestmark = pytest.mark.faults

ROUNDS = 5
ACKNOWLEDGED = 150
"""Lines of a child after which it is killed; more are on their way then."""

CHILD = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from store_samples import make_job, open_store
from simyard.service.store.batch import Batch
from simyard.service.model import Event

async def main():
    store = open_store(sys.argv[1])
    first = store.next_job_id()
    async def client(number):
        for round in range(10_000):
            one = first + 2 * (round * 8 + number)
            jobs = [make_job(one), make_job(one + 1)]
            events = [Event(seq=job.id, time=0.0, type="job.queued", job_id=job.id) for job in jobs]
            await store.apply(Batch(inserts=jobs, events=events, durable=number % 2 == 0))
            sys.stdout.write(f"{one}\\n")
            sys.stdout.flush()
    await asyncio.gather(*(client(number) for number in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_before_a_kill_is_there_whole(store_url: Path | str) -> None:
    tests = Path(__file__).parents[1]
    acknowledged: set[int] = set()
    for _ in range(ROUNDS):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(store_url), str(tests)],
            stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(tests.parent / "typings")},
        )
        assert child.stdout is not None
        with child.stdout:
            lines = [child.stdout.readline() for _ in range(ACKNOWLEDGED)]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        assert child.wait() == -signal.SIGKILL
        acknowledged |= {int(line) for line in lines if line.endswith(b"\n")}
        store = open_store(store_url)
        present = {job.id for job in store.load_active()}
        newest = store.last_seq()
        store.close()
        assert acknowledged <= present, "an acknowledged job is lost"
        assert {one + 1 for one in acknowledged} <= present, "a batch is there by halves"
        assert len(present) % 2 == 0, "a batch is there by halves"
        assert newest == max(present), "jobs and their events were written apart"
    assert len(acknowledged) >= ROUNDS * ACKNOWLEDGED
    if isinstance(store_url, Path):
        with contextlib.closing(sqlite3.connect(store_url)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert sorted(os.listdir(store_url.parent)) == ["store.db"]
