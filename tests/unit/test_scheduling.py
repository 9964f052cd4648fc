from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simyard.scheduler_adapters.contract import ResourceRequest
from simyard.service import ready_queue, scheduling
from simyard.service.resources import HostFacts, Ledger, Limits, beyond, capacity
from simyard.service.scheduling import (
    Decision,
    Policy,
    ReadyQueue,
    Running,
    Waiting,
    decide,
    successors,
    why,
)

GIB = 1 << 30
HOST = HostFacts(cpu_count=8, memory_total=64 * GIB, disk_total=100 * GIB, disk_free=50 * GIB)
NEVER = Policy(overtake_limit=10**9, reserve_after=math.inf)


@dataclass
class Yard:
    """A little manager: a queue, a ledger, a clock, and jobs that end when they are told to."""

    limits: Limits = field(default_factory=lambda: Limits(max_cores=8))
    host: HostFacts = HOST
    policy: Policy = NEVER
    queue: ReadyQueue = field(default_factory=ReadyQueue)
    ledger: Ledger = field(default_factory=Ledger)
    now: float = 0.0
    ends_by: dict[int, float | None] = field(default_factory=dict)
    last: Decision = field(default_factory=Decision)
    _ids: int = 0

    def add(
        self,
        *,
        priority: int = 0,
        walltime: float | None = None,
        age: float | None = None,
        target: str = "local",
        **request: Any,
    ) -> int:
        self._ids += 1
        self.queue.add(
            self._ids,
            priority=priority,
            age=self._ids if age is None else age,
            request=ResourceRequest(**request),
            walltime=walltime,
            target=target,
        )
        return self._ids

    def start(self, at_most: int | None = None) -> list[int]:
        running = [
            Running(request=grant.request, ends_by=self.ends_by[int(key)], target=grant.target)
            for key, grant in self.ledger.grants.items()
        ]
        self.last = decide(
            self.queue,
            self.ledger,
            self.limits,
            self.host,
            running=running,
            now=self.now,
            policy=self.policy,
            at_most=at_most,
        )
        for job_id in self.last.starts:
            entry = self.queue.get(job_id)
            assert entry is not None
            self.ends_by[job_id] = None if entry.walltime is None else self.now + entry.walltime
            self.queue.remove(job_id)
            self.ledger.grant(str(job_id), entry.request, target=entry.shape.target)
        return list(self.last.starts)

    def end(self, *job_ids: int) -> None:
        for job_id in job_ids:
            assert self.ledger.release(str(job_id)) is not None

    def why(self, job_id: int) -> str:
        entry = self.queue.get(job_id)
        assert entry is not None
        waiting = Waiting(request=entry.request, walltime=entry.walltime, target=entry.shape.target)
        return why(self.queue, job_id, waiting, self.ledger, self.limits, self.host)

    def heirs(self, count: int = 10, **request: Any) -> list[int]:
        return successors(self.queue, ResourceRequest(**request), count)


# -- order -----------------------------------------------------------------------------


def test_higher_priority_comes_first_then_the_older_one() -> None:
    yard = Yard(Limits(max_concurrent_jobs=10))
    late = yard.add(age=5)
    early = yard.add(age=1, cores=2)
    urgent = yard.add(age=9, priority=1, memory=GIB)
    assert yard.start() == [urgent, early, late]


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 5), st.integers(1, 3)), max_size=30))
def test_with_one_place_jobs_start_strictly_in_the_order_of_the_line(jobs: Any) -> None:
    yard = Yard(Limits(max_concurrent_jobs=1))
    ids = [yard.add(priority=p, age=a, cores=c) for p, a, c in jobs]
    line = sorted(ids, key=lambda i: (-jobs[i - 1][0], jobs[i - 1][1], i))
    assert yard.queue.in_order() == line
    assert [yard.queue.position(i) for i in line] == list(range(1, len(line) + 1))
    started = []
    while yard.queue:
        (job,) = yard.start()
        started.append(job)
        yard.end(job)
    assert started == line


