"""How a command ends: exit codes, and one sentence for every error.

No traceback reaches a person: `guarded` turns whatever a command raises into a
sentence on stderr and a code. `SIMYARD_DEBUG=1` shows the traceback too.
"""

from __future__ import annotations

import os
import sys

from ..errors import (
    NotFound,
    NotRunning,
    PermissionDenied,
    ServiceUnavailable,
    SimyardError,
    UsageError,
    WaitTimeout,
)
from . import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OK = 0
REFUSED = 1
"""The request was refused, or the job failed."""
USAGE = 2
NOT_REACHABLE = 3
NOT_FOUND = 4
TIMEOUT = 124
INTERRUPTED = 130
BROKEN_PIPE = 141

SUBMIT_REFUSED = 1
SUBMIT_UNEXPECTED = 2


class Ending(Exception):
    """End the program with `code`, saying `message` on stderr if there is one."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def guarded(program: str, body: Callable[[], int], *, submitting: bool = False) -> int:
    """Run `body` and return its exit code; turn every error into one sentence.

    With `submitting`, the codes are those of ``submit_job``: 1 for what was refused, 2
    for what nobody expected.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            # A terminal that cannot show a character must not end the program.
            reconfigure(errors="replace")
    try:
        return body()
    except Ending as ending:
        if ending.message:
            _complain(program, ending.message)
        return ending.code
    except KeyboardInterrupt:
        output.say("")
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return BROKEN_PIPE
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else OK
    except SimyardError as error:
        _complain(program, sentence(error))
        _trace()
        return code_of(error, submitting=submitting)
    except Exception as error:
        _trace()
        _complain(
            program,
            f"unexpected failure: {type(error).__name__}: {error}\n"
            "  This is a fault in Simyard, not in what you typed; "
            "SIMYARD_DEBUG=1 shows where it happened.",
        )
        return SUBMIT_UNEXPECTED if submitting else REFUSED


def code_of(error: SimyardError, *, submitting: bool = False) -> int:
    """Return the exit code that stands for `error`."""
    if isinstance(error, WaitTimeout):
        return TIMEOUT
    if submitting:
        return SUBMIT_REFUSED
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, NotFound):
        return NOT_FOUND
    if isinstance(error, (ServiceUnavailable, PermissionDenied)):
        return NOT_REACHABLE
    return REFUSED


def sentence(error: SimyardError) -> str:
    """Say what an error says, with the fields that were wrong named as options are."""
    message = error.message
    if isinstance(error, NotRunning) and "simyard serve" not in message:
        message += "; start one with 'simyard serve --detach'"
    details: Any = error.details.get("errors")
    lines = [message]
    for item in details if isinstance(details, list) else ():
        if isinstance(item, dict):
            text = str(item.get("message", ""))
            if text and text not in message:
                field = str(item.get("field") or "")
                lines.append(f"  {field}: {text}" if field else f"  {text}")
    return "\n".join(lines)


def _complain(program: str, message: str) -> None:
    first, *rest = message.split("\n")
    colour = output.wants_colour(sys.stderr)
    output.say(output.paint(f"{program}:", "red", colour) + " " + output.one_line(first))
    for line in rest:
        output.say("  " + output.one_line(line))


def _trace() -> None:
    if os.environ.get("SIMYARD_DEBUG"):
        import traceback

        traceback.print_exc()


def _silence_stdout() -> None:
    # Python flushes stdout once more at exit and would complain about the pipe there.
    try:
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    except (OSError, ValueError):
        pass
