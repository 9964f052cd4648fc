"""Run by Alembic: applies revisions to the connection that `bring_up` hands over."""

from __future__ import annotations

from alembic import context

from simyard.service.store import schema

# One transaction for all revisions, begun and committed by `bring_up`: a crash midway
# leaves the store as it was. SQLite cannot alter most things in place: batch mode.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,
    transactional_ddl=True,
    transaction_per_migration=False,
)
context.run_migrations()