def test_a_changed_priority_changes_the_place() -> None:
    yard = Yard(Limits(max_concurrent_jobs=1))
    first, second = yard.add(), yard.add()
    yard.queue.change(second, priority=5)
    assert yard.queue.in_order() == [second, first]
    yard.queue.change(second, request=ResourceRequest(cores=4), walltime=60)
    assert yard.start() == [second]
    assert yard.ledger.used.cores == 4
    with pytest.raises(KeyError):
        yard.queue.change(99, priority=1)


def test_what_is_taken_out_of_the_line_does_not_start() -> None:
    yard = Yard()
    ids = [yard.add() for _ in range(3)]
    assert yard.queue.remove(ids[1])
    assert not yard.queue.remove(ids[1])
    assert yard.start() == [ids[0], ids[2]]
    assert not yard.queue
    assert yard.queue.shapes == {}
    assert len(yard.queue.heads) == 0


# -- limits ----------------------------------------------------------------------------


def test_what_does_not_fit_waits_and_the_rest_passes_it() -> None:
    yard = Yard()
    a, big, small = yard.add(cores=6), yard.add(cores=4), yard.add(cores=2)
    assert yard.start() == [a, small]
    assert yard.start() == []
    yard.end(a)
    assert yard.start() == [big]


def test_licences_are_counted_wherever_they_are_used() -> None:
    yard = Yard(Limits(licenses={"hfss": 2}))
    hfss: dict[str, Any] = {"licenses": (("hfss", 1),)}
    a, b, c = yard.add(**hfss), yard.add(**hfss, target="slurm"), yard.add(**hfss)
    free = yard.add()
    assert yard.start() == [a, b, free]
    assert yard.why(c) == "waits for 1 licence of hfss: 2 of 2 in use"
    yard.end(b)
    assert yard.start() == [c]


def test_gpus_are_counted_and_each_goes_to_one_job() -> None:
    yard = Yard(Limits(gpus=2))
    a, b, c = (yard.add(gpus=1) for _ in range(3))
    assert yard.start() == [a, b]
    assert {yard.ledger.gpu_ids(str(job)) for job in (a, b)} == {(0,), (1,)}
    assert yard.why(c) == "waits for 1 GPU: 2 of 2 in use by 2 jobs"
    yard.end(a)
    assert yard.start() == [c]
    assert yard.ledger.gpu_ids(str(c)) == (0,)


def test_a_cap_of_a_target_holds_that_target_only() -> None:
    yard = Yard(Limits(max_cores=1).changed({"targets": {"slurm": {"max_submitted": 1}}}))
    a, b = yard.add(target="slurm", cores=64), yard.add(target="slurm", cores=64)
    c, d = yard.add(target="pbs", cores=64), yard.add()
    assert yard.start() == [a, c, d]
    assert yard.why(b) == "waits for 1 place in slurm: 1 of 1 taken"


def test_memory_is_counted_exactly_though_it_is_grouped_coarsely() -> None:
    yard = Yard(Limits(max_memory=1000))
    a, b = yard.add(memory=500), yard.add(memory=500)
    assert yard.start() == [a, b]
    yard.end(a, b)
    c, d = yard.add(memory=501), yard.add(memory=500)
    assert len(yard.queue.shapes) == 1
    assert yard.start() == [c]
    yard.end(c)
    assert yard.start() == [d]


def test_nothing_local_starts_while_the_disk_is_too_full_or_the_host_too_busy() -> None:
    limits = Limits(min_free_disk=5 * GIB, max_cpu_percent=90)
    yard = Yard(limits, HostFacts(disk_free=3 * GIB, cpu_percent=5))
    local, remote = yard.add(), yard.add(target="slurm")
    assert yard.start() == [remote]
    assert yard.last.recheck
    assert yard.why(local) == "waits for free disk: 3 GiB free, 5 GiB must stay free"
    yard.host = HostFacts(disk_free=30 * GIB, cpu_percent=99)
    assert yard.start() == []
    assert yard.why(local).startswith("waits for the processor: 99 % busy")
    yard.host = HostFacts(disk_free=30 * GIB, cpu_percent=50)
    assert yard.start() == [local]
    assert not yard.last.recheck


