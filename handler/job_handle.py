"""What a caller holds of a job: `AsyncJobHandle`, and `JobHandle` for everybody else.

A handle is an id and a way to ask; it keeps what it was told last, which may be old.
`JobHandle` is composition: one call into the loop thread per method.
"""

from __future__ import annotations

import asyncio
import codecs
import html
import time
import warnings
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from ..errors import InvalidInput, JobFailed, SimyardError, WaitTimeout
from .client import POLL_SECONDS, Client, Json

if TYPE_CHECKING:
    import os

    from .loop_thread import LoopThread

TERMINAL = frozenset({"completed", "failed", "cancelled"})
Stream = Literal["stdout", "stderr"]
LONGEST_LINE = 1 << 20
TAIL_LINES = 20


class Source(Protocol):
    """Whoever can say how the service is reached."""

    async def client(self) -> Client:
        """Return a client that has found the service."""
        raise NotImplementedError


class AsyncJobHandle:
    """One job, to be awaited on: `wait`, `result`, `logs`, `cancel`, `download`, …"""

    def __init__(self, source: Source, job: Mapping[str, Any]) -> None:
        self._source = source
        self._last: Json = dict(job)
        self._id = str(job["id"])

    @property
    def id(self) -> str:
        """The job's id."""
        return self._id

    @property
    def name(self) -> str:
        """The job's name as it was told last."""
        return str(self._last.get("name", ""))

    @property
    def state(self) -> str:
        """The state as it was told last; `status` asks."""
        return str(self._last.get("state", "unknown"))

    @property
    def last(self) -> Json:
        """The whole job as it was told last."""
        return self._last

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r} {self.state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AsyncJobHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self._id)

    def _repr_html_(self) -> str:
        return as_html(self._last)

    def _told(self, job: Mapping[str, Any]) -> AsyncJobHandle:
        self._last = dict(job)
        return self

    async def info(self) -> Json:
        """Ask for the whole job as it is on the wire."""
        client = await self._source.client()
        self._last = await client.job(self.id)
        return self._last

    async def status(self) -> str:
        """Ask for the state: held, queued, submitting, scheduled, running, completed, failed, cancelled."""
        return str((await self.info())["state"])

    async def done(self) -> bool:
        """Ask whether the job is over, in whatever way."""
        return await self.status() in TERMINAL

    async def wait(self, timeout: float | None = None) -> str:
        """Wait until the job is over and return its terminal state.

        Raises `WaitTimeout` after `timeout` seconds; the job goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        client = await self._source.client()
        version: int | None = None
        while True:
            left = POLL_SECONDS if deadline is None else deadline - time.monotonic()
            first = version is None
            self._last = await client.job(
                self.id,
                wait=None if first else round(max(0.0, min(left, POLL_SECONDS)), 3),
                version=version,
                start=first,
            )
            if self.state in TERMINAL:
                return self.state
            version = int(self._last["version"])
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"job {self.id} is still {self.state} after {timeout:g} s; it goes on"
                )

    async def result(self, timeout: float | None = None) -> Json:
        """Wait, and return the outcome: `{reason, exit_code, signal, message}`.

        Raises `JobFailed` with the end of stderr where the job did not complete,
        `WaitTimeout` where it is not over in time.
        """
        failure = await self.exception(timeout)
        if failure is not None:
            raise failure
        return dict(self._last.get("outcome") or {})

    async def exception(self, timeout: float | None = None) -> JobFailed | None:
        """Wait, and return what `result` would raise; None where the job completed."""
        state = await self.wait(timeout)
        if state == "completed":
            return None
        outcome = dict(self._last.get("outcome") or {})
        tail = "" if self._last.get("started_at") is None else await self._tail("stderr")
        what = f"job {self.id} ({self.name}) {_ended(state)}: {why_ended(outcome)}"
        shown = f"{what}\n--- the end of its stderr ---\n{tail}" if tail else what
        return JobFailed(shown, job=self.id, state=state, outcome=outcome, stderr=tail)

    async def _tail(self, stream: Stream) -> str:
        client = await self._source.client()
        try:
            data, _, _ = await client.log_piece(self.id, stream, tail=TAIL_LINES)
        except SimyardError:
            return ""
        text = data[-8192:].decode(errors="replace")
        return "".join(
            char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}"
            for char in text
        ).rstrip("\n")

    async def cancel(self) -> str:
        """Ask for the end of the whole job, all its processes; return the state now."""
        return await self._control("cancel")

    async def hold(self) -> str:
        """Keep a job that has not started from starting; return the state now."""
        return await self._control("hold")

    async def release(self) -> str:
        """Let a held job go; return the state now."""
        return await self._control("release")

    async def _control(self, verb: str) -> str:
        client = await self._source.client()
        self._last = await client.control(verb, self.id)
        return self.state

    async def retry(self) -> AsyncJobHandle:
        """Submit a finished job again; return the handle of the new job."""
        client = await self._source.client()
        return AsyncJobHandle(self._source, await client.control("retry", self.id))

    async def set_priority(self, priority: int) -> None:
        """Change when a job that has not started gets its turn; higher is earlier."""
        client = await self._source.client()
        self._last = await client.change(self.id, {"priority": priority})

    async def logs(
        self, stream: Stream = "stdout", *, follow: bool = False, tail: int | None = None
    ) -> AsyncGenerator[str, None]:
        """Yield the lines of a stream, without their ends; with `follow` until the job is over.

        `tail` begins with the last so many lines. What is no UTF-8 is replaced; a line longer
        than 1 MiB comes in pieces.
        """
        _check_stream(stream)
        lines = _Lines()
        async for data in self._pieces(stream, follow=follow, tail=tail):
            for line in lines.feed(data):
                yield line
        for line in lines.finish():
            yield line

    async def _pieces(
        self, stream: str, *, follow: bool = False, tail: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        client = await self._source.client()
        data, offset, complete = await client.log_piece(
            self.id, stream, offset=0 if tail is None else None, tail=tail
        )
        while True:
            if data:
                yield data
            if complete or (not follow and not data):
                return
            data, offset, complete = await client.log_piece(
                self.id, stream, offset=offset, wait=POLL_SECONDS if follow else None, start=False
            )

    async def stdout(self) -> str:
        """Return all that the job has printed by now."""
        return await self._whole("stdout")

    async def stderr(self) -> str:
        """Return all that the job has printed to stderr by now."""
        return await self._whole("stderr")

    async def _whole(self, stream: Stream) -> str:
        pieces = [data async for data in self._pieces(stream)]
        return b"".join(pieces).decode(errors="replace")

    async def files(self) -> list[Json]:
        """Return the job's files: `[{path, size, modified, kind}]`."""
        client = await self._source.client()
        return list((await client.files(self.id))["items"])

    async def download(
        self,
        names: Sequence[str] | str | None = None,
        to: str | os.PathLike[str] = ".",
        *,
        progress: bool | None = True,
    ) -> list[Path]:
        """Fetch files by path or pattern, all where None, into the folder `to`; return the paths.

        All means without those of a working directory of yours on this machine: they are there
        already. Nothing is ever written outside of `to`. A bar is shown on a terminal and in a
        notebook.
        """
        from . import download

        client = await self._source.client()
        listed = await client.files(self.id)
        files = list(listed["items"])
        if names is None and client.endpoint.on_this_host:
            own = "workdir" not in (await self.info())["spec"]
            files = [item for item in files if own or not item["path"].startswith("work/")]
        if listed.get("truncated"):
            warnings.warn(
                f"job {self.id} has more files than are listed; some may be missing", stacklevel=2
            )
        wanted = download.chosen(files, [names] if isinstance(names, str) else names)
        return await download.fetch(client, self.id, wanted, Path(to), progress=progress)

    async def usage(self) -> Json:
        """Return what the job has used: `{wall_seconds, cpu_seconds, max_rss_bytes, samples}`."""
        client = await self._source.client()
        samples = await client.detail(self.id, "usage")
        return {**(await self.info())["usage"], "samples": samples.get("samples", [])}

    async def script(self) -> Json:
        """Return exactly what is run: `{argv, script, workdir, env, tag}`, secrets masked."""
        client = await self._source.client()
        return await client.detail(self.id, "script")

    async def events(self) -> list[Json]:
        """Return the job's history, oldest first."""
        client = await self._source.client()
        return list((await client.detail(self.id, "events"))["items"])

    async def explain(self) -> Json:
        """Return why the job is where it is: what it lacks, who holds that, and what would help.

        `{reason, position, ahead, lacks, reserved_by, has_reserved, free_by, advice, …}`
        """
        client = await self._source.client()
        return await client.detail(self.id, "explanation")

    async def delete(self) -> None:
        """Forget a finished job: its record and its folder."""
        client = await self._source.client()
        await client.delete(self.id)


