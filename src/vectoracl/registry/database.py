"""Connections and transactions of a registry: SQLite by default, or PostgreSQL.

A read is one snapshot. A change locks the tenant first (SQLite: the whole file, by BEGIN IMMEDIATE) and raises the
tenant's version inside its transaction, so that versions are committed in their order and a change without a new
version does not exist.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from vectoracl.errors import ConfigError, StoreError, without_context
from vectoracl.registry import tables as t
from vectoracl.registry.restores import OLDER_REGISTRY, stopped_error
from vectoracl.registry.row_security import check_lists, name_tenants, quote

BUSY_SECONDS = 10.0
_GREATEST: dict[str, Any] = {"sqlite": sa.func.max, "postgresql": sa.func.greatest}


class BehindError(Exception):
    """The journal has changes that the registry does not have; never seen outside of this module and `journal`."""


class Recorder(Protocol):
    """Keeps a copy of every change; see `journal`."""

    def begin(self, change: Change) -> int:
        """Return how many changes were taken over before *change*. Raises: BehindError."""

    def append(self, change: Change) -> None:
        """Note *change*, which is about to be committed. Raises: BehindError, StoreError."""


@dataclass(frozen=True, slots=True)
class Touched:
    """The parts that a change has touched: the names of documents and of labels, and its rows of the history."""

    documents: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction that changes one tenant: its connection, the tenant's new version, and the registry's time."""

    connection: Connection
    tenant: str
    version: int
    now: float
    stopped: str | None = None
    floor: int = 0
    touched: Touched = field(default_factory=Touched)

    def check_running(self) -> None:
        """Raise StoppedTenantError if the tenant is stopped: a backup was restored."""
        if self.stopped is not None:
            raise stopped_error(self.tenant, self.stopped)

    def noted(
        self, kind: str, subjects: str | Sequence[str], by: str, reason: str = "", data: Mapping[str, Any] | None = None
    ) -> None:
        """Write a row of the history for each subject."""
        common: dict[str, Any] = {
            "version": self.version,
            "at": self.now,
            "by": by,
            "kind": kind,
            "data": json.dumps(dict(data or {}), sort_keys=True),
            "reason": reason,
        }
        rows = [{**common, "subject": one} for one in ((subjects,) if isinstance(subjects, str) else subjects)]
        self.touched.history.extend(rows)
        if rows:
            self.connection.execute(t.history.insert(), [{**row, "tenant": self.tenant} for row in rows])


def failed(error: Exception, *, writing: bool) -> StoreError:
    """Return the error of a registry that did not answer; the driver's text, which may quote rows, is left out."""
    kind = type(error.orig).__name__ if isinstance(error, DBAPIError) else type(error).__name__
    lost = writing and isinstance(error, DBAPIError) and error.connection_invalidated
    made = StoreError(
        f"The registry did not answer ({kind}), so nothing was permitted. Check that its database can be reached and "
        "written, and that `vectoracl provision` has created its tables.",
        code="registry",
        sent="unknown" if lost else "no",
        retryable=not lost,
    )
    made.__suppress_context__ = True
    return made


