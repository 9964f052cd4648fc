"""`simyard logs`: what a job printed, and what it goes on printing."""

from __future__ import annotations

import argparse
import codecs
import sys

from .. import output
from ..arguments import count, job_id
from ..link import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...handler.wire import Connection

LONGEST_WAIT = 30.0
LINE_GUESS = 200
"""Bytes of a line, to begin with, when the last lines are looked for."""
PIECE = 1 << 20


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("id", type=job_id, metavar="ID")
    parser.add_argument("--follow", "-f", action="store_true", help="go on until the job is over")
    parser.add_argument("--stderr", "-e", action="store_true", help="its standard error")
    parser.add_argument("--tail", type=count, metavar="N", help="only the last N lines")
    parser.add_argument(
        "--raw", action="store_true", help="every byte as it is, control sequences too"
    )


def run(options: argparse.Namespace) -> int:
    """Print a log."""
    stream = "stderr" if options.stderr else "stdout"
    path = f"/api/jobs/{options.id}/logs/{stream}"
    with connect(options) as connection:
        start = 0 if options.tail is None else _start_of_tail(connection, path, options.tail)
        printer = _Printer(safe=output.is_terminal(sys.stdout) and not options.raw)
        if options.json:
            return _print_json(connection, path, start)
        printed = _copy(connection, path, start, options.follow, printer)
        if not printed and not options.quiet:
            _explain_silence(connection, options.id, stream)
    return 0


def _copy(connection: Connection, path: str, offset: int, follow: bool, printer: _Printer) -> bool:
    """Print from `offset` on; return whether there was anything."""
    printed = False
    try:
        while True:
            data, offset, complete = _read(connection, path, offset, LONGEST_WAIT if follow else 0)
            printer.take(data)
            printed = printed or bool(data)
            if complete or not (data or follow):
                return printed
    finally:
        printer.finish()


def _read(
    connection: Connection, path: str, offset: int, wait: float, limit: int = PIECE
) -> tuple[bytes, int, bool]:
    response = connection.open(
        "GET",
        path,
        query={"offset": offset, "limit": limit, "wait": wait or None},
        headers={"Accept": "application/octet-stream"},
        timeout=wait + 30,
    )
    data = response.read_all()
    following = int(response.headers.get("x-next-offset", offset + len(data)))
    return data, following, response.headers.get("x-complete", "").lower() in ("1", "true")


def _start_of_tail(connection: Connection, path: str, lines: int) -> int:
    """Find where the last `lines` lines begin, reading backwards no more than needed."""
    size = int(connection.request("GET", path, query={"offset": 0, "limit": 1})["size"])
    wanted = max(lines * LINE_GUESS, 4096)
    while True:
        start = max(size - wanted, 0)
        data = b""
        while start + len(data) < size:
            piece, _, _ = _read(connection, path, start + len(data), 0)
            if not piece:
                break
            data += piece
        data = data[: size - start]
        begin = _begin_of_last(data, lines)
        if begin is not None or start == 0:
            return start + (begin or 0)
        wanted *= 4


def _begin_of_last(data: bytes, lines: int) -> int | None:
    if lines == 0:
        return len(data)
    end = len(data) - (1 if data.endswith(b"\n") else 0)
    for _ in range(lines):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return None
    return end + 1


def _print_json(connection: Connection, path: str, start: int) -> int:
    text, size, complete = [], 0, False
    while True:
        answer = connection.request("GET", path, query={"offset": start, "limit": PIECE})
        text.append(answer["text"])
        size, complete = answer["size"], answer["complete"]
        if answer["next_offset"] == start or complete:
            break
        start = answer["next_offset"]
    output.write(output.to_json({"text": "".join(text), "size": size, "complete": complete}))
    return 0


def _explain_silence(connection: Connection, number: str, stream: str) -> None:
    job = connection.request("GET", f"/api/jobs/{number}")
    if not job.get("started_at"):
        output.say(f"job {number} has not started: it is {job['state']}")
        return
    other = "stderr" if stream == "stdout" else "stdout"
    path = f"/api/jobs/{number}/logs/{other}"
    size = connection.request("GET", path, query={"offset": 0, "limit": 1})["size"]
    words = {"stdout": "standard output", "stderr": "standard error"}
    hint = ""
    if size:
        option = " --stderr" if other == "stderr" else ""
        hint = (
            f"; it wrote {output.size(size)} to its {words[other]}: 'simyard logs {number}{option}'"
        )
    output.say(f"job {number} wrote nothing to its {words[stream]}{hint}")


class _Printer:
    """Write a log: byte by byte into a pipe, made safe onto a terminal."""

    def __init__(self, *, safe: bool) -> None:
        self._safe = safe
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._sanitiser = output.Sanitiser(colour=output.wants_colour(sys.stdout))

    def take(self, data: bytes) -> None:
        if self._safe:
            output.write(self._sanitiser.feed(self._decode(data)))
        elif data:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()

    def finish(self) -> None:
        if self._safe:
            output.write(self._sanitiser.feed(self._decode(b"", True)) + self._sanitiser.finish())
