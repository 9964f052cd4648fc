"""`simyard show`: everything about one job."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from .. import output
from ..arguments import job_id, job_ids
from ..following import detail, wall_seconds
from ..link import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("ids", nargs="+", type=job_id, metavar="ID")
    parser.add_argument("--script", action="store_true", help="also what exactly is run, and how")
    parser.add_argument("--events", action="store_true", help="also its history")


def run(options: argparse.Namespace) -> int:
    """Show jobs."""
    with connect(options) as connection:
        shown = []
        for number in job_ids(options.ids):
            job = connection.request("GET", f"/api/jobs/{number}")
            if options.script:
                job["script"] = connection.request("GET", f"/api/jobs/{number}/script")
            if options.events:
                job["events"] = connection.request("GET", f"/api/jobs/{number}/events")["items"]
            shown.append(job)
    if options.json:
        output.write(output.to_json(shown[0] if len(shown) == 1 else {"items": shown}))
    elif options.quiet:
        output.write("".join(f"{job['id']}\n" for job in shown))
    else:
        output.write("\n".join(_page(job) for job in shown))
    return 0


def _page(job: dict[str, Any]) -> str:
    colour = output.wants_colour(sys.stdout)
    lines = [output.paint(f"job {job['id']}  {output.one_line(job['name'])}", "bold", colour)]
    for label, value in _facts(job):
        if value not in (None, "", 0):
            text = output.one_line(value)
            style = output.STATE_STYLES.get(text.split(":")[0]) if label == "state" else None
            lines.append(f"  {label:<12} {output.paint(text, style, colour)}")
    for event in job.get("events", ()):
        facts = " ".join(f"{name}={value}" for name, value in (event.get("data") or {}).items())
        lines.append(f"  {event['time']}  {output.one_line(event['type'] + ' ' + facts)}")
    for name, value in (job.get("script") or {}).items():
        lines += _block(name, value)
    return "\n".join(lines) + "\n"


def _facts(job: dict[str, Any]) -> list[tuple[str, object]]:
    spec, usage = job.get("spec") or {}, job.get("usage") or {}
    outcome = job.get("outcome") or {}
    state = job["state"] + (f": {detail(job)}" if detail(job) else "")
    if job.get("cancel_requested") and not job.get("finished_at"):
        state += ", being cancelled"
    command = spec.get("command")
    memory = output.size(usage["max_rss_bytes"]) if usage.get("max_rss_bytes") else None
    processor = output.duration(usage["cpu_seconds"]) if usage.get("cpu_seconds") else None
    return [
        ("state", state),
        ("exit code", None if outcome.get("exit_code") is None else str(outcome["exit_code"])),
        ("command", shlex.join(command) if command else "a script; --script shows it"),
        ("workdir", job.get("workdir")),
        ("folder", job.get("folder")),
        ("asked for", _request(spec)),
        ("after", ", ".join(f"{d['condition']}:{d['job']}" for d in _dependencies(spec))),
        ("scheduler", job.get("scheduler")),
        ("native id", job.get("native_id")),
        ("priority", job.get("priority")),
        ("in the queue", job.get("queue_position")),
        ("attempt", job.get("attempt") if (job.get("attempt") or 0) > 1 else None),
        ("retry of", job.get("retry_of")),
        ("project", job.get("project")),
        ("group", job.get("group")),
        ("tags", " ".join(f"{key}={value}" for key, value in (job.get("tags") or {}).items())),
        ("submitted", output.moment(job.get("created_at"))),
        ("started", output.moment(job.get("started_at"))),
        ("finished", output.moment(job.get("finished_at"))),
        ("ran", output.duration(wall_seconds(job))),
        ("CPU time", processor),
        ("memory used", memory),
    ]


def _dependencies(spec: dict[str, Any]) -> list[dict[str, str]]:
    return [{"condition": "afterok", **item} for item in spec.get("depends_on") or ()]


def _request(spec: dict[str, Any]) -> str:
    parts = [f"{spec.get('cores', 1)} cores" if spec.get("cores", 1) != 1 else "1 core"]
    if spec.get("memory"):
        parts.append(f"{output.size(spec['memory'])} of memory")
    if spec.get("disk"):
        parts.append(f"{output.size(spec['disk'])} of disk")
    if spec.get("gpus"):
        parts.append(f"{spec['gpus']} GPUs")
    parts += [f"{number} × {name}" for name, number in (spec.get("licenses") or {}).items()]
    if spec.get("walltime"):
        parts.append(f"at most {output.duration(spec['walltime'])}")
    return ", ".join(parts)


def _block(name: str, value: object) -> list[str]:
    if value in (None, "", [], {}):
        return []
    if isinstance(value, dict):
        return [f"  {name}", *(f"    {output.one_line(f'{k}={v}')}" for k, v in value.items())]
    if isinstance(value, list):
        return [f"  {name:<12} {output.one_line(shlex.join(str(word) for word in value))}"]
    lines = str(value).splitlines()
    if len(lines) == 1:
        return [f"  {name:<12} {output.one_line(value)}"]
    return [f"  {name}", *(f"    {output.one_line(line)}" for line in lines)]
