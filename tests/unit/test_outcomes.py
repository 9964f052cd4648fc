"""From the evidence of an ending to the verdict on the job."""

from __future__ import annotations

import pytest

from simyard.scheduler_adapters.contract import Cause, Ending, Usage
from simyard.service.model import Outcome, OutcomeReason
from simyard.service.outcomes import judge, may_retry, retry_delay
from simyard.service.states import JobState


def test_only_exit_code_zero_of_its_own_doing_is_a_success() -> None:
    state, outcome = judge(Ending(exit_code=0))
    assert (state, outcome.reason, outcome.exit_code) == (
        JobState.COMPLETED,
        OutcomeReason.EXIT_CODE,
        0,
    )


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.OWN])
def test_an_ending_from_outside_is_never_a_success_even_with_exit_code_zero(cause: Cause) -> None:
    state, outcome = judge(Ending(cause=cause, exit_code=0))
    assert state is not JobState.COMPLETED
    assert outcome.message or cause is Cause.START_FAILED


def test_a_job_that_was_cancelled_is_cancelled_and_keeps_the_signal() -> None:
    state, outcome = judge(Ending(cause=Cause.CANCELLED, signal=15))
    assert (state, outcome.reason, outcome.signal) == (
        JobState.CANCELLED,
        OutcomeReason.CANCELLED,
        15,
    )


def test_an_ending_without_any_evidence_is_lost() -> None:
    state, outcome = judge(Ending())
    assert (state, outcome.reason) == (JobState.FAILED, OutcomeReason.LOST)


def test_a_foreign_signal_is_named() -> None:
    _, outcome = judge(Ending(signal=11))
    assert outcome.reason is OutcomeReason.SIGNAL
    assert "SIGSEGV" in outcome.message


def test_an_unknown_signal_is_told_by_its_number() -> None:
    assert "signal 99" in judge(Ending(signal=99))[1].message


def test_missing_outputs_turn_exit_code_zero_into_a_failure_that_names_them() -> None:
    state, outcome = judge(Ending(exit_code=0), missing_outputs=["s11.csv"])
    assert (state, outcome.reason) == (JobState.FAILED, OutcomeReason.OUTPUTS_MISSING)
    assert "s11.csv" in outcome.message


def test_a_timeout_says_how_long_it_was_allowed() -> None:
    assert "1h" in judge(Ending(cause=Cause.TIMEOUT, signal=15), walltime=3600.0)[1].message


def test_a_memory_kill_says_the_limit_and_the_peak() -> None:
    ending = Ending(cause=Cause.OUT_OF_MEMORY, usage=Usage(max_rss_bytes=3 << 30))
    _, outcome = judge(ending, memory=2 << 30)
    assert outcome.reason is OutcomeReason.OUT_OF_MEMORY
    assert "2 GiB" in outcome.message
    assert "3 GiB" in outcome.message


FAILED = Outcome(reason=OutcomeReason.EXIT_CODE, exit_code=1)


@pytest.mark.parametrize(("tried", "again"), [(1, True), (2, True), (3, False)])
def test_a_retry_limit_of_two_means_three_attempts(tried: int, again: bool) -> None:
    on = [OutcomeReason.EXIT_CODE]
    assert may_retry(JobState.FAILED, FAILED, tried=tried, limit=2, on=on, cancelled=False) is again


def test_a_reason_that_is_not_named_is_not_retried() -> None:
    assert not may_retry(
        JobState.FAILED, FAILED, tried=1, limit=5, on=[OutcomeReason.NODE_FAILURE], cancelled=False
    )


@pytest.mark.parametrize(
    ("tried", "seconds"), [(1, 5.0), (2, 15.0), (3, 45.0), (4, 60.0), (5, 60.0), (100_000, 60.0)]
)
def test_each_wait_before_a_retry_is_longer_up_to_a_bound(tried: int, seconds: float) -> None:
    assert retry_delay(tried, delay=5, backoff=3, max_delay=60) == seconds


def test_without_a_delay_the_next_attempt_may_begin_at_once() -> None:
    assert retry_delay(7, delay=0, backoff=3, max_delay=60) == 0
    assert [retry_delay(n, delay=5, backoff=1, max_delay=60) for n in (1, 2, 9)] == [5, 5, 5]


def test_a_job_somebody_wants_cancelled_is_not_retried() -> None:
    assert not may_retry(
        JobState.FAILED, FAILED, tried=1, limit=5, on=[OutcomeReason.EXIT_CODE], cancelled=True
    )


def test_a_success_is_not_retried_although_it_has_an_exit_code() -> None:
    done = Outcome(reason=OutcomeReason.EXIT_CODE, exit_code=0)
    on = [OutcomeReason.EXIT_CODE]
    assert not may_retry(JobState.COMPLETED, done, tried=1, limit=5, on=on, cancelled=False)