def test_limits_that_change_while_jobs_run_are_obeyed_from_then_on() -> None:
    yard = Yard()
    a, b = yard.add(cores=4), yard.add(cores=4)
    waiting = yard.add(cores=2)
    assert yard.start() == [a, b]
    yard.limits = yard.limits.changed({"max_cores": 4})
    yard.end(a)
    assert yard.start() == []
    yard.end(b)
    assert yard.start() == [waiting]
    yard.limits = yard.limits.changed({"max_cores": 16})
    large = yard.add(cores=14)
    assert yard.start() == [large]


def test_a_job_that_became_impossible_holds_up_nobody_and_comes_back() -> None:
    yard = Yard()
    yard.add(cores=8)
    small = [yard.add(cores=2) for _ in range(4)]
    yard.limits = yard.limits.changed({"max_cores": 4})
    assert yard.start() == small[:2]
    assert yard.why(1) == "needs 8 cores but the limit is 4; raise the limit or cancel it"
    yard.end(*small[:2])
    yard.limits = yard.limits.changed({"max_cores": 8})
    yard.policy = Policy(overtake_limit=1)
    assert yard.start() == [1]


def test_jobs_too_large_by_a_little_do_not_hold_up_those_of_their_shape_that_fit() -> None:
    yard = Yard(Limits(max_memory=1000))
    too_large = [yard.add(memory=1010) for _ in range(1000)]
    fits = yard.add(memory=1000)
    also_too_large = yard.add(memory=1010)
    fits_too = yard.add(memory=999)
    assert len(yard.queue.shapes) == 1
    rounds = 0
    while not yard.start():
        assert yard.last.again
        rounds += 1
        assert rounds < 10
    assert yard.last.starts == (fits,)
    yard.end(fits)
    assert yard.start() == [fits_too]
    yard.end(fits_too)
    yard.queue.remove(too_large[3])
    yard.limits = Limits(max_memory=2000)
    assert yard.start(at_most=1) == [too_large[0]]
    yard.queue.remove(also_too_large)
    assert len(yard.queue) == 998
    assert len(yard.queue.heads) == 1


def test_a_decision_can_be_bounded() -> None:
    yard = Yard(Limits())
    ids = [yard.add() for _ in range(5)]
    assert yard.start(at_most=2) == ids[:2]
    assert yard.last.again
    assert yard.start(at_most=3) == ids[2:]
    assert not yard.last.again


small_requests = st.fixed_dictionaries(
    {
        "cores": st.integers(1, 5),
        "memory": st.integers(0, 12),
        "disk": st.sampled_from([0, 0, 3, 7]),
        "gpus": st.sampled_from([0, 0, 0, 1, 2]),
        "licenses": st.sampled_from([(), (), (("hfss", 1),), (("hfss", 2), ("q3d", 1))]),
        "walltime": st.none() | st.integers(1, 20),
        "priority": st.integers(0, 2),
    }
)
some_limits = st.builds(
    Limits,
    max_concurrent_jobs=st.none() | st.integers(0, 4),
    max_cores=st.none() | st.integers(1, 8),
    max_memory=st.none() | st.integers(1, 20),
    min_free_disk=st.none() | st.integers(0, 12),
    gpus=st.integers(0, 2),
    licenses=st.fixed_dictionaries({}, optional={"hfss": st.integers(0, 2), "q3d": st.just(1)}),
)
steps = st.lists(
    st.tuples(st.just("add"), small_requests)
    | st.tuples(st.just("end"), st.integers(0, 10))
    | st.tuples(st.just("remove"), st.integers(0, 10))
    | st.tuples(st.just("limits"), some_limits)
    | st.tuples(st.just("wait"), st.integers(1, 30)),
    max_size=60,
)


