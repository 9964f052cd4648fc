"""The manager is killed between a record's going and its folder's: the next prune tidies up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from live_service import LiveService


def test_a_kill_between_record_and_folder_leaves_what_the_next_prune_removes(
    service_at: Callable[..., LiveService], tmp_path: Path
) -> None:
    service = service_at(tmp_path, fault="delete.committed:1")
    over = service.submit_many([{"command": ["true"]} for _ in range(3)])
    for job_id in over:
        service.wait_for_end(job_id)
    running = service.submit({"command": ["sleep", "300"]})
    service.wait_for(running, "running")
    folders = [service.home / "jobs" / "0" / job_id for job_id in over]

    assert service.request_expecting_death("POST", "/api/prune", {"keep": 0}) is None
    service.wait_until_dead()
    service.start()

    assert service.total() == 1
    assert all(folder.exists() for folder in folders)
    assert service.job(running)["state"] == "running"
    answer = service.ask("POST", "/api/prune", {"keep": 0})
    assert (answer["jobs"], answer["leftovers"]) == (0, 3)
    assert not any(folder.exists() for folder in folders)
    # A number that was given away is not given out again, though nothing of it is left.
    assert int(service.submit({"command": ["true"]})) > int(running)
