"""`simyard limits`: what jobs may use together."""

from __future__ import annotations

import argparse
from typing import Any

from ...errors import UsageError
from .. import output
from ..arguments import meant, pair
from ..link import connect

NAMES = (
    "max_concurrent_jobs",
    "max_cores",
    "max_memory",
    "min_free_disk",
    "max_cpu_percent",
    "gpus",
    "licenses",
)
_SIZES = frozenset({"max_memory", "min_free_disk"})
_NO_LIMIT = frozenset({"none", "unlimited", "off"})
_USED = {
    "max_concurrent_jobs": "jobs",
    "max_cores": "cores",
    "max_memory": "memory",
    "gpus": "gpus",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        type=_setting,
        metavar="NAME=VALUE",
        help="such as max_cores=4, max_memory=12GiB, licenses.hfss=2, max_cpu_percent=none",
    )


def run(options: argparse.Namespace) -> int:
    """Show limits, after changing them where that is asked."""
    with connect(options) as connection:
        before = connection.request("GET", "/api/resources")
        limits, in_use = before["limits"], before.get("in_use") or {}
        if options.set:
            pairs = [item for items in options.set for item in items]
            limits = connection.request("PUT", "/api/limits", json=changes(pairs))
    if options.json:
        output.write(output.to_json(limits))
    elif not options.quiet:
        output.write(
            output.table(("LIMIT", "IN USE", "AT MOST"), rows(limits, in_use), right=(1, 2))
        )
    return 0


def changes(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return what `pairs` change; the service merges it, None takes a limit or counter away."""
    found: dict[str, Any] = {}
    for name, text in pairs:
        name, dot, inner = name.partition(".")
        if not dot:
            if name == "licenses":
                raise UsageError("name the licence too, such as --set licenses.hfss=2")
            found[name] = _value(text)
        elif name == "licenses":
            found.setdefault("licenses", {})[inner] = _value(text)
        else:
            raise UsageError(f"{name!r} has no parts; write --set {name}={text}")
    return found


def rows(limits: dict[str, Any], in_use: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the lines of the table."""
    lines = []
    for name in [*NAMES, *(name for name in limits if name not in NAMES)]:
        value = limits.get(name)
        if isinstance(value, dict):
            used = in_use.get(name) or {}
            lines += [
                (f"{name}.{key}", str(used.get(key, 0)), str(number))
                for key, number in value.items()
            ]
            continue
        taken = in_use.get(_USED.get(name, ""), "")
        shown = "none" if value is None else _shown(name, value)
        lines.append((name, _shown(name, taken) if taken != "" else "", shown))
    return lines


def _shown(name: str, value: object) -> str:
    if name in _SIZES and isinstance(value, (int, float)):
        return output.size(value)
    return str(value)


def _value(text: str) -> object:
    if text.lower() in _NO_LIMIT:
        return None
    return int(text) if text.isdigit() else text


def _setting(text: str) -> tuple[str, str]:
    name, value = pair(text, "a limit", "max_cores=4")
    name = name.replace("-", "_")
    if name.partition(".")[0] not in NAMES:
        raise argparse.ArgumentTypeError(
            f"there is no limit {name!r}{meant(name, NAMES) or '; they are ' + ', '.join(NAMES)}"
        )
    return name, value
