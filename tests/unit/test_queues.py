"""Queues of this machine: limits of their own within the whole, and nobody held up by another's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from simyard.errors import InvalidInput
from simyard.handler.job_manager import as_flags
from simyard.scheduler_adapters.contract import ResourceRequest
from simyard.service.model import JobSpec, QueuedRequest
from simyard.service.pending import Waiting, why
from simyard.service.ready_queue import ReadyQueue
from simyard.service.resources import HostFacts, Ledger, Limits, impossible
from simyard.service.scheduling import Policy, decide, successors
from simyard.service.settings import Settings

HOST = HostFacts(cpu_count=8)
LIMITS = Limits.model_validate(
    {
        "max_cores": 8,
        "gpus": 2,
        "queues": {
            "short": {"max_concurrent_jobs": 2, "max_memory": "8 GiB"},
            "long": {"max_cores": 4, "max_gpus": 1},
        },
    }
)


def asked(queue: str | None = None, **fields: Any) -> ResourceRequest:
    return JobSpec.model_validate({"command": ["x"], "queue": queue, **fields}).resource_request()


class Yard:
    def __init__(self, policy: Policy | None = None) -> None:
        self.queue = ReadyQueue()
        self.ledger = Ledger()
        self.requests: dict[int, ResourceRequest] = {}
        self.policy = policy or Policy(overtake_limit=10**9, reserve_after=math.inf)

    def add(self, queue: str | None = None, **fields: Any) -> int:
        number = len(self.requests) + 1
        self.requests[number] = asked(queue, **fields)
        self.queue.add(number, priority=0, age=number, request=self.requests[number])
        return number

    def start(self) -> list[int]:
        decision = decide(self.queue, self.ledger, LIMITS, HOST, now=0.0, policy=self.policy)
        for job in decision.starts:
            self.queue.remove(job)
            self.ledger.grant(str(job), self.requests[job])
        return list(decision.starts)

    def reason(self, job: int) -> str:
        waiting = Waiting(request=self.requests[job])
        return why(self.queue, job, waiting, self.ledger, LIMITS, HOST)


def test_a_full_queue_holds_up_its_own_jobs_and_no_others() -> None:
    yard = Yard()
    jobs = [yard.add("short") for _ in range(4)]
    other, plain = yard.add("long", cores=2), yard.add(cores=2)
    assert yard.start() == [jobs[0], jobs[1], other, plain]
    assert yard.reason(jobs[2]) == "the limit of 2 concurrent jobs of the queue 'short' is reached"
    yard.ledger.release(str(jobs[0]))
    assert yard.start() == [jobs[2]]


def test_every_limit_of_a_queue_is_kept_and_named() -> None:
    yard = Yard()
    assert yard.add("long", cores=3) in yard.start()
    cores = yard.add("long", cores=2)
    assert yard.add("short", memory="6 GiB") in yard.start()
    memory = yard.add("short", memory="3 GiB")
    assert yard.add("long", gpus=1) in yard.start()
    gpu = yard.add("long", gpus=1)
    assert yard.start() == []
    assert "2 cores of the queue 'long': 4 of 4 in use there" in yard.reason(cores)
    assert "3 GiB of memory of the queue 'short': 6 GiB of 8 GiB" in yard.reason(memory)
    assert "1 GPU of the queue 'long': 1 of 1 in use there" in yard.reason(gpu)
    assert yard.ledger.used.queues["long"] == {"jobs": 2, "cores": 4, "gpus": 1}


def test_the_whole_machine_still_bounds_all_queues_together() -> None:
    yard = Yard()
    assert len([yard.add("long", cores=4), yard.add(cores=4)]) == len(yard.start())
    job = yard.add("short")
    assert yard.start() == [] and "waits for 1 core: 8 of 8 in use" in yard.reason(job)


def test_a_job_whose_queue_is_full_keeps_no_cores_from_others() -> None:
    yard = Yard(Policy(overtake_limit=1, reserve_after=0.0))
    first, second = yard.add("short"), yard.add("short")
    assert yard.start() == [first, second]
    big = yard.add("short", cores=8)
    for _ in range(5):
        small = yard.add()
        assert yard.start() == [small]
        yard.ledger.release(str(small))
    assert yard.start() == [] and "queue 'short'" in yard.reason(big)


def test_a_large_job_behind_a_full_queue_is_still_not_starved() -> None:
    yard = Yard(Policy(overtake_limit=2, reserve_after=math.inf))
    yard.add("short"), yard.add("short")
    yard.start()
    yard.add("short")
    large = yard.add(cores=8)
    passed = 0
    for _ in range(20):
        small = yard.add()
        passed += small in yard.start()
    assert passed <= 2, "room is kept for it as if the other queue were not there"
    for key in list(yard.ledger.grants):
        yard.ledger.release(key)
    assert large in yard.start() or "short" in yard.requests[3].queue  # type: ignore[attr-defined]


def test_a_grant_is_inherited_within_one_queue_only() -> None:
    yard = Yard()
    running = yard.add("short")
    second = yard.add("short")
    assert yard.start() == [running, second]
    heir, stranger = yard.add("short"), yard.add("long", cores=4)
    assert stranger in yard.start()
    assert successors(yard.queue, yard.requests[running], 5) == [heir]
    assert successors(yard.queue, asked("long"), 5) == []


def test_what_no_queue_can_ever_hold_is_said() -> None:
    assert impossible(asked("long", cores=4), LIMITS, HOST) is None
    for request, words in (
        (asked("long", cores=5), "needs 5 cores but the limit of the queue 'long' is 4"),
        (asked("long", gpus=2), "needs 2 GPUs but the limit of the queue 'long' is 1"),
        (asked("short", memory="9 GiB"), "but the limit of the queue 'short' is 8 GiB"),
        (asked("gone"), "is for the queue 'gone', which there is not here"),
    ):
        reason = impossible(request, LIMITS, HOST)
        assert reason is not None and words in reason


def test_only_a_job_that_names_a_queue_counts_in_one() -> None:
    assert type(asked()) is ResourceRequest
    assert isinstance(asked("short"), QueuedRequest) and asked("short") != asked("long")


def test_queues_are_settings_in_every_way_settings_are_given(tmp_path: Path) -> None:
    wanted = {"short": {"max_cores": 4, "max_memory": 1 << 30}, "long": {"max_concurrent_jobs": 1}}
    (tmp_path / "settings.toml").write_text(
        '[queues.short]\nmax_cores = 4\nmax_memory = "1 GiB"\n[queues.long]\nmax_concurrent_jobs = 1\n'
    )
    from_file = Settings.load(tmp_path, environ={})
    text = "short:max_cores=4,max_memory=1GiB;long:max_concurrent_jobs=1"
    from_variable = Settings.load(tmp_path / "none", environ={"SIMYARD_QUEUES": text})
    (flag,) = as_flags({"queues": wanted})
    assert flag.startswith("--queues=short:max_cores=4,")
    from_flag = Settings.load(tmp_path / "none", {"queues": flag.partition("=")[2]}, environ={})
    assert from_file.queues == from_variable.queues == from_flag.queues
    assert Limits.from_settings(from_file).queues["short"].max_memory == 1 << 30


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("short", "NAME:LIMIT=N"),
        ("short:max_core=1", "queues.short.max_core"),
        ("short:max_cores=-1", "queues.short.max_cores"),
        ("sh rt:max_cores=1", "queues"),
    ],
)
def test_a_wrong_queue_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Settings.load(tmp_path, {"queues": text}, environ={})


def test_queues_can_be_changed_while_the_service_runs() -> None:
    changed = LIMITS.changed({"queues": {"short": {"max_cores": 1}, "long": None, "new": {}}})
    assert set(changed.queues) == {"short", "new"}
    assert changed.queues["short"].max_cores == 1
    assert changed.queues["short"].max_concurrent_jobs == 2, "the rest stays"
