"""The vectoracl adapter for PostgreSQL with pgvector."""

from vectoracl_pgvector.transaction.join import join

__all__ = ["join"]
