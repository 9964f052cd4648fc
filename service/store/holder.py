"""Who may write: the one row that names the manager, its epoch and its lease.

Each opening raises the epoch; every transaction of a manager has its own epoch in the
condition of its first statement, so one that was replaced, however long it slept,
writes nothing. Where the database is shared between hosts the same statement renews a
lease by the database's clock, and locks the row until the commit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from ...errors import HomeInUse
from ..states import ACTIVE
from . import rows, schema
from .backend import Backend

POSITIONS = "cursor."
"""Entries of `meta` that begin so are positions in what an adapter keeps in the home."""

_row = schema.manager
_ours = _row.c.id == 1


def check_free(connection: Connection, backend: Backend, owner: Mapping[str, object]) -> None:
    """Raise `HomeInUse` where another manager's lease has not ended.

    The lease of who had the lock file that `owner` has now is over: it is dead.
    """
    clock = backend.clock()
    if clock is None:
        return
    found = connection.execute(
        select(_row.c.owner, (_row.c.expires_at - clock).label("left")).where(_ours)
    ).one_or_none()
    if found is None or found.left is None or found.left <= 0:
        return
    before = _read(found.owner)
    if before.get("lock") and before.get("lock") == owner.get("lock"):
        return
    raise HomeInUse(
        f"the store {backend.shown} is in use by another Simyard service ({who(before)}"
        + (f", home {before['home']}" if before.get("home") else "")
        + f"); use that one, or stop it there. Should it be dead, its lease ends in "
        f"{found.left:.0f} s: try again then",
        owner=before,
    )


def take(connection: Connection, backend: Backend, owner: Mapping[str, object]) -> int | None:
    """Make `owner` the manager; return its epoch, None where there is no row to take.

    Raises `HomeInUse` as `check_free` does.
    """
    connection.execute(select(_row.c.id).where(_ours).with_for_update())
    check_free(connection, backend, owner)
    if backend.lease is not None:
        _come_from_elsewhere(connection, backend, owner)
    values: dict[str, Any] = {
        "epoch": _row.c.epoch + 1,
        "owner": rows.dump(dict(owner)),
        "written": 0,
        "expires_at": _until(backend),
    }
    if connection.execute(update(_row).where(_ours).values(values)).rowcount != 1:
        return None
    return int(connection.execute(select(_row.c.epoch).where(_ours)).scalar_one())


def _come_from_elsewhere(
    connection: Connection, backend: Backend, owner: Mapping[str, object]
) -> None:
    """Take over from the manager of another home, as far as that can be done.

    What it started it alone can follow: its launcher and its records are in its home.
    """
    before = holder(connection)
    if not before.get("home_id") or before["home_id"] == owner.get("home_id"):
        return
    jobs = schema.jobs.c
    outside = [state.value for state in ACTIVE if not state.waiting]
    count = connection.execute(select(func.count()).where(jobs.state.in_(outside))).scalar_one()
    if count:
        raise HomeInUse(
            f"{count} jobs in the store {backend.shown} were started from the home "
            f"{before.get('home', '?')} on {before.get('host', '?')} and are not over; start the "
            "service there until they are. Only a service on that home can follow them",
            owner=before,
        )
    # Positions in records that lie in that home say nothing about ours.
    meta = schema.meta.c.key
    connection.execute(delete(schema.meta).where(meta.startswith(POSITIONS, autoescape=True)))


class Fence:
    """The first statement of every transaction of one manager."""

    def __init__(self, backend: Backend, epoch: int) -> None:
        self._epoch = epoch
        self._leased = backend.lease is not None
        condition = _ours & (_row.c.epoch == epoch)
        self._renew = update(_row).where(condition).values(expires_at=_until(backend))
        self._look = select(_row.c.epoch).where(condition)
        self._give_back = update(_row).where(condition).values(expires_at=None)

    def passes(self, connection: Connection, serial: int) -> bool:
        """True while we are the manager; notes that transaction `serial` is on its way."""
        if not self._leased:
            return connection.execute(self._look).one_or_none() is not None
        return connection.execute(self._renew.values(written=serial)).rowcount == 1

    def has_written(self, connection: Connection, serial: int) -> bool | None:
        """Tell whether transaction `serial` was committed; None where we are not the manager."""
        found = connection.execute(select(_row.c.epoch, _row.c.written).where(_ours)).one_or_none()
        if found is None or found.epoch != self._epoch:
            return None
        return bool(found.written >= serial)

    def give_back(self, connection: Connection) -> None:
        """End the lease, so that the next manager need not wait for it."""
        if self._leased:
            connection.execute(self._give_back)


def holder(connection: Connection) -> dict[str, Any]:
    """Return who is the manager now."""
    return _read(connection.execute(select(_row.c.owner).where(_ours)).scalar_one_or_none() or "{}")


def who(owner: Mapping[str, object]) -> str:
    """Name a manager in words."""
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'this host')}"


def _until(backend: Backend) -> Any:
    clock = backend.clock()
    return None if clock is None or backend.lease is None else clock + backend.lease


def _read(text: str) -> dict[str, Any]:
    owner = json.loads(text)
    return owner if isinstance(owner, dict) else {}
