"""What a job takes along of the place where it was submitted."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

import pytest

from simyard.errors import InvalidInput
from simyard.handler import capture
from simyard.service.model import VARIABLE, JobSpec


def program(folder: Path, name: str, *, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "GITHUB_TOKEN",
        "TOKEN",
        "PGPASSWORD",
        "MYSQL_PWD_PASSWORD",
        "AWS_SECRET_ACCESS_KEY",
        "OPENAI_API_KEY",
        "api_key",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "SSH_PASSPHRASE",
        "DB_PASSWD",
        "MY_APIKEY",
        "SESSION_COOKIE",
        "TOKENS",
    ],
)
def test_what_looks_secret_is_left_behind(name: str) -> None:
    assert capture.looks_secret(name)
    assert capture.captured_environment("all", {name: "x", "HOME": "/h"}) == {"HOME": "/h"}


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "XAUTHORITY",
        "SSH_AUTH_SOCK",
        "TOKENIZERS_PARALLELISM",
        "KEYBOARD_LAYOUT",
        "MONKEY",
        "LM_LICENSE_FILE",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "ANSYSLMD_LICENSE_FILE",
    ],
)
def test_what_does_not_is_taken_along(name: str) -> None:
    assert capture.captured_environment("all", {name: "x"}) == {name: "x"}


def test_our_own_variables_do_not_reach_a_job() -> None:
    given = {"SIMYARD_HOME": "/h", "SIMYARD_TAG": "t", "SIMYARD_TOKEN": "s", "A": "1"}
    assert capture.captured_environment("all", given) == {"A": "1"}


def test_what_describes_the_shell_is_left_behind() -> None:
    given = {"PWD": "/x", "OLDPWD": "/y", "_": "/bin/z", "SHLVL": "2", "LANG": "C"}
    assert capture.captured_environment("all", given) == {"LANG": "C"}


def test_what_the_service_would_refuse_is_left_behind() -> None:
    undecodable = os.fsdecode(b"\xff\xfe")
    given = {"BASH_FUNC_module%%": "() { :; }", "1A": "x", "BAD": undecodable, "GOOD": "ü"}
    taken = capture.captured_environment("all", given)
    assert taken == {"GOOD": "ü"}
    assert all(VARIABLE.match(name) for name in taken)


def test_none_takes_nothing() -> None:
    assert capture.captured_environment("none", {"A": "1"}) is None
    assert "base_env" not in capture.captured("none")


def test_names_take_exactly_those_even_secret_ones() -> None:
    given = {"A": "1", "B": "2", "HF_TOKEN": "s"}
    assert capture.captured_environment("A, HF_TOKEN", given) == {"A": "1", "HF_TOKEN": "s"}


@pytest.mark.parametrize(
    ("export", "says"),
    [("MISSING", "not set here"), ("A B", "not the name"), ("", "all, none"), (",", "all, none")],
)
def test_a_wrong_export_is_explained(export: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        capture.captured_environment(export, {"A": "1"})


def test_soft_limits_are_those_of_this_process() -> None:
    limits = capture.soft_limits()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert limits["nofile"] == (-1 if soft == resource.RLIM_INFINITY else soft)
    assert "stack" in limits
    assert set(limits) <= set(capture.SOFT_LIMITS)


def test_soft_limits_mean_nothing_to_another_host() -> None:
    assert "soft_limits" not in capture.captured("all", local=False, environ={})


def test_a_program_is_found_where_a_shell_would_find_it(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    program(second, "solver")
    program(first, "solver", mode=0o644)
    path = f"{first}:{second}"
    found = capture.find_program("solver", str(tmp_path), path)
    shell = subprocess.run(
        ["/bin/sh", "-c", "command -v solver"],
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found == str(second / "solver") == shell.stdout.strip()


def test_an_empty_or_relative_part_of_the_path_is_seen_from_the_folder(tmp_path: Path) -> None:
    program(tmp_path / "bin", "solver")
    assert capture.find_program("solver", str(tmp_path), "bin") == str(tmp_path / "bin/solver")
    assert capture.find_program("solver", str(tmp_path / "bin"), ":/x").endswith("bin/solver")


def test_a_name_with_a_slash_is_seen_from_the_working_directory(tmp_path: Path) -> None:
    where = program(tmp_path, "run.sh")
    assert capture.find_program("./run.sh", str(tmp_path), "") == str(where)
    with pytest.raises(InvalidInput, match="no program"):
        capture.find_program("./run.sh", str(tmp_path / "other"), str(tmp_path))


def test_a_missing_program_names_the_path_and_the_likely_one(tmp_path: Path) -> None:
    program(tmp_path / "bin", "pw.x")
    with pytest.raises(InvalidInput, match=r"pwx.*PATH.*did you mean 'pw\.x'"):
        capture.find_program("pwx", str(tmp_path), str(tmp_path / "bin"))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("pw.x -in si.in", "items of their own"),
        ("here.sh", "write './here.sh'"),
        ("./plain.txt", "chmod"),
        ("./folder", "is a folder"),
        ("", "empty"),
    ],
)
def test_the_usual_mistakes_each_get_a_sentence(tmp_path: Path, name: str, says: str) -> None:
    program(tmp_path, "here.sh")
    program(tmp_path, "plain.txt", mode=0o644)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInput, match=says):
        capture.find_program(name, str(tmp_path), "/nowhere")


# -- complete ------------------------------------------------------------------------------


def test_a_spec_is_completed_with_what_is_here(tmp_path: Path) -> None:
    program(tmp_path / "bin", "solver")
    environ = {"PATH": str(tmp_path / "bin"), "A": "1"}
    spec = capture.complete({"command": ["solver", "-x"]}, environ=environ, cwd=str(tmp_path))
    assert spec["workdir"] == str(tmp_path)
    assert spec["command"] == [str(tmp_path / "bin/solver"), "-x"]
    assert spec["base_env"] == environ
    assert spec["soft_limits"]["stack"]
    JobSpec.model_validate(spec)


def test_what_the_spec_says_itself_stands(tmp_path: Path) -> None:
    given = {
        "script": "true",
        "workdir": str(tmp_path),
        "base_env": {"ONLY": "this"},
        "soft_limits": {"core": 0},
    }
    spec = capture.complete(given, environ={"A": "1"}, cwd="/")
    assert spec == given


def test_a_relative_folder_and_relative_inputs_are_seen_from_here(tmp_path: Path) -> None:
    (tmp_path / "case").mkdir()
    (tmp_path / "in.dat").write_text("1")
    spec = capture.complete(
        {"script": "true", "workdir": "case", "files": ["in.dat", {"content": "x", "target": "y"}]},
        cwd=str(tmp_path),
    )
    assert spec["workdir"] == str(tmp_path / "case")
    assert spec["files"][0] == {"source": str(tmp_path / "in.dat")}
    JobSpec.model_validate(spec)


def test_a_folder_or_input_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not there"):
        capture.complete({"script": "true", "workdir": "nowhere"}, cwd=str(tmp_path))
    with pytest.raises(InvalidInput, match=r"in\.dat"):
        capture.complete({"script": "true", "files": ["in.dat"]}, cwd=str(tmp_path))


def test_a_job_with_inputs_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "in.dat").write_text("1")
    spec = capture.complete({"script": "true", "files": ["in.dat"]}, cwd=str(tmp_path))
    assert "workdir" not in spec


def test_the_program_is_looked_up_in_the_path_that_the_job_will_have(tmp_path: Path) -> None:
    program(tmp_path / "bin", "solver")
    spec = capture.complete(
        {"command": ["solver"], "env": {"PATH": str(tmp_path / "bin")}},
        environ={"PATH": "/nowhere"},
        cwd=str(tmp_path),
    )
    assert spec["command"] == [str(tmp_path / "bin/solver")]


@pytest.mark.parametrize(
    "field", [{"setup": ["module load x"]}, {"depends_on": ["17"]}, {"scheduler": "slurm"}]
)
def test_a_program_that_something_else_may_bring_is_not_looked_for(
    tmp_path: Path, field: dict[str, object]
) -> None:
    spec = capture.complete({"command": ["not-here"], **field}, cwd=str(tmp_path))
    assert spec["command"] == ["not-here"]


def test_a_job_for_another_scheduler_takes_no_environment_along(tmp_path: Path) -> None:
    spec = {"script": "true", "scheduler": "slurm"}
    assert "base_env" not in capture.complete(spec, environ={"A": "1"}, cwd=str(tmp_path))
    asked = capture.complete(spec, export="A", environ={"A": "1"}, cwd=str(tmp_path))
    assert asked["base_env"] == {"A": "1"}
