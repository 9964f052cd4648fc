"""Jobs in cgroups of their own, with the kernel's real hierarchy; skipped where there is none of ours.

Where no memory controller can be had, the launcher is a copy that asks for another one, or
for none: everything but the limit itself is then as it is.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_yard import Yard, alive

from simyard.scheduler_adapters import launcher_link
from simyard.scheduler_adapters.contract import Cause, ReportKind
from simyard.scheduler_adapters.launcher.cgroup import Cgroup, folder_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs cgroups")

HIDING = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        os.execve("/bin/sleep", ["sleep", "60"], {})
    os._exit(0)
os.wait()
time.sleep(60)
"""


def new_folder(*, memory: bool = False) -> Path:
    """Make a cgroup beside or above our own, with the memory controller where it is wanted."""
    own = folder_of(os.getpid())
    if own is None:
        pytest.skip("there is no cgroup hierarchy of version 2")
    for parent in [Path(own), *Path(own).parents]:
        if not (parent / "cgroup.procs").exists():
            break
        if memory and "memory" not in (parent / "cgroup.subtree_control").read_text().split():
            continue
        folder = parent / f"simyard-test-{uuid.uuid4().hex[:8]}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            return folder
    pytest.skip("no cgroup may be made here" + (" with a limit of memory" if memory else ""))


