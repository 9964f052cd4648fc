"""Lists: what a filter chooses, and pages that stay put."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import make_job, open_store, submission

from simyard.errors import InvalidInput
from simyard.service.states import JobState
from simyard.service.store.batch import Batch
from simyard.service.store.filters import JobFilter
from simyard.service.store.store import Store

JOBS = [
    make_job(1, name="Wing sweep 01", project="wing", group="a", state=JobState.COMPLETED),
    make_job(2, name="wing sweep 02", project="wing", group="b", state=JobState.FAILED),
    make_job(3, name="tail", project="tail", state=JobState.RUNNING, tags={"mesh": "fine"}),
    make_job(4, name="100%_done", state=JobState.QUEUED, tags={"mesh": "finer", "case": "7"}),
    make_job(5, name="1000 done", state=JobState.CANCELLED, group="a"),
    make_job(6, name="path\\x", state=JobState.HELD, tags={"note": "two words"}),
]


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]
)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    url: Path | str = tmp_path_factory.mktemp("filters") / "store.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_server").new_database()
    opened = open_store(url)
    asyncio.run(opened.apply(submission(*JOBS)))
    yield opened
    opened.close()


CHOICES = [
    (JobFilter(), [6, 5, 4, 3, 2, 1]),
    (JobFilter(states=frozenset({JobState.FAILED, JobState.RUNNING})), [3, 2]),
    (JobFilter(active=True), [6, 4, 3]),
    (JobFilter(active=True, states=frozenset({JobState.FAILED})), []),
    (JobFilter(name="wing"), [2, 1]),
    (JobFilter(name="WING SWEEP"), [2, 1]),
    (JobFilter(name="wing*1"), [1]),
    (JobFilter(name="*0?"), [2, 1]),
    (JobFilter(name="sweep*"), []),
    (JobFilter(name="0%_d"), [4]),
    (JobFilter(name="100?_*"), [4]),
    (JobFilter(name="h\\x"), [6]),
    (JobFilter(name="*\\*"), [6]),
    (JobFilter(project="wing"), [2, 1]),
    (JobFilter(project="win"), []),
    (JobFilter(group="a"), [5, 1]),
    (JobFilter(tag="mesh"), [4, 3]),
    (JobFilter(tag="mesh=fine"), [3]),
    (JobFilter(tag="esh"), []),
    (JobFilter(ids=(2, 5, 77)), [5, 2]),
    (JobFilter(ids=()), []),
    (JobFilter(q=""), [6, 5, 4, 3, 2, 1]),
    (JobFilter(q="wing 02"), [2]),
    (JobFilter(q="sweep state:failed"), [2]),
    (JobFilter(q="state:failed,success"), [2, 1]),
    (JobFilter(q="name:wing*2"), [2]),
    (JobFilter(q="project:wing group:a"), [1]),
    (JobFilter(q="tag:mesh=fine"), [3]),
    (JobFilter(q="fine"), [4, 3]),
    (JobFilter(q='"two words"'), [6]),
    (JobFilter(q='name:"wing sweep 01"'), [1]),
    (JobFilter(q="id:3,4"), [4, 3]),
    (JobFilter(q="id:99999999999999999999999999"), []),
    (JobFilter(q="3"), [3]),
    (JobFilter(q="5"), [5]),
    (JobFilter(q="%"), [4]),
    (JobFilter(q="_"), [4]),
    (JobFilter(q="what:ever"), []),
    (JobFilter(q="state:failed", active=True), []),
    (JobFilter(q="'; DROP TABLE jobs; --"), []),
]


@pytest.mark.parametrize(("wanted", "ids"), CHOICES, ids=lambda value: str(value)[:60])
async def test_a_filter_chooses(store: Store, wanted: JobFilter, ids: list[int]) -> None:
    page = await store.list_jobs(wanted, count=True)
    assert [job.id for job in page.jobs] == ids
    assert page.total == len(ids)
    assert page.next_cursor is None
    assert await store.select_ids(wanted, 100) == sorted(ids)


async def test_ids_are_selected_up_to_a_limit(store: Store) -> None:
    assert await store.select_ids(JobFilter(), 2) == [1, 2]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (JobFilter(q="state:done"), "the states are"),
        (JobFilter(q="id:x"), "id:17"),
        (JobFilter(q="x" * 2000), "1000 characters"),
        (JobFilter(ids=range(20_000)), "10000 ids"),
    ],
)
async def test_a_filter_that_cannot_be_read_says_why(
    store: Store, wanted: JobFilter, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        await store.list_jobs(wanted)
    with pytest.raises(InvalidInput, match=message):
        await store.select_ids(wanted, 10)


@pytest.mark.parametrize("cursor", ["", "x", "MTIz", "🙂", "YmVmb3JlOi0x", "YmVmb3JlOjE3" * 50])
async def test_a_made_up_cursor_is_refused(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        await store.list_jobs(cursor=cursor)


async def test_the_total_is_counted_only_when_asked(store: Store) -> None:
    assert (await store.list_jobs(limit=2)).total is None
    page = await store.list_jobs(JobFilter(group="a"), limit=1, count=True)
    assert page.total == 2
    assert page.next_cursor is not None


async def test_pages_neither_repeat_nor_skip_while_jobs_come_in(store_url: Path | str) -> None:
    store = open_store(store_url)
    await store.apply(submission(*(make_job(i) for i in range(1, 101))))
    seen: list[int] = []
    cursor: str | None = None
    newest = 100
    while True:
        page = await store.list_jobs(limit=7, cursor=cursor)
        seen += [job.id for job in page.jobs]
        await store.apply(submission(*(make_job(newest + i) for i in range(1, 6))))
        newest += 5
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == list(range(100, 0, -1))
    store.close()


async def test_a_list_of_one_project_reads_only_that_project(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    await store.apply(Batch(meta={"a": "b"}))

    def plans() -> list[str]:
        connection = store._engine.raw_connection()
        try:
            found = []
            for where in (
                "state IN ('queued','running') ORDER BY id",
                "project = 'wing' ORDER BY id DESC LIMIT 10",
                "\"group\" = 'a' ORDER BY id DESC LIMIT 10",
            ):
                cursor = connection.cursor()
                cursor.execute(f"EXPLAIN QUERY PLAN SELECT * FROM jobs WHERE {where}")
                found.append(" ".join(str(row[3]) for row in cursor.fetchall()))
            return found
        finally:
            connection.close()

    by_state, by_project, by_group = plans()
    assert "ix_jobs_state" in by_state
    assert "ix_jobs_project" in by_project
    assert "ix_jobs_group" in by_group
    assert "TEMP B-TREE" not in by_project + by_group
    store.close()
