"""The fields of a spec as keyword arguments, and what people hand in turned into a spec.

Knows the names of the fields, so that an editor completes them and a wrong one is
caught here; their rules are the service's. A test compares the names with the model.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Union

from typing_extensions import TypedDict

from ..errors import InvalidInput

if TYPE_CHECKING:
    from ..service.model import JobSpec

Size = int | str
"""Bytes, or as people write them: "4 GiB"."""
Duration = float | str
"""Seconds, or as people write them: "2h30m", "1-12:00:00"."""
PathLike = Union[str, "os.PathLike[str]"]
Work = Union["JobSpec", Mapping[str, Any], Sequence[PathLike | int | float]]
"""What can be submitted: a spec, its fields, or a command as a list."""


class SpecFields(TypedDict, total=False):
    """Keyword arguments of `submit`: the fields of a `JobSpec`."""

    script: str
    name: str
    workdir: PathLike
    files: Sequence[PathLike | Mapping[str, Any]]
    env: Mapping[str, str]
    base_env: Mapping[str, str]
    soft_limits: Mapping[str, int]
    setup: Sequence[str]
    cores: int
    memory: Size
    disk: Size
    gpus: int
    licenses: Mapping[str, int]
    walltime: Duration
    grace: Duration
    output_limit: Size
    priority: int
    scheduler: str
    queue: str
    cluster: Mapping[str, Any]
    depends_on: Any
    hold: bool
    retries: int | Mapping[str, Any]
    expected_outputs: Sequence[str]
    project: str
    group: str
    tags: Mapping[str, str]


def as_spec(work: Work | None, fields: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return `work` with `fields` on top, as the wire wants it.

    Raises `InvalidInput` for an unknown field, naming the likely one, and for a command
    that is one string.
    """
    given = {name: _plain(value) for name, value in (fields or {}).items() if value is not None}
    unknown = [name for name in given if name not in SpecFields.__annotations__]
    if unknown:
        raise InvalidInput(_unknown(unknown[0]))
    if work is None:
        return given
    if isinstance(work, (str, bytes, os.PathLike)):
        raise InvalidInput(
            'a command is a list, such as ["pw.x", "-in", "si.in"]; give shell text as script=\'…\''
        )
    dump = getattr(work, "model_dump", None)
    if dump is not None:
        return {**dump(mode="json", exclude_unset=True), **given}
    if isinstance(work, Mapping):
        return {**{name: _plain(value) for name, value in work.items()}, **given}
    if not isinstance(work, Sequence):
        raise InvalidInput(f"{work!r} cannot be submitted: give a command as a list, or a JobSpec")
    return {"command": [_word(word) for word in work], **given}


def _word(word: object) -> str:
    if isinstance(word, (str, os.PathLike)):
        return os.fspath(word)
    if isinstance(word, (int, float)) and not isinstance(word, bool):
        return str(word)
    raise InvalidInput(f"{word!r} in the command is neither text, a path nor a number")


def _plain(value: Any) -> Any:
    """Turn what JSON has no word for into what it has: paths, tuples, durations, enums."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_unset=True)
    if isinstance(getattr(value, "id", None), str):  # a handle, in depends_on
        return value.id
    return value


def _unknown(name: str) -> str:
    known = sorted(SpecFields.__annotations__)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"the fields are {', '.join(known)}"
    return f"a job has no field {name!r}; {hint}"
