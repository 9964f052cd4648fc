"""A cgroup of its own for each job that states memory, so that the kernel keeps the limit.

Only where the system left us a part of the version 2 hierarchy to arrange; everywhere
else there is none, and memory is watched by the sampler alone. The files are those of
the kernel's ``admin-guide/cgroup-v2`` and of cgroups(7). It must not know jobs.

    what was delegated        holds nobody itself, as the kernel demands of who gives memory on
      simyard-launcher        the launcher, its sampler, and the manager that started it
      simyard-job-RUN-N       one job
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Collection

from .log import log
from .timers import Timers

CONTROLLER = "memory"
LEAF = "simyard-launcher"
PREFIX = "simyard-job-"
MAX_REMOVALS = 8
_GIVEN = "cgroup.subtree_control"


class Cgroup:
    """The cgroup of one job."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def limit(self, memory: int) -> bool:
        """Have the kernel end all that is inside when it needs more than `memory` bytes."""
        # Neither is everywhere: without swap, and before Linux 4.19.
        self._write("memory.swap.max", "0")
        self._write("memory.oom.group", "1")
        return self._write("memory.max", str(memory))

    def enter(self, pid: int) -> bool:
        """Move a process in; False where it is gone, or may not."""
        return self._write("cgroup.procs", str(pid))

    def populated(self) -> bool:
        """Return whether anybody lives inside, or below; a zombie does not."""
        return _counts(_read(self.folder, "cgroup.events")).get("populated", 0) > 0

    def oom_kills(self) -> int:
        """Return how many processes inside were ended because memory ran out."""
        return _counts(_read(self.folder, "memory.events")).get("oom_kill", 0)

    def kill(self) -> bool:
        """End all that is inside; False where nobody is, or where Linux is older than 5.14."""
        return self.populated() and self._write("cgroup.kill", "1")

    def remove(self) -> bool:
        """Remove it, with what the job may have made below; False while anybody is inside."""
        return all(_remove(folder) for folder, _, _ in os.walk(self.folder, topdown=False))

    def _write(self, name: str, text: str) -> bool:
        return _write(self.folder, name, text)


class Cgroups:
    """Makes and removes the cgroups of jobs below `root`; makes none where that is None."""

    def __init__(self, root: str | None, timers: Timers) -> None:
        self._root = root
        self._timers = timers
        self._run = os.urandom(4).hex()
        self._serial = 0

    def make(self, memory: int) -> Cgroup | None:
        """Return an empty cgroup with this limit in bytes, None where that cannot be."""
        if self._root is None:
            return None
        self._serial += 1
        cgroup = Cgroup(os.path.join(self._root, f"{PREFIX}{self._run}-{self._serial}"))
        if _make(cgroup.folder) and cgroup.limit(memory):
            return cgroup
        log("no cgroup can be made in %s; memory is only watched from now on", self._root)
        self._root = None
        cgroup.remove()
        return None

    def find(self, folder: object) -> Cgroup | None:
        """Return the cgroup that an earlier launcher made, and recorded under this name."""
        # Never by looking where a process lives: that may be within another launcher's job.
        if not isinstance(folder, str) or not os.path.basename(folder).startswith(PREFIX):
            return None
        return Cgroup(folder) if os.path.isdir(folder) else None

    def drop(self, cgroup: Cgroup, removals: int = 1) -> None:
        """Remove a cgroup whose job is over; who is still dying inside keeps it for a moment."""
        if cgroup.remove():
            return
        cgroup.kill()
        if removals < MAX_REMOVALS:
            delay = 0.02 * 2**removals
            self._timers.at(delay, lambda: self.drop(cgroup, removals + 1))
        else:
            log("the cgroup %s cannot be removed; the next launcher will try again", cgroup.folder)


# --- what was delegated --------------------------------------------------------------


def take_delegated(companions: Collection[int]) -> str | None:
    """Return the folder below which jobs may get cgroups, None where there is none.

    Who gives memory on may hold no process itself, so this moves us and those
    `companions` that live beside us into a leaf. Where anybody else lives there it is
    not for us alone, and nothing is changed.
    """
    own = folder_of(os.getpid())
    if own is None:
        return None
    # An earlier launcher of ours may have moved our manager, and so us.
    root = os.path.dirname(own) if os.path.basename(own) == LEAF else own
    if CONTROLLER not in _read(root, "cgroup.controllers").split() or not _is_ours(root):
        return None
    given = CONTROLLER in _read(root, "cgroup.subtree_control").split()
    if not given and not _give(root, {os.getpid(), *companions}):
        return None
    for entry in os.listdir(root):
        if entry.startswith(PREFIX):
            Cgroup(os.path.join(root, entry)).remove()  # what an earlier launcher left, if empty
    log("jobs that state memory are limited by the kernel, below %s", root)
    return root


def _is_ours(root: str) -> bool:
    """Return whether we may arrange `root`: it is writable, and systemd does not keep it."""
    needed = [root, *(os.path.join(root, name) for name in ("cgroup.procs", _GIVEN))]
    if not all(os.access(path, os.W_OK) for path in needed):
        return False
    if not os.path.isdir("/run/systemd/system"):
        return True
    # For root everything is writable; systemd says what it gave away (its CGROUP_DELEGATION).
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(root, name) == b"1"
    return False


def _give(root: str, ours: Collection[int]) -> bool:
    """Have the cgroups below `root` get the controller; on failure all is as it was."""
    for _look in range(5):
        inside = {int(word) for word in _read(root, "cgroup.procs").split()}
        if inside <= set(ours):
            break
        time.sleep(0.01)  # it may be a process of our own start that is just ending
    else:
        log("memory is only watched: others live in %s, too", root)
        return False
    leaf = os.path.join(root, LEAF)
    if _make(leaf):
        for pid in inside:
            _write(leaf, "cgroup.procs", str(pid))
        if _write(root, _GIVEN, f"+{CONTROLLER}"):
            return True
    for pid in inside:
        _write(root, "cgroup.procs", str(pid))
    _remove(leaf)
    log("memory is only watched: %s cannot be arranged", root)
    return False


# --- where it is -----------------------------------------------------------------------


def folder_of(pid: int) -> str | None:
    """Return the folder of a process's cgroup, None without version 2 or without a mount of it."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            path = parse_cgroup(file.read())
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return find_folder(file.read(), path) if path is not None else None
    except OSError:
        return None


def parse_cgroup(text: str) -> str | None:
    """Return the path in the version 2 hierarchy from the text of ``/proc/PID/cgroup``."""
    for line in text.splitlines():
        if line.startswith("0::/") and not line.endswith(" (deleted)"):
            return line[3:]
    return None


def find_folder(mountinfo: str, path: str) -> str | None:
    """Return where `path` is seen, from the text of ``/proc/self/mountinfo``."""
    if path.startswith("/.."):
        return None  # outside of our namespace
    for line in mountinfo.splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split(" ")[0] != "cgroup2":
            continue
        root, point = (_unescape(field) for field in fields.split(" ")[3:5])
        root = root.rstrip("/")
        if path == root or path.startswith(root + "/"):
            return os.path.normpath(point + path[len(root) :])
    return None


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


# --- its files -------------------------------------------------------------------------


def _make(folder: str) -> bool:
    try:
        os.mkdir(folder, 0o755)
    except FileExistsError:
        return True
    except OSError:
        return False
    return True


def _remove(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _write(folder: str, name: str, text: str) -> bool:
    try:
        descriptor = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _counts(text: str) -> dict[str, int]:
    """Read lines of a name and a number."""
    found = {}
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if number.isdecimal():
            found[name] = int(number)
    return found
