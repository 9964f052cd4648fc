"""A job is all its processes: cancel, limits and the leader's end leave none behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_yard import Yard, alive

from simyard.scheduler_adapters.contract import Cause, ReportKind
from simyard.scheduler_adapters.launcher import processes

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")

DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
    os._exit(0)
os.wait()
"""
HIDING = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c",
            "import os,time;print(os.getpid(),flush=True);time.sleep(60)"], {})
    while not os.fstat(1).st_size: time.sleep(0.01)
    time.sleep(float(sys.argv[1]))
    os._exit(0)
os.wait()
"""
"""Its daemon has another session and an empty environment, and soon no parent."""


@pytest_asyncio.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    await yard.end_everything()


TREES = {
    "plain": ("sh", "-c", "echo $$; sleep 60"),
    "setsid": ("sh", "-c", "setsid sh -c 'echo $$; sleep 60' & sleep 60"),
    "double-forked": (sys.executable, "-c", DAEMON + "time.sleep(60)"),
    "ignoring SIGTERM": (
        *("sh", "-c"),
        "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait; sleep 60",
    ),
    "stopped": ("sh", "-c", "(echo $$; sleep 60) & kill -STOP $!; echo $!; wait"),
    "stopped leader": ("sh", "-c", "echo $$; kill -STOP $$; sleep 60"),
    "holding a zombie": (
        *(sys.executable, "-c"),
        "import os,time\nif os.fork()==0: os._exit(0)\nprint(os.getpid(),flush=True)\ntime.sleep(60)",
    ),
    "forking on": (
        *("sh", "-c"),
        "echo $$; trap '' TERM; while :; do sleep 0.05 & setsid sleep 60 & sleep 0.02; done",
    ),
}


@pytest.mark.parametrize("shape", TREES)
async def test_a_cancelled_job_leaves_no_process_behind(yard: Yard, shape: str) -> None:
    await yard.open()
    await yard.submit("other", "sleep", "60")
    await yard.submit("a", *TREES[shape])
    pids = [int(word) for word in await yard.word("a")]
    assert alive(pids[0])
    await yard.cancel("a")
    await yard.cancel("a")
    ending = await yard.ending("a")
    assert ending.cause is Cause.CANCELLED
    await yard.cleared("a")
    assert not yard.living("a")
    assert not any(alive(pid) for pid in pids)
    assert len(yard.of("a", ReportKind.ENDED)) == len(yard.of("a", ReportKind.CLEARED)) == 1
    assert yard.living("other")


async def test_a_daemon_that_hides_its_origin_ends_with_the_only_job(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", sys.executable, "-c", HIDING, "0")
    pid = int((await yard.word("a"))[0])
    await yard.cleared("a")
    assert not alive(pid)


async def test_a_daemon_that_hid_too_fast_ends_with_the_last_job_that_may_own_it(
    yard: Yard,
) -> None:
    await yard.open()
    await yard.submit("other", "sleep", "60")
    await yard.report("other", ReportKind.STARTED)
    await yard.submit("a", sys.executable, "-c", HIDING, "0")
    pid = int((await yard.word("a"))[0])
    await yard.cleared("a")
    assert yard.living("other")
    await yard.cancel("other")
    await yard.cleared("other")
    await yard.until(lambda: not alive(pid))


async def test_a_daemon_that_was_seen_below_its_job_ends_with_it(yard: Yard) -> None:
    await yard.open()
    await yard.submit("other", "sleep", "60")
    await yard.report("other", ReportKind.STARTED)
    await yard.submit("a", sys.executable, "-c", HIDING + "time.sleep(60)", "2.5")
    pid = int((await yard.word("a"))[0])
    launcher = yard.note_launcher()

    def orphaned() -> bool:
        process = processes.read_process(pid)
        return process is not None and process.ppid == launcher

    await yard.until(orphaned)
    await yard.cancel("a")
    await yard.cleared("a")
    assert not alive(pid)
    assert yard.living("other")


async def test_the_leaders_exit_ends_what_it_left_behind(yard: Yard) -> None:
    await yard.open()
    await yard.submit(
        "a", "sh", "-c", "(trap '' TERM; while :; do sleep 1; done) & echo $!; exit 3"
    )
    await yard.submit("b", sys.executable, "-c", DAEMON)
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code) == (Cause.OWN, 3)
    for name in ("a", "b"):
        pid = int((await yard.word(name))[0])
        await yard.cleared(name)
        assert not alive(pid)


async def test_what_is_polite_gets_the_grace_it_was_promised(yard: Yard) -> None:
    await yard.open()
    script = "trap 'sleep 0.5; echo saved; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    await yard.submit("a", "sh", "-c", script, grace=20)
    await yard.word("a")
    await yard.cancel("a")
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code) == (Cause.CANCELLED, 0)
    assert "saved" in yard.out("a")


async def test_a_stopped_job_hears_the_polite_signal(yard: Yard) -> None:
    await yard.open()
    script = "trap 'echo heard; exit 4' TERM; kill -STOP $$; sleep 60"
    await yard.submit("a", "sh", "-c", script, grace=60)

    def stopped() -> bool:
        started = yard.of("a", ReportKind.STARTED)
        process = processes.read_process(int(started[0].native_id or 0)) if started else None
        return process is not None and process.state == "T"

    await yard.until(stopped)
    await yard.cancel("a")
    assert (await yard.ending("a")).exit_code == 4
    assert yard.out("a") == "heard\n"


async def test_a_second_cancel_may_shorten_the_grace(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done", grace=60)
    await yard.report("a", ReportKind.STARTED)
    await yard.cancel("a")
    await yard.cancel("a", grace=0)
    assert (await yard.ending("a")).signal == signal.SIGKILL
    await yard.cleared("a")


async def test_one_jobs_end_does_not_touch_the_daemon_of_another(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", sys.executable, "-c", DAEMON + "time.sleep(60)")
    pid = int((await yard.word("a"))[0])
    for number in range(20):
        await yard.submit(f"j{number}", "true")
        await yard.cleared(f"j{number}")
    await yard.submit("b", "sh", "-c", "sleep 60 & exit 0")
    await yard.cleared("b")
    assert alive(pid)
    await yard.cancel("a")
    await yard.cleared("a")
    assert not alive(pid)


async def test_walltime_is_kept_with_no_manager(yard: Yard) -> None:
    await yard.open()
    script = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    await yard.submit("a", "sh", "-c", script, walltime=1.0)
    await yard.submit("short", "sleep", "60", walltime=0.2)
    assert (await yard.ending("short")).cause is Cause.TIMEOUT
    pid = int((await yard.word("a"))[0])
    await yard.close()
    await yard.until(lambda: not alive(pid))
    await yard.open()
    ending = await yard.ending("a")
    assert ending.cause is Cause.TIMEOUT
    assert ending.signal == signal.SIGKILL
    assert 1.0 <= ending.usage.wall_seconds < 6.0


async def test_a_job_over_its_memory_is_ended(yard: Yard) -> None:
    await yard.open()
    hog = "x=[]\nimport time\nwhile len(x)<40: x.append(bytearray(10<<20)); time.sleep(0.05)\n"
    await yard.submit("a", sys.executable, "-c", hog + "time.sleep(30)", memory=150 << 20)
    await yard.submit("b", sys.executable, "-c", "x=bytearray(50<<20)\nimport time;time.sleep(1)",
                      memory=150 << 20)  # fmt: skip
    ending = await yard.ending("a")
    assert ending.cause is Cause.OUT_OF_MEMORY
    assert ending.usage.max_rss_bytes > 150 << 20
    assert (await yard.ending("b")).exit_code == 0


async def test_memory_that_workers_share_counts_once(yard: Yard) -> None:
    await yard.open()
    code = "import os,time\nx=bytearray(b'x')*(100<<20)\n"
    code += "pids=[os.fork() for _ in range(1)]\nif 0 in pids: time.sleep(1.2); os._exit(0)\n"
    code += "p=os.fork()\nif p==0: time.sleep(1.2); os._exit(0)\nos.wait(); os.wait()"
    await yard.submit("a", sys.executable, "-c", code, memory=200 << 20)
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code) == (Cause.OWN, 0)


async def test_memory_of_the_whole_tree_counts(yard: Yard) -> None:
    await yard.open()
    child = "import time; x=bytearray(80<<20); time.sleep(30)"
    script = f"for i in 1 2 3; do setsid {sys.executable} -c '{child}' & done; wait"
    await yard.submit("a", "sh", "-c", script, memory=180 << 20)
    assert (await yard.ending("a")).cause is Cause.OUT_OF_MEMORY
    await yard.cleared("a")
    assert not yard.living("a")


async def test_a_job_over_its_output_limit_is_ended(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "yes >&2", output_limit=1 << 20)
    ending = await yard.ending("a")
    assert ending.cause is Cause.OUTPUT_LIMIT
    await yard.cleared("a")


async def test_usage_is_sampled_over_the_life_of_longer_jobs_only(yard: Yard) -> None:
    usage = yard.home / "out" / "usage.jsonl"
    brief = yard.home / "out" / "brief.jsonl"
    await yard.open()
    burn = "import time\nx=bytearray(30<<20)\nwhile time.process_time()<1.5: pass\ntime.sleep(2.5)"
    began = time.monotonic()
    await yard.submit("a", sys.executable, "-c", burn, usage_path=str(usage))
    await yard.submit("b", "sleep", "0.5", usage_path=str(brief))
    await yard.ending("a")
    samples = [json.loads(line) for line in usage.read_text().splitlines()]
    assert 1 <= len(samples) <= time.monotonic() - began + 1
    assert samples[-1]["cpu"] >= 1.0
    assert samples[-1]["rss"] > 30 << 20
    assert samples[-1]["procs"] == 1
    assert [sample["t"] for sample in samples] == sorted(sample["t"] for sample in samples)
    assert samples[0]["t"] >= 2
    assert not brief.exists()


async def test_limits_hold_after_the_sampler_was_killed(yard: Yard) -> None:
    await yard.open()
    hog = "x=[]\nimport time,os\nwhile not os.path.exists('go'): time.sleep(0.05)\n"
    hog += "while len(x)<40: x.append(bytearray(10<<20)); time.sleep(0.05)\ntime.sleep(60)"
    await yard.submit("a", sys.executable, "-c", hog, memory=150 << 20)
    await yard.report("a", ReportKind.STARTED)
    launcher = yard.note_launcher()

    def samplers() -> list[int]:
        text = Path(f"/proc/{launcher}/task/{launcher}/children").read_text()
        leader = int(yard.of("a", ReportKind.STARTED)[0].native_id or 0)
        return [int(word) for word in text.split() if int(word) != leader]

    first = (await yard.until(samplers))[0]
    os.kill(first, signal.SIGKILL)
    await yard.until(lambda: samplers() and first not in samplers())
    (yard.home / "out" / "go").touch()
    assert (await yard.ending("a")).cause is Cause.OUT_OF_MEMORY
