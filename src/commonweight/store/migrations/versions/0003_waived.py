"""Keys may set principles of the charter aside."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """From the version before."""
    op.add_column("keys", sa.Column("waived", sa.String(length=1000), server_default="", nullable=False))
