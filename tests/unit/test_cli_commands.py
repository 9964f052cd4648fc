"""The commands of `simyard` against a service that answers by rote."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from simyard.cli import following, main, submit_job
from simyard.cli.commands import dashboard, doctor, download, limits, logs, serve
from simyard.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotRunning,
    PermissionDenied,
    ServiceUnavailable,
    UsageError,
)
from simyard.handler import discovery


def job(number: int, state: str = "running", **more: Any) -> dict[str, Any]:
    """A job as it comes over the wire."""
    return {
        "id": str(number),
        "name": f"job-{number}",
        "state": state,
        "outcome": None,
        "pending_reason": None,
        "spec": {"command": ["ls", "-l"], "cores": 1},
        "usage": {"wall_seconds": 1.5, "cpu_seconds": 1.0, "max_rss_bytes": 0},
        "created_at": "2026-11-21T13:44:57.123Z",
        "started_at": "2026-11-21T13:44:58.000Z",
        "finished_at": "2026-11-21T13:45:58.000Z",
        "priority": 0,
        "attempt": 1,
        "version": 3,
        **more,
    }


def ended(number: int, reason: str, **more: Any) -> dict[str, Any]:
    """A job that failed."""
    outcome = {"reason": reason, "exit_code": None, "signal": None, "message": "", **more}
    return job(number, "failed", outcome=outcome)


class FakeService:
    """Answers by method and path; a list is answered from one by one, an error is raised."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any, Any]] = []
        self.endpoint = SimpleNamespace(
            url="http://127.0.0.1:8080", pid=7, version="1", host="here", on_this_host=True
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        query: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Any:
        self.asked.append((f"{method} {path}", json, dict(query or {})))
        answer = self.answers[f"{method} {path}"]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer(query) if callable(answer) else answer

    def submit(self, body: Any) -> Any:
        return self.request("POST", "/api/jobs", json=body)

    def open(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Any = None,
        timeout: float | None = None,
    ) -> Any:
        body, more = self.request(method, path, query=query)
        source = io.BytesIO(body)
        return SimpleNamespace(read=source.read, read_all=source.read, headers=more)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService()
    monkeypatch.setattr(discovery, "connect", lambda *_, **__: fake)
    return fake


@pytest.fixture
def simyard(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `simyard`; return its exit code, stdout and stderr, which never hold a traceback."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main.main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return run


Run = Callable[..., tuple[int, str, str]]


# -- dispatch and errors ---------------------------------------------------------------


def test_without_a_command_all_of_them_are_listed(simyard: Run) -> None:
    code, out, _ = simyard()
    assert code == 0
    assert all(f"  {name} " in out for name in main.COMMANDS)


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_explains_itself(name: str, simyard: Run) -> None:
    code, out, _ = simyard(name, "--help")
    assert code == 0
    assert "--json" in out
    assert "--quiet" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jbos"], "no command 'jbos'; did you mean 'jobs'?"),
        (["kill", "17"], "no command 'kill'; did you mean 'cancel'?"),
        (["--jsno", "jobs"], "no option '--jsno' here; did you mean '--json'?"),
        (["--json"], "no command given"),
        (["jobs", "--stat", "failed"], "no option '--stat'; did you mean '--state'?"),
        (["jobs", "--state", "runing"], "no state 'runing'; did you mean 'running'?"),
        (["jobs", "stray"], "'stray' is one argument too many"),
        (["show"], "the following arguments are required: ID"),
        (["show", "abc"], "'abc' is not a job id"),
        (["wait", "1", "--timeout", "soon"], "'soon' is not a time"),
        (["cancel"], "cancel what? Give ids"),
        (["cancel", "17", "--all"], "ids or a filter"),
        (["cancel", "--name", ""], "is empty"),
        (["priority", "17", "high"], "'high' is not a whole number"),
        (["limits", "--set", "max_core=4"], "no limit 'max_core'; did you mean 'max_cores'?"),
        (["limits", "--set", "max_cores"], "'max_cores' is not a limit; write it such as"),
    ],
)
def test_a_mistake_on_the_command_line_gets_a_sentence_and_exit_code_2(
    words: list[str], said: str, simyard: Run
) -> None:
    code, out, err = simyard(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotRunning("no service runs"), 3),
        (ServiceUnavailable("went away"), 3),
        (PermissionDenied("wrong token"), 3),
        (NotFound("there is no job 99"), 4),
        (Conflict("job 99 is over"), 1),
        (InvalidInput("no good"), 1),
        (RuntimeError("a bug"), 1),
    ],
)
def test_what_goes_wrong_is_told_in_one_sentence_with_its_exit_code(
    error: Exception, code: int, service: FakeService, simyard: Run
) -> None:
    service.answers["GET /api/jobs/99"] = error
    found, out, err = simyard("show", "99")
    assert (found, out) == (code, "")
    assert str(error) in err


