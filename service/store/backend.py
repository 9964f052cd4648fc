"""What the store asks of a database, whichever it is.

`sqlite` and `postgres` fill it in and are the only places that know one of them. A
backend opens, locks, syncs, and says what an error means; it knows nothing of jobs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from pathlib import Path
from typing import Protocol

from sqlalchemy import ColumnElement, Connection, Engine

from ...errors import ServiceUnavailable, SimyardError, StorageFull, StoreUnreadable


class Trouble(Enum):
    """What a database error comes down to."""

    BUSY = "another program holds the lock"
    FULL = "there is no room, or a limit on file sizes was met"
    DAMAGED = "it is not, or no longer, a sound store"
    UNAVAILABLE = "it cannot be read or written now"
    CONTENT = "what was to be written does not fit what is there"


class Syncing(Protocol):
    """Switches one connection between surviving a power cut and surviving a kill."""

    def set(self, full: bool) -> None:
        """Choose for the next transaction; must be called outside of one."""


class Backend(ABC):
    """One place where a store is, or shall be."""

    url: Path | str
    """By what it is opened again; may hold a password."""
    shown: str
    """How messages name it; never with a password."""
    errors: tuple[type[Exception], ...]
    """What any use of the database may raise; `trouble` tells what it means."""
    crashes_alone: bool
    """The database may lose what was not synced while we and the jobs live on."""
    lease: float | None
    """Seconds for which its manager holds it without a word; None where a lock file decides."""
    room: str
    """What to do where it has no room."""

    # -- opening -----------------------------------------------------------------------

    @abstractmethod
    def opening(self) -> AbstractContextManager[None]:
        """Keep others that open the same place apart until we have it."""

    @abstractmethod
    def prepare(self, build: Callable[[Connection], None], *, expect_new: bool) -> bool:
        """Leave a sound store there, of whatever release; True where `build` made it now.

        Raises `StoreUnreadable` where something else is there, or where nothing is
        and nothing new is expected.
        """

    @abstractmethod
    def revision(self) -> str:
        """Return the revision that the store is at; raises `StoreUnreadable` where it has none."""

    @abstractmethod
    def safety_copy(self, head: str) -> AbstractContextManager[str]:
        """Make a copy before a migration to `head`; yield in words where it is."""

    @abstractmethod
    def refusal(self, error: Exception) -> SimyardError:
        """Say why the store could not be opened."""

    # -- use ---------------------------------------------------------------------------

    @abstractmethod
    def writer_engine(self) -> Engine:
        """Make the engine of the one writer."""

    @abstractmethod
    def reader_engine(self, connections: int) -> Engine:
        """Make the engine of the readers: they cannot write, and each reads one snapshot."""

    @abstractmethod
    def syncing(self, connection: Connection) -> Syncing:
        """Return the switch of a connection of the writer's engine."""

    @abstractmethod
    def watch(self) -> Callable[[], bool]:
        """Remember what is there now; the answer tells whether it still is."""

    @abstractmethod
    def clock(self) -> ColumnElement[float] | None:
        """Return the database's own clock, by which leases end; None where there are none."""

    @abstractmethod
    def trouble(self, error: BaseException) -> Trouble:
        """Say what kind of failure an error of the database is."""

    @abstractmethod
    def unreadable(self, what: str) -> StoreUnreadable:
        """Return the refusal of a store, with what its owner can do."""

    @abstractmethod
    def replaced(self) -> StoreUnreadable:
        """Say that the store is not there any more."""

    def explained(self, error: BaseException, doing: str) -> SimyardError:
        """Say why the store could not be ``read`` or ``written``."""
        kind, why = self.trouble(error), reason(error)
        if kind is Trouble.FULL:
            return StorageFull(f"no room to write the store {self.shown} ({why}); {self.room}")
        if kind is Trouble.DAMAGED:
            return self.unreadable(f"is damaged ({why})")
        if kind is Trouble.BUSY:
            return self.locked()
        return ServiceUnavailable(f"the store {self.shown} cannot be {doing} now: {why}")

    def locked(self) -> ServiceUnavailable:
        """Say that another program's lock was waited for in vain."""
        return ServiceUnavailable(
            f"the store {self.shown} is locked by another program; end that program, or try again"
        )


def reason(error: BaseException) -> str:
    """Return the first line of what the database said."""
    original = getattr(error, "orig", None) or error
    return str(original).partition("\n")[0] or type(original).__name__
