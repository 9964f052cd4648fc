"""The asynchronous client: who gets the token, what is repeated, how events survive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from scripted_server import ScriptedServer, http

from simyard.errors import (
    Conflict,
    NotRunning,
    PermissionDenied,
    ServiceUnavailable,
    SimyardError,
    UsageError,
)
from simyard.handler import endpoint as endpoints
from simyard.handler.client import Client
from simyard.handler.endpoint import Endpoint

TOKEN = "s3cret-token"

Make = Callable[..., Awaitable[Client]]


@pytest.fixture
async def client_of(tmp_path: Path) -> AsyncIterator[Make]:
    clients: list[Client] = []

    async def make(url: str, token: str = TOKEN) -> Client:
        clients.append(Client(tmp_path / "none", endpoint=Endpoint(url, token)))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "lie",
    [
        http(200, {"proof": "0" * 64}),
        http(200, {}),
        http(200, []),
        http(404, {"proof": "0" * 64}),
        http(302, None, Location="http://127.0.0.1:1/"),
    ],
)
async def test_a_server_that_cannot_prove_itself_never_sees_the_token(
    client_of: Make, lie: bytes
) -> None:
    server = ScriptedServer(TOKEN)
    server.hello = lambda path, host: lie  # type: ignore[method-assign]
    try:
        client = await client_of(server.url)
        with pytest.raises(PermissionDenied, match="did not prove"):
            await client.submit({"command": ["true"]})
    finally:
        server.close()
    assert TOKEN.encode() not in server.received


async def test_every_new_connection_is_proven_first(client_of: Make) -> None:
    server = ScriptedServer(TOKEN, lambda *_: http(200, {"items": []}, Connection="close"))
    try:
        client = await client_of(server.url)
        await client.jobs()
        server.hello = lambda path, host: http(200, {"proof": ""})  # type: ignore[method-assign]
        with pytest.raises(PermissionDenied):
            await client.jobs()
    finally:
        server.close()
    assert len(server.requests) == 1


async def test_what_is_no_service_is_said_so(client_of: Make) -> None:
    server = ScriptedServer(TOKEN)
    server.hello = lambda path, host: b"SSH-2.0-OpenSSH\r\n\r\n"  # type: ignore[method-assign]
    try:
        with pytest.raises(ServiceUnavailable, match="no Simyard service"):
            await (await client_of(server.url)).jobs()
    finally:
        server.close()


async def test_a_submission_is_repeated_under_the_same_key(client_of: Make) -> None:
    answers = iter([None, None, http(201, {"id": "17"})])
    server = ScriptedServer(TOKEN, lambda *_: next(answers))
    try:
        client = await client_of(server.url)
        assert await client.submit({"command": ["true"]}) == {"id": "17"}
    finally:
        server.close()
    keys = {headers["idempotency-key"] for _, _, headers, _ in server.requests}
    assert (len(server.requests), len(keys)) == (3, 1)


async def test_a_retry_of_a_job_is_never_sent_twice(client_of: Make) -> None:
    server = ScriptedServer(TOKEN, lambda *_: None)
    try:
        with pytest.raises(ServiceUnavailable, match="not known"):
            await (await client_of(server.url)).control("retry", "17")
    finally:
        server.close()
    assert len(server.requests) == 1


async def test_the_errors_of_the_service_come_back_as_they_were_meant(client_of: Make) -> None:
    problem = {"code": "conflict", "detail": "job 17 is over", "status": 409}
    server = ScriptedServer(TOKEN, lambda *_: http(409, problem))
    try:
        with pytest.raises(Conflict, match="job 17 is over"):
            await (await client_of(server.url)).control("cancel", "17")
    finally:
        server.close()


async def test_an_id_cannot_lead_to_another_path(client_of: Make) -> None:
    server = ScriptedServer(TOKEN, lambda *_: http(200, {"id": "1"}))
    try:
        await (await client_of(server.url)).job("../../x?y#z")
    finally:
        server.close()
    assert server.requests[0][1] == "/api/jobs/..%2F..%2Fx%3Fy%23z"


async def test_an_answer_that_is_not_of_the_wire_is_refused(client_of: Make) -> None:
    server = ScriptedServer(TOKEN, lambda *_: http(200, [1, 2]))
    try:
        with pytest.raises(SimyardError, match="not of Simyard's wire"):
            await (await client_of(server.url)).jobs()
    finally:
        server.close()


async def test_nobody_at_the_address_is_not_running(client_of: Make) -> None:
    with pytest.raises(NotRunning, match="nothing answers"):
        await (await client_of("http://127.0.0.1:9")).jobs()


async def test_a_home_without_a_service_is_left_alone_where_none_shall_be_started(
    tmp_path: Path,
) -> None:
    client = Client(tmp_path / "home", start=False)
    with pytest.raises(NotRunning):
        await client.jobs()
    await client.close()
    with pytest.raises(UsageError, match="closed"):
        await client.jobs()
    assert not (tmp_path / "home").exists()


# -- events, from a service that breaks off ------------------------------------------------


class Events:
    """A service whose sockets play one scene after another."""

    def __init__(self, *scenes: list[dict[str, object]] | int) -> None:
        self._scenes = iter(scenes)
        self.since: list[str | None] = []
        self.finished = asyncio.Event()

    async def start(self) -> str:
        app = web.Application()
        app.router.add_get("/api/hello", self._hello)
        app.router.add_get("/api/events", self._play)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self.finished.set()
        await self._runner.cleanup()

    async def _hello(self, request: web.Request) -> web.Response:
        proof = endpoints.expected_proof(TOKEN, request.query["nonce"], request.headers["Host"])
        return web.json_response({"proof": proof})

    async def _play(self, request: web.Request) -> web.StreamResponse:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        self.since.append(request.query.get("since"))
        scene = next(self._scenes)
        if isinstance(scene, int):
            return web.Response(status=scene)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for event in scene:
            await socket.send_str(json.dumps(event))
        if scene and scene[-1]["type"] == "wait":
            await self.finished.wait()
        return socket


def event(seq: int, kind: str = "job.changed") -> dict[str, object]:
    return {"seq": seq, "type": kind, "job_id": "1", "data": {}}


async def take(client: Client, count: int) -> list[tuple[object, object]]:
    stream = client.events()
    taken = []
    async for item in stream:
        taken.append((item["type"], item["seq"]))
        if len(taken) == count:
            break
    await stream.aclose()
    return taken


async def test_events_go_on_where_they_broke_off(client_of: Make) -> None:
    service = Events(
        [event(5, "hello"), event(6), event(7)],
        [event(9, "hello")],
        [event(9, "hello"), event(8), event(9)],
    )
    try:
        client = await client_of(await service.start())
        taken = await asyncio.wait_for(take(client, 7), 20)
    finally:
        await service.stop()
    assert [seq for kind, seq in taken if kind == "job.changed"] == [6, 7, 8, 9]
    # The second greeting names 9, but nothing behind 7 had come when it broke off.
    assert service.since == [None, "7", "7"]


async def test_events_that_are_not_kept_any_longer_are_told_as_lost(client_of: Make) -> None:
    service = Events([event(5, "hello"), event(6)], 410, [event(900, "hello"), event(901)])
    try:
        client = await client_of(await service.start())
        taken = await asyncio.wait_for(take(client, 5), 20)
    finally:
        await service.stop()
    assert [kind for kind, _ in taken] == ["hello", "job.changed", "resync", "hello", "job.changed"]
    assert service.since == [None, "6", None]
