"""`simyard download`: copy the files of a job to here."""

from __future__ import annotations

import argparse
import os
import sys
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import Conflict, InvalidInput, NotFound, ServiceUnavailable
from .. import output
from ..arguments import job_id
from ..link import connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...handler.wire import Connection


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("id", type=job_id, metavar="ID")
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="files, folders or patterns (default: logs and results)",
    )
    parser.add_argument(
        "--to", metavar="DIR", help="folder to copy to (default: job-ID in the current one)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")


def run(options: argparse.Namespace) -> int:
    """Copy files."""
    target = Path(options.to or f"job-{options.id}").expanduser()
    with connect(options) as connection:
        answer = connection.request("GET", f"/api/jobs/{options.id}/files")
        if options.names:
            items = chosen(answer["items"], options.names, options.id, answer.get("truncated"))
        else:
            items = own(connection, answer["items"], options.id)
        places = [(item, place(target, item["path"])) for item in items]
        taken = [path for _, path in places if path.exists()]
        if taken and not options.force:
            raise Conflict(
                f"{taken[0]} is there already; --force replaces it, --to DIR takes another folder"
            )
        bar = _Bar(sum(item["size"] or 0 for item in items), quiet=options.quiet)
        try:
            for item, path in places:
                _fetch(connection, options.id, item, path, bar)
        finally:
            bar.clear()
    if options.json:
        output.write(output.to_json({"items": [str(path) for _, path in places]}))
    elif options.quiet:
        output.write("".join(f"{output.one_line(path)}\n" for _, path in places))
    else:
        total = output.size(sum(item["size"] or 0 for item in items))
        output.write(f"{len(places)} files, {total}, in {output.one_line(target)}\n")
    if answer.get("truncated") and options.names:
        output.say("there are more files than the service lists; name those that are missing")
    return 0


def own(connection: Connection, items: list[dict[str, Any]], job: str) -> list[dict[str, Any]]:
    """Return what is the job's own: its folder, and of a caller's working directory its outputs.

    Such a directory may be anything, a whole home even; what else is wanted must be named.
    """
    files = [item for item in items if item.get("kind", "file") == "file"]
    if (connection.request("GET", f"/api/jobs/{job}").get("spec") or {}).get("workdir"):
        known = {item["path"]: item for item in files}
        files = [item for item in files if not item["path"].startswith("work/")]
        for name in connection.request("GET", f"/api/jobs/{job}/result")["outputs"]:
            files.append(known.get(f"work/{name}", {"path": f"work/{name}", "size": None}))
    if not files:
        raise NotFound(f"job {job} has no files to copy yet")
    return files


def chosen(
    items: list[dict[str, Any]], names: list[str], job: str, truncated: bool | None = False
) -> list[dict[str, Any]]:
    """Return the files that `names` mean: paths, folders or patterns."""
    files = [item for item in items if item.get("kind", "file") == "file"]
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        word = name.rstrip("/")
        matching = [
            item
            for item in files
            if item["path"] == word
            or item["path"].startswith(f"{word}/")
            or fnmatchcase(item["path"], word)
            or fnmatchcase(PurePosixPath(item["path"]).name, word)
        ]
        if not matching and truncated:
            matching = [{"path": word, "size": None}]
        if not matching:
            raise NotFound(f"job {job} has no file {name!r}; 'simyard files {job}' lists them")
        found.update((item["path"], item) for item in matching)
    return list(found.values())


def place(target: Path, name: str) -> Path:
    """Return where a file goes; refuses a name that would lead out of `target`."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or not parts.parts:
        raise InvalidInput(f"the service names a file {name!r}, which leads out of {target}")
    path = target.joinpath(*parts.parts)
    for folder in path.parents:
        if folder == target:
            break
        if folder.is_symlink():
            raise InvalidInput(f"{folder} is a symbolic link; nothing is written through it")
    return path


def _fetch(connection: Connection, job: str, item: dict[str, Any], path: Path, bar: _Bar) -> None:
    from ...handler.wire import quoted

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        response = connection.open("GET", f"/api/jobs/{job}/files/{quoted(item['path'])}")
        try:
            with open(partial, "xb") as file:
                while piece := _next(response, item["path"]):
                    file.write(piece)
                    bar.advance(len(piece), item["path"])
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(f"cannot write {path}: {error.strerror or error}") from error


def _next(response: Any, name: str) -> bytes:
    try:
        piece: bytes = response.read(1 << 18)
    except OSError as error:
        raise ServiceUnavailable(
            f"the service went away while it sent {name} ({error}); try again"
        ) from error
    return piece


class _Bar:
    """A progress bar on a terminal."""

    WIDTH = 24

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total = total
        self._done = 0
        self._drawn = -1
        self._live = output.is_terminal(sys.stderr) and not quiet

    def advance(self, amount: int, name: str) -> None:
        self._done += amount
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        step = int(share * 200)
        if not self._live or step == self._drawn:
            return
        self._drawn = step
        full = int(share * self.WIDTH)
        line = (
            f"[{'#' * full}{'.' * (self.WIDTH - full)}] {share:4.0%} {output.size(self._done)}"
            f"  {output.one_line(name)}"
        )
        sys.stderr.write("\r\x1b[2K" + output.clip(line, output.terminal_columns() - 1))
        sys.stderr.flush()

    def clear(self) -> None:
        if self._drawn >= 0:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
