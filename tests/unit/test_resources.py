from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.errors import InvalidInput
from simyard.scheduler_adapters.contract import ResourceRequest
from simyard.service.resources import (
    HostFacts,
    Ledger,
    Limits,
    below_class,
    closed,
    impossible,
    size_class,
)
from simyard.service.settings import Settings

GIB = 1 << 30
HOST = HostFacts(cpu_count=8, memory_total=16 * GIB, disk_total=100 * GIB, disk_free=50 * GIB)
LIMITS = Limits(max_cores=8, max_memory=16 * GIB, gpus=2, licenses={"hfss": 2})


def request(**fields: Any) -> ResourceRequest:
    return ResourceRequest(**fields)


requests = st.builds(
    ResourceRequest,
    cores=st.integers(1, 8),
    memory=st.integers(0, 8) | st.integers(0, 1 << 50),
    disk=st.integers(0, 1 << 40),
    gpus=st.integers(0, 3),
    licenses=st.dictionaries(st.sampled_from("abc"), st.integers(1, 3)).map(
        lambda counts: tuple(sorted(counts.items()))
    ),
)


@given(st.integers(0, 1 << 60))
def test_a_class_is_at_most_an_eighth_above_its_sizes(size: int) -> None:
    rounded = size_class(size)
    assert size <= rounded <= size + size / 8
    assert size_class(rounded) == rounded
    assert size == 0 or below_class(size) < size
    assert size_class(below_class(size) + 1) == rounded or size == 0
    assert size_class(below_class(size)) < rounded or size == 0


@given(st.lists(st.tuples(st.integers(0, 9), requests), max_size=40))
def test_the_ledger_is_always_the_sum_of_its_grants(steps: list[tuple[int, Any]]) -> None:
    ledger = Ledger()
    for number, wanted in steps:
        key = str(number)
        if ledger.release(key) is None:
            ledger.grant(key, wanted)
        held = [grant.request for grant in ledger.grants.values()]
        used = ledger.used
        assert used.jobs == len(held)
        assert used.cores == sum(item.cores for item in held)
        assert used.memory == sum(item.memory for item in held)
        assert used.disk == sum(item.disk for item in held)
        assert used.gpus == sum(item.gpus for item in held)
        for name in "abc":
            assert used.licenses.get(name, 0) == sum(dict(r.licenses).get(name, 0) for r in held)
        assert all(count > 0 for count in ledger.amounts.values())
        taken = [number for grant in ledger.grants.values() for number in grant.gpu_ids]
        assert len(taken) == len(set(taken)) == used.gpus
        assert all(left >= 0 for left in ledger.free(LIMITS, HOST).values())
    for key in list(ledger.grants):
        ledger.release(key)
    assert not ledger.amounts


def test_gpus_are_given_by_number_and_given_back() -> None:
    ledger = Ledger()
    assert ledger.grant("a", request(gpus=1)).gpu_ids == (0,)
    assert ledger.grant("b", request(gpus=2)).gpu_ids == (1, 2)
    ledger.release("a")
    assert ledger.grant("c", request(gpus=2)).gpu_ids == (0, 3)
    assert ledger.gpu_ids("c") == (0, 3)


def test_a_job_that_runs_already_keeps_its_gpus_when_it_is_taken_up_again() -> None:
    ledger = Ledger()
    ledger.grant("a", request(gpus=1), gpu_ids=(1,))
    assert ledger.grant("b", request(gpus=1)).gpu_ids == (0,)
    assert ledger.grant("c", request(gpus=1)).gpu_ids == (2,)


def test_an_heir_holds_the_very_same_grant() -> None:
    ledger = Ledger()
    ledger.grant("a", request(cores=2, gpus=1))
    ledger.grant("b", request(cores=2, gpus=1))
    ledger.transfer("b", "c")
    assert ledger.gpu_ids("c") == (1,)
    assert ledger.used.cores == 4
    assert ledger.release("b") is None
    with pytest.raises(KeyError):
        ledger.transfer("b", "d")
    with pytest.raises(ValueError, match="holds a grant already"):
        ledger.transfer("a", "c")


def test_nothing_is_granted_twice_to_one_key() -> None:
    ledger = Ledger()
    ledger.grant("a", request())
    with pytest.raises(ValueError, match="'a' holds a grant already"):
        ledger.grant("a", request())


def test_jobs_elsewhere_count_only_their_place_and_licences() -> None:
    ledger = Ledger()
    limits = LIMITS.changed({"targets": {"slurm": {"max_submitted": 1}}})
    wanted = request(cores=500, memory=GIB << 10, licenses=(("hfss", 1),))
    assert ledger.fits(wanted, limits, HOST, target="slurm")
    ledger.grant("a", wanted, target="slurm")
    assert ledger.used.cores == 0
    assert ledger.used.licenses == {"hfss": 1}
    assert not ledger.fits(wanted, limits, HOST, target="slurm")
    assert ledger.fits(wanted, limits, HOST, target="pbs")


def test_what_is_free_follows_the_limits() -> None:
    ledger = Ledger()
    ledger.grant("a", request(cores=6, memory=4 * GIB, licenses=(("hfss", 1),)))
    assert ledger.free(LIMITS, HOST)["cores"] == 2
    assert ledger.fits(request(cores=2), LIMITS, HOST)
    assert not ledger.fits(request(cores=3), LIMITS, HOST)
    assert not ledger.fits(request(licenses=(("hfss", 2),)), LIMITS, HOST)
    assert ledger.free(LIMITS.changed({"max_cores": 4}), HOST)["cores"] == 0
    unlimited = LIMITS.changed({"max_cores": None})
    assert ledger.fits(request(cores=1000), unlimited, HOST)