class Database:
    """The database of one registry. Thread-safe; not used across a fork.

    In PostgreSQL the tables are in `schema`, and a transaction reaches the rows of the tenants that it was opened for
    (`row_security`). `owner_url` is the URL of the role that owns them.
    """

    @without_context
    def __init__(
        self,
        url: str,
        *,
        owner_url: str | None = None,
        schema: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            self.url = sa.make_url(url)
        except ArgumentError:
            raise ConfigError("registry.url is not a database URL such as sqlite:///registry.db.") from None
        if self.url.get_backend_name() not in _GREATEST:
            raise ConfigError("registry.url must be a URL of sqlite or of postgresql+psycopg.")
        self.schema = schema
        self._owner_url = owner_url
        self._owner: Database | None = None
        self.sqlite = self.url.get_backend_name() == "sqlite"
        if self.sqlite and self.url.database in (None, "", ":memory:"):
            raise ConfigError("registry.url must name a file: a registry in memory would forget every revocation.")
        self._clock = clock
        self._latest = -math.inf
        self.journal: Recorder | None = None
        self.engine = self._engine()

    @without_context
    def _engine(self) -> Engine:
        if not self.sqlite:
            options = {"connect_timeout": 10, "options": "-c statement_timeout=30000 -c lock_timeout=10000"}
            if self.schema is not None:
                path = f"{quote(self.schema)},pg_temp".replace("\\", "\\\\").replace(" ", "\\ ")
                options["options"] = f"{options['options']} -c search_path={path}"
            try:
                return sa.create_engine(self.url, connect_args=options, pool_size=8, max_overflow=24)
            except (ImportError, SQLAlchemyError) as error:
                raise ConfigError(f"registry.url: its driver cannot be used ({type(error).__name__}).") from None
        engine = sa.create_engine(self.url, connect_args={"timeout": BUSY_SECONDS}, pool_size=8, max_overflow=64)
        sa.event.listen(engine, "do_connect", self._private)
        sa.event.listen(engine, "connect", _sqlite_connected)
        sa.event.listen(engine, "begin", _sqlite_begin)
        return engine

    def _private(self, *_: Any) -> None:
        """Create the file for its user alone, before SQLite creates it for everyone; its other files follow it."""
        path = Path(str(self.url.database))
        with suppress(OSError):  # it exists, or SQLite reports what is wrong
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    @property
    def path(self) -> Path | None:
        """The file of an SQLite registry."""
        return Path(str(self.url.database)) if self.sqlite else None

    def now(self, connection: Connection) -> float:
        """Return the time: the database server's, or this host's for a file."""
        if self.sqlite:
            return self.host_time()
        statement = sa.text("SELECT extract(epoch FROM clock_timestamp())")
        return self.forward(float(connection.execute(statement).scalar_one()))

    def host_time(self) -> float:
        """Return this host's time. Raises: StoreError if it cannot be read."""
        return self.forward(float(self._clock()))

    def forward(self, number: float) -> float:
        """Return *number*, or the latest time that was seen: a clock set back must not bring back what has expired."""
        if not math.isfinite(number):
            raise StoreError("The registry's clock cannot be read.", code="registry", sent="no")
        self._latest = max(self._latest, number)  # threads may race here, by microseconds
        return self._latest

    @property
    def owner(self) -> Database:
        """The same database as the operator reaches it: by the owner's role, which may list the tenants.

        Raises: ConfigError where the configuration does not name the owner.
        """
        if self.sqlite:
            return self
        if self._owner is None:
            if self._owner_url is None:
                raise ConfigError(
                    "This needs registry.owner_url: the URL of the role that owns the registry's tables in PostgreSQL. "
                    "Leave it out where you serve."
                )
            self._owner = Database(self._owner_url, schema=self.schema, clock=self._clock)
        self._owner.journal = self.journal
        return self._owner

    def check_lists(self, connection: Connection) -> None:
        """Raise PostureError unless *connection* of the owner is sure to list every tenant; nothing on SQLite."""
        if not self.sqlite:
            check_lists(connection, str(self.schema), self.roles()[0])

    def roles(self) -> tuple[str, str]:
        """Return the names of the role that serves and of the owner. Raises: ConfigError."""
        runtime, owner = self.url.username, self.owner.url.username
        if not runtime or not owner or runtime == owner:
            raise ConfigError(
                "registry.url and registry.owner_url have to name their roles, and not the same one: the owner could "
                "switch row-level security off."
            )
        return runtime, owner

    @contextmanager
    def read(self, *tenants: str) -> Iterator[Connection]:
        """Open a transaction that sees one moment, of *tenants*. Raises: StoreError with the code "registry"."""
        mode: dict[str, Any] = (
            {} if self.sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        caught: Exception
        try:
            with self.engine.connect().execution_options(**mode) as connection, connection.begin():
                if tenants:
                    name_tenants(connection, tenants)
                yield connection
                return
        except SQLAlchemyError as error:
            caught = error
        raise failed(caught, writing=False)

    @contextmanager
    def write(self, *tenants: str) -> Iterator[Connection]:
        """Open a transaction that may write rows of *tenants*. Raises: StoreError with the code "registry"."""
        caught: Exception
        try:
            with self.engine.connect().execution_options(vectoracl_write=True) as connection, connection.begin():
                if tenants:
                    name_tenants(connection, tenants)
                yield connection
                return
        except SQLAlchemyError as error:
            caught = error
        raise failed(caught, writing=True)

    @contextmanager
    def change(self, tenant: str, *, raises: bool = True) -> Iterator[Change]:
        """Open a transaction that changes *tenant* and, with *raises*, its version.

        Raises: StoreError; StoppedTenantError where the journal has changes that the registry does not have.
        """
        try:
            with self.write(tenant) as connection:
                change = self._begin(connection, tenant, raises=raises)
                if raises and self.journal is not None and self.journal.begin(change):
                    change = self._begin(connection, tenant, raises=True)
                yield change
                if raises and self.journal is not None:
                    self.journal.append(change)
                return
        except BehindError:
            pass
        with self.write(tenant) as connection:
            connection.execute(t.tenants.update().where(t.tenants.c.tenant == tenant).values(stopped=OLDER_REGISTRY))
        raise stopped_error(tenant, OLDER_REGISTRY)

    def _begin(self, connection: Connection, tenant: str, *, raises: bool) -> Change:
        """Lock *tenant* and, with *raises*, raise its version."""
        self.upsert(connection, t.tenants, {"tenant": tenant}, {"version": 0, "clock": 0.0, "floor": 0}, update=False)
        now = self.now(connection)
        greatest = _GREATEST[self.url.get_backend_name()]
        statement = (
            t.tenants.update()
            .where(t.tenants.c.tenant == tenant)
            .values(
                version=t.tenants.c.version + (1 if raises else 0),
                clock=greatest(t.tenants.c.clock, sa.literal(now, sa.Float(53))),
            )
            .returning(t.tenants.c.version, t.tenants.c.clock, t.tenants.c.stopped, t.tenants.c.floor)
        )
        row = connection.execute(statement).one()
        return Change(connection, tenant, row.version, row.clock, row.stopped, row.floor)

    def upsert(
        self,
        connection: Connection,
        table: sa.Table,
        key: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        update: bool = True,
    ) -> None:
        """Insert a row, or update it where *key* exists."""
        make: Any = sqlite.insert if self.sqlite else postgresql.insert
        statement = make(table).values(**key, **values)
        if update and values:
            statement = statement.on_conflict_do_update(index_elements=list(key), set_=dict(values))
        else:
            statement = statement.on_conflict_do_nothing(index_elements=list(key))
        connection.execute(statement)

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()
        if self._owner is not None:
            self._owner.close()


def _sqlite_connected(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, see `_sqlite_begin`
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")  # a hold that was acknowledged survives a power failure
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("vectoracl_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
