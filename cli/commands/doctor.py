"""`simyard doctor`: look for what could go wrong on this machine, and say how to mend it.

Looks only; it starts nothing, takes no lock and changes nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import NotRunning, SimyardError
from ...handler import survival, wire
from ...handler.endpoint import find_endpoint, home_path
from .. import output

HOME_ONLY = True

NETWORK = frozenset(
    {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "cifs", "smb3", "smbfs", "afs", "ceph"}
    | {"glusterfs", "panfs", "9p", "orangefs", "pvfs2"}
)
LOW_DISK = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `level` is "ok", "warning" or "problem"."""

    about: str
    level: str
    text: str


def arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there are only the options of all commands."""


def run(options: argparse.Namespace) -> int:
    """Look, and print what was found; 1 where something is a problem."""
    home = Path(home_path(options.home))
    findings = [finding for look in LOOKS for finding in _safely(look, home)]
    failed = any(finding.level == "problem" for finding in findings)
    if options.json:
        output.write(output.to_json({"items": [asdict(finding) for finding in findings]}))
        return int(failed)
    colour = output.wants_colour(sys.stdout)
    styles = {"ok": "green", "warning": "yellow", "problem": "red"}
    for finding in findings:
        if options.quiet and finding.level == "ok":
            continue
        mark = output.paint(f"{finding.level:<8}", styles[finding.level], colour)
        output.write(f"{mark} {finding.about:<10} {output.one_line(finding.text)}\n")
    return int(failed)


def _safely(look: Callable[[Path], list[Finding]], home: Path) -> list[Finding]:
    try:
        return look(home)
    except (OSError, SimyardError) as error:
        return [Finding(about=look.__name__, level="warning", text=f"cannot tell: {error}")]


def python(_: Path) -> list[Finding]:
    """Look at the interpreter and the system."""
    text = f"{platform.python_version()} at {sys.executable}, {platform.system()}"
    if sys.platform == "win32":
        return [Finding(about="python", level="warning", text=f"{text}: untried on this system")]
    return [Finding(about="python", level="ok", text=text)]


def home_folder(home: Path) -> list[Finding]:
    """Look at the home folder: is it ours, private, and can it be written."""
    if not home.exists():
        parent = next(folder for folder in home.parents if folder.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            text = f"{home} does not exist yet; the first service creates it"
            return [Finding(about="home", level="ok", text=text)]
        text = f"{home} cannot be created: no permission in {parent}; choose another with --home"
        return [Finding(about="home", level="problem", text=text)]
    facts = home.stat()
    if not home.is_dir():
        text = f"{home} is a file; choose another with --home"
        return [Finding(about="home", level="problem", text=text)]
    if hasattr(os, "getuid") and facts.st_uid != os.getuid():
        text = f"{home} belongs to another user; choose one of yours with --home"
        return [Finding(about="home", level="problem", text=text)]
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        text = f"{home} cannot be written; run 'chmod u+rwx {home}'"
        return [Finding(about="home", level="problem", text=text)]
    if os.name == "posix" and facts.st_mode & 0o077:
        text = f"{home} is open to others; run 'chmod 700 {home}'"
        return [Finding(about="home", level="warning", text=text)]
    return [Finding(about="home", level="ok", text=f"{home} is yours alone")]


def disk(home: Path) -> list[Finding]:
    """Look at the space and the file system under the home folder."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    level = "ok" if free >= LOW_DISK else "problem"
    more = "" if level == "ok" else "; jobs wait until some is freed"
    found = [Finding(about="disk", level=level, text=f"{output.size(free)} are free{more}")]
    kind = file_system(existing)
    if kind in NETWORK:
        text = (
            f"{existing} lies on a network file system ({kind}), where the store is slow and locks "
            "may fail; choose a local folder with --home or SIMYARD_HOME"
        )
        found.append(Finding(about="disk", level="warning", text=text))
    elif kind == "tmpfs":
        text = f"{existing} lies in memory (tmpfs): jobs are forgotten when the machine restarts"
        found.append(Finding(about="disk", level="warning", text=text))
    return found


def file_system(path: Path, table: str | None = None) -> str:
    """Return the type of the file system that holds `path`, by /proc/self/mounts; "" where unknown."""
    if table is None:
        try:
            table = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    resolved = str(path.resolve())
    best, kind = "", ""
    for line in table.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        point = parts[1].replace("\\040", " ")
        inside = point == "/" or resolved == point or resolved.startswith(f"{point}/")
        if inside and len(point) >= len(best):
            best, kind = point, parts[2]
    return kind


def service(home: Path) -> list[Finding]:
    """Look whether a service runs and answers as it should."""
    try:
        with wire.Connection(find_endpoint(str(home))) as connection:
            connection.request("GET", "/api/resources")
            endpoint = connection.endpoint
    except NotRunning:
        text = "none runs; submit_job starts one, and so does 'simyard serve --detach'"
        return [Finding(about="service", level="ok", text=text)]
    except SimyardError as error:
        return [Finding(about="service", level="problem", text=error.message)]
    text = f"answers at {endpoint.url} (process {endpoint.pid}, version {endpoint.version})"
    return [Finding(about="service", level="ok", text=text)]


def launcher(home: Path) -> list[Finding]:
    """Look whether the launcher, which starts the jobs, holds its lock."""
    lock = home / "run" / "launcher.lock"
    if not lock.exists():
        return [Finding(about="launcher", level="ok", text="none has been needed yet")]
    number = lock.stat().st_ino
    try:
        held = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return [Finding(about="launcher", level="ok", text="cannot be seen on this system")]
    for line in held.splitlines():
        parts = line.split()
        if "FLOCK" in parts and any(part.endswith(f":{number}") for part in parts):
            text = f"is there (process {parts[parts.index('FLOCK') + 3]})"
            return [Finding(about="launcher", level="ok", text=text)]
    return [Finding(about="launcher", level="ok", text="none runs; it starts with the next job")]


def processes(_: Path) -> list[Finding]:
    """Look at the limits that jobs inherit."""
    try:
        import resource
    except ImportError:
        return []
    soft, _hard = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and soft < 256:
        text = f"only {soft} processes are allowed (ulimit -u); large jobs will fail to start"
        return [Finding(about="limits", level="warning", text=text)]
    return []


def logout(_: Path) -> list[Finding]:
    """Look whether the end of a login session would end the jobs."""
    known = survival.logout()
    if known is None:
        return []
    return [Finding(about="logout", level="ok" if known[0] else "warning", text=known[1])]


def container(_: Path) -> list[Finding]:
    """Look whether we are in something whose end is the end of every job."""
    around = survival.enclosure()
    return [] if around is None else [Finding(about="container", level="warning", text=around)]


LOOKS = (python, home_folder, disk, service, launcher, processes, logout, container)
