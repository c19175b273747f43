"""The registry over SQL: one method per transaction. Flows reach it by the requests of `requests.py`."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ProgrammingError, SQLAlchemyError

from vectoracl.adapter_api.posture import Finding
from vectoracl.adapter_api.versions import WITNESS_SQL, VersionTable, Witness, witness_of
from vectoracl.errors import ContentRefusedError, InvalidInputError, RefusedError
from vectoracl.model.principal import Principal
from vectoracl.registry import documents, labels, leases, marks, reading, row_security, sources
from vectoracl.registry import tables as t
from vectoracl.registry.access import Access, Outcome, Reading, SourceInfo
from vectoracl.registry.database import BUSY_SECONDS, Change, Database, failed
from vectoracl.registry.journal import Journal
from vectoracl.registry.postgres_reads import short_reader
from vectoracl.registry.requests import TakeScope
from vectoracl.registry.restores import OLDER_REGISTRY, OLDER_STORE, Closing, stopped_error
from vectoracl.registry.scopes import Confirmation, GovernedScope, Probe, Quarantine
from vectoracl.registry.settings import RegistrySettings
from vectoracl.registry.sql_restores import RestoreMethods
from vectoracl.registry.sqlite_reads import SqliteReader
from vectoracl.registry.values import Captured, Content, DocumentInfo, LabelDefinition, Pending, Place, Ticket

MAX_RULES = 32
MAX_FAMILY = 8


class Registry(RestoreMethods):
    """One registry, with the URL of its *journal*. Thread-safe; several processes may open the same database."""

    def __init__(
        self,
        url: str,
        settings: RegistrySettings,
        *,
        journal: str | None = None,
        owner_url: str | None = None,
        schema: str = "vectoracl",
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.database = Database(url, owner_url=owner_url, schema=schema, clock=clock)
        self.journal = None if journal is None else Journal(journal, self.identity)
        self.database.journal = self.journal
        self.settings = settings
        self._id: str | None = None
        path = self.database.path
        self._quick = None if path is None else SqliteReader(str(path), self.database.host_time, BUSY_SECONDS)
        self._short = short_reader(self.database)

    @property
    def path(self) -> Path | None:
        """The file of an SQLite registry."""
        return self.database.path

    def identity(self) -> str:
        """Return the id of this registry, which marks the stores that it governs. Raises: StoreError."""
        if self._id is None:
            with self.database.read() as connection:
                statement = sa.select(t.meta.c.value).where(t.meta.c.name == "id")
                self._id = str(connection.execute(statement).scalar_one())
        return self._id

    def forget_identity(self) -> None:
        """Read the id again: another one was imported."""
        self._id = None

    # --- reading ---

    def probe(self, tenants: Sequence[str]) -> Probe:
        """Return the present versions of *tenants* and the time. Raises: StoppedTenantError; StoreError."""
        before = self.seen_versions(tenants)
        return self.check_running(before, self._probe(tenants))

    def _probe(self, tenants: Sequence[str]) -> Probe:
        if self._quick is not None:
            with self._quickly() as connection:
                return self._quick.probe(connection, tenants)
        if self._short is not None:
            return self._short.read(tenants)[0]
        with self.database.read(*tenants) as connection:
            return reading.probe(connection, tenants, self.database.now(connection))

    @contextmanager
    def _quickly(self) -> Iterator[Any]:
        """Open a snapshot of an SQLite registry. Raises: StoreError."""
        assert self._quick is not None
        caught: Exception
        try:
            with self._quick.snapshot() as connection:
                yield connection
                return
        except sqlite3.Error as error:
            caught = error
        raise failed(caught, writing=False)

    def take(self, asked: TakeScope) -> GovernedScope:
        """Return what the principal may do in the partitions, all of it from one transaction.

        Raises: StoppedTenantError; StoreError.
        """
        named = (*asked.partitions, asked.principal.tenant)
        before = self.seen_versions(named)
        with self.database.read(*named) as connection:
            scope = self._take(connection, asked)
        self.check_running(before, Probe(scope.versions, scope.now))
        return scope

    def _take(self, connection: Any, asked: TakeScope) -> GovernedScope:
        return reading.take(
            connection,
            self.settings,
            asked.principal,
            asked.partitions,
            self.database.now(connection),
            writes=asked.for_writes,
            family=asked.family,
        )

    def confirm(self, asked: TakeScope, scope: GovernedScope, hits: Iterable[tuple[str, str]]) -> Confirmation:
        """Return the rows of the documents of *hits*, and the scope taken again if it does not hold any more.

        Raises: StoppedTenantError; StoreError.
        """
        before = self.seen_versions(tuple(scope.partitions))
        found, answer = self._confirmed(asked, scope, tuple(hits))
        self.check_running(before, found)
        return answer

    def _confirmed(
        self, asked: TakeScope, scope: GovernedScope, hits: tuple[tuple[str, str], ...]
    ) -> tuple[Probe, Confirmation]:
        tenants = tuple(scope.partitions)
        if self._quick is not None:
            with self._quickly() as connection:
                found = self._quick.probe(connection, tenants)
                if scope.holds(found):
                    return found, Confirmation(None, self._quick.documents(connection, hits))
        elif self._short is not None:
            found, states = self._short.read(tenants, hits)
            if found.stopped or scope.holds(found):
                return found, Confirmation(None, states)
        with self.database.read(*tenants, *(tenant for tenant, _ in hits)) as connection:
            found = reading.probe(connection, tenants, self.database.now(connection))
            fresh = None if found.stopped or scope.holds(found) else self._take(connection, asked)
            return found, Confirmation(fresh, reading.document_states(connection, hits))

    # --- writing ---

    def mark_stale(self, tenant: str, names: Sequence[str]) -> None:
        """Put documents into the overlay whose chunks in the store do not say what the registry says."""
        with self.database.change(tenant) as change:
            documents.contradicted(change, self.database, names)
            change.noted("stale", f"{len(names)} documents", "vectoracl", data={"documents": list(names)[:100]})

    def tickets(self, principal: Principal, tenant: str, names: Sequence[str], rules: int = 0) -> list[Ticket] | None:
        """Give out tickets; None where the principal may not write one of the documents, or there is none.

        *rules* is the number of quarantine rules that the publication will add, for which there has to be room.
        """
        with self.database.change(tenant, raises=False) as change:
            if rules and len(reading.rules_of(change.connection, tenant)) + rules > MAX_RULES:
                raise _no_room()
            return documents.tickets(change, self.settings, names, self._writable(change.connection, principal, tenant))

    def _writable(self, connection: Any, principal: Principal, tenant: str) -> frozenset[str]:
        if principal.tenant != tenant:
            return frozenset()
        found = reading.probe(connection, (tenant,), self.database.now(connection))
        found.check_running()
        now = found.now
        return reading.own_labels(connection, self.settings, principal, now, writes=True)

    def publish(
        self,
        principal: Principal,
        tenant: str,
        given: Sequence[tuple[Ticket, int]],
        rules: Sequence[tuple[Quarantine, str]] = (),
    ) -> bool:
        """Publish the generations of tickets with their numbers of chunks: all of them, or none and return False.

        Quarantine rules, each with its reason, come into force in the same transaction.
        """
        with self.database.change(tenant) as change:
            writable = self._writable(change.connection, principal, tenant)
            published = documents.publish(change, self.database, given, writable)
            if not published or not rules:
                return published
            if len(reading.rules_of(change.connection, tenant)) + len(rules) > MAX_RULES:
                raise _no_room()
            for rule, reason in rules:
                _add_rule(change, rule, principal.id, reason)
            return True

    def abandon(self, tenant: str, given: Sequence[Ticket]) -> None:
        """Give tickets back."""
        with self.database.change(tenant) as change:
            documents.abandon(change, self.database, given)

    def begin_erasing(
        self,
        principal: Principal | None,
        tenant: str,
        names: Sequence[str],
        by: str,
        reason: str,
        *,
        only_expired: bool = False,
        generations: Mapping[str, int] | None = None,
    ) -> list[Pending]:
        """Decide that documents are deleted, as *principal* or (None) as a governor who has been checked."""
        with self.database.change(tenant) as change:
            change.check_running()
            writable = None if principal is None else self._writable(change.connection, principal, tenant)
            chosen = documents.begin_erasing(
                change,
                self.database,
                self.settings,
                names,
                writable=writable,
                only_expired=only_expired,
                generations=generations,
            )
            change.noted("erasing", [one.document for one in chosen], by, reason)
            return chosen

    def erased(self, tenant: str, given: Sequence[Pending], closing: Closing) -> list[str] | None:
        """Note that the chunks of deleted documents are gone. Raises: StoppedTenantError."""
        return self._closed(tenant, given, closing, documents.erased)

    def _closed(
        self,
        tenant: str,
        given: Sequence[Pending],
        closing: Closing,
        then: Callable[[Change, Sequence[Pending]], list[str]],
    ) -> list[str] | None:
        """Take rows out of the overlay by *then*, if the mark of *closing* is in its store; else take none."""
        with self.database.change(tenant) as change:
            change.check_running()
            problem = marks.close(change, closing)
            if problem in (OLDER_STORE, OLDER_REGISTRY):
                marks.stop(change.connection, tenant, problem)
            done = then(change, given) if problem is None else []
        if problem in (OLDER_STORE, OLDER_REGISTRY):
            raise stopped_error(tenant, problem)
        return None if problem is not None else done

    def pending(self, tenant: str, limit: int, after: Place | None = None) -> Captured:
        """Capture documents of the overlay, from after the place *after*."""
        with self.database.change(tenant, raises=False) as change:
            change.check_running()
            stopped = documents.stopped_writers(change, self.settings)
        if stopped:
            with self.database.change(tenant) as change:
                documents.end_stopped_writers(change, self.database, self.settings)
        with self.database.change(tenant, raises=False) as change:
            change.check_running()
            return documents.pending(change, self.settings, limit, after)

    def capture(self, tenant: str, names: Sequence[str]) -> list[Pending]:
        """Capture the documents *names*, whatever the time of their change."""
        with self.database.change(tenant, raises=False) as change:
            change.check_running()
            return documents.captured(change, names)

    def clear(self, tenant: str, given: Sequence[Pending], closing: Closing) -> list[str] | None:
        """Take documents out of the overlay whose chunks carry what was captured. Raises: StoppedTenantError."""
        return self._closed(tenant, given, closing, documents.clear)

    def take_lease(self, tenant: str, token: str) -> float:
        """Give the lease of writing labels to *token*; return the seconds to wait if it is not free."""
        with self.database.change(tenant, raises=False) as change:
            return leases.take(change, self.database, self.settings, token)

    def renew_lease(self, tenant: str, token: str) -> None:
        """Extend the lease of *token*. Raises: StoreError if it has ended."""
        with self.database.change(tenant, raises=False) as change:
            leases.renew(change, self.database, self.settings, token)

    def end_lease(self, tenant: str, token: str, *, clean: bool) -> None:
        """End the lease of *token*."""
        with self.database.change(tenant, raises=False) as change:
            leases.end(change, self.database, token, clean=clean)

    def overlay_size(self, tenant: str) -> int:
        """Return the number of documents in the overlay."""
        with self.database.read(tenant) as connection:
            return documents.overlay_size(connection, tenant)

    def expired(self, tenant: str, limit: int) -> tuple[list[str], int, int]:
        """Return up to *limit* documents whose time has passed and that no hold keeps; their number; that of all."""
        with self.database.change(tenant, raises=False) as change:
            found, number = documents.expired(change, limit)
            c = t.documents.c
            statement = sa.select(sa.func.count()).where(c.tenant == tenant, c.state != reading.ERASED)
            return found, number, int(change.connection.execute(statement).scalar_one())

    # --- governing ---

    def define_label(self, tenant: str, given: LabelDefinition, by: str, reason: str) -> int:
        """Create a label or change its definition; returns the tenant's new version."""
        with self.database.change(tenant) as change:
            labels.define(change, self.settings, given, by, reason)
            return change.version

    def drop_label(self, tenant: str, name: str, by: str, reason: str) -> int:
        """Remove a label that is not used."""
        with self.database.change(tenant) as change:
            if not labels.exists(change.connection, tenant, name):
                raise RefusedError(f"There is no label {name!r} in this tenant.", field="label")
            labels.drop(change, name, by, reason)
            return change.version

    def classify(
        self, tenant: str, names: Sequence[str], label: str, by: str, reason: str, *, create: bool
    ) -> list[str]:
        """Point documents at a label; with *create*, register those that are not."""
        with self.database.change(tenant) as change:
            found = documents.classify(change, self.database, self.settings, names, label, create=create)
            sources.governor_said(change, self.database, self.settings, names, label)
            change.noted("classify" if create else "move", found, by, reason, {"label": label})
            return found

    def apply_access(self, tenant: str, source: str, records: Sequence[Access], by: str, reason: str) -> Outcome:
        """Take over a part of the feed of *source*, as one change."""
        with self.database.change(tenant) as change:
            found = sources.apply(change, self.database, self.settings, source, records)
            change.noted("access", found.changed, by, reason, {"source": source})
            return found

    def access_read(self, tenant: str, source: str, as_of: float, by: str, reason: str) -> Reading:
        """Note that *source* has been read as a whole until *as_of*; returns how far it has been read."""
        with self.database.change(tenant) as change:
            found = sources.noted(change, self.database, self.settings, source, as_of)
            change.noted("access read", source, by, reason, {"as_of": found.as_of})
            return found

    def hold(self, tenant: str, names: Sequence[str], matter: str, by: str, reason: str) -> list[str]:
        """Hold documents for a matter."""
        with self.database.change(tenant) as change:
            found = documents.hold(change, self.database, names, matter, by, reason)
            change.noted("hold", found, by, reason, {"matter": matter})
            return found

    def release(self, tenant: str, names: Sequence[str] | None, matter: str, by: str, reason: str) -> list[str]:
        """End the hold of a matter on documents, or on all of them."""
        with self.database.change(tenant) as change:
            found = documents.release(change, self.database, names, matter)
            change.noted("release", found, by, reason, {"matter": matter})
            return found

    def retain(self, tenant: str, names: Sequence[str], expires: float, by: str, reason: str) -> None:
        """Set the time from which documents are invisible."""
        with self.database.change(tenant) as change:
            documents.retain(change, self.database, names, expires)
            change.noted("retain", names, by, reason, {"expires": expires})

    def quarantine(self, tenant: str, rule: Quarantine, by: str, reason: str) -> int:
        """Put a rule into force; returns the tenant's new version."""
        with self.database.change(tenant) as change:
            _add_rule(change, rule, by, reason)
            return change.version

    def lift(self, tenant: str, name: str, by: str, reason: str) -> int:
        """End a quarantine rule."""
        with self.database.change(tenant) as change:
            c = t.quarantine.c
            gone = change.connection.execute(t.quarantine.delete().where(c.tenant == tenant, c.name == name))
            if gone.rowcount != 1:
                raise RefusedError(f"There is no quarantine rule {name!r} in this tenant.", field="name")
            change.noted("lift", name, by, reason)
            return change.version

    def set_parent(self, tenant: str, parent: str | None, by: str, reason: str) -> int:
        """Make *tenant* a child of *parent*. Raises: RefusedError for a circle or more than 8 levels."""
        with self.database.owner.change(tenant) as change:
            self.database.check_lists(change.connection)
            self._one_family_at_a_time(change.connection)
            if parent is not None:
                self._check_family(change.connection, tenant, parent)
            c = t.tenants.c
            change.connection.execute(t.tenants.update().where(c.tenant == tenant).values(parent=parent))
            change.noted("parent", tenant, by, reason, {"parent": parent})
            return change.version

    def _one_family_at_a_time(self, connection: Any) -> None:
        """Wait for other changes of families: two of them together could form a circle that neither sees."""
        statement = sa.select(t.meta.c.value).where(t.meta.c.name == "id").with_for_update()
        connection.execute(statement)  # SQLite has one writer anyway

    def _check_family(self, connection: Any, tenant: str, parent: str) -> None:
        c = t.tenants.c
        edges = connection.execute(sa.select(c.tenant, c.parent).where(c.parent.is_not(None)))
        parents: dict[str, str] = {row.tenant: row.parent for row in edges}
        parents[tenant] = parent
        for start in parents:
            chain = [start]
            while chain[-1] in parents:
                chain.append(parents[chain[-1]])
                if chain[-1] in chain[:-1]:
                    raise RefusedError(f"The tenant {tenant!r} cannot be below itself.", field="parent")
                if len(chain) > MAX_FAMILY:
                    raise RefusedError(f"A family of tenants has at most {MAX_FAMILY} levels.", field="parent")

    def import_content(self, tenant: str, found: Mapping[str, Content], by: str) -> tuple[int, int]:
        """Register documents that a store already holds; returns how many, and how many labels were made for them."""
        with self.database.change(tenant) as change:
            registered, made = documents.import_content(change, self.database, found)
            change.noted("import", f"{registered} documents", by, data={"labels": made})
            return registered, made

    # --- looking ---

    def list_labels(self, tenant: str) -> list[LabelDefinition]:
        """Return the labels of *tenant*."""
        with self.database.read(tenant) as connection:
            return labels.listed(connection, tenant)

    def list_rules(self, tenant: str) -> tuple[Quarantine, ...]:
        """Return the quarantine rules of *tenant*."""
        with self.database.read(tenant) as connection:
            return reading.rules_of(connection, tenant)

    def list_sources(self, tenant: str) -> list[SourceInfo]:
        """Return the sources of rights of *tenant*."""
        with self.database.read(tenant) as connection:
            now = reading.probe(connection, (tenant,), self.database.now(connection)).now
            return sources.listed(connection, self.settings, tenant, now)

    def list_access(self, tenant: str, *, source: str, after: str = "", size: int = 1000) -> list[Access]:
        """Return a page of the latest records of a source of rights."""
        with self.database.read(tenant) as connection:
            return sources.records(connection, tenant, source, after, size)

    def list_documents(
        self, tenant: str, *, after: str = "", size: int = 1000, matter: str | None = None, label: str | None = None
    ) -> list[DocumentInfo]:
        """Return a page of documents in the order of their ids."""
        d, h, o = t.documents.c, t.holds.c, t.overlay.c
        with self.database.read(tenant) as connection:
            statement = sa.select(t.documents).where(d.tenant == tenant, d.document > after)
            if matter is not None:
                held = sa.select(h.document).where(h.tenant == tenant, h.matter == matter)
                statement = statement.where(d.document.in_(held))
            if label is not None:
                statement = statement.where(d.label == label)
            rows = connection.execute(statement.order_by(d.document).limit(size)).all()
            names = [row.document for row in rows]
            matters: dict[str, list[str]] = {}
            changed: set[str] = set()
            for part in reading.in_slices(names):
                of_part = sa.select(h.document, h.matter).where(h.tenant == tenant, h.document.in_(part))
                for row in connection.execute(of_part.order_by(h.matter)):
                    matters.setdefault(row.document, []).append(row.matter)
                entered = sa.select(o.document).where(o.tenant == tenant, o.document.in_(part))
                changed.update(connection.execute(entered).scalars())
        return [
            DocumentInfo(
                row.document,
                row.label,
                row.state,
                row.generation,
                row.chunks,
                row.expires,
                tuple(matters.get(row.document, ())),
                row.document in changed,
            )
            for row in rows
        ]

    def published(self, tenant: str, names: Sequence[str]) -> dict[str, int]:
        """Return the published generations of those of *names* that have content."""
        with self.database.read(tenant) as connection:
            rows = reading.rows_by_name(connection, tenant, names)
        return {
            name: row.generation
            for name, row in rows.items()
            if row.state == reading.LIVE and row.generation is not None
        }

    def who(self, tenant: str, document: str) -> dict[str, Any]:
        """Return who may read *document*: the entries in effect for its label, and what hides it from all."""
        g = t.grants.c
        with self.database.read(tenant) as connection:
            row = reading.rows_by_name(connection, tenant, [document]).get(document)
            if row is None:
                raise RefusedError(f"The document {document!r} is not registered in this tenant.", field="document")
            now = reading.probe(connection, (tenant,), self.database.now(connection)).now
            statement = sa.select(t.grants).where(g.tenant == tenant, g.label == row.label)
            entries = connection.execute(statement.order_by(g.allow, g.subject)).all()
            unvouched = row.label in reading.withdrawn(connection, self.settings, tenant, now)
        reasons = {
            "its content was deleted": row.state != reading.LIVE,
            "it has no content": row.state == reading.LIVE and row.generation is None,
            "it is under a hold": bool(row.held),
            "its time has passed": row.expires <= now,
            "no source vouches for it: its record is too old, has ended, or is not known": unvouched,
        }
        return {
            "document": document,
            "label": row.label,
            "hidden": [reason for reason, holds in reasons.items() if holds],
            "entries": [
                {
                    "subject": one.subject,
                    "allow": bool(one.allow),
                    "write": bool(one.can_write),
                    "from": one.valid_from,
                    "until": one.valid_until,
                }
                for one in entries
            ],
        }

    def history(self, tenant: str, *, size: int = 100) -> list[dict[str, Any]]:
        """Return the latest changes of *tenant*, the newest first."""
        with self.database.read(tenant) as connection:
            statement = sa.select(t.history).where(t.history.c.tenant == tenant).order_by(t.history.c.id.desc())
            return [dict(row._mapping) for row in connection.execute(statement.limit(size))]  # noqa: SLF001 - SQLAlchemy's own public name

    def create(self) -> list[str]:
        """Create or update the tables; returns a line for what was done. Raises: StoreError, ConfigError."""
        from vectoracl.registry import migrate

        self._id = None
        lines = migrate.upgrade(self.database)
        return lines if self.journal is None else [*lines, *self.journal.create()]

    def deviations(self) -> list[Finding]:
        """Return what of the row-level security is missing that a registry in PostgreSQL has. Raises: StoreError."""
        if self.database.sqlite:
            return []
        with self.database.read() as connection:
            return row_security.deviations(connection, str(self.database.schema))

    def check_protected(self) -> None:
        """Raise PostureError where `deviations` returns anything; StoreError."""
        if not self.database.sqlite:
            with self.database.read() as connection:
                row_security.check_protected(connection, str(self.database.schema))

    @property
    def version_table(self) -> VersionTable | None:
        """The table of tenants of a registry in PostgreSQL."""
        return None if self.database.sqlite else VersionTable(str(self.database.schema), t.tenants.name)

    def witness(self) -> Witness | None:
        """Return how this registry reaches its table of tenants; None on SQLite. Raises: StoreError."""
        table = self.version_table
        if table is None:
            return None
        with self.database.read() as connection:
            return witness_of(connection.exec_driver_sql(WITNESS_SQL, (table.quoted,)).first())

    def let_assert(self, role: str) -> None:
        """Let *role*, of a store in the same database, read the version of the tenant whose rows it reads."""
        with self.database.owner.write() as connection:
            for statement in row_security.assertion_grants(str(self.database.schema), role):
                connection.exec_driver_sql(statement.replace("%", "%%"))

    def ready(self) -> bool:
        """Return whether the role sees the tables. Raises: StoreError where the database does not answer."""
        caught: Exception
        try:
            with self.database.engine.connect() as connection:
                return sa.inspect(connection).has_table(t.meta.name)
        except ProgrammingError:  # PostgreSQL: there is no such schema, or the role may not use it
            return False
        except SQLAlchemyError as error:
            caught = error
        raise failed(caught, writing=False)

    def close(self) -> None:
        """Close every connection."""
        if self._quick is not None:
            self._quick.close()
        if self.journal is not None:
            self.journal.close()
        self.database.close()


