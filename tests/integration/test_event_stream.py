"""The numbered events as server-sent events: replay, slow readers, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from wire_service import TOKEN, WireService, wire_service

from simyard.service.keys import ACTIVITY
from simyard.service.model import Event
from simyard.service.security import Scope


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path) as running:
        yield running


def request(service: WireService, query: str = "", **headers: str | None) -> bytes:
    sent: dict[str, str | None] = {
        "Host": service.authority,
        "Accept": "text/event-stream",
        "Authorization": f"Bearer {TOKEN}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = [f"GET /api/events{query} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in sent.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode()


class Stream:
    """An open stream, read as a browser's EventSource reads it."""

    def __init__(self, reader: asyncio.StreamReader, head: str) -> None:
        self.head = head
        self.last_id = ""
        self.comments = 0
        self._reader = reader
        self._text = ""

    async def block(self) -> str:
        """Return the lines up to the next empty one."""
        while "\n\n" not in self._text:
            size = int((await asyncio.wait_for(self._reader.readline(), 10)).strip() or b"0", 16)
            if not size:
                raise EOFError
            self._text += (await self._reader.readexactly(size + 2))[:-2].decode()
        block, _, self._text = self._text.partition("\n\n")
        return block

    async def message(self) -> Any:
        """Return the next message."""
        while True:
            found = None
            for line in (await self.block()).split("\n"):
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif name == "id":
                    self.last_id = value
                elif name == "data":
                    found = json.loads(value)
                else:
                    assert name == "retry", line
            if found is not None:
                return found


@contextlib.asynccontextmanager
async def stream(service: WireService, query: str = "", **headers: str) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        writer.write(request(service, query, **headers))
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
        assert head.startswith("HTTP/1.1 200"), head
        yield Stream(reader, head)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until_nobody_listens(service: WireService) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while service.application[ACTIVITY].connections or service.manager.events.subscribers:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_events_come_in_order_after_a_greeting(service: WireService) -> None:
    async with stream(service) as events:
        assert "Content-Type: text/event-stream" in events.head
        assert "Cache-Control: no-store" in events.head
        assert await events.message() == {"type": "hello", "seq": service.manager.events.latest}
        job = await service.running(name="antenna")
        await service.end(job)
        seen = [await events.message() for _ in range(4)]
        assert events.last_id == str(seen[-1]["seq"])
    kinds = ["job.queued", "job.submitting", "job.running", "job.completed"]
    assert [message["type"] for message in seen] == kinds
    async with service.websocket(f"?since={seen[0]['seq'] - 1}") as connection:
        await connection.receive_str(timeout=10)
        same = [json.loads(await connection.receive_str(timeout=10)) for _ in range(4)]
    assert same == seen, "one log, two transports"


async def test_a_client_that_comes_back_misses_nothing_and_sees_nothing_twice(
    service: WireService,
) -> None:
    async with stream(service) as events:
        await events.message()
        first = await service.submit(hold=True)
        assert (await events.message())["job_id"] == first
    second = await service.submit(hold=True)
    async with stream(service, "?since=0", Last_Event_ID=events.last_id) as events:
        assert (await events.message())["type"] == "hello"
        assert (await events.message())["job_id"] == second
        third = await service.submit(hold=True)
        assert (await events.message())["job_id"] == third


async def test_the_connection_may_break_before_the_first_event_was_seen(
    service: WireService,
) -> None:
    async with stream(service) as events:
        await events.message()
        assert events.last_id == str(service.manager.events.latest)
    job = await service.submit(hold=True)
    async with stream(service, Last_Event_ID=events.last_id) as again:
        await again.message()
        assert (await again.message())["job_id"] == job
    async with stream(service, "?since=0") as whole:
        await whole.message()
        assert whole.last_id == "0", "what is to be replayed counts as seen only when it came"


async def test_one_job_alone_can_be_followed_with_the_growth_of_its_logs(
    service: WireService,
) -> None:
    await service.submit(hold=True)
    job = await service.running()
    async with stream(service, f"?job={job}&since=0") as events:
        await events.message()
        for kind in ("job.queued", "job.submitting", "job.running"):
            message = await events.message()
            assert (message["type"], message["job_id"]) == (kind, job)
        last = events.last_id
        growing = asyncio.ensure_future(events.message())
        while not growing.done():
            with (service.folder(job) / "stdout.log").open("ab") as file:
                file.write(b"line\n")
            await asyncio.wait({growing}, timeout=0.3)
        message = growing.result()
        assert message["type"] == "job.output" and message["data"]["stdout"] >= 5
        assert events.last_id == last, "the growth is no part of the history"
    await service.end(job)


async def test_what_cannot_be_replayed_is_gone(service: WireService) -> None:
    for sent in (request(service, "?since=1000000"), request(service, Last_Event_ID="1000000")):
        answer = await service.raw(sent)
        assert answer.status == 410 and answer.json["code"] == "gone"


