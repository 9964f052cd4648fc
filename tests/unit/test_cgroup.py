"""Cgroups of jobs, against a folder that imitates the kernel's hierarchy and its rules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simyard.scheduler_adapters.launcher import cgroup
from simyard.scheduler_adapters.launcher.cgroup import Cgroup, Cgroups
from simyard.scheduler_adapters.launcher.timers import Timers

HYBRID = """\
24 30 0:22 / /proc rw,nosuid - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/uni\\040fied rw,relatime shared:4 master:2 - cgroup2 cgroup2 rw
"""


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/user.slice/user-1000.slice/a.scope\n", "/user.slice/user-1000.slice/a.scope"),
        ("9:name=systemd:/\n4:memory:/x\n0::/\n", "/"),
        ("0::/a b:c/d\n", "/a b:c/d"),
        ("4:memory:/x\n1:cpu:/\n", None),
        ("0::/gone (deleted)\n", None),
        ("", None),
    ],
)
def test_the_own_path_is_that_of_version_2(text: str, path: str | None) -> None:
    assert cgroup.parse_cgroup(text) == path


@pytest.mark.parametrize(
    ("mount", "path", "folder"),
    [
        (HYBRID, "/", "/sys/fs/cgroup/uni fied"),
        (HYBRID, "/a/b", "/sys/fs/cgroup/uni fied/a/b"),
        (HYBRID, "/../elsewhere", None),
        ("31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n", "/a", None),
        ("41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "/box/a", "/sys/fs/cgroup/a"),
        ("41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "/box", "/sys/fs/cgroup"),
        ("41 31 0:38 /box /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "/boxes/a", None),
        ("", "/a", None),
    ],
)
def test_the_folder_is_found_through_the_mounts(mount: str, path: str, folder: str | None) -> None:
    assert cgroup.find_folder(mount, path) == folder


class Hierarchy:
    """Does to a plain folder what the kernel does to its own, as far as we rely on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "delegated"
        self.writes: list[str] = []
        self.make(str(self.root))
        (self.root / "cgroup.controllers").write_text("cpu memory pids\n")
        self.dead: set[int] = set()
        monkeypatch.setattr(cgroup, "_make", self.make)
        monkeypatch.setattr(cgroup, "_write", self.write)
        monkeypatch.setattr(cgroup, "_remove", self.remove)
        self.put(self.root, os.getpid())
        monkeypatch.setattr(cgroup, "folder_of", self.folder_of)
        monkeypatch.setattr(cgroup, "_is_ours", lambda _root: True)

    def make(self, folder: str) -> bool:
        place = Path(folder)
        if place.exists():
            return True
        place.mkdir()
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.events", "cgroup.kill"):
            (place / name).touch()
        if "memory" in self.read(place.parent, "cgroup.subtree_control"):
            for name in ("memory.max", "memory.oom.group", "memory.swap.max", "memory.events"):
                (place / name).touch()
        self.writes.append(f"mkdir {place.name}")
        return True

    def remove(self, folder: str) -> bool:
        place = Path(folder)
        if self.read(place, "cgroup.procs") or any(entry.is_dir() for entry in place.iterdir()):
            return False
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
        self.writes.append(f"rmdir {place.name}")
        return True

    def write(self, folder: str, name: str, text: str) -> bool:
        place = Path(folder)
        if not (place / name).exists():
            return False
        if name == "cgroup.procs":
            if int(text) in self.dead:
                return False
            if self.read(place, "cgroup.subtree_control"):
                return False  # no internal processes
            self.put(place, int(text))
        elif name == "cgroup.subtree_control":
            if self.read(place, "cgroup.procs"):
                return False  # no internal processes
            (place / name).write_text(text.replace("+", ""))
            for below in place.iterdir():
                if below.is_dir():
                    (below / "memory.max").touch()
        elif name == "cgroup.kill":
            for file in ("cgroup.procs", "cgroup.events"):
                (place / file).write_text("")
        else:
            (place / name).write_text(text)
        self.writes.append(f"{place.name}/{name} {text}")
        return True

    def put(self, place: Path, pid: int) -> None:
        for other in [self.root, *(entry for entry in self.root.iterdir() if entry.is_dir())]:
            left = [word for word in self.read(other, "cgroup.procs").split() if word != str(pid)]
            self.set(other, left)
        self.set(place, [*self.read(place, "cgroup.procs").split(), str(pid)])

    def set(self, place: Path, pids: list[str]) -> None:
        (place / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        (place / "cgroup.events").write_text(f"populated {int(bool(pids))}\nfrozen 0\n")

    @staticmethod
    def read(place: Path, name: str) -> str:
        return (place / name).read_text() if (place / name).exists() else ""

    def pids(self, name: str = "") -> list[int]:
        return [int(word) for word in self.read(self.root / name, "cgroup.procs").split()]

    def folder_of(self, pid: int) -> str | None:
        for place in [self.root, *(entry for entry in self.root.iterdir() if entry.is_dir())]:
            if str(pid) in self.read(place, "cgroup.procs").split():
                return str(place)
        return None

    def job_folders(self) -> list[str]:
        return [path.name for path in self.root.iterdir() if path.name.startswith("simyard-job-")]


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    return Hierarchy(tmp_path, monkeypatch)


ME, MANAGER, SHELL, JOB = os.getpid(), 100_001, 100_002, 100_003


def test_we_and_our_manager_move_into_a_leaf_before_memory_is_given_on(
    hierarchy: Hierarchy,
) -> None:
    hierarchy.put(hierarchy.root, MANAGER)
    hierarchy.writes.clear()
    assert cgroup.take_delegated([MANAGER, SHELL]) == str(hierarchy.root)
    assert hierarchy.writes[0] == "mkdir simyard-launcher"
    assert sorted(hierarchy.writes[1:3]) == sorted(
        f"simyard-launcher/cgroup.procs {pid}" for pid in (ME, MANAGER)
    )
    assert hierarchy.writes[3:] == ["delegated/cgroup.subtree_control +memory"]
    assert hierarchy.pids() == []


def test_the_next_launcher_finds_itself_in_the_leaf_and_moves_nobody(hierarchy: Hierarchy) -> None:
    assert cgroup.take_delegated([]) == str(hierarchy.root)
    hierarchy.writes.clear()
    assert cgroup.take_delegated([]) == str(hierarchy.root)
    assert hierarchy.writes == []


def test_where_somebody_else_lives_nothing_is_changed(hierarchy: Hierarchy) -> None:
    hierarchy.put(hierarchy.root, SHELL)
    hierarchy.writes.clear()
    assert cgroup.take_delegated([MANAGER]) is None
    assert hierarchy.writes == []


def test_what_was_moved_is_moved_back_when_memory_cannot_be_given_on(
    hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = hierarchy.write

    def refuse(folder: str, name: str, text: str) -> bool:
        return name != "cgroup.subtree_control" and write(folder, name, text)

    monkeypatch.setattr(cgroup, "_write", refuse)
    assert cgroup.take_delegated([]) is None
    assert hierarchy.pids() == [ME]
    assert not (hierarchy.root / "simyard-launcher").exists()


@pytest.mark.parametrize("controllers", ["", "cpu pids\n", "hugetlb\n"])
def test_without_the_memory_controller_nothing_is_changed(
    hierarchy: Hierarchy, controllers: str
) -> None:
    (hierarchy.root / "cgroup.controllers").write_text(controllers)
    hierarchy.writes.clear()
    assert cgroup.take_delegated([]) is None
    assert hierarchy.writes == []


def test_what_systemd_did_not_delegate_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (tmp_path / name).touch()
    exists = os.path.isdir
    monkeypatch.setattr(os.path, "isdir", lambda path: "systemd" in str(path) or exists(path))
    marks: dict[str, bytes] = {}

    def getxattr(_path: str, name: str) -> bytes:
        if name not in marks:
            raise OSError(61, "no data")
        return marks[name]

    monkeypatch.setattr(os, "getxattr", getxattr, raising=False)
    assert not cgroup._is_ours(str(tmp_path))
    marks["trusted.delegate"] = b"1"
    assert cgroup._is_ours(str(tmp_path))
    marks["user.delegate"] = b"0"
    assert not cgroup._is_ours(str(tmp_path))


def test_a_job_is_limited_before_it_enters(hierarchy: Hierarchy) -> None:
    cgroups = Cgroups(cgroup.take_delegated([]), Timers())
    hierarchy.writes.clear()
    made = cgroups.make(150 << 20)
    assert made is not None
    name = os.path.basename(made.folder)
    assert made.enter(JOB)
    assert hierarchy.writes == [
        f"mkdir {name}",
        f"{name}/memory.swap.max 0",
        f"{name}/memory.oom.group 1",
        f"{name}/memory.max 157286400",
        f"{name}/cgroup.procs {JOB}",
    ]
    assert made.populated()


def test_each_job_has_one_of_its_own_and_the_next_launcher_finds_it(hierarchy: Hierarchy) -> None:
    cgroups = Cgroups(cgroup.take_delegated([]), Timers())
    first, second = cgroups.make(1 << 20), cgroups.make(1 << 20)
    assert first is not None and second is not None
    assert first.folder != second.folder
    second.enter(JOB)
    found = Cgroups(None, Timers()).find(second.folder)
    assert found is not None
    assert found.populated()
    for other in (None, 7, "", str(hierarchy.root), second.folder + "0"):
        assert Cgroups(None, Timers()).find(other) is None


def test_without_a_delegated_part_a_job_has_none(hierarchy: Hierarchy) -> None:
    assert Cgroups(None, Timers()).make(1 << 20) is None


def test_where_the_limit_cannot_be_set_no_further_attempt_is_made(hierarchy: Hierarchy) -> None:
    cgroups = Cgroups(str(hierarchy.root), Timers())  # memory was not given on
    assert cgroups.make(1 << 20) is None
    assert hierarchy.job_folders() == []
    hierarchy.writes.clear()
    assert cgroups.make(1 << 20) is None
    assert hierarchy.writes == []


def test_a_leader_that_is_gone_already_does_not_enter(hierarchy: Hierarchy) -> None:
    made = Cgroups(cgroup.take_delegated([]), Timers()).make(1 << 20)
    assert made is not None
    hierarchy.dead.add(JOB)
    assert not made.enter(JOB)
    assert not made.populated()


def test_the_kernels_own_count_tells_that_memory_ran_out(hierarchy: Hierarchy) -> None:
    made = Cgroups(cgroup.take_delegated([]), Timers()).make(1 << 20)
    assert made is not None
    assert made.oom_kills() == 0
    events = Path(made.folder, "memory.events")
    events.write_text("low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 1\n")
    assert made.oom_kills() == 2


def test_dropping_kills_what_is_inside_and_removes_it_then(hierarchy: Hierarchy) -> None:
    timers = Timers()
    cgroups = Cgroups(cgroup.take_delegated([]), timers)
    made = cgroups.make(1 << 20)
    assert made is not None
    made.enter(JOB)
    hierarchy.make(made.folder + "/of-the-job")
    cgroups.drop(made)
    assert not made.populated()
    assert timers.next is not None
    deadline = timers.next + 1
    while hierarchy.job_folders():
        for action in timers.due():
            action()
        assert timers.next is None or timers.next < deadline


def test_the_next_launcher_removes_what_is_empty_and_keeps_what_is_not(
    hierarchy: Hierarchy,
) -> None:
    cgroups = Cgroups(cgroup.take_delegated([]), Timers())
    empty, used = cgroups.make(1 << 20), cgroups.make(1 << 20)
    assert empty is not None and used is not None
    used.enter(JOB)
    assert cgroup.take_delegated([]) == str(hierarchy.root)
    assert hierarchy.job_folders() == [os.path.basename(used.folder)]


def test_an_end_of_nobody_is_no_kill(hierarchy: Hierarchy) -> None:
    made = Cgroups(cgroup.take_delegated([]), Timers()).make(1 << 20)
    assert made is not None
    assert not made.kill()
    made.enter(JOB)
    assert made.kill()
    assert made.remove()
    assert not Cgroup(made.folder).populated()
