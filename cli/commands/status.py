"""`simyard status`: the service, the host, and what is in use."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ...handler.endpoint import home_path
from .. import output
from ..link import connect


def arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there are only the options of all commands."""


def run(options: argparse.Namespace) -> int:
    """Show how the service is."""
    with connect(options) as connection:
        facts = connection.request("GET", "/api/resources")
        endpoint = connection.endpoint
    service = {
        "url": endpoint.url,
        "pid": endpoint.pid,
        "version": endpoint.version,
        "host": endpoint.host,
        "home": home_path(options.home) if endpoint.on_this_host else None,
    }
    if options.json:
        output.write(output.to_json({"service": service, **facts}))
    elif options.quiet:
        output.write(f"{endpoint.url}\n")
    else:
        output.write(_page(service, facts))
    return 0


def _page(service: dict[str, Any], facts: dict[str, Any]) -> str:
    colour = output.wants_colour(sys.stdout)
    host, limits = facts.get("host") or {}, facts.get("limits") or {}
    used, states = facts.get("in_use") or {}, facts.get("states") or {}
    process = f", process {service['pid']}" if service["pid"] else ""
    lines = [("service", f"{service['url']} (version {service['version']}{process})")]
    if service["home"]:
        lines.append(("home", output.one_line(service["home"])))
    lines.append(("jobs", _states(states, colour)))
    lines.append(("cores", _of(used.get("cores", 0), limits.get("max_cores"))))
    lines.append(("memory", _sizes(used.get("memory", 0), limits.get("max_memory"))))
    for name, number in (limits.get("licenses") or {}).items():
        lines.append((name, _of((used.get("licenses") or {}).get(name, 0), number)))
    if limits.get("gpus"):
        lines.append(("GPUs", _of(used.get("gpus", 0), limits["gpus"])))
    lines.append(("host", _host(host)))
    return "".join(
        f"{output.paint(f'{name:<8}', 'bold', colour)}  {text}\n" for name, text in lines
    )


def _states(states: dict[str, int], colour: bool) -> str:
    parts = [
        output.paint(f"{number} {state}", output.STATE_STYLES.get(state), colour)
        for state, number in states.items()
        if number
    ]
    return ", ".join(parts) or "none yet"


def _of(used: object, limit: object) -> str:
    return f"{used} in use" + (f" of {limit}" if limit is not None else ", no limit")


def _sizes(used: int, limit: int | None) -> str:
    return _of(output.size(used), None if limit is None else output.size(limit))


def _host(host: dict[str, Any]) -> str:
    parts = [output.one_line(host.get("hostname", "?"))]
    if host.get("cpu_count"):
        parts.append(f"{host['cpu_count']} cores")
    if host.get("cpu_percent") is not None:
        parts.append(f"{host['cpu_percent']:.0f} % busy")
    if host.get("memory_available") is not None:
        parts.append(f"{output.size(host['memory_available'])} of memory free")
    if host.get("disk_free") is not None:
        parts.append(f"{output.size(host['disk_free'])} of disk free")
    return ", ".join(parts)
