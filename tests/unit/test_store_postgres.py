"""What only a store at a PostgreSQL server has: its URL, its refusals, its migrations."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from pathlib import Path

import pytest
from postgres_server import PostgresServer
from sqlalchemy.exc import OperationalError
from store_samples import make_job, open_store, submission

from simyard.errors import InvalidInput, PermissionDenied, ServiceUnavailable, StoreUnreadable
from simyard.service.store import migrations, postgres, schema
from simyard.service.store.backend import Trouble
from simyard.service.store.postgres import Postgres

SECRET = "correct-horse"

needs_server = pytest.mark.postgresql


@pytest.fixture
def url(postgres_server: PostgresServer) -> str:
    return postgres_server.new_database()


def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidInput, match=r"pip install 'simyard\[postgres\]'"):
        open_store("postgresql://host/db")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/db",
        f"postgres://me@127.0.0.1:1/db?password={SECRET}",
        f"postgresql+psycopg://me:{SECRET}@127.0.0.1:1/db?sslmode=disable",
    ],
)
def test_a_server_that_is_not_there_is_named_without_the_password(url: str) -> None:
    with pytest.raises(
        ServiceUnavailable, match=r"127\.0\.0\.1:1/db.* cannot be opened"
    ) as refused:
        open_store(url, busy_seconds=0.1)
    assert SECRET not in repr(refused.value) + str(refused.value.details)


@pytest.mark.parametrize("url", ["postgresql://", f"postgresql://me:{SECRET}@host:port/x"])
def test_a_url_that_says_too_little_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="postgresql://USER@HOST:PORT/DATABASE") as refused:
        open_store(url)
    assert SECRET not in str(refused.value)


@needs_server
def test_a_database_that_does_not_exist_is_no_reason_to_make_one(
    postgres_server: PostgresServer,
) -> None:
    with pytest.raises(InvalidInput, match="createdb nobody_made"):
        open_store(postgres_server.url("nobody_made"))


@needs_server
def test_a_user_who_may_not_come_in_is_told_so(postgres_server: PostgresServer, url: str) -> None:
    postgres_server.ask("CREATE ROLE guest LOGIN", url)
    with pytest.raises(PermissionDenied, match="lets us not in"):
        open_store(url.replace("postgres@", "guest@"))


@needs_server
def test_a_database_of_another_program_is_refused_untouched(
    postgres_server: PostgresServer, url: str
) -> None:
    postgres_server.ask("CREATE TABLE alembic_version (version_num text)", url)
    with pytest.raises(StoreUnreadable, match="tables of another program"):
        open_store(url)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    assert postgres_server.ask(tables, url) == [("alembic_version",)]


@needs_server
def test_an_empty_database_for_a_home_with_jobs_is_refused(url: str) -> None:
    with pytest.raises(StoreUnreadable, match="is empty, but jobs or records lie in the home"):
        open_store(url, expect_new=False)


@needs_server
def test_a_database_that_cannot_hold_every_text_is_refused(postgres_server: PostgresServer) -> None:
    postgres_server.ask(
        "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0",
        postgres_server.url("postgres"),
    )
    with pytest.raises(InvalidInput, match="holds text as SQL_ASCII"):
        open_store(postgres_server.url("ascii"))


@needs_server
async def test_a_reason_that_quotes_a_nul_does_not_stop_the_store(url: str) -> None:
    from simyard.service.model import Outcome, OutcomeReason

    store = open_store(url)
    outcome = Outcome(reason=OutcomeReason.START_FAILED, message="said \0 nothing")
    await store.apply(submission(make_job(1, outcome=outcome)))
    job = await store.get(1)
    assert job is not None and job.outcome is not None
    assert job.outcome.message == "said  nothing"
    store.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("53100", Trouble.FULL),
        ("55P03", Trouble.BUSY),
        ("40P01", Trouble.BUSY),
        ("57P01", Trouble.UNAVAILABLE),
        ("08006", Trouble.UNAVAILABLE),
        ("25006", Trouble.UNAVAILABLE),
        ("53300", Trouble.UNAVAILABLE),
        ("XX001", Trouble.DAMAGED),
        ("42P01", Trouble.DAMAGED),
        ("23505", Trouble.CONTENT),
        ("22001", Trouble.CONTENT),
    ],
)
def test_an_error_of_the_server_is_understood(code: str, kind: Trouble) -> None:
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    error = psycopg.errors.lookup(code)("as the server puts it")
    backend = Postgres("postgresql://host/db")
    assert backend.trouble(error) is kind
    assert backend.trouble(OperationalError("SELECT 1", None, error)) is kind


# -- migrations --------------------------------------------------------------------

LATER = """
    import sqlalchemy as sa
    from alembic import op

    revision = "t002"
    down_revision = "{before}"

    def upgrade() -> None:
        with op.batch_alter_table("jobs") as jobs:
            jobs.add_column(sa.Column("later", sa.Text))
        op.execute("UPDATE jobs SET later = 'from ' || name")
        {more}
"""


def later_revision(folder: Path, more: str = "") -> Path:
    text = LATER.format(before=schema.HEAD, more=more)
    (folder / "t002_later.py").write_text(textwrap.dedent(text))
    return folder


def columns(server: PostgresServer, url: str) -> list[tuple[object, ...]]:
    return server.ask(
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, "
        "column_default FROM information_schema.columns WHERE table_schema = 'public' "
        "ORDER BY 1, 2",
        url,
    ) + server.ask(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1", url
    )


@needs_server
def test_the_migrations_make_the_same_tables_as_a_new_database_has(
    postgres_server: PostgresServer,
) -> None:
    from alembic import command
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    migrated, new = postgres_server.new_database(), postgres_server.new_database()
    open_store(new).close()
    engine = Postgres(migrated).writer_engine()
    config = migrations.configuration()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()
    assert columns(postgres_server, migrated) == columns(postgres_server, new)


@needs_server
def test_a_migration_takes_place_whole_or_not_at_all(
    postgres_server: PostgresServer, url: str, tmp_path: Path
) -> None:
    store = open_store(url)
    asyncio.run(store.apply(submission(*(make_job(i) for i in range(1, 51)))))
    store.close()
    before = columns(postgres_server, url)
    broken = later_revision(tmp_path, "raise OSError('the network is gone')")
    with pytest.raises(OSError, match="the network is gone"):
        migrations.bring_up(Postgres(url), head="t002", folders=[broken])
    assert columns(postgres_server, url) == before
    migrations.bring_up(Postgres(url), head="t002", folders=[later_revision(tmp_path)])
    assert postgres_server.ask("SELECT count(*), max(later) FROM jobs", url) == [(50, "from job 9")]
    with pytest.raises(StoreUnreadable, match=r"later release of Simyard.*t002"):
        open_store(url)


def test_settings_and_store_agree_on_what_a_url_is() -> None:
    from simyard.service.settings import _STORES

    assert _STORES == postgres.SCHEMES
