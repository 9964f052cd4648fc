"""What a job printed, over REST: ranges, tails, and waiting for more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from ...errors import NotFound
from ..keys import DESK, GROWTH, WAITERS, Desk
from ..logs import MOST, LogChunk, decode, read_log
from ..routes import Routes
from ..security import Scope
from .exchange import answer, job_id_of, query_of

STREAMS = ("stdout", "stderr")
LONGEST_WAIT = 60.0


class LogQuery(BaseModel):
    """Which piece of a log."""

    model_config = ConfigDict(extra="forbid")

    offset: int | None = Field(default=None, ge=0, le=1 << 62, description="First byte.")
    limit: int = Field(default=MOST, ge=0, le=MOST, description="Bytes at most.")
    tail: int | None = Field(
        default=None, ge=0, le=1_000_000, description="The last lines, instead of an offset."
    )
    wait: float = Field(
        default=0.0,
        ge=0,
        le=LONGEST_WAIT,
        allow_inf_nan=False,
        description="Seconds to wait where there is nothing more yet.",
    )

    @model_validator(mode="after")
    def _one_beginning(self) -> LogQuery:
        if self.offset is not None and self.tail is not None:
            raise ValueError("give either 'offset' or 'tail', not both")
        return self


class LogView(TypedDict):
    """One piece of a log as text; what is no UTF-8 is replaced."""

    text: str
    offset: int
    next_offset: int
    size: int
    complete: bool


async def show(request: web.Request) -> web.Response:
    """Send one piece of a log, at once or when there is more."""
    job_id = job_id_of(request)
    stream = request.match_info["stream"]
    if stream not in STREAMS:
        raise NotFound(f"there is no log {stream!r:.40}; there are {' and '.join(STREAMS)}")
    query = query_of(request, LogQuery)
    desk = request.app[DESK]
    chunk, over = await _piece(desk, job_id, stream, query)
    if query.wait and query.limit and not chunk.data and not over:
        more = _wait_for_more(request, job_id, stream, query, chunk)
        chunk, over = await request.app[WAITERS].wait(more, (chunk, over))
    if "application/octet-stream" in request.headers.get("Accept", ""):
        return _as_bytes(chunk, over)
    return _as_text(chunk, over)


async def _piece(desk: Desk, job_id: int, stream: str, query: LogQuery) -> tuple[LogChunk, bool]:
    """Read a piece; the flag says that the job was over before, so that it is all there is."""
    job = await desk.get(job_id)
    chunk = await asyncio.to_thread(
        read_log,
        _path(desk, job_id, stream),
        offset=query.offset,
        tail=query.tail,
        limit=query.limit,
    )
    return chunk, job.state.terminal


def _path(desk: Desk, job_id: int, stream: str) -> Path:
    folder = desk.job_folder(job_id)
    return folder.stdout if stream == "stdout" else folder.stderr


async def _wait_for_more(
    request: web.Request, job_id: int, stream: str, query: LogQuery, chunk: LogChunk
) -> tuple[LogChunk, bool]:
    """Read again when the log has grown or the job has changed, until there is something."""
    desk, growth = request.app[DESK], request.app[GROWTH]
    path = _path(desk, job_id, stream)
    begin = query.model_copy(update={"offset": chunk.next_offset, "tail": None})
    deadline = time.monotonic() + query.wait
    news = desk.events.subscribe(job_id=job_id, capacity=10)
    try:
        while True:
            # First of all once more: something may have happened before the subscription.
            chunk, over = await _piece(desk, job_id, stream, begin)
            left = deadline - time.monotonic()
            if chunk.data or over or left <= 0 or news.closed:
                return chunk, over
            await _first_of(growth.wait({path: chunk.size}, left), news.take())
    finally:
        news.close()


async def _first_of(*awaitables: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is done; end the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _as_bytes(chunk: LogChunk, over: bool) -> web.Response:
    return web.Response(
        body=chunk.data,
        content_type="application/octet-stream",
        headers={
            "X-Offset": str(chunk.offset),
            "X-Next-Offset": str(chunk.next_offset),
            "X-Size": str(chunk.size),
            "X-Complete": "true" if over and chunk.at_end else "false",
        },
    )


def _as_text(chunk: LogChunk, over: bool) -> web.Response:
    complete = over and chunk.at_end
    text, taken = decode(chunk.data, final=complete)
    if chunk.data and not taken:
        # A piece shorter than one character: give it as it is, or nobody gets past it.
        text, taken = decode(chunk.data, final=True)
    view: LogView = {
        "text": text,
        "offset": chunk.offset,
        "next_offset": chunk.offset + taken,
        "size": chunk.size,
        "complete": complete,
    }
    return answer(view)


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    routes.add(
        "GET",
        "/api/jobs/{id}/logs/{stream}",
        show,
        scope=Scope.READ,
        tag="logs",
        summary="A piece of what a job printed, at once or when there is more",
        query=LogQuery,
        answer=LogView,
        errors=(404,),
        produces=("application/json", "application/octet-stream"),
        headers={"Accept": "application/octet-stream gives the bytes themselves."},
    )
