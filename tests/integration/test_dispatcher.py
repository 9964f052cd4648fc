"""Starting jobs when the other side, or the store, fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.quiet_adapter import QuietAdapter

from simyard.errors import LauncherError, StorageFull
from simyard.scheduler_adapters.contract import Ending, Submission
from simyard.service import dispatcher
from simyard.service.home import Home
from simyard.service.host import HostMonitor
from simyard.service.manager import Manager
from simyard.service.model import Job, JobSpec
from simyard.service.settings import Settings
from simyard.service.states import JobState
from simyard.service.store.store import Store

TRUE = JobSpec(command=("true",))


class StubbornAdapter(QuietAdapter):
    """Refuses as often as it was told to, with an error it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: list[Exception] = []

    async def submit(self, submissions: Sequence[Submission]) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        await super().submit(submissions)


class Yard:
    """A manager with a real store, and work that only pretends."""

    def __init__(self, manager: Manager, adapter: StubbornAdapter, store: Store) -> None:
        self.manager = manager
        self.adapter = adapter
        self.store = store

    async def until(self, job_id: int, *states: JobState) -> Job:
        async def there() -> Job:
            job = await self.manager.get(job_id)
            while job.state not in states:
                job = await self.manager.wait_for_change(job_id, version=job.version, timeout=5)
            return job

        return await asyncio.wait_for(there(), 20)


@pytest.fixture
async def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Yard]:
    monkeypatch.setattr(dispatcher, "RETRY_AFTER", 0.05)
    home = Home(tmp_path / "home")
    home.prepare()
    store = await asyncio.to_thread(Store.open, home.store, owner={"pid": 1, "host": "here"})
    host = HostMonitor(home.path)
    host.start()
    await asyncio.to_thread(host.wait, 5.0)
    settings = Settings.load(home.path, {"max_cores": 4})
    adapter = StubbornAdapter()
    manager = Manager(home, settings, store, adapter, host)
    await manager.start()
    yield Yard(manager, adapter, store)
    await manager.stop()
    host.stop()
    await asyncio.to_thread(store.close)


@pytest.mark.parametrize("error", [LauncherError("no launcher"), RuntimeError("a bug of ours")])
async def test_what_an_adapter_refuses_goes_back_to_the_queue_and_is_tried_again(
    yard: Yard, error: Exception
) -> None:
    yard.adapter.refusals = [error, error]
    (job,) = await yard.manager.submit([TRUE])
    job = await yard.until(job.id, JobState.RUNNING)
    assert job.attempt == 1, "what never started is no attempt"
    assert yard.manager.resources()["in_use"]["jobs"] == 1
    await yard.adapter.end(str(job.id), Ending(exit_code=0))
    await yard.until(job.id, JobState.COMPLETED)
    assert yard.manager.resources()["in_use"]["jobs"] == 0


async def test_what_happens_while_the_disk_is_full_is_kept_and_written_later(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = await yard.manager.submit([TRUE])
    await yard.until(job.id, JobState.RUNNING)
    enqueue = yard.store.enqueue
    full = True

    def refuse(batch: Any) -> asyncio.Future[None]:
        if not full:
            return enqueue(batch)
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(StorageFull("no room"))
        return refused

    monkeypatch.setattr(yard.store, "enqueue", refuse)
    await yard.adapter.end(str(job.id), Ending(exit_code=3))
    with pytest.raises(StorageFull):
        await yard.manager.submit([TRUE])
    assert (await yard.manager.get(job.id)).state is JobState.RUNNING, "not durable: not visible"
    full = False

    ended = await yard.until(job.id, JobState.FAILED)
    assert ended.outcome is not None
    assert ended.outcome.exit_code == 3
    (other,) = await yard.manager.submit([TRUE])
    await yard.until(other.id, JobState.RUNNING)


async def test_submissions_at_the_same_time_with_one_key_are_one_job(yard: Yard) -> None:
    twice = [
        yard.manager.submit([TRUE], idempotency_key="k", digest="d"),
        yard.manager.submit([TRUE], idempotency_key="k", digest="d"),
    ]
    (first,), (second,) = await asyncio.gather(*twice)
    assert first.id == second.id


async def test_submissions_at_the_same_time_share_commits(yard: Yard) -> None:
    transactions, _ = yard.store.committed
    jobs = await asyncio.gather(*(yard.manager.submit([TRUE]) for _ in range(100)))
    assert len({job.id for (job,) in jobs}) == 100
    assert yard.store.committed[0] - transactions < 60
