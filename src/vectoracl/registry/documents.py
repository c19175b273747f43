"""Documents in the registry: tickets and publication, changes of their rights, holds, deletion and the overlay.

Each function runs inside one transaction of its tenant. Rules that end in a number refer to `docs/governance.md`:
a hold is a row per matter; *erasing* and *publish* are the transactions that cannot be undone, and both look for holds;
`rev` is the version of the change, so that a newer one always has a greater number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from vectoracl.errors import RefusedError, ReservedFieldError
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry import labels
from vectoracl.registry import tables as t
from vectoracl.registry.database import Change, Database
from vectoracl.registry.reading import ERASED, ERASING, LIVE, in_slices, rows_by_name, rules_of
from vectoracl.registry.restores import MARK_DOCUMENT
from vectoracl.registry.scopes import HELD
from vectoracl.registry.settings import RegistrySettings
from vectoracl.registry.values import Captured, Content, Pending, Place, Ticket, busy, held_error


def check_names(documents: Iterable[str]) -> None:
    """Refuse the name that is reserved for marks. Raises: ReservedFieldError."""
    if MARK_DOCUMENT in documents:
        raise ReservedFieldError(f"The document {MARK_DOCUMENT!r} is reserved; use another id.", field="document")


def register(change: Change, document: str, label: str) -> None:
    """Create the row of a document without content."""
    change.touched.documents.add(document)
    change.connection.execute(
        t.documents.insert().values(
            tenant=change.tenant,
            document=document,
            label=label,
            state=LIVE,
            rev=change.version,
            generation=None,
            last_generation=-1,
            expires=NEVER_EXPIRES,
            held=0,
            chunks=0,
            stored_labels="[]",
        )
    )


def update(change: Change, documents: Sequence[str], **values: Any) -> None:
    """Set columns of documents."""
    change.touched.documents.update(documents)
    c = t.documents.c
    for part in in_slices(documents):
        change.connection.execute(
            t.documents.update().where(c.tenant == change.tenant, c.document.in_(part)).values(**values)
        )


def enter(change: Change, database: Database, documents: Iterable[str]) -> None:
    """Put documents into the overlay; one that is there keeps its place, and its change counts as new."""
    names = list(documents)
    rows = [{"tenant": change.tenant, "document": one, "seq": change.version, "since": change.now} for one in names]
    change.touched.documents.update(names)
    if rows:
        make: Any = sqlite.insert if database.sqlite else postgresql.insert
        statement = make(t.overlay)
        statement = statement.on_conflict_do_update(
            index_elements=["tenant", "document"], set_={"since": statement.excluded.since}
        )
        change.connection.execute(statement, rows)


def changed(change: Change, database: Database, documents: Sequence[str], **values: Any) -> None:
    """Change what the chunks of documents should carry: the value, the overlay's row and the rev, together."""
    update(change, documents, rev=change.version, **values)
    enter(change, database, documents)


def contradicted(change: Change, database: Database, documents: Sequence[str]) -> None:
    """Note that chunks of *documents* contradict the registry; of those that were erased, they are deleted again."""
    rows = rows_by_name(change.connection, change.tenant, documents)
    back = [one for one in documents if one in rows and rows[one].state == ERASED]
    update(change, back, state=ERASING)
    changed(change, database, documents)


def overlay_size(connection: Connection, tenant: str) -> int:
    """Return the number of documents in the overlay of *tenant*."""
    statement = sa.select(sa.func.count()).select_from(t.overlay).where(t.overlay.c.tenant == tenant)
    return int(connection.execute(statement).scalar_one())


def check_room(change: Change, settings: RegistrySettings, more: int) -> None:
    """Refuse a change that gives rights beyond the overlay's cap; one that takes them is never refused."""
    size = overlay_size(change.connection, change.tenant)
    if size + more > settings.overlay_max:
        raise RefusedError(
            f"{size:,} documents of the tenant have changed and are not yet written to the store; with this change "
            f"there would be more than overlay_max = {settings.overlay_max:,}. Run `vectoracl reconcile`, then repeat "
            "it.",
            field="overlay_max",
        )


# --- writing -----------------------------------------------------------------------------------------------------


