"""The OpenAPI document is valid, and it and the reference name every route and no other."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from aiohttp import web
from checkout import ROOT
from openapi_spec_validator import validate

from simyard.service import openapi, websocket
from simyard.service.rest import (
    control,
    files,
    jobs,
    logs,
    meta,
    pages,
    prune,
    session,
    uploads,
    yard,
)
from simyard.service.routes import Routes
from simyard.service.security import Scope

REFERENCE = ROOT / "docs" / "reference" / "rest.md"


@pytest.fixture(scope="module")
def routes() -> Routes:
    made = Routes(web.Application().router)
    for part in (jobs, control, logs, files, uploads, prune, yard, session, meta, websocket):
        part.register(made)
    pages.register(made)
    return made


@pytest.fixture(scope="module")
def document(routes: Routes) -> dict[str, Any]:
    return openapi.document(routes, version="1.2.3")


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validate(json.loads(json.dumps(document)))


def test_the_document_has_every_route_and_no_other(
    document: dict[str, Any], routes: Routes
) -> None:
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    assert described == {(route.method, route.template) for route in routes if route.documented}
    undocumented = {route.path for route in routes if not route.documented}
    assert not [path for path in undocumented if path.startswith(("/api", "/metrics"))]


def test_every_operation_has_a_name_of_its_own_and_says_its_scope(
    document: dict[str, Any],
) -> None:
    operations = [one for item in document["paths"].values() for one in item.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names)
    for one in operations:
        assert one["summary"] and one["tags"] and one["x-scope"] in {s.value for s in Scope}
        assert (one.get("security") == []) == (one["x-scope"] == "open")


def test_every_reference_in_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found <= set(document["components"]["schemas"])
    for name in ("JobSpec", "JobView", "Problem", "Limits", "JobChanges", "BatchRequest"):
        assert name in document["components"]["schemas"]


def test_the_captured_environment_is_accepted_but_never_promised_back(
    document: dict[str, Any],
) -> None:
    schemas = document["components"]["schemas"]
    assert "base_env" in schemas["JobSpec"]["properties"]
    assert "base_env" not in json.dumps(schemas["JobView"])


def test_the_reference_has_one_row_for_every_route(routes: Routes) -> None:
    rows = re.findall(
        r"^\| `(\w+) ([^`]+)` \| (\w+) \| (.+?) \|$", REFERENCE.read_text("utf-8"), re.M
    )
    expected = [(r.method, r.template, r.scope.value, r.summary) for r in routes if r.documented]
    assert sorted(rows) == sorted(expected)


def test_a_job_may_be_submitted_as_a_job_file_and_the_document_says_so(routes: Routes) -> None:
    made = json.loads(json.dumps(openapi.document(routes, version="0")))
    body = made["paths"]["/api/jobs"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    schema = json.dumps([body, made["components"]["schemas"]])
    assert "JobFileRequest" in json.dumps(body)
    assert "JobSpec" in json.dumps(body)
    assert '"yaml"' in schema
