"""An event loop in a daemon thread, and the one door into it for synchronous callers.

Knows threads, forks and interrupts; nothing of jobs. An interrupt (Ctrl-C) ends the
caller's wait and cancels what it waited for; nothing else in the loop notices.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import selectors
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, TypeVar

from typing_extensions import ParamSpec

from ..errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")

JOIN_SECONDS = 10.0
# Where waiting for a lock cannot be interrupted, the wait is cut into pieces.
_SLICE = 0.2 if sys.platform == "win32" else None


class LoopThread:
    """Run coroutines for callers of other threads; started by the first call."""

    def __init__(self, name: str = "simyard") -> None:
        self._name = name
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an asynchronous function in the loop and return what it returns.

        Raises what it raises; `UsageError` where blocking would be a mistake: in the
        loop's own thread, in a coroutine of another running loop (a notebook's cells
        aside), in a process forked after the start, after `stop`.
        """
        loop = self._ready()
        call = _Call()

        async def run() -> T:
            call.begin()
            return await function(*args, **kwargs)

        try:
            return self._outcome(asyncio.run_coroutine_threadsafe(run(), loop))
        except KeyboardInterrupt:
            # It may have come before there was a future to cancel.
            loop.call_soon_threadsafe(call.give_up)
            raise

    def iterate(self, make: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
        """Yield what an asynchronous generator yields, each item fetched when it is asked for."""
        items = self.call(_made, make)
        try:
            while True:
                try:
                    item = self.call(items.__anext__)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if not self._stopped and os.getpid() == self._pid:
                with contextlib.suppress(UsageError):
                    self.call(items.aclose)

    def stop(self) -> None:
        """End the loop, what still runs in it, and the thread; idempotent."""
        if os.getpid() != self._pid:
            return
        with self._guard:
            self._stopped = True
            thread, loop = self._thread, self._loop
        if thread is None or loop is None or not thread.is_alive():
            return
        if thread is threading.current_thread():
            raise UsageError("the loop's own thread cannot wait for its own end")
        with contextlib.suppress(RuntimeError):  # it has just ended by itself
            loop.call_soon_threadsafe(loop.stop)
        thread.join(JOIN_SECONDS)

    def _ready(self) -> asyncio.AbstractEventLoop:
        self._refuse_mistakes()
        with self._guard:
            if self._stopped:
                raise UsageError("this handler is closed; make a new JobManagerHandler")
            if self._thread is None:
                self._start()
            assert self._loop is not None
            return self._loop

    def _refuse_mistakes(self) -> None:
        if os.getpid() != self._pid:
            raise UsageError(
                "this handler was made before the process was forked, and its thread stayed behind "
                "in the parent; make a new JobManagerHandler in the child"
            )
        if threading.current_thread() is self._thread:
            raise UsageError(
                "this call would wait for itself: it comes from the handler's own event loop; "
                "await the asynchronous JobManager there"
            )
        if _in_running_loop() and not in_notebook():
            raise UsageError(
                "JobManagerHandler blocks, and this is a coroutine: the event loop would stand "
                "still; use 'await' with simyard.JobManager here, or call the handler by "
                "asyncio.to_thread"
            )

    def _start(self) -> None:
        started: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        thread = threading.Thread(target=_run_loop, args=(started,), name=self._name, daemon=True)
        thread.start()
        self._loop = started.result()
        self._thread = thread

    def _outcome(self, future: concurrent.futures.Future[T]) -> T:
        try:
            while True:
                try:
                    return future.result(_SLICE)
                except concurrent.futures.TimeoutError:
                    # Since Python 3.11 that is the TimeoutError that a call may raise itself.
                    if future.done():
                        return future.result()
        except BaseException:
            future.cancel()
            raise


class _Call:
    """One call's task in the loop, so that it can be ended whether or not it has begun."""

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._given_up = False

    def begin(self) -> None:
        if self._given_up:
            raise asyncio.CancelledError
        self._task = asyncio.current_task()

    def give_up(self) -> None:
        self._given_up = True
        if self._task is not None:
            self._task.cancel()


async def _made(make: Callable[[], T]) -> T:
    return make()


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def in_notebook() -> bool:
    """True inside an IPython kernel, where every cell runs within a loop and may block it."""
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return False
    shell = ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class _Selector(selectors.BaseSelector):
    """The system's selector, but empty in a process that was forked.

    A forked child shares the parent's epoll object. What the child's garbage collector
    closes would be taken out of it, and the parent would wait for ever on a connection
    that it believes to watch (seen with aiohttp's connections).
    """

    def __init__(self) -> None:
        self._real = selectors.DefaultSelector()
        _selectors.add(self)

    def forked(self) -> None:
        """Let go of what is the parent's."""
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return self._real.select(timeout)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


_selectors: weakref.WeakSet[_Selector] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for selector in list(_selectors):
        selector.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _new_loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_Selector())


def _run_loop(started: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
    try:
        loop = _new_loop()
    except BaseException as error:
        started.set_exception(error)
        return
    asyncio.set_event_loop(loop)
    loop.call_soon(started.set_result, loop)
    try:
        loop.run_forever()
        _finish(loop)
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel what is left, as `asyncio.run` does."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    endings: list[Coroutine[Any, Any, Any]] = [
        loop.shutdown_asyncgens(),
        loop.shutdown_default_executor(),
    ]
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    for ending in endings:
        loop.run_until_complete(ending)