def tickets(
    change: Change, settings: RegistrySettings, documents: Sequence[str], writable: frozenset[str]
) -> list[Ticket] | None:
    """Give out tickets for *documents*; None where one may not be written, which reads like one that does not exist.

    Raises: HeldError; StoreError with the code "conflict" while another writer has one of them.
    """
    check_names(documents)
    rows = dict(rows_by_name(change.connection, change.tenant, documents))
    for one in documents:
        if one not in rows and not (settings.default_label is not None and settings.default_label in writable):
            return None
        if one in rows and rows[one].label not in writable:
            return None
    check_room(change, settings, len(documents))
    return [_ticket(change, settings, one, rows.get(one)) for one in documents]


def _ticket(change: Change, settings: RegistrySettings, document: str, row: Any) -> Ticket:
    if row is None:
        assert settings.default_label is not None
        register(change, document, settings.default_label)
        label, base, last, expires, chunks = settings.default_label, None, -1, NEVER_EXPIRES, 0
    else:
        if row.held:
            raise held_error(document)
        if row.state == ERASING:
            raise busy(document)
        if row.ticket is not None and change.now - row.ticket_at < settings.ticket_seconds:
            raise busy(document)
        live = row.state == LIVE
        label, base, last = row.label, row.generation if live else None, row.last_generation
        expires = row.expires if live else NEVER_EXPIRES  # retention was that of the content that was deleted
        chunks = row.chunks if live else 0
    token = os.urandom(16).hex()
    generation = max(last + 1, change.floor)
    values = {
        "state": LIVE,
        "generation": base,
        "expires": expires,
        "last_generation": generation,
        "ticket": token,
        "ticket_at": change.now,
    }
    update(change, [document], **values)
    fixed = _quarantined(change, document, base)
    return Ticket(document, token, generation, base, label, expires, change.now, chunks, quarantined=fixed)


def publish(change: Change, database: Database, given: Sequence[tuple[Ticket, int]], writable: frozenset[str]) -> bool:
    """Make the generations of all tickets the published ones, with their numbers of chunks; False, and nothing, else.

    Raises: HeldError if one was held in the meantime.
    """
    rows = rows_by_name(change.connection, change.tenant, [ticket.document for ticket, _ in given])
    for ticket, _ in given:
        row = rows.get(ticket.document)
        if row is None or row.ticket != ticket.token or row.state != LIVE or row.generation != ticket.base:
            return False
        if row.held:
            raise held_error(ticket.document)
        if row.label not in writable or row.label != ticket.label:  # the chunks were checked as ones of that label
            return False
        if ticket.copies and _quarantined(change, ticket.document, ticket.base):
            return False
    for ticket, chunks in given:
        row = rows[ticket.document]
        labels.counted(change.connection, change.tenant, row.label, chunks - row.chunks)
        values = {"generation": ticket.generation, "chunks": chunks, "ticket": None, "ticket_at": None}
        values["expires"] = min(row.expires, ticket.until)  # a writer ends it earlier, only a governor extends it
        changed(change, database, [ticket.document], **values)
    return True


def _quarantined(change: Change, document: str, generation: int | None) -> bool:
    """Return whether a rule takes this generation out of retrieval: a copy of its chunks would escape the rule."""
    return generation is not None and any(
        rule.generation == generation and rule.document in (None, document)
        for rule in rules_of(change.connection, change.tenant)
    )


def abandon(change: Change, database: Database, given: Sequence[Ticket]) -> None:
    """Give tickets back; the chunks that were written under them are removed by `reconcile`."""
    rows = rows_by_name(change.connection, change.tenant, [ticket.document for ticket in given])
    mine = [one.document for one in given if one.document in rows and rows[one.document].ticket == one.token]
    # A new rev, so that a `reconcile` which has captured them before does not take them out of the overlay.
    changed(change, database, mine, ticket=None, ticket_at=None)


# --- deletion ----------------------------------------------------------------------------------------------------


