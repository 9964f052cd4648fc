"""What is released works: sdist and wheel are built, installed in a fresh environment, and run a job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import LAYERS, ROOT, kept_files

pytestmark = [pytest.mark.wheel, pytest.mark.slow, pytest.mark.timeout(900)]

KEPT = kept_files()
NO_INDEX = ("No matching distribution found", "Could not find a version", "NewConnectionError")


def run(*words: object, env: dict[str, str] | None = None, code: int = 0) -> str:
    """Run a program away from the checkout; return its standard output."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd="/",
        env={**own, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != code and any(sign in done.stderr + done.stdout for sign in NO_INDEX):
        pytest.skip("pip reaches no package index here, so nothing can be installed")
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both distributions from a copy of what git keeps, in a folder with an odd name."""
    copy = tmp_path_factory.mktemp("build") / "an odd-name.1"
    for path in KEPT:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, copy / path)
    out = copy.parent / "dist"
    run(sys.executable, "-m", "build", "--outdir", out, copy)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of a fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=True)
    [wheel] = built.glob("*.whl")
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", wheel)
    return folder / "bin"


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Iterator[Path]:
    """A fresh home, with nothing left running on it afterwards."""
    yield tmp_path / "home"
    if (tmp_path / "home" / "run" / "endpoint.json").exists():
        run(installed / "simyard", "--home", tmp_path / "home", "stop")


def test_the_wheel_holds_the_whole_package_and_nothing_else(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    ours = {name.relative_to("simyard") for name in names if name.parts[0] == "simyard"}
    kept = {
        path
        for path in KEPT
        if path.parts[0] in {*LAYERS[1:], "web"}
        or (len(path.parts) == 1 and path.suffix == ".py")
        or path.name == "py.typed"
    }
    assert ours == kept
    others = {name.parts[0] for name in names} - {"simyard"}
    assert all(name.endswith(".dist-info") for name in others)


def test_the_sdist_holds_the_whole_checkout(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {Path(*Path(name).parts[1:]) for name in archive.getnames()}
    assert set(KEPT) - inside == set()


def test_the_installed_wheel_runs_a_job(installed: Path, home: Path) -> None:
    assert "0." in run(installed / "simyard", "version")
    submit = [installed / "submit_job", "--home", home]
    run(*submit, "--wait", "--", sys.executable, "-c", "print(6 * 7)")
    jobs = json.loads(run(installed / "simyard", "--home", home, "--json", "jobs"))
    [job] = jobs["items"] if isinstance(jobs, dict) else jobs
    assert job["state"] == "completed"
    assert job["outcome"]["exit_code"] == 0
    log = run(installed / "simyard", "--home", home, "logs", job["id"])
    assert log.strip() == "42"


def test_the_installed_wheel_serves_the_dashboard(installed: Path, home: Path) -> None:
    run(installed / "submit_job", "--home", home, "--", "true")
    endpoint = json.loads((home / "run" / "endpoint.json").read_text())
    with urllib.request.urlopen(endpoint["url"] + "/", timeout=30) as page:
        assert b"<html" in page.read().lower()


def test_the_job_s_own_failure_is_the_exit_code(installed: Path, home: Path) -> None:
    run(installed / "submit_job", "--home", home, "--wait", "--", "sh", "-c", "exit 7", code=7)
