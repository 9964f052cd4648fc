"""A home with a launcher and an adapter of its own, for tests with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simyard.scheduler_adapters.contract import (
    Ending,
    KnownAttempt,
    Report,
    ReportKind,
    ResourceRequest,
    Submission,
)
from simyard.scheduler_adapters.launcher import processes
from simyard.scheduler_adapters.local import LocalAdapter

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}


class Yard:
    """Submits by tag, collects reports, and leaves no process behind."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for folder in (home, home / "run", home / "launcher", home / "out"):
            folder.mkdir(mode=0o700, exist_ok=True)
        self.reports: list[Report] = []
        self.cursor: str | None = None
        self.adapter: LocalAdapter | None = None
        self.python = sys.executable
        """What runs the launchers."""
        self.epoch = 0
        self.launchers: set[int] = set()
        self._news = asyncio.Event()

    async def open(
        self, *, known: Sequence[KnownAttempt] = (), cursor: str | None = None
    ) -> LocalAdapter:
        """Open an adapter of the next epoch from the last cursor."""
        self.epoch += 1
        self.adapter = LocalAdapter(self.home, epoch=self.epoch, python=self.python)
        await self.adapter.open(self.listen, cursor=cursor or self.cursor, known=known)
        self.note_launcher()
        return self.adapter

    async def close(self) -> None:
        if self.adapter is not None:
            self.note_launcher()
            await self.adapter.close()
            self.adapter = None

    def note_launcher(self) -> int:
        assert self.adapter is not None
        pid = self.adapter.launcher_pid
        assert pid is not None
        self.launchers.add(pid)
        return pid

    async def listen(self, reports: Sequence[Report]) -> None:
        self.reports.extend(reports)
        for report in reports:
            self.cursor = report.cursor or self.cursor
        self._news.set()

    # --- submitting

    def submission(self, tag: str, *argv: str, **more: Any) -> Submission:
        given: dict[str, Any] = {
            "job_id": tag,
            "attempt": 1,
            "tag": self.tag(tag),
            "name": tag,
            "argv": argv,
            "workdir": str(self.home / "out"),
            "env": ENVIRONMENT,
            "stdout": str(self.home / "out" / f"{tag}.out"),
            "stderr": str(self.home / "out" / f"{tag}.err"),
            "resources": ResourceRequest(memory=more.pop("memory", 0)),
            "grace": 0.3,
        }
        if more.get("after"):
            more["after"] = self.tag(more["after"])
        return Submission(**{**given, **more})

    def tag(self, name: str) -> str:
        """Make a name unique for all tests."""
        return f"{name}@{self.home}"

    async def submit(self, tag: str, *argv: str, **more: Any) -> None:
        assert self.adapter is not None
        await self.adapter.submit([self.submission(tag, *argv, **more)])

    async def cancel(self, *names: str, grace: float | None = None) -> None:
        assert self.adapter is not None
        await self.adapter.cancel([self.tag(name) for name in names], grace=grace)

    # --- waiting

    def of(self, name: str, kind: ReportKind | None = None) -> list[Report]:
        tag = self.tag(name)
        return [
            report
            for report in self.reports
            if report.tag == tag and (kind is None or report.kind is kind)
        ]

    async def report(self, name: str, kind: ReportKind, timeout: float = 15.0) -> Report:
        """Wait for news of one kind about one attempt."""
        deadline = time.monotonic() + timeout
        while not (found := self.of(name, kind)):
            self._news.clear()
            patience = deadline - time.monotonic()
            assert patience > 0, f"no {kind.value} of {name}; got {self.reports}\n{self.log()}"
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), patience)
        return found[0]

    async def ending(self, name: str, timeout: float = 15.0) -> Ending:
        ending = (await self.report(name, ReportKind.ENDED, timeout)).ending
        assert ending is not None
        return ending

    async def cleared(self, name: str, timeout: float = 15.0) -> None:
        await self.report(name, ReportKind.CLEARED, timeout)

    async def until(self, condition: Callable[[], Any], timeout: float = 15.0) -> Any:
        """Wait for a condition of the world outside."""
        deadline = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < deadline, f"not in time: {condition}\n{self.log()}"
            await asyncio.sleep(0.01)
        return value

    # --- looking

    def out(self, name: str) -> str:
        return (self.home / "out" / f"{name}.out").read_text()

    async def word(self, name: str, words: int = 1) -> list[str]:
        """Wait until a job has printed so many words; return them."""

        def printed() -> list[str]:
            path = self.home / "out" / f"{name}.out"
            found = path.read_text().split() if path.exists() else []
            return found if len(found) >= words else []

        return list(await self.until(printed))

    def living(self, name: str) -> list[int]:
        """Return the processes that carry the tag of `name`."""
        tag = self.tag(name)
        found = processes.find_tagged([tag])
        return [process.pid for process in found.get(tag, ())]

    def records(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for file in sorted((self.home / "launcher").glob("*.log")):
            lines.extend(json.loads(line) for line in file.read_text().splitlines())
        return lines

    def write_generation(self, number: int, *records: Mapping[str, Any]) -> None:
        """Forge a file of records, as an earlier launcher would have left it."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        (self.home / "launcher" / f"{number:08d}.log").write_text(text)

    def launcher_file(self, name: str) -> Path:
        """Return what /proc tells of the launcher under `name`."""
        return Path(f"/proc/{self.note_launcher()}/{name}")

    def log(self) -> str:
        path = self.home / "run" / "launcher.log"
        return path.read_text() if path.exists() else ""

    def kill_launcher(self) -> int:
        """Kill the launcher as the system would, without a chance to say anything."""
        pid = self.note_launcher()
        os.kill(pid, signal.SIGKILL)
        return pid

    async def end_everything(self) -> None:
        """End what a test may have left, by the marks it put on its own processes."""
        with contextlib.suppress(Exception):
            await self.close()
        for process in processes.table().values():
            tag = processes.read_tag(process.pid)
            if tag is not None and tag.endswith(f"@{self.home}"):
                processes.send_signal(process.pid, process.start, signal.SIGKILL)
        for process in processes.table().values():
            with contextlib.suppress(OSError):
                command = _command(process.pid)
                if os.fsencode(self.home) in command and any(
                    word.endswith(b"scheduler_adapters/launcher") for word in command
                ):
                    processes.send_signal(process.pid, process.start, signal.SIGKILL)


def _command(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def alive(pid: int) -> bool:
    """True while a process is there and not just a zombie."""
    process = processes.read_process(pid)
    return process is not None and not process.dead
