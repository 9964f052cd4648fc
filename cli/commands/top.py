"""`simyard top`: what runs and what waits, drawn again and again on a terminal."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from typing import Any

from ...errors import ServiceUnavailable, UsageError
from .. import output
from ..arguments import seconds
from ..following import wall_seconds
from ..link import connect, pages

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...handler.wire import Connection

# Home the cursor, and erase what an earlier drawing left: behind each line, and below.
HOME, REST_OF_LINE, BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
CLEAR = "\x1b[2J"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--interval",
        "-i",
        type=seconds,
        default=2.0,
        metavar="SECONDS",
        help="draw every 2 seconds, or as often as given",
    )


def run(options: argparse.Namespace) -> int:
    """Draw until Ctrl-C."""
    if not output.is_terminal(sys.stdout) or options.json:
        raise UsageError(
            "top draws on a terminal only; 'simyard status --json' and 'simyard jobs --json' "
            "say the same once"
        )
    with connect(options) as connection:
        sys.stdout.write(CLEAR)
        try:
            while True:
                _draw(_frame(connection))
                time.sleep(max(options.interval, 0.2))
        except KeyboardInterrupt:
            output.write("\n")
            return 0


def _frame(connection: Connection) -> list[str]:
    """Return the lines of one drawing; where the service is away it says so and goes on."""
    columns, rows = shutil.get_terminal_size()
    try:
        facts = connection.request("GET", "/api/resources")
        running = list(pages(connection, {"state": "running"}, rows))
        waiting = connection.request("GET", "/api/queue", query={"limit": rows})
    except ServiceUnavailable as error:
        return [output.clip(f"the service is away: {output.one_line(error.message)}", columns)]
    return frame(facts, running, waiting, columns=columns, rows=rows)


def frame(
    facts: dict[str, Any],
    running: list[dict[str, Any]],
    waiting: dict[str, Any],
    *,
    columns: int,
    rows: int,
) -> list[str]:
    """Lay out what is known in so many rows and columns; what runs comes before what waits."""
    colour = output.wants_colour(sys.stdout)
    lines = [output.clip(text, columns) for text in _head(facts)]
    room = rows - len(lines) - 2
    states = facts.get("states") or {}
    count = states.get("running", len(running))
    shown = running[: max(room - min(waiting["total"], 4) - 2, 1)]
    lines += ["", _title(f"running: {count}", colour)]
    lines += [
        output.clip(
            f"{job['id']:>8}  {output.duration(wall_seconds(job)):>7}  {_needs(job):<16}  "
            f"{output.one_line(job['name'])}",
            columns,
        )
        for job in shown
    ]
    room = rows - len(lines) - 3
    lines += ["", _title(f"waiting: {waiting['total']}", colour)]
    lines += [
        output.clip(
            f"{job['id']:>8}  {output.clip(output.one_line(job['name']), 24):<24}  "
            f"{output.one_line(job['pending_reason'] or job['state'])}",
            columns,
        )
        for job in waiting["items"][: max(room, 0)]
    ]
    return lines[: max(rows - 1, 1)]


def _head(facts: dict[str, Any]) -> list[str]:
    host, limits, used = (facts.get(name) or {} for name in ("host", "limits", "in_use"))
    load = host.get("load") or []
    states = " · ".join(f"{n} {name}" for name, n in (facts.get("states") or {}).items() if n)
    cores, memory = limits.get("max_cores"), limits.get("max_memory")
    return [
        f"{output.one_line(host.get('hostname') or '')}  {time.strftime('%H:%M:%S')}  "
        f"processor {host.get('cpu_percent') or 0:.0f} %  load "
        + " ".join(f"{value:.2f}" for value in load),
        (
            f"cores {used.get('cores', 0)} of {cores if cores is not None else '∞'}  memory "
            f"{output.size(used.get('memory', 0))} of "
            f"{output.size(memory) if memory is not None else '∞'}  disk free "
            f"{output.size(host.get('disk_free'))}"
        ),
        states or "no jobs",
    ]


def _needs(job: dict[str, Any]) -> str:
    spec = job.get("spec") or {}
    cores = spec.get("cores", 1)
    memory = f", {output.size(spec['memory'])}" if spec.get("memory") else ""
    return f"{cores} core{'' if cores == 1 else 's'}{memory}"


def _title(text: str, colour: bool) -> str:
    return output.paint(text, "bold", colour)


def _draw(lines: list[str]) -> None:
    output.write(HOME + "".join(f"{line}{REST_OF_LINE}\n" for line in lines) + BELOW)
