"""The only file that talks to PostgreSQL at run time: one transaction a request, in one round trip, sync and async.

The settings are transaction-local, so that nothing is left on the connection: not for the next user of the pool, not
behind PgBouncer in transaction mode, not after an error or a cancellation. Nothing is prepared, so no plan outlives
its tenant. A port is never used across a fork.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import Iterable
from typing import Any, Protocol

import psycopg
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from vectoracl.errors import ClosedError, DeniedError, PostureError, StoreError, VectorACLError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.requests import RankAll, Statement, Transaction, VectorParam, VectorsParam

ADAPTER = "pgvector"
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_TRANSIENT = ("08", "53", "57P", "40001", "40P01", "25006")
# The pool's and the driver's own logs quote connection strings and statements.
for _name in ("psycopg", "psycopg.pool"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


class _VectorDumper(Dumper):
    """Sends a vector in binary; the type is the one of the cast around the placeholder."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: VectorParam) -> bytes:
        """Return the binary form."""
        return obj.dump()


class _BytesLoader(Loader):
    """Hands over a vector as it came; `decode` reads it."""

    format = Format.BINARY

    def load(self, data: Any) -> bytes:
        """Return the bytes."""
        return bytes(data)


def adapt(context: AdaptContext, oid: int) -> None:
    """Teach a connection or cursor our parameters; *oid* is the vector type's."""

    class VectorsDumper(Dumper):
        format = Format.BINARY

        def dump(self, obj: VectorsParam) -> bytes:
            return obj.dump(oid)

    context.adapters.register_dumper(VectorParam, _VectorDumper)
    context.adapters.register_dumper(VectorsParam, VectorsDumper)
    context.adapters.register_loader(oid, _BytesLoader)


def settings_statement(request: Transaction | RankAll, timeout: float | None) -> Statement:
    """Return the one statement that sets the scope, and a limit for the server, for this transaction only."""
    settings = list(request.settings)
    if timeout is not None:
        settings.append(("statement_timeout", str(max(1, math.ceil(timeout * 1000)))))
    calls = ", ".join("pg_catalog.set_config(%s, %s, true)" for _ in settings)
    return Statement(f"SELECT {calls}", tuple(part for pair in settings for part in pair))


def mapped(error: BaseException, *, debug: bool, action: str = "write") -> VectorACLError:
    """Return *error* as ours. PostgreSQL's text quotes rows and filters, so it is a cause only with *debug*."""
    if isinstance(error, VectorACLError):
        return error
    made = _mapped(error, action)
    made.__cause__ = error if debug else None
    made.__suppress_context__ = True
    return made


def _mapped(error: BaseException, action: str) -> VectorACLError:
    if isinstance(error, PoolTimeout):
        text = "No connection became free in time. Raise pool_max, or find what holds the connections."
        return StoreError(text, code="pool_timeout", adapter=ADAPTER, sent="no")
    if isinstance(error, PoolClosed):
        return ClosedError("The connection pool was closed.")
    if isinstance(error, TimeoutError):
        return StoreError("PostgreSQL did not answer in time.", code="timeout", adapter=ADAPTER)
    state = getattr(error, "sqlstate", None)
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError):
            text = "The connection to PostgreSQL was lost or could not be made."
            return StoreError(text, code="unavailable", adapter=ADAPTER, retryable=True)
        if isinstance(error, psycopg.DataError | psycopg.ProgrammingError | ValueError | TypeError):
            return StoreError("A value could not be sent to PostgreSQL.", code="bad_value", adapter=ADAPTER, sent="no")
        return StoreError(f"The PostgreSQL client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)
    match state:
        case "22012":
            return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)
        case "57014":
            return StoreError(
                "PostgreSQL stopped the statement at its time limit.", code="timeout", adapter=ADAPTER, sent="no"
            )
        case "42501":
            text = "PostgreSQL refused the statement: row-level security or a missing privilege. Run `vectoracl check`."
            return StoreError(text, code="rejected", adapter=ADAPTER, sent="no")
        case "42P01" | "3F000" | "42703" | "42704" | "42883":
            text = "The schema is not what this configuration expects. Run `vectoracl provision`."
            return StoreError(text, code="not_provisioned", adapter=ADAPTER, sent="no")
    if state.startswith(_TRANSIENT):
        lost = state.startswith(("08", "57P"))
        text = f"PostgreSQL is not able to serve this now (SQLSTATE {state})."
        return StoreError(text, code="unavailable", adapter=ADAPTER, sent="unknown" if lost else "no", retryable=True)
    text = f"PostgreSQL reported SQLSTATE {state}. Nothing was changed."
    return StoreError(text, code=f"sqlstate:{state}", adapter=ADAPTER, sent="no")


