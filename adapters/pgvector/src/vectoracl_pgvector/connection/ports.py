"""The ports: the only file that talks to PostgreSQL at run time. One request is one transaction in one round trip.

A port receives a frozen `Transaction` (settings and statements, from `compile`) and returns the replies. For each one:

1. Check the process. Connections are never used across a fork.
2. Borrow a live connection from the pool (`liveness`), within the time that the request has left.
3. Send the settings and every statement behind one Sync, and read all results (`wire`): writes, and whatever has
   several statements, between `BEGIN` and `COMMIT`, a single read without them (`single_read`).
4. Return the connection. After an error, roll back first; a connection that cannot roll back is closed.

Isolation between users of one connection rests on three rules:

- Settings, the tenant's scope among them, are local to the transaction. Nothing stays on the connection: not for the
  next user of the pool, not behind PgBouncer in transaction mode, not after an error or a cancellation.
- A statement may stay prepared on a connection of ours, its plan never: each execution makes one for its own tenant.
- A pool of the application's is left as it was: autocommit is restored, and our types are adapted for one request only.

The first contact finds the extension's schema and checks that the server, or the pooler in front of it, allows
transactions. A pool reports only that no connection came in time, so each failed connect is recorded and reported
instead. All client errors become vectoracl errors here (`failures`); PostgreSQL's own texts quote rows and are dropped.

`PgPort` and `AsyncPgPort` are twins: the logic is in `wire`, `liveness` and `failures`, and each port only drives it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any, Protocol, Self

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from vectoracl.errors import ClosedError, StoreError, VectorACLError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.arguments import Pool, check_encoding, connect_arguments, connect_errors
from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.connection.connect_failures import connect_failed, refusal
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.connection.failures import interrupted, mapped, no_connection, refused_pooler
from vectoracl_pgvector.connection.liveness import aborrow, arecover, borrow, give_back, limited, recover
from vectoracl_pgvector.connection.owner import connect_owner
from vectoracl_pgvector.connection.session import Preparing, attach
from vectoracl_pgvector.connection.wire import BEGIN, apipeline, pipeline
from vectoracl_pgvector.names import SAFE_PATH, Names
from vectoracl_pgvector.requests import RankAll, Statement, Transaction

# Sent alone: PgBouncer in statement mode accepts a whole transaction that is sent behind one Sync.
_PROBE = f"{BEGIN} READ ONLY"
# PgBouncer reports it for BEGIN in statement mode, and later if it lost its server: only the first contact checks it.
_PROTOCOL_VIOLATION = "08P01"
# The pool's and the driver's own logs quote connection strings and statements.
for _name in ("psycopg", "psycopg.pool"):
    logging.getLogger(_name).addHandler(logging.NullHandler())


def _remaining(until: float | None) -> float | None:
    """Return the seconds until *until*, at least 1 ms, so that the server itself reports the timeout."""
    return None if until is None else max(0.001, until - time.monotonic())


def _writes(request: Any) -> bool:
    return isinstance(request, Transaction) and request.writes


class DsnSource(Protocol):
    """Provides the connection string; called in the process that connects."""

    def __call__(self) -> str:
        """Return the runtime role's connection string."""
        ...


class _Settings:
    """The state that both ports share."""

    def __init__(self, config: PgvectorConfig, extension: Extension, *, debug: bool) -> None:
        self.config = config
        self.extension = extension
        self.debug = debug
        self.names = Names.of(config)
        self.oid = 0
        self.pid = os.getpid()
        self.parallel = config.pool_max
        self.refusal: StoreError | None = None
        self.preparing = Preparing(config.prepare)
        self.own = True
        self._noted = 0

    def wait(self, timeout: float | None) -> float:
        """Return the number of seconds to wait for a connection."""
        limit = self.config.connect_timeout
        return limit if timeout is None else min(timeout, limit)

    def failed(self, error: Exception, pool: Pool | None, before: int, *, writes: bool) -> VectorACLError:
        """Map *error* to a vectoracl error.

        Args:
            error: The client's error.
            pool: The pool that was used.
            before: The pool's count of failed connects when the request began.
            writes: Whether the request could write.
        """
        if isinstance(error, PoolTimeout) and self.connect_errors(pool) > before:
            return no_connection(self.refusal)
        return mapped(error, debug=self.debug, writes=writes)

    def note(self, dsn: str, error: psycopg.Error) -> None:
        """Record why the pool could not connect; its own error is only that no connection came in time."""
        self.refusal = refusal(dsn, error)
        self._noted += 1

    def connect_errors(self, pool: Pool | None) -> int:
        """Return the number of failed connects of *pool*; those of a pool of ours are counted here, which is faster."""
        return self._noted if self.own or pool is None else connect_errors(pool)

    def check_process(self) -> None:
        if os.getpid() != self.pid:
            raise ClosedError("A connection pool cannot be used across a fork: call connect() in the child process.")


