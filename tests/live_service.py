"""A real service in a process of its own, as tests drive it: over HTTP, and with signals.

Speaks plain `http.client`, so that it proves the wire and not our own client.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

PATIENCE = 60.0


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """Return the first true value of `condition`; fail after `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(0.02)


class LiveService:
    """`simyard serve` on a home of its own and a free port."""

    def __init__(
        self, home: Path, *, flags: Sequence[str] = (), fault: str = "", env: Any = None
    ) -> None:
        self.home = home
        self.endpoint_file = home / "run" / "endpoint.json"
        self.process: subprocess.Popen[bytes] | None = None
        self._flags = list(flags)
        self._fault = fault
        self._env: dict[str, str] = dict(env or {})
        self._endpoint: dict[str, Any] = {}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return str(self._endpoint["url"])

    @property
    def token(self) -> str:
        return str(self._endpoint["token"])

    def start(self) -> None:
        """Start the service and wait until it answers; a fault point works at the first start."""
        self.process = subprocess.Popen(
            self._command(),
            env=self._environment(fault=True),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self._fault = ""
        wait_until(self._answers, "the service answers")

    def _command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "simyard",
            "serve",
            "--port",
            "0",
            "--home",
            str(self.home),
            *self._flags,
        ]

    def _environment(self, *, fault: bool) -> dict[str, str]:
        env = {**os.environ, "SIMYARD_LAUNCHER_IDLE": "2", **self._env}
        if fault and self._fault:
            env["SIMYARD_FAULTPOINT"] = self._fault
        return env

    def _answers(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the service ended: {self._stderr()}")
        try:
            endpoint = json.loads(self.endpoint_file.read_bytes())
        except (OSError, ValueError):
            return False
        if endpoint["pid"] != self.process.pid:
            return False
        self._endpoint = endpoint
        with contextlib.suppress(OSError):
            return self.request("GET", "/api/health")[0] == 200
        return False

    def _stderr(self) -> str:
        assert self.process is not None
        assert self.process.stderr is not None
        return self.process.stderr.read().decode(errors="replace")

    def run_another(self) -> tuple[int, str]:
        """Start a second service on the same home; return its exit code and words."""
        done = subprocess.run(
            self._command(), env=self._environment(fault=False), capture_output=True, timeout=60
        )
        return done.returncode, (done.stdout + done.stderr).decode(errors="replace")

    # -- ending ------------------------------------------------------------------------

    def kill(self) -> None:
        """End the manager with SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.wait_until_dead()

    def terminate(self, within: float) -> int:
        """End the manager politely; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(within)
        self._close_pipe()
        return code

    def wait_until_dead(self) -> None:
        assert self.process is not None
        self.process.wait(PATIENCE)
        self._close_pipe()

    def _close_pipe(self) -> None:
        assert self.process is not None
        if self.process.stderr is not None:
            self.process.stderr.close()

    @staticmethod
    def kill_process(pid: int) -> None:
        """End a process that belongs to this service with SIGKILL, and wait for it to go."""
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not _alive(process), f"process {pid} is gone")

    def end_everything(self) -> None:
        """End the manager, the launcher and all processes of this home's jobs."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.wait_until_dead()
        elif self.process is not None:
            self._close_pipe()
        for _ in range(3):
            for process in [*self.launchers(), *self.processes_of(None)]:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs([*self.launchers(), *self.processes_of(None)], timeout=2)

    # -- the wire ----------------------------------------------------------------------

    def request(
        self, method: str, path: str, body: Any = None, *, headers: Any = None
    ) -> tuple[int, Any]:
        """Send one request with the credential; return status and decoded body."""
        where = urlsplit(self.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE)
        try:
            sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
            content = None
            if body is not None or method in ("POST", "PUT", "PATCH"):
                sent.setdefault("Content-Type", "application/json")
                content = json.dumps({} if body is None else body)
            connection.request(method, path, content, sent)
            answer = connection.getresponse()
            raw = answer.read()
            kind = answer.headers.get_content_type()
            return answer.status, json.loads(raw) if kind.endswith("json") and raw else raw
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Send one request that has to succeed; return its decoded body."""
        status, answer = self.request(method, path, body, **options)
        assert status < 400, answer
        return answer

    def request_expecting_death(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request during which the service may die; None where it did not answer."""
        try:
            return self.ask(method, path, body)
        except (OSError, http.client.HTTPException):
            return None

    def submit(self, spec: dict[str, Any], *, key: str | None = None) -> str:
        headers = {"Idempotency-Key": key} if key else None
        return str(self.ask("POST", "/api/jobs", spec, headers=headers)["id"])

    def submit_expecting_death(self, spec: dict[str, Any], *, key: str) -> str | None:
        try:
            return self.submit(spec, key=key)
        except (OSError, http.client.HTTPException):
            return None

    def submit_many(self, specs: Sequence[dict[str, Any]]) -> list[str]:
        items = self.ask("POST", "/api/jobs/batch", {"jobs": list(specs)})["items"]
        return [str(item["id"]) for item in items]

    def job(self, job_id: str) -> Any:
        return self.ask("GET", f"/api/jobs/{job_id}")

    def wait_for(self, job_id: str, *states: str) -> Any:
        """Return the job once it is in one of `states`."""

        def there() -> Any:
            job = self.job(job_id)
            return job if job["state"] in states else None

        return wait_until(there, f"job {job_id} becomes {' or '.join(states)}")

    def wait_for_end(self, job_id: str) -> Any:
        return self.wait_for(job_id, "completed", "failed", "cancelled")

    def states(self) -> dict[str, int]:
        return dict(self.ask("GET", "/api/resources")["states"])

    def total(self) -> int:
        return int(self.ask("GET", "/api/jobs?count=1&limit=1")["total"])

    def stdout(self, job_id: str, stream: str = "stdout") -> str:
        return str(self.ask("GET", f"/api/jobs/{job_id}/logs/{stream}")["text"])

    # -- processes ---------------------------------------------------------------------

    def launchers(self) -> list[psutil.Process]:
        """The launcher of this home, and its sampler."""
        return [
            process
            for process in _processes()
            if str(self.home) in _command_line(process)
            and any(word.endswith("scheduler_adapters/launcher") for word in _command_line(process))
        ]

    def launcher_pid(self) -> int:
        """The launcher itself: the one of its processes whose parent is none of them."""
        found = {process.pid: process for process in self.launchers()}
        (leader,) = [pid for pid, process in found.items() if process.ppid() not in found]
        return leader

    def processes_of(self, job_id: str | None) -> list[psutil.Process]:
        """Living processes whose environment says that they belong to a job of this home."""
        found, prefix = [], self._tag_prefix()
        for process in _processes():
            try:
                environment = process.environ()
                over = process.status() == psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            ours = environment.get("SIMYARD_TAG", "").startswith(prefix)
            if ours and not over and job_id in (None, environment.get("SIMYARD_JOB_ID")):
                found.append(process)
        return found

    def _tag_prefix(self) -> str:
        import sqlite3

        with contextlib.closing(sqlite3.connect(self.home / "store.db")) as store:
            row = store.execute("SELECT value FROM meta WHERE key = 'uuid'").fetchone()
        return f"sy-{row[0][:12]}-" if row else "sy-none"

    def has_processes_of(self, job_id: str) -> bool:
        return bool(self.processes_of(job_id))

    def wait_for_no_process_of(self, ids: Iterable[str]) -> None:
        wanted = set(ids)
        wait_until(
            lambda: not any(process for job_id in wanted for process in self.processes_of(job_id)),
            "the processes of the jobs are gone",
        )


def _processes() -> list[psutil.Process]:
    return list(psutil.process_iter())


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
