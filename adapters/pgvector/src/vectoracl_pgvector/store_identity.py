"""The identity of the table and server that a configuration reaches, readable by any role that can connect."""

from __future__ import annotations

from typing import Any

from vectoracl.adapter_api.contract import Port
from vectoracl.adapter_api.store_identity import original, replica
from vectoracl.errors import StoreError
from vectoracl_pgvector.names import SAFE_PATH, Names
from vectoracl_pgvector.requests import Statement, Transaction

# The start time of the server, to the microsecond, independent of DateStyle and TimeZone.
_STARTED = "to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"


def places(port: Port, names: Names) -> frozenset[str]:
    """Return the identities of the table: its OID and its database's, with each of two identifiers of the server.

    The start time belongs to one server. `system_identifier` is shared by the cluster, its replicas, and servers that
    were restored from a physical backup with the same OIDs, so it is marked as an original or as a replica. The role
    may not be permitted to read it, or the server may not have it. Empty if the table does not exist.

    Raises:
        StoreError: The server cannot be read.
    """
    row = _first_row(
        port,
        "SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::int8, to_regclass(%s)::oid::int8, "
        f"{_STARTED}, has_function_privilege('pg_control_system()', 'EXECUTE'), pg_is_in_recovery()",
        (names.table,),
    )
    if row is None or row[1] is None:
        return frozenset()
    database, table, started, allowed, follows = row
    which = f"database {database}, table {table}"
    identities = {f"started {started}, {which}"}
    if allowed:
        try:
            row = _first_row(port, "SELECT system_identifier FROM pg_control_system()", ())
        except StoreError as error:
            if error.retryable:
                raise
        else:
            if row is not None:
                identities.add((replica if follows else original)(f"system {row[0]}, {which}"))
    return frozenset(identities)


def _first_row(port: Port, sql: str, params: tuple[Any, ...]) -> Any:
    (rows,) = port.execute(Transaction(None, (Statement(sql, params),), (SAFE_PATH,)), None)
    return rows[0] if rows else None
