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
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ...errors import (
    Conflict,
    ServiceUnavailable,
    SimyardError,
    StaleWrite,
    StoreTaken,
    StoreUnreadable,
)
from . import changes, holder
from .backend import Backend, Syncing, Trouble, reason
from .batch import Batch
from .holder import Fence

log = logging.getLogger(__name__)

MAX_ROWS = 20_000
"""Rows after which a transaction takes no further batch: the first caller waits for all."""

ASK_AGAIN_SECONDS = 0.2


OnFatal = Callable[[SimyardError], None]


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
        backend: Backend,
        epoch: int,
        *,
        full: bool,
        busy_seconds: float,
        on_fatal: OnFatal,
    ) -> None:
        self._engine = engine
        self._backend = backend
        self._fence = Fence(backend, epoch)
        self._still_there = backend.watch()
        self._full = full
        self._busy_seconds = busy_seconds
        self._on_fatal = on_fatal
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._entry = threading.Lock()
        self._closing = threading.Event()
        self._connection: Connection | None = None
        self._syncing: Syncing | None = None
        self._expected: tuple[type[BaseException], ...] = (
            SimyardError,
            SQLAlchemyError,
            *backend.errors,
        )
        self._renew_after = None if backend.lease is None else backend.lease / 3
        self._serial = 0
        self._in_doubt = False
        """A commit was sent, and its answer has not come."""
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
            try:
                first = self._queue.get(timeout=self._renew_after)
            except queue.Empty:
                self._renew()
                continue
            if first is None:
                break
            group, ended = self._drain(first)
            self._write(group)
            if ended:
                break
        self._give_back()
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
            log.warning("a batch was refused by the store: %s", reason(error))
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
            except self._backend.errors as error:
                kind = self._backend.trouble(error)
                self._disconnect()
                if self._in_doubt and self._was_committed(kind, error):
                    break
                if kind is Trouble.CONTENT:
                    raise
                if kind is not Trouble.BUSY:
                    raise self._backend.explained(error, "written") from error
                if time.monotonic() >= deadline or self._closing.is_set():
                    raise self._backend.locked() from error
            except SQLAlchemyError:
                self._disconnect()
                raise
            else:
                break
        self.transactions += 1

    def _transaction(self, batch: Batch) -> None:
        self._in_doubt = False
        connection, syncing = self._connected()
        syncing.set(self._full or batch.durable or (self._backend.crashes_alone and batch.of_jobs))
        with connection.begin() as transaction:
            self._serial += 1
            if not self._fence.passes(connection, self._serial):
                raise self._taken(connection)
            changes.apply(connection, batch)
            if not self._still_there():
                raise self._backend.replaced()
            self._in_doubt = True
            transaction.commit()
            self._in_doubt = False

    def _was_committed(self, kind: Trouble, error: BaseException) -> bool:
        """Find out whether a commit took place whose answer was lost with the connection.

        Until that is known nothing can be said to anyone: a job that is there is not to be
        refused, and one that is not there is not to be promised.
        """
        if kind is not Trouble.UNAVAILABLE or not self._backend.crashes_alone:
            return False
        log.warning("the answer to a commit was lost, asking again: %s", reason(error))
        while not self._closing.wait(ASK_AGAIN_SECONDS):
            try:
                connection, _ = self._connected()
                with connection.begin():
                    answer = self._fence.has_written(connection, self._serial)
                    if answer is None:
                        raise self._taken(connection)
                return answer
            except self._backend.errors:
                self._disconnect()
        return False

    def _renew(self) -> None:
        """Keep the lease of a store that nobody changes just now."""
        if self._failure is not None:
            return
        try:
            self._transaction(Batch())
        except StoreTaken as error:
            self._stop(error)
        except self._expected as error:
            self._disconnect()
            log.warning("the lease of the store cannot be renewed now: %s", reason(error))

    def _give_back(self) -> None:
        if self._renew_after is None or self._failure is not None:
            return
        try:
            connection, _ = self._connected()
            with connection.begin():
                self._fence.give_back(connection)
        except self._expected as error:
            log.warning("the lease of the store ends by itself: %s", reason(error))

    def _connected(self) -> tuple[Connection, Syncing]:
        if self._connection is None or self._syncing is None:
            if not self._still_there():
                raise self._backend.replaced()
            self._connection = self._engine.connect()
            self._syncing = self._backend.syncing(self._connection)
        return self._connection, self._syncing

    def _disconnect(self) -> None:
        connection, self._connection, self._syncing = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(SQLAlchemyError, *self._backend.errors):
                connection.close()

    def _taken(self, connection: Connection) -> StoreTaken:
        owner = holder.holder(connection)
        return StoreTaken(
            f"another Simyard service ({holder.who(owner)}) has taken over the store "
            f"{self._backend.shown}; this one writes nothing any more: use that one",
            owner=owner,
        )


def _again(error: SimyardError) -> SimyardError:
    """Make an error of its own for each who waits: tracebacks are not shared."""
    copy = type(error)(error.message, **error.details)
    copy.__cause__ = error.__cause__
    return copy


def _conflict(error: Exception) -> SimyardError:
    conflict = Conflict(f"the store refused the change: {reason(error)}")
    conflict.__cause__ = error
    return conflict
