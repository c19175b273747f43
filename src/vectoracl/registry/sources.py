"""Sources of rights: their records of each document, which one is in force, and for how long a source is believed.

The latest record on a document is in force, whichever source it is of; a governor who moves a document says something
of it, too. A source vouches for what is in force if its own latest record says the same. A document is placed under a
label that was made for it, or for all documents of which the same sources say the same; such a label names the sources
that vouch for it. It is withdrawn while none of them is fresh: that is found out when a scope is taken, so no chunk and
no row is written for it, and nothing wider takes its place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from vectoracl.errors import RefusedError
from vectoracl.filters.predicate import MAX_KEYWORD_BYTES
from vectoracl.model.records import NEVER_EXPIRES
from vectoracl.registry import documents, labels
from vectoracl.registry import tables as t
from vectoracl.registry.access import (
    GOVERNOR,
    NOBODY,
    Access,
    Outcome,
    Reading,
    Said,
    SourceInfo,
    access_of,
    contradiction,
    said,
)
from vectoracl.registry.database import Change, Database
from vectoracl.registry.reading import fresh_until, in_slices
from vectoracl.registry.settings import RegistrySettings

AHEAD_SECONDS = 300.0
"""How far a source's clock may be ahead of the registry's."""


_MOST = 1_000
"""The most documents without a place that a feed reports."""


class _Stored(dict[str, tuple[float, str]]):
    """The latest record of each source on one document: the moment and the content, by source."""

    def in_force(self) -> tuple[str, str] | None:
        """Return the source and the content of the record in force; a governor's wins at the same moment."""
        if not self:
            return None
        source = max(self, key=lambda name: (self[name][0], name == GOVERNOR, name))
        return source, self[source][1]

    def vouching(self) -> frozenset[str]:
        """Return the sources that say what is in force. A source's record replaces a governor's."""
        found = self.in_force()
        if found is None:
            return frozenset((NOBODY,))
        source, content = found
        if source == GOVERNOR:
            return frozenset((GOVERNOR,))
        return frozenset(name for name, one in self.items() if one[1] == content and name != GOVERNOR)


def check_declared(settings: RegistrySettings, source: str) -> None:
    """Refuse a source that the configuration does not name. Raises: RefusedError."""
    if source not in settings.sources:
        raise RefusedError(
            f"The source {source!r} is not declared, so it vouches for nothing. Add [registry.sources.{source}] with "
            "max_age_seconds to the configuration.",
            field="source",
        )


def note_source(change: Change, database: Database, source: str) -> None:
    """Enter *source*, as one that has not been read, and the two that are none."""
    for name in (source, GOVERNOR, NOBODY):
        key = {"tenant": change.tenant, "source": name}
        database.upsert(change.connection, t.sources, key, {"as_of": 0.0, "read_at": 0.0}, update=False)


def apply(
    change: Change, database: Database, settings: RegistrySettings, source: str, records: Sequence[Access]
) -> Outcome:
    """Take over *records* of *source*, in any order. Raises: RefusedError; InvalidInputError for two of one time."""
    check_declared(settings, source)
    note_source(change, database, source)
    for one in records:
        if one.as_of > change.now + AHEAD_SECONDS:
            raise RefusedError(
                f"A record of {one.document!r} is of a later time than now, so it would outlast every right one. "
                "Correct the clock of the source, or its as_of.",
                field="as_of",
            )
    newest: dict[str, Access] = {}
    for one in records:
        assert one.document is not None
        known = newest.get(one.document)
        if known is not None and known.as_of == one.as_of and known.content() != one.content():
            raise contradiction(one.document)
        if known is None or one.as_of > known.as_of:
            newest[one.document] = one
    documents.check_names(newest)
    stored = _stored(change.connection, change.tenant, list(newest))
    older = len(records) - len(newest)
    fresh: list[str] = []
    rows: dict[str, tuple[float, str]] = {}
    for name, one in newest.items():
        mine, content = stored[name].get(source), one.content()
        if mine is not None and mine[0] > one.as_of:
            older += 1
            continue
        if mine is not None and mine[0] == one.as_of and mine[1] != content:
            raise contradiction(name)
        if mine == (one.as_of, content):
            continue
        before = (stored[name].in_force(), stored[name].vouching())
        stored[name][source] = rows[name] = (one.as_of, content)
        if before != (stored[name].in_force(), stored[name].vouching()):
            fresh.append(name)
    say(change, source, rows)
    return _placed(change, database, settings, fresh, stored, older)


