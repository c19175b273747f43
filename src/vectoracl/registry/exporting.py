"""A registry as a file, and back: JSON Lines, a row a line, in the order in which they can be inserted.

An import is a restore: what changed after the export is noticed by the marks of the stores and by the journal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.registry import images, migrate
from vectoracl.registry import tables as t
from vectoracl.registry.database import Database
from vectoracl.registry.reading import in_slices
from vectoracl.registry.row_security import name_tenants
from vectoracl.registry.sql_registry import Registry

FORMAT = 1
_BATCH = 500


def lines(registry: Registry) -> Iterator[str]:
    """Yield the lines of an export, all of one moment. Raises: StoreError."""
    database = registry.database.owner
    head = {"vectoracl_registry": FORMAT, "tables": migrate.head(database), "id": registry.identity()}
    yield json.dumps(head)
    number = 0
    with database.read() as connection:
        registry.database.check_lists(connection)
        listed = connection.execute(sa.select(t.tenants.c.tenant).order_by(t.tenants.c.tenant)).scalars().all()
        for table in t.metadata.sorted_tables:
            if table is not t.meta:
                for part in in_slices(listed, _BATCH):
                    name_tenants(connection, part)
                    for row in _rows(connection, table, part):
                        number += 1
                        yield json.dumps({"table": table.name, "row": row})
    yield json.dumps({"rows": number})


def _rows(connection: Connection, table: sa.Table, tenants: Sequence[str]) -> Iterator[dict[str, Any]]:
    parts = [one for one in table.c if one.name != "id"]
    order = [one for one in table.c if one.primary_key]
    for row in connection.execute(sa.select(*parts).where(table.c.tenant.in_(tenants)).order_by(*order)):
        yield dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's own public name


def load(registry: Registry, given: Iterable[str]) -> int:
    """Fill *registry*, which has tables and no content, from an export; returns the number of rows.

    Nothing is written unless the file is whole. Raises: InvalidInputError for a file that is not an export;
    RefusedError for a registry that has content; StoreError.
    """
    database, rows = registry.database.owner, iter(given)
    identity = _head(next(rows, ""), database)
    with database.write() as connection:
        registry.database.check_lists(connection)
        if connection.execute(sa.select(t.tenants.c.tenant).limit(1)).first() is not None:
            raise RefusedError(
                "The registry has content already. Set registry.url to a new database, and import into that.",
                field="registry",
            )
        number = _insert_all(connection, rows)
        for tenant in list(connection.execute(sa.select(t.tenants.c.tenant)).scalars()):
            name_tenants(connection, (tenant,))
            images.finish(connection, tenant)  # generations may have been given out since the export
        connection.execute(t.meta.update().where(t.meta.c.name == "id").values(value=identity))
    registry.forget_identity()
    return number


def _head(line: str, database: Database) -> str:
    head = _object(line)
    identity = head.get("id")
    if head.get("vectoracl_registry") != FORMAT or not isinstance(identity, str) or not identity:
        raise InvalidInputError("The file is not an export of a registry, or of a later version.", field="file")
    if head.get("tables") != migrate.head(database):
        raise InvalidInputError(
            f"The export is of version {head.get('tables')} of the registry's tables and this library needs "
            f"{migrate.head(database)}. Import it with the library that made it, then update.",
            field="file",
        )
    return identity


def _object(line: str) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInputError("A line of the file is not a JSON object: it is damaged or cut off.", field="file")
    return found


def _insert_all(connection: Connection, rows: Iterator[str]) -> int:
    """Insert every row; the last line has to say how many there are."""
    known = {table.name: table for table in t.metadata.sorted_tables if table is not t.meta}
    batch: list[dict[str, Any]] = []
    current: sa.Table | None = None
    for number, line in enumerate(rows):
        one = _object(line)
        if set(one) == {"rows"}:
            _flush(connection, current, batch)
            if one["rows"] != number or next(rows, "").strip():
                break
            return number
        table = known.get(str(one.get("table")))
        row = one.get("row")
        if table is None or not isinstance(row, dict) or set(row) != {c.name for c in table.c if c.name != "id"}:
            raise InvalidInputError("A line of the file is not a row of a registry.", field="file")
        if any(isinstance(value, float) and not math.isfinite(value) for value in row.values()):
            raise InvalidInputError("A line of the file has a number that is not finite.", field="file")
        if table is not current or len(batch) >= _BATCH:
            _flush(connection, current, batch)
            batch, current = [], table
        batch.append(row)
    raise InvalidInputError("The file has another number of rows than it says: it is damaged or cut off.", field="file")


def _flush(connection: Connection, table: sa.Table | None, batch: list[dict[str, Any]]) -> None:
    if table is not None and batch:
        name_tenants(connection, {str(row["tenant"]) for row in batch})
        connection.execute(table.insert(), batch)
