"""Every error that Simyard raises on purpose.

    SimyardError
    ├── InvalidInput              what was asked cannot be understood        400
    │   └── ImpossibleRequest     understood, but never satisfiable here     422
    ├── NotFound                  no job, file or name of that kind          404
    ├── Conflict                  not in this state, or not any more         409
    │   └── StaleWrite            something else has changed the store       409
    ├── Gone                      it was there, it is not kept any longer    410
    ├── PermissionDenied          no credential, or a wrong one              401
    │   └── Forbidden             this credential, host or origin may not    403
    ├── TooLarge                  over a stated bound                        413
    ├── ServiceUnavailable        the service cannot answer now              503
    │   ├── NotRunning            no service is there to answer
    │   └── StorageFull           the disk is full                           507
    ├── HomeInUse                 another manager holds this home            409
    │   └── StoreTaken            another manager took over the store        409
    ├── StoreUnreadable           the store is damaged, or newer than we     500
    ├── LauncherError             the local launcher failed us               500
    ├── SchedulerError            an external scheduler failed us            502
    ├── WaitTimeout               the caller's patience ended, not the job   504
    ├── JobFailed                 a job ended other than ``completed``
    └── UsageError                a call that cannot work where it was made

Each class has a stable ``code``: it is the ``code`` of the problem document on
the wire (RFC 9457) and never changes once released. ``str(error)`` is a
sentence for a person that says what happened, to what, and what to do.

This module imports nothing of ours.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would cost every submission 3 ms
    from typing import Any, ClassVar


class SimyardError(Exception):
    """Something went wrong in Simyard."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str | None = None, **details: Any) -> None:
        super().__init__(message or type(self).__doc__ or self.code)
        self.details: dict[str, Any] = details
        """Facts about the error, sent along on the wire; never a secret."""

    @property
    def message(self) -> str:
        """The sentence for a person."""
        return str(self.args[0])


class InvalidInput(SimyardError):
    """The request cannot be understood."""

    code = "invalid_input"
    status = 400


class ImpossibleRequest(InvalidInput):
    """The request can never be satisfied on this service."""

    code = "impossible_request"
    status = 422


class NotFound(SimyardError):
    """There is nothing of that name."""

    code = "not_found"
    status = 404


class Conflict(SimyardError):
    """That is not possible in the present state."""

    code = "conflict"
    status = 409


class StaleWrite(Conflict):
    """Something else has changed this store."""

    code = "stale_write"


class Gone(SimyardError):
    """It was there, but it is not kept any longer."""

    code = "gone"
    status = 410


class PermissionDenied(SimyardError):
    """A valid credential is needed."""

    code = "permission_denied"
    status = 401


class Forbidden(PermissionDenied):
    """This credential, host or origin may not do that."""

    code = "forbidden"
    status = 403


class TooLarge(SimyardError):
    """The request is over a stated bound."""

    code = "too_large"
    status = 413


class ServiceUnavailable(SimyardError):
    """The service cannot answer now; try again."""

    code = "service_unavailable"
    status = 503


class NotRunning(ServiceUnavailable):
    """No Simyard service runs for this home; start one with 'simyard serve --detach'."""

    code = "not_running"


class StorageFull(ServiceUnavailable):
    """The disk of Simyard's home is full; free some space and try again."""

    code = "storage_full"
    status = 507


class HomeInUse(SimyardError):
    """Another Simyard service holds this home."""

    code = "home_in_use"
    status = 409


class StoreTaken(HomeInUse):
    """Another Simyard service has taken over this store."""

    code = "store_taken"


class StoreUnreadable(SimyardError):
    """The store cannot be read."""

    code = "store_unreadable"


class LauncherError(SimyardError):
    """The local launcher could not be started or does not answer."""

    code = "launcher_error"


class SchedulerError(SimyardError):
    """The external scheduler failed."""

    code = "scheduler_error"
    status = 502


class WaitTimeout(SimyardError, TimeoutError):
    """The wait ended before the job did; the job goes on."""

    code = "wait_timeout"
    status = 504


class JobFailed(SimyardError):
    """The job did not complete."""

    code = "job_failed"


class UsageError(SimyardError):
    """This call cannot work where it was made."""

    code = "usage_error"


def by_code() -> dict[str, type[SimyardError]]:
    """Map every stable code to its class, for clients that read a problem document."""
    found: dict[str, type[SimyardError]] = {}
    waiting: list[type[SimyardError]] = [SimyardError]
    while waiting:
        kind = waiting.pop()
        found[kind.code] = kind
        waiting.extend(kind.__subclasses__())
    return found