def begin_erasing(
    change: Change,
    database: Database,
    settings: RegistrySettings,
    documents: Sequence[str],
    *,
    writable: frozenset[str] | None,
    only_expired: bool = False,
    generations: Mapping[str, int] | None = None,
) -> list[Pending]:
    """Decide that *documents* are deleted: the transaction that cannot be undone, so it looks for holds.

    Documents that do not exist, or whose label is not *writable* (None: every label, which a governor may), are left
    out. A governor's erasure takes those that were erased before, too: a late writer or a restore may have brought
    chunks back. With *only_expired*, documents that are visible, held or being written are left out as well; with
    *generations*, those of which another generation is published.
    Raises: HeldError; StoreError with the code "conflict" while a writer has one of them.
    """
    rows = rows_by_name(change.connection, change.tenant, documents)
    chosen = []
    for one in documents:
        row = rows.get(one)
        if row is None or (writable is not None and (row.state == ERASED or row.label not in writable)):
            continue
        written = row.ticket is not None and change.now - row.ticket_at < settings.ticket_seconds
        if only_expired and (row.expires > change.now or row.held or written or row.state != LIVE):
            continue
        if generations is not None and (row.state != LIVE or row.generation != generations.get(one)):
            continue
        if row.held:
            raise held_error(one)
        if written:
            raise busy(one)
        chosen.append(one)
    # A deletion that is under way keeps its rev and its time: to repeat it does not start it again.
    begun = [one for one in chosen if rows[one].state == ERASING]
    changed(change, database, [one for one in chosen if one not in begun], state=ERASING, ticket=None, ticket_at=None)
    return captured(change, chosen, _due(change, settings, begun) if settings.max_read_seconds else chosen)


def _due(change: Change, settings: RegistrySettings, documents: Sequence[str]) -> set[str]:
    """Return those of *documents* whose change no read that is under way can have missed."""
    o, found = t.overlay.c, set[str]()
    for part in in_slices(documents):
        due = o.since + settings.max_read_seconds <= change.now
        statement = sa.select(o.document).where(o.tenant == change.tenant, o.document.in_(part), due)
        found.update(change.connection.execute(statement).scalars())
    return found


def erased(change: Change, given: Sequence[Pending]) -> list[str]:
    """Note that the chunks of deleted documents are gone; the row stays, so that no generation is used again."""
    rows = rows_by_name(change.connection, change.tenant, [one.document for one in given])
    gone = []
    for one in given:
        row = rows.get(one.document)
        if row is None or row.state != ERASING or row.rev != one.rev:
            continue
        labels.counted(change.connection, change.tenant, row.label, -row.chunks)
        gone.append(one.document)
    update(change, gone, state=ERASED, generation=None, chunks=0, stored_labels="[]")
    _leave(change, gone)
    return gone


def _leave(change: Change, documents: Sequence[str]) -> None:
    o = t.overlay.c
    change.touched.documents.update(documents)
    for part in in_slices(documents):
        change.connection.execute(t.overlay.delete().where(o.tenant == change.tenant, o.document.in_(part)))


# --- reconciling -------------------------------------------------------------------------------------------------


def pending(change: Change, settings: RegistrySettings, limit: int, after: Place | None) -> Captured:
    """Capture up to *limit* documents of the overlay, from after the place *after*, that may be written now.

    A real label is written only when no read can be under way that began before the change (`max_read_seconds`);
    `#held` is written at once, but what a held document has superseded waits too.
    """
    o, d = t.overlay.c, t.documents.c
    joined = t.overlay.join(t.documents, sa.and_(o.tenant == d.tenant, o.document == d.document))
    due = o.since + settings.max_read_seconds
    statement = (
        sa.select(o.document, o.since, o.seq)
        .select_from(joined)
        .where(o.tenant == change.tenant, sa.or_(due <= change.now, sa.and_(d.held > 0, d.state == LIVE)))
        .where(*(() if after is None else (sa.tuple_(o.seq, o.document) > sa.tuple_(*map(sa.literal, after)),)))
        .order_by(o.seq, o.document)
        .limit(limit)
    )
    rows = change.connection.execute(statement).all()
    names = [row.document for row in rows]
    waited = {row.document for row in rows if row.since + settings.max_read_seconds <= change.now}
    soonest = change.connection.execute(
        sa.select(sa.func.min(o.since)).where(o.tenant == change.tenant, due > change.now)
    ).scalar()
    wait = 0.0 if soonest is None else max(0.0, soonest + settings.max_read_seconds - change.now)
    last = Place(rows[-1].seq, rows[-1].document) if len(rows) == limit else None
    return Captured(captured(change, names, waited), wait, last)


def stopped_writers(change: Change, settings: RegistrySettings) -> list[str]:
    """Return the documents whose writers have had their tickets for longer than a writer may."""
    c = t.documents.c
    statement = sa.select(c.document).where(
        c.tenant == change.tenant, c.ticket_at <= change.now - settings.ticket_seconds
    )
    return list(change.connection.execute(statement).scalars())


def end_stopped_writers(change: Change, database: Database, settings: RegistrySettings) -> None:
    """Take back the tickets of writers that have stopped, so that what they wrote is removed and never published.

    With a new rev, so that a `reconcile` which has captured them before does not take them out of the overlay.
    """
    changed(change, database, stopped_writers(change, settings), ticket=None, ticket_at=None)


