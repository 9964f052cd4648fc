"""The launcher's log: plain lines on standard error, which is ``run/launcher.log``.

Not the `logging` package, whose locks and handlers a process that forks, and that
must go on when the disk is full, is better off without.
"""

from __future__ import annotations

import contextlib
import os
import time


def log(message: str, *args: object) -> None:
    """Write one line; where that is not possible, do without."""
    text = message % args if args else message
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with contextlib.suppress(OSError):
        os.write(2, f"{stamp} [{os.getpid()}] {text}\n".encode("utf-8", "backslashreplace"))
