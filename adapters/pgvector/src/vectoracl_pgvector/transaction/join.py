"""`join`: scoped searches and writes that commit or roll back with the application's own transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import partial
from threading import Lock
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import Format
from psycopg.rows import tuple_row

from vectoracl.adapter_api.contract import AsyncPort, Flow, Port
from vectoracl.client.connect import AsyncVectorACL, VectorACL
from vectoracl.client.retriever import AsyncScopedRetriever, ScopedRetriever
from vectoracl.engine.core_ports import CORE_PORTS, AsyncCorePort
from vectoracl.engine.drivers import arun, run
from vectoracl.engine.pipeline import Pipeline, Store
from vectoracl.errors import InvalidInputError, RefusedError, VectorACLError, without_context
from vectoracl.model.actions import Action
from vectoracl.model.principal import Principal
from vectoracl_pgvector.connection.arguments import check_encoding
from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.requests import Transaction
from vectoracl_pgvector.transaction.connections import AnyConnection, araw, check_kind, raw
from vectoracl_pgvector.transaction.outcomes import watch
from vectoracl_pgvector.transaction.steps import Step, Steps, check_state, check_transaction, perform_steps

T = TypeVar("T")
# One operation at a time on a connection, across all handles: two at once would mix up their scopes.
_TURNS: WeakKeyDictionary[Any, Lock] = WeakKeyDictionary()
_ATURNS: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
_TURNS_LOCK = Lock()
# The writes of the current operation: the connection, and the id of the transaction or savepoint that wrote.
_WRITERS: ContextVar[list[tuple[AnyConnection, int]] | None] = ContextVar("vectoracl_written", default=None)


@overload
def join(
    acl: VectorACL,
    principal: Principal,
    connection: Any,
    *,
    actions: Iterable[Action] | None = None,
    source: str | None = None,
) -> ScopedRetriever: ...
@overload
def join(
    acl: AsyncVectorACL,
    principal: Principal,
    connection: Any,
    *,
    actions: Iterable[Action] | None = None,
    source: str | None = None,
) -> AsyncScopedRetriever: ...
def join(
    acl: object,
    principal: Principal,
    connection: Any,
    *,
    actions: Iterable[Action] | None = None,
    source: str | None = None,
) -> ScopedRetriever | AsyncScopedRetriever:
    """Return a handle whose every statement runs on *connection*, inside the transaction that is open there.

    With a `VectorACL`, *connection* is a psycopg 3 connection, an SQLAlchemy `Connection` or `Session` over psycopg, or
    a Django connection over psycopg 3. With an `AsyncVectorACL` it is a psycopg `AsyncConnection`, or an SQLAlchemy
    `AsyncConnection` or `AsyncSession` over psycopg. Each operation sets the scope for its own statements, in a
    savepoint, and restores what was set before, also when it fails; nothing is ever committed or rolled back beyond
    that savepoint.

    The policy is evaluated, and decisions are recorded, as by `acl.scoped`. The outcome of a write is recorded when the
    transaction has ended: "ok" after a commit, "rolled_back", or "unknown" if it cannot be determined.

    Args:
        acl: The opened client.
        principal: On whose behalf the operations run.
        connection: The application's connection or session, in an open transaction.
        actions: The actions that the handle permits; all by default.
        source: The name of the pipeline that writes with this handle; see `acl.scoped`.

    Raises:
        InvalidInputError: *connection* is of another kind, such as an engine or a pool, or is sync where *acl* is async
            or async where *acl* is sync.
        RefusedError: No transaction is open (autocommit), the open one has failed, or a write runs in another isolation
            level than READ COMMITTED.
        PostureError: The role of the connection bypasses row-level security.
    """
    if isinstance(acl, AsyncVectorACL):
        check_kind(connection, is_async=True)
        return acl.scoped(principal, actions=actions, source=source).with_driver(
            _AsyncJoined(acl, connection), _DeferredOutcomes(acl.pipeline)
        )
    if not isinstance(acl, VectorACL):
        text = f"join() takes a VectorACL or an AsyncVectorACL, not {type(acl).__name__}."
        raise InvalidInputError(text, field="acl")
    check_kind(connection, is_async=False)
    handle = acl.scoped(principal, actions=actions, source=source)
    raw(connection)
    return handle.with_driver(_Joined(acl, connection), _DeferredOutcomes(acl.pipeline))


class _DeferredOutcomes:
    """The audit sink of joined handles: records the outcome of a write when the caller's transaction has ended."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def write(self, record: Mapping[str, Any]) -> None:
        """Write *record* to the client's sink."""
        self._pipeline.sink.write(record)

    def note(self, outcome: Mapping[str, Any]) -> None:
        """Record *outcome*, or hold it until the transaction has ended."""
        written = _WRITERS.get()
        if outcome["outcome"] != "ok" or not written:
            self._pipeline.note(outcome)
            return
        connection, writer = written[-1]
        self._pipeline.hold(outcome)
        try:
            watch(connection, writer, partial(self._pipeline.settle, outcome["decision"]))
        except Exception:  # noqa: BLE001 - a connection that cannot be watched must not hide the result
            self._pipeline.settle(outcome["decision"], "unknown")

    def close(self) -> None:
        """Close nothing: the connection is the application's."""


def _unusable(error: Exception) -> RefusedError:
    return RefusedError(f"The connection can no longer be used ({type(error).__name__}).")


