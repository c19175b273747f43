"""Alembic's scripts; see `vectoracl.registry.migrate`."""
