"""Places where a test may have the launcher die, as if it was killed right there.

``SIMYARD_FAULTPOINT=launcher.NAME:N`` kills it when it passes the point for the
N-th time (the first, where no number is given).
"""

from __future__ import annotations

import os
import signal

_wanted, _, _count = os.environ.get("SIMYARD_FAULTPOINT", "").partition(":")
_passings = int(_count or 1) if _wanted.startswith("launcher.") else 0


def faultpoint(name: str) -> None:
    """Pass the point `name`; die here where a test asked for it."""
    global _passings
    if _passings and name == _wanted:
        _passings -= 1
        if not _passings:
            os.kill(os.getpid(), signal.SIGKILL)
