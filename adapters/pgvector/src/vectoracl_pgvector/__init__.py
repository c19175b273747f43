"""The vectoracl adapter for PostgreSQL with pgvector."""

from vectoracl_pgvector.join import join

__all__ = ["join"]