def test_disk_that_is_promised_is_not_promised_again() -> None:
    ledger = Ledger()
    limits = LIMITS.changed({"min_free_disk": "10 GiB"})
    assert ledger.fits(request(disk=40 * GIB), limits, HOST)
    ledger.grant("a", request(disk=30 * GIB))
    assert not ledger.fits(request(disk=11 * GIB), limits, HOST)
    assert ledger.fits(request(disk=10 * GIB), limits, HOST)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"cores": 16}, "needs 16 cores but the limit is 8; ask for less, or raise the limit"),
        ({"memory": 17 * GIB}, "needs 17 GiB of memory but the limit is 16 GiB; ask"),
        (
            {"memory": 16 * GIB + 1},
            "needs 17179869185 bytes of memory but the limit is 17179869184",
        ),
        ({"gpus": 3}, "needs 3 GPUs but the limit is 2; ask"),
        ({"disk": 200 * GIB}, "needs 200 GiB of disk but the disk has 100 GiB; ask"),
        ({"licenses": (("hfss", 3),)}, "needs 3 licences of hfss but the limit is 2; ask"),
        ({"licenses": (("q3d", 1),)}, "needs 1 licence of q3d but none are counted here; ask"),
    ],
)
def test_what_could_never_be_is_said_in_plain_words(wanted: Any, reason: str) -> None:
    said = impossible(request(**wanted), LIMITS, HOST)
    assert said is not None
    assert said.startswith(reason)


def test_what_is_there_is_possible_even_while_it_is_in_use() -> None:
    full = HostFacts(cpu_count=8, disk_total=100 * GIB, disk_free=0, cpu_percent=100)
    wanted = request(cores=8, memory=16 * GIB, disk=90 * GIB, gpus=2, licenses=(("hfss", 2),))
    assert impossible(wanted, LIMITS.changed({"max_concurrent_jobs": 0}), full) is None


def test_gpus_that_nobody_counts_are_not_there() -> None:
    assert impossible(request(gpus=1), Limits(), HOST) == (
        "needs 1 GPU but none are counted here; ask for less, or raise the limit"
    )


def test_a_full_disk_or_a_busy_host_closes_the_yard() -> None:
    limits = Limits(min_free_disk=5 * GIB, max_cpu_percent=90)
    low = HostFacts(disk_free=3 * GIB, cpu_percent=10)
    assert closed(limits, low) == "waits for free disk: 3 GiB free, 5 GiB must stay free"
    busy = HostFacts(disk_free=9 * GIB, cpu_percent=95.4)
    assert closed(limits, busy) == "waits for the processor: 95 % busy, jobs start below 90 %"
    assert closed(limits, HostFacts(disk_free=5 * GIB, cpu_percent=89)) is None
    assert closed(limits, HostFacts()) is None
    assert closed(Limits(), low) is None


def test_changed_limits_leave_the_others_as_they_are() -> None:
    limits = LIMITS.changed({"max_memory": "4 GiB", "licenses": {"q3d": 1}})
    assert limits.max_memory == 4 * GIB
    assert limits.max_cores == 8
    assert limits.licenses == {"hfss": 2, "q3d": 1}
    assert limits.changed({"licenses": {"hfss": None}}).licenses == {"q3d": 1}
    assert limits.changed({"max_cores": None}).max_cores is None
    assert limits.changed({"max_cores": "unlimited"}).max_cores is None
    assert limits.changed({"gpus": None}).gpus == 0
    assert limits.changed({"licenses": None}).licenses == {}
    slurm = limits.changed({"targets": {"slurm": {"max_submitted": 5}}})
    assert slurm.targets["slurm"].max_submitted == 5
    assert slurm.changed({"targets": {"slurm": None}}).targets == {}
    assert slurm.changed({"targets": {"slurm": {"max_submitted": None}}}) != slurm
    assert limits.changed({}) == limits


def test_the_first_limits_are_those_of_the_settings() -> None:
    settings = Settings(max_cores=3, gpus=1, licenses={"hfss": 2}, min_free_disk=5)
    limits = Limits.from_settings(settings)
    assert (limits.max_cores, limits.gpus, limits.min_free_disk) == (3, 1, 5)
    assert limits.licenses == {"hfss": 2}
    assert limits.max_memory == settings.max_memory


def test_limits_are_the_same_after_a_round_trip() -> None:
    assert Limits().changed(LIMITS.to_wire()) == LIMITS


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        (
            {"max_core": 3},
            "there is no limit 'max_core'; the limits are max_concurrent_jobs, max_c",
        ),
        ({"max_memory": "4 gigs"}, "limit max_memory: '4 gigs' is not an amount of memory"),
        ({"max_cores": 0}, "limit max_cores: input should be greater than or equal to 1"),
        ({"max_cores": "many"}, "limit max_cores: input should be a valid integer"),
        ({"licenses": {"hfss": -1}}, "limit licenses.hfss: "),
        ({"licenses": 3}, "limit licenses: "),
        ({"max_cpu_percent": 101}, "limit max_cpu_percent: "),
    ],
)
def test_wrong_limits_are_refused_by_name(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        LIMITS.changed(changes)
    assert hint in str(caught.value)


def test_what_is_in_use_has_the_shape_of_the_wire() -> None:
    ledger = Ledger()
    ledger.grant("a", request(cores=2, memory=3, disk=4, gpus=1, licenses=(("hfss", 1),)))
    assert ledger.used.to_wire() == {
        "jobs": 1,
        "cores": 2,
        "memory": 3,
        "disk": 4,
        "gpus": 1,
        "licenses": {"hfss": 1},
        "queues": {},
    }
