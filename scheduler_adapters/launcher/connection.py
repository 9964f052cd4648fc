"""The connection to a manager: requests come in, records and answers go out.

Knows the frames and the greeting; what a request does is in ``operations``.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .journal import encode
from .log import log

if TYPE_CHECKING:
    from .loop import Launcher

PROTOCOL = 1
MAX_LINE_BYTES = 256 << 20
OUT_HIGH_WATER = 512 << 10


class Connection:
    """The link to one manager: requests in, records and answers out, both bounded."""

    def __init__(self, launcher: Launcher, link: socket.socket) -> None:
        self._launcher = launcher
        self._link = link
        self._in = bytearray()
        self._out = bytearray()
        self._place: tuple[int, int] | None = None
        self._writing = False
        self.closed = False

    def ready(self, mask: int) -> None:
        """Read and write what the socket is ready for."""
        if mask & selectors.EVENT_WRITE and not self.closed:
            self._write()
        if mask & selectors.EVENT_READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._link.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        searched = len(self._in)
        self._in += data
        if self._in.find(b"\n", searched) < 0:
            if len(self._in) > MAX_LINE_BYTES:
                self.close("a line without end")
            return
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        for line in lines:
            if self.closed:
                return
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("not an object")
            if message.get("op") == "hello":
                self._greet(message)
            elif self._launcher.connection is not self:
                raise ValueError("say hello first")
            else:
                self._launcher.operations.obey(self, message)
        except Exception as error:
            log("a request could not be obeyed: %r: %s", line[:200], error)
            if not isinstance(error, (ValueError, KeyError, TypeError)):
                log("unexpected: %s", traceback.format_exc())
            self.send({"ev": "error", "message": f"{type(error).__name__}: {error}"})

    def _greet(self, message: Mapping[str, Any]) -> None:
        launcher = self._launcher
        if message.get("v") != PROTOCOL:
            reason = f"this launcher speaks version {PROTOCOL}"
            self.send({"ev": "refused", "v": PROTOCOL, "reason": reason})
            return
        place = message.get("from")
        start = (int(place[0]), int(place[1])) if place else (0, 0)
        if not launcher.take_over(self, int(message.get("epoch", 0))):
            reason = f"a manager of the later epoch {launcher.epoch} was here"
            self.send({"ev": "refused", "v": PROTOCOL, "reason": reason})
            return
        journal = launcher.journal
        if not journal.flush():
            # What is not written cannot be told, and must not be concluded from.
            reason = "its records cannot be written; is the disk full?"
            self.send({"ev": "refused", "v": PROTOCOL, "reason": reason})
            return
        if start[0] > journal.generation or (
            start[0] == journal.generation and start[1] > journal.end
        ):
            log("the manager asks for records behind the last; starting from the oldest")
            start = (0, 0)
        live = [
            {"tag": job.tag, "pid": job.pid, "state": job.state_told}
            for job in launcher.roster.jobs.values()
        ]
        hello = {
            "ev": "hello",
            "v": PROTOCOL,
            "pid": os.getpid(),
            "boot_id": launcher.boot,
            "live": live,
            "end": [journal.generation, journal.end],
        }
        self._place = start
        self.send(hello)

    def pump(self) -> None:
        """Send the records that the manager has not had yet, as far as it keeps reading."""
        journal = self._launcher.journal
        while self._place is not None and not self.closed and len(self._out) < OUT_HIGH_WATER:
            if self._place == (journal.generation, journal.end):
                return
            try:
                generation, end, lines = journal.read(*self._place)
            except OSError as error:
                log("records cannot be read: %s", error)
                return
            self._place = (generation, end)
            if not lines:
                return
            text = lines.decode("utf-8", "replace")
            self.send({"ev": "records", "gen": generation, "end": end, "lines": text})

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue one message."""
        if self.closed:
            return
        self._out += encode(message).encode() + b"\n"
        if not self._writing:
            self._write()

    def _write(self) -> None:
        try:
            while self._out:
                sent = self._link.send(memoryview(self._out)[: 1 << 20])
                del self._out[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if bool(self._out) != self._writing:
            self._writing = bool(self._out)
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writing else 0)
            self._launcher.selector.modify(self._link, mask, self.ready)

    def close(self, reason: str = "") -> None:
        """Hang up; idempotent."""
        if self.closed:
            return
        if reason:
            log("closing a connection: %s", reason)
        self.closed = True
        with contextlib.suppress(KeyError, ValueError):
            self._launcher.selector.unregister(self._link)
        self._link.close()
        if self._launcher.connection is self:
            self._launcher.connection = None
