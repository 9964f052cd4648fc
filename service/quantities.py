"""Amounts of memory and of time, as people write them and as people read them.

Pure text and numbers; knows nothing of jobs. Sizes are whole bytes, durations are
seconds.

The rules, where custom differs from place to place:

- ``K``, ``M``, ``G``, ``T`` … alone are binary, as in Slurm's ``--mem`` (sbatch
  manual, 22.05) and in ``ulimit``; so are ``KiB``, ``MiB``, ``GiB`` … and
  ``Ki``, ``Mi``, ``Gi`` …. ``KB``, ``MB``, ``GB`` … are decimal (IEC 80000-13).
  Case does not matter.
- A bare number is bytes, or seconds. (Slurm reads a bare time limit as minutes;
  we do not.)
- Two fields with a colon are minutes and seconds, three are hours, minutes and
  seconds; a dash after a number begins with days: ``D-H``, ``D-H:M``, ``D-H:M:S``.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

SIZE_EXAMPLES = "write for example 4 GiB, 500M or a number of bytes"
DURATION_EXAMPLES = "write for example 2h30m, 90s, 12:00:00, 1-12:00:00 or a number of seconds"

_LONGEST = 60
"""Characters; longer texts are no quantity, and need not be looked at."""

_TOO_MUCH = 1 << 63
"""No machine has so many bytes, nor does anything last so long."""

_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(?:([kmgtpe])?(i?b?)|bytes?)", re.ASCII | re.I)
_PREFIXES = "kmgtpe"

_NUMBER = re.compile(r"\d+(?:\.\d*)?|\.\d+", re.ASCII)
_CLOCK = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+(?:\.\d+)?))?", re.ASCII)
_PART = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*,?", re.ASCII | re.I)
_ISO = re.compile(r"P((?:\d+[WD])*)(?:T((?:\d+(?:\.\d+)?[HMS])+))?", re.ASCII | re.I)

_UNITS: dict[str, Decimal] = {}
for _seconds, _names in (
    ("0.001", "ms msec msecs millisecond milliseconds"),
    ("1", "s sec secs second seconds"),
    ("60", "m min mins minute minutes"),
    ("3600", "h hr hrs hour hours"),
    ("86400", "d day days"),
    ("604800", "w week weeks"),
):
    _UNITS.update(dict.fromkeys(_names.split(), Decimal(_seconds)))


def parse_size(value: object) -> int:
    """Read an amount of memory or disk as whole bytes; fractions of a byte round up.

    Takes whole numbers and text such as ``"4 GiB"``, ``"1.5g"``, ``"500M"``,
    ``"2 GB"``. Raises `ValueError` with a sentence that gives examples.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if 0 <= value < _TOO_MUCH:
            return value
    elif isinstance(value, float):
        if 0 <= value < _TOO_MUCH and value.is_integer():
            return int(value)
    elif isinstance(value, str) and len(value) <= _LONGEST:
        match = _SIZE.fullmatch(value.strip())
        if match:
            number, prefix, suffix = match.groups()
            power = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
            # "4 iB" has no prefix to be binary about.
            if prefix or "i" not in (suffix or "").lower():
                base = 1000 if prefix and (suffix or "").lower() == "b" else 1024
                return int((Decimal(number) * base**power).to_integral_value(ROUND_CEILING))
    raise ValueError(f"{_shown(value)} is not an amount of memory or disk; {SIZE_EXAMPLES}")


def parse_duration(value: object) -> float:
    """Read a time span as seconds.

    Takes numbers, `datetime.timedelta` and text such as ``"2h30m"``, ``"45 min"``,
    ``"1-12:00:00"``, ``"30:00"`` (minutes and seconds) and ISO 8601's ``"PT2H"``.
    Raises `ValueError` with a sentence that gives examples.
    """
    seconds: float | None = None
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < _TOO_MUCH else None
    elif isinstance(value, float):
        seconds = value if math.isfinite(value) else None
    elif isinstance(value, str) and len(value) <= _LONGEST:
        exact = _seconds_of_text(value.strip())
        seconds = float(exact) if exact is not None else None
    if seconds is None or seconds < 0:
        raise ValueError(f"{_shown(value)} is not a length of time; {DURATION_EXAMPLES}")
    return seconds


def _seconds_of_text(text: str) -> Decimal | None:
    if _NUMBER.fullmatch(text):
        return Decimal(text)
    clock = _CLOCK.fullmatch(text)
    if clock:
        return _seconds_of_clock(*clock.groups())
    iso = _ISO.fullmatch(text)
    if iso and (iso[1] or iso[2]):
        text = (iso[1] or "") + (iso[2] or "")
    return _seconds_of_parts(text)


def _seconds_of_clock(
    days: str | None, first: str, second: str | None, third: str | None
) -> Decimal | None:
    """Add up ``[D-]H[:M[:S]]`` or ``M:S``; only the leading field may overflow its range."""
    hours, minutes, seconds = Decimal(first), Decimal(second or 0), Decimal(third or 0)
    if days is None and third is None:
        hours, minutes, seconds = Decimal(0), Decimal(first), Decimal(second or 0)
        if seconds >= 60:
            return None
    elif minutes >= 60 or seconds >= 60 or (days is not None and hours >= 24):
        return None
    return ((Decimal(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _seconds_of_parts(text: str) -> Decimal | None:
    """Add up ``2h30m``, ``1 day, 2 hours``: each unit at most once, the longest first."""
    total, at, last = Decimal(0), 0, None
    while at < len(text):
        part = _PART.match(text, at)
        unit = _UNITS.get(part[2].lower()) if part else None
        if part is None or unit is None or (last is not None and unit >= last):
            return None
        total += Decimal(part[1]) * unit
        at, last = part.end(), unit
    return total if last is not None and not text.rstrip().endswith(",") else None


def format_size(size: int) -> str:
    """Write bytes for a person: ``3 GiB``, ``1.5 GiB``, ``500 bytes``."""
    if abs(size) < 1024:
        return f"{size} byte" if size == 1 else f"{size} bytes"
    amount = float(size)
    for prefix in "KMGTPE":
        amount /= 1024
        # What would round to 1024.0 is 1 of the next.
        if abs(amount) < 1023.95 or prefix == "E":
            break
    return f"{amount:.1f}".removesuffix(".0") + f" {prefix}iB"


def format_duration(seconds: float) -> str:
    """Write seconds for a person in at most two units: ``2h 30m``, ``45s``, ``0.25s``."""
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 9.995:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + "s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    length, name, step, below = next(units for units in _PAIRS if whole >= units[0])
    count, rest = divmod(whole // step, length // step)
    return f"{count}{name} {rest}{below}" if rest else f"{count}{name}"


_PAIRS = ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
"""A unit and the next smaller one, which is what a person wants to know beside it."""


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= _TOO_MUCH:
        return "a number that large"
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