def remove(folder: Path) -> None:
    if (folder / "cgroup.kill").exists():
        (folder / "cgroup.kill").write_text("1")
    for place, _, _ in os.walk(folder, topdown=False):
        for _try in range(200):
            with contextlib.suppress(OSError):
                os.rmdir(place)
            if not os.path.exists(place):
                break
            subprocess.run(["sleep", "0.01"], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = new_folder()
    if not (folder / "cgroup.kill").exists():
        remove(folder)
        pytest.skip("cgroup.kill needs Linux 5.14")
    yield folder
    remove(folder)


@pytest.fixture
def with_memory() -> Iterator[Path]:
    folder = new_folder(memory=True)
    with contextlib.suppress(OSError):
        os.setxattr(folder, "user.delegate", b"1")
    yield folder
    remove(folder)


def inside(yard: Yard, folder: Path) -> None:
    """Have the launchers of `yard` begin in the cgroup `folder`, as under a manager that does."""
    wrapper = yard.home / "python-inside"
    wrapper.write_text(
        "#!/bin/sh\n"
        f"(echo $$ >{folder}/simyard-launcher/cgroup.procs || echo $$ >{folder}/cgroup.procs)"
        ' 2>/dev/null\nexec "$REAL_PYTHON" "$@"\n'.replace("$REAL_PYTHON", sys.executable)
    )
    wrapper.chmod(0o755)
    yard.python = str(wrapper)


@pytest_asyncio.fixture
async def yard(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Yard]:
    """Its launchers do without the limit, but with everything around it."""
    copy = tmp_path / "scheduler_adapters" / "launcher"
    shutil.copytree(
        launcher_link.PROGRAM, copy, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    controllers = (folder / "cgroup.controllers").read_text().split()
    with (copy / "cgroup.py").open("a") as file:
        file.write("\n\nCgroup.limit = lambda self, memory: True\n")
        oom = f"os.path.exists({str(tmp_path / 'oom')!r})"
        file.write(f"Cgroup.oom_kills = lambda self: int({oom})\n")
        if controllers:
            file.write(f"CONTROLLER = {controllers[0]!r}\n_is_ours = lambda root: True\n")
        else:
            file.write(f"take_delegated = lambda companions: {str(folder)!r}\n")
    monkeypatch.setattr(launcher_link, "PROGRAM", copy)
    yard = Yard(tmp_path)
    inside(yard, folder)
    yield yard
    await yard.end_everything()


def jobs_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("simyard-job-*"))


def test_killing_a_cgroup_ends_who_hides_from_everything_else(folder: Path) -> None:
    cgroup = Cgroup(str(folder / "simyard-job-x"))
    os.mkdir(cgroup.folder)
    assert not cgroup.populated()
    child = subprocess.Popen(
        ["sh", "-c", "read go; exec " + sys.executable + ' -c "$0"', HIDING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    with child, child.stdin, child.stdout:
        assert cgroup.enter(child.pid)
        child.stdin.write(b"\n")
        child.stdin.flush()
        hidden = int(child.stdout.readline())
        assert cgroup.populated()
        assert not cgroup.remove()
        assert folder_of(hidden) == cgroup.folder
        assert cgroup.kill()
        assert child.wait(10) == -9
        for _ in range(500):
            if not cgroup.populated():
                break
            subprocess.run(["sleep", "0.01"], check=True)
        assert not alive(hidden)
        assert cgroup.remove()
        assert not cgroup.enter(child.pid)


async def test_a_job_that_states_memory_lives_in_a_cgroup_and_leaves_nothing(
    yard: Yard, folder: Path
) -> None:
    await yard.open()
    await yard.submit("a", sys.executable, "-c", HIDING, memory=1 << 30)
    await yard.submit("b", "sleep", "60")
    hidden = int((await yard.word("a"))[0])
    await yard.report("b", ReportKind.STARTED)
    leader = int(yard.of("a", ReportKind.STARTED)[0].native_id or 0)
    other = int(yard.of("b", ReportKind.STARTED)[0].native_id or 0)
    (made,) = jobs_in(folder)
    assert folder_of(leader) == folder_of(hidden) == str(made)
    assert folder_of(other) != str(made)
    if (folder / "cgroup.controllers").read_text().split():
        # It arranged the folder as the kernel demands: nobody lives where controllers are given on.
        assert folder_of(other) == folder_of(yard.note_launcher()) == f"{folder}/simyard-launcher"
        assert f"limited by the kernel, below {folder}" in yard.log()
    await yard.cancel("a", "b", grace=0.1)
    await yard.cleared("a")
    assert (await yard.ending("a")).cause is Cause.CANCELLED
    assert not alive(hidden)
    await yard.until(lambda: not jobs_in(folder))
    assert "unexpected" not in yard.log()


async def test_what_a_leader_leaves_in_its_cgroup_is_ended_and_then_the_tree_is_clear(
    yard: Yard, folder: Path
) -> None:
    await yard.open()
    await yard.submit("other", "sleep", "60")  # it might be the one that made who hides
    await yard.report("other", ReportKind.STARTED)
    leave = HIDING.replace("time.sleep(60)", "raise SystemExit(3)")
    await yard.submit("a", sys.executable, "-c", leave, memory=1 << 30)
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code) == (Cause.OWN, 3)
    hidden = int((await yard.word("a"))[0])
    await yard.cleared("a")
    assert not alive(hidden)
    told = [record["r"] for record in yard.records() if record.get("tag") == yard.tag("a")]
    assert told == ["starting", "started", "ended", "cleared"]
    await yard.until(lambda: not jobs_in(folder))


async def test_the_count_of_its_own_cgroup_tells_whether_a_kill_was_for_memory(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "kill -KILL $$", memory=1 << 30)
    assert (await yard.ending("a")).cause is Cause.OWN
    (yard.home / "oom").touch()
    await yard.submit("b", "sh", "-c", "kill -KILL $$", memory=1 << 30)
    await yard.submit("c", "sh", "-c", "exit 3", memory=1 << 30)
    assert (await yard.ending("b")).cause is Cause.OUT_OF_MEMORY
    assert (await yard.ending("c")).cause is Cause.OWN


async def test_a_job_that_cannot_start_leaves_no_cgroup(yard: Yard, folder: Path) -> None:
    await yard.open()
    await yard.submit("a", "/no/such/program", memory=1 << 30)
    assert (await yard.ending("a")).cause is Cause.START_FAILED
    await yard.until(lambda: not jobs_in(folder))


async def test_the_next_launcher_takes_over_the_cgroup_of_what_lives(
    yard: Yard, folder: Path
) -> None:
    await yard.open()
    await yard.submit("a", sys.executable, "-c", HIDING, memory=1 << 30)
    hidden = int((await yard.word("a"))[0])
    await yard.report("a", ReportKind.STARTED)
    dead = yard.kill_launcher()
    await yard.until(lambda: yard.adapter and yard.adapter.launcher_pid not in (None, dead))
    assert len(jobs_in(folder)) == 1
    await yard.cancel("a", grace=0.1)
    await yard.cleared("a")
    assert not alive(hidden)
    await yard.until(lambda: not jobs_in(folder))


async def test_who_hid_from_a_killed_launcher_is_ended_by_the_next(
    yard: Yard, folder: Path
) -> None:
    await yard.open()
    await yard.submit("a", sys.executable, "-c", HIDING, memory=1 << 30)
    hidden = int((await yard.word("a"))[0])
    leader = int((await yard.report("a", ReportKind.STARTED)).native_id or 0)
    os.kill(yard.note_launcher(), 19)  # it must not see the end of the leader
    os.kill(leader, 9)
    yard.kill_launcher()
    await yard.ending("a")
    await yard.cleared("a")
    assert not alive(hidden)
    await yard.until(lambda: not jobs_in(folder))


async def test_the_kernel_ends_a_job_that_takes_too_much_at_once(
    tmp_path: Path, with_memory: Path
) -> None:
    yard = Yard(tmp_path)
    inside(yard, with_memory)
    try:
        await yard.open()
        took = "import os\nx = bytearray(1 << 30)\nprint('all of it', flush=True)"
        await yard.submit("a", sys.executable, "-c", took, memory=100 << 20)
        ending = await yard.ending("a")
        assert (ending.cause, ending.signal) == (Cause.OUT_OF_MEMORY, 9)
        assert yard.out("a") == ""
        await yard.submit("b", "sh", "-c", "kill -KILL $$", memory=100 << 20)
        assert (await yard.ending("b")).cause is Cause.OWN
        await yard.until(lambda: not jobs_in(with_memory))
    finally:
        await yard.end_everything()
