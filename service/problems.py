"""Errors as they go to a client: problem documents (RFC 9457) in plain words.

Pure. Nothing internal (a path of ours, a trace, a value that may be a secret) gets out
through here: what is not an error of ours becomes a sentence without detail.
"""

from __future__ import annotations

import difflib
import http
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import SimyardError

MOST_SHOWN = 20
"""Wrong fields listed; there may be thousands."""
_STANDARD = frozenset({"type", "title", "status", "detail", "code", "errors", "instance"})

_HTTP_CODES = {
    400: "invalid_input",
    401: "permission_denied",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    410: "gone",
    413: "too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    503: "service_unavailable",
}


class WrongFields(SimyardError):
    """Some fields are wrong."""

    code = "invalid_input"
    status = 400


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Iterable[Mapping[str, str]] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Build a problem document."""
    document: dict[str, Any] = {
        "type": f"urn:simyard:error:{code}",
        "title": _title(status),
        "status": status,
        "detail": detail,
        "code": code,
    }
    listed = list(errors)
    if listed:
        document["errors"] = listed
    extensions = {name: value for name, value in (more or {}).items() if name not in _STANDARD}
    return {**extensions, **document}


def problem_of(error: SimyardError) -> dict[str, Any]:
    """Build the document of one of our errors."""
    details = dict(error.details)
    errors = details.pop("errors", ())
    return problem(error.status, error.code, error.message, errors=errors, more=details)


def problem_of_status(status: int, detail: str) -> dict[str, Any]:
    """Build the document of a plain HTTP status."""
    return problem(status, _HTTP_CODES.get(status, "error"), detail)


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def wrong_fields(
    error: ValidationError, model: type[BaseModel] | None = None, *, prefix: str = ""
) -> SimyardError:
    """Turn a validation error into one of ours: a list of fields, each with a plain sentence."""
    known = [field.alias or name for name, field in model.model_fields.items()] if model else []
    listed: list[dict[str, str]] = []
    for item in error.errors(include_url=False, include_context=True, include_input=False):
        if len(listed) == MOST_SHOWN:
            break
        path = [str(part) for part in item["loc"] if not _is_noise(str(part))]
        name = ".".join(path)
        listed.append({"field": prefix + name, "message": _sentence(dict(item), path, known)})
    count = error.error_count()
    shown = "; ".join(_joined(one) for one in listed[:3])
    rest = f"; and {count - 3} more" if count > 3 else ""
    return WrongFields(shown + rest, errors=listed)


def _joined(one: Mapping[str, str]) -> str:
    field, message = one["field"], one["message"]
    return (
        message
        if not field or f"'{field.rpartition('.')[2]}'" in message
        else f"{field}: {message}"
    )


def _is_noise(part: str) -> bool:
    """True for the parts of a location by which pydantic names a branch, not a field."""
    return ("[" in part and "]" in part) or part in ("function-before", "function-after")


def _sentence(item: Mapping[str, Any], path: list[str], known: list[str]) -> str:
    kind, message = item["type"], str(item["msg"])
    name = path[-1] if path else ""
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(name, known, n=1) if len(path) == 1 else []
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"unknown field '{name}'{hint}"
    if kind == "missing":
        return f"'{name}' is missing"
    if kind == "json_invalid":
        return f"the body is not valid JSON: {_after(message, 'Invalid JSON: ')}"
    if kind in ("model_type", "model_attributes_type", "dict_type") and not path:
        return "the body must be a JSON object"
    if kind == "value_error":
        return _after(message, "Value error, ")
    return _after(message, "Input ") if message.startswith("Input ") else _lowered(message)


def _after(message: str, prefix: str) -> str:
    return _lowered(message.removeprefix(prefix))


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:] if message[1:2].islower() else message
