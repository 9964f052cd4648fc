"""Jobs over REST: submit, list, show, control, change, delete; one by one and in bulk."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from ...errors import InvalidInput
from .. import job_file
from ..inquiry import ExplanationView
from ..keys import DESK, WAITERS, Desk
from ..manager import JobChanges
from ..model import Job, JobSpec
from ..problems import wrong_fields
from ..routes import Routes
from ..security import Scope
from ..states import JobState, parse_state
from ..store.filters import JobFilter
from ..views import EventView, JobView, event_view, job_view
from .exchange import (
    answer,
    body_of,
    check_width,
    idempotency_key_of,
    job_id_of,
    parse_object,
    query_of,
    read,
    validated,
)

MOST_IN_A_BATCH = 10_000
MOST_IN_BULK = 10_000
BULK_AT_ONCE = 64
AT_ONCE = 50
"""Specs validated, or jobs shown, before the loop may see to others."""
MOST_EVENTS = 1000
LONGEST_WAIT = 60.0


def _states(value: object) -> object:
    """Accept a comma-separated text or a list, with the words of other systems."""
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)):
        return value
    try:
        return tuple(parse_state(word) for word in map(str, words) if word.strip())
    except InvalidInput as error:
        raise ValueError(error.message) from error


States = Annotated[
    tuple[JobState, ...],
    BeforeValidator(_states, json_schema_input_type=str | list[str]),
    Field(description="One or more states with commas; the words of other systems work too."),
]


class JobChoice(BaseModel):
    """Which jobs; everything that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    state: States = ()
    name: str | None = Field(
        default=None, max_length=1000, description="Part of the name, or a pattern with * and ?."
    )
    project: str | None = Field(default=None, max_length=200)
    group: str | None = Field(default=None, max_length=200)
    tag: str | None = Field(default=None, max_length=400, description="'key' or 'key=value'.")
    q: str | None = Field(
        default=None,
        max_length=1000,
        description="Words to find; 'state:failed name:sweep* tag:a=b id:17' narrow.",
    )
    active: bool = Field(default=False, description="Only jobs that are not over.")

    def filter(self) -> JobFilter:
        """Return it as the store reads it."""
        return JobFilter(
            states=frozenset(self.state),
            name=self.name,
            project=self.project,
            group=self.group,
            tag=self.tag,
            q=self.q,
            active=self.active,
        )


class JobsQuery(JobChoice):
    """Which jobs, and which page of them."""

    limit: int = Field(default=100, ge=1, le=1000, description="Jobs of one page.")
    cursor: str | None = Field(
        default=None, max_length=200, description="'next_cursor' of the page before."
    )
    count: bool = Field(default=False, description="Count all that match, into 'total'.")


class WaitQuery(BaseModel):
    """Whether to wait for a change."""

    model_config = ConfigDict(extra="forbid")

    wait: float = Field(
        default=0.0, ge=0, le=LONGEST_WAIT, allow_inf_nan=False, description="Seconds to wait."
    )
    version: int | None = Field(
        default=None, ge=0, description="The version that is known; a newer one is news at once."
    )


