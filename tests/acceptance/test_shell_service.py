"""The service as the shell starts and stops it, and what a newcomer does wrong around it."""

from __future__ import annotations

import json
import os
import signal
import socket

import psutil
import pytest
from live_service import wait_until
from shell import Shell

from simyard.cli.commands.stop import gone


def test_the_first_submission_starts_a_service_and_says_so(shell: Shell) -> None:
    ended = shell.submit_job("--wait", "--", "sh", "-c", "exit 5")
    assert ended.code == 5
    assert ended.out == "1\n"
    assert "starting a service in the background" in ended.err
    assert shell.endpoint() is not None
    assert "starting" not in shell.submit_job("--", "true").err


def test_a_service_is_started_detached_found_and_stopped(shell: Shell) -> None:
    ended = shell.simyard("serve", "--detach", "--port", "0")
    assert ended.code == 0, ended.err
    facts = shell.endpoint()
    assert ended.out == f"{facts['url']}\n"
    again = shell.simyard("serve", "--detach")
    assert (again.code, again.out) == (0, ended.out)
    assert "runs already" in again.err
    other = shell.simyard("serve", "--detach", "--max-cores", "1")
    assert other.code == 1
    assert "keeps its settings" in other.err
    stopped = shell.simyard("stop")
    assert (stopped.code, stopped.err) == (0, "stopped\n")
    assert gone(facts["pid"])
    assert shell.endpoint() is None
    assert shell.simyard("status").code == 3


def test_stopping_leaves_running_jobs_alone_and_says_so(shell: Shell) -> None:
    release = shell.cwd / "release"
    waiting = f"until [ -e {release} ]; do sleep 0.05; done; exit 6"
    job_id = shell.submit("--", "sh", "-c", waiting)
    shell.wait_until_running(job_id)
    stopped = shell.simyard("stop")
    assert (stopped.code, stopped.err) == (0, "stopped; 1 job goes on running\n")
    release.touch()
    assert shell.simyard("serve", "--detach").code == 0
    assert shell.simyard("wait", job_id).code == 6


def test_stopping_with_the_jobs_leaves_nothing_running(shell: Shell) -> None:
    running = shell.submit("--", "sleep", "60")
    held = shell.submit("--hold", "--", "sleep", "60")
    shell.wait_until_running(running)
    stopped = shell.simyard("stop", "--jobs")
    assert (stopped.code, stopped.err) == (0, "stopped; 2 jobs were cancelled\n")
    assert shell.simyard("serve", "--detach").code == 0
    assert [shell.job(job_id)["state"] for job_id in (running, held)] == ["cancelled"] * 2


def test_a_service_that_was_killed_is_told_as_none(shell: Shell) -> None:
    shell.simyard("serve", "--detach")
    pid = shell.endpoint()["pid"]
    os.kill(pid, signal.SIGKILL)
    stopped = shell.simyard("stop")
    assert stopped.code == 0
    assert "no service runs" in stopped.err
    ended = shell.simyard("jobs")
    assert ended.code == 3
    assert "simyard serve --detach" in ended.err


def connected(pid: int) -> bool:
    """True while a process holds a TCP connection."""
    process = psutil.Process(pid)
    listed = getattr(process, "net_connections", None) or process.connections
    return any(item.status == psutil.CONN_ESTABLISHED for item in listed(kind="tcp"))


def test_waiting_survives_a_service_that_is_killed_and_comes_back(shell: Shell) -> None:
    release = shell.cwd / "release"
    waiting = f"until [ -e {release} ]; do sleep 0.05; done; exit 6"
    job_id = shell.submit("--", "sh", "-c", waiting)
    shell.wait_until_running(job_id)
    with shell.started("simyard", "wait", job_id) as process:
        wait_until(lambda: connected(process.pid), "the waiting shell talks to the service")
        os.kill(shell.endpoint()["pid"], signal.SIGKILL)
        release.touch()
        again = shell.simyard("serve", "--detach")
        assert again.code == 0, again.err
        assert process.wait(60) == 6


