"""The asynchronous client: every call of the wire, over connections that are proven first.

Knows the wire and how a service is found, lost and found again; nothing
of handles or of hosting. Jobs are the wire's JSON objects.

Before each new connection the server proves that it knows the token, so that a port
that the service has left gets a nonce and nothing else. A call that may safely be
repeated is repeated where the service has just gone; for the home's own service that
means to find it again, and to start one in the background where it was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp
from typing_extensions import Self

from ..errors import (
    Gone,
    NotFound,
    NotRunning,
    PermissionDenied,
    ServiceUnavailable,
    SimyardError,
    UsageError,
)
from . import discovery, handover, upload, wire
from .endpoint import Endpoint, check_proof, find_endpoint, home_path

log = logging.getLogger(__name__)

Json = dict[str, Any]
T = TypeVar("T")

ANSWER_TIMEOUT = 30.0
RETRY_SECONDS = 20.0
"""How long a service that has gone may take to come back, elsewhere perhaps."""
RETURN_SECONDS = 5.0
"""How long a service that was stopped in the middle of a wait may take to be there again."""
POLL_SECONDS = 30.0
"""How long one waiting request waits before it is repeated."""
LOG_PIECE = 1 << 20


class Client:
    """Talk to one service from one event loop.

    With `start`, a home without a service is given a detached one by the first call
    that needs it. An address given by a person (`endpoint`) is never replaced.
    """

    def __init__(
        self,
        home: str | os.PathLike[str] | None = None,
        *,
        endpoint: Endpoint | None = None,
        start: bool = True,
        flags: Sequence[str] = (),
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.home = home_path(home)
        self._fixed = endpoint
        self._start = start
        self._flags = flags
        self._say = say
        self._endpoint: Endpoint | None = None
        self._session: aiohttp.ClientSession | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self._proven = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def endpoint(self) -> Endpoint:
        """The service last spoken to; raises `NotRunning` before the first call."""
        if self._endpoint is None:
            raise NotRunning("no service has been spoken to yet")
        return self._endpoint

    # -- finding, proving, asking ------------------------------------------------------

    async def open(
        self, *, start: bool | None = None, revive: bool = True, patience: float = 0.0
    ) -> Endpoint:
        """Find the service and have it prove itself, where that is not done.

        `start` and `revive` say whether one is started where it was stopped, and where it
        was killed; `patience` how many seconds it may take to be there again by itself.
        """
        async with self._opening:
            if self._closed:
                raise UsageError("this client is closed; make a new one")
            if self._session is None:
                wanted = self._start if start is None else start
                deadline = time.monotonic() + patience
                while True:
                    try:
                        self._endpoint = await self._locate(wanted, revive=revive and self._start)
                        break
                    except NotRunning:
                        if time.monotonic() >= deadline:
                            raise
                    await asyncio.sleep(0.1)
                self._proven = True
                self._session = self._new_session(self._endpoint)
            assert self._endpoint is not None
            return self._endpoint

    async def close(self) -> None:
        """Hang up. What was submitted goes on."""
        self._closed = True
        await self.forget()

    async def forget(self) -> None:
        """Hang up and look for the service anew at the next call."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _forget_session(self, session: aiohttp.ClientSession) -> None:
        async with self._opening:
            if self._session is session:
                await self.forget()

    async def _look_again(self, session: aiohttp.ClientSession) -> None:
        """After a failure: keep `session` where its service is still there, else forget it."""
        async with self._opening:
            if self._session is not session or self._endpoint is None:
                return
            try:
                await self._prove(self._endpoint)
            except SimyardError:
                await self.forget()

    async def _locate(self, start: bool, *, revive: bool) -> Endpoint:
        """Return a service that has proved itself; wait for one that is on its way."""
        if self._fixed is not None:
            await self._prove(self._fixed)
            return self._fixed
        try:
            endpoint = find_endpoint(self.home)
        except NotRunning as error:
            return await self._bring(error, start=start, revive=revive)
        try:
            await self._prove(endpoint)
        except (NotRunning, ServiceUnavailable) as error:
            return await self._bring(error, start=start, revive=revive)
        except PermissionDenied as error:
            # The process id was given to another program, and so was the port.
            error.details["stale"] = True
            return await self._bring(error, start=start, revive=revive)
        return endpoint

    async def _bring(self, reason: SimyardError, *, start: bool, revive: bool) -> Endpoint:
        """Start a service, or wait for one; raise `reason` where none shall be or is."""
        # A service that was killed is started again, whoever asks; one that was stopped
        # stays so until a call needs it.
        if start or (revive and reason.details.get("stale")):
            return await in_thread(
                lambda: discovery.start_detached(self.home, flags=self._flags, say=self._say)
            )
        found = await in_thread(lambda: handover.wait_for_handover(self.home))
        if found is None:
            raise reason
        return found

    async def _prove(self, endpoint: Endpoint) -> None:
        nonce = os.urandom(16).hex()
        answer = await _hello(endpoint, nonce)
        check_proof(endpoint, nonce, answer)

    def _new_session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()

        async def prove_first(*_: Any) -> None:
            if self._proven:  # just now, when the service was found
                self._proven = False
            else:
                await self._prove(endpoint)

        trace.on_connection_create_start.append(prove_first)
        return aiohttp.ClientSession(
            trace_configs=[trace],
            connector=aiohttp.TCPConnector(limit=32, keepalive_timeout=20, force_close=False),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,  # a proxy has no business with a service on this machine
            auto_decompress=True,
        )

    @contextlib.asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        data: bytes | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        safe: bool | None = None,
        timeout: float = ANSWER_TIMEOUT,
        start: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request and yield its answer, body unread; errors and repeats as `request`."""
        sent = dict(headers or {})
        if key is not None:
            sent["Idempotency-Key"] = key
        safe = method != "POST" or key is not None if safe is None else safe
        deadline = time.monotonic() + RETRY_SECONDS
        pause = 0.05
        refused = False
        while True:
            endpoint = await self.open(
                start=self._start and start, patience=0.0 if start else RETURN_SECONDS
            )
            session = self._session
            if session is None or session.closed:  # forgotten by another task meanwhile
                continue
            try:
                response = await session.request(
                    method,
                    endpoint.url + path + wire.query_string(query),
                    json=body,
                    data=data,
                    headers={**sent, "Authorization": f"Bearer {endpoint.token}"},
                    timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=timeout),
                    allow_redirects=False,
                )
                if response.status != 401 or refused or self._fixed is not None:
                    break
                # Another service has the address now, and the home; nothing was done there.
                refused = True
                response.release()
                await self._forget_session(session)
                continue
            except (aiohttp.ServerTimeoutError, asyncio.TimeoutError):
                raise ServiceUnavailable(
                    f"the service at {endpoint.url} did not answer within {timeout:g} s; "
                    "'simyard status' tells how it is"
                ) from None
            except (aiohttp.ClientError, SimyardError, OSError) as error:
                await self._look_again(session)
                unsent = isinstance(error, (aiohttp.ClientConnectorError, SimyardError))
                if not (safe or unsent) or time.monotonic() > deadline:
                    raise _gone(endpoint, error) from error
                if self._fixed is not None and isinstance(error, SimyardError):
                    raise
                log.debug("the service at %s has gone: %s", endpoint.url, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 1.0)
        async with response:
            if response.status >= 400:
                raise wire.error_from(response.status, await response.read(), endpoint.url)
            yield response

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        data: bytes | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        safe: bool | None = None,
        timeout: float = ANSWER_TIMEOUT,
        start: bool = True,
    ) -> Any:
        """Send one request and return the JSON of its answer, None where it has none.

        `safe` says whether it may be sent twice: all but a POST without a key where not
        given. With `start` false a service that was stopped on purpose is not started again.
        Raises the error that the service named, `NotRunning` where there is none,
        `ServiceUnavailable` where it went away.
        """
        safe = method != "POST" or key is not None if safe is None else safe
        left = 3 if safe else 1
        while True:
            left -= 1
            async with self.stream(
                method,
                path,
                body=body,
                data=data,
                query=query,
                headers=headers,
                key=key,
                safe=safe,
                timeout=timeout,
                start=start,
            ) as response:
                try:
                    text = await response.read()
                except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                    if not left:
                        raise _gone(self.endpoint, error) from error
                    continue
                return json.loads(text) if text else None

    # -- the calls of the wire ---------------------------------------------------------

    async def submit(self, spec: Mapping[str, Any], *, key: str | None = None) -> Json:
        """Submit one job; return it once it is durable."""
        return _object(
            await self.request("POST", "/api/jobs", body=dict(spec), key=key or _new_key())
        )

    async def upload(self, digest: str, path: str) -> None:
        """Send a file ahead, from where an earlier try broke off; once is enough for all jobs."""
        where = upload.where(digest)
        offset: int | None = 0
        with contextlib.suppress(NotFound):
            offset = upload.next_offset(path, -1, await self.request("GET", where))
        while offset is not None:
            data, headers = await in_thread(functools.partial(upload.piece_of, path, offset))
            answer = await self.request("PUT", where, data=data, headers=headers)
            offset = upload.next_offset(path, offset, answer)

    async def submit_batch(
        self, specs: Sequence[Mapping[str, Any]], *, key: str | None = None
    ) -> list[Json]:
        """Submit many jobs in one transaction, all or none."""
        body = {"jobs": [dict(spec) for spec in specs]}
        answer = await self.request(
            "POST", "/api/jobs/batch", body=body, key=key or _new_key(), timeout=300
        )
        return _items(answer)

    async def job(
        self,
        job_id: str,
        *,
        wait: float | None = None,
        version: int | None = None,
        start: bool = True,
    ) -> Json:
        """Return one job; with `wait`, when it differs from `version` or so many seconds later."""
        query = {"wait": wait, "version": version}
        timeout = ANSWER_TIMEOUT + (wait or 0)
        return _object(
            await self.request("GET", _job(job_id), query=query, timeout=timeout, start=start)
        )

    async def jobs(self, **query: Any) -> Json:
        """Return one page of jobs: `{items, next_cursor, total}`."""
        return _object(await self.request("GET", "/api/jobs", query=query))

    async def control(self, verb: str, job_id: str) -> Json:
        """Cancel, hold, release or retry one job."""
        repeatable = verb != "retry"  # which makes a new job each time
        return _object(await self.request("POST", f"{_job(job_id)}/{verb}", safe=repeatable))

    async def control_many(self, verb: str, selection: Mapping[str, Any]) -> list[Json]:
        """The same for `{"ids": […]}` or `{"filter": {…}}`; each item says `ok` or why not."""
        answer = await self.request(
            "POST", f"/api/jobs/{verb}", body=dict(selection), safe=verb != "retry", timeout=300
        )
        return _items(answer)

    async def change(self, job_id: str, changes: Mapping[str, Any]) -> Json:
        """Change the priority or the request of a job that has not started."""
        return _object(await self.request("PATCH", _job(job_id), body=dict(changes)))

    async def delete(self, job_id: str) -> None:
        """Forget a finished job and its folder."""
        await self.request("DELETE", _job(job_id))

    async def prune(self, rules: Mapping[str, Any]) -> Json:
        """Forget finished jobs; return `{jobs, ids, bytes, leftovers, dry_run}`."""
        return _object(
            await self.request("POST", "/api/prune", body=dict(rules), safe=True, timeout=3600)
        )

    async def limits(self) -> Json:
        """Return the limits in force."""
        return _object((await self.resources())["limits"])

    async def set_limits(self, changes: Mapping[str, Any]) -> Json:
        """Put changed limits in force; return all."""
        return _object(await self.request("PUT", "/api/limits", body=dict(changes)))

    async def resources(self, *, start: bool = True) -> Json:
        """Return host, limits, what is in use, and how many jobs are in which state."""
        return _object(await self.request("GET", "/api/resources", start=start))

    async def queue(self) -> list[Json]:
        """Return what waits, in order, with why."""
        return _items(await self.request("GET", "/api/queue"))

    async def schedulers(self) -> list[Json]:
        """Return where jobs can run."""
        return _items(await self.request("GET", "/api/schedulers"))

    async def files(self, job_id: str) -> Json:
        """Return the files of a job: `{items: [{path, size, modified, kind}], truncated}`."""
        return _object(await self.request("GET", f"{_job(job_id)}/files"))

    async def detail(self, job_id: str, part: str) -> Json:
        """Return one job's `script`, `events`, `usage` or `result`."""
        return _object(await self.request("GET", f"{_job(job_id)}/{part}"))

    async def log_piece(
        self,
        job_id: str,
        stream: str,
        *,
        offset: int | None = None,
        tail: int | None = None,
        wait: float | None = None,
        start: bool = True,
    ) -> tuple[bytes, int, bool]:
        """Return bytes of a log, where to go on, and whether that was all there will be.

        At most 1 MiB, from `offset` or the last `tail` lines; with `wait`, when there is
        more, the job is over, or so many seconds later.
        """
        query = {"offset": offset, "tail": tail, "limit": LOG_PIECE, "wait": wait}
        headers = {"Accept": "application/octet-stream"}
        timeout = ANSWER_TIMEOUT + (wait or 0)
        path = f"{_job(job_id)}/logs/{wire.quoted(stream)}"
        for attempt in range(3):
            async with self.stream(
                "GET", path, query=query, headers=headers, timeout=timeout, start=start
            ) as response:
                try:
                    data = await response.read()
                except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                    if attempt == 2:
                        raise _gone(self.endpoint, error) from error
                    continue
                following = int(response.headers["X-Next-Offset"])
                return data, following, response.headers.get("X-Complete") in ("true", "1")
        raise AssertionError("unreachable")

    # -- events ------------------------------------------------------------------------

    async def events(
        self, since: int | None = None, job_id: str | None = None
    ) -> AsyncGenerator[Json, None]:
        """Yield events as they happen, across reconnections, each once and in order.

        `{"type": "hello", "seq": n}` comes first and after a service was found again;
        `{"type": "resync", "seq": n}` where events were lost: load again what you show.
        Ends never by itself; raises `NotRunning` where the service was stopped.
        """
        seq = since
        first = True
        while True:
            try:
                async with contextlib.aclosing(self._one_socket(seq, job_id, start=first)) as news:
                    async for event in news:
                        first = False
                        number = event.get("seq")
                        # A greeting tells the newest number, before what is replayed up to it.
                        if seq is None or event.get("type") != "hello":
                            seq = number if isinstance(number, int) else seq
                        yield event
            except Gone:
                seq = None
                yield {"type": "resync", "seq": None}
            except NotRunning:
                raise
            except (aiohttp.ClientError, ServiceUnavailable, OSError) as error:
                log.debug("the events broke off: %s", error)
            first = False
            await asyncio.sleep(0.1)

    async def _one_socket(
        self, since: int | None, job_id: str | None, *, start: bool
    ) -> AsyncGenerator[Json, None]:
        endpoint = await self.open(
            start=self._start and start, patience=0.0 if start else RETURN_SECONDS
        )
        session = self._session
        if session is None:
            raise ServiceUnavailable("the service has just gone")
        query = wire.query_string({"since": since, "job": job_id})
        try:
            socket = await session.ws_connect(
                f"{endpoint.url}/api/events{query}",
                headers={"Authorization": f"Bearer {endpoint.token}"},
                heartbeat=20,
                max_msg_size=64 << 20,
            )
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 410:
                raise Gone("the events asked for are not kept any longer") from None
            if error.status == 401 and self._fixed is None:
                await self._forget_session(session)  # another service has the home now
                raise ServiceUnavailable("the service has just changed") from error
            if error.status in (401, 403):
                raise PermissionDenied("the service refuses to tell its events") from None
            raise
        except (aiohttp.ClientError, SimyardError, OSError) as error:
            await self._look_again(session)
            raise ServiceUnavailable(f"the service has gone: {error}") from error
        async with socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    yield json.loads(message.data)
                elif message.type in (aiohttp.WSMsgType.ERROR, aiohttp.WSMsgType.CLOSE):
                    return


