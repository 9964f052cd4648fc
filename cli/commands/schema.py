"""`simyard schema`: the JSON schema of a job file."""

from __future__ import annotations

import argparse
import json

from .. import output

HOME_ONLY = True


def arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there are only the options of all commands."""


def run(_: argparse.Namespace) -> int:
    """Print the schema; there is nothing that could be quiet about it."""
    from ...service.job_schema import job_file_schema

    output.write(json.dumps(job_file_schema(), indent=2, ensure_ascii=True) + "\n")
    return 0
