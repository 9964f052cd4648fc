"""Uploads over the wire: pieces, checks, bounds, who may, and what jobs make of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from wire_service import TOKEN, Answer, WireService, wire_service

from simyard.cli import submit_job
from simyard.errors import InvalidInput, TooLarge
from simyard.handler import upload
from simyard.handler.endpoint import Endpoint
from simyard.handler.job_manager import JobManager
from simyard.handler.wire import Connection

TEXT = b"K_POINTS automatic\x00\xff" * 500
DIGEST = hashlib.sha256(TEXT).hexdigest()
HERE = f"/api/uploads/{DIGEST}"
BYTES = {"Content-Type": "application/octet-stream"}


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path, max_upload="1 MiB") as running:
        yield running


async def put(service: WireService, body: bytes = TEXT, **headers: str) -> Answer:
    sent = {**BYTES, **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await service.send("PUT", HERE, body, headers=sent)


async def test_a_file_is_sent_whole_and_once(service: WireService) -> None:
    await service.refused(404, "GET", HERE)
    made = await put(service)
    assert made.status == 201
    assert made.json == {"sha256": DIGEST, "size": len(TEXT), "complete": True}
    assert (await put(service)).status == 200, "it is there already"
    head = await service.send("HEAD", HERE)
    assert head.header("Upload-Offset") == str(len(TEXT))
    assert head.header("Upload-Complete") == "?1"
    assert service.manager.uploads.path(DIGEST).read_bytes() == TEXT


async def test_a_file_that_broke_off_is_gone_on_with(service: WireService) -> None:
    head = (
        f"PUT {HERE} HTTP/1.1\r\nHost: {service.authority}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {len(TEXT)}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(head.encode() + TEXT[:3000])
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    there = None
    deadline = asyncio.get_running_loop().time() + 10
    while there != "3000":
        assert asyncio.get_running_loop().time() < deadline, there
        there = (await service.send("HEAD", HERE)).header("Upload-Offset")
        await asyncio.sleep(0.02)
    answer = None
    while answer is None or answer.status == 409:  # until the service has noticed the end
        assert asyncio.get_running_loop().time() < deadline
        answer = await put(service, TEXT[3000:4000], Content_Range=f"bytes 3000-3999/{len(TEXT)}")
    assert answer.status == 200
    assert answer.json == {"sha256": DIGEST, "size": 4000, "complete": False}
    last = f"bytes 4000-{len(TEXT) - 1}/{len(TEXT)}"
    assert (await put(service, TEXT[4000:], Content_Range=last)).status == 201


async def test_a_gap_and_wrong_content_are_refused(service: WireService) -> None:
    gap = await put(service, TEXT[10:20], Content_Range=f"bytes 10-19/{len(TEXT)}")
    assert gap.status == 409 and gap.json["received"] == 0
    wrong = await put(service, TEXT[:-1] + b"x")
    assert wrong.status == 400 and "SHA-256" in wrong.json["detail"]
    await service.refused(404, "GET", HERE)
    for given in (
        "bytes 0-9",
        "bytes 0-9/*",
        "bytes 9-0/100",
        "bytes 0-100/100",
        "bytes 0-8/100",
        "bytes -1-9/100",
        "bytes 0-9/" + "9" * 30,
    ):
        assert (await put(service, TEXT[:10], Content_Range=given)).status == 400, given


async def test_what_is_too_large_is_refused_before_and_while_it_comes(
    service: WireService,
) -> None:
    big = {**BYTES, "Content-Length": str(2 << 20)}
    answer = await service.send("PUT", HERE, b"x", headers=big)
    assert answer.status == 413 and "max_upload" in answer.json["detail"]
    answer = await put(service, b"x", Content_Range=f"bytes 0-0/{2 << 20}")
    assert answer.status == 413
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = (
        f"PUT {HERE} HTTP/1.1\r\nHost: {service.authority}\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answer = await service.raw(head.encode() + chunk * 40 + b"0\r\n\r\n")
    assert answer.status == 413
    part = service.manager.uploads.folder / f"{DIGEST}.part"
    assert not part.exists() or part.stat().st_size <= 1 << 20


async def test_no_path_leads_out_of_the_folder(service: WireService) -> None:
    before = sorted(path for path in service.manager.home.path.rglob("*"))
    for name in (
        "..%2f..%2fsettings.toml",
        "%2e%2e%2f" + "0" * 60,
        "0" * 63,
        "A" * 64,
        "0" * 64 + "%00",
        "0" * 64 + ".part",
        "0" * 64 + "/x",
        "../settings.toml",
    ):
        for method in ("PUT", "GET"):
            body = TEXT if method == "PUT" else None
            answer = await service.send(
                method, f"/api/uploads/{name}", body, headers=BYTES if body else None
            )
            assert answer.status in (400, 404, 405, 415), (name, answer.status)
    assert sorted(path for path in service.manager.home.path.rglob("*")) == before


async def test_only_the_full_token_of_this_origin_may_send(service: WireService) -> None:
    await service.refused(401, "PUT", HERE, TEXT, headers=BYTES, token=None)
    await service.refused(401, "GET", HERE, token=None)
    code = (await service.ask("POST", "/api/session/codes", {"scope": "read"}))["code"]
    reading = (await service.ask("POST", "/api/session", {"code": code}, token=None))["token"]
    await service.refused(403, "PUT", HERE, TEXT, headers=BYTES, token=reading)
    evil = {**BYTES, "Origin": "http://evil.example"}
    await service.refused(403, "PUT", HERE, TEXT, headers=evil)
    for kind in ("application/json", "text/plain", "multipart/form-data"):
        await service.refused(415, "PUT", HERE, TEXT, headers={"Content-Type": kind})
    await service.refused(415, "PUT", HERE, TEXT, headers={**BYTES, "Content-Encoding": "gzip"})
    assert not service.manager.uploads.folder.exists()


def spec(**more: Any) -> dict[str, Any]:
    file = {"upload": DIGEST, "target": "in/data.bin"}
    return {"command": ["solver"], "files": [file], **more}


async def test_a_job_finds_its_upload_in_its_folder(service: WireService) -> None:
    told = await service.refused(400, "POST", "/api/jobs", spec())
    assert "PUT /api/uploads" in told["detail"]
    await put(service)
    job = await service.submit(**spec())
    await service.until(job, "running")
    copy = service.folder(job) / "work" / "in" / "data.bin"
    assert copy.read_bytes() == TEXT and copy.stat().st_mode & 0o777 == 0o600
    assert not copy.samefile(service.manager.uploads.path(DIGEST))
    copy.write_bytes(b"changed by the job")
    other = await service.submit(**spec())
    await service.until(other, "running")
    assert (service.folder(other) / "work" / "in" / "data.bin").read_bytes() == TEXT
    shown = await service.ask("GET", f"/api/jobs/{job}")
    assert shown["spec"]["files"][0]["upload"] == DIGEST
    await service.end(job)
    await service.end(other)


async def test_an_upload_is_kept_for_a_job_that_waits_and_swept_when_it_is_over(
    tmp_path: Path,
) -> None:
    async with wire_service(tmp_path, keep_uploads=0.2) as service:
        uploads = service.manager.uploads
        await put(service)
        job = await service.submit(**spec(hold=True))
        moment = time.time() - 10
        os.utime(uploads.path(DIGEST), (moment, moment))
        deadline = asyncio.get_running_loop().time() + 10
        while uploads.path(DIGEST).stat().st_mtime < moment + 5:  # a sweep has looked at it
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        await service.ask("POST", f"/api/jobs/{job}/cancel", {})
        while uploads.path(DIGEST).exists():
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        told = await service.refused(400, "POST", f"/api/jobs/{job}/retry", {})
        assert "is not here" in told["detail"]


async def test_an_upload_that_vanished_fails_the_job_in_plain_words(service: WireService) -> None:
    await put(service)
    job = await service.submit(**spec(hold=True))
    service.manager.uploads.path(DIGEST).unlink()
    await service.ask("POST", f"/api/jobs/{job}/release", {})
    ended = await service.until(job, "failed")
    assert ended["outcome"]["reason"] == "start_failed"
    assert "send it again" in ended["outcome"]["message"]


async def test_many_uploads_at_once_do_not_stop_the_service(service: WireService) -> None:
    async def one(number: int) -> None:
        text = os.urandom(200_000)
        where = f"/api/uploads/{hashlib.sha256(text).hexdigest()}"
        assert (await service.send("PUT", where, text, headers=BYTES)).status == 201

    sending = asyncio.gather(*(one(number) for number in range(20)))
    begun = asyncio.get_running_loop().time()
    await service.ask("GET", "/api/health")
    assert asyncio.get_running_loop().time() - begun < 2
    with contextlib.suppress(asyncio.CancelledError):
        await sending


# -- the clients ----------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of several pieces that is no text, on a machine that is not the service's."""
    monkeypatch.setattr(Endpoint, "on_this_host", property(lambda self: False))
    monkeypatch.setattr(upload, "PIECE", 3000)
    path = tmp_path / "data.bin"
    path.write_bytes(TEXT)
    return path


