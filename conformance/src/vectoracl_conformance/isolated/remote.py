"""A context whose clients, handles and iterators are in the adapter's process; the checks cannot tell the difference.

Each store has one such process for as long as it exists, since some stores live in the process that opens them.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Capabilities
from vectoracl.adapter_api.operations import Operation, Replace, Upsert
from vectoracl.errors import VectorACLError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.principal import Principal
from vectoracl.model.records import Record
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.context.check_context import STORE, CheckContext, Client, Mode, claims_of
from vectoracl_conformance.context.corpus import Corpus
from vectoracl_conformance.context.recorder import Event, Recorder
from vectoracl_conformance.context.table_policy import Rules
from vectoracl_conformance.harness import Store
from vectoracl_conformance.isolated.harness_door import HarnessDoor
from vectoracl_conformance.isolated.interpreter import PlainEnvironment, plain
from vectoracl_conformance.isolated.process import LIMIT, Far, PoisonError
from vectoracl_conformance.isolated.put_in import Door
from vectoracl_conformance.isolated.recorded import load_recorded

_WRITES = frozenset({"upsert", "replace", "load"})
_COPY = """
from vectoracl.engine.core_ports import AsyncCorePort
from vectoracl.engine.drivers import arun, run
from vectoracl.engine.operator_flows import write_rows

def work(client, tenant, records):
    named = client._named(client.config.default)
    flow = write_rows(client.pipeline, named.store, "a copy", tenant, records, validate_as=None)
    if named.port is not None:
        return run(flow, {"store": named.port, "audit": client.core_port}, timeout=30)
    return arun(flow, {"store": named.aport, "audit": AsyncCorePort(client.core_port)}, timeout=30)
"""


@cache
def shared_environment(python: str) -> PlainEnvironment:
    """Return the environment of *python* ("": this one) for all processes that this one starts."""
    environment = plain(python, [path for path in sys.path if path])
    atexit.register(environment.close)
    return environment


class AdapterProcess:
    """The process of one store's adapter, and the numbers of what was made there."""

    def __init__(self, store: Store, python: str = "", limit: float = LIMIT) -> None:
        self.limit = limit
        self.far = Far(limit=limit, environment=shared_environment(python))
        self.adapter = str(store.config["adapter"])
        self.provision = bool(store.census_source)
        self._store = store
        self._door: HarnessDoor | None = None
        self._dressed = ""
        self._made = 0
        if store.census_source:
            self.far.ask("source", store.census_source)

    def dress(self, source: str) -> None:
        """Have clients that are made from now on dressed by the `dress(opened)` that *source* defines."""
        if source != self._dressed:
            self._dressed = source
            self.far.ask("source", source)

    def door(self) -> Door | None:
        """Return where the process can ask for the store's rows; None if they are in the process itself."""
        if self._store.census_source:
            return None
        self._door = self._door or HarnessDoor(self._store)
        return self._door.door

    def close(self) -> None:
        """End the process."""
        self.far.close()
        if self._door is not None:
            self._door.close()

    def number(self) -> int:
        """Return the number of the next thing."""
        self._made += 1
        return self._made

    def perform(self, what: str, *args: Any) -> Any:
        """Ask, from any thread; a thread other than the owner's does not wait for others."""
        if threading.get_ident() == self.far.owner:
            return self.far.ask(what, *args)
        return self.far.later(what, *args)[1].result(self.limit)

    async def aperform(self, what: str, *args: Any) -> Any:
        """Ask along with other tasks. When it is cancelled, so is what was asked for, and its end is waited for."""
        ticket, future = self.far.later(what, *args, task=True)
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), self.limit)
        except TimeoutError:
            raise Abstain(f"the adapter's process did not answer within {self.limit:g} s") from None
        except asyncio.CancelledError:
            if future.done():
                raise
            self.far.cancel(ticket)
            with contextlib.suppress(BaseException):
                await asyncio.shield(waiting)
            raise


_PROCESSES: WeakKeyDictionary[Store, AdapterProcess] = WeakKeyDictionary()


def process_of(store: Store, python: str = "") -> AdapterProcess:
    """Return the process of the adapter on *store*, started when it is first needed."""
    if store not in _PROCESSES:
        _PROCESSES[store] = AdapterProcess(store, python)
    return _PROCESSES[store]


def end_process(store: Store) -> None:
    """End the process of the adapter on *store*, if there is one."""
    process = _PROCESSES.pop(store, None)
    if process is not None:
        process.close()


