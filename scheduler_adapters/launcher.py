"""The launcher: starts local jobs, follows them and records how they end.

One plain process per home, run by this file's path under a bare interpreter
(``python -I -S launcher.py HOME``): standard library only, everything imported
at the start, so that it outlives the release and the manager that started it.
It starts nothing twice, and it writes down each fact before anybody is told. It
knows tags, not jobs: no priorities, no store, no HTTP.

Sections: records · spawning · jobs · the launcher (input, starting, ending,
trees, timers, the sampler) · adoption · the connection · becoming a daemon.
The protocol and the records are described in ``docs/architecture-launcher.md``.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import heapq
import json
import os
import re
import resource
import selectors
import signal
import socket
import stat
import struct
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from . import processes, sampler
    from .processes import Leader, Process
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import processes
    import sampler
    from processes import Leader, Process

    del sys.path[0]

PROTOCOL = 1
GENERATION_BYTES = int(os.environ.get("SIMYARD_LAUNCHER_GENERATION") or 32 << 20)
CHUNK_BYTES = 64 << 10
MAX_LINE_BYTES = 256 << 20
OUT_HIGH_WATER = 512 << 10
SPAWN_BATCH = 32
LEFTOVER_GRACE = 2.0
"""Seconds that what a leader leaves behind gets between the polite signal and the kill."""
OVERRUN_GRACE = 2.0
YOUNG_SECONDS = 0.3
"""Jobs that end sooner are never shown to the sampler."""
CAUSES = frozenset({"cancelled", "timeout", "out_of_memory", "output_limit"})

encode = json.JSONEncoder(separators=(",", ":")).encode
Record = dict[str, Any]


def log(message: str, *args: object) -> None:
    """Write one line into the launcher's log, which is our standard error."""
    text = message % args if args else message
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} [{os.getpid()}] {text}\n".encode("utf-8", "backslashreplace"))


# --- fault points --------------------------------------------------------------------

_fault, _, _count = os.environ.get("SIMYARD_FAULTPOINT", "").partition(":")
_passings = int(_count or 1) if _fault.startswith("launcher.") else 0


def faultpoint(name: str) -> None:
    """Pass the point `name`; die here where a test asked for it."""
    global _passings
    if _passings and name == _fault:
        _passings -= 1
        if not _passings:
            os.kill(os.getpid(), signal.SIGKILL)


# --- records ---------------------------------------------------------------------------


def generations(folder: str) -> list[int]:
    """Return the numbers of the record files in `folder`, oldest first."""
    return sorted(
        int(name[:-4]) for name in os.listdir(folder) if re.fullmatch(r"\d{8,}\.log", name)
    )


class Records:
    """The append-only file of what happened; at once the report stream to the manager."""

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

    def path(self, generation: int) -> str:
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


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


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


# --- spawning --------------------------------------------------------------------------

_RESET = [
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE),
    *(signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXFSZ),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
]
# O_NONBLOCK: a FIFO that an earlier attempt put there must not stop the launcher.
_OUTPUT = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY


class CannotStart(Exception):
    """The job cannot be started; the text tells its owner why and what to do."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.errno = number


def find_program(name: str, path: str) -> str:
    """Look a program up as a shell would, on the job's own PATH."""
    if "/" in name:
        return name
    refused = None
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or ".", name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
        if refused is None and os.path.isfile(candidate):
            refused = candidate
    if refused is not None:
        raise CannotStart(
            errno.EACCES,
            f"the program {refused} is not executable; run 'chmod +x {refused}', "
            "or name its interpreter first",
        )
    raise CannotStart(
        errno.ENOENT,
        f"the program {name!r} was not found on the job's PATH ({path or 'empty'}); give its "
        "full path, or load what provides it in 'setup'",
    )


def explain(error: OSError, program: str, argv: list[str], environment: Mapping[str, str]) -> str:
    """Say why a program could not be started, and what to do."""
    number = error.errno
    if number == errno.ENOENT:
        interpreter = _interpreter(program)
        if interpreter is not None and not os.path.exists(interpreter):
            return (
                f"{program} names {interpreter} as its interpreter in its first line, and that "
                "does not exist; mend the line, or name an interpreter in the command"
            )
        return f"the program {program} does not exist; check its path and the work directory"
    if number == errno.EACCES:
        if os.path.isdir(program):
            return f"{program} is a directory, not a program"
        if os.path.exists(program) and not os.access(program, os.X_OK):
            return (
                f"the program {program} is not executable; run 'chmod +x {program}', "
                "or name its interpreter first"
            )
        return f"no permission to start {program}; check the modes of it and of its folders"
    if number == errno.E2BIG:
        size = sum(map(len, argv)) + sum(len(k) + len(v) + 2 for k, v in environment.items())
        return (
            f"the command line and environment are too long for the system ({size} bytes in "
            f"{len(argv)} arguments); pass long lists through a file"
        )
    if number == errno.ENOTDIR:
        return f"the program {program} does not exist: a part of its path is not a directory"
    if number in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
        return (
            f"the system could not make another process ({error.strerror}); lower the number of "
            "concurrent jobs, or raise the limit of processes, memory or open files"
        )
    if number == errno.ENXIO:
        return "stdout or stderr of the job is not a regular file"
    return f"the program {program} could not be started: {error.strerror}"


