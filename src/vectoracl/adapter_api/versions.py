"""Reads that assert the versions of a registry which lives in the store's own database, in the same snapshot.

Then a call needs no question to the registry before it reads: its filter was right at the moment that the rows are of,
or nothing is read.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from vectoracl.adapter_api.contract import Flow, Request

R = TypeVar("R")

RIGHTS_CHANGED = "rights_changed"
"""The code of the StoreError that a read raises whose assertion does not hold."""

COLUMNS = ("tenant", "version", "clock", "stopped")
"""The columns of the registry's table that an assertion reads."""

# The start of a server, to the microsecond, with the numbers of database and table is one table of one server: a copy
# of the table, a replica or a restored server has another one. None on a server that is following another one.
WITNESS_SQL = (
    "SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.concat('started ', pg_catalog.to_char("
    "pg_catalog.pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'), ', database ', "
    "(SELECT one.oid FROM pg_catalog.pg_database AS one WHERE one.datname = pg_catalog.current_database()), "
    "', table ', found.id) END AS place, CAST(CURRENT_USER AS pg_catalog.text) AS role, "
    "(SELECT pg_catalog.bool_and(pg_catalog.has_column_privilege(found.id, name, 'SELECT')) "
    "FROM pg_catalog.unnest(ARRAY['tenant', 'version', 'clock', 'stopped']) AS name) AS readable "
    "FROM (SELECT CAST(pg_catalog.to_regclass(%s) AS pg_catalog.oid) AS id) AS found WHERE found.id IS NOT NULL"
)
"""The statement for PostgreSQL behind a `Witness`, which the registry and the store answer alike; `%s` is the table."""


class VersionTable(NamedTuple):
    """The registry's table of tenants, by its schema and name."""

    schema: str
    name: str

    @property
    def quoted(self) -> str:
        """The name in SQL."""
        return ".".join('"' + one.replace('"', '""') + '"' for one in self)


class Witness(NamedTuple):
    """The registry's table as a connection reaches it.

    Attributes:
        place: A text that is equal only for the same table of the same server; None where that is not certain.
        role: The role of the connection.
        readable: Whether the role may read what an assertion needs.
    """

    place: str | None
    role: str
    readable: bool


class ExpectedVersion(NamedTuple):
    """The condition on the moment of a read: the tenant has this version, is not stopped, and `until` is to come."""

    table: VersionTable
    tenant: str
    version: int
    until: float


@runtime_checkable
class Asserting(Protocol):
    """An `Adapter` whose reads can assert a version of a registry in the store's own database."""

    def witness(self, table: VersionTable) -> Flow[Witness | None]:
        """Return how the store's connection reaches the registry's table; None if there is no such table."""
        ...

    def asserted(self, request: Request[R], expected: ExpectedVersion) -> Request[R]:
        """Return *request*, a read of the adapter's own flows, so that it reads only while *expected* holds.

        Both are of one snapshot. Otherwise the request fails with a StoreError with the code `RIGHTS_CHANGED`.
        Raises: RefusedError for a request that cannot assert anything.
        """
        ...


def witness_of(row: Any) -> Witness | None:
    """Return a row of `WITNESS_SQL` as a value."""
    return None if row is None else Witness(row[0], str(row[1]), row[2] is True)
