"""Waiting for jobs: how their endings become exit codes, and what is shown meanwhile.

Standard library only: `submit_job --wait` comes through here.
"""

from __future__ import annotations

import sys
import time

from ..errors import NotRunning, ServiceUnavailable, SimyardError, WaitTimeout
from . import output
from .exits import INTERRUPTED, OK, REFUSED, TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..handler.wire import Connection

    Job = dict[str, Any]

TERMINAL = frozenset({"completed", "failed", "cancelled"})
LONGEST_WAIT = 30.0
"""Seconds of one long poll; the service's own bound is 60."""
PATIENCE = 120.0
"""Seconds for which a service that went away is looked for again."""


def exit_status(job: Job) -> int:
    """Return the status with which a shell would report the job.

    Its own exit code; 128 + signal; 124 where the walltime ended it; 130 and 137 for
    what was cancelled or killed for memory and left no signal; 1 for every other failure.
    """
    outcome = job.get("outcome") or {}
    reason = outcome.get("reason")
    if job.get("state") == "completed":
        return OK
    if reason == "timeout":
        return TIMEOUT
    if outcome.get("signal"):
        return 128 + int(outcome["signal"])
    if reason == "exit_code" and outcome.get("exit_code"):
        return int(outcome["exit_code"]) & 0xFF or REFUSED
    return {"out_of_memory": 137, "cancelled": INTERRUPTED}.get(str(reason), REFUSED)


def wait_for(
    connection: Connection,
    ids: Sequence[str],
    *,
    quiet: bool = False,
    timeout: float | None = None,
    ended: Callable[[Job], None] | None = None,
) -> list[Job]:
    """Return the jobs once all of them are over.

    Progress is shown on stderr where that is a terminal. A service that goes away and
    comes back is found again. Raises `WaitTimeout`, and what the service refuses.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    progress = Progress(len(ids), quiet=quiet)
    jobs = []
    try:
        for job_id in ids:
            job = _until_over(connection, job_id, deadline, progress)
            progress.over()
            if ended is not None:
                ended(job)
            jobs.append(job)
    finally:
        progress.clear()
    return jobs


def _until_over(
    connection: Connection, job_id: str, deadline: float | None, progress: Progress
) -> Job:
    version = None
    away_since: float | None = None
    while True:
        patience = progress.interval(LONGEST_WAIT)
        if deadline is not None:
            patience = min(patience, max(deadline - time.monotonic(), 0))
        query = None if version is None else {"wait": round(patience, 3), "version": version}
        try:
            job: Job = connection.request(
                "GET", f"/api/jobs/{job_id}", query=query, timeout=patience + 30
            )
        except ServiceUnavailable as error:
            away_since = _still_patient(error, away_since, deadline, progress)
            continue
        away_since = None
        if job["state"] in TERMINAL:
            return job
        progress.show(job)
        version = job.get("version")
        if deadline is not None and time.monotonic() >= deadline:
            raise WaitTimeout(
                f"job {job_id} is not over yet: it is {job['state']}; it goes on without this wait"
            )


def _still_patient(
    error: SimyardError, away_since: float | None, deadline: float | None, progress: Progress
) -> float:
    now = time.monotonic()
    if away_since is None:
        away_since = now
        progress.clear()
        output.say(f"the service is away ({error.message}); looking for it again")
    if now - away_since > PATIENCE or (deadline is not None and now >= deadline):
        raise NotRunning(
            "the service is away and did not come back; jobs that run go on without it: start it "
            "with 'simyard serve --detach' and wait again"
        ) from error
    time.sleep(0.5)
    return away_since


class Progress:
    """One line on a terminal that says how far the jobs are."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total = total
        self._done = 0
        self._shown = False
        self._live = output.is_terminal(sys.stderr) and not quiet

    def interval(self, longest: float) -> float:
        """Seconds until the line should be drawn again."""
        return 1.0 if self._live else longest

    def show(self, job: Job) -> None:
        if not self._live:
            return
        line = describe(job)
        if self._total > 1:
            line = f"{self._done} of {self._total} over; {line}"
        line = output.clip(line, max(output.terminal_columns() - 1, 20))
        sys.stderr.write(f"\r\x1b[2K{line}")
        sys.stderr.flush()
        self._shown = True

    def over(self) -> None:
        self._done += 1

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._shown = False


def describe(job: Job) -> str:
    """Say in one line how a job stands."""
    name = output.one_line(job.get("name") or "")
    text = f"job {job['id']} ({name}) {phrase(job)}"
    return text + (f": {detail(job)}" if detail(job) else "")


def phrase(job: Job) -> str:
    """Say the state in words, with how long it has lasted."""
    state = str(job["state"])
    if state == "running":
        text = f"has run for {output.duration(wall_seconds(job))}"
        return text + (", being cancelled" if job.get("cancel_requested") else "")
    return {"held": "is held", "queued": "waits"}.get(
        state, f"is {state}" if state not in TERMINAL else state
    )


def detail(job: Job) -> str:
    """Say why a job waits, or how it ended."""
    outcome = job.get("outcome")
    if job.get("pending_reason"):
        return output.one_line(job["pending_reason"])
    if not outcome or job["state"] == "completed":
        return ""
    if outcome.get("message"):
        return output.one_line(outcome["message"])
    if outcome.get("reason") == "exit_code":
        return f"exit code {outcome.get('exit_code')}"
    if outcome.get("reason") == "signal":
        return f"signal {outcome.get('signal')}"
    return str(outcome.get("reason", "")).replace("_", " ")


def wall_seconds(job: Job) -> float | None:
    """Return how long a job ran, up to now where it still runs."""
    if job.get("finished_at") is None and job.get("started_at"):
        started = output.parse_time(job["started_at"])
        return max(time.time() - started.timestamp(), 0.0) if started else None
    usage = job.get("usage") or {}
    return usage.get("wall_seconds") if job.get("started_at") else None
