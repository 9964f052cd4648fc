from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.service.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 GiB", 4 << 30),
        ("4GiB", 4 << 30),
        ("4gib", 4 << 30),
        ("4 Gi", 4 << 30),
        ("500M", 500 << 20),
        ("500m", 500 << 20),
        ("1.5g", 3 << 29),
        (".5 K", 512),
        ("2T", 2 << 40),
        ("500 MB", 500_000_000),
        ("2 gb", 2_000_000_000),
        ("1 kB", 1000),
        ("12", 12),
        (" 12 B ", 12),
        ("1 byte", 1),
        ("17 bytes", 17),
        ("0.1 K", 103),
        ("0", 0),
        (4096, 4096),
        (4096.0, 4096),
    ],
)
def test_amounts_of_memory_are_read_as_people_write_them(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value",
    [
        "4 gigs", "", " ", "GiB", "-1", "4 iB", "1 2", "1e9", "4 GiB of memory", "nan", "٤ GiB",
        "1,5 GiB", "1.2.3", -1, 1.5, math.nan, math.inf, True, None, [], "9" * 1000, 1 << 70,
    ],
)  # fmt: skip
def test_what_is_no_amount_of_memory_is_refused_with_examples(value: object) -> None:
    with pytest.raises(ValueError, match="is not an amount of memory or disk; write for example 4"):
        parse_size(value)


def test_numbers_too_long_to_be_printed_are_refused_as_well() -> None:
    for parse in (parse_size, parse_duration):
        for value in (10**5000, -(10**5000)):
            with pytest.raises(ValueError, match="a number that large is not"):
                parse(value)


def test_the_refusal_quotes_what_was_written() -> None:
    with pytest.raises(ValueError, match=r"^'4 gigs' is not an amount"):
        parse_size("4 gigs")
    with pytest.raises(ValueError, match=r"^'soon' is not a length of time; write for example 2h"):
        parse_duration("soon")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h30m", 9000),
        ("2h 30m", 9000),
        ("2 hours, 30 minutes", 9000),
        ("90s", 90),
        ("90", 90),
        ("1.5", 1.5),
        ("1.5h", 5400),
        ("45 min", 2700),
        ("250 ms", 0.25),
        ("1 day", 86400),
        ("1w", 604800),
        ("30:00", 1800),
        ("90:00", 5400),
        ("12:00:00", 43200),
        ("100:00:00", 360000),
        ("00:00:01.5", 1.5),
        ("1-12:00:00", 129600),
        ("1-12:30", 131400),
        ("1-12", 129600),
        ("PT2H30M", 9000),
        ("P1DT12H", 129600),
        ("P2D", 172800),
        (90, 90),
        (0.5, 0.5),
        (timedelta(minutes=5), 300),
    ],
)
def test_lengths_of_time_are_read_as_people_write_them(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    [
        "", "soon", "h", "2m30", "30m2h", "2h2h", "5 fortnights", "1h,", "12:60:00", "1:99", "1-24",
        "-5", "-1s", "1:2:3:4", "P", "PT", "1e3", -1, math.nan, math.inf, True, None, {}, 1 << 70,
        "9" * 1000, timedelta(seconds=-1),
    ],
)  # fmt: skip
def test_what_is_no_length_of_time_is_refused_with_examples(value: object) -> None:
    with pytest.raises(ValueError, match="is not a length of time; write for example 2h30m"):
        parse_duration(value)


@given(st.text(max_size=80) | st.integers() | st.floats() | st.none() | st.booleans())
def test_any_value_is_read_or_refused_with_a_sentence(value: object) -> None:
    for parse in (parse_size, parse_duration):
        said = ""
        try:
            amount = parse(value)
        except ValueError as error:
            amount, said = 0, str(error)
        assert amount >= 0
        assert math.isfinite(amount)
        assert not said or "write for example" in said
        assert len(said) < 200


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (3 << 30, "3 GiB"),
        (3 << 29, "1.5 GiB"),
        ((1 << 30) - 1, "1 GiB"),
        (1 << 60, "1 EiB"),
    ],
)
def test_sizes_are_written_for_people(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.25, "0.25s"),
        (9.999, "10s"),
        (45, "45s"),
        (59.7, "1m"),
        (90, "1m 30s"),
        (3599.6, "1h"),
        (9000, "2h 30m"),
        (86400, "1d"),
        (129600, "1d 12h"),
        (-90, "-1m 30s"),
    ],
)
def test_lengths_of_time_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(min_value=0, max_value=1 << 60))
def test_a_written_size_can_be_read_again(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.06)


@given(st.floats(min_value=0, max_value=1e9))
def test_a_written_length_of_time_can_be_read_again(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.05, abs=0.006)
