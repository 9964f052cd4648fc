from __future__ import annotations

import pytest

from simyard.errors import Conflict, InvalidInput
from simyard.service.states import (
    ACTIVE,
    ALIASES,
    TERMINAL,
    TRANSITIONS,
    WAITING,
    JobState,
    check,
    parse_state,
)

S = JobState

ALLOWED = {
    (S.HELD, S.QUEUED), (S.QUEUED, S.HELD),
    (S.HELD, S.CANCELLED), (S.HELD, S.FAILED), (S.QUEUED, S.CANCELLED), (S.QUEUED, S.FAILED),
    (S.QUEUED, S.SUBMITTING),
    (S.SUBMITTING, S.SCHEDULED), (S.SUBMITTING, S.RUNNING), (S.SUBMITTING, S.QUEUED),
    (S.SCHEDULED, S.QUEUED), (S.RUNNING, S.QUEUED), (S.SCHEDULED, S.RUNNING),
    (S.SUBMITTING, S.COMPLETED), (S.SUBMITTING, S.FAILED), (S.SUBMITTING, S.CANCELLED),
    (S.SCHEDULED, S.COMPLETED), (S.SCHEDULED, S.FAILED), (S.SCHEDULED, S.CANCELLED),
    (S.RUNNING, S.COMPLETED), (S.RUNNING, S.FAILED), (S.RUNNING, S.CANCELLED),
}  # fmt: skip
"""The table of the design, written down a second time on purpose."""


@pytest.mark.parametrize("old", list(S))
@pytest.mark.parametrize("new", list(S))
def test_exactly_the_ways_of_the_table_are_open(old: JobState, new: JobState) -> None:
    if (old, new) in ALLOWED:
        check(old, new)
    else:
        with pytest.raises(Conflict, match=f"a {old.value} job cannot become {new.value}"):
            check(old, new)


def test_no_way_leads_out_of_a_terminal_state() -> None:
    assert all(not TRANSITIONS[state] for state in TERMINAL)
    assert set(TRANSITIONS) == set(S)


def test_every_state_can_reach_a_terminal_one() -> None:
    assert all(TRANSITIONS[state] & TERMINAL for state in ACTIVE)


def test_a_state_is_waiting_active_or_terminal() -> None:
    assert set(S) == ACTIVE | TERMINAL
    assert not ACTIVE & TERMINAL
    assert WAITING < ACTIVE
    assert S.HELD.waiting
    assert not S.SUBMITTING.waiting
    assert S.FAILED.terminal
    assert not S.RUNNING.terminal


@pytest.mark.parametrize("state", list(S))
def test_a_state_is_read_by_its_name_in_any_case(state: JobState) -> None:
    assert parse_state(f" {state.value.upper()} ") is state


@pytest.mark.parametrize(
    "word", ["pending", "success", "killed", "complete", "submitted", "started", "canceled"]
)
def test_words_of_other_systems_are_understood(word: str) -> None:
    assert parse_state(word) is ALIASES[word]


def test_an_unknown_state_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InvalidInput, match=r"unknown state 'dead'; the states are held, queued"):
        parse_state("dead")
