"""Unique index on the names of keys that are not revoked."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the index."""
    is_valid = sa.text("revoked_at IS NULL")
    op.create_index(
        "uq_keys_name", "keys", ["name"], unique=True, sqlite_where=is_valid, postgresql_where=is_valid
    )
