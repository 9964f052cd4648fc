"""The one thread that writes: everything that waits goes into one transaction.

Callers live in event loops and never block; a future is resolved only after the
commit that holds its batch. Knows tables and batches; nothing of what jobs do.

    enqueue ──► queue ──► [everything pending] ──► BEGIN IMMEDIATE … COMMIT ──► futures

When a transaction fails for want of room or of a lock, every batch that was
enqueued before its callers could hear of it fails alike: a later one may rest on
an earlier one. When another writer is met, nothing is written any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ...errors import (
    Conflict,
    HomeInUse,
    ServiceUnavailable,
    SimyardError,
    StorageFull,
    StoreUnreadable,
)
from ..model import Job
from ..states import TERMINAL
from . import rows, schema, sqlite
from .batch import Batch
from .sqlite import Trouble

log = logging.getLogger(__name__)

MAX_ROWS = 20_000
"""Rows after which a transaction takes no further batch: the first caller waits for all."""
LOOKUP = 500
"""Values in one IN list, far below every database's limit."""
DELETED = "highest_deleted_job"
"""Key in `meta`: ids of deleted jobs are not given out again."""


class StoreTaken(HomeInUse):
    """Another Simyard service has taken over this store."""

    code = "store_taken"


class StaleWrite(Conflict):
    """Something else has changed this store."""

    code = "stale_write"


OnFatal = Callable[[SimyardError], None]

_insert_job = insert(schema.jobs)
_insert_event = insert(schema.events)
_insert_key = insert(schema.idempotency)
_insert_environment = insert(schema.environments)
_insert_meta = insert(schema.meta)
_KEPT = {"id", "created_at", "retry_of"}
_update_job = (
    update(schema.jobs)
    .where(schema.jobs.c.id == bindparam("_id"), schema.jobs.c.version == bindparam("_expected"))
    .values({c.name: bindparam(c.name) for c in schema.jobs.c if c.name not in _KEPT})
)
_delete_job = delete(schema.jobs).where(
    schema.jobs.c.id == bindparam("_id"),
    schema.jobs.c.state.in_([state.value for state in TERMINAL]),
)
_update_meta = (
    update(schema.meta)
    .where(schema.meta.c.key == bindparam("_key"))
    .values(value=bindparam("value"))
)
_holder = select(schema.manager.c.epoch, schema.manager.c.owner).where(schema.manager.c.id == 1)


@dataclass(slots=True)
class _Pending:
    batch: Batch
    future: asyncio.Future[None]
    loop: asyncio.AbstractEventLoop
    generation: int


_Result = tuple[_Pending, SimyardError | None]


