"""A program on a terminal of its own: what it draws, and Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shell import PATIENCE
from typing_extensions import Self


class Terminal:
    """Runs a program on a pseudo-terminal; it is ended when the block is left."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        rows: int = 30,
        columns: int = 100,
    ) -> None:
        self._text = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        clean = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            list(command),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cwd,
            env={**clean, "TERM": "xterm"},
            start_new_session=True,
            # Ctrl-C goes to the group in the foreground of the terminal that is ours.
            preexec_fn=_take_terminal,
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def read_until(self, enough: Callable[[str], bool]) -> str:
        """Return all that was written once `enough` says so of it."""
        deadline = time.monotonic() + PATIENCE
        while not enough(self._text):
            assert time.monotonic() < deadline, f"in vain: {self._text!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                self._text += self._read()
        return self._text

    def write(self, text: str) -> None:
        """Type `text`."""
        os.write(self._master, text.encode())

    def interrupt(self) -> int:
        """Type Ctrl-C; return the exit code of the program."""
        self.write("\x03")
        return self.wait()

    def wait(self) -> int:
        """Return the exit code of the program; what it writes until then is read."""
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self._text!r}"
            if select.select([self._master], [], [], 0.05)[0]:
                self._text += self._read()
        return self._process.returncode

    def _read(self) -> str:
        try:
            return os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the other side has closed: Linux says EIO
            time.sleep(0.02)
            return ""


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
