"""The example's shell variant and its job file work as they are written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

EXAMPLE = ROOT / "examples" / "microstrip"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment with our programs and NumPy on PATH, and a home of its own."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SIMYARD_HOME": str(tmp_path / "home"),
        "SIMYARD_PORT": "0",
        "SIMYARD_LAUNCHER_IDLE": "1",
        "CELL": "0.4",
    }
    yield environment
    if (tmp_path / "home" / "run" / "endpoint.json").exists():
        subprocess.run(["simyard", "stop"], env=environment, check=True, timeout=60)


def run(words: list[str], world: dict[str, str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, env=world, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_sweep_from_the_shell_prints_a_line_for_each_length(
    world: dict[str, str], tmp_path: Path
) -> None:
    printed = run([str(EXAMPLE / "sweep.sh"), "results"], world, tmp_path)
    assert printed.count("theory") == 3
    assert (tmp_path / "results" / "18" / "result.json").exists()


def test_the_job_file_runs_beside_its_solver(world: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "microstrip"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    run(["submit_job", "--file", "job.yaml", "--wait"], world, folder)
    assert (folder / "result.json").exists()
