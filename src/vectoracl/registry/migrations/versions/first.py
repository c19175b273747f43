"""The first tables of the registry."""

from __future__ import annotations

import os

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "vectoracl_meta",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_table(
        "vectoracl_governed_tenants",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("clock", sa.Float(53), nullable=False),
        sa.Column("parent", sa.Text),
        sa.Column("stopped", sa.Text),
        sa.Column("floor", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "vectoracl_marks",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("store", sa.Text, primary_key=True),
        sa.Column("mark", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "vectoracl_labels",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("parent", sa.Text),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("children", sa.Boolean, nullable=False),
        sa.Column("shared", sa.Boolean, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "vectoracl_entries",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("allow", sa.SmallInteger, nullable=False),
        sa.Column("can_write", sa.SmallInteger, nullable=False),
        sa.Column("valid_from", sa.Float(53)),
        sa.Column("valid_until", sa.Float(53)),
    )
    op.create_index("vectoracl_entries_label", "vectoracl_entries", ["tenant", "label"])
    op.create_table(
        "vectoracl_grants",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("allow", sa.SmallInteger, nullable=False),
        sa.Column("can_write", sa.SmallInteger, nullable=False),
        sa.Column("valid_from", sa.Float(53)),
        sa.Column("valid_until", sa.Float(53)),
    )
    op.create_index(
        "vectoracl_grants_subject",
        "vectoracl_grants",
        ["tenant", "subject", "label", "allow", "can_write", "valid_from", "valid_until"],
    )
    op.create_index("vectoracl_grants_label", "vectoracl_grants", ["tenant", "label"])
    op.create_index("vectoracl_grants_from", "vectoracl_grants", ["tenant", "valid_from"])
    op.create_index("vectoracl_grants_until", "vectoracl_grants", ["tenant", "valid_until"])
    op.create_table(
        "vectoracl_label_values",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("text", sa.Text),
        sa.Column("number", sa.Float(53)),
    )
    op.create_index("vectoracl_label_values_text", "vectoracl_label_values", ["tenant", "name", "text", "label"])
    op.create_index("vectoracl_label_values_number", "vectoracl_label_values", ["tenant", "name", "number", "label"])
    op.create_table(
        "vectoracl_documents",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("rev", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.BigInteger),
        sa.Column("last_generation", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Float(53), nullable=False),
        sa.Column("held", sa.Integer, nullable=False),
        sa.Column("chunks", sa.BigInteger, nullable=False),
        sa.Column("stored_labels", sa.Text, nullable=False),
        sa.Column("ticket", sa.Text),
        sa.Column("ticket_at", sa.Float(53)),
    )
    op.create_index("vectoracl_documents_label", "vectoracl_documents", ["tenant", "label"])
    op.create_index("vectoracl_documents_expires", "vectoracl_documents", ["tenant", "expires"])
    op.create_index("vectoracl_documents_ticket", "vectoracl_documents", ["tenant", "ticket_at"])
    op.create_table(
        "vectoracl_holds",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("matter", sa.Text, primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_index("vectoracl_holds_matter", "vectoracl_holds", ["tenant", "matter"])
    op.create_table(
        "vectoracl_quarantine",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("producer", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("document", sa.Text),
        sa.Column("generation", sa.BigInteger),
        sa.Column("since", sa.Float(53)),
        sa.Column("until", sa.Float(53)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
    )
    op.create_table(
        "vectoracl_overlay",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("document", sa.Text, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("since", sa.Float(53), nullable=False),
    )
    op.create_index("vectoracl_overlay_seq", "vectoracl_overlay", ["tenant", "seq"])
    op.create_table(
        "vectoracl_history",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("by", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("vectoracl_history_version", "vectoracl_history", ["tenant", "version"])
    meta = sa.table("vectoracl_meta", sa.column("name", sa.Text), sa.column("value", sa.Text))
    op.execute(meta.insert().values(name="id", value=os.urandom(16).hex()))


def downgrade() -> None:
    """Refuse: what a registry knows is lost with its tables."""
    raise NotImplementedError("The registry is not downgraded: restore a backup.")
