"""One job as the launcher knows it: what was asked for, and how far it has come."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from .cgroup import Cgroup
from .journal import Record
from .trees import Leader


class Job:
    """One attempt that the launcher holds, from being handed over until its tree is empty."""

    __slots__ = (
        *("tag", "argv", "exe", "cwd", "base", "env", "stdout", "stderr", "walltime", "grace"),
        *("memory", "output_limit", "usage", "soft_limits", "after"),
        *("state", "pid", "start", "began", "cause", "kill_at", "politely", "peak", "cpu"),
        *("adopted", "pidfd", "watched", "tries", "message", "announced", "asked_at", "cgroup"),
    )

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.tag: str = text_of(given, "tag")
        self.argv: list[str] = [str(word) for word in given.get("argv") or ()]
        self.exe: str | None = given.get("exe")
        self.cwd: str = given.get("cwd") or "/"
        self.base: str | None = given.get("base")
        self.env: dict[str, str | None] = given.get("env") or {}
        self.stdout: str = given.get("stdout") or os.devnull
        self.stderr: str = given.get("stderr") or self.stdout
        self.walltime: float | None = given.get("walltime")
        self.grace: float = float(given.get("grace") or 0.0)
        self.memory: int = int(given.get("memory") or 0)
        self.output_limit: int | None = given.get("output_limit")
        self.usage: str | None = given.get("usage")
        self.soft_limits: dict[str, int] = given.get("soft_limits") or {}
        self.after: str | None = given.get("after")
        self.state = "waiting"  # → running → ended (its leader is gone, its tree is not)
        self.pid = 0
        self.start = 0
        self.began = 0.0
        self.cause: str | None = None
        self.kill_at: float | None = None
        """Monotonic time of the kill; None while nobody wants the tree to end."""
        self.politely: set[tuple[int, int]] = set()
        """Who was sent the polite signal already."""
        self.peak = 0
        self.cpu = 0.0
        self.adopted = False
        self.pidfd: int | None = None
        self.watched = False
        self.tries = 0
        self.message = ""
        self.announced = False
        self.asked_at = 0.0
        self.cgroup: Cgroup | None = None
        """Of its own, where it states memory and the system allows it."""

    @property
    def leader(self) -> Leader:
        """The first process of its tree."""
        return Leader(self.pid, self.start, self.tag)

    @property
    def inhabited(self) -> bool:
        """True while anybody lives in its cgroup, seen elsewhere or not; False without one."""
        return self.cgroup is not None and self.cgroup.populated()

    @property
    def state_told(self) -> str:
        """The state as the manager hears it: waiting, running or ending."""
        if self.state == "waiting":
            return "waiting"
        return "ending" if self.state == "ended" or self.kill_at is not None else "running"

    def facts(self) -> Record:
        """Tell what the next launcher needs to adopt this job, as far as it is not the default."""
        facts: Record = {"stdout": self.stdout, "grace": self.grace}
        if self.stderr != self.stdout:
            facts["stderr"] = self.stderr
        for name in ("walltime", "memory", "output_limit", "usage"):
            if getattr(self, name):
                facts[name] = getattr(self, name)
        return facts

    def started_record(self, boot: str) -> Record:
        """Tell by what its leader, and its cgroup, can be found again."""
        record: Record = {
            "r": "started",
            "tag": self.tag,
            "t": round(time.time(), 6),
            "pid": self.pid,
            "start": self.start,
            "boot": boot,
        }
        if self.cgroup is not None:
            record["cgroup"] = self.cgroup.folder
        return record

    def again_record(self, boot: str) -> Record:
        """Repeat, at the head of a generation, all that its adoption would need."""
        return {**self.started_record(boot), **self.facts(), "again": True}


def text_of(given: Mapping[str, Any], name: str) -> str:
    """Return a text that a request must have; raises `ValueError`."""
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name!r} is missing or no text")
    return value
