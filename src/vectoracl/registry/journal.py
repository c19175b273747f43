"""The journal of a registry: every change, in another database, before it is committed.

A registry that is restored from a backup has forgotten revocations, and nothing in it shows that. The journal has them:
its entry number *n* of a tenant is the change that made the tenant's version *n*. If it has entries that the registry
does not have, the registry is older. One entry may be of a change whose commit failed, or was not heard of: it is
"possibly done" and is applied before the next change. With more of them the tenant is stopped, until
`vectoracl registry verify` has applied them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from vectoracl.errors import RefusedError, StoreError, without_context
from vectoracl.registry import images
from vectoracl.registry import tables as t
from vectoracl.registry.database import BehindError, Change, Database
from vectoracl.registry.reading import in_slices
from vectoracl.registry.row_security import name_tenants

metadata = sa.MetaData()
entries = sa.Table(
    "vectoracl_journal",
    metadata,
    sa.Column("registry", sa.Text, primary_key=True),
    sa.Column("tenant", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.Float(53), nullable=False),
    sa.Column("image", sa.Text, nullable=False),
)


class Journal:
    """The journal of one registry; *identity* returns that registry's id. Thread-safe."""

    def __init__(self, url: str, identity: Callable[[], str]) -> None:
        self.database = Database(url)
        self._identity = identity

    def create(self) -> list[str]:
        """Create the table if there is none; returns a line for what was done. Raises: StoreError."""
        with self._answering(), self.database.write() as connection:
            there = sa.inspect(connection).has_table(entries.name)
            metadata.create_all(connection)
        return [] if there else ["created the registry's journal"]

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raise the error of a journal that did not answer in place of that of a registry."""
        try:
            yield
            return
        except StoreError as error:
            sent = error.sent
        failed = StoreError(
            "The registry's journal did not answer, so nothing was changed. Check that the database of "
            "registry.journal can be reached and written, and that `vectoracl provision` has created its table.",
            code="registry",
            sent=sent,
            retryable=sent == "no",
        )
        failed.__suppress_context__ = True
        raise failed

    def latest(self, tenant: str) -> int:
        """Return the number of the last entry of *tenant*; 0 if there is none."""
        c = entries.c
        statement = sa.select(sa.func.max(c.version)).where(c.registry == self._identity(), c.tenant == tenant)
        with self._answering(), self.database.read() as connection:
            return int(connection.execute(statement).scalar() or 0)

    def latest_of_all(self) -> dict[str, int]:
        """Return the number of the last entry of each tenant."""
        c = entries.c
        statement = sa.select(c.tenant, sa.func.max(c.version)).where(c.registry == self._identity()).group_by(c.tenant)
        with self._answering(), self.database.read() as connection:
            return {tenant: int(version) for tenant, version in connection.execute(statement)}

    def begin(self, change: Change) -> int:
        """Apply the entry of a change whose commit failed, if there is one before *change*; return how many (0 or 1).

        Raises: BehindError where there are more.
        """
        before = change.version - 1
        missing = self.latest(change.tenant) - before
        if missing > 1:
            raise BehindError
        return self.replay(change.connection, change.tenant, before) if missing == 1 else 0

    @without_context
    def append(self, change: Change) -> None:
        """Note what *change* has done, before it is committed. Raises: StoreError; BehindError for a known number."""
        row = {
            "registry": self._identity(),
            "tenant": change.tenant,
            "version": change.version,
            "at": change.now,
            "image": json.dumps(images.image_of(change)),
        }
        with self._answering(), self.database.write() as connection:
            try:
                connection.execute(entries.insert().values(**row))
            except IntegrityError:
                raise BehindError from None

    def replay(self, connection: Connection, tenant: str, version: int) -> int:
        """Apply the entries of *tenant* after *version* to the registry; returns how many. Raises: RefusedError."""
        c = entries.c
        after = sa.select(c.version, c.image).where(
            c.registry == self._identity(), c.tenant == tenant, c.version > version
        )
        number = 0
        with self._answering(), self.database.read() as reading:
            for row in reading.execute(after.order_by(c.version)):
                number += 1
                if row.version != version + number:
                    raise RefusedError(
                        f"The journal has no entry {version + number} of the tenant {tenant!r}: it does not reach back "
                        "to this backup of the registry. Restore a later backup.",
                        field="journal",
                    )
                images.apply(connection, tenant, row.version, json.loads(row.image))
        if number:
            images.finish(connection, tenant)
        return number

    def compare(self, connection: Connection) -> dict[str, int]:
        """Return the number of entries that the registry does not have, of each tenant of which there are any."""
        latest = self.latest_of_all()  # before the versions: what is committed in between is never missing
        c = t.tenants.c
        versions: dict[str, int] = {}
        for part in in_slices(sorted(latest)):
            name_tenants(connection, part)
            rows = connection.execute(sa.select(c.tenant, c.version).where(c.tenant.in_(part)))
            versions.update({row.tenant: row.version for row in rows})
        behind = {tenant: number - versions.get(tenant, 0) for tenant, number in latest.items()}
        return {tenant: number for tenant, number in behind.items() if number > 0}

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
