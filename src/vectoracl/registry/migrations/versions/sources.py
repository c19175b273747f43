"""Sources of rights."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the tables of sources; what is there already is not touched."""
    op.create_table(
        "vectoracl_sources",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("as_of", sa.Float(53), nullable=False),
        sa.Column("read_at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "vectoracl_access",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("as_of", sa.Float(53), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_index("vectoracl_access_source", "vectoracl_access", ["tenant", "source"])
    op.create_table(
        "vectoracl_vouchers",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("valid_until", sa.Float(53), nullable=False),
    )
    op.create_index("vectoracl_vouchers_source", "vectoracl_vouchers", ["tenant", "source", "label", "owner"])
    op.create_index("vectoracl_vouchers_until", "vectoracl_vouchers", ["tenant", "valid_until"])


def downgrade() -> None:
    """Refuse: what a registry knows is lost with its tables."""
    raise NotImplementedError("The registry is not downgraded: restore a backup.")