@settings(max_examples=300)
@given(steps, some_limits, st.integers(1, 5))
def test_whatever_happens_a_start_never_exceeds_a_limit(
    happenings: Iterable[tuple[str, Any]], limits: Limits, patience: int
) -> None:
    host = HostFacts(disk_total=20, disk_free=12)
    yard = Yard(limits, host, Policy(overtake_limit=patience, reserve_after=25))
    for what, detail in happenings:
        if what == "add":
            yard.add(**detail)
        elif what == "limits":
            yard.limits = detail
        elif what == "wait":
            yard.now += detail
        elif what == "remove" and yard.queue:
            line = yard.queue.in_order()
            yard.queue.remove(line[detail % len(line)])
        elif what == "end" and yard.ledger.grants:
            keys = list(yard.ledger.grants)
            yard.end(int(keys[detail % len(keys)]))
        before = dict(yard.ledger.amounts)
        started = yard.start()
        assert len(started) == len(set(started))
        there = capacity(yard.limits, yard.host)
        for name, used in yard.ledger.amounts.items():
            if used > before.get(name, 0) and name in there:
                assert used <= there[name], name
        gpu_ids = [i for grant in yard.ledger.grants.values() for i in grant.gpu_ids]
        assert len(gpu_ids) == len(set(gpu_ids))
        for job_id in yard.queue.in_order():
            assert yard.why(job_id)
        firsts = [shape.ranking.first for shape in yard.queue.shapes.values()]
        heads = sorted(first for first in firsts if first is not None)
        assert list(yard.queue.heads) == heads


@settings(max_examples=200)
@given(st.lists(small_requests, max_size=25), some_limits)
def test_no_job_is_left_waiting_that_could_start(jobs: list[Any], limits: Limits) -> None:
    host = HostFacts(disk_total=20, disk_free=12)
    yard = Yard(limits, host)
    for job in jobs:
        yard.add(**job)
    yard.start()
    for shape in yard.queue.shapes.values():
        head = shape.ranking.first
        if head is not None and shape.possible:
            assert not yard.ledger.fits(head.request, limits, host)


# -- nobody waits for ever -------------------------------------------------------------


def test_a_large_job_lets_a_bounded_number_of_small_ones_pass() -> None:
    yard = Yard(policy=Policy(overtake_limit=20, reserve_after=math.inf))
    running = [yard.add() for _ in range(8)]
    assert yard.start() == running
    large = yard.add(cores=8)
    passed = 0
    for _ in range(200):
        yard.add()
        yard.end(running.pop(0))
        started = yard.start()
        if large in started:
            break
        passed += len(started)
        running += started
    else:
        pytest.fail("the large job never started")
    assert passed == 20
    assert len(running) == 0


def test_a_large_job_lets_small_ones_pass_for_a_bounded_time() -> None:
    yard = Yard(policy=Policy(overtake_limit=10**9, reserve_after=300))
    running = [yard.add() for _ in range(8)]
    yard.start()
    large = yard.add(cores=8)
    yard.start()
    passing_ended_at = 0.0
    while large in yard.queue:
        yard.now += 10
        yard.add()
        yard.end(running.pop(0))
        started = yard.start()
        if started and started != [large]:
            passing_ended_at = yard.now
        running += started
        assert yard.now < 1000
    assert passing_ended_at == 290


def test_the_limit_of_overtakings_holds_within_one_decision_too() -> None:
    yard = Yard(Limits(max_cores=100), policy=Policy(overtake_limit=20))
    first = yard.add()
    yard.start()
    yard.add(cores=100)
    small = [yard.add() for _ in range(99)]
    assert yard.start() == small[:20]
    assert yard.why(small[20]).startswith("job 2 has waited long and has reserved 100 cores; 1 job")
    yard.end(first)
    assert yard.start() == []


def test_only_what_ends_before_its_turn_or_fits_beside_it_slips_past() -> None:
    yard = Yard(policy=Policy(overtake_limit=0, reserve_after=0))
    until_100 = yard.add(cores=6, walltime=100)
    yard.start()
    large = yard.add(cores=7)
    too_long = yard.add(cores=2, walltime=101)
    endless = yard.add(cores=2)
    ends_before = yard.add(cores=1, walltime=100)
    fits_beside = yard.add(cores=1)
    assert yard.start() == [ends_before, fits_beside]
    assert yard.why(too_long).startswith("waits for 2 cores: 8 of 8 in use by 3 jobs")
    yard.now = 100
    yard.end(until_100, ends_before)
    assert yard.start() == [large]
    assert endless in yard.queue


def test_where_nobody_knows_the_end_only_what_fits_beside_slips_past() -> None:
    yard = Yard(policy=Policy(overtake_limit=0, reserve_after=0))
    wide, first, second = yard.add(cores=6), yard.add(), yard.add()
    assert yard.start() == [wide, first, second]
    large = yard.add(cores=6)
    beside, also_beside, too_many = yard.add(), yard.add(walltime=1), yard.add()
    yard.end(first)
    assert yard.start() == [beside]
    yard.end(second)
    assert yard.start() == [also_beside]
    yard.end(wide)
    assert yard.start() == [large]
    yard.end(beside)
    assert yard.start() == [too_many]


