"""Numbers for a monitoring system, in the text format of Prometheus.

A registry of its own, so that nothing of a host program's metrics mixes in. It must
not know the manager: what it shows of jobs is handed in, when they change or when asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from .model import Event, Job

CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)


_WAITS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0, 36000.0)
LAG_EVERY = 1.0
"""Seconds between two looks at the loop's lag."""


class Metrics:
    """The registry and everything in it."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(namespace="simyard", registry=self._registry)
        self.requests = Counter(
            "simyard_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "simyard_http_request_seconds",
            "Time to an answer; calls that wait for something are not counted.",
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self.sockets = Gauge("simyard_websockets", "Open WebSockets.", registry=self._registry)
        self.streams = Gauge(
            "simyard_event_streams", "Open streams of server-sent events.", registry=self._registry
        )
        self.overruns = Counter(
            "simyard_slow_readers", "Readers told to load again.", registry=self._registry
        )
        self.starts = Counter(
            "simyard_starts", "Attempts of jobs that started.", registry=self._registry
        )
        self.waits = Histogram(
            "simyard_wait_seconds",
            "From the moment an attempt could have started to its start.",
            registry=self._registry,
            buckets=_WAITS,
        )
        self.ends = Counter("simyard_ends", "Jobs that ended.", ("state",), registry=self._registry)
        self.failures = Counter(
            "simyard_failures", "Jobs that failed, by reason.", ("reason",), registry=self._registry
        )
        self.retries = Counter(
            "simyard_retries",
            "Attempts that are tried again, by the reason of their end.",
            ("reason",),
            registry=self._registry,
        )
        self.commits = Histogram(
            "simyard_store_commit_seconds",
            "From handing a change to the store to its being durable.",
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self.lag = Histogram(
            "simyard_loop_lag_seconds",
            "How late the event loop was, looked at once a second.",
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._jobs = self._gauge("simyard_jobs", "Jobs by state.", ("state",))
        self._in_use = self._gauge("simyard_in_use", "What running jobs occupy.", ("resource",))
        self._limits = self._gauge("simyard_limit", "What they may occupy.", ("resource",))
        self._host = self._gauge("simyard_host", "The host, by quantity.", ("quantity",))
        self._events = Gauge("simyard_event_seq", "Newest event.", registry=self._registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...]) -> Gauge:
        return Gauge(name, text, labels, registry=self._registry)

    def note_request(self, method: str, route: str, status: int, seconds: float | None) -> None:
        """Count one answered request; `route` is the template, never the path as it came."""
        self.requests.labels(method, route, str(status)).inc()
        if seconds is not None:
            self.seconds.observe(seconds)

    def note_commit(self, jobs: Sequence[Job], events: Sequence[Event], seconds: float) -> None:
        """Take note of changes that are durable, and of how long that took."""
        self.commits.observe(seconds)
        latest = {job.id: job for job in jobs}
        for event in events:
            kind = event.type
            if kind == "job.running":
                self._note_start(latest.get(event.job_id or 0))
            elif kind == "job.retry":
                self.retries.labels(_reason(event.data.get("ended"))).inc()
            elif kind in ("job.completed", "job.failed", "job.cancelled"):
                self.ends.labels(kind.removeprefix("job.")).inc()
                if kind == "job.failed":
                    self.failures.labels(_reason(event.data.get("outcome"))).inc()

    def _note_start(self, job: Job | None) -> None:
        self.starts.inc()
        if job is not None and job.started_at is not None and job.queued_at is not None:
            self.waits.observe(max(0.0, job.started_at - job.queued_at))

    async def watch_loop(self) -> None:
        """Measure for ever how late the event loop is."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY
            await asyncio.sleep(LAG_EVERY)
            self.lag.observe(max(0.0, loop.time() - due))

    def render(self, resources: Mapping[str, Any], *, latest_event: int) -> bytes:
        """Return everything as text; `resources` has the shape of ``GET /api/resources``."""
        self._fill(self._jobs, resources.get("states"))
        self._fill(self._in_use, resources.get("in_use"))
        self._fill(self._limits, resources.get("limits"))
        self._fill(self._host, resources.get("host"))
        self._events.set(latest_event)
        return generate_latest(self._registry)

    @staticmethod
    def _fill(gauge: Gauge, values: object) -> None:
        gauge.clear()
        for name, value in _flat(values):
            gauge.labels(name).set(value)


def _reason(outcome: object) -> str:
    return str(outcome.get("reason")) if isinstance(outcome, Mapping) else "unknown"


def _flat(values: object, prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((prefix + str(name), float(value)))
    return found
