"""A job's folder over REST: its files, all of them as one archive, and what else lies there.

Nothing a job left behind is ever shown by a browser: files go out as attachments.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web
from typing_extensions import TypedDict

from ..archive import zip_stream
from ..environment import masked
from ..job_folder import FileInfo, JobFolder, OpenFile
from ..keys import DESK
from ..middlewares import FILE_POLICY
from ..model import Job, JobSpec
from ..routes import Routes
from ..security import Scope
from ..views import readable, timestamp
from .exchange import answer, job_id_of

BLOCK = 1 << 18


class FileView(TypedDict):
    """One entry of a job's folder."""

    path: str
    size: int
    modified: str
    kind: str


class FileList(TypedDict):
    """What is in a job's folder; `truncated` where there is more."""

    items: list[FileView]
    truncated: bool


class Sample(TypedDict):
    """What a job's processes used at one moment: seconds since the start, seconds, bytes."""

    t: float
    cpu: float
    rss: int
    procs: int


class UsageSamples(TypedDict):
    """Samples over a job's life, thinned."""

    samples: list[Sample]


class ResultView(TypedDict):
    """Which of the expected outputs are there, and which patterns nothing matches."""

    outputs: list[str]
    missing: list[str]


class ScriptView(TypedDict):
    """What exactly is run."""

    argv: list[str]
    script: str | None
    workdir: str
    env: dict[str, str]
    tag: str | None


class _Unwritten(JobFolder):
    """A folder that lays out a start without touching anything, to show what it would be."""

    def __init__(self, root: Path, job_id: int) -> None:
        super().__init__(root, job_id)
        self.texts: list[str] = []

    def _write(self, path: Path, text: str) -> None:
        self.texts.append(text)


async def _job_of(request: web.Request) -> tuple[Job, JobSpec, JobFolder]:
    desk = request.app[DESK]
    job = await desk.get(job_id_of(request))
    return job, job.spec(), desk.job_folder(job.id)


async def list_files(request: web.Request) -> web.Response:
    """List a job's files."""
    _, spec, folder = await _job_of(request)
    found, truncated = await asyncio.to_thread(folder.files, spec)
    return answer({"items": [_file_view(info) for info in found], "truncated": truncated})


def _file_view(info: FileInfo) -> FileView:
    return {
        "path": readable(info.path),
        "size": info.size,
        "modified": timestamp(info.modified),
        "kind": info.kind,
    }


async def show_file(request: web.Request) -> web.StreamResponse:
    """Send one file, or a range of it."""
    _, spec, folder = await _job_of(request)
    path = request.match_info["path"]
    opened = await asyncio.to_thread(folder.open_file, spec, path)
    with contextlib.closing(opened.file):
        return await _send(request, opened, path)


async def _send(request: web.Request, opened: OpenFile, path: str) -> web.StreamResponse:
    begin, end, partial = _range_of(request, opened)
    response = _attachment(path.rpartition("/")[2], status=206 if partial else 200)
    response.content_length = end - begin
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["ETag"] = _etag(opened)
    if partial:
        response.headers["Content-Range"] = f"bytes {begin}-{end - 1}/{opened.size}"
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    await asyncio.to_thread(opened.file.seek, begin)
    left = end - begin
    while left > 0:
        piece = await asyncio.to_thread(opened.file.read, min(BLOCK, left))
        if not piece:
            # It shrank meanwhile: only a cut connection says so.
            if request.transport is not None:
                request.transport.abort()
            return response
        left -= len(piece)
        await response.write(piece)
    await response.write_eof()
    return response


def _etag(opened: OpenFile) -> str:
    return f'"{opened.size:x}-{int(opened.modified * 1e6):x}"'


