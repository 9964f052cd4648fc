"""Inputs that a client elsewhere sends ahead of its jobs, each under the SHA-256 of its bytes.

Blocking; callers run it in threads. A file appears under its name only when all of it is
there, its checksum was right and it is on disk; what came of an unfinished one stays
beside it as ``<sha256>.part``, to be gone on with, also after a restart. It must not know
HTTP, jobs or the store: who still needs what is handed in.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Conflict, InvalidInput, StorageFull, TooLarge
from .quantities import format_duration, format_size

log = logging.getLogger(__name__)

DIGEST = re.compile(r"[0-9a-f]{64}\Z")
HASHES_KEPT = 64
"""Unfinished checksums kept in memory, so that a file sent in pieces is not read again for each."""
BLOCK = 1 << 20
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclass(frozen=True, slots=True)
class Received:
    """How much of an upload is there."""

    digest: str
    size: int
    complete: bool


def check_digest(text: str) -> str:
    """Return `text` where it is a SHA-256 in hexadecimal; else raise `InvalidInput`."""
    if not DIGEST.match(text):
        raise InvalidInput(
            "an upload is named by the SHA-256 of its content: 64 of the digits 0-9a-f"
        )
    return text


class Uploads:
    """The uploads of one home, in a folder of their own."""

    def __init__(self, folder: Path, *, most: int, keep: float, reserve: int = 0) -> None:
        self.folder = folder
        self.most = most
        self.keep = keep
        """Seconds for which one is kept after nobody needed it any longer."""
        self._reserve = reserve
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._hashes: OrderedDict[str, tuple[int, Any]] = OrderedDict()

    def path(self, digest: str) -> Path:
        """Return where a complete upload lies."""
        return self.folder / check_digest(digest)

    def received(self, digest: str) -> Received | None:
        """Say how much of an upload is there; None where nothing is."""
        whole = _size(self.path(digest))
        if whole is not None:
            return Received(digest, whole, complete=True)
        part = _size(self._part(digest))
        return None if part is None else Received(digest, part, complete=False)

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Return those that are not there as a whole; the others count as just needed."""
        return [digest for digest in digests if not self._touch(digest)]

    def begin(self, digest: str, offset: int, total: int | None) -> Receiving:
        """Begin to receive the bytes from `offset` on, of `total` where that is known.

        Raises `Conflict` where bytes before `offset` are missing or another client sends
        the same file just now, `TooLarge` and `StorageFull` before anything is written.
        """
        part = self._part(check_digest(digest))
        if not self.most:
            raise TooLarge("uploads are switched off here (setting max_upload)")
        self._check_size(total or offset)
        with self._lock:
            if digest in self._busy:
                raise Conflict("this file is being uploaded by another client just now; wait")
            self._busy.add(digest)
        try:
            self._check_room((total or offset) - offset)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
            try:
                return self._opened(digest, descriptor, offset, total)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            self._let_go(digest)
            _raise_if_full(error)
            raise Conflict(f"the upload cannot be written: {error.strerror}") from error
        except BaseException:
            self._let_go(digest)
            raise

    def _opened(self, digest: str, descriptor: int, offset: int, total: int | None) -> Receiving:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise Conflict("what lies in the place of this upload is no regular file; remove it")
        if offset > facts.st_size:
            raise Conflict(
                f"the bytes before {offset} are not all here; go on at {facts.st_size}",
                received=facts.st_size,
            )
        os.ftruncate(descriptor, offset)
        known, checksum = self._hashes.pop(digest, (-1, None))
        if known != offset:
            checksum = _checksum_of(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return Receiving(self, digest, descriptor, offset, total, checksum)

    def sweep(self, needed: Collection[str]) -> int:
        """Remove what nobody needs and was not needed for the time it is kept; return how many.

        `needed` are the uploads that jobs which are not over refer to.
        """
        removed = 0
        for name in self._names():
            digest = name.removesuffix(".part")
            if digest in needed:
                self._touch(digest)
            elif self._remove_if_old(self.folder / name, digest):
                removed += 1
        return removed

    def _names(self) -> list[str]:
        try:
            names = os.listdir(self.folder)
        except OSError:
            return []
        return [name for name in names if DIGEST.match(name.removesuffix(".part"))]

    def _remove_if_old(self, path: Path, digest: str) -> bool:
        with self._lock:
            if digest in self._busy:
                return False
            try:
                if time.time() - path.stat(follow_symlinks=False).st_mtime < self.keep:
                    return False
                path.unlink()
            except OSError:
                return False
            self._hashes.pop(digest, None)
        return True

    def _touch(self, digest: str) -> bool:
        """Count an upload as needed now; False where it is not there."""
        path = self.path(digest)
        with self._lock:
            if _size(path) is None:
                return False
            with contextlib.suppress(OSError):
                os.utime(path, follow_symlinks=False)
        return True

    def _part(self, digest: str) -> Path:
        return self.folder / f"{digest}.part"

    def _check_size(self, size: int) -> None:
        if size > self.most:
            raise TooLarge(
                f"an upload may have {format_size(self.most)}, this one has more (setting "
                "max_upload); put the file where the service can read it, and name it as 'source'"
            )

    def _check_room(self, size: int) -> None:
        free = shutil.disk_usage(self.folder if self.folder.exists() else self.folder.parent).free
        if size > free - self._reserve:
            raise StorageFull(
                f"there is no room for an upload of {format_size(size)}: {format_size(free)} are "
                f"free, of which {format_size(self._reserve)} stay so (setting min_free_disk)"
            )

    def _let_go(self, digest: str) -> None:
        with self._lock:
            self._busy.discard(digest)

    def _forget_hash(self, digest: str) -> None:
        with self._lock:
            self._hashes.pop(digest, None)

    def _keep_hash(self, digest: str, offset: int, checksum: Any) -> None:
        with self._lock:
            self._hashes[digest] = (offset, checksum)
            if len(self._hashes) > HASHES_KEPT:
                self._hashes.popitem(last=False)


class Receiving:
    """One upload while its bytes come in; `close` in any case."""

    def __init__(
        self,
        uploads: Uploads,
        digest: str,
        descriptor: int,
        offset: int,
        total: int | None,
        checksum: Any,
    ) -> None:
        self.offset = offset
        self._uploads = uploads
        self._digest = digest
        self._descriptor = descriptor
        self._total = total
        self._checksum = checksum
        self._open = True

    def write(self, piece: bytes) -> None:
        """Append bytes. Raises `TooLarge` past what was announced or is allowed."""
        after = self.offset + len(piece)
        if self._total is not None and after > self._total:
            raise TooLarge(f"more bytes came than the {self._total} that were announced")
        self._uploads._check_size(after)
        try:
            left = memoryview(piece)
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            _raise_if_full(error)
            raise
        self._checksum.update(piece)
        self.offset = after

    def finish(self) -> Received:
        """Say how much is there; where that is all, check it and put it in its place.

        Raises `InvalidInput` where the checksum is wrong; then nothing of it is kept.
        """
        uploads, digest = self._uploads, self._digest
        if self._total is not None and self.offset < self._total:
            return Received(digest, self.offset, complete=False)
        part = uploads._part(digest)
        found = self._checksum.hexdigest()
        if found != digest:
            self.close()
            part.unlink(missing_ok=True)
            raise InvalidInput(
                f"what came has the SHA-256 {found}, not the one it is named by; send it again"
            )
        try:
            os.fsync(self._descriptor)
            os.replace(part, uploads.path(digest))
            _sync_folder(uploads.folder)
        except OSError as error:
            _raise_if_full(error)
            raise
        self.close()
        uploads._forget_hash(digest)
        return Received(digest, self.offset, complete=True)

    def close(self) -> None:
        """Let go of the file; what is unfinished can be gone on with. Idempotent."""
        if self._open:
            self._open = False
            os.close(self._descriptor)
            self._uploads._keep_hash(self._digest, self.offset, self._checksum)
            self._uploads._let_go(self._digest)


def refused(missing: Collection[str], keep: float) -> InvalidInput:
    """Say that a spec refers to uploads that are not there."""
    names = ", ".join(f"{digest[:12]}…" for digest in list(missing)[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return InvalidInput(
        f"the upload {names}{more} is not here (any more): send it with PUT "
        f"/api/uploads/SHA256 first; uploads are kept for {format_duration(keep)} after they "
        "were last needed"
    )


def _size(path: Path) -> int | None:
    try:
        facts = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return facts.st_size if stat.S_ISREG(facts.st_mode) else None


def _checksum_of(descriptor: int, size: int) -> Any:
    """Return the checksum of the first `size` bytes, to be gone on with."""
    checksum = hashlib.sha256()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while size > 0:
        piece = os.read(descriptor, min(BLOCK, size))
        if not piece:
            break
        checksum.update(piece)
        size -= len(piece)
    return checksum


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_if_full(error: OSError) -> None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise StorageFull from error
