"""Marks and stops in SQL; `restores` explains them. Every function runs in the transaction that it is given."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.registry import tables as t
from vectoracl.registry.database import Change
from vectoracl.registry.reading import probe
from vectoracl.registry.restores import OLDER_REGISTRY, OLDER_STORE, Closing, Marks, SeenMarks


def required(connection: Connection, tenant: str, store: str) -> dict[str, int]:
    """Return the names of the marks that *store* has to have, with their versions."""
    c = t.marks.c
    statement = sa.select(c.mark, c.version).where(c.tenant == tenant, c.store == store)
    return {row.mark: row.version for row in connection.execute(statement)}


def read(connection: Connection, tenant: str, store: str, now: float) -> Marks:
    """Return the required marks with the tenant's version and the time."""
    found = probe(connection, (tenant,), now)
    return Marks(found.versions[tenant], found.now, frozenset(required(connection, tenant, store)))


def stopped_check(connection: Connection, tenant: str) -> None:
    """Raise StoppedTenantError if *tenant* is stopped."""
    probe(connection, (tenant,), 0.0).check_running()


def stop(connection: Connection, tenant: str, reason: str | None) -> None:
    """Stop *tenant*, or (None) let it go on. Its version stays: what the journal has to say about it is not hidden.

    An older registry stays the reason where an older store is found, too: its rights are never written over a store.
    """
    c = t.tenants.c
    where = [c.tenant == tenant]
    if reason == OLDER_STORE:
        where.append(c.stopped.is_distinct_from(OLDER_REGISTRY))
    connection.execute(t.tenants.update().where(*where).values(stopped=reason))


def _older(missing: Mapping[str, int], newest: int, version: int) -> str | None:
    """Return which side is older, by the required marks that are *missing* and the *newest* version that is there.

    A mark that was replaced by a later one, of which the registry does not know, is missing because the registry is
    older, and not the store. A restored store may hold such a later one too, of a drain that its backup cut off: then
    the wrong side is named, and `verify` asks for a journal or for the operator's word before it writes anything.
    """
    if newest > version or (missing and newest > max(missing.values())):
        return OLDER_REGISTRY
    return OLDER_STORE if missing else None


def contradiction(connection: Connection, tenant: str, store: str, before: Marks, seen: SeenMarks) -> str | None:
    """Return why *store* and registry are not of one moment, by the marks that were *seen* after *before* was read."""
    version = probe(connection, (tenant,), 0.0).versions[tenant]
    now = required(connection, tenant, store)
    missing = {one: now[one] for one in before.required & now.keys() if one not in seen.names}
    return _older(missing, seen.newest, version)


def close(change: Change, closing: Closing) -> str | None:
    """Require the mark of *closing* in place of those it replaces.

    Returns None, or why nothing may be closed: "store" or "registry" if that is older than the other, else "repeat".
    """
    if not closing.mark:
        return None  # a store without marks
    now = required(change.connection, change.tenant, closing.store)
    missing = {one: now[one] for one in closing.required & now.keys() if one not in closing.names}
    older = _older(missing, closing.newest, change.version)
    if older is not None:
        return older
    if closing.mark not in closing.names:
        return "repeat"
    c = t.marks.c
    where = (c.tenant == change.tenant, c.store == closing.store, c.mark.in_(sorted(closing.required)))
    change.connection.execute(t.marks.delete().where(*where))
    require(change, closing.store, closing.mark, closing.version)
    return None


def require(change: Change, store: str, mark: str, version: int) -> None:
    """Require one more mark."""
    row = {"tenant": change.tenant, "store": store, "mark": mark, "version": version}
    change.connection.execute(t.marks.insert().values(**row))


def forget(change: Change, store: str) -> None:
    """Require no mark of *store* any more."""
    c = t.marks.c
    change.connection.execute(t.marks.delete().where(c.tenant == change.tenant, c.store == store))
