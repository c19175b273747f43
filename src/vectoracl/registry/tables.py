"""The registry's tables. Every key begins with the tenant, and no row of one tenant refers to another's."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, SmallInteger, Table, Text

metadata = MetaData()
_BIG = BigInteger().with_variant(Integer(), "sqlite")

meta = Table(
    "vectoracl_meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
tenants = Table(
    "vectoracl_governed_tenants",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("clock", Float(53), nullable=False),  # the latest time that a change has seen: time never runs backwards
    Column("parent", Text),
    Column("stopped", Text),  # why no call is answered until `registry verify`; see `restores`
    Column("floor", BigInteger, nullable=False),  # generations below it were perhaps given out before a restore
)
marks = Table(  # the marks that a store has to have; see `restores`
    "vectoracl_marks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("store", Text, primary_key=True),
    Column("mark", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
)
labels = Table(
    "vectoracl_labels",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("parent", Text),
    Column("attributes", Text, nullable=False),  # its own, as JSON
    Column("children", Boolean, nullable=False),  # whether child tenants read it
    Column("shared", Boolean, nullable=False),  # whether every tenant reads it, in a shared tenant
    Column("chunks", BigInteger, nullable=False),
)
entries = Table(  # the access entries as they were given
    "vectoracl_entries",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("allow", SmallInteger, nullable=False),
    Column("can_write", SmallInteger, nullable=False),
    Column("valid_from", Float(53)),
    Column("valid_until", Float(53)),
    Index("vectoracl_entries_label", "tenant", "label"),
)
grants = Table(  # the entries in effect for each label, those of its parents included; made from `entries`
    "vectoracl_grants",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("allow", SmallInteger, nullable=False),
    Column("can_write", SmallInteger, nullable=False),
    Column("valid_from", Float(53)),
    Column("valid_until", Float(53)),
    Index("vectoracl_grants_subject", "tenant", "subject", "label", "allow", "can_write", "valid_from", "valid_until"),
    Index("vectoracl_grants_label", "tenant", "label"),
    Index("vectoracl_grants_from", "tenant", "valid_from"),
    Index("vectoracl_grants_until", "tenant", "valid_until"),
)
values = Table(  # the attributes in effect for each label, those of its parents included
    "vectoracl_label_values",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("text", Text),
    Column("number", Float(53)),  # a boolean is 0 or 1
    Index("vectoracl_label_values_text", "tenant", "name", "text", "label"),
    Index("vectoracl_label_values_number", "tenant", "name", "number", "label"),
)
documents = Table(
    "vectoracl_documents",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("label", Text, nullable=False),
    Column("state", Text, nullable=False),  # live, erasing, erased
    Column("rev", BigInteger, nullable=False),
    Column("generation", BigInteger),  # the published one
    Column("last_generation", BigInteger, nullable=False),  # the last one that was given out; never used again
    Column("expires", Float(53), nullable=False),
    Column("held", Integer, nullable=False),  # the number of matters
    Column("chunks", BigInteger, nullable=False),
    Column("stored_labels", Text, nullable=False),  # the labels that its chunks may carry, as a JSON list
    Column("ticket", Text),
    Column("ticket_at", Float(53)),
    Index("vectoracl_documents_label", "tenant", "label"),
    Index("vectoracl_documents_expires", "tenant", "expires"),
    Index("vectoracl_documents_ticket", "tenant", "ticket_at"),
)
holds = Table(
    "vectoracl_holds",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("matter", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Float(53), nullable=False),
    Index("vectoracl_holds_matter", "tenant", "matter"),
)
quarantine = Table(
    "vectoracl_quarantine",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("producer", Text),
    Column("source", Text),
    Column("document", Text),
    Column("generation", BigInteger),
    Column("since", Float(53)),
    Column("until", Float(53)),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("at", Float(53), nullable=False),
)
sources = Table(  # how far each source of rights has been read; see `sources`
    "vectoracl_sources",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("as_of", Float(53), nullable=False),  # by the source's clock, and never after `read_at`
    Column("read_at", Float(53), nullable=False),
)
access = Table(  # the latest record of each source on each document
    "vectoracl_access",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("as_of", Float(53), nullable=False),
    Column("content", Text, nullable=False),  # JSON
    Index("vectoracl_access_source", "tenant", "source"),
)
vouchers = Table(  # who vouches for a label that a source has made: itself (`owner`) and each one above it
    "vectoracl_vouchers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("label", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("valid_until", Float(53), nullable=False),
    Index("vectoracl_vouchers_source", "tenant", "source", "label", "owner"),
    Index("vectoracl_vouchers_until", "tenant", "valid_until"),
)
overlay = Table(
    "vectoracl_overlay",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("document", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),  # the tenant's version when it was entered
    Column("since", Float(53), nullable=False),  # the time of the last change
    Index("vectoracl_overlay_seq", "tenant", "seq"),
)
history = Table(
    "vectoracl_history",
    metadata,
    Column("id", _BIG, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("by", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON
    Column("reason", Text, nullable=False),
    Index("vectoracl_history_version", "tenant", "version"),
)
