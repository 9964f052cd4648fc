"""The web application put together: routes, middlewares, and what lives as long as it does.

Knows which parts there are; nothing of sockets, signals or the home.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from aiohttp import web

from . import openapi, websocket
from .activity import Activity, Waiters
from .growth import Growth
from .keys import (
    ACTIVITY,
    ADDRESSES,
    CREDENTIALS,
    DESK,
    GROWTH,
    METRICS,
    OPENAPI,
    ROUTES,
    WAITERS,
    Desk,
)
from .metrics import Metrics
from .middlewares import MIDDLEWARES, MOST_BYTES, harden
from .rest import control, files, jobs, logs, meta, pages, prune, session, uploads, yard
from .routes import Routes
from .security import Addresses, Credentials
from .views import encode

__all__ = ["ACTIVITY", "build_application"]

MOST_WAITING = 200


def build_application(
    manager: Desk, *, token: str, port: int, names: Iterable[str] = ()
) -> web.Application:
    """Return the application that serves `manager`'s jobs.

    `port` is the one that is listened at, `names` are further host names (with or without
    a port) by which clients may address it. Raises `InvalidInput` for a name that is none,
    `UsageError` where a route has no scope.
    """
    application = web.Application(middlewares=MIDDLEWARES, client_max_size=MOST_BYTES)
    routes = Routes(application.router)
    for part in (jobs, control, logs, files, uploads, prune, yard, session, meta, websocket):
        part.register(routes)
    pages.register(routes)
    routes.verify()
    application[DESK] = manager
    application[ROUTES] = routes
    application[CREDENTIALS] = Credentials(token)
    application[ADDRESSES] = Addresses(port=port, names=names, scheme=manager.settings.scheme)
    application[ACTIVITY] = Activity()
    application[WAITERS] = Waiters(MOST_WAITING)
    application[GROWTH] = Growth()
    application[METRICS] = Metrics()
    manager.observe(application[METRICS].note_commit)
    application[OPENAPI] = encode(openapi.document(routes, version=meta.version_of()))
    application.on_response_prepare.append(harden)
    application.on_shutdown.append(_let_go)
    application.cleanup_ctx.append(_growth)
    application.cleanup_ctx.append(_lag)
    return application


async def _let_go(application: web.Application) -> None:
    """Answer everybody who waits, and close every WebSocket: nothing holds up the end."""
    application[WAITERS].end()
    for end in list(application[ACTIVITY].sockets):
        end()


async def _lag(application: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(application[METRICS].watch_loop(), name="loop-lag")
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _growth(application: web.Application) -> AsyncIterator[None]:
    yield
    await application[GROWTH].close()
