"""What is to happen later, by the monotonic clock: actions, and the ends of walltimes."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Iterator


class Timers:
    """Actions that wait for their time."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Have `action` run after `delay` seconds."""
        self._serial += 1
        heapq.heappush(self._waiting, (time.monotonic() + delay, self._serial, action))

    @property
    def next(self) -> float | None:
        """When the first is due, None without any."""
        return self._waiting[0][0] if self._waiting else None

    def due(self) -> Iterator[Callable[[], None]]:
        """Take out, one by one, what is due now."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            yield heapq.heappop(self._waiting)[2]


class Walltimes:
    """When each tag has run for long enough.

    What is over meanwhile stays in here until its time comes, or until such entries
    are most of it: to look for it at the end of each short job would cost more.
    """

    def __init__(self, living: Collection[str]) -> None:
        self._living = living
        self._waiting: list[tuple[float, str]] = []

    def arm(self, tag: str, delay: float) -> None:
        """Have `tag` come up after `delay` seconds."""
        heapq.heappush(self._waiting, (time.monotonic() + delay, tag))
        if len(self._waiting) > 1024 + 4 * len(self._living):
            self._waiting = [entry for entry in self._waiting if entry[1] in self._living]
            heapq.heapify(self._waiting)

    @property
    def next(self) -> float | None:
        """When the first is due, None without any."""
        return self._waiting[0][0] if self._waiting else None

    def due(self) -> Iterator[str]:
        """Take out, one by one, the tags whose time is over."""
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            yield heapq.heappop(self._waiting)[1]
