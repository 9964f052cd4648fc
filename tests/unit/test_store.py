"""The store as the manager uses it: what is written is there, together, and once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Dialect, make_url
from sqlalchemy.schema import CreateIndex, CreateTable
from store_samples import OWNER, make_job, open_store, submission

from simyard.errors import Conflict, InvalidInput, ServiceUnavailable, SimyardError, StaleWrite
from simyard.service.model import Event, Outcome, OutcomeReason
from simyard.service.states import JobState
from simyard.service.store import changes, schema, sqlite
from simyard.service.store.batch import Batch, IdempotencyRecord
from simyard.service.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(tmp_path / "store.db")
    yield opened
    opened.close()


def reopen(store: Store) -> Store:
    store.close()
    return open_store(store.path)


async def test_a_job_comes_back_with_every_field_as_it_was(store: Store) -> None:
    job = make_job(
        1,
        state=JobState.FAILED,
        version=1,
        project="wing",
        group="sweep",
        attempt=2,
        tag="sy-1.2",
        native_id="4712",
        outcome=Outcome(reason=OutcomeReason.SIGNAL, exit_code=None, signal=9, message="killed"),
        cancel_requested=True,
        retry_of=1,
        environment="abc",
        host="workstation",
        wall_seconds=1.5,
        cpu_seconds=2.25,
        max_rss_bytes=1 << 40,
        queued_at=1001.5,
        started_at=1002.5,
        finished_at=1003.5,
        name="Größe ✓",
    )
    await store.apply(Batch(inserts=[job]))
    assert await store.get(1) == job
    again = reopen(store)
    try:
        assert await again.get(1) == job
    finally:
        again.close()


async def test_an_update_changes_every_field_that_can_change(store: Store) -> None:
    job = make_job(1, project="wing", retry_of=7)
    await store.apply(Batch(inserts=[job]))
    changed = job.evolve(
        state=JobState.COMPLETED,
        spec_json='{"command":["other"],"tags":{"a":"b"}}',
        name="renamed",
        priority=-5,
        scheduler="slurm",
        project="tail",
        group="new",
        attempt=3,
        tag="t",
        native_id="n",
        outcome=Outcome(reason=OutcomeReason.EXIT_CODE, exit_code=0),
        cancel_requested=True,
        environment="e",
        host="h",
        wall_seconds=1.0,
        cpu_seconds=2.0,
        max_rss_bytes=3,
        queued_at=4.0,
        started_at=5.0,
        finished_at=6.0,
    )
    await store.apply(Batch(updates=[changed]))
    assert await store.get(1) == changed


async def test_concurrent_batches_share_transactions(store: Store) -> None:
    before = store.committed
    await asyncio.gather(*(store.apply(submission(make_job(i))) for i in range(1, 501)))
    transactions, batches = (a - b for a, b in zip(store.committed, before, strict=True))
    assert batches == 500
    assert transactions < 50
    assert len(await store.get_many(range(1, 501))) == 500


async def test_several_changes_of_one_job_fit_into_one_transaction(store: Store) -> None:
    job = make_job(1)
    claimed = job.evolve(state=JobState.SUBMITTING)
    running = claimed.evolve(state=JobState.RUNNING)
    ended = running.evolve(state=JobState.COMPLETED)
    waits = [
        store.enqueue(batch)
        for batch in (
            Batch(inserts=[job]),
            Batch(updates=[claimed]),
            Batch(updates=[running, ended]),
        )
    ]
    await asyncio.gather(*waits)
    assert await store.get(1) == ended


async def test_a_batch_that_cannot_be_written_fails_alone(store: Store) -> None:
    await store.apply(submission(make_job(1)))
    good = [store.enqueue(submission(make_job(i))) for i in range(2, 10)]
    bad = store.enqueue(Batch(inserts=[make_job(10), make_job(1)]))
    more = [store.enqueue(submission(make_job(i))) for i in range(11, 20)]
    with pytest.raises(Conflict):
        await bad
    await asyncio.gather(*good, *more)
    assert await store.get(10) is None, "the guilty batch left a part of itself"
    ids = [job.id for job in store.load_active()]
    assert ids == [1, *range(2, 10), *range(11, 20)]


async def test_an_unwritable_value_fails_alone(store: Store) -> None:
    bad = store.enqueue(Batch(inserts=[make_job(1, name="\udc80")]))
    good = store.enqueue(submission(make_job(2)))
    with pytest.raises(SimyardError):
        await bad
    await good
    assert [job.id for job in store.load_active()] == [2]


async def test_a_stale_update_stops_the_writer_for_good(store: Store) -> None:
    told: list[BaseException] = []
    store.on_fatal = told.append
    job = make_job(1)
    await store.apply(submission(job))
    await store.apply(Batch(updates=[job.evolve(priority=1)]))
    with pytest.raises(StaleWrite, match="something else has changed the store"):
        await store.apply(Batch(updates=[job.evolve(priority=2)], meta={"half": "written"}))
    with pytest.raises(StaleWrite):
        await store.apply(submission(make_job(2)))
    assert len(told) == 1
    kept = await store.get(1)
    assert kept is not None
    assert kept.priority == 1
    assert await store.get(2) is None
    assert store.meta("half") is None


async def test_an_update_of_a_missing_job_is_stale(store: Store) -> None:
    with pytest.raises(StaleWrite):
        await store.apply(Batch(updates=[make_job(1).evolve(priority=1)]))


async def test_a_batch_is_written_even_if_its_caller_gives_up(store: Store) -> None:
    task = asyncio.ensure_future(store.apply(submission(make_job(1))))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.apply(Batch(meta={"later": "1"}))
    assert await store.get(1) is not None


async def test_close_writes_what_waits_and_refuses_the_rest(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    waits = [store.enqueue(submission(make_job(i))) for i in range(1, 101)]
    await asyncio.to_thread(store.close)
    await asyncio.gather(*waits)
    with pytest.raises(ServiceUnavailable, match="closed"):
        await store.apply(submission(make_job(101)))
    with pytest.raises(ServiceUnavailable, match="closed"):
        await store.get(1)
    store.close()
    again = open_store(tmp_path / "store.db")
    assert len(again.load_active()) == 100
    again.close()


async def test_the_start_finds_where_the_last_service_stopped(store: Store) -> None:
    assert (store.next_job_id(), store.last_seq(), store.load_active()) == (1, 0, [])
    await store.apply(
        submission(
            make_job(1),
            make_job(2, state=JobState.COMPLETED),
            make_job(3, state=JobState.HELD),
            make_job(4, state=JobState.RUNNING),
        )
    )
    await store.apply(Batch(meta={"cursor": "3:100"}))
    await store.apply(Batch(meta={"cursor": "3:200"}))
    again = reopen(store)
    try:
        assert again.epoch == store.epoch + 1
        assert again.uuid == store.uuid
        assert [job.id for job in again.load_active()] == [1, 3, 4]
        assert again.next_job_id() == 5
        assert again.last_seq() == 4
        assert again.meta("cursor") == "3:200"
        assert again.meta("unknown") is None
        counts = again.counts()
        assert counts[JobState.QUEUED] == counts[JobState.COMPLETED] == 1
        assert counts[JobState.FAILED] == 0
        assert set(counts) == set(JobState)
    finally:
        again.close()


async def test_the_id_of_a_deleted_job_is_not_given_out_again(store: Store) -> None:
    await store.apply(submission(make_job(1), make_job(2, state=JobState.COMPLETED)))
    await store.apply(Batch(deletes=[2]))
    assert await store.get(2) is None
    again = reopen(store)
    assert again.next_job_id() == 3
    again.close()


async def test_only_jobs_that_are_over_are_deleted(store: Store) -> None:
    await store.apply(submission(make_job(1), make_job(2, state=JobState.FAILED)))
    await store.apply(Batch(deletes=[1, 2, 99]))
    await store.apply(Batch(deletes=[2]))
    assert [job.id for job in await store.get_many([1, 2])] == [1]
    assert store.next_job_id() == 3


async def test_an_environment_is_kept_once_and_as_it_was(store: Store) -> None:
    odd = {"PATH": "/bin", "ODD": "caf\udce9", "TEXT": 'é"\n'}
    first, second = Batch(), Batch()
    key = first.keep_environment(odd)
    assert second.keep_environment(dict(reversed(odd.items()))) == key
    await asyncio.gather(store.apply(first), store.apply(second))
    await store.apply(second)
    assert await store.environment(key) == odd
    assert await store.environment("unknown") is None


async def test_a_key_of_a_client_is_found_again_and_taken_once(store: Store) -> None:
    record = IdempotencyRecord(key="k", digest="d", job_ids=(1, 2), created_at=100.0)
    await store.apply(Batch(idempotency=[record]))
    assert await store.idempotent("k") == record
    assert await store.idempotent("other") is None
    with pytest.raises(Conflict):
        await store.apply(Batch(idempotency=[record], inserts=[make_job(1)]))
    assert await store.get(1) is None
    await store.apply(Batch(forget_keys_before=101.0))
    assert await store.idempotent("k") is None


async def test_events_are_read_from_any_point(store: Store) -> None:
    happened = [
        Event(seq=n, time=float(n), type="job.queued", job_id=n % 3 or None, data={"n": n})
        for n in range(1, 31)
    ]
    await store.apply(Batch(events=happened))
    assert await store.events(0, 100) == happened
    assert await store.events(10, 5) == happened[10:15]
    assert await store.events(0, 100, job_id=2) == [e for e in happened if e.job_id == 2]
    assert await store.oldest_seq() == 1
    await store.apply(Batch(forget_events_before=21))
    assert await store.oldest_seq() == 21
    await store.apply(Batch(forget_events_before=1000))
    assert await store.events(0, 100) == happened[-1:], "numbers must go on from the newest"


async def test_an_empty_store_has_no_oldest_event(store: Store) -> None:
    assert await store.oldest_seq() == 0
    assert await store.get(1) is None
    assert await store.get(1 << 70) is None


async def test_reading_does_not_wait_for_writing(store: Store) -> None:
    await store.apply(submission(*(make_job(i) for i in range(1, 2001))))
    writing = [
        store.enqueue(submission(*(make_job(1000 * k + i) for i in range(1000))))
        for k in range(3, 23)
    ]
    first = asyncio.ensure_future(store.list_jobs(limit=10))
    page = await first
    assert page.jobs
    assert not writing[-1].done()
    await asyncio.gather(*writing)


@pytest.mark.parametrize("durability", ["default", "full"])
async def test_the_log_is_synced_as_promised(tmp_path: Path, durability: str) -> None:
    store = open_store(tmp_path / "store.db", durability=durability)
    levels: list[int] = []
    transaction = store._writer._transaction

    def spy(batch: Batch) -> None:
        transaction(batch)
        connection, _ = store._writer._connected()
        driver = connection.connection.driver_connection
        assert driver is not None
        levels.append(driver.execute("PRAGMA synchronous").fetchone()[0])

    store._writer._transaction = spy  # type: ignore[method-assign]
    await store.apply(submission(make_job(1), durable=True))
    await store.apply(submission(make_job(2)))
    await store.apply(submission(make_job(3), durable=True))
    store.close()
    full, normal = 2, 1
    assert levels == [full, normal if durability == "default" else full, full]


def test_a_transaction_of_the_writer_takes_the_lock_at_once(store: Store) -> None:
    with store._engine.begin():
        with contextlib.closing(sqlite3.connect(store.path, timeout=0)) as other:
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")


async def test_the_store_works_without_shared_memory_on_network_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_filesystem", lambda path: "nfs4")
    store = open_store(tmp_path / "store.db")
    waits = []
    for number in range(1, 201):
        waits.append(store.enqueue(submission(make_job(number))))
        await store.list_jobs(limit=5)
    await asyncio.gather(*waits)
    assert sorted(os.listdir(tmp_path))[0] == "store.db"
    assert not (set(os.listdir(tmp_path)) & {"store.db-wal", "store.db-shm"})
    again = reopen(store)
    assert len(again.load_active()) == 200
    again.close()


@pytest.mark.parametrize("url", ["postgresql://", "sqlite://"])
def test_tables_and_statements_are_understood_by_either_database(url: str) -> None:
    dialect: Dialect = make_url(url).get_dialect()()
    texts = [
        str(CreateTable(table).compile(dialect=dialect))
        for table in schema.metadata.tables.values()
    ]
    texts += [
        str(CreateIndex(index).compile(dialect=dialect))
        for table in schema.metadata.tables.values()
        for index in table.indexes
    ]
    texts += [
        str(statement._statement.compile(dialect=dialect))
        for statement in vars(changes).values()
        if isinstance(statement, changes.Prepared)
    ]
    assert len(texts) > 12
    assert any("WHERE project IS NOT NULL" in text for text in texts)
    number = "BIGINT" if dialect.name == "postgresql" else "INTEGER"
    assert f"id {number} NOT NULL" in texts[0]


async def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "100% mine? #1 äö & more"
    folder.mkdir()
    store = open_store(folder / "store.db")
    await store.apply(submission(make_job(1)))
    store.close()
    assert os.listdir(folder) == ["store.db"]


async def test_all_files_of_the_store_are_private(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    await store.apply(submission(make_job(1)))
    modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    store.close()


def test_a_url_names_the_file(tmp_path: Path) -> None:
    store = Store.open(f"sqlite:///{tmp_path}/store.db", owner=OWNER)
    assert store.path == tmp_path / "store.db"
    store.close()


def test_what_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="postgresql"):
        Store.open("postgresql://host/db", owner=OWNER)
    with pytest.raises(InvalidInput, match="durability"):
        open_store(tmp_path / "store.db", durability="some")


def test_an_ordinary_start_does_not_import_alembic(tmp_path: Path) -> None:
    program = (
        "import sys; from simyard.service.store.store import Store\n"
        "for _ in range(2): Store.open(sys.argv[1], owner={}).close()\n"
        "sys.exit('alembic' in sys.modules)"
    )
    root = Path(__file__).parents[2] / "typings"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store.db")],
        env={"PYTHONPATH": str(root)},
        check=False,
    )
    assert ended.returncode == 0