class _Joined:
    """Drives a handle's flows with the store's port on the caller's connection."""

    def __init__(self, acl: VectorACL, connection: Any) -> None:
        self._acl = acl
        self._connection = connection

    def run(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        # Looked up each time: a framework returns its connection, which then serves another transaction.
        ports: dict[str, Port] = dict.fromkeys(CORE_PORTS, self._acl.core_port)
        ports["store"] = JoinedPort(self._raw(), store)
        token = _WRITERS.set([])
        try:
            return run(flow, ports, timeout=timeout)
        finally:
            _WRITERS.reset(token)

    @without_context
    def _raw(self) -> psycopg.Connection[Any]:
        try:
            return raw(self._connection)
        except VectorACLError:
            raise
        except Exception as error:  # noqa: BLE001 - the framework's own
            raise _unusable(error) from None


class _AsyncJoined:
    """`_Joined` for asyncio."""

    def __init__(self, acl: AsyncVectorACL, connection: Any) -> None:
        self._core = AsyncCorePort(acl.core_port)
        self._connection = connection

    async def arun(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        ports: dict[str, AsyncPort] = dict.fromkeys(CORE_PORTS, self._core)
        ports["store"] = AsyncJoinedPort(await self._raw(), store)
        token = _WRITERS.set([])
        try:
            return await arun(flow, ports, timeout=timeout)
        finally:
            _WRITERS.reset(token)

    @without_context
    async def _raw(self) -> psycopg.AsyncConnection[Any]:
        try:
            return await araw(self._connection)
        except VectorACLError:
            raise
        except Exception as error:  # noqa: BLE001 - the framework's own
            raise _unusable(error) from None


class _Port:
    """The state and checks that both ports share."""

    parallel = 1

    def __init__(self, store: Store) -> None:
        extension = getattr(store.adapter, "extension", None)
        if not isinstance(extension, Extension):
            raise RefusedError("join() needs a store of the pgvector adapter.")
        self._extension = extension
        self._names = Names.of(extension.config)

    @staticmethod
    def _checked(request: Any) -> Transaction:
        if not isinstance(request, Transaction):
            raise RefusedError("This operation needs separate connections; use acl.scoped().")
        return request

    @staticmethod
    def _check(connection: AnyConnection) -> None:
        check_state(connection.info.transaction_status, autocommit=connection.autocommit)
        check_encoding(connection)


def _note_written(connection: AnyConnection, writer: int | None) -> None:
    written = _WRITERS.get()
    if written is not None and writer is not None:
        written.append((connection, writer))


class JoinedPort(_Port):
    """Performs requests on the application's connection, inside its open transaction."""

    def __init__(self, connection: psycopg.Connection[Any], store: Store) -> None:
        super().__init__(store)
        self._connection = connection

    def close(self) -> None:
        """Close nothing: the connection is the application's."""

    @without_context
    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* in a savepoint. Raises: RefusedError, PostureError, StoreError."""
        checked = self._checked(request)
        with _TURNS_LOCK:
            turn = _TURNS.setdefault(self._connection, Lock())
        with turn:
            return self._perform(checked, timeout)

    @without_context
    def _perform(self, request: Transaction, timeout: float | None) -> Any:
        try:
            self._check(self._connection)
            self._drive(check_transaction(request, self._names))
            # The savepoint undoes a failed statement and its settings: the caller's transaction stays usable.
            with self._connection.transaction():
                replies, writer = self._drive(
                    perform_steps(request, self._extension, self._connection.info.server_version, timeout)
                )
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            raise mapped(error, debug=False) from None
        _note_written(self._connection, writer)
        return replies

    def _drive(self, steps: Steps[T]) -> T:
        value = None
        while True:
            try:
                step = steps.send(value)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            # psycopg's own cursor class: frameworks set others, which bind in the client and have no binary format.
            with psycopg.Cursor(self._connection, row_factory=tuple_row) as cursor:
                _ready(cursor, step)
                cursor.execute(step.sql, step.params, prepare=False)
                value = cursor.fetchall() if step.rows else cursor.rowcount


class AsyncJoinedPort(_Port):
    """`JoinedPort` for asyncio."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], store: Store) -> None:
        super().__init__(store)
        self._connection = connection

    async def close(self) -> None:
        """Close nothing: the connection is the application's."""

    @without_context
    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* in a savepoint. Raises: RefusedError, PostureError, StoreError."""
        checked = self._checked(request)
        async with _ATURNS.setdefault(self._connection, asyncio.Lock()):
            return await self._perform(checked, timeout)

    @without_context
    async def _perform(self, request: Transaction, timeout: float | None) -> Any:
        try:
            self._check(self._connection)
            await self._drive(check_transaction(request, self._names))
            async with self._connection.transaction():
                replies, writer = await self._drive(
                    perform_steps(request, self._extension, self._connection.info.server_version, timeout)
                )
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            raise mapped(error, debug=False) from None
        _note_written(self._connection, writer)
        return replies

    async def _drive(self, steps: Steps[T]) -> T:
        value = None
        while True:
            try:
                step = steps.send(value)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]
            async with psycopg.AsyncCursor(self._connection, row_factory=tuple_row) as cursor:
                _ready(cursor, step)
                await cursor.execute(step.sql, step.params, prepare=False)
                value = await cursor.fetchall() if step.rows else cursor.rowcount


def _ready(cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any], step: Step) -> None:
    cursor.format = Format.BINARY if step.binary else Format.TEXT
    if step.oid is not None:
        adapt(cursor, step.oid)
