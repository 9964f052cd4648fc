"""The door into the loop thread: who may come in, and what interrupts do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from simyard.errors import UsageError, WaitTimeout
from simyard.handler import loop_thread
from simyard.handler.loop_thread import LoopThread


@pytest.fixture
def portal() -> Iterator[LoopThread]:
    one = LoopThread("simyard-test")
    yield one
    one.stop()
    assert not one.alive


async def double(number: int, *, plus: int = 0) -> int:
    await asyncio.sleep(0)
    return 2 * number + plus


def test_a_result_comes_back(portal: LoopThread) -> None:
    assert portal.call(double, 21) == 42
    assert portal.call(double, 20, plus=2) == 42


def test_an_error_comes_back_as_it_is(portal: LoopThread) -> None:
    async def fail() -> None:
        raise WaitTimeout("too late")

    with pytest.raises(WaitTimeout, match="too late"):
        portal.call(fail)


def test_nothing_is_started_before_the_first_call() -> None:
    one = LoopThread("simyard-idle")
    assert not one.alive
    one.stop()
    assert "simyard-idle" not in {thread.name for thread in threading.enumerate()}


def test_many_threads_share_one_loop(portal: LoopThread) -> None:
    found: list[Any] = []

    async def thread_name() -> str:
        return threading.current_thread().name

    callers = [
        threading.Thread(target=lambda: found.append(portal.call(thread_name))) for _ in range(8)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == ["simyard-test"] * 8


def test_an_interrupt_ends_the_wait_and_cancels_only_what_was_waited_for(
    portal: LoopThread,
) -> None:
    ended = threading.Event()
    begun = threading.Event()

    async def wait_for_ever() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupt() -> None:
        begun.wait(10)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        portal.call(wait_for_ever)
    assert ended.wait(10)
    assert portal.call(double, 1) == 2


def test_a_call_from_the_loops_own_thread_is_refused_not_deadlocked(portal: LoopThread) -> None:
    async def call_back() -> None:
        portal.call(double, 1)

    with pytest.raises(UsageError, match="wait for itself"):
        portal.call(call_back)


async def test_a_call_from_a_coroutine_is_refused_and_names_the_asynchronous_way(
    portal: LoopThread,
) -> None:
    with pytest.raises(UsageError, match=r"simyard\.JobManager"):
        portal.call(double, 1)


async def test_a_thread_beside_a_running_loop_may_call(portal: LoopThread) -> None:
    assert await asyncio.to_thread(portal.call, double, 4) == 8


async def test_a_cell_of_a_notebook_may_call_although_a_loop_runs(
    portal: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shell:
        kernel = object()

    class Module:
        get_ipython = staticmethod(Shell)

    monkeypatch.setitem(sys.modules, "IPython", Module)
    assert loop_thread.in_notebook()
    assert portal.call(double, 3) == 6


def test_an_ipython_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    class Module:
        get_ipython = staticmethod(object)

    monkeypatch.setitem(sys.modules, "IPython", Module)
    assert not loop_thread.in_notebook()


def test_a_forked_child_is_told_so(portal: LoopThread) -> None:
    portal.call(double, 1)
    reading, writing = os.pipe()
    child = fork()
    if child == 0:
        try:
            portal.call(double, 1)
        except UsageError as error:
            os.write(writing, str(error).encode())
        finally:
            portal.stop()
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        assert b"forked" in pipe.read()
    assert portal.call(double, 1) == 2


def test_what_a_forked_child_closes_stays_open_for_the_parent(portal: LoopThread) -> None:
    """Both share one epoll object; the child's garbage collector must not touch it."""

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        keep.append(ours)
        return await asyncio.open_connection(sock=theirs)

    keep: list[socket.socket] = []
    reader, writer = portal.call(connect)
    child = fork()
    if child == 0:
        writer.close()
        os._exit(0)
    os.waitpid(child, 0)
    keep[0].sendall(b"still here\n")
    assert portal.call(asyncio.wait_for, reader.readline(), 10) == b"still here\n"

    async def hang_up() -> None:
        writer.close()
        await writer.wait_closed()

    portal.call(hang_up)
    keep[0].close()


def fork() -> int:
    import warnings

    with warnings.catch_warnings():  # forking beside threads is what is tried here
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def test_after_stop_calls_are_refused_and_the_thread_is_gone(portal: LoopThread) -> None:
    portal.call(double, 1)
    portal.stop()
    portal.stop()
    assert not portal.alive
    with pytest.raises(UsageError, match="closed"):
        portal.call(double, 1)


def test_stop_cancels_what_still_runs(portal: LoopThread) -> None:
    cancelled = threading.Event()
    keep: list[asyncio.Task[None]] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def start() -> None:
        keep.append(asyncio.create_task(linger()))
        await asyncio.sleep(0)

    portal.call(start)
    portal.stop()
    assert cancelled.is_set()


def test_a_failure_to_start_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no descriptors left")

    monkeypatch.setattr(loop_thread, "_new_loop", fail)
    one = LoopThread()
    with pytest.raises(OSError, match="no descriptors left"):
        one.call(double, 1)
    one.stop()


def test_items_are_fetched_one_by_one_and_the_generator_is_closed(portal: LoopThread) -> None:
    made: list[int] = []
    closed = threading.Event()

    async def count() -> AsyncGenerator[int, None]:
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            closed.set()

    items = portal.iterate(count)
    assert [next(items), next(items)] == [0, 1]
    assert made == [0, 1]
    items.close()  # type: ignore[attr-defined]
    assert closed.wait(10)
    assert list(portal.iterate(count))[-1] == 99


def test_a_wait_costs_no_polling(portal: LoopThread) -> None:
    before = time.process_time()
    portal.call(asyncio.sleep, 0.5)
    assert time.process_time() - before < 0.25
