"""The only file that talks to PostgreSQL at run time: one transaction a request, in one round trip, sync and async.

The settings are transaction-local, so that nothing is left on the connection: not for the next user of the pool, not
behind PgBouncer in transaction mode, not after an error or a cancellation. Nothing is prepared, so no plan outlives
its tenant. A port is never used across a fork.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncPipeline, Connection, Cursor, Pipeline
from psycopg.abc import AdaptContext, PQGen
from psycopg.adapt import Dumper, Loader
from psycopg.pq import Format
from psycopg.rows import tuple_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolClosed, PoolTimeout

from vectoracl.errors import ClosedError, DeniedError, PostureError, RefusedError, StoreError, VectorACLError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.liveness import aborrowed, arecover, borrowed, limited, recover
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.requests import ArrayParam, RankAll, Statement, Transaction, VectorParam, VectorsParam

ADAPTER = "pgvector"
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_TRANSIENT = ("08", "53", "57P", "40001", "40P01", "25006")
_PROBE = f"{_BEGIN} READ ONLY"
# What PgBouncer says to BEGIN in statement mode, and, later, when it lost its server: so it is asked for at first only.
_PROTOCOL_VIOLATION = "08P01"
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


class _ArrayDumper(Dumper):
    """Sends an array in binary; the type is the one of the cast around the placeholder."""

    format = Format.BINARY
    oid = 0

    def dump(self, obj: ArrayParam) -> bytes:
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
    context.adapters.register_dumper(ArrayParam, _ArrayDumper)
    context.adapters.register_dumper(VectorsParam, VectorsDumper)
    context.adapters.register_loader(oid, _BytesLoader)


def settings_statement(request: Transaction | RankAll, timeout: float | None) -> Statement:
    """Return the one statement that sets the scope, and a limit for the server, for this transaction only."""
    settings = list(request.settings)
    if timeout is not None:  # at most 86,400 seconds (`reads.MAX_TIMEOUT`), so it fits 31 bits
        settings.append(("statement_timeout", str(max(1, math.ceil(timeout * 1000)))))
    calls = ", ".join("pg_catalog.set_config(%s, %s, true)" for _ in settings)
    return Statement(f"SELECT {calls}", tuple(part for pair in settings for part in pair))


P = ParamSpec("P")
R = TypeVar("R")


def apart(function: Callable[P, R]) -> Callable[P, R]:
    """Raise the errors of *function* without the client's own one in their chain.

    `from None` keeps Python from printing it; what collects errors walks the chain all the same, and psycopg's errors
    hold the state of their connection, password included.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except VectorACLError as error:
            failed = error
        if failed.__cause__ is None:
            failed.__context__ = None
        raise failed

    return call


def mapped(error: BaseException, *, debug: bool, action: str = "write") -> VectorACLError:
    """Return *error* as ours. PostgreSQL's text quotes rows and filters, so it is a cause only with *debug*.

    Raise it after the `except` block, or under `apart`: in it Python attaches *error* as its `__context__`.
    """
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
        # A connection that is lost while results are read comes as the bare DatabaseError, without a SQLSTATE.
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
        if lost or type(error) is psycopg.DatabaseError:
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
    # Arrays are sent in binary, in UTF-8; neither PGCLIENTENCODING nor a role's setting may have them read otherwise.
    return {
        **_ARGUMENTS,
        **{key: value for key, value in wanted.items() if key not in given},
        "client_encoding": "UTF8",
    }


