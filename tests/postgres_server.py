"""A PostgreSQL server of our own: made in a fresh folder, reached by a socket in it, removed.

Debian's package keeps the programs out of PATH, and `initdb` refuses root: then the
server runs as the package's user.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

USER = "postgres"
SETTINGS = (
    "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c max_connections=60 "
    "-c shared_buffers=32MB"
)


def programs() -> Path | None:
    """Return the folder of the server's programs, None where there are none."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return folders[-1].parent if folders else None


def missing() -> str:
    """Say why there can be no server here; empty where there can."""
    if programs() is None:
        return "no PostgreSQL server is installed (Debian's package: postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed (pip install 'simyard[postgres]')"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "initdb refuses root, and there is no runuser"
    return ""


class PostgresServer:
    """One server with as many empty databases as are asked for."""

    def __init__(self) -> None:
        found = programs()
        assert found is not None
        self._programs = found
        self._as: list[str] = []
        # Not below pytest's own folder, which the server's user may not enter.
        self.folder = Path(tempfile.mkdtemp(prefix="simyard-pg-"))
        self._count = 0
        if os.getuid() == 0:
            self._as = ["runuser", "-u", USER, "--"]
            shutil.chown(self.folder, USER)
        self._data = self.folder / "data"

    def start(self) -> None:
        """Start the server; the first time its folder is made."""
        if not self._data.exists():
            self._run("initdb", "-A", "trust", "-U", USER, "--no-sync", "-E", "UTF8", "--locale=C")
        self._run("pg_ctl", "-w", "-l", f"{self.folder}/log", "-o", self._options(), "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; ``immediate`` is how it looks when it crashes."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def _options(self) -> str:
        return f"{SETTINGS} -k {self.folder}"

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [*self._as, str(self._programs / program), "-D", str(self._data), *words],
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=60,
        )

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        self._count += 1
        name = f"store{self._count}"
        self.ask(f"CREATE DATABASE {name}", self.url(USER))
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={quote(str(self.folder), safe='')}"

    def ask(self, statement: str, url: str) -> list[tuple[object, ...]]:
        """Run one statement as somebody else would."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def remove(self) -> None:
        """End the server and leave nothing."""
        try:
            if (self._data / "postmaster.pid").exists():
                self.stop("immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