def say(change: Change, source: str, rows: Mapping[str, tuple[float, str]]) -> None:
    """Store the records of *source* in the place of its earlier ones: the moment and the content by document."""
    c = t.access.c
    for part in in_slices(list(rows)):
        change.connection.execute(
            t.access.delete().where(c.tenant == change.tenant, c.source == source, c.document.in_(part))
        )
        common = {"tenant": change.tenant, "source": source}
        made = [{**common, "document": one, "as_of": rows[one][0], "content": rows[one][1]} for one in part]
        change.connection.execute(t.access.insert(), made)
    change.touched.documents.update(rows)


def _stored(connection: Connection, tenant: str, names: Sequence[str]) -> dict[str, _Stored]:
    found = {name: _Stored() for name in names}
    c = t.access.c
    for part in in_slices(names):
        for row in connection.execute(sa.select(t.access).where(c.tenant == tenant, c.document.in_(part))):
            found[row.document][row.source] = (row.as_of, row.content)
    return found


def _placed(
    change: Change,
    database: Database,
    settings: RegistrySettings,
    names: Sequence[str],
    stored: Mapping[str, _Stored],
    older: int,
) -> Outcome:
    maker = _Maker(change, database)
    for name in names:
        maker.place(name, stored[name])
    maker.again()
    moved, left = documents.place(change, database, maker.targets)
    for label in sorted(left | maker.shared - set(maker.targets.values())):
        labels.unmake(change, label)
    over = documents.overlay_size(change.connection, change.tenant) - settings.overlay_max
    return Outcome(sorted({*moved, *maker.defined}), older, max(0, over))


@dataclass
class _Maker:
    """Makes the labels of documents, and collects to which each one is moved."""

    change: Change
    database: Database

    def __post_init__(self) -> None:
        self.targets: dict[str, str] = {}
        self.defined: list[str] = []
        self.shared: set[str] = set()
        self.broken: dict[str, _Stored] = {}
        self._made: dict[tuple[object, ...], str] = {}  # the labels that documents share, by what their records say
        self._above: list[str] = []

    def place(self, document: str, found: _Stored, *, folder: bool = False) -> None:
        """Choose the label of *document* by what is in force; as a *folder* it has a label that others can be below."""
        force = found.in_force()
        if force is None:
            return
        source, content = force
        parts, sources = said(content), found.vouching()
        known = (parts.label, parts.inherits_from, sources, parts.valid_until)
        own = own_label(document)
        needs = folder or parts.entries is not None or labels.exists(self.change.connection, self.change.tenant, own)
        if not needs and known in self._made:
            self.targets[document] = self._made[known]
            return
        self._above.append(document)
        base = self._base(parts, source)
        self._above.pop()
        until, name = (
            parts.valid_until,
            own if needs or base is None else shared_label(base, sources, parts.valid_until),
        )
        inherits = parts.label is not None or parts.inherits_from is not None
        if inherits and (base is None or not labels.may_be_below(self.change, name, base)):
            # Folders in a circle, or too deep: no one reads it until they are not; see `again`.
            name, base, sources, until, needs = own, None, frozenset((NOBODY,)), 0.0, True
            self.broken[document] = found
        self.targets[document] = name
        if source == GOVERNOR:
            assert parts.label is not None
            self.targets[document] = parts.label
            if not needs:
                return
        if not needs:
            self.shared.add(name)
        entries = parts.entries if needs and parts.entries is not None else ()
        if labels.make(self.change, name, base, entries, dict.fromkeys(sources, until)) and needs:
            self.defined.append(document)
        if not needs:
            self._made[known] = name

    def _base(self, parts: Said, source: str) -> str | None:
        """Return the label above, the one that was named or the folder's; None also where folders form a circle."""
        connection, tenant = self.change.connection, self.change.tenant
        if parts.label is not None:
            labels.check_known(connection, tenant, parts.label)
            if source != GOVERNOR:
                labels.check_given(connection, tenant, parts.label)
            return parts.label
        if parts.inherits_from is None:
            return None
        folder = own_label(parts.inherits_from)
        if not labels.exists(connection, tenant, folder):
            known = _stored(connection, tenant, [parts.inherits_from])[parts.inherits_from]
            if parts.inherits_from in self._above or len(self._above) > labels.MAX_LABEL_DEPTH:
                return None
            if known:
                self.place(parts.inherits_from, known, folder=True)
            else:  # no one has stated yet who may read it, so no one may
                labels.make(self.change, folder, None, (), {NOBODY: 0.0})
        return folder

    def again(self) -> None:
        """Place what could not be placed, as long as that helps: the folders may have been moved since."""
        while True:
            broken, self.broken = self.broken, {}
            for document, found in broken.items():
                self.place(document, found)
            if len(self.broken) >= len(broken):
                return


def own_label(document: str) -> str:
    """Return the name of the label that is made for *document* alone."""
    return _short("@document:", document)


