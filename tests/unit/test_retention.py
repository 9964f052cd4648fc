"""The rules of retention: what goes, what stays, and that the newest stay longest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simyard.service.retention import Finished, Retention, select

DAY = 86_400.0
JOBS = [Finished(id=number, finished_at=number * DAY) for number in range(1, 11)]
SIZES = {job.id: 100 for job in JOBS}
NOW = 10.5 * DAY


def gone(rules: Retention, jobs: list[Finished] = JOBS, sizes: dict[int, int] = SIZES) -> list[int]:
    return select(jobs, rules, now=NOW, sizes=sizes)


def test_by_age_go_those_that_ended_longer_ago() -> None:
    assert gone(Retention(older_than=7 * DAY)) == [1, 2, 3]
    assert gone(Retention(older_than=100 * DAY)) == []


def test_by_number_those_that_ended_last_stay() -> None:
    assert gone(Retention(keep=8)) == [1, 2]
    assert gone(Retention(keep=0)) == list(range(1, 11))
    assert gone(Retention(keep=10)) == []


def test_by_size_the_oldest_go_until_the_others_fit() -> None:
    assert gone(Retention(max_size=750)) == [1, 2, 3]
    assert gone(Retention(max_size=1000)) == []
    assert gone(Retention(max_size=0)) == list(range(1, 11))


def test_no_old_small_job_takes_the_place_of_a_newer_large_one() -> None:
    sizes = {**dict.fromkeys(SIZES, 1), 8: 10_000}
    assert gone(Retention(max_size=100), sizes=sizes) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_any_rule_is_enough() -> None:
    assert gone(Retention(older_than=8 * DAY, keep=9)) == [1, 2]
    assert gone(Retention(older_than=100 * DAY, keep=9, max_size=500)) == [1, 2, 3, 4, 5]


def test_the_end_counts_and_not_the_id() -> None:
    jobs = [Finished(id=1, finished_at=9 * DAY), Finished(id=2, finished_at=DAY)]
    assert gone(Retention(keep=1), jobs) == [2]


def test_a_job_that_ended_in_the_future_is_not_old() -> None:
    jobs = [Finished(id=1, finished_at=NOW + 400 * DAY)]
    assert gone(Retention(older_than=1.0), jobs) == []


def test_without_a_rule_nothing_goes() -> None:
    assert Retention().asks_nothing
    assert gone(Retention()) == []


FINISHED = st.lists(
    st.builds(Finished, id=st.integers(1, 50), finished_at=st.floats(0, NOW)),
    unique_by=lambda job: job.id,
)


@given(
    FINISHED,
    st.none() | st.floats(1, NOW),
    st.none() | st.integers(0, 60),
    st.none() | st.integers(0, 3000),
    st.lists(st.integers(0, 200), min_size=51, max_size=51),
)
def test_what_stays_keeps_every_rule_and_is_newer_than_what_goes(
    jobs: list[Finished],
    older_than: float | None,
    keep: int | None,
    max_size: int | None,
    weights: list[int],
) -> None:
    sizes = dict(enumerate(weights))
    rules = Retention(older_than=older_than, keep=keep, max_size=max_size)
    ids = select(jobs, rules, now=NOW, sizes=sizes)
    goes = [job for job in jobs if job.id in set(ids)]
    stays = [job for job in jobs if job.id not in set(ids)]
    assert len(set(ids)) == len(ids) == len(goes)
    assert keep is None or len(stays) <= keep
    assert max_size is None or sum(sizes[job.id] for job in stays) <= max_size
    assert older_than is None or all(NOW - job.finished_at <= older_than for job in stays)
    oldest = min((job.finished_at for job in stays), default=NOW)
    assert all(job.finished_at <= oldest for job in goes)
