from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simyard.scheduler_adapters.contract import ResourceRequest
from simyard.service.model import Job, JobSpec, OutcomeReason
from simyard.service.states import JobState


def spec(**fields: Any) -> JobSpec:
    return JobSpec.model_validate({"command": ["true"], **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate({"command": ["true"], **fields})
    return str(caught.value)


def test_a_spec_needs_no_more_than_a_command() -> None:
    made = JobSpec(command=("pw.x", "-in", "si.in"))
    assert made.cores == 1
    assert made.memory == 0
    assert made.walltime is None
    assert made.title == "pw.x"


def test_unknown_fields_are_refused() -> None:
    assert "core" in refusal(core=2)
    assert "Extra inputs are not permitted" in refusal(core=2)


def test_quantities_are_taken_as_people_write_them() -> None:
    made = spec(memory="4 GiB", disk="10 GB", walltime="1-12:00:00", output_limit="1M", grace="5s")
    assert made.memory == 4 << 30
    assert made.disk == 10**10
    assert made.walltime == 129600
    assert made.output_limit == 1 << 20
    assert made.grace == 5


@pytest.mark.parametrize(
    ("fields", "hint"),
    [
        ({"memory": "4 gigs"}, "write for example 4 GiB"),
        ({"walltime": "soon"}, "write for example 2h30m"),
        ({"command": "ls -l"}, "put shell text into 'script'"),
        ({"command": []}, "at least 1 item"),
        ({"command": [""]}, "empty program name"),
        ({"command": None}, "give either 'command'"),
        ({"script": "true"}, "give either 'command'"),
        ({"command": None, "script": "  \n"}, "'script' is empty"),
        ({"workdir": "here"}, "must be an absolute path"),
        ({"env": {"A=B": "1"}}, "is not the name of an environment variable"),
        ({"env": {"A\n": "1"}}, "is not the name of an environment variable"),
        ({"env": {"A": "\x00"}}, "NUL"),
        ({"setup": ["a\nb"]}, "single line"),
        ({"name": "a\nb"}, "control characters"),
        ({"name": "a\u2028b"}, "control characters"),
        ({"queue": "-q --wrap"}, "begin with a letter or digit"),
        ({"queue": "long\n#SBATCH --wrap=x"}, "letters, digits"),
        ({"licenses": {"hfss": 0}}, "greater than or equal to 1"),
        ({"cores": 0}, "greater than or equal to 1"),
        ({"memory": -1}, "not an amount"),
        ({"walltime": 0}, "greater than 0"),
        ({"priority": 10**9}, "less than or equal"),
        ({"depends_on": ["afterwards:3"]}, "'afterok'"),
        ({"files": [{"source": "/a", "content": "x"}]}, "one of 'source'"),
        ({"files": [{"upload": "0" * 64}]}, "'upload' needs a 'target'"),
        ({"files": [{"upload": "0" * 63, "target": "a"}]}, "pattern"),
        ({"files": [{"upload": "0" * 64, "content": "", "target": "a"}]}, "one of 'source'"),
        ({"files": [{"content": "x"}]}, "needs a 'target'"),
        ({"files": [{"source": "/a", "target": "../b"}]}, "inside the job's folder"),
        ({"files": [{"source": "/a", "target": "/b"}]}, "inside the job's folder"),
        ({"files": ["/"]}, "inside the job's folder"),
    ],
)
def test_mistakes_are_refused_with_what_to_do(fields: dict[str, Any], hint: str) -> None:
    assert hint in refusal(**fields)


def test_dependencies_are_taken_in_every_usual_form() -> None:
    forms: list[Any] = ["17", 17, "afterok:17", {"job": "17"}, ["17"], [17], ("afterok:17",)]
    for form in forms:
        (dependency,) = spec(depends_on=form).depends_on
        assert (dependency.job, dependency.condition) == ("17", "afterok")
    assert spec(depends_on=["afterany:3"]).depends_on[0].condition == "afterany"
    assert spec(depends_on=None).depends_on == ()


def test_a_number_of_retries_is_enough() -> None:
    assert spec(retries=3).retries.limit == 3
    assert OutcomeReason.NODE_FAILURE in spec(retries=3).retries.on
    assert OutcomeReason.TIMEOUT not in spec(retries=3).retries.on


def test_plain_paths_are_files_under_their_own_names() -> None:
    (staged,) = spec(files=["/data/si.in"]).files
    assert staged.name == "si.in"
    (staged,) = spec(files=[{"content": "1", "target": "in/a.txt"}]).files
    assert staged.name == "in/a.txt"


def test_the_title_is_the_name_else_the_program_else_script() -> None:
    assert spec(name="Run 1").title == "Run 1"
    assert spec(command=["/opt/qe/bin/pw.x"]).title == "pw.x"
    assert spec(command=["/opt/a\nb"]).title == "a?b"
    assert JobSpec(script="true").title == "script"


def test_the_request_is_what_the_scheduler_counts() -> None:
    made = spec(cores=4, memory="1G", disk=5, gpus=1, licenses={"b": 2, "a": 1})
    assert made.resource_request() == ResourceRequest(
        cores=4, memory=1 << 30, disk=5, gpus=1, licenses=(("a", 1), ("b", 2))
    )


def test_a_spec_is_the_same_after_a_round_trip() -> None:
    made = spec(memory="4 GiB", depends_on=["3"], retries=2, files=["/a/b"], licenses={"hfss": 1})
    again = JobSpec.model_validate_json(made.model_dump_json(exclude_defaults=True))
    assert again == made


@given(st.text(max_size=60))
def test_no_name_or_queue_can_carry_a_line_break(text: str) -> None:
    for field in ("name", "queue", "project", "group"):
        try:
            made = spec(**{field: text})
        except ValidationError:
            continue
        value = getattr(made, field)
        assert len(value.splitlines()) <= 1
        assert "\x00" not in value


def test_the_captured_environment_is_not_shown() -> None:
    assert "hunter2" not in repr(spec(base_env={"PASSWORD": "hunter2"}))


def test_each_change_of_a_job_has_the_next_version() -> None:
    job = Job(
        id=1,
        state=JobState.QUEUED,
        version=1,
        spec_json=spec().model_dump_json(exclude_defaults=True),
        name="a",
        priority=0,
        scheduler="local",
        created_at=0.0,
    )
    changed = job.evolve(state=JobState.SUBMITTING)
    assert changed.version == 2
    assert job.version == 1
    assert changed.spec().command == ("true",)
