"""Everything that only PostgreSQL needs: its driver, sessions, locks and errors.

The rest of the store speaks SQL that SQLite understands as well. This module knows
nothing of jobs. Sources: the manual's chapters on client configuration (timeouts,
``synchronous_commit``), explicit locking, and error codes.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Float,
    NullPool,
    QueuePool,
    cast,
    create_engine,
    event,
    func,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from ...errors import InvalidInput, PermissionDenied, SimyardError, StoreUnreadable
from .backend import Backend, Trouble, reason

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger(__name__)

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
LEASE_SECONDS = 15.0
"""How long a manager that is not heard of keeps the store; it renews three times as often."""
LOCK_WAIT_MS = 200
"""How long one attempt waits for a lock; who calls decides how often to try again."""
READ_SECONDS = 60
OPENING_LOCK = 0x53494D59  # "SIMY": an advisory lock belongs to one database
OURS = ("alembic_version", "jobs", "events", "manager", "meta")
CONNECTING = {
    "application_name": "simyard",
    "client_encoding": "utf8",
    "connect_timeout": "10",
    # A server whose host is gone without a word is given up after half a minute.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "4",
    "tcp_user_timeout": "30000",
}
"""What libpq is told unless the URL says otherwise."""
STRONG = frozenset({"on", "local", "remote_write", "remote_apply"})


def is_url(url: object) -> bool:
    """True for what names a store of this kind."""
    return isinstance(url, str) and url.startswith(SCHEMES)


class Postgres(Backend):
    """A database of a PostgreSQL server."""

    crashes_alone = True
    room = "free some space on the server's disk, and try again"

    def __init__(self, url: str, *, lease: float | None = None) -> None:
        self.url = url
        self.lease = LEASE_SECONDS if lease is None else lease
        self._url = _parsed(url)
        self.shown = _shown(self._url)
        driver = _driver()
        self._error = driver.Error
        self.errors = (DBAPIError, driver.Error)

    # -- opening -----------------------------------------------------------------------

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Hold the database's advisory lock of who opens the store."""
        engine = self._engine(NullPool)
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"SET lock_timeout = {LOCK_WAIT_MS}")
                connection.exec_driver_sql(f"SELECT pg_advisory_lock({OPENING_LOCK})")
                connection.commit()  # it is the session's, and ends with it
                yield
        finally:
            engine.dispose()

    def prepare(self, build: Callable[[Connection], None], *, expect_new: bool) -> bool:
        """See `Backend.prepare`."""
        engine = self.writer_engine()
        try:
            with engine.begin() as connection:
                found = {
                    name
                    for name in OURS
                    if connection.exec_driver_sql(
                        "SELECT to_regclass(%(name)s)", {"name": name}
                    ).scalar_one()
                    is not None
                }
                if found == set(OURS):
                    return False
                if found:
                    raise self.unreadable(
                        "holds tables of another program, or lacks some of ours ("
                        + ", ".join(sorted(set(OURS) - found))
                        + ")"
                    )
                if not expect_new:
                    raise StoreUnreadable(
                        f"the store {self.shown} is empty, but jobs or records lie in the home; "
                        "name the database that holds them, restore a backup of it, or choose "
                        "another home to begin anew",
                        store=self.shown,
                    )
                encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
                if encoding != "UTF8":
                    raise InvalidInput(
                        f"the database {self.shown} holds text as {encoding}; make one with "
                        "ENCODING 'UTF8' for Simyard"
                    )
                build(connection)
        finally:
            engine.dispose()
        return True

    def revision(self) -> str:
        """See `Backend.revision`."""
        engine = self.reader_engine(1)
        try:
            with engine.connect() as connection:
                stamps = connection.exec_driver_sql(
                    "SELECT version_num FROM alembic_version"
                ).fetchall()
        finally:
            engine.dispose()
        if len(stamps) != 1:
            raise self.unreadable("does not say which release wrote it")
        return str(stamps[0][0])

    @contextlib.contextmanager
    def safety_copy(self, head: str) -> Iterator[str]:
        """Make none: the migration is one transaction, and backups are the server's."""
        yield "that of the database server"

    def refusal(self, error: Exception) -> SimyardError:
        """See `Backend.refusal`."""
        code, why = self._code(error), reason(error)
        if code == "3D000" or (code is None and "does not exist" in why and "database" in why):
            return InvalidInput(
                f"there is no database for the store {self.shown}; make it, such as with "
                f"'createdb {self._url.database}'"
            )
        if code == "42501" or (code or "").startswith("28") or "authentication" in why:
            return PermissionDenied(f"the store {self.shown} lets us not in: {why}")
        return self.explained(error, "opened")

    # -- use ---------------------------------------------------------------------------

    def writer_engine(self) -> Engine:
        """See `Backend.writer_engine`."""
        assert self.lease is not None
        # Who is stopped within a transaction must not keep the manager's row locked.
        idle = max(1000, int(self.lease * 1000))
        return self._engine(
            NullPool,
            f"SET lock_timeout = {LOCK_WAIT_MS}; SET idle_in_transaction_session_timeout = {idle}",
        )

    def reader_engine(self, connections: int) -> Engine:
        """See `Backend.reader_engine`."""
        return self._engine(
            QueuePool,
            "SET default_transaction_read_only = on; "
            "SET default_transaction_isolation = 'repeatable read'; "
            f"SET statement_timeout = '{READ_SECONDS}s'",
            pool_size=connections,
            max_overflow=0,
        )

    def _engine(self, pool: Any, session: str = "", **options: Any) -> Engine:
        engine = create_engine(
            self._url,
            poolclass=pool,
            connect_args={k: v for k, v in CONNECTING.items() if k not in self._url.query},
            **options,
        )
        if session:

            @event.listens_for(engine, "connect")
            def _opened(connection: Any, _: object) -> None:
                with connection.cursor() as cursor:
                    cursor.execute(session)
                connection.commit()

        return engine

    def syncing(self, connection: Connection) -> Syncing:
        """See `Backend.syncing`."""
        return Syncing(connection)

    def watch(self) -> Callable[[], bool]:
        """Answer yes: another database at this address has another epoch."""
        return lambda: True

    def clock(self) -> ColumnElement[float]:
        """Return the server's clock, which goes on within a transaction."""
        return cast(func.extract("epoch", func.clock_timestamp()), Float)

    def trouble(self, error: BaseException) -> Trouble:
        """See `Backend.trouble`."""
        original = getattr(error, "orig", None) or error
        if not isinstance(original, self._error):
            return Trouble.CONTENT
        code = self._code(error)
        if code is None:
            # The driver itself: a connection that broke or was refused, or a value that
            # it cannot send.
            return Trouble.UNAVAILABLE if _is_operational(original) else Trouble.CONTENT
        return _BY_CODE.get(code) or _BY_CLASS.get(code[:2], Trouble.UNAVAILABLE)

    def _code(self, error: BaseException) -> str | None:
        return getattr(getattr(error, "orig", None) or error, "sqlstate", None)

    def unreadable(self, what: str) -> StoreUnreadable:
        """See `Backend.unreadable`."""
        return StoreUnreadable(
            f"the store {self.shown} {what}; nothing was changed. Restore a backup of the "
            "database, or name an empty one to begin anew",
            store=self.shown,
        )

    def replaced(self) -> StoreUnreadable:
        """See `Backend.replaced`."""
        return self.unreadable("was removed or replaced while it was in use")


