"""Random operations and random kills against a real service, checked against a model.

Run as a program for as long as you like (`make soak MINUTES=60`), or for a few seconds by
`test_soak.py`. Every run prints its seed; `--seed` repeats the same choices (what the
machine makes of them still depends on its timing).

What must hold at all times, whatever was killed:

- what was acknowledged is there exactly once, and nothing else is;
- no job's work runs twice at a time, and none is done again after it succeeded;
- a terminal state never changes;
- what ends by itself ends with its real exit code, or, only where a launcher was killed
  while it ran, as `lost`;
- the resources in use never exceed the limits.
"""

from __future__ import annotations

import argparse
import collections
import http.client
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from live_service import LiveService, wait_until

CORES = 4
SCRIPT = """
mkdir "$MARKS/$SIMYARD_JOB_ID.lock" || { echo "two at a time" > "$MARKS/violation.$SIMYARD_JOB_ID"; }
echo "$SIMYARD_ATTEMPT" >> "$MARKS/$SIMYARD_JOB_ID.begun"
sleep "$NAP"
rmdir "$MARKS/$SIMYARD_JOB_ID.lock"
echo "$SIMYARD_ATTEMPT" >> "$MARKS/$SIMYARD_JOB_ID.done"
exit "$CODE"
"""
TERMINAL = ("completed", "failed", "cancelled")


@dataclass
class Known:
    """What the model knows of one acknowledged job."""

    id: str
    code: int
    retries: int
    cancelled: bool = False
    held: bool = False
    ending: tuple[str, str, int | None] | None = None
    """State, reason and exit code, once they were seen."""


