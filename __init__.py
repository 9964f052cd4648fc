"""Simyard runs simulations in the background and keeps the truth about them.

    from simyard import JobManagerHandler

    handler = JobManagerHandler()
    job = handler.submit(["pw.x", "-in", "si.in"], cores=2, memory="4 GiB")
    print(job.wait())

Importing this costs next to nothing: each name is imported when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "AsyncJobHandle",
    "Conflict",
    "Forbidden",
    "Gone",
    "HomeInUse",
    "ImpossibleRequest",
    "InvalidInput",
    "JobFailed",
    "JobHandle",
    "JobList",
    "JobManager",
    "JobManagerHandler",
    "JobSpec",
    "JobState",
    "LauncherError",
    "NotFound",
    "NotRunning",
    "OutcomeReason",
    "PermissionDenied",
    "SchedulerError",
    "ServiceUnavailable",
    "SimyardError",
    "StorageFull",
    "StoreUnreadable",
    "TooLarge",
    "UsageError",
    "WaitTimeout",
    "__version__",
    "to_frame",
]

_ELSEWHERE = {
    "AsyncJobHandle": "handler.job_handle",
    "JobHandle": "handler.job_handle",
    "JobList": "handler.job_list",
    "JobManager": "handler.job_manager",
    "JobManagerHandler": "handler.job_manager_handler",
    "JobSpec": "service.model",
    "JobState": "service.states",
    "OutcomeReason": "service.model",
    "to_frame": "handler.job_list",
}
"""Where a public name lives; every other one is an error."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .errors import (
        Conflict,
        Forbidden,
        Gone,
        HomeInUse,
        ImpossibleRequest,
        InvalidInput,
        JobFailed,
        LauncherError,
        NotFound,
        NotRunning,
        PermissionDenied,
        SchedulerError,
        ServiceUnavailable,
        SimyardError,
        StorageFull,
        StoreUnreadable,
        TooLarge,
        UsageError,
        WaitTimeout,
    )
    from .handler.job_handle import AsyncJobHandle, JobHandle
    from .handler.job_list import JobList, to_frame
    from .handler.job_manager import JobManager
    from .handler.job_manager_handler import JobManagerHandler
    from .service.model import JobSpec, OutcomeReason
    from .service.states import JobState


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f".{_ELSEWHERE.get(name, 'errors')}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
