"""The completion of each shell, asked of the shell itself."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from shell import Shell
from terminal import Terminal

from simyard.cli import completion, main

BASH = """
set -u
source "$1"
COMP_WORDS=("${@:2}"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="${*:2}"
COMP_POINT=${#COMP_LINE}
eval "function=$(complete -p "$2" | sed -E 's/.*-F ([^ ]+).*/\\1/')"
"$function" "$2" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def programs(shell: Shell, folder: Path) -> dict[str, str]:
    """An environment in which `simyard` is a program on PATH, as after an installation."""
    folder.mkdir(exist_ok=True)
    program = folder / "simyard"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m simyard "$@"\n')
    program.chmod(0o700)
    return {**shell.env, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


class Completer:
    """Asks one shell what could stand at the end of a command line."""

    def __init__(self, name: str, shell: Shell, folder: Path) -> None:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        self.name = name
        self.shell = shell
        self.env = programs(shell, folder / "bin")
        self.script = folder / f"completion.{name}"
        ended = shell.simyard("completion", name)
        assert ended.code == 0, ended.err
        self.script.write_text(ended.out)

    def __call__(self, *words: str) -> list[str]:
        """Return what could complete the last of `words`."""
        if self.name == "bash":
            return self.run("bash", "--norc", "-c", BASH, "bash", str(self.script), *words)
        line = " ".join(words)
        ask = f"source {shlex.quote(str(self.script))}; complete -C {shlex.quote(line)}"
        found = self.run("fish", "--no-config", "-c", ask)
        return [text.partition("\t")[0] for text in found]

    def run(self, *command: str) -> list[str]:
        done = subprocess.run(
            command, env=self.env, cwd=self.shell.cwd, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return [line for line in done.stdout.splitlines() if line]


@pytest.fixture(params=["bash", "fish"])
def complete(request: pytest.FixtureRequest, live_shell: Shell, tmp_path: Path) -> Completer:
    return Completer(request.param, live_shell, tmp_path)


def test_commands_are_completed(complete: Completer) -> None:
    assert set(complete("simyard", "")) >= set(main.COMMANDS)
    assert complete("simyard", "expl") == ["explain"]
    assert complete("simyard", "--home", "/tmp", "canc") == ["cancel"]


def test_options_are_those_of_the_command(complete: Completer) -> None:
    assert complete("simyard", "jobs", "--wat") == ["--watch"]
    assert complete("simyard", "logs", "--fol") == ["--follow"]
    assert complete("simyard", "logs", "--wat") == []
    assert complete("submit_job", "--wall") == ["--walltime"]


def test_values_are_completed_where_they_are_known(complete: Completer) -> None:
    assert complete("simyard", "jobs", "--state", "runn") == ["running"]
    assert complete("simyard", "config", "sh") == ["show"]
    assert set(complete("simyard", "completion", "")) == {"bash", "zsh", "fish"}
    assert complete("simyard", "limits", "--set", "max_c")[:3] == [
        "max_concurrent_jobs=",
        "max_cores=",
        "max_cpu_percent=",
    ]


def test_files_and_folders_are_completed(complete: Completer) -> None:
    folder = complete.shell.cwd
    (folder / "case one").mkdir(exist_ok=True)
    (folder / "case.yaml").touch()
    assert "case.yaml" in complete("submit_job", "--file", "case")
    found = complete("submit_job", "--workdir", "case")
    assert [name.rstrip("/").replace("\\", "") for name in found] == ["case one"]


def test_ids_are_asked_of_the_service_and_fit_the_command(complete: Completer) -> None:
    shell = complete.shell
    over = shell.submit("--", "true")
    assert shell.simyard("wait", over).code == 0
    held = shell.submit("--hold", "--", "true")
    assert {over, held} <= set(complete("simyard", "show", ""))
    found = complete("simyard", "release", "")
    assert held in found
    assert over not in found
    assert held not in complete("simyard", "retry", "")


def test_what_stands_behind_the_dashes_is_another_command_line(complete: Completer) -> None:
    (complete.shell.cwd / "mesh.inp").touch()
    assert "mkfifo" in complete("submit_job", "--cores", "2", "--", "mkfif")
    assert "mesh.inp" in complete("submit_job", "--", "cat", "mesh")


def test_bash_completes_after_the_sign_and_in_a_list(live_shell: Shell, tmp_path: Path) -> None:
    complete = Completer("bash", live_shell, tmp_path)
    # bash hands "--state=fai" over as three words.
    assert complete("simyard", "jobs", "--state", "=", "fai") == ["failed"]
    assert set(complete("simyard", "jobs", "--state", "=")) >= {"failed", "held"}
    assert complete("simyard", "jobs", "-s", "failed,canc") == ["failed,cancelled"]


def test_completion_is_silent_where_no_service_runs(shell: Shell, tmp_path: Path) -> None:
    complete = Completer("bash", shell, tmp_path)
    assert complete("simyard", "show", "") == []
    assert not shell.home.exists()


def _shows(wanted: re.Pattern[str], text: str) -> bool:
    return wanted.search(text.replace("\r", "")) is not None


def test_zsh_completes_on_a_terminal(live_shell: Shell, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    held = live_shell.submit("--hold", "--name", "for-zsh", "--", "true")
    live_shell.simyard("cancel", "--state", "held", "--name", "true", "--yes")
    folder = tmp_path / "zfunc"
    folder.mkdir()
    (folder / "_simyard").write_text(live_shell.simyard("completion", "zsh").out)
    env = programs(live_shell, tmp_path / "bin")
    with Terminal(["zsh", "-f", "-i"], cwd=live_shell.cwd, env=env) as terminal:
        terminal.write(
            f"PS1='> '; fpath=({folder} $fpath); autoload -Uz compinit; compinit -D -u\n"
        )
        terminal.write("echo re''ady\n")
        terminal.read_until(lambda text: "ready" in text)
        for typed, completed in (
            ("simyard expl", "simyard explain"),
            ("simyard jobs --wat", "simyard jobs --watch"),
            ("simyard jobs --state runn", "simyard jobs --state running"),
            ("simyard config ", "simyard config show"),
            ("submit_job --wallt", "submit_job --walltime"),
            ("submit_job --cores 2 -- mkfif", "submit_job --cores 2 -- mkfifo"),
            ("simyard release ", f"simyard release {held}"),
        ):
            # The line is never run: Ctrl-A, a word that prints it, Enter.
            terminal.write(f"{typed}\t\x01print -r -- '[\x05]'\n")
            # A space that zsh would take away again may or may not be there.
            shown = re.compile(rf"\n\[{re.escape(completed)} ?\]")
            terminal.read_until(partial(_shows, shown))
    live_shell.simyard("cancel", held)


def test_every_command_and_option_is_in_every_script() -> None:
    for name in ("bash", "zsh", "fish"):
        text = completion.script(name)
        for command in completion.commands():
            assert command.name in text
            for option in command.options:
                for word in option.names:
                    flag = word if name != "fish" else f"-{'l' if word[:2] == '--' else 's'} "
                    assert flag + (word.lstrip("-") if name == "fish" else "") in text, word


def test_what_an_option_takes_is_read_from_its_parser() -> None:
    kinds = {
        (command.name, name): option.kind
        for command in completion.commands()
        for option in command.options
        for name in option.names
    }
    assert kinds["submit", "--input"] == "file"
    assert kinds["submit", "--depends-on"] == "jobs"
    assert kinds["submit", "--wait"] == ""
    assert kinds["submit", "--cores"] == "any"
    assert kinds["download", "--to"] == "dir"
    assert kinds["cancel", "-s"] == "states"
