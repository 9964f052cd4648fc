"""Where a service is found, and what of that is believed."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simyard.errors import HomeInUse, InvalidInput, NotRunning, PermissionDenied
from simyard.handler.endpoint import Endpoint, find_endpoint, home_path, this_boot

HERE = {
    "url": "http://127.0.0.1:8080",
    "token": "t0ken",
    "pid": os.getpid(),
    "host": socket.gethostname(),
    "boot_id": this_boot(),
    "started_at": "2026-11-21T12:00:00Z",
    "version": "0.1.0",
}


def write(home: Path, *, mode: int = 0o600, **changes: Any) -> Path:
    (home / "run").mkdir(mode=0o700, exist_ok=True)
    path = home / "run" / "endpoint.json"
    path.write_text(json.dumps({**HERE, **changes}))
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"XDG_STATE_HOME": "/somewhere/state"},
        {"XDG_STATE_HOME": "/somewhere/state/"},
        {"XDG_STATE_HOME": "relative"},
        {"XDG_STATE_HOME": ""},
        {"HOME": "/home/of/another"},
        {"HOME": ""},
        {"HOME": "/"},
    ],
)
def test_the_home_is_the_one_that_platformdirs_names(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from platformdirs import user_state_dir

    monkeypatch.delenv("SIMYARD_HOME", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert os.path.normpath(home_path()) == os.path.normpath(
        user_state_dir("simyard", appauthor=False)
    )


def test_what_is_given_beats_the_variable_and_the_variable_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMYARD_HOME", str(tmp_path / "variable"))
    assert home_path(tmp_path / "given") == str(tmp_path / "given")
    assert home_path() == str(tmp_path / "variable")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_path("~/mine") == str(tmp_path / "mine")


def test_a_good_file_is_believed(tmp_path: Path) -> None:
    write(tmp_path)
    endpoint = find_endpoint(str(tmp_path))
    assert endpoint.url == HERE["url"]
    assert endpoint.authority == "127.0.0.1:8080"
    assert endpoint.on_this_host
    assert "t0ken" not in repr(endpoint)


def test_without_a_file_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match="simyard serve --detach") as caught:
        find_endpoint(str(tmp_path))
    assert caught.value.details["stale"] is False


@pytest.mark.skipif(os.name != "posix", reason="modes and owners are POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, mode=mode)
    with pytest.raises(PermissionDenied, match=f"mode {mode:04o}.*simyard stop"):
        find_endpoint(str(tmp_path))


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(PermissionDenied, match="plain file of yours"):
        find_endpoint(str(tmp_path))


def test_a_pipe_neither_blocks_nor_is_believed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / "endpoint.json", 0o600)
    with pytest.raises(PermissionDenied, match="plain file of yours"):
        find_endpoint(str(tmp_path))


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)
    monkeypatch.setattr(os, "getuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(PermissionDenied, match="not a plain file of yours"):
        find_endpoint(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"url": 1}', b"\xff\xfe", b"null"])
def test_a_damaged_file_counts_as_stale(tmp_path: Path, content: bytes) -> None:
    write(tmp_path).write_bytes(content)
    with pytest.raises(NotRunning, match="cannot be understood") as caught:
        find_endpoint(str(tmp_path))
    assert caught.value.details["stale"] is True


def test_the_file_of_a_dead_process_counts_as_stale(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    write(tmp_path, pid=ended.pid)
    with pytest.raises(NotRunning, match=f"process {ended.pid}. is gone") as caught:
        find_endpoint(str(tmp_path))
    assert caught.value.details["stale"] is True


@pytest.mark.skipif(this_boot() is None, reason="this system does not tell its boot id")
def test_the_file_of_an_earlier_boot_counts_as_stale(tmp_path: Path) -> None:
    write(tmp_path, boot_id="00000000-0000-0000-0000-000000000000")
    with pytest.raises(NotRunning):
        find_endpoint(str(tmp_path))


def test_a_service_of_another_host_is_named(tmp_path: Path) -> None:
    write(tmp_path, host="node-17")
    with pytest.raises(HomeInUse, match="node-17"):
        find_endpoint(str(tmp_path))


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "http://",
        "http://host:0",
        "http://host:99999",
        "http://host:port",
        "http://user@host:80",
        "http://host/path",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput):
        Endpoint(url, "token")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:8080", ("http", "127.0.0.1", 8080)),
        ("https://yard.example/", ("https", "yard.example", 443)),
        ("http://[::1]:9000", ("http", "[::1]", 9000)),
        ("http://[::1]", ("http", "[::1]", 80)),
    ],
)
def test_an_address_is_read(url: str, address: tuple[str, str, int]) -> None:
    assert Endpoint(url, "token").address() == address


def test_the_file_that_a_service_writes_can_be_read(tmp_path: Path) -> None:
    from simyard.service.home import Home

    home = Home(tmp_path)
    home.prepare()
    home.write_endpoint(HERE)
    assert stat.S_IMODE(home.endpoint.stat().st_mode) == 0o600
    assert find_endpoint(str(tmp_path)).token == "t0ken"
