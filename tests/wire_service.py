"""The service's web application over a real store and a real socket, with work that only pretends.

What it answers is read with a client of our own making, byte by byte, so that a test can
send what no client would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from fakes.quiet_adapter import QuietAdapter

from simyard.scheduler_adapters.contract import Ending
from simyard.service.application import build_application
from simyard.service.home import Home
from simyard.service.host import HostMonitor
from simyard.service.manager import Manager
from simyard.service.settings import Settings
from simyard.service.store.store import Store

TOKEN = "the-token-of-the-tests-0123456789abcdef"
PATIENCE = 20.0


@dataclass
class Answer:
    """One answer; `body` is what came after the head."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one value of a header."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class WireService:
    """A manager, its application, and ways to talk to it."""

    def __init__(self, manager: Manager, adapter: QuietAdapter, port: int) -> None:
        self.manager = manager
        self.adapter = adapter
        self.port = port
        self.application: web.Application = build_application(
            manager, token=TOKEN, port=port, names=manager.settings.allowed_hosts
        )
        self.runner = web.AppRunner(self.application, access_log=None, shutdown_timeout=3.0)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    async def raw(self, request: bytes, *, patience: float = PATIENCE) -> Answer:
        """Send bytes, end the sending side, and return the first answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            return await asyncio.wait_for(_answer(reader, request.startswith(b"HEAD ")), patience)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        token: str | None = TOKEN,
    ) -> Answer:
        """Send one request; a header that is None is left out, `body` becomes JSON."""
        sent: dict[str, str | None] = {"Host": self.authority}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        content = b""
        if body is not None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
            sent["Content-Length"] = str(len(content))
        sent.update(headers or {})
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in sent.items() if value is not None]
        lines += ["Connection: close", "", ""]
        return await self.raw("\r\n".join(lines).encode() + content)

    async def ask(self, method: str, target: str, body: Any = None, **options: Any) -> Any:
        """Send a request that has to succeed; return its JSON."""
        answer = await self.send(method, target, body, **options)
        assert answer.status < 400, answer.body
        return answer.json if answer.body else None

    async def refused(
        self, status: int, method: str, target: str, body: Any = None, **more: Any
    ) -> Any:
        """Send a request that has to be refused with a problem document; return that."""
        answer = await self.send(method, target, body, **more)
        assert answer.status == status, (answer.status, answer.body)
        assert answer.header("Content-Type") == "application/problem+json"
        assert answer.json["status"] == status
        assert answer.json["type"] == f"urn:simyard:error:{answer.json['code']}"
        assert answer.json["detail"] and answer.json["title"]
        return answer.json

    async def submit(self, **spec: Any) -> str:
        """Submit a job; return its id."""
        if "script" not in spec:
            spec.setdefault("command", ["solver"])
        return str((await self.ask("POST", "/api/jobs", spec))["id"])

    async def running(self, **spec: Any) -> str:
        """Submit a job and wait until it runs; return its id."""
        job_id = await self.submit(**spec)
        await self.until(job_id, "running")
        return job_id

    async def until(self, job_id: str, *states: str) -> Any:
        """Wait until a job is in one of `states`; return it."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        job = await self.ask("GET", f"/api/jobs/{job_id}")
        while job["state"] not in states:
            assert asyncio.get_running_loop().time() < deadline, job
            job = await self.ask("GET", f"/api/jobs/{job_id}?wait=5&version={job['version']}")
        return job

    async def end(self, job_id: str, exit_code: int = 0) -> None:
        """Let a running job end."""
        await self.adapter.end(job_id, Ending(exit_code=exit_code))
        await self.until(job_id, "completed", "failed", "cancelled")

    def folder(self, job_id: str) -> Path:
        return self.manager.job_folder(int(job_id)).path

    @contextlib.asynccontextmanager
    async def websocket(
        self, query: str = "", **options: Any
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket on the events."""
        headers = {"Authorization": f"Bearer {TOKEN}", **options.pop("headers", {})}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(
                f"{self.url}/api/events{query}", headers=headers, **options
            ) as connection,
        ):
            yield connection


async def _answer(reader: asyncio.StreamReader, head_only: bool) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = [
        (name, value.strip())
        for name, _, value in (line.partition(":") for line in head[1:] if line)
    ]
    status = int(head[0].split()[1])
    lengths = [int(value) for name, value in headers if name.lower() == "content-length"]
    if head_only or status in (101, 204, 304):
        return Answer(status, headers, b"")
    body = await (reader.readexactly(lengths[0]) if lengths else reader.read())
    if any(name.lower() == "transfer-encoding" for name, _ in headers):
        body = _unchunked(body)
    return Answer(status, headers, body)


def _unchunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        found += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return found


@contextlib.asynccontextmanager
async def wire_service(folder: Path, **settings: Any) -> AsyncIterator[WireService]:
    """Run a service on a free port, in this loop, with an adapter that starts nothing."""
    home = Home(folder / "home")
    home.prepare()
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(1024)
    bound.setblocking(False)
    chosen = Settings.load(home.path, {"max_cores": 64, "min_free_disk": 0, **settings}, environ={})
    store = await asyncio.to_thread(Store.open, home.store, owner={"pid": 1})
    host = HostMonitor(home.path)
    host.start()
    await asyncio.to_thread(host.wait, 5.0)
    adapter = QuietAdapter()
    manager = Manager(home, chosen, store, adapter, host)
    await manager.start()
    service = WireService(manager, adapter, bound.getsockname()[1])
    try:
        await service.runner.setup()
        await web.SockSite(service.runner, bound).start()
        yield service
    finally:
        await service.runner.cleanup()
        await manager.stop()
        await asyncio.to_thread(host.stop)
        await asyncio.to_thread(store.close)
        bound.close()