def check_encoding(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    """Refuse a connection of the application's that would read what we send, UTF-8, as something else."""
    if connection.info.encoding != "utf-8":
        raise RefusedError("The client_encoding of this connection is not UTF8, which is what the adapter sends.")


_Pool = ConnectionPool[Any] | AsyncConnectionPool[Any]


def connect_errors(pool: _Pool) -> int:
    """Return how often *pool* has failed to connect so far."""
    return pool.get_stats().get("connections_errors", 0)


def _left(until: float | None) -> float | None:
    """Return the seconds until *until*, and at least a moment: the server then says that the time is over."""
    return None if until is None else max(0.001, until - time.monotonic())


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

    def wait(self, timeout: float | None) -> float:
        """Return how many seconds to wait for a connection."""
        limit = self.config.connect_timeout
        return limit if timeout is None else min(timeout, limit)

    def failed(self, error: Exception, pool: _Pool | None, before: int) -> VectorACLError:
        """Return *error* as ours; *before* is how often connecting had failed when the request began."""
        if isinstance(error, PoolTimeout) and pool is not None and connect_errors(pool) > before:
            return _no_connection()
        return mapped(error, debug=self.debug)

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


def _interrupted(error: BaseException) -> bool:
    """Tell whether *error* came up while psycopg ended a statement because of Ctrl-C, which must not be lost."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__context__
    return False


def _no_connection() -> StoreError:
    text = "The connection to PostgreSQL was lost and no new one could be made in time."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no")


def _refused_pooler() -> PostureError:
    return PostureError(
        "The pooler does not allow transactions (PgBouncer in statement mode), so a scope cannot be set. "
        "Set pool_mode = transaction."
    )


def replies_of(cursors: Iterable[Any]) -> tuple[Any, ...]:
    """Return the rows, or the row count, of each executed statement of a pipeline."""
    return tuple(cursor.fetchall() if rows else cursor.rowcount for cursor, rows in cursors)


class _Synced(Pipeline):
    """A pipeline whose last message is Sync; psycopg's own sends a Flush after it.

    Behind PgBouncer in transaction mode the server's connection goes back with the answer to Sync. A Flush that comes
    later takes one again, nothing answers it, and so nothing gives that connection back: the pool is short of it for
    as long as this client stays. If a release of psycopg renames what is overridden here, its own form is used.
    """

    def _exit_gen(self) -> PQGen[None]:
        failed = None
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        except Exception as error:  # noqa: BLE001 - raised again below, after what was answered is read
            failed = error
        yield from self._fetch_gen(flush=False)
        if failed is not None:
            raise failed


class _AsyncSynced(AsyncPipeline):
    """See `_Synced`."""

    def _exit_gen(self) -> PQGen[None]:
        return _Synced._exit_gen(self)  # type: ignore[arg-type]  # noqa: SLF001 - the two share their base's state


def pipeline(
    connection: Connection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* on an idle autocommit connection: one round trip.

    *oid* is given where the connection is not ours, so that only our cursors learn our types.
    """
    cursors: list[tuple[Cursor[Any], bool]] = []
    connection._pipeline = _Synced(connection)  # noqa: SLF001 - pipeline() enters it, and forgets it at its end
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
    connection._pipeline = _AsyncSynced(connection)  # noqa: SLF001 - likewise
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
        config = self.config
        failed = None
        try:
            arguments = connect_arguments(dsn, config)
            with psycopg.connect(dsn, **arguments) as connection, limited(connection, config.connect_timeout):
                self._first(connection)
        except (psycopg.Error, OSError) as error:
            failed = unreachable(dsn, error, debug=self.debug)
        if failed is not None:
            raise failed
        pool: ConnectionPool[Any] = ConnectionPool(
            dsn,
            kwargs=arguments,
            min_size=config.pool_min,
            max_size=config.pool_max,
            timeout=config.connect_timeout,
            reconnect_timeout=config.connect_timeout,
            configure=lambda connection: adapt(connection, self.oid),
            name=f"vectoracl-{config.table}",
            open=False,
        )
        pool.open()
        return pool

    def _first(self, connection: Connection[Any]) -> None:
        """Look up the vector type and see that a transaction is possible. Raises: PostureError."""
        with connection.cursor(row_factory=tuple_row) as cursor:
            self.set_oid(cursor.execute(self.oid_query).fetchone())
        refused = False
        try:
            connection.execute(_PROBE, prepare=False)
            connection.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            refused = error.sqlstate == _PROTOCOL_VIOLATION
            if not refused:
                raise
        if refused:
            raise _refused_pooler()

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*; see `pipeline`."""
        self.check_process()
        before = connect_errors(self._pool)
        try:
            if isinstance(request, RankAll):
                return rank_all(self._owner(), self, request, timeout)
            return self._perform(request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            failed: BaseException = (
                KeyboardInterrupt() if _interrupted(error) else self.failed(error, self._pool, before)
            )
        raise failed

    def _perform(self, request: Transaction, timeout: float | None) -> tuple[Any, ...]:
        until = None if timeout is None else time.monotonic() + timeout
        with borrowed(self._pool, self.wait(timeout)) as connection, limited(connection, _left(until)):
            try:
                if self._own:
                    return pipeline(connection, request, _left(until))
                return self._foreign(connection, request, _left(until))
            except BaseException:
                recover(connection)
                raise

    def _foreign(self, connection: Connection[Any], request: Transaction, timeout: float | None) -> tuple[Any, ...]:
        """Perform on a connection of the application's pool, and leave it as it was."""
        was = connection.autocommit
        if not was:
            connection.autocommit = True
        try:
            check_encoding(connection)
            if not self.oid:
                self._first(connection)
            return pipeline(connection, request, timeout, oid=self.oid)
        finally:
            if not was:
                recover(connection)
                if not connection.closed:
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
        config = self.config
        failed = None
        try:
            arguments = connect_arguments(dsn, config)
            async with await AsyncConnection.connect(dsn, **arguments) as connection:
                with limited(connection, config.connect_timeout):
                    await self._first(connection)
        except (psycopg.Error, OSError) as error:
            failed = unreachable(dsn, error, debug=self.debug)
        if failed is not None:
            raise failed

        async def configure(connection: AsyncConnection[Any]) -> None:
            adapt(connection, self.oid)

        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            dsn,
            kwargs=arguments,
            min_size=config.pool_min,
            max_size=config.pool_max,
            timeout=config.connect_timeout,
            reconnect_timeout=config.connect_timeout,
            configure=configure,
            name=f"vectoracl-{config.table}",
            open=False,
        )
        try:
            await pool.open()
        except BaseException:  # cancelled: its tasks and connections would outlive it
            await pool.close()
            raise
        return pool

    async def _first(self, connection: AsyncConnection[Any]) -> None:
        """Look up the vector type and see that a transaction is possible. Raises: PostureError."""
        async with connection.cursor(row_factory=tuple_row) as cursor:
            self.set_oid(await (await cursor.execute(self.oid_query)).fetchone())
        refused = False
        try:
            await connection.execute(_PROBE, prepare=False)
            await connection.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            refused = error.sqlstate == _PROTOCOL_VIOLATION
            if not refused:
                raise
        if refused:
            raise _refused_pooler()

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*; see `apipeline`."""
        self.check_process()
        before = 0 if self._pool is None else connect_errors(self._pool)
        try:
            pool = await self._opened()
            if isinstance(request, RankAll):
                return await asyncio.to_thread(rank_all, self._owner(), self, request, timeout)
            return await self._perform(pool, request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            failed = self.failed(error, self._pool, before)
        raise failed

    async def _perform(
        self, pool: AsyncConnectionPool[Any], request: Transaction, timeout: float | None
    ) -> tuple[Any, ...]:
        until = None if timeout is None else time.monotonic() + timeout
        async with aborrowed(pool, self.wait(timeout)) as connection:
            with limited(connection, _left(until)):
                try:
                    if self._own:
                        return await apipeline(connection, request, _left(until))
                    return await self._foreign(connection, request, _left(until))
                except BaseException:
                    await arecover(connection)
                    raise

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
            check_encoding(connection)
            if not self.oid:
                await self._first(connection)
            return await apipeline(connection, request, timeout, oid=self.oid)
        finally:
            if not was:
                await arecover(connection)
                if not connection.closed:
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
