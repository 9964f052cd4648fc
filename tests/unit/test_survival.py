"""What is said of a machine that ends jobs behind their owner's back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simyard.handler import handover, survival


@pytest.fixture
def logind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for systemd's tools: two programs that say what a file tells them."""
    for name in ("busctl", "loginctl"):
        (tmp_path / name).write_text(f"#!/bin/sh\ncat {tmp_path}/{name}.says\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    real = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: "systemd" in str(path) or real(path))
    return tmp_path


@pytest.mark.parametrize(
    ("kills", "linger", "said"),
    [
        ("b false", "Linger=no", (True, "leaves processes alone")),
        ("b true", "Linger=yes", (True, "lingering is on")),
        ("b true", "Linger=no", (False, "enable-linger")),
    ],
)
def test_whether_a_logout_ends_jobs_is_told(
    logind: Path, kills: str, linger: str, said: tuple[bool, str]
) -> None:
    (logind / "busctl.says").write_text(kills)
    (logind / "loginctl.says").write_text(linger)
    known = survival.logout()
    assert known is not None
    assert known[0] is said[0]
    assert said[1] in known[1]


def test_nothing_is_claimed_where_systemd_does_not_answer(logind: Path) -> None:
    assert survival.logout() is None


def test_a_batch_job_is_an_enclosure() -> None:
    assert "batch job" in str(survival.enclosure({"SLURM_JOB_ID": "7"})) or os.path.exists(
        "/.dockerenv"
    )


def test_the_first_start_of_a_home_warns_and_later_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survival, "hints", lambda: ["logging out ends your jobs"])
    said: list[str] = []
    handover._warn_once(str(tmp_path), said.append)
    assert said == ["simyard: logging out ends your jobs (see 'simyard doctor')"]
    (tmp_path / "store.db").touch()
    handover._warn_once(str(tmp_path), said.append)
    assert len(said) == 1
