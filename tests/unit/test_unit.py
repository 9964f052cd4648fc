"""The systemd user unit: it leaves jobs alone, and its command line is the one that was meant."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from simyard.cli import main
from simyard.cli.unit import unit


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_stopping_it_ends_the_service_alone() -> None:
    facts = parsed(unit(["/usr/bin/simyard", "serve"], "/home/a/yard"))
    assert facts["Service"]["KillMode"] == "process"
    assert facts["Service"]["Restart"] == "on-failure"
    assert facts["Install"]["WantedBy"] == "default.target"


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("/a/b-c_d.e", "/a/b-c_d.e"),
        ("--licenses=hfss=2,x=1", "--licenses=hfss=2,x=1"),
        ("with space", '"with space"'),
        ('quote"d', '"quote\\"d"'),
        ("back\\slash", '"back\\\\slash"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ("a;b", '"a;b"'),
        ("", '""'),
    ],
)
def test_words_come_through_as_they_are(word: str, written: str) -> None:
    assert parsed(unit([word], "/x"))["Service"]["ExecStart"] == written


def test_the_command_prints_it_with_the_settings_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "a home"
    words = ["serve", "--home", str(home), "--print-unit", "--max-cores", "8", "--log-format=json"]
    assert main.main(words) == 0
    text = capsys.readouterr().out
    command = parsed(text)["Service"]["ExecStart"]
    assert command == (
        f'{sys.executable} -m simyard serve --home "{home}" --max-cores=8 --log-format=json'
    ), "and it does not end by itself for want of work"
    assert not home.exists()
    program = shutil.which("systemd-analyze")
    if program is not None:  # the judge, where there is one
        path = tmp_path / "simyard.service"
        path.write_text(text)
        checked = subprocess.run(
            [program, "verify", "--user", "--man=no", str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "simyard.service" not in checked.stderr, checked.stderr
