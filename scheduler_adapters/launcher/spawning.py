"""Starting one process as a job's leader, and saying in words why that failed.

The caller's working directory and soft limits are changed around the start, as a
child of posix_spawn(3) inherits them; so this is for a single-threaded process.
It must not know records, the protocol or what becomes of the process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Iterator, Mapping
from typing import Any

from .job import Job

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
def soft_limits(wanted: Mapping[str, int]) -> Iterator[None]:
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
