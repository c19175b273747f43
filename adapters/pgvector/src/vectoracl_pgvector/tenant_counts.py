"""Counts the rows of many tenants, each under its own scope.

No role sees the rows of several tenants, not even the owner, so a `GROUP BY` over them would be empty. Tenants of the
shared partition are counted many by one statement instead: for each row of a list of tenants it sets the scope and then
counts, so that the policy of the partition is applied to each count with the scope of that tenant. Tenants elsewhere
are counted by a statement each, without waiting for one count before the next is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import psycopg

from vectoracl.errors import StoreError
from vectoracl_pgvector.names import NO_JIT, SETTING, Names

BATCH = 25
"""The number of tenants that are counted in one transaction: its locks on their partitions make a move wait."""
TOGETHER = 1000
"""The number of tenants of the shared partition that one statement counts."""


def tenant_counts(
    connection: psycopg.Connection[Any], names: Names, tenants: Sequence[str], shared: Collection[str] = ()
) -> Iterator[tuple[str, int]]:
    """Yield each of *tenants* with its number of rows, in any order.

    Args:
        connection: A connection of the owner in autocommit mode.
        names: The table.
        tenants: The tenants.
        shared: Those of them whose rows are in the shared partition and nowhere else.
    """
    together = [tenant for tenant in tenants if tenant in shared]
    yield from _shared(connection, names, together)
    yield from _anywhere(connection, names, [tenant for tenant in tenants if tenant not in shared])


def _shared(connection: psycopg.Connection[Any], names: Names, tenants: Sequence[str]) -> Iterator[tuple[str, int]]:
    # Without ORDER BY, which could set every scope before the first count. OFFSET keeps the two levels apart.
    count = (
        f"SELECT listed.tenant, (SELECT count(*) FROM {names.default} AS part "
        f"WHERE part.{names.c.tenant} = listed.tenant), pg_catalog.current_setting(%s, true) "
        "FROM (SELECT one.tenant, pg_catalog.set_config(%s, one.tenant, true) AS scope "
        "FROM pg_catalog.unnest(%s::text[]) AS one(tenant) OFFSET 0) AS listed WHERE listed.scope = listed.tenant"
    )
    for start in range(0, len(tenants), TOGETHER):
        batch = list(tenants[start : start + TOGETHER])
        with connection.transaction():
            connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", NO_JIT)
            rows = connection.execute(count, (SETTING, SETTING, batch), prepare=False).fetchall()
        if [row[0] for row in rows] != batch or any(tenant != scope for tenant, _, scope in rows):
            raise StoreError(
                "Tenants were counted under other scopes than their own, so no count is shown. This is a fault of "
                "vectoracl with this server's version: please report it.",
                code="internal",
                adapter="pgvector",
                sent="no",
            )
        yield from ((tenant, int(number)) for tenant, number, _ in rows)


def _anywhere(connection: psycopg.Connection[Any], names: Names, tenants: Sequence[str]) -> Iterator[tuple[str, int]]:
    settings = "SELECT pg_catalog.set_config(%s, %s, true), pg_catalog.set_config(%s, %s, true)"
    count = f"SELECT count(*) FROM {names.table} WHERE {names.c.tenant} = %s"
    for start in range(0, len(tenants), BATCH):
        batch = tenants[start : start + BATCH]
        counted = []
        with connection.pipeline(), connection.transaction():
            for tenant in batch:
                connection.execute(settings, (SETTING, tenant, *NO_JIT))
                counted.append(connection.execute(count, (tenant,)))
        numbers = [row[0] for row in (cursor.fetchone() for cursor in counted) if row]
        yield from zip(batch, map(int, numbers), strict=True)
