"""The shell against a real service: submit, follow, wait, control, fetch."""

from __future__ import annotations

import json
import re
import signal
import sys
import urllib.request
from pathlib import Path

import pytest
from shell import Shell

PYTHON = sys.executable


def test_a_submission_prints_the_id_alone_and_the_job_runs_where_it_was_typed(
    live_shell: Shell,
) -> None:
    (live_shell.cwd / "here.txt").write_text("found\n")
    ended = live_shell.submit_job(
        "--wait",
        "--env",
        "WORD=hello",
        "--",
        "sh",
        "-c",
        'cat here.txt; echo "$WORD $NOTE"',
        env={"NOTE": "captured"},
    )
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"\d+\n", ended.out)
    assert live_shell.simyard("logs", ended.out.strip()).out == "found\nhello captured\n"


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -11 $$", 139), ("exit 255", 255)]
)
def test_waiting_ends_with_the_jobs_own_status(live_shell: Shell, command: str, code: int) -> None:
    ended = live_shell.submit_job("--wait", "--", "sh", "-c", command)
    assert ended.code == code
    assert live_shell.simyard("wait", ended.out.strip()).code == code


def test_a_walltime_that_ends_is_124(live_shell: Shell) -> None:
    ended = live_shell.submit_job("--wait", "-t", "0.5s", "--", "sleep", "60")
    assert ended.code == 124


def test_ctrl_c_while_waiting_leaves_the_job_running(live_shell: Shell) -> None:
    words = ("simyard.cli.submit_job", "--wait", "--", "sleep", "60")
    with live_shell.started(*words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        job_id = process.stdout.readline().decode().strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert f"job {job_id} goes on" in process.stderr.read().decode()
    assert live_shell.job(job_id)["state"] in ("queued", "submitting", "running")
    assert live_shell.simyard("cancel", job_id).code == 0
    assert live_shell.simyard("wait", job_id).code in (130, 143)


def test_a_log_is_followed_while_it_grows(live_shell: Shell) -> None:
    job_id = live_shell.submit("--", "sh", "-c", "for n in 1 2 3; do echo line $n; sleep 0.2; done")
    assert live_shell.simyard("logs", "-f", job_id).out == "line 1\nline 2\nline 3\n"
    assert live_shell.simyard("logs", job_id, "--tail", "1").out == "line 3\n"


def test_the_standard_error_has_a_log_of_its_own(live_shell: Shell) -> None:
    job_id = live_shell.submit_job("--wait", "--", "sh", "-c", "echo trouble >&2").out.strip()
    assert live_shell.simyard("logs", job_id, "--stderr").out == "trouble\n"
    ended = live_shell.simyard("logs", job_id)
    assert ended.out == ""
    assert f"'simyard logs {job_id} --stderr'" in ended.err


def test_a_log_reaches_a_pipe_byte_for_byte(live_shell: Shell) -> None:
    job_id = live_shell.submit_job(
        "--wait", "--", PYTHON, "-c", r"import os; os.write(1, b'\xff\x1b[2J\x00\r\n')"
    ).out.strip()
    assert live_shell.simyard("logs", job_id).out.encode("utf-8", "surrogateescape") == (
        b"\xff\x1b[2J\x00\r\n"
    )


def test_a_script_from_stdin_runs(live_shell: Shell) -> None:
    ended = live_shell.submit_job("--wait", "--script", "-", stdin=b"echo from a script\nexit 4\n")
    assert ended.code == 4
    assert live_shell.simyard("logs", ended.out.strip()).out == "from a script\n"


def test_a_job_file_is_read_by_the_service_and_options_beat_it(live_shell: Shell) -> None:
    (live_shell.cwd / "job.yaml").write_text(
        "name: from file\ncommand: [sh, -c, 'echo $A $B; pwd']\nmemory: 64 MiB\nenv: {A: file, B: file}\n"
    )
    ended = live_shell.submit_job("--wait", "--file", "job.yaml", "--env", "B=option", "-n", "mine")
    assert ended.code == 0, ended.err
    job = live_shell.job(ended.out.strip())
    assert (job["name"], job["spec"]["memory"]) == ("mine", 64 << 20)
    assert live_shell.simyard("logs", job["id"]).out == f"file option\n{live_shell.cwd}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("command: [ls\n", "line"),
        ("commando: [ls]\n", "commando"),
        ("- ls\n", ""),
        ("command: [ls]\nmemory: much\n", "--memory: 'much'"),
        ("command: !!python/object/apply:os.system ['touch pwned']\n", ""),
    ],
)
def test_a_bad_job_file_is_refused_with_a_sentence(
    live_shell: Shell, content: str, said: str
) -> None:
    (live_shell.cwd / "bad.yaml").write_text(content)
    ended = live_shell.submit_job("--file", "bad.yaml")
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.err
    assert not (live_shell.cwd / "pwned").exists()


def test_staged_files_are_there_and_results_come_back(live_shell: Shell, tmp_path: Path) -> None:
    (live_shell.cwd / "in.txt").write_text("data\n")
    ended = live_shell.submit_job(
        "--wait",
        "--input",
        "in.txt=mesh/a.txt",
        "--expect",
        "out/*.txt",
        "--",
        "sh",
        "-c",
        "mkdir out; cat mesh/a.txt > out/b.txt",
    )
    assert ended.code == 0, ended.err
    job_id = ended.out.strip()
    listed = live_shell.simyard("files", job_id, "--json")
    paths = [item["path"] for item in json.loads(listed.out)["items"]]
    (wanted,) = [path for path in paths if path.endswith("out/b.txt")]
    ended = live_shell.simyard("download", job_id, "b.txt", "--to", str(tmp_path))
    assert ended.code == 0, ended.err
    assert (tmp_path / wanted).read_text() == "data\n"