@dataclass
class Soak:
    """One run: the service, the model, and the choices."""

    service: LiveService
    marks: Path
    rng: random.Random
    jobs: dict[str, Known] = field(default_factory=dict)
    unanswered: dict[str, tuple[dict[str, Any], int, int]] = field(default_factory=dict)
    """Submissions that got no answer, by idempotency key: they may have been accepted."""
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    launcher_kills: int = 0

    # -- operations --------------------------------------------------------------------

    def submit(self) -> None:
        code, retries = self.rng.choice([0, 0, 0, 1, 7]), self.rng.choice([0, 0, 0, 2])
        spec = {
            "script": SCRIPT,
            "env": {
                "MARKS": str(self.marks),
                "NAP": f"{self.rng.choice([0, 0, 0.01, 0.05, 0.3, 1.0])}",
                "CODE": str(code),
            },
            "cores": self.rng.choice([1, 1, 1, 2, 4]),
            "priority": self.rng.randint(-2, 2),
            "hold": self.rng.random() < 0.05,
            "retries": {"limit": retries, "on": ["exit_code"]},
        }
        key = f"soak-{self.rng.getrandbits(64):x}"
        self._send(key, spec, code, retries)

    def _send(self, key: str, spec: dict[str, Any], code: int, retries: int) -> None:
        self.unanswered[key] = (spec, code, retries)
        job_id = self.service.submit(spec, key=key)
        del self.unanswered[key]
        assert job_id not in self.jobs, f"job {job_id} was given out twice"
        self.jobs[job_id] = Known(job_id, code, retries, held=bool(spec["hold"]))

    def flood(self) -> None:
        for _ in range(self.rng.randint(5, 25)):
            self.submit()

    def cancel(self) -> None:
        job = self._any()
        if job is None:
            return
        status, _ = self.service.request("POST", f"/api/jobs/{job.id}/cancel")
        assert status in (200, 409), status
        job.cancelled = job.cancelled or status == 200

    def hold(self) -> None:
        job = self._any()
        if job is not None:
            status, _ = self.service.request("POST", f"/api/jobs/{job.id}/hold")
            assert status in (200, 409), status
            job.held = job.held or status == 200

    def release(self) -> None:
        for job in [job for job in self.jobs.values() if job.held]:
            status, _ = self.service.request("POST", f"/api/jobs/{job.id}/release")
            assert status in (200, 409), status
            job.held = False

    def prioritise(self) -> None:
        job = self._any()
        if job is not None:
            priority = {"priority": self.rng.randint(-5, 5)}
            status, answer = self.service.request("PATCH", f"/api/jobs/{job.id}", priority)
            assert status in (200, 409), answer

    def limit(self) -> None:
        limits = {"max_cores": CORES, "max_concurrent_jobs": self.rng.choice([1, 2, 4, None])}
        self.service.ask("PUT", "/api/limits", limits)

    def look(self) -> None:
        resources = self.service.ask("GET", "/api/resources")
        assert resources["in_use"]["cores"] <= CORES, resources
        items = self.service.ask("GET", "/api/jobs?limit=200")["items"]
        for item in items:
            assert item["id"] in self.jobs or self.unanswered, f"nobody submitted {item['id']}"
            self._note(item)

    def rest(self) -> None:
        time.sleep(self.rng.uniform(0.0, 0.3))

    def kill_manager(self) -> None:
        self.service.kill()
        if self.rng.random() < 0.3:
            time.sleep(self.rng.uniform(0.0, 0.5))
        self.service.start()
        self._repeat()

    def kill_launcher(self) -> None:
        for process in self.service.launchers():
            self.launcher_kills += 1
            process.kill()

    def kill_both(self) -> None:
        self.service.kill()
        self.kill_launcher()
        self.service.start()
        self._repeat()

    def stop_and_start(self) -> None:
        assert self.service.terminate(within=20) == 0
        self.service.start()
        self._repeat()

    def _repeat(self) -> None:
        """Send again what got no answer, as a client does: it is accepted once."""
        for key, (spec, code, retries) in list(self.unanswered.items()):
            self._send(key, spec, code, retries)

    def _any(self) -> Known | None:
        recent = list(self.jobs.values())[-30:]
        return self.rng.choice(recent) if recent else None

    # -- the model ---------------------------------------------------------------------

    def _note(self, item: dict[str, Any]) -> None:
        job = self.jobs.get(item["id"])
        if job is None or item["state"] not in TERMINAL:
            assert job is None or job.ending is None, f"job {item['id']} came back to life: {item}"
            return
        outcome = item["outcome"]
        ending = (item["state"], outcome["reason"], outcome["exit_code"])
        assert job.ending in (None, ending), f"{job.id}: {job.ending} became {ending}"
        job.ending = ending

    OPERATIONS = (
        ("submit", 30),
        ("flood", 8),
        ("cancel", 8),
        ("hold", 4),
        ("release", 3),
        ("prioritise", 4),
        ("limit", 3),
        ("look", 8),
        ("rest", 12),
        ("kill_manager", 8),
        ("kill_launcher", 3),
        ("kill_both", 2),
        ("stop_and_start", 2),
    )

    def step(self) -> None:
        names, weights = zip(*self.OPERATIONS, strict=True)
        (name,) = self.rng.choices(names, weights)
        self.counts[name] += 1
        try:
            getattr(self, name)()
        except (OSError, http.client.HTTPException):
            # Only a service that was killed does not answer, and none is dead between steps.
            raise AssertionError(f"the service died by itself during {name}") from None
        violations = list(self.marks.glob("violation.*"))
        assert not violations, [path.read_text() for path in violations]

    def finish(self) -> None:
        """Let everything end, then check each job against the model."""
        self.service.ask("PUT", "/api/limits", {"max_concurrent_jobs": None})
        self.release()
        self.release()
        everybody = self.service.ask("GET", "/api/jobs?state=held&limit=1000")["items"]
        for item in everybody:
            self.service.ask("POST", f"/api/jobs/{item['id']}/release")
        wait_until(self._idle, "every job ends", patience=300)
        items = self._all()
        assert sorted(items, key=int) == sorted(self.jobs, key=int)
        lost = 0
        for job in self.jobs.values():
            self._note(items[job.id])
            lost += self._check(job)
        assert lost == 0 or self.launcher_kills
        assert self.service.ask("GET", "/api/resources")["in_use"]["jobs"] == 0

    def _idle(self) -> bool:
        states = self.service.states()
        return not any(count for state, count in states.items() if state not in TERMINAL)

    def _all(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        cursor = ""
        while True:
            page = self.service.ask("GET", f"/api/jobs?limit=1000{cursor}")
            for item in page["items"]:
                assert item["id"] not in found, "listed twice"
                found[item["id"]] = item
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def _check(self, job: Known) -> bool:
        """Hold one ended job against what its own marks say; return whether it was lost."""
        assert job.ending is not None
        state, reason, code = job.ending
        done = self._lines(job, "done")
        assert len(self._lines(job, "begun")) <= 1 + job.retries, f"{job.id} was started too often"
        if state == "completed":
            assert (job.code, len(done)) == (0, 1), f"{job.id}: {job.ending}, done {done}"
        elif state == "cancelled":
            assert job.cancelled, f"nobody cancelled {job.id}"
        elif reason == "exit_code":
            assert code == job.code, f"{job.id}: {job.ending}, expected {job.code}"
            assert code != 0, job.ending
        else:
            assert reason == "lost", f"{job.id}: {job.ending}"
            assert self.launcher_kills, f"{job.id} was lost without any launcher being killed"
            return True
        return False

    def _lines(self, job: Known, kind: str) -> list[str]:
        path = self.marks / f"{job.id}.{kind}"
        return path.read_text().split() if path.exists() else []

    @property
    def kills(self) -> int:
        names = ("kill_manager", "kill_launcher", "kill_both")
        return sum(self.counts[name] for name in names)


def soak(seconds: float, seed: int, folder: Path) -> Soak:
    """Run for about so long in `folder`; raises `AssertionError` at the first violation."""
    marks = folder / "marks"
    marks.mkdir()
    service = LiveService(folder / "home", flags=["--max-cores", str(CORES)])
    run = Soak(service, marks, random.Random(seed))
    try:
        service.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            run.step()
        run.finish()
    finally:
        service.end_everything()
    return run


def main() -> int:
    parser = argparse.ArgumentParser(description="Random operations and kills, for a while.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="simyard-soak-") as folder:
        run = soak(options.minutes * 60, seed, Path(folder))
    endings = collections.Counter(
        " ".join(map(str, job.ending[:2])) for job in run.jobs.values() if job.ending
    )
    print(f"{len(run.jobs)} jobs, {run.kills} kills, no violation")
    print("operations:", dict(run.counts.most_common()))
    print("endings:", dict(endings.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