async def test_the_shell_sends_its_inputs_ahead_to_a_service_elsewhere(
    service: WireService, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--url", service.url, "--token", TOKEN, "--input", f"{data}=in.bin", "--", "solver"]
    assert await asyncio.to_thread(submit_job.main, words) == 0
    job = capsys.readouterr().out.strip()
    shown = await service.until(job, "running")
    assert shown["spec"]["files"] == [{"upload": DIGEST, "target": "in.bin"}]
    assert (service.folder(job) / "work" / "in.bin").read_bytes() == TEXT
    await service.end(job)


async def test_the_handler_sends_its_files_ahead_to_a_service_elsewhere(
    service: WireService, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with JobManager(tmp_path / "other", url=service.url, token=TOKEN) as manager:
        files: list[Any] = ["data.bin", {"source": str(data), "target": "again.bin"}]
        one = await manager.submit(["solver"], files=files)
        two, three = await manager.submit_batch(
            [{"command": ["solver"], "files": [data]}, {"command": ["solver"]}]
        )
        with pytest.raises(InvalidInput, match=r"nothing\.bin"):
            await manager.submit(["solver"], files=["nothing.bin"])
        for handle in (one, two, three):
            await service.until(handle.id, "running")
        folder = service.folder(one.id) / "work"
        assert sorted(path.name for path in folder.iterdir()) == ["again.bin", "data.bin"]
        assert (folder / "data.bin").read_bytes() == TEXT
        assert (service.folder(two.id) / "work" / "data.bin").read_bytes() == TEXT
        for handle in (one, two, three):
            await service.end(handle.id)


async def test_a_client_goes_on_where_it_was_broken_off(service: WireService, data: Path) -> None:
    await put(service, TEXT[:5000], Content_Range=f"bytes 0-4999/{len(TEXT)}")
    sent: list[str] = []

    def send() -> None:
        with Connection(Endpoint(service.url, TOKEN)) as connection:
            request = connection.request

            def watched(method: str, path: str, **more: Any) -> Any:
                sent.append(more.get("headers", {}).get("Content-Range", method))
                return request(method, path, **more)

            connection.request = watched  # type: ignore[method-assign]
            connection.upload(DIGEST, str(data))
            connection.upload(DIGEST, str(data))

    await asyncio.to_thread(send)
    assert sent[:3] == [
        "GET",
        f"bytes 5000-7999/{len(TEXT)}",
        f"bytes 8000-{len(TEXT) - 1}/{len(TEXT)}",
    ]
    assert sent[3:] == ["GET"], "the second time nothing is sent"


async def test_a_file_that_changes_while_it_is_sent_is_not_taken(
    service: WireService, data: Path
) -> None:
    data.write_bytes(TEXT[:-1] + b"x")

    def send(digest: str) -> None:
        with Connection(Endpoint(service.url, TOKEN)) as connection:
            connection.upload(digest, str(data))

    with pytest.raises(InvalidInput, match="SHA-256"):
        await asyncio.to_thread(send, DIGEST)
    data.write_bytes(os.urandom(2 << 20))
    with pytest.raises(TooLarge, match="max_upload"):
        await asyncio.to_thread(send, upload.checksum_of(str(data)))


async def test_an_empty_file_can_be_sent(service: WireService, data: Path) -> None:
    data.write_bytes(b"")
    digest = upload.checksum_of(str(data))

    def send() -> None:
        with Connection(Endpoint(service.url, TOKEN)) as connection:
            connection.upload(digest, str(data))

    await asyncio.to_thread(send)
    assert service.manager.uploads.path(digest).read_bytes() == b""
