"""From how an attempt ended to how its job goes on.

Pure: the evidence comes in, a verdict comes out. Nothing here knows stores,
adapters or clocks.
"""

from __future__ import annotations

import signal as signals
from collections.abc import Collection, Sequence

from ..scheduler_adapters.contract import Cause, Ending
from .model import Outcome, OutcomeReason
from .quantities import format_duration, format_size
from .states import JobState

_REASONS = {
    Cause.TIMEOUT: OutcomeReason.TIMEOUT,
    Cause.OUT_OF_MEMORY: OutcomeReason.OUT_OF_MEMORY,
    Cause.OUTPUT_LIMIT: OutcomeReason.OUTPUT_LIMIT,
    Cause.START_FAILED: OutcomeReason.START_FAILED,
    Cause.NODE_FAILURE: OutcomeReason.NODE_FAILURE,
    Cause.INTERRUPTED: OutcomeReason.INTERRUPTED,
    Cause.LOST: OutcomeReason.LOST,
}

_DEFAULT_MESSAGES = {
    Cause.TIMEOUT: "it reached its walltime",
    Cause.OUT_OF_MEMORY: "it used more memory than it asked for",
    Cause.OUTPUT_LIMIT: "it wrote more than its output limit",
    Cause.INTERRUPTED: "the host was restarted while the job ran",
    Cause.LOST: "the job is over, but how it ended is known nowhere: its launcher was killed",
    Cause.NODE_FAILURE: "the node it ran on failed",
}


def signal_name(number: int) -> str:
    """Name a signal as people do, such as "SIGKILL"."""
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def judge(
    ending: Ending,
    *,
    walltime: float | None = None,
    memory: int = 0,
    output_limit: int | None = None,
    missing_outputs: Sequence[str] = (),
) -> tuple[JobState, Outcome]:
    """Return the terminal state and the outcome that the evidence calls for.

    Only an exit code of 0 that was the job's own doing is a success, and only where
    every expected output exists.
    """
    code, number = ending.exit_code, ending.signal
    if ending.cause is Cause.CANCELLED:
        outcome = Outcome(
            reason=OutcomeReason.CANCELLED,
            exit_code=code,
            signal=number,
            message=ending.message or "cancelled on request",
        )
        return JobState.CANCELLED, outcome
    if ending.cause is not Cause.OWN:
        message = ending.message or _DEFAULT_MESSAGES.get(ending.cause, "")
        if ending.cause is Cause.TIMEOUT and walltime is not None:
            message = f"it reached its walltime of {format_duration(walltime)}"
        elif ending.cause is Cause.OUT_OF_MEMORY and memory:
            message = _over_memory(ending, memory)
        elif ending.cause is Cause.OUTPUT_LIMIT and output_limit:
            message = f"it wrote more than its output limit of {format_size(output_limit)}"
        return JobState.FAILED, Outcome(
            reason=_REASONS[ending.cause], exit_code=code, signal=number, message=message
        )
    if number is not None:
        return JobState.FAILED, Outcome(
            reason=OutcomeReason.SIGNAL,
            signal=number,
            message=ending.message or f"it was ended by {signal_name(number)}, not by Simyard",
        )
    if code is None:
        return JobState.FAILED, Outcome(
            reason=OutcomeReason.LOST, message=_DEFAULT_MESSAGES[Cause.LOST]
        )
    if code != 0:
        return JobState.FAILED, Outcome(
            reason=OutcomeReason.EXIT_CODE, exit_code=code, message=_about_code(code)
        )
    if missing_outputs:
        names = ", ".join(missing_outputs[:5]) + ("…" if len(missing_outputs) > 5 else "")
        return JobState.FAILED, Outcome(
            reason=OutcomeReason.OUTPUTS_MISSING,
            exit_code=0,
            message=f"it ended with exit code 0, but did not write {names}",
        )
    return JobState.COMPLETED, Outcome(reason=OutcomeReason.EXIT_CODE, exit_code=0)


def may_retry(
    state: JobState,
    outcome: Outcome,
    *,
    tried: int,
    limit: int,
    on: Collection[OutcomeReason],
    cancelled: bool,
) -> bool:
    """True where the policy asks for another attempt after the `tried`-th one."""
    failed = state is JobState.FAILED and not cancelled
    return failed and tried <= limit and outcome.reason in on


def retry_delay(tried: int, *, delay: float, backoff: float, max_delay: float) -> float:
    """Return the seconds to wait after the `tried`-th attempt before the next one begins."""
    if not delay:
        return 0.0
    try:
        grown = delay * backoff ** max(0, tried - 1)
    except OverflowError:
        return max_delay
    return min(grown, max_delay)


def _over_memory(ending: Ending, memory: int) -> str:
    peak = ending.usage.max_rss_bytes
    used = f" (its processes held {format_size(peak)})" if peak > memory else ""
    return f"it used more than its {format_size(memory)} of memory{used}; ask for more memory"


def _about_code(code: int) -> str:
    if code == 126:
        return "exit code 126: a command was found but could not be executed"
    if code == 127:
        return "exit code 127: a command was not found; see stderr"
    if code > 128:
        return f"exit code {code}, which often means that a child was ended by signal {code - 128}"
    return f"exit code {code}"
