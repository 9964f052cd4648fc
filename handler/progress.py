"""Show how far a transfer is: a bar on a terminal or in a notebook, nothing elsewhere.

Knows how to draw; nothing of what is transferred. Drawing goes to stderr.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from typing_extensions import Self

from .loop_thread import in_notebook


def wanted(progress: bool | None) -> bool:
    """Tell whether a bar shall be drawn: as asked for, and only where a person can see it."""
    if progress is False:
        return False
    try:
        return in_notebook() or sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


class TransferBar:
    """A bar for one transfer of a known number of bytes.

        with TransferBar("download", total) as bar:
            bar.advance(65536)

    The bar never stands in the way: where `rich` cannot draw, nothing is drawn.
    """

    def __init__(self, title: str, total: int, *, progress: bool | None = True) -> None:
        self._title = title
        self._total = total
        self._drawn = wanted(progress)
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self._drawn:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=False,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=self._total or None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Say that so many bytes more are there."""
        if self._bar is not None:
            self._bar.advance(self._task, count)