def test_a_missing_output_is_a_failure(live_shell: Shell) -> None:
    ended = live_shell.submit_job("--wait", "--expect", "never.txt", "--", "true")
    assert ended.code == 1
    assert "never.txt" in ended.err


def test_a_dependency_is_waited_for(live_shell: Shell) -> None:
    first = live_shell.submit("--hold", "--", "true")
    second = live_shell.submit("-d", first, "--", "true")
    assert live_shell.job(second)["state"] == "queued"
    assert first in live_shell.job(second)["pending_reason"]
    assert live_shell.simyard("release", first).code == 0
    assert live_shell.simyard("wait", second).code == 0


def test_waiting_jobs_are_held_released_reordered_and_cancelled(live_shell: Shell) -> None:
    job_id = live_shell.submit("--hold", "--group", "control", "--", "sleep", "60")
    assert live_shell.simyard("jobs", "--group", "control", "-s", "held", "--quiet").out == (
        f"{job_id}\n"
    )
    assert live_shell.simyard("priority", job_id, "-7").code == 0
    assert live_shell.job(job_id)["priority"] == -7
    ended = live_shell.simyard("cancel", "--group", "control")
    assert (ended.code, ended.out) == (0, f"job {job_id} is cancelled\n")
    ended = live_shell.simyard("retry", job_id, "--quiet")
    again = ended.out.strip()
    assert live_shell.job(again)["retry_of"] == job_id
    live_shell.simyard("cancel", again)


def test_all_of_one_job_is_shown(live_shell: Shell) -> None:
    job_id = live_shell.submit_job(
        "--wait", "-n", "shown", "-c", "1", "--tag", "mesh=fine", "--", "sh", "-c", "exit 3"
    ).out.strip()
    ended = live_shell.simyard("show", job_id, "--script", "--events")
    assert ended.code == 0, ended.err
    for text in ("shown", "exit code", "sh -c 'exit 3'", "mesh=fine", "job.failed", "PATH="):
        assert text in ended.out


def test_the_status_and_limits_of_the_yard(live_shell: Shell) -> None:
    assert live_shell.simyard("status").out.startswith("service")
    ended = live_shell.simyard(
        "limits", "--set", "licenses.hfss=2", "max_concurrent_jobs=7", "--json"
    )
    assert ended.code == 0, ended.err
    facts = json.loads(live_shell.simyard("limits", "--json").out)
    assert (facts["licenses"], facts["max_concurrent_jobs"]) == ({"hfss": 2}, 7)
    live_shell.simyard("limits", "--set", "max_concurrent_jobs=none", "licenses.hfss=none")
    facts = json.loads(live_shell.simyard("limits", "--json").out)
    assert (facts["licenses"], facts["max_concurrent_jobs"]) == ({}, None)
    ended = live_shell.simyard("limits", "--set", "max_memory=much")
    assert ended.code == 1
    assert "much" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "4 GX", "--", "true"], "--memory: '4 GX' is not an amount of memory"),
        (["-t", "soon", "--", "true"], "--walltime: 'soon'"),
        (["-c", "100000", "--", "true"], "100000 cores"),
        (["-m", "1000 TiB", "--", "true"], "memory"),
        (["--license", "nosuch", "--", "true"], "nosuch"),
        (["-d", "999999", "--", "true"], "999999"),
        (["-c", "0", "--", "true"], "--cores"),
        (["--scheduler", "nosuch", "--", "true"], "nosuch"),
        (["--retries", "1:moon", "--", "true"], "--retries"),
    ],
)
def test_what_can_never_run_is_refused_at_once(
    live_shell: Shell, words: list[str], said: str
) -> None:
    ended = live_shell.submit_job(*words)
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.err


@pytest.mark.parametrize("words", [["show"], ["logs"], ["wait"], ["cancel"], ["files"], ["retry"]])
def test_an_unknown_id_is_4(live_shell: Shell, words: list[str]) -> None:
    ended = live_shell.simyard(*words, "999999")
    assert (ended.code, ended.out) == (4, "")
    assert "999999" in ended.err


def test_cancelling_a_finished_job_says_that_it_is_over(live_shell: Shell) -> None:
    job_id = live_shell.submit_job("--wait", "--", "true").out.strip()
    ended = live_shell.simyard("cancel", job_id)
    assert ended.code == 1
    assert "over" in ended.err
    assert "completed" in ended.err


def test_a_program_that_vanishes_before_its_start_is_a_failure_that_says_so(
    live_shell: Shell,
) -> None:
    program = live_shell.cwd / "vanishing"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    job_id = live_shell.submit("--hold", "--", "./vanishing")
    program.unlink()
    live_shell.simyard("release", job_id)
    ended = live_shell.simyard("wait", job_id)
    assert ended.code == 1
    assert "vanishing" in ended.err


def test_the_dashboard_is_there_behind_the_file(live_shell: Shell, live_home: Path) -> None:
    ended = live_shell.simyard("dashboard", "--no-open")
    assert ended.code == 0, ended.err
    page = (live_home / "run" / "dashboard.html").read_text()
    url = re.findall(r'url=(http://[^"#]+)#code=', page)[0]
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.status == 200


def test_a_reader_that_goes_away_is_no_failure_of_ours(live_shell: Shell) -> None:
    job_id = live_shell.submit_job("--wait", "--", PYTHON, "-c", "print('x' * 8000000)").out.strip()
    with live_shell.started("simyard", "logs", job_id) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


def test_the_doctor_finds_the_service_and_the_launcher(live_shell: Shell) -> None:
    live_shell.submit_job("--wait", "--", "true")
    ended = live_shell.simyard("doctor")
    assert "answers at http://" in ended.out
    assert ended.code == 0
