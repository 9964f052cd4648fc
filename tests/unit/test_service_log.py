"""The service's own log: one line each, for people or machines, in files that do not grow for ever."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT

from simyard.service.service_log import KEPT, JsonLines, TextLines


def record(message: str, *arguments: Any, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "simyard.x", "levelno": 30, "levelname": "WARNING", "msg": message, **extra}
    )
    made.args = arguments
    return made


def test_a_json_line_says_when_who_and_what() -> None:
    line = JsonLines().format(record("job %s ended", 17, created=0.25, msecs=250.0, job_id=17))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "warning",
        "logger": "simyard.x",
        "message": "job 17 ended",
        "job_id": 17,
    }


@pytest.mark.parametrize("text", ["two\nlines", "\u2028", "\ud800", "\x1b[31mred", '"}{"'])
def test_a_json_line_stays_one_line_whatever_is_in_it(text: str) -> None:
    line = JsonLines().format(record("%s", text, more=Path("/x")))
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["message"] == text and json.loads(line)["more"] == "/x"


def test_an_exception_is_part_of_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = JsonLines().format(record("no", exc_info=sys.exc_info()))
    assert "ValueError: broken" in json.loads(line)["exception"] and "\n" not in line


def test_a_text_line_has_its_time_in_utc() -> None:
    line = TextLines().format(record("hello", created=0.25, msecs=250.0))
    assert line == "1970-01-01T00:00:00.250Z WARNING simyard.x: hello"


PROGRAM = """
import logging, os, sys
from pathlib import Path
from simyard.service.service_log import log_to_stderr
log_to_stderr(Path(sys.argv[1]), kind="json", level="info", most=int(sys.argv[2]))
for number in range(int(sys.argv[3])):
    logging.getLogger("simyard.test").info("line %s %s", number, "x" * 200)
print("to stdout", flush=True)
os.write(2, b"to stderr\\n")
"""


def run(folder: Path, most: int, lines: int, *, stderr: Path | None = None) -> Path:
    log = folder / "service.log"
    with open(os.open(stderr or log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(log), str(most), str(lines)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "typings")},
            stdout=file,
            stderr=file,
            check=True,
            timeout=60,
        )
    return log


def numbers(path: Path) -> list[int]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("{")]
    return [int(json.loads(line)["message"].split()[1]) for line in lines]


def test_a_large_log_is_put_aside_and_nothing_of_the_newest_is_lost(tmp_path: Path) -> None:
    log = run(tmp_path, 2000, 60)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["service.log", *(f"service.log.{n}" for n in range(1, KEPT + 1))]
    for path in tmp_path.iterdir():
        assert path.stat().st_size < 3000 and stat.S_IMODE(path.stat().st_mode) == 0o600
    inorder = [log.with_name(f"service.log.{n}") for n in range(KEPT, 0, -1)]
    kept = [number for path in (*inorder, log) for number in numbers(path)]
    assert kept == list(range(kept[0], 60))
    assert log.read_text().endswith("to stdout\nto stderr\n"), "the process's own words follow"


def test_a_log_without_a_bound_is_never_put_aside(tmp_path: Path) -> None:
    run(tmp_path, 0, 60)
    assert [path.name for path in tmp_path.iterdir()] == ["service.log"]


def test_a_file_that_is_not_the_service_log_is_not_moved(tmp_path: Path) -> None:
    other = tmp_path / "mine.txt"
    (tmp_path / "service.log").write_text("earlier\n")
    run(tmp_path, 500, 20, stderr=other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.txt", "service.log"]
    assert len(numbers(other)) == 20 and (tmp_path / "service.log").read_text() == "earlier\n"
