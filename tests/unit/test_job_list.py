"""Lists of jobs: a table that nothing of a job's can break out of, and a data frame."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import simyard
from simyard.errors import UsageError
from simyard.handler.job_list import MOST_ROWS, JobList, to_frame


def job(number: int, **more: Any) -> Any:
    """A handle with a job as it comes over the wire."""
    last = {
        "id": str(number),
        "name": f"job-{number}",
        "state": "completed",
        "outcome": {"reason": "exit_code", "exit_code": 0, "signal": None, "message": ""},
        "pending_reason": None,
        "spec": {"command": ["a"], "cores": 2, "memory": 1 << 30},
        "usage": {"wall_seconds": 1.5, "cpu_seconds": 1.0, "max_rss_bytes": 7},
        "created_at": "2026-11-21T13:44:57.123Z",
        "started_at": "2026-11-21T13:44:58.000Z",
        "finished_at": "2026-11-21T13:45:58.000Z",
        "priority": 0,
        "project": None,
        "group": "g",
        "attempt": 1,
        "workdir": "/w",
        "tags": {},
        **more,
    }
    return SimpleNamespace(last=last)


def waiting(number: int, **more: Any) -> Any:
    return job(
        number,
        state="queued",
        outcome=None,
        started_at=None,
        finished_at=None,
        pending_reason="waits for 4 cores",
        spec={"command": ["a"]},
        usage={"wall_seconds": 0.0, "cpu_seconds": 0.0, "max_rss_bytes": 0},
        **more,
    )


def test_a_list_of_jobs_is_a_list() -> None:
    jobs = JobList([job(1), job(2)])
    assert isinstance(jobs, list) and len(jobs) == 2
    assert jobs[0].last["id"] == "1"


def test_a_notebook_shows_a_table_with_why_each_waits_or_failed() -> None:
    failed = job(2, state="failed", outcome={"reason": "timeout", "message": "its walltime"})
    shown = JobList([job(1), failed, waiting(3)])._repr_html_()
    assert shown.count("<tr>") == 4
    assert "its walltime" in shown and "waits for 4 cores" in shown
    assert "3 jobs: 1 completed, 1 failed, 1 queued" in shown


def test_nothing_of_a_job_is_markup() -> None:
    evil = "<script>alert(1)</script>'\"&"
    shown = JobList(
        [
            job(1, name=evil, state=evil, id=evil),
            waiting(2, name=evil),
            job(3, state="failed", outcome={"reason": evil, "message": evil}),
        ]
    )._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;alert(1)" in shown


def test_a_long_list_is_cut_and_says_so() -> None:
    shown = JobList([job(number) for number in range(500)])._repr_html_()
    assert shown.count("<tr>") == MOST_ROWS + 1
    assert "500 jobs: 500 completed; the first 60 are shown" in shown


def test_an_empty_list_is_shown() -> None:
    assert "0 jobs" in JobList()._repr_html_()


def test_a_frame_has_a_row_for_each_job_with_types_of_its_own() -> None:
    pandas = pytest.importorskip("pandas")
    frame = JobList([job(1, tags={"mesh": "fine"}), waiting(2)]).to_frame()
    assert list(frame.index) == ["1", "2"] and frame.index.name == "id"
    assert frame.loc["1", "exit_code"] == 0 and pandas.isna(frame.loc["2", "exit_code"])
    assert list(frame["cores"]) == [2, 1]
    ran = frame.loc["1", "finished_at"] - frame.loc["1", "started_at"]
    assert ran.total_seconds() == 60
    assert str(frame["created_at"].dt.tz) == "UTC"
    assert frame.loc["1", "created_at"].isoformat() == "2026-11-21T13:44:57.123000+00:00"
    assert pandas.isna(frame.loc["2", "started_at"])
    assert frame.loc["1", "tag.mesh"] == "fine" and pandas.isna(frame.loc["2", "tag.mesh"])
    assert frame["wall_seconds"].sum() == 1.5
    assert frame.groupby("state").size().to_dict() == {"completed": 1, "queued": 1}


def test_a_frame_of_no_jobs_has_the_columns_and_no_rows() -> None:
    pytest.importorskip("pandas")
    frame = to_frame([])
    assert len(frame) == 0
    assert {"state", "finished_at", "exit_code"} <= set(frame.columns)


def test_any_handles_make_a_frame() -> None:
    pytest.importorskip("pandas")
    assert list(simyard.to_frame(iter([job(5)]))["name"]) == ["job-5"]


def test_without_pandas_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        to_frame([])
