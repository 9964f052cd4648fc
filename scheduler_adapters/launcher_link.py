"""The wire to the launcher: find it, start it, talk to it.

Knows the socket, the protocol's frames and how the process is started; nothing of
what records mean. One `LauncherLink` is one connection; who uses it makes the
next one when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import LauncherError
from .records import Cursor

logger = logging.getLogger(__name__)

PROTOCOL = 1
PROGRAM = Path(__file__).with_name("launcher")
"""Run by its path, so that it needs nothing of what surrounds it, not even the package."""
START_TIMEOUT = 15.0
ANSWER_TIMEOUT = 30.0
_FRAME_LIMIT = 64 << 20
_NOT_FOR_THE_LAUNCHER = frozenset({"SIMYARD_TAG", "SIMYARD_TOKEN"})


class LinkLost(Exception):
    """The connection to the launcher ended before the answer came."""


class LauncherRefused(LauncherError):
    """The launcher would not talk to this manager."""


class LauncherLink:
    """One connection to the launcher that lives."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answers: dict[int, asyncio.Future[list[str]]] = {}
        self._numbers = itertools.count(1)
        self.pid = 0
        self.live: dict[str, str] = {}
        """State by tag as the launcher knew it when we connected."""
        self.end = Cursor()
        """Where the records ended then."""
        self.sent_environments: set[str] = set()

    @classmethod
    async def connect(cls, home: Path, *, epoch: int, start: Cursor) -> LauncherLink | None:
        """Connect and agree on the version; None where no launcher lives.

        Raises `LauncherRefused` where it knows a later manager, speaks another version,
        or cannot write its records.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await _connect(connection, home / "run")
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_FRAME_LIMIT)
        link = cls(reader, writer)
        try:
            await asyncio.wait_for(link._greet(epoch, start), ANSWER_TIMEOUT)
        except (LinkLost, OSError):
            link.close()
            return None
        except BaseException:
            link.close()
            raise
        return link

    async def _greet(self, epoch: int, start: Cursor) -> None:
        place = [start.generation, start.offset]
        self.send({"op": "hello", "v": PROTOCOL, "epoch": epoch, "from": place})
        event = await self._read()
        if event.get("ev") != "hello":
            reason = event.get("reason") or event.get("message") or "no reason given"
            raise LauncherRefused(f"the launcher (see run/launcher.log) refuses us: {reason}")
        self.pid = int(event["pid"])
        self.live = {entry["tag"]: entry["state"] for entry in event["live"]}
        self.end = Cursor(*event["end"])

    async def _read(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as error:
            raise LinkLost(str(error)) from error
        if not line.endswith(b"\n"):
            raise LinkLost("the launcher closed the connection")
        event = json.loads(line)
        return event if isinstance(event, dict) else {}

    async def next_records(self) -> tuple[Cursor, str]:
        """Return the next batch of records and the place behind it; answers go to who waits.

        Raises `LinkLost` when the launcher is gone.
        """
        while True:
            event = await self._read()
            kind = event.get("ev")
            if kind == "records":
                return Cursor(event["gen"], event["end"]), event["lines"]
            if kind in ("withdrawn", "found", "adopted"):
                waiting = self._answers.pop(event.get("n") or 0, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(list(event.get("tags", ())))
            elif kind == "error":
                logger.error("the launcher refused a request: %s", event.get("message"))

    def send(self, message: Mapping[str, Any]) -> None:
        """Queue one request; what the launcher makes of it comes as records."""
        self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    async def drain(self) -> None:
        """Wait while the launcher is slower than we are."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def ask(self, message: Mapping[str, Any]) -> list[str]:
        """Send a request and return the tags of its answer; raises `LinkLost`.

        Somebody must be in `next_records` meanwhile.
        """
        number = next(self._numbers)
        waiting: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._answers[number] = waiting
        self.send({**message, "n": number})
        try:
            return await waiting
        finally:
            self._answers.pop(number, None)

    def close(self) -> None:
        """Hang up; who waits for an answer learns it."""
        self._writer.close()
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(LinkLost("the connection to the launcher is closed"))
        self._answers.clear()

    async def wait_closed(self) -> None:
        """Wait until the socket is given back."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def _connect(connection: socket.socket, run: Path) -> None:
    loop = asyncio.get_running_loop()
    if sys.platform.startswith("linux"):
        # A socket's address is short, a home's path need not be.
        folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await loop.sock_connect(connection, f"/proc/self/fd/{folder}/launcher.sock")
        finally:
            os.close(folder)
        return
    path = str(run / "launcher.sock")
    with contextlib.suppress(OSError, ValueError, KeyError):
        path = json.loads((run / "launcher.json").read_bytes())["socket"]
    await loop.sock_connect(connection, path)


async def start_launcher(home: Path, *, python: str, sync: bool) -> None:
    """Start the home's launcher as a daemon; return when one answers or another holds it.

    Raises `LauncherError` with the launcher's own words.
    """
    if os.name != "posix":
        raise LauncherError(
            "the local launcher needs Linux or macOS; on Windows run the service inside WSL"
        )
    command: Sequence[str] = [
        *(python, "-I", "-S", "-X", "utf8", str(PROGRAM), str(home)),
        *(["--sync"] if sync else []),
    ]
    environment = {
        name: value for name, value in os.environ.items() if name not in _NOT_FOR_THE_LAUNCHER
    }

    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=START_TIMEOUT,
            check=False,
        )

    try:
        answer = await asyncio.get_running_loop().run_in_executor(None, run)
    except subprocess.TimeoutExpired as error:
        raise LauncherError(
            f"the launcher did not start within {START_TIMEOUT:.0f} s; see "
            f"{home / 'run' / 'launcher.log'}"
        ) from error
    except OSError as error:
        raise LauncherError(f"the launcher cannot be started with {python}: {error}") from error
    if answer.returncode not in (0, 3):
        reason = answer.stderr.decode("utf-8", "replace").strip() or f"exit {answer.returncode}"
        raise LauncherError(
            f"the launcher cannot be started: {reason}; see {home / 'run' / 'launcher.log'}"
        )
