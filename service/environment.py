"""The environment of a job: what it is made of, and how it is shown.

Pure but for the service's own environment, which is the base where a caller's was not
captured. It must not know stores or processes.

Later lines win: the base, what the grant says (threads, GPUs), what the spec sets, and
the job's own facts as ``SIMYARD_*``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from .model import JobSpec

OWN = "SIMYARD_"

MINIMAL = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")
"""Taken from the service where no caller's environment was captured."""

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "JULIA_NUM_THREADS",
)
"""Variables that keep libraries from taking more cores than the job was granted."""

MASK = "•••"

_SECRET = re.compile("TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|KEY|CREDENTIAL", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s@]+(@)")


def job_environment(
    spec: JobSpec,
    *,
    base: Mapping[str, str] | None,
    grant_gpu_ids: Sequence[int],
    counts_gpus: bool,
    job_id: str,
    name: str,
    attempt: int,
    tag: str,
    workdir: str | None = None,
    service: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the whole environment of one attempt.

    `base` is the caller's captured environment, None where there is none: then a few
    variables of `service` (this process's environment) are taken. Where `counts_gpus`,
    the job sees exactly `grant_gpu_ids`, none of them included. `workdir` becomes PWD.
    """
    environment = base_environment(base, service)
    environment.update(dict.fromkeys(THREADS, str(spec.cores)))
    if counts_gpus:
        environment.update(gpu_variables(grant_gpu_ids))
    if workdir is not None:
        environment["PWD"] = workdir
    environment.update(spec.env)
    environment["SIMYARD_JOB_ID"] = job_id
    environment["SIMYARD_JOB_NAME"] = name
    environment["SIMYARD_ATTEMPT"] = str(attempt)
    environment["SIMYARD_TAG"] = tag
    environment["SIMYARD_CORES"] = str(spec.cores)
    environment["SIMYARD_MEMORY"] = str(spec.memory)
    return environment


def base_environment(
    captured: Mapping[str, str] | None, service: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what a job's environment starts from, without any variable of our own."""
    if captured is not None:
        return {name: value for name, value in captured.items() if not name.startswith(OWN)}
    service = os.environ if service is None else service
    return {name: service[name] for name in MINIMAL if name in service}


def gpu_variables(gpu_ids: Sequence[int]) -> dict[str, str]:
    """Return the variables that show a job its GPUs and hide all others.

    On AMD's, ROCR_VISIBLE_DEVICES is applied first and HIP counts among what is left
    of it, so the latter always counts from 0.
    """
    physical = ",".join(str(number) for number in gpu_ids)
    return {
        "CUDA_VISIBLE_DEVICES": physical,
        "ROCR_VISIBLE_DEVICES": physical,
        "HIP_VISIBLE_DEVICES": ",".join(str(number) for number in range(len(gpu_ids))),
    }


def looks_secret(name: str) -> bool:
    """True for names of variables whose values are better not shown."""
    return _SECRET.search(name) is not None


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` as it may be shown: sorted, values that look secret hidden."""
    return {
        name: MASK if looks_secret(name) else _without_password(value)
        for name, value in sorted(environment.items())
    }


def _without_password(value: str) -> str:
    return _PASSWORD_IN_URL.sub(rf"\1{MASK}\2", value) if "://" in value else value
