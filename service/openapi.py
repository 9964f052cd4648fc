"""The OpenAPI 3.1 document, made from the routes and the models they name.

Pure: routes in, document out. It must not know a running application.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from typing_extensions import NotRequired, TypedDict

from .routes import Operation, Routes
from .security import Scope

_REFERENCE = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)(?::[^}]*)?\}")
_ALWAYS = (400, 401, 403)
_MEANINGS = {
    101: "The WebSocket is open; each message is one event.",
    200: "Done.",
    201: "Made.",
    204: "Done; there is nothing to say.",
    400: "The request cannot be understood.",
    401: "A valid token is needed.",
    403: "This token, host or origin may not do that.",
    404: "There is nothing of that name.",
    409: "Not possible in the present state.",
    410: "The events asked for are not kept any longer; load again.",
    413: "The body is over the bound.",
    415: "Send the type that is asked for, JSON in most places.",
    416: "The range is beyond the file.",
    422: "Understood, but never satisfiable here.",
    503: "Not now; 'Retry-After' says when.",
    507: "The disk is full.",
}


class WrongField(TypedDict):
    """One field that is wrong, and how."""

    field: str
    message: str


class Problem(TypedDict):
    """What went wrong (RFC 9457); `code` never changes, `detail` is for a person."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: NotRequired[list[WrongField]]


def document(routes: Routes, *, version: str) -> dict[str, Any]:
    """Describe all documented operations."""
    operations = [operation for operation in routes if operation.documented]
    schemas, references = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        described = _operation(operation, references)
        paths.setdefault(operation.template, {})[operation.method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Simyard",
            "version": version,
            "description": "Submit simulations, follow them, control them. Times are RFC 3339 in "
            "UTC, sizes are bytes, durations seconds; on input both are also accepted as people "
            "write them. Errors are application/problem+json with a stable 'code'.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name} for name in dict.fromkeys(o.tag for o in operations)],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas(operations: Iterable[Operation]) -> tuple[dict[str, Any], dict[int, Any]]:
    """Return the named schemas, and for each type of an operation what refers to it."""
    kinds: dict[int, Any] = {id(Problem): Problem}
    modes: dict[int, str] = {id(Problem): "serialization"}
    for operation in operations:
        for kind, mode in (
            (operation.body, "validation"),
            (operation.answer, "serialization"),
            (operation.upgrades, "serialization"),
        ):
            if kind is not None:
                kinds[id(kind)] = kind
                modes.setdefault(id(kind), mode)
    schemas: dict[str, Any] = {}
    references: dict[int, Any] = {}
    models = [
        (kind, modes[key])
        for key, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    named, definitions = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
    schemas.update(definitions.get("$defs", {}))
    references.update({id(kind): schema for (kind, _), schema in named.items()})
    for key, kind in kinds.items():
        if key not in references:
            schema = TypeAdapter(kind).json_schema(
                ref_template=_REFERENCE,
                mode=modes[key],  # type: ignore[arg-type]
            )
            schemas.update(schema.pop("$defs", {}))
            references[key] = _named(schema, schemas)
    return dict(sorted(schemas.items())), references


def _named(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Move a schema that has a title to the named ones, and return the reference to it."""
    title = schema.get("title")
    if not title or "$ref" in schema:
        return schema
    schemas[title] = schema
    return {"$ref": _REFERENCE.format(model=title)}


def _operation(operation: Operation, references: Mapping[int, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": _identifier(operation),
        "summary": operation.summary,
        "tags": [operation.tag],
        "x-scope": operation.scope.value,
        "responses": _responses(operation, references),
    }
    parameters = _parameters(operation)
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {
            "required": bool(getattr(operation.body, "model_fields", True)),
            "content": {"application/json": {"schema": references[id(operation.body)]}},
        }
    elif operation.accepts != "application/json":
        described["requestBody"] = {"required": True, "content": {operation.accepts: {}}}
    if operation.scope is Scope.OPEN:
        described["security"] = []
    return described


def _identifier(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", _PARAMETER.sub(r"by_\1", operation.path.lower()))
    return "_".join([operation.method.lower(), *(word for word in words if word != "api")])


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    if operation.query is not None:
        schema = operation.query.model_json_schema(ref_template=_REFERENCE)
        required = set(schema.get("required", ()))
        for name, facts in schema["properties"].items():
            parameter = {"name": name, "in": "query", "schema": facts}
            if name in required:
                parameter["required"] = True
            if "description" in facts:
                parameter["description"] = facts.pop("description")
            found.append(parameter)
    for name, meaning in operation.headers.items():
        if name.lower() != "accept":  # OpenAPI ignores it as a parameter
            found.append(
                {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}
            )
    return found


def _responses(operation: Operation, references: Mapping[int, Any]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": _MEANINGS[operation.status]}
    if operation.status != 204:
        success["content"] = {
            kind: {"schema": _shape(operation, kind, references)} for kind in operation.produces
        }
    responses = {str(operation.status): success}
    for status, meaning in operation.also.items():
        responses[str(status)] = {**success, "description": meaning}
    if operation.upgrades is not None:
        message = {"application/json": {"schema": references[id(operation.upgrades)]}}
        responses["101"] = {"description": _MEANINGS[101], "content": message}
    for status in sorted({*_ALWAYS, *operation.errors, *_of_changes(operation)}):
        responses[str(status)] = {
            "description": _MEANINGS[status],
            "content": {"application/problem+json": {"schema": references[id(Problem)]}},
        }
    return responses


def _of_changes(operation: Operation) -> tuple[int, ...]:
    changes = operation.method in ("POST", "PUT", "PATCH", "DELETE")
    return (413, 415, 503, 507) if changes else ()


def _shape(operation: Operation, kind: str, references: Mapping[int, Any]) -> Any:
    if kind != "application/json" or operation.answer is None:
        return {"type": "string"}
    return references[id(operation.answer)]