def shared_label(base: str, sources: Iterable[str], until: float) -> str:
    """Return the name of the label for all documents that *sources* put under *base*, until a time."""
    bound = "" if until >= NEVER_EXPIRES else f"|{until!r}"
    return _short(f"@source:{'+'.join(sorted(sources))}{bound}:", base)


def _short(prefix: str, name: str) -> str:
    """Return *prefix* and *name*, or a hash of both in a form that no other name has, where a store takes no more."""
    text = f"{prefix}{name}"
    if len(text.encode()) <= MAX_KEYWORD_BYTES:
        return text
    return f"@hashed:{hashlib.sha256(text.encode()).hexdigest()}"


def governor_said(
    change: Change, database: Database, settings: RegistrySettings, names: Sequence[str], label: str
) -> None:
    """Note that a governor has placed documents: no record of an earlier time undoes it, and folders follow."""
    stored = _stored(change.connection, change.tenant, names)
    content = Access(0.0, "any", label=label).content()
    rows: dict[str, tuple[float, str]] = {}
    for name in names:
        latest = max([change.now, *(moment for moment, _ in stored[name].values())])
        stored[name][GOVERNOR] = rows[name] = (latest, content)
    say(change, GOVERNOR, rows)
    own = {own_label(one): one for one in names}
    folders = [own[one] for one in sorted(labels.existing(change.connection, change.tenant, list(own)))]
    if folders:
        note_source(change, database, GOVERNOR)
        _placed(change, database, settings, folders, stored, 0)


def noted(change: Change, database: Database, settings: RegistrySettings, source: str, as_of: float) -> Reading:
    """Note that *source* has been read until *as_of*, which never goes back, and place what could not be placed."""
    check_declared(settings, source)
    note_source(change, database, source)
    if as_of > change.now + AHEAD_SECONDS:
        raise RefusedError(
            f"The source {source!r} was read at a later time than now. Correct its clock, or its as_of.", field="as_of"
        )
    c = t.sources.c
    where = (c.tenant == change.tenant, c.source == source)
    known = float(change.connection.execute(sa.select(c.as_of).where(*where)).scalar_one())
    latest = max(known, min(as_of, change.now))  # a clock that is ahead makes no source fresh for longer
    change.connection.execute(t.sources.update().where(*where).values(as_of=latest, read_at=change.now))
    broken = _unplaced(change, below=False)
    found = _placed(change, database, settings, broken, _stored(change.connection, change.tenant, broken), 0)
    return Reading(latest, found.changed, _unplaced(change, below=True))


def _unplaced(change: Change, *, below: bool) -> list[str]:
    """Return documents whose label no one vouches for; with *below*, also those that inherit from such a one."""
    w, d = t.vouchers.c, t.documents.c
    joined = t.vouchers.join(t.documents, sa.and_(w.tenant == d.tenant, w.label == d.label))
    statement = sa.select(d.document).select_from(joined).where(w.tenant == change.tenant, w.source == NOBODY)
    if not below:
        statement = statement.where(w.owner == w.label)
    return list(change.connection.execute(statement.distinct().order_by(d.document).limit(_MOST)).scalars())


def listed(connection: Connection, settings: RegistrySettings, tenant: str, now: float) -> list[SourceInfo]:
    """Return the sources that are declared, or that have records."""
    s, a = t.sources.c, t.access.c
    rows = connection.execute(sa.select(s.source, s.as_of).where(s.tenant == tenant))
    known = {row.source: float(row.as_of) for row in rows if row.source not in (GOVERNOR, NOBODY)}
    numbers = connection.execute(sa.select(a.source, sa.func.count()).where(a.tenant == tenant).group_by(a.source))
    counts = {source: int(number) for source, number in numbers}
    found = []
    for name in sorted({*known, *settings.sources}):
        as_of = known.get(name, 0.0)
        until = fresh_until(settings, name, as_of)
        declared = settings.sources.get(name)
        late = declared is not None and as_of + declared.max_age_seconds <= now
        found.append(
            SourceInfo(
                name,
                as_of or None,
                None if until >= NEVER_EXPIRES else until,
                until <= now,
                declared is not None and declared.serve and late,
                counts.get(name, 0),
            )
        )
    return found


def records(connection: Connection, tenant: str, source: str, after: str, size: int) -> list[Access]:
    """Return the latest records of *source*, in the order of their documents from after the id *after*."""
    c = t.access.c
    statement = sa.select(t.access).where(c.tenant == tenant, c.source == source, c.document > after)
    rows = connection.execute(statement.order_by(c.document).limit(size))
    return [access_of(row.as_of, row.document, row.content) for row in rows]
