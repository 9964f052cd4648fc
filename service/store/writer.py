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

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from ...errors import (
    Conflict,
    ServiceUnavailable,
    SimyardError,
    StaleWrite,
    StorageFull,
    StoreTaken,
    StoreUnreadable,
)
from . import changes, schema, sqlite
from .batch import Batch
from .sqlite import Trouble

log = logging.getLogger(__name__)

MAX_ROWS = 20_000
"""Rows after which a transaction takes no further batch: the first caller waits for all."""


OnFatal = Callable[[SimyardError], None]

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
            try:
                loop.call_soon_threadsafe(self._settle, told)
            except RuntimeError:  # the loop is closed: nobody is left who waits
                self._next_generation()

    def _settle(self, results: Sequence[_Result]) -> None:
        if any(error is not None for _, error in results):
            # From here on callers know of the failure: what they enqueue is new.
            self._next_generation()
        for pending, error in results:
            if pending.future.done():
                continue
            if error is None:
                pending.future.set_result(None)
            else:
                pending.future.set_exception(error)

    def _next_generation(self) -> None:
        with self._entry:
            self._generation += 1

    # -- one transaction ---------------------------------------------------------------

    def _commit(self, batches: Sequence[Batch]) -> None:
        """Write `batches` in one transaction, waiting for a lock as long as is allowed."""
        merged = Batch()
        for batch in batches:
            merged.merge(batch)
        if not merged:
            return
        deadline = time.monotonic() + self._busy_seconds
        while True:
            try:
                self._transaction(merged)
            except sqlite.ERRORS as error:
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

    def _transaction(self, batch: Batch) -> None:
        connection, syncing = self._connected()
        syncing.set(self._full or batch.durable)
        with connection.begin():
            self._check_epoch(connection)
            changes.apply(connection, batch)
            if not self._place.still_there():
                raise self._moved()

    def _check_epoch(self, connection: Connection) -> None:
        row = connection.execute(_holder).one_or_none()
        if row is None or row.epoch != self._epoch:
            raise _taken(self._place, row.owner if row is not None else "{}")

    def _connected(self) -> tuple[Connection, sqlite.Syncing]:
        if self._connection is None or self._syncing is None:
            if not self._place.still_there():
                raise self._moved()
            self._connection = self._engine.connect()
            self._syncing = sqlite.Syncing(self._connection)
        return self._connection, self._syncing

    def _moved(self) -> StoreUnreadable:
        return StoreUnreadable(
            f"the store {self._place.path} was removed or replaced while it was in use; put it "
            "back, then start the service again",
            path=str(self._place.path),
        )

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


def _taken(place: sqlite.Place, owner_json: str) -> StoreTaken:
    owner = json.loads(owner_json)
    who = f"process {owner.get('pid', '?')} on {owner.get('host', 'this host')}"
    return StoreTaken(
        f"another Simyard service ({who}) has taken over the store {place.path}; this one writes "
        "nothing any more: use that one",
        owner=owner,
    )


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
