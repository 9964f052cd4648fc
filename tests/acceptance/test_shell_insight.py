"""What the shell tells about the service and its jobs, with a real service."""

from __future__ import annotations

import json

import pytest
from shell import Shell


def test_config_shows_the_settings_of_the_service_and_of_a_home_without_one(shell: Shell) -> None:
    shell.home.mkdir(mode=0o700)
    (shell.home / "settings.toml").write_text("gpus = 3\n")
    before = shell.simyard("config", "show", "--origin")
    assert before.code == 0, before.err
    assert f"gpus\t3\t{shell.home / 'settings.toml'}" in before.out.splitlines()
    assert "no service runs" in before.err

    started = shell.simyard("serve", "--detach", "--max-cores", "5")
    assert started.code == 0, started.err
    ended = shell.simyard("config", "show", "--origin", "--json")
    answer = json.loads(ended.out)
    found = {item["name"]: (item["value"], item["origin"]) for item in answer["items"]}
    assert answer["source"] == "service"
    assert found["max_cores"] == (5, "flag --max-cores")
    assert found["gpus"] == (3, str(shell.home / "settings.toml"))
    assert found["port"] == (0, "variable SIMYARD_PORT")
    assert "max_cores\t5\n" in shell.simyard("config", "show").out


def test_the_schema_is_printed_without_any_service(shell: Shell) -> None:
    ended = shell.simyard("schema")
    assert ended.code == 0, ended.err
    assert "command" in json.loads(ended.out)["properties"]
    assert not shell.home.exists()


@pytest.mark.parametrize("words", [["config"], ["config", "hide"]])
def test_config_asks_what_to_do(shell: Shell, words: list[str]) -> None:
    ended = shell.simyard(*words)
    assert ended.code == 2
    assert "simyard config --help" in ended.err
