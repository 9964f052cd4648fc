"""The host is measured aside; whoever asks gets the latest sample at once."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from simyard.service import host as host_module
from simyard.service.host import HostMonitor, sample_host, usable_cores, usable_memory


def test_a_sample_has_the_facts_of_this_host(tmp_path: Path) -> None:
    sample = sample_host(tmp_path)
    assert 1 <= sample.cpu_count == usable_cores()
    assert 0 < sample.memory_available <= sample.memory_total == usable_memory()
    assert 0 < sample.disk_free <= sample.disk_total
    assert set(sample.as_dict()) == {
        "hostname",
        "cpu_count",
        "cpu_percent",
        "memory_total",
        "memory_available",
        "disk_total",
        "disk_free",
        "load",
    }


def test_a_monitor_samples_until_it_is_stopped(tmp_path: Path) -> None:
    monitor = HostMonitor(tmp_path, interval=0.01)
    assert monitor.latest is None and monitor.age > 1e9
    monitor.start()
    first = monitor.wait(10)
    assert first is not None
    deadline = time.monotonic() + 10
    while monitor.latest is first:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    monitor.stop()
    assert not [one for one in threading.enumerate() if one.name == "host-monitor"]


def test_a_disk_that_hangs_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def hang(folder: Path) -> None:
        hangs.set()
        go_on.wait(30)
        raise OSError("it did not answer")

    monkeypatch.setattr(host_module, "sample_host", hang)
    monitor = HostMonitor(tmp_path)
    monitor.start()
    assert hangs.wait(10)
    begun = time.monotonic()
    assert monitor.latest is None
    monitor.stop(patience=0.05)
    assert time.monotonic() - begun < 5
    go_on.set()
