"""Control over REST: cancel, hold, release and retry, of one job and of many."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import NotRequired, TypedDict

from ...errors import SimyardError
from ..intake import parse_id
from ..keys import DESK, Desk
from ..model import Job
from ..problems import problem_of
from ..routes import Routes
from ..security import Scope
from ..views import JobView
from .exchange import Nothing, answer, job_id_of, read
from .jobs import JobChoice, view_of

MOST_IN_BULK = 10_000
BULK_AT_ONCE = 64


class BulkRequest(BaseModel):
    """Which jobs to act on: by id, or by what they have in common."""

    model_config = ConfigDict(extra="forbid")

    ids: list[str | int] | None = Field(default=None, max_length=MOST_IN_BULK)
    filter: JobChoice | None = None

    @model_validator(mode="after")
    def _one_way(self) -> BulkRequest:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either 'ids' or 'filter'")
        if self.filter is not None and self.filter.filter().everything:
            raise ValueError("'filter' is empty; name what the jobs have in common")
        return self


class BulkItem(TypedDict):
    """What came of one job."""

    id: str
    ok: bool
    job: NotRequired[JobView]
    error: NotRequired[dict[str, Any]]


class BulkAnswer(TypedDict):
    """What came of each job."""

    items: list[BulkItem]


Verb = Callable[[Desk, int], Awaitable[Job]]
VERBS: dict[str, tuple[str, str, Verb]] = {
    "cancel": ("Cancel", "End it with all its processes", lambda desk, job: desk.cancel(job)),
    "hold": ("Hold", "Keep it from starting", lambda desk, job: desk.hold(job)),
    "release": ("Release", "Let a held one go", lambda desk, job: desk.release(job)),
    "retry": (
        "Retry",
        "Submit a finished one again, as a new job",
        lambda desk, job: desk.retry(job),
    ),
}


def _one(verb: Verb, status: int) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        job_id = job_id_of(request)
        await read(request, Nothing)
        desk = request.app[DESK]
        job = await verb(desk, job_id)
        response = answer(view_of(desk, job), status=status)
        if job.id != job_id:
            response.headers["Location"] = f"/api/jobs/{job.id}"
        return response

    return handle


def _many(verb: Verb) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        wanted = await read(request, BulkRequest)
        desk = request.app[DESK]
        if wanted.filter is not None:
            found = await desk.select_ids(wanted.filter.filter(), MOST_IN_BULK)
            names: list[str] = [str(job_id) for job_id in found]
        else:
            names = list(dict.fromkeys(str(name) for name in wanted.ids or ()))
        items: list[BulkItem] = []
        for start in range(0, len(names), BULK_AT_ONCE):
            part = names[start : start + BULK_AT_ONCE]
            items += await asyncio.gather(*(_tried(desk, verb, name) for name in part))
        return answer({"items": items})

    return handle


async def _tried(desk: Desk, verb: Verb, name: str) -> BulkItem:
    try:
        job = await verb(desk, parse_id(name))
        return {"id": name, "ok": True, "job": view_of(desk, job)}
    except SimyardError as error:
        return {"id": name, "ok": False, "error": problem_of(error)}


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "jobs"
    for name, (word, meaning, verb) in VERBS.items():
        routes.add(
            "POST",
            f"/api/jobs/{name}",
            _many(verb),
            scope=Scope.FULL,
            tag=tag,
            summary=f"{word} many jobs, by id or filter",
            body=BulkRequest,
            answer=BulkAnswer,
        )
        status = 201 if name == "retry" else 200
        routes.add(
            "POST",
            f"/api/jobs/{{id}}/{name}",
            _one(verb, status),
            scope=Scope.FULL,
            tag=tag,
            summary=f"{word} a job: {meaning[:1].lower()}{meaning[1:]}",
            body=Nothing,
            answer=JobView,
            status=status,
            errors=(404, 409),
        )
