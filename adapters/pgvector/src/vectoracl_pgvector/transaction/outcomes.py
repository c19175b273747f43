"""How the caller's transaction ended: outcomes of writes wait for it.

PostgreSQL is asked, on the connection itself and as soon as its transaction has ended, what became of the transaction
or savepoint that wrote: a commit that the server turned into a rollback is a rollback. psycopg has no hook for it, but
every statement goes through `Connection.wait`, which is watched on this one connection until then.
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
    """The outcomes that wait for the end of one connection's transaction; refers to the connection only weakly."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Settle]] = []
        # Whether the transaction was open, and nothing under way, when the connection was last seen.
        self.known_open = True

    def settle(self, words: list[str]) -> None:
        """Say how each ended; never raises."""
        waiting, self.waiting = self.waiting[: len(words)], self.waiting[len(words) :]
        for (_, settle), word in zip(waiting, words, strict=True):
            with contextlib.suppress(Exception):
                settle(word)

    def lost(self) -> None:
        """The connection is gone: the server rolls back what was open then; nothing is known of anything else."""
        self.settle(["rolled_back" if self.known_open else "unknown"] * len(self.waiting))

    def must_ask(self, connection: AnyConnection) -> bool:
        """Tell whether the server has to be asked now."""
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
    """Have *settle* called once, with "ok", "rolled_back" or "unknown", when the transaction of *writer* has ended."""
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
    """Ask what became of *writers*, in a statement that is a transaction by itself."""
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
        assert live is not None  # it is what was called
        settle(live)  # of one that a cancelled call has ended
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
