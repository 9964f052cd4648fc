"""Start a detached service for a home, and hand a home over to one.

Standard library only. Starters agree by a lock of their own, `run/start.lock`: who
holds it is about to bring a service up, and everybody else who finds the home
without one waits for that instead of starting another. That at most one service
ever holds the home is not decided here but by the service's own lock.

Run as ``python -m simyard.handler.handover HOME [flag …]`` it waits until the home is
free and starts the service then; a process that is about to end leaves this behind.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from ..errors import NotRunning, PermissionDenied, ServiceUnavailable, SimyardError
from .endpoint import Endpoint, find_endpoint

if sys.platform != "win32":
    import fcntl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO

    from typing_extensions import Self

START_SECONDS = 30.0
_POLL = 0.02


class StartLock:
    """The right to bring up a service for a home; freed by the system when its holders die."""

    def __init__(self, home: str) -> None:
        self._path = os.path.join(home, "run", "start.lock")
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def descriptor(self) -> int | None:
        """The open file, for a child that shall share the lock."""
        return self._descriptor

    def try_acquire(self) -> bool:
        """Take the lock where it is free."""
        if self._descriptor is None:
            self._descriptor = _open_private(self._path)
        if sys.platform == "win32":  # there the service's own lock must do
            return True
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            return False
        return True

    def acquire(self, home: str, seconds: float = START_SECONDS) -> Endpoint | None:
        """Take the lock, or return the service that its holder has brought up meanwhile."""
        deadline = time.monotonic() + seconds
        while not self.try_acquire():
            found = answering(home)
            if found is not None:
                return found
            if time.monotonic() > deadline:
                raise ServiceUnavailable(
                    f"another process has been starting a service for the home {home} for "
                    f"{seconds:.0f} s; see {home}/run/service.log, and try again"
                )
            time.sleep(_POLL)
        return None

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def start_detached(
    home: str,
    *,
    flags: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
    seconds: float = START_SECONDS,
) -> Endpoint:
    """Return the service of `home`, started in the background where there was none.

    However many call this at once, one service comes up and all of them get it. `flags`
    are options of 'simyard serve'; `say` is told one line before a start. Raises
    `ServiceUnavailable` with the service's own words where it does not come up.
    """
    with StartLock(home) as lock:
        found = lock.acquire(home, seconds) or answering(home)
        if found is not None:
            return found
        if say is not None:
            say(f"simyard: starting a service in the background for {home}")
            _warn_once(home, say)
        return bring_up(home, flags, seconds=seconds)


def _warn_once(home: str, say: Callable[[str], None]) -> None:
    """At the first start of a home, say where this machine would end its jobs."""
    # The second where the store is no file here.
    known = ("store.db", "home.id")
    if not any(os.path.exists(os.path.join(home, name)) for name in known):
        from .survival import hints

        for hint in hints():
            say(f"simyard: {hint} (see 'simyard doctor')")


def bring_up(home: str, flags: Sequence[str] = (), *, seconds: float = START_SECONDS) -> Endpoint:
    """Start a service and wait until it answers; the caller holds the start lock."""
    import subprocess
    import tempfile

    if not sys.executable:
        raise ServiceUnavailable("cannot tell which Python runs this; run 'simyard serve' yourself")
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(
            [sys.executable, "-m", "simyard", "serve", "--detach", "--home", home, *flags],
            # Not the caller's folder: `-m` would import what lies there.
            cwd=home,
            env=service_environment(),
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
        )
        while (found := answering(home)) is None:
            code = process.poll()
            if code and not _held(home):
                raise _not_started(home, _read_back(words))
            if time.monotonic() > deadline:
                if code is None:
                    process.kill()
                    process.wait()
                raise _not_started(home, f"it did not answer within {seconds:.0f} s")
            time.sleep(_POLL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.returncode = process.returncode or 0  # nothing more is wanted of it
    return found


def _read_back(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _not_started(home: str, words: str) -> ServiceUnavailable:
    said = " ".join(line.strip() for line in words.splitlines() if line.strip())[-2000:]
    return ServiceUnavailable(
        f"the service of the home {home} did not start: {said or 'it said nothing'}; "
        f"'simyard serve --home {home}' shows more"
    )


def answering(home: str) -> Endpoint | None:
    """Return the service of `home` where one answers and proves itself."""
    from .wire import Connection

    try:
        with Connection(find_endpoint(home)) as connection:
            return connection.prove()
    except (NotRunning, ServiceUnavailable):
        return None
    except PermissionDenied:
        # An endpoint file that others can read is an error; another program that has
        # taken the port of a dead service is not.
        find_endpoint(home)
        return None


def wait_for_handover(home: str, *, seconds: float = START_SECONDS) -> Endpoint | None:
    """Return the service that is just being brought up for `home`; None where none is."""
    if not os.path.exists(os.path.join(home, "run", "start.lock")):
        return None
    with StartLock(home) as lock:
        return lock.acquire(home, seconds) or answering(home)


def leave_behind(home: str, flags: Sequence[str], lock: StartLock) -> None:
    """Leave a process that starts a service once we are gone; it inherits the lock."""
    import subprocess

    descriptors = [] if lock.descriptor is None else [lock.descriptor]
    process = subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.handover", home, *flags],
        cwd=home,
        env=service_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=descriptors,
    )
    process.returncode = 0  # it outlives us


def service_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment for a service: the same Simyard, and no address of another one."""
    env = dict(os.environ if environ is None else environ)
    for name in ("SIMYARD_URL", "SIMYARD_TOKEN", "SIMYARD_HOME"):
        env.pop(name, None)
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folder = os.path.dirname(package)
    entries = [
        os.path.abspath(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry
    ]
    # Where we were found through sys.path alone (a checkout under test), a child would not be.
    on_path = os.path.basename(package) == "simyard" and folder in map(os.path.abspath, sys.path)
    if on_path and not folder.endswith("-packages") and folder not in entries:
        entries.insert(0, folder)
    if entries:
        env["PYTHONPATH"] = os.pathsep.join(entries)
    return env


def _held(home: str) -> bool:
    """True while a service holds the home, ready or not."""
    if sys.platform == "win32":
        return False
    try:
        descriptor = os.open(os.path.join(home, "run", "manager.lock"), os.O_RDWR)
    except OSError:
        return False
    try:
        # Shared and for an instant only: our child has given up already.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _open_private(path: str) -> int:
    folder = os.path.dirname(path)
    home = os.path.dirname(folder)
    try:
        os.makedirs(os.path.dirname(home), exist_ok=True)
        for place in (home, folder):
            with contextlib.suppress(FileExistsError):
                os.mkdir(place, 0o700)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise PermissionDenied(
            f"the home {home} cannot be written ({error.strerror}); choose a folder of yours with "
            "--home or SIMYARD_HOME"
        ) from None


def main(arguments: Sequence[str]) -> int:
    """Wait until the home is free, then start a service for it."""
    home, flags = arguments[0], arguments[1:]
    deadline = time.monotonic() + 60
    while _held(home) and time.monotonic() < deadline:
        time.sleep(_POLL)
    try:
        if answering(home) is None:
            bring_up(home, flags)
    except SimyardError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
