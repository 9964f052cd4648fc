"""The JSON schema of a job file, for editors that check and complete while one types.

Pure; made from the model, and a little wider: a job file is read as plain words
(`job_file`), so a number may stand wherever a text may, and short forms are accepted.
"""

from __future__ import annotations

from typing import Any

from .model import JobSpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_NOT_WRITTEN = ("base_env", "soft_limits")
"""Fields that the shell and the handler capture, and that nobody types."""
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_PATH = "Relative paths start where the job is submitted."


def job_file_schema() -> dict[str, Any]:
    """Return the schema as a JSON object (draft 2020-12)."""
    schema: dict[str, Any] = _widened(JobSpec.model_json_schema(mode="validation"))
    fields = schema["properties"]
    for name in _NOT_WRITTEN:
        del fields[name]
    fields["workdir"]["description"] = f"Where it runs; where it is submitted if not given. {_PATH}"
    fields["files"]["items"] = {"anyOf": [{"type": "string"}, fields["files"]["items"]]}
    fields["files"]["description"] = (
        f"Files to copy into a folder of the job's own, which becomes its workdir. {_PATH}"
    )
    fields["retries"] = {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": 100}, {"$ref": "#/$defs/Retries"}],
        "description": "Try again by itself: how often, or {limit, on: [reason, …]}.",
    }
    one = {"anyOf": [{"type": ["string", "integer"]}, {"$ref": "#/$defs/Dependency"}]}
    fields["depends_on"] = {
        "anyOf": [*one["anyOf"], {"type": "array", "items": one, "maxItems": 1000}],
        "description": "Jobs to wait for: 17, 'afterany:18', {job, condition}, or a list.",
    }
    schema["not"] = {"required": ["command", "script"]}
    schema["title"] = "A job of Simyard"
    schema["description"] = "What to run and what it needs; 'submit_job --file' submits it."
    return {"$schema": DIALECT, **schema}


def _widened(part: Any) -> Any:
    """Return a part of the schema in which a text may be a number, with the bounds it knows."""
    if isinstance(part, list):
        return [_widened(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {
        _BOUNDS.get(name, name): value if name in ("default", "enum") else _widened(value)
        for name, value in part.items()
        if name != "title"
    }
    if found.get("type") == "string" and "enum" not in found:
        found["type"] = ["string", "number"]
    return found
