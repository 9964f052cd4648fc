"""Named points where a test may kill the manager.

`SIMYARD_FAULTPOINT=name:n` ends the process with SIGKILL at the n-th passing of
the point `name`. Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

POINTS = frozenset(
    {
        "submit.before-commit",
        "submit.committed",
        "dispatch.before-claim",
        "dispatch.claimed",
        "dispatch.handed-over",
        "report.received",
        "report.committed",
        "cancel.committed",
        "cancel.sent",
        "delete.committed",
        "shutdown.begun",
    }
)

_name, _, _count = os.environ.get("SIMYARD_FAULTPOINT", "").partition(":")
_left = int(_count or 1) if _name in POINTS else 0


def faultpoint(name: str) -> None:
    """Pass the point `name`; die here where a test asked for it."""
    global _left
    if _left and name == _name:
        _left -= 1
        if not _left:
            os.kill(os.getpid(), signal.SIGKILL)
