"""The launcher as a program: run by its folder's path, and alone with what it loaded then."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_yard import Yard

from simyard.scheduler_adapters import launcher_link
from simyard.scheduler_adapters.contract import Cause, ReportKind

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

HOSTILE = "raise SystemExit('the wrong module was loaded')\n"


@pytest_asyncio.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    await yard.end_everything()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the launcher, which the adapters of this test start."""
    copy = tmp_path / "elsewhere" / "scheduler_adapters" / "launcher"
    shutil.copytree(
        launcher_link.PROGRAM, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    monkeypatch.setattr(launcher_link, "PROGRAM", copy)
    return copy


async def test_it_loads_nothing_after_its_start(yard: Yard, program: Path) -> None:
    """An upgrade may remove or change its files under it at any time."""
    await yard.open()
    shutil.rmtree(program)
    hog = "import time\nx=[]\nwhile True: x.append(bytearray(10<<20)); time.sleep(0.05)"
    await yard.submit("hog", sys.executable, "-c", hog, memory=150 << 20, walltime=60.0)
    await yard.submit("slow", "sleep", "60", walltime=0.5)
    await yard.submit("wrong", "/no/such/program")
    await yard.submit("left", "sh", "-c", "sleep 60 & exit 3")
    await yard.submit("cut", "sleep", "60")
    await yard.report("cut", ReportKind.STARTED)
    await yard.cancel("cut")
    assert (await yard.ending("hog")).cause is Cause.OUT_OF_MEMORY
    assert (await yard.ending("slow")).cause is Cause.TIMEOUT
    assert (await yard.ending("wrong")).cause is Cause.START_FAILED
    assert (await yard.ending("left")).exit_code == 3
    assert (await yard.ending("cut")).cause is Cause.CANCELLED
    await yard.cleared("left")
    assert "unexpected" not in yard.log()


def test_nothing_beside_it_is_taken_for_one_of_its_modules(
    tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    own = [path.stem for path in program.glob("*.py")]
    for name in ("launcher", "json", "signal", "selectors", *own):
        (here / f"{name}.py").write_text(HOSTILE)
        (program.parent / f"{name}.py").write_text(HOSTILE)
    monkeypatch.setenv("PYTHONPATH", str(here))
    monkeypatch.setenv("SIMYARD_LAUNCHER_IDLE", "0")
    for path in (str(program), "../elsewhere/scheduler_adapters/launcher"):
        done = subprocess.run(
            [sys.executable, "-I", "-S", path, str(tmp_path / "home")],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_its_own_modules_are_not_taken_for_the_interpreters(tmp_path: Path, program: Path) -> None:
    (program / "json.py").write_text(HOSTILE)
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (1, "usage: launcher HOME [--sync]\n")
