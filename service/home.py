"""The home folder: where everything of one service lies, and who holds it.

Knows paths, modes and the manager's lock; nothing of what the files mean.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import HomeInUse, InvalidInput, PermissionDenied

if sys.platform == "win32":  # pragma: win32
    import msvcrt
else:
    import fcntl


def default_path() -> Path:
    """Return `SIMYARD_HOME`, else the platform's folder for a user's state."""
    given = os.environ.get("SIMYARD_HOME")
    if given:
        return Path(given).expanduser()
    from platformdirs import user_state_dir

    return Path(user_state_dir("simyard", appauthor=False))


def boot_id() -> str:
    """Name this boot of this host: pids mean something only together with it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        import psutil

        return f"boot-{int(psutil.boot_time())}"


class Home:
    """The folder of one service; nothing is ever written outside of it."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.store = self.path / "store.db"
        self.settings = self.path / "settings.toml"
        self.run = self.path / "run"
        self.endpoint = self.run / "endpoint.json"
        self.service_log = self.run / "service.log"
        self.launcher = self.path / "launcher"
        self.jobs = self.path / "jobs"
        self.uploads = self.path / "uploads"

    def prepare(self) -> None:
        """Create the folders, private to their owner.

        Raises `PermissionDenied` where the folder is not ours or cannot be written,
        `InvalidInput` where the path is no folder.
        """
        for folder in (self.path, self.run, self.launcher, self.jobs):
            try:
                folder.mkdir(mode=0o700, parents=folder is self.path, exist_ok=True)
            except FileExistsError:
                raise InvalidInput(f"{folder} is a file; choose another --home") from None
            except PermissionError as error:
                raise PermissionDenied(
                    f"no permission to create {folder}; choose a folder of yours with --home "
                    "or SIMYARD_HOME"
                ) from error
            except OSError as error:
                raise InvalidInput(f"cannot create {folder}: {error.strerror}") from error
            facts = folder.stat()
            if hasattr(os, "getuid") and facts.st_uid != os.getuid():
                raise PermissionDenied(
                    f"{folder} belongs to another user; choose a folder of yours with --home"
                )
            if facts.st_mode & 0o077 and os.name == "posix":
                folder.chmod(0o700)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionDenied(f"{folder} cannot be written; mend it or choose another")

    @property
    def has_history(self) -> bool:
        """True where jobs or records lie here: a missing store would mean a lost one."""
        return any(
            next(iter(folder.iterdir()), None) is not None
            for folder in (self.jobs, self.launcher)
            if folder.is_dir()
        )

    def identity(self) -> str:
        """Name this home for all time, whatever its host and path are called; noted in it."""
        note = self.path / "home.id"
        try:
            return note.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            write_private(note, f"{uuid.uuid4().hex}\n".encode())
            return note.read_text(encoding="ascii").strip()

    def highest_job_folder(self) -> int:
        """Return the highest id that ever had a folder here, 0 where none has."""
        thousands = _numbers_in(self.jobs)
        return max(_numbers_in(self.jobs / str(max(thousands))), default=0) if thousands else 0

    def job_folders(self) -> list[int]:
        """Return the ids of all jobs that have a folder here."""
        thousands = _numbers_in(self.jobs)
        return [job_id for part in thousands for job_id in _numbers_in(self.jobs / str(part))]

    def write_endpoint(self, endpoint: Mapping[str, Any]) -> None:
        """Publish how to reach the service; readable by its owner alone from the first byte."""
        write_private(self.endpoint, json.dumps(dict(endpoint)).encode())

    def remove_endpoint(self, pid: int) -> None:
        """Withdraw the endpoint file where it is still the one of process `pid`."""
        try:
            if json.loads(self.endpoint.read_bytes()).get("pid") == pid:
                self.endpoint.unlink()
        except (OSError, ValueError, AttributeError):
            return


def _numbers_in(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()]


def write_private(path: Path, content: bytes) -> None:
    """Replace `path` in one step by a file of mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, flags, 0o600), "wb") as file:
        file.write(content)
    os.replace(temporary, path)


class ManagerLock:
    """The right to be the one manager of a home, given back by the system when we die."""

    def __init__(self, home: Home) -> None:
        self._path = home.run / "manager.lock"
        self._descriptor: int | None = None

    @property
    def identity(self) -> str:
        """Name the lock itself: who holds it now knows that who held it before is dead."""
        assert self._descriptor is not None
        facts = os.fstat(self._descriptor)
        return f"{boot_id()}:{facts.st_dev}:{facts.st_ino}"

    def acquire(self) -> dict[str, Any]:
        """Take the lock and note the owner in it; return the owner's facts.

        Raises `HomeInUse` naming who holds it.
        """
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self._path, flags, 0o600)
        owner = self._owner(descriptor)
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise HomeInUse(
                f"the home {self._path.parent.parent} is in use by another Simyard service"
                f" (process {owner.get('pid', '?')} on {owner.get('host', 'this host')}, since "
                f"{owner.get('started_at', '?')}); use that one, or stop it with 'simyard stop'",
                owner=owner,
            ) from None
        here = socket.gethostname()
        if owner.get("host", here) != here and owner.get("boot_id") != boot_id():
            os.close(descriptor)
            raise HomeInUse(
                f"the home {self._path.parent.parent} is in use by a Simyard service on the host "
                f"{owner['host']}; use that one, or, where that host is gone for good, remove "
                f"{self._path}",
                owner=owner,
            )
        mine = {
            "pid": os.getpid(),
            "host": here,
            "boot_id": boot_id(),
            "started_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(mine).encode())
        self._descriptor = descriptor
        _held.add(self)
        return mine

    def release(self) -> None:
        """Give the home back and leave no owner behind."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def let_go_in_child(self) -> None:
        """Close a fork's copy: the lock lives as long as any copy of it is open."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @staticmethod
    def _owner(descriptor: int) -> dict[str, Any]:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            owner = json.loads(os.read(descriptor, 4096))
            return owner if isinstance(owner, dict) else {}
        except (OSError, ValueError):
            return {}


_held: weakref.WeakSet[ManagerLock] = weakref.WeakSet()


def _let_go_of_locks() -> None:
    for lock in list(_held):
        lock.let_go_in_child()


if hasattr(os, "register_at_fork"):
    # A worker that outlives the process it was forked from must not keep its home.
    os.register_at_fork(after_in_child=_let_go_of_locks)
