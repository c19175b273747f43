"""The posture check of PostgreSQL: reads the real isolation of a table from the catalogs, as an ordinary role.

    queries(target)                every statement, fixed in number       pure
    judge(target, rows)            from rows to findings and a grade      pure
    read_posture, aread_posture    both, over a psycopg connection        one pipeline, one transaction, rolled back
    discover, adiscover            the tables with a vector column in a database that vectoracl did not provision

The grade is "none" if any finding lowers it, "credential" if every policy binds the tenant to the role, and "engine"
otherwise.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from vectoracl.adapter_api.posture import Posture
from vectoracl_pgvector.posture.judge import judge
from vectoracl_pgvector.posture.policy_expressions import Binding, bind, settings_in
from vectoracl_pgvector.posture.reach_sql import SINCE
from vectoracl_pgvector.posture.snapshot import Target
from vectoracl_pgvector.posture.sql import DISCOVER, SAFE_PATH, STATEMENTS
from vectoracl_pgvector.posture.tenant_field import TenantField, candidates, parse

__all__ = ["Target", "adiscover", "aread_posture", "discover", "judge", "parameters", "queries", "read_posture"]

_Statement = tuple[str, str, dict[str, Any] | None]
_Rows = dict[str, list[tuple[Any, ...]]]


def parameters(target: Target) -> dict[str, Any]:
    """Return the parameters of the statements, by name."""
    return {
        "schema": target.schema,
        "table": target.table,
        "tenant": target.tenant_column if target.tenant.key is None else "",
        "column": target.tenant.column,
        "setting": target.setting,
        "role": target.runtime_role,
        "vector": target.vector_column,
        "bits": target.bits_column,
    }


def queries(target: Target) -> tuple[_Statement, ...]:
    """Return every statement as (name, SQL, parameters); the first has to run in the same transaction as the others."""
    params = parameters(target)
    return tuple((name, sql, params if "%(" in sql else None) for name, sql in STATEMENTS)


def _statements_for(server: int, target: Target) -> tuple[tuple[_Statement, ...], _Rows]:
    """Return the statements for a server of this version, and empty rows for those that it is too old for."""
    statements = queries(target)
    late = {name for name, since in SINCE.items() if since > server}
    return tuple(one for one in statements if one[0] not in late), {name: [] for name in late}


# A table that changes while it is checked is judged by one state of it, not by parts of several.
_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"


def _begins(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    """Return whether the next transaction is not part of one of the caller's, whose snapshots are his."""
    return conn.info.transaction_status is TransactionStatus.IDLE


def read_posture(conn: psycopg.Connection[Any], target: Target) -> Posture:
    """Read the catalogs and judge the table.

    Changes nothing: settings are rolled back, also within a transaction of the caller; without one, all statements see
    one snapshot. A statement that the server refuses becomes a finding.

    Raises:
        psycopg.OperationalError: The connection failed.
    """
    statements, rows = _statements_for(conn.info.server_version, target)
    late, begins = dict(rows), _begins(conn)
    try:
        with conn.transaction(force_rollback=True), conn.pipeline():
            if begins:
                conn.execute(_SNAPSHOT)
            cursors = [
                (name, conn.cursor(row_factory=tuple_row).execute(sql, params, prepare=False))
                for name, sql, params in statements
            ]
            rows |= {name: cursor.fetchall() for name, cursor in cursors}
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        rows = late
        for name, sql, params in statements[1:]:
            try:
                with conn.transaction(force_rollback=True):
                    conn.execute(SAFE_PATH)
                    rows[name] = conn.cursor(row_factory=tuple_row).execute(sql, params).fetchall()
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                continue  # judge() reports the missing part
    return judge(target, rows)


async def aread_posture(conn: psycopg.AsyncConnection[Any], target: Target) -> Posture:
    """`read_posture` for asyncio."""
    statements, rows = _statements_for(conn.info.server_version, target)
    late, begins = dict(rows), _begins(conn)
    try:
        async with conn.transaction(force_rollback=True), conn.pipeline():
            if begins:
                await conn.execute(_SNAPSHOT)
            cursors = [
                (name, await conn.cursor(row_factory=tuple_row).execute(sql, params, prepare=False))
                for name, sql, params in statements
            ]
            rows |= {name: await cursor.fetchall() for name, cursor in cursors}
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        rows = late
        for name, sql, params in statements[1:]:
            try:
                async with conn.transaction(force_rollback=True):
                    await conn.execute(SAFE_PATH)
                    cursor = await conn.cursor(row_factory=tuple_row).execute(sql, params)
                    rows[name] = await cursor.fetchall()
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                continue  # judge() reports the missing part
    return judge(target, rows)


def discover(
    conn: psycopg.Connection[Any], *, runtime_role: str | None = None, tenant_column: str | None = None
) -> list[Target]:
    """Return every table with a pgvector column, each with its tenant column and setting.

    Args:
        conn: The connection.
        runtime_role: The role to judge; by default the role of the connection.
        tenant_column: The tenant column. By default it is guessed, and "" if no column has a well-known name.

    Returns:
        The targets. The setting is the one that the table's policies compare the tenant with.
    """
    with conn.transaction(force_rollback=True):
        conn.execute(SAFE_PATH)
        rows = conn.cursor(row_factory=tuple_row).execute(DISCOVER.replace("%%", "%")).fetchall()
    return [_guess(row, runtime_role, tenant_column) for row in rows]


async def adiscover(
    conn: psycopg.AsyncConnection[Any], *, runtime_role: str | None = None, tenant_column: str | None = None
) -> list[Target]:
    """`discover` for asyncio."""
    async with conn.transaction(force_rollback=True):
        await conn.execute(SAFE_PATH)
        cursor = await conn.cursor(row_factory=tuple_row).execute(DISCOVER.replace("%%", "%"))
        rows = await cursor.fetchall()
    return [_guess(row, runtime_role, tenant_column) for row in rows]


def _guess(row: tuple[Any, ...], runtime_role: str | None, tenant_column: str | None) -> Target:
    schema, table, names, kinds, policies, others = row
    fields = candidates(dict(zip(names, kinds, strict=True)), [*policies, *others])
    field = _bound_by(fields, policies) or (fields[0] if fields else None)
    if tenant_column is not None:
        field = parse(tenant_column, names)
    rest = [str(one) for one in fields if one != field]
    default = Target()
    return Target(
        schema=schema,
        table=table,
        tenant_column=str(field) if field is not None else "",
        setting=_setting(field, policies) or default.setting,
        runtime_role=runtime_role,
        foreign=True,
        guessed=field is not None and tenant_column is None,
        others=tuple(rest),
    )


def _bound_by(fields: list[TenantField], policies: list[str]) -> TenantField | None:
    """Return the first candidate that the policies compare with the session: a better guess than by name."""
    for field in fields:
        bounds = [bind(text, field) for text in policies]
        if any(bound is not None and bound.binding in (Binding.SETTING, Binding.ROLE) for bound in bounds):
            return field
    return None


def _setting(field: TenantField | None, policies: list[str]) -> str | None:
    """Return the setting that the policies compare the tenant with, else the only setting that they read."""
    bounds = [bind(text, field) for text in policies] if field is not None else []
    binding = frozenset().union(*(b.settings for b in bounds if b is not None and b.binding is Binding.SETTING))
    read = binding or frozenset().union(*(settings_in(text) for text in policies))
    return next(iter(read)) if len(read) == 1 else None
