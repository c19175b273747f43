"""Alembic's environment: called by `vectoracl.registry.migrate`, never by the command `alembic`."""

from __future__ import annotations

from typing import Any

from alembic import context

from vectoracl.registry.tables import metadata

database = context.config.attributes["database"]
options: dict[str, Any] = {"target_metadata": metadata, "version_table": "vectoracl_registry_version"}
if context.is_offline_mode():
    context.configure(dialect_name=database.url.get_backend_name(), literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with database.engine.connect().execution_options(vectoracl_write=True) as connection:
        context.configure(connection=connection, **options)
        with connection.begin(), context.begin_transaction():
            context.run_migrations()
