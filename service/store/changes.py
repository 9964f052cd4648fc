"""How a batch becomes statements: one for each kind of change, whatever it holds.

Knows tables. Begins and ends no transaction, and knows no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    Connection,
    Dialect,
    Insert,
    Update,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.sql.compiler import SQLCompiler

from ...errors import StaleWrite
from ..model import Job
from ..states import TERMINAL
from . import rows, schema
from .batch import Batch

LOOKUP = 500
"""Values in one IN list, far below every database's limit."""
DELETED = "highest_deleted_job"
"""Key in `meta`: ids of deleted jobs are not given out again."""


class Prepared:
    """A statement that is turned into text once and run for many rows.

    Given rows one dictionary each, SQLAlchemy spends twice as long on the parameters
    as SQLite on the rows.
    """

    def __init__(self, statement: Insert | Update) -> None:
        self._statement = statement
        self._dialect: Dialect | None = None
        self._text = ""
        self._pick: Callable[[Mapping[str, Any]], Any] | None = None

    def run(self, connection: Connection, values: Sequence[Mapping[str, Any]]) -> int:
        """Run once for each of `values`, which name all parameters; return the rows changed."""
        if self._dialect is not connection.dialect:
            self._compile(connection.dialect)
        pick = self._pick
        parameters = list(values) if pick is None else [pick(row) for row in values]
        return connection.exec_driver_sql(self._text, parameters).rowcount

    def _compile(self, dialect: Dialect) -> None:
        compiled = self._statement.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        self._dialect, self._text = dialect, compiled.string
        order = compiled.positiontup
        self._pick = itemgetter(*order) if order is not None else None


_insert_job = Prepared(insert(schema.jobs))
_insert_event = Prepared(insert(schema.events))
_insert_key = insert(schema.idempotency)
_insert_environment = insert(schema.environments)
_insert_meta = insert(schema.meta)
_KEPT = {"id", "created_at", "retry_of"}
_SPEC = {"spec_json", "tags"}
"""Live jobs are held in memory without their spec: an update that brings none keeps it."""


def _job_update(kept: set[str]) -> Prepared:
    jobs = schema.jobs.c
    return Prepared(
        update(schema.jobs)
        .where(jobs.id == bindparam("_id"), jobs.version == bindparam("_expected"))
        .values({column.name: bindparam(column.name) for column in jobs if column.name not in kept})
    )


_update_job = _job_update(_KEPT | _SPEC)
_update_job_and_spec = _job_update(_KEPT)
_update_meta = (
    update(schema.meta)
    .where(schema.meta.c.key == bindparam("_key"))
    .values(value=bindparam("value"))
)


def apply(connection: Connection, changes: Batch) -> None:
    """Write `changes` in the transaction of `connection`.

    Raises `StaleWrite` where a job is not as it was written last; then the
    transaction must be given up.
    """
    inserts, updates = _condensed(changes)
    if changes.environments:
        _insert_unknown_environments(connection, changes)
    if inserts:
        _insert_job.run(connection, [rows.job_values(job) for job in inserts])
    if updates:
        _update_jobs(connection, updates)
    if changes.events:
        _insert_event.run(connection, [rows.event_values(event) for event in changes.events])
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
        connection.execute(delete(schema.idempotency).where(created < changes.forget_keys_before))
    if changes.forget_environments:
        # One pass over the jobs, which have no index for this.
        environment = schema.jobs.c.environment
        used = select(environment).where(environment.is_not(None))
        connection.execute(
            delete(schema.environments).where(schema.environments.c.hash.not_in(used))
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
            inserted[job.id] = job.with_spec_of(inserted[job.id])
        elif job.id in updated:
            expected, before = updated[job.id]
            _check_follows(before.version, job)
            updated[job.id] = (expected, job.with_spec_of(before))
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
    changed = 0
    for statement, kept, some in (
        (_update_job, _KEPT | _SPEC, [item for item in updates if not item[1].spec_json]),
        (_update_job_and_spec, _KEPT, [item for item in updates if item[1].spec_json]),
    ):
        if some:
            changed += statement.run(connection, [_update_values(*item, kept) for item in some])
    if changed != len(updates):
        raise StaleWrite(
            f"{len(updates) - changed} of {len(updates)} changed jobs are not in the store as they "
            "were written last (" + ", ".join(str(job.id) for _, job in updates[:10]) + "): "
            "something else has changed the store; nothing more is written"
        )


def _update_values(expected: int, job: Job, kept: set[str]) -> dict[str, object]:
    row = {name: value for name, value in rows.job_values(job).items() if name not in kept}
    return {**row, "_id": job.id, "_expected": expected}


def _delete_jobs(connection: Connection, ids: Sequence[int]) -> None:
    columns = schema.jobs.c
    over = [state.value for state in TERMINAL]
    gone: list[int] = []
    for start in range(0, len(ids), LOOKUP):
        chosen = columns.id.in_(ids[start : start + LOOKUP]) & columns.state.in_(over)
        gone += connection.execute(select(columns.id).where(chosen)).scalars()
        connection.execute(delete(schema.jobs).where(chosen))
    if gone:
        kept = connection.execute(
            select(schema.meta.c.value).where(schema.meta.c.key == DELETED)
        ).scalar_one_or_none()
        set_meta(connection, DELETED, str(max(int(kept or 0), *gone)))


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
