"""Becoming the launcher of a home: alone there, in the background, tied to nobody."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import signal
import stat
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from .adoption import Adoption
from .cgroup import take_delegated
from .journal import encode
from .listener import Listener
from .log import log
from .loop import Launcher


def main(arguments: list[str]) -> int:
    """Become the launcher of a home, in the background; return once it answers.

    Exit status: 0 it runs, 3 another one holds this home, 1 it failed (the reason is
    on standard error and in ``run/launcher.log``).
    """
    if os.name != "posix":
        print("the local launcher needs Linux or macOS; use WSL on Windows", file=sys.stderr)
        return 1
    flags = {word for word in arguments if word.startswith("--")}
    places = [word for word in arguments if not word.startswith("--")]
    if len(places) != 1 or not flags <= {"--sync"}:
        print("usage: launcher HOME [--sync]", file=sys.stderr)
        return 1
    idle = float(os.environ.get("SIMYARD_LAUNCHER_IDLE") or 10.0)
    return start(os.path.abspath(places[0]), sync="--sync" in flags, idle=idle)


def start(home: str, *, sync: bool, idle: float) -> int:
    """Leave a launcher of `home` behind; return the exit status of who started it."""
    for folder in ("run", "launcher"):
        os.makedirs(os.path.join(home, folder), mode=0o700, exist_ok=True)
    starters = (os.getpid(), os.getppid())
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os.setsid()
        if os.fork() == 0:
            _be_the_launcher(home, writing, starters, sync=sync, idle=idle)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        word = pipe.read()
    if word == b"ready":
        return 0
    if word == b"held":
        return 3
    print(word.decode("utf-8", "replace") or "the launcher died at its start", file=sys.stderr)
    return 1


def _be_the_launcher(
    home: str, answer: int, starters: tuple[int, int], *, sync: bool, idle: float
) -> NoReturn:
    """Serve until there is nothing left to do, and end this process; `answer` in between."""
    code = 1
    told = False

    def tell(word: bytes) -> None:
        nonlocal told
        if not told:
            told = True
            with contextlib.suppress(OSError):
                os.write(answer, word)
            os.close(answer)

    try:
        log_file = _open_log(os.path.join(home, "run"))
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(log_file, 1)
        os.dup2(log_file, 2)
        os.chdir("/")
        lock = _lock(os.path.join(home, "run", "launcher.lock"), 3.0)
        if lock is None:
            tell(b"held")
        else:
            os.ftruncate(lock, 0)
            owner = {"pid": os.getpid(), "started_at": time.time()}
            os.pwrite(lock, encode(owner).encode(), 0)
            _serve(home, starters, lambda: tell(b"ready"), sync=sync, idle=idle)
        code = 0
    except BaseException as error:
        log("the launcher failed: %s", traceback.format_exc())
        tell(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


def _serve(
    home: str, starters: tuple[int, int], ready: Callable[[], None], *, sync: bool, idle: float
) -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ):
        # Jobs outlive logouts and managers, and so their launcher has to.
        signal.signal(number, signal.SIG_IGN)
    root = take_delegated(starters)
    launcher = Launcher(home, sync=sync, idle=idle, cgroup_root=root)
    adoption = Adoption(launcher)
    launcher.journal.begin(adoption.from_records())
    listener = Listener(os.path.join(home, "run"))
    adoption.follow()
    gc.collect()
    gc.freeze()
    gc.disable()
    log("launcher of %s is ready", home)
    ready()
    launcher.run(listener)
    with contextlib.suppress(OSError):
        listener.close()
    log("nothing left to do; the launcher ends")


def _lock(path: str, patience: float) -> int | None:
    """Take the launcher's lock; a child of a dying launcher may hold it for a moment."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError:
            if time.monotonic() >= deadline:
                os.close(lock)
                return None
            time.sleep(0.01)


def _open_log(run: str) -> int:
    path = os.path.join(run, "launcher.log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "launcher.log is not a regular file")
    if os.fstat(descriptor).st_size > 1 << 20:
        os.ftruncate(descriptor, 0)
    return descriptor
