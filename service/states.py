"""The states of a job and the only ways between them.

Pure. `check` is asked by the one function that changes jobs; nothing else may
decide that a change is allowed.
"""

from __future__ import annotations

from enum import Enum

from ..errors import Conflict, InvalidInput


class JobState(str, Enum):
    """Where a job stands. The detail of how it ended is in its outcome."""

    HELD = "held"
    QUEUED = "queued"
    SUBMITTING = "submitting"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """It is over; nothing changes any more."""
        return self in TERMINAL

    @property
    def waiting(self) -> bool:
        """Registered here, nothing of it exists outside."""
        return self in WAITING


TERMINAL = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
WAITING = frozenset({JobState.HELD, JobState.QUEUED})
ACTIVE = frozenset(set(JobState) - TERMINAL)

_S = JobState
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.HELD: frozenset({_S.QUEUED, _S.CANCELLED, _S.FAILED}),
    _S.QUEUED: frozenset({_S.HELD, _S.SUBMITTING, _S.CANCELLED, _S.FAILED}),
    _S.SUBMITTING: frozenset({_S.QUEUED, _S.SCHEDULED, _S.RUNNING}) | TERMINAL,
    _S.SCHEDULED: frozenset({_S.QUEUED, _S.RUNNING}) | TERMINAL,
    _S.RUNNING: frozenset({_S.QUEUED}) | TERMINAL,
    _S.COMPLETED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}

ALIASES = {
    "pending": _S.QUEUED,
    "submitted": _S.QUEUED,
    "started": _S.RUNNING,
    "success": _S.COMPLETED,
    "complete": _S.COMPLETED,
    "killed": _S.CANCELLED,
    "canceled": _S.CANCELLED,
}
"""Other systems' words, accepted where states are filtered by."""


def check(old: JobState, new: JobState) -> None:
    """Raise `Conflict` unless a job may go from `old` to `new`."""
    if new not in TRANSITIONS[old]:
        raise Conflict(f"a {old.value} job cannot become {new.value}")


def parse_state(text: str) -> JobState:
    """Read a state or one of its aliases; raises `InvalidInput` naming all of them."""
    word = text.strip().lower()
    if word in ALIASES:
        return ALIASES[word]
    try:
        return JobState(word)
    except ValueError:
        known = ", ".join(state.value for state in JobState)
        raise InvalidInput(f"unknown state {text!r}; the states are {known}") from None
