"""Starting what is ready: all of it written down first, then each, then written down."""

from __future__ import annotations

import errno
import os
import time
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import processes
from .faultpoint import faultpoint
from .job import Job
from .log import log
from .spawning import CannotStart, spawn

if TYPE_CHECKING:
    from .loop import Launcher

BATCH = 32
KEPT_ENVIRONMENTS = 256


class Starting:
    """Makes processes of the jobs that are ready; owns the environments they share."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._environments: OrderedDict[str, dict[str, str]] = OrderedDict()

    def learn(self, key: str, environment: dict[str, str]) -> None:
        """Keep an environment that jobs will name by `key`."""
        self._environments[key] = environment
        while len(self._environments) > KEPT_ENVIRONMENTS:
            self._environments.popitem(last=False)

    def start_ready(self) -> None:
        """Start a batch of what is ready; nothing, while that cannot be written down."""
        ready, journal = self._launcher.roster.ready, self._launcher.journal
        if not ready:
            return
        batch, ready[:BATCH] = ready[:BATCH], ()
        now = time.time()
        for job in batch:
            if not job.announced:
                job.announced = True
                journal.add({"r": "starting", "tag": job.tag, "t": now, **job.facts()})
        if not journal.flush():
            ready[:0] = batch  # the disk may be full
            return
        faultpoint("launcher.recorded-starting")
        for job in batch:
            try:
                self._start(job)
            except CannotStart as error:
                self.fail(job.tag, error.errno, str(error))
                self._launcher.release(job)
            except Exception as error:
                log("unexpected at the start of %s: %s", job.tag, traceback.format_exc())
                if job.state == "waiting":
                    self.fail(job.tag, errno.EINVAL, f"the job could not be started: {error}")
                    self._launcher.release(job)
        os.chdir("/")
        journal.flush()
        faultpoint("launcher.recorded-started")

    def fail(self, tag: str, number: int, message: str) -> None:
        """Record that an attempt will never start, and why."""
        self._launcher.journal.add(
            {"r": "failed", "tag": tag, "t": time.time(), "errno": number, "msg": message}
        )

    def _start(self, job: Job) -> None:
        if not job.argv:
            raise CannotStart(errno.EINVAL, "the command is empty")
        launcher = self._launcher
        environment = self._environment(job)
        if job.memory:
            job.cgroup = launcher.cgroups.make(job.memory)
        earliest = processes.now_ticks()
        job.pid = spawn(job, environment)
        latest = processes.now_ticks()
        if job.cgroup is not None and not job.cgroup.enter(job.pid):
            launcher.cgroups.drop(job.cgroup)
            job.cgroup = None
        job.began = time.monotonic()
        faultpoint("launcher.spawned")
        job.env = {}
        job.state = "running"
        launcher.roster.by_pid[job.pid] = job
        # The kernel takes the start time between these two; to read it from /proc costs
        # as much as half a start.
        job.start = earliest
        if latest != earliest or not processes.LINUX:
            process = processes.read_process(job.pid)
            job.start = process.start if process is not None else latest
        launcher.oom.offer(job.pid)
        launcher.journal.add(job.started_record(launcher.boot))
        launcher.nursery.add(job)

    def _environment(self, job: Job) -> Mapping[str, str]:
        if job.base is None:
            environment: dict[str, str] = {}
        elif job.base in self._environments:
            self._environments.move_to_end(job.base)
            environment = dict(self._environments[job.base])
        else:
            raise CannotStart(errno.EINVAL, "the job's environment did not reach the launcher")
        for name, value in job.env.items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        environment[processes.TAG_VARIABLE] = job.tag
        return environment
