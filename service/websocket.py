"""The numbered events over a WebSocket: replay, then live; no reader is waited for.

The same address without an upgrade answers with the same events as an endless HTTP answer,
see `event_stream`.

Messages are JSON objects, one event each. The first is ``hello``; ``resync`` tells a
reader that was too slow to load again. The client need not send anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

from aiohttp import WSCloseCode, WSMsgType, web
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from . import event_stream
from . import listener as listeners
from .keys import METRICS
from .listener import Listener, listening, text_of
from .rest.exchange import query_of
from .routes import Routes
from .security import Scope

log = logging.getLogger(__name__)

MOST_RECEIVED = 64 << 10
HEARTBEAT = 20.0


class SocketQuery(BaseModel):
    """Which events."""

    model_config = ConfigDict(extra="forbid")

    since: int | None = Field(
        default=None, ge=0, description="Replay what came after this number first."
    )
    job: int | None = Field(default=None, ge=0, description="Only the events of one job.")
    ticket: str | None = Field(
        default=None, max_length=200, description="From POST /api/tickets, instead of a header."
    )


class SocketMessage(TypedDict):
    """One message; ``hello`` and ``resync`` have only `type` and `seq`."""

    seq: int
    time: str
    type: str
    job_id: str | None
    data: dict[str, object]


async def events(request: web.Request) -> web.StreamResponse:
    """Send events as they happen: over a WebSocket where one is asked for, else as a stream."""
    query = query_of(request, SocketQuery)
    response = web.WebSocketResponse(
        heartbeat=HEARTBEAT, max_msg_size=MOST_RECEIVED, compress=False, timeout=2.0
    )
    if not response.can_prepare(request).ok:
        if "Upgrade" in request.headers:
            raise web.HTTPBadRequest(reason="this is not how a WebSocket is opened (RFC 6455)")
        return await event_stream.stream(request, query.since, query.job)
    async with listening(request, query.since, query.job) as listener:
        gauge = request.app[METRICS].sockets
        greeting = listener.greeting()
        await response.prepare(request)
        gauge.inc()
        try:
            await _Conversation(request, response, listener).run(greeting)
        finally:
            gauge.dec()
    return response


class _Conversation:
    """One open socket: a task that reads, one that writes; the first to end ends both."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        listener: Listener,
    ) -> None:
        self._request = request
        self._socket = socket
        self._listener = listener
        self._sending = asyncio.Lock()

    async def run(self, greeting: str) -> None:
        tasks = [
            asyncio.ensure_future(self._read()),
            asyncio.ensure_future(self._write(greeting)),
        ]
        if self._listener.job_id is not None:
            tasks.append(asyncio.ensure_future(self._tell_growth(self._listener.job_id)))
        try:
            await asyncio.wait(tasks[:2], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception) and not isinstance(outcome, _EXPECTED):
                    log.error("a WebSocket failed", exc_info=outcome)
            await self._close()

    async def _read(self) -> None:
        """Take in what the client sends, to see it close; nothing it says matters."""
        async for message in self._socket:
            if message.type is WSMsgType.ERROR:
                return

    async def _write(self, greeting: str) -> None:
        await self._send([greeting])
        while taken := await self._listener.take():
            begun = time.monotonic()
            await self._send([text_of(item) for item in taken])
            await asyncio.sleep(max(0.0, listeners.GATHER - (time.monotonic() - begun)))

    async def _tell_growth(self, job_id: int) -> None:
        async for text in self._listener.growth(job_id):
            await self._send([text])

    async def _send(self, texts: list[str]) -> None:
        async with self._sending:
            await asyncio.wait_for(self._send_all(texts), listeners.SEND_SECONDS)

    async def _send_all(self, texts: list[str]) -> None:
        for text in texts:
            await self._socket.send_str(text)

    async def _close(self) -> None:
        """Say goodbye; who does not even take that is cut off."""
        going = self._listener.ended
        code = WSCloseCode.GOING_AWAY if going else WSCloseCode.TRY_AGAIN_LATER
        message = b"the service is stopping" if going else b"too slow; connect again"
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._socket.close(code=code, message=message), 1.0)
            return
        transport = self._request.transport
        if transport is not None:
            transport.abort()


_EXPECTED = (ConnectionError, asyncio.TimeoutError)


def register(routes: Routes) -> None:
    """Add the route of this module."""
    routes.add(
        "GET",
        "/api/events",
        events,
        scope=Scope.READ,
        tag="events",
        ticket=True,
        summary="Numbered events over a WebSocket or as server-sent events, with replay",
        query=SocketQuery,
        headers={
            "Last-Event-ID": "Without a WebSocket: replay what came after this number first; "
            "beats 'since'."
        },
        produces=("text/event-stream",),
        upgrades=SocketMessage,
        errors=(404, 410, 503),
    )