def test_debug_shows_where_an_unexpected_failure_happened(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIMYARD_DEBUG", "1")
    service.answers["GET /api/jobs/99"] = RuntimeError("a bug")
    main.main(["show", "99"])
    assert "Traceback" in capsys.readouterr().err


def test_a_message_of_the_service_cannot_drive_the_terminal(
    service: FakeService, simyard: Run
) -> None:
    service.answers["GET /api/jobs/99"] = Conflict("job \x1b]0;evil\x07'\x1b[2Jx' is over")
    assert simyard("show", "99")[2] == "simyard show: job 'x' is over\n"


def test_common_options_may_stand_before_the_command() -> None:
    assert main.find_command(["--json", "--home", "/x", "jobs", "-a"]) == (
        "jobs",
        ["--json", "--home", "/x", "-a"],
    )


# -- submit ----------------------------------------------------------------------------


def test_a_submission_prints_the_id_alone(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers["POST /api/jobs"] = job(17, "queued")
    assert submit_job.main(["--", sys.executable]) == 0
    assert capsys.readouterr() == ("17\n", "")


def test_submit_is_the_same_program_under_another_name(service: FakeService, simyard: Run) -> None:
    service.answers["POST /api/jobs"] = job(17, "queued")
    assert simyard("submit", "--json", "--", sys.executable)[0] == 0
    code, _, err = simyard("submit", "--cors", "2", "--", "ls")
    assert code == 1
    assert "See 'simyard submit --help'." in err


@pytest.mark.parametrize(
    ("error", "code"),
    [(NotRunning("x"), 1), (InvalidInput("x"), 1), (NotFound("x"), 1), (RuntimeError("x"), 2)],
)
def test_a_submission_that_fails_ends_with_1_or_unexpectedly_with_2(
    error: Exception, code: int, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers["POST /api/jobs"] = error
    assert submit_job.main(["--", sys.executable]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err


def test_a_bad_quantity_is_refused_by_the_name_of_its_option(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers["POST /api/jobs"] = InvalidInput(
        "memory: no", errors=[{"field": "memory", "message": "'4 GX' is no amount of memory"}]
    )
    assert submit_job.main(["-m", "4 GX", "--", sys.executable]) == 1
    assert capsys.readouterr().err == "submit_job: --memory: '4 GX' is no amount of memory\n"


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (job(17, "completed"), 0),
        (ended(17, "exit_code", exit_code=3), 3),
        (ended(17, "signal", signal=11), 139),
        (ended(17, "timeout", signal=15), 124),
        (ended(17, "out_of_memory", signal=9), 137),
        (ended(17, "lost"), 1),
        (ended(17, "start_failed", message="no such program"), 1),
        (ended(17, "outputs_missing", exit_code=0), 1),
        (job(17, "cancelled", outcome={"reason": "cancelled", "signal": 15}), 143),
        (job(17, "cancelled", outcome={"reason": "cancelled"}), 130),
    ],
)
def test_waiting_ends_with_the_status_of_the_job(
    last: dict[str, Any], code: int, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers["POST /api/jobs"] = job(17, "queued")
    service.answers["GET /api/jobs/17"] = [job(17, "queued"), job(17), last]
    assert submit_job.main(["--wait", "--", sys.executable]) == code
    assert capsys.readouterr().out == "17\n"


def test_an_interrupted_wait_leaves_the_job_alone_and_says_so(
    service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.answers["POST /api/jobs"] = job(17, "queued")
    service.answers["GET /api/jobs/17"] = [job(17), KeyboardInterrupt()]
    assert submit_job.main(["--wait", "--", sys.executable]) == 130
    out, err = capsys.readouterr()
    assert out == "17\n"
    assert "job 17 goes on" in err
    assert all(not path.endswith("cancel") for path, _, _ in service.asked)


# -- waiting ---------------------------------------------------------------------------


def test_a_service_that_comes_back_is_found_again(service: FakeService, simyard: Run) -> None:
    away = NotRunning("nothing answers")
    service.answers["GET /api/jobs/17"] = [job(17), away, job(17, "completed")]
    code, _, err = simyard("wait", "17")
    assert code == 0
    assert "looking for it again" in err


def test_a_service_that_stays_away_ends_the_wait_in_the_end(
    service: FakeService, simyard: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE", 0.0)
    service.answers["GET /api/jobs/17"] = NotRunning("nothing answers")
    code, _, err = simyard("wait", "17")
    assert code == 3
    assert "jobs that run go on" in err


def test_waiting_for_several_tells_whether_all_completed(
    service: FakeService, simyard: Run
) -> None:
    service.answers["GET /api/jobs/1"] = job(1, "completed")
    service.answers["GET /api/jobs/2"] = ended(2, "exit_code", exit_code=7)
    code, _, err = simyard("wait", "1", "2")
    assert code == 1
    assert err == "job 1 (job-1) completed\njob 2 (job-2) failed: exit code 7\n"


def test_patience_that_ends_is_124_and_leaves_the_job_alone(
    service: FakeService, simyard: Run
) -> None:
    service.answers["GET /api/jobs/17"] = job(17)
    code, _, err = simyard("wait", "17", "--timeout", "0")
    assert code == 124
    assert "job 17 is not over yet" in err


# -- lists -----------------------------------------------------------------------------


def test_a_list_follows_the_pages_up_to_its_limit(service: FakeService, simyard: Run) -> None:
    pages = {
        None: {"items": [job(3), job(2)], "next_cursor": "c"},
        "c": {"items": [job(1)], "next_cursor": None},
    }
    service.answers["GET /api/jobs"] = lambda query: pages[query["cursor"]]
    assert simyard("jobs", "--quiet", "--all")[1] == "3\n2\n1\n"


def test_a_list_in_a_pipe_has_exact_values(service: FakeService, simyard: Run) -> None:
    waiting = job(
        4, "queued", started_at=None, finished_at=None, pending_reason="waits for 2 cores"
    )
    service.answers["GET /api/jobs"] = {
        "items": [waiting, job(3, "completed")],
        "next_cursor": None,
    }
    assert simyard("jobs")[1] == (
        "4\tjob-4\tqueued\t\t2026-11-21T13:44:57.123Z\twaits for 2 cores\n"
        "3\tjob-3\tcompleted\t1.500\t2026-11-21T13:44:57.123Z\t\n"
    )


def test_a_filter_is_sent_as_the_service_reads_it(service: FakeService, simyard: Run) -> None:
    service.answers["GET /api/jobs"] = {"items": [], "next_cursor": None}
    code, out, err = simyard("jobs", "-s", "waiting,failed", "--name", "a*", "--tag", "k=v")
    assert (code, out) == (0, "")
    assert "no jobs match" in err
    (_, _, query) = service.asked[0]
    assert query["state"] == "held,queued,failed"
    assert (query["name"], query["tag"]) == ("a*", "k=v")


def test_one_job_is_shown_whole(service: FakeService, simyard: Run) -> None:
    service.answers["GET /api/jobs/17"] = ended(17, "exit_code", exit_code=3)
    out = simyard("show", "17")[1]
    assert "exit code    3" in out
    assert "command      ls -l" in out
    assert json.loads(simyard("show", "17", "--json")[1])["id"] == "17"


def test_status_tells_what_is_in_use(service: FakeService, simyard: Run) -> None:
    service.answers["GET /api/resources"] = {
        "host": {"hostname": "h", "cpu_count": 8, "cpu_percent": 12.3},
        "limits": {"max_cores": 8, "max_memory": None, "licenses": {"hfss": 2}},
        "in_use": {"cores": 6, "memory": 1 << 30, "licenses": {"hfss": 1}},
        "states": {"running": 3, "failed": 0},
    }
    out = simyard("status")[1]
    assert "3 running" in out
    assert "6 in use of 8" in out
    assert "1.0 GiB in use, no limit" in out
    assert "1 in use of 2" in out


# -- control ---------------------------------------------------------------------------


def test_control_says_what_came_of_each_job(service: FakeService, simyard: Run) -> None:
    service.answers["POST /api/jobs/cancel"] = {
        "items": [
            {"id": "1", "ok": True, "job": job(1)},
            {"id": "2", "ok": True, "job": job(2, "cancelled")},
            {"id": "3", "ok": False, "error": {"code": "conflict", "detail": "cannot cancel 3"}},
        ]
    }
    code, out, err = simyard("cancel", "1", "2", "3", "1")
    assert code == 1
    assert out == "job 1 is being cancelled\njob 2 is cancelled\n"
    assert err == "simyard cancel: cannot cancel 3\n"
    assert service.asked[0][1] == {"ids": ["1", "2", "3"]}


def test_control_of_an_unknown_job_ends_with_4(service: FakeService, simyard: Run) -> None:
    error = {"code": "not_found", "detail": "there is no job 99"}
    service.answers["POST /api/jobs/hold"] = {"items": [{"id": "99", "ok": False, "error": error}]}
    assert simyard("hold", "99")[0] == 4


def test_a_retry_names_the_new_job(service: FakeService, simyard: Run) -> None:
    service.answers["POST /api/jobs/retry"] = {
        "items": [{"id": "1", "ok": True, "job": job(5, "queued")}]
    }
    assert simyard("retry", "1")[1] == "job 1 is submitted again as job 5\n"
    assert simyard("retry", "1", "--quiet")[1] == "5\n"


def test_a_filter_picks_only_jobs_for_which_it_makes_sense(
    service: FakeService, simyard: Run
) -> None:
    service.answers["GET /api/jobs"] = {"items": [job(2, "failed")], "next_cursor": None}
    service.answers["POST /api/jobs/retry"] = {"items": [{"id": "2", "ok": True, "job": job(3)}]}
    assert simyard("retry", "--project", "p")[0] == 0
    assert service.asked[0][2]["state"] == "failed,cancelled"
    assert service.asked[1][1] == {"ids": ["2"]}


def test_all_jobs_are_cancelled_only_when_somebody_says_yes(
    service: FakeService, simyard: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["GET /api/jobs"] = {"items": [job(1)], "next_cursor": None}
    service.answers["POST /api/jobs/cancel"] = {"items": [{"id": "1", "ok": True, "job": job(1)}]}
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, _, err = simyard("cancel", "--all")
    assert code == 2
    assert "say --yes" in err
    assert len(service.asked) == 1
    assert simyard("cancel", "--all", "--yes")[0] == 0


def test_priorities_may_be_negative(service: FakeService, simyard: Run) -> None:
    service.answers["PATCH /api/jobs/1"] = job(1, "queued", priority=-5)
    assert simyard("priority", "1", "-5")[1] == "job 1 has priority -5\n"
    assert service.asked[0][1] == {"priority": -5}


def test_limits_name_only_what_changes() -> None:
    pairs = [("max_cores", "4"), ("max_memory", "12 GiB"), ("licenses.hfss", "2")]
    assert limits.changes([*pairs, ("licenses.old", "none")]) == {
        "max_cores": 4,
        "max_memory": "12 GiB",
        "licenses": {"hfss": 2, "old": None},
    }
    assert limits.changes([("max_cpu_percent", "none")]) == {"max_cpu_percent": None}
    with pytest.raises(UsageError, match="name the licence too"):
        limits.changes([("licenses", "2")])


# -- logs and files --------------------------------------------------------------------


def serve_log(service: FakeService, number: int, text: bytes, *, stream: str = "stdout") -> None:
    """Answer for a log that is complete."""

    def answer(query: Mapping[str, Any]) -> Any:
        offset, limit = int(query["offset"]), int(query["limit"])
        piece = text[offset : offset + limit]
        if limit == 1:
            return {"text": "", "size": len(text), "next_offset": offset, "complete": False}
        following = offset + len(piece)
        return piece, {
            "x-next-offset": str(following),
            "x-complete": "true" if following >= len(text) else "false",
        }

    service.answers[f"GET /api/jobs/{number}/logs/{stream}"] = answer


def test_a_log_reaches_a_pipe_byte_for_byte(
    service: FakeService, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = b"a\x1b[2J\xff\r\n\x00end"
    serve_log(service, 17, text)
    assert main.main(["logs", "17"]) == 0
    assert capfdbinary.readouterr().out == text


def test_a_log_longer_than_one_answer_is_read_to_its_end(
    service: FakeService,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "PIECE", 7)
    monkeypatch.setattr(logs._read, "__defaults__", (7,))
    text = b"".join(b"line %d\n" % n for n in range(20))
    serve_log(service, 17, text)
    main.main(["logs", "17"])
    assert capfdbinary.readouterr().out == text


@pytest.mark.parametrize("ending", [b"", b"\n"])
@pytest.mark.parametrize("wanted", [0, 1, 3, 50, 5000])
def test_the_tail_is_the_last_lines(
    wanted: int, ending: bytes, service: FakeService, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = [b"%d " % n + b"x" * 900 for n in range(1000)]
    serve_log(service, 17, b"\n".join(lines) + ending)
    main.main(["logs", "17", "--tail", str(wanted), "--quiet"])
    expected = b"\n".join(lines[-wanted:]) + ending if wanted else b""
    assert capfdbinary.readouterr().out == expected


def test_an_empty_log_says_where_something_is(service: FakeService, simyard: Run) -> None:
    serve_log(service, 17, b"")
    serve_log(service, 17, b"it broke", stream="stderr")
    service.answers["GET /api/jobs/17"] = job(17, "failed")
    assert "'simyard logs 17 --stderr'" in simyard("logs", "17")[2]


def test_a_terminal_is_shown_a_log_made_safe(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("simyard.cli.output.is_terminal", lambda _: True)
    monkeypatch.setenv("NO_COLOR", "1")
    serve_log(service, 17, "a\x1b]52;c;x\x07b\x1b[31mé\n".encode())
    main.main(["logs", "17"])
    assert capsys.readouterr().out == "abé\n"


def test_files_that_would_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    for name in ("../x", "/etc/passwd", "a/../../x", "a\\..\\x", ""):
        with pytest.raises(InvalidInput, match="leads out"):
            download.place(tmp_path, name)
    (tmp_path / "link").symlink_to("/")
    with pytest.raises(InvalidInput, match="symbolic link"):
        download.place(tmp_path, "link/x")
    assert download.place(tmp_path, "a/b") == tmp_path / "a" / "b"


def test_names_pick_files_folders_and_patterns() -> None:
    items = [{"path": path, "size": 1} for path in ("a/x.csv", "a/y.txt", "b.csv")]

    def paths(*names: str) -> list[str]:
        return [item["path"] for item in download.chosen(items, list(names), "17")]

    assert paths("a/") == ["a/x.csv", "a/y.txt"]
    assert paths("*.csv", "b.csv") == ["a/x.csv", "b.csv"]
    with pytest.raises(NotFound, match="'simyard files 17' lists them"):
        paths("nosuch")
    assert download.chosen(items, ["far/away"], "17", True) == [{"path": "far/away", "size": None}]


def test_a_download_takes_of_a_callers_folder_the_results_only(
    service: FakeService, simyard: Run, tmp_path: Path
) -> None:
    listed = ("stdout.log", "work/private.txt", "work/s11.csv")
    items = [{"path": path, "size": 1, "kind": "file"} for path in listed]
    service.answers["GET /api/jobs/17/files"] = {"items": items}
    service.answers["GET /api/jobs/17/result"] = {"outputs": ["s11.csv"], "missing": []}
    for path in listed:
        service.answers[f"GET /api/jobs/17/files/{path}"] = lambda _: (b"x", {})

    def taken(spec: dict[str, Any], folder: str) -> set[str]:
        service.answers["GET /api/jobs/17"] = job(17, "completed", spec=spec)
        assert simyard("download", "17", "--to", str(tmp_path / folder))[0] == 0
        found = (tmp_path / folder).rglob("*")
        return {str(path.relative_to(tmp_path / folder)) for path in found if path.is_file()}

    assert taken({"workdir": "/home/ada"}, "theirs") == {"stdout.log", "work/s11.csv"}
    assert taken({}, "own") == set(listed)


def test_a_download_replaces_nothing_without_being_told(
    service: FakeService, simyard: Run, tmp_path: Path
) -> None:
    service.answers["GET /api/jobs/17"] = job(17, "completed")
    service.answers["GET /api/jobs/17/files"] = {"items": [{"path": "a/x", "size": 3}]}
    service.answers["GET /api/jobs/17/files/a/x"] = lambda _: (b"new", {})
    assert simyard("download", "17", "--to", str(tmp_path))[0] == 0
    (tmp_path / "a" / "x").write_text("old")
    code, _, err = simyard("download", "17", "--to", str(tmp_path))
    assert code == 1
    assert "--force" in err
    assert simyard("download", "17", "--to", str(tmp_path), "--force")[0] == 0
    assert (tmp_path / "a" / "x").read_text() == "new"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


# -- the rest --------------------------------------------------------------------------


def test_the_dashboard_is_opened_through_a_file_only_its_owner_can_read(
    service: FakeService, simyard: Run, tmp_path: Path
) -> None:
    service.answers["POST /api/session/codes"] = {"code": 'c"<o>de', "expires_in": 60.0}
    code, out, err = simyard("dashboard", "--no-open", "--home", str(tmp_path))
    page = tmp_path / "run" / "dashboard.html"
    assert (code, out) == (0, f"{page.as_uri()}\n")
    assert "works once" in err
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "http://127.0.0.1:8080/#code=c%22%3Co%3Ede" in page.read_text()
    assert "c%22" not in out + err


def test_a_page_left_behind_by_somebody_else_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    (tmp_path / "dashboard.html").symlink_to(target)
    dashboard.write_private(tmp_path / "dashboard.html", "new")
    assert target.read_text() == "untouched"
    assert (tmp_path / "dashboard.html").read_text() == "new"


def test_every_setting_can_be_a_flag() -> None:
    from simyard.service.settings import Settings

    flags = {name.replace("-", "_") for name in (*serve.SETTINGS, *serve.SWITCHES)}
    assert flags == set(Settings.model_fields)


def test_the_last_words_of_a_service_are_found_in_its_log(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_text("simyard serve: old trouble\n")
    begin = log.stat().st_size
    with log.open("a") as file:
        file.write("chatter\nsimyard serve: the port is taken\n")
    assert serve.why(log, begin) == "the port is taken"
    assert "said nothing" in serve.why(log, log.stat().st_size)


def test_the_doctor_sees_network_file_systems(tmp_path: Path) -> None:
    table = f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\nnonsense\n"
    assert doctor.file_system(tmp_path / "a", table) == "nfs4"
    assert doctor.file_system(Path("/"), table) == "ext4"


def test_the_doctor_says_how_to_mend_a_home(simyard: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code, out, _ = simyard("doctor", "--home", str(tmp_path))
    assert code == 0
    assert f"run 'chmod 700 {tmp_path}'" in out
    (tmp_path / "file").write_text("")
    code, out, _ = simyard("doctor", "--home", str(tmp_path / "file"))
    assert code == 1
    assert "is a file" in out


def test_stopping_where_nothing_runs_is_no_failure(simyard: Run, tmp_path: Path) -> None:
    code, out, err = simyard("stop", "--home", str(tmp_path))
    assert (code, out) == (0, "")
    assert "no service runs" in err


def test_without_a_service_commands_say_how_to_start_one(simyard: Run, tmp_path: Path) -> None:
    for words in (["jobs"], ["show", "1"], ["status"], ["cancel", "1"], ["limits"], ["dashboard"]):
        code, out, err = simyard(*words, "--home", str(tmp_path))
        assert (code, out) == (3, "")
        assert "simyard serve --detach" in err
