"""A job's files as one zip, made while it is sent.

Blocking; callers take it piece by piece in threads. Memory stays bounded whatever the
files hold; a file that grows or vanishes meanwhile does no harm.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator

from ..errors import InvalidInput, NotFound
from .job_folder import JobFolder
from .model import JobSpec

MOST_FILES = 100_000
INCOMPLETE = "SIMYARD-INCOMPLETE.txt"
"""Put in where not everything could be packed, saying what is missing."""

_BLOCK = 1 << 18


class _Sink(io.RawIOBase):
    """Holds what the zip writer has written until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        part = bytes(data)  # type: ignore[call-overload]
        self._parts.append(part)
        return len(part)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def zip_stream(folder: JobFolder, spec: JobSpec) -> Iterator[bytes]:
    """Make a zip of the job's regular files, in pieces of about 256 KiB."""
    sink = _Sink()
    missing: list[str] = []
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
        for count, path in enumerate(folder.to_archive(spec)):
            if count == MOST_FILES:
                missing.append(f"all files after the first {MOST_FILES}")
                break
            try:
                opened = folder.open_file(spec, path)
            except (NotFound, InvalidInput) as error:
                missing.append(error.message)
                continue
            with opened.file:
                member = zipfile.ZipInfo(_name(path), _date(opened.modified))
                member.external_attr = (opened.mode & 0o777) << 16
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as packed:
                    while block := opened.file.read(_BLOCK):
                        packed.write(block)
                        if piece := sink.take():
                            yield piece
        if missing:
            archive.writestr(INCOMPLETE, "Not in this archive:\n" + "\n".join(missing) + "\n")
    yield sink.take()


def _name(path: str) -> str:
    """Names that are no UTF-8 cannot stand in a zip as they are."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _date(modified: float) -> tuple[int, int, int, int, int, int]:
    """A zip knows the years from 1980 to 2107."""
    moment = time.gmtime(min(max(modified, 315532800.0), 4354819198.0))
    return (
        moment.tm_year,
        moment.tm_mon,
        moment.tm_mday,
        moment.tm_hour,
        moment.tm_min,
        moment.tm_sec,
    )
