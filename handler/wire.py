"""Find the service of a home, make it prove itself, and talk to it: the shell's quick way.

Standard library only, and nothing of ours but `errors` and `endpoint`: a whole
`submit_job` must cost little more than a bare interpreter, so what only failures
need is imported where it fails, and HTTP/1.1 (RFC 9112) is spoken over a plain
socket. It knows the wire; nothing of jobs or specs.

The token is sent on a connection only after the server has shown, on that same
connection, that it knows the token too. Whoever listens on a port that the
service has left gets a nonce and nothing else.
"""

from __future__ import annotations

import json as _json
import os
import socket

from ..errors import (
    InvalidInput,
    NotFound,
    NotRunning,
    PermissionDenied,
    ServiceUnavailable,
    SimyardError,
    by_code,
)
from .endpoint import Endpoint, check_proof

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs as much as `json`
    from collections.abc import Callable, Mapping
    from typing import Any

    from typing_extensions import Self

CONNECT_TIMEOUT = 5.0
ANSWER_TIMEOUT = 30.0
MAX_HEAD = 64 * 1024
MAX_JSON = 256 * 1024 * 1024
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")


def error_from(status: int, body: bytes, where: str) -> SimyardError:
    """Turn an answer that is not a success into the error that the service meant."""
    try:
        problem = _json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
        return SimyardError(f"{where} answered {status} and no reason", status=status)
    known = {"type", "title", "status", "detail", "code", "instance"}
    details = {name: value for name, value in problem.items() if name not in known}
    message = problem.get("detail") or problem.get("title")
    kind = by_code().get(problem["code"], SimyardError)
    error = kind(str(message) if message else None)
    error.details.update(details)
    return error


def quoted(text: str) -> str:
    """Percent-encode a part of a path or a value of a query."""
    return "".join(
        char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode())
        for char in text
    )


def query_string(query: Mapping[str, object] | None) -> str:
    """Write a query, leaving out what is None."""
    pairs = [
        f"{name}={quoted(str(value)).replace('/', '%2F')}"
        for name, value in (query or {}).items()
        if value is not None
    ]
    return "?" + "&".join(pairs) if pairs else ""


class Response:
    """One answer whose body is still on its way: `read` it whole or in pieces."""

    def __init__(self, file: Any, method: str) -> None:
        self._file = file
        self.status = 0
        while self.status // 100 in (0, 1):  # 1xx are interim answers
            self.status, self.headers = _read_head(file)
        self._chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        if length is not None and not (length.isascii() and length.isdigit()):
            raise _Ended("the length of the answer is unreadable")
        self._left: int | None = None if length is None else int(length)
        if method == "HEAD" or self.status in (204, 304):
            self._left, self._chunked = 0, False
        elif self._chunked:
            self._left = 0
        self.finished = not self._chunked and self._left == 0
        self.keeps_connection = (self._chunked or self._left is not None) and self.headers.get(
            "connection", ""
        ).lower() != "close"

    def read(self, most: int = 65536) -> bytes:
        """Return the next piece of the body; empty at its end."""
        if self.finished:
            return b""
        if self._chunked and self._left == 0 and not self._next_chunk():
            return b""
        wanted = most if self._left is None else min(most, self._left)
        piece: bytes = self._file.read1(wanted)
        if not piece and self._left is not None:
            raise _Ended("the answer was cut off")
        if self._left is None:
            self.finished = not piece
            return piece
        self._left -= len(piece)
        if self._chunked and self._left == 0:
            self._file.readline(8)
        elif self._left == 0:
            self.finished = True
        return piece

    def _next_chunk(self) -> bool:
        size = self._file.readline(1024).split(b";")[0].strip()
        try:
            self._left = int(size, 16)
        except ValueError:
            raise _Ended("the answer was cut off") from None
        if self._left == 0:
            while self._file.readline(MAX_HEAD) not in (b"\r\n", b"\n", b""):
                pass
            self.finished = True
        return not self.finished

    def read_all(self) -> bytes:
        """Return the rest of the body; refuses more than any JSON answer can be."""
        pieces, total = [], 0
        while piece := self.read():
            pieces.append(piece)
            total += len(piece)
            if total > MAX_JSON:
                raise _Ended("the answer is larger than any that Simyard sends")
        return b"".join(pieces)


def parse_answer(raw: bytes) -> bytes:
    """Return the body of a whole answer of status 200; empty for any other. Raises `OSError`."""
    import io

    response = Response(io.BytesIO(raw), "GET")
    return response.read_all() if response.status == 200 else b""


class _Ended(OSError):
    """The connection ended, or what came is not HTTP."""


