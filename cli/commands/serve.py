"""`simyard serve`: run the service, here or detached."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

from ...errors import PermissionDenied
from ...handler.endpoint import Endpoint, home_path
from ...handler.handover import START_SECONDS, answering, service_environment
from ...service.home import Home
from .. import output
from ..exits import REFUSED, Ending
from ..unit import unit

HOME_ONLY = True
IDLE_TIMEOUT = "15m"
"""Of a detached service where nothing is set; the next submission starts another."""
LARGE_LOG = 4 << 20

SETTINGS = {
    "host": ("ADDRESS", "address to listen at (default: 127.0.0.1)"),
    "port": ("N", "port to listen at; 0 is any free one (default: 8080, or a free one)"),
    "allowed-hosts": ("NAMES", "further names by which clients may address the service"),
    "tls-cert": ("FILE", "certificate chain (PEM); with --tls-key the service speaks HTTPS"),
    "tls-key": ("FILE", "private key (PEM) of --tls-cert"),
    "store": ("URL", "postgresql://USER@HOST/DATABASE (default: store.db in the home)"),
    "durability": ("default|full", "full: every change is synced to disk"),
    "default-scheduler": ("NAME", "what jobs with scheduler 'auto' go to (default: local)"),
    "max-concurrent-jobs": ("N", "jobs that may run at a time"),
    "max-cores": ("N", "cores that jobs may occupy together (default: all)"),
    "max-memory": ("SIZE", "memory that jobs may ask for together"),
    "min-free-disk": ("SIZE", "free disk below which no job starts (default: 1 GiB)"),
    "max-cpu-percent": ("N", "load of the host above which no job starts"),
    "gpus": ("N|auto", "GPUs that jobs may occupy together; auto: those that the host has"),
    "licenses": ("NAME=N,…", "licence counters, such as hfss=2,crystal=1"),
    "queues": (
        "NAME:LIMIT=N,…;…",
        "queues of this machine, such as short:max_cores=4,max_concurrent_jobs=2",
    ),
    "reserve-after": ("TIME", "how long the first waiting job is overtaken at most"),
    "overtake-limit": ("N", "how many jobs may overtake the first waiting one"),
    "grace": ("TIME", "from the polite signal to the kill (default: 10 s)"),
    "idle-timeout": (
        "TIME",
        "end by itself after so long without work and clients (detached: 15m), or none",
    ),
    "max-upload": ("SIZE", "largest file that a client elsewhere may send; 0 refuses them all"),
    "keep-uploads": ("TIME", "how long such a file is kept after no job needed it"),
    "keep-events": ("N", "how many events are kept for clients that reconnect"),
    "log-level": ("LEVEL", "debug, info, warning or error"),
    "log-format": ("text|json", "lines, or one JSON object each"),
    "log-max-bytes": ("SIZE", "size at which run/service.log is put aside; 0: never"),
}
"""Settings that are flags here: a value and one line of help each; the service reads them."""

SWITCHES = {"allow-remote": "listen beyond loopback without TLS: the token travels in clear text"}


IN_ENVIRONMENT = ("store",)
"""May hold a password: not handed on where every user of the machine can read it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--detach", "-d", action="store_true", help="in the background; prints the address"
    )
    parser.add_argument(
        "--print-unit",
        action="store_true",
        help="print a systemd user unit that runs it with these settings, and start nothing",
    )
    group = parser.add_argument_group(
        "settings", "each is also a variable SIMYARD_NAME, and a line of HOME/settings.toml"
    )
    for name, (metavar, text) in SETTINGS.items():
        group.add_argument(f"--{name}", metavar=metavar, help=text)
    for name, text in SWITCHES.items():
        group.add_argument(f"--{name}", action="store_true", default=None, help=text)


def run(options: argparse.Namespace) -> int:
    """Run the service until it is told to stop, or start it and return."""
    home = home_path(options.home)
    flags = flags_of(options)
    if options.print_unit:
        output.write(unit(_command(home, flags, idle_timeout=None), home))
        return 0
    if options.detach:
        return _detach(home, flags, options)
    from ...service.server import serve

    return serve(Path(home), flags)


