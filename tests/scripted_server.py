"""A server that says what a test tells it to, and remembers every byte that it was sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = bytes | None
"""Raw bytes of an answer; None hangs up."""


def http(status: int, body: object = None, *, raw: bytes | None = None, **headers: str) -> bytes:
    """Write an answer with its length."""
    content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


class ScriptedServer:
    """Answers `/api/hello` with a proof by `token`, and all else by `script`."""

    def __init__(
        self,
        token: str,
        script: Callable[[str, str, bytes], Answer] | None = None,
        *,
        port: int = 0,
    ) -> None:
        self.token = token
        self.script = script or (lambda method, path, body: http(200, {}))
        self.received = b""
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        """Hang up on everybody and be gone."""
        for one in (self._listener, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()
        for thread in (self._accepting, *self._threads):
            thread.join(5)

    @property
    def connection(self) -> socket.socket:
        """The newest connection."""
        return self._open[-1]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as file:
            try:
                while self._answer_one(connection, file):
                    pass
            except OSError:
                return

    def _answer_one(self, connection: socket.socket, file: Any) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = file.readline()
            if not line:
                return False
            head += line
        self.received += head
        first, *rest = head.decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in rest)
        }
        body = file.read(int(headers.get("content-length", "0")))
        self.received += body
        if path.startswith("/api/hello"):
            connection.sendall(self.hello(path, headers["host"]))
            return True
        self.requests.append((method, path, headers, body))
        answer = self.script(method, path, body)
        if answer is None:
            return False
        connection.sendall(answer)
        return not re.search(rb"(?i)connection: close", answer)

    def hello(self, path: str, host: str) -> bytes:
        """Prove to know `token`; tests replace it to lie."""
        nonce = parse_qs(urlsplit(path).query)["nonce"][0]
        proof = hmac.new(self.token.encode(), f"{nonce}\n{host}".encode(), hashlib.sha256)
        return http(200, {"proof": proof.hexdigest(), "host": "scripted", "boot_id": "b"})
