"""The folder of one job: laid out before it starts, read while it runs and after.

Blocking; callers run it in threads. Nothing here trusts what a job leaves behind: links
are not followed, only regular files are opened, every listing is bounded. It must not
know states, stores or HTTP.

Paths inside are relative and use ``/``. ``work/…`` always names the working directory,
be it the job's own or one that the spec names; everything else is in the folder itself.
"""

from __future__ import annotations

import errno
import glob
import itertools
import json
import logging
import os
import shlex
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from ..errors import InvalidInput, NotFound, StorageFull
from .home import write_private
from .model import JobSpec, StagedFile

log = logging.getLogger(__name__)

WORK = "work"
MOST_FILES = 10_000
MOST_OUTPUTS = 1000
"""Files found for one pattern of `expected_outputs`; more are not looked for."""

_USAGE_BYTES = 8 << 20
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One entry of a job's folder; `modified` is seconds since the epoch."""

    path: str
    size: int
    modified: float
    kind: str
    """``file``, ``folder``, ``link`` or ``other``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """A regular file, open for reading; the caller closes `file`."""

    file: BinaryIO
    size: int
    modified: float
    mode: int


class JobFolder:
    """The folder of one job below `root`; it may not be there (yet)."""

    def __init__(self, root: Path, job_id: int, uploads: Path | None = None) -> None:
        self._uploads = uploads
        self.path = root / str(job_id // 1000) / str(job_id)
        self.stdout = self.path / "stdout.log"
        self.stderr = self.path / "stderr.log"
        self.script = self.path / "script.sh"
        self.usage = self.path / "usage.jsonl"

    def workdir(self, spec: JobSpec) -> Path:
        """Return where the job runs: the spec's directory, else one of its own."""
        return Path(spec.workdir) if spec.workdir is not None else self.path / WORK

    # -- before it starts --------------------------------------------------------------

    def create(self, spec: JobSpec) -> None:
        """Create what must be there before a start, private to its owner. Idempotent.

        Raises `StorageFull` where the disk is full.
        """
        try:
            _make_folder(self.path.parent)
            _make_folder(self.path)
            if spec.workdir is None:
                _make_folder(self.path / WORK)
        except OSError as error:
            _raise_if_full(error)
            raise

    def stage(self, spec: JobSpec) -> None:
        """Put the spec's files into the working directory, replacing what is there.

        Raises `InvalidInput` naming the file that cannot be had or put, and why.
        """
        if not spec.files:
            return
        workdir = self.workdir(spec)
        if not workdir.is_dir():
            raise InvalidInput(f"the working directory {workdir} does not exist; create it first")
        for staged in spec.files:
            try:
                _stage(staged, workdir, self._uploads)
            except OSError as error:
                _raise_if_full(error)
                raise InvalidInput(
                    f"the file {staged.source or staged.name} cannot be put into the job's "
                    f"folder as {staged.name}: {error.strerror or error}"
                ) from error

    def write_script(self, spec: JobSpec) -> list[str]:
        """Return the command to start, writing a script only where one is needed.

        A script runs by its ``#!`` line, else by ``/bin/sh``; setup lines come first. A
        command with setup lines is run by a shell that does them and then becomes it.
        """
        if spec.script is None:
            assert spec.command is not None, "the model asks for a command or a script"
            if not spec.setup:
                return list(spec.command)
            shell = _setup_shell()
            lines = [f"#!{shell}", *spec.setup, f"exec {shlex.join(spec.command)}", ""]
            self._write(self.script, "\n".join(lines))
            return [shell, str(self.script)]
        interpreter = _interpreter(spec.script)
        if not spec.setup:
            self._write(self.script, spec.script)
            return [*(interpreter or ["/bin/sh"]), str(self.script)]
        if interpreter is None:
            self._write(self.script, "\n".join([*spec.setup, spec.script]))
            return ["/bin/sh", str(self.script)]
        if any(os.path.basename(word) in _SHELLS for word in " ".join(interpreter).split()):
            first, _, rest = spec.script.partition("\n")
            self._write(self.script, "\n".join([first, *spec.setup, rest]))
            return [*interpreter, str(self.script)]
        # Shell lines mean nothing to another interpreter: a shell does them before it.
        self._write(self.script, spec.script)
        shell = _setup_shell()
        command = shlex.join([*interpreter, str(self.script)])
        setup = self.path / "setup.sh"
        self._write(setup, "\n".join([f"#!{shell}", *spec.setup, f"exec {command}", ""]))
        return [shell, str(setup)]

    def _write(self, path: Path, text: str) -> None:
        try:
            write_private(path, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            _raise_if_full(error)
            raise

    # -- while it runs, and after ------------------------------------------------------

    def files(self, spec: JobSpec, *, limit: int = MOST_FILES) -> tuple[list[FileInfo], bool]:
        """List what is there, by path; the flag is True where there is more than `limit`."""
        found: list[FileInfo] = []
        for info in self._walk(spec):
            if len(found) == limit:
                return found, True
            found.append(info)
        return found, False

    def open_file(self, spec: JobSpec, relative: str) -> OpenFile:
        """Open a regular file of the job for reading.

        Raises `InvalidInput` for what is no path inside the folder, `NotFound` for what
        is not there, is reached through a link, or is no regular file. Does not wait
        for a FIFO or a device.
        """
        parts = _parts(relative)
        if not parts:
            raise NotFound("this is the folder itself; name a file in it")
        try:
            descriptor = self._descend(spec, parts, _NONBLOCK)
        except OSError as error:
            raise _not_found(relative, error) from error
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            os.close(descriptor)
            raise NotFound(f"{relative!r} is not a regular file")
        return OpenFile(
            file=os.fdopen(descriptor, "rb"),
            size=facts.st_size,
            modified=facts.st_mtime,
            mode=stat.S_IMODE(facts.st_mode),
        )

    def to_archive(self, spec: JobSpec) -> Iterator[str]:
        """Iterate over the files that an archive of the job holds, by path.

        That is all of its own folder; of a working directory that the spec names, which
        may hold anything, it is the expected outputs only.
        """
        if spec.workdir is None:
            yield from (info.path for info in self._walk(spec) if info.kind == "file")
            return
        yield from (info.path for info in self._walk(None) if info.kind == "file")
        found, _ = self.expected_outputs(spec)
        yield from (f"{WORK}/{path}" for path in found if _is_inside(path))

    def expected_outputs(self, spec: JobSpec) -> tuple[list[str], list[str]]:
        """Return the expected outputs that are there, and the patterns that nothing matches.

        Paths are relative to the working directory. A pattern may hold ``*``, ``?``,
        ``[…]`` and ``**``; one that is the exact name of a file is that file.
        """
        workdir = self.workdir(spec)
        found: dict[str, None] = {}
        missing: list[str] = []
        for pattern in spec.expected_outputs:
            if os.path.exists(workdir / pattern):
                found[pattern] = None
                continue
            matches = glob.iglob(pattern, root_dir=workdir, recursive=True)
            names = list(itertools.islice(matches, MOST_OUTPUTS))
            found.update(dict.fromkeys(sorted(names)))
            if not names:
                missing.append(pattern)
        return list(found), missing

    def read_usage(self, *, most: int = 500) -> list[dict[str, Any]]:
        """Return at most `most` samples of the last attempt, peaks of memory kept.

        Each is ``{t, cpu, rss, procs}``: seconds since the start, seconds, bytes, count.
        """
        try:
            descriptor = os.open(self.usage, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC)
        except OSError:
            return []
        with os.fdopen(descriptor, "rb") as file:
            lines = file.read(_USAGE_BYTES).splitlines()
        samples: list[dict[str, Any]] = []
        for line in lines:
            sample = _sample(line)
            if sample is None:
                continue
            if samples and sample["t"] < samples[-1]["t"]:
                # An earlier attempt: time began anew.
                samples.clear()
            samples.append(sample)
        return _thinned(samples, most)

    def size(self) -> int:
        """Return the bytes that the folder occupies on the disk; no link is followed.

        A working directory that the spec named is not in it, and is not counted.
        """
        total = 0
        for folder, _, names in os.walk(self.path):
            for name in names:
                try:
                    facts = os.lstat(os.path.join(folder, name))
                except OSError:
                    continue
                # A log with holes is smaller than it is long (Windows has no blocks).
                total += min(getattr(facts, "st_blocks", facts.st_size) * 512, facts.st_size)
        return total

    def remove(self) -> None:
        """Delete the folder with all that is in it. Idempotent.

        A working directory that the spec named is not in it, and stays.
        """
        try:
            shutil.rmtree(self.path)
        except FileNotFoundError:
            return
        except OSError:
            # A job may have taken away its own permission to delete.
            for folder, _, _ in os.walk(self.path, onerror=None):
                os.chmod(folder, 0o700)
                for entry in os.scandir(folder):
                    if entry.is_dir(follow_symlinks=False):
                        os.chmod(entry.path, 0o700)
            shutil.rmtree(self.path, ignore_errors=True)
            if self.path.exists():
                log.warning("the folder %s could not be deleted whole", self.path)

    # -- without being led astray ------------------------------------------------------

    def _walk(self, spec: JobSpec | None) -> Iterator[FileInfo]:
        """Iterate over all entries, folders before what is in them; no link is followed."""
        waiting: list[tuple[str, ...]] = [()]
        if spec is not None and spec.workdir is not None:
            waiting.insert(0, (WORK,))
        while waiting:
            parts = waiting.pop()
            folders: list[tuple[str, ...]] = []
            for info in self._entries(spec, parts):
                inner = (*parts, PurePosixPath(info.path).name)
                if inner == (WORK,) and (spec is None or spec.workdir is not None):
                    continue
                yield info
                if info.kind == "folder":
                    folders.append(inner)
            waiting.extend(reversed(folders))

    def _entries(self, spec: JobSpec | None, parts: tuple[str, ...]) -> list[FileInfo]:
        try:
            descriptor = self._descend(spec, parts, _DIRECTORY)
        except OSError:
            return []
        try:
            with os.scandir(descriptor) as entries:
                # One more than may be shown, so that it is seen that there are more.
                names = sorted(
                    itertools.islice(entries, MOST_FILES + 1), key=lambda entry: entry.name
                )
                found = (_describe("/".join((*parts, entry.name)), entry) for entry in names)
                return [info for info in found if info is not None]
        except OSError:
            return []
        finally:
            os.close(descriptor)

    def _descend(self, spec: JobSpec | None, parts: tuple[str, ...], flags: int) -> int:
        """Open what `parts` name, one component at a time, each refused where it is a link."""
        root, rest = self.path, parts
        first = _NOFOLLOW
        if spec is not None and spec.workdir is not None and parts[:1] == (WORK,):
            # The spec's own directory is where the person said, links included.
            root, rest, first = Path(spec.workdir), parts[1:], 0
        reading = os.O_RDONLY | _CLOEXEC
        descriptor = os.open(root, reading | first | (flags if not rest else _DIRECTORY))
        for place, name in enumerate(rest, start=1):
            outer = descriptor
            try:
                wanted = flags if place == len(rest) else _DIRECTORY
                descriptor = os.open(name, reading | _NOFOLLOW | wanted, dir_fd=outer)
            finally:
                os.close(outer)
        return descriptor


def _make_folder(path: Path) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if path.is_symlink() or not path.is_dir():
            raise


def _raise_if_full(error: OSError) -> None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageFull from error


def _stage(staged: StagedFile, workdir: Path, uploads: Path | None) -> None:
    target = workdir / staged.name
    if not target.parent.resolve().is_relative_to(workdir.resolve()):
        raise InvalidInput(f"{staged.name} leads out of the working directory through a link")
    for outer in reversed(PurePosixPath(staged.name).parents[:-1]):
        # Not by mkdir(parents=True), which gives its mode to the last one only.
        if not (workdir / outer).is_dir():
            (workdir / outer).mkdir(mode=0o700)
    if target.is_dir() and not target.is_symlink():
        raise InvalidInput(f"there is a folder where the file {staged.name} is to be put")
    if staged.upload is not None:
        _copy_upload(staged.upload, uploads, target)
        return
    if staged.source is None:
        write_private(target, (staged.content or "").encode("utf-8", "surrogateescape"))
        return
    source = Path(staged.source).expanduser()
    if not source.is_absolute():
        raise InvalidInput(
            f"the file {staged.source} is not an absolute path; the service does not know "
            "the directory that it is relative to"
        )
    facts = source.stat()
    if not stat.S_ISREG(facts.st_mode):
        kind = "a folder; name its files" if stat.S_ISDIR(facts.st_mode) else "no regular file"
        raise InvalidInput(f"the file {staged.source} to put into the job's folder is {kind}")
    if target.exists() and os.path.samestat(facts, target.stat()):
        return
    _copy(source, target, 0o700 if facts.st_mode & 0o100 else 0o600)


def _copy_upload(digest: str, uploads: Path | None, target: Path) -> None:
    """Copy, never link: what the job does to its file must not reach the next job's."""
    source = None if uploads is None else uploads / digest
    if source is None or not source.is_file():
        raise InvalidInput(f"the upload {digest[:12]}… is not here any more; send it again")
    os.utime(source)  # it was needed now: it is kept a while longer
    _copy(source, target, 0o600)


def _copy(source: Path, target: Path, mode: int) -> None:
    """Copy in one step: `target` is the old file or the whole new one, never half of it."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC
    descriptor = os.open(temporary, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as new, source.open("rb") as old:
            shutil.copyfileobj(old, new, 1 << 20)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _setup_shell() -> str:
    """Setup lines are written for bash more often than not (``source``, ``module``)."""
    return "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"


def _interpreter(script: str) -> list[str] | None:
    """Read the ``#!`` line as Linux does: a path and at most one argument (execve(2))."""
    if not script.startswith("#!"):
        return None
    words = script[2:].partition("\n")[0].strip().split(None, 1)
    if not words:
        return None
    return [words[0], words[1].strip()] if len(words) == 2 else words


def _parts(relative: str) -> tuple[str, ...]:
    if "\x00" in relative or relative.startswith("/") or len(relative) > 4096:
        raise InvalidInput("the path must be one inside the job's folder")
    if os.name == "nt" and ("\\" in relative or ":" in relative):
        raise InvalidInput("the path must be one inside the job's folder, written with '/'")
    parts = tuple(relative.rstrip("/").split("/")) if relative.strip("/") else ()
    if any(part in ("", ".", "..") for part in parts):
        raise InvalidInput("the path must not hold '..', '.' or empty parts")
    return parts


def _is_inside(relative: str) -> bool:
    try:
        return bool(_parts(relative))
    except InvalidInput:
        return False


def _not_found(relative: str, error: OSError) -> NotFound:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return NotFound(f"{relative!r} is a link, or is reached through one; it is not followed")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"there is no file {relative!r} in the job's folder")
    return NotFound(f"the file {relative!r} cannot be opened: {error.strerror}")


