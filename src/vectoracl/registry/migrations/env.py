"""Alembic's environment: called by `vectoracl.registry.migrate`, never by the command `alembic`."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context

from vectoracl.registry.row_security import PROTECTED, quote, schema_statement, statements
from vectoracl.registry.tables import metadata

database = context.config.attributes["database"]
options: dict[str, Any] = {"target_metadata": metadata, "version_table": "vectoracl_registry_version"}


def migrate() -> None:
    """Run the migrations; in PostgreSQL with the schema before them and row-level security after them.

    For as long as this transaction takes, security does not bind the owner: a migration changes rows of every tenant.
    """
    if database.sqlite:
        context.run_migrations()
        return
    runtime, owner = database.roles()
    _execute(schema_statement(database.schema))
    for table in PROTECTED:
        _execute(f"ALTER TABLE IF EXISTS {quote(database.schema)}.{table.name} NO FORCE ROW LEVEL SECURITY")
    context.run_migrations()
    for one in statements(database.schema, runtime, owner):
        _execute(one)


def _execute(statement: str) -> None:
    context.execute(sa.text(statement.replace(":", "\\:")))  # else a colon begins a parameter


if context.is_offline_mode():
    context.configure(dialect_name=database.url.get_backend_name(), literal_binds=True, **options)
    with context.begin_transaction():
        migrate()
else:
    with database.owner.engine.connect().execution_options(vectoracl_write=True) as connection:
        context.configure(connection=connection, **options)
        with connection.begin(), context.begin_transaction():
            migrate()
