"""Files sent ahead to a service elsewhere: named by their checksum, in pieces, resumed.

Standard library only: this module is on the shell's submit path. It knows the wire's
rules for uploads; the two clients only carry the requests out.
"""

from __future__ import annotations

import os

from ..errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

PIECE = 8 << 20
"""Bytes of one request: what is sent again where a connection breaks."""


def checksum_of(path: str) -> str:
    """Return the SHA-256 of a file. Raises `InvalidInput` where it cannot be read."""
    import hashlib

    checksum = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                checksum.update(piece)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from None
    return checksum.hexdigest()


def where(digest: str) -> str:
    """Return the path of an upload on the wire."""
    return f"/api/uploads/{digest}"


def piece_of(path: str, offset: int) -> tuple[bytes, dict[str, str]]:
    """Return the next bytes to send, and the headers that say what they are."""
    headers = {"Content-Type": "application/octet-stream"}
    try:
        with open(path, "rb") as file:
            total = os.fstat(file.fileno()).st_size
            file.seek(offset)
            piece = file.read(PIECE)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from None
    if piece:
        headers["Content-Range"] = f"bytes {offset}-{offset + len(piece) - 1}/{total}"
    elif total:
        raise InvalidInput(f"{path} became shorter while it was sent; send it again")
    return piece, headers


def next_offset(path: str, before: int, answer: Any) -> int | None:
    """Return where to go on after an answer; None where all of it is there."""
    if not isinstance(answer, dict) or answer.get("complete"):
        return None
    size = int(answer.get("size", 0))
    if size <= before:
        raise InvalidInput(f"{path} cannot be sent: the service does not take its bytes")
    return size


def staged_uploads(spec: Mapping[str, Any], cwd: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace the files of this machine in a spec by uploads; return it, and what to send.

    The second maps checksums to paths. A 'source' that is not here is left as it is: it
    names a file on the service's host.
    """
    files = spec.get("files")
    if not isinstance(files, (list, tuple)):
        return dict(spec), {}
    staged: list[Any] = []
    to_send: dict[str, str] = {}
    for given in files:
        item = {"source": os.fspath(given)} if isinstance(given, (str, os.PathLike)) else given
        source = item.get("source") if isinstance(item, dict) else None
        named = os.path.expanduser(source) if isinstance(source, str) else ""
        path = os.path.join(cwd, named)
        if not named or not os.path.isfile(path):
            if named and not os.path.isabs(named):
                raise InvalidInput(f"the file {source} to stage in is not there (seen from {cwd})")
            staged.append(given)
            continue
        digest = checksum_of(path)
        to_send[digest] = path
        rest = {name: value for name, value in item.items() if name != "source"}
        staged.append({"target": os.path.basename(path), **rest, "upload": digest})
    return {**spec, "files": staged}, to_send
