from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.errors import InvalidInput, NotFound
from simyard.service import logs
from simyard.service.logs import MOST, decode, read_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "stdout.log"


def test_a_log_is_read_piece_by_piece(log: Path) -> None:
    log.write_bytes(b"0123456789")
    first = read_log(log, limit=4)
    assert (first.data, first.offset, first.next_offset, first.size) == (b"0123", 0, 4, 10)
    assert not first.at_end
    rest = read_log(log, offset=first.next_offset)
    assert (rest.data, rest.next_offset) == (b"456789", 10)
    assert rest.at_end
    assert read_log(log, offset=10).data == b""
    beyond = read_log(log, offset=50)
    assert (beyond.data, beyond.next_offset, beyond.size) == (b"", 50, 10)


def test_a_log_that_is_not_there_yet_is_empty(log: Path) -> None:
    for chunk in (read_log(log), read_log(log, offset=0), read_log(log, tail=5)):
        assert (chunk.data, chunk.offset, chunk.size) == (b"", 0, 0)
        assert chunk.at_end


def test_a_piece_is_never_more_than_a_mebibyte(log: Path) -> None:
    log.write_bytes(b"x" * (MOST + 5))
    assert len(read_log(log, limit=MOST * 10).data) == MOST
    assert len(read_log(log, tail=3, limit=MOST * 10).data) == MOST


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"a\nb\nc\n", 1, b"c\n"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 1, b"c"),
        (b"a\nb\nc", 3, b"a\nb\nc"),
        (b"a\nb\nc", 99, b"a\nb\nc"),
        (b"a\nb\n", 0, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"", 3, b""),
        (b"no end", 3, b"no end"),
    ],
)
def test_the_last_lines_are_found(log: Path, content: bytes, lines: int, expected: bytes) -> None:
    log.write_bytes(content)
    chunk = read_log(log, tail=lines)
    assert chunk.data == expected
    assert chunk.offset == len(content) - len(expected)
    assert chunk.next_offset == len(content)


@given(st.binary(max_size=400).map(lambda b: b.replace(b"a", b"\n")), st.integers(0, 20))
def test_a_tail_is_what_splitting_into_lines_gives(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, lines: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "tail.log"
    path.write_bytes(content)
    before = logs._BLOCK
    logs._BLOCK = 7
    try:
        found = read_log(path, tail=lines).data
    finally:
        logs._BLOCK = before
    # Only a line feed ends a line here, unlike for splitlines.
    parts = [part + b"\n" for part in content.split(b"\n")]
    parts[-1] = parts[-1][:-1]
    if parts[-1] == b"":
        parts.pop()
    assert found == b"".join(parts[-lines:] if lines else [])


def test_the_tail_of_a_huge_log_is_found_without_reading_it(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with log.open("wb") as file:
        file.truncate(1 << 32)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    read: list[int] = []
    plain = logs._read

    def counted(descriptor: int, offset: int, count: int) -> bytes:
        read.append(count)
        return plain(descriptor, offset, count)

    monkeypatch.setattr(logs, "_read", counted)
    assert read_log(log, tail=1).data == b"last\n"
    assert sum(read) < 1 << 18


def test_the_tail_of_a_line_without_end_is_bounded_and_begins_with_a_whole_character(
    log: Path,
) -> None:
    log.write_bytes("€".encode() * 1000)
    chunk = read_log(log, tail=1, limit=100)
    assert chunk.data == "€".encode() * 33
    assert chunk.next_offset == chunk.size == 3000


@given(st.text() | st.binary(), st.integers(1, 9))
def test_pieces_decode_to_the_same_text_as_the_whole(content: str | bytes, step: int) -> None:
    data = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    text, at = "", 0
    size = step
    while at < len(data):
        piece = data[at : at + size]
        part, taken = decode(piece, final=at + size >= len(data))
        text, at = text + part, at + taken
        # A piece smaller than one character brings nothing; the next one is larger.
        size = size + 1 if taken == 0 else step
    assert text == data.decode("utf-8", "replace")


def test_a_character_cut_in_two_is_left_for_the_next_piece() -> None:
    euro = "€".encode()
    assert decode(b"a" + euro[:2], final=False) == ("a", 1)
    assert decode(b"a" + euro[:2], final=True) == ("a\ufffd", 3)
    assert decode(b"\xff\xfeok", final=False) == ("\ufffd\ufffdok", 4)


def test_neither_a_link_nor_a_fifo_is_taken_for_a_log(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/passwd")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (link, fifo, tmp_path):
        with pytest.raises(NotFound):
            read_log(path)


@pytest.mark.parametrize(
    "wrong", [{"offset": -1}, {"tail": -1}, {"limit": -1}, {"offset": 0, "tail": 1}]
)
def test_numbers_that_make_no_sense_are_refused(log: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        read_log(log, **wrong)
