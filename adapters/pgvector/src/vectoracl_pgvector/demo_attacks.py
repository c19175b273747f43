"""The attacks of `vectoracl demo` that bypass the API: hand-written SQL as the runtime role. Always rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from vectoracl.adapter_api.demo_attacks import AttackContext, Attempt
from vectoracl.errors import StoreError, without_context
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.dsn import Connections
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.names import SETTING, Names

_ROUNDS = 25
_K = 5


@without_context
def attempts(config: PgvectorConfig, where: Connections, forging: AttackContext) -> list[Attempt]:
    """Run the attacks on one connection of the runtime role, and on a pool of one. Raises: StoreError."""
    dsn = where.runtime()
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            attempts_made = [_untagged(connection, config, forging), _other_tag(connection, config, forging)]
        return [*attempts_made, _stale(dsn, config, forging)]
    except psycopg.Error as error:
        raise mapped(error, debug=False, action="demo") from None


def _insert(connection: psycopg.Connection[Any], config: PgvectorConfig, tenant: str | None, scope: str | None) -> str:
    """Insert one row with the tag *tenant* under the scope *scope*; return the error, or "" if there is none.

    The transaction is always rolled back.
    """
    names = Names.of(config)
    c = names.c
    columns = (
        f"{c.tenant}, {c.document}, {c.generation}, {c.chunk}, {c.label}, {c.rev}, {c.expires}, {c.producer}, "
        f"{c.path}, {c.time}, {c.position}, {c.text}, {c.metadata}, {c.vector}"
    )
    vector = "[" + ",".join(["1", *["0"] * (config.dimension - 1)]) + "]"
    try:
        with connection.transaction(force_rollback=True):
            if scope is not None:
                connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (SETTING, scope))
            connection.execute(
                f"INSERT INTO {names.table} ({columns}) VALUES (%s, 'forged', 0, 'forged', 'default', 0, 1e11, '', "
                f"'forged', 0, 0, 'forged', '{{}}', %s::{names.vector_type})",
                (tenant, vector),
            )
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        # The first line names the table and the rule; only later lines quote the row.
        return f"{type(error).__name__}: {(error.diag.message_primary or '').strip()}"
    return ""


def _refused(attack: str, tried: str, errors: Sequence[str]) -> Attempt:
    return Attempt(attack, tried, "refused" if all(errors) else "LEAK", next(filter(None, errors), None))


def _untagged(connection: psycopg.Connection[Any], config: PgvectorConfig, forging: AttackContext) -> Attempt:
    # Without a tenant, and with a tenant in the row but no scope on the connection, as a hand-written script does.
    errors = [_insert(connection, config, None, None), _insert(connection, config, forging.foreign.tenant, None)]
    errors.append(_insert(connection, config, None, forging.own.tenant))
    return _refused("untagged write", "INSERT as the runtime role, with no scope or no tenant", errors)


def _other_tag(connection: psycopg.Connection[Any], config: PgvectorConfig, forging: AttackContext) -> Attempt:
    errors = _insert(connection, config, forging.foreign.tenant, forging.own.tenant)
    return _refused("other tenant's tag", "INSERT in one tenant's scope of a row tagged with another's", [errors])


def _stale(dsn: str, config: PgvectorConfig, forging: AttackContext) -> Attempt:
    """Serve one tenant many times on a pool of one connection, then use that connection without a scope."""
    names = Names.of(config)
    tried = f"SELECT without a scope on the connection that has just served another tenant {_ROUNDS} times"
    kwargs = {"autocommit": True, "prepare_threshold": None}
    with ConnectionPool(dsn, kwargs=kwargs, min_size=1, max_size=1, open=True, name="vectoracl-demo") as pool:
        pool.wait(config.connect_timeout)
        with pool.connection() as connection:
            served = connection.info.backend_pid
        with forging.reopen(pool) as acl:
            attacker = acl.scoped(forging.own)
            for _ in range(_ROUNDS):
                attacker.search(forging.vector, k=_K)
            with pool.connection() as connection:
                if connection.info.backend_pid != served:  # else it would prove nothing
                    raise StoreError("The pool changed its connection; the attack was not measured.", sent="no")
                rows = _count(connection, f"SELECT count(*) FROM {names.table}")
                rows += _count(connection, f"SELECT count(*) FROM {names.table} WHERE {names.c.tenant} <> ''")
            after = acl.scoped(forging.foreign).search(forging.vector, k=_K)
    foreign = sum(hit.tenant != forging.foreign.tenant for hit in after)
    if rows or foreign:
        return Attempt("stale connection", tried, "LEAK", f"{rows + foreign} rows")
    if not after.complete:
        return Attempt("stale connection", tried, "LEAK", "the next tenant got fewer hits than it has")
    return Attempt("stale connection", tried, "nothing")


def _count(connection: psycopg.Connection[Any], sql: str) -> int:
    row = connection.execute(sql.encode()).fetchone()
    return int(row[0]) if row else 0
