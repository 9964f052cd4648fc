"""Fetch a job's files into a folder of the caller's, whatever the job has named them.

Paths come from the other side: none may lead out of the folder, through a symbolic
link neither. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp

from ..errors import InvalidInput, NotFound, ServiceUnavailable, SimyardError
from . import wire
from .client import Client
from .progress import TransferBar

PIECE = 1 << 18


def chosen(files: Sequence[dict[str, Any]], names: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the files that `names` (paths or patterns) ask for, all where None.

    Raises `NotFound` for a name that fits none.
    """
    plain = [item for item in files if item.get("kind") == "file"]  # no links, no pipes
    if names is None:
        return plain
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        fitting = [item for item in plain if _fits(item["path"], name)]
        if not fitting:
            known = ", ".join(item["path"] for item in plain[:10]) or "none"
            raise NotFound(f"the job has no file {name!r}; it has {known}")
        found.update({item["path"]: item for item in fitting})
    return list(found.values())


def _fits(path: str, name: str) -> bool:
    return path == name or path == f"work/{name}" or fnmatch.fnmatchcase(path, name)


def safe_target(folder: Path, path: str) -> Path:
    """Return where `path` goes inside `folder`; raises `InvalidInput` where that is outside."""
    parts = PurePosixPath(path).parts
    hostile = (
        not parts
        or path.startswith("/")
        or any(part in ("..", ".") or "\x00" in part for part in parts)
        or (os.name == "nt" and any(set(part) & set('\\:*?"<>|') for part in parts))
    )
    if hostile:
        raise InvalidInput(f"the file {path!r} would be written outside of {folder}; not fetched")
    target = folder
    for part in parts:
        target = target / part
        if target.is_symlink():
            raise InvalidInput(
                f"{target} is a symbolic link; remove it, or download to another folder"
            )
    return target


async def fetch(
    client: Client,
    job_id: str,
    files: Sequence[dict[str, Any]],
    to: Path,
    *,
    progress: bool | None = True,
) -> list[Path]:
    """Fetch `files` of a job into the folder `to`; return where each was put."""
    targets = [safe_target(to, item["path"]) for item in files]
    total = sum(int(item.get("size") or 0) for item in files)
    with TransferBar(f"job {job_id}: {len(files)} files", total, progress=progress) as bar:
        for item, target in zip(files, targets, strict=True):
            await _fetch_one(client, job_id, item["path"], target, bar)
    return targets


async def _fetch_one(
    client: Client, job_id: str, path: str, target: Path, bar: TransferBar
) -> None:
    await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    url = f"/api/jobs/{wire.quoted(job_id)}/files/{wire.quoted(path)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()
    try:
        descriptor = os.open(partial, flags | getattr(os, "O_BINARY", 0), 0o666)
        with os.fdopen(descriptor, "wb") as file:
            async with client.stream("GET", url) as response:
                async for piece in response.content.iter_chunked(PIECE):
                    await asyncio.to_thread(file.write, piece)
                    bar.advance(len(piece))
        os.replace(partial, target)
    except aiohttp.ClientError as error:
        raise ServiceUnavailable(
            f"the transfer of {path} of job {job_id} broke off ({error}); call it again"
        ) from error
    except OSError as error:
        raise SimyardError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
