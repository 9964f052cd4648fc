"""Requests read and answers written, alike for all handlers: bodies, queries, headers.

It must not know what the routes do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from ...errors import InvalidInput
from ..intake import parse_id
from ..problems import wrong_fields
from ..views import encode

M = TypeVar("M", bound=BaseModel)

BODY_SECONDS = 60.0
MOST_FIELDS = 1000
"""Fields of one object; beyond that nothing is validated, it can only be wrong."""
_LITERALS = (b"NaN", b"Infinity")
_OVERFLOWS = re.compile(rb"[eE]\+?[0-9]{3}")
_KEY = re.compile(r"[\x21-\x7e]{1,200}\Z")


class Nothing(BaseModel):
    """An empty object; the body may be left out."""

    model_config = ConfigDict(extra="forbid")


async def body_of(request: web.Request) -> bytes:
    """Read the body, within its bound and within a minute."""
    try:
        return await asyncio.wait_for(request.read(), BODY_SECONDS)
    except asyncio.TimeoutError as error:
        raise web.HTTPRequestTimeout(reason="the request's body did not arrive in time") from error


def parse_json(body: bytes) -> Any:
    """Parse JSON; refuses NaN, infinities, and what is nested absurdly deep."""
    if not body.strip():
        raise InvalidInput("the request has no body; send a JSON object")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput(f"the body is not valid JSON: {error}") from error


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object with a bounded number of fields."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise InvalidInput("the body must be a JSON object")
    check_width(document, "the request")
    return document


def check_width(document: Mapping[str, Any], what: str) -> None:
    """Refuse an object with absurdly many fields before anything is said of each."""
    if len(document) > MOST_FIELDS:
        raise InvalidInput(f"{what} has {len(document)} fields; at most {MOST_FIELDS} make sense")


def validated(model: type[M], body: bytes) -> M:
    """Validate a JSON body; raises `InvalidInput`'s kin with the list of wrong fields."""
    suspicious = (
        len(body) > 1 << 16
        or not body.strip()
        or any(word in body for word in _LITERALS)
        or _OVERFLOWS.search(body) is not None
    )
    try:
        if suspicious:
            return model.model_validate(_finite(parse_object(body)))
        return model.model_validate_json(body)
    except ValidationError as error:
        raise wrong_fields(error, model) from error


def _finite(document: dict[str, Any]) -> dict[str, Any]:
    for value in _numbers(document):
        if value in (float("inf"), float("-inf")):
            raise InvalidInput("a number in the body is too large")
    return document


def _numbers(value: Any) -> Iterator[float]:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, float):
            yield item
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


async def read(request: web.Request, model: type[M]) -> M:
    """Read and validate the body; one that may be empty is read as an empty object."""
    body = await body_of(request)
    if not body.strip() and not any(f.is_required() for f in model.model_fields.values()):
        return model()
    return validated(model, body)


def query_of(request: web.Request, model: type[M]) -> M:
    """Validate the query; a parameter that is given twice counts as one with a comma."""
    given: dict[str, str] = {}
    for name, value in request.query.items():
        given[name] = f"{given[name]},{value}" if name in given else value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise wrong_fields(error, model) from error


def job_id_of(request: web.Request) -> int:
    """Return the id in the path; raises `NotFound` for what cannot be one."""
    return parse_id(request.match_info["id"])


def idempotency_key_of(request: web.Request) -> str | None:
    """Return the key by which a repeated submission is recognised, if one was sent."""
    given = request.headers.getall("Idempotency-Key", [])
    if not given:
        return None
    if len(given) > 1 or not _KEY.match(given[0]):
        raise InvalidInput("'Idempotency-Key' must be 1 to 200 visible ASCII characters")
    return given[0]


def answer(document: object, *, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=encode(document), status=status, content_type="application/json")
