"""What all tests share: no test may touch the home, the settings or the jobs of the person who runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from live_service import LiveService
from postgres_server import PostgresServer, missing


@pytest.fixture(scope="session", autouse=True)
def _own_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the caller's settings, and let children import the checkout as `simyard`."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        if name.startswith("SIMYARD_"):
            patch.delenv(name)
    patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
    patch.setenv("SIMYARD_HOME", str(tmp_path_factory.mktemp("home")))
    patch.setenv("PYTHONPATH", str(ROOT / "typings"))
    patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    yield
    patch.undo()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="where services remember their jobs in tests that do not say it themselves",
    )


@pytest.fixture
def service_at(request: pytest.FixtureRequest) -> Iterator[Callable[..., LiveService]]:
    """Start a service with its home in a folder; all are ended with their jobs afterwards."""
    started: list[LiveService] = []

    def start(folder: Path, **options: Any) -> LiveService:
        if request.config.getoption("--store") == "postgresql" and "store" not in options:
            options["store"] = postgres_url(request)
        service = LiveService(folder / "home", **options)
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.end_everything()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of our own for the whole run, started where a test asks for it."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)]


@pytest.fixture(params=BOTH)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A place for a store that is not there yet: what uses it runs on both databases."""
    if request.param == "sqlite":
        return tmp_path / "store.db"
    return postgres_url(request)


def postgres_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()
