"""Leases: on a store that changes chunks blindly, one process at a time writes labels of a tenant.

A blind store has no condition on a write. A label that a stopped process has sent may arrive after a newer one was
written, unnoticed. So a process takes a lease before it writes labels, renews it before each request, and
gives it back when all of its requests were answered. A lease that was not given back ends by itself; the next one
starts only when no request of the former can be under way any more.
"""

from __future__ import annotations

import json
from typing import NamedTuple

import sqlalchemy as sa

from vectoracl.errors import StoreError
from vectoracl.registry import tables as t
from vectoracl.registry.database import Change, Database
from vectoracl.registry.settings import RegistrySettings


class Lease(NamedTuple):
    """A lease as it is stored: who has it, until when, and whether all requests under it were answered."""

    token: str
    until: float
    clean: bool


def take(change: Change, database: Database, settings: RegistrySettings, token: str) -> float:
    """Give the lease to *token*; return the seconds to wait before, and nothing is given, if it is not free yet."""
    found = _read(change)
    if found is not None and not found.clean:
        free = found.until + settings.request_seconds
        if change.now < free:
            return free - change.now
    _write(change, database, Lease(token, change.now + settings.ticket_seconds, clean=False))
    return 0.0


def renew(change: Change, database: Database, settings: RegistrySettings, token: str) -> None:
    """Extend the lease of *token*. Raises: StoreError with the code "conflict" if it has ended."""
    found = _read(change)
    if found is None or found.token != token or found.clean or change.now >= found.until:
        raise StoreError(
            "Writing labels took longer than its lease, so it was ended: another process may write them now. Run "
            "`vectoracl reconcile` again.",
            code="conflict",
            sent="no",
            retryable=True,
        )
    _write(change, database, Lease(token, change.now + settings.ticket_seconds, clean=False))


def end(change: Change, database: Database, token: str, *, clean: bool) -> None:
    """End the lease of *token*, which sends no more. *clean* says that every request under it was answered."""
    found = _read(change)
    if found is not None and found.token == token and not found.clean:
        _write(change, database, Lease(token, min(found.until, change.now), clean))


def _name(change: Change) -> str:
    return f"lease:{change.tenant}"


def _read(change: Change) -> Lease | None:
    value = change.connection.execute(
        sa.select(t.meta.c.value).where(t.meta.c.name == _name(change))
    ).scalar_one_or_none()
    return None if value is None else Lease(*json.loads(value))


def _write(change: Change, database: Database, lease: Lease) -> None:
    database.upsert(change.connection, t.meta, {"name": _name(change)}, {"value": json.dumps(lease)})