def captured(change: Change, documents: Sequence[str], due: Collection[str] = ()) -> list[Pending]:
    """Return *documents* as they are now, and note that their chunks may carry their present label from now on."""
    rows = rows_by_name(change.connection, change.tenant, documents)
    result = []
    stored: dict[str, list[str]] = {}
    for one in documents:
        row = rows[one]
        label = HELD if row.held else row.label
        known = json.loads(row.stored_labels)
        if label not in known:
            stored.setdefault(json.dumps([*known, label]), []).append(one)
        result.append(
            Pending(
                one,
                row.state,
                row.rev,
                row.generation,
                row.last_generation,
                label,
                row.expires,
                row.ticket is not None,
                row.chunks,
                one in due,
            )
        )
    _store_labels(change, stored)
    return result


def _store_labels(change: Change, stored: Mapping[str, Sequence[str]]) -> None:
    """Note the labels, as JSON, that the chunks of documents may carry from now on."""
    for text, names in stored.items():
        update(change, names, stored_labels=text)


def clear(change: Change, given: Sequence[Pending]) -> list[str]:
    """Take documents out of the overlay whose chunks carry what was captured, if nothing has changed since."""
    rows = rows_by_name(change.connection, change.tenant, [one.document for one in given])
    done = []
    stored: dict[str, list[str]] = {}
    for one in given:
        row = rows.get(one.document)
        if row is None or row.state != LIVE or row.rev != one.rev or row.generation != one.generation:
            continue
        stored.setdefault(json.dumps([one.label]), []).append(one.document)
        done.append(one.document)
    _store_labels(change, stored)
    _leave(change, done)
    return done


# --- importing ---


def import_content(change: Change, database: Database, found: Mapping[str, Content]) -> tuple[int, int]:
    """Register documents that a store already holds, as they are; returns how many, and how many labels were made.

    A label that does not exist is created without entries, so that nothing becomes visible by the import.
    """
    check_names(found)
    there = rows_by_name(change.connection, change.tenant, list(found))
    new = {name: one for name, one in found.items() if name not in there}
    made = 0
    for label in sorted({one.label for one in new.values()}):
        if not labels.exists(change.connection, change.tenant, label):
            blank = {"parent": None, "attributes": "{}", "children": False, "shared": False, "chunks": 0}
            change.connection.execute(t.labels.insert().values(tenant=change.tenant, label=label, **blank))
            change.touched.labels.add(label)
            made += 1
    for name, one in new.items():
        register(change, name, one.label)
        values = {"generation": one.generation, "last_generation": one.generation, "expires": one.expires}
        update(change, [name], chunks=one.chunks, stored_labels=json.dumps([one.label]), **values)
        labels.counted(change.connection, change.tenant, one.label, one.chunks)
    # Their chunks have the rev 0, and may be of several generations: reconcile writes and counts them once.
    enter(change, database, list(new))
    return len(new), made


# --- governing ---------------------------------------------------------------------------------------------------


def known(change: Change, documents: Sequence[str]) -> Mapping[str, Any]:
    """Return the rows of *documents*. Raises: RefusedError for one that is not registered, or is being deleted."""
    rows = rows_by_name(change.connection, change.tenant, documents)
    for one in documents:
        if one not in rows or rows[one].state == ERASED:
            raise RefusedError(
                f"The document {one!r} is not registered in this tenant. Register it with classify.", field="document"
            )
        if rows[one].state == ERASING:
            error = RefusedError(f"The document {one!r} is being deleted, which cannot be undone.", field="document")
            error.code = "erasing"
            raise error
    return rows


def classify(
    change: Change,
    database: Database,
    settings: RegistrySettings,
    documents: Sequence[str],
    label: str,
    *,
    create: bool,
) -> list[str]:
    """Point *documents* at *label*; with *create*, those that are not registered are. Returns what changed."""
    check_names(documents)
    labels.check_known(change.connection, change.tenant, label)
    labels.check_given(change.connection, change.tenant, label)
    rows = rows_by_name(change.connection, change.tenant, documents)
    if create:
        missing = [one for one in documents if one not in rows]
        for one in missing:
            register(change, one, label)
        again = [one for one in documents if one in rows and rows[one].state == ERASED]
        update(change, again, label=label)
        rest = [one for one in documents if one not in missing and one not in again]
    else:
        missing, again, rest = [], [], list(documents)
    known(change, rest)
    moved = [one for one in rest if rows[one].label != label]
    check_room(change, settings, len(moved))
    for one in moved:
        labels.counted(change.connection, change.tenant, rows[one].label, -rows[one].chunks)
        labels.counted(change.connection, change.tenant, label, rows[one].chunks)
    changed(change, database, moved, label=label)
    for left in sorted({rows[one].label for one in (*again, *moved)} - {label}):
        labels.unmake(change, left)
    return [*missing, *again, *moved]