class JobHandle:
    """One job, held by synchronous code; the methods are those of `AsyncJobHandle`."""

    def __init__(self, portal: LoopThread, handle: AsyncJobHandle) -> None:
        self._portal = portal
        self._async = handle

    @property
    def id(self) -> str:
        """The job's id."""
        return self._async.id

    @property
    def name(self) -> str:
        """The job's name as it was told last."""
        return self._async.name

    @property
    def state(self) -> str:
        """The state as it was told last; `status` asks."""
        return self._async.state

    @property
    def last(self) -> Json:
        """The whole job as it was told last."""
        return self._async.last

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r} {self.state}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JobHandle) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self._async)

    def _repr_html_(self) -> str:
        return as_html(self._async.last)

    def info(self) -> Json:
        """Ask for the whole job as it is on the wire."""
        return self._portal.call(self._async.info)

    def status(self) -> str:
        """Ask for the state: held, queued, submitting, scheduled, running, completed, failed, cancelled."""
        return self._portal.call(self._async.status)

    def done(self) -> bool:
        """Ask whether the job is over, in whatever way."""
        return self._portal.call(self._async.done)

    def wait(self, timeout: float | None = None) -> str:
        """Wait until the job is over and return its terminal state.

        Raises `WaitTimeout` after `timeout` seconds. That, and Ctrl-C, end the wait; the job
        goes on.
        """
        return self._portal.call(self._async.wait, timeout)

    def result(self, timeout: float | None = None) -> Json:
        """Wait, and return the outcome: `{reason, exit_code, signal, message}`.

        Raises `JobFailed` with the end of stderr where the job did not complete,
        `WaitTimeout` where it is not over in time.
        """
        return self._portal.call(self._async.result, timeout)

    def exception(self, timeout: float | None = None) -> JobFailed | None:
        """Wait, and return what `result` would raise; None where the job completed."""
        return self._portal.call(self._async.exception, timeout)

    def cancel(self) -> str:
        """Ask for the end of the whole job, all its processes; return the state now."""
        return self._portal.call(self._async.cancel)

    def hold(self) -> str:
        """Keep a job that has not started from starting; return the state now."""
        return self._portal.call(self._async.hold)

    def release(self) -> str:
        """Let a held job go; return the state now."""
        return self._portal.call(self._async.release)

    def retry(self) -> JobHandle:
        """Submit a finished job again; return the handle of the new job."""
        return JobHandle(self._portal, self._portal.call(self._async.retry))

    def set_priority(self, priority: int) -> None:
        """Change when a job that has not started gets its turn; higher is earlier."""
        self._portal.call(self._async.set_priority, priority)

    def logs(
        self, stream: Stream = "stdout", *, follow: bool = False, tail: int | None = None
    ) -> Iterator[str]:
        """Yield the lines of a stream, without their ends; with `follow` until the job is over.

        `tail` begins with the last so many lines. What is no UTF-8 is replaced; a line longer
        than 1 MiB comes in pieces.
        """
        _check_stream(stream)
        return self._portal.iterate(lambda: self._async.logs(stream, follow=follow, tail=tail))

    def stdout(self) -> str:
        """Return all that the job has printed by now."""
        return self._portal.call(self._async.stdout)

    def stderr(self) -> str:
        """Return all that the job has printed to stderr by now."""
        return self._portal.call(self._async.stderr)

    def files(self) -> list[Json]:
        """Return the job's files: `[{path, size, modified, kind}]`."""
        return self._portal.call(self._async.files)

    def download(
        self,
        names: Sequence[str] | str | None = None,
        to: str | os.PathLike[str] = ".",
        *,
        progress: bool | None = True,
    ) -> list[Path]:
        """Fetch files by path or pattern, all where None, into the folder `to`; return the paths.

        All means without those of a working directory of yours on this machine: they are there
        already. Nothing is ever written outside of `to`. A bar is shown on a terminal and in a
        notebook.
        """
        return self._portal.call(self._async.download, names, to, progress=progress)

    def usage(self) -> Json:
        """Return what the job has used: `{wall_seconds, cpu_seconds, max_rss_bytes, samples}`."""
        return self._portal.call(self._async.usage)

    def script(self) -> Json:
        """Return exactly what is run: `{argv, script, workdir, env, tag}`, secrets masked."""
        return self._portal.call(self._async.script)

    def events(self) -> list[Json]:
        """Return the job's history, oldest first."""
        return self._portal.call(self._async.events)

    def explain(self) -> Json:
        """Return why the job is where it is: what it lacks, who holds that, and what would help.

        `{reason, position, ahead, lacks, reserved_by, has_reserved, free_by, advice, …}`
        """
        return self._portal.call(self._async.explain)

    def delete(self) -> None:
        """Forget a finished job: its record and its folder."""
        self._portal.call(self._async.delete)


