"""A shell with a home of its own: real programs, a real service, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Give a shell whose home has no service yet."""
    (tmp_path / "work").mkdir()
    one = Shell(tmp_path / "home", tmp_path / "work")
    yield one
    one.end()


@pytest.fixture(scope="module")
def live_shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Give a shell whose home has a service on a free port; all tests of a module share it."""
    place = tmp_path_factory.mktemp("live")
    (place / "work").mkdir()
    one = Shell(place / "home", place / "work")
    ended = one.simyard("serve", "--detach", "--port", "0")
    assert ended.code == 0, ended.err
    yield one
    one.end()


@pytest.fixture(scope="module")
def live_home(live_shell: Shell) -> Path:
    """Give a home with a service on a free port, stopped at the end with all jobs cancelled."""
    return live_shell.home
