"""The launcher is killed: what lives is adopted, what ended is not called a success."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_yard import Yard, alive

from simyard.scheduler_adapters.contract import Cause, KnownAttempt, ReportKind
from simyard.scheduler_adapters.launcher import processes

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc"),
]


@pytest_asyncio.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    await yard.end_everything()


def kernel_keeps_exit_codes() -> bool:
    """True where a pidfd tells how a process ended that somebody else reaped."""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 5"], {})
    descriptor = os.pidfd_open(child)
    os.waitpid(child, 0)
    try:
        return processes.pidfd_status(descriptor) == 5 << 8
    finally:
        os.close(descriptor)


async def test_jobs_survive_the_kill_of_the_manager_and_are_told_to_the_next(yard: Yard) -> None:
    script = f"""
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from local_yard import Yard
async def main():
    yard = Yard(Path({str(yard.home)!r}))
    await yard.open()
    for n in range(5):
        await yard.submit(f"j{{n}}", "sh", "-c", f"sleep 0.6; echo out{{n}}; exit {{n}}")
    for n in range(5):
        await yard.report(f"j{{n}}", __import__("simyard.scheduler_adapters.contract",
            fromlist=["x"]).ReportKind.STARTED)
    print("running", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as manager:
        assert manager.stdout is not None
        assert manager.stdout.readline() == b"running\n"
        manager.kill()
    await yard.until(lambda: all(yard.out(f"j{n}") == f"out{n}\n" for n in range(5)))
    yard.epoch = 1
    await yard.open()
    for number in range(5):
        assert (await yard.ending(f"j{number}")).exit_code == number
    assert len([r for r in yard.reports if r.kind is ReportKind.ENDED]) == 5


async def test_running_jobs_are_adopted_and_their_exit_codes_found(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 9")
    await yard.submit("b", "sleep", "60")
    await yard.submit("c", "sleep", "60", walltime=2.5)
    for name in "abc":
        await yard.report(name, ReportKind.STARTED)
    dead = yard.kill_launcher()
    await yard.until(lambda: yard.adapter and yard.adapter.launcher_pid not in (None, dead))
    (yard.home / "out" / "go").touch()
    ending = await yard.ending("a")
    if kernel_keeps_exit_codes():
        assert (ending.cause, ending.exit_code) == (Cause.OWN, 9)
    else:
        assert (ending.cause, ending.exit_code) == (Cause.LOST, None)
    await yard.cancel("b")
    assert (await yard.ending("b")).cause is Cause.CANCELLED
    ending = await yard.ending("c")
    assert ending.cause is Cause.TIMEOUT
    assert ending.usage.wall_seconds >= 2.5
    for name in "abc":
        await yard.cleared(name)
        assert not yard.living(name)
        assert len(yard.of(name, ReportKind.STARTED)) == 1
        assert len(yard.of(name, ReportKind.ENDED)) == 1


async def test_a_cancel_is_carried_out_by_the_next_launcher(yard: Yard) -> None:
    await yard.open()
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    await yard.submit("a", "sh", "-c", script)
    await yard.word("a")
    await yard.cancel("a", grace=1.5)
    dead = yard.kill_launcher()
    await yard.until(lambda: yard.adapter and yard.adapter.launcher_pid not in (None, dead))
    assert (await yard.ending("a")).cause is Cause.CANCELLED
    await yard.cleared("a")
    assert not yard.living("a")


async def test_an_adopted_tree_is_ended_whole(yard: Yard) -> None:
    await yard.open()
    await yard.submit(
        "a", "sh", "-c", "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait"
    )
    pid = int((await yard.word("a"))[0])
    dead = yard.kill_launcher()
    await yard.until(lambda: yard.adapter and yard.adapter.launcher_pid not in (None, dead))
    await yard.cancel("a")
    await yard.cleared("a")
    assert not alive(pid)


async def test_what_ended_while_no_launcher_lived_is_lost_never_a_success(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "setsid sleep 60 & while [ ! -e go ]; do sleep 0.05; done")
    await yard.report("a", ReportKind.STARTED)
    leader = int(yard.of("a", ReportKind.STARTED)[0].native_id or 0)
    pid = yard.kill_launcher()
    await yard.close()
    await yard.until(lambda: not alive(pid))
    (yard.home / "out" / "go").touch()
    await yard.until(lambda: not Path(f"/proc/{leader}").exists())
    known = [KnownAttempt(tag=yard.tag("a"), native_id=str(leader), claimed_only=False)]
    await yard.open(known=known)
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code) == (Cause.LOST, None)
    await yard.cleared("a")
    assert not yard.living("a")


async def test_what_waited_in_a_killed_launcher_is_withdrawn(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sleep", "60")
    await yard.submit("b", "touch", "b.ran", after="a")
    await yard.report("a", ReportKind.STARTED)
    yard.kill_launcher()
    await yard.report("b", ReportKind.WITHDRAWN)
    await yard.cancel("a")
    await yard.cleared("a")
    assert not (yard.home / "out" / "b.ran").exists()


async def test_a_foreign_process_with_a_recorded_pid_is_neither_adopted_nor_killed(
    yard: Yard,
) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as foreign:
        try:
            facts = processes.read_process(foreign.pid)
            assert facts is not None
            tag = yard.tag("old")
            yard.write_generation(
                1,
                {"r": "launcher", "t": 1.0, "pid": 1, "boot": processes.boot_id()},
                {"r": "starting", "tag": tag, "t": 1.0},
                {
                    "r": "started",
                    "tag": tag,
                    "t": 1.0,
                    "pid": foreign.pid,
                    "start": facts.start - 1,
                    "boot": processes.boot_id(),
                },
            )
            await yard.open()
            assert (await yard.ending("old")).cause is Cause.LOST
            await yard.cleared("old")
            await yard.cancel("old", grace=0)
            await yard.submit("a", "true")
            await yard.cleared("a")
            assert foreign.poll() is None
        finally:
            foreign.kill()


async def test_what_ran_before_a_restart_of_the_host_is_interrupted(yard: Yard) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as foreign:
        try:
            facts = processes.read_process(foreign.pid)
            assert facts is not None
            yard.write_generation(
                1,
                {"r": "launcher", "t": 1.0, "pid": 1, "boot": "another"},
                {"r": "starting", "tag": yard.tag("begun"), "t": 1.0},
                {"r": "starting", "tag": yard.tag("ran"), "t": 1.0},
                {
                    "r": "started",
                    "tag": yard.tag("ran"),
                    "t": 1.0,
                    "pid": foreign.pid,
                    "start": facts.start,
                    "boot": "another",
                },
            )
            await yard.open()
            assert (await yard.ending("ran")).cause is Cause.INTERRUPTED
            assert (await yard.ending("begun")).cause is Cause.INTERRUPTED
            assert foreign.poll() is None
        finally:
            foreign.kill()


async def test_a_start_without_its_record_is_found_by_the_tag(yard: Yard) -> None:
    environment = {**os.environ, "SIMYARD_TAG": yard.tag("a")}
    with subprocess.Popen(
        ["sh", "-c", "sleep 1; exit 4"], env=environment, start_new_session=True
    ) as orphan:
        yard.write_generation(
            1,
            {"r": "launcher", "t": 1.0, "pid": 1, "boot": processes.boot_id()},
            {"r": "starting", "tag": yard.tag("a"), "t": 1.0, "grace": 0.3},
            {"r": "starting", "tag": yard.tag("gone"), "t": 1.0, "grace": 0.3},
        )
        await yard.open()
        assert (await yard.report("a", ReportKind.STARTED)).native_id == str(orphan.pid)
        assert (await yard.ending("gone")).cause is Cause.LOST
        # We are its parent here; it stays a zombie whose status the kernel still shows.
        assert (await yard.ending("a")).exit_code == 4


async def test_a_torn_last_record_is_left_out(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "exit 6")
    await yard.ending("a")
    yard.kill_launcher()
    await yard.close()
    newest = max((yard.home / "launcher").glob("*.log"))
    with newest.open("a") as file:
        file.write('{"r":"ended","tag":"')
    yard.cursor, yard.reports = None, []
    await yard.open(cursor="0:0")
    assert [r.ending.exit_code for r in yard.of("a", ReportKind.ENDED) if r.ending] == [6]
    await yard.submit("b", "true")
    assert (await yard.ending("b")).exit_code == 0


POINTS = [
    "launcher.recorded-starting",
    "launcher.spawned",
    "launcher.recorded-started",
    "launcher.reaped",
    "launcher.recorded-ended",
]


@pytest.mark.parametrize("passing", [1, 2, 3])
@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_any_point_no_job_runs_twice_and_none_ends_falsely(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, point: str, passing: int
) -> None:
    monkeypatch.setenv("SIMYARD_FAULTPOINT", f"{point}:{passing}")
    await yard.open()
    monkeypatch.delenv("SIMYARD_FAULTPOINT")
    first = yard.note_launcher()
    names = [f"j{number}" for number in range(4)]
    for number, name in enumerate(names):
        await yard.submit(
            name,
            *("sh", "-c", f"echo ran >> {name}.ran; exit {number + 10}"),
            after=names[number - 1] if number else None,
        )
    over = (ReportKind.CLEARED, ReportKind.WITHDRAWN)
    await yard.until(lambda: all(any(r.kind in over for r in yard.of(name)) for name in names))
    assert not alive(first)
    for number, name in enumerate(names):
        ran = yard.home / "out" / f"{name}.ran"
        runs = ran.read_text().count("ran") if ran.exists() else 0
        ends = yard.of(name, ReportKind.ENDED)
        if yard.of(name, ReportKind.WITHDRAWN):
            assert runs == 0
            assert not ends
        else:
            assert runs <= 1
            assert len(ends) == 1
            ending = ends[0].ending
            assert ending is not None
            assert (ending.cause, ending.exit_code) in (
                (Cause.OWN, number + 10),
                (Cause.LOST, None),
            )
        assert not yard.living(name)


async def test_a_launcher_killed_again_and_again_keeps_what_lives(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; exit 3")
    await yard.report("a", ReportKind.STARTED)
    for _ in range(3):
        dead = yard.kill_launcher()
        await yard.until(lambda: yard.adapter and yard.adapter.launcher_pid not in (None, dead))  # noqa: B023
    assert len(yard.living("a")) >= 1
    (yard.home / "out" / "go").touch()
    ending = await yard.ending("a")
    assert ending.exit_code == (3 if kernel_keeps_exit_codes() else None)
    assert len(yard.of("a", ReportKind.ENDED)) == 1
    assert len(yard.of("a", ReportKind.STARTED)) == 1


async def test_the_launcher_does_not_listen_to_hangups_and_interrupts(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "sleep 0.5; exit 2")
    pid = yard.note_launcher()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    assert (await yard.ending("a")).exit_code == 2
    assert alive(pid)


async def test_no_job_starts_while_the_disk_is_full_and_all_do_afterwards(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    # A limit of the file size stands for the full disk: the write fails in the same way.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    await yard.open()
    pid = yard.note_launcher()
    await yard.submit("a", "sleep", "60")
    await yard.report("a", ReportKind.STARTED)
    size = max((yard.home / "launcher").glob("*.log")).stat().st_size
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 10, hard))
    await yard.submit("b", "touch", "b.ran")
    await yard.until(lambda: "cannot be written" in yard.log())
    assert yard.adapter is not None
    for _ in range(3):
        # Each answer is a turn of the launcher in which it might have started the job.
        await yard.adapter.withdraw(["nothing"])
    assert not (yard.home / "out" / "b.ran").exists()
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
    began = time.monotonic()
    assert (await yard.ending("b")).exit_code == 0
    assert time.monotonic() - began < 5
    await yard.cancel("a")
    await yard.cleared("a")


async def test_a_job_older_than_many_generations_of_records_is_still_adopted(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMYARD_LAUNCHER_GENERATION", "3000")
    await yard.open()
    await yard.submit(
        "a", "sh", "-c", "while [ ! -e go ]; do sleep 0.05; done; sleep 60", walltime=4
    )
    await yard.submit("b", "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", grace=60)
    await yard.report("b", ReportKind.STARTED)
    await yard.cancel("b")
    for number in range(60):
        await yard.submit(f"j{number}", "true")
        await yard.cleared(f"j{number}")
    newest = max(int(file.stem) for file in (yard.home / "launcher").glob("*.log"))
    assert newest >= 3
    assert yard.adapter is not None
    await yard.adapter.forget_before(f"{newest}:0")
    dead = yard.kill_launcher()
    await yard.until(lambda: yard.adapter and yard.adapter.launcher_pid not in (None, dead))
    await yard.cancel("b", grace=0)
    await yard.cleared("b")
    ending = await yard.ending("a")
    assert ending.cause is Cause.TIMEOUT
    assert ending.usage.wall_seconds >= 4
    for name in ["a", "b", *(f"j{number}" for number in range(60))]:
        assert len(yard.of(name, ReportKind.STARTED)) == 1
        assert len(yard.of(name, ReportKind.ENDED)) == 1


async def test_attempts_are_still_told_of_when_the_records_were_removed(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sleep", "60")
    await yard.report("a", ReportKind.STARTED)
    for number in range(3):
        await yard.submit(f"j{number}", "true")
        await yard.cleared(f"j{number}")
    pid = yard.kill_launcher()
    await yard.close()
    await yard.until(lambda: not alive(pid))
    for file in (yard.home / "launcher").glob("*.log"):
        file.unlink()
    known = [
        KnownAttempt(tag=yard.tag("a"), native_id="1", claimed_only=False),
        KnownAttempt(tag=yard.tag("gone"), native_id="1", claimed_only=False),
    ]
    yard.reports.clear()
    await yard.open(known=known)
    assert (await yard.ending("gone")).cause is Cause.LOST
    assert not yard.of("a", ReportKind.ENDED)
    await yard.cancel("a")
    assert (await yard.ending("a")).cause is Cause.CANCELLED
    await yard.cleared("a")
    assert not yard.living("a")
