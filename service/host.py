"""The machine itself: what it has, and how loaded it is right now.

Sampling can block for long (a network disk that hangs), so it happens in a thread
of its own; the event loop only reads the latest sample. It must not know jobs.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

log = logging.getLogger(__name__)

_NO_LIMIT = 1 << 60
_MEMORY_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)


def usable_cores() -> int:
    """Return how many cores this process may use: affinity and a container's quota count."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota, _, period = _first_line("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(1, cores)


def usable_memory() -> int:
    """Return the bytes of memory there are, or that a container leaves us."""
    total = int(psutil.virtual_memory().total)
    for path in _MEMORY_LIMITS:
        limit = _first_line(path)
        if limit.isdigit() and 0 < int(limit) < _NO_LIMIT:
            total = min(total, int(limit))
    return total


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSample:
    """How the host stood at one moment. Sizes are bytes, `taken` is monotonic seconds."""

    hostname: str
    cpu_count: int
    cpu_percent: float
    memory_total: int
    memory_available: int
    disk_total: int
    disk_free: int
    """Of the file system that holds Simyard's home, as far as we may use it."""
    load: tuple[float, float, float] | None
    taken: float

    def as_dict(self) -> dict[str, Any]:
        """Return the shape of ``host`` in ``GET /api/resources``."""
        return {
            "hostname": self.hostname,
            "cpu_count": self.cpu_count,
            "cpu_percent": self.cpu_percent,
            "memory_total": self.memory_total,
            "memory_available": self.memory_available,
            "disk_total": self.disk_total,
            "disk_free": self.disk_free,
            "load": list(self.load) if self.load is not None else None,
        }


def sample_host(folder: Path) -> HostSample:
    """Measure the host once. Blocking.

    The processor's share is that since the call before, 0 at the first.
    """
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(folder))
    try:
        load = os.getloadavg()
    except (AttributeError, OSError):
        load = None
    return HostSample(
        hostname=socket.gethostname(),
        cpu_count=usable_cores(),
        cpu_percent=float(psutil.cpu_percent(interval=None)),
        memory_total=usable_memory(),
        memory_available=int(memory.available),
        disk_total=int(disk.total),
        disk_free=int(disk.free),
        load=load,
        taken=time.monotonic(),
    )


class HostMonitor:
    """Keeps a recent sample of the host at hand, taken by a thread of its own."""

    def __init__(self, folder: Path, *, interval: float = 2.0) -> None:
        self._folder = folder
        self._interval = interval
        self._ended = threading.Event()
        self._sampled = threading.Event()
        self._latest: HostSample | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample. Idempotent."""
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, name="host-monitor", daemon=True)
            self._thread.start()

    def stop(self, *, patience: float = 1.0) -> None:
        """End the thread; one that hangs in the system is left behind after `patience` seconds."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(patience)
            self._thread = None

    @property
    def latest(self) -> HostSample | None:
        """The newest sample, None before the first. Never blocks."""
        return self._latest

    @property
    def age(self) -> float:
        """Seconds since the newest sample; infinite before the first."""
        latest = self._latest
        return math.inf if latest is None else time.monotonic() - latest.taken

    def wait(self, timeout: float) -> HostSample | None:
        """Wait for the first sample. Blocking: not for the event loop."""
        self._sampled.wait(timeout)
        return self._latest

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._latest = sample_host(self._folder)
                self._sampled.set()
            except (OSError, psutil.Error) as error:
                log.warning("the host could not be measured: %s", error)
            self._ended.wait(self._interval)
