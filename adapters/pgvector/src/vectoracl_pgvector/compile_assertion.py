"""Compiles a read that asserts the version of its tenant in a registry of the same database. Pure.

The statement becomes a common table expression, which is planned as it is alone, and the assertion the limit of the
outer statement. PostgreSQL evaluates a limit before it takes the first row, also where there is none, and a statement
has one snapshot: so the rows are those of the moment at which the version was compared, or the statement fails.

The runtime role sees one row of that table, by the policy: that of the tenant whose rows the transaction reads.
"""

from __future__ import annotations

from dataclasses import replace

from vectoracl.adapter_api.versions import ExpectedVersion
from vectoracl_pgvector.names import RIGHTS_CHANGED
from vectoracl_pgvector.requests import Statement

# The text is cast to a number only where the version is another one: the count is not known to the planner.
_LIMIT = (
    "(SELECT CAST(CASE WHEN count(*) = 1 THEN NULL ELSE '{marker}' END AS int8) FROM {table} AS governed "
    "WHERE governed.tenant = %s::text AND governed.version = %s::int8 AND governed.stopped IS NULL "
    "AND GREATEST(governed.clock, extract(epoch FROM clock_timestamp())::float8) < %s::float8)"
)


def with_version(statement: Statement, expected: ExpectedVersion) -> Statement:
    """Return *statement*, which returns rows, so that it fails unless *expected* holds."""
    assert isinstance(statement.params, tuple)
    limit = _LIMIT.format(marker=RIGHTS_CHANGED, table=expected.table.quoted.replace("%", "%%"))
    return replace(
        statement,
        sql=f"WITH asserted AS MATERIALIZED ({statement.sql}) SELECT * FROM asserted LIMIT {limit}",
        params=(*statement.params, expected.tenant, expected.version, expected.until),
    )
