"""The context in which a check runs: one opened store, its corpus, and handles with the same interface in both modes.

A check is a coroutine. In async mode it runs in an event loop. In sync mode it is driven step by step without one,
which works because nothing that it awaits ever suspends: each call goes directly to the sync handle.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from vectoracl import AsyncVectorACL, Principal, VectorACL
from vectoracl.adapter_api.contract import Adapter, Opened, flow_of
from vectoracl.adapter_api.operations import Operation
from vectoracl.audit.sinks import MemorySink
from vectoracl.engine.core_ports import AsyncCorePort
from vectoracl.engine.drivers import arun, confined, run
from vectoracl.engine.operator_flows import write_rows
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.records import Chunk, Hit, Record, Result, Vector
from vectoracl_conformance.context import corpus as corpora
from vectoracl_conformance.context.admission import admitting
from vectoracl_conformance.context.corpus import Corpus
from vectoracl_conformance.context.logs import logged
from vectoracl_conformance.context.oracle import Oracle
from vectoracl_conformance.context.recorder import Recorder, recorded
from vectoracl_conformance.context.table_policy import Rules, TablePolicy
from vectoracl_conformance.context.tolerance import Nearly
from vectoracl_conformance.harness import Store

Mode = Literal["sync", "async"]
T = TypeVar("T")
Wrap = Callable[[Opened], Opened]
_ATTEMPTS = 3
STORE = "main"  # what an application would write


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits. Raises: RuntimeError if it does (a mistake in the kit)."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("a check waited for something in sync mode")


class _Wrapping:
    """The part that both kinds of client share: the adapter is wrapped when it is opened."""

    kit_wrap: Wrap

    def _named(self, name: str) -> Any:
        known = name in self._stores  # type: ignore[attr-defined]  # mixed into VectorACL
        named: Any = super()._named(name)  # type: ignore[misc]  # likewise
        if not known:
            named.opened = self.kit_wrap(named.opened)
            named.store = replace(named.store, adapter=named.opened.adapter)
        return named


class _Sync(_Wrapping, VectorACL):
    def __init__(self, config: Mapping[str, Any], wrap: Wrap, **given: Any) -> None:
        self.kit_wrap = wrap
        super().__init__(config, **given)

    def kit_named(self) -> Any:
        return self._named(STORE)


class _Async(_Wrapping, AsyncVectorACL):
    def __init__(self, config: Mapping[str, Any], wrap: Wrap, **given: Any) -> None:
        self.kit_wrap = wrap
        super().__init__(config, **given)

    def kit_named(self) -> Any:
        return self._named(STORE)


class AwaitableHandle:
    """A handle of either kind, awaited."""

    def __init__(self, inner: Any, mode: Mode, most: int = 1 << 30) -> None:
        self.inner = inner
        self.mode = mode
        self.most = most

    async def _do(self, name: str, *args: Any, **given: Any) -> Any:
        for attempt in range(_ATTEMPTS):
            try:
                answer = getattr(self.inner, name)(*args, **given)
                return answer if self.mode == "sync" else await answer
            except StoreError as error:  # another writer came first, and nothing was sent: an application asks again
                if error.code != "conflict" or error.sent != "no" or attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return a method of the handle, to be awaited in either mode."""
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self._do, name)

    async def search(self, query: Any, *k: int, **given: Any) -> Result:
        """See `ScopedRetriever.search`; by default, the kit asks for fewer hits.

        A number without its name is one that is large enough for everything there is, so the largest one that is
        declared takes its place.
        """
        number: Any = k[0] if k else corpora.K
        if k and type(number) is int:
            number = min(number, self.most)
        return await self._do("search", query, **{"k": number, **given})  # type: ignore[no-any-return]

    async def scan(self, where: Any = ALWAYS, **given: Any) -> AsyncIterator[Hit]:
        """See `ScopedRetriever.scan`."""
        if self.mode == "sync":
            for hit in self.inner.scan(where, **given):
                yield hit
        else:
            async for hit in self.inner.scan(where, **given):
                yield hit

    async def all(self, where: Any = ALWAYS, **given: Any) -> list[Hit]:
        """Return everything that a scan yields."""
        if hasattr(self.inner, "drain"):
            return await self._do("drain", "scan", where, **given)  # type: ignore[no-any-return]
        return [hit async for hit in self.scan(where, **given)]

    def narrow(self, where: Predicate = ALWAYS, actions: Any = None) -> AwaitableHandle:
        """See `ScopedRetriever.narrow`."""
        return AwaitableHandle(self.inner.narrow(where, actions), self.mode, self.most)


