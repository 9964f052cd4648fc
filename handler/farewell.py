"""What must be done before this process ends: hand over what is still hosted in it.

Kept apart because the moment matters: it has to come before the interpreter takes
the thread pools away, which is earlier than `atexit`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading

# Imported first, so that its own farewell, which ends all thread pools, comes after ours.
from concurrent.futures import thread as _thread_pools  # noqa: F401
from typing import Protocol


class Leaving(Protocol):
    """Something that has to act before the process ends."""

    def at_exit(self) -> None:
        """Act; called once, from the main thread, in the process that registered."""


_open: list[tuple[int, Leaving]] = []
_registered = False


def register(thing: Leaving) -> None:
    """Have `thing.at_exit` called when this process ends, the latest registered first."""
    global _registered
    if not _registered:
        _registered = True
        # Private, but the one hook that runs while threads can still be used and started;
        # `concurrent.futures` itself relies on it in every version from 3.9 on.
        early = getattr(threading, "_register_atexit", atexit.register)
        early(_say_farewell)
    _open.append((os.getpid(), thing))


def unregister(thing: Leaving) -> None:
    """Take it back."""
    _open[:] = [entry for entry in _open if entry[1] is not thing]


def _say_farewell() -> None:
    while _open:
        pid, thing = _open.pop()
        if pid == os.getpid():  # a fork leaves what its parent hosts alone
            with contextlib.suppress(Exception):
                thing.at_exit()
