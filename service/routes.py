"""The routes: each with a scope, and with what the OpenAPI document says of it.

A route without a scope cannot be registered, and `Routes.verify` refuses an
application in which one was registered past this module. It must not know handlers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from ..errors import UsageError
from .security import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    """As aiohttp writes it: ``/api/jobs/{id}``."""
    handler: Handler
    scope: Scope
    summary: str
    tag: str
    query: type[Any] | None = None
    """The pydantic model of the query."""
    accepts: str = "application/json"
    """The type of the request's body."""
    body: Any = None
    """The pydantic model, or type, of the JSON body."""
    answer: Any = None
    """The type of the JSON answer."""
    status: int = 200
    produces: tuple[str, ...] = ("application/json",)
    upgrades: Any = None
    """The type of the messages, where the call may also become a WebSocket."""
    also: Mapping[int, str] = field(default_factory=dict)
    """Further statuses of success, of the same shape, with what they mean."""
    errors: tuple[int, ...] = ()
    """Problems that this operation answers beside those that any may."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers it understands, with what they do."""
    navigation: bool = False
    """A page without data, to which a link of any site may lead."""
    ticket: bool = False
    """A one-use ticket in the query stands for the credential."""
    documented: bool = True
    """False for the files of the dashboard."""

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it: without regular expressions."""
        return "/".join(
            part.partition(":")[0] + "}" if part.startswith("{") and ":" in part else part
            for part in self.path.split("/")
        )


class Routes:
    """All operations of an application, and its router."""

    def __init__(self, router: web.UrlDispatcher) -> None:
        self._router = router
        self._operations: dict[web.AbstractRoute, Operation] = {}
        self._all: list[Operation] = []

    def add(
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        scope: Scope | None = None,
        summary: str,
        tag: str,
        **facts: Any,
    ) -> None:
        """Register one operation; a GET answers HEAD too.

        Raises `UsageError` where no scope is given: nothing is open by oversight.
        """
        if not isinstance(scope, Scope):
            raise UsageError(f"the route {method} {path} has no scope: say open, read or full")
        operation = Operation(
            method=method,
            path=path,
            handler=handler,
            scope=scope,
            summary=summary,
            tag=tag,
            **facts,
        )
        self._all.append(operation)
        self._operations[self._router.add_route(method, path, handler)] = operation
        if method == "GET" and not operation.ticket:
            self._operations[self._router.add_route("HEAD", path, handler)] = operation

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._all)

    def of(self, request: web.Request) -> Operation | None:
        """Return the operation that a request was routed to; None where there is none."""
        return self._operations.get(request.match_info.route)

    def verify(self) -> None:
        """Raise `UsageError` where the router has a route that is not one of ours."""
        for route in self._router.routes():
            if route not in self._operations:
                raise UsageError(f"the route {route!r} was registered without a scope")
