"""`JobManager`: the whole of Simyard for asynchronous Python.

It becomes a client of the service that runs, or hosts one in the current event loop;
nobody has to know which. All calls go over the wire either way, so that the home can
be handed to a service of its own at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
import warnings
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import Self, Unpack

from ..errors import HomeInUse, InvalidInput, NotRunning, PermissionDenied, UsageError, WaitTimeout
from . import capture, discovery, farewell, handover, upload
from .client import Client, Json, in_thread
from .endpoint import Endpoint, home_path
from .job_handle import TERMINAL, AsyncJobHandle, ends
from .job_list import JobList
from .spec_fields import PathLike, SpecFields, Work, as_spec
from .waiting_bar import WaitingBar, waiting_bar

if TYPE_CHECKING:
    from ..service.server import HostedService

OnClose = Literal["handover", "leave"]
Jobs = str | int | AsyncJobHandle
HOST = "127.0.0.1"
PORT = 8080
OTHER_STARTS_SECONDS = 20.0
ASK_SECONDS = 0.5
"""Between two questions about all jobs, for the sake of a bar alone."""
_ACTIVE = ("queued", "submitting", "scheduled", "running")


class JobManager:
    """Submit, follow and control jobs from one event loop.

    `home` is the service's folder (default: `SIMYARD_HOME`, else the user's state folder).
    With `url` and `token` it is a client of that service; else of the one that runs for
    `home`; else it hosts one at `host` and `port` (a free port where the default is taken)
    with `settings`, which are those of 'simyard serve' (`max_cores=4`, …).

    A hosted service that is closed, or whose process ends, with jobs left is handed over
    to one in the background; `on_close="leave"` prevents it: what runs goes on, what waits
    waits for the next service.

    Starts at the first call, by `start_service`, or as `async with`.
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
        if on_close not in ("handover", "leave"):
            raise InvalidInput(f"on_close is 'handover' or 'leave', not {on_close!r}")
        self.home = home_path(home)
        self._address = url or (None if home else os.environ.get("SIMYARD_URL"))
        self._token = token
        self._on_close = on_close
        self._settings = {name: value for name, value in settings.items() if value is not None}
        if host != HOST:
            self._settings["host"] = host
        if port != PORT:
            self._settings["port"] = port
        self._client: Client | None = None
        self._hosted: HostedService | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()
        self._closed = False
        self.leaves_by_itself = True
        """False where somebody else closes it before the process ends."""

    def __repr__(self) -> str:
        role = "closed" if self._closed else "hosting" if self._hosted else "client"
        return f"<{type(self).__name__} {self.home} {role if self._client else 'not started'}>"

    async def __aenter__(self) -> Self:
        await self.start_service()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # -- life --------------------------------------------------------------------------

    async def start_service(self, detached: bool = False) -> str:
        """Find the service or start one, and return its address; once is enough, twice is no harm.

        With `detached` the service is a process of its own from the start, so that a busy
        event loop does not slow it down.
        """
        client = await self.client(detached=detached)
        if detached and self._hosted is not None:
            await self._hand_over()
            await client.forget()
        return (await client.open()).url

    async def client(self, *, detached: bool = False) -> Client:
        """Return the client of the service, found or started where that is not done."""
        self._check_loop()
        async with self._starting:
            if self._client is None:
                self._client = await self._start(detached)
            return self._client

    def _check_loop(self) -> None:
        if self._closed:
            raise UsageError("this job manager is closed; make a new one")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise UsageError(
                "this JobManager was started in another event loop; make one in each loop, or use "
                "JobManagerHandler"
            )

    async def _start(self, detached: bool) -> Client:
        token = self._token or os.environ.get("SIMYARD_TOKEN")
        if self._address and token:
            return await _opened(Client(self.home, endpoint=Endpoint(self._address, token)))
        if self._address:
            # Without a token of its own, the address must be that of the home's service.
            found = await in_thread(self._endpoint_at_address)
            return await _opened(Client(self.home, endpoint=found))
        client = Client(self.home, flags=as_flags(self._settings), say=_say)
        if detached:
            return await _opened(client)
        deadline = time.monotonic() + OTHER_STARTS_SECONDS
        while True:
            try:
                await client.open(start=False, revive=False)
            except (NotRunning, PermissionDenied) as error:
                if isinstance(error, PermissionDenied) and "stale" not in error.details:
                    raise
            else:
                self._warn_of_ignored_settings()
                return client
            try:
                await self._host()
                return await _opened(client)
            except HomeInUse:
                # Another process is just starting one: it will answer in a moment.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)

    def _endpoint_at_address(self) -> Endpoint:
        with discovery.connect(self.home, url=self._address) as connection:
            return connection.endpoint

    async def _host(self) -> None:
        from ..service.server import HostedService

        self._hosted = await HostedService.start(Path(self.home), self._settings)
        if self.leaves_by_itself:
            farewell.register(self)

    def _warn_of_ignored_settings(self) -> None:
        if self._settings:
            names = ", ".join(sorted(self._settings))
            warnings.warn(
                f"a Simyard service runs already for {self.home} and keeps its settings; ignored: "
                f"{names}. Limits are changed with set_limits()",
                stacklevel=2,
            )

    async def close(self) -> None:
        """Hang up; hand over or stop a hosted service. Running jobs go on. Idempotent."""
        if self._closed:
            return
        if self._loop is not None:
            self._check_loop()
        async with self._starting:
            self._closed = True
            try:
                if self._hosted is not None:
                    if self._on_close == "handover" and self._hosted.has_work():
                        await self._hand_over()
                    else:
                        await self._stop_hosted()
            finally:
                farewell.unregister(self)
                if self._client is not None:
                    await self._client.close()

    async def _stop_hosted(self) -> None:
        hosted, self._hosted = self._hosted, None
        farewell.unregister(self)
        if hosted is not None:
            await hosted.stop()

    async def _hand_over(self) -> None:
        """End the hosted service and bring up a detached one in its place."""
        left = await self._left()
        with handover.StartLock(self.home) as lock:
            # Whoever looks for a service meanwhile waits for the holder of this lock.
            while not lock.try_acquire():  # noqa: ASYNC110  another process has nothing to await
                await asyncio.sleep(0.05)
            await self._stop_hosted()
            _say(f"simyard: {left}; a service in the background goes on ('simyard status')")
            await in_thread(lambda: handover.bring_up(self.home, as_flags(self._settings)))

    async def _left(self) -> str:
        states: Mapping[str, int] = {}
        if self._client is not None:
            with contextlib.suppress(Exception):
                states = (await self._client.resources(start=False)).get("states", {})
        count = sum(states.get(state, 0) for state in _ACTIVE)
        return "1 job is left" if count == 1 else f"{count or 'some'} jobs are left"

    def at_exit(self) -> None:
        """Called when the process ends without a close: the loop is gone, jobs may be left."""
        if self._hosted is None or self._closed or self._on_close != "handover":
            return
        if not self._hosted.has_work():
            return
        # The home is free once this process is gone; who waits for that outlives it.
        with handover.StartLock(self.home) as lock:
            lock.try_acquire()
            handover.leave_behind(self.home, as_flags(self._settings), lock)
        _say("simyard: jobs are left; a service in the background goes on ('simyard status')")

    # -- submitting --------------------------------------------------------------------

    async def submit_job(self, spec: Work, priority: int | None = None) -> str:
        """Submit a `JobSpec` (or its fields, or a command as a list); return the job's id.

        Returns once the job is durable. Raises `InvalidInput`, `ImpossibleRequest`.
        """
        fields: SpecFields = {} if priority is None else {"priority": priority}
        return (await self.submit(spec, **fields)).id

    async def submit(
        self,
        command: Work | None = None,
        *,
        export: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
        **fields: Unpack[SpecFields],
    ) -> AsyncJobHandle:
        """Submit a command (a list), a spec, or `script="…"`; return the job's handle.

        `fields` are those of `JobSpec`: `name`, `cores`, `memory`, `walltime`, `env`, …
        On this host the job gets the caller's folder, program and environment; `export` is
        "all", "none" or names of variables. With `wait`, returns when the job is over.
        """
        spec = as_spec(command, fields)
        client = await self.client()
        whole = await self._completed(client, spec, export)
        handle = AsyncJobHandle(self, await client.submit(whole))
        if wait:
            await handle.wait(timeout)
        return handle

    async def submit_batch(
        self, specs: Iterable[Work], *, export: str | None = None
    ) -> JobList[AsyncJobHandle]:
        """Submit many jobs in one transaction, all or none; return their handles in order."""
        plain = [as_spec(spec) for spec in specs]
        if not plain:
            return JobList()
        client = await self.client()
        whole = [await self._completed(client, spec, export) for spec in plain]
        return JobList(AsyncJobHandle(self, job) for job in await client.submit_batch(whole))

    async def _completed(self, client: Client, spec: Json, export: str | None) -> Json:
        if client.endpoint.on_this_host:
            return capture.complete(spec, export=export)
        here = os.getcwd()
        staged, to_send = await in_thread(lambda: upload.staged_uploads(spec, here))
        for digest, path in to_send.items():
            await client.upload(digest, path)
        return {**capture.captured(export or "none", local=False), **staged}

    # -- reading -----------------------------------------------------------------------

    async def get(self, job_id: Jobs) -> AsyncJobHandle:
        """Return the handle of a job; raises `NotFound`."""
        client = await self.client()
        return AsyncJobHandle(self, await client.job(id_of(job_id)))

    async def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        name: str | None = None,
        project: str | None = None,
        group: str | None = None,
        q: str | None = None,
        limit: int | None = 100,
    ) -> JobList[AsyncJobHandle]:
        """Return handles of jobs, newest first: all that fit, at most `limit` (None: no bound)."""
        client = await self.client()
        states = state if state is None or isinstance(state, str) else ",".join(state)
        query = {"state": states, "name": name, "project": project, "group": group, "q": q}
        found: JobList[AsyncJobHandle] = JobList()
        cursor: str | None = None
        while limit is None or len(found) < limit:
            size = 500 if limit is None else min(limit - len(found), 500)
            page = await client.jobs(**query, limit=size, cursor=cursor)
            found.extend(AsyncJobHandle(self, job) for job in page["items"])
            cursor = page.get("next_cursor")
            if cursor is None:
                break
        return found

    async def resources(self) -> Json:
        """Return what this host has, the limits, what is in use, and jobs by state."""
        return await (await self.client()).resources()

    async def queue(self) -> list[Json]:
        """Return what waits, in order: `[{id, name, state, priority, pending_reason}]`."""
        return await (await self.client()).queue()

    async def limits(self) -> Json:
        """Return the limits in force."""
        return await (await self.client()).limits()

    async def set_limits(self, **limits: Any) -> Json:
        """Change limits (`max_concurrent_jobs`, `max_cores`, `max_memory`, `licenses`, …); return all."""
        return await (await self.client()).set_limits(limits)

    # -- waiting -----------------------------------------------------------------------

    async def wait_until_done(self, job_id: Jobs, timeout: float | None = None) -> str:
        """Wait until a job is over: "completed", "failed" or "cancelled".

        Raises `WaitTimeout` after `timeout` seconds; the job goes on.
        """
        return await AsyncJobHandle(self, {"id": id_of(job_id)}).wait(timeout)

    async def wait_until_all_done(
        self, timeout: float | None = None, *, progress: bool | WaitingBar = False
    ) -> None:
        """Wait until no job of the home is queued, started or running; held ones are not waited for.

        With `progress` a bar is shown on a terminal and in a notebook. Raises `WaitTimeout`
        after `timeout` seconds.
        """
        client = await self.client()
        try:
            with waiting_bar(progress) as bar:
                await asyncio.wait_for(_until_idle(client, bar), timeout)
        except asyncio.TimeoutError:
            left = await self._left()
            raise WaitTimeout(f"{left} after {timeout:g} s; nothing was stopped") from None

    async def as_completed(
        self,
        jobs: Iterable[Jobs],
        timeout: float | None = None,
        *,
        progress: bool | WaitingBar = False,
    ) -> AsyncGenerator[AsyncJobHandle, None]:
        """Yield each of `jobs` as it ends, in whatever way; `WaitTimeout` after `timeout` seconds.

        With `progress` a bar is shown on a terminal and in a notebook.
        """
        wanted = list(jobs)
        handles = {id_of(job): job for job in wanted}
        deadline = None if timeout is None else time.monotonic() + timeout
        news = ends(await self.client(), list(handles))
        try:
            with waiting_bar(progress) as bar:
                left = len(handles)
                bar.left(left)
                while left:
                    patience = None if deadline is None else max(0.0, deadline - time.monotonic())
                    try:
                        job = await asyncio.wait_for(news.__anext__(), patience)
                    except asyncio.TimeoutError:
                        raise WaitTimeout(
                            f"{left} of {len(handles)} jobs are not over after {timeout:g} s; they go on"
                        ) from None
                    left -= 1
                    bar.ended(str(job["state"]))
                    bar.left(left)
                    given = handles[job["id"]]
                    yield (
                        given._told(job)
                        if isinstance(given, AsyncJobHandle)
                        else AsyncJobHandle(self, job)
                    )
        finally:
            await news.aclose()

    # -- control -----------------------------------------------------------------------

    async def cancel(self, job_id: Jobs) -> str:
        """Ask for the end of a job, all its processes; return its state now."""
        return str((await (await self.client()).control("cancel", id_of(job_id)))["state"])

    async def hold(self, job_id: Jobs) -> str:
        """Keep a job that has not started from starting; return its state now."""
        return str((await (await self.client()).control("hold", id_of(job_id)))["state"])

    async def release(self, job_id: Jobs) -> str:
        """Let a held job go; return its state now."""
        return str((await (await self.client()).control("release", id_of(job_id)))["state"])

    async def retry(self, job_id: Jobs) -> AsyncJobHandle:
        """Submit a finished job again; return the handle of the new job."""
        return AsyncJobHandle(self, await (await self.client()).control("retry", id_of(job_id)))

    async def prune(
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
        rules = {"older_than": older_than, "keep": keep, "max_size": max_size}
        given = {name: value for name, value in rules.items() if value is not None}
        return await (await self.client()).prune({**given, "dry_run": dry_run})

    async def set_priority(self, job_id: Jobs, priority: int) -> None:
        """Change when a job that has not started gets its turn; higher is earlier."""
        await (await self.client()).change(id_of(job_id), {"priority": priority})


def id_of(job: object) -> str:
    """Return the id of a job given as an id or a handle."""
    return str(getattr(job, "id", job))


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as options of 'simyard serve'."""
    flags = []
    for name, value in settings.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(option)
        elif isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
            tables = (
                f"{key}:{','.join(f'{k}={v}' for k, v in t.items())}" for key, t in value.items()
            )
            flags.append(f"{option}={';'.join(tables)}")
        elif isinstance(value, Mapping):
            flags.append(f"{option}={','.join(f'{key}={item}' for key, item in value.items())}")
        elif isinstance(value, (list, tuple, set, frozenset)):
            flags.append(f"{option}={','.join(map(str, value))}")
        elif value is not False:
            flags.append(f"{option}={value}")
    return flags


async def _opened(client: Client) -> Client:
    await client.open()
    return client


async def _until_idle(client: Client, bar: WaitingBar) -> None:
    """Return when no job is active; the counts are asked for only when they can be zero.

    With a bar that is seen, they are asked for now and then too: more may be submitted.
    """
    active = 0
    asked = time.monotonic()
    stream = client.events()
    try:
        async for event in stream:
            state = (event.get("data") or {}).get("state")
            if event["type"] in ("hello", "resync"):
                active = 0
            elif state in TERMINAL or state == "held":
                active -= 1
                if state in TERMINAL:
                    bar.ended(str(state))
            elif not bar.is_drawn:
                continue
            if active <= 0 or (bar.is_drawn and time.monotonic() - asked > ASK_SECONDS):
                states = (await client.resources(start=False))["states"]
                asked = time.monotonic()
                active = sum(states.get(name, 0) for name in _ACTIVE)
                bar.left(active, running=states.get("running", 0))
                if active == 0:
                    return
    finally:
        await stream.aclose()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
