"""What every request passes before a handler sees it, and every answer on its way out.

From the outside in: the answer to errors, the address it came by, the credential, the
form of its body. Each refuses unless it finds what it looks for. It must not know what
the routes do.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time

from aiohttp import web

from ..errors import Forbidden, PermissionDenied, SimyardError, TooLarge
from .keys import ACTIVITY, ADDRESSES, CREDENTIALS, METRICS, ROUTES
from .problems import problem_of, problem_of_status
from .routes import Handler, Operation
from .security import Scope
from .views import encode

log = logging.getLogger(__name__)

MOST_BYTES = 16 << 20
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
SCOPE: web.RequestKey[Scope] = web.RequestKey("scope", Scope)
_SENT_BY_FORMS = frozenset(
    {"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"}
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'"
)
FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'; base-uri 'none'"
_SECURITY_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-store",
}
"""An answer may set its own; only what it does not say is filled in."""


async def harden(request: web.Request, response: web.StreamResponse) -> None:
    """Put the security headers on an answer; a signal of the application."""
    for name, value in _SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "simyard"
    if REQUEST_ID in request:
        response.headers["X-Request-ID"] = request[REQUEST_ID]


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every request a number, and every error a problem document."""
    given = request.headers.get("X-Request-ID", "")
    request[REQUEST_ID] = given if _REQUEST_ID.match(given) else secrets.token_hex(8)
    begun = time.monotonic()
    response = await _answered(request, handler)
    operation = request.app[ROUTES].of(request)
    route = operation.path if operation is not None else "unknown"
    endless = response.status == 101 or response.content_type == "text/event-stream"
    waits = "wait" in request.query or endless
    seconds = None if waits else time.monotonic() - begun
    request.app[METRICS].note_request(_known_method(request), route, response.status, seconds)
    return response


def _known_method(request: web.Request) -> str:
    return request.method if request.method in CHANGES | {"GET", "HEAD", "OPTIONS"} else "other"


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except SimyardError as error:
        if error.status >= 500:
            log.warning("request %s failed: %s", request[REQUEST_ID], error)
        return _of_error(error)
    except web.HTTPRequestEntityTooLarge:
        return _of_error(too_large())
    except web.HTTPException as error:
        return _of_http(request, error)
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception:
        log.exception("request %s failed unexpectedly", request[REQUEST_ID])
        document = problem_of_status(
            500,
            "the service failed unexpectedly; its log says more under the request number "
            f"{request[REQUEST_ID]}",
        )
        return _document(document, 500)


def too_large() -> TooLarge:
    """Say that a body is over the bound."""
    return TooLarge(
        f"the request's body is larger than {MOST_BYTES >> 20} MiB; send fewer jobs at a time"
    )


def _of_error(error: SimyardError) -> web.Response:
    response = _document(problem_of(error), error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer realm="simyard"'
    if error.status in (503, 507):
        response.headers["Retry-After"] = str(int(error.details.get("retry_after", 1)))
    return response


def _of_http(request: web.Request, error: web.HTTPException) -> web.Response:
    words = {
        404: f"there is nothing at {request.path[:200]}; /docs lists what there is",
        405: f"{request.method[:20]} is not possible at {request.path[:200]}",
    }
    detail = words.get(error.status, error.reason or "the request failed")
    response = _document(problem_of_status(error.status, detail), error.status)
    for name in ("Allow", "Retry-After", "Content-Range"):
        if name in error.headers:
            response.headers[name] = error.headers[name]
    return response


def _document(document: object, status: int) -> web.Response:
    return web.Response(
        body=encode(document), status=status, content_type="application/problem+json"
    )


@web.middleware
async def check_address(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what was sent to another name than ours, or by a page of another origin."""
    addresses = request.app[ADDRESSES]
    addresses.check_host(request.headers.getall("Host", []), request.raw_path)
    operation = request.app[ROUTES].of(request)
    headers = request.headers
    navigation = (
        operation is not None
        and operation.navigation
        and request.method in ("GET", "HEAD")
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
    addresses.check_origin(
        headers.getall("Origin", []), headers.get("Sec-Fetch-Site"), navigation=navigation
    )
    return await handler(request)


@web.middleware
async def check_credential(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what has no credential, or one that does not allow it; also where nothing is."""
    operation = request.app[ROUTES].of(request)
    wanted = Scope.READ if operation is None else operation.scope
    if wanted is not Scope.OPEN:
        scope = _scope_of(request, operation)
        if scope is None:
            raise PermissionDenied(
                "a valid token is needed: send 'Authorization: Bearer TOKEN' with the token of the "
                "service, which its owner finds in the home's run/endpoint.json"
            )
        if not scope.allows(wanted):
            raise Forbidden("this token may only read; changing something needs the full one")
        request[SCOPE] = scope
        request.app[ACTIVITY].note()
    return await handler(request)


def _scope_of(request: web.Request, operation: Operation | None) -> Scope | None:
    given = request.headers.getall("Authorization", [])
    if len(given) > 1:
        return None
    credentials = request.app[CREDENTIALS]
    if given:
        return credentials.check(given[0])
    if operation is not None and operation.ticket:
        return credentials.redeem_ticket(request.query.get("ticket", ""))
    return None


@web.middleware
async def check_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse a change whose body is no JSON, is compressed, or is over the bound.

    A route may ask for bytes instead; it bounds them itself, as they come.
    """
    if request.method in CHANGES:
        operation = request.app[ROUTES].of(request)
        accepts = "application/json" if operation is None else operation.accepts
        wrong = request.content_type != accepts
        # Clients name some type even where there is no body; a form is a form all the same.
        if wrong and (request.body_exists or request.content_type in _SENT_BY_FORMS):
            raise web.HTTPUnsupportedMediaType(
                reason="send JSON with 'Content-Type: application/json'"
                if accepts == "application/json"
                else f"send the bytes with 'Content-Type: {accepts}'"
            )
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise web.HTTPUnsupportedMediaType(reason="send the body uncompressed")
        streamed = accepts != "application/json"
        if not streamed and (request.content_length or 0) > MOST_BYTES:
            raise too_large()
    return await handler(request)


MIDDLEWARES = (answer_errors, check_address, check_credential, check_body)
