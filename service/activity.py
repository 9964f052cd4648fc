"""Who is being served right now: for the idle service's end, and to bound those who wait.

Counts and tasks only; knows nothing of requests or jobs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import ServiceUnavailable

T = TypeVar("T")


class Activity:
    """When somebody with a credential last asked for something, and who is connected."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        """Monotonic seconds of the last request that had a credential."""
        self.sockets: set[Callable[[], None]] = set()
        """How to end each open WebSocket and stream of events."""

    @property
    def connections(self) -> int:
        """Open WebSockets and streams of events."""
        return len(self.sockets)

    def note(self) -> None:
        """Somebody asked for something."""
        self.last = time.monotonic()


class Waiters:
    """Calls that wait for something to happen: bounded in number, ended at shutdown."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: set[asyncio.Task[object]] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, awaitable: Awaitable[T], otherwise: T) -> T:
        """Await it; at shutdown return `otherwise` at once.

        Raises `ServiceUnavailable` where too many wait already.
        """
        if self._ended:
            _discard(awaitable)
            return otherwise
        if len(self._waiting) >= self._most:
            _discard(awaitable)
            raise ServiceUnavailable(
                f"{self._most} calls are waiting already; ask again without 'wait', or later",
                retry_after=2,
            )
        task: asyncio.Task[T] = asyncio.ensure_future(_run(awaitable))
        self._waiting.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._ended and task.cancelled():
                return otherwise
            task.cancel()
            raise
        finally:
            self._waiting.discard(task)

    def end(self) -> None:
        """Let nobody wait any longer."""
        self._ended = True
        for task in self._waiting:
            task.cancel()


async def _run(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _discard(awaitable: Awaitable[object]) -> None:
    close = getattr(awaitable, "close", None)
    if close is not None:
        close()