class Writer:
    """Applies batches in the order in which they were enqueued."""

    def __init__(
        self,
        engine: Engine,
        place: sqlite.Place,
        epoch: int,
        *,
        full: bool,
        busy_seconds: float,
        on_fatal: OnFatal,
    ) -> None:
        self._engine = engine
        self._place = place
        self._epoch = epoch
        self._full = full
        self._busy_seconds = busy_seconds
        self._on_fatal = on_fatal
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._entry = threading.Lock()
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._syncing: sqlite.Syncing | None = None
        self._generation = 0
        self._refused = -1
        self._refusal: SimyardError | None = None
        self._failure: SimyardError | None = None
        self.transactions = 0
        """Committed so far."""
        self.batches = 0
        """Batches in those."""
        self._thread = threading.Thread(target=self._run, name="simyard-store-writer", daemon=True)
        self._thread.start()

    def enqueue(self, batch: Batch) -> asyncio.Future[None]:
        """Hand over a batch; must not be changed afterwards. Its future is done after its commit.

        A batch is written even where nobody waits for its future any more.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._entry:
            if self._closing.is_set():
                future.set_exception(ServiceUnavailable("the store is closed"))
            else:
                self._queue.put(_Pending(batch, future, loop, self._generation))
        return future

    def close(self) -> None:
        """Write what waits, then end the thread. Blocking; a second call does nothing."""
        with self._entry:
            if not self._closing.is_set():
                self._closing.set()
                self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # -- the thread --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            first = self._queue.get()
            if first is None:
                break
            group, ended = self._drain(first)
            self._write(group)
            if ended:
                break
        self._disconnect()

    def _drain(self, first: _Pending) -> tuple[list[_Pending], bool]:
        group, size = [first], len(first.batch)
        while size < MAX_ROWS:
            try:
                pending = self._queue.get_nowait()
            except queue.Empty:
                return group, False
            if pending is None:
                return group, True
            group.append(pending)
            size += len(pending.batch)
        return group, False

    def _write(self, group: Sequence[_Pending]) -> None:
        results: list[_Result] = []
        live: list[_Pending] = []
        for pending in group:
            refusal = self._refusal_of(pending)
            if refusal is None:
                live.append(pending)
            else:
                results.append((pending, refusal))
        if live:
            results += self._attempt(live)
        self._tell(results)

    def _refusal_of(self, pending: _Pending) -> SimyardError | None:
        if self._failure is not None:
            return _again(self._failure)
        if pending.generation <= self._refused and self._refusal is not None:
            return _again(self._refusal)
        return None

    def _attempt(self, live: Sequence[_Pending]) -> list[_Result]:
        try:
            self._commit([pending.batch for pending in live])
        except SimyardError as error:
            if not isinstance(error, (StoreTaken, StaleWrite, StoreUnreadable)):
                self._refused, self._refusal = self._generation, error
            else:
                self._stop(error)
            return [(pending, _again(error)) for pending in live]
        except Exception as error:
            if len(live) > 1:  # one of them is at fault: the others shall not suffer
                return [result for pending in live for result in self._alone(pending)]
            log.warning("a batch was refused by the store: %s", _first_line(error))
            return [(live[0], _conflict(error))]
        self.batches += len(live)
        return [(pending, None) for pending in live]

    def _alone(self, pending: _Pending) -> list[_Result]:
        refusal = self._refusal_of(pending)
        return self._attempt([pending]) if refusal is None else [(pending, refusal)]

    def _stop(self, error: SimyardError) -> None:
        if self._failure is None:
            self._failure = error
            log.critical("the store is not written any more: %s", error)
            self._on_fatal(error)

    def _tell(self, results: Sequence[_Result]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[_Result]] = {}
        for result in results:
            by_loop.setdefault(result[0].loop, []).append(result)
        for loop, told in by_loop.items():
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._settle, told)

    def _settle(self, results: Sequence[_Result]) -> None:
        if any(error is not None for _, error in results):
            # From here on callers know of the failure: what they enqueue is new.
            with self._entry:
                self._generation += 1
        for pending, error in results:
            if pending.future.done():
                continue
            if error is None:
                pending.future.set_result(None)
            else:
                pending.future.set_exception(error)

    # -- one transaction ---------------------------------------------------------------

    def _commit(self, batches: Sequence[Batch]) -> None:
        """Write `batches` in one transaction, waiting for a lock as long as is allowed."""
        changes = Batch()
        for batch in batches:
            changes.merge(batch)
        if not changes:
            return
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                self._transaction(changes)
            except (DBAPIError, OSError) as error:
                kind = sqlite.trouble(error)
                self._disconnect()
                if kind is Trouble.CONTENT:
                    raise
                if kind is not Trouble.BUSY:
                    raise self._explained(kind, error) from error
                if time.monotonic() >= deadline or self._closing.is_set():
                    raise ServiceUnavailable(
                        f"the store {self._place.path} is locked by another program; end that "
                        "program, or try again"
                    ) from error
            except SQLAlchemyError:
                self._disconnect()
                raise
            else:
                self.transactions += 1
                return

    def _transaction(self, changes: Batch) -> None:
        connection, syncing = self._connected()
        syncing.set(self._full or changes.durable)
        with connection.begin():
            self._check_epoch(connection)
            _apply(connection, changes)
            if not self._place.still_there():
                raise StoreUnreadable(
                    f"the store {self._place.path} was removed or replaced while it was in use; "
                    "put it back, then start the service again",
                    path=str(self._place.path),
                )

    def _check_epoch(self, connection: Connection) -> None:
        row = connection.execute(_holder).one_or_none()
        if row is None or row.epoch != self._epoch:
            raise StoreTaken(*taken(self._place, row.owner if row is not None else "{}"))

    def _connected(self) -> tuple[Connection, sqlite.Syncing]:
        if self._connection is None or self._syncing is None:
            if not self._place.still_there():
                raise StoreUnreadable(
                    f"the store {self._place.path} was removed or replaced while it was in use; "
                    "put it back, then start the service again",
                    path=str(self._place.path),
                )
            self._connection = self._engine.connect()
            self._syncing = sqlite.Syncing(self._connection)
        return self._connection, self._syncing

    def _disconnect(self) -> None:
        connection, self._connection, self._syncing = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError):
                connection.close()

    def _explained(self, kind: Trouble, error: BaseException) -> SimyardError:
        path = self._place.path
        reason = _first_line(error)
        if kind is Trouble.FULL:
            return StorageFull(
                f"no room to write the store {path} ({reason}); free some space on its disk, or "
                "raise the quota or file-size limit, and try again"
            )
        if kind is Trouble.DAMAGED:
            return sqlite.unreadable(path, f"is damaged ({reason})")
        return ServiceUnavailable(f"the store {path} cannot be written now: {reason}")


def taken(place: sqlite.Place, owner_json: str) -> tuple[str]:
    """Return the message for a store whose manager is another by now."""
    owner = json.loads(owner_json)
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this host')}"
    return (
        f"another Simyard service ({who}) has taken over the store {place.path}; this one writes "
        "nothing any more: use that one",
    )


def _apply(connection: Connection, changes: Batch) -> None:
    inserts, updates = _condensed(changes)
    if changes.environments:
        _insert_unknown_environments(connection, changes)
    if inserts:
        connection.execute(_insert_job, [rows.job_values(job) for job in inserts])
    if updates:
        _update_jobs(connection, updates)
    if changes.events:
        connection.execute(_insert_event, [rows.event_values(event) for event in changes.events])
    if changes.idempotency:
        connection.execute(_insert_key, [rows.key_values(record) for record in changes.idempotency])
    if changes.deletes:
        _delete_jobs(connection, changes.deletes)
    for key, value in changes.meta.items():
        set_meta(connection, key, value)
    if changes.forget_events_before:
        newest = select(func.max(schema.events.c.seq)).scalar_subquery()
        seq = schema.events.c.seq
        connection.execute(
            delete(schema.events).where(seq < changes.forget_events_before, seq < newest)
        )
    if changes.forget_keys_before:
        created = schema.idempotency.c.created_at
        connection.execute(
            delete(schema.idempotency).where(created < changes.forget_keys_before)
        )


def _condensed(changes: Batch) -> tuple[list[Job], list[tuple[int, Job]]]:
    """Join the changes of each job into its last value and the version that it replaces.

    A short job is claimed, started and ended within one transaction: one write, not three.
    """
    inserted = {job.id: job for job in changes.inserts}
    if len(inserted) != len(changes.inserts):
        raise ValueError("one transaction inserts a job twice")
    updated: dict[int, tuple[int, Job]] = {}
    for job in changes.updates:
        if job.id in inserted:
            _check_follows(inserted[job.id].version, job)
            inserted[job.id] = job
        elif job.id in updated:
            expected, before = updated[job.id]
            _check_follows(before.version, job)
            updated[job.id] = (expected, job)
        else:
            updated[job.id] = (job.version - 1, job)
    return list(inserted.values()), list(updated.values())


def _check_follows(version: int, job: Job) -> None:
    if job.version != version + 1:
        raise StaleWrite(
            f"version {job.version} of job {job.id} cannot follow version {version}; "
            "nothing more is written"
        )


def _update_jobs(connection: Connection, updates: Sequence[tuple[int, Job]]) -> None:
    values = []
    for expected, job in updates:
        row = rows.job_values(job)
        for name in _KEPT:
            del row[name]
        row["_id"] = job.id
        row["_expected"] = expected
        values.append(row)
    changed = connection.execute(_update_job, values).rowcount
    if changed != len(values):
        raise StaleWrite(
            f"{len(values) - changed} of {len(values)} changed jobs are not in the store as they "
            "were written last (" + ", ".join(str(job.id) for _, job in updates[:10]) + "): "
            "something else has changed the store; nothing more is written"
        )


def _delete_jobs(connection: Connection, ids: Sequence[int]) -> None:
    connection.execute(_delete_job, [{"_id": job_id} for job_id in ids])
    kept = connection.execute(
        select(schema.meta.c.value).where(schema.meta.c.key == DELETED)
    ).scalar_one_or_none()
    set_meta(connection, DELETED, str(max(int(kept or 0), *ids)))


def _insert_unknown_environments(connection: Connection, changes: Batch) -> None:
    wanted = list(changes.environments)
    known: set[str] = set()
    for start in range(0, len(wanted), LOOKUP):
        part = wanted[start : start + LOOKUP]
        column = schema.environments.c.hash
        known.update(connection.execute(select(column).where(column.in_(part))).scalars())
    new = [
        {"hash": key, "data": rows.dump(dict(environment))}
        for key, environment in changes.environments.items()
        if key not in known
    ]
    if new:
        connection.execute(_insert_environment, new)


def set_meta(connection: Connection, key: str, value: str) -> None:
    """Write one entry of `meta`."""
    if not connection.execute(_update_meta, {"_key": key, "value": value}).rowcount:
        connection.execute(_insert_meta, {"key": key, "value": value})


def _again(error: SimyardError) -> SimyardError:
    """Make an error of its own for each who waits: tracebacks are not shared."""
    copy = type(error)(error.message, **error.details)
    copy.__cause__ = error.__cause__
    return copy


def _conflict(error: Exception) -> SimyardError:
    conflict = Conflict(f"the store refused the change: {_first_line(error)}")
    conflict.__cause__ = error
    return conflict


def _first_line(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    return str(original).partition("\n")[0] or type(original).__name__
