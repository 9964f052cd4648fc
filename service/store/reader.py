"""What is read from the store while it works: lists, single jobs, events.

Threads of its own with read-only connections; each call sees one snapshot, and
never waits for the writer. Knows tables; nothing of what jobs do.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, and_, func, or_, select

from ...errors import InvalidInput, ServiceUnavailable
from ..model import Event, Job
from ..states import ACTIVE, TERMINAL, JobState
from . import rows, schema
from .backend import Backend
from .batch import IdempotencyRecord
from .filters import JobFilter, Page, Search

THREADS = 2
LOOKUP = 500
T = TypeVar("T")
_CURSOR = re.compile(r"before:(\d{1,18})\Z")


class Reader:
    """Answers questions in threads of its own."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._engine: Engine = backend.reader_engine(THREADS + 1)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="simyard-store-reader")

    async def ask(self, question: Callable[[Connection], T]) -> T:
        """Run `question` in one read transaction, off the event loop."""
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self.ask_here, question)
        except RuntimeError as error:
            if "shutdown" not in str(error):
                raise
            raise ServiceUnavailable("the store is closed") from error

    def ask_here(self, question: Callable[[Connection], T]) -> T:
        """Run `question` in one read transaction, in the calling thread."""
        try:
            return self._answer(question)
        except self._backend.errors as error:
            if not getattr(error, "connection_invalidated", False):
                raise self._backend.explained(error, "read") from error
        # A connection of the pool had died since it was used last; the others are given
        # up with it, and a fresh one tells whether the database is there.
        try:
            return self._answer(question)
        except self._backend.errors as error:
            raise self._backend.explained(error, "read") from error

    def _answer(self, question: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return question(connection)

    def close(self) -> None:
        """End the threads and close the connections. Blocking."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()


def get_many(connection: Connection, ids: Iterable[int]) -> list[Job]:
    """Return those jobs that exist, by ascending id."""
    wanted = sorted(set(ids))
    found: list[Job] = []
    for start in range(0, len(wanted), LOOKUP):
        part = wanted[start : start + LOOKUP]
        statement = select(schema.jobs).where(schema.jobs.c.id.in_(part))
        found += [rows.job_of(row) for row in connection.execute(statement)]
    return sorted(found, key=lambda job: job.id)


def active(connection: Connection) -> list[Job]:
    """Return all jobs that are not over, by ascending id."""
    states = [state.value for state in ACTIVE]
    statement = (
        select(schema.jobs).where(schema.jobs.c.state.in_(states)).order_by(schema.jobs.c.id)
    )
    return [rows.job_of(row) for row in connection.execute(statement)]


def counts(connection: Connection) -> dict[JobState, int]:
    """Return how many jobs there are in each state, all states included."""
    state = schema.jobs.c.state
    found = connection.execute(select(state, func.count()).group_by(state))
    numbers = {str(row[0]): int(row[1]) for row in found}
    return {each: numbers.get(each.value, 0) for each in JobState}


def page(
    connection: Connection, search: Search, limit: int, cursor: str | None, count: bool
) -> Page:
    """Return one page of a list, newest first."""
    where = _conditions(search)
    statement = select(schema.jobs).where(*where).order_by(schema.jobs.c.id.desc())
    if cursor is not None:
        statement = statement.where(schema.jobs.c.id < _position(cursor))
    found = [rows.job_of(row) for row in connection.execute(statement.limit(limit + 1))]
    total = None
    if count:
        total = connection.execute(
            select(func.count()).select_from(schema.jobs).where(*where)
        ).scalar_one()
    jobs = found[:limit]
    return Page(
        jobs=jobs, next_cursor=_cursor(jobs[-1].id) if len(found) > limit else None, total=total
    )


def select_ids(connection: Connection, search: Search, limit: int) -> list[int]:
    """Return ids by ascending id."""
    statement = select(schema.jobs.c.id).where(*_conditions(search)).order_by(schema.jobs.c.id)
    return list(connection.execute(statement.limit(limit)).scalars())


def finished(connection: Connection, search: Search) -> list[tuple[int, float, str | None]]:
    """Return id, end and tag of all jobs that match and are over, newest end first."""
    columns = schema.jobs.c
    over = columns.state.in_([state.value for state in TERMINAL])
    ended = func.coalesce(columns.finished_at, columns.created_at)
    statement = (
        select(columns.id, ended, columns.tag)
        .where(over, *_conditions(search))
        .order_by(ended.desc(), columns.id.desc())
    )
    return [(row[0], row[1], row[2]) for row in connection.execute(statement)]


def known(connection: Connection, ids: Iterable[int]) -> set[int]:
    """Return which of `ids` are ids of jobs."""
    wanted = list(ids)
    found: set[int] = set()
    for start in range(0, len(wanted), LOOKUP):
        part = schema.jobs.c.id.in_(wanted[start : start + LOOKUP])
        found.update(connection.execute(select(schema.jobs.c.id).where(part)).scalars())
    return found


def environment(connection: Connection, key: str) -> dict[str, str] | None:
    """Return a captured environment."""
    statement = select(schema.environments.c.data).where(schema.environments.c.hash == key)
    data = connection.execute(statement).scalar_one_or_none()
    return None if data is None else json.loads(data)


def idempotent(connection: Connection, key: str) -> IdempotencyRecord | None:
    """Return what a client's key stood for."""
    statement = select(schema.idempotency).where(schema.idempotency.c.key == key)
    row = connection.execute(statement).one_or_none()
    return None if row is None else rows.key_of(row)


def events(connection: Connection, since: int, limit: int, job_id: int | None) -> list[Event]:
    """Return events after number `since`, oldest first."""
    columns = schema.events.c
    statement = select(schema.events).where(columns.seq > since)
    if job_id is not None:
        statement = statement.where(columns.job_id == job_id)
    found = connection.execute(statement.order_by(columns.seq).limit(limit))
    return [rows.event_of(row) for row in found]


def extreme(connection: Connection, value: ColumnElement[Any]) -> int:
    """Return a largest or smallest number, 0 where there is none."""
    return int(connection.execute(select(value)).scalar_one() or 0)


def meta(connection: Connection, key: str) -> str | None:
    """Return one entry of `meta`."""
    statement = select(schema.meta.c.value).where(schema.meta.c.key == key)
    value = connection.execute(statement).scalar_one_or_none()
    return None if value is None else str(value)


def _cursor(job_id: int) -> str:
    return base64.urlsafe_b64encode(f"before:{job_id}".encode()).decode().rstrip("=")


def _position(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (ValueError, binascii.Error):
        text = ""
    found = _CURSOR.match(text)
    if found is None:
        raise InvalidInput(
            "this cursor is not one of ours; use 'next_cursor' of the page before, unchanged"
        )
    return int(found[1])


def _conditions(search: Search) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    for wanted in search.filters:
        found += _filter_conditions(wanted)
    columns = schema.jobs.c
    for word in search.words:
        places = [
            column.icontains(word, autoescape=True)
            for column in (columns.name, columns.project, columns.group, columns.tags)
        ]
        if word.isascii() and word.isdigit() and len(word) < 19:
            places.append(columns.id == int(word))
        found.append(or_(*places))
    return found


def _filter_conditions(wanted: JobFilter) -> list[ColumnElement[bool]]:
    columns = schema.jobs.c
    found: list[ColumnElement[bool]] = []
    if wanted.states:
        found.append(columns.state.in_(sorted(state.value for state in wanted.states)))
    if wanted.active:
        found.append(columns.state.in_(sorted(state.value for state in ACTIVE)))
    if wanted.name is not None:
        found.append(_name_condition(wanted.name))
    if wanted.project is not None:
        found.append(and_(columns.project == wanted.project))
    if wanted.group is not None:
        found.append(and_(columns.group == wanted.group))
    if wanted.tag is not None:
        end = "\n" if "=" in wanted.tag else "="
        found.append(columns.tags.contains(f"\n{wanted.tag}{end}", autoescape=True))
    if wanted.ids is not None:
        found.append(columns.id.in_(sorted(set(wanted.ids))))
    return found


def _name_condition(name: str) -> ColumnElement[bool]:
    column = schema.jobs.c.name
    if "*" not in name and "?" not in name:
        return column.icontains(name, autoescape=True)
    pattern = re.sub(r"([\\%_])", r"\\\1", name).replace("*", "%").replace("?", "_")
    return func.lower(column).like(func.lower(pattern), escape="\\")
