"""Everything that can be typed is in the reference."""

from __future__ import annotations

import re

import pytest
from checkout import ROOT

from simyard.cli import main, submit_job

REFERENCE = ROOT / "docs" / "reference" / "shell.md"


def _mentioned() -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", REFERENCE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["submit_job", *main.COMMANDS])
def test_every_option_is_in_the_reference(name: str) -> None:
    if name in ("submit", "submit_job"):
        parser = submit_job.parser()
    else:
        parser, _ = main.command_parser(name)
    assert set(parser.option_names()) - _mentioned() == set()


def test_every_command_is_in_the_reference() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert [name for name in main.COMMANDS if f"| `simyard {name}` |" not in text] == []


def test_the_reference_speaks_of_no_option_that_does_not_exist() -> None:
    known = set(submit_job.parser().option_names())
    for name in main.COMMANDS:
        if name != "submit":
            known |= set(main.command_parser(name)[0].option_names())
    assert _mentioned() - known - {"--switches"} == set()


def test_every_command_has_one_line_and_a_module_of_its_own_or_its_family() -> None:
    for name, (module, text) in main.COMMANDS.items():
        assert module.isidentifier(), name
        assert "\n" not in text, name
