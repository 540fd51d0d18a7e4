"""Column ``keys.waived``: principles of the charter that are set aside for a key."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column."""
    op.add_column("keys", sa.Column("waived", sa.String(length=1000), server_default="", nullable=False))
