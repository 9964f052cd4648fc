"""Everything that only SQLite needs: its file, its pragmas, its locks, its errors.

The rest of the store speaks SQL that PostgreSQL understands as well. This module
knows nothing of jobs. Sources: sqlite.org/wal.html, pragma.html, rescode.html,
fileformat2.html.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote_from_bytes

from sqlalchemy import Connection, Engine, NullPool, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from ...errors import (
    InvalidInput,
    PermissionDenied,
    ServiceUnavailable,
    SimyardError,
    StorageFull,
    StoreUnreadable,
)
from .backend import Backend, Trouble, reason

MAGIC = b"SQLite format 3\x00"
ERRORS = (DBAPIError, sqlite3.Error)
"""What any use of the database may raise; `trouble` tells what it means."""
APPLICATION_ID = 0x53494D59  # "SIMY", at offset 68 of the header
CHECK_SECONDS = 1.0
"""How long the integrity check of a start may take; a big store is checked in part."""
LOCK_WAIT_MS = 200
"""How long one attempt waits for a lock; who calls decides how often to try again."""
READ_WAIT_MS = 10_000
NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "9p"}
    | {"lustre", "gpfs", "beegfs", "ceph", "glusterfs", "pvfs2", "orangefs"}
)


def trouble(error: BaseException) -> Trouble:
    """Say what kind of failure an error of the database is."""
    original = getattr(error, "orig", None) or error
    if not isinstance(original, sqlite3.Error):
        return Trouble.CONTENT
    code: int | None = getattr(original, "sqlite_errorcode", None)  # Python 3.11 and later
    text = str(original)
    if code is None:
        return _trouble_from_text(text)
    primary = code & 0xFF
    # A write beyond RLIMIT_FSIZE or a quota is not FULL but IOERR_WRITE (778) or, where
    # the shared memory file is to grow, IOERR_SHMSIZE (4874).
    if code in (778, 4874):
        return Trouble.FULL
    return _BY_CODE.get(primary, Trouble.CONTENT)


# The sqlite3 module names these from Python 3.11 on only.
_BY_CODE = {
    3: Trouble.UNAVAILABLE,  # PERM
    5: Trouble.BUSY,  # BUSY
    6: Trouble.BUSY,  # LOCKED
    7: Trouble.UNAVAILABLE,  # NOMEM
    8: Trouble.UNAVAILABLE,  # READONLY
    9: Trouble.UNAVAILABLE,  # INTERRUPT
    10: Trouble.UNAVAILABLE,  # IOERR
    11: Trouble.DAMAGED,  # CORRUPT
    13: Trouble.FULL,  # FULL
    14: Trouble.UNAVAILABLE,  # CANTOPEN
    15: Trouble.BUSY,  # PROTOCOL
    26: Trouble.DAMAGED,  # NOTADB
}


def _trouble_from_text(text: str) -> Trouble:
    lowered = text.lower()
    for part, kind in (
        ("locked", Trouble.BUSY),
        ("locking protocol", Trouble.BUSY),
        ("is full", Trouble.FULL),
        ("disk i/o error", Trouble.FULL),
        ("malformed", Trouble.DAMAGED),
        ("not a database", Trouble.DAMAGED),
        ("unable to open", Trouble.UNAVAILABLE),
        ("readonly", Trouble.UNAVAILABLE),
        ("out of memory", Trouble.UNAVAILABLE),
    ):
        if part in lowered:
            return kind
    return Trouble.CONTENT


def path_of(url: str | Path) -> Path:
    """Return the file that a path or a ``sqlite:///`` URL names; raises `InvalidInput`."""
    if isinstance(url, Path):
        return url.absolute()
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).absolute()
    if "://" in url:
        scheme = url.partition(":")[0]
        raise InvalidInput(
            f"a store at {scheme!r} is not supported; give the path of a file, or a URL such as "
            "postgresql://HOST/DATABASE"
        )
    return Path(url).absolute()


def connect(path: Path, *, mode: str = "rw", immutable: bool = False) -> sqlite3.Connection:
    """Open an existing file; it is never made by opening it."""
    name = quote_from_bytes(os.fsencode(path))
    uri = f"file:{name}?mode={mode}" + ("&immutable=1" if immutable else "")
    return sqlite3.connect(
        uri,
        uri=True,
        timeout=LOCK_WAIT_MS / 1000,
        isolation_level=None,  # transactions are begun by us, as IMMEDIATE
        check_same_thread=False,  # opened by the starting thread, used by one other
    )


