"""What a person or a pipe sees: tables, colours, JSON, and text made safe for a terminal.

Holds nothing about jobs or the service. Standard library only: this module is
on the submit path. Job output and names come from programs that we do not
trust; everything of theirs that reaches a terminal goes through `one_line` or
`Sanitiser`, which let no control sequence pass but colours.
"""

from __future__ import annotations

import json
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # what only type checkers need costs as much as all the rest
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any, TextIO

_STYLES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}

STATE_STYLES = {
    "held": "magenta",
    "queued": "yellow",
    "submitting": "yellow",
    "scheduled": "yellow",
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "cancelled": "dim",
}

# Embeddings, overrides and isolates: they make text read other than it is.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_ENDS = frozenset("\u0085\u2028\u2029\x0b\x0c")
_SGR = re.compile(r"[0-9;:]{0,60}m\Z")
_STRING_LIMIT = 4096


def is_terminal(stream: TextIO) -> bool:
    """Tell whether `stream` is a terminal that a person looks at."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def wants_colour(stream: TextIO) -> bool:
    """Tell whether colours may be written; see https://no-color.org and FORCE_COLOR."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return os.environ["FORCE_COLOR"] != "0"
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def paint(text: str, style: str | None, colour: bool) -> str:
    """Wrap `text` in a style, such as "red", where colours are wanted."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if colour and style else text


def one_line(text: object) -> str:
    """Make foreign text safe and single-line: no control, escape or bidi character is left."""
    cleaned = Sanitiser(colour=False).feed(str(text).replace("\t", " "))
    return " ".join(cleaned.split("\n")).strip()


class Sanitiser:
    """Make a stream of job output safe for a terminal.

    Feed it text in pieces cut anywhere; a sequence that is cut is completed by the
    next piece. Colours (SGR) pass where wanted. Every other sequence is dropped,
    the rest of the control characters too; a lone carriage return becomes a line
    break, so that nothing already printed can be written over.

    Sequences are those of ECMA-48 (5th edition) §5.3–5.6 and xterm's control
    sequences document.
    """

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._state = "text"
        self._held = ""
        self._carriage = False
        self._painted = False

    def feed(self, text: str) -> str:
        """Return what may be printed of `text` by now."""
        # Nearly all output is plain; the slow way is for pieces that are not.
        plain = self._state == "text" and not self._carriage and text.isascii()
        if plain and not _SUSPECT.search(text):
            return text
        out: list[str] = []
        for char in text:
            self._take(char, out)
        return "".join(out)

    def finish(self) -> str:
        """Return what ends the stream: the pending line break, and colours switched off."""
        end = "\n" if self._carriage else ""
        if self._painted:
            end += "\x1b[0m"
        self.__init__(colour=self._colour)  # type: ignore[misc]
        return end

    def _take(self, char: str, out: list[str]) -> None:
        if self._carriage:
            self._carriage = False
            out.append("\n")
            if char == "\n":
                return
        getattr(self, f"_in_{self._state}")(char, out)

    def _in_text(self, char: str, out: list[str]) -> None:
        if char == "\x1b":
            self._state = "escape"
        elif char == "\r":
            self._carriage = True
        elif char in _LINE_ENDS:
            out.append("\n")
        elif char == "\x9b":
            self._begin("csi")
        elif char in "\x90\x98\x9d\x9e\x9f":
            self._begin("string")
        elif char in "\n\t" or not (_is_control(char) or char in _BIDI):
            out.append(char)

    def _in_escape(self, char: str, out: list[str]) -> None:
        if char == "[":
            self._begin("csi")
        elif char in "]P_^X":
            self._begin("string")
        elif "\x20" <= char <= "\x2f":
            # Intermediate bytes: the final one is still to come.
            self._held += char
            if len(self._held) > 8:
                self._back_to_text()
        elif char == "\x1b":
            self._held = ""
        else:
            self._back_to_text()
            if _is_control(char):
                self._in_text(char, out)

    def _in_csi(self, char: str, out: list[str]) -> None:
        if char == "\x1b":
            self._back_to_text()
            self._state = "escape"
        elif "\x40" <= char <= "\x7e":
            sequence = self._held + char
            self._back_to_text()
            if self._colour and _SGR.match(sequence):
                self._painted = True
                out.append(f"\x1b[{sequence}")
        elif "\x20" <= char <= "\x3f" and len(self._held) < 256:
            self._held += char
        else:
            self._back_to_text()
            self._in_text(char, out)

    def _in_string(self, char: str, out: list[str]) -> None:
        # A string that never ends must not swallow the log: a line break ends it too.
        if char in "\x07\x9c" or len(self._held) > _STRING_LIMIT:
            self._back_to_text()
        elif char == "\x1b":
            self._back_to_text()
            self._state = "escape"
        elif char in "\r\n":
            self._back_to_text()
            self._in_text(char, out)
        else:
            self._held += char

    def _begin(self, state: str) -> None:
        self._state, self._held = state, ""

    def _back_to_text(self) -> None:
        self._state, self._held = "text", ""


_SUSPECT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def _is_control(char: str) -> bool:
    return char < "\x20" or "\x7f" <= char <= "\x9f"


def width(text: str) -> int:
    """Count the terminal cells of `text`."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )


