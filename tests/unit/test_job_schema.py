"""The schema of a job file accepts what the service accepts, and marks what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkout import ROOT, kept_files
from jsonschema import Draft202012Validator

from simyard.service import job_file
from simyard.service.job_schema import job_file_schema
from simyard.service.model import JobSpec

SCHEMA = job_file_schema()
EXAMPLES = [path for path in kept_files() if path.name == "job.yaml"]


def complaints(document: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors(document)]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", EXAMPLES, ids=str)
def test_every_job_file_of_the_examples_fits_the_schema(path: Path) -> None:
    assert complaints(yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))) == []


def test_the_job_file_of_the_documentation_fits_the_schema() -> None:
    page = (ROOT / "docs" / "how-to" / "job-file.md").read_text(encoding="utf-8")
    found = re.findall(r"^```yaml[^\n]*\n(.*?)^```", page, re.M | re.S)
    assert len(found) >= 2
    assert [complaints(yaml.safe_load(text)) for text in found] == [[]] * len(found)


SHORT_FORMS = """
command: [solve, 15, 1e-3, --eps, 9.8]
name: 17
files: [mesh.msh, {source: a.dat, target: in/a.dat}]
retries: 2
depends_on: [17, afterany:18, {job: "19", condition: afternotok}]
env: {OMP_NUM_THREADS: 1}
tags: {mesh: 3}
memory: 4 GiB
walltime: 1:30:00
workdir: cases/one
licenses: {hfss: 2}
cluster: {nodes: 2, account: 1234}
"""


def test_the_short_forms_of_people_fit_and_are_accepted() -> None:
    assert complaints(yaml.safe_load(SHORT_FORMS)) == []
    assert job_file.spec_of({"yaml": SHORT_FORMS, "defaults": {"workdir": "/w"}}).cores == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": ["a"], "core": 2},
        {"command": "a b"},
        {"command": ["a"], "script": "a"},
        {"command": ["a"], "cores": 0},
        {"command": ["a"], "cores": "many"},
        {"command": ["a"], "memory": -1},
        {"command": ["a"], "walltime": 0},
        {"command": ["a"], "cluster": {"node": 2}},
        {"command": ["a"], "retries": {"limit": 1, "on": ["bad weather"]}},
        {"command": ["a"], "depends_on": {"job": "1", "condition": "before"}},
        {"command": ["a"], "base_env": {"A": "b"}},
    ],
)
def test_what_is_wrong_is_marked(wrong: dict[str, Any]) -> None:
    assert complaints(wrong) != []


def test_every_field_that_people_write_is_in_the_schema() -> None:
    assert set(SCHEMA["properties"]) == set(JobSpec.model_fields) - {"base_env", "soft_limits"}
