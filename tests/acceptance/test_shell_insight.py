"""What the shell tells about the service and its jobs, with a real service."""

from __future__ import annotations

import json
import sys

import pytest
from shell import Shell
from terminal import Terminal

from simyard.cli import output
from simyard.cli.commands import top


def on_a_terminal(shell: Shell, *words: str, **size: int) -> Terminal:
    command = [sys.executable, "-m", "simyard", *words]
    return Terminal(command, cwd=shell.cwd, env=shell.env, **size)


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


def test_explain_names_the_holder_its_end_and_the_place_in_line(shell: Shell) -> None:
    assert shell.simyard("serve", "--detach", "--max-cores", "2").code == 0
    running = shell.submit("--cores", "2", "--walltime", "1h", "--name", "big", "--", "sleep", "60")
    shell.wait_until_running(running)
    first = shell.submit("--cores", "1", "--", "true")
    second = shell.submit("--cores", "1", "--", "true")
    third = shell.submit("--depends-on", running, "--", "true")
    held = shell.submit("--hold", "--", "true")

    ended = shell.simyard("explain", second)
    assert ended.code == 0, ended.err
    assert f"place in line: 2, behind {first} (true)" in ended.out
    assert f"job {running} (big) holds 2 until " in ended.out
    assert "max_cores" in ended.out

    answer = json.loads(shell.simyard("explain", second, "--json").out)
    (lack,) = answer["lacks"]
    started = output.parse_time(shell.job(running)["started_at"])
    until = output.parse_time(lack["held_by"][0]["ends_by"])
    assert started is not None and until is not None
    assert (until - started).total_seconds() == pytest.approx(3600, abs=2)
    assert answer["free_by"] == lack["free_by"] == lack["held_by"][0]["ends_by"]

    words = shell.simyard("explain", third, held, running).out
    assert f"job {running} (running) must complete" in words
    assert f"simyard release {held}" in words
    assert "its walltime ends it by" in words

    shell.simyard("cancel", running)
    assert shell.simyard("wait", running, first, second).code == 1
    assert "cancelled" in shell.simyard("explain", running).out
    assert shell.simyard("explain", "999").code == 4


def test_top_draws_again_and_again_until_interrupted(shell: Shell) -> None:
    assert shell.simyard("serve", "--detach", "--max-cores", "1").code == 0
    running = shell.submit("--name", "long one", "--", "sleep", "60")
    shell.wait_until_running(running)
    waiting = shell.submit("--name", "next", "--", "true")
    with on_a_terminal(shell, "top", "--interval", "0.2") as terminal:
        text = terminal.read_until(lambda text: text.count("waiting: 1") >= 2)
        assert "running: 1" in text
        assert "long one" in text
        assert f"{waiting}  next" in text
        assert "cores 1 of 1" in text
        shell.simyard("cancel", waiting)
        terminal.read_until(lambda text: "waiting: 0" in text)
        assert terminal.interrupt() == 0


def test_top_and_its_drawing_fit_the_terminal(shell: Shell) -> None:
    assert shell.simyard("serve", "--detach", "--max-cores", "1").code == 0
    for _ in range(12):
        shell.submit("--name", "a" * 150, "--", "sleep", "60")
    with on_a_terminal(shell, "top", "--interval", "0.2", rows=10, columns=40) as terminal:
        text = terminal.read_until(lambda text: text.count(top.HOME) >= 3)
        drawing = text.split(top.HOME)[-2]
        lines = drawing.replace(top.REST_OF_LINE, "").replace(top.BELOW, "").splitlines()
        assert len(lines) <= 10
        assert all(output.width(line.rstrip("\r")) <= 40 for line in lines), lines
        assert terminal.interrupt() == 0


def test_top_asks_for_a_terminal(live_shell: Shell) -> None:
    ended = live_shell.simyard("top")
    assert ended.code == 2
    assert "simyard status --json" in ended.err


def test_prune_asks_tells_and_forgets(shell: Shell) -> None:
    over = [shell.submit("--", "true") for _ in range(3)]
    assert shell.simyard("wait", *over).code == 0
    held = shell.submit("--hold", "--", "true")

    assert "--older-than" in shell.simyard("prune").err
    assert shell.simyard("prune", "--keep", "1").code == 2, "nobody is there to be asked"
    ended = shell.simyard("prune", "--keep", "1", "--dry-run")
    assert ended.out.startswith("2 jobs ("), ended.err
    assert "would be forgotten" in ended.out
    assert (
        json.loads(shell.simyard("prune", "--keep", "1", "--yes", "--json").out)["ids"] == over[:2]
    )
    assert shell.simyard("jobs", "--quiet").out.split() == [held, over[2]]
    assert "is not a" in shell.simyard("prune", "--older-than", "soon", "--yes").err

    with on_a_terminal(shell, "prune", "--keep", "0") as terminal:
        terminal.read_until(lambda text: "forget 1 job (" in text)
        terminal.write("n\n")
        assert terminal.wait() == 1
    assert shell.simyard("show", over[2]).code == 0
    with on_a_terminal(shell, "prune", "--keep", "0") as terminal:
        terminal.read_until(lambda text: "[y/N]" in text)
        terminal.write("y\n")
        assert terminal.wait() == 0
    assert shell.simyard("show", over[2]).code == 4
    assert shell.simyard("show", held).code == 0
