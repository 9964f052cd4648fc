"""A real service as a process, with the means to kill it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_service import LiveService


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
