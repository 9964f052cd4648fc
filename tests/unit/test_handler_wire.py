"""The shell's quick way to the service: who gets the token, and what becomes of each answer."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_server import ScriptedServer, http

from simyard import errors
from simyard.errors import (
    Conflict,
    ImpossibleRequest,
    InvalidInput,
    NotFound,
    NotRunning,
    PermissionDenied,
    ServiceUnavailable,
    SimyardError,
)
from simyard.handler import discovery, wire
from simyard.handler.endpoint import Endpoint, this_boot

TOKEN = "s3cret-token"


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptedServer]]:
    running: list[ScriptedServer] = []

    def start(*given: Any, token: str = TOKEN) -> ScriptedServer:
        running.append(ScriptedServer(token, *given))
        return running[-1]

    yield start
    for server in running:
        server.close()


def connection_to(server: ScriptedServer, **options: Any) -> wire.Connection:
    return wire.Connection(Endpoint(server.url, TOKEN), **options)


def publish(home: Path, server: ScriptedServer, **changes: Any) -> None:
    (home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = {
        "url": server.url,
        "token": TOKEN,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot_id": this_boot(),
    }
    path = home / "run" / "endpoint.json"
    path.write_text(json.dumps({**facts, **changes}))
    path.chmod(0o600)


def test_a_server_that_proves_itself_gets_the_token(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda *_: http(200, {"items": []}))
    with connection_to(server) as connection:
        assert connection.request("GET", "/api/jobs", query={"q": "a b&c/d", "x": None}) == {
            "items": []
        }
    (request,) = server.requests
    assert request[1] == "/api/jobs?q=a%20b%26c%2Fd"
    assert request[2]["authorization"] == f"Bearer {TOKEN}"
    assert request[2]["host"] == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    "lie",
    [
        http(200, {"proof": "0" * 64}),
        http(200, {}),
        http(200, {"proof": None}),
        http(200, {"proof": ["x"]}),
        http(200, []),
        http(200, {"proof": "é"}),
        http(404, {"proof": "0" * 64}),
        http(302, None, Location="http://127.0.0.1:1/"),
    ],
)
def test_a_server_that_cannot_prove_itself_never_sees_the_token(
    serve: Callable[..., ScriptedServer], lie: bytes
) -> None:
    server = serve()
    server.hello = lambda path, host: lie  # type: ignore[method-assign]
    with connection_to(server) as connection:
        with pytest.raises(PermissionDenied, match="did not prove"):
            connection.submit({"command": ["true"]})
    assert TOKEN.encode() not in server.received
    assert server.requests == []


def test_a_proof_for_another_address_does_not_count(serve: Callable[..., ScriptedServer]) -> None:
    """An impostor that passes the question on to the real service learns nothing."""
    real = serve()
    impostor = serve()
    impostor.hello = lambda path, host: real.hello(path, f"127.0.0.1:{real.port}")  # type: ignore[method-assign]
    with connection_to(impostor) as connection:
        with pytest.raises(PermissionDenied):
            connection.request("GET", "/api/jobs")
    assert TOKEN.encode() not in impostor.received


@pytest.mark.parametrize("noise", [b"SSH-2.0-OpenSSH_9.6\r\n", b"", b"\x00\xff" * 100, b"HTTP/1."])
def test_what_is_no_http_is_said_so(serve: Callable[..., ScriptedServer], noise: bytes) -> None:
    server = serve()
    server.hello = lambda path, host: noise + b"\r\n\r\n"  # type: ignore[method-assign]
    with (
        connection_to(server) as connection,
        pytest.raises(ServiceUnavailable, match="nothing was"),
    ):
        connection.request("GET", "/api/jobs")
    assert TOKEN.encode() not in server.received


def test_every_new_connection_is_proven_again(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda *_: http(200, {}, Connection="close"))
    with connection_to(server) as connection:
        connection.request("GET", "/api/jobs")
        server.hello = lambda path, host: http(200, {"proof": ""})  # type: ignore[method-assign]
        with pytest.raises(PermissionDenied):
            connection.request("GET", "/api/jobs")
    assert len(server.requests) == 1


def test_a_connection_is_used_again(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda *_: http(200, {"a": 1}))
    with connection_to(server) as connection:
        for _ in range(3):
            assert connection.request("GET", "/api/jobs") == {"a": 1}
    assert server.connections == 1


def test_an_answer_in_chunks_is_read_whole(serve: Callable[..., ScriptedServer]) -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'6;x=y\r\n{"a": \r\n3\r\n17}\r\n0\r\nTrailer: x\r\n\r\n'
    )
    server = serve(lambda *_: chunked)
    with connection_to(server) as connection:
        assert connection.request("GET", "/api/jobs") == {"a": 17}
        assert connection.request("GET", "/api/jobs") == {"a": 17}
    assert server.connections == 1


def test_a_large_body_comes_in_pieces(serve: Callable[..., ScriptedServer]) -> None:
    content = os.urandom(300_000)
    server = serve(lambda *_: http(200, raw=content))
    with connection_to(server) as connection:
        response = connection.open("GET", "/api/jobs/1/files/big")
        pieces = []
        while piece := response.read(10_000):
            assert len(piece) <= 10_000
            pieces.append(piece)
        assert b"".join(pieces) == content


def test_an_unread_answer_is_not_mistaken_for_the_next(
    serve: Callable[..., ScriptedServer],
) -> None:
    server = serve(lambda method, path, body: http(200, {"path": path}))
    with connection_to(server) as connection:
        connection.open("GET", "/first")
        assert connection.request("GET", "/second") == {"path": "/second"}


@pytest.mark.parametrize(
    "cut",
    [
        b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"a":',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_an_answer_that_is_cut_off_is_no_answer(
    serve: Callable[..., ScriptedServer], cut: bytes
) -> None:
    server = serve()

    def send_and_hang_up(*_: object) -> None:
        server.connection.sendall(cut)

    server.script = send_and_hang_up
    with connection_to(server, timeout=5) as connection, pytest.raises(ServiceUnavailable):
        connection.request("GET", "/api/jobs")


@pytest.mark.parametrize(
    "kind", [kind for code, kind in sorted(errors.by_code().items()) if code != "error"]
)
def test_a_problem_document_becomes_the_error_that_was_meant(
    serve: Callable[..., ScriptedServer], kind: type[SimyardError]
) -> None:
    problem = {
        "type": f"urn:simyard:error:{kind.code}",
        "title": "Title",
        "status": kind.status,
        "detail": "what happened, to what, and what to do",
        "code": kind.code,
        "errors": [{"field": "memory", "message": "is no size"}],
    }
    server = serve(lambda *_: http(kind.status, problem))
    with connection_to(server) as connection, pytest.raises(SimyardError) as caught:
        connection.request("GET", "/api/jobs")
    assert type(caught.value) is kind
    assert str(caught.value) == "what happened, to what, and what to do"
    assert caught.value.details["errors"][0]["field"] == "memory"


def test_a_failure_without_a_reason_is_told_as_such(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda *_: http(502, raw=b"<html>Bad gateway</html>"))
    with connection_to(server) as connection, pytest.raises(SimyardError, match="502"):
        connection.request("GET", "/api/jobs")


def test_details_of_a_problem_cannot_break_the_error() -> None:
    body = json.dumps({"code": "conflict", "detail": "no", "message": "x", "self": 1}).encode()
    error = wire.error_from(409, body, "http://here")
    assert isinstance(error, Conflict)
    assert error.details["self"] == 1


def test_nobody_there_is_not_running() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with wire.Connection(Endpoint(f"http://127.0.0.1:{port}", TOKEN)) as connection:
        with pytest.raises(NotRunning, match="nothing answers"):
            connection.request("GET", "/api/jobs")


def test_a_silent_service_is_given_up_on(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda *_: b"")
    with connection_to(server, timeout=0.2) as connection:
        with pytest.raises(ServiceUnavailable, match=r"did not answer within 0\.2 s"):
            connection.request("GET", "/api/jobs")


def test_a_submission_is_sent_again_under_the_same_key(
    serve: Callable[..., ScriptedServer],
) -> None:
    answers = iter([None, http(201, {"id": "17"})])
    server = serve(lambda *_: next(answers))
    with connection_to(server) as connection:
        assert connection.submit({"command": ["true"]}) == {"id": "17"}
    keys = [headers["idempotency-key"] for _, _, headers, _ in server.requests]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 16


def test_two_submissions_have_different_keys(serve: Callable[..., ScriptedServer]) -> None:
    server = serve(lambda *_: http(201, {"id": "1"}))
    with connection_to(server) as connection:
        connection.submit({})
        connection.submit({})
    assert len({headers["idempotency-key"] for _, _, headers, _ in server.requests}) == 2


def test_what_must_not_happen_twice_is_not_sent_twice(
    serve: Callable[..., ScriptedServer],
) -> None:
    server = serve(lambda *_: None)
    with connection_to(server) as connection, pytest.raises(ServiceUnavailable, match="went away"):
        connection.request("POST", "/api/jobs/17/retry")
    assert len(server.requests) == 1


def test_a_service_that_moved_is_found_again(serve: Callable[..., ScriptedServer]) -> None:
    old, new = serve(), serve(lambda *_: http(200, {"here": True}))
    with connection_to(old, find=lambda: Endpoint(new.url, TOKEN)) as connection:
        connection.request("GET", "/api/jobs")
        old.close()
        assert connection.request("GET", "/api/jobs") == {"here": True}


@pytest.mark.parametrize("name", ["X-Name", "X-Name\r\nX-Other"])
def test_a_line_break_cannot_add_a_header(serve: Callable[..., ScriptedServer], name: str) -> None:
    server = serve()
    with connection_to(server) as connection, pytest.raises(InvalidInput, match="line break"):
        connection.request("GET", "/", headers={name: "a\r\nAuthorization: x"})
    assert server.requests == []


# -- connect: which service is meant -------------------------------------------------------


def test_the_service_of_the_home_is_found(
    serve: Callable[..., ScriptedServer], tmp_path: Path
) -> None:
    server = serve(lambda *_: http(200, {"ok": 1}))
    publish(tmp_path, server)
    with discovery.connect(tmp_path) as connection:
        assert connection.request("GET", "/x") == {"ok": 1}


def test_an_address_with_a_token_needs_no_home(
    serve: Callable[..., ScriptedServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    discovery.connect(tmp_path / "none", url=server.url, token=TOKEN).close()
    monkeypatch.setenv("SIMYARD_URL", server.url)
    monkeypatch.setenv("SIMYARD_TOKEN", TOKEN)
    discovery.connect().close()
    assert not (tmp_path / "none").exists()


def test_an_address_without_a_token_must_be_that_of_the_home(
    serve: Callable[..., ScriptedServer], tmp_path: Path
) -> None:
    ours, other = serve(), serve()
    publish(tmp_path, ours)
    discovery.connect(tmp_path, port=ours.port).close()
    discovery.connect(tmp_path, url=f"http://localhost:{ours.port}").close()
    with pytest.raises(PermissionDenied, match="--token"):
        discovery.connect(tmp_path, port=other.port)
    assert other.received == b""


def test_a_wrong_token_is_noticed_before_it_is_sent(
    serve: Callable[..., ScriptedServer], tmp_path: Path
) -> None:
    server = serve()
    with pytest.raises(PermissionDenied, match="the token is wrong"):
        discovery.connect(tmp_path, url=server.url, token="wrong")
    assert b"wrong" not in server.received


def test_another_program_on_the_port_of_a_dead_service_is_not_believed(
    serve: Callable[..., ScriptedServer], tmp_path: Path
) -> None:
    squatter = serve(token="another")
    publish(tmp_path, squatter)
    with pytest.raises(NotRunning, match="does not answer as Simyard"):
        discovery.connect(tmp_path)
    assert TOKEN.encode() not in squatter.received


def test_without_a_service_and_without_starting_one_it_says_how(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="simyard serve --detach"):
        discovery.connect(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_errors_of_the_wire_are_of_our_own() -> None:
    assert issubclass(ImpossibleRequest, InvalidInput)
    assert isinstance(wire.error_from(404, b'{"code": "not_found"}', "x"), NotFound)
    assert str(wire.error_from(404, b'{"code": "not_found"}', "x")) == NotFound.__doc__
    unknown = wire.error_from(418, b'{"code": "of_a_later_version", "detail": "new"}', "x")
    assert type(unknown) is SimyardError
    assert str(unknown) == "new"
