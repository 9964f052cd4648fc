"""Which process belongs to which tree.

A tree is what descends from its leader, shares the leader's session or group, or
carries its tag. It must not know jobs or records: a table of processes and the
leaders come in, the members of each tree come out.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from . import processes
from .processes import Process


class Leader(NamedTuple):
    """The first process of a tree, which made a session of its own."""

    pid: int
    start: int
    tag: str


class Trees:
    """Tells which process belongs to which tree, and remembers what it has seen.

    With `reaper` (the pid of the subreaper above all trees) only orphans, its direct
    children, need a look at their environment; without, or where a tree was
    adopted from an earlier launcher, everybody's does.
    """

    def __init__(self, reaper: int | None) -> None:
        self._reaper = reaper
        self._tags: dict[tuple[int, int], str | None] = {}
        self._seen: dict[tuple[int, int], str] = {}

    def remember(self, tag: str, identities: Iterable[tuple[int, int]]) -> None:
        """Take somebody else's word for it that these (pid, start) belong to `tag`."""
        for identity in identities:
            self._seen[identity] = tag

    def forget(self, tag: str) -> None:
        """Drop what was remembered of a tree that is gone."""
        for identity in [key for key, value in self._seen.items() if value == tag]:
            del self._seen[identity]

    def sort(
        self,
        table: Mapping[int, Process],
        leaders: Collection[Leader],
        *,
        everyone: bool = False,
    ) -> dict[str, list[Process]]:
        """Return the living processes of each tree; a dead leader still names its session."""
        by_pid = {leader.pid: leader for leader in leaders}
        tags = {leader.tag for leader in leaders}
        oldest = min((leader.start for leader in leaders), default=0)
        owners: dict[int, str | None] = {0: None, 1: None, os.getpid(): None}
        if self._reaper is not None:
            owners[self._reaper] = None
        look_everywhere = everyone or self._reaper is None

        def direct(process: Process) -> str | None:
            leader = by_pid.get(process.pid)
            if leader is not None and leader.start == process.start:
                return leader.tag
            if process.start < oldest:
                return None
            for group in (process.session, process.pgrp):
                leader = by_pid.get(group)
                if leader is not None and process.start >= leader.start:
                    # A foreign process may have got the dead leader's number and made a
                    # session or group with it.
                    holder = table.get(group)
                    if holder is None or holder.start == leader.start:
                        return leader.tag
            seen = self._seen.get((process.pid, process.start))
            if seen in tags:
                return seen
            if look_everywhere or process.ppid == self._reaper:
                identity = (process.pid, process.start)
                if identity not in self._tags:
                    self._tags[identity] = processes.read_tag(process.pid)
                tag = self._tags[identity]
                if tag in tags:
                    return tag
            return None

        found: dict[str, list[Process]] = {}
        for process in table.values():
            chain: list[int] = []
            current: Process | None = process
            owner: str | None = None
            while current is not None and current.pid not in owners:
                owner = direct(current)
                if owner is not None:
                    owners[current.pid] = owner
                    break
                chain.append(current.pid)
                owners[current.pid] = None  # stops at a loop, which a torn table may show
                current = table.get(current.ppid)
            else:
                owner = owners.get(current.pid) if current is not None else None
            for pid in chain:
                owners[pid] = owner
            if owner is not None and not process.dead:
                found.setdefault(owner, []).append(process)
        for key in [key for key in self._tags if key[0] not in table]:
            del self._tags[key]
        return found