class RemoteRecorder(Recorder):
    """Requests to the store and their replies, as the adapter's process has kept them.

    They are objects of the adapter, of which an adapter that lies can make what it likes. What has to hold against it
    is judged on the wire, and by the generated calls.
    """

    def __init__(self, process: AdapterProcess) -> None:
        super().__init__()
        self._process = process
        self._first = int(process.perform("count"))  # another context of the process has kept some

    @property
    def events(self) -> list[Event]:
        """All events."""
        return self.since(0)

    @events.setter
    def events(self, _: list[Event]) -> None:
        pass

    def clear(self) -> None:
        """Forget everything, and each handle."""
        self._process.perform("forget")
        self._first = 0

    def __len__(self) -> int:
        return int(self._process.perform("count")) - self._first

    def since(self, mark: int) -> list[Event]:
        """Return the events after the first *mark*."""
        events = []
        for data in self._process.perform("heard", self._first + mark):
            try:
                request, reply, error = load_recorded(data, self._process.adapter)
            except PoisonError as poison:
                raise Abstain(str(poison)) from None
            if request is None:
                raise Abstain(str(error))
            events.append(Event(request, reply, None if error is None else RuntimeError(error)))
        return events


class RemoteIterator:
    """The rows of a scan, one after the other."""

    def __init__(self, process: AdapterProcess, start: Callable[[int], None]) -> None:
        self._process = process
        self._number = process.number()
        self._start: Callable[[int], None] | None = start

    def _begin(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            start(self._number)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._begin()
        more, row = self._process.perform("step", self._number)
        if not more:
            raise StopIteration
        return row

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self._begin()
        more, row = await self._process.aperform("step", self._number)
        if not more:
            raise StopAsyncIteration
        return row


class RemoteThing:
    """A client or a handle in the adapter's process: its methods are called there, with values.

    Sync methods return, async ones have to be awaited.
    """

    def __init__(self, context: RemoteContext, number: int, tenant: str = "") -> None:
        self._context = context
        self._process = context.process
        self._number = number
        self._tenant = tenant

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return partial(self._call, name)

    def _call(self, name: str, *args: Any, **given: Any) -> Any:
        if name in _WRITES:
            self._context.admit(self._tenant)
        return self._context.asked("do", self._number, name, _values(args), given, 0)

    def narrow(self, where: Predicate = ALWAYS, actions: Any = None) -> RemoteThing:
        """Return a handle with less."""
        number = self._process.number()
        self._process.perform("do", self._number, "narrow", (where, actions), {}, number)
        return RemoteThing(self._context, number, self._tenant)

    def scoped(self, *principal: Any, **given: Any) -> RemoteThing:
        """Return the handle of a principal."""
        number = self._process.number()
        match principal:
            case (Principal() as one,) if type(one) is Principal:
                self._process.perform("scoped", self._number, number, claims_of(one), (), given)
                return RemoteThing(self._context, number, one.tenant)
        self._process.perform("scoped", self._number, number, None, principal, given)
        return RemoteThing(self._context, number)

    def scan(self, *args: Any, **given: Any) -> RemoteIterator:
        """Return an iterator."""
        return RemoteIterator(
            self._process, lambda number: self._process.perform("do", self._number, "scan", args, given, number)
        )

    def drain(self, name: str, *args: Any, **given: Any) -> Any:
        """Return everything that a method yields."""
        return self._context.asked("drain", self._number, name, args, given)

    def __enter__(self) -> RemoteThing:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.perform("do", self._number, "__exit__", (None, None, None), {}, -1)

    async def __aenter__(self) -> RemoteThing:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._process.aperform("do", self._number, "__aexit__", (None, None, None), {}, -1)

    def __repr__(self) -> str:
        return str(self._process.perform("show", self._number)[0])


def _values(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return *args* with iterators as lists: a generator cannot be carried."""
    return tuple(list(one) if hasattr(one, "__next__") else one for one in args)


class RemoteClient(Client):
    """A client in the adapter's process."""

    acl: RemoteThing

    def __init__(self, context: RemoteContext, config: Mapping[str, Any], policy: Rules | None) -> None:
        self._number = context.process.number()
        super().__init__(RemoteThing(context, self._number), context.mode, context.recorder)
        self._context = context
        self._process = context.process
        self._can: Capabilities | None = None
        provision, self._process.provision = self._process.provision, False
        self._process.perform("make", self._number, config, context.mode, provision, policy, None, 1)

    @property
    def adapter(self) -> Any:
        """The part of the adapter that is available here: its declared capabilities."""
        if self._can is None:
            can = self._process.perform("capabilities", self._number)
            if not isinstance(can, Capabilities):
                raise Abstain("the adapter's process did not say what the adapter can do")
            self._can = can
        return SimpleNamespace(capabilities=self._can)

    async def _ask(self, what: str, *args: Any) -> Any:
        answer = self._context.asked(what, *args)
        return await answer if self.mode == "async" else answer

    async def raw(self, operation: Operation) -> Any:
        """Hand *operation* to the adapter itself, past the core's own checks but confined, as the core confines it."""
        if isinstance(operation, Upsert | Replace):
            with contextlib.suppress(VectorACLError):
                check_tagged(operation.records, operation.partition)
                self._context.admit(operation.partition)
        return await self._ask("raw", self._number, operation)

    async def copied(self, tenant: str, records: Sequence[Record]) -> int:
        """Write *records* as `vectoracl copy` does, by the core's own flow."""
        self._context.admit(tenant)
        return await self.run(_COPY, tenant, list(records))  # type: ignore[no-any-return]

    async def run(self, text: str, *args: Any) -> Any:
        """Call `work(client, *args)` of *text*, next to the adapter."""
        return await self._ask("run", self._number, text, args, 0)

    def change(self, rules: Rules) -> None:
        """Give the client's policy other rules."""
        self._process.perform("rules", self._number, rules)

    def shown(self) -> list[str]:
        """Return what the client and its configuration show of themselves."""
        return [str(one) for one in self._process.perform("show", self._number)]

    async def open(self) -> None:
        """Contact the store and demand its posture."""
        await self._ask("do", self._number, "open", (), {}, -1)

    async def posture(self) -> Any:
        """Read the posture, without refusing what is found."""
        return (await self._ask("do", self._number, "check", (), {}, 0))[STORE]

    async def close(self) -> None:
        """Close the client."""
        await self._ask("do", self._number, "close", (), {}, -1)


class RemoteContext(CheckContext):
    """A context whose adapter runs in its own process; *source* dresses it there, for a mutant or a variant."""

    def __init__(self, store: Store, corpus: Corpus, mode: Mode, python: str = "", source: str = "") -> None:
        super().__init__(store, corpus, mode, python=python)
        self.process = process_of(store, python)
        if source:
            self.source = source
            self.process.dress(source)
        self.recorder = RemoteRecorder(self.process)
        self._admitted: set[str] = set()

    def asked(self, what: str, *args: Any) -> Any:
        """Ask: return the answer in sync mode, and what has to be awaited in async mode."""
        return (self.process.perform if self.mode == "sync" else self.process.aperform)(what, *args)

    def admit(self, tenant: str) -> None:
        """Admit *tenant* before its first write, as an operator does."""
        if tenant and tenant not in self._admitted:
            self._admitted.add(tenant)
            self.store.admit(tenant)

    def new_client(
        self,
        *,
        policy: Rules | None = None,
        single: bool = False,
        other: Callable[[str], str] | None = None,
        **more: Any,
    ) -> Client:
        """Return a client that was not contacted yet; *other* changes each text of the store's configuration."""
        return RemoteClient(self, self.changed(other, single=single, **more), policy)

    def rows(self) -> list[Record]:
        """Read the store without the adapter, as it is: in the adapter's process where it lives there."""
        if not self.store.census_source:
            return super().rows()
        rows = self.process.perform("census", None)
        if not isinstance(rows, list) or not all(isinstance(row, Record) for row in rows):
            raise Abstain("the census is not a list of records")
        return rows

    def parts(self) -> frozenset[str] | None:
        """Name what the store keeps per tenant."""
        if not self.store.census_source:
            return super().parts()
        parts = self.process.perform("parts")
        return None if parts is None else frozenset(parts)

    @contextmanager
    def listening(self) -> Iterator[Callable[[], str]]:
        """Have everything logged in the adapter's process, and read all that it writes."""
        before = len(self.process.far.said())
        self.process.perform("log", 1)
        self.process.perform("reports", 1)
        try:
            yield lambda: self.process.far.said()[before:]
        finally:
            self.process.perform("reports", 0)
            self.process.perform("log", 0)