def test_where_nobody_knows_the_end_what_becomes_free_first_is_kept() -> None:
    yard = Yard(policy=Policy(overtake_limit=0, reserve_after=0))
    wide, first, second = yard.add(cores=6), yard.add(), yard.add()
    assert yard.start() == [wide, first, second]
    waiting = yard.add(cores=2)
    yard.add(), yard.add(walltime=1)
    yard.end(first)
    assert yard.start() == []
    yard.end(second)
    assert yard.start() == [waiting]


def test_those_that_slip_past_do_not_move_the_turn_on() -> None:
    yard = Yard(policy=Policy(overtake_limit=0, reserve_after=0))
    endless = yard.add(cores=6)
    assert yard.start() == [endless]
    large = yard.add(cores=6)
    beside = yard.add(cores=1, walltime=1000)
    assert yard.start() == [beside]
    yard.add(cores=1, walltime=10)
    assert yard.start() == [4]
    yard.now = 5
    yard.add(cores=1, walltime=10)
    yard.end(4)
    yard.add(cores=2, walltime=10)
    assert yard.start() == [5]
    yard.end(endless)
    assert yard.start() == [large]


def test_a_reservation_of_licences_leaves_the_cores_to_others() -> None:
    yard = Yard(
        Limits(max_cores=8, licenses={"hfss": 1}), policy=Policy(overtake_limit=0, reserve_after=0)
    )
    holder = yard.add(licenses=(("hfss", 1),))
    yard.start()
    first = yard.add(cores=2, licenses=(("hfss", 1),))
    others = [yard.add(cores=1) for _ in range(20)]
    assert yard.start() == others[:7]
    yard.end(holder)
    # Now it lacks cores, reserves these as well, and nobody takes the licence meanwhile.
    rival = yard.add(licenses=(("hfss", 1),), cores=1)
    assert yard.start() == []
    assert yard.why(rival).startswith("job 2 has waited long and has reserved 2 cores and 1 lic")
    yard.end(others[0])
    assert yard.start() == [first]


def test_waiting_for_the_disk_reserves_nothing() -> None:
    host = HostFacts(disk_total=100 * GIB, disk_free=5 * GIB)
    yard = Yard(host=host, policy=Policy(overtake_limit=0, reserve_after=0))
    needs_disk = yard.add(cores=8, disk=50 * GIB)
    others = [yard.add() for _ in range(8)]
    assert yard.start() == others
    assert yard.last.recheck
    assert "5 GiB free" in yard.why(needs_disk)


def test_higher_priority_may_pass_a_reservation() -> None:
    yard = Yard(policy=Policy(overtake_limit=0, reserve_after=0))
    a, b = yard.add(cores=4), yard.add(cores=4)
    yard.start()
    large = yard.add(cores=8)
    yard.end(a)
    assert yard.start() == []
    urgent = yard.add(cores=4, priority=1)
    assert yard.start() == [urgent]
    yard.end(b, urgent)
    assert yard.start() == [large]


def test_when_the_one_that_reserved_is_cancelled_the_others_go_on() -> None:
    yard = Yard(policy=Policy(overtake_limit=0, reserve_after=0))
    yard.add()
    yard.start()
    large = yard.add(cores=8)
    small = yard.add()
    assert yard.start() == []
    yard.queue.remove(large)
    assert yard.why(small) == "is about to start"
    assert yard.start() == [small]


@dataclass
class Small:
    cores: int
    runs: int
    walltime: int | None


smalls = st.builds(
    lambda cores, runs, slack: Small(cores, runs, None if slack is None else runs + slack),
    st.integers(1, 4),
    st.integers(1, 30),
    st.none() | st.integers(0, 10),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(smalls, min_size=5, max_size=40), st.integers(3, 8), st.integers(0, 10))
