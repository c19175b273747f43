"""The two reads that every call makes, on PostgreSQL in one exchange, where SQLAlchemy takes six.

All statements are one message with their values in it, which every pooler passes on as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from vectoracl.registry.database import Database, failed
from vectoracl.registry.reading import LIVE
from vectoracl.registry.row_security import SETTING, array_literal
from vectoracl.registry.scopes import DocumentState, Probe

States = dict[tuple[str, str], DocumentState]
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NAME = "SELECT pg_catalog.set_config(%s, %s, true), extract(epoch FROM pg_catalog.clock_timestamp())::float8"
_VERSIONS = "SELECT tenant, version, clock, stopped FROM vectoracl_governed_tenants WHERE tenant = ANY (%s::text[])"
_DOCUMENTS = (
    "SELECT tenant, document, label, generation, expires, state, held, rev FROM vectoracl_documents "
    "WHERE tenant = %s::text AND document = ANY (%s::text[])"
)


def short_reader(database: Database) -> PostgresReader | None:
    """Return the reader for PostgreSQL through psycopg; None for other databases and drivers."""
    return PostgresReader(database) if database.engine.dialect.driver == "psycopg" else None


class PostgresReader:
    """Reads versions and documents over connections of a database whose driver is psycopg."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, tenants: Sequence[str], documents: Iterable[tuple[str, str]] = ()) -> tuple[Probe, States]:
        """Return the versions of *tenants*, and the rows of *documents*, (tenant, document), of one moment.

        Raises: StoreError.
        """
        by_tenant: dict[str, list[str]] = {}
        for tenant, document in documents:
            by_tenant.setdefault(tenant, []).append(document)
        driver: Any = self._database.engine.dialect.loaded_dbapi
        caught: Exception
        try:
            now, rows, found = self._read(tenants, by_tenant)
        except (driver.Error, SQLAlchemyError) as error:
            caught = error
        else:
            return self._probe(tenants, rows, now), _states(found)
        raise failed(caught, writing=False)

    def _read(self, tenants: Sequence[str], by_tenant: dict[str, list[str]]) -> tuple[float, list[Any], list[Any]]:
        statements = [_BEGIN, _NAME, _VERSIONS, *[_DOCUMENTS] * len(by_tenant), "COMMIT"]
        values: list[Any] = [SETTING, array_literal([*tenants, *by_tenant]), list(tenants)]
        for tenant, names in by_tenant.items():
            values += [tenant, names]
        driver: Any = self._database.engine.dialect.loaded_dbapi
        with self._connection() as connection, driver.ClientCursor(connection) as cursor:
            cursor.execute("; ".join(statements), values)
            answers = []
            while cursor.nextset():  # the first is that of BEGIN
                answers.append(cursor.fetchall() if cursor.description else [])
        ((_, now),), rows, *found, _ = answers
        return now, rows, [row for one in found for row in one]

    def _probe(self, tenants: Sequence[str], rows: Sequence[Any], now: float) -> Probe:
        versions = dict.fromkeys(tenants, 0) | {tenant: version for tenant, version, _, _ in rows}
        stopped = {tenant: reason for tenant, _, _, reason in rows if reason is not None}
        return Probe(versions, max([self._database.forward(now), *(clock for _, _, clock, _ in rows)]), stopped)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Lend a connection of the pool, on which only the statements themselves begin and end a transaction."""
        engine = self._database.engine
        lent = engine.raw_connection()
        connection: Any = lent.driver_connection
        try:
            connection.autocommit = True
            yield connection
            connection.autocommit = False
        except BaseException:
            lost = connection.closed
            lent.invalidate()
            if lost:  # with the server, as a rule, and the pool's other connections with it
                engine.dispose()
            raise
        finally:
            lent.close()


def _states(rows: Iterable[Any]) -> States:
    return {
        (tenant, document): DocumentState(label, generation, expires, state == LIVE, bool(held), rev)
        for tenant, document, label, generation, expires, state, held, rev in rows
    }
