"""The bar of a wait: one line on a terminal, one display in a notebook, nothing in a pipe."""

from __future__ import annotations

import io
import sys
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from simyard.handler import waiting_bar as module
from simyard.handler.waiting_bar import WaitingBar, waiting_bar


class Screen(io.StringIO):
    """A terminal that keeps what was written."""

    def isatty(self) -> bool:
        return True


def screen_of(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Make stderr a terminal; pytest would take it away again if a fixture did it."""
    made = Screen()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setattr(module, "REDRAW_SECONDS", 0.0)
    return made


def lines(screen: Screen) -> list[str]:
    return [part.removeprefix("\x1b[2K") for part in screen.getvalue().split("\r") if part]


def test_on_a_terminal_one_line_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    with WaitingBar() as bar:
        bar.left(4, running=2)
        bar.ended("completed")
        bar.ended("failed")
    assert "0 of 4 over · 2 running" in lines(screen)[0]
    assert lines(screen)[-1].startswith("[############............] 2 of 4 over")
    assert "1 failed" in lines(screen)[-1]
    assert screen.getvalue().count("\n") == 1 and screen.getvalue().endswith("\n")


def test_the_line_is_no_longer_than_the_terminal_is_wide() -> None:
    bar = WaitingBar(progress=False)
    bar.left(123_456, running=99)
    assert len(bar.as_line(40)) == 39


def test_more_jobs_may_come_while_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    with WaitingBar() as bar:
        bar.left(1)
        bar.ended("completed")
        bar.left(3)
    assert "1 of 4 over" in lines(screen)[-1]


def test_in_a_pipe_and_where_nobody_asked_nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    with WaitingBar(progress=False) as bar:
        bar.ended("completed")
    assert screen.getvalue() == ""
    monkeypatch.setattr(sys, "stderr", pipe := io.StringIO())
    with WaitingBar() as bar:
        bar.left(2)
    assert pipe.getvalue() == ""
    assert not bar.is_drawn


def test_a_lent_bar_is_ended_by_its_owner_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    with waiting_bar(True) as bar:
        with waiting_bar(bar) as lent:
            lent.left(1)
        assert "\n" not in screen.getvalue()
    assert screen.getvalue().count("\n") == 1


def test_a_flood_of_news_is_drawn_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    monkeypatch.setattr(module, "REDRAW_SECONDS", 3600.0)
    with WaitingBar() as bar:
        bar._last = time.monotonic()
        for _ in range(1000):
            bar.ended("completed")
    assert len(lines(screen)) == 1
    assert "1000 of 1000 over" in lines(screen)[0]


class Notebook:
    """What IPython offers in a kernel: displays that are changed by their id."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.displays = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
        monkeypatch.setattr(
            ipython, "get_ipython", lambda: SimpleNamespace(kernel=1), raising=False
        )
        monkeypatch.setattr(display, "HTML", str, raising=False)
        monkeypatch.setattr(display, "display", self._display, raising=False)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def _display(self, text: str, *, display_id: bool) -> Any:
        assert display_id
        self.displays += 1
        self.shown.append(text)
        return SimpleNamespace(update=self.shown.append)


def test_in_a_notebook_one_display_is_changed_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notebook = Notebook()
    notebook.install(monkeypatch)
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with WaitingBar() as bar:
        bar.left(2)
        bar.ended("completed")
    assert notebook.displays == 1
    assert "<progress value='1' max='2'></progress> 1 of 2 over" in notebook.shown[-1]
    assert written.getvalue() == ""


def test_a_display_that_fails_does_not_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook()
    notebook.install(monkeypatch)

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("no front end")

    monkeypatch.setattr(sys.modules["IPython.display"], "display", broken)
    with WaitingBar() as bar:
        bar.ended("completed")
