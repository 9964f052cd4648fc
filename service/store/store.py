"""The store's face: open it, apply batches, ask it.

Opening decides whether what lies there is a sound store of ours and takes it over;
`writer` and `reader` do the work. What one database alone needs is in `sqlite` and `postgres`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, func, insert

from ...errors import InvalidInput, SimyardError
from ..model import Event, Job
from ..states import JobState
from . import holder, migrations, postgres, reader, schema, sqlite
from .backend import Backend, Trouble
from .batch import Batch, IdempotencyRecord
from .changes import DELETED
from .filters import JobFilter, Page, read
from .reader import Reader
from .writer import OnFatal, Writer

BUSY_SECONDS = 30.0
"""How long another program's lock is waited for."""
DURABILITIES = ("default", "full")
MAX_PAGE = 10_000
T = TypeVar("T")


class Store:
    """One open store, ours until another manager takes it over.

    The asynchronous methods may be called from any event loop; the others block and
    are for the start, in a thread.
    """

    url: Path | str
    """By what it is opened again; may hold a password."""
    epoch: int
    """Number of this opening: grows with each, and fences off earlier ones."""
    uuid: str
    """Name of this store for all time."""
    on_fatal: OnFatal | None
    """Called once, in the writer's thread, when nothing can be written any more."""

    def __init__(
        self,
        backend: Backend,
        engine: Engine,
        *,
        epoch: int,
        name: str,
        full: bool,
        busy_seconds: float,
        on_fatal: OnFatal | None,
    ) -> None:
        self.url = backend.url
        self.epoch = epoch
        self.uuid = name
        self.on_fatal = on_fatal
        self._engine = engine
        self._reader = Reader(backend)
        self._writer = Writer(
            engine,
            backend,
            epoch,
            full=full,
            busy_seconds=busy_seconds,
            on_fatal=self._fatal,
        )

    @classmethod
    def open(
        cls,
        url: str | Path,
        *,
        owner: Mapping[str, object],
        durability: str = "default",
        expect_new: bool = True,
        on_fatal: OnFatal | None = None,
        busy_seconds: float = BUSY_SECONDS,
        lease: float | None = None,
    ) -> Store:
        """Open the store at `url`, a file or ``postgresql://…``, and take it over.

        It is made new or migrated as needed. `lease` is for how many seconds a shared
        store is ours without a word from us, if not for the usual time.

        `owner` is kept in the store, to be named to whom we shut out. With
        `expect_new` false a missing store is refused instead of made. Blocking. Raises
        `StoreUnreadable`, `ServiceUnavailable` where it stays locked, `StorageFull`,
        `PermissionDenied`, `HomeInUse` where the manager of a shared store lives.
        """
        if durability not in DURABILITIES:
            raise InvalidInput(f"durability is 'default' or 'full', not {durability!r}")
        backend = backend_of(url, lease)
        expected: tuple[type[Exception], ...] = (*backend.errors, OSError)
        deadline = time.monotonic() + busy_seconds
        while True:
            try:
                engine, epoch, name = _opened(backend, owner, expect_new)
                break
            except expected as error:
                if backend.trouble(error) is not Trouble.BUSY or time.monotonic() >= deadline:
                    raise backend.refusal(error) from error
                time.sleep(0.02)
        return cls(
            backend,
            engine,
            epoch=epoch,
            name=name,
            full=durability == "full",
            busy_seconds=busy_seconds,
            on_fatal=on_fatal,
        )

    def close(self) -> None:
        """Write what waits, then close. Blocking; a second call does nothing."""
        # The readers first: the last connection to be closed tidies the log away, and
        # only one that may write can.
        self._reader.close()
        self._writer.close()
        self._engine.dispose()

    # -- for the start, blocking -------------------------------------------------------

    def load_active(self) -> list[Job]:
        """Return all jobs that are not over, by ascending id."""
        return self._reader.ask_here(reader.active)

    def next_job_id(self) -> int:
        """Return the first id that no job ever had."""

        def highest(connection: Connection) -> int:
            deleted = int(reader.meta(connection, DELETED) or 0)
            return max(deleted, reader.extreme(connection, func.max(schema.jobs.c.id)))

        return self._reader.ask_here(highest) + 1

    def last_seq(self) -> int:
        """Return the number of the newest event, 0 where there is none."""
        return self._reader.ask_here(
            lambda connection: reader.extreme(connection, func.max(schema.events.c.seq))
        )

    def meta(self, key: str) -> str | None:
        """Return what was stored under `key`."""
        return self._reader.ask_here(lambda connection: reader.meta(connection, key))

    def counts(self) -> dict[JobState, int]:
        """Return how many jobs there are in each state, all states included."""
        return self._reader.ask_here(reader.counts)

    # -- writing -----------------------------------------------------------------------

    async def apply(self, batch: Batch) -> None:
        """Write `batch`; return once it is committed. It is written even if we are cancelled.

        Raises `Conflict` where only this batch could not be written, `StorageFull` or
        `ServiceUnavailable` where nothing can be now, and for good `StoreTaken`,
        `StaleWrite` or `StoreUnreadable`.
        """
        await self._writer.enqueue(batch)

    def enqueue(self, batch: Batch) -> asyncio.Future[None]:
        """Hand over `batch` at once, in the order of the calls; its future is `apply`'s."""
        return self._writer.enqueue(batch)

    @property
    def committed(self) -> tuple[int, int]:
        """How many transactions were committed so far, and how many batches they held."""
        return self._writer.transactions, self._writer.batches

    def _fatal(self, error: SimyardError) -> None:
        if self.on_fatal is not None:
            self.on_fatal(error)

    # -- reading -----------------------------------------------------------------------

    async def get(self, job_id: int) -> Job | None:
        """Return one job."""
        found = await self.get_many([job_id])
        return found[0] if found else None

    async def get_many(self, ids: Iterable[int]) -> list[Job]:
        """Return those jobs that exist, by ascending id."""
        wanted = [job_id for job_id in ids if 0 <= job_id < 1 << 63]
        return await self._ask(lambda connection: reader.get_many(connection, wanted))

    async def list_jobs(
        self,
        wanted: JobFilter | None = None,
        *,
        limit: int = 100,
        cursor: str | None = None,
        count: bool = False,
    ) -> Page:
        """Return a page of jobs, newest first; later submissions do not shift later pages.

        Raises `InvalidInput` for a filter or cursor that cannot be read.
        """
        search = read(wanted or JobFilter())
        size = max(1, min(limit, MAX_PAGE))
        return await self._ask(
            lambda connection: reader.page(connection, search, size, cursor, count)
        )

    async def select_ids(self, wanted: JobFilter, limit: int) -> list[int]:
        """Return at most `limit` ids of jobs that match, by ascending id."""
        search = read(wanted)
        return await self._ask(lambda connection: reader.select_ids(connection, search, limit))

    async def finished(self, wanted: JobFilter) -> list[tuple[int, float, str | None]]:
        """Return id, end and tag of all jobs that match and are over, newest end first."""
        search = read(wanted)
        return await self._ask(lambda connection: reader.finished(connection, search))

    async def known(self, ids: Iterable[int]) -> set[int]:
        """Return which of `ids` are ids of jobs."""
        wanted = [job_id for job_id in ids if 0 <= job_id < 1 << 63]
        return await self._ask(lambda connection: reader.known(connection, wanted))

    async def environment(self, key: str) -> dict[str, str] | None:
        """Return the captured environment of that hash."""
        return await self._ask(lambda connection: reader.environment(connection, key))

    async def idempotent(self, key: str) -> IdempotencyRecord | None:
        """Return what a client's key stood for when it was first used."""
        return await self._ask(lambda connection: reader.idempotent(connection, key))

    async def events(self, since: int, limit: int, job_id: int | None = None) -> list[Event]:
        """Return at most `limit` events after number `since`, oldest first."""
        return await self._ask(lambda connection: reader.events(connection, since, limit, job_id))

    async def oldest_seq(self) -> int:
        """Return the number of the oldest event that is kept, 0 where there is none."""
        return await self._ask(
            lambda connection: reader.extreme(connection, func.min(schema.events.c.seq))
        )

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        return await self._reader.ask(question)