def clip(text: str, cells: int) -> str:
    """Shorten `text` to so many cells, with an ellipsis where something was cut."""
    if width(text) <= cells:
        return text
    kept = ""
    for char in text:
        if width(kept + char) > max(cells - 1, 0):
            break
        kept += char
    return kept + "…"


def terminal_columns() -> int:
    """Return the width of the terminal, 80 where nobody knows."""
    import shutil

    return shutil.get_terminal_size().columns


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[int] = (),
    styles: Mapping[int, Mapping[str, str]] | None = None,
    stream: TextIO | None = None,
) -> str:
    """Lay out rows: aligned under a header on a terminal, tab-separated without one in a pipe.

    `right` names columns to align right; `styles` maps a column to styles by value.
    The last column is cut where the terminal ends.
    """
    stream = sys.stdout if stream is None else stream
    cells = [[one_line("" if cell is None else cell) for cell in row] for row in rows]
    if not is_terminal(stream):
        return "".join("\t".join(row) + "\n" for row in cells)
    colour = wants_colour(stream)
    widths = [
        max([width(title), *(min(width(row[n]), 40) for row in cells)])
        for n, title in enumerate(header)
    ]
    left_of_last = sum(widths[:-1]) + 2 * (len(widths) - 1)
    widths[-1] = max(terminal_columns() - left_of_last, 10)
    aligned_right = set(right)
    lines = []
    for number, row in enumerate([list(header), *cells]):
        shown = []
        for n, text in enumerate(row):
            clipped = clip(text, widths[n])
            padding = " " * (widths[n] - width(clipped))
            style = "bold" if number == 0 else (styles or {}).get(n, {}).get(text)
            painted = paint(clipped, style, colour)
            if n == len(row) - 1:
                padding = ""
            shown.append(padding + painted if n in aligned_right else painted + padding)
        lines.append("  ".join(shown).rstrip() + "\n")
    return "".join(lines)


def to_json(value: Any) -> str:
    """Write JSON that is safe anywhere: everything beyond ASCII is escaped."""
    return json.dumps(value, indent=2, ensure_ascii=True) + "\n"


def write(text: str) -> None:
    """Write to stdout and flush, so that a broken pipe is noticed here."""
    sys.stdout.write(text)
    sys.stdout.flush()


def say(text: str) -> None:
    """Tell the person something on stderr; results alone go to stdout."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody is left to be told


def size(count: float | None) -> str:
    """Write bytes as people read them, such as "1.5 GiB"."""
    if count is None:
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float | None) -> str:
    """Write seconds as people read them, such as "2h03m"."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def moment(text: str | None) -> str:
    """Write a time of the wire in the reader's own zone, without today's date."""
    then = parse_time(text)
    if then is None:
        return ""
    from datetime import datetime

    local = then.astimezone()
    if local.date() == datetime.now().astimezone().date():
        return local.strftime("%H:%M:%S")
    return local.strftime("%Y-%m-%d %H:%M")


def parse_time(text: str | None) -> datetime | None:
    """Read an RFC 3339 time of the wire; None where there is none."""
    if not text:
        return None
    from datetime import datetime, timezone

    try:
        # Python 3.10 reads neither "Z" nor a fraction of other than 3 or 6 digits.
        return datetime.strptime(text[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