class BatchRequest(BaseModel):
    """Jobs that are accepted all or not at all."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[JobSpec] = Field(min_length=1, max_length=MOST_IN_A_BATCH)


class JobList(TypedDict):
    """One page of jobs, newest first."""

    items: list[JobView]
    next_cursor: str | None
    total: int | None


class BatchAnswer(TypedDict):
    """The accepted jobs, in the order of the request."""

    items: list[JobView]


class EventList(TypedDict):
    """Events, oldest first."""

    items: list[EventView]


def view_of(desk: Desk, job: Job, *, position: bool = False) -> JobView:
    """Show a job, with what only the manager knows of it."""
    return job_view(
        job,
        folder=os.fspath(desk.job_folder(job.id).path),
        pending_reason=None if job.state.terminal else desk.pending_reason(job),
        queue_position=desk.queue_position(job) if position and job.state.waiting else None,
    )


async def views_of(desk: Desk, jobs: Sequence[Job]) -> list[JobView]:
    """Show many jobs, letting the loop see to others in between."""
    views = []
    for number, job in enumerate(jobs, start=1):
        views.append(view_of(desk, job))
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)
    return views


async def submit(request: web.Request) -> web.Response:
    """Submit one job."""
    body = await body_of(request)
    # A job file travels as it is, beside what was given with it (`job_file`).
    spec = _spec_of_file(body) if b'"yaml"' in body else validated(JobSpec, body)
    (job,) = await _submitted(request, [spec], "job")
    response = answer(view_of(request.app[DESK], job), status=201)
    response.headers["Location"] = f"/api/jobs/{job.id}"
    return response


def _spec_of_file(body: bytes) -> JobSpec:
    document = parse_object(body)
    if "yaml" not in document:
        return validated(JobSpec, body)
    try:
        return job_file.spec_of(document)
    except ValidationError as error:
        raise wrong_fields(error, JobSpec) from error


async def submit_batch(request: web.Request) -> web.Response:
    """Submit many jobs in one transaction."""
    document = parse_object(await body_of(request))
    listed = document.pop("jobs", None)
    if document:
        name = str(next(iter(document)))[:100]
        raise InvalidInput(f"unknown field '{name}'; a batch is {{\"jobs\": [spec, …]}}")
    if not isinstance(listed, list) or not listed:
        raise InvalidInput("'jobs' must be a list of at least one job")
    if len(listed) > MOST_IN_A_BATCH:
        raise InvalidInput(f"a batch has at most {MOST_IN_A_BATCH} jobs, not {len(listed)}")
    specs = []
    for number, item in enumerate(listed):
        specs.append(_spec(item, f"jobs.{number}"))
        if number % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
    jobs = await _submitted(request, specs, "batch")
    desk = request.app[DESK]
    return answer({"items": await views_of(desk, jobs)}, status=201)


def _spec(item: object, where: str) -> JobSpec:
    if not isinstance(item, dict):
        raise InvalidInput(f"{where} is not an object")
    check_width(item, where)
    try:
        return JobSpec.model_validate(item)
    except ValidationError as error:
        raise wrong_fields(error, JobSpec, prefix=f"{where}.") from error


async def _submitted(request: web.Request, specs: Sequence[JobSpec], kind: str) -> list[Job]:
    key = idempotency_key_of(request)
    digest = "" if key is None else _digest(kind, specs)
    return await request.app[DESK].submit(specs, idempotency_key=key, digest=digest)


def _digest(kind: str, specs: Sequence[JobSpec]) -> str:
    """Name the content of a submission, however its JSON was written."""
    content = hashlib.sha256(kind.encode())
    for spec in specs:
        content.update(b"\0" + spec.model_dump_json(exclude_defaults=True).encode())
    return content.hexdigest()


async def list_jobs(request: web.Request) -> web.Response:
    """List jobs, newest first."""
    query = query_of(request, JobsQuery)
    desk = request.app[DESK]
    wanted = query.filter()
    count = query.count or (wanted.everything and query.cursor is None)
    page = await desk.list_jobs(wanted, limit=query.limit, cursor=query.cursor, count=count)
    return answer(
        {
            "items": await views_of(desk, page.jobs),
            "next_cursor": page.next_cursor,
            "total": page.total,
        }
    )


async def show(request: web.Request) -> web.Response:
    """Show one job, at once or when it changes."""
    job_id = job_id_of(request)
    query = query_of(request, WaitQuery)
    desk = request.app[DESK]
    job = await desk.get(job_id)
    news = query.version is not None and query.version != job.version
    if query.wait and not news and not job.state.terminal:
        change = desk.wait_for_change(job_id, version=job.version, timeout=query.wait)
        job = await request.app[WAITERS].wait(change, job)
    return answer(view_of(desk, job, position=True))


async def explain(request: web.Request) -> web.Response:
    """Say why a job is where it is, and what would change that."""
    return answer(await request.app[DESK].explain(job_id_of(request)))


async def change(request: web.Request) -> web.Response:
    """Change a job that has not started."""
    job_id = job_id_of(request)
    changes = await read(request, JobChanges)
    if not changes.model_fields_set:
        raise InvalidInput(f"nothing to change; these can be: {', '.join(JobChanges.model_fields)}")
    desk = request.app[DESK]
    return answer(view_of(desk, await desk.change(job_id, changes)))


async def delete(request: web.Request) -> web.Response:
    """Forget a job that is over, with all its files."""
    await request.app[DESK].delete(job_id_of(request))
    return web.Response(status=204)


async def events(request: web.Request) -> web.Response:
    """Show what happened to one job."""
    job_id = job_id_of(request)
    desk = request.app[DESK]
    await desk.get(job_id)
    listed = await desk.job_events(job_id, MOST_EVENTS)
    return answer({"items": [event_view(event) for event in listed]})


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "jobs"
    keys = {
        "Idempotency-Key": "Names this submission: repeated with the same content, it "
        "answers with the jobs of the first time."
    }
    routes.add(
        "POST",
        "/api/jobs",
        submit,
        scope=Scope.FULL,
        tag=tag,
        summary="Submit a job",
        body=JobSpec | job_file.JobFileRequest,
        answer=JobView,
        status=201,
        errors=(409, 422),
        headers=keys,
    )
    routes.add(
        "GET",
        "/api/jobs",
        list_jobs,
        scope=Scope.READ,
        tag=tag,
        summary="List jobs, newest first",
        query=JobsQuery,
        answer=JobList,
    )
    routes.add(
        "POST",
        "/api/jobs/batch",
        submit_batch,
        scope=Scope.FULL,
        tag=tag,
        summary="Submit many jobs, all or none",
        body=BatchRequest,
        answer=BatchAnswer,
        status=201,
        errors=(409, 422),
        headers=keys,
    )
    routes.add(
        "GET",
        "/api/jobs/{id}",
        show,
        scope=Scope.READ,
        tag=tag,
        summary="Show a job, at once or when it changes",
        query=WaitQuery,
        answer=JobView,
        errors=(404,),
    )
    routes.add(
        "PATCH",
        "/api/jobs/{id}",
        change,
        scope=Scope.FULL,
        tag=tag,
        summary="Change a job that has not started",
        body=JobChanges,
        answer=JobView,
        errors=(404, 409, 422),
    )
    routes.add(
        "DELETE",
        "/api/jobs/{id}",
        delete,
        scope=Scope.FULL,
        tag=tag,
        summary="Forget a job that is over, with its files",
        status=204,
        errors=(404, 409),
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/explanation",
        explain,
        scope=Scope.READ,
        tag=tag,
        summary="Why a job waits, and what would free it",
        answer=ExplanationView,
        errors=(404,),
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/events",
        events,
        scope=Scope.READ,
        tag=tag,
        summary="What happened to a job",
        answer=EventList,
        errors=(404,),
    )
