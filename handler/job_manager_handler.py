"""`JobManagerHandler`: the whole of Simyard for ordinary, synchronous Python.

Composition: a `JobManager` in an event loop of its own thread, and one call into it
per method, with the same signature (a test compares them).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from typing_extensions import ParamSpec, Self, Unpack

from . import farewell
from .client import Json
from .job_handle import AsyncJobHandle, JobHandle
from .job_list import JobList
from .job_manager import HOST, PORT, JobManager, OnClose, id_of
from .loop_thread import LoopThread
from .spec_fields import PathLike, SpecFields, Work
from .waiting_bar import WaitingBar, waiting_bar

Jobs = str | int | JobHandle
P = ParamSpec("P")
T = TypeVar("T")


class JobManagerHandler:
    """Submit, follow and control jobs from a notebook or a script.

        handler = JobManagerHandler()
        job = handler.submit(["pw.x", "-in", "si.in"], cores=2, memory="4 GiB")
        print(job.wait())
        handler.close()

    It becomes a client of the service that runs for `home`, or hosts one in a daemon thread;
    see `JobManager` for the arguments. Blocks, so a coroutine must not call it (a notebook's
    cell may). Ctrl-C ends the wait, not the job.
    """

    def __init__(
        self,
        home: PathLike | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        host: str = HOST,
        port: int = PORT,
        on_close: OnClose = "handover",
        **settings: Any,
    ) -> None:
        self._manager = JobManager(
            home, url=url, token=token, host=host, port=port, on_close=on_close, **settings
        )
        self._manager.leaves_by_itself = False
        self._portal = LoopThread()
        self._closed = False

    @property
    def home(self) -> str:
        """The service's folder."""
        return self._manager.home

    def __repr__(self) -> str:
        return repr(self._manager).replace("JobManager", type(self).__name__, 1)

    def __enter__(self) -> Self:
        self.start_service()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_service(self, detached: bool = False) -> str:
        """Find the service or start one, and return its address; once is enough, twice is no harm.

        With `detached` the service is a process of its own from the start, so that a busy
        kernel does not slow it down.
        """
        return self._call(self._manager.start_service, detached)

    def close(self) -> None:
        """Hang up and join the thread; a hosted service with jobs left is handed over. Idempotent."""
        if self._closed:
            return
        if self._portal.alive:
            self._portal.call(self._manager.close)
        self._closed = True
        farewell.unregister(self)
        self._portal.stop()

    def at_exit(self) -> None:
        """Called when the process ends without a close."""
        try:
            self.close()
        finally:
            with contextlib.suppress(Exception):
                self._portal.stop()

    def _call(
        self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        if not self._portal.alive and not self._closed:
            farewell.register(self)
        return self._portal.call(function, *args, **kwargs)

    def _held(self, handle: AsyncJobHandle) -> JobHandle:
        return JobHandle(self._portal, handle)

    def submit_job(self, spec: Work, priority: int | None = None) -> str:
        """Submit a `JobSpec` (or its fields, or a command as a list); return the job's id.

        Returns once the job is durable. Raises `InvalidInput`, `ImpossibleRequest`.
        """
        return self._call(self._manager.submit_job, spec, priority)

    def submit(
        self,
        command: Work | None = None,
        *,
        export: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
        **fields: Unpack[SpecFields],
    ) -> JobHandle:
        """Submit a command (a list), a spec, or `script="…"`; return the job's handle.

        `fields` are those of `JobSpec`: `name`, `cores`, `memory`, `walltime`, `env`, …
        On this host the job gets the caller's folder, program and environment; `export` is
        "all", "none" or names of variables. With `wait`, returns when the job is over.
        """
        return self._held(
            self._call(
                self._manager.submit, command, export=export, wait=wait, timeout=timeout, **fields
            )
        )

    def submit_batch(
        self, specs: Iterable[Work], *, export: str | None = None
    ) -> JobList[JobHandle]:
        """Submit many jobs in one transaction, all or none; return their handles in order."""
        found = self._call(self._manager.submit_batch, list(specs), export=export)
        return JobList(self._held(handle) for handle in found)

    def get(self, job_id: Jobs) -> JobHandle:
        """Return the handle of a job; raises `NotFound`."""
        return self._held(self._call(self._manager.get, id_of(job_id)))

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        name: str | None = None,
        project: str | None = None,
        group: str | None = None,
        q: str | None = None,
        limit: int | None = 100,
    ) -> JobList[JobHandle]:
        """Return handles of jobs, newest first: all that fit, at most `limit` (None: no bound)."""
        found = self._call(
            self._manager.jobs,
            state=state,
            name=name,
            project=project,
            group=group,
            q=q,
            limit=limit,
        )
        return JobList(self._held(handle) for handle in found)

    def resources(self) -> Json:
        """Return what this host has, the limits, what is in use, and jobs by state."""
        return self._call(self._manager.resources)

    def queue(self) -> list[Json]:
        """Return what waits, in order: `[{id, name, state, priority, pending_reason}]`."""
        return self._call(self._manager.queue)

    def limits(self) -> Json:
        """Return the limits in force."""
        return self._call(self._manager.limits)

    def set_limits(self, **limits: Any) -> Json:
        """Change limits (`max_concurrent_jobs`, `max_cores`, `max_memory`, `licenses`, …); return all."""
        return self._call(self._manager.set_limits, **limits)

    def wait_until_done(self, job_id: Jobs, timeout: float | None = None) -> str:
        """Wait until a job is over: "completed", "failed" or "cancelled".

        Raises `WaitTimeout` after `timeout` seconds; the job goes on.
        """
        return self._call(self._manager.wait_until_done, id_of(job_id), timeout)

    def wait_until_all_done(
        self, timeout: float | None = None, *, progress: bool | WaitingBar = False
    ) -> None:
        """Wait until no job of the home is queued, started or running; held ones are not waited for.

        With `progress` a bar is shown on a terminal and in a notebook. Raises `WaitTimeout`
        after `timeout` seconds.
        """
        # Made here, where the cell of a notebook runs, and not in the loop's thread.
        with waiting_bar(progress) as bar:
            self._call(self._manager.wait_until_all_done, timeout, progress=bar)

    def as_completed(
        self,
        jobs: Iterable[Jobs],
        timeout: float | None = None,
        *,
        progress: bool | WaitingBar = False,
    ) -> Iterator[JobHandle]:
        """Yield each of `jobs` as it ends, in whatever way; `WaitTimeout` after `timeout` seconds.

        With `progress` a bar is shown on a terminal and in a notebook.
        """
        given = [job._async if isinstance(job, JobHandle) else job for job in jobs]
        self._call(self._manager.start_service)
        with waiting_bar(progress) as bar:
            for handle in self._portal.iterate(
                lambda: self._manager.as_completed(given, timeout, progress=bar)
            ):
                yield self._held(handle)

    def cancel(self, job_id: Jobs) -> str:
        """Ask for the end of a job, all its processes; return its state now."""
        return self._call(self._manager.cancel, id_of(job_id))

    def hold(self, job_id: Jobs) -> str:
        """Keep a job that has not started from starting; return its state now."""
        return self._call(self._manager.hold, id_of(job_id))

    def release(self, job_id: Jobs) -> str:
        """Let a held job go; return its state now."""
        return self._call(self._manager.release, id_of(job_id))

    def retry(self, job_id: Jobs) -> JobHandle:
        """Submit a finished job again; return the handle of the new job."""
        return self._held(self._call(self._manager.retry, id_of(job_id)))

    def prune(
        self,
        *,
        older_than: float | str | None = None,
        keep: int | None = None,
        max_size: int | str | None = None,
        dry_run: bool = False,
    ) -> Json:
        """Forget finished jobs that ended longer ago, beyond the last `keep`, or beyond a size.

        One that is not over never goes. `older_than` is seconds or "30d", `max_size` bytes or
        "20 GiB". Returns `{jobs, ids, bytes, leftovers, dry_run}`.
        """
        return self._call(
            self._manager.prune,
            older_than=older_than,
            keep=keep,
            max_size=max_size,
            dry_run=dry_run,
        )

    def set_priority(self, job_id: Jobs, priority: int) -> None:
        """Change when a job that has not started gets its turn; higher is earlier."""
        self._call(self._manager.set_priority, id_of(job_id), priority)
