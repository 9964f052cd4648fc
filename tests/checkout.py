"""The checkout that is under test: where it is, and which of its files git keeps."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("errors", "scheduler_adapters", "service", "handler", "cli")
"""From the lowest to the highest: imports point downwards only."""


def kept_files() -> list[Path]:
    """Return the files that are in git, or would be added: relative paths, no symlinks.

    Outside a git checkout (an unpacked sdist) every file outside ignored folders counts.
    """
    asked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if asked.returncode == 0:
        names = sorted(set(asked.stdout.decode().split("\0")) - {""})
        found = [Path(name) for name in names]
    else:
        ignored = {".venv", "build", "dist", "typings", "__pycache__", ".git"}
        found = [
            path.relative_to(ROOT)
            for path in sorted(ROOT.rglob("*"))
            if not ignored & set(path.relative_to(ROOT).parts)
        ]
    return [path for path in found if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]


def modules() -> Iterator[tuple[str, Path]]:
    """Yield every module of the package, the root as "", with its file.

    For example ("service.home", ROOT / "service/home.py").
    """
    tops = list(ROOT.glob("*.py"))
    inside = [path for layer in LAYERS[1:] for path in (ROOT / layer).rglob("*.py")]
    for path in sorted(tops + inside):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path
