"""What a browser loads: the dashboard's files and the reference page. They hold no data.

Every file is a route of its own, registered when the application is built: there is no
path to be led astray by, and nothing that was put into the folder later is served.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from pathlib import Path

from aiohttp import web

from ..routes import Handler, Routes
from ..security import Scope
from . import reference_page

WEB = Path(__file__).resolve().parents[2] / "web"
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
_TEXT = frozenset({".html", ".js", ".css", ".svg", ".webmanifest"})


def _page(content: bytes, kind: str, request: web.Request, *, text: bool) -> web.Response:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    charset = "utf-8" if text else None
    return web.Response(body=content, content_type=kind, charset=charset, headers=headers)


def _file(path: Path) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        try:
            content = await asyncio.to_thread(path.read_bytes)
        except OSError as error:
            raise web.HTTPNotFound from error
        return _page(content, TYPES[path.suffix], request, text=path.suffix in _TEXT)

    return handle


async def _docs(content: str, suffix: str, request: web.Request) -> web.Response:
    return _page(content.encode(), TYPES[suffix], request, text=True)


def register(routes: Routes, folder: Path = WEB) -> None:
    """Add a route for every file of the dashboard, and for the reference page."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if path.suffix not in TYPES or not path.is_file() or "/." in f"/{name}":
            continue
        places = ["/", "/index.html"] if name == "index.html" else [f"/{name}"]
        for place in places:
            routes.add(
                "GET",
                place,
                _file(path),
                scope=Scope.OPEN,
                tag="pages",
                summary="A file of the dashboard",
                navigation=path.suffix == ".html",
                documented=False,
            )
    for place, content, suffix in (
        ("/docs", reference_page.HTML, ".html"),
        ("/docs.js", reference_page.SCRIPT, ".js"),
        ("/docs.css", reference_page.STYLE, ".css"),
    ):
        routes.add(
            "GET",
            place,
            functools.partial(_docs, content, suffix),
            scope=Scope.OPEN,
            tag="service",
            summary="This description, to read",
            produces=(TYPES[suffix],),
            navigation=suffix == ".html",
            documented=suffix == ".html",
        )