def journal_mode(path: Path) -> str:
    """Return ``wal``, or ``truncate`` where shared memory does not work: network file systems."""
    return "truncate" if _filesystem(path) in NETWORK_FILESYSTEMS else "wal"


def _filesystem(path: Path) -> str:
    try:
        lines = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return "unknown"
    folder = str(path.resolve().parent) + "/"
    best, kind = "", "unknown"
    for line in lines:
        fields = line.split(" ")
        point = fields[1].replace("\\040", " ").rstrip("/") + "/"
        if folder.startswith(point) and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def writer_engine(path: Path) -> Engine:
    """Make the engine of the one writer: every transaction takes the write lock at once."""
    mode = journal_mode(path)

    def opened() -> sqlite3.Connection:
        connection = connect(path)
        try:
            # Asking for a mode that is in force already needs no lock.
            if connection.execute("PRAGMA journal_mode").fetchone()[0] != mode:
                connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA journal_size_limit=67108864")
            connection.execute(f"PRAGMA busy_timeout={LOCK_WAIT_MS}")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=opened, poolclass=NullPool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns to writing fails at once, whatever the
        # busy timeout says.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def reader_engine(path: Path, connections: int) -> Engine:
    """Make the engine of the readers: they cannot write, and each reads one snapshot."""

    def opened() -> sqlite3.Connection:
        connection = connect(path, mode="ro")
        connection.execute(f"PRAGMA busy_timeout={READ_WAIT_MS}")
        return connection

    engine = create_engine(
        "sqlite://", creator=opened, poolclass=QueuePool, pool_size=connections, max_overflow=0
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


class Syncing:
    """Switch one connection between surviving a power cut and surviving a kill."""

    def __init__(self, connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver
        self._full = True
        # Without WAL less than FULL may damage the file in a power cut.
        self._switchable = driver.execute("PRAGMA journal_mode").fetchone()[0] == "wal"

    def set(self, full: bool) -> None:
        """Choose for the next transaction; must be called outside of one."""
        if full != self._full and self._switchable:
            self._driver.execute(f"PRAGMA synchronous={'FULL' if full else 'NORMAL'}")
            self._full = full


class Place:
    """The file that was opened, to notice when another one lies in its place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._identity()

    def still_there(self) -> bool:
        """True while the path leads to the file that was opened."""
        try:
            return self._identity() == self._seen
        except OSError:
            return False

    def _identity(self) -> tuple[int, int]:
        facts = os.stat(self.path)
        return facts.st_dev, facts.st_ino


def create(path: Path, build: Callable[[Connection], None]) -> None:
    """Make a new file, whole or not at all, readable by its owner only.

    Raises `FileExistsError` where one is there by now.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    for leftover in (temporary, Path(f"{temporary}-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        engine = create_engine("sqlite://", creator=lambda: connect(temporary), poolclass=NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")
            connection.exec_driver_sql("PRAGMA synchronous=FULL")
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            build(connection)
            connection.commit()
        engine.dispose()
        _place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _place(temporary: Path, path: Path) -> None:
    """Give a finished file its name without replacing another."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise  # never replace a store
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(str(path)) from None
        os.rename(temporary, path)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def examine(path: Path, *, seconds: float = CHECK_SECONDS) -> None:
    """Refuse a file that is no sound store; a refused file is left as it was.

    Raises `StoreUnreadable`, or `sqlite3.OperationalError` where it is locked.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(100)
    except PermissionError as error:
        raise StoreUnreadable(
            f"no permission to read the store {path}; run as the user who owns it"
        ) from error
    except OSError as error:
        raise unreadable(path, f"cannot be read ({error.strerror})") from error
    if not header:
        raise unreadable(path, "is empty")
    if len(header) < 100 or not header.startswith(MAGIC):
        raise unreadable(path, "is not a database, or its beginning is damaged")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise unreadable(path, "is a database of another program")
    try:
        with contextlib.closing(look(path)) as connection:
            problem = _first_problem(connection, seconds)
    except sqlite3.DatabaseError as error:
        if trouble(error) is Trouble.DAMAGED:
            raise unreadable(path, f"is damaged ({error})") from error
        raise
    if problem is not None:
        raise unreadable(path, f"is damaged ({problem})")


def look(path: Path) -> sqlite3.Connection:
    """Open in the least intrusive way that sees all of the content."""
    if Path(f"{path}-journal").exists():
        # What an unfinished transaction left must be rolled back before anyone can read.
        return connect(path)
    log = Path(f"{path}-wal")
    unfinished = log.exists() and log.stat().st_size > 0
    return connect(path, mode="ro", immutable=not unfinished)


def _first_problem(connection: sqlite3.Connection, seconds: float) -> str | None:
    deadline = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > deadline), 20_000)
    try:
        row = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" in str(error):
            return None
        raise
    finally:
        connection.set_progress_handler(None, 0)
    answer = str(row[0])
    return None if answer == "ok" else " ".join(answer.split())


def unreadable(path: Path, what: str) -> StoreUnreadable:
    """Return the refusal of a store, with what its owner can do."""
    return StoreUnreadable(
        f"the store {path} {what}; nothing was changed. Restore a backup of it, or move it away "
        "(with the folders 'jobs' and 'launcher' beside it) to begin anew",
        path=str(path),
    )


@contextlib.contextmanager
def backup(path: Path, target: Path) -> Iterator[None]:
    """Copy the store to `target` (0600) first; remove the copy only if making it failed."""
    target.unlink(missing_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            contextlib.closing(connect(path)) as source,
            contextlib.closing(connect(target)) as copy,
        ):
            source.backup(copy)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    yield


class Sqlite(Backend):
    """A file of the home."""

    errors = ERRORS
    crashes_alone = False
    lease = None
    room = "free some space on its disk, or raise the quota or file-size limit, and try again"

    def __init__(self, path: Path) -> None:
        self.path = self.url = path
        self.shown = str(path)

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Hold nothing: files are made and migrated whole or not at all."""
        yield

    def prepare(self, build: Callable[[Connection], None], *, expect_new: bool) -> bool:
        """See `Backend.prepare`."""
        path = self.path
        if path.is_symlink() and not path.exists():
            raise self.unreadable("is a link that leads nowhere")
        if not path.exists():
            if not expect_new:
                raise StoreUnreadable(
                    f"the store {path} is missing, but jobs or records of it lie beside it; "
                    "restore a backup of it, or move the folders 'jobs' and 'launcher' away to "
                    "begin anew",
                    path=str(path),
                )
            try:
                create(path, build)
            except FileExistsError:
                pass  # somebody was faster; it is examined like any other
            else:
                return True
        examine(path)
        return False

    def revision(self) -> str:
        """See `Backend.revision`."""
        with contextlib.closing(look(self.path)) as connection:
            try:
                stamps = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
                stamps = []
        if len(stamps) != 1:
            raise self.unreadable("does not say which release wrote it")
        return str(stamps[0][0])

    @contextlib.contextmanager
    def safety_copy(self, head: str) -> Iterator[str]:
        """Copy the file beside it."""
        copy = self.path.with_name(f"{self.path.name}.before-{head}")
        with backup(self.path, copy):
            yield str(copy)

    def refusal(self, error: Exception) -> SimyardError:
        """See `Backend.refusal`."""
        why = reason(error)
        if isinstance(error, PermissionError) or "readonly" in why:
            return PermissionDenied(
                f"no permission to write the store {self.path}; mend its permissions"
            )
        if isinstance(error, OSError):
            if error.errno in (27, 28, 122):
                return StorageFull(f"no room to write the store {self.path} ({why}); {self.room}")
            return ServiceUnavailable(f"the store {self.path} cannot be opened: {why}")
        if trouble(error) is Trouble.CONTENT:
            return self.unreadable(f"does not hold what is expected ({why})")
        return self.explained(error, "opened")

    def writer_engine(self) -> Engine:
        """See `Backend.writer_engine`."""
        return writer_engine(self.path)

    def reader_engine(self, connections: int) -> Engine:
        """See `Backend.reader_engine`."""
        return reader_engine(self.path, connections)

    def syncing(self, connection: Connection) -> Syncing:
        """See `Backend.syncing`."""
        return Syncing(connection)

    def watch(self) -> Callable[[], bool]:
        """See `Backend.watch`."""
        return Place(self.path).still_there

    def clock(self) -> None:
        """Return none: the lock file of the home, and the epoch, decide."""

    def trouble(self, error: BaseException) -> Trouble:
        """See `Backend.trouble`."""
        return trouble(error)

    def unreadable(self, what: str) -> StoreUnreadable:
        """See `Backend.unreadable`."""
        return unreadable(self.path, what)

    def replaced(self) -> StoreUnreadable:
        """See `Backend.replaced`."""
        return StoreUnreadable(
            f"the store {self.path} was removed or replaced while it was in use; put it back, "
            "then start the service again",
            path=str(self.path),
        )