def test_a_reserved_turn_comes_when_all_that_ran_before_is_over(
    jobs: list[Small], large_cores: int, patience: int
) -> None:
    """However small jobs keep coming, the large one starts when its turn has come."""
    yard = Yard(policy=Policy(overtake_limit=patience, reserve_after=math.inf))
    over_at: dict[int, float] = {}
    planned: dict[int, Small] = {}
    supply = 0

    def feed() -> None:
        nonlocal supply
        while len(yard.queue) < 8:
            job = jobs[supply % len(jobs)]
            supply += 1
            job_id = yard.add(cores=job.cores, walltime=job.walltime)
            planned[job_id] = job

    def step() -> list[int]:
        feed()
        started = yard.start()
        for job_id in started:
            if job_id in planned:
                over_at[job_id] = yard.now + planned[job_id].runs
        return started

    step()
    large = yard.add(cores=large_cores)
    yard.queue.change(large, priority=0)
    deadline: float | None = None
    for _ in range(3000):
        if large in step():
            return
        stalled = yard.queue.stalled.get(large)
        if deadline is None and stalled is not None and stalled.reserved:
            known = ((yard.ends_by[int(key)], over_at[int(key)]) for key in yard.ledger.grants)
            deadline = max(over if end is None else end for end, over in known)
        if deadline is not None:
            assert yard.now < deadline, "its turn was put off"
        yard.now = min(over_at[int(key)] for key in yard.ledger.grants)
        for key in list(yard.ledger.grants):
            if over_at[int(key)] <= yard.now:
                yard.end(int(key))
    pytest.fail("the large job never started")


# -- heirs of short jobs ---------------------------------------------------------------


def test_short_jobs_of_the_same_request_inherit_in_the_order_of_the_line() -> None:
    yard = Yard()
    running = [yard.add() for _ in range(8)]
    assert yard.start() == running
    ids = [yard.add() for _ in range(5)]
    yard.start()
    assert yard.heirs(3) == ids[:3]
    assert yard.heirs(9) == ids
    assert yard.heirs(0) == []
    assert yard.heirs(3, memory=1) == []
    assert len(yard.queue) == 5


def test_nobody_inherits_past_one_who_waits_for_the_same() -> None:
    yard = Yard()
    running = [yard.add() for _ in range(8)]
    assert yard.start() == running
    before = yard.add()
    yard.add(cores=4)
    yard.add()
    yard.start()
    assert yard.heirs() == [before]
    yard.queue.remove(before)
    assert yard.heirs() == []
    urgent = yard.add(priority=1)
    assert yard.heirs() == [urgent]


def test_one_who_lacks_what_the_running_job_does_not_hold_is_not_overtaken() -> None:
    yard = Yard(Limits(max_cores=2, licenses={"hfss": 1}))
    holder, other = yard.add(licenses=(("hfss", 1),)), yard.add()
    assert yard.start() == [holder, other]
    yard.add(licenses=(("hfss", 1),))
    small = yard.add()
    yard.start()
    assert yard.heirs() == [small]
    assert yard.heirs(licenses=(("hfss", 1),)) == [3]


def test_one_who_just_came_and_would_fit_is_not_overtaken() -> None:
    yard = Yard()
    yard.add()
    yard.start()
    yard.add(cores=2, priority=1)
    yard.add()
    assert yard.heirs() == []


def test_nobody_inherits_past_a_reservation() -> None:
    yard = Yard(Limits(max_cores=8, licenses={"hfss": 1}))
    yard.policy = Policy(overtake_limit=0, reserve_after=0)
    running = [yard.add() for _ in range(7)]
    holder = yard.add(licenses=(("hfss", 1),))
    assert yard.start() == [*running, holder]
    yard.add(cores=4, licenses=(("hfss", 1),))
    yard.add()
    yard.start()
    assert yard.heirs() == []


def test_nobody_inherits_while_a_limit_is_exceeded_or_the_yard_is_closed() -> None:
    yard = Yard()
    running = [yard.add() for _ in range(8)]
    assert yard.start() == running
    heir = yard.add()
    yard.limits = Limits(max_cores=4)
    yard.start()
    assert yard.heirs() == []
    yard.limits = Limits(max_cores=8, min_free_disk=60 * GIB)
    yard.start()
    assert yard.heirs() == []
    yard.limits = Limits(max_cores=8)
    yard.start()
    assert yard.heirs() == [heir]