class Client:
    """One opened client of the store; a context has one, and a check may open others, e.g. under another policy."""

    def __init__(self, acl: Any, mode: Mode, recorder: Recorder, policy: TablePolicy | None = None) -> None:
        self.acl = acl
        self.policy = policy
        self.mode = mode
        self.recorder = recorder

    def as_principal(self, principal: Any, **given: Any) -> AwaitableHandle:
        """Return the handle of *principal*, which may be anything at all."""
        return AwaitableHandle(self.acl.scoped(principal, **given), self.mode, self.adapter.capabilities.max_k)

    def handle(self, tenant: str, **claims: Any) -> AwaitableHandle:
        """Return the handle of a user of *tenant*."""
        return self.as_principal(user(tenant, **claims))

    @property
    def adapter(self) -> Adapter:
        """The adapter, as the core calls it."""
        return self.acl.kit_named().store.adapter  # type: ignore[no-any-return]

    async def raw(self, operation: Operation) -> Any:
        """Hand *operation* to the adapter itself, past the core's own checks but confined, as the core confines it."""
        named = self.acl.kit_named()
        flow = confined(flow_of(named.store.adapter, operation), operation.partition)
        if isinstance(self.acl, _Sync):
            return run(flow, {"store": named.port}, timeout=30)
        return await arun(flow, {"store": named.aport}, timeout=30)

    async def copied(self, tenant: str, records: Sequence[Record]) -> int:
        """Write *records* as `vectoracl copy` does, by the core's own flow."""
        named = self.acl.kit_named()
        reason = "a copy by the conformance kit"
        flow = write_rows(self.acl.pipeline, named.store, reason, tenant, records, validate_as=None)
        if isinstance(self.acl, _Sync):
            return run(flow, {"store": named.port, "audit": self.acl.core_port}, timeout=30)
        return await arun(flow, {"store": named.aport, "audit": AsyncCorePort(self.acl.core_port)}, timeout=30)

    async def run(self, text: str, *args: Any) -> Any:
        """Call `work(client, *args)` of *text*, next to the adapter."""
        names: dict[str, Any] = {}
        exec(compile(text, "<string>", "exec"), names)  # noqa: S102 - text of the kit or of a harness
        answer = names["work"](self.acl, *args)
        return await answer if hasattr(answer, "__await__") else answer

    def change(self, rules: Rules) -> None:
        """Give the client's policy other rules; it has some already."""
        assert isinstance(self.policy, TablePolicy)
        self.policy.change(rules)

    def shown(self) -> list[str]:
        """Return what the client and its configuration show of themselves."""
        return [repr(self.acl), repr(self.acl.config), str(self.acl.config)]

    async def open(self) -> None:
        """Contact the store and demand its posture."""
        if isinstance(self.acl, _Sync):
            self.acl.open()
        else:
            await self.acl.open()

    async def posture(self) -> Any:
        """Read the posture, without refusing what is found."""
        if isinstance(self.acl, _Sync):
            return self.acl.check()[STORE]
        return (await self.acl.check())[STORE]

    async def close(self) -> None:
        """Close the client."""
        if isinstance(self.acl, _Sync):
            self.acl.close()
        else:
            await self.acl.close()


USER = "user-1"


def user(tenant: str, **claims: Any) -> Principal:
    """Return a principal of *tenant*."""
    return Principal(claims.pop("id", USER), tenant, authenticated_by="the application", **claims)


def claims_of(principal: Principal) -> dict[str, Any]:
    """Return what a principal is made from; it cannot be carried itself."""
    names = ("id", "tenant", "roles", "groups", "kind", "expires_at", "authenticated_by")
    claims = {name: getattr(principal, name) for name in names}
    return {**claims, "attributes": dict(principal.attributes)}


