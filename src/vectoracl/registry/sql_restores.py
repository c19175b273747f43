"""The transactions of a registry that are about restored backups: marks, stops, the journal, and `registry verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import sqlalchemy as sa

from vectoracl.registry import marks, reading, verifying
from vectoracl.registry import tables as t
from vectoracl.registry.database import Change, Database
from vectoracl.registry.journal import Journal
from vectoracl.registry.restores import OLDER_REGISTRY, Marks, SeenMarks, stopped_error
from vectoracl.registry.scopes import Probe
from vectoracl.registry.values import Expected, Pending


class RestoreMethods:
    """The part of `Registry` that notices restored backups and brings store and registry together again."""

    database: Database
    journal: Journal | None

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def seen_versions(self, tenants: Sequence[str]) -> dict[str, int]:
        """Return the greatest versions of *tenants* that this process has seen: no later read may see less."""
        return {one: self._seen.get(one, 0) for one in tenants}

    def check_running(self, before: Mapping[str, int], found: Probe) -> Probe:
        """Return *found* if no tenant is stopped; stop one whose version is less than it was *before*."""
        found.check_running()
        for tenant, version in found.versions.items():
            if version < before.get(tenant, 0):
                self.stop(tenant, OLDER_REGISTRY)
                raise stopped_error(tenant, OLDER_REGISTRY)
            self._seen[tenant] = max(version, self._seen.get(tenant, 0))
        return found

    def tenants(self) -> list[str]:
        """Return the tenants of which anything is registered."""
        with self.database.owner.read() as connection:
            self.database.check_lists(connection)
            statement = sa.select(t.tenants.c.tenant).where(t.tenants.c.version > 0).order_by(t.tenants.c.tenant)
            return list(connection.execute(statement).scalars())

    def stop(self, tenant: str, reason: str) -> None:
        """Stop *tenant* for every process, until `registry verify`."""
        with self.database.write(tenant) as connection:
            marks.stop(connection, tenant, reason)

    def marks(self, tenant: str, store: str) -> Marks:
        """Return the marks that *store* has to have. Raises: StoppedTenantError."""
        before = self.seen_versions((tenant,))
        with self.database.read(tenant) as connection:
            marks.stopped_check(connection, tenant)
            found = marks.read(connection, tenant, store, self.database.now(connection))
        self.check_running(before, Probe({tenant: found.version}, found.now))
        return found

    def compare_marks(self, tenant: str, store: str, before: Marks, seen: SeenMarks) -> None:
        """Stop *tenant* if the marks *seen* in *store* contradict the registry. Raises: StoppedTenantError."""
        with self.database.read(tenant) as connection:
            marks.stopped_check(connection, tenant)
            reason = marks.contradiction(connection, tenant, store, before, seen)
        if reason is not None:
            self.stop(tenant, reason)
            raise stopped_error(tenant, reason)

    # --- the journal ---

    def compare_journal(self) -> None:
        """Stop every tenant of which the journal has more than one change that this registry does not have.

        One is of a change whose commit failed: it is applied. Raises: StoreError.
        """
        if self.journal is None:
            return
        with self.database.read() as connection:
            behind = self.journal.compare(connection)
        for tenant, number in behind.items():
            if number == 1:
                self.replay(tenant)
            else:
                with self.database.change(tenant, raises=False) as change:  # the tenant is locked, and its row exists
                    if self.journal.latest(tenant) - change.version > 1:
                        marks.stop(change.connection, tenant, OLDER_REGISTRY)

    def replay(self, tenant: str) -> int:
        """Apply the changes of the journal that this registry does not have; returns how many. Raises: RefusedError."""
        if self.journal is None:
            return 0
        with self.database.change(tenant, raises=False) as change:
            return self.journal.replay(change.connection, tenant, change.version)

    # --- verification ---

    def begin_verify(self, tenant: str, token: str, newest: int, *, accepted: bool) -> int:
        """Stop *tenant* for the verification *token*; returns the number of changes taken from the journal."""
        replayed = self.replay(tenant)
        with self.database.change(tenant) as change:
            verifying.begin(change, self.database, token, newest, journal=self.journal is not None, accepted=accepted)
            change.noted("verify", tenant, "vectoracl", data={"replayed": replayed})
        return replayed

    @contextmanager
    def _verification(self, tenant: str, token: str) -> Iterator[Change]:
        with self.database.change(tenant) as change:
            verifying.check(change, token)
            yield change

    def verify_page(self, tenant: str, after: str, size: int) -> list[Expected]:
        """Return the next documents with what their chunks should carry."""
        with self.database.read(tenant) as connection:
            return verifying.page(connection, tenant, after, size)

    def verify_known(self, tenant: str, names: Sequence[str]) -> frozenset[str]:
        """Return those of *names* that are registered."""
        with self.database.read(tenant) as connection:
            return frozenset(reading.rows_by_name(connection, tenant, names))

    def restamp(self, tenant: str, token: str, live: Sequence[str], gone: Sequence[str]) -> list[Pending]:
        """Give new revs to documents whose chunks contradict the registry."""
        with self._verification(tenant, token) as change:
            return verifying.restamp(change, self.database, live, gone)

    def restamped(self, tenant: str, token: str, given: Sequence[Pending]) -> None:
        """Note that the chunks of *given* are what the registry says."""
        with self._verification(tenant, token) as change:
            verifying.restamped(change, given)

    def verify_marks(self, tenant: str, token: str) -> Marks:
        """Draw the mark that ends a verification."""
        with self._verification(tenant, token) as change:
            return Marks(change.version, change.now, frozenset())

    def end_verify(self, tenant: str, token: str, store: str, mark: str, version: int) -> None:
        """Require the mark that was inserted, and let *tenant* go on."""
        with self._verification(tenant, token) as change:
            verifying.end(change, store, mark, version)
            change.noted("verified", tenant, "vectoracl")
