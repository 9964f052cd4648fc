"""The tables of the store, in words that SQLite and PostgreSQL both understand.

Knows columns and indexes. Nothing of connections, files or transactions.
`HEAD` names the revision these tables are at; a change here needs a migration.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

HEAD = "0002"
"""Revision of the tables below; the newest file in ``migrations/versions``."""

# SQLite makes a key the row's own address only where the type is exactly INTEGER.
NUMBER = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData()

jobs = Table(
    "jobs",
    metadata,
    Column("id", NUMBER, primary_key=True, autoincrement=False),
    Column("state", String(20), nullable=False),
    Column("version", Integer, nullable=False),
    Column("spec_json", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("scheduler", String(100), nullable=False),
    Column("project", String(100)),
    Column("group", String(100)),
    Column("tags", Text),  # "\nkey=value\nkey=value\n", taken from the spec, for searching
    Column("attempt", Integer, nullable=False),
    Column("tag", String(200)),
    Column("native_id", String(200)),
    Column("gpu_ids", Text),  # "0,3"
    Column("outcome_reason", String(40)),
    Column("outcome_exit_code", Integer),
    Column("outcome_signal", Integer),
    Column("outcome_message", Text),
    Column("cancel_requested", Boolean, nullable=False),
    Column("retry_of", NUMBER),
    Column("environment", String(100)),
    Column("host", Text),
    Column("wall_seconds", Float, nullable=False),
    Column("cpu_seconds", Float, nullable=False),
    Column("max_rss_bytes", BigInteger, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("queued_at", Float),
    Column("started_at", Float),
    Column("finished_at", Float),
)

# Lists are newest first, so each index ends with the id. Few jobs have a project or
# a group compared with those that a throughput run makes: the index leaves out the rest.
Index("ix_jobs_state", jobs.c.state, jobs.c.id)
_has_project = text("project IS NOT NULL")
Index(
    "ix_jobs_project",
    jobs.c.project,
    jobs.c.id,
    sqlite_where=_has_project,
    postgresql_where=_has_project,
)
_has_group = text('"group" IS NOT NULL')
Index(
    "ix_jobs_group",
    jobs.c.group,
    jobs.c.id,
    sqlite_where=_has_group,
    postgresql_where=_has_group,
)

events = Table(
    "events",
    metadata,
    Column("seq", NUMBER, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("type", String(40), nullable=False),
    Column("job_id", NUMBER),
    Column("data", Text, nullable=False),
)
_of_a_job = text("job_id IS NOT NULL")
Index(
    "ix_events_job",
    events.c.job_id,
    events.c.seq,
    sqlite_where=_of_a_job,
    postgresql_where=_of_a_job,
)

environments = Table(
    "environments",
    metadata,
    Column("hash", String(100), primary_key=True),
    Column("data", Text, nullable=False),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", String(300), primary_key=True),
    Column("digest", String(100), nullable=False),
    Column("job_ids", Text, nullable=False),
    Column("created_at", Float, nullable=False),
)
Index("ix_idempotency_created", idempotency.c.created_at)

meta = Table(
    "meta",
    metadata,
    Column("key", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)

manager = Table(
    "manager",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", NUMBER, nullable=False),
    Column("owner", Text, nullable=False),
    # By the database's own clock; none where a lock file decides, and after a proper end.
    Column("expires_at", Float),
    # Number of the last transaction of this epoch: whether a commit whose answer was lost
    # took place.
    Column("written", NUMBER, nullable=False, server_default="0"),
)

# Kept by Alembic; declared here, outside of `metadata`, so that a new store can be
# stamped and an old one recognised without importing Alembic.
revision = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