class CheckContext:
    """Everything a check needs; `client` is the client that most checks use."""

    def __init__(
        self, store: Store, corpus: Corpus, mode: Mode, wrap: Wrap | None = None, source: str = "", python: str = ""
    ) -> None:
        self.store = store
        self.source = source
        self.python = python
        self.corpus = corpus
        self.mode: Mode = mode
        self.rng = corpus.rng
        self.recorder = Recorder()
        self._wrap = wrap
        self.client: Client
        self.k = corpora.K
        self.tapped: Mapping[str, Any] = {}  # settings by which a client goes through a recorder on the wire

    def config(self, *, single: bool = False, **more: Any) -> dict[str, Any]:
        """Return the configuration of a client; *more* are other tables of it."""
        own = self.store.single if single and self.store.single is not None else self.store.config
        return {"version": 1, "stores": {STORE: {**own, "metadata": dict(corpora.FIELDS), **self.tapped}}, **more}

    def new_client(
        self,
        *,
        policy: Rules | None = None,
        single: bool = False,
        other: Callable[[str], str] | None = None,
        **more: Any,
    ) -> Client:
        """Return a client that was not contacted yet; *other* changes each text of the store's configuration."""
        wrap = self._wrap
        store, recorder = self.store, self.recorder

        def both(opened: Opened) -> Opened:
            bundle = admitting(recorded(opened, recorder), store)
            return bundle if wrap is None else wrap(bundle)

        kind = _Sync if self.mode == "sync" else _Async
        config = self.changed(other, single=single, **more)
        table = None if policy is None else TablePolicy(policy)
        acl = kind(config, both, policy=table, sink=MemorySink())
        return Client(acl, self.mode, self.recorder, table)

    def changed(self, other: Callable[[str], str] | None, *, single: bool, **more: Any) -> dict[str, Any]:
        """Return the configuration of a client, with each text of the store's own changed by *other*."""
        config = self.config(single=single, **more)
        if other is not None:
            own = config["stores"][STORE]
            config["stores"][STORE] = {k: other(v) if isinstance(v, str) else v for k, v in own.items()}
        return config

    @asynccontextmanager
    async def another(self, *, policy: Rules | None = None, single: bool = False, **more: Any) -> AsyncIterator[Client]:
        """Open another client of the same store for a while."""
        client = self.new_client(policy=policy, single=single, **more)
        try:
            await client.open()
            yield client
        finally:
            await client.close()

    async def open(self) -> None:
        """Open the context's own client."""
        self.client = self.new_client()
        await self.client.open()

    async def close(self) -> None:
        """Close the context's own client."""
        await self.client.close()

    def handle(self, tenant: str, **claims: Any) -> AwaitableHandle:
        """Return the handle of a user of *tenant*."""
        return self.client.handle(tenant, **claims)

    def tenant(self) -> str:
        """Return the name of a new tenant."""
        return self.rng.uuid()

    def chunks(self, count: int, *, near: float | None = None, metadata: bool = False, **given: Any) -> list[Chunk]:
        """Return new chunks, at a distance of *near* (None: 0.3 and more) from the centre."""
        return [
            corpora.chunk(
                self.rng,
                self.rng.near(self.corpus.centre, 0.3 + 0.05 * place if near is None else near + 0.001 * place),
                metadata=corpora.metadata(self.rng, place) if metadata else None,
                **given,
            )
            for place in range(count)
        ]

    def vector(self, distance: float = 0.3) -> Vector:
        """Return a vector near the centre."""
        return self.rng.near(self.corpus.centre, distance)

    def census(self) -> list[Record]:
        """Read the store without the adapter, when all writes are visible."""
        self.store.settle()
        return self.rows()

    def rows(self) -> list[Record]:
        """Read the store without the adapter, as it is."""
        return list(self.store.census())

    def parts(self) -> frozenset[str] | None:
        """Name what the store keeps per tenant; None if it keeps no such thing."""
        return self.store.parts()

    @contextmanager
    def listening(self) -> Iterator[Callable[[], str]]:
        """Take down everything that is logged next to the adapter, at every level; yield what returns it."""
        with logged() as stream:
            yield stream.getvalue

    async def weaken(self, change: Callable[[], None] | str) -> None:
        """Apply or undo a weakening, next to the adapter where it is text."""
        if callable(change):
            change()
            return
        await self.client.run(change)

    def oracle(self) -> Oracle:
        """Return the oracle of the store as it is now."""
        return Oracle(self.census())

    def state(self, *tenants: str) -> dict[tuple[str, str, int, str], tuple[Any, ...]]:
        """Return the census as a comparable mapping, of *tenants* (none given: of all)."""
        return {
            (row.tag.tenant, row.tag.document, row.tag.generation, row.tag.chunk): (
                row.tag.label,
                row.tag.position,
                row.text,
                sorted((name, repr(value)) for name, value in row.metadata.items()),
                Nearly(row.vector, 1e-4),
            )
            for row in self.census()
            if not tenants or row.tag.tenant in tenants
        }

    async def plant(self, tenant: str, chunks: Sequence[Chunk]) -> None:
        """Write *chunks* for *tenant* through a handle and wait until they are visible."""
        handle, batch = self.handle(tenant), self.client.adapter.capabilities.max_batch
        for start in range(0, len(chunks), batch):
            await handle.upsert(chunks[start : start + batch])
        self.store.settle()

    async def pause(self, seconds: float) -> None:
        """Wait."""
        if self.mode == "sync":
            time.sleep(seconds)
        else:
            await asyncio.sleep(seconds)

    async def together(self, makers: Sequence[Callable[[], Coroutine[Any, Any, T]]], width: int = 8) -> list[T]:
        """Run several coroutines side by side, in threads or as tasks; return their results in order."""
        if self.mode == "sync":
            with ThreadPoolExecutor(width) as pool:
                started = [pool.submit(contextvars.copy_context().run, drive, make()) for make in makers]
                return [one.result() for one in started]
        gate = asyncio.Semaphore(width)

        async def one(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
            async with gate:
                return await make()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(make)) for make in makers]
        return [task.result() for task in tasks]

    async def cut(self, make: Callable[[float | None], Awaitable[Any]], after: float) -> BaseException | None:
        """Cut an operation after *after* seconds: by cancelling its task, or by a time limit where there is none.

        Returns what it raised, None if it came to its end before.
        """
        if self.mode == "sync":
            try:
                await make(after)
            except Exception as error:  # noqa: BLE001 - whatever a cut call raises is the answer
                return error
            return None
        task = asyncio.ensure_future(make(None))
        await asyncio.sleep(after)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            return error
        except Exception as error:  # noqa: BLE001 - likewise
            return error
        return None
