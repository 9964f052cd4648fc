"""Whatever jobs do, the manager stays small, answers, and frees what it held."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from live_service import LiveService, wait_until

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30

HOLD_MEMORY = "held = b'x' * 300_000_000; import time; time.sleep(60)"

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def test_a_gigabyte_of_output_without_a_line_break_costs_the_manager_nothing(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    manager = psutil.Process(service.pid)
    service.wait_for_end(service.submit({"command": ["true"]}))
    before = manager.memory_info().rss

    job_id = service.submit({"script": f"head -c {GIBIBYTE} /dev/zero; printf end"})
    highest = before
    while service.job(job_id)["state"] not in ("completed", "failed"):
        tail = service.ask("GET", f"/api/jobs/{job_id}/logs/stdout?tail=10")
        assert len(tail["text"]) <= MEBIBYTE
        highest = max(highest, manager.memory_info().rss)

    assert service.job(job_id)["state"] == "completed"
    assert highest - before < 50 * MEBIBYTE
    path = f"/api/jobs/{job_id}/logs/stdout?offset={GIBIBYTE}"
    assert service.ask("GET", path)["text"] == "end"


def test_a_million_lines_and_invalid_text_are_read_in_ranges_without_loss(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    job_id = service.submit(
        {"script": "yes '0123456789' | head -n 1000000; printf '\\377\\376\\000x'"}
    )
    assert service.wait_for_end(job_id)["state"] == "completed"

    offset, lines = 0, 0
    while True:
        part = service.ask("GET", f"/api/jobs/{job_id}/logs/stdout?offset={offset}")
        lines += part["text"].count("\n")
        offset = part["next_offset"]
        if part["complete"]:
            break
    assert lines == 1_000_000
    assert offset == 11_000_000 + 4
    assert part["text"].endswith("\ufffd\ufffd\x00x")


@needs_proc
def test_hundreds_of_jobs_that_cannot_start_leak_neither_grants_nor_descriptors(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    service.wait_for_end(service.submit({"command": ["true"]}))
    descriptors = Path(f"/proc/{service.pid}/fd")
    before = len(os.listdir(descriptors))
    broken: list[dict[str, Any]] = [
        {"command": ["no-such-program"]},
        {"command": [str(tmp_path)]},
        {"command": ["true"], "workdir": str(tmp_path / "missing")},
        {"command": ["true"], "files": [str(tmp_path / "missing.dat")]},
    ]

    ids = service.submit_many(broken * 75)
    jobs = [service.wait_for_end(job_id) for job_id in ids]

    assert {job["outcome"]["reason"] for job in jobs} == {"start_failed"}
    messages = {job["outcome"]["message"] for job in jobs[:4]}
    assert len(messages) == 4
    assert any("not found on the job's PATH" in message for message in messages)
    assert any("missing.dat" in message for message in messages)
    in_use = service.ask("GET", "/api/resources")["in_use"]
    assert (in_use["jobs"], in_use["cores"]) == (0, 0)
    wait_until(lambda: len(os.listdir(descriptors)) <= before + 5, "descriptors are closed")


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_job_of_every_ending_frees_its_grant(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, flags=["--max-cores", "1"])
    endings: dict[str, dict[str, Any]] = {
        "completed exit_code": {"command": ["true"]},
        "failed exit_code": {"command": ["sh", "-c", "exit 9"]},
        "failed signal": {"command": ["sh", "-c", "kill -9 $$"]},
        "failed timeout": {"command": ["sleep", "60"], "walltime": 0.3, "grace": 0.2},
        "failed outputs_missing": {"command": ["true"], "expected_outputs": ["s11.csv"]},
        "failed output_limit": {"command": ["yes"], "output_limit": "1 MiB", "grace": 0.2},
        "failed out_of_memory": {
            "command": [sys.executable, "-c", HOLD_MEMORY],
            "memory": "100 MiB",
            "grace": 0.2,
        },
        "failed start_failed": {"command": ["no-such-program"]},
    }

    ids = dict(zip(endings, service.submit_many(list(endings.values())), strict=True))

    for ending, job_id in ids.items():
        job = service.wait_for_end(job_id)
        assert f"{job['state']} {job['outcome']['reason']}" == ending
    assert service.ask("GET", "/api/resources")["in_use"]["jobs"] == 0
