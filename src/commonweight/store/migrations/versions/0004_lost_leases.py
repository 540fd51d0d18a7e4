"""Column ``batch_items.lost_leases``: how often an item's lease ran out, because its server died."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the column."""
    op.add_column("batch_items", sa.Column("lost_leases", sa.Integer(), server_default="0", nullable=False))
