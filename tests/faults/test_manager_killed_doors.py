"""The manager is killed with SIGKILL while a retry waits, or while a file is on its way."""

from __future__ import annotations

import hashlib
import http.client
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from live_service import LiveService, wait_until

from simyard.handler.endpoint import Endpoint
from simyard.handler.wire import Connection


def test_a_retry_that_waits_while_the_manager_is_killed_is_made_once_and_in_time(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    marks = tmp_path / "marks"
    marks.mkdir()
    script = f"mktemp {marks}/XXXXXX; exit 7"
    quick = service.submit({"script": script, "retries": {"limit": 1, "delay": "2s"}})
    slow = service.submit({"script": "exit 8", "retries": {"limit": 1, "delay": "1h"}})

    def waits() -> bool:
        jobs = [service.job(job) for job in (quick, slow)]
        return all("tries again in" in (job["pending_reason"] or "") for job in jobs)

    wait_until(waits, "both wait for their second attempt")
    service.kill()
    service.start()

    ended = service.wait_for_end(quick)
    assert (ended["attempt"], ended["outcome"]["exit_code"]) == (2, 7)
    assert len(list(marks.iterdir())) == 2
    assert service.job(slow)["pending_reason"].startswith("tries again in 5")
    service.ask("POST", f"/api/jobs/{slow}/cancel", {})
    assert service.wait_for_end(slow)["state"] == "cancelled"


def test_an_upload_is_gone_on_with_after_the_manager_was_killed_and_a_kept_one_is_still_there(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for path in (whole, cut):
        path.write_bytes(os.urandom(300_000))
    names = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (whole, cut)}
    with Connection(Endpoint(service.url, service.token)) as connection:
        connection.upload(names[whole], str(whole))
    host = urlsplit(service.url).netloc
    half = http.client.HTTPConnection(host, timeout=30)
    half.putrequest("PUT", f"/api/uploads/{names[cut]}")
    half.putheader("Authorization", f"Bearer {service.token}")
    half.putheader("Content-Type", "application/octet-stream")
    half.putheader("Content-Length", "300000")
    half.endheaders()
    half.send(cut.read_bytes()[:200_000])
    part = service.home / "uploads" / f"{names[cut]}.part"
    wait_until(part.exists, "the upload has begun")
    files = [{"upload": names[whole], "target": "input"}]
    job = service.submit({"script": "cat input | sha256sum", "files": files, "hold": True})

    service.kill()
    half.close()
    service.start()

    assert not (service.home / "uploads" / names[cut]).exists()
    with Connection(Endpoint(service.url, service.token)) as connection:
        connection.upload(names[cut], str(cut))
    assert (service.home / "uploads" / names[cut]).read_bytes() == cut.read_bytes()
    service.ask("POST", f"/api/jobs/{job}/release", {})
    assert service.wait_for_end(job)["state"] == "completed"
    assert service.stdout(job).split()[0] == names[whole]
