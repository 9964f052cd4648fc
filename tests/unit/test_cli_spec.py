"""From the command line of `submit_job` to what is sent."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simyard.cli import submit_job
from simyard.cli.spec import dependencies, retries
from simyard.errors import InvalidInput


@pytest.fixture
def sent(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what would be sent for a command line that is accepted."""

    def dry_run(*words: str) -> Any:
        code = submit_job.main(["--dry-run", *words])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out)

    return dry_run


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the sentence for a command line that is refused with exit code 1."""

    def attempt(*words: str) -> str:
        code = submit_job.main(["--dry-run", *words])
        captured = capsys.readouterr()
        assert code == 1
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return captured.err

    return attempt


def test_every_option_reaches_the_spec(sent: Any) -> None:
    spec = sent(
        *[
            "--name",
            "n",
            "-c",
            "2",
            "-m",
            "4GiB",
            "--disk",
            "20G",
            "--gpus",
            "1",
            "--license",
            "hfss=2",
            "--license",
            "crystal",
        ],
        *[
            "-t",
            "2h30m",
            "--grace",
            "5s",
            "--output-limit",
            "1G",
            "-p",
            "-3",
            "-d",
            "afterany:17",
            "--hold",
        ],
        *[
            "--retries",
            "2:timeout,signal",
            "--expect",
            "s11.csv",
            "--project",
            "p",
            "--group",
            "g",
            "--tag",
            "mesh=fine",
        ],
        *[
            "--env",
            "A=b=c",
            "--scheduler",
            "slurm",
            "-q",
            "long",
            "--account",
            "acc",
            "--qos",
            "high",
            "--nodes",
            "2",
        ],
        *[
            "--tasks",
            "8",
            "--tasks-per-node",
            "4",
            "--reservation",
            "r",
            "--constraint",
            "ib",
            "--exclusive",
        ],
        *[
            "--gpu-type",
            "a100",
            "--nice",
            "5",
            "--no-requeue",
            "--mail-user",
            "a@b",
            "--mail-type",
            "END",
            "--comment",
            "c",
        ],
        "--scheduler-arg=--switches=1",
        "--setup",
        "module load qe",
        "--",
        "pw.x",
        "-in",
        "si.in",
    )
    assert spec.pop("workdir") == str(Path.cwd())
    spec.pop("soft_limits", None)
    assert spec == {
        "command": ["pw.x", "-in", "si.in"],
        "name": "n",
        "cores": 2,
        "memory": "4GiB",
        "disk": "20G",
        "gpus": 1,
        "licenses": {"hfss": 2, "crystal": 1},
        "walltime": "2h30m",
        "grace": "5s",
        "output_limit": "1G",
        "priority": -3,
        "depends_on": [{"job": "17", "condition": "afterany"}],
        "hold": True,
        "retries": {"limit": 2, "on": ["timeout", "signal"]},
        "expected_outputs": ["s11.csv"],
        "project": "p",
        "group": "g",
        "tags": {"mesh": "fine"},
        "env": {"A": "b=c"},
        "setup": ["module load qe"],
        "scheduler": "slurm",
        "queue": "long",
        "cluster": {
            "account": "acc",
            "qos": "high",
            "nodes": 2,
            "tasks": 8,
            "tasks_per_node": 4,
            "reservation": "r",
            "constraint": "ib",
            "exclusive": True,
            "gpu_type": "a100",
            "nice": 5,
            "requeue": False,
            "mail_user": "a@b",
            "mail_type": ["END"],
            "comment": "c",
            "extra_args": ["--switches=1"],
        },
    }


def test_what_is_sent_is_a_spec_the_service_accepts(sent: Any) -> None:
    from simyard.service.model import JobSpec

    spec = sent("-m", "4G", "-t", "2h", "--license", "hfss", "--retries", "1", "--", "ls", "-l")
    spec.pop("base_env")
    assert JobSpec.model_validate(spec).memory == 4 << 30


def test_options_behind_the_dashes_belong_to_the_command(sent: Any) -> None:
    assert sent("--", "ls", "--cores", "--", "x")["command"][1:] == ["--cores", "--", "x"]


def test_a_script_file_becomes_a_script_and_gives_its_name(sent: Any, tmp_path: Path) -> None:
    script = tmp_path / "run.sh"
    script.write_text("echo hi\n")
    spec = sent("--script", str(script))
    assert (spec["script"], spec["name"]) == ("echo hi\n", "run.sh")


def test_a_script_is_read_from_stdin(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "simyard.cli.submit_job", "--dry-run", "--script", "-"],
        input=b"echo hi\n",
        capture_output=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["script"] == "echo hi\n"


def test_a_job_file_travels_as_it_is_and_options_beat_it(sent: Any, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("command: [ls]\ncores: 4\n")
    body = sent("--file", str(job), "--cores", "2")
    assert body["yaml"] == "command: [ls]\ncores: 4\n"
    assert body["spec"] == {"cores": 2}
    assert body["defaults"]["workdir"] == str(Path.cwd())
    assert body["defaults"]["base_env"].endswith("variables of this shell")


def test_an_environment_asked_for_beats_that_of_the_job_file(
    sent: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANTED", "1")
    job = tmp_path / "job.yaml"
    job.write_text("command: [ls]\n")
    body = sent("--file", str(job), "--export", "WANTED")
    assert body["spec"]["base_env"] == "1 variables of this shell"
    assert "base_env" not in body["defaults"]


def test_staged_files_make_the_jobs_own_folder_the_working_directory(
    sent: Any, tmp_path: Path
) -> None:
    (tmp_path / "in=1.txt").write_text("x")
    spec = sent(
        "--input",
        str(tmp_path / "in=1.txt"),
        "--input",
        f"{tmp_path}/in=1.txt=mesh/a.txt",
        "--",
        "ls",
    )
    source = str(tmp_path / "in=1.txt")
    assert spec["files"] == [{"source": source}, {"source": source, "target": "mesh/a.txt"}]
    assert "workdir" not in spec


def test_to_a_service_elsewhere_goes_nothing_of_this_machine(sent: Any, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"x\xff")
    spec = sent("--url", "http://there:1", "--input", str(tmp_path / "in.txt"), "--", "pw.x")
    assert spec == {
        "command": ["pw.x"],
        "files": [{"upload": hashlib.sha256(b"x\xff").hexdigest(), "target": "in.txt"}],
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no command: it goes after --"),
        (("echo", "hi"), "the command goes after --, such as: submit_job --cores 2 -- echo hi"),
        (("stray", "--", "ls"), "'stray' stands before --"),
        (("--memroy", "4G", "--", "ls"), "no option '--memroy'; did you mean '--memory'?"),
        (("--core", "4", "--", "ls"), "no option '--core'; did you mean '--cores'?"),
        (("-c", "two", "--", "ls"), "--cores: 'two' is not a whole number"),
        (("-m",), "--memory: expected one argument"),
        (("--env", "A", "--", "ls"), "'A' is not a variable; write it such as"),
        (("--license", "hfss=x", "--", "ls"), "write NAME or NAME=N"),
        (("-d", "after:1", "--", "ls"), "they are afterok, afterany, afternotok"),
        (("-d", "afterok:x", "--", "ls"), "write it such as afterok:17"),
        (("--retries", "x", "--", "ls"), "write it such as 3 or 3:timeout,signal"),
        (("--port", "99999", "--", "ls"), "is not a port"),
        (("--", "no-such-program-anywhere"), "there is no program 'no-such-program-anywhere'"),
        (("--", "./missing.sh"), "there is no program ./missing.sh in"),
        (("-C", "/no/such/folder", "--", "ls"), "there is no such folder"),
        (("--file", "/no/such.yaml"), "--file /no/such.yaml cannot be read: there is no such file"),
        (("--file", "/"), "it is a folder"),
        (("--script", "/no/such.sh"), "--script /no/such.sh cannot be read"),
        (("--input", "/no/such.in", "--", "ls"), "--input /no/such.in: there is no such file"),
        (("--export", "NOT_SET_HERE", "--", "ls"), "NOT_SET_HERE, which is not set"),
        (("--file", "-", "--script", "-"), "cannot both read stdin"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_1(
    words: tuple[str, ...], said: str, refusal: Any
) -> None:
    message = refusal(*words)
    assert said in message
    assert message.count("\n") == 1


def test_a_command_and_a_script_are_one_too_many(refusal: Any, tmp_path: Path) -> None:
    (tmp_path / "s.sh").write_text("x")
    assert "either a command" in refusal("--script", str(tmp_path / "s.sh"), "--", "ls")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe\x00", "not text in UTF-8"),
        (b" \n", "is empty"),
        (b"x" * ((1 << 20) + 1), "larger than 1 MiB"),
    ],
)
def test_a_job_file_that_is_none_is_refused(
    content: bytes, said: str, refusal: Any, tmp_path: Path
) -> None:
    (tmp_path / "job.yaml").write_bytes(content)
    assert said in refusal("--file", str(tmp_path / "job.yaml"))


def test_a_file_that_is_not_executable_is_refused_with_the_remedy(
    refusal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.sh").write_text("echo hi\n")
    assert "is not executable; run 'chmod +x" in refusal("--", "./run.sh")


def test_a_program_that_setup_lines_may_bring_is_not_looked_for(sent: Any) -> None:
    assert sent("--setup", "module load qe", "--", "no-such-program")["command"] == [
        "no-such-program"
    ]


def test_dependencies_are_read_in_the_ways_people_write_them() -> None:
    assert dependencies("17") == [{"job": "17", "condition": "afterok"}]
    assert dependencies("afterany:1:2") == [
        {"job": "1", "condition": "afterany"},
        {"job": "2", "condition": "afterany"},
    ]
    assert dependencies("afternotok:1,2") == [
        {"job": "1", "condition": "afternotok"},
        {"job": "2", "condition": "afterok"},
    ]


def test_retries_are_a_number_and_reasons() -> None:
    assert retries("3") == {"limit": 3}
    assert retries("3:timeout") == {"limit": 3, "on": ["timeout"]}


def test_a_refusal_names_options_where_the_service_names_fields() -> None:
    error = InvalidInput(
        "no good",
        errors=[
            {"field": "memory", "message": "'4 GX' is not an amount"},
            {"field": "expected_outputs.0", "message": "is empty"},
            {"field": "spec.cluster.gpu_type", "message": "must be a word"},
            {"field": "", "message": "both"},
        ],
    )
    assert str(submit_job._named_as_options(error)).split("\n") == [
        "--memory: '4 GX' is not an amount",
        "--expect: is empty",
        "--gpu-type: must be a word",
        "both",
    ]


def test_the_submit_path_imports_the_standard_library_only() -> None:
    program = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from simyard.cli import submit_job\n"
        "from simyard.handler import capture, endpoint, wire\n"
        "submit_job.main(['--dry-run', '--', sys.executable])\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = done.stderr.split()
    foreign = [
        name
        for name in loaded
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "simyard"}
    ]
    assert foreign == []
    ours = {name for name in loaded if name.startswith("simyard.")}
    assert not {name for name in ours if name.startswith(("simyard.service", "simyard.scheduler"))}
    assert not {"asyncio", "http.client", "ssl", "subprocess", "logging"} & set(loaded)