def _interpreter(program: str) -> str | None:
    try:
        with open(program, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None
    words = line[2:].split()
    return os.fsdecode(words[0]) if line.startswith(b"#!") and words else None


def _spawn(
    program: str, argv: list[str], environment: Mapping[str, str], stdout: str, stderr: str
) -> int:
    actions: list[tuple[Any, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, stdout, _OUTPUT, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2)
        if stderr == stdout
        else (os.POSIX_SPAWN_OPEN, 2, stderr, _OUTPUT, 0o600),
    ]
    return os.posix_spawn(
        program,
        argv,
        environment,
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_RESET,
    )


def spawn(job: Job, environment: Mapping[str, str]) -> int:
    """Start the leader of `job` and return its pid; raises `CannotStart`."""
    try:
        os.chdir(job.cwd)
    except OSError as error:
        what = {
            errno.ENOENT: "does not exist; create it, or give another one",
            errno.ENOTDIR: "is not a directory",
            errno.EACCES: "may not be entered; check its modes",
        }.get(error.errno or 0, f"cannot be entered: {error.strerror}")
        raise CannotStart(error.errno or 0, f"the work directory {job.cwd} {what}") from None
    program = job.exe or find_program(job.argv[0], environment.get("PATH", os.defpath))
    try:
        with soft_limits(job.soft_limits):
            try:
                return _spawn(program, job.argv, environment, job.stdout, job.stderr)
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                # As a shell does it: a text without '#!' is a shell script.
                if not _is_text(program):
                    raise CannotStart(
                        errno.ENOEXEC,
                        f"{program} is not a program that this machine can run; was it built "
                        "for another architecture, or is it empty?",
                    ) from None
                argv = ["/bin/sh", program, *job.argv[1:]]
                return _spawn("/bin/sh", argv, environment, job.stdout, job.stderr)
    except OSError as error:
        for path in (job.stdout, job.stderr):
            folder = os.path.dirname(path)
            if not os.path.isdir(folder):
                message = f"the folder {folder} for the job's output does not exist"
                raise CannotStart(error.errno or 0, message) from None
            if os.path.isdir(path) or (os.path.exists(path) and not os.access(path, os.W_OK)):
                message = f"{path} cannot be opened for the job's output"
                raise CannotStart(error.errno or 0, message) from None
        message = explain(error, program, job.argv, environment)
        raise CannotStart(error.errno or 0, message) from None
    except ValueError as error:
        raise CannotStart(errno.EINVAL, f"the command cannot be started: {error}") from None


def _is_text(program: str) -> bool:
    try:
        with open(program, "rb") as file:
            head = file.read(512)
    except OSError:
        return False
    return bool(head) and b"\0" not in head


@contextlib.contextmanager
def soft_limits(wanted: Mapping[str, int]) -> Any:
    """Have the caller's soft limits while a child is started, which inherits them."""
    if not wanted:
        yield
        return
    changed: list[tuple[int, tuple[int, int]]] = []
    try:
        for name, value in wanted.items():
            which = getattr(resource, f"RLIMIT_{name.upper()}", None)
            if which is None:
                continue
            soft, hard = now = resource.getrlimit(which)
            aim = resource.RLIM_INFINITY if value < 0 else value
            if hard != resource.RLIM_INFINITY and (aim == resource.RLIM_INFINITY or aim > hard):
                aim = hard
            if aim != soft:
                resource.setrlimit(which, (aim, hard))
                changed.append((which, now))
        yield
    finally:
        for which, before in reversed(changed):
            resource.setrlimit(which, before)


# --- jobs --------------------------------------------------------------------------------


class Job:
    """One attempt that the launcher holds, from being handed over until its tree is empty."""

    __slots__ = (
        *("tag", "argv", "exe", "cwd", "base", "env", "stdout", "stderr", "walltime", "grace"),
        *("memory", "output_limit", "usage", "soft_limits", "after"),
        *("state", "pid", "start", "began", "cause", "kill_at", "politely", "peak", "cpu"),
        *("adopted", "pidfd", "watched", "tries", "message", "announced", "asked_at"),
    )

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.tag: str = _text(given, "tag")
        self.argv: list[str] = [str(word) for word in given.get("argv") or ()]
        self.exe: str | None = given.get("exe")
        self.cwd: str = given.get("cwd") or "/"
        self.base: str | None = given.get("base")
        self.env: dict[str, str | None] = given.get("env") or {}
        self.stdout: str = given.get("stdout") or os.devnull
        self.stderr: str = given.get("stderr") or self.stdout
        self.walltime: float | None = given.get("walltime")
        self.grace: float = float(given.get("grace") or 0.0)
        self.memory: int = int(given.get("memory") or 0)
        self.output_limit: int | None = given.get("output_limit")
        self.usage: str | None = given.get("usage")
        self.soft_limits: dict[str, int] = given.get("soft_limits") or {}
        self.after: str | None = given.get("after")
        self.state = "waiting"  # → running → ended (its leader is gone, its tree is not)
        self.pid = 0
        self.start = 0
        self.began = 0.0
        self.cause: str | None = None
        self.kill_at: float | None = None
        """Monotonic time of the kill; None while nobody wants the tree to end."""
        self.politely: set[tuple[int, int]] = set()
        """Who was sent the polite signal already."""
        self.peak = 0
        self.cpu = 0.0
        self.adopted = False
        self.pidfd: int | None = None
        self.watched = False
        self.tries = 0
        self.message = ""
        self.announced = False
        self.asked_at = 0.0

    @property
    def leader(self) -> Leader:
        return Leader(self.pid, self.start, self.tag)

    def facts(self) -> Record:
        """Tell what the next launcher needs to adopt this job, as far as it is not the default."""
        facts: Record = {"stdout": self.stdout, "grace": self.grace}
        if self.stderr != self.stdout:
            facts["stderr"] = self.stderr
        for name in ("walltime", "memory", "output_limit", "usage"):
            if getattr(self, name):
                facts[name] = getattr(self, name)
        return facts

    def started_record(self, boot: str) -> Record:
        return {
            "r": "started",
            "tag": self.tag,
            "t": round(time.time(), 6),
            "pid": self.pid,
            "start": self.start,
            "boot": boot,
        }

    def again_record(self, boot: str) -> Record:
        """Repeat, at the head of a generation, all that its adoption would need."""
        return {**self.started_record(boot), **self.facts(), "again": True}


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is missing or no text")
    return value


# --- the launcher -------------------------------------------------------------------------


class Launcher:
    """The single-threaded loop: input, starting, ending, trees, timers, records."""

    def __init__(self, home: str, *, sync: bool, idle: float) -> None:
        self.home = home
        self.boot = processes.boot_id()
        self.records = Records(os.path.join(home, "launcher"), sync=sync)
        self.rotate_at = GENERATION_BYTES
        self.jobs: dict[str, Job] = {}
        self.by_pid: dict[int, Job] = {}
        self.ready: list[Job] = []
        self.followers: dict[str, list[Job]] = {}
        self.young: dict[str, Job] = {}
        self.ending: dict[str, Job] = {}
        self.recent: OrderedDict[str, None] = OrderedDict()
        """Tags that were here lately: a start is never repeated."""
        self.bases: OrderedDict[str, dict[str, str]] = OrderedDict()
        self.strangers: dict[int, str | None] = {}
        """Orphans that became our children, and whose they are."""
        self.sweeping = False
        self.selector = selectors.DefaultSelector()
        self.connection: Connection | None = None
        self.epoch = 0
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.deadlines: list[tuple[float, str]] = []
        """When walltimes are over, by tag."""
        self.serial = 0
        self.idle = idle
        self.idle_since: float | None = time.monotonic()
        self.leaving = False
        self.reaper = _become_subreaper()
        self.trees = processes.Trees(os.getpid() if self.reaper else None)
        self.sampler: SamplerLink | None = None
        self.sampler_failures = 0
        self.oom_kills = processes.oom_kills()
        self.oom_at = -1e9
        self.oom_score = _oom_score()
        self.ticking = False
        self.ending_at: float | None = None
        """Monotonic time of the next look at the trees that shall end."""
        self.listener: socket.socket | None = None

    # - the loop

    def run(self) -> None:
        """Serve until there is nothing left to do."""
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _pipe()
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self.selector.register(woken, selectors.EVENT_READ, lambda _mask: _drain(woken))
        assert self.listener is not None
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        while not self.leaving:
            for key, mask in self.selector.select(self._patience()):
                try:
                    key.data(mask)
                except Exception:
                    log("unexpected: %s", traceback.format_exc())
            self._guarded(self._reap)
            self._guarded(self._run_timers)
            self._guarded(self._launch)
            self._guarded(self._settle)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:
            # No job, however strange, may end the launcher of all the others.
            log("unexpected in %s: %s", step.__name__, traceback.format_exc())

    def _patience(self) -> float | None:
        now = time.monotonic()
        waits = []
        if self.ready:
            waits.append(0.5 if self.records.stuck else 0.0)
        elif self.records.stuck:
            waits.append(0.5)
        if self.timers:
            waits.append(self.timers[0][0] - now)
        if self.deadlines:
            waits.append(self.deadlines[0][0] - now)
        if self.ending_at is not None:
            waits.append(self.ending_at - now)
        if self.idle_since is not None:
            waits.append(self.idle_since + self.idle - now)
        return max(0.0, min(waits)) if waits else None

    def _settle(self) -> None:
        """End an iteration: write, tell, and see whether we are still needed."""
        if self.records.flush() and self.records.end > self.rotate_at:
            self._rotate()
        if self.connection is not None:
            self.connection.pump()
        if self.jobs or self.connection is not None or self.records.stuck:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = time.monotonic()
        elif time.monotonic() >= self.idle_since + self.idle:
            self.leaving = True

    def at(self, delay: float, action: Callable[[], None]) -> None:
        """Run `action` after `delay` seconds."""
        self.serial += 1
        heapq.heappush(self.timers, (time.monotonic() + delay, self.serial, action))

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            self._guarded(heapq.heappop(self.timers)[2])
        while self.deadlines and self.deadlines[0][0] <= now:
            self._walltime_over(heapq.heappop(self.deadlines)[1])
        if self.ending_at is not None and self.ending_at <= now:
            self.ending_at = None
            self._end_trees()

    def _rotate(self) -> None:
        head: list[Record] = [self.birth_record()]
        for job in self.jobs.values():
            if job.state != "waiting":
                head.append(job.again_record(self.boot))
            if job.state == "ended":
                head.append({"r": "ended", "tag": job.tag, "left": True, "again": True})
        try:
            self.records.begin(head)
            self.rotate_at = GENERATION_BYTES
        except OSError as error:
            log("a new generation of records cannot be begun: %s", error)
            self.rotate_at = self.records.end + (1 << 20)

    def birth_record(self) -> Record:
        return {"r": "launcher", "t": time.time(), "pid": os.getpid(), "boot": self.boot}

    # - input

    def _accept(self, _mask: int) -> None:
        assert self.listener is not None
        try:
            link, _ = self.listener.accept()
        except OSError:
            return
        if not _same_user(link):
            log("refused a connection from another user")
            link.close()
            return
        link.setblocking(False)
        connection = Connection(self, link)
        self.selector.register(link, selectors.EVENT_READ, connection.ready)

    def take_over(self, connection: Connection, epoch: int) -> bool:
        """Let the newest manager in and the one before out; False where it is older."""
        if epoch < self.epoch:
            return False
        self.epoch = epoch
        if self.connection is not None and self.connection is not connection:
            # Its unread requests must not be obeyed after the new manager took stock.
            self.connection.close("another manager took over")
        self.connection = connection
        return True

    def handle(self, connection: Connection, message: Mapping[str, Any]) -> None:
        """Obey one request of the manager."""
        operation = message.get("op")
        handler = getattr(self, f"_op_{operation}", None) if isinstance(operation, str) else None
        if handler is None:
            raise ValueError(f"unknown operation {operation!r}")
        handler(connection, message)

    def _op_env(self, _connection: Connection, message: Mapping[str, Any]) -> None:
        environment = {str(k): str(v) for k, v in message["env"].items()}
        self.bases[_text(message, "key")] = environment
        while len(self.bases) > 256:
            self.bases.popitem(last=False)

    def _op_start(self, connection: Connection, message: Mapping[str, Any]) -> None:
        for given in message["jobs"]:
            try:
                job = Job(given)
            except (ValueError, TypeError, AttributeError) as error:
                connection.send({"ev": "error", "message": f"a job was left out: {error}"})
                tag = given.get("tag") if isinstance(given, dict) else None
                if isinstance(tag, str) and tag and tag not in self.jobs:
                    self._fail(tag, errno.EINVAL, f"the request cannot be understood: {error}")
                continue
            if job.tag in self.jobs or job.tag in self.recent:
                log("a second start of %s is ignored", job.tag)
                continue
            self.note(job.tag)
            self.jobs[job.tag] = job
            if job.after is not None and job.after in self.jobs:
                self.followers.setdefault(job.after, []).append(job)
            else:
                self.ready.append(job)

    def note(self, tag: str) -> None:
        self.recent[tag] = None
        while len(self.recent) > 20_000:
            self.recent.popitem(last=False)

    def _op_withdraw(self, connection: Connection, message: Mapping[str, Any]) -> None:
        taken = [tag for tag in message["tags"] if self._withdraw(tag)]
        self.records.flush()
        connection.send({"ev": "withdrawn", "n": message.get("n"), "tags": taken})

    def _withdraw(self, tag: str) -> bool:
        job = self.jobs.get(tag)
        if job is None or job.state != "waiting":
            return False
        if job in self.ready:
            self.ready.remove(job)
        before = self.followers.get(job.after, []) if job.after is not None else []
        if job in before:
            before.remove(job)
            # Who waited for this one now waits for the one before it: the grant is still in use.
            heirs = self.followers.pop(tag, [])
            for heir in heirs:
                heir.after = job.after
            before += heirs
        self.records.add({"r": "withdrawn", "tag": tag, "t": time.time()})
        self._release(job)
        return True

    def _op_kill(self, _connection: Connection, message: Mapping[str, Any]) -> None:
        self._reap()  # who has ended by himself already was not ended by us
        cause = message.get("cause", "cancelled")
        if cause not in CAUSES:
            raise ValueError(f"unknown cause {cause!r}")
        for tag in message["tags"]:
            job = self.jobs.get(tag)
            if job is None or self._withdraw(tag):
                continue
            grace = message.get("grace")
            self.end_tree(job, cause, job.grace if grace is None else float(grace))

    def _op_find(self, connection: Connection, message: Mapping[str, Any]) -> None:
        tags = set(message["tags"])
        found = {tag for tag in tags if tag in self.jobs}
        found.update(processes.find_tagged(tags - found))
        connection.send({"ev": "found", "n": message.get("n"), "tags": sorted(found)})

    def _op_adopt(self, connection: Connection, message: Mapping[str, Any]) -> None:
        """Follow attempts that no record of ours names; those without `start` are searched."""
        adoption = Adoption(self)
        adoption.search({_text(given, "tag") for given in message["jobs"]})
        for given in message["jobs"]:
            tag = _text(given, "tag")
            if tag not in self.jobs:
                kind = "started" if given.get("start") else "starting"
                adoption.consider(tag, {kind: dict(given)}, str(given.get("boot") or self.boot))
        for record in adoption.records:
            record.pop("again", None)
            self.records.add(record)
        adoption.follow()
        connection.send({"ev": "adopted", "n": message.get("n")})

    def _op_quit(self, connection: Connection, _message: Mapping[str, Any]) -> None:
        if self.jobs:
            connection.send({"ev": "error", "message": f"{len(self.jobs)} jobs are still here"})
        else:
            self.leaving = True

    # - starting

    def _launch(self) -> None:
        """Start what is ready: all of it written down first, then each, then written down."""
        if not self.ready:
            return
        batch, self.ready = self.ready[:SPAWN_BATCH], self.ready[SPAWN_BATCH:]
        now = time.time()
        for job in batch:
            if not job.announced:
                job.announced = True
                self.records.add({"r": "starting", "tag": job.tag, "t": now, **job.facts()})
        if not self.records.flush():
            # Not written, so not started; the disk may be full.
            self.ready[:0] = batch
            return
        faultpoint("launcher.recorded-starting")
        for job in batch:
            try:
                self._start(job)
            except CannotStart as error:
                self._fail(job.tag, error.errno, str(error))
                self._release(job)
            except Exception as error:
                log("unexpected at the start of %s: %s", job.tag, traceback.format_exc())
                if job.state == "waiting":
                    self._fail(job.tag, errno.EINVAL, f"the job could not be started: {error}")
                    self._release(job)
        os.chdir("/")
        self.records.flush()
        faultpoint("launcher.recorded-started")

    def _start(self, job: Job) -> None:
        if not job.argv:
            raise CannotStart(errno.EINVAL, "the command is empty")
        if job.base is None:
            environment: dict[str, str] = {}
        elif job.base in self.bases:
            self.bases.move_to_end(job.base)
            environment = dict(self.bases[job.base])
        else:
            raise CannotStart(errno.EINVAL, "the job's environment did not reach the launcher")
        for name, value in job.env.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        environment[processes.TAG_VARIABLE] = job.tag
        earliest = processes.now_ticks()
        job.pid = spawn(job, environment)
        latest = processes.now_ticks()
        job.began = time.monotonic()
        faultpoint("launcher.spawned")
        job.env = {}
        job.state = "running"
        self.by_pid[job.pid] = job
        # The kernel takes the start time between these two; to read it from /proc costs
        # as much as half a start.
        job.start = earliest
        if latest != earliest or not processes.LINUX:
            process = processes.read_process(job.pid)
            job.start = process.start if process is not None else latest
        if self.oom_score is not None:
            _offer_to_oom_killer(job.pid, self.oom_score)
        self.records.add(job.started_record(self.boot))
        self.young[job.tag] = job
        if job.walltime is not None and job.walltime < 2 * YOUNG_SECONDS:
            self._arm(job, job.walltime)
        self._tick_later()

    def _arm(self, job: Job, delay: float) -> None:
        """Have the walltime kept. Most jobs end before this costs them anything."""
        heapq.heappush(self.deadlines, (time.monotonic() + delay, job.tag))
        if len(self.deadlines) > 1024 + 4 * len(self.jobs):
            self.deadlines = [entry for entry in self.deadlines if entry[1] in self.jobs]
            heapq.heapify(self.deadlines)

    def _fail(self, tag: str, number: int, message: str) -> None:
        record = {"r": "failed", "tag": tag, "t": time.time(), "errno": number, "msg": message}
        self.records.add(record)

    def _release(self, job: Job) -> None:
        """Let go of a job that is over; who waited for it may start."""
        self.jobs.pop(job.tag, None)
        self.young.pop(job.tag, None)
        self.ending.pop(job.tag, None)
        if job.watched and self.sampler is not None:
            self.sampler.send({"forget": job.tag})
        if job.kill_at is not None or job.watched:
            self.trees.forget(job.tag)
        for follower in self.followers.pop(job.tag, ()):
            self.ready.append(follower)

    def _walltime_over(self, tag: str) -> None:
        self._reap()
        job = self.jobs.get(tag)
        if job is not None and job.state == "running":
            self.end_tree(job, "timeout", job.grace)

    # - ending

    def _reap(self) -> None:
        """Take all exit statuses there are, record them, and look at what was left behind."""
        over: list[tuple[Job, int, Any]] = []
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            job = self.by_pid.pop(pid, None)
            if job is not None:
                over.append((job, status, used))
            elif self.sampler is not None and pid == self.sampler.pid:
                self._sampler_died()
            else:
                self.strangers.pop(pid, None)
                if self.ending:
                    self._end_trees_later(0.0)
        if over:
            faultpoint("launcher.reaped")
            left = self._left_behind([job for job, _, _ in over])
            for job, status, used in over:
                self._ended(job, status, used, left=job.tag in left)
            self.records.flush()
            faultpoint("launcher.recorded-ended")
            if None in self.strangers.values() and not self.sweeping:
                self.sweeping = True
                self.at(0.2, self._sweep)

    def _sweep(self) -> None:
        """Look again at orphans whose owner could not be told when they were seen."""
        self.sweeping = False
        self._attribute([pid for pid, tag in self.strangers.items() if tag is None], [])

    def _ended(self, job: Job, status: int | None, used: Any, *, left: bool) -> None:
        """Record how a leader ended, and end what it left behind."""
        record: Record = {"r": "ended", "tag": job.tag, "t": time.time()}
        number = None
        if status is not None:
            if os.WIFSIGNALED(status):
                record["sig"] = number = os.WTERMSIG(status)
            else:
                record["code"] = os.WEXITSTATUS(status)
            record["cause"] = job.cause or "own"
        else:
            record["cause"] = job.cause or "lost"
        if number == signal.SIGKILL and job.cause is None:
            self._note_oom_kills(processes.oom_kills())
            if time.monotonic() - self.oom_at < 10.0:
                record["cause"] = "out_of_memory"
                job.message = (
                    "it was ended by SIGKILL while the system's out-of-memory killer was at work"
                )
        if job.message:
            record["msg"] = job.message
        if job.adopted:
            record["wall"] = round(processes.age(job.start), 4)
            record["utime"], record["stime"], record["rss"] = round(job.cpu, 2), 0.0, job.peak
        else:
            record["wall"] = round(time.monotonic() - job.began, 4)
            record["utime"], record["stime"] = round(used.ru_utime, 4), round(used.ru_stime, 4)
            record["rss"] = max(_own_peak(used.ru_maxrss), job.peak)
        record["left"] = left
        self.records.add(record)
        job.state = "ended"
        if left:
            kill_at = time.monotonic() + min(job.grace, LEFTOVER_GRACE)
            job.kill_at = kill_at if job.kill_at is None else min(job.kill_at, kill_at)
            self.want_ended(job)
        else:
            self._release(job)

    def _left_behind(self, over: list[Job]) -> set[str]:
        """Return the tags of those trees that live on without their leader.

        As a subreaper we become the parent of every orphan at the moment of its
        parent's death: a tree without a leader lives below direct children of ours
        that are no leaders, and mostly there are none.
        """
        direct = processes.children(os.getpid()) if self.reaper else None
        if direct is not None and not any(job.adopted for job in over):
            helper = self.sampler.pid if self.sampler is not None else 0
            orphans = [pid for pid in direct if pid not in self.by_pid and pid != helper]
            if not orphans:
                self.strangers.clear()
                return set()
            owners = self._attribute(orphans, over)
            return {job.tag for job in over if job.tag in owners}
        return set(self._members(over))

    def _attribute(self, orphans: list[int], over: list[Job]) -> set[str]:
        """Tell whose the orphans are that live below us; returns all owners."""
        leaders = {job.pid: job for job in [*self.jobs.values(), *over] if job.pid}
        found = set()
        for pid in orphans:
            tag = self.strangers.get(pid)
            if tag is None or tag not in self.jobs:
                process = processes.read_process(pid)
                if process is None or process.dead:
                    continue
                owner = leaders.get(process.session) or leaders.get(process.pgrp)
                tag = owner.tag if owner is not None else processes.read_tag(pid)
                if tag not in self.jobs:
                    tag = self._only_candidate(process)
                self.strangers[pid] = tag
            if tag is not None:
                found.add(tag)
        return found

    def _only_candidate(self, process: Process) -> str | None:
        """Attribute an orphan that hides its origin, where only one job can have made it."""
        able = [job for job in self.jobs.values() if job.pid and job.start <= process.start]
        if len(able) == 1:
            self.trees.remember(able[0].tag, [(process.pid, process.start)])
            return able[0].tag
        if not able:
            log("process %d is left over from a job that is gone, and is ended", process.pid)
            processes.send_signal(process.pid, process.start, signal.SIGKILL)
        return None

    # - trees

    def end_tree(self, job: Job, cause: str, grace: float, message: str = "") -> None:
        """End all processes of a job: polite signal, `grace` seconds, kill. Idempotent."""
        kill_at = time.monotonic() + max(0.0, grace)
        job.kill_at = kill_at if job.kill_at is None else min(job.kill_at, kill_at)
        if job.state == "running" and job.cause is None:
            job.cause, job.message = cause, message
        self.want_ended(job)

    def want_ended(self, job: Job) -> None:
        if job.tag not in self.ending:
            job.asked_at = time.monotonic()
            self.ending[job.tag] = job
        self._end_trees_later(0.0)

    def _end_trees_later(self, delay: float) -> None:
        due = time.monotonic() + delay
        if self.ending_at is None or due < self.ending_at:
            self.ending_at = due

    def _end_trees(self) -> None:
        """Signal every process of every tree that shall end; let go of those that are empty."""
        if not self.ending:
            return
        for _round in range(5):
            jobs = list(self.ending.values())
            found = self._members(jobs)
            killed = False
            now = time.monotonic()
            for job in jobs:
                members = found.get(job.tag, ())
                if not members and job.state == "ended":
                    self.records.add({"r": "cleared", "tag": job.tag, "t": time.time()})
                    self._release(job)
                elif job.kill_at is not None and now >= job.kill_at:
                    for process in members:
                        killed |= processes.send_signal(process.pid, process.start, signal.SIGKILL)
                else:
                    self._ask(job, members)
            # Only a look that finds nobody proves that nobody was born meanwhile.
            if not killed:
                break
            self._reap()
        if self.ending:
            self._end_trees_later(min(map(self._next_look, self.ending.values())))

    @staticmethod
    def _next_look(job: Job) -> float:
        """Look again soon at first, more seldom at who does not listen or cannot die."""
        now = time.monotonic()
        delay = max(0.02, min(0.5, (now - job.asked_at) / 8))
        if job.kill_at is not None and now < job.kill_at:
            return min(delay, job.kill_at - now)
        return delay

    def _ask(self, job: Job, members: Iterable[Process]) -> None:
        for process in members:
            identity = (process.pid, process.start)
            if identity not in job.politely:
                job.politely.add(identity)
                # A stopped process only hears the polite signal once it goes on.
                processes.send_signal(*identity, signal.SIGTERM, signal.SIGCONT)

    def _members(self, jobs: Iterable[Job]) -> dict[str, list[Process]]:
        wanted = {job.tag for job in jobs}
        leaders = [job.leader for job in self.jobs.values() if job.pid]
        adopted = any(job.adopted for job in self.jobs.values())
        table = processes.table()
        found = self.trees.sort(table, leaders, everyone=adopted)
        if self.reaper:
            for process in table.values():
                if process.ppid == os.getpid() and process.pid in self.strangers:
                    tag = self.strangers[process.pid]
                    if tag in wanted and process not in found.get(tag, ()) and not process.dead:
                        found.setdefault(tag, []).append(process)
        return {tag: members for tag, members in found.items() if tag in wanted}

    # - the sampler

    def _tick_later(self) -> None:
        if not self.ticking:
            self.ticking = True
            self.at(YOUNG_SECONDS, self._tick)

    def _tick(self) -> None:
        """Show the sampler who is no longer young, and look at adopted jobs."""
        self.ticking = False
        now = time.monotonic()
        grown = [job for job in self.young.values() if now - job.began >= YOUNG_SECONDS]
        for job in grown:
            del self.young[job.tag]
            if job.walltime is not None and job.walltime >= 2 * YOUNG_SECONDS:
                self._arm(job, job.walltime - (now - job.began))
            self.watch(job)
        if self.young:
            self._tick_later()

    def watch(self, job: Job) -> None:
        """Have the processes of `job` sampled."""
        job.watched = True
        if self.sampler is None and self.sampler_failures < 100:
            self.sampler = SamplerLink(self)
            for other in self.jobs.values():
                if other.watched and other is not job:
                    self.sampler.send(self._watch_request(other))
        if self.sampler is not None:
            self.sampler.send(self._watch_request(job))

    def _watch_request(self, job: Job) -> Record:
        return {
            "watch": job.tag,
            "pid": job.pid,
            "start": job.start,
            "age": processes.age(job.start),
            "memory": job.memory,
            "output_limit": job.output_limit,
            "stdout": job.stdout,
            "stderr": job.stderr,
            "usage": job.usage,
            "adopted": job.adopted,
        }

    def _sampler_died(self) -> None:
        log("the sampler ended unexpectedly; starting another")
        if self.sampler is not None:
            self.sampler.close()
            self.sampler = None
        self.sampler_failures += 1
        watched = [job for job in self.jobs.values() if job.watched and job.state == "running"]
        if watched:
            self.at(min(5.0, 0.1 * self.sampler_failures), self._watch_again)

    def _watch_again(self) -> None:
        watched = [job for job in self.jobs.values() if job.watched and job.state == "running"]
        if watched and self.sampler is None:
            self.watch(watched[0])

    def sampled(self, message: Mapping[str, Any]) -> None:
        """Take the sampler's word."""
        if "oom_kills" in message:
            self._note_oom_kills(int(message["oom_kills"]))
        for tag, (peak, cpu) in message.get("peaks", {}).items():
            job = self.jobs.get(tag)
            if job is not None:
                job.peak, job.cpu = max(job.peak, peak), max(job.cpu, cpu)
        for tag, identities in message.get("seen", {}).items():
            if tag in self.jobs:
                self.trees.remember(tag, [(pid, start) for pid, start in identities])
        over = message.get("over")
        if over is not None:
            job = self.jobs.get(message["tag"])
            self._reap()
            if job is not None and job.state == "running":
                job.peak = max(job.peak, int(message.get("rss", 0)))
                grace = min(job.grace, OVERRUN_GRACE)
                self.end_tree(job, over, grace, str(message.get("msg", "")))

    def _note_oom_kills(self, count: int) -> None:
        if count > self.oom_kills:
            self.oom_kills, self.oom_at = count, time.monotonic()

    # - adopted jobs

    def follow(self, job: Job) -> None:
        """Watch for the end of a job whose parent we are not."""
        job.pidfd = processes.open_pidfd(job.pid, job.start)
        if job.pidfd is not None:
            self.selector.register(
                job.pidfd, selectors.EVENT_READ, lambda _mask: self._adopted_ended(job)
            )
        else:
            self.at(0.0, lambda: self._look_after(job))
        if job.walltime is not None:
            self._arm(job, job.walltime - processes.age(job.start))
        self.watch(job)

    def _look_after(self, job: Job) -> None:
        if job.state == "running" and self.jobs.get(job.tag) is job:
            process = processes.read_process(job.pid)
            if process is None or process.start != job.start or process.dead:
                self._adopted_ended(job)
            else:
                self.at(0.25, lambda: self._look_after(job))

    def _adopted_ended(self, job: Job) -> None:
        """Take the exit status from the kernel where it keeps one, else say that it is lost."""
        if job.state != "running":
            return
        status = processes.pidfd_status(job.pidfd) if job.pidfd is not None else None
        if status is None:
            status = processes.zombie_status(job.pid)
        if job.pidfd is not None:
            with contextlib.suppress(KeyError):
                self.selector.unregister(job.pidfd)
        process = processes.read_process(job.pid)
        waiting = process is not None and process.start == job.start
        if status is None and job.pidfd is not None and job.tries < (200 if waiting else 3):
            # Its parent has not reaped it yet; the kernel tells the status afterwards.
            job.tries += 1
            self.at(0.01, lambda: self._adopted_ended(job))
            return
        if job.pidfd is not None:
            os.close(job.pidfd)
            job.pidfd = None
        self.by_pid.pop(job.pid, None)
        job.state = "ended"
        left = bool(self._members([job]))
        if status is None and job.cause is None:
            job.message = "its launcher was killed, and the system did not keep how it ended"
        self._ended(job, status, None, left=left)


# --- adoption -------------------------------------------------------------------------------


class Adoption:
    """Decides what became of the attempts that an earlier launcher left open."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.records: list[Record] = []
        self._running: list[Job] = []
        self._leftover: list[Job] = []
        self._tagged: dict[str, list[Process]] = {}

    def from_records(self) -> list[Record]:
        """Read the newest generation; return the head of the next one."""
        records = self._launcher.records
        known = generations(records.folder)
        self.records = [self._launcher.birth_record()]
        if known:
            unfinished, boot = read_unfinished(records.path(known[-1]))
            if unfinished:
                log("taking over %d attempts of an earlier launcher", len(unfinished))
            self.search(set(unfinished))
            if any("started" not in unfinished[tag] for tag in unfinished.keys() - self._tagged):
                # Between two steps of execve(2) a process shows no environment at all.
                time.sleep(0.1)
                self.search(set(unfinished))
            for tag, facts in unfinished.items():
                try:
                    self.consider(tag, facts, boot)
                except Exception:
                    log("cannot take over %s: %s", tag, traceback.format_exc())
                    self._over(tag, "lost", "the records of it cannot be understood")
        return self.records

    def search(self, tags: set[str]) -> None:
        """Find the living processes of all `tags` in one pass."""
        self._tagged = processes.find_tagged(tags)

    def consider(self, tag: str, facts: Mapping[str, Record], boot: str) -> None:
        """Decide about one attempt; later `follow` what lives."""
        started = facts.get("started")
        if started is not None:
            started = {**facts.get("starting", {}), **started}
        living = self._tagged.get(tag, [])
        if started is not None:
            if str(started.get("boot") or boot) != self._launcher.boot:
                self._interrupted(tag, facts)
                return
            self._consider_started(tag, started, living, "ended" in facts)
        elif boot and boot != self._launcher.boot:
            self._interrupted(tag, facts)
        else:
            self._consider_starting(tag, facts.get("starting") or {}, living)

    def _interrupted(self, tag: str, facts: Mapping[str, Record]) -> None:
        if "ended" in facts:
            self.records.append({"r": "cleared", "tag": tag, "t": time.time()})
        else:
            self._over(tag, "interrupted", "the host was restarted while the job ran")

    def _consider_started(
        self, tag: str, record: Record, living: list[Process], ended: bool
    ) -> None:
        job = self._job(tag, record, int(record["pid"]), int(record["start"]))
        process = processes.read_process(job.pid)
        mine = process is not None and process.start == job.start
        if mine and processes.read_tag(job.pid) not in (None, tag):
            mine = False
        if ended:
            self._leftover.append(job)
            self.records.append(job.again_record(self._launcher.boot))
            self.records.append({"r": "ended", "tag": tag, "left": True, "again": True})
        elif mine and process is not None and not process.dead:
            self._running.append(job)
            self.records.append(job.again_record(self._launcher.boot))
        else:
            status = processes.zombie_status(job.pid) if mine else None
            left = [other for other in living if other.pid != job.pid]
            if left:
                self.records.append(job.again_record(self._launcher.boot))
            self._over(
                tag,
                "lost",
                "its launcher was killed, and it ended before the next one could see how",
                left=bool(left),
                status=status,
            )
            if left:
                self._leftover.append(job)

    def _consider_starting(self, tag: str, record: Record, living: list[Process]) -> None:
        leaders = [process for process in living if process.session == process.pid]
        if not living:
            self._over(
                tag,
                "lost",
                "its launcher was killed while it started it; no process of it is left, and "
                "whether it ran is not known",
            )
            return
        first = min(leaders or living, key=lambda process: process.start)
        job = self._job(tag, record, first.pid, first.start)
        fresh = {**job.again_record(self._launcher.boot)}
        del fresh["again"]
        self.records.append(fresh)
        if first in leaders:
            self._running.append(job)
        else:
            message = "its launcher was killed while it started it; its leader is gone"
            self._over(tag, "lost", message, left=True)
            self._leftover.append(job)

    def _job(self, tag: str, record: Record, pid: int, start: int) -> Job:
        job = Job({**record, "tag": tag, "argv": ["?"]})
        job.pid, job.start, job.adopted, job.state = pid, start, True, "running"
        job.grace = float(record.get("grace", 10.0))
        return job

    def _over(
        self, tag: str, cause: str, message: str, *, left: bool = False, status: int | None = None
    ) -> None:
        record: Record = {"r": "ended", "tag": tag, "t": time.time(), "left": left}
        if status is None:
            record.update(cause=cause, msg=message)
        elif os.WIFSIGNALED(status):
            record.update(cause="own", sig=os.WTERMSIG(status))
        else:
            record.update(cause="own", code=os.WEXITSTATUS(status))
        self.records.append(record)

    def follow(self) -> None:
        """Take up what lives; call it once the records of it are written."""
        launcher = self._launcher
        for job in self._running:
            launcher.jobs[job.tag] = job
            launcher.note(job.tag)
            launcher.follow(job)
        for job in self._leftover:
            job.state = "ended"
            job.kill_at = time.monotonic() + LEFTOVER_GRACE
            launcher.jobs[job.tag] = job
            launcher.note(job.tag)
            launcher.want_ended(job)


# --- the connection ----------------------------------------------------------------------------


class Connection:
    """The link to one manager: requests in, records and answers out, both bounded."""

    def __init__(self, launcher: Launcher, link: socket.socket) -> None:
        self._launcher = launcher
        self._link = link
        self._in = bytearray()
        self._out = bytearray()
        self._place: tuple[int, int] | None = None
        self._writing = False
        self.closed = False

    def ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE and not self.closed:
            self._write()
        if mask & selectors.EVENT_READ and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data = self._link.recv(1 << 20)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        searched = len(self._in)
        self._in += data
        if self._in.find(b"\n", searched) < 0:
            if len(self._in) > MAX_LINE_BYTES:
                self.close("a line without end")
            return
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        for line in lines:
            if self.closed:
                return
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("not an object")
            if message.get("op") == "hello":
                self._greet(message)
            elif self._launcher.connection is not self:
                raise ValueError("say hello first")
            else:
                self._launcher.handle(self, message)
        except Exception as error:
            log("a request could not be obeyed: %r: %s", line[:200], error)
            if not isinstance(error, (ValueError, KeyError, TypeError)):
                log("unexpected: %s", traceback.format_exc())
            self.send({"ev": "error", "message": f"{type(error).__name__}: {error}"})

    def _greet(self, message: Mapping[str, Any]) -> None:
        launcher = self._launcher
        if message.get("v") != PROTOCOL:
            reason = f"this launcher speaks version {PROTOCOL}"
            self.send({"ev": "refused", "v": PROTOCOL, "reason": reason})
            return
        place = message.get("from")
        start = (int(place[0]), int(place[1])) if place else (0, 0)
        if not launcher.take_over(self, int(message.get("epoch", 0))):
            reason = f"a manager of the later epoch {launcher.epoch} was here"
            self.send({"ev": "refused", "v": PROTOCOL, "reason": reason})
            return
        records = launcher.records
        if not records.flush():
            # What is not written cannot be told, and must not be concluded from.
            reason = "its records cannot be written; is the disk full?"
            self.send({"ev": "refused", "v": PROTOCOL, "reason": reason})
            return
        if start[0] > records.generation or (
            start[0] == records.generation and start[1] > records.end
        ):
            log("the manager asks for records behind the last; starting from the oldest")
            start = (0, 0)
        live = [
            {"tag": job.tag, "pid": job.pid, "state": _state_word(job)}
            for job in launcher.jobs.values()
        ]
        hello = {
            "ev": "hello",
            "v": PROTOCOL,
            "pid": os.getpid(),
            "boot_id": launcher.boot,
            "live": live,
            "end": [records.generation, records.end],
        }
        self._place = start
        self.send(hello)

    def pump(self) -> None:
        """Send the records that the manager has not had yet, as far as it keeps reading."""
        records = self._launcher.records
        while self._place is not None and not self.closed and len(self._out) < OUT_HIGH_WATER:
            if self._place == (records.generation, records.end):
                return
            try:
                generation, end, lines = records.read(*self._place)
            except OSError as error:
                log("records cannot be read: %s", error)
                return
            self._place = (generation, end)
            if not lines:
                return
            text = lines.decode("utf-8", "replace")
            self.send({"ev": "records", "gen": generation, "end": end, "lines": text})

    def send(self, message: Mapping[str, Any]) -> None:
        if self.closed:
            return
        self._out += encode(message).encode() + b"\n"
        if not self._writing:
            self._write()

    def _write(self) -> None:
        try:
            while self._out:
                sent = self._link.send(memoryview(self._out)[: 1 << 20])
                del self._out[:sent]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if bool(self._out) != self._writing:
            self._writing = bool(self._out)
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writing else 0)
            self._launcher.selector.modify(self._link, mask, self.ready)

    def close(self, reason: str = "") -> None:
        if self.closed:
            return
        if reason:
            log("closing a connection: %s", reason)
        self.closed = True
        with contextlib.suppress(KeyError, ValueError):
            self._launcher.selector.unregister(self._link)
        self._link.close()
        if self._launcher.connection is self:
            self._launcher.connection = None


def _state_word(job: Job) -> str:
    if job.state == "running":
        return "ending" if job.kill_at is not None else "running"
    return "ending" if job.state == "ended" else "waiting"


class SamplerLink:
    """The sampling process: a fork of this one, so that an upgrade cannot change it."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                kept = theirs.detach()
                os.dup2(kept, 3)
                os.closerange(4, 65536)
                gc.enable()
                sampler.run(3, os.getppid() if launcher.reaper else None)
                code = 0
            except BaseException:
                log("the sampler failed: %s", traceback.format_exc())
            finally:
                os._exit(code)
        theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._in = bytearray()
        self._out = bytearray()
        launcher.selector.register(ours, selectors.EVENT_READ, self._ready)

    def send(self, message: Mapping[str, Any]) -> None:
        self._out += encode(message).encode() + b"\n"
        self._write()

    def _write(self) -> None:
        try:
            while self._out:
                del self._out[: self._link.send(self._out)]
        except (BlockingIOError, InterruptedError):
            with contextlib.suppress(KeyError):
                mask = selectors.EVENT_READ | selectors.EVENT_WRITE
                self._launcher.selector.modify(self._link, mask, self._ready)
        except OSError:
            self._out.clear()

    def _ready(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._launcher.selector.modify(self._link, selectors.EVENT_READ, self._ready)
            self._write()
        if not mask & selectors.EVENT_READ:
            return
        try:
            data = self._link.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(KeyError):
                self._launcher.selector.unregister(self._link)
            return
        self._in += data
        *lines, rest = bytes(self._in).split(b"\n")
        self._in = bytearray(rest)
        for line in lines:
            self._launcher.sampled(json.loads(line))

    def close(self) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._launcher.selector.unregister(self._link)
        self._link.close()


# --- small parts of the system --------------------------------------------------------------------


def _pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    return reading, writing


def _drain(descriptor: int) -> None:
    with contextlib.suppress(BlockingIOError, InterruptedError):
        while os.read(descriptor, 4096):
            pass


def _become_subreaper() -> bool:
    """Have orphans of our jobs become our children (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if not processes.LINUX:
        return False
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return libc.prctl(36, 1, 0, 0, 0) == 0 and processes.children(os.getpid()) is not None
    except (OSError, AttributeError):
        return False


def _own_peak(maxrss: int) -> int:
    """Return the peak of a leader in bytes, 0 where it hides behind ours.

    A child of posix_spawn runs in our memory until it has its own, and the kernel
    takes that for a peak of the child.
    """
    if maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        return 0
    return maxrss * (1 if sys.platform == "darwin" else 1024)


def _oom_score() -> bytes | None:
    try:
        with open("/proc/self/oom_score_adj", "rb") as file:
            return b"%d" % min(1000, int(file.read()) + 200)
    except (OSError, ValueError):
        return None


def _offer_to_oom_killer(pid: int, score: bytes) -> None:
    """Have the kernel end the job before the launcher when memory runs out."""
    try:
        descriptor = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.write(descriptor, score)
    os.close(descriptor)


def _same_user(link: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the folder of the socket is private
    size = struct.calcsize("3i")
    _pid, user, _group = struct.unpack(
        "3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    return bool(user == os.getuid())


# --- becoming a daemon -----------------------------------------------------------------------------


def listen(run: str) -> socket.socket:
    """Listen at ``launcher.sock`` in the folder `run`, however long its path is."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.setblocking(False)
    path = os.path.join(run, "launcher.sock")
    where = os.path.join(run, "launcher.json")
    for stale in (path, where):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stale)
    if processes.LINUX:
        folder = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            listener.bind(f"/proc/self/fd/{folder}/launcher.sock")
        finally:
            os.close(folder)
    elif len(os.fsencode(path)) < 100:
        listener.bind(path)
    else:
        folder_path = f"/tmp/simyard-{os.getuid()}-{os.urandom(8).hex()}"
        os.mkdir(folder_path, 0o700)
        path = os.path.join(folder_path, "launcher.sock")
        listener.bind(path)
        descriptor = os.open(where, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, encode({"socket": path}).encode())
        os.close(descriptor)
    os.chmod(path, 0o600)
    listener.listen(16)
    return listener


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


def _serve(home: str, lock: int, options: Mapping[str, Any], tell: Callable[[bytes], None]) -> None:
    run = os.path.join(home, "run")
    os.ftruncate(lock, 0)
    os.pwrite(lock, encode({"pid": os.getpid(), "started_at": time.time()}).encode(), 0)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ):
        # Jobs outlive logouts and managers, and so their launcher has to.
        signal.signal(number, signal.SIG_IGN)
    launcher = Launcher(home, sync=bool(options["sync"]), idle=float(options["idle"]))
    adoption = Adoption(launcher)
    launcher.records.begin(adoption.from_records())
    launcher.listener = listen(run)
    adoption.follow()
    gc.collect()
    gc.freeze()
    gc.disable()
    log("launcher of %s is ready", home)
    tell(b"ready")
    launcher.run()
    for name in ("launcher.sock", "launcher.json"):
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(run, name))
    log("nothing left to do; the launcher ends")


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
        print("usage: launcher.py HOME [--sync]", file=sys.stderr)
        return 1
    home = os.path.abspath(places[0])
    options = {
        "sync": "--sync" in flags,
        "idle": os.environ.get("SIMYARD_LAUNCHER_IDLE") or 10.0,
    }
    for folder in ("run", "launcher"):
        os.makedirs(os.path.join(home, folder), mode=0o700, exist_ok=True)
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            word = pipe.read()
        if word == b"ready":
            return 0
        if word == b"held":
            return 3
        print(word.decode("utf-8", "replace") or "the launcher died at its start", file=sys.stderr)
        return 1
    os.close(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    code = 1
    told = False

    def tell(word: bytes) -> None:
        nonlocal told
        if not told:
            told = True
            with contextlib.suppress(OSError):
                os.write(writing, word)
            os.close(writing)

    try:
        descriptor = _open_log(os.path.join(home, "run"))
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        os.chdir("/")
        lock = _lock(os.path.join(home, "run", "launcher.lock"), 3.0)
        if lock is None:
            tell(b"held")
        else:
            _serve(home, lock, options, tell)
        code = 0
    except BaseException as error:
        log("the launcher failed: %s", traceback.format_exc())
        tell(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
