"""The numbered events over a WebSocket: replay, then live; no reader is waited for.

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

from ..errors import Gone, ServiceUnavailable
from .events import CAPACITY, Line, Resync, Subscription
from .growth import sizes_of
from .keys import ACTIVITY, DESK, GROWTH, METRICS
from .rest.exchange import query_of
from .routes import Routes
from .security import Scope
from .views import encode, timestamp

log = logging.getLogger(__name__)

MOST_SOCKETS = 1000
MOST_RECEIVED = 64 << 10
HEARTBEAT = 20.0
GATHER = 0.05
"""Seconds for which events are gathered before they are sent together."""
SEND_SECONDS = 15.0
"""How long a reader may leave us waiting before it is cut off."""


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
    """Send events as they happen."""
    query = query_of(request, SocketQuery)
    response = web.WebSocketResponse(
        heartbeat=HEARTBEAT, max_msg_size=MOST_RECEIVED, compress=False, timeout=2.0
    )
    if not response.can_prepare(request).ok:
        raise web.HTTPUpgradeRequired(
            reason="events come over a WebSocket; connect with one to this address",
            headers={"Upgrade": "websocket"},
        )
    activity = request.app[ACTIVITY]
    sockets = activity.sockets
    if len(sockets) >= MOST_SOCKETS:
        raise ServiceUnavailable(
            f"there are {MOST_SOCKETS} WebSockets already; close one, or try later", retry_after=5
        )
    desk = request.app[DESK]
    if query.job is not None:
        await desk.get(query.job)
    subscription = desk.events.subscribe(since=query.since, job_id=query.job, capacity=CAPACITY)
    end = subscription.close
    sockets.add(end)
    request.app[METRICS].sockets.inc()
    try:
        await subscription.ready()
        greeting = encode({"type": "hello", "seq": desk.events.latest}).decode()
        await response.prepare(request)
        await _Conversation(request, response, subscription, query.job).run(greeting)
    finally:
        subscription.close()
        sockets.discard(end)
        activity.note()
        request.app[METRICS].sockets.dec()
    return response


class _Conversation:
    """One open socket: a task that reads, one that writes; the first to end ends both."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        subscription: Subscription,
        job_id: int | None,
    ) -> None:
        self._request = request
        self._socket = socket
        self._subscription = subscription
        self._job_id = job_id
        self._sending = asyncio.Lock()

    async def run(self, greeting: str) -> None:
        tasks = [
            asyncio.ensure_future(self._read()),
            asyncio.ensure_future(self._write(greeting)),
        ]
        if self._job_id is not None:
            tasks.append(asyncio.ensure_future(self._tell_growth(self._job_id)))
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
        slow = self._request.app[METRICS].overruns
        while taken := await self._taken():
            begun = time.monotonic()
            if any(isinstance(item, Resync) for item in taken):
                slow.inc()
            await self._send([_text(item) for item in taken])
            await asyncio.sleep(max(0.0, GATHER - (time.monotonic() - begun)))

    async def _taken(self) -> list[Line | Resync]:
        try:
            return await self._subscription.take()
        except Gone:
            # It was there when the socket opened; the replay was slower than the forgetting.
            return [Resync(self._request.app[DESK].events.latest)]

    async def _tell_growth(self, job_id: int) -> None:
        """Say how far the logs of the one job have grown; this is not part of the history."""
        desk, growth = self._request.app[DESK], self._request.app[GROWTH]
        folder = desk.job_folder(job_id)
        paths = {folder.stdout, folder.stderr}
        sizes = await asyncio.to_thread(sizes_of, paths)
        while True:
            if not await growth.wait(sizes, 60.0):
                continue
            sizes = await asyncio.to_thread(sizes_of, paths)
            message = {
                "seq": desk.events.latest,
                "time": timestamp(time.time()),
                "type": "job.output",
                "job_id": str(job_id),
                "data": {"stdout": sizes[folder.stdout], "stderr": sizes[folder.stderr]},
            }
            await self._send([encode(message).decode()])
            await asyncio.sleep(GATHER)

    async def _send(self, texts: list[str]) -> None:
        async with self._sending:
            await asyncio.wait_for(self._send_all(texts), SEND_SECONDS)

    async def _send_all(self, texts: list[str]) -> None:
        for text in texts:
            await self._socket.send_str(text)

    async def _close(self) -> None:
        """Say goodbye; who does not even take that is cut off."""
        going = self._subscription.closed
        code = WSCloseCode.GOING_AWAY if going else WSCloseCode.TRY_AGAIN_LATER
        message = b"the service is stopping" if going else b"too slow; connect again"
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(self._socket.close(code=code, message=message), 1.0)
            return
        transport = self._request.transport
        if transport is not None:
            transport.abort()


_EXPECTED = (ConnectionError, asyncio.TimeoutError)


def _text(item: Line | Resync) -> str:
    if isinstance(item, Line):
        return item.text
    return encode({"type": "resync", "seq": item.seq}).decode()


def register(routes: Routes) -> None:
    """Add the route of this module."""
    routes.add(
        "GET",
        "/api/events",
        events,
        scope=Scope.READ,
        tag="events",
        ticket=True,
        summary="Numbered events over a WebSocket, with replay",
        query=SocketQuery,
        answer=SocketMessage,
        status=101,
        errors=(404, 410, 426, 503),
    )