async def _hello(endpoint: Endpoint, nonce: str) -> Any:
    """Ask a server for its proof over a connection of its own, without any credential."""
    scheme, host, port = endpoint.address()
    tls: Any = True if scheme == "https" else None
    request = (
        f"GET /api/hello?nonce={nonce} HTTP/1.1\r\nHost: {endpoint.authority}\r\n"
        "Connection: close\r\n\r\n"
    )
    writer = None
    try:
        reader, writer = await asyncio.wait_for(
            asyncio.open_connection(host.strip("[]"), port, ssl=tls, limit=1 << 16),
            wire.CONNECT_TIMEOUT,
        )
        writer.write(request.encode("latin-1"))
        raw = await asyncio.wait_for(_whole_answer(reader), wire.CONNECT_TIMEOUT)
        response = wire.parse_answer(raw)
        return json.loads(response) if response else None
    except ConnectionRefusedError:
        raise NotRunning(
            f"nothing answers at {endpoint.url}; start the service with 'simyard serve --detach', "
            "or correct the address",
            stale=True,
        ) from None
    except (
        OSError,
        ValueError,
        EOFError,
        asyncio.LimitOverrunError,
        asyncio.TimeoutError,
    ) as error:
        raise ServiceUnavailable(
            f"what answers at {endpoint.url} is no Simyard service, or one in trouble "
            f"({error or 'it is silent'}); nothing was sent to it"
        ) from None
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _whole_answer(reader: asyncio.StreamReader) -> bytes:
    """Read one short answer; who does not say how long it is has to hang up."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]{1,5})\r\n", head)
    if length is not None:
        return head + await reader.readexactly(int(length[1]))
    return head + await reader.read(1 << 16)


def _gone(endpoint: Endpoint, error: BaseException) -> SimyardError:
    if isinstance(error, SimyardError):
        return error
    return ServiceUnavailable(
        f"the service at {endpoint.url} went away before it answered ({error}); whether it did "
        "what was asked is not known: look before you repeat it"
    )


async def in_thread(call: Callable[[], T]) -> T:
    """Run a blocking call off the loop, or right here where threads are not to be had any more."""
    try:
        return await asyncio.to_thread(call)
    except RuntimeError as error:
        if "shutdown" not in str(error):  # of the interpreter
            raise
        return call()


def _job(job_id: str) -> str:
    return f"/api/jobs/{wire.quoted(str(job_id)).replace('/', '%2F')}"


def _new_key() -> str:
    return os.urandom(16).hex()


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise SimyardError("the service answered something that is not of Simyard's wire")
    return answer


def _items(answer: Any) -> list[Json]:
    items = _object(answer).get("items")
    if not isinstance(items, list):
        raise SimyardError("the service answered something that is not of Simyard's wire")
    return items
