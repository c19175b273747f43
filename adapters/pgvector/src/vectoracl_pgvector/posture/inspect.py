"""`vectoracl check --dsn …`: checks tables that vectoracl did not provision. Changes nothing."""

from __future__ import annotations

import psycopg

from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import RefusedError, without_context
from vectoracl_pgvector.connection.connect_failures import connect_failed
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.posture import check


@without_context
def inspect(dsn: str, table: str | None, role: str | None, tenant_column: str | None) -> dict[str, Posture]:
    """Return the posture of every table with a vector column, by name.

    Args:
        dsn: The connection string.
        table: Check only this table: "schema.table", or its name alone.
        role: Judge this role instead of the connecting one.
        tenant_column: "column", or "column->>key" of a JSON column, instead of the guess.

    Raises:
        RefusedError: There is no such table.
        StoreError: The server cannot be reached.
    """
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=10, application_name="vectoracl check")
    except (psycopg.Error, OSError) as error:
        raise connect_failed(dsn, error, debug=False) from None
    try:
        with connection:
            targets = check.discover(connection, runtime_role=role, tenant_column=tenant_column)
            if table is not None:
                targets = [one for one in targets if table in (f"{one.schema}.{one.table}", one.table)]
            if not targets:
                what = "no table with a vector column" if table is None else f"no table {table!r} with a vector column"
                raise RefusedError(f"This role sees {what} in the database; nothing was measured.", field="table")
            return {f"{one.schema}.{one.table}": check.read_posture(connection, one) for one in targets}
    except psycopg.Error as error:
        raise mapped(error, debug=False, action="check") from None
