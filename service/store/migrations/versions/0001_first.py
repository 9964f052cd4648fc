"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "jobs",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("spec_json", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("scheduler", sa.String(100), nullable=False),
        sa.Column("project", sa.String(100)),
        sa.Column("group", sa.String(100)),
        sa.Column("tags", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("tag", sa.String(200)),
        sa.Column("native_id", sa.String(200)),
        sa.Column("gpu_ids", sa.Text),
        sa.Column("outcome_reason", sa.String(40)),
        sa.Column("outcome_exit_code", sa.Integer),
        sa.Column("outcome_signal", sa.Integer),
        sa.Column("outcome_message", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("retry_of", _NUMBER),
        sa.Column("environment", sa.String(100)),
        sa.Column("host", sa.Text),
        sa.Column("wall_seconds", sa.Float, nullable=False),
        sa.Column("cpu_seconds", sa.Float, nullable=False),
        sa.Column("max_rss_bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("queued_at", sa.Float),
        sa.Column("started_at", sa.Float),
        sa.Column("finished_at", sa.Float),
    )
    op.create_index("ix_jobs_state", "jobs", ["state", "id"])
    _partial_index("ix_jobs_project", "jobs", ["project", "id"], "project IS NOT NULL")
    _partial_index("ix_jobs_group", "jobs", ["group", "id"], '"group" IS NOT NULL')
    op.create_table(
        "events",
        sa.Column("seq", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Float, nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("job_id", _NUMBER),
        sa.Column("data", sa.Text, nullable=False),
    )
    _partial_index("ix_events_job", "events", ["job_id", "seq"], "job_id IS NOT NULL")
    op.create_table(
        "environments",
        sa.Column("hash", sa.String(100), primary_key=True),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(300), primary_key=True),
        sa.Column("digest", sa.String(100), nullable=False),
        sa.Column("job_ids", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created_at"])
    op.create_table(
        "meta",
        sa.Column("key", sa.String(100), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "manager",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", _NUMBER, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
    )


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