def unreachable(dsn: str, error: BaseException, *, debug: bool) -> VectorACLError:
    """Return the error of a first contact that failed: where to, and never the password."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        parts = {}
        text = "The dsn is no valid connection string of PostgreSQL (postgresql://user@host/database)."
    else:
        where = ", ".join(f"{key}={parts[key]}" for key in ("host", "port", "dbname", "user") if parts.get(key))
        text = (
            f"PostgreSQL did not accept a connection ({where or 'defaults of libpq'}). Check that the server runs "
            "there and that database, user and password are right."
        )
    made = StoreError(text, code="unreachable", adapter=ADAPTER, sent="no")
    made.__cause__ = error if debug else None
    made.__suppress_context__ = True
    return made


_ARGUMENTS: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}


def connect_arguments(dsn: str, config: PgvectorConfig) -> dict[str, Any]:
    """Return libpq's arguments that the dsn does not give: a name, and limits for a server that went away."""
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    wanted = {
        "application_name": "vectoracl",
        "connect_timeout": max(2, math.ceil(config.connect_timeout)),
        "tcp_user_timeout": 30_000,
    }
    return {**_ARGUMENTS, **{key: value for key, value in wanted.items() if key not in given}}


class Source(Protocol):
    """Where the connection string comes from; called in the process that connects."""

    def __call__(self) -> str:
        """Return the runtime role's connection string."""
        ...


class _Settings:
    """What both ports share."""

    def __init__(self, config: PgvectorConfig, *, debug: bool) -> None:
        self.config = config
        self.debug = debug
        self.names = Names.of(config)
        self.oid = 0
        self.pid = os.getpid()
        self.parallel = config.pool_max

    def check_process(self) -> None:
        if os.getpid() != self.pid:
            raise ClosedError("A connection pool is not used across a fork: call connect() in the child process.")

    @property
    def oid_query(self) -> str:
        return f"SELECT {self.names.vector_oid}"

    def set_oid(self, row: Any) -> int:
        """Keep the vector type's oid. Raises: PostureError where the extension is missing."""
        if row is None or row[0] is None:
            raise PostureError(
                f"The database has no type {self.names.vector_type_raw!r} in the schema "
                f"{self.config.extension_schema!r}. Run `vectoracl provision`, or CREATE EXTENSION vector."
            )
        self.oid = int(row[0])
        return self.oid


def statement_mode(error: BaseException) -> bool:
    """Tell whether *error* is what PgBouncer says to BEGIN in statement mode."""
    return isinstance(error, psycopg.Error) and error.sqlstate == "08P01"


def _refused_pooler() -> PostureError:
    return PostureError(
        "The pooler does not allow transactions (PgBouncer in statement mode), so a scope cannot be set. "
        "Set pool_mode = transaction."
    )


def replies_of(cursors: Iterable[Any]) -> tuple[Any, ...]:
    """Return the rows, or the row count, of each executed statement of a pipeline."""
    return tuple(cursor.fetchall() if rows else cursor.rowcount for cursor, rows in cursors)


