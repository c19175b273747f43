"""The registry's part of `registry verify`: what chunks should carry, and new revs for those that do not.

While it is at work its tenant is stopped, so there are no readers to wait for and no writers. Governors may still
change rights: those documents are in the overlay and are left to `reconcile`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.errors import RefusedError
from vectoracl.registry import documents, images, marks
from vectoracl.registry import tables as t
from vectoracl.registry.database import Change, Database
from vectoracl.registry.reading import LIVE, in_slices
from vectoracl.registry.restores import OLDER_REGISTRY, VERIFYING
from vectoracl.registry.scopes import HELD
from vectoracl.registry.values import Expected, Pending


def begin(change: Change, database: Database, token: str, newest: int, *, journal: bool, accepted: bool) -> None:
    """Stop the tenant for the verification *token*; *newest* is the greatest version among the marks of its store.

    An older registry is never written over a newer store: that would give back rights that were taken.
    Raises: RefusedError.
    """
    if newest >= change.version or (change.stopped == OLDER_REGISTRY and not journal and not accepted):
        raise RefusedError(
            f"The registry of the tenant {change.tenant!r} was restored to an earlier moment than its store, and the "
            "missing changes cannot be taken from a journal. Restore a later backup of the registry, or an "
            "earlier one of the store; if they are of one moment now, run it with --accept-registry.",
            field="registry",
        )
    c = t.documents.c
    waiting = sa.select(c.document).where(c.tenant == change.tenant, c.ticket.is_not(None))
    names = list(change.connection.execute(waiting).scalars())
    documents.changed(change, database, names, ticket=None, ticket_at=None)
    if accepted:
        images.finish(change.connection, change.tenant)  # generations were perhaps given out that this registry lost
    marks.stop(change.connection, change.tenant, VERIFYING + token)


def check(change: Change, token: str) -> None:
    """Refuse to go on where another verification has begun since. Raises: RefusedError."""
    if change.stopped != VERIFYING + token:
        raise RefusedError(
            f"Another `vectoracl registry verify` of the tenant {change.tenant!r} has begun since; let it end.",
            field="tenant",
        )


def page(connection: Connection, tenant: str, after: str, size: int) -> list[Expected]:
    """Return the next *size* documents after the id *after*."""
    c = t.documents.c
    statement = sa.select(c.document).where(c.tenant == tenant, c.document > after).order_by(c.document).limit(size)
    return expected(connection, tenant, list(connection.execute(statement).scalars()))


def expected(connection: Connection, tenant: str, names: Sequence[str]) -> list[Expected]:
    """Return those of *names* that are registered, in their order."""
    d, o = t.documents.c, t.overlay.c
    joined = t.documents.outerjoin(t.overlay, sa.and_(o.tenant == d.tenant, o.document == d.document))
    found = {}
    for part in in_slices(names):
        statement = sa.select(t.documents, o.seq).select_from(joined).where(d.tenant == tenant, d.document.in_(part))
        found.update({row.document: row for row in connection.execute(statement)})
    return [
        Expected(
            Pending(
                row.document,
                row.state,
                row.rev,
                row.generation,
                row.last_generation,
                HELD if row.held else row.label,
                row.expires,
                ticketed=False,  # every ticket was ended
                chunks=row.chunks,
                due=True,
            ),
            changed=row.seq is not None,
            held=bool(row.held),
        )
        for row in (found[one] for one in names if one in found)
    ]


def restamp(change: Change, database: Database, live: Sequence[str], gone: Sequence[str]) -> list[Pending]:
    """Give new revs to documents whose chunks contradict the registry; those of *gone* are deleted once more."""
    documents.contradicted(change, database, [*live, *gone])
    return documents.captured(change, [*live, *gone], [*live, *gone])


def restamped(change: Change, given: Iterable[Pending]) -> None:
    """Note that the chunks of *given* are what the registry says; the mark at the end stands for all of them."""
    found = list(given)
    documents.clear(change, [one for one in found if one.state == LIVE])
    documents.erased(change, [one for one in found if one.state != LIVE])


def end(change: Change, store: str, mark: str, version: int) -> None:
    """Require the mark that was inserted ("": the store has none), and let the tenant go on."""
    marks.forget(change, store)
    if mark:
        marks.require(change, store, mark, version)
    marks.stop(change.connection, change.tenant, None)
