"""One reader of the numbered events, whatever it reads them through.

Who may listen, how many, what is replayed first, and how far the logs of one job have
grown. `websocket` and `event_stream` carry it to the client; neither waits for a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from aiohttp import web

from ..errors import Gone, ServiceUnavailable
from .events import CAPACITY, Line, Resync, Subscription
from .growth import sizes_of
from .keys import ACTIVITY, DESK, GROWTH, METRICS
from .views import encode, timestamp

MOST = 1000
"""Readers at a time, over both transports."""
GATHER = 0.05
"""Seconds for which events are gathered before they are sent together."""
SEND_SECONDS = 15.0
"""How long a reader may leave us waiting before it is cut off."""


class Listener:
    """An open subscription of one client."""

    def __init__(
        self, request: web.Request, subscription: Subscription, begun: int, job_id: int | None
    ) -> None:
        self.begun = begun
        """The number behind which its events begin."""
        self.job_id = job_id
        self._request = request
        self._subscription = subscription

    @property
    def ended(self) -> bool:
        """True where the service lets nobody listen any longer."""
        return self._subscription.closed

    def greeting(self) -> str:
        """Return the first message."""
        return encode({"type": "hello", "seq": self._request.app[DESK].events.latest}).decode()

    async def take(self) -> list[Line | Resync]:
        """Wait for news and return all of it that is there; an empty list means the end."""
        app = self._request.app
        try:
            taken = await self._subscription.take()
        except Gone:
            # It was there when the reader came; the replay was slower than the forgetting.
            taken = [Resync(app[DESK].events.latest)]
        if any(isinstance(item, Resync) for item in taken):
            app[METRICS].overruns.inc()
        return taken

    async def growth(self, job_id: int) -> AsyncIterator[str]:
        """Say how far the logs of one job have grown; this is not part of the history."""
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
            yield encode(message).decode()
            await asyncio.sleep(GATHER)


@contextlib.asynccontextmanager
async def listening(
    request: web.Request, since: int | None, job_id: int | None
) -> AsyncIterator[Listener]:
    """Listen for one client, with the first of what it missed fetched already.

    Raises `ServiceUnavailable` where too many listen, `NotFound` where there is no such
    job, `Gone` where what came after `since` is not kept any longer.
    """
    activity, desk = request.app[ACTIVITY], request.app[DESK]
    if len(activity.sockets) >= MOST:
        raise ServiceUnavailable(
            f"{MOST} clients listen to events already; close one, or try later", retry_after=5
        )
    if job_id is not None:
        await desk.get(job_id)
    begun = desk.events.latest if since is None else since
    subscription = desk.events.subscribe(since=since, job_id=job_id, capacity=CAPACITY)
    end = subscription.close
    activity.sockets.add(end)
    try:
        await subscription.ready()
        yield Listener(request, subscription, begun, job_id)
    finally:
        subscription.close()
        activity.sockets.discard(end)
        activity.note()


def text_of(item: Line | Resync) -> str:
    """Return one message as JSON."""
    if isinstance(item, Line):
        return item.text
    return encode({"type": "resync", "seq": item.seq}).decode()
