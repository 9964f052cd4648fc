"""Stores of earlier and of later releases."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from store_samples import make_job, open_store, submission

from simyard.errors import StoreUnreadable
from simyard.service.store import migrations, schema, sqlite
from simyard.service.store.batch import Batch
from simyard.service.store.sqlite import Sqlite

LATER = """
    import sqlalchemy as sa
    from alembic import op

    revision = "{revision}"
    down_revision = "{before}"

    def upgrade() -> None:
        with op.batch_alter_table("jobs") as jobs:
            jobs.add_column(sa.Column("{column}", sa.Text))
        op.execute("UPDATE jobs SET {column} = 'from ' || name")
        {more}
"""


def revision_in(folder: Path, revision: str, before: str, more: str = "") -> None:
    folder.mkdir(exist_ok=True)
    text = LATER.format(revision=revision, before=before, column=f"c{revision}", more=more)
    (folder / f"{revision}_later.py").write_text(textwrap.dedent(text))


def ask(path: Path, statement: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def shape(path: Path) -> dict[str, tuple[object, ...]]:
    """Every table's columns and every index, without the accidents of how they are written."""
    found: dict[str, tuple[object, ...]] = {}
    for kind, name, text in ask(path, "SELECT type, name, sql FROM sqlite_master"):
        if kind == "table":
            found[str(name)] = tuple(ask(path, f'PRAGMA table_info("{name}")'))
        else:
            found[str(name)] = (" ".join(str(text).replace('"', "").split()),)
    return found


def migrated_from_nothing(path: Path, to: str = "head") -> None:
    """Build a store by its migrations alone."""
    from alembic import command

    sqlite.create(path, lambda connection: None)
    engine = sqlite.writer_engine(path)
    config = migrations.configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, to)
    engine.dispose()


def a_store_with_jobs(path: Path) -> None:
    store = open_store(path)
    batch = submission(*(make_job(i) for i in range(1, 101)))
    batch.merge(Batch(meta={"cursor": "1:5"}))
    asyncio.run(store.apply(batch))
    store.close()


def test_the_migrations_make_the_same_tables_as_a_new_store_has(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    migrated_from_nothing(tmp_path / "migrated.db")
    open_store(tmp_path / "new.db").close()
    assert shape(tmp_path / "migrated.db") == shape(tmp_path / "new.db")
    engine = sqlite.reader_engine(tmp_path / "migrated.db", 1)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()
    scripts = ScriptDirectory.from_config(migrations.configuration())
    assert scripts.get_current_head() == schema.HEAD


@pytest.mark.parametrize("revision", ["0001"])
def test_a_store_of_each_earlier_revision_is_opened_and_used(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "store.db"
    migrated_from_nothing(path, revision)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO meta VALUES ('uuid', 'u'), ('cursor', '1:5')")
        connection.execute("INSERT INTO manager (id, epoch, owner) VALUES (1, 7, '{}')")
        connection.commit()
    store = open_store(path)
    assert (store.epoch, store.uuid, store.meta("cursor")) == (8, "u", "1:5")
    asyncio.run(store.apply(submission(make_job(1))))
    store.close()
    assert ask(path, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]


def test_an_older_store_is_brought_up_with_all_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    revision_in(tmp_path / "later", "t002", schema.HEAD)
    revision_in(tmp_path / "later", "t003", "t002")
    migrations.bring_up(Sqlite(path), head="t003", folders=[tmp_path / "later"])

    assert ask(path, "SELECT version_num FROM alembic_version") == [("t003",)]
    assert ask(path, "SELECT count(*), max(ct002), min(ct003) FROM jobs") == [
        (100, "from job 99", "from job 1")
    ]
    assert ask(path, "SELECT value FROM meta WHERE key = 'cursor'") == [("1:5",)]
    copy = tmp_path / "store.db.before-t003"
    assert ask(copy, "SELECT version_num FROM alembic_version") == [(schema.HEAD,)]
    assert ask(copy, "SELECT count(*) FROM jobs") == [(100,)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    migrations.bring_up(Sqlite(path), head="t003", folders=[tmp_path / "later"])


def test_a_migration_that_fails_midway_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    before = shape(path)
    revision_in(tmp_path / "later", "t002", schema.HEAD)
    revision_in(tmp_path / "later", "t003", "t002", more="raise OSError('the disk is gone')")
    with pytest.raises(OSError, match="the disk is gone"):
        migrations.bring_up(Sqlite(path), head="t003", folders=[tmp_path / "later"])
    assert shape(path) == before
    store = open_store(path)
    assert len(store.load_active()) == 100
    store.close()


def test_a_process_killed_within_a_migration_leaves_the_store_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    before = shape(path)
    revision_in(tmp_path / "later", "t002", schema.HEAD, more="import os; os.kill(os.getpid(), 9)")
    program = (
        "import sys; from pathlib import Path; from simyard.service.store import migrations\n"
        "from simyard.service.store.sqlite import Sqlite\n"
        "path = Path(sys.argv[1])\n"
        "migrations.bring_up(Sqlite(path), head='t002', folders=[path.parent / 'later'])"
    )
    root = Path(__file__).parents[2] / "typings"
    ended = subprocess.run(
        [sys.executable, "-c", program, str(path)], env={"PYTHONPATH": str(root)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    store = open_store(path)
    assert len(store.load_active()) == 100
    store.close()
    assert shape(path) == before


def test_a_store_of_a_later_release_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = path.read_bytes()
    with pytest.raises(StoreUnreadable, match=r"later release of Simyard.*9999"):
        open_store(path)
    assert path.read_bytes() == content
    assert {entry.name for entry in tmp_path.iterdir()} == {"store.db"}


@pytest.mark.parametrize(
    "damage", ["DELETE FROM alembic_version", "DROP TABLE alembic_version", "DELETE FROM manager"]
)
def test_a_store_without_its_marks_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "store.db"
    a_store_with_jobs(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(damage)
        connection.commit()
    with pytest.raises(StoreUnreadable, match=str(path)):
        open_store(path)
