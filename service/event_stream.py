"""The numbered events as an HTTP answer without end (server-sent events).

For whoever has no WebSocket: `curl -N`, a browser's ``EventSource``, a proxy that knows
plain HTTP only. Each event is one ``data:`` line with the same JSON that a WebSocket
carries, and an ``id:`` with its number; no ``event:`` is sent, so that one handler of the
client sees all types. What is not history (the growth of logs) has no ``id:``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from aiohttp import web

from ..errors import InvalidInput
from . import listener as listeners
from .events import Line, Resync
from .keys import METRICS
from .listener import Listener, listening, text_of

HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent: proxies keep the connection, and a
client that is gone is noticed."""
COME_BACK = 2000
"""Milliseconds after which a client that lost the connection should connect again."""
_NUMBER = re.compile(r"[0-9]{1,15}\Z")
_EXPECTED = (ConnectionError, asyncio.TimeoutError)


def last_event_id(request: web.Request) -> int | None:
    """Return the number of the last event the client saw, as it says when it comes back."""
    given = request.headers.getall("Last-Event-ID", [])
    if not given or given == [""]:
        return None
    if len(given) > 1 or not _NUMBER.match(given[0]):
        raise InvalidInput("'Last-Event-ID' must be the number of an event, such as 17")
    return int(given[0])


async def stream(request: web.Request, since: int | None, job_id: int | None) -> web.StreamResponse:
    """Answer with the events until the client or the service ends.

    What the client says it saw last beats the `since` of the address, which is the same
    each time it connects again.
    """
    seen = last_event_id(request)
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            # For proxies that would gather the answer before they pass it on.
            "X-Accel-Buffering": "no",
        }
    )
    gauge = request.app[METRICS].streams
    async with listening(request, since if seen is None else seen, job_id) as listener:
        await response.prepare(request)
        gauge.inc()
        try:
            with contextlib.suppress(*_EXPECTED):
                await _Stream(response, listener).run()
        finally:
            gauge.dec()
        if not listener.ended:
            _cut_off(request)
    return response


class _Stream:
    """One open answer."""

    def __init__(self, response: web.StreamResponse, listener: Listener) -> None:
        self._response = response
        self._listener = listener
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        listener = self._listener
        hello = _block(listener.greeting(), listener.begun)
        await self._send(f"retry: {COME_BACK}\n{hello}")
        growth = None
        if listener.job_id is not None:
            growth = asyncio.ensure_future(self._tell_growth(listener.job_id))
        try:
            await self._write()
        finally:
            if growth is not None:
                growth.cancel()
                await asyncio.gather(growth, return_exceptions=True)

    async def _write(self) -> None:
        while True:
            try:
                taken = await asyncio.wait_for(self._listener.take(), HEARTBEAT)
            except asyncio.TimeoutError:
                await self._send(": nothing new\n\n")
                continue
            if not taken:
                return
            for item in taken:
                await self._send(_block(text_of(item), _number(item)))
            await asyncio.sleep(listeners.GATHER)

    async def _tell_growth(self, job_id: int) -> None:
        async for text in self._listener.growth(job_id):
            await self._send(_block(text, None))

    async def _send(self, text: str) -> None:
        async with self._sending:
            await asyncio.wait_for(self._response.write(text.encode()), listeners.SEND_SECONDS)


def _number(item: Line | Resync) -> int:
    return item.event.seq if isinstance(item, Line) else item.seq


def _block(text: str, number: int | None) -> str:
    """One message; our JSON has no line breaks, which would end the field."""
    return f"data: {text}\n\n" if number is None else f"id: {number}\ndata: {text}\n\n"


def _cut_off(request: web.Request) -> None:
    """End the connection of who does not read: there is no room for a goodbye."""
    if request.transport is not None:
        request.transport.abort()