class PgPort(_Settings):
    """Performs requests on a pool of sync connections, its own or the application's."""

    def __init__(
        self,
        config: PgvectorConfig,
        extension: Extension,
        source: DsnSource,
        owner: DsnSource,
        *,
        debug: bool,
        pool: ConnectionPool[Any] | None = None,
    ) -> None:
        super().__init__(config, extension, debug=debug)
        self._owner = owner
        self.own = pool is None
        self._pool = pool if pool is not None else self._open(source())

    def _open(self, dsn: str) -> ConnectionPool[Any]:
        # Connect once without the pool, whose own error is only that no connection came in time.
        config = self.config
        failed = None
        try:
            arguments = connect_arguments(dsn, config)
            with psycopg.connect(dsn, **arguments) as connection, limited(connection, config.connect_timeout):
                self._prepare(connection)
        except (psycopg.Error, OSError) as error:
            failed = connect_failed(dsn, error, debug=self.debug)
        if failed is not None:
            raise failed
        note, preparing = self.note, self.preparing

        class RecordingConnection(Connection[Any]):
            """A pool connection that records why it could not be established."""

            @classmethod
            def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
                try:
                    return attach(super().connect(conninfo, **kwargs), preparing)
                except psycopg.Error as error:
                    note(dsn, error)
                    raise

        pool: ConnectionPool[Any] = ConnectionPool(
            dsn,
            connection_class=RecordingConnection,
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

    def _prepare(self, connection: Connection[Any]) -> None:
        """Find the extension and check that transactions are possible. Raises: PostureError."""
        (rows,) = pipeline(connection, self.extension.request(), None)
        self.oid = self.extension.read_location(rows)
        refused = False
        try:
            connection.execute(_PROBE, prepare=False)
            connection.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            refused = error.sqlstate == _PROTOCOL_VIOLATION
            if not refused:
                raise
        if refused:
            raise refused_pooler()

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*; see `pipeline`."""
        self.check_process()
        before = self.connect_errors(self._pool)
        try:
            if isinstance(request, RankAll):
                return rank_all(self._owner(), self, request, timeout)
            return self._perform(request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            failed: BaseException = (
                KeyboardInterrupt()
                if interrupted(error)
                else self.failed(error, self._pool, before, writes=_writes(request))
            )
        raise failed

    def _perform(self, request: Transaction, timeout: float | None) -> tuple[Any, ...]:
        until = None if timeout is None else time.monotonic() + timeout
        pool = self._pool
        connection = borrow(pool, self.wait(timeout))
        try:
            if self.own:
                return pipeline(connection, request, _remaining(until))
            with limited(connection, _remaining(until)):
                return self._perform_on_borrowed(connection, request, _remaining(until))
        except BaseException:
            with limited(connection, _remaining(until)):
                recover(connection)
            raise
        finally:
            pool.putconn(connection)

    def _perform_on_borrowed(
        self, connection: Connection[Any], request: Transaction, timeout: float | None
    ) -> tuple[Any, ...]:
        """Perform *request* on a connection of the application's pool, and restore its state."""
        was = connection.autocommit
        if not was:
            connection.autocommit = True
        try:
            check_encoding(connection)
            if not self.oid:
                self._prepare(connection)
            return pipeline(connection, request, timeout, oid=self.oid)
        finally:
            if not was:
                recover(connection)
                if not connection.closed:
                    connection.autocommit = False

    def close(self) -> None:
        """Close the pool, unless it is the application's."""
        if self.own and os.getpid() == self.pid:
            self._pool.close()


class AsyncPgPort(_Settings):
    """Performs requests on a pool of async connections, its own or the application's."""

    def __init__(
        self,
        config: PgvectorConfig,
        extension: Extension,
        source: DsnSource,
        owner: DsnSource,
        *,
        debug: bool,
        pool: AsyncConnectionPool[Any] | None = None,
    ) -> None:
        super().__init__(config, extension, debug=debug)
        self._source = source
        self._owner = owner
        self.own = pool is None
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
                    await self._prepare(connection)
        except (psycopg.Error, OSError) as error:
            failed = connect_failed(dsn, error, debug=self.debug)
        if failed is not None:
            raise failed

        async def configure(connection: AsyncConnection[Any]) -> None:
            adapt(connection, self.oid)

        note, preparing = self.note, self.preparing

        class RecordingConnection(AsyncConnection[Any]):
            """A pool connection that records why it could not be established."""

            @classmethod
            async def connect(cls, conninfo: str = "", **kwargs: Any) -> Self:
                try:
                    return attach(await super().connect(conninfo, **kwargs), preparing)
                except psycopg.Error as error:
                    note(dsn, error)
                    raise

        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            dsn,
            connection_class=RecordingConnection,
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
        except BaseException:  # cancelled: the pool's tasks and connections would outlive it
            await pool.close()
            raise
        return pool

    async def _prepare(self, connection: AsyncConnection[Any]) -> None:
        """Find the extension and check that transactions are possible. Raises: PostureError."""
        (rows,) = await apipeline(connection, self.extension.request(), None)
        self.oid = self.extension.read_location(rows)
        refused = False
        try:
            await connection.execute(_PROBE, prepare=False)
            await connection.execute("COMMIT", prepare=False)
        except psycopg.Error as error:
            refused = error.sqlstate == _PROTOCOL_VIOLATION
            if not refused:
                raise
        if refused:
            raise refused_pooler()

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*; see `apipeline`."""
        self.check_process()
        before = self.connect_errors(self._pool)
        try:
            pool = await self._opened()
            if isinstance(request, RankAll):
                return await asyncio.to_thread(rank_all, self._owner(), self, request, timeout)
            return await self._perform(pool, request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            failed = self.failed(error, self._pool, before, writes=_writes(request))
        raise failed

    async def _perform(
        self, pool: AsyncConnectionPool[Any], request: Transaction, timeout: float | None
    ) -> tuple[Any, ...]:
        until = None if timeout is None else time.monotonic() + timeout
        connection = await aborrow(pool, self.wait(timeout))
        try:
            if self.own:
                return await apipeline(connection, request, _remaining(until))
            with limited(connection, _remaining(until)):
                return await self._perform_on_borrowed(connection, request, _remaining(until))
        except BaseException:
            with limited(connection, _remaining(until)):
                await arecover(connection)
            raise
        finally:
            await give_back(pool, connection)

    async def _perform_on_borrowed(
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
                await self._prepare(connection)
            return await apipeline(connection, request, timeout, oid=self.oid)
        finally:
            if not was:
                await arecover(connection)
                if not connection.closed:
                    await connection.set_autocommit(False)

    async def close(self) -> None:
        """Close the pool, unless it is the application's."""
        if self.own and self._pool is not None and os.getpid() == self.pid:
            await self._pool.close()


def rank_all(dsn: str, settings: _Settings, request: RankAll, timeout: float | None) -> list[Any]:
    """Run the statement once under each tenant's scope, as the owner, which may list tenants but is bound by RLS."""
    connection = connect_owner(dsn, settings.config)
    extension = settings.extension
    with connection:
        rows, tenants = pipeline(
            connection,
            Transaction(
                None,
                (extension.find_statement(), Statement(f"SELECT tenant_id FROM {settings.names.tenants} ORDER BY 1")),
                (SAFE_PATH,),
            ),
            timeout,
        )
        adapt(connection, extension.read_location(rows))
        ranked: list[Any] = []
        for (tenant,) in tenants:
            scope = (*request.settings, ("vectoracl.tenant", tenant))
            one = Transaction(tenant, (request.statement,), scope)
            ranked.extend(pipeline(connection, one, timeout)[0])
    return ranked
