"""Uploads over REST: inputs from a client elsewhere, to which specs refer by their checksum."""

from __future__ import annotations

import asyncio
import re

from aiohttp import web
from typing_extensions import TypedDict

from ...errors import InvalidInput, NotFound
from ..keys import DESK
from ..routes import Routes
from ..security import Scope
from ..uploads import BLOCK, Received, Receiving, check_digest
from .exchange import answer

SILENCE_SECONDS = 60.0
"""How long the next bytes may take; the rest can be sent later."""
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})\Z")


class UploadView(TypedDict):
    """How much of an upload is there; `size` bytes, all of it where `complete`."""

    sha256: str
    size: int
    complete: bool


def _digest_of(request: web.Request) -> str:
    return check_digest(request.match_info["sha256"])


def _answer(received: Received, *, status: int = 200) -> web.Response:
    view: UploadView = {
        "sha256": received.digest,
        "size": received.size,
        "complete": received.complete,
    }
    response = answer(view, status=status)
    response.headers["Upload-Offset"] = str(received.size)
    response.headers["Upload-Complete"] = "?1" if received.complete else "?0"
    return response


async def show(request: web.Request) -> web.Response:
    """Say how much of an upload is there."""
    digest = _digest_of(request)
    received = await asyncio.to_thread(request.app[DESK].uploads.received, digest)
    if received is None:
        raise NotFound(f"nothing of the upload {digest[:12]}… is here; send it from the beginning")
    return _answer(received)


async def receive(request: web.Request) -> web.Response:
    """Take a file, or the next piece of it."""
    digest = _digest_of(request)
    offset, total = _range_of(request)
    uploads = request.app[DESK].uploads
    there = await asyncio.to_thread(uploads.received, digest)
    if there is not None and there.complete:
        await request.release()
        return _answer(there)
    receiving = await asyncio.to_thread(uploads.begin, digest, offset, total)
    try:
        await _take_body(request, receiving)
        received = await asyncio.to_thread(receiving.finish)
    finally:
        await asyncio.shield(asyncio.to_thread(receiving.close))
    return _answer(received, status=201 if received.complete else 200)


def _range_of(request: web.Request) -> tuple[int, int | None]:
    """Return where the body begins and how large the whole file is, None where not said."""
    given = request.headers.getall("Content-Range", [])
    if not given:
        return 0, request.content_length
    found = _RANGE.match(given[0]) if len(given) == 1 else None
    if found is None:
        raise InvalidInput("'Content-Range' must be such as 'bytes 0-1048575/5000000'")
    first, last, total = (int(number) for number in found.groups())
    if not first <= last < total:
        raise InvalidInput("'Content-Range' names a range that is empty or beyond the file")
    if request.content_length is not None and request.content_length != last - first + 1:
        raise InvalidInput(
            f"'Content-Range' announces {last - first + 1} bytes, 'Content-Length' "
            f"{request.content_length}"
        )
    return first, total


async def _take_body(request: web.Request, receiving: Receiving) -> None:
    """Write the body as it comes, in pieces that are worth a thread."""
    gathered = bytearray()
    try:
        while not request.content.at_eof():
            gathered += await asyncio.wait_for(request.content.readany(), SILENCE_SECONDS)
            if len(gathered) >= BLOCK:
                await _write(receiving, gathered)
    except asyncio.TimeoutError as error:
        raise web.HTTPRequestTimeout(
            reason="the rest did not arrive in time; HEAD tells where to go on"
        ) from error
    except web.RequestPayloadError as error:
        raise ConnectionResetError("the client went away while it sent a file") from error
    finally:
        # What came counts, also where the rest did not: the client can go on from there.
        await _write(receiving, gathered)


async def _write(receiving: Receiving, gathered: bytearray) -> None:
    if gathered:
        piece = bytes(gathered)
        gathered.clear()
        await asyncio.to_thread(receiving.write, piece)


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "uploads"
    routes.add(
        "PUT",
        "/api/uploads/{sha256}",
        receive,
        scope=Scope.FULL,
        tag=tag,
        summary="Send a file, whole or the next piece of it, named by its SHA-256",
        accepts="application/octet-stream",
        answer=UploadView,
        status=201,
        also={200: "All of it was here before, or this piece is and more is to come."},
        errors=(409,),
        headers={"Content-Range": "Which piece it is, such as 'bytes 0-1048575/5000000'."},
    )
    routes.add(
        "GET",
        "/api/uploads/{sha256}",
        show,
        scope=Scope.FULL,
        tag=tag,
        summary="How much of a file is there, also by HEAD in 'Upload-Offset'",
        answer=UploadView,
        errors=(404,),
    )
