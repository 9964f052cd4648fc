"""For machines and the curious: health, version, metrics, the OpenAPI document."""

from __future__ import annotations

import functools
import platform
import socket
import time

from aiohttp import web
from typing_extensions import TypedDict

from ..keys import DESK, METRICS, OPENAPI
from ..metrics import CONTENT_TYPE
from ..routes import Routes
from ..security import Scope
from .exchange import answer

API = "1"


class HealthView(TypedDict):
    """How the service is."""

    status: str
    version: str
    uptime_seconds: float
    latest_event: int


class VersionView(TypedDict):
    """What answers here."""

    version: str
    api: str
    python: str
    host: str


@functools.lru_cache(maxsize=1)
def version_of() -> str:
    """Return the version of this package."""
    from ... import __version__

    return str(__version__)


@functools.lru_cache(maxsize=1)
def hostname() -> str:
    """Return the name of this host."""
    return socket.gethostname()


async def health(request: web.Request) -> web.Response:
    """Say that the service works."""
    desk = request.app[DESK]
    view: HealthView = {
        "status": "ok",
        "version": version_of(),
        "uptime_seconds": round(max(0.0, time.time() - desk.started_at), 3),
        "latest_event": desk.events.latest,
    }
    return answer(view)


async def version(request: web.Request) -> web.Response:
    """Say what answers here."""
    view: VersionView = {
        "version": version_of(),
        "api": API,
        "python": platform.python_version(),
        "host": hostname(),
    }
    return answer(view)


async def metrics(request: web.Request) -> web.Response:
    """Send numbers for Prometheus."""
    desk = request.app[DESK]
    text = request.app[METRICS].render(desk.resources(), latest_event=desk.events.latest)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


async def openapi(request: web.Request) -> web.Response:
    """Send the OpenAPI document."""
    return web.Response(body=request.app[OPENAPI], content_type="application/json")


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "service"
    routes.add(
        "GET",
        "/api/health",
        health,
        scope=Scope.READ,
        tag=tag,
        summary="Whether the service works",
        answer=HealthView,
    )
    routes.add(
        "GET",
        "/api/version",
        version,
        scope=Scope.READ,
        tag=tag,
        summary="What answers here",
        answer=VersionView,
    )
    routes.add(
        "GET",
        "/metrics",
        metrics,
        scope=Scope.READ,
        tag=tag,
        summary="Numbers for Prometheus",
        produces=("text/plain",),
    )
    routes.add(
        "GET",
        "/api/openapi.json",
        openapi,
        scope=Scope.READ,
        tag=tag,
        summary="This description, as OpenAPI 3.1",
        answer=dict,
    )
