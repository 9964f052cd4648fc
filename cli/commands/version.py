"""`simyard version`."""

from __future__ import annotations

import argparse
import platform

from .. import output

HOME_ONLY = True


def arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there are only the options of all commands."""


def run(options: argparse.Namespace) -> int:
    """Print the version."""
    from ... import __version__

    python = platform.python_version()
    if options.json:
        facts = {"version": __version__, "python": python, "system": platform.platform()}
        output.write(output.to_json(facts))
    elif options.quiet:
        output.write(f"{__version__}\n")
    else:
        output.write(f"simyard {__version__} (Python {python}, {platform.system()})\n")
    return 0
