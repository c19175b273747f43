"""Definitions of labels: they change in place, in one transaction, and no chunk is written for it.

What is in effect for a label (the entries and attributes of its parents included) is stored with it, so that a read
needs no walk: a definition that changes rebuilds the label and those below it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.registry import tables as t
from vectoracl.registry.database import Change
from vectoracl.registry.reading import in_slices
from vectoracl.registry.settings import RegistrySettings
from vectoracl.registry.values import MAX_ENTRIES, Entry, LabelDefinition

MAX_LABEL_DEPTH = 32
MADE = "@"
"""The beginning of the names of labels of sources."""


def exists(connection: Connection, tenant: str, name: str) -> bool:
    """Return whether *tenant* has the label."""
    c = t.labels.c
    return connection.execute(sa.select(c.label).where(c.tenant == tenant, c.label == name)).first() is not None


def existing(connection: Connection, tenant: str, names: Sequence[str]) -> set[str]:
    """Return those of *names* that are labels."""
    c, found = t.labels.c, set[str]()
    for part in in_slices(names):
        found.update(connection.execute(sa.select(c.label).where(c.tenant == tenant, c.label.in_(part))).scalars())
    return found


def check_known(connection: Connection, tenant: str, name: str) -> None:
    """Refuse a label that does not exist. Raises: RefusedError."""
    if not exists(connection, tenant, name):
        raise RefusedError(f"There is no label {name!r} in this tenant; create it first.", field="label")


def define(change: Change, settings: RegistrySettings, given: LabelDefinition, by: str, reason: str) -> None:
    """Create a label, or change its definition. Raises: InvalidInputError; RefusedError for a circle."""
    attributes = {name: _attribute(settings, name, value) for name, value in given.attributes.items()}
    if len(given.entries) > MAX_ENTRIES:
        raise InvalidInputError(f"A label has at most {MAX_ENTRIES:,} entries.", field="entries")
    connection, tenant = change.connection, change.tenant
    if given.parent is not None:
        _check_parent(connection, tenant, given.name, given.parent)
    c = t.labels.c
    values = {
        "parent": given.parent,
        "attributes": json.dumps(attributes, sort_keys=True),
        "children": given.children,
        "shared": given.shared,
    }
    if exists(connection, tenant, given.name):
        check_given(connection, tenant, given.name)
        connection.execute(t.labels.update().where(c.tenant == tenant, c.label == given.name).values(**values))
    else:
        if given.name.startswith(MADE):
            raise InvalidInputError(f"Names that begin with {MADE} are those of labels of sources.", field="label")
        connection.execute(t.labels.insert().values(tenant=tenant, label=given.name, chunks=0, **values))
    e = t.entries.c
    connection.execute(t.entries.delete().where(e.tenant == tenant, e.label == given.name))
    if given.entries:
        connection.execute(t.entries.insert(), [_row(tenant, given.name, one) for one in given.entries])
    rebuild(connection, tenant, given.name)
    change.touched.labels.add(given.name)
    change.noted("label", given.name, by, reason, {**values, "entries": [_row("", "", one) for one in given.entries]})


def drop(change: Change, name: str, by: str, reason: str) -> None:
    """Remove a label that no document and no other label uses. Raises: RefusedError."""
    connection, tenant = change.connection, change.tenant
    check_given(connection, tenant, name)
    d, c = t.documents.c, t.labels.c
    used = connection.execute(sa.select(d.document).where(d.tenant == tenant, d.label == name).limit(1)).first()
    below = connection.execute(sa.select(c.label).where(c.tenant == tenant, c.parent == name).limit(1)).first()
    if used is not None or below is not None:
        raise RefusedError(
            f"The label {name!r} is still used by {'documents' if used else 'a label below it'}; move those first.",
            field="label",
        )
    _remove(change, name)
    change.noted("drop label", name, by, reason)


def _remove(change: Change, name: str) -> None:
    for table in (t.labels, t.entries, t.grants, t.values, t.vouchers):
        change.connection.execute(table.delete().where(table.c.tenant == change.tenant, table.c.label == name))
    change.touched.labels.add(name)


# --- labels of sources ---


def may_be_below(change: Change, name: str, parent: str) -> bool:
    """Return whether *name* can be below *parent*: no circle, and no tree that is too deep."""
    try:
        _check_parent(change.connection, change.tenant, name, parent)
    except RefusedError:
        return False
    return True


def is_made(connection: Connection, tenant: str, name: str) -> bool:
    """Return whether a source of rights has made the label; see `sources`."""
    c = t.vouchers.c
    statement = sa.select(c.label).where(c.tenant == tenant, c.label == name, c.owner == name).limit(1)
    return connection.execute(statement).first() is not None


def check_given(connection: Connection, tenant: str, name: str) -> None:
    """Refuse a label that a source of rights has made: only its feed changes it. Raises: RefusedError."""
    if is_made(connection, tenant, name):
        raise RefusedError(
            f"The label {name!r} was made for what a source of rights says, and only its feed changes it.",
            field="label",
        )


def make(
    change: Change, name: str, parent: str | None, entries: tuple[Entry, ...], vouchers: Mapping[str, float]
) -> bool:
    """Create or change a label of sources, which vouch for it until their times; return whether it is another now.

    Raises: RefusedError for a circle, a tree that is too deep, or a label of that name that a governor has defined.
    """
    connection, tenant = change.connection, change.tenant
    c, e, w = t.labels.c, t.entries.c, t.vouchers.c
    there = connection.execute(sa.select(c.parent).where(c.tenant == tenant, c.label == name)).first()
    if there is not None and not is_made(connection, tenant, name):
        raise RefusedError(f"A governor has defined a label {name!r}; move its documents and drop it.", field="label")
    own = (w.tenant == tenant, w.label == name, w.owner == name)
    rows = [_row(tenant, name, one) for one in entries]
    if there is not None and there.parent == parent:
        found = {row.source: row.valid_until for row in connection.execute(sa.select(t.vouchers).where(*own))}
        if found == dict(vouchers) and _same_entries(connection, tenant, name, rows):
            return False
    if parent is not None:
        _check_parent(connection, tenant, name, parent)
    if there is None:
        blank = {"attributes": "{}", "children": False, "shared": False, "chunks": 0}
        connection.execute(t.labels.insert().values(tenant=tenant, label=name, parent=parent, **blank))
    else:
        connection.execute(t.labels.update().where(c.tenant == tenant, c.label == name).values(parent=parent))
    connection.execute(t.entries.delete().where(e.tenant == tenant, e.label == name))
    if rows:
        connection.execute(t.entries.insert(), rows)
    connection.execute(t.vouchers.delete().where(*own))
    common = {"tenant": tenant, "label": name, "owner": name}
    given = [{**common, "source": source, "valid_until": until} for source, until in vouchers.items()]
    connection.execute(t.vouchers.insert(), given)
    rebuild(connection, tenant, name)
    change.touched.labels.add(name)
    return True


def _same_entries(connection: Connection, tenant: str, name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    e = t.entries.c
    parts = ("subject", "allow", "can_write", "valid_from", "valid_until")
    found = connection.execute(sa.select(*(e[one] for one in parts)).where(e.tenant == tenant, e.label == name))
    return {tuple(row) for row in found} == {tuple(row[one] for one in parts) for row in rows}


def unmake(change: Change, name: str) -> None:
    """Remove a label of sources if nothing uses it any more; one of a governor is left alone."""
    connection, tenant = change.connection, change.tenant
    d, c = t.documents.c, t.labels.c
    if not is_made(connection, tenant, name):
        return
    used = connection.execute(sa.select(d.document).where(d.tenant == tenant, d.label == name).limit(1)).first()
    below = connection.execute(sa.select(c.label).where(c.tenant == tenant, c.parent == name).limit(1)).first()
    if used is None and below is None:
        _remove(change, name)


def listed(connection: Connection, tenant: str) -> list[LabelDefinition]:
    """Return the labels of *tenant* with their own definitions."""
    e, c = t.entries.c, t.labels.c
    own: dict[str, list[Entry]] = {}
    for row in connection.execute(sa.select(t.entries).where(e.tenant == tenant).order_by(e.id)):
        entry = Entry(row.subject, bool(row.allow), bool(row.can_write), row.valid_from, row.valid_until)
        own.setdefault(row.label, []).append(entry)
    rows = connection.execute(sa.select(t.labels).where(c.tenant == tenant).order_by(c.label))
    return [
        LabelDefinition(
            row.label,
            row.parent,
            json.loads(row.attributes),
            tuple(own.get(row.label, ())),
            bool(row.children),
            bool(row.shared),
            row.chunks,
        )
        for row in rows
    ]


def counted(connection: Connection, tenant: str, label: str, more: int) -> None:
    """Add *more* to the number of chunks of a label."""
    if more:
        c = t.labels.c
        connection.execute(
            t.labels.update().where(c.tenant == tenant, c.label == label).values(chunks=t.labels.c.chunks + more)
        )


def _attribute(settings: RegistrySettings, name: str, value: object) -> str | float | bool:
    declared = settings.attributes.get(name)
    if declared is None:
        known = ", ".join(sorted(settings.attributes)) or "none"
        raise InvalidInputError(
            f"The attribute {name!r} is not declared under [registry.attributes]. Declared: {known}.", field=name
        )
    return declared.check(name, value)


def _row(tenant: str, label: str, entry: Entry) -> dict[str, Any]:
    return {
        "tenant": tenant,
        "label": label,
        "subject": entry.subject,
        "allow": int(entry.allow),
        "can_write": int(entry.allow and entry.write),
        "valid_from": entry.valid_from,
        "valid_until": entry.valid_until,
    }


def _parents(connection: Connection, tenant: str, name: str) -> list[str]:
    """Return *name* and the labels above it, the nearest first. Raises: RefusedError for a circle."""
    c = t.labels.c
    chain = [name]
    while True:
        found = connection.execute(sa.select(c.parent).where(c.tenant == tenant, c.label == chain[-1])).first()
        if found is None or found.parent is None:
            return chain
        if found.parent in chain or len(chain) > MAX_LABEL_DEPTH:
            raise RefusedError(f"The labels above {name!r} form a circle, or are too deep.", field="parent")
        chain.append(found.parent)


def _check_parent(connection: Connection, tenant: str, name: str, parent: str) -> None:
    if not exists(connection, tenant, parent):
        raise RefusedError(f"There is no label {parent!r} in this tenant; create it first.", field="parent")
    above = _parents(connection, tenant, parent)
    if name in above:
        raise RefusedError(f"The label {name!r} cannot be below itself.", field="parent")
    depth = len(above) + _height(connection, tenant, name)
    if depth > MAX_LABEL_DEPTH:
        raise RefusedError(f"A tree of labels has at most {MAX_LABEL_DEPTH} levels.", field="parent")


def _below(connection: Connection, tenant: str, names: Iterable[str]) -> list[str]:
    c = t.labels.c
    statement = sa.select(c.label).where(c.tenant == tenant, c.parent.in_(list(names)))
    return list(connection.execute(statement).scalars())


def _height(connection: Connection, tenant: str, name: str) -> int:
    """Return the number of levels of the tree that begins with *name*."""
    level, height = [name], 1
    while (level := _below(connection, tenant, level)) and height <= MAX_LABEL_DEPTH:
        height += 1
    return height


def rebuild(connection: Connection, tenant: str, name: str) -> None:
    """Store what is in effect for *name* and for the labels below it."""
    level = [name]
    while level:
        for one in level:
            _store_effective(connection, tenant, one)
        level = _below(connection, tenant, level)


def _store_effective(connection: Connection, tenant: str, name: str) -> None:
    chain = _parents(connection, tenant, name)
    e, c = t.entries.c, t.labels.c
    rows = connection.execute(sa.select(t.entries).where(e.tenant == tenant, e.label.in_(chain))).all()
    entries = effective(chain, [(row.label, row) for row in rows])
    found = connection.execute(sa.select(c.label, c.attributes).where(c.tenant == tenant, c.label.in_(chain))).all()
    attributes = {row.label: json.loads(row.attributes) for row in found}
    for table in (t.grants, t.values):
        connection.execute(table.delete().where(table.c.tenant == tenant, table.c.label == name))
    if entries:
        parts = ("subject", "allow", "can_write", "valid_from", "valid_until")
        grants = [{"tenant": tenant, "label": name, **{one: getattr(row, one) for one in parts}} for row in entries]
        connection.execute(t.grants.insert(), grants)
    whole: dict[str, Any] = {}
    for label in reversed(chain):  # the nearest overrides
        whole.update(attributes.get(label, {}))
    if whole:
        connection.execute(t.values.insert(), [_value(tenant, name, one, value) for one, value in whole.items()])
    _store_vouchers(connection, tenant, name, chain)


def _store_vouchers(connection: Connection, tenant: str, name: str, chain: Sequence[str]) -> None:
    """Store who vouches for the labels above *name*, and who besides reads a label of sources without entries."""
    w, c, e = t.vouchers.c, t.labels.c, t.entries.c
    above = (w.tenant == tenant, w.label == name, w.owner != name)
    connection.execute(t.vouchers.delete().where(*above))
    statement = sa.select(t.vouchers).where(w.tenant == tenant, w.label == w.owner, w.label.in_(chain))
    owned = connection.execute(statement).all()
    rows = [
        {"tenant": tenant, "label": name, "owner": row.owner, "source": row.source, "valid_until": row.valid_until}
        for row in owned
        if row.owner != name
    ]
    if rows:
        connection.execute(t.vouchers.insert(), rows)
    if not any(row.owner == name for row in owned):
        return
    entry = connection.execute(sa.select(e.id).where(e.tenant == tenant, e.label == name).limit(1)).first()
    flags: dict[str, Any] = {"children": False, "shared": False}
    if entry is None and len(chain) > 1:  # it has the rights of the label above, so families read it as that one
        where = (c.tenant == tenant, c.label == chain[1])
        found = connection.execute(sa.select(c.children, c.shared).where(*where)).one()
        flags = {"children": bool(found.children), "shared": bool(found.shared)}
    connection.execute(t.labels.update().where(c.tenant == tenant, c.label == name).values(**flags))


def effective(chain: Sequence[str], entries: Sequence[tuple[str, Any]]) -> list[Any]:
    """Return the entries in effect: the permissions of the nearest label that has any, and every denial above."""
    denials = [row for _, row in entries if not row.allow]
    for label in chain:
        permissions = [row for owner, row in entries if owner == label and row.allow]
        if permissions:
            return permissions + denials
    return denials


def _value(tenant: str, label: str, name: str, value: Any) -> dict[str, Any]:
    text = value if isinstance(value, str) else None
    number = None if isinstance(value, str) else float(value)
    return {"tenant": tenant, "name": name, "label": label, "text": text, "number": number}