def pipeline(
    connection: Connection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* on an idle autocommit connection: one round trip.

    *oid* is given where the connection is not ours, so that only our cursors learn our types.
    """
    cursors: list[tuple[Cursor[Any], bool]] = []
    with connection.pipeline():
        connection.execute(_BEGIN + (" READ ONLY" if request.read_only else ""), prepare=False)
        if request.settings or timeout is not None:
            setting = settings_statement(request, timeout)
            connection.execute(setting.sql, setting.params, prepare=False)
        for statement in request.statements:
            cursor = Cursor(connection, row_factory=tuple_row)
            cursor.format = Format.BINARY if statement.binary else Format.TEXT
            if oid:
                adapt(cursor, oid)
            cursor.execute(statement.sql, statement.params or None, prepare=False)
            cursors.append((cursor, statement.rows))
        connection.execute("COMMIT", prepare=False)
    return replies_of(cursors)


async def apipeline(
    connection: AsyncConnection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* on an idle autocommit connection: one round trip; see `pipeline`."""
    cursors: list[tuple[AsyncCursor[Any], bool]] = []
    async with connection.pipeline():
        await connection.execute(_BEGIN + (" READ ONLY" if request.read_only else ""), prepare=False)
        if request.settings or timeout is not None:
            setting = settings_statement(request, timeout)
            await connection.execute(setting.sql, setting.params, prepare=False)
        for statement in request.statements:
            cursor = AsyncCursor(connection, row_factory=tuple_row)
            cursor.format = Format.BINARY if statement.binary else Format.TEXT
            if oid:
                adapt(cursor, oid)
            await cursor.execute(statement.sql, statement.params or None, prepare=False)
            cursors.append((cursor, statement.rows))
        await connection.execute("COMMIT", prepare=False)
    return tuple([await cursor.fetchall() if rows else cursor.rowcount for cursor, rows in cursors])


class PgPort(_Settings):
    """Performs requests on a pool of sync connections, its own or the application's."""

    def __init__(
        self,
        config: PgvectorConfig,
        source: Source,
        owner: Source,
        *,
        debug: bool,
        pool: ConnectionPool[Any] | None = None,
    ) -> None:
        super().__init__(config, debug=debug)
        self._owner = owner
        self._own = pool is None
        self._pool = pool if pool is not None else self._open(source())

    def _open(self, dsn: str) -> ConnectionPool[Any]:
        # A first connection by hand: a pool's own error is only that none came in time.
        try:
            arguments = connect_arguments(dsn, self.config)
            with psycopg.connect(dsn, **arguments) as connection:
                self.set_oid(connection.execute(self.oid_query).fetchone())
        except (psycopg.Error, OSError) as error:
            raise unreachable(dsn, error, debug=self.debug) from None
        config = self.config
        pool: ConnectionPool[Any] = ConnectionPool(
            dsn,
            kwargs=arguments,
            min_size=config.pool_min,
            max_size=config.pool_max,
            timeout=config.connect_timeout,
            configure=lambda connection: adapt(connection, self.oid),
            name=f"vectoracl-{config.table}",
            open=False,
        )
        pool.open()
        return pool

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*; see `pipeline`."""
        self.check_process()
        try:
            if isinstance(request, RankAll):
                return rank_all(self._owner(), self, request, timeout)
            wait = self.config.connect_timeout if timeout is None else min(timeout, self.config.connect_timeout)
            with self._pool.connection(timeout=wait) as connection:
                if self._own:
                    return pipeline(connection, request, timeout)
                return self._foreign(connection, request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            if statement_mode(error):
                raise _refused_pooler() from None
            raise mapped(error, debug=self.debug) from (error if self.debug else None)

    def _foreign(self, connection: Connection[Any], request: Transaction, timeout: float | None) -> tuple[Any, ...]:
        """Perform on a connection of the application's pool, and leave it as it was."""
        was = connection.autocommit
        if not was:
            connection.autocommit = True
        try:
            if not self.oid:
                with connection.cursor(row_factory=tuple_row) as cursor:
                    self.set_oid(cursor.execute(self.oid_query).fetchone())
            return pipeline(connection, request, timeout, oid=self.oid)
        finally:
            if not was and not connection.closed:
                connection.rollback()
                connection.autocommit = False

    def close(self) -> None:
        """Close the pool, unless it is the application's."""
        if self._own and os.getpid() == self.pid:
            self._pool.close()


class AsyncPgPort(_Settings):
    """Performs requests on a pool of async connections, its own or the application's."""

    def __init__(
        self,
        config: PgvectorConfig,
        source: Source,
        owner: Source,
        *,
        debug: bool,
        pool: AsyncConnectionPool[Any] | None = None,
    ) -> None:
        super().__init__(config, debug=debug)
        self._source = source
        self._owner = owner
        self._own = pool is None
        self._pool = pool
        self._opening = asyncio.Lock()

    async def _opened(self) -> AsyncConnectionPool[Any]:
        if self._pool is not None:
            return self._pool
        async with self._opening:
            if self._pool is None:
                self._pool = await self._open(await asyncio.to_thread(self._source))
        return self._pool

    async def _open(self, dsn: str) -> AsyncConnectionPool[Any]:
        try:
            arguments = connect_arguments(dsn, self.config)
            async with await AsyncConnection.connect(dsn, **arguments) as connection:
                self.set_oid(await (await connection.execute(self.oid_query)).fetchone())
        except (psycopg.Error, OSError) as error:
            raise unreachable(dsn, error, debug=self.debug) from None
        config = self.config

        async def configure(connection: AsyncConnection[Any]) -> None:
            adapt(connection, self.oid)

        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            dsn,
            kwargs=arguments,
            min_size=config.pool_min,
            max_size=config.pool_max,
            timeout=config.connect_timeout,
            configure=configure,
            name=f"vectoracl-{config.table}",
            open=False,
        )
        await pool.open()
        return pool

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*; see `apipeline`."""
        self.check_process()
        try:
            pool = await self._opened()
            if isinstance(request, RankAll):
                return await asyncio.to_thread(rank_all, self._owner(), self, request, timeout)
            wait = self.config.connect_timeout if timeout is None else min(timeout, self.config.connect_timeout)
            async with pool.connection(timeout=wait) as connection:
                if self._own:
                    return await apipeline(connection, request, timeout)
                return await self._foreign(connection, request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            if statement_mode(error):
                raise _refused_pooler() from None
            raise mapped(error, debug=self.debug) from (error if self.debug else None)

    async def _foreign(
        self,
        connection: AsyncConnection[Any],
        request: Transaction,
        timeout: float | None,
    ) -> tuple[Any, ...]:
        was = connection.autocommit
        if not was:
            await connection.set_autocommit(True)
        try:
            if not self.oid:
                async with connection.cursor(row_factory=tuple_row) as cursor:
                    self.set_oid(await (await cursor.execute(self.oid_query)).fetchone())
            return await apipeline(connection, request, timeout, oid=self.oid)
        finally:
            if not was and not connection.closed:
                await connection.rollback()
                await connection.set_autocommit(False)

    async def close(self) -> None:
        """Close the pool, unless it is the application's."""
        if self._own and self._pool is not None and os.getpid() == self.pid:
            await self._pool.close()


def rank_all(dsn: str, settings: _Settings, request: RankAll, timeout: float | None) -> list[Any]:
    """Run the statement under every tenant's own scope, as the owner, which may list tenants and not read past RLS."""
    with psycopg.connect(dsn, **connect_arguments(dsn, settings.config)) as connection:
        adapt(connection, settings.set_oid(connection.execute(settings.oid_query).fetchone()))
        tenants = connection.execute(f"SELECT tenant_id FROM {settings.names.tenants} ORDER BY 1").fetchall()
        rows: list[Any] = []
        for (tenant,) in tenants:
            scope = (*request.settings, ("vectoracl.tenant", tenant))
            one = Transaction(tenant, (request.statement,), scope)
            rows.extend(pipeline(connection, one, timeout)[0])
    return rows
