"""Job files: what a person writes is what is meant."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from simyard.errors import InvalidInput
from simyard.service.job_file import combined, read, spec_of
from simyard.service.model import JobSpec


def test_scalars_stay_what_was_written() -> None:
    written = read("command: [sleep, 1e-3, no, 0x10, 007]\nenv: {A: on, B: 1_000}\nhold: true")
    assert written == {
        "command": ["sleep", "1e-3", "no", "0x10", "007"],
        "env": {"A": "on", "B": "1_000"},
        "hold": True,
    }


def test_numbers_sizes_and_times_are_read_by_the_model() -> None:
    spec = spec_of(
        {
            "yaml": "command: [pw.x]\ncores: 4\nmemory: 2 GiB\nwalltime: 1:30:00\npriority: -3\n"
            "retries: {limit: 2, on: [signal]}\ndepends_on: 17\nlicenses: {hfss: 2}\n"
        }
    )
    assert (spec.cores, spec.memory, spec.walltime, spec.priority) == (4, 2 << 30, 5400.0, -3)
    assert spec.retries.limit == 2
    assert spec.depends_on[0].job == "17"
    assert spec.licenses == {"hfss": 2}


def test_retries_may_be_a_plain_number() -> None:
    assert spec_of({"yaml": "command: [a]\nretries: 3"}).retries.limit == 3


def test_what_is_given_beats_the_file_and_the_file_beats_what_is_assumed() -> None:
    spec = combined(
        {
            "yaml": "command: [a]\nname: file\nenv: {A: file, B: file}",
            "spec": {"name": "given", "env": {"A": "given"}},
            "defaults": {"workdir": "/assumed", "env": {"C": "assumed", "B": "assumed"}},
        }
    )
    assert spec["name"] == "given"
    assert spec["workdir"] == "/assumed"
    assert spec["env"] == {"A": "given", "B": "file", "C": "assumed"}


def test_a_command_given_beside_the_file_takes_the_place_of_its_script() -> None:
    spec = spec_of({"yaml": "script: echo file", "spec": {"command": ["echo", "given"]}})
    assert (spec.command, spec.script) == (("echo", "given"), None)


def test_relative_paths_start_where_the_caller_stands() -> None:
    spec = combined(
        {
            "yaml": "command: [a]\nworkdir: case\nfiles: [si.in, {source: ../x, target: y}]",
            "defaults": {"workdir": "/here"},
        }
    )
    assert spec["workdir"] == "/here/case"
    assert spec["files"] == ["/here/si.in", {"source": "/here/../x", "target": "y"}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cores: [1", "line 1"),
        ("just words", "field: value"),
        ("", "field: value"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: !!python/object/apply:os.system [echo]", "line 1"),
        ("a: 1\na: {b", "line 2"),
    ],
)
def test_what_is_no_job_file_is_refused_with_the_place(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        read(text)


def test_input_files_are_not_copied_over_the_callers_folder() -> None:
    spec = combined(
        {
            "yaml": "command: [a]\nfiles: [si.in]",
            "defaults": {"workdir": "/here", "env": {"A": "b"}},
        }
    )
    assert "workdir" not in spec
    assert (spec["files"], spec["env"]) == (["/here/si.in"], {"A": "b"})


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(ValidationError, match="corse"):
        spec_of({"yaml": "command: [a]\ncorse: 4"})


def test_numbers_and_paths_are_words_of_a_command(tmp_path: object) -> None:
    spec = JobSpec.model_validate({"command": ["sleep", 10, 0.5, tmp_path], "env": {"N": 4}})
    assert spec.command == ("sleep", "10", "0.5", str(tmp_path))
    assert spec.env == {"N": "4"}


def test_true_is_no_word_of_a_command() -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate({"command": ["echo", True]})
