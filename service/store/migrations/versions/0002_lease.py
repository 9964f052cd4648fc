"""A lease for the manager of a store that several hosts can reach."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the two columns."""
    op.add_column("manager", sa.Column("expires_at", sa.Float))
    op.add_column("manager", sa.Column("written", _NUMBER, nullable=False, server_default="0"))
