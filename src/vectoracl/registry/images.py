"""Changes as data: the journal keeps them, and a registry that was restored takes them over again.

An image holds the rows that the change touched, as they are after it, and not how they came about: to apply it twice,
or over a state that already has a part of it, is harmless.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.registry import labels
from vectoracl.registry import tables as t
from vectoracl.registry.database import Change
from vectoracl.registry.reading import in_slices
from vectoracl.registry.scopes import HELD

Image = dict[str, Any]
FLOOR_STEP = 1 << 20
"""How many generations are left out after a restore: tickets are not in the journal, and no number is used again."""


def image_of(change: Change) -> Image:
    """Return the rows that *change* has touched."""
    connection, tenant, touched = change.connection, change.tenant, change.touched
    names = sorted(touched.documents)
    return {
        "clock": change.now,
        "parent": connection.execute(sa.select(t.tenants.c.parent).where(t.tenants.c.tenant == tenant)).scalar_one(),
        "floor": change.floor,
        "documents": dict.fromkeys(names) | _by_key(connection, t.documents, tenant, "document", names),
        "overlay": _by_key(connection, t.overlay, tenant, "document", names),
        "holds": _rows(connection, t.holds, tenant, "document", names),
        "access": _rows(connection, t.access, tenant, "document", names),
        "sources": _rows(connection, t.sources, tenant),
        "labels": dict.fromkeys(touched.labels)
        | _by_key(connection, t.labels, tenant, "label", sorted(touched.labels)),
        "entries": _rows(connection, t.entries, tenant, "label", sorted(touched.labels)),
        "vouchers": [
            row
            for row in _rows(connection, t.vouchers, tenant, "label", sorted(touched.labels))
            if row["owner"] == row["label"]
        ],
        "quarantine": _rows(connection, t.quarantine, tenant),
        "marks": _rows(connection, t.marks, tenant),
        "history": list(touched.history),
    }


def _rows(
    connection: Connection, table: sa.Table, tenant: str, column: str | None = None, names: Iterable[str] = ()
) -> list[dict[str, Any]]:
    """Return rows of *tenant* without their generated ids; those whose *column* is one of *names*, or all."""
    parts = [one for one in table.c if one.name not in ("id", "tenant")]
    statement = sa.select(*parts).where(table.c.tenant == tenant)
    order = table.c.get("id") if "id" in table.c else parts[0]
    chosen = (
        [statement] if column is None else [statement.where(table.c[column].in_(p)) for p in in_slices(list(names))]
    )
    return [dict(row._mapping) for one in chosen for row in connection.execute(one.order_by(order))]  # noqa: SLF001 - SQLAlchemy's own public name


def _by_key(
    connection: Connection, table: sa.Table, tenant: str, column: str, names: Iterable[str]
) -> dict[str, dict[str, Any] | None]:
    return {row[column]: row for row in _rows(connection, table, tenant, column, names)}


def apply(connection: Connection, tenant: str, version: int, image: Image) -> None:
    """Write *image* over what *tenant* has, and note its *version*. Tickets end: their writers are gone."""
    _apply_documents(connection, tenant, image)
    _apply_labels(connection, tenant, image)
    for table in (t.quarantine, t.marks, *((t.sources,) if "sources" in image else ())):
        connection.execute(table.delete().where(table.c.tenant == tenant))
        _insert(connection, table, tenant, image[table.name.removeprefix("vectoracl_")])
    _insert(connection, t.history, tenant, image["history"])
    c = t.tenants.c
    values = {"version": version, "parent": image["parent"], "floor": image["floor"], "clock": image["clock"]}
    connection.execute(t.tenants.update().where(c.tenant == tenant).values(**values))


def _insert(connection: Connection, table: sa.Table, tenant: str, rows: Iterable[Mapping[str, Any]]) -> None:
    given = [{**row, "tenant": tenant} for row in rows]
    if given:
        connection.execute(table.insert(), given)


def _apply_documents(connection: Connection, tenant: str, image: Image) -> None:
    names = sorted(image["documents"])
    known: dict[str, set[str]] = {}
    for part in in_slices(names):
        c = t.documents.c
        rows = connection.execute(
            sa.select(c.document, c.stored_labels).where(c.tenant == tenant, c.document.in_(part))
        )
        known.update({row.document: set(json.loads(row.stored_labels)) for row in rows})
        # The journal of a version without sources says nothing of access.
        of_access = (t.access,) if "access" in image else ()
        for table in (t.documents, t.holds, t.overlay, *of_access):
            connection.execute(table.delete().where(table.c.tenant == tenant, table.c.document.in_(part)))
    found = {name: row for name, row in image["documents"].items() if row is not None}
    _insert(
        connection, t.documents, tenant, [_without_ticket(row, known.get(name, set())) for name, row in found.items()]
    )
    _insert(connection, t.holds, tenant, image["holds"])
    _insert(connection, t.overlay, tenant, image["overlay"].values())
    _insert(connection, t.access, tenant, image.get("access", ()))


def _without_ticket(row: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Return the row of a document without its ticket, and with each label that its chunks may carry."""
    may = known | set(json.loads(row["stored_labels"]))
    if row["generation"] is not None:
        may |= {row["label"], HELD}  # a capture, which is not in the journal, notes what it is about to write
    return {**row, "ticket": None, "ticket_at": None, "stored_labels": json.dumps(sorted(may))}


def _apply_labels(connection: Connection, tenant: str, image: Image) -> None:
    names = sorted(image["labels"])
    for table in (t.labels, t.entries, t.grants, t.values, t.vouchers):
        for part in in_slices(names):
            connection.execute(table.delete().where(table.c.tenant == tenant, table.c.label.in_(part)))
    found = [row for row in image["labels"].values() if row is not None]
    _insert(connection, t.labels, tenant, found)
    _insert(connection, t.entries, tenant, image["entries"])
    _insert(connection, t.vouchers, tenant, image.get("vouchers", ()))
    for row in found:
        labels.rebuild(connection, tenant, row["label"])


def finish(connection: Connection, tenant: str) -> None:
    """Count the chunks of labels again, and leave out generations that may have been given out."""
    d, c = t.documents.c, t.labels.c
    number = sa.select(sa.func.coalesce(sa.func.sum(d.chunks), 0)).where(d.tenant == tenant, d.label == c.label)
    connection.execute(t.labels.update().where(c.tenant == tenant).values(chunks=number.scalar_subquery()))
    last = connection.execute(sa.select(sa.func.max(d.last_generation)).where(d.tenant == tenant)).scalar()
    floor = max(
        last or 0, connection.execute(sa.select(t.tenants.c.floor).where(t.tenants.c.tenant == tenant)).scalar_one()
    )
    values = {"floor": floor + FLOOR_STEP}
    connection.execute(t.tenants.update().where(t.tenants.c.tenant == tenant).values(**values))
