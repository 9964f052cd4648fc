"""The service's own log: lines for people or for machines, in a file that does not grow for ever.

Lines go to stderr. Where that is ``run/service.log``, as with a detached service, the file
is put aside when it has grown large, and stdout and stderr go on in a new one: also what
the interpreter itself says ends up there. It must not know jobs or HTTP.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import time
from pathlib import Path
from typing import Any

KEPT = 3
"""Files put aside that are kept: ``service.log.1`` is the newest."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextLines(logging.Formatter):
    """Lines such as ``2026-11-21T13:44:57.123Z INFO simyard.service: …``."""

    converter = staticmethod(time.gmtime)
    default_time_format, default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what else the record holds."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        document: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD and name not in document:
                document[name] = value
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        # ASCII without line breaks, whatever a message holds: a line stays one.
        return json.dumps(document, default=str)


class Stderr(logging.StreamHandler[Any]):
    """Writes to stderr, and keeps the log file behind it within `most` bytes."""

    def __init__(self, path: Path, *, most: int) -> None:
        super().__init__()
        self._path = path
        self._most = most

    def emit(self, record: logging.LogRecord) -> None:
        if self._most:
            with contextlib.suppress(OSError):
                self._rotate_if_large()
        super().emit(record)

    def _rotate_if_large(self) -> None:
        facts = os.fstat(2)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size < self._most:
            return
        if not os.path.samestat(facts, self._path.stat(follow_symlinks=False)):
            return  # somebody else's file: not ours to move
        for number in range(KEPT, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(self._aside(number - 1), self._aside(number))
        os.replace(self._path, self._aside(1))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if os.path.samestat(os.fstat(1), facts):
                os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
        finally:
            os.close(descriptor)

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def log_to_stderr(path: Path, *, kind: str, level: str, most: int) -> None:
    """Send our log lines to stderr; `path` is the file that it may be."""
    handler = Stderr(path, most=most)
    handler.setFormatter(JsonLines() if kind == "json" else TextLines())
    ours = logging.getLogger("simyard")
    ours.addHandler(handler)
    ours.setLevel(level.upper())
    ours.propagate = False
