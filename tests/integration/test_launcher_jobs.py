"""One job's way through the launcher: started, followed, recorded, told."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from local_yard import ENVIRONMENT, Yard

from simyard.errors import LauncherError
from simyard.scheduler_adapters.contract import Cause, KnownAttempt, ReportKind
from simyard.scheduler_adapters.local import LocalAdapter

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


@pytest_asyncio.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    await yard.end_everything()


async def test_the_exit_code_and_the_usage_of_a_job_arrive(yard: Yard) -> None:
    await yard.open()
    code = "import sys,time\nx=bytearray(60<<20)\nt=time.process_time()\n"
    code += "while time.process_time()-t<0.2: pass\nsys.exit(42)"
    await yard.submit("a", sys.executable, "-c", code)
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code, ending.signal) == (Cause.OWN, 42, None)
    assert ending.usage.wall_seconds >= 0.2
    assert 0.2 <= ending.usage.cpu_seconds < 5
    assert 60 << 20 < ending.usage.max_rss_bytes < 500 << 20
    kinds = [report.kind for report in yard.of("a") if report.kind is not ReportKind.STARTING]
    assert kinds == [ReportKind.STARTED, ReportKind.ENDED, ReportKind.CLEARED]
    assert yard.of("a", ReportKind.STARTED)[0].native_id


async def test_a_job_ended_by_a_signal_says_which(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "kill -SEGV $$")
    ending = await yard.ending("a")
    assert (ending.cause, ending.exit_code, ending.signal) == (Cause.OWN, None, 11)


async def test_output_goes_straight_to_private_files(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "echo out; echo err >&2; cat")
    await yard.ending("a")
    assert yard.out("a") == "out\n"
    error = yard.home / "out" / "a.err"
    assert error.read_text() == "err\n"
    assert stat.S_IMODE(error.stat().st_mode) == 0o600


async def test_the_environment_is_the_given_one_and_no_other(yard: Yard) -> None:
    os.environ["SIMYARD_TEST_LEAK"] = "leaked"
    try:
        await yard.open()
    finally:
        del os.environ["SIMYARD_TEST_LEAK"]
    environment = {**ENVIRONMENT, "WEIRD": "a=b\nc \udce9"}
    await yard.submit("a", "env", "-0", env=environment)
    await yard.submit("b", "env", "-0", env={**ENVIRONMENT, "ONLY": "b"})
    for name, wanted in (("a", environment), ("b", {**ENVIRONMENT, "ONLY": "b"})):
        await yard.ending(name)
        raw = (yard.home / "out" / f"{name}.out").read_bytes()
        found = dict(os.fsdecode(entry).split("=", 1) for entry in raw.split(b"\0") if entry)
        assert found.pop("SIMYARD_TAG") == yard.tag(name)
        assert found == wanted


async def test_programs_are_found_on_the_jobs_own_path_and_relative_to_its_directory(
    yard: Yard,
) -> None:
    tools = yard.home / "tools"
    tools.mkdir()
    (tools / "solver").write_text("#!/bin/sh\necho found in $PWD\n")
    (tools / "solver").chmod(0o755)
    plain = yard.home / "out" / "plain"
    plain.write_text("echo a script without a first line\n")
    plain.chmod(0o755)
    await yard.open()
    await yard.submit("a", "solver", env={"PATH": f"/nowhere:{tools}:/bin:/usr/bin"})
    await yard.submit("b", "./plain")
    assert (await yard.ending("a")).exit_code == 0
    assert yard.out("a") == f"found in {yard.home / 'out'}\n"
    assert (await yard.ending("b")).exit_code == 0
    assert yard.out("b") == "a script without a first line\n"


async def test_soft_limits_are_the_callers(yard: Yard) -> None:
    await yard.open()
    script = "ulimit -S -s; ulimit -S -c"
    await yard.submit("a", "sh", "-c", script, soft_limits={"stack": 4 << 20, "core": 0})
    await yard.submit("b", "sh", "-c", script, soft_limits={"stack": 2 << 20})
    await yard.ending("a")
    await yard.ending("b")
    assert yard.out("a").split() == ["4096", "0"]
    assert yard.out("b").split()[0] == "2048"


async def test_jobs_are_offered_to_the_oom_killer_before_the_launcher(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "sleep 0.2; cat /proc/self/oom_score_adj")
    await yard.ending("a")
    launcher = yard.launcher_file("oom_score_adj").read_text()
    assert int(yard.out("a")) > int(launcher)


@pytest.mark.parametrize(
    ("argv", "more", "words"),
    [
        (("no-such-solver",), {}, ["'no-such-solver'", "PATH", "full path"]),
        (("/no/such/solver",), {}, ["/no/such/solver", "does not exist"]),
        (("./data.txt",), {}, ["data.txt", "not executable", "chmod +x"]),
        (("./badline",), {}, ["/no/interpreter", "first line"]),
        (("./empty",), {}, ["not a program"]),
        (("/tmp",), {}, ["directory"]),
        (("true",), {"workdir": "/no/such/dir"}, ["work directory /no/such/dir", "does not exist"]),
        (("true", "x" * 200_000), {}, ["too long", "file"]),
        (("true",), {"stdout": "/no/folder/x"}, ["/no/folder", "output"]),
        (("true", "a\0b"), {}, ["null"]),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, tuple) else None,
)
async def test_a_job_that_cannot_start_says_why_and_what_to_do(
    yard: Yard, argv: tuple[str, ...], more: dict[str, str], words: list[str]
) -> None:
    (yard.home / "out" / "data.txt").write_text("1 2 3\n")
    (yard.home / "out" / "badline").write_text("#!/no/interpreter\n")
    (yard.home / "out" / "badline").chmod(0o755)
    (yard.home / "out" / "empty").write_bytes(b"")
    (yard.home / "out" / "empty").chmod(0o755)
    await yard.open()
    await yard.submit("bad", *argv, **more)
    await yard.submit("good", "true", after="bad")
    ending = await yard.ending("bad")
    assert ending.cause is Cause.START_FAILED
    for word in words:
        assert word in ending.message
    await yard.cleared("bad")
    assert (await yard.ending("good")).exit_code == 0


async def test_a_fifo_in_place_of_the_output_does_not_stop_the_launcher(yard: Yard) -> None:
    os.mkfifo(yard.home / "out" / "a.out")
    await yard.open()
    await yard.submit("a", "true")
    await yard.submit("b", "true")
    assert (await yard.ending("b")).exit_code == 0
    assert "not a regular file" in (await yard.ending("a")).message


async def test_a_successor_starts_when_the_tree_before_it_is_empty(yard: Yard) -> None:
    await yard.open()
    # The leader is gone at once, its child only after it was told to go.
    script = "trap '' TERM; (trap '' TERM; sleep 5) & echo; exit 0"
    await yard.submit("a", "sh", "-c", script, grace=0.5)
    await yard.submit("b", "true", after="a")
    await yard.submit("c", "true", after="b")
    await yard.ending("c")
    order = [(report.tag.split("@")[0], report.kind.value) for report in yard.reports]
    assert order.index(("a", "ended")) < order.index(("a", "cleared"))
    assert order.index(("a", "cleared")) < order.index(("b", "started"))
    assert order.index(("b", "ended")) < order.index(("c", "started"))


async def test_a_successor_of_nothing_starts_at_once(yard: Yard) -> None:
    await yard.open()
    await yard.submit("b", "true", after="unknown")
    assert (await yard.ending("b")).exit_code == 0


async def test_withdrawing_answers_exactly_what_never_starts(yard: Yard) -> None:
    adapter = await yard.open()
    await yard.submit("a", "sleep", "60")
    for name in ("b", "c"):
        await yard.submit(name, "touch", f"{name}.ran", after="a")
    await yard.report("a", ReportKind.STARTED)
    answer = await adapter.withdraw([yard.tag(name) for name in ("a", "b", "unknown")])
    assert {tag.split("@")[0]: taken for tag, taken in answer.items()} == {
        "a": False,
        "b": True,
        "unknown": False,
    }
    await yard.report("b", ReportKind.WITHDRAWN)
    await yard.cancel("a")
    assert (await yard.ending("c")).exit_code == 0
    assert (yard.home / "out" / "c.ran").exists()
    assert not (yard.home / "out" / "b.ran").exists()
    assert not yard.of("b", ReportKind.STARTED)


async def test_whoever_waited_for_a_withdrawn_one_goes_on_waiting(yard: Yard) -> None:
    adapter = await yard.open()
    await yard.submit("a", "sleep", "60")
    await yard.submit("b", "true", after="a")
    await yard.submit("c", "true", after="b")
    await yard.report("a", ReportKind.STARTED)
    await adapter.withdraw([yard.tag("b")])
    await yard.submit("other", "true")
    await yard.ending("other")
    assert not yard.of("c"), "its grant is still in use"
    await yard.cancel("a")
    assert (await yard.ending("c")).exit_code == 0


async def test_cancelling_what_has_not_started_withdraws_it(yard: Yard) -> None:
    await yard.open()
    await yard.submit("a", "sleep", "60")
    await yard.submit("b", "true", after="a")
    await yard.cancel("b")
    await yard.report("b", ReportKind.WITHDRAWN)
    assert not yard.of("b", ReportKind.ENDED)


async def test_a_tag_is_never_started_twice(yard: Yard) -> None:
    await yard.open()
    for _ in range(3):
        await yard.submit("a", "sh", "-c", "echo ran")
    await yard.submit("b", "true")
    await yard.ending("b")
    await yard.submit("a", "sh", "-c", "echo ran")
    await yard.submit("c", "true")
    await yard.ending("c")
    assert yard.out("a") == "ran\n"
    assert len(yard.of("a", ReportKind.ENDED)) == 1


async def test_two_thousand_jobs_through_chains_leave_every_record_and_no_descriptor(
    yard: Yard,
) -> None:
    adapter = await yard.open()
    await yard.submit("first", "true")
    await yard.ending("first")
    folder = yard.launcher_file("fd")
    before = len(os.listdir(folder))
    wanted = 2000
    jobs = [
        yard.submission(
            f"j{number}",
            "/bin/true",
            stdout=str(yard.home / "out" / "all.out"),
            stderr=str(yard.home / "out" / "all.out"),
            after=f"j{number - 4}" if number >= 4 else None,
        )
        for number in range(wanted)
    ]
    for first in range(0, wanted, 250):
        await adapter.submit(jobs[first : first + 250])
    await yard.until(
        lambda: sum(report.kind is ReportKind.CLEARED for report in yard.reports) > wanted, 60
    )
    assert all(
        (report.ending and report.ending.exit_code == 0)
        for report in yard.reports
        if report.kind is ReportKind.ENDED
    )
    counted: dict[str, int] = {}
    for record in yard.records():
        counted[record["r"]] = counted.get(record["r"], 0) + 1
    assert counted == {
        "launcher": 1,
        "starting": wanted + 1,
        "started": wanted + 1,
        "ended": wanted + 1,
    }
    assert len(os.listdir(folder)) <= before + 1


async def test_jobs_go_on_when_the_adapter_closes_and_are_replayed_exactly_once(
    yard: Yard,
) -> None:
    await yard.open()
    await yard.submit("a", "sh", "-c", "sleep 0.4; echo done; exit 7")
    await yard.submit("b", "true")
    await yard.ending("b")
    await yard.report("a", ReportKind.STARTED)
    await yard.close()
    await yard.until(lambda: yard.out("a") == "done\n")
    known = [KnownAttempt(tag=yard.tag("a"), native_id="1", claimed_only=False)]
    await yard.open(known=known)
    assert (await yard.ending("a")).exit_code == 7
    await yard.submit("c", "true")
    await yard.ending("c")
    ends = [report.tag.split("@")[0] for report in yard.reports if report.kind is ReportKind.ENDED]
    assert sorted(ends) == ["a", "b", "c"]


async def test_replay_from_every_cursor_tells_exactly_the_rest(yard: Yard) -> None:
    await yard.open()
    for number in range(5):
        await yard.submit(f"j{number}", "true")
        await yard.cleared(f"j{number}")
    await yard.close()
    whole = [(r.tag, r.kind) for r in yard.reports if r.kind is not ReportKind.STARTING]
    cursors = [(place, r.cursor) for place, r in enumerate(yard.reports) if r.cursor]
    for place, cursor in cursors:
        rest = [r for r in yard.reports[place + 1 :] if r.kind is not ReportKind.STARTING]
        again = Yard(yard.home)
        again.epoch = 10 + place
        await again.open(cursor=cursor)
        await again.close()
        told = [(r.tag, r.kind) for r in again.reports if r.kind is not ReportKind.STARTING]
        assert told == [(r.tag, r.kind) for r in rest]
    assert len(whole) == 15


async def test_the_newest_manager_wins_and_an_older_one_is_refused(yard: Yard) -> None:
    first = await yard.open()
    second = LocalAdapter(yard.home, epoch=yard.epoch + 1)
    await second.open(yard.listen, cursor=yard.cursor, known=[])
    late = LocalAdapter(yard.home, epoch=yard.epoch)
    with pytest.raises(LauncherError, match="later epoch"):
        await late.open(yard.listen, cursor=yard.cursor, known=[])
    await first.close()
    await second.submit([yard.submission("a", "true")])
    await yard.ending("a")
    await second.close()


async def test_an_attempt_claimed_but_never_handed_over_is_withdrawn(yard: Yard) -> None:
    known = [
        KnownAttempt(tag=yard.tag("claimed"), native_id=None, claimed_only=True),
        KnownAttempt(tag=yard.tag("ran"), native_id="4711", claimed_only=False),
    ]
    await yard.open(known=known)
    assert [report.kind for report in yard.of("claimed")] == [ReportKind.WITHDRAWN]
    ending = yard.of("ran", ReportKind.ENDED)[0].ending
    assert ending is not None and ending.cause is Cause.LOST
    assert yard.of("ran", ReportKind.CLEARED)


async def test_a_malformed_request_is_answered_and_harms_nobody(yard: Yard) -> None:
    await yard.open()
    await yard.close()
    reader, writer = await _raw(yard.home)
    writer.write(b'{"op":"start","jobs":[]}\n')
    assert "hello" in json.loads(await reader.readline())["message"]
    writer.write(json.dumps({"op": "hello", "v": 1, "epoch": 9, "from": None}).encode() + b"\n")
    assert json.loads(await reader.readline())["ev"] == "hello"
    bad = [
        b"garbage\n",
        b"[1,2]\n",
        b'{"op":"no-such"}\n',
        b'{"op":"_x"}\n',
        b'{"op":"start"}\n',
        b'{"op":"start","jobs":[{"tag":""}]}\n',
        b'{"op":"start","jobs":[17]}\n',
        b'{"op":"start","jobs":[{"tag":"odd","argv":["true"],"grace":"x"}]}\n',
        b'{"op":"kill","tags":["x"],"cause":"fancy"}\n',
        b'{"op":"env","key":"k","env":[]}\n',
        b"\xff\xfe\n",
    ]
    for line in bad:
        writer.write(line)
        while True:
            event = json.loads(await asyncio.wait_for(reader.readline(), 10))
            if event["ev"] == "error":
                break
    writer.close()
    await writer.wait_closed()
    yard.epoch = 10
    await yard.open(cursor="0:0")
    await yard.submit("a", "true")
    assert (await yard.ending("a")).exit_code == 0
    odd = [report for report in yard.reports if report.tag == "odd"]
    assert odd[0].ending is not None and odd[0].ending.cause is Cause.START_FAILED


async def _raw(home: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    folder = os.open(home / "run", os.O_RDONLY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/launcher.sock")
    finally:
        os.close(folder)


async def test_a_home_with_a_very_long_path_works(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(3):
        deep = deep / ("long" * 25)
        deep.mkdir()
    yard = Yard(deep)
    try:
        await yard.open()
        await yard.submit("a", "true")
        assert (await yard.ending("a")).exit_code == 0
    finally:
        await yard.end_everything()


async def test_an_idle_launcher_ends_by_itself_and_the_next_job_starts_another(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMYARD_LAUNCHER_IDLE", "0.2")
    await yard.open()
    first = yard.note_launcher()
    await yard.submit("a", "true")
    await yard.ending("a")
    await yard.close()
    await yard.until(lambda: not Path(f"/proc/{first}").exists())
    await yard.open()
    assert yard.note_launcher() != first
    await yard.submit("b", "true")
    await yard.ending("b")
    assert len(yard.of("a", ReportKind.ENDED)) == 1


async def test_a_listener_that_fails_gets_the_same_reports_again(yard: Yard) -> None:
    failures = 2
    deliver = yard.listen

    async def listen(reports: object) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise RuntimeError("the store is not there")
        await deliver(reports)  # type: ignore[arg-type]

    adapter = LocalAdapter(yard.home, epoch=1)
    yard.adapter = adapter
    await adapter.open(listen, cursor=None, known=[])
    await adapter.submit([yard.submission("a", "sh", "-c", "exit 5")])
    assert (await yard.ending("a")).exit_code == 5
    assert len(yard.of("a", ReportKind.ENDED)) == 1


async def test_files_before_the_durable_cursor_are_deleted(yard: Yard) -> None:
    yard.write_generation(1, {"r": "launcher", "t": 1.0, "pid": 1, "boot": "x"})
    yard.write_generation(2, {"r": "launcher", "t": 1.0, "pid": 1, "boot": "x"})
    adapter = await yard.open()
    assert len(list((yard.home / "launcher").glob("*.log"))) == 3
    await adapter.forget_before("3:0")
    assert [file.stem for file in (yard.home / "launcher").glob("*.log")] == ["00000003"]