def flags_of(options: argparse.Namespace) -> dict[str, object]:
    """Return the settings that were given."""
    names = [name.replace("-", "_") for name in (*SETTINGS, *SWITCHES)]
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def _detach(home: str, flags: dict[str, object], options: argparse.Namespace) -> int:
    # Not handover.start_detached: that runs this very command, under the lock of starters.
    running = answering(home)
    if running is not None:
        return _already(running, home, flags, options)
    place = Home(Path(home))
    place.prepare()
    log = _open_log(place.service_log)
    begin = log.tell()
    with log:
        child = subprocess.Popen(
            _command(home, flags, idle_timeout=_idle_timeout(flags, place.settings)),
            # Not the caller's folder: `-m` would import what lies there.
            cwd=home,
            env=_environment(flags),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while (found := answering(home)) is None:
        code = child.poll()
        if code is not None:
            raise Ending(code if code > 0 else REFUSED, why(place.service_log, begin))
        if time.monotonic() > deadline:
            child.terminate()
            child.wait()
            raise Ending(
                REFUSED,
                f"the service did not answer within {START_SECONDS:.0f} s: "
                + why(place.service_log, begin),
            )
        time.sleep(0.02)
    child.returncode = 0  # It outlives us: nothing is wanted of it any more.
    if found.pid != child.pid:
        return _already(found, home, flags, options)
    return _print(found, home, options)


def _command(home: str, flags: dict[str, object], *, idle_timeout: str | None) -> list[str]:
    words = [sys.executable, "-m", "simyard", "serve", "--home", home]
    for name, value in flags.items():
        if name in IN_ENVIRONMENT:
            continue
        option = f"--{name.replace('_', '-')}"
        words += [option] if value is True else [f"{option}={value}"]
    if idle_timeout is not None:
        words.append(f"--idle-timeout={idle_timeout}")
    return words


def _idle_timeout(flags: dict[str, object], settings: Path) -> str | None:
    """Return what a detached service lives on without work, where nobody has said it."""
    named = "idle_timeout" in flags or os.environ.get("SIMYARD_IDLE_TIMEOUT", "").strip()
    return None if named or _is_set("idle_timeout", settings) else IDLE_TIMEOUT


def _environment(flags: dict[str, object]) -> dict[str, str]:
    given = {f"SIMYARD_{n.upper()}": str(flags[n]) for n in IN_ENVIRONMENT if n in flags}
    return {**service_environment(), **given}


def _is_set(name: str, settings: Path) -> bool:
    if not settings.exists():
        return False
    from ...service.settings import read_file

    return name in read_file(settings)


def _already(
    running: Endpoint, home: str, flags: dict[str, object], options: argparse.Namespace
) -> int:
    if flags and not _fits(running, flags):
        raise Ending(
            REFUSED,
            f"a service runs already at {running.url} (process {running.pid}) and keeps its "
            "settings. 'simyard stop' ends it, and jobs that run go on",
        )
    output.say(f"a service runs already (process {running.pid})")
    return _print(running, home, options)


def _fits(running: Endpoint, flags: dict[str, object]) -> bool:
    """True where no more was asked for than the address that it has."""
    _, host, port = running.address()
    asked = {"host": flags.get("host", host), "port": str(flags.get("port", port))}
    return set(flags) <= {"host", "port"} and asked == {"host": host, "port": str(port)}


def _open_log(path: Path) -> BinaryIO:
    """Open the log for appending; one that has grown large is put aside first."""
    try:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > LARGE_LOG:
                path.replace(path.with_name(path.name + ".1"))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        file = open(os.open(path, flags, 0o600), "ab")  # noqa: SIM115
        file.seek(0, os.SEEK_END)
        return file
    except OSError as error:
        raise PermissionDenied(f"cannot write {path}: {error.strerror or error}") from error


def why(log: Path, begin: int) -> str:
    """Return why a service ended, by what it has written to its log since `begin`."""
    with open(log, "rb") as file:
        file.seek(max(begin, file.seek(0, os.SEEK_END) - 8192))
        text = file.read().decode("utf-8", "replace")
    lines = [line for line in map(output.one_line, text.splitlines()) if line]
    said = [line for line in lines if line.startswith("simyard serve: ")]
    if said:
        return said[-1].removeprefix("simyard serve: ")
    last = " ".join(lines[-3:])
    return f"it ended and said: {last}" if last else f"it ended and said nothing; see {log}"


def _print(endpoint: Endpoint, home: str, options: argparse.Namespace) -> int:
    if options.json:
        output.write(output.to_json({"url": endpoint.url, "pid": endpoint.pid, "home": home}))
    else:
        output.write(f"{endpoint.url}\n")
    return 0
