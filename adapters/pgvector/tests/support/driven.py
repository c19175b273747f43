"""Sync and async from one test: an `AsyncVectorACL` on a loop of its own, called like a `VectorACL`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import vectoracl as v
from vectoracl.audit.sinks import MemorySink
from vectoracl_pgvector.requests import Transaction

KINDS = ("sync", "async")


class Loop:
    """An event loop in a thread; `call` runs a coroutine there and waits for it, from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="test-loop")
        self._thread.start()

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(120)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class _Handle:
    def __init__(self, handle: Any, loop: Loop) -> None:
        self._handle = handle
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._handle, name)
        if name == "narrow":
            return lambda *args, **more: _Handle(found(*args, **more), self._loop)
        return lambda *args, **more: self._loop.call(found(*args, **more))

    def scan(self, *args: Any, **more: Any) -> list[v.Hit]:
        async def collect() -> list[v.Hit]:
            return [hit async for hit in self._handle.scan(*args, **more)]

        return self._loop.call(collect())


class Driven:
    """One opened configuration, sync or async, with the sync one's surface and what a test looks at inside."""

    def __init__(self, kind: str, config: Any, *, loop: Loop | None = None, **given: Any) -> None:
        self.kind = kind
        self.sink = given.setdefault("sink", MemorySink())
        self._own_loop = loop is None
        if kind == "sync":
            self.acl: Any = v.connect(config, **given)
        else:
            self.loop = loop or Loop()
            self.acl = v.aconnect(config, **given)
            try:
                self.loop.call(self.acl.open())
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scoped(self, principal: v.Principal) -> Any:
        handle = self.acl.scoped(principal)
        return handle if self.kind == "sync" else _Handle(handle, self.loop)

    def close(self) -> None:
        if self.kind == "sync":
            self.acl.close()
            return
        self.loop.call(self.acl.close())
        if self._own_loop:
            self.loop.close()

    @property
    def pool(self) -> Any:
        named = self.acl._stores["main"]
        return (named.port if self.kind == "sync" else named.aport)._pool

    def perform(self, request: Transaction, timeout: float | None = 10.0) -> Any:
        """Perform *request* by the port, as an adapter's flow would."""
        named = self.acl._stores["main"]
        if self.kind == "sync":
            return named.port.execute(request, timeout)
        return self.loop.call(named.aport.execute(request, timeout))

    def raw(self, sql: str) -> list[tuple[Any, ...]]:
        """Run *sql* on a connection of the pool, without any scope."""
        if self.kind == "sync":
            with self.pool.connection() as connection:
                return connection.execute(sql).fetchall()

        async def go() -> list[tuple[Any, ...]]:
            async with self.pool.connection() as connection:
                return await (await connection.execute(sql)).fetchall()

        return self.loop.call(go())


def everything(error: BaseException) -> Iterator[str]:
    """Yield all that an error shows: text, repr, data, notes, and the same of its causes and contexts."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield f"{type(one).__name__}: {one!s} {one!r} {one.args!r} {vars(one)!r} {getattr(one, '__notes__', '')!r}"
        waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