# Appendix A of the manual. What is not here is a reason to try again, not to give up.
_BY_CODE = {
    "40001": Trouble.BUSY,  # serialization_failure
    "40P01": Trouble.BUSY,  # deadlock_detected
    "55P03": Trouble.BUSY,  # lock_not_available
    "53100": Trouble.FULL,  # disk_full
    "42P01": Trouble.DAMAGED,  # undefined_table
    "42703": Trouble.DAMAGED,  # undefined_column
    "XX001": Trouble.DAMAGED,  # data_corrupted
    "XX002": Trouble.DAMAGED,  # index_corrupted
}
_BY_CLASS = {
    "21": Trouble.CONTENT,  # cardinality violation
    "22": Trouble.CONTENT,  # data exception
    "23": Trouble.CONTENT,  # integrity constraint violation
    "42": Trouble.CONTENT,  # a statement that is wrong
    "54": Trouble.CONTENT,  # program limit exceeded
}


class Syncing:
    """Switch one connection between surviving a crash of the server and not waiting for it."""

    def __init__(self, connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        assert driver is not None
        self._driver: psycopg.Connection[Any] = driver
        row = driver.execute("SHOW synchronous_commit").fetchone()
        driver.rollback()
        # A server may be set to wait for its standbys as well; that is not weakened.
        self._found = str(row[0])
        self._strong = self._found if self._found in STRONG else "on"
        self._now = self._found

    def set(self, full: bool) -> None:
        """Choose for the next transaction; must be called outside of one."""
        wanted = self._strong if full else "off"
        if wanted != self._now:
            self._driver.autocommit = True
            try:
                self._driver.execute(f"SET synchronous_commit = {wanted}".encode())
            finally:
                self._driver.autocommit = False
            self._now = wanted


def _driver() -> Any:
    try:
        import psycopg
    except ImportError as error:
        raise InvalidInput(
            "the store is at a PostgreSQL server, but the driver for it is not installed here; "
            f"install it with \"pip install 'simyard[postgres]'\" ({error})"
        ) from error
    return psycopg


def _is_operational(error: object) -> bool:
    import psycopg

    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # The text may hold a password: it is not repeated.
        raise InvalidInput(
            "the URL of the store cannot be read; write postgresql://USER@HOST:PORT/DATABASE"
        ) from None
    if not parsed.database and "dbname" not in parsed.query and "service" not in parsed.query:
        raise InvalidInput(
            f"the URL of the store, {_shown(parsed)}, names no database; write "
            "postgresql://USER@HOST:PORT/DATABASE"
        )
    return parsed.set(drivername="postgresql+psycopg")


def _shown(url: URL) -> str:
    query = {
        key: value
        for key, value in url.query.items()
        if "password" not in key and key != "passfile"
    }
    return url.set(drivername="postgresql", query=query).render_as_string(hide_password=True)
