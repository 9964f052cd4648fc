"""`simyard dashboard`: open the dashboard without a password and without a token in an address.

The way in is a file that only its owner can read; it leads a browser to the
service with a code that works once and not for long.
"""

from __future__ import annotations

import argparse
import html
import os
import sys
from pathlib import Path

from ...errors import PermissionDenied
from ...handler import wire
from ...handler.endpoint import home_path
from .. import output
from ..link import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--no-open", action="store_true", help="print the file to open, and open nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Open the dashboard."""
    with connect(options) as connection:
        answer = connection.request("POST", "/api/session/codes", json={})
        url = connection.endpoint.url
    folder = Path(home_path(options.home)) / "run"
    page = folder / "dashboard.html"
    write_private(page, way_in(url, answer["code"]))
    facts = {"url": url, "file": str(page), "expires_in": answer.get("expires_in")}
    if options.json:
        output.write(output.to_json(facts))
    elif options.no_open or options.quiet or not _opened(page):
        output.write(f"{page.as_uri()}\n")
        if not options.quiet:
            output.say(f"open this file in a browser within {_soon(answer)}; it works once")
    else:
        output.say(f"opened the dashboard of {url}")
    return 0


def way_in(url: str, code: str) -> str:
    """Return the page that leads to the dashboard."""
    target = html.escape(f"{url}/#code={wire.quoted(code)}", quote=True)
    return (
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
        '<meta name=referrer content="no-referrer">\n'
        f'<meta http-equiv=refresh content="0;url={target}">\n'
        "<title>Simyard</title>\n"
        f'<p><a rel=noreferrer href="{target}">Open the dashboard</a></p>\n'
    )


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file that only its owner can read from its first byte on."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise PermissionDenied(
            f"cannot write {path}: {error.strerror or error}; choose a --home of yours"
        ) from error


def _opened(page: Path) -> bool:
    # Without a display, only a browser for the terminal would start, and take it over.
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER")
    ):
        return False
    import webbrowser

    try:
        return webbrowser.open(page.as_uri())
    except (webbrowser.Error, OSError):
        return False


def _soon(answer: dict[str, object]) -> str:
    lifetime = answer.get("expires_in")
    return output.duration(float(lifetime)) if isinstance(lifetime, (int, float)) else "a minute"
