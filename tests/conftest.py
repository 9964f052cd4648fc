"""What all tests share: no test may touch the home, the settings or the jobs of the person who runs it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from checkout import ROOT


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
