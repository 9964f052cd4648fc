"""What a monitoring system is told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from wire_service import WireService, wire_service

from simyard.scheduler_adapters.contract import Ending


async def numbers(service: WireService) -> dict[str, float]:
    text = (await service.send("GET", "/metrics")).body.decode()
    return {name: float(value) for name, value in re.findall(r"^(simyard_\S+) (\S+)$", text, re.M)}


async def test_starts_waits_ends_failures_and_retries_are_counted(tmp_path: Path) -> None:
    async with wire_service(tmp_path, max_cores=1) as service:
        good, bad = await service.running(), await service.submit()
        told = await numbers(service)
        assert told['simyard_jobs{state="running"}'] == 1
        assert told['simyard_jobs{state="queued"}'] == 1
        await asyncio.sleep(0.15)
        await service.end(good)
        await service.until(bad, "running")
        await service.end(bad, exit_code=3)
        again = await service.running(retries={"limit": 1})
        await service.adapter.end(again, Ending(signal=9))
        while (await service.ask("GET", f"/api/jobs/{again}"))["attempt"] != 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await service.until(again, "running")
        await service.end(again)
        held = await service.submit(hold=True)
        await service.ask("POST", f"/api/jobs/{held}/cancel", {})
        told = await numbers(service)
    assert told["simyard_starts_total"] == 4
    assert told["simyard_wait_seconds_count"] == 4
    assert told['simyard_wait_seconds_bucket{le="0.1"}'] == 3, "one waited for the core"
    assert told['simyard_ends_total{state="completed"}'] == 2
    assert told['simyard_ends_total{state="failed"}'] == 1
    assert told['simyard_ends_total{state="cancelled"}'] == 1
    assert told['simyard_failures_total{reason="exit_code"}'] == 1
    assert told['simyard_retries_total{reason="signal"}'] == 1
    assert told["simyard_store_commit_seconds_count"] > 10
    assert 0 < told["simyard_store_commit_seconds_sum"] < 60


async def test_a_loop_that_was_blocked_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr("simyard.service.metrics.LAG_EVERY", 0.05)
    async with wire_service(tmp_path) as service:
        await asyncio.sleep(0.2)
        time.sleep(0.5)
        await asyncio.sleep(0.1)
        told = await numbers(service)
        assert told["simyard_loop_lag_seconds_count"] >= 2
        assert told["simyard_loop_lag_seconds_sum"] > 0.3
