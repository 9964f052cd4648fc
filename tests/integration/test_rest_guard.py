"""Nothing answers without a credential, to another name, or for a page of another origin."""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from wire_service import TOKEN, WireService, wire_service

from simyard.errors import UsageError
from simyard.service.application import build_application
from simyard.service.keys import CREDENTIALS, ROUTES
from simyard.service.routes import Operation, Routes
from simyard.service.security import Scope

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
OPEN = {("GET", "/api/hello"), ("POST", "/api/session"), ("GET", "/docs")}
"""What answers without a credential, beside the files of the pages."""
NONCE = "0123456789abcdef"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WireService]:
    async with wire_service(
        tmp_path_factory.mktemp("service"), allowed_hosts=("sim.example.org",)
    ) as running:
        yield running


def filled(operation: Operation) -> str:
    path = re.sub(r"\{[^}]*\}", "1", operation.template)
    # Else it would answer for ever.
    return f"{path}?since=999999999" if "text/event-stream" in operation.produces else path


def operations(service: WireService) -> list[Operation]:
    routes: Routes = service.application[ROUTES]
    return list(routes)


async def test_a_route_without_a_scope_cannot_be_registered() -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    routes = Routes(web.Application().router)
    with pytest.raises(UsageError, match="has no scope"):
        routes.add("GET", "/api/new", handler, summary="Something", tag="new")
    assert not list(routes)


async def test_a_route_registered_past_the_table_is_found_out(service: WireService) -> None:
    application = build_application(service.manager, token=TOKEN, port=1)
    application[ROUTES].verify()

    async def handler(request: web.Request) -> web.Response:
        return web.Response()

    application.router.add_get("/api/back-door", handler)
    with pytest.raises(UsageError, match="without a scope"):
        application[ROUTES].verify()


async def test_what_is_open_is_a_short_list_known_by_heart(service: WireService) -> None:
    found = {
        (operation.method, operation.path)
        for operation in operations(service)
        if operation.scope is Scope.OPEN
    }
    pages = {item for item in found if not item[1].startswith(("/api", "/metrics"))} - OPEN
    assert found - pages == OPEN
    assert all(method == "GET" for method, _ in pages)


@pytest.mark.parametrize("token", ["wrong", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "", "\xff"])
async def test_a_token_of_any_other_form_is_refused(service: WireService, token: str) -> None:
    for path in ("/api/jobs", "/metrics", "/api/events"):
        await service.refused(401, "GET", path, token=token)


@pytest.mark.parametrize("token", [None, "x" * len(TOKEN)])
async def test_no_route_answers_without_the_right_credential(
    service: WireService, token: str | None
) -> None:
    open_ones = {
        (method, filled(operation))
        for operation in operations(service)
        if operation.scope is Scope.OPEN
        for method in ((operation.method, "HEAD") if operation.method == "GET" else ("POST",))
    }
    paths = sorted({filled(operation) for operation in operations(service)})
    paths += ["/api", "/api/", "/nothing", "/api/jobs/1/nothing", "/index.html/x", "/.git/config"]
    wanted = [(m, p) for p in paths for m in METHODS if (m, p) not in open_ones]
    gate = asyncio.Semaphore(16)

    async def status(method: str, path: str) -> tuple[str, str, int, bytes]:
        async with gate:
            body: Any = {} if method in ("POST", "PUT", "PATCH") else None
            answer = await service.send(method, path, body, token=token)
            assert answer.header("WWW-Authenticate") is not None
            return method, path, answer.status, answer.body

    for method, path, code, body in await asyncio.gather(*(status(*pair) for pair in wanted)):
        assert code == 401, (method, path, code)
        assert b"job" not in body.replace(b"job's", b""), (method, path, body)


@pytest.mark.parametrize(
    "header",
    [f"Basic {TOKEN}", TOKEN, f"Bearer  {TOKEN}x", "Bearer", "Bearer ", f"Token {TOKEN}", "é"],
)
async def test_only_a_bearer_token_is_a_credential(service: WireService, header: str) -> None:
    await service.refused(401, "GET", "/api/jobs", headers={"Authorization": header}, token=None)


@pytest.mark.parametrize("where", ["token", "access_token", "ticket", "Authorization", "code"])
async def test_the_token_in_the_query_is_not_a_credential(service: WireService, where: str) -> None:
    await service.refused(401, "GET", f"/api/jobs?{where}={TOKEN}", token=None)
    await service.refused(401, "GET", f"/api/events?{where}={TOKEN}", token=None)


async def test_the_token_in_a_cookie_is_not_a_credential_and_none_is_set(
    service: WireService,
) -> None:
    headers = {"Cookie": f"token={TOKEN}; session={TOKEN}"}
    await service.refused(401, "GET", "/api/jobs", token=None, headers=headers)
    for path in ("/", "/docs", "/api/jobs", "/api/health"):
        assert (await service.send("GET", path)).header("Set-Cookie") is None


