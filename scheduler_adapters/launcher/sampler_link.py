"""The wire to the sampler: a fork of the launcher, and JSON lines over a socket pair."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from . import sampler
from .journal import encode
from .log import log


class SamplerLink:
    """The sampling process: a fork of this one, so that an upgrade cannot change it."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        *,
        reaper: int | None,
        hear: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._selector = selector
        self._hear = hear
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _be_the_sampler(theirs, reaper)
        theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._in = bytearray()
        self._out = bytearray()
        selector.register(ours, selectors.EVENT_READ, self._ready)

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue one request."""
        self._out += encode(message).encode() + b"\n"
        self._write()

    def close(self) -> None:
        """Hang up; the sampler ends by that, if it lives."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(self._link)
        self._link.close()

    def _write(self) -> None:
        try:
            while self._out:
                del self._out[: self._link.send(self._out)]
        except (BlockingIOError, InterruptedError):
            with contextlib.suppress(KeyError):
                mask = selectors.EVENT_READ | selectors.EVENT_WRITE
                self._selector.modify(self._link, mask, self._ready)
        except OSError:
            self._out.clear()

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._selector.modify(self._link, selectors.EVENT_READ, self._ready)
            self._write()
        if not mask & selectors.EVENT_READ:
            return
        try:
            data = self._link.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._link)
            return
        self._in += data
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        for line in lines:
            self._hear(json.loads(line))


def _be_the_sampler(link: socket.socket, reaper: int | None) -> None:
    """Sample in this process, a fresh fork, and end it; nothing of the launcher stays open."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(link.detach(), 3)
        os.closerange(4, 65536)
        gc.enable()
        sampler.run(3, reaper)
        code = 0
    except BaseException:
        log("the sampler failed: %s", traceback.format_exc())
    finally:
        os._exit(code)
