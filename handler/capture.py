"""Take along what a job would see if it ran right here: environment, folder, program, limits.

Standard library only: this module is on the shell's submit path. It returns entries
for a spec and knows nothing of what the service does with them.

Never captured, whatever is asked for by ``all``:

- our own variables (``SIMYARD_…``), so that a job does not steer the service;
- variables whose name looks secret: a part between underscores that ends in one of
  `SECRET_WORDS`, or is ``KEY`` or ``KEYS`` (``GITHUB_TOKEN``, ``PGPASSWORD``,
  ``AWS_SECRET_ACCESS_KEY``; not ``XAUTHORITY``, ``SSH_AUTH_SOCK``,
  ``TOKENIZERS_PARALLELISM``); naming one captures it;
- what describes this process and not the job (``_``, ``OLDPWD``, ``PWD``, ``SHLVL``);
- names that are no identifiers (exported shell functions), values that are no UTF-8.
"""

from __future__ import annotations

import os
import re

from ..errors import InvalidInput

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

SECRET_WORDS = (
    "TOKEN",
    "TOKENS",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWORDS",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "CREDENTIALS",
    "APIKEY",
    "COOKIE",
)
SOFT_LIMITS = ("stack", "core", "nofile", "memlock", "as", "data", "fsize", "nproc")
_OF_THIS_PROCESS = frozenset({"_", "OLDPWD", "PWD", "SHLVL"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def captured(
    export: str = "all", *, local: bool = True, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the spec's entries `base_env` and, where the service is on this host, `soft_limits`.

    `export` is ``all``, ``none``, or names separated by commas. With ``none`` nothing of the
    environment is taken, and the job gets the service's minimal one.
    """
    entries: dict[str, Any] = {}
    environment = captured_environment(export, environ)
    if environment is not None:
        entries["base_env"] = environment
    limits = soft_limits() if local else {}
    if limits:
        entries["soft_limits"] = limits
    return entries


def captured_environment(
    export: str, environ: Mapping[str, str] | None = None
) -> dict[str, str] | None:
    """Return the variables that `export` asks for; None where it asks for none at all.

    Raises `InvalidInput` for a name that is no variable's or is not set.
    """
    source = os.environ if environ is None else environ
    word = export.strip()
    if word.lower() == "none":
        return None
    if word.lower() == "all":
        return {
            name: value
            for name, value in source.items()
            if _NAME.match(name) and not _withheld(name) and _is_text(value)
        }
    names = [name.strip() for name in word.split(",") if name.strip()]
    if not names:
        raise InvalidInput("--export is all, none, or names of variables separated by commas")
    chosen = {}
    for name in names:
        if not _NAME.match(name):
            raise InvalidInput(
                f"{name!r} is not the name of a variable; --export takes all, none, or names "
                "separated by commas"
            )
        if name not in source:
            raise InvalidInput(f"--export names {name}, which is not set here; set it or drop it")
        if not _is_text(source[name]):
            raise InvalidInput(f"the value of {name} is no UTF-8 text and cannot be sent")
        chosen[name] = source[name]
    return chosen


def looks_secret(name: str) -> bool:
    """Tell whether a variable of that name is likely to hold a secret."""
    parts = name.upper().split("_")
    return any(part.endswith(SECRET_WORDS) or part in ("KEY", "KEYS") for part in parts)


def _withheld(name: str) -> bool:
    return name.startswith("SIMYARD_") or name in _OF_THIS_PROCESS or looks_secret(name)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that the system could not decode
        return False
    return True


def soft_limits() -> dict[str, int]:
    """Return this process's soft limits by their names in `resource`; -1 is unlimited."""
    if resource is None:
        return {}
    limits = {}
    for name in SOFT_LIMITS:
        number = getattr(resource, f"RLIMIT_{name.upper()}", None)
        if number is not None:
            soft = resource.getrlimit(number)[0]
            limits[name] = -1 if soft == resource.RLIM_INFINITY else soft
    return limits


def find_program(name: str, workdir: str, path: str) -> str:
    """Return the full path of a program as a shell in `workdir` would find it.

    A name with a slash is taken from `workdir`; any other is looked up in `path`, the value
    of a PATH variable. Raises `InvalidInput` that says what was looked for and what to do.
    """
    if not name:
        raise InvalidInput("the command begins with an empty program name")
    if os.sep in name or "/" in name:
        return _named_program(name, workdir)
    folders = [os.path.join(workdir, folder) for folder in path.split(os.pathsep)]
    endings = os.environ.get("PATHEXT", "").split(os.pathsep) if os.name == "nt" else []
    for folder in folders:
        for ending in ("", *endings):
            candidate = os.path.join(folder, name + ending)
            if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                return candidate
    raise InvalidInput(_not_found(name, workdir, path, folders))


def _named_program(name: str, workdir: str) -> str:
    where = os.path.normpath(os.path.join(workdir, os.path.expanduser(name)))
    if os.path.isdir(where):
        raise InvalidInput(f"{name} is a folder, not a program")
    if not os.path.exists(where):
        raise InvalidInput(f"there is no program {name} in {workdir}")
    if not os.access(where, os.X_OK):
        raise InvalidInput(
            f"{name} is not executable; run 'chmod +x {name}' if it is a program, or put its "
            "interpreter before it"
        )
    return where


def _not_found(name: str, workdir: str, path: str, folders: Sequence[str]) -> str:
    if " " in name:
        return f"there is no program {name!r}; write the arguments as items of their own"
    if os.path.isfile(os.path.join(workdir, name)):
        return (
            f"there is no program {name!r} on the PATH, but a file of that name in {workdir}; "
            f"write './{name}' if you mean it"
        )
    close = _similar(name, folders)
    hint = f"did you mean {close!r}? Else " if close else ""
    shown = path if len(path) <= 300 else path[:300] + "…"
    return (
        f"there is no program {name!r} on the PATH ({shown}); {hint}correct the name, give its "
        "full path, or load its environment with 'setup' lines"
    )


def _similar(name: str, folders: Sequence[str]) -> str | None:
    import difflib

    known: set[str] = set()
    for folder in dict.fromkeys(folders):
        try:
            known.update(os.listdir(folder))
        except OSError:
            continue
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return close[0] if close else None


def complete(
    spec: Mapping[str, Any],
    *,
    export: str | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> dict[str, Any]:
    """Return a spec with the caller's folder, program, environment and limits filled in.

    For a service on this host. What the spec says itself stands. A job that stages files
    runs in a folder of its own; one for another scheduler takes no environment along
    unless `export` says so, and its program is not looked for here.
    """
    spec = {name: value for name, value in spec.items() if value is not None}
    here = cwd or os.getcwd()
    away = spec.get("scheduler", "auto") not in ("auto", "local")
    if "workdir" in spec:
        spec["workdir"] = os.path.normpath(
            os.path.join(here, os.path.expanduser(os.fspath(spec["workdir"])))
        )
        if not away and not os.path.isdir(spec["workdir"]):
            raise InvalidInput(f"the working directory {spec['workdir']} is not there; create it")
    elif not spec.get("files"):
        spec["workdir"] = here
    if isinstance(spec.get("files"), (list, tuple)):
        spec["files"] = [_absolute_source(item, here) for item in spec["files"]]
    taken = captured(export or ("none" if away else "all"), environ=environ)
    if "base_env" in spec:
        taken.pop("base_env", None)
    spec = {**taken, **spec}
    command = spec.get("command")
    brought = spec.get("setup") or spec.get("files") or spec.get("depends_on")
    if command and not isinstance(command, str) and not away and not brought:
        known = {"PATH": os.defpath, **os.environ, **(spec.get("base_env") or {})}
        path = {**known, **(spec.get("env") or {})}["PATH"]
        program = os.fspath(command[0])
        spec["command"] = [find_program(program, spec["workdir"], path), *command[1:]]
    return spec


def _absolute_source(item: Any, here: str) -> Any:
    if isinstance(item, (str, os.PathLike)):
        item = {"source": os.fspath(item)}
    if not isinstance(item, dict) or not isinstance(item.get("source"), str):
        return item
    source = os.path.join(here, os.path.expanduser(item["source"]))
    if not os.path.exists(source):
        raise InvalidInput(f"the file {item['source']} to stage in is not there (seen from {here})")
    return {**item, "source": os.path.normpath(source)}