async def test_a_reading_session_changes_nothing(service: WireService) -> None:
    token = service.application[CREDENTIALS]._sessions.issue(Scope.READ).secret
    for operation in operations(service):
        body: Any = {} if operation.method != "GET" else None
        answer = await service.send(operation.method, filled(operation), body, token=token)
        if operation.scope is Scope.FULL:
            assert answer.status == 403, operation.path
        else:
            assert answer.status not in (401, 403) or operation.path == "/api/session"


async def test_a_code_is_good_once_and_its_session_is_a_credential(service: WireService) -> None:
    made = await service.ask("POST", "/api/session/codes", {"scope": "read"})
    assert made["url"] == f"{service.url}/#code={made['code']}"
    session = await service.ask("POST", "/api/session", {"code": made["code"]}, token=None)
    assert session["scope"] == "read"
    await service.ask("GET", "/api/jobs", token=session["token"])
    again = await service.refused(401, "POST", "/api/session", {"code": made["code"]}, token=None)
    assert "simyard dashboard" in again["detail"]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "evil.localhost.attacker:{port}",
        "127.0.0.1.nip.io:{port}",
        "localhost:{port}@evil",
        "user@localhost:{port}",
        "",
        "localhost",
        "127.0.0.1",
        "localhost:80",
        "localhost.:{port}",
        "127.0.0.1.:{port}",
        "127.1:{port}",
        "0.0.0.0:{port}",
        "[::]:{port}",
        "127.0.0.1:{port}0",
        "127.0.0.1:{port} ",
        "127.0.0.1:{port},evil.example",
        "sim.example.org.evil:{port}",
        "sim.example.org",
    ],
)
async def test_another_host_name_is_refused_on_every_kind_of_route(
    service: WireService, host: str
) -> None:
    host = host.format(port=service.port)
    for method, path in (
        ("GET", "/api/jobs"),
        ("GET", f"/api/hello?nonce={NONCE}"),
        ("GET", "/"),
        ("OPTIONS", "/api/jobs"),
        ("POST", "/api/jobs"),
        ("GET", "/nothing"),
    ):
        request = (
            f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            "Connection: close\r\n\r\n"
        )
        if host.endswith(" "):  # white space around a value is not part of it (RFC 9110, 5.5)
            assert (await service.raw(request.encode())).status not in (403, 421)
        else:
            assert (await service.raw(request.encode())).status in (400, 403, 421), (method, path)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:{port}",
        "localhost:{port}",
        "LOCALHOST:{port}",
        "[::1]:{port}",
        "sim.example.org:{port}",
    ],
)
async def test_our_own_names_are_answered(service: WireService, host: str) -> None:
    await service.ask("GET", "/api/health", headers={"Host": host.format(port=service.port)})


async def test_two_hosts_no_host_and_an_absolute_target_are_refused(service: WireService) -> None:
    authority, token = service.authority, f"Authorization: Bearer {TOKEN}\r\n"
    for request in (
        f"GET /api/jobs HTTP/1.1\r\nHost: {authority}\r\nHost: {authority}\r\n{token}\r\n",
        f"GET /api/jobs HTTP/1.1\r\nHost: {authority}\r\nHost: evil.example\r\n{token}\r\n",
        f"GET /api/jobs HTTP/1.1\r\n{token}\r\n",
        f"GET /api/jobs HTTP/1.0\r\n{token}\r\n",
        f"GET http://{authority}/api/jobs HTTP/1.1\r\nHost: {authority}\r\n{token}\r\n",
        f"GET http://evil.example/api/jobs HTTP/1.1\r\nHost: {authority}\r\n{token}\r\n",
        f"GET http://{authority}/api/jobs HTTP/1.1\r\nHost: evil.example\r\n{token}\r\n",
        f"OPTIONS * HTTP/1.1\r\nHost: {authority}\r\n{token}\r\n",
        f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{token}\r\n",
    ):
        request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
        answer = await service.raw(request.encode())
        assert answer.status in (400, 403, 405, 421), request
        assert b"items" not in answer.body


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:1",
        "http://localhost",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}/",
        "",
    ],
)
async def test_another_origin_is_refused_even_with_the_token(
    service: WireService, origin: str
) -> None:
    headers = {"Origin": origin.format(port=service.port)}
    for method, path in (
        ("GET", "/api/jobs"),
        ("POST", "/api/jobs"),
        ("GET", "/"),
        ("POST", "/api/session"),
        ("GET", "/api/events"),
    ):
        body: Any = {} if method == "POST" else None
        await service.refused(403, method, path, body, headers=headers)


