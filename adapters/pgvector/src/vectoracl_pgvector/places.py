"""Which table of which server a configuration reaches, as the server itself says, to any role that can connect."""

from __future__ import annotations

from typing import Any

from vectoracl.adapter import Port
from vectoracl.errors import StoreError
from vectoracl_pgvector.names import SAFE_PATH, Names
from vectoracl_pgvector.requests import Statement, Transaction

# A start of a server, to the microsecond; DateStyle and TimeZone do not show in it.
_STARTED = "to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"


def places(port: Port, names: Names) -> frozenset[str]:
    """Return what names the table: its oid and its database's, with each of two things that name the server.

    `system_identifier` is the cluster's own, and its replicas'; a server may keep it from the role, so the moment at
    which it started is asked for as well. Empty where the table is not there. Raises: StoreError.
    """
    found = _asked(
        port,
        "SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::int8, to_regclass(%s)::oid::int8, "
        f"{_STARTED}, has_function_privilege('pg_control_system()', 'EXECUTE')",
        (names.table,),
    )
    if found is None or found[1] is None:
        return frozenset()
    database, table, started, allowed = found
    named = [f"started {started}"]
    if allowed:
        try:
            row = _asked(port, "SELECT system_identifier FROM pg_control_system()", ())
        except StoreError as error:
            if error.code != "rejected":
                raise
        else:
            named += [] if row is None else [f"system {row[0]}"]
    return frozenset(f"{one}, database {database}, table {table}" for one in named)


def _asked(port: Port, sql: str, params: tuple[Any, ...]) -> Any:
    (rows,) = port.execute(Transaction(None, (Statement(sql, params),), (SAFE_PATH,)), None)
    return rows[0] if rows else None
