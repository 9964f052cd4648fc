"""The two programs of the shell, run as a person would run them, on a home of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and what it said."""

    code: int
    out: str
    err: str


class Shell:
    """Runs `simyard` and `submit_job` as a person would, on one home."""

    def __init__(self, home: Path, cwd: Path) -> None:
        self.home = home
        self.cwd = cwd
        self.env: dict[str, str] = {
            **os.environ,
            "SIMYARD_HOME": str(home),
            "SIMYARD_LAUNCHER_IDLE": "1",
            "SIMYARD_PORT": "0",
            "NO_COLOR": "1",
        }

    def simyard(self, *words: str, **options: Any) -> Ended:
        """Run `simyard` to its end."""
        return self.run("simyard", *words, **options)

    def submit_job(self, *words: str, **options: Any) -> Ended:
        """Run `submit_job` to its end."""
        return self.run("simyard.cli.submit_job", *words, **options)

    def submit(self, *words: str) -> str:
        """Submit a job that has to be accepted; return its id."""
        ended = self.submit_job(*words)
        assert ended.code == 0, ended.err
        assert ended.out.rstrip("\n").isdigit()
        return ended.out.strip()

    def job(self, job_id: str) -> Any:
        """Return a job as JSON."""
        ended = self.simyard("show", job_id, "--json")
        assert ended.code == 0, ended.err
        return json.loads(ended.out)

    def wait_until_running(self, job_id: str) -> None:
        """Return once a job runs; fail where it does not in time."""
        deadline = time.monotonic() + PATIENCE
        while (job := self.job(job_id))["state"] != "running":
            assert time.monotonic() < deadline, f"job {job_id} does not start: {job}"
            time.sleep(0.05)

    def run(
        self,
        module: str,
        *words: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> Ended:
        """Run a module with the words of a command line; no traceback may be seen."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            input=stdin,
            capture_output=True,
            cwd=self.cwd,
            env={**self.env, **(env or {})},
            timeout=PATIENCE,
        )
        ended = Ended(
            done.returncode,
            done.stdout.decode("utf-8", "surrogateescape"),
            done.stderr.decode("utf-8", "replace"),
        )
        assert "Traceback" not in ended.err, ended.err
        return ended

    @contextlib.contextmanager
    def started(self, module: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a module; it is ended at the latest when the block is left."""
        with subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.cwd,
            env=self.env,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def endpoint(self) -> Any:
        """Return the facts of the service that is there, None where none is."""
        try:
            return json.loads((self.home / "run" / "endpoint.json").read_bytes())
        except (OSError, ValueError):
            return None

    def end(self) -> None:
        """Cancel all jobs and stop the service; by force where asking does not help."""
        if self.endpoint() is None:
            return
        pid = self.endpoint()["pid"]
        ended = self.simyard("stop", "--jobs")
        if ended.code != 0:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"the service could not be stopped: {ended.err}")
