"""The numbered events over a WebSocket: who may listen, replay, slow readers, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from wire_service import TOKEN, WireService, wire_service

from simyard.service.keys import ACTIVITY
from simyard.service.model import Event

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path) as running:
        yield running


async def next_message(connection: aiohttp.ClientWebSocketResponse) -> Any:
    return json.loads(await connection.receive_str(timeout=10))


async def until_type(connection: aiohttp.ClientWebSocketResponse, kind: str) -> Any:
    while (message := await next_message(connection))["type"] != kind:
        pass
    return message


def handshake(service: WireService, query: str = "", **headers: str | None) -> bytes:
    sent: dict[str, str | None] = {
        "Host": service.authority,
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        "Authorization": f"Bearer {TOKEN}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"GET /api/events{query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in sent.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode()


async def ticket(service: WireService) -> str:
    return str((await service.ask("POST", "/api/tickets", {}))["ticket"])


async def test_events_come_in_order_after_a_greeting(service: WireService) -> None:
    async with service.websocket() as connection:
        hello = await next_message(connection)
        assert hello == {"type": "hello", "seq": service.manager.events.latest}
        job = await service.running(name="antenna")
        await service.end(job)
        messages: list[Any] = []
        while not messages or messages[-1]["type"] != "job.completed":
            messages.append(await next_message(connection))
    assert [message["type"] for message in messages] == [
        "job.queued",
        "job.submitting",
        "job.running",
        "job.completed",
    ]
    numbers = [message["seq"] for message in messages]
    assert numbers == sorted(set(numbers)) and numbers[0] > hello["seq"]
    for message in messages:
        assert set(message) == {"seq", "time", "type", "job_id", "data"}
        assert message["job_id"] == job and message["data"]["name"] == "antenna"
        assert message["data"]["state"] and message["data"]["version"]


async def test_a_ticket_opens_one_socket_once(service: WireService) -> None:
    one = await ticket(service)
    request = handshake(service, f"?ticket={one}", Authorization=None)
    assert (await service.raw(request)).status == 101
    again = await service.raw(request)
    assert again.status == 401 and again.json["code"] == "permission_denied"
    for wrong in ("", TOKEN, "x" * 43):
        request = handshake(service, f"?ticket={wrong}", Authorization=None)
        assert (await service.raw(request)).status == 401
    assert (await service.raw(handshake(service, Authorization=None))).status == 401


async def test_a_ticket_is_for_the_socket_only(service: WireService) -> None:
    one = await ticket(service)
    await service.refused(401, "GET", f"/api/jobs?ticket={one}", token=None)
    await service.refused(401, "GET", "/api/jobs", token=one)


async def test_a_wrong_header_is_not_saved_by_a_ticket(service: WireService) -> None:
    request = handshake(service, f"?ticket={await ticket(service)}", Authorization="Bearer wrong")
    assert (await service.raw(request)).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.nip.io"},
    ],
)
async def test_a_page_of_another_origin_cannot_listen_even_with_a_ticket(
    service: WireService, headers: dict[str, str]
) -> None:
    request = handshake(service, f"?ticket={await ticket(service)}", **headers)
    assert (await service.raw(request)).status == 403
    ours = handshake(service, Origin=service.url, Sec_Fetch_Site="same-origin")
    assert (await service.raw(ours)).status == 101


async def test_what_was_missed_is_replayed(service: WireService) -> None:
    before = service.manager.events.latest
    job = await service.running()
    await service.end(job)
    async with service.websocket(f"?since={before}") as connection:
        assert (await next_message(connection))["type"] == "hello"
        types = [(await next_message(connection))["type"] for _ in range(4)]
        assert types == ["job.queued", "job.submitting", "job.running", "job.completed"]
        await service.submit(hold=True)
        assert (await next_message(connection))["type"] == "job.held", "and then what comes"


async def test_one_job_alone_can_be_listened_to(service: WireService) -> None:
    one, other = await service.submit(hold=True), await service.submit(hold=True)
    async with service.websocket(f"?job={one}&since=0") as connection:
        await next_message(connection)
        assert (await next_message(connection))["type"] == "job.held"
        await service.ask("POST", f"/api/jobs/{other}/cancel", {})
        await service.ask("POST", f"/api/jobs/{one}/cancel", {})
        message = await next_message(connection)
        assert (message["type"], message["job_id"]) == ("job.cancelled", one)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with service.websocket("?job=999"):
            pass
    assert refused.value.status == 404


async def test_the_growth_of_a_log_is_told_to_who_listens_to_the_job(
    service: WireService,
) -> None:
    job = await service.running()
    async with service.websocket(f"?job={job}") as connection:
        await next_message(connection)
        # The file may be looked at before or after this; both end in one message.
        for _ in range(50):
            with (service.folder(job) / "stdout.log").open("ab") as file:
                file.write(b"line\n")
            try:
                message = json.loads(await connection.receive_str(timeout=0.3))
                break
            except asyncio.TimeoutError:
                continue
        assert message["type"] == "job.output" and message["job_id"] == job
        assert message["data"]["stdout"] >= 5 and message["data"]["stderr"] == 0
    await service.end(job)


async def test_a_number_from_another_history_is_gone(service: WireService) -> None:
    answer = await service.raw(handshake(service, "?since=1000000"))
    assert answer.status == 410 and answer.json["code"] == "gone"
    for query in ("?since=-1", "?since=x", "?job=x", "?sinc=1"):
        assert (await service.raw(handshake(service, query))).status == 400


async def test_an_upgrade_that_is_none_is_refused(service: WireService) -> None:
    for headers in ({"Upgrade": "h2c"}, {"Sec_WebSocket_Key": "short"}):
        answer = await service.raw(handshake(service, **headers))
        assert answer.status == 400 and answer.json["code"] == "invalid_input"


def publish(service: WireService, count: int, size: int = 2000) -> None:
    log = service.manager.events
    first = log.latest + 1
    log.publish(
        Event(seq=seq, time=0.0, type="test.noise", data={"filling": "x" * size})
        for seq in range(first, first + count)
    )


@contextlib.asynccontextmanager
async def stuck_client(service: WireService) -> AsyncIterator[socket.socket]:
    """A client that has opened a WebSocket and reads nothing."""
    activity = service.application[ACTIVITY]
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(client.connect, ("127.0.0.1", service.port))
        client.sendall(handshake(service))
        while activity.connections < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield client


async def test_a_slow_reader_costs_little_is_told_to_load_again_and_others_notice_nothing(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simyard.service.listener.CAPACITY", 100)
    log = service.manager.events
    async with stuck_client(service) as stuck, service.websocket() as quick:
        await next_message(quick)
        while not any(one.overruns for one in log._all):
            publish(service, 90)
            for _ in range(90):
                assert (await next_message(quick))["type"] == "test.noise"
        (slow,) = [one for one in log._all if one.overruns]
        assert len(slow._queue) <= 100
        text = await asyncio.to_thread(read_until, stuck, b'"type":"resync"')
        seq = int(text.rpartition(b'"type":"resync","seq":')[2].partition(b"}")[0])
        assert log.latest - 100 <= seq <= log.latest


def read_until(client: socket.socket, words: bytes) -> bytes:
    """Read on until `words` and what belongs to them have come."""
    client.settimeout(10)
    found = b""
    while b"}" not in found.rpartition(words)[2] or words not in found:
        piece = client.recv(1 << 20)
        assert piece, "the connection ended"
        found = found[-1000:] + piece
    return found


async def test_who_does_not_read_at_all_is_cut_off(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simyard.service.listener.SEND_SECONDS", 0.3)
    activity = service.application[ACTIVITY]
    async with stuck_client(service):
        deadline = asyncio.get_running_loop().time() + 15
        while activity.connections:
            publish(service, 500)
            await asyncio.sleep(0.05)
            assert asyncio.get_running_loop().time() < deadline
        assert service.manager.events.subscribers == 0


async def test_too_many_sockets_are_told_to_come_back(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simyard.service.listener.MOST", 2)
    async with service.websocket(), service.websocket():
        answer = await service.raw(handshake(service))
        assert answer.status == 503 and int(answer.header("Retry-After") or 0) >= 1
    async with service.websocket() as connection:
        assert (await next_message(connection))["type"] == "hello"


async def test_a_frame_that_is_too_large_ends_the_conversation_only(service: WireService) -> None:
    async with service.websocket() as connection:
        await next_message(connection)
        await connection.send_str("x" * (100 << 10))
        message = await connection.receive(timeout=10)
        assert message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)
        assert connection.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
    await service.ask("GET", "/api/health")


async def test_what_a_client_says_is_not_listened_to(service: WireService) -> None:
    async with service.websocket() as connection:
        await next_message(connection)
        for text in ("{}", "not json", '{"type":"cancel","job_id":"1"}', ""):
            await connection.send_str(text)
        await connection.send_bytes(b"\x00\xff")
        await service.submit(hold=True)
        assert (await next_message(connection))["type"] == "job.held"


async def test_a_client_that_goes_away_is_forgotten(service: WireService) -> None:
    activity = service.application[ACTIVITY]
    async with service.websocket() as connection:
        await next_message(connection)
        assert activity.connections == 1 and service.manager.events.subscribers == 1
    deadline = asyncio.get_running_loop().time() + 10
    while activity.connections or service.manager.events.subscribers:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_the_end_of_the_service_closes_every_socket(tmp_path: Path) -> None:
    async with wire_service(tmp_path / "other") as service:
        async with (
            service.websocket() as one,
            service.websocket(f"?job={await service.submit(hold=True)}") as two,
        ):
            for connection in (one, two):
                assert (await next_message(connection))["type"] == "hello"
            ends = [asyncio.ensure_future(closing(connection)) for connection in (one, two)]
            begun = asyncio.get_running_loop().time()
            await service.runner.cleanup()
            assert asyncio.get_running_loop().time() - begun < 3
            assert await asyncio.gather(*ends) == [aiohttp.WSCloseCode.GOING_AWAY] * 2


async def closing(connection: aiohttp.ClientWebSocketResponse) -> int | None:
    async for _ in connection:
        pass
    return connection.close_code
