"""How the dashboard gets in: one-time codes, session tokens, tickets. No cookies anywhere."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from ..home import boot_id
from ..keys import ADDRESSES, CREDENTIALS, DESK
from ..middlewares import SCOPE
from ..routes import Routes
from ..security import CODE_SECONDS, TICKET_SECONDS, Scope
from ..views import timestamp
from .exchange import answer, query_of, read
from .meta import hostname, version_of


class HelloQuery(BaseModel):
    """What the server is to prove itself with."""

    model_config = ConfigDict(extra="forbid")

    nonce: str = Field(max_length=200, description="16 to 128 letters, digits, '-' or '_'.")


class HelloView(TypedDict):
    """The proof that this server knows the token, and who it is."""

    proof: str
    version: str
    host: str
    boot_id: str


class CodeRequest(BaseModel):
    """What the session is to be good for."""

    model_config = ConfigDict(extra="forbid")

    scope: Literal["read", "full"] = "full"


class CodeView(TypedDict):
    """A one-time code, and the address to open."""

    code: str
    url: str
    expires_in: float


class SessionRequest(BaseModel):
    """The code from the address's fragment."""

    model_config = ConfigDict(extra="forbid")

    code: str = Field(min_length=1, max_length=200)


class SessionView(TypedDict):
    """A session token, to be sent as a bearer token."""

    token: str
    scope: str
    expires_at: str


class TicketView(TypedDict):
    """A ticket that opens one WebSocket."""

    ticket: str
    expires_in: float


async def hello(request: web.Request) -> web.Response:
    """Prove that this server knows the token, before anybody sends it."""
    nonce = query_of(request, HelloQuery).nonce
    authority = request.app[ADDRESSES].check_host(
        request.headers.getall("Host", []), request.raw_path
    )
    view: HelloView = {
        "proof": request.app[CREDENTIALS].prove(nonce, authority),
        "version": version_of(),
        "host": hostname(),
        "boot_id": boot_id(),
    }
    return answer(view)


async def new_code(request: web.Request) -> web.Response:
    """Make a one-time code with which a browser logs in."""
    wanted = await read(request, CodeRequest)
    issued = request.app[CREDENTIALS].new_code(Scope(wanted.scope))
    scheme = request.app[DESK].settings.scheme
    view: CodeView = {
        "code": issued.secret,
        "url": f"{scheme}://{request.headers['Host']}/#code={issued.secret}",
        "expires_in": CODE_SECONDS,
    }
    return answer(view, status=201)


async def new_session(request: web.Request) -> web.Response:
    """Exchange a one-time code for a session token."""
    wanted = await read(request, SessionRequest)
    issued = request.app[CREDENTIALS].exchange(wanted.code)
    view: SessionView = {
        "token": issued.secret,
        "scope": issued.scope.value,
        "expires_at": timestamp(issued.expires_at),
    }
    return answer(view, status=201)


async def new_ticket(request: web.Request) -> web.Response:
    """Make a ticket that opens one WebSocket, once, within 30 seconds."""
    issued = request.app[CREDENTIALS].new_ticket(request[SCOPE])
    view: TicketView = {"ticket": issued.secret, "expires_in": TICKET_SECONDS}
    return answer(view, status=201)


def register(routes: Routes) -> None:
    """Add the routes of this module."""
    tag = "session"
    routes.add(
        "GET",
        "/api/hello",
        hello,
        scope=Scope.OPEN,
        tag=tag,
        summary="The server proves that it knows the token",
        query=HelloQuery,
        answer=HelloView,
    )
    routes.add(
        "POST",
        "/api/session/codes",
        new_code,
        scope=Scope.FULL,
        tag=tag,
        summary="A one-time code with which a browser logs in",
        body=CodeRequest,
        answer=CodeView,
        status=201,
    )
    routes.add(
        "POST",
        "/api/session",
        new_session,
        scope=Scope.OPEN,
        tag=tag,
        summary="Exchange a one-time code for a session token",
        body=SessionRequest,
        answer=SessionView,
        status=201,
        errors=(401,),
    )
    # A read-only session may open the live view as well.
    routes.add(
        "POST",
        "/api/tickets",
        new_ticket,
        scope=Scope.READ,
        tag=tag,
        summary="A ticket that opens one WebSocket",
        answer=TicketView,
        status=201,
    )