# -- why a job waits -------------------------------------------------------------------


def test_each_reason_is_said_in_plain_words() -> None:
    limits = Limits(max_cores=8, max_memory=8 * GIB, min_free_disk=5 * GIB, licenses={"hfss": 2})
    yard = Yard(limits, HostFacts(disk_total=100 * GIB, disk_free=10 * GIB))
    for _ in range(3):
        yard.add(cores=2, memory=2 * GIB)
    yard.start()
    reasons: dict[str, dict[str, Any]] = {
        "waits for 3 cores: 6 of 8 in use by 3 jobs": {"cores": 3},
        "waits for 3 GiB of memory: 6 GiB of 8 GiB in use by 3 jobs": {"memory": 3 * GIB},
        "waits for 6 GiB of disk: 10 GiB free, 5 GiB must stay free": {"disk": 6 * GIB},
        "waits for 3 cores: 6 of 8 in use by 3 jobs, "
        "and for 3 GiB of memory: 6 GiB of 8 GiB in use by 3 jobs": {
            "cores": 3,
            "memory": 3 * GIB,
        },
        "needs 9 cores but the limit is 8; raise the limit or cancel it": {"cores": 9},
    }
    for reason, request in reasons.items():
        job = yard.add(**request)
        assert yard.start() == []
        assert yard.why(job) == reason
        yard.queue.remove(job)


def test_the_limit_of_concurrent_jobs_is_named() -> None:
    yard = Yard(Limits(max_concurrent_jobs=2))
    yard.add(), yard.add()
    job, behind = yard.add(), yard.add()
    yard.start()
    assert yard.why(job) == "the limit of 2 concurrent jobs is reached"
    assert yard.why(behind) == (
        "the limit of 2 concurrent jobs is reached; 1 job of the same or higher priority is ahead"
    )


def test_one_who_would_fit_waits_for_its_turn() -> None:
    yard = Yard()
    ids = [yard.add() for _ in range(13)]
    assert yard.why(ids[12]) == (
        "waits for its turn: 12 jobs of the same or higher priority are ahead"
    )
    assert yard.why(ids[0]) == "is about to start"


def test_a_second_job_of_the_last_few_megabytes_waits_for_its_turn() -> None:
    yard = Yard(Limits(max_memory=1000))
    yard.add(memory=495)
    yard.start()
    larger, smaller = yard.add(memory=510), yard.add(memory=500)
    assert yard.start() == []
    assert yard.why(larger).startswith("waits for 510 bytes of memory")
    assert yard.why(smaller).startswith("waits for its turn: 1 job")


# -- cost ------------------------------------------------------------------------------


def test_a_decision_looks_at_shapes_and_starts_not_at_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    yard = Yard(Limits(max_cores=64))
    for number in range(120_000):
        yard.add(cores=1 + number % 4, memory=(number % 5) * GIB)
    assert len(yard.queue.shapes) == 20
    looked_at: list[int] = []
    consider = scheduling._Round._consider

    def counted(self: scheduling._Round, entry: ready_queue.Ready) -> bool:
        looked_at.append(entry.id)
        return consider(self, entry)

    def per_job(*_: object) -> None:
        pytest.fail("the needs of a job were worked out anew")

    monkeypatch.setattr(scheduling._Round, "_consider", counted)
    monkeypatch.setattr(ready_queue, "needs_of", per_job)
    for _ in range(50):
        looked_at.clear()
        started = yard.start()
        assert len(looked_at) <= 20 + len(started)
        yard.end(*(int(key) for key in list(yard.ledger.grants)[:3]))
    looked_at.clear()
    yard.limits = Limits(max_cores=1, max_memory=1)
    yard.start()
    assert len(looked_at) <= 20


def test_a_million_impossible_jobs_cost_two_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    yard = Yard(Limits(max_memory=GIB))
    for _ in range(100_000):
        yard.add(memory=4 * GIB)
    small = yard.add(memory=GIB // 2)
    asked = 0

    def counted(*args: Any, **names: Any) -> str | None:
        nonlocal asked
        asked += 1
        return beyond(*args, **names)

    monkeypatch.setattr(scheduling, "beyond", counted)
    assert yard.start() == [small]
    assert asked <= 4