def new_identity() -> str:
    """Return the id of a registry that is being created."""
    return os.urandom(16).hex()


def _no_room() -> ContentRefusedError:
    return ContentRefusedError(
        f"A validator wants a document to be quarantined, and the tenant would have more than {MAX_RULES} quarantine "
        "rules, so nothing was written. Lift one of them first.",
        reason="no room for another quarantine rule",
    )


def _add_rule(change: Change, rule: Quarantine, by: str, reason: str) -> None:
    """Put a quarantine rule into force. Raises: InvalidInputError, RefusedError."""
    parts = ("producer", "source", "document", "generation", "since", "until")
    values = {one: getattr(rule, one) for one in parts}
    if all(one is None for one in values.values()):
        raise InvalidInputError("A quarantine rule needs at least one part: it would match every chunk.")
    rules = reading.rules_of(change.connection, change.tenant)
    if any(one.name == rule.name for one in rules):
        raise RefusedError(f"There is a quarantine rule {rule.name!r} already; lift it first.", field="name")
    if len(rules) >= MAX_RULES:
        raise RefusedError(f"A tenant has at most {MAX_RULES} quarantine rules; lift one first.", field="name")
    row = {"tenant": change.tenant, "name": rule.name, "reason": reason, "by": by, "at": change.now, **values}
    change.connection.execute(t.quarantine.insert().values(**row))
    change.noted("quarantine", rule.name, by, reason, values)
