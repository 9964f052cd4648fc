"""The launcher's journal: the append-only files of what happened, and how they are read back.

At once the report stream to the manager. What the records mean is written in
``docs/architecture-launcher.md``; in here they are objects of JSON, one a line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any

from .log import log

GENERATION_BYTES = int(os.environ.get("SIMYARD_LAUNCHER_GENERATION") or 32 << 20)
CHUNK_BYTES = 64 << 10

Record = dict[str, Any]

encode = json.JSONEncoder(separators=(",", ":")).encode


class Journal:
    """The generation that is being written, and the earlier ones for who has not read them."""

    def __init__(self, folder: str, *, sync: bool) -> None:
        self.folder = folder
        self.generation = 0
        self.end = 0
        """Bytes of the present generation that are written."""
        self._sync = sync
        self._file = -1
        self._lines: list[str] = []
        self._unwritten = b""
        self._refused = False
        self._full_at = GENERATION_BYTES

    def path(self, generation: int) -> str:
        """Return where a generation is, or will be."""
        return os.path.join(self.folder, f"{generation:08d}.log")

    def begin(self, head: Iterable[Record]) -> None:
        """Start the next generation; it appears with its whole head or not at all."""
        number = max(generations(self.folder), default=self.generation) + 1
        text = "".join(encode(record) + "\n" for record in head).encode()
        temporary = os.path.join(self.folder, ".next")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(temporary, flags, 0o600)
        try:
            written = 0
            while written < len(text):
                written += os.write(file, text[written:])
            if self._sync:
                os.fsync(file)
            os.rename(temporary, self.path(number))
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self.generation, self.end = file, number, len(text)
        self._full_at = GENERATION_BYTES

    @property
    def full(self) -> bool:
        """True when it is time for the next generation."""
        return self.end > self._full_at

    def rotate(self, head: Iterable[Record]) -> None:
        """Start the next generation; where that cannot be, go on in this one for a while."""
        try:
            self.begin(head)
        except OSError as error:
            log("a new generation of records cannot be begun: %s", error)
            self._full_at = self.end + (1 << 20)

    def add(self, record: Record) -> None:
        """Take a record for the next `flush`."""
        self._lines.append(encode(record) + "\n")

    def flush(self) -> bool:
        """Write all that was added in one piece; False while the disk refuses it."""
        if self._lines:
            self._unwritten += "".join(self._lines).encode()
            self._lines.clear()
        if not self._unwritten:
            return True
        try:
            while self._unwritten:
                written = os.write(self._file, self._unwritten)
                self.end += written
                self._unwritten = self._unwritten[written:]
            if self._sync:
                os.fdatasync(self._file)
        except OSError as error:
            if not self._refused:
                log("records cannot be written, trying again until they can: %s", error)
            self._refused = True
            return False
        if self._refused:
            log("records can be written again")
            self._refused = False
        return True

    @property
    def stuck(self) -> bool:
        """True while the disk refuses what is to be written."""
        return bool(self._unwritten)

    def read(self, generation: int, offset: int) -> tuple[int, int, bytes]:
        """Return whole lines from a place on, as (generation, end, lines); empty at the end."""
        while True:
            if generation == self.generation:
                data = os.pread(self._file, CHUNK_BYTES, offset)
                lines = _whole_lines(data)
                if not lines and len(data) == CHUNK_BYTES:
                    lines = _whole_lines(os.pread(self._file, self.end - offset, offset))
                return generation, offset + len(lines), lines
            known = [number for number in generations(self.folder) if number >= generation]
            if generation in known:
                with open(self.path(generation), "rb") as file:
                    file.seek(offset)
                    data = file.read(CHUNK_BYTES)
                    lines = _whole_lines(data)
                    if not lines and len(data) == CHUNK_BYTES:
                        lines = _whole_lines(data + file.read())
                if lines:
                    return generation, offset + len(lines), lines
                known.remove(generation)
            generation, offset = (known[0] if known else self.generation), 0


def generations(folder: str) -> list[int]:
    """Return the numbers of the files in `folder`, oldest first."""
    return sorted(
        int(name[:-4]) for name in os.listdir(folder) if re.fullmatch(r"\d{8,}\.log", name)
    )


def read_unfinished(path: str) -> tuple[dict[str, dict[str, Record]], str]:
    """Return what a generation leaves open, each tag's records by kind, and its boot id."""
    found: dict[str, dict[str, Record]] = {}
    boot = ""
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
                kind, tag = record["r"], record.get("tag")
            except (ValueError, KeyError, TypeError, AttributeError):
                if line.endswith(b"\n"):
                    log("a record in %s cannot be read and is left out", path)
                continue
            if kind == "launcher":
                boot = str(record.get("boot", ""))
            elif kind in ("starting", "started") or (kind == "ended" and record.get("left")):
                found.setdefault(tag, {})[kind] = record
            elif kind in ("ended", "cleared", "withdrawn", "failed"):
                found.pop(tag, None)
    return found, boot


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]
