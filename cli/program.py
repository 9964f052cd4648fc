"""Find the program of a command before it is sent, while a person is there to read the answer.

Standard library only: this module is on the submit path.
"""

from __future__ import annotations

import os

from ..errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def check(argv: Sequence[str], workdir: str, path: str) -> None:
    """Raise `InvalidInput` where the program of `argv` cannot be started.

    A name with a slash is taken from `workdir`, as the launcher does; any other is looked
    up in `path`, the value of a PATH variable.
    """
    name = argv[0]
    if not name:
        raise InvalidInput("the command begins with an empty program name")
    if "/" in name or os.sep in name:
        where = os.path.join(workdir, name)
        if os.path.isdir(where):
            raise InvalidInput(f"{name} is a folder, not a program")
        if not os.path.exists(where):
            raise InvalidInput(f"there is no program {name} in {workdir}")
        if not os.access(where, os.X_OK):
            raise InvalidInput(f"{name} is not executable; {_remedy(name)}")
        return
    if os.name != "posix":
        return
    for folder in path.split(os.pathsep):
        candidate = os.path.join(folder or workdir, name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return
    if " " in name:
        raise InvalidInput(
            f"there is no program {name!r}; write the arguments as words of their own, without "
            "quotes around the whole, or use --script for shell text"
        )
    if os.path.isfile(os.path.join(workdir, name)):
        raise InvalidInput(
            f"there is no program {name!r} on the PATH, but a file of that name in {workdir}; "
            f"write ./{name} if you mean it, or call its interpreter, such as: -- python {name}"
        )
    raise InvalidInput(
        f"there is no program {name!r} on the PATH; correct the name, give its full path, or load "
        "its environment with --setup"
    )


def _remedy(name: str) -> str:
    if name.endswith(".py"):
        return f"call its interpreter: -- python {name}"
    if name.endswith(".sh"):
        return f"call the shell: -- sh {name}, or run 'chmod +x {name}'"
    return f"run 'chmod +x {name}' if it is a program"
