"""`simyard config`: the settings in force, and where each came from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ...errors import NotRunning
from ...handler.endpoint import home_path
from .. import output
from ..link import connect


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.epilog = (
        "Asks the running service; where none runs, it shows what one started here would use."
    )
    parser.add_argument("verb", choices=("show",), help="show them")
    parser.add_argument(
        "--origin",
        action="store_true",
        help="also where each came from: flag, variable, file or default",
    )


def run(options: argparse.Namespace) -> int:
    """Show the settings."""
    items, source = _settings(options)
    if options.json:
        output.write(output.to_json({"source": source, "items": items}))
        return 0
    if options.quiet:
        output.write("".join(f"{item['name']}\n" for item in items))
        return 0
    header = ("SETTING", "VALUE", "ORIGIN") if options.origin else ("SETTING", "VALUE")
    rows = [(item["name"], _text(item["value"]), item["origin"])[: len(header)] for item in items]
    output.write(output.table(header, rows))
    if source != "service":
        output.say("no service runs; one started here would use these")
    return 0


def _settings(options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    try:
        with connect(options) as connection:
            return connection.request("GET", "/api/settings")["items"], "service"
    except NotRunning:
        if options.url or options.host:
            raise
    from ...service.configuration import settings_view
    from ...service.settings import Settings

    settings = Settings.load(Path(home_path(options.home)))
    return [dict(item) for item in settings_view(settings)], "home"


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)
