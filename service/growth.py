"""How far files have grown: one look at all that are watched, in a thread, some times a second.

Only while somebody waits. It must not know jobs or HTTP.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

INTERVAL = 0.15


class Growth:
    """Wakes those who wait for files to change their size."""

    def __init__(self, *, interval: float = INTERVAL) -> None:
        self._interval = interval
        self._watched: dict[asyncio.Future[None], dict[Path, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, sizes: dict[Path, int], timeout: float) -> bool:
        """Return True as soon as a file has another size than in `sizes`, False in the end."""
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watched[changed] = sizes
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="growth")
        try:
            await asyncio.wait({changed}, timeout=timeout)
            return changed.done()
        finally:
            self._watched.pop(changed, None)

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(self._interval)
            paths = {path for sizes in self._watched.values() for path in sizes}
            now = await asyncio.to_thread(sizes_of, paths)
            for changed, sizes in list(self._watched.items()):
                if not changed.done() and any(
                    now.get(p, size) != size for p, size in sizes.items()
                ):
                    changed.set_result(None)


def sizes_of(paths: set[Path]) -> dict[Path, int]:
    """Return the sizes of files, 0 for those that are not there. Blocking."""
    return {path: _size(path) for path in paths}


def _size(path: Path) -> int:
    try:
        return os.stat(path, follow_symlinks=False).st_size
    except OSError:
        return 0
