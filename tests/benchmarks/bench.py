"""`make bench`: how close Simyard comes to what this machine can do at all.

Only ratios inside one run mean something: the same jobs are started by a C loop around
`posix_spawn` (by a Python loop where there is no C compiler, which the result says), just
before and just after each measurement, and the mean of both is the limit. Every round has
fresh folders, and nothing is removed between rounds, as some file systems make creating
files slow where many have just been deleted.

The JSON result: {"limit": "c" | "python", "cores": n, "rates": [{"width", "jobs", "limit_per_second",
"simyard_per_second", "share"}], "start": {"p50_ms", "p95_ms", "bare_p50_ms", "ratio"}}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from simyard.errors import NotRunning
from simyard.handler import discovery

HERE = Path(__file__).resolve().parent
TRUE = shutil.which("true") or "/bin/true"
PATIENCE = 300.0


def compiled(source: str, folder: Path) -> Path | None:
    """Compile one of our C sources; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    target = folder / Path(source).stem
    subprocess.run([compiler, "-O2", "-pthread", "-o", str(target), str(HERE / source)], check=True)
    return target


def limit_rate(loop: Path | None, jobs: int, width: int) -> float:
    """Return jobs a second without any queue: start, wait, repeat, in `width` threads."""
    began = time.perf_counter()
    if loop is not None:
        subprocess.run([str(loop), str(jobs), str(width), TRUE], check=True)
    else:

        def one(_number: int) -> None:
            os.waitpid(os.posix_spawn(TRUE, [TRUE], os.environ), 0)

        with ThreadPoolExecutor(width) as pool:
            list(pool.map(one, range(jobs)))
    return jobs / (time.perf_counter() - began)


class Service:
    """A service of its own, in a fresh home, with `width` jobs at a time."""

    def __init__(self, folder: Path, width: int) -> None:
        self.home = folder / f"home-{width}-{time.monotonic_ns()}"
        self.home.mkdir(mode=0o700)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "simyard", "serve", "--home", str(self.home), "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=(folder / "service.log").open("ab"),
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self.connection = discovery.connect(str(self.home))
                break
            except NotRunning:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        self.connection.request(
            "PUT", "/api/limits", json={"max_concurrent_jobs": width, "max_cores": 4096}
        )

    def submit(self, specs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.connection.request(
            "POST", "/api/jobs/batch", json={"jobs": list(specs)}
        )["items"]
        return items

    def finished(self, job_id: str) -> dict[str, Any]:
        """Wait for the end of a job and return it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.connection.request(
                "GET", f"/api/jobs/{job_id}", query={"wait": 30}
            )
            if job["state"] in ("completed", "failed", "cancelled"):
                assert job["state"] == "completed", job
                return job
        raise TimeoutError(f"job {job_id} did not end in {PATIENCE} s")

    def all_finished(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if self._count("completed") + self._count("failed") >= count:
                assert self._count("failed") == 0, "some jobs failed"
                return
            time.sleep(0.05)
        raise TimeoutError(f"{count} jobs did not end in {PATIENCE} s")

    def _count(self, state: str) -> int:
        page = self.connection.request(
            "GET", "/api/jobs", query={"state": state, "limit": 1, "count": 1}
        )
        return int(page["total"])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def rate(folder: Path, loop: Path | None, jobs: int, width: int) -> dict[str, Any]:
    """Measure how many short jobs a second end, from their submission on."""
    before = limit_rate(loop, jobs, width)
    service = Service(folder, width)
    try:
        spec = {"command": [TRUE], "workdir": str(folder)}
        service.submit([spec])
        service.all_finished(1)  # the launcher runs
        began = time.perf_counter()
        service.submit([spec] * jobs)
        service.all_finished(jobs + 1)
        ours = jobs / (time.perf_counter() - began)
    finally:
        service.close()
    limit = (before + limit_rate(loop, jobs, width)) / 2
    return {
        "width": width,
        "jobs": jobs,
        "limit_per_second": round(limit, 1),
        "simyard_per_second": round(ours, 1),
        "share": round(ours / limit, 3),
    }


def start_latency(folder: Path, stamp: Path, rounds: int) -> dict[str, Any]:
    """Measure from the submission's first byte to the job's first instruction, one at a time."""
    service = Service(folder, 2)
    ours, bare = [], []
    try:
        for number in range(rounds + 3):
            out = folder / f"stamp-{number}-{time.monotonic_ns()}"
            began = time.time_ns()
            os.waitpid(os.posix_spawn(stamp, [str(stamp), f"{out}.bare"], os.environ), 0)
            bare.append(int(Path(f"{out}.bare").read_text()) - began)
            began = time.time_ns()
            job = service.connection.request(
                "POST",
                "/api/jobs",
                json={"command": [str(stamp), str(out)], "workdir": str(folder)},
            )
            service.finished(job["id"])
            ours.append(int(out.read_text()) - began)
    finally:
        service.close()
    ours, bare = sorted(ours[3:]), sorted(bare[3:])  # the first ones start the launcher
    p50, bare_p50 = statistics.median(ours) / 1e6, statistics.median(bare) / 1e6
    return {
        "p50_ms": round(p50, 2),
        "p95_ms": round(ours[int(0.95 * len(ours))] / 1e6, 2),
        "bare_p50_ms": round(bare_p50, 3),
        "ratio": round(p50 / bare_p50, 2),
    }


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1000, help="in each round")
    parser.add_argument("--rounds", type=int, default=3, help="the median is reported")
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("SIMYARD_")]:
        del os.environ[name]

    options.output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="simyard-bench-"))
    loop, stamp = compiled("spawn_loop.c", folder), compiled("stamp.c", folder)
    result: dict[str, Any] = {"limit": "c" if loop else "python", "cores": os.cpu_count()}
    result["rates"] = []
    for width in (2, 8):
        rounds = [rate(folder, loop, options.jobs, width) for _ in range(options.rounds)]
        middle = sorted(rounds, key=lambda found: float(found["share"]))[len(rounds) // 2]
        result["rates"].append(middle)
        print(
            f"{width} at a time: {middle['simyard_per_second']:.0f} of "
            f"{middle['limit_per_second']:.0f} jobs/s, a share of {middle['share']:.2f}"
        )
    if stamp is not None:
        result["start"] = start = start_latency(folder, stamp, 60)
        print(f"submit to first instruction: p50 {start['p50_ms']} ms, p95 {start['p95_ms']} ms")
    options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {options.output}; working files are in {folder}")


if __name__ == "__main__":
    main()
