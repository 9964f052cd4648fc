"""From the launcher's lines to reports."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.errors import LauncherError
from simyard.scheduler_adapters.contract import Cause, Report, ReportKind
from simyard.scheduler_adapters.records import Cursor, read_reports

END = Cursor(3, 99)


def read(*records: object) -> list[Report]:
    return read_reports("".join(json.dumps(record) + "\n" for record in records), END)


def test_a_cursor_survives_being_written_and_read() -> None:
    assert Cursor.parse(str(Cursor(12, 345))) == Cursor(12, 345)
    assert Cursor.parse(None) == Cursor(0, 0)
    assert Cursor(1, 900) < Cursor(2, 0) < Cursor(2, 1)


@pytest.mark.parametrize("text", ["", "12", "a:b", "1:-2", "1:2:3", ":"])
def test_a_cursor_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(LauncherError, match="no place"):
        Cursor.parse(text)


def test_a_whole_life_is_told_in_order_and_the_last_report_carries_the_cursor() -> None:
    reports = read(
        {"r": "launcher", "t": 1, "pid": 3, "boot": "b"},
        {"r": "starting", "tag": "a", "t": 1.0},
        {"r": "started", "tag": "a", "t": 1.1, "pid": 17, "start": 5, "boot": "b"},
        {"r": "ended", "tag": "a", "t": 2.0, "code": 3, "cause": "own", "left": True,
         "wall": 0.9, "utime": 0.5, "stime": 0.25, "rss": 1024},
        {"r": "cleared", "tag": "a", "t": 2.5},
    )  # fmt: skip
    assert [report.kind.value for report in reports] == ["started", "ended", "cleared"]
    assert [report.cursor for report in reports] == [None, None, "3:99"]
    assert reports[0].native_id == "17"
    ending = reports[1].ending
    assert ending is not None
    assert (ending.cause, ending.exit_code, ending.signal) == (Cause.OWN, 3, None)
    assert ending.usage.cpu_seconds == 0.75
    assert ending.usage.max_rss_bytes == 1024


def test_an_end_that_left_nothing_also_clears() -> None:
    record = {"r": "ended", "tag": "a", "t": 2.0, "sig": 9, "cause": "timeout", "left": False}
    reports = read(record)
    assert [report.kind for report in reports] == [ReportKind.ENDED, ReportKind.CLEARED]
    assert reports[0].ending is not None
    assert (reports[0].ending.cause, reports[0].ending.signal) == (Cause.TIMEOUT, 9)


def test_a_failed_start_ends_and_clears_with_its_sentence() -> None:
    reports = read({"r": "failed", "tag": "a", "t": 2.0, "errno": 2, "msg": "no such program"})
    assert [report.kind for report in reports] == [ReportKind.ENDED, ReportKind.CLEARED]
    assert reports[0].ending is not None
    assert reports[0].ending.cause is Cause.START_FAILED
    assert reports[0].ending.message == "no such program"


def test_starting_is_told_only_while_nothing_more_is_known() -> None:
    assert [report.kind.value for report in read({"r": "starting", "tag": "a", "t": 1})] == [
        "starting"
    ]
    reports = read(
        {"r": "starting", "tag": "a", "t": 1},
        {"r": "starting", "tag": "b", "t": 1},
        {"r": "withdrawn", "tag": "a", "t": 1},
    )
    assert [(report.tag, report.kind.value) for report in reports] == [
        ("b", "starting"),
        ("a", "withdrawn"),
    ]


def test_what_a_new_generation_repeats_is_not_told_again() -> None:
    assert read({"r": "started", "tag": "a", "t": 1, "pid": 1, "again": True}) == []


def test_an_end_of_its_own_without_evidence_is_no_success() -> None:
    reports = read({"r": "ended", "tag": "a", "t": 2.0, "cause": "own", "left": False})
    assert reports[0].ending is not None
    assert reports[0].ending.cause is Cause.LOST


def test_a_record_that_is_none_is_left_out_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    good = json.dumps({"r": "cleared", "tag": "a", "t": 1})
    bad = ["garbage", "[]", "17", '{"r":"ended","tag":"x"}', '{"r":"new","tag":"x","t":1}', "{}"]
    with caplog.at_level(logging.WARNING):
        reports = read_reports("\n".join([*bad, good]) + "\n", END)
    assert [report.tag for report in reports] == ["a"]
    assert len(caplog.records) == len(bad)


KINDS = ["starting", "started", "ended", "cleared", "withdrawn", "failed", "launcher", "odd"]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["r", "tag", "t", "pid", "cause", "code", "sig", "left", "wall"]),
            st.none()
            | st.booleans()
            | st.integers()
            | st.text(max_size=5)
            | st.sampled_from(KINDS),
        )
    )
)
def test_no_record_however_odd_stops_those_behind_it(records: list[dict[str, object]]) -> None:
    reports = read(*records, {"r": "cleared", "tag": "last", "t": 1})
    assert (reports[-1].tag, reports[-1].cursor) == ("last", "3:99")
