"""What the system says about processes: who lives, since when, below whom, marked how.

It must not know records, jobs or the protocol. The fields of ``/proc/PID/stat`` are
those of proc_pid_stat(5); where there is no ``/proc`` (macOS) the table comes from
``ps`` and tags cannot be read.

A process is named by its pid *and* its start time; together with the boot id
that pair never comes back, a pid alone does.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Collection
from typing import NamedTuple

try:
    import fcntl
except ImportError:  # pragma: win32
    fcntl = None  # type: ignore[assignment]

LINUX = sys.platform.startswith("linux") and os.path.exists("/proc/self/stat")
TAG_VARIABLE = "SIMYARD_TAG"

_NEEDLE = b"\0" + TAG_VARIABLE.encode() + b"="
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_PIDFD_GET_INFO = 0xC000FF0B | (64 << 16)
"""_IOWR(PIDFS_IOCTL_MAGIC, 11, 64 bytes of struct pidfd_info), linux/pidfd.h of 6.15."""
_PIDFD_INFO_EXIT = 1 << 3


class Process(NamedTuple):
    """One process at one moment; `rss` in bytes, `cpu` in seconds, `start` in ticks since boot."""

    pid: int
    ppid: int
    pgrp: int
    session: int
    start: int
    state: str
    rss: int
    cpu: float

    @property
    def dead(self) -> bool:
        """True for a zombie: it does nothing any more and cannot be signalled."""
        return self.state in "ZX"


# --- one process ---------------------------------------------------------------


def parse_stat(text: bytes) -> Process:
    """Read one line of ``/proc/PID/stat``; the name in it may hold anything, ')' too."""
    close = text.rindex(b")")
    fields = text[close + 2 :].split()
    return Process(
        pid=int(text[: text.index(b" ")]),
        ppid=int(fields[1]),
        pgrp=int(fields[2]),
        session=int(fields[3]),
        start=int(fields[19]),
        state=fields[0].decode("ascii", "replace"),
        rss=int(fields[21]) * _PAGE,
        cpu=(int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])) / _TICKS,
    )


def read_process(pid: int) -> Process | None:
    """Return the facts about `pid`, None where there is no such process."""
    if not LINUX:
        return _ps_table().get(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            return parse_stat(file.read(4096))
    except (OSError, ValueError, IndexError):
        return None


def read_tag(pid: int) -> str | None:
    """Return the tag in the environment that `pid` was started with, None without one."""
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            text = b"\0" + file.read()
            while chunk := file.read():
                text += chunk
    except OSError:
        return None
    place = text.find(_NEEDLE)
    if place < 0:
        return None
    place += len(_NEEDLE)
    end = text.find(b"\0", place)
    return text[place : end if end >= 0 else len(text)].decode("utf-8", "surrogateescape")


def read_pss(pid: int) -> int | None:
    """Return the memory of `pid` with shared pages divided among their users, in bytes."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    return None


def zombie_status(pid: int) -> int | None:
    """Return the wait status of a zombie that somebody else has not reaped yet."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = (text := file.read(4096))[text.rindex(b")") + 2 :].split()
            return int(fields[49]) if fields[0] == b"Z" else None
    except (OSError, ValueError, IndexError):
        return None


def pidfd_status(descriptor: int) -> int | None:
    """Return the wait status kept by a pidfd after the end (Linux 6.15), None before or without."""
    if fcntl is None:
        return None
    buffer = bytearray(64)
    struct.pack_into("<Q", buffer, 0, _PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(descriptor, _PIDFD_GET_INFO, buffer, True)
    except OSError:
        return None
    if not struct.unpack_from("<Q", buffer, 0)[0] & _PIDFD_INFO_EXIT:
        return None
    return int(struct.unpack_from("<i", buffer, 60)[0])


def open_pidfd(pid: int, start: int) -> int | None:
    """Return a descriptor of exactly that process, None where it is gone or cannot be had."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    process = read_process(pid)
    if process is None or process.start != start:
        os.close(descriptor)
        return None
    return descriptor


def send_signal(pid: int, start: int, *numbers: int) -> bool:
    """Signal exactly the process that has this pid and start time; False where it is gone."""
    descriptor = open_pidfd(pid, start)
    try:
        if descriptor is None:
            process = read_process(pid)
            if process is None or process.start != start:
                return False
            for number in numbers:
                os.kill(pid, number)
        else:
            for number in numbers:
                signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        if descriptor is not None:
            os.close(descriptor)
    return True


def boot_id() -> str:
    """Name this boot of this host."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return _ps_boot()


def now_ticks() -> int:
    """Return the start time that a process born now would have."""
    if not LINUX:
        return int(time.time())
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // (1_000_000_000 // _TICKS)


def age(start: int) -> float:
    """Return for how many seconds a process with this start time has lived, sleep included."""
    if not LINUX:
        return max(0.0, time.time() - start)
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - start / _TICKS)


# --- all processes --------------------------------------------------------------


def table() -> dict[int, Process]:
    """Return all processes by pid."""
    if not LINUX:
        return _ps_table()
    found = {}
    for name in os.listdir("/proc"):
        if name[0] in "123456789":
            process = read_process(int(name))
            if process is not None:
                found[process.pid] = process
    return found


def children(pid: int) -> list[int] | None:
    """Return the direct children of the single-threaded process `pid`, None where unknown."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb", buffering=0) as file:
            text = file.read(65536)
            while chunk := file.read(65536):
                text += chunk
    except OSError:
        return None
    return [int(word) for word in text.split()]


def find_tagged(tags: Collection[str]) -> dict[str, list[Process]]:
    """Search all processes for `tags`; those without any are left out."""
    found: dict[str, list[Process]] = {}
    if not tags:
        return found
    for process in table().values():
        if not process.dead:
            tag = read_tag(process.pid)
            if tag is not None and tag in tags:
                found.setdefault(tag, []).append(process)
    return found


# --- without /proc -----------------------------------------------------------------


def _ps_table() -> dict[int, Process]:
    """Ask ps(1), as macOS has no /proc; the start is seconds since the epoch there."""
    columns = "pid=,ppid=,pgid=,state=,rss=,lstart="
    answer = subprocess.run(
        ["/bin/ps", "-axo", columns],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C"},
    )
    found = {}
    for line in answer.stdout.splitlines():
        words = line.split()
        try:
            pid, ppid, group = int(words[0]), int(words[1]), int(words[2])
            start = int(time.mktime(time.strptime(" ".join(words[5:10]), "%a %b %d %H:%M:%S %Y")))
            found[pid] = Process(
                pid, ppid, group, group, start, words[3][:1], int(words[4]) * 1024, 0.0
            )
        except (ValueError, IndexError):
            continue
    return found


def _ps_boot() -> str:
    answer = subprocess.run(
        ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown-boot"
