"""What reaches a terminal or a pipe."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.cli import output
from simyard.cli.output import Sanitiser, one_line, table


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\n", "plain\n"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b]52;c;ZXZpbA==\x07after", "after"),
        ("\x1b]8;;javascript:alert(1)\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;new title\x9cafter", "after"),
        ('\x1bP$q"p\x1b\\after', "after"),
        ("\x1b[2J\x1b[H\x1b[6nafter", "after"),
        ("\x9b2Jafter", "after"),
        ("\x90secret\x9cafter", "after"),
        ("\x1b(0\x1bcafter", "after"),
        ("honest\rforged\n", "honest\nforged\n"),
        ("dos\r\n", "dos\n"),
        ("a\x08b\x07c\x00d\x7f", "abcd"),
        ("user\u202egpj.exe", "usergpj.exe"),
        ("a\u2028b", "a\nb"),
        ("\x1b]never ends\nnext line", "\nnext line"),
        ("tab\tkept", "tab\tkept"),
        ("µm 漢字", "µm 漢字"),
    ],
)
def test_only_colours_pass_to_a_terminal(raw: str, shown: str) -> None:
    sanitiser = Sanitiser(colour=True)
    assert sanitiser.feed(raw) + sanitiser.finish() == shown


def test_without_colours_not_even_those_pass() -> None:
    assert Sanitiser(colour=False).feed("\x1b[31mred\x1b[0m") == "red"


@given(st.lists(st.text(alphabet="\x1b\x9b\x9d[]P0;1m2J\x07\x9c\\\r\nab\u202e é", max_size=8)))
def test_how_a_log_is_cut_into_pieces_changes_nothing(pieces: list[str]) -> None:
    whole, piecewise = Sanitiser(colour=True), Sanitiser(colour=True)
    at_once = whole.feed("".join(pieces)) + whole.finish()
    bit_by_bit = "".join(piecewise.feed(piece) for piece in pieces) + piecewise.finish()
    assert bit_by_bit == at_once


@given(st.text())
def test_no_control_character_survives_in_a_cell(text: str) -> None:
    shown = one_line(text)
    assert not any(char < " " or "\x7f" <= char <= "\x9f" for char in shown)
    assert not set(shown) & set(
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
    )


def test_a_string_that_never_ends_does_not_swallow_the_log() -> None:
    assert Sanitiser(colour=False).feed("\x1b]" + "x" * 10_000).endswith("xxx")


def test_a_pipe_gets_tabs_and_no_header() -> None:
    assert table(("ID", "NAME"), [(1, "a\tb"), (2, "c\nd")], stream=io.StringIO()) == (
        "1\ta b\n2\tc d\n"
    )


def test_a_terminal_gets_aligned_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    shown = table(
        ("ID", "NAME", "WHY"), [(1, "漢字", "x" * 60), (17, "b", "")], right=(0,), stream=Terminal()
    )
    assert shown == "ID  NAME  WHY\n 1  漢字  xxxxxxxxxxxxxxxxxxx…\n17  b\n"


@pytest.mark.parametrize(
    ("variables", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_colours_are_for_terminals_unless_told_otherwise(
    variables: dict[str, str],
    terminal: bool,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert output.wants_colour(Terminal() if terminal else io.StringIO()) is expected


def test_json_is_plain_ascii() -> None:
    text = output.to_json({"name": "é\x1b[2J\u202e"})
    assert text.isascii()
    assert "\x1b" not in text
    assert json.loads(text) == {"name": "é\x1b[2J\u202e"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (59, "59s"),
        (125, "2m05s"),
        (7380, "2h03m"),
        (90000, "1d01h"),
    ],
)
def test_durations_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (4 << 30, "4.0 GiB")]
)
def test_sizes_are_written_as_people_read_them(count: int, text: str) -> None:
    assert output.size(count) == text


def test_a_time_of_the_wire_is_read_on_every_python() -> None:
    read = output.parse_time("2026-11-21T13:44:57.123Z")
    assert read is not None
    assert read.isoformat() == "2026-11-21T13:44:57+00:00"
    assert output.parse_time("nonsense") is None
