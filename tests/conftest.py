"""What all tests share: no test may touch the home, the settings or the jobs of the person who runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from live_service import LiveService


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


@pytest.fixture
def service_at() -> Iterator[Callable[..., LiveService]]:
    """Start a service with its home in a folder; all are ended with their jobs afterwards."""
    started: list[LiveService] = []

    def start(folder: Path, **options: Any) -> LiveService:
        service = LiveService(folder / "home", **options)
        started.append(service)
        service.start()
        return service

    yield start
    for service in started:
        service.end_everything()