def backend_of(url: str | Path, lease: float | None = None) -> Backend:
    """Return the backend that a path or a URL names; raises `InvalidInput`."""
    if isinstance(url, str) and postgres.is_url(url):
        return postgres.Postgres(url, lease=lease)
    return sqlite.Sqlite(sqlite.path_of(url))


def _opened(
    backend: Backend, owner: Mapping[str, object], expect_new: bool
) -> tuple[Engine, int, str]:
    """Return the writer's engine of a store of this release's shape, its epoch and its name."""
    with backend.opening():
        made = backend.prepare(_build, expect_new=expect_new)
        engine = backend.writer_engine()
        try:
            if not made:
                if backend.lease is not None:
                    with engine.begin() as connection:
                        # Not even the shape of the tables may change under who lives.
                        holder.check_free(connection, backend, owner)
                migrations.bring_up(backend)
            return engine, *_take(engine, backend, owner)
        except BaseException:
            engine.dispose()
            raise


def _build(connection: Connection) -> None:
    schema.metadata.create_all(connection)
    schema.revision.create(connection)
    connection.execute(insert(schema.revision).values(version_num=schema.HEAD))
    connection.execute(insert(schema.meta).values(key="uuid", value=uuid.uuid4().hex))
    connection.execute(insert(schema.manager).values(id=1, epoch=0, owner="{}"))


def _take(engine: Engine, backend: Backend, owner: Mapping[str, object]) -> tuple[int, str]:
    """Make this process the store's one manager; return the epoch and the store's name."""
    with engine.begin() as connection:
        epoch = holder.take(connection, backend, owner)
        name = reader.meta(connection, "uuid")
        if epoch is None or not name:
            raise backend.unreadable("lacks what every store has")
    return epoch, name