def _describe(path: str, entry: os.DirEntry[str]) -> FileInfo | None:
    try:
        facts = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    mode = facts.st_mode
    kind = "other"
    if stat.S_ISREG(mode):
        kind = "file"
    elif stat.S_ISDIR(mode):
        kind = "folder"
    elif stat.S_ISLNK(mode):
        kind = "link"
    return FileInfo(
        path=path,
        size=facts.st_size if kind == "file" else 0,
        modified=facts.st_mtime,
        kind=kind,
    )


def _sample(line: bytes) -> dict[str, Any] | None:
    """Read one sample; None for a line that is torn, or none of ours."""
    try:
        sample = json.loads(line)
        return {
            "t": float(sample["t"]),
            "cpu": float(sample["cpu"]),
            "rss": int(sample["rss"]),
            "procs": int(sample["procs"]),
        }
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _thinned(samples: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Of each run of samples keep the one with the most memory; the last one stays."""
    if len(samples) <= most or most < 2:
        return samples[-most:] if most > 0 else []
    kept = []
    count = len(samples) - 1
    for place in range(most - 1):
        first, last = place * count // (most - 1), (place + 1) * count // (most - 1)
        kept.append(max(samples[first:last], key=lambda sample: sample["rss"]))
    return [*kept, samples[-1]]
