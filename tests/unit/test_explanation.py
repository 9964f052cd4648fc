"""An explanation names what is lacking, who holds it until when, and what would help."""

from __future__ import annotations

from typing import Any

import pytest

from simyard.scheduler_adapters.contract import ResourceRequest
from simyard.service.explanation import (
    Explanation,
    Holder,
    explain,
    explain_dependencies,
)
from simyard.service.pending import Waiting
from simyard.service.ready_queue import ReadyQueue
from simyard.service.resources import HostFacts, Ledger, Limits
from simyard.service.scheduling import Policy, decide

GIB = 1 << 30
HOST = HostFacts(cpu_count=8, memory_total=64 * GIB, disk_total=100 * GIB, disk_free=50 * GIB)


class Line:
    """A line, and jobs that run."""

    def __init__(self, **limits: Any) -> None:
        self.limits = Limits(**{"max_cores": 8, **limits})
        self.queue = ReadyQueue()
        self.ledger = Ledger()
        self.holders: list[Holder] = []

    def run(self, job_id: int, ends_by: float | None = None, **request: Any) -> None:
        self.ledger.grant(f"t{job_id}", ResourceRequest(**request))
        self.holders.append(
            Holder(key=f"t{job_id}", job_id=job_id, name=f"job-{job_id}", ends_by=ends_by)
        )

    def wait(self, job_id: int, *, walltime: float | None = None, **request: Any) -> None:
        self.queue.add(
            job_id,
            priority=0,
            age=job_id,
            request=ResourceRequest(**request),
            walltime=walltime,
        )

    def decide(self, now: float = 0.0) -> None:
        policy = Policy(overtake_limit=10**6, reserve_after=0.0)
        decide(self.queue, self.ledger, self.limits, HOST, now=now, policy=policy)

    def explain(self, job_id: int, host: HostFacts = HOST) -> Explanation:
        entry = self.queue.get(job_id)
        assert entry is not None
        waiting = Waiting(request=entry.request, walltime=entry.walltime)
        return explain(self.queue, job_id, waiting, self.ledger, self.limits, host, self.holders)


def test_who_holds_what_is_lacking_is_named_with_the_soonest_end_first() -> None:
    line = Line()
    line.run(1, cores=2)
    line.run(2, ends_by=2000.0, cores=3)
    line.run(3, ends_by=1000.0, cores=2)
    line.wait(9, cores=5)
    (lack,) = line.explain(9).lacks
    assert (lack.resource, lack.needs, lack.total, lack.in_use) == ("cores", 5, 8, 7)
    assert [(held.job_id, held.count) for held in lack.held_by] == [(3, 2), (2, 3), (1, 2)]
    assert lack.free_by == 2000.0
    assert line.explain(9).free_by == 2000.0
    assert "1970-01-01T00:33:20.000Z" in line.explain(9).advice[0]
    assert "max_cores" in line.explain(9).advice[0]


def test_nobody_knows_when_what_has_no_walltime_ends() -> None:
    line = Line()
    line.run(1, cores=6)
    line.run(2, ends_by=1000.0, cores=2)
    line.wait(9, cores=4)
    found = line.explain(9)
    assert found.free_by is None
    assert "nobody knows when" in found.advice[0]
    assert "job 1 (6 cores)" in found.advice[0]


def test_everything_that_is_lacking_is_told_and_the_latest_counts() -> None:
    line = Line(max_memory=8 * GIB, licenses={"hfss": 1})
    line.run(1, ends_by=1000.0, cores=7, memory=GIB)
    line.run(2, ends_by=3000.0, cores=1, memory=6 * GIB, licenses=(("hfss", 1),))
    line.wait(9, cores=1, memory=4 * GIB, licenses=(("hfss", 1),))
    found = line.explain(9)
    assert {lack.resource: lack.free_by for lack in found.lacks} == {
        "cores": 1000.0,
        "memory": 3000.0,
        "license:hfss": 3000.0,
    }
    assert found.free_by == 3000.0
    assert any("licenses.hfss" in text for text in found.advice)


def test_the_place_in_line_and_those_ahead_are_told() -> None:
    line = Line()
    line.run(1, cores=8)
    for number in range(10, 30):
        line.wait(number, cores=1)
    found = line.explain(25)
    assert found.position == 16
    assert found.ahead == tuple(range(10, 20))
    assert any("simyard priority 25" in text for text in found.advice)


def test_the_job_for_which_room_is_kept_knows_it_and_so_does_the_one_behind() -> None:
    line = Line()
    line.run(1, cores=6)
    line.wait(10, cores=8)
    line.wait(11, cores=2)
    line.decide()
    assert line.explain(10).has_reserved
    behind = line.explain(11)
    assert behind.reserved_by == 10
    assert not behind.has_reserved
    assert any("walltime may slip past" in text for text in behind.advice)


def test_what_can_never_start_says_so_and_nothing_else() -> None:
    line = Line()
    line.wait(9, cores=9)
    (advice,) = line.explain(9).advice
    assert "can never start" in advice
    assert "simyard cancel 9" in advice


def test_a_full_disk_and_a_busy_processor_are_named() -> None:
    line = Line(min_free_disk=60 * GIB)
    line.wait(9, cores=1)
    assert "free disk" in line.explain(9).advice[0]
    line = Line()
    line.wait(9, cores=1, disk=60 * GIB)
    assert "must be freed on the disk" in line.explain(9).advice[0]


def test_nothing_lacking_means_about_to_start() -> None:
    line = Line()
    line.wait(9, cores=1)
    assert line.explain(9).lacks == ()
    assert "about to start" in line.explain(9).advice[0]


@pytest.mark.parametrize(
    ("condition", "words"),
    [("afterok", "complete"), ("afterany", "be over"), ("afternotok", "without completing")],
)
def test_dependencies_say_what_must_happen(condition: str, words: str) -> None:
    (text,) = explain_dependencies({5: condition}, {5: "running"})
    assert "job 5 (running)" in text
    assert words in text


def test_many_dependencies_are_counted() -> None:
    assert explain_dependencies(dict.fromkeys(range(30), "afterok"), {})[-1] == "so must 20 more"