def test_the_foreground_service_says_where_it_is_and_ends_on_a_signal(shell: Shell) -> None:
    with shell.started("simyard", "serve", "--port", "0") as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        assert str(shell.home) in line
        assert shell.endpoint()["url"] in line
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_port_that_is_taken_is_named_with_the_remedy(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        for words in (["serve", "--detach"], ["serve"]):
            ended = shell.simyard(*words, "--port", number)
            assert (ended.code, ended.out) == (1, "")
            assert number in ended.err
            assert "--port" in ended.err
        ended = shell.submit_job("--port", number, "--", "true")
        assert (ended.code, ended.out) == (1, "")
        assert number in ended.err


def test_a_second_service_on_one_home_is_refused(shell: Shell) -> None:
    shell.simyard("serve", "--detach")
    ended = shell.simyard("serve", "--port", "0")
    assert ended.code == 1
    assert f"process {shell.endpoint()['pid']}" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--max-memory", "much"], "max_memory"),
        (["--host", "0.0.0.0"], "--allow-remote"),
        (["--log-level", "loud"], "log_level"),
    ],
)
def test_a_bad_setting_is_told_by_the_detached_service_too(
    shell: Shell, words: list[str], said: str
) -> None:
    ended = shell.simyard("serve", "--detach", *words)
    assert (ended.code, ended.out) == (1, "")
    assert said in ended.err
    assert shell.endpoint() is None


def test_a_home_that_is_a_file_is_refused(shell: Shell) -> None:
    shell.home.write_text("")
    for ended in (shell.simyard("serve", "--detach"), shell.submit_job("--", "true")):
        assert ended.code == 1
        assert "--home" in ended.err


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_without_permission_is_refused(shell: Shell) -> None:
    shell.home.mkdir(mode=0o500)
    for ended in (shell.simyard("serve", "--detach"), shell.submit_job("--", "true")):
        assert ended.code in (1, 3)
        assert str(shell.home) in ended.err


def test_a_wrong_token_or_address_is_told_apart_from_no_service(shell: Shell) -> None:
    shell.simyard("serve", "--detach")
    url = shell.endpoint()["url"]
    ended = shell.simyard("jobs", "--url", url, env={"SIMYARD_TOKEN": "wrong"})
    assert ended.code == 3
    assert "did not prove" in ended.err
    ended = shell.simyard("jobs", "--url", "http://127.0.0.1:1", env={"SIMYARD_TOKEN": "x"})
    assert ended.code == 3
    assert "nothing answers at http://127.0.0.1:1" in ended.err
    token = shell.endpoint()["token"]
    ended = shell.simyard("jobs", "--url", url, "--json", env={"SIMYARD_TOKEN": token})
    assert json.loads(ended.out) == {"items": []}


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write")
def test_a_home_that_cannot_be_created_is_refused(shell: Shell) -> None:
    elsewhere = {"SIMYARD_HOME": "/proc/simyard"}
    for ended in (
        shell.simyard("serve", "--detach", env=elsewhere),
        shell.submit_job("--", "true", env=elsewhere),
    ):
        assert (ended.code, ended.out) == (1, "")
        assert "/proc/simyard" in ended.err


def test_a_detached_service_writes_its_log_as_json_and_puts_a_large_one_aside(
    shell: Shell,
) -> None:
    assert shell.simyard("serve", "--detach", "--port", "0").code == 0
    assert shell.simyard("stop").code == 0
    log = shell.home / "run" / "service.log"
    log.write_text("earlier " * 500 + "\n")
    flags = ("--log-format", "json", "--log-max-bytes", "1000", "--gpus", "auto")
    assert shell.simyard("serve", "--detach", "--port", "0", *flags).code == 0
    lines = [line for line in log.read_text().splitlines() if line.startswith("{")]
    (told,) = [json.loads(line) for line in lines if "GPUs" in line]
    assert told["logger"] == "simyard.service.server" and told["level"] == "info"
    assert log.with_name("service.log.1").read_text().startswith("earlier")
    assert "Simyard serves" in log.read_text() and "earlier" not in log.read_text()
    assert shell.simyard("stop").code == 0
