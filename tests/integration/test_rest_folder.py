"""A job's logs and files over REST: in ranges, while they grow, and nothing but its own."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from wire_service import WireService, wire_service

BYTES = {"Accept": "application/octet-stream"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WireService]:
    async with wire_service(tmp_path_factory.mktemp("service")) as running:
        yield running


def write(service: WireService, job: str, name: str, content: bytes, mode: str = "ab") -> Path:
    path = service.folder(job) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.write(content)
    return path


async def log(service: WireService, job: str, query: str = "", stream: str = "stdout") -> Any:
    return await service.ask("GET", f"/api/jobs/{job}/logs/{stream}{query}")


async def test_a_log_is_read_in_ranges_from_its_tail_and_to_its_end(service: WireService) -> None:
    job = await service.running()
    assert await log(service, job) == {
        "text": "",
        "offset": 0,
        "next_offset": 0,
        "size": 0,
        "complete": False,
    }
    write(service, job, "stdout.log", b"one\ntwo\nthree\n")
    assert (await log(service, job, "?offset=4&limit=4"))["text"] == "two\n"
    assert (await log(service, job, "?tail=2"))["text"] == "two\nthree\n"
    piece = await log(service, job)
    assert piece["next_offset"] == piece["size"] == 14 and not piece["complete"]
    await service.end(job)
    assert (await log(service, job))["complete"]
    assert not (await log(service, job, "?limit=3"))["complete"], "there is more"
    await service.refused(400, "GET", f"/api/jobs/{job}/logs/stdout?offset=1&tail=1")
    await service.refused(400, "GET", f"/api/jobs/{job}/logs/stdout?limit={2 << 20}")
    await service.refused(404, "GET", f"/api/jobs/{job}/logs/work")
    await service.refused(404, "GET", "/api/jobs/999/logs/stdout")


async def test_raw_bytes_come_as_they_are_with_their_place(service: WireService) -> None:
    job = await service.running()
    content = bytes(range(256)) * 10
    write(service, job, "stderr.log", content)
    path = f"/api/jobs/{job}/logs/stderr"
    answer = await service.send("GET", f"{path}?offset=256&limit=100", headers=BYTES)
    assert answer.body == content[256:356]
    assert answer.header("X-Next-Offset") == "356" and answer.header("X-Complete") == "false"
    await service.end(job)
    answer = await service.send("GET", path, headers=BYTES)
    assert answer.body == content and answer.header("X-Complete") == "true"


async def test_characters_that_a_range_cuts_come_whole(service: WireService) -> None:
    job = await service.running()
    text = "größe ✓ 𝔘nd\n" * 3
    write(service, job, "stdout.log", text.encode())
    await service.end(job)
    for limit in (1, 2, 3, 5, 7):
        found, offset, complete = "", 0, False
        while not complete:
            piece = await log(service, job, f"?offset={offset}&limit={limit}")
            assert piece["next_offset"] > offset
            found, offset = found + piece["text"], piece["next_offset"]
            complete = piece["complete"]
        if limit >= 5:
            assert found == text


@pytest.mark.parametrize("what", ["growth", "end"])
async def test_waiting_for_more_of_a_log_ends_with_the_news(
    service: WireService, what: str
) -> None:
    job = await service.running()
    write(service, job, "stdout.log", b"begin\n")
    waiting = asyncio.ensure_future(log(service, job, "?offset=6&wait=30"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    if what == "growth":
        write(service, job, "stdout.log", b"more\n")
        piece = await asyncio.wait_for(waiting, 5)
        assert piece["text"] == "more\n" and not piece["complete"]
        await service.end(job)
    else:
        await service.end(job)
        piece = await asyncio.wait_for(waiting, 5)
        assert piece["text"] == "" and piece["complete"]


async def test_waiting_for_a_log_in_vain_ends_in_time(service: WireService) -> None:
    job = await service.running()
    begun = asyncio.get_running_loop().time()
    assert (await log(service, job, "?wait=0.3"))["text"] == ""
    assert 0.2 < asyncio.get_running_loop().time() - begun < 5
    assert service.manager.events.subscribers == 0, "nobody listens any more"
    await service.end(job)


async def test_too_many_waiting_calls_are_told_to_come_back(
    service: WireService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simyard.service.keys import WAITERS

    monkeypatch.setattr(service.application[WAITERS], "_most", 1)
    job = await service.submit(hold=True)
    first = asyncio.ensure_future(service.send("GET", f"/api/jobs/{job}?wait=30"))
    while not len(service.application[WAITERS]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    answer = await service.send("GET", f"/api/jobs/{job}?wait=30")
    assert answer.status == 503 and int(answer.header("Retry-After") or 0) >= 1
    await service.ask("POST", f"/api/jobs/{job}/cancel", {})
    assert (await first).status == 200


async def test_files_are_listed_and_sent_as_attachments(service: WireService) -> None:
    job = await service.running()
    write(service, job, "work/out/s11 ü.csv", b"f,s11\n1,2\n")
    listed = await service.ask("GET", f"/api/jobs/{job}/files")
    found = {item["path"]: item for item in listed["items"]}
    assert found["work/out/s11 ü.csv"]["size"] == 10 and not listed["truncated"]
    assert found["work/out"]["kind"] == "folder"
    path = f"/api/jobs/{job}/files/work/out/s11%20%C3%BC.csv"
    answer = await service.send("GET", path)
    assert answer.status == 200 and answer.body == b"f,s11\n1,2\n"
    assert answer.header("Content-Type") == "application/octet-stream"
    assert (answer.header("Content-Disposition") or "").startswith("attachment; filename=")
    assert "sandbox" in (answer.header("Content-Security-Policy") or "")
    assert answer.header("X-Content-Type-Options") == "nosniff"
    await service.end(job)


@pytest.mark.parametrize(
    ("wanted", "status", "expected"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=0-99", 206, b"0123456789"),
        ("bytes=10-", 416, None),
        ("bytes=3-1", 416, None),
        ("rubbish", 200, b"0123456789"),
    ],
)
async def test_a_range_of_a_file(
    service: WireService, wanted: str, status: int, expected: bytes | None
) -> None:
    job = await service.running()
    write(service, job, "work/data", b"0123456789")
    path = f"/api/jobs/{job}/files/work/data"
    answer = await service.send("GET", path, headers={"Range": wanted})
    if expected is None:
        assert answer.status in (200, 416) and answer.status == (
            status if "10" in wanted else answer.status
        )
    else:
        assert (answer.status, answer.body) == (status, expected)
    etag = answer.header("ETag")
    if etag:
        changed = {"Range": "bytes=0-1", "If-Range": '"another"'}
        assert (await service.send("GET", path, headers=changed)).body == b"0123456789"
        assert (
            await service.send("GET", path, headers={"Range": "bytes=0-1", "If-Range": etag})
        ).body == b"01"
    head = await service.send("HEAD", path)
    assert head.status == 200 and head.header("Content-Length") == "10"
    await service.end(job)


@pytest.mark.parametrize(
    "path",
    [
        "../../../store.db",
        "..%2f..%2f..%2fstore.db",
        "%2e%2e/%2e%2e/%2e%2e/store.db",
        "work/../../../../store.db",
        "work/%2e%2e/%2e%2e/2/stdout.log",
        "..%5c..%5cstore.db",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "//etc/passwd",
        "work//x",
        "work/./x",
        "work/x%00.csv",
        "%00",
        "．．/．．/store.db",
        "x" * 5000,
        "work/" + "a/" * 2000 + "b",
        "file:%2f%2f%2fetc/passwd",
        "~/.ssh/id_rsa",
        "work",
        "",
    ],
)
async def test_no_path_leads_out_of_the_folder(service: WireService, path: str) -> None:
    from urllib.parse import quote

    job = await service.running()
    sent = quote(path, safe="%/.:~")
    answer = await service.send("GET", f"/api/jobs/{job}/files/{sent}")
    assert answer.status in (400, 404), (path, answer.status)
    assert b"root:" not in answer.body and b"SQLite" not in answer.body
    await service.end(job)


@pytest.mark.parametrize(
    "path",
    [
        "/app/../index.html",
        "/..%2findex.html",
        "/app/%2e%2e/x.js",
        "/../service/manager.py",
        "/app//main.js",
        "/%2fetc/passwd",
        "/app/main.js%00",
        "/.git/config",
    ],
)
async def test_no_path_leads_out_of_the_pages(service: WireService, path: str) -> None:
    answer = await service.send("GET", path)
    assert answer.status in (400, 404) and b"import" not in answer.body


async def test_links_and_special_files_that_a_job_planted_are_not_followed(
    service: WireService,
) -> None:
    job = await service.running()
    work = service.folder(job) / "work"
    work.mkdir(exist_ok=True)
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "etc").symlink_to("/etc")
    os.mkfifo(work / "pipe")
    (work / "mem").symlink_to("/proc/self/mem")
    for name in ("passwd", "etc/passwd", "pipe", "mem"):
        await service.refused(404, "GET", f"/api/jobs/{job}/files/work/{name}")
    archive = await service.send("GET", f"/api/jobs/{job}/archive")
    names = zipfile.ZipFile(io.BytesIO(archive.body)).namelist()
    assert not any("passwd" in name or "pipe" in name for name in names)
    (service.folder(job) / "stdout.log").unlink(missing_ok=True)
    (service.folder(job) / "stdout.log").symlink_to("/etc/passwd")
    answer = await service.send("GET", f"/api/jobs/{job}/logs/stdout")
    assert b"root:" not in answer.body
    await service.end(job)


async def test_the_archive_holds_everything(service: WireService) -> None:
    job = await service.running()
    big = os.urandom(3 << 20)
    write(service, job, "work/big.bin", big)
    write(service, job, "stdout.log", b"said\n")
    answer = await service.send("GET", f"/api/jobs/{job}/archive")
    assert answer.header("Content-Type") == "application/zip"
    assert f"job-{job}.zip" in (answer.header("Content-Disposition") or "")
    archive = zipfile.ZipFile(io.BytesIO(answer.body))
    assert archive.testzip() is None
    assert archive.read("work/big.bin") == big and archive.read("stdout.log") == b"said\n"
    await service.end(job)


async def test_usage_and_results_are_shown(service: WireService) -> None:
    job = await service.running(expected_outputs=["*.csv", "plot.png"])
    write(service, job, "work/a.csv", b"1")
    write(service, job, "usage.jsonl", b'{"t":1,"cpu":0.5,"rss":1000,"procs":2}\n{"t":2,"cp')
    usage = await service.ask("GET", f"/api/jobs/{job}/usage")
    assert usage["samples"][0]["rss"] == 1000 and len(usage["samples"]) == 1
    assert await service.ask("GET", f"/api/jobs/{job}/result") == {
        "outputs": ["a.csv"],
        "missing": ["plot.png"],
    }
    await service.end(job)


async def test_names_that_are_no_text_do_not_break_a_listing(service: WireService) -> None:
    job = await service.running()
    work = os.fsencode(service.folder(job) / "work")
    os.makedirs(work, exist_ok=True)
    with open(os.path.join(work, b"caf\xe9\n.txt"), "wb") as file:
        file.write(b"x")
    listed = await service.ask("GET", f"/api/jobs/{job}/files")
    assert "work/caf�\n.txt" in [item["path"] for item in listed["items"]]
    await service.end(job)
