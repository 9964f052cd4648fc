"""`simyard stop`: end the service; running jobs go on."""

from __future__ import annotations

import argparse
import os
import signal
import time
from typing import Any

from ...errors import NotRunning, ServiceUnavailable
from ...handler import wire
from ...handler.endpoint import find_endpoint, home_path
from .. import output
from ..exits import NOT_REACHABLE, REFUSED, Ending
from ..link import pages

HOME_ONLY = True
PATIENCE = 30.0
ACTIVE = ("held", "queued", "submitting", "scheduled", "running")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--jobs", action="store_true", help="cancel all jobs first")


def run(options: argparse.Namespace) -> int:
    """Stop the service."""
    home = home_path(options.home)
    try:
        endpoint = find_endpoint(home)
    except NotRunning:
        return _report(options, {"stopped": False, "home": home}, f"no service runs for {home}")
    pid = endpoint.pid or 0
    try:
        with wire.Connection(endpoint) as connection:
            cancelled = _cancel_all(connection) if options.jobs else 0
            states = connection.request("GET", "/api/resources").get("states") or {}
    except ServiceUnavailable as error:
        if gone(pid):
            return _report(options, {"stopped": False, "home": home}, f"no service runs for {home}")
        raise Ending(
            NOT_REACHABLE,
            f"the service does not answer ({error.message}); it was not touched. If process {pid} "
            f"is still there, 'kill {pid}' ends it, and running jobs go on",
        ) from None
    _end(pid)
    running = states.get("running", 0) + states.get("submitting", 0) + states.get("scheduled", 0)
    waiting = states.get("queued", 0)
    facts = {"stopped": True, "home": home, "pid": pid, "running": running, "waiting": waiting}
    return _report(options, facts, _sentence(running, waiting, cancelled))


def _sentence(running: int, waiting: int, cancelled: int) -> str:
    parts = ["stopped"]
    if cancelled:
        parts.append(_jobs(cancelled, "was", "were") + " cancelled")
    if running:
        parts.append(_jobs(running, "goes", "go") + " on running")
    if waiting:
        parts.append(_jobs(waiting, "waits", "wait") + " for the next service")
    return "; ".join(parts)


def _jobs(number: int, one: str, many: str) -> str:
    return f"{number} job {one}" if number == 1 else f"{number} jobs {many}"


def _cancel_all(connection: wire.Connection) -> int:
    ids = [job["id"] for job in pages(connection, {"state": ",".join(ACTIVE)}, None)]
    for at in range(0, len(ids), 1000):
        connection.request(
            "POST", "/api/jobs/cancel", json={"ids": ids[at : at + 1000]}, timeout=120
        )
    deadline = time.monotonic() + PATIENCE + 10
    while left := _active(connection.request("GET", "/api/resources")):
        if time.monotonic() > deadline:
            raise Ending(
                REFUSED,
                f"{_jobs(left, 'has', 'have')} not ended yet; the service was not stopped, as it "
                "still ends them. Try again in a while",
            )
        time.sleep(0.1)
    return len(ids)


def _active(resources: dict[str, Any]) -> int:
    states = resources.get("states") or {}
    return sum(states.get(state, 0) for state in ACTIVE)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError:
        raise Ending(REFUSED, f"process {pid} is not yours to stop") from None
    deadline = time.monotonic() + PATIENCE
    while not gone(pid):
        if time.monotonic() > deadline:
            raise Ending(
                REFUSED, f"process {pid} was told to stop, but has not yet; 'kill -9 {pid}' ends it"
            )
        time.sleep(0.05)


def gone(pid: int) -> bool:
    """True where no process of that id is left, or only its entry for a parent to read."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def _report(options: argparse.Namespace, facts: dict[str, Any], text: str) -> int:
    if options.json:
        output.write(output.to_json(facts))
    elif not options.quiet:
        output.say(output.one_line(text))
    return 0
