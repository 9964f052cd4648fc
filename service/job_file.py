"""A job written down in YAML, and what was given beside it on a command line.

Pure. The text is read as plain words: a scalar stays what was written, so that
`sleep: 1e-3`, `1:30:00` and `no` mean to Simyard what they mean to the person, and not
what YAML 1.1 makes of them; only true, false and null are more than text. The model
reads numbers, sizes and times from words anyway.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Mapping
from typing import Any

import yaml
from typing_extensions import NotRequired, TypedDict

from ..errors import InvalidInput
from .model import JobSpec

LARGEST = 1 << 20
MERGED = ("env", "tags", "licenses", "cluster")
"""Fields of which single entries given beside the file beat those in it."""
ONE_OF = ("command", "script")


class _Words(yaml.SafeLoader):
    """Reads scalars as text, but for true, false and null; refuses aliases."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (that of the base class)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            line = self.line + 1
            raise InvalidInput(f"line {line} of the job file has an alias (*name); write it out")
        return super().compose_node(parent, index)


_Words.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"),
    list("tTfF"),
)
_Words.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)


class JobFileRequest(TypedDict):
    """A submission with a job file: its text as it is, and what goes with it."""

    yaml: str
    """The text of the file."""
    spec: NotRequired[dict[str, Any]]
    """Fields of a job that beat those of the file."""
    defaults: NotRequired[dict[str, Any]]
    """Fields that hold where neither says anything."""


def read(text: str) -> dict[str, Any]:
    """Return the fields of a job file; raises `InvalidInput` naming the line that is wrong."""
    if len(text) > LARGEST:
        raise InvalidInput("the job file is larger than 1 MiB")
    try:
        document = yaml.load(text, _Words)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" in line {mark.line + 1}" if mark is not None else ""
        raise InvalidInput(f"the job file is not valid YAML{where}: {error.problem}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInput(f"the job file is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("a job file is a list of 'field: value' lines, such as 'cores: 4'")
    return {str(name): value for name, value in document.items()}


def combined(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the spec that a submission with a job file means.

    `document` holds the file's text under ``yaml``, what was given beside it under
    ``spec``, which beats the file, and what is only assumed under ``defaults``, which
    the file beats. Relative paths in the file start at the assumed directory.
    """
    unknown = set(document) - {"yaml", "spec", "defaults"}
    if unknown:
        raise InvalidInput(
            f"beside 'yaml' there may be 'spec' and 'defaults', not {min(unknown)!r}"
        )
    text, given, assumed = document["yaml"], document.get("spec"), document.get("defaults")
    if not isinstance(text, str) or not all(
        isinstance(p, (dict, type(None))) for p in (given, assumed)
    ):
        raise InvalidInput("'yaml' is a text, 'spec' and 'defaults' are objects")
    given, assumed = given or {}, assumed or {}
    written = _anchored(read(text), assumed.get("workdir"))
    if any(given.get(name) is not None for name in ONE_OF):
        written = {name: value for name, value in written.items() if name not in ONE_OF}
    if written.get("files") and not written.get("workdir"):
        # Input files are copied: into a folder of the job's own, not over the caller's.
        assumed = {name: value for name, value in assumed.items() if name != "workdir"}
    spec = {**assumed, **written, **given}
    for name in MERGED:
        parts = [
            part[name] for part in (assumed, written, given) if isinstance(part.get(name), dict)
        ]
        if len(parts) > 1:
            spec[name] = {key: value for part in parts for key, value in part.items()}
    return spec


def _anchored(written: dict[str, Any], start: object) -> dict[str, Any]:
    """Make relative paths absolute where it is known where they start."""
    if not isinstance(start, str):
        return written
    workdir = written.get("workdir")
    if isinstance(workdir, str) and workdir:
        written["workdir"] = os.path.normpath(os.path.join(start, os.path.expanduser(workdir)))
    files = written.get("files")
    if isinstance(files, list):
        written["files"] = [_from(start, item) for item in files]
    return written


def _from(start: str, item: Any) -> Any:
    if isinstance(item, str):
        return os.path.join(start, os.path.expanduser(item))
    if isinstance(item, dict) and isinstance(item.get("source"), str):
        return {**item, "source": _from(start, item["source"])}
    return item


def spec_of(document: Mapping[str, Any]) -> JobSpec:
    """Return the validated spec; pydantic's error where a field is wrong."""
    return JobSpec.model_validate(combined(document))