def _range_of(request: web.Request, opened: OpenFile) -> tuple[int, int, bool]:
    """Return begin and end, and whether that is a part; raises 416 for what is not there."""
    same = request.headers.get("If-Range", _etag(opened)) == _etag(opened)
    if "Range" not in request.headers or not same:
        return 0, opened.size, False
    try:
        wanted = request.http_range
    except ValueError:
        return 0, opened.size, False
    begin = 0 if wanted.start is None else wanted.start
    end = opened.size if wanted.stop is None else min(wanted.stop, opened.size)
    if begin < 0:
        begin = max(0, opened.size + begin)
    if begin >= end:
        raise web.HTTPRequestRangeNotSatisfiable(
            headers={"Content-Range": f"bytes */{opened.size}"},
            reason=f"the file has {opened.size} bytes; the range is beyond them",
        )
    return begin, end, True


def _attachment(name: str, *, status: int = 200) -> web.StreamResponse:
    response = web.StreamResponse(status=status)
    response.content_type = "application/octet-stream"
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    response.headers["Content-Disposition"] = (
        f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(readable(name), safe='')}"
    )
    response.headers["Content-Security-Policy"] = FILE_POLICY
    return response


async def archive(request: web.Request) -> web.StreamResponse:
    """Send all files of a job as one zip, made on the way."""
    job, spec, folder = await _job_of(request)
    response = _attachment(f"job-{job.id}.zip")
    response.content_type = "application/zip"
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    pieces = zip_stream(folder, spec)
    try:
        while (piece := await asyncio.to_thread(_next, pieces)) is not None:
            if piece:
                await response.write(piece)
    except (OSError, ValueError):
        if request.transport is not None:
            request.transport.abort()
        raise
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            await asyncio.to_thread(_quietly, close)
    await response.write_eof()
    return response


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)


def _quietly(close: Any) -> None:
    # A generator that a cancelled call still runs in its thread cannot be closed; it ends there.
    with contextlib.suppress(ValueError):
        close()


async def usage(request: web.Request) -> web.Response:
    """Show the samples of what a job used."""
    _, _, folder = await _job_of(request)
    return answer({"samples": await asyncio.to_thread(folder.read_usage)})


async def result(request: web.Request) -> web.Response:
    """Show which of the expected outputs are there."""
    _, spec, folder = await _job_of(request)
    outputs, missing = await asyncio.to_thread(folder.expected_outputs, spec)
    view: ResultView = {"outputs": [readable(name) for name in outputs], "missing": missing}
    return answer(view)


async def script(request: web.Request) -> web.Response:
    """Show exactly what is run: command, script, directory, environment."""
    job, spec, folder = await _job_of(request)
    unwritten = _Unwritten(folder.path.parent.parent, job.id)
    argv = await asyncio.to_thread(unwritten.write_script, spec)
    view: ScriptView = {
        "argv": argv,
        "script": "\n".join(unwritten.texts) if unwritten.texts else None,
        "workdir": os.fspath(folder.workdir(spec)),
        "env": masked(await request.app[DESK].environment_of(job)),
        "tag": job.tag,
    }
    return answer(view)


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "files"
    bytes_ = ("application/octet-stream",)
    routes.add(
        "GET",
        "/api/jobs/{id}/files",
        list_files,
        scope=Scope.READ,
        tag=tag,
        summary="Files of a job",
        answer=FileList,
        errors=(404,),
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/files/{path:.+}",
        show_file,
        scope=Scope.READ,
        tag=tag,
        summary="One file, or a range of it",
        produces=bytes_,
        errors=(404, 416),
        headers={"Range": "One range of bytes, such as bytes=0-1023."},
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/archive",
        archive,
        scope=Scope.READ,
        tag=tag,
        summary="All files of a job as one zip",
        produces=("application/zip",),
        errors=(404,),
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/script",
        script,
        scope=Scope.READ,
        tag=tag,
        summary="What exactly is run: command, script, directory, environment",
        answer=ScriptView,
        errors=(404,),
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/usage",
        usage,
        scope=Scope.READ,
        tag=tag,
        summary="What a job used over its life",
        answer=UsageSamples,
        errors=(404,),
    )
    routes.add(
        "GET",
        "/api/jobs/{id}/result",
        result,
        scope=Scope.READ,
        tag=tag,
        summary="Which expected outputs are there",
        answer=ResultView,
        errors=(404,),
    )