async def test_our_own_origin_may_ask(service: WireService) -> None:
    for name in ("127.0.0.1", "localhost", "[::1]"):
        headers = {"Origin": f"http://{name}:{service.port}", "Sec-Fetch-Site": "same-origin"}
        await service.ask("GET", "/api/jobs", headers=headers)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
async def test_a_request_of_another_site_is_refused_but_a_link_may_lead_to_a_page(
    service: WireService, site: str
) -> None:
    navigation = {
        "Sec-Fetch-Site": site,
        "Sec-Fetch-Mode": "navigate",
        "Sec-Fetch-Dest": "document",
    }
    for path in ("/api/jobs", "/api/health", "/docs.js"):
        await service.refused(403, "GET", path, headers={"Sec-Fetch-Site": site})
        await service.refused(403, "GET", path, headers=navigation)
    await service.refused(403, "GET", "/docs", headers={"Sec-Fetch-Site": site})
    await service.refused(403, "GET", "/docs", headers={**navigation, "Sec-Fetch-Dest": "iframe"})
    assert (await service.send("GET", "/docs", headers=navigation, token=None)).status == 200


async def test_a_preflight_gets_no_permission(service: WireService) -> None:
    for origin in ("http://evil.example", service.url):
        headers = {
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        for path in ("/api/jobs", "/api/hello", "/"):
            for token in (None, TOKEN):
                answer = await service.send("OPTIONS", path, headers=headers, token=token)
                assert answer.status in (401, 403, 405)
                names = {name.lower() for name, _ in answer.headers}
                assert not any(name.startswith("access-control") for name in names)


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        None,
        "text/json",
        "application/octet-stream",
    ],
)
async def test_a_change_that_is_not_json_is_refused(service: WireService, kind: str | None) -> None:
    body = b'{"command": ["solver"]}'
    headers = {"Content-Type": kind}
    before = (await service.ask("GET", "/api/jobs"))["total"]
    for path in ("/api/jobs", "/api/session", "/api/jobs/cancel", "/api/limits"):
        method = "PUT" if path == "/api/limits" else "POST"
        await service.refused(415, method, path, body, headers=headers)
    assert (await service.ask("GET", "/api/jobs"))["total"] == before


async def test_an_empty_form_is_refused_and_an_empty_call_is_not(service: WireService) -> None:
    job = await service.submit(hold=True)
    form = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": "0"}
    await service.refused(415, "POST", f"/api/jobs/{job}/release", headers=form)
    await service.ask("POST", f"/api/jobs/{job}/release", headers={"Content-Length": "0"})


async def test_a_method_override_is_not_listened_to(service: WireService) -> None:
    job = await service.submit(hold=True)
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        await service.send("GET", f"/api/jobs/{job}", headers={name: "DELETE"})
        await service.send("POST", f"/api/jobs/{job}", {}, headers={name: "DELETE"})
    assert (await service.ask("GET", f"/api/jobs/{job}"))["state"] == "held"


@pytest.mark.parametrize("path", ["/", "/docs", "/docs.js", "/api/jobs", "/metrics", "/nothing"])
async def test_every_answer_carries_the_security_headers(service: WireService, path: str) -> None:
    for token in (TOKEN, None):
        answer = await service.send("GET", path, token=token)
        policy = answer.header("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "base-uri 'none'" in policy
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("Referrer-Policy") == "no-referrer"
        assert answer.header("X-Frame-Options") == "DENY"
        assert answer.header("Server") == "simyard"
        assert answer.header("X-Request-ID")
        expected = "no-cache" if path in ("/", "/docs", "/docs.js") else "no-store"
        if answer.status == 200:
            assert answer.header("Cache-Control") == expected


async def test_a_request_id_is_taken_over_only_where_it_is_harmless(service: WireService) -> None:
    given = await service.send("GET", "/api/health", headers={"X-Request-ID": "abc-1"})
    assert given.header("X-Request-ID") == "abc-1"
    forged = await service.send("GET", "/api/health", headers={"X-Request-ID": "<b> forged"})
    assert re.fullmatch("[0-9a-f]{16}", forged.header("X-Request-ID") or "")


async def test_the_server_proves_itself_for_the_address_it_was_asked_by(
    service: WireService,
) -> None:
    for host in (service.authority, f"localhost:{service.port}"):
        answer = await service.ask(
            "GET", f"/api/hello?nonce={NONCE}", token=None, headers={"Host": host}
        )
        said = f"{NONCE}\n{host}".encode()
        assert answer["proof"] == hmac.new(TOKEN.encode(), said, "sha256").hexdigest()
        assert answer["host"] and answer["boot_id"] and answer["version"]
    for nonce in ("", "short", "x" * 129, "0123456789abcdef%0A"):
        await service.refused(400, "GET", f"/api/hello?nonce={nonce}", token=None)
    await service.refused(400, "GET", "/api/hello", token=None)
