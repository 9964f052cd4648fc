"""A newcomer's first command: `make demo` in a fresh copy makes its environment and leaves nothing."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import uuid
from pathlib import Path

import psutil
import pytest
from checkout import ROOT, kept_files
from live_service import wait_until

pytestmark = [pytest.mark.demo, pytest.mark.slow, pytest.mark.timeout(900)]

MARK = "MAKE_DEMO_TEST_MARK"
"""A variable that the demo and all that it starts inherit, to be found by."""
NO_INDEX = ("No matching distribution found", "Could not find a version", "NewConnectionError")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of what git keeps, as a clone would be."""
    copy = tmp_path_factory.mktemp("clone") / "simyard-clone"
    for path in kept_files():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path)
    (copy / "typings").mkdir()
    (copy / "typings" / "simyard").symlink_to("..")
    return copy


def make(checkout: Path, mark: str, *words: str) -> str:
    """Run make as a person would; return all it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["make", *words],
        cwd=checkout,
        env={**environment, MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    if done.returncode and any(sign in done.stdout for sign in NO_INDEX):
        pytest.skip("pip reaches no package index here, so no environment can be made")
    assert done.returncode == 0, done.stdout
    return done.stdout


def marked(mark: str) -> list[psutil.Process]:
    """Return the processes that were started by the demo with this mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_make_demo_runs_the_sweep_and_leaves_nothing_running(checkout: Path) -> None:
    mark = uuid.uuid4().hex
    printed = make(checkout, mark, "demo")
    assert "All 12 agree with theory" in printed
    assert re.search(r"Dashboard: http://127\.0\.0\.1:\d+", printed)
    plot = re.search(r"^plot: +(\S.*)$", printed, re.M)
    assert plot is not None
    assert Path(plot[1]).read_bytes().startswith(b"\x89PNG")
    with (checkout / "build/demo/results/results.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    wait_until(lambda: not marked(mark), "the demo's processes are gone", patience=30)
    assert list((checkout / "build" / "demo").glob("home-*")) == []


def test_make_demo_can_be_repeated_and_asked_to_stay(checkout: Path) -> None:
    mark = uuid.uuid4().hex
    printed = make(checkout, mark, "demo", "KEEP=1")
    assert "Installing" not in printed
    stop = re.search(r"^ +(\S+/simyard) stop --home (\S+)$", printed, re.M)
    assert stop is not None, printed
    assert marked(mark) != []
    subprocess.run([stop[1], "stop", "--home", stop[2]], check=True, timeout=60)
    wait_until(lambda: not marked(mark), "the kept service is gone", patience=30)
