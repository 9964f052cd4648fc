from __future__ import annotations

from typing import Any

import pytest

from simyard.service.environment import MASK, job_environment, looks_secret, masked
from simyard.service.model import JobSpec

SERVICE = {"PATH": "/bin", "HOME": "/home/a", "LANG": "C", "SIMYARD_HOME": "/s", "AWS_SECRET": "x"}


def environment(spec: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    facts: dict[str, Any] = {
        "base": None,
        "grant_gpu_ids": (),
        "counts_gpus": False,
        "job_id": "17",
        "name": "Run 1",
        "attempt": 2,
        "tag": "sy-1",
        "service": SERVICE,
        **changes,
    }
    made = JobSpec.model_validate({"command": ["true"], **(spec or {})})
    return job_environment(made, **facts)


def test_without_a_captured_environment_the_base_is_minimal() -> None:
    made = environment()
    assert made["PATH"] == "/bin"
    assert made["HOME"] == "/home/a"
    assert "AWS_SECRET" not in made
    assert "SIMYARD_HOME" not in made


def test_a_captured_environment_is_taken_whole_but_for_our_own_variables() -> None:
    made = environment(base={"LD_LIBRARY_PATH": "/opt/lib", "SIMYARD_TOKEN": "t"})
    assert made["LD_LIBRARY_PATH"] == "/opt/lib"
    assert "SIMYARD_TOKEN" not in made
    assert "PATH" not in made


def test_an_empty_captured_environment_stays_empty() -> None:
    assert "PATH" not in environment(base={})


def test_threads_follow_the_grant_and_not_the_caller() -> None:
    made = environment({"cores": 4}, base={"OMP_NUM_THREADS": "64"})
    assert made["OMP_NUM_THREADS"] == made["MKL_NUM_THREADS"] == "4"
    assert made["OPENBLAS_NUM_THREADS"] == made["NUMEXPR_NUM_THREADS"] == "4"


def test_what_the_spec_sets_beats_the_grant_and_the_base() -> None:
    spec = {"cores": 4, "env": {"OMP_NUM_THREADS": "1", "A": "spec"}}
    made = environment(spec, base={"A": "base"})
    assert made["OMP_NUM_THREADS"] == "1"
    assert made["A"] == "spec"


def test_counted_gpus_are_shown_and_all_others_hidden() -> None:
    made = environment(counts_gpus=True, grant_gpu_ids=(1, 3))
    assert made["CUDA_VISIBLE_DEVICES"] == made["ROCR_VISIBLE_DEVICES"] == "1,3"
    assert made["HIP_VISIBLE_DEVICES"] == "0,1"
    base = {"CUDA_VISIBLE_DEVICES": "0"}
    assert environment(base=base, counts_gpus=True)["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(base=base)["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in environment()


def test_the_facts_of_the_job_cannot_be_overridden() -> None:
    made = environment({"memory": "1 GiB", "cores": 2, "env": {"SIMYARD_TAG": "forged"}})
    assert made["SIMYARD_TAG"] == "sy-1"
    assert made["SIMYARD_JOB_ID"] == "17"
    assert made["SIMYARD_JOB_NAME"] == "Run 1"
    assert made["SIMYARD_ATTEMPT"] == "2"
    assert made["SIMYARD_CORES"] == "2"
    assert made["SIMYARD_MEMORY"] == str(1 << 30)


def test_pwd_is_where_the_job_runs() -> None:
    assert environment(base={"PWD": "/old"}, workdir="/new")["PWD"] == "/new"


@pytest.mark.parametrize(
    "name", ["GITHUB_TOKEN", "api_key", "DB_PASSWORD", "PGPASSWD", "AWS_SECRET", "Credentials_A"]
)
def test_names_of_secrets_are_recognised_and_their_values_hidden(name: str) -> None:
    assert looks_secret(name)
    assert masked({name: "hunter2"}) == {name: MASK}


def test_other_values_are_shown_but_for_passwords_in_addresses() -> None:
    shown = masked({"PATH": "/bin", "DB": "postgres://me:hunter2@host/db", "U": "http://a@b:1/c"})
    assert shown == {"DB": f"postgres://me:{MASK}@host/db", "PATH": "/bin", "U": "http://a@b:1/c"}
    assert list(shown) == sorted(shown)