def _read_head(file: Any) -> tuple[int, dict[str, str]]:
    line = file.readline(MAX_HEAD)
    parts = line.split(None, 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise _Ended("the connection was closed" if not line else "what answers is not HTTP")
    headers: dict[str, str] = {}
    size = 0
    while (line := file.readline(MAX_HEAD)) not in (b"\r\n", b"\n"):
        size += len(line)
        if not line.endswith(b"\n") or size > MAX_HEAD:
            raise _Ended("the connection was closed")
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    return int(parts[1]), headers


class Connection:
    """One conversation with a service: opened when first used, proven before the token.

    A call that may safely be repeated (all but a POST without an idempotency key) is
    repeated once where the service has just gone; `find`, where given, says where it is
    now. Not for several threads at a time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        find: Callable[[], Endpoint] | None = None,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self.endpoint = endpoint
        self._find = find
        self._timeout = timeout
        self._socket: Any = None
        self._file: Any = None
        self._pending: Response | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        for thing in (self._file, self._socket):
            if thing is not None:
                thing.close()
        self._file = self._socket = self._pending = None

    def prove(self) -> Endpoint:
        """Connect where that is not done, and have the server prove itself."""
        if self._socket is None:
            try:
                self._connect()
            except _Lost as lost:
                raise lost.error from None
        return self.endpoint

    def submit(self, spec: Mapping[str, Any], *, key: str | None = None) -> Any:
        """Submit one job and return it; sent twice where needed, accepted once."""
        return self.request("POST", "/api/jobs", json=spec, key=key or os.urandom(16).hex())

    def upload(self, digest: str, path: str) -> None:
        """Send a file ahead, from where an earlier try broke off; once is enough for all jobs."""
        from . import upload

        offset: int | None = 0
        try:
            offset = upload.next_offset(path, -1, self.request("GET", upload.where(digest)))
        except NotFound:
            pass
        while offset is not None:
            body, headers = upload.piece_of(path, offset)
            answer = self.request("PUT", upload.where(digest), body=body, headers=headers)
            offset = upload.next_offset(path, offset, answer)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Send one request and return the JSON of its answer, None where it has none.

        Raises the error that the service named, `NotRunning` where nobody answers,
        `ServiceUnavailable` where it went away or took longer than `timeout` seconds.
        """
        response = self.open(
            method,
            path,
            json=json,
            body=body,
            query=query,
            headers=headers,
            key=key,
            timeout=timeout,
        )
        text = self._body_of(response)
        if not text:
            return None
        try:
            return _json.loads(text)
        except ValueError:
            raise SimyardError(f"{self.endpoint.url} answered no JSON; is it Simyard?") from None

    def open(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Response:
        """Send one request and return its answer, the body unread; errors as `request`.

        `path` is percent-encoded already (`quoted`). The body must be read to its end
        before the next request, or the connection is opened anew.
        """
        sent = dict(headers or {})
        if json is not None:
            body = _json.dumps(json).encode()
            sent.setdefault("Content-Type", "application/json")
        if key is not None:
            sent["Idempotency-Key"] = key
        safe = method != "POST" or key is not None
        target = path + query_string(query)
        try:
            response = self._exchange(method, target, body, sent, timeout)
        except _Lost as lost:
            self.close()
            if not (safe or lost.unsent) or (self._find is None and lost.unsent):
                raise lost.error from None
            if self._find is not None:
                self.endpoint = self._find()
            try:
                response = self._exchange(method, target, body, sent, timeout)
            except _Lost as again:
                self.close()
                raise again.error from None
        if response.status >= 400:
            raise error_from(response.status, self._body_of(response), self.endpoint.url)
        return response

    def _body_of(self, response: Response) -> bytes:
        try:
            return response.read_all()
        except OSError as error:
            self.close()
            raise ServiceUnavailable(
                f"the service at {self.endpoint.url} went away while it answered ({error}); try "
                "again"
            ) from None

    def _exchange(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> Response:
        if self._pending is not None and not (
            self._pending.finished and self._pending.keeps_connection
        ):
            self.close()
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        try:
            self._socket.settimeout(timeout or self._timeout)
            self._send(method, target, body, {**headers, **self._credential()})
            self._pending = Response(self._file, method)
        except TimeoutError:
            self.close()
            raise ServiceUnavailable(
                f"the service at {self.endpoint.url} did not answer within "
                f"{timeout or self._timeout:g} s; 'simyard status' tells how it is"
            ) from None
        except OSError as error:
            raise _Lost(
                ServiceUnavailable(
                    f"the service at {self.endpoint.url} went away before it answered ({error})"
                ),
                unsent=False,
            ) from None
        return self._pending

    def _credential(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.endpoint.token}"}

    def _send(
        self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
    ) -> None:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.endpoint.authority}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body or b'')}")
        if any("\r" in line or "\n" in line for line in lines):
            raise InvalidInput("a header or path of the request has a line break in it")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def _connect(self) -> None:
        endpoint = self.endpoint
        scheme, host, port = endpoint.address()
        try:
            self._socket = socket.create_connection((host.strip("[]"), port), CONNECT_TIMEOUT)
            if scheme == "https":
                import ssl

                context = ssl.create_default_context()
                self._socket = context.wrap_socket(self._socket, server_hostname=host.strip("[]"))
            self._file = self._socket.makefile("rb")
        except (OSError, UnicodeError) as error:
            self.close()
            raise _Lost(
                NotRunning(
                    f"nothing answers at {endpoint.url} ({getattr(error, 'strerror', None) or error}"
                    "); start the service with 'simyard serve --detach', or correct the address",
                    stale=True,
                ),
                unsent=True,
            ) from None
        self._pending = None
        nonce = os.urandom(16).hex()
        try:
            self._send("GET", f"/api/hello?nonce={nonce}", None, {})
            response = Response(self._file, "GET")
            text = response.read_all()
            answer = _json.loads(text) if response.status == 200 else None
        except (OSError, ValueError) as error:
            self.close()
            raise _Lost(
                ServiceUnavailable(
                    f"what answers at {endpoint.url} is no Simyard service, or one in trouble "
                    f"({error}); nothing was sent to it"
                ),
                unsent=True,
            ) from None
        try:
            check_proof(endpoint, nonce, answer)
        except PermissionDenied as error:
            self.close()
            raise _Lost(error, unsent=True) from None
        if not response.keeps_connection:
            raise _Lost(ServiceUnavailable("the service closed the connection"), unsent=True)


class _Lost(Exception):
    """The exchange failed; `unsent` where the request itself never left."""

    def __init__(self, error: SimyardError, *, unsent: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsent = unsent