def place(change: Change, database: Database, targets: Mapping[str, str]) -> tuple[list[str], set[str]]:
    """Point documents at labels, as a source of rights says; returns those that were moved, and the labels they left.

    It may take rights, so the overlay's cap does not refuse it: beyond the cap the labels concerned are hidden. A
    document whose deletion is under way gets the label for its next content.
    """
    check_names(targets)
    rows = rows_by_name(change.connection, change.tenant, list(targets))
    moved: dict[str, list[str]] = {}
    silent: dict[str, list[str]] = {}
    left: set[str] = set()
    for name, label in targets.items():
        row = rows.get(name)
        if row is None:
            register(change, name, label)
            moved.setdefault("", []).append(name)
        elif row.label != label:
            left.add(row.label)
            labels.counted(change.connection, change.tenant, row.label, -row.chunks)
            labels.counted(change.connection, change.tenant, label, row.chunks)
            (moved if row.state == LIVE else silent).setdefault(label, []).append(name)
    for label, names in silent.items():
        update(change, names, label=label)
    new = moved.pop("", [])
    for label, names in moved.items():
        changed(change, database, names, label=label)
    return [*new, *(name for names in (*moved.values(), *silent.values()) for name in names)], left


def hold(change: Change, database: Database, documents: Sequence[str], matter: str, by: str, reason: str) -> list[str]:
    """Hold *documents* for *matter*: no one reads them and no path deletes them until its release."""
    rows = known(change, documents)
    h = t.holds.c
    there = set(
        change.connection.execute(sa.select(h.document).where(h.tenant == change.tenant, h.matter == matter)).scalars()
    )
    new = [one for one in dict.fromkeys(documents) if one not in there]
    if new:
        common = {"tenant": change.tenant, "matter": matter, "reason": reason, "by": by, "at": change.now}
        change.connection.execute(t.holds.insert(), [{"document": one, **common} for one in new])
    update(change, new, held=t.documents.c.held + 1)
    # A document that another matter holds already carries `#held`, or is on its way to it.
    changed(change, database, [one for one in new if not rows[one].held])
    return new


def release(change: Change, database: Database, documents: Sequence[str] | None, matter: str) -> list[str]:
    """End the hold of *matter* on *documents* (None: on all); a document with another matter stays held."""
    h, d = t.holds.c, t.documents.c
    statement = sa.select(h.document).where(h.tenant == change.tenant, h.matter == matter).order_by(h.document)
    under = list(change.connection.execute(statement).scalars())
    chosen = under if documents is None else sorted(set(under).intersection(documents))
    left = sa.select(sa.func.count()).where(h.tenant == d.tenant, h.document == d.document).scalar_subquery()
    free: list[str] = []
    for part in in_slices(chosen):
        of_part = (h.tenant == change.tenant, h.matter == matter, h.document.in_(part))
        change.connection.execute(t.holds.delete().where(*of_part))
        update(change, part, held=left)
        rows = rows_by_name(change.connection, change.tenant, part)
        free += [one for one in part if not rows[one].held]
    changed(change, database, free)
    return chosen


def retain(change: Change, database: Database, documents: Sequence[str], expires: float) -> None:
    """Set the time from which *documents* are invisible."""
    known(change, documents)
    changed(change, database, documents, expires=expires)


def expired(change: Change, limit: int) -> tuple[list[str], int]:
    """Return up to *limit* documents whose time has passed and that no hold keeps; and how many there are."""
    c = t.documents.c
    # Where a deletion is under way, `reconcile` completes it: those must not take the places of others.
    where = (c.tenant == change.tenant, c.expires <= change.now, c.held == 0, c.state == LIVE)
    statement = sa.select(c.document).where(*where).order_by(c.expires, c.document).limit(limit)
    number = change.connection.execute(sa.select(sa.func.count()).where(*where)).scalar_one()
    return list(change.connection.execute(statement).scalars()), int(number)
