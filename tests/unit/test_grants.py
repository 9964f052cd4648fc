"""Slots: who uses a grant, who inherits it, and when it is free."""

from __future__ import annotations

from simyard.scheduler_adapters.contract import ResourceRequest
from simyard.service.grants import Grants

TWO = ResourceRequest(cores=2, gpus=1)


def used(grants: Grants) -> tuple[int, int]:
    return grants.ledger.used.jobs, grants.ledger.used.cores


def test_a_grant_is_free_when_its_only_attempt_is_cleared() -> None:
    grants = Grants()
    grants.give("a", TWO)
    assert used(grants) == (1, 2)
    grants.clear("a")
    assert used(grants) == (0, 0)
    assert list(grants) == []


def test_heirs_use_the_grant_one_after_the_other_and_the_last_frees_it() -> None:
    grants = Grants()
    grants.give("a", TWO)
    (slot,) = grants
    for tag in ("b", "c"):
        grants.inherit(slot, tag)
    assert (slot.last, grants.waiting(), used(grants)) == ("c", ["b", "c"], (1, 2))
    grants.clear("a")
    assert (slot.current, slot.waiting, used(grants)) == ("b", ["c"], (1, 2))
    grants.clear("b")
    grants.clear("c")
    assert used(grants) == (0, 0)


def test_an_heir_that_is_taken_back_leaves_the_grant_to_the_others() -> None:
    grants = Grants()
    grants.give("a", TWO)
    (slot,) = grants
    for tag in ("b", "c"):
        grants.inherit(slot, tag)
    grants.clear("b")
    assert slot.waiting == ["c"]
    grants.clear("a")
    assert slot.current == "c"
    assert used(grants) == (1, 2)


def test_clearing_what_is_not_there_changes_nothing() -> None:
    grants = Grants()
    grants.give("a", TWO)
    grants.clear("unknown")
    grants.clear("a")
    grants.clear("a")
    assert used(grants) == (0, 0)


def test_gpus_of_a_recovered_attempt_are_kept_while_anybody_names_them() -> None:
    grants = Grants()
    grants.give("a", TWO, gpu_ids=(0,))
    grants.give("heir", TWO, gpu_ids=(0,))
    grants.clear("heir")
    grants.give("b", TWO)
    assert grants.ledger.gpu_ids("b") == (1,)


def test_who_waits_behind_an_attempt_that_lasts_is_told() -> None:
    now = 100.0
    grants = Grants(clock=lambda: now)
    grants.give("a", TWO)
    (slot,) = grants
    grants.inherit(slot, "b")
    grants.inherit(slot, "c")
    now = 100.3
    assert grants.waiting(longer_than=0.4) == []
    now = 100.4
    assert grants.waiting(longer_than=0.4) == ["b", "c"]
    grants.clear("a")
    assert grants.waiting(longer_than=0.4) == [], "the next one has only just begun"
