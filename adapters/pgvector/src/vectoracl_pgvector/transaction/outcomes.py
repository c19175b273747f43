"""Reports the outcome of writes in the caller's transaction when that transaction has ended.

As soon as its transaction has ended, the connection itself asks PostgreSQL what became of the transaction or savepoint
that wrote: a commit that the server turned into a rollback counts as a rollback. psycopg has no hook for this, but
every statement passes through `Connection.wait`, which is wrapped on this one connection until then.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg.generators import execute
from psycopg.pq import ConnStatus, ExecStatus, PipelineStatus, TransactionStatus

from vectoracl_pgvector.transaction.connections import AnyConnection

Settle = Callable[[str], None]
_WORDS = {b"committed": "ok", b"aborted": "rolled_back"}
_OPEN = (TransactionStatus.INTRANS, TransactionStatus.INERROR)
_WATCHES: weakref.WeakKeyDictionary[Any, Watch] = weakref.WeakKeyDictionary()


class Watch:
    """The outcomes that are held until one connection's transaction ends; refers to the connection only weakly."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Settle]] = []
        # Whether the transaction was open, and no call in progress, when the connection was last checked.
        self.known_open = True

    def settle(self, words: list[str]) -> None:
        """Report the outcome of each write; never raises."""
        waiting, self.waiting = self.waiting[: len(words)], self.waiting[len(words) :]
        for (_, settle), word in zip(waiting, words, strict=True):
            with contextlib.suppress(Exception):
                settle(word)

    def lost(self) -> None:
        """Settle after the connection was lost: the server rolls back an open transaction; others are unknown."""
        self.settle(["rolled_back" if self.known_open else "unknown"] * len(self.waiting))

    def must_ask(self, connection: AnyConnection) -> bool:
        """Return whether the transaction has ended, so that the server has to be asked for its outcome."""
        status = connection.info.transaction_status
        self.known_open = status in _OPEN
        if not self.waiting or self.known_open or status == TransactionStatus.ACTIVE:
            return False
        pgconn = connection.pgconn
        if pgconn.status == ConnStatus.OK and pgconn.pipeline_status == PipelineStatus.OFF:
            return True
        self.settle(["unknown"] * len(self.waiting))
        return False


def watch(connection: AnyConnection, writer: int, settle: Settle) -> None:
    """Call *settle* once, with "ok", "rolled_back" or "unknown", when the transaction of *writer* has ended.

    Args:
        connection: The application's connection.
        writer: The id of the transaction or savepoint that wrote.
        settle: Receives the outcome.
    """
    watcher = _WATCHES.get(connection)
    if watcher is None:
        watcher = _WATCHES[connection] = Watch()
        weakref.finalize(connection, watcher.lost)
    watcher.known_open = connection.info.transaction_status in _OPEN
    watcher.waiting.append((writer, settle))
    if "wait" not in vars(connection):
        hooks = (
            _hooks(connection, watcher) if isinstance(connection, psycopg.Connection) else _ahooks(connection, watcher)
        )
        vars(connection)["wait"], vars(connection)["close"] = hooks


def _unhook(connection: AnyConnection) -> None:
    for name in ("wait", "close"):
        vars(connection).pop(name, None)


def _query_outcomes(pgconn: Any, writers: list[int]) -> Generator[Any, Any, list[str]]:
    """Query the outcomes of *writers*, in a statement that is its own transaction."""
    columns = ", ".join(f"pg_catalog.txid_status({writer}::pg_catalog.int8)" for writer in writers)
    pgconn.send_query(f"SELECT {columns}".encode())
    (result,) = yield from execute(pgconn)
    if result.status != ExecStatus.TUPLES_OK:
        return ["unknown"] * len(writers)
    return [_WORDS.get(result.get_value(0, column) or b"", "unknown") for column in range(len(writers))]


def _hooks(connection: psycopg.Connection[Any], watcher: Watch) -> tuple[Any, Any]:
    ref, kind = weakref.ref(connection), type(connection)

    def settle(live: psycopg.Connection[Any]) -> None:
        if not watcher.must_ask(live):
            return
        _unhook(live)
        count = len(watcher.waiting)
        words = ["unknown"] * count
        with contextlib.suppress(Exception):
            words = kind.wait(live, _query_outcomes(live.pgconn, [writer for writer, _ in watcher.waiting]))
        watcher.settle(words)

    def wait(*args: Any, **kwargs: Any) -> Any:
        live = ref()
        assert live is not None  # its own method was called
        settle(live)  # for a transaction that a cancelled call ended
        watcher.known_open = False
        try:
            return kind.wait(live, *args, **kwargs)
        finally:
            settle(live)

    def close() -> None:
        live = ref()
        assert live is not None
        kind.close(live)
        if live.closed:
            watcher.lost()

    return wait, close


def _ahooks(connection: psycopg.AsyncConnection[Any], watcher: Watch) -> tuple[Any, Any]:
    ref, kind = weakref.ref(connection), type(connection)

    async def settle(live: psycopg.AsyncConnection[Any]) -> None:
        if not watcher.must_ask(live):
            return
        _unhook(live)
        count = len(watcher.waiting)
        words = ["unknown"] * count
        try:
            with contextlib.suppress(Exception):
                words = await kind.wait(live, _query_outcomes(live.pgconn, [writer for writer, _ in watcher.waiting]))
        finally:
            watcher.settle(words)

    async def wait(*args: Any, **kwargs: Any) -> Any:
        live = ref()
        assert live is not None
        await settle(live)
        watcher.known_open = False
        try:
            result = await kind.wait(live, *args, **kwargs)
        except Exception:
            await settle(live)
            raise
        await settle(live)
        return result

    async def close() -> None:
        live = ref()
        assert live is not None
        await kind.close(live)
        if live.closed:
            watcher.lost()

    return wait, close
