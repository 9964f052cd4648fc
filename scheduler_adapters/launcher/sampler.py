"""The sampler: measures the trees of running jobs, beside the launcher and never in its way.

A process of its own, forked by the launcher and talking to it through a socket
pair in JSON lines: ``watch`` and ``forget`` come in; ``peaks``, ``seen``,
``oom_kills`` and ``over`` (a limit was passed) go out. It signals nobody. It ends
when the launcher does.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from typing import Any

from . import oom, processes
from .processes import Process
from .trees import Leader, Trees

USAGE_AFTER = 2.0
"""Seconds of life after which a job gets a file of samples."""
SLOW, QUICK, OUTPUT = 1.0, 0.25, 0.1
"""Seconds between looks: without limits, at limited memory, at limited output."""


class Watched:
    """One tree under observation."""

    def __init__(self, given: Mapping[str, Any], now: float) -> None:
        self.tag: str = given["watch"]
        self.leader = Leader(given["pid"], given["start"], self.tag)
        self.born = now - float(given["age"])
        self.memory = int(given.get("memory") or 0)
        self.output_limit: int | None = given.get("output_limit") or None
        self.outputs: set[str] = {given.get("stdout") or "", given.get("stderr") or ""} - {""}
        self.usage: str | None = given.get("usage")
        self.adopted = bool(given.get("adopted"))
        self.peak = 0
        self.cpu = 0.0
        self.rss = 0
        self.procs = 0
        self.told = (0, 0.0)
        self.seen: set[tuple[int, int]] = set()
        self.next_sample = 0.0
        self.over = False

    def measure(self, members: list[Process]) -> None:
        self.procs = len(members)
        self.rss = sum(process.rss for process in members)
        if self.memory and self.rss > self.memory and len(members) > 1:
            # Workers that were forked share pages; counted once each they may be within
            # the limit. This is dear, so it is asked only where it matters.
            self.rss = sum(
                pss if (pss := processes.read_pss(process.pid)) is not None else process.rss
                for process in members
            )
        self.peak = max(self.peak, self.rss)
        # What was reaped by init or by the launcher drops out of the sum.
        self.cpu = max(self.cpu, sum(process.cpu for process in members))

    def output_size(self) -> int:
        size = 0
        for path in self.outputs:
            try:
                size += os.stat(path).st_size
            except OSError:
                continue
        return size

    def sample(self, now: float) -> None:
        """Append one line to the file of samples, ever more seldom as the job grows old."""
        age = now - self.born
        if self.usage is None or age < max(USAGE_AFTER, self.next_sample):
            return
        self.next_sample = age + max(1.0, age / 200)
        facts = {
            "t": round(age, 2),
            "cpu": round(self.cpu, 2),
            "rss": self.rss,
            "procs": self.procs,
        }
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            descriptor = os.open(self.usage, flags | os.O_NOFOLLOW, 0o600)
        except OSError:
            self.usage = None
            return
        try:
            os.write(descriptor, json.dumps(facts, separators=(",", ":")).encode() + b"\n")
        except OSError:
            return  # a full disk; the next sample may find room
        finally:
            os.close(descriptor)


class Sampler:
    """Looks at all watched trees in one pass over the process table."""

    def __init__(self, link: int, reaper: int | None) -> None:
        self._link = link
        self._trees = Trees(reaper)
        self._watched: dict[str, Watched] = {}
        self._oom_kills = -1
        self._next_tree = 0.0

    def run(self) -> None:
        """Serve until the launcher is gone."""
        text = b""
        while True:
            ready, _, _ = select.select([self._link], [], [], self._patience())
            if ready:
                data = os.read(self._link, 1 << 16)
                if not data:
                    return
                *lines, text = (text + data).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))
            if self._watched:
                self._look()

    def _patience(self) -> float | None:
        if not self._watched:
            return None
        wait = max(0.0, self._next_tree - time.monotonic())
        if any(watched.output_limit for watched in self._watched.values()):
            wait = min(wait, OUTPUT)
        return wait

    def _take(self, message: Mapping[str, Any]) -> None:
        if "watch" in message:
            watched = Watched(message, time.monotonic())
            self._watched.setdefault(watched.tag, watched)
            self._next_tree = min(self._next_tree, time.monotonic() + 0.05)
        elif "forget" in message:
            self._watched.pop(message["forget"], None)
            self._trees.forget(message["forget"])

    def _look(self) -> None:
        now = time.monotonic()
        if now >= self._next_tree:
            limited = any(watched.memory for watched in self._watched.values())
            self._next_tree = now + (QUICK if limited else SLOW)
            self._look_at_trees(now)
        for watched in self._watched.values():
            if watched.output_limit and not watched.over:
                size = watched.output_size()
                if size > watched.output_limit:
                    self._over(watched, "output_limit")

    def _look_at_trees(self, now: float) -> None:
        leaders = [watched.leader for watched in self._watched.values()]
        everyone = any(watched.adopted for watched in self._watched.values())
        found = self._trees.sort(processes.table(), leaders, everyone=everyone)
        peaks: dict[str, tuple[int, float]] = {}
        seen: dict[str, list[tuple[int, int]]] = {}
        for tag, members in found.items():
            watched = self._watched[tag]
            watched.measure(members)
            watched.sample(now)
            if (watched.peak, watched.cpu) != watched.told:
                watched.told = peaks[tag] = (watched.peak, watched.cpu)
            strays = {
                (process.pid, process.start)
                for process in members
                if process.session != watched.leader.pid
            }
            if strays - watched.seen:
                # They left the session: once orphaned, only this memory may tell whose.
                watched.seen = strays
                self._trees.remember(tag, strays)
                seen[tag] = sorted(strays)
        message: dict[str, Any] = {}
        if peaks:
            message["peaks"] = peaks
        if seen:
            message["seen"] = seen
        kills = oom.kills()
        if kills != self._oom_kills:
            self._oom_kills = message["oom_kills"] = kills
        if message:
            self._say(message)
        for tag in found:
            watched = self._watched[tag]
            if watched.memory and watched.rss > watched.memory and not watched.over:
                self._over(watched, "out_of_memory")

    def _over(self, watched: Watched, cause: str) -> None:
        watched.over = True
        self._say({"over": cause, "tag": watched.tag, "rss": watched.peak})

    def _say(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._link, data) :]


def run(link: int, reaper: int | None) -> None:
    """Sample for the launcher at the other end of `link` until it is gone."""
    try:
        Sampler(link, reaper).run()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
