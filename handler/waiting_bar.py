"""Show how far many jobs are: one line on a terminal, a bar in a notebook, nothing elsewhere.

Knows how to draw; nothing of services. A notebook's bar is made where the cell runs and
changed from whatever thread has news: what it shows is addressed by its own id. Drawing
goes to stderr, and a failure to draw never ends the wait.
"""

from __future__ import annotations

import contextlib
import html
import os
import sys
import time
from importlib import import_module
from typing import Any

from typing_extensions import Self

from .loop_thread import in_notebook
from .progress import wanted

REDRAW_SECONDS = 0.1
WIDTH = 24
"""Cells of the bar on a terminal."""


class WaitingBar:
    """How many jobs are over, out of how many; more may come while one waits."""

    def __init__(self, *, progress: bool = True) -> None:
        self._drawn = wanted(progress)
        self._notebook = self._drawn and in_notebook()
        self._display: Any = None
        self._began = time.monotonic()
        self._last = 0.0
        self._over = 0
        self._failed = 0
        self._total = 0
        self._running = 0
        self._users = 0

    def __enter__(self) -> Self:
        self._users += 1
        if self._users == 1:
            self._began = time.monotonic()
            if self._notebook:
                self._display = _displayed(self.as_html())
        return self

    def __exit__(self, *_: object) -> None:
        # Whoever was lent a bar draws into it, and leaves it to its owner to end it.
        self._users -= 1
        if not self._users:
            self.draw(last=True)

    @property
    def is_drawn(self) -> bool:
        """Whether anybody sees it."""
        return self._drawn

    def ended(self, state: str) -> None:
        """Say that one more job is over."""
        self._over += 1
        self._failed += state == "failed"
        self._total = max(self._total, self._over)
        self.draw()

    def left(self, active: int, *, running: int = 0) -> None:
        """Say how many jobs are not over, and how many of them run."""
        # Never less than before: news of an end comes a moment after it is counted.
        self._total = max(self._total, self._over + active)
        self._running = running
        if not active:
            self._over = self._total
        self.draw()

    def draw(self, *, last: bool = False) -> None:
        """Draw what is known, unless that was done a moment ago."""
        now = time.monotonic()
        if not self._drawn or (not last and now - self._last < REDRAW_SECONDS):
            return
        self._last = now
        with contextlib.suppress(Exception):
            if self._display is not None:
                self._display.update(_html(self.as_html()))
            elif not self._notebook:
                sys.stderr.write(f"\r\x1b[2K{self.as_line(_columns())}" + ("\n" if last else ""))
                sys.stderr.flush()

    def as_text(self) -> str:
        """Say how far it is."""
        parts = [f"{self._over} of {self._total} over"]
        if self._running:
            parts.append(f"{self._running} running")
        if self._failed:
            parts.append(f"{self._failed} failed")
        whole = int(time.monotonic() - self._began)
        parts.append(f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}")
        return " · ".join(parts)

    def as_line(self, columns: int) -> str:
        """Return it as one line of a terminal, no longer than that is wide."""
        filled = WIDTH * self._over // self._total if self._total else 0
        return f"[{'#' * filled}{'.' * (WIDTH - filled)}] {self.as_text()}"[: max(columns - 1, 1)]

    def as_html(self) -> str:
        """Return it as a notebook shows it."""
        text = html.escape(self.as_text())
        return f"<progress value='{self._over}' max='{max(self._total, 1)}'></progress> {text}"


def waiting_bar(progress: bool | WaitingBar) -> WaitingBar:
    """Return a bar to wait with: the one that is given, or a new one, drawn if that is wanted."""
    return progress if isinstance(progress, WaitingBar) else WaitingBar(progress=progress)


def _displayed(text: str) -> Any:
    with contextlib.suppress(Exception):
        return import_module("IPython.display").display(_html(text), display_id=True)
    return None


def _html(text: str) -> Any:
    return import_module("IPython.display").HTML(text)


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80
