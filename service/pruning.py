"""Finished jobs forgotten: the record first, then the folder.

The record goes in a transaction, many in one; the folder after its commit. A service
that dies in between leaves a folder without a record, which the next prune finds and
removes; never a record whose files are gone. It must not know HTTP, nor decide which
jobs go: that is `retention`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .faults import faultpoint
from .home import Home
from .job_folder import JobFolder
from .model import Job
from .retention import Finished, Retention, select
from .store.batch import Batch
from .store.filters import JobFilter
from .yard import Yard

AT_ONCE = 500
"""Records that go in one transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What went, or would go."""

    ids: tuple[int, ...]
    size: int
    """Bytes of the folders."""
    leftovers: int
    """Folders without a record."""


class Pruner:
    """Forgets jobs of one home."""

    def __init__(self, yard: Yard, home: Home) -> None:
        self._yard = yard
        self._home = home
        self._going: set[int] = set()
        """Jobs that are being forgotten: nobody else may count them out once more."""
        self._one_at_a_time = asyncio.Lock()

    async def forget(self, jobs: Iterable[Job]) -> None:
        """Forget jobs that are over: their records at once, and then their folders."""
        yard = self._yard
        chosen = [job for job in jobs if job.id not in self._going and job.state.terminal]
        if not chosen:
            return
        ids = [job.id for job in chosen]
        self._going.update(ids)
        try:
            batch = Batch()
            batch.deletes.extend(ids)
            for job in chosen:
                yard.note(batch, "job.deleted", job.id, {"name": job.name})
                yard.counts[job.state] -= 1
            await yard.commit(batch)
            faultpoint("delete.committed")
            await asyncio.to_thread(self._remove, ids)
        finally:
            self._going.difference_update(ids)

    async def prune(self, rules: Retention, wanted: JobFilter, *, dry_run: bool = False) -> Pruned:
        """Forget the finished jobs among `wanted` that `rules` do not keep.

        Folders that a death of the service left without a record go too. With `dry_run`
        nothing changes.
        """
        async with self._one_at_a_time:
            leftovers = await self._leftovers()
            jobs = await self._finished(wanted)
            sizes: dict[int, int] = {}
            if rules.max_size is not None:
                sizes = await asyncio.to_thread(self._sizes, [job.id for job in jobs])
            # Of hundreds of thousands this takes a while.
            gone = await asyncio.to_thread(select, jobs, rules, now=time.time(), sizes=sizes)
            missing = [job_id for job_id in gone if job_id not in sizes]
            sizes.update(await asyncio.to_thread(self._sizes, [*missing, *leftovers]))
            size = sum(sizes[job_id] for job_id in [*gone, *leftovers])
            if not dry_run:
                await asyncio.to_thread(self._remove, leftovers)
                for start in range(0, len(gone), AT_ONCE):
                    part = gone[start : start + AT_ONCE]
                    await self.forget(await self._yard.store.get_many(part))
                if gone:
                    await self._yard.commit(Batch(forget_environments=True))
            return Pruned(ids=tuple(gone), size=size, leftovers=len(leftovers))

    async def _finished(self, wanted: JobFilter) -> list[Finished]:
        """Return the jobs that may go: over, and none of their processes is left."""
        yard = self._yard
        return [
            Finished(id=job_id, finished_at=ended)
            for job_id, ended, tag in await yard.store.finished(wanted)
            if job_id not in yard.entries and (tag is None or tag not in yard.grants)
        ]

    async def _leftovers(self) -> list[int]:
        """Return the folders without a record.

        A folder is made after its record is committed: one that is seen before the
        records are asked for, and then has none, belongs to nobody.
        """
        there = await asyncio.to_thread(self._home.job_folders)
        known = await self._yard.store.known(there)
        return [job_id for job_id in there if job_id not in known and job_id not in self._going]

    def _sizes(self, ids: Sequence[int]) -> dict[int, int]:
        return {job_id: JobFolder(self._home.jobs, job_id).size() for job_id in ids}

    def _remove(self, ids: Sequence[int]) -> None:
        for job_id in ids:
            JobFolder(self._home.jobs, job_id).remove()