class _Lines:
    """Cut a stream of bytes into lines of text, none longer than `LONGEST_LINE`."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""

    def feed(self, data: bytes, *, final: bool = False) -> list[str]:
        # Only "\n" ends a line: `splitlines` would also cut at form feeds and the like.
        *whole, self._rest = (self._rest + self._decoder.decode(data, final)).split("\n")
        lines = [line.removesuffix("\r") for line in whole]
        while len(self._rest) > LONGEST_LINE:
            lines.append(self._rest[:LONGEST_LINE])
            self._rest = self._rest[LONGEST_LINE:]
        return lines

    def finish(self) -> list[str]:
        lines = self.feed(b"", final=True)
        return [*lines, self._rest] if self._rest else lines


async def ends(client: Client, ids: Sequence[str]) -> AsyncGenerator[Json, None]:
    """Yield each of the jobs once, as it ends; those that have ended already first."""
    pending = dict.fromkeys(str(job_id) for job_id in ids)
    if not pending:
        return
    stream = client.events()
    try:
        async for event in stream:
            job_id = event.get("job_id")
            if event["type"] in ("hello", "resync"):
                asked = list(pending)  # what was missed is in the jobs themselves
            elif job_id in pending and (event.get("data") or {}).get("state") in TERMINAL:
                asked = [job_id]
            else:
                asked = [job_id] if job_id in pending and event["type"] == "job.deleted" else []
            for start in range(0, len(asked), 16):
                some = asked[start : start + 16]
                for job in await asyncio.gather(*(client.job(each, start=False) for each in some)):
                    if job["state"] in TERMINAL and job["id"] in pending:
                        del pending[job["id"]]
                        yield job
            if not pending:
                return
    finally:
        await stream.aclose()


def as_html(job: Mapping[str, Any]) -> str:
    """Return a small table about a job for a notebook; every word of the job's is escaped."""
    outcome = job.get("outcome") or {}
    usage = job.get("usage") or {}
    rows = {
        "job": f"{job.get('id')} · {job.get('name', '')}",
        "state": job.get("state", "unknown"),
        "waits": job.get("pending_reason"),
        "ended": why_ended(outcome) if outcome else None,
        "ran": f"{usage['wall_seconds']:.1f} s" if usage.get("wall_seconds") else None,
        "folder": job.get("workdir"),
    }
    body = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value
    )
    return f"<table>{body}</table>"


def why_ended(outcome: Mapping[str, Any]) -> str:
    """Say in words why a job ended as it did."""
    if outcome.get("message"):
        return str(outcome["message"])
    if outcome.get("reason") == "exit_code":
        return f"exit code {outcome.get('exit_code')}"
    if outcome.get("reason") == "signal":
        return f"signal {outcome.get('signal')}"
    return str(outcome.get("reason") or "no reason is known").replace("_", " ")


def _ended(state: str) -> str:
    return "was cancelled" if state == "cancelled" else state


def _check_stream(stream: str) -> None:
    if stream not in ("stdout", "stderr"):
        raise InvalidInput(f"there is no stream {stream!r}; the streams are stdout and stderr")