async def test_events_that_are_not_kept_any_longer_are_gone(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simyard.errors import Gone

    async def forgotten(since: int, limit: int, job_id: int | None) -> Any:
        raise Gone("event 1 is not kept any longer")

    monkeypatch.setattr(service.manager.events, "_fetch", forgotten)
    monkeypatch.setattr(service.manager.events, "_complete_since", 10**9)
    await service.submit(hold=True)
    answer = await service.raw(request(service, Last_Event_ID="0"))
    assert answer.status == 410 and answer.json["code"] == "gone"
    assert service.manager.events.subscribers == 0


async def test_a_wrong_question_is_refused(service: WireService) -> None:
    for sent in (
        request(service, "?since=-1"),
        request(service, "?sinc=1"),
        request(service, Last_Event_ID="x"),
        request(service, Last_Event_ID="-1"),
        request(service, Last_Event_ID="9" * 40),
        request(service).replace(b"\r\n\r\n", b"\r\nLast-Event-ID: 1\r\nLast-Event-ID: 2\r\n\r\n"),
    ):
        answer = await service.raw(sent)
        assert answer.status == 400, sent
    assert (await service.raw(request(service, "?job=999"))).status == 404


async def test_nobody_listens_without_a_credential(service: WireService) -> None:
    assert (await service.raw(request(service, Authorization=None))).status == 401
    assert (await service.raw(request(service, Authorization="Bearer wrong"))).status == 401
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        assert (await service.raw(request(service, **headers))).status == 403
    one = str((await service.ask("POST", "/api/tickets", {}))["ticket"])
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(request(service, f"?ticket={one}", Authorization=None))
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert (await service.raw(request(service, f"?ticket={one}", Authorization=None))).status == 401


async def test_silence_is_broken_by_comments(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simyard.service.event_stream.HEARTBEAT", 0.05)
    async with stream(service) as events:
        await events.message()
        for _ in range(3):
            assert (await events.block()).startswith(":")
        job = await service.submit(hold=True)
        assert (await events.message())["job_id"] == job, "and nothing is lost in between"
    await until_nobody_listens(service)


def publish(service: WireService, count: int) -> None:
    log = service.manager.events
    first = log.latest + 1
    log.publish(
        Event(seq=seq, time=0.0, type="test.noise", data={"filling": "x" * 2000})
        for seq in range(first, first + count)
    )


@contextlib.asynccontextmanager
async def stuck_client(service: WireService) -> AsyncIterator[socket.socket]:
    """A client that has opened a stream and reads nothing."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.to_thread(client.connect, ("127.0.0.1", service.port))
        client.sendall(request(service))
        while service.application[ACTIVITY].connections < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield client


async def test_a_slow_reader_costs_little_and_is_told_to_load_again(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simyard.service.listener.CAPACITY", 100)
    log = service.manager.events
    async with stuck_client(service) as stuck, stream(service) as quick:
        await quick.message()
        while not any(one.overruns for one in log._all):
            publish(service, 90)
            for _ in range(90):
                assert (await quick.message())["type"] == "test.noise"
        (slow,) = [one for one in log._all if one.overruns]
        assert len(slow._queue) <= 100
        found = b""
        stuck.settimeout(10)
        while b'"type":"resync"' not in found:
            found = found[-1000:] + await asyncio.to_thread(stuck.recv, 1 << 20)
        number = re.search(rb'id: (\d+)\ndata: {"type":"resync"', found)
        assert number is not None and log.latest - 100 <= int(number[1]) <= log.latest


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


async def test_streams_and_sockets_are_bounded_together(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("simyard.service.listener.MOST", 2)
    async with service.websocket(), stream(service):
        answer = await service.raw(request(service))
        assert answer.status == 503 and int(answer.header("Retry-After") or 0) >= 1


async def test_the_end_of_the_service_ends_every_stream(tmp_path: Path) -> None:
    async with wire_service(tmp_path / "other") as service, stream(service) as events:
        await events.message()
        ending = asyncio.ensure_future(events.message())
        begun = asyncio.get_running_loop().time()
        await service.runner.cleanup()
        assert asyncio.get_running_loop().time() - begun < 3
        with pytest.raises(EOFError):
            await ending


async def test_the_description_names_both_transports(service: WireService) -> None:
    document = await service.ask("GET", "/api/openapi.json")
    operation = document["paths"]["/api/events"]["get"]
    assert "text/event-stream" in operation["responses"]["200"]["content"]
    assert {"101", "410"} <= set(operation["responses"]) and "426" not in operation["responses"]
    names = {(one["name"], one["in"]) for one in operation["parameters"]}
    assert {("Last-Event-ID", "header"), ("since", "query"), ("job", "query")} <= names
    assert operation["x-scope"] == Scope.READ.value
