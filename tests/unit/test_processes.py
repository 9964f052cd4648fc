"""What is read from the system about processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simyard.scheduler_adapters.launcher import processes
from simyard.scheduler_adapters.launcher.processes import Process
from simyard.scheduler_adapters.launcher.trees import Leader, Trees

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@given(name=st.binary(min_size=0, max_size=15))
def test_a_program_name_of_any_bytes_does_not_confuse_the_fields(name: bytes) -> None:
    numbers = b" ".join(b"%d" % number for number in range(100, 149))
    process = processes.parse_stat(b"77 (" + name + b") S 5 6 7 " + numbers)
    assert (process.pid, process.state, process.ppid) == (77, "S", 5)
    assert (process.pgrp, process.session, process.start) == (6, 7, 115)


@linux
def test_a_start_time_lies_between_the_ticks_around_the_spawn() -> None:
    for _ in range(20):
        before = processes.now_ticks()
        child = os.posix_spawn("/bin/true", ["true"], {})
        after = processes.now_ticks()
        process = processes.read_process(child)
        os.waitpid(child, 0)
        assert process is not None
        assert before <= process.start <= after


@linux
def test_a_signal_goes_only_to_the_process_that_was_meant() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        process = processes.read_process(child.pid)
        assert process is not None
        assert not processes.send_signal(child.pid, process.start - 1, signal.SIGKILL)
        assert child.poll() is None
        assert processes.send_signal(child.pid, process.start, signal.SIGKILL)
        assert child.wait(5) == -signal.SIGKILL
        assert not processes.send_signal(child.pid, process.start, signal.SIGKILL)


@linux
def test_a_tag_is_found_wherever_it_stands_in_the_environment() -> None:
    for environment in ({"SIMYARD_TAG": "t1"}, {"A": "b", "SIMYARD_TAG": "t1", "Z": ""}):
        with _printing(environment) as child:
            assert processes.read_tag(child.pid) == "t1"
            assert [p.pid for p in processes.find_tagged(["t1"])["t1"]] == [child.pid]
    with _printing({"XSIMYARD_TAG": "t1"}) as child:
        assert processes.read_tag(child.pid) is None


@contextlib.contextmanager
def _printing(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that is certainly past its start: between two steps of it none has a tag."""
    command = ["/bin/sh", "-c", "echo; read line"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child
        finally:
            child.kill()


def _table(*rows: tuple[int, int, int, int, int]) -> dict[int, Process]:
    """Rows of pid, parent, group, session, start."""
    return {row[0]: Process(*row, "S", 1, 0.0) for row in rows}


@pytest.fixture
def trees(monkeypatch: pytest.MonkeyPatch) -> Trees:
    tags = {500: "a", 600: "b", 700: "foreign"}
    monkeypatch.setattr(processes, "read_tag", tags.get)
    return Trees(reaper=50)


A = Leader(100, 10, "a")
B = Leader(200, 20, "b")


def _sorted(found: dict[str, list[Process]]) -> dict[str, list[int]]:
    return {tag: sorted(process.pid for process in members) for tag, members in found.items()}


def test_trees_are_told_apart_by_parent_session_group_and_tag(trees: Trees) -> None:
    table = _table(
        (1, 0, 1, 1, 0),
        (50, 1, 50, 50, 1),
        (100, 50, 100, 100, 10),
        (101, 100, 101, 101, 11),  # left the session, below its leader
        (102, 101, 101, 101, 12),
        (103, 50, 103, 100, 13),  # an orphan in the session
        (104, 103, 104, 104, 14),
        (200, 50, 200, 200, 20),
        (500, 50, 500, 500, 30),  # an orphan with a tag
        (501, 500, 501, 501, 31),
        (700, 50, 700, 700, 30),
        (800, 1, 800, 800, 30),
    )
    assert _sorted(trees.sort(table, [A, B])) == {
        "a": [100, 101, 102, 103, 104, 500, 501],
        "b": [200],
    }


def test_a_dead_leader_still_names_its_session(trees: Trees) -> None:
    table = _table((50, 1, 50, 50, 1), (103, 50, 103, 100, 13))
    assert _sorted(trees.sort(table, [A])) == {"a": [103]}


def test_a_reused_number_does_not_make_a_foreign_session_ours(trees: Trees) -> None:
    table = _table(
        (50, 1, 50, 50, 1),
        (100, 1, 100, 100, 99),  # another process has got the leader's number
        (300, 100, 100, 100, 100),
        (301, 1, 301, 100, 9),  # older than our leader
    )
    assert trees.sort(table, [A]) == {}


def test_what_was_seen_below_a_tree_is_remembered_until_forgotten(trees: Trees) -> None:
    table = _table((50, 1, 50, 50, 1), (900, 50, 900, 900, 40))
    assert trees.sort(table, [A, B]) == {}
    trees.remember("b", [(900, 40)])
    assert _sorted(trees.sort(table, [A, B])) == {"b": [900]}
    trees.forget("b")
    assert trees.sort(table, [A, B]) == {}


def test_without_a_reaper_everybodys_tag_is_read(trees: Trees) -> None:
    table = _table((1, 0, 1, 1, 0), (600, 1, 600, 600, 40))
    assert trees.sort(table, [A, B]) == {}
    assert _sorted(trees.sort(table, [A, B], everyone=True)) == {"b": [600]}


def test_a_table_torn_into_a_loop_ends(trees: Trees) -> None:
    table = _table((300, 301, 300, 300, 40), (301, 300, 301, 301, 41))
    assert trees.sort(table, [A]) == {}
