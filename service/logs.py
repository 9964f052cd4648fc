"""Reading what a job has written, a bounded piece at a time.

Blocking; callers run it in threads. A log may grow while it is read, hold any bytes,
and never end a line. It must not know jobs.
"""

from __future__ import annotations

import codecs
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidInput, NotFound

MOST = 1 << 20
"""Bytes of one piece."""

_BLOCK = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """One piece of a log."""

    data: bytes
    offset: int
    """Where the piece begins."""
    next_offset: int
    """Where to go on."""
    size: int
    """Bytes the log had when it was read."""

    @property
    def at_end(self) -> bool:
        """True where there was nothing more then."""
        return self.next_offset >= self.size


def read_log(
    path: Path, *, offset: int | None = None, tail: int | None = None, limit: int = MOST
) -> LogChunk:
    """Read at most `limit` bytes (never more than 1 MiB) from `offset`, or the last `tail` lines.

    A log that is not there is an empty one: the job has not started. Where the last
    `tail` lines are longer than `limit`, it is the last `limit` bytes of them. An
    offset beyond the end gives an empty piece there. Raises `InvalidInput` for
    negative numbers or both of `offset` and `tail`, `NotFound` where the path is no
    regular file.
    """
    if offset is not None and tail is not None:
        raise InvalidInput("give either 'offset' or 'tail', not both")
    for name, number in (("offset", offset), ("tail", tail), ("limit", limit)):
        if number is not None and number < 0:
            raise InvalidInput(f"'{name}' must not be negative, it is {number}")
    limit = min(limit, MOST)
    descriptor = _open(path)
    if descriptor is None:
        at = offset or 0
        return LogChunk(data=b"", offset=at, next_offset=at, size=0)
    try:
        size = os.fstat(descriptor).st_size
        begin = offset or 0
        if tail is not None:
            begin = _beginning_of_tail(descriptor, size, tail, limit)
            # What was appended since belongs to the next piece, or the tail is not one.
            limit = min(limit, size - begin)
        data = _read(descriptor, begin, limit)
        size = max(size, begin + len(data)) if data else size
        return LogChunk(data=data, offset=begin, next_offset=begin + len(data), size=size)
    finally:
        os.close(descriptor)


def decode(data: bytes, *, final: bool) -> tuple[str, int]:
    """Return text for `data`, and how many of its bytes were taken.

    What is no UTF-8 becomes U+FFFD. A character that is cut off at the end is left for
    the next piece (at most 3 bytes), unless `final`. So pieces of a log, each begun
    where the last one's bytes were taken up to, give the same text as the whole.
    """
    text, taken = codecs.utf_8_decode(data, "replace", final)
    return text, taken


def _open(path: Path) -> int | None:
    """Open for reading without being led elsewhere or kept waiting; None where nothing is."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotFound(f"the log {path.name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotFound(f"{path.name} is no regular file; there is no log to read")
    return descriptor


def _read(descriptor: int, offset: int, count: int) -> bytes:
    os.lseek(descriptor, offset, os.SEEK_SET)
    parts: list[bytes] = []
    while count > 0:
        part = os.read(descriptor, count)
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _beginning_of_tail(descriptor: int, size: int, lines: int, limit: int) -> int:
    """Find where the last `lines` lines begin, looking at no more than `limit` bytes."""
    if lines == 0:
        return size
    earliest = max(0, size - limit)
    at = size
    found = 0
    while at > earliest:
        begin = max(earliest, at - _BLOCK)
        block = _read(descriptor, begin, at - begin)
        end = len(block)
        while True:
            # The line break at the very end closes the last line, it opens none.
            newline = block.rfind(b"\n", 0, end)
            if newline < 0:
                break
            if begin + newline + 1 < size:
                found += 1
                if found == lines:
                    return begin + newline + 1
            end = newline
        at = begin
    return _character_start(descriptor, earliest)


def _character_start(descriptor: int, offset: int) -> int:
    """Step over the rest of a character that `offset` cuts in two."""
    if offset == 0:
        return 0
    ahead = _read(descriptor, offset, 3)
    rest = 0
    while rest < len(ahead) and ahead[rest] & 0xC0 == 0x80:
        rest += 1
    return offset + rest
