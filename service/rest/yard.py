"""The yard over REST: who waits, what there is, what may be used, who runs things."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from ...errors import NotFound
from ..configuration import SettingView, settings_view
from ..keys import DESK
from ..resources import Limits
from ..routes import Routes
from ..security import Scope
from .exchange import answer, body_of, parse_object, query_of


class QueueQuery(BaseModel):
    """How much of the queue."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class QueueItem(TypedDict):
    """One job that waits."""

    id: str
    name: str
    state: str
    priority: int
    pending_reason: str | None


class QueueView(TypedDict):
    """The jobs that wait, in the order in which they stand."""

    items: list[QueueItem]
    total: int


class ResourcesView(TypedDict):
    """The host, what of it may be used, and what is in use."""

    host: dict[str, Any] | None
    limits: dict[str, Any]
    in_use: dict[str, Any]
    states: dict[str, int]


class SchedulerList(TypedDict):
    """The schedulers that jobs can be given to."""

    items: list[dict[str, Any]]


class PartitionList(TypedDict):
    """Queues of one scheduler."""

    items: list[dict[str, Any]]


class SettingList(TypedDict):
    """The settings of the service."""

    items: list[SettingView]


async def queue(request: web.Request) -> web.Response:
    """Show the jobs that wait, in order."""
    query = query_of(request, QueueQuery)
    desk = request.app[DESK]
    items: list[QueueItem] = [
        {
            "id": str(job.id),
            "name": job.name,
            "state": job.state.value,
            "priority": job.priority,
            "pending_reason": desk.pending_reason(job),
        }
        for job in await desk.queue(query.limit)
    ]
    states = desk.resources()["states"]
    total = int(states.get("queued", 0)) + int(states.get("held", 0))
    return answer({"items": items, "total": total})


async def resources(request: web.Request) -> web.Response:
    """Show the host, the limits, and what is in use."""
    return answer(request.app[DESK].resources())


async def limits(request: web.Request) -> web.Response:
    """Show the limits."""
    return answer(request.app[DESK].limits.to_wire())


async def set_limits(request: web.Request) -> web.Response:
    """Change limits; those that are not named stay."""
    changes = parse_object(await body_of(request))
    return answer((await request.app[DESK].set_limits(changes)).to_wire())


async def settings(request: web.Request) -> web.Response:
    """Show the settings in force, and where each came from."""
    return answer({"items": settings_view(request.app[DESK].settings)})


async def schedulers(request: web.Request) -> web.Response:
    """List the schedulers."""
    return answer({"items": request.app[DESK].schedulers()})


async def queues(request: web.Request) -> web.Response:
    """List the queues of one scheduler; those of this machine come from its settings."""
    name = request.match_info["name"]
    known = {str(item["name"]): item for item in request.app[DESK].schedulers()}
    if name not in known:
        raise NotFound(f"there is no scheduler {name!r:.120}; there are {', '.join(known)}")
    return answer({"items": known[name].get("queues", [])})


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "yard"
    routes.add(
        "GET",
        "/api/queue",
        queue,
        scope=Scope.READ,
        tag=tag,
        summary="Jobs that wait, in order, each with its reason",
        query=QueueQuery,
        answer=QueueView,
    )
    routes.add(
        "GET",
        "/api/resources",
        resources,
        scope=Scope.READ,
        tag=tag,
        summary="The host, the limits, what is in use, jobs by state",
        answer=ResourcesView,
    )
    routes.add(
        "GET",
        "/api/limits",
        limits,
        scope=Scope.READ,
        tag=tag,
        summary="The limits in force",
        answer=Limits,
    )
    routes.add(
        "PUT",
        "/api/limits",
        set_limits,
        scope=Scope.FULL,
        tag=tag,
        summary="Change limits; those not named stay, null takes one away",
        body=Limits,
        answer=Limits,
    )
    routes.add(
        "GET",
        "/api/settings",
        settings,
        scope=Scope.READ,
        tag=tag,
        summary="The settings in force, and where each came from",
        answer=SettingList,
    )
    routes.add(
        "GET",
        "/api/schedulers",
        schedulers,
        scope=Scope.READ,
        tag=tag,
        summary="Schedulers that jobs can be given to",
        answer=SchedulerList,
    )
    routes.add(
        "GET",
        "/api/schedulers/{name}/queues",
        queues,
        scope=Scope.READ,
        tag=tag,
        summary="Queues of one scheduler",
        answer=PartitionList,
        errors=(404,),
    )
