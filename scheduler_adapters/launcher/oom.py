"""The kernel's out-of-memory killer: whom it shall take first, and whether it was at work."""

from __future__ import annotations

import contextlib
import os
import time

LATELY = 10.0
"""Seconds for which an end by SIGKILL is put down to a kill that was counted."""


class OomKiller:
    """What the launcher knows about it."""

    def __init__(self) -> None:
        self._kills = kills()
        self._acted_at = -1e9
        self._score = _score_of_jobs()

    def offer(self, pid: int) -> None:
        """Have it take this process before the launcher when memory runs out."""
        if self._score is None:
            return
        try:
            descriptor = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            return
        with contextlib.suppress(OSError):
            os.write(descriptor, self._score)
        os.close(descriptor)

    def note(self, count: int) -> None:
        """Take a count of its kills that somebody read."""
        if count > self._kills:
            self._kills, self._acted_at = count, time.monotonic()

    def acted_lately(self) -> bool:
        """Return whether it ended anybody a moment ago, on this host."""
        self.note(kills())
        return time.monotonic() - self._acted_at < LATELY


def kills() -> int:
    """Return how often it has acted since boot."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return 0


def _score_of_jobs() -> bytes | None:
    try:
        with open("/proc/self/oom_score_adj", "rb") as file:
            return b"%d" % min(1000, int(file.read()) + 200)
    except (OSError, ValueError):
        return None
