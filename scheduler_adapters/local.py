"""The local adapter: runs attempts on this host through the home's launcher.

The asyncio side of the launcher. It starts one where none lives, replays the
records since the cursor it was given, and reports what they say; when the
launcher dies it starts the next, which adopts what lives. It concludes only from
records, and where there is none, from a search for the tag among all processes.
It must not know jobs, stores or the scheduler's decisions.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import LauncherError
from .contract import (
    Cause,
    Ending,
    KnownAttempt,
    Listener,
    Report,
    ReportKind,
    Submission,
)
from .launcher_link import LauncherLink, LauncherRefused, LinkLost, start_launcher
from .records import Cursor, read_reports

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CONNECT_TIMEOUT = 20.0
MAX_OVERRIDES = 24
"""Environments that differ from a known one in more variables are sent whole."""


class LocalAdapter:
    """Starts and follows processes of this host; a `SchedulerAdapter`."""

    name = "local"

    def __init__(
        self, home: Path, *, epoch: int, sync: bool = False, python: str = sys.executable
    ) -> None:
        self._home = home.absolute()
        self._epoch = epoch
        self._sync = sync
        self._python = python
        self._listener: Listener | None = None
        self._cursor = Cursor()
        self._link: LauncherLink | None = None
        self._connected = asyncio.Event()
        self._follower: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._closing = False
        self._unheard: dict[str, bool] = {}
        """Attempts that no record since the cursor names yet; True where claimed only."""
        self._withdrawn: OrderedDict[str, None] = OrderedDict()
        self._cancelling: OrderedDict[str, float | None] = OrderedDict()
        """Cancelled and not known to be gone, with the grace; a new launcher is told again."""
        self._environments = Environments()

    # --- the contract

    async def open(
        self, listener: Listener, *, cursor: str | None, known: Sequence[KnownAttempt]
    ) -> None:
        """Take up the work: replay since `cursor`, adopt what lives, follow.

        The listener gets the last report of each batch with a cursor; it is to be
        stored together with the whole batch. When the listener raises, the batch is
        delivered again after a while. Raises `LauncherError` where no launcher can
        be started or it refuses us.
        """
        self._listener = listener
        self._cursor = Cursor.parse(cursor)
        self._unheard = {attempt.tag: attempt.claimed_only for attempt in known}
        await self.forget_before(str(self._cursor))
        link = await self._reach(CONNECT_TIMEOUT)
        taken_stock = asyncio.get_running_loop().create_future()
        self._follower = asyncio.create_task(self._follow(link, taken_stock), name="launcher")
        try:
            await taken_stock
        except BaseException:
            await self.close()
            raise

    async def submit(self, submissions: Sequence[Submission]) -> None:
        """Hand attempts to the launcher; raises `LauncherError` before any was handed over."""
        link = await self._ready()
        jobs = []
        for submission in submissions:
            base, overrides, whole = self._environments.split(submission.env)
            if base not in link.sent_environments:
                if len(link.sent_environments) >= 200:
                    link.sent_environments.clear()
                link.send({"op": "env", "key": base, "env": whole})
                link.sent_environments.add(base)
            jobs.append(_start_request(submission, base, overrides))
        for submission in submissions:
            self._unheard[submission.tag] = True
        link.send({"op": "start", "jobs": jobs})
        await link.drain()

    async def withdraw(self, tags: Sequence[str]) -> Mapping[str, bool]:
        """Take back what has not started; True where it will now never start."""
        taken = set(await self._ask({"op": "withdraw", "tags": list(tags)}))
        return {tag: tag in taken or tag in self._withdrawn for tag in tags}

    async def cancel(self, tags: Sequence[str], *, grace: float | None = None) -> None:
        """End the whole tree of each; what has not started is withdrawn. Idempotent."""
        link = await self._ready()
        for tag in tags:
            self._cancelling[tag] = grace
        while len(self._cancelling) > 10_000:
            self._cancelling.popitem(last=False)
        self._send_cancel(link, tags, grace)
        await link.drain()

    async def close(self) -> None:
        """Hang up. What runs goes on, and its launcher with it."""
        self._closing = True
        if self._follower is not None:
            self._follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._follower
            self._follower = None
        if self._link is not None:
            self._link.close()
            await self._link.wait_closed()
            self._link = None
        self._connected.clear()

    # --- beyond the contract

    async def forget_before(self, cursor: str) -> None:
        """Delete the record files that lie wholly before `cursor`, once that is durable."""
        generation = Cursor.parse(cursor).generation
        folder = self._home / "launcher"

        def delete() -> None:
            files = sorted(folder.glob("[0-9]*.log"))
            for file in files[:-1]:
                if int(file.stem) < generation:
                    with contextlib.suppress(FileNotFoundError):
                        file.unlink()

        await asyncio.get_running_loop().run_in_executor(None, delete)

    @property
    def launcher_pid(self) -> int | None:
        """The process id of the launcher that we talk to, None while there is none."""
        return self._link.pid if self._link is not None else None

    # --- the connection

    async def _reach(self, patience: float) -> LauncherLink:
        """Connect to the launcher, starting one where none lives."""
        deadline = time.monotonic() + patience
        pause = 0.01
        while True:
            link = await LauncherLink.connect(self._home, epoch=self._epoch, start=self._cursor)
            if link is not None:
                return link
            if time.monotonic() > deadline:
                raise LauncherError(
                    "no launcher answers, and another process holds its lock; see "
                    f"{self._home / 'run' / 'launcher.log'}"
                )
            await start_launcher(self._home, python=self._python, sync=self._sync)
            link = await LauncherLink.connect(self._home, epoch=self._epoch, start=self._cursor)
            if link is not None:
                return link
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)

    async def _ready(self) -> LauncherLink:
        """Return the connection, waiting for the next one where it was just lost."""
        if self._link is None:
            if self._failure is not None:
                raise LauncherError(str(self._failure)) from self._failure
            if self._follower is None:
                raise LauncherError("the local adapter is not open")
            try:
                await asyncio.wait_for(self._connected.wait(), CONNECT_TIMEOUT)
            except asyncio.TimeoutError:
                raise LauncherError("the launcher does not answer; trying on") from None
            return await self._ready()
        return self._link

    async def _ask(self, message: Mapping[str, Any]) -> list[str]:
        while True:
            link = await self._ready()
            try:
                return await link.ask(message)
            except LinkLost:
                if self._link is link:
                    await asyncio.sleep(0.05)

    async def _follow(self, link: LauncherLink, taken_stock: asyncio.Future[None]) -> None:
        """Deliver reports for ever, over as many connections as it takes."""
        pause = 0.05
        while True:
            try:
                await self._serve(link, taken_stock)
            except LinkLost as lost:
                logger.warning("the connection to the launcher is lost: %s", lost)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if not taken_stock.done():
                    taken_stock.set_exception(error)
                    return
                logger.exception("reports could not be taken; they are delivered again")
                await asyncio.sleep(pause)
            finally:
                self._link = None
                self._connected.clear()
                link.close()
            while True:
                try:
                    link = await self._reach(CONNECT_TIMEOUT)
                    break
                except (LauncherError, OSError) as error:
                    logger.error("the launcher cannot be reached: %s", error)
                    if isinstance(error, LauncherRefused) and not taken_stock.done():
                        taken_stock.set_exception(error)
                        return
                    await asyncio.sleep(pause)
                    pause = min(5.0, pause * 2)
            pause = 0.05

    async def _serve(self, link: LauncherLink, taken_stock: asyncio.Future[None]) -> None:
        """Follow one connection until it is lost: catch up, take stock, go on."""
        if self._cursor > link.end:
            # The records were removed meanwhile; the launcher tells all it has.
            self._cursor = Cursor()
        while self._cursor < link.end:
            await self._deliver(*await link.next_records())
        await self._take_stock(link)
        for tag, grace in self._cancelling.items():
            # The launcher may be another than the one that was asked.
            self._send_cancel(link, [tag], grace)
        self._link = link
        self._connected.set()
        if not taken_stock.done():
            taken_stock.set_result(None)
        while True:
            await self._deliver(*await link.next_records())

    @staticmethod
    def _send_cancel(link: LauncherLink, tags: Sequence[str], grace: float | None) -> None:
        link.send({"op": "kill", "tags": list(tags), "cause": "cancelled", "grace": grace})

    async def _deliver(self, place: Cursor, lines: str) -> None:
        reports = read_reports(lines, place)
        for report in reports:
            self._unheard.pop(report.tag, None)
            if report.kind in (ReportKind.CLEARED, ReportKind.WITHDRAWN):
                self._cancelling.pop(report.tag, None)
            if report.kind is ReportKind.WITHDRAWN:
                self._note_withdrawn(report.tag)
        if reports:
            await self._tell(reports)
        self._cursor = place

    async def _tell(self, reports: Sequence[Report]) -> None:
        assert self._listener is not None
        await self._listener(reports)

    def _note_withdrawn(self, tag: str) -> None:
        self._withdrawn[tag] = None
        while len(self._withdrawn) > 10_000:
            self._withdrawn.popitem(last=False)

    async def _take_stock(self, link: LauncherLink) -> None:
        """Settle what neither a record nor the launcher knows, by searching for its tag."""
        unknown = {tag: claimed for tag, claimed in self._unheard.items() if tag not in link.live}
        if not unknown:
            return
        found = set(await self._beside(link, link.ask({"op": "find", "tags": list(unknown)})))
        if found:
            # No record names them, yet their processes live: the records were removed.
            jobs = [{"tag": tag} for tag in sorted(found)]
            await self._beside(link, link.ask({"op": "adopt", "jobs": jobs}))
        now = time.time()
        reports = []
        for tag, claimed_only in unknown.items():
            if tag in found or tag not in self._unheard:
                continue
            if claimed_only:
                reports.append(Report(tag=tag, kind=ReportKind.WITHDRAWN, time=now))
                self._note_withdrawn(tag)
            else:
                ending = Ending(
                    cause=Cause.LOST,
                    message="neither a record nor a process of it is left on this host",
                )
                reports.append(Report(tag=tag, kind=ReportKind.ENDED, time=now, ending=ending))
                reports.append(Report(tag=tag, kind=ReportKind.CLEARED, time=now))
        if reports:
            await self._tell(reports)
        for report in reports:
            self._unheard.pop(report.tag, None)

    async def _beside(self, link: LauncherLink, question: Coroutine[Any, Any, Result]) -> Result:
        """Await an answer while reading the connection that brings it."""
        asked = asyncio.ensure_future(question)
        try:
            while not asked.done():
                reading = asyncio.ensure_future(link.next_records())
                await asyncio.wait({asked, reading}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    await self._deliver(*reading.result())
                else:
                    reading.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await reading
            return asked.result()
        finally:
            asked.cancel()


class Environments:
    """Splits environments into one that many share and the few variables that differ."""

    def __init__(self) -> None:
        self._bases: list[tuple[str, dict[str, str]]] = []

    def split(
        self, environment: Mapping[str, str]
    ) -> tuple[str, dict[str, str | None], Mapping[str, str]]:
        """Return the key of a base, what differs from it (None removes), and the base itself."""
        for key, base in self._bases:
            overrides = _difference(base, environment)
            if overrides is not None:
                return key, overrides, base
        base = dict(environment)
        text = "\0".join(f"{name}={base[name]}" for name in sorted(base))
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._bases.insert(0, (key, base))
        del self._bases[8:]
        return key, {}, base


def _difference(
    base: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str | None] | None:
    overrides: dict[str, str | None] = {}
    for name, value in environment.items():
        if base.get(name) != value:
            overrides[name] = value
            if len(overrides) > MAX_OVERRIDES:
                return None
    if len(base) + len(overrides) > len(environment):
        for name in base:
            if name not in environment:
                overrides[name] = None
    return overrides if len(overrides) <= MAX_OVERRIDES else None


def _start_request(
    submission: Submission, base: str, overrides: Mapping[str, str | None]
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "tag": submission.tag,
        "argv": list(submission.argv),
        "cwd": submission.workdir,
        "base": base,
        "stdout": submission.stdout,
        "stderr": submission.stderr,
        "grace": submission.grace,
    }
    if overrides:
        request["env"] = overrides
    if submission.walltime is not None:
        request["walltime"] = submission.walltime
    if submission.resources.memory:
        request["memory"] = submission.resources.memory
    if submission.output_limit is not None:
        request["output_limit"] = submission.output_limit
    if submission.usage_path is not None:
        request["usage"] = submission.usage_path
    if submission.soft_limits:
        request["soft_limits"] = dict(submission.soft_limits)
    if submission.after is not None:
        request["after"] = submission.after
    return request
