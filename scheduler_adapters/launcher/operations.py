"""What a manager may ask for. Each operation takes the connection and the request."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import processes
from .adoption import Adoption
from .connection import Connection
from .job import Job, text_of
from .log import log

if TYPE_CHECKING:
    from .loop import Launcher

Request = Mapping[str, Any]

CAUSES = frozenset({"cancelled", "timeout", "out_of_memory", "output_limit"})


class Operations:
    """Obeys requests; raises `ValueError` and its like for those that cannot be understood."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._by_name: dict[object, Callable[[Connection, Request], None]] = {
            "env": self._env,
            "start": self._start,
            "withdraw": self._withdraw,
            "kill": self._kill,
            "find": self._find,
            "adopt": self._adopt,
            "quit": self._quit,
        }

    def obey(self, connection: Connection, request: Request) -> None:
        """Do what one request says."""
        name = request.get("op")
        operation = self._by_name.get(name) if isinstance(name, str) else None
        if operation is None:
            raise ValueError(f"unknown operation {name!r}")
        operation(connection, request)

    def _env(self, _connection: Connection, request: Request) -> None:
        environment = {str(k): str(v) for k, v in request["env"].items()}
        self._launcher.starting.learn(text_of(request, "key"), environment)

    def _start(self, connection: Connection, request: Request) -> None:
        roster = self._launcher.roster
        for given in request["jobs"]:
            try:
                job = Job(given)
            except (ValueError, TypeError, AttributeError) as error:
                connection.send({"ev": "error", "message": f"a job was left out: {error}"})
                tag = given.get("tag") if isinstance(given, dict) else None
                if isinstance(tag, str) and tag and tag not in roster.jobs:
                    message = f"the request cannot be understood: {error}"
                    self._launcher.starting.fail(tag, errno.EINVAL, message)
                continue
            if roster.knows(job.tag):
                log("a second start of %s is ignored", job.tag)
            else:
                roster.add(job)

    def _withdraw(self, connection: Connection, request: Request) -> None:
        taken = [tag for tag in request["tags"] if self._launcher.withdraw(tag)]
        self._launcher.journal.flush()
        connection.send({"ev": "withdrawn", "n": request.get("n"), "tags": taken})

    def _kill(self, _connection: Connection, request: Request) -> None:
        launcher = self._launcher
        launcher.reaping.reap()  # who has ended by himself already was not ended by us
        cause = request.get("cause", "cancelled")
        if cause not in CAUSES:
            raise ValueError(f"unknown cause {cause!r}")
        for tag in request["tags"]:
            job = launcher.roster.jobs.get(tag)
            if job is None or launcher.withdraw(tag):
                continue
            grace = request.get("grace")
            launcher.ending.end(job, cause, job.grace if grace is None else float(grace))

    def _find(self, connection: Connection, request: Request) -> None:
        tags = set(request["tags"])
        found = {tag for tag in tags if tag in self._launcher.roster.jobs}
        found.update(processes.find_tagged(tags - found))
        connection.send({"ev": "found", "n": request.get("n"), "tags": sorted(found)})

    def _adopt(self, connection: Connection, request: Request) -> None:
        """Follow attempts that no record of ours names; those without `start` are searched."""
        launcher = self._launcher
        adoption = Adoption(launcher)
        adoption.search({text_of(given, "tag") for given in request["jobs"]})
        for given in request["jobs"]:
            tag = text_of(given, "tag")
            if tag not in launcher.roster.jobs:
                kind = "started" if given.get("start") else "starting"
                boot = str(given.get("boot") or launcher.boot)
                adoption.consider(tag, {kind: dict(given)}, boot)
        for record in adoption.records:
            record.pop("again", None)
            launcher.journal.add(record)
        adoption.follow()
        connection.send({"ev": "adopted", "n": request.get("n")})

    def _quit(self, connection: Connection, _request: Request) -> None:
        jobs = self._launcher.roster.jobs
        if jobs:
            connection.send({"ev": "error", "message": f"{len(jobs)} jobs are still here"})
        else:
            self._launcher.leaving = True
