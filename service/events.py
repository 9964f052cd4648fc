"""The numbered events as they go to whoever listens: bounded, replayable, encoded once.

`EventLog.publish` is called on the event loop after the commit and never waits. Each
subscription has a bounded queue of its own: a reader that is too slow loses it and is
told to load again (`Resync`). What happened before is fetched through a callable given
at construction; this module knows neither the store nor HTTP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from ..errors import Gone, UsageError
from .model import Event
from .views import encode, event_view

Fetch = Callable[[int, int, "int | None"], Awaitable[Sequence[Event]]]
"""``await fetch(since, limit, job_id)``: at most `limit` events numbered above `since`, in
order, of one job or of all; raises `Gone` where some of them are not kept any longer."""

CAPACITY = 2000
RECENT = 2000
"""Events kept in memory, so that a storm of reconnections does not ask the store."""
PAGE = 500


class Line:
    """One event together with its JSON text, which is made once for all readers."""

    __slots__ = ("_text", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self._text: str | None = None

    @property
    def text(self) -> str:
        if self._text is None:
            self._text = encode(event_view(self.event)).decode()
        return self._text


@dataclass(frozen=True, slots=True)
class Resync:
    """Events were dropped: load again what you show; it holds everything up to `seq`."""

    seq: int


class EventLog:
    """Hands every published event to those who listen."""

    def __init__(self, fetch: Fetch, *, latest: int = 0, recent: int = RECENT) -> None:
        self._fetch = fetch
        self._latest = latest
        self._recent: deque[Line] = deque(maxlen=recent)
        self._complete_since = latest
        """Every published event above this number is in `_recent`."""
        self._all: set[Subscription] = set()
        self._by_job: dict[int, set[Subscription]] = {}
        self._closed = False

    @property
    def latest(self) -> int:
        """The number of the newest event that anybody may see."""
        return self._latest

    @latest.setter
    def latest(self, seq: int) -> None:
        """Begin at `seq`: used once, when the store has been read."""
        self._latest = self._complete_since = seq
        self._recent.clear()

    @property
    def subscribers(self) -> int:
        """How many listen."""
        return len(self._all) + sum(map(len, self._by_job.values()))

    def publish(self, events: Iterable[Event]) -> None:
        """Hand out committed events, in the order of their numbers. On the loop; never waits."""
        for event in events:
            line = Line(event)
            if len(self._recent) == self._recent.maxlen:
                self._complete_since = self._recent[0].event.seq if self._recent else event.seq
            self._recent.append(line)
            self._latest = max(self._latest, event.seq)
            self._hand_out(line)

    def _hand_out(self, line: Line) -> None:
        for subscription in self._all:
            subscription._offer(line)
        job_id = line.event.job_id
        if job_id is not None:
            for subscription in self._by_job.get(job_id, ()):
                subscription._offer(line)

    def subscribe(
        self, since: int | None = None, job_id: int | None = None, capacity: int = CAPACITY
    ) -> Subscription:
        """Listen to everything, or to one job; from now on, or from behind event `since`.

        Raises `UsageError` once the log is closed. That `since` cannot be replayed is
        found out by `Subscription.ready`, or at the first event.
        """
        if self._closed:
            raise UsageError("the service is stopping; no more events will come")
        subscription = Subscription(self, since, job_id, capacity)
        if job_id is None:
            self._all.add(subscription)
        else:
            self._by_job.setdefault(job_id, set()).add(subscription)
        return subscription

    def close(self) -> None:
        """End every subscription after what it still has queued."""
        self._closed = True
        for subscription in [*self._all, *(s for group in self._by_job.values() for s in group)]:
            subscription.close()

    def _leave(self, subscription: Subscription) -> None:
        self._all.discard(subscription)
        job_id = subscription.job_id
        if job_id is not None and job_id in self._by_job:
            self._by_job[job_id].discard(subscription)
            if not self._by_job[job_id]:
                del self._by_job[job_id]

    async def _older(self, since: int, upto: int, job_id: int | None) -> list[Line]:
        """Return a page of the events above `since` and up to `upto`."""
        if since >= self._complete_since:
            lines = (line for line in self._recent if since < line.event.seq <= upto)
            return [line for line in lines if job_id is None or line.event.job_id == job_id]
        events = await self._fetch(since, PAGE, job_id)
        return [Line(event) for event in events if event.seq <= upto]


class Subscription:
    """One listener's view of the events: an asynchronous iterator with a bounded queue."""

    def __init__(self, log: EventLog, since: int | None, job_id: int | None, capacity: int) -> None:
        self.job_id = job_id
        self.overruns = 0
        """How often the queue was dropped because nobody took from it."""
        self._log = log
        self._capacity = max(1, capacity)
        self._queue: deque[Line] = deque()
        self._resync: Resync | None = None
        self._wake = asyncio.Event()
        self._closed = False
        self._replayed = since
        self._replay_end = log.latest
        self._beyond = since is not None and since > log.latest
        self._page: list[Line] | None = None
        self._single: deque[Line | Resync] = deque()

    @property
    def closed(self) -> bool:
        """True once nothing more will be queued."""
        return self._closed

    async def ready(self) -> None:
        """Fetch the first page of what is to be replayed.

        Raises `Gone` where the events after `since` are not kept any longer.
        """
        if self._replayed is not None and self._page is None:
            self._page = await self._next_page()

    async def _next_page(self) -> list[Line]:
        assert self._replayed is not None
        if self._beyond:
            raise Gone(
                f"there was no event {self._replayed} here yet: the numbers belong to another "
                "home; load the lists again and go on without 'since'"
            )
        if self._replayed >= self._replay_end:
            return []
        return await self._log._older(self._replayed, self._replay_end, self.job_id)

    async def take(self) -> list[Line | Resync]:
        """Wait for news and return all of it that is there; an empty list means the end."""
        while True:
            replayed = await self._take_replayed()
            if replayed:
                return list(replayed)
            if self._resync is not None or self._queue:
                taken: list[Line | Resync] = []
                if self._resync is not None:
                    taken.append(self._resync)
                    self._resync = None
                taken.extend(self._queue)
                self._queue.clear()
                return taken
            if self._closed:
                return []
            self._wake.clear()
            await self._wake.wait()

    async def _take_replayed(self) -> list[Line]:
        """Return the next page of the past; empty once the present is reached."""
        while self._replayed is not None and self._resync is None:
            await self.ready()
            page, self._page = self._page or [], None
            if not page:
                self._replayed = None
                break
            self._replayed = page[-1].event.seq
            return page
        return []

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event | Resync:
        if not self._single:
            self._single.extend(await self.take())
        if not self._single:
            raise StopAsyncIteration
        item = self._single.popleft()
        return item.event if isinstance(item, Line) else item

    def close(self) -> None:
        """Listen no more; what is queued can still be taken. Idempotent."""
        self._closed = True
        self._log._leave(self)
        self._wake.set()

    def _offer(self, line: Line) -> None:
        if len(self._queue) < self._capacity:
            self._queue.append(line)
        else:
            self._queue.clear()
            self.overruns += 1
            self._resync = Resync(self._log.latest)
        self._wake.set()
