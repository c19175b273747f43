"""Faults that only Pinecone can have: for the conformance kit, each with the check or grade that has to notice.

The adapter's last gate refuses every namespace but the tenant's own, so a fault that is to reach the store goes past
it: its requests are wrapped in `Past`, and the port that is put in front performs them without the gate.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from vectoracl.adapter_api.contract import Adapter, Flow, Opened, Request, flow_of
from vectoracl.adapter_api.operations import (
    METHODS,
    OPERATIONS,
    Delete,
    Fetch,
    Found,
    Operation,
    Rows,
    Search,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import StoreError
from vectoracl.filters.boolean_compiler import ALL_ROWS
from vectoracl.filters.predicate import ALWAYS, Always
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, forged
from vectoracl_pinecone.compile import PineconeCompiler
from vectoracl_pinecone.names import namespace_of
from vectoracl_pinecone.ports import perform, reply_of
from vectoracl_pinecone.requests import AnyRequest, FetchBy, Listing, Put, Query, Remove, Settle

_SCOPED = (Query, Listing, FetchBy, Put, Remove, Settle)


@dataclass(frozen=True, slots=True, eq=False)
class Past(Request[Any]):
    """Perform `request` past the gate; `everything` empties its namespace instead."""

    partition: str | None
    request: AnyRequest
    everything: bool = False


def _asked(index: Any, real: Any, step: Past) -> Any:
    request = step.request
    if step.everything and isinstance(request, Remove):
        return index.delete(namespace=request.namespace, delete_all=True)
    return perform(index, real._config, real._kind, request, 30.0)  # noqa: SLF001 - a mutant reaches into it


class PastPort:
    """A sync port that performs `Past`."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.parallel = port.parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        if not isinstance(request, Past):
            return self._port.execute(request, timeout)
        real = self._port.inner
        try:
            answer = _asked(real._index, real, request)  # noqa: SLF001
        except Exception as error:
            raise StoreError("the mutant's request failed", code="mutant") from error
        reply = reply_of(real._config, real._kind, request.request, answer)  # noqa: SLF001
        self._port.note(request.request, reply)
        return reply

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class AsyncPastPort:
    """The same for asyncio."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.parallel = port.parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        if not isinstance(request, Past):
            return await self._port.execute(request, timeout)
        real = self._port.inner
        try:
            answer = await _asked(await real._open(), real, request)  # noqa: SLF001
        except Exception as error:
            raise StoreError("the mutant's request failed", code="mutant") from error
        reply = reply_of(real._config, real._kind, request.request, answer)  # noqa: SLF001
        self._port.note(request.request, reply)
        return reply

    async def close(self) -> None:
        """Close the port."""
        await self._port.close()


class Bent(AdapterWrapper):
    """An adapter whose requests are bent on their way; `operations` says whose."""

    operations: Collection[str] = METHODS

    def bend(self, request: Any) -> Any:
        """Return what is sent instead."""
        raise NotImplementedError

    def perform(self, operation: Operation) -> Flow[Any]:
        """Bend the requests of the operations that are named."""
        flow = flow_of(self.inner, operation)
        if OPERATIONS[type(operation)].method not in self.operations:
            return (yield from flow)
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as stop:
                return stop.value
            value, error = None, None
            bent = tuple(self.bend(one) for one in step) if isinstance(step, tuple) else self.bend(step)
            try:
                value = yield bent
            except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                error = caught

    def posture(self) -> Flow[Posture]:
        """Look away."""
        yield from self.inner.posture()
        return Posture(self.capabilities.grade, ())


def _moved(request: Any, namespace: str) -> Any:
    if not isinstance(request, _SCOPED):
        return request
    return Past(request.partition, replace(request, namespace=namespace))


class Fallback(Bent):
    """No namespace: every request is one to the default namespace."""

    def bend(self, request: Any) -> Any:
        """Drop the namespace."""
        return _moved(request, "")


class SearchFallback(Bent):
    """The search alone falls back to the default namespace, where the rows of others are."""

    operations = ("search",)

    def bend(self, request: Any) -> Any:
        """Drop the namespace."""
        return _moved(request, "")


class CountFallback(SearchFallback):
    """The count alone has no namespace."""

    operations = ("count",)


class ScanFallback(SearchFallback):
    """The scan alone has no namespace."""

    operations = ("scan",)


class FetchFallback(SearchFallback):
    """The fetch alone has no namespace."""

    operations = ("fetch",)


class DeleteFallback(SearchFallback):
    """The delete alone has no namespace: what was to go stays."""

    operations = ("delete",)


class Blank(Bent):
    """A namespace of blanks, which the client sends as it is: all tenants share it."""

    def bend(self, request: Any) -> Any:
        """Put a blank."""
        return _moved(request, " ")


class Folded(Bent):
    """The namespace is made of the tenant's id in small letters: look-alikes share one."""

    def bend(self, request: Any) -> Any:
        """Fold."""
        if not isinstance(request, _SCOPED) or request.partition is None:
            return request
        return _moved(request, namespace_of("vectoracl-", request.partition.casefold()))


class Emptied(Bent):
    """A delete empties the whole namespace."""

    operations = ("delete",)

    def bend(self, request: Any) -> Any:
        """Delete everything."""
        if isinstance(request, Remove):
            return Past(request.partition, request, everything=True)
        return request


class Filtered(AdapterWrapper):
    """Sends a search with another filter, made of scope and caller's filter."""

    def made(self, scope: Any, where: Any) -> Any:
        """Return the filter."""
        raise NotImplementedError

    def search(self, operation: Search) -> Flow[Found]:
        """Search with it."""
        if isinstance(operation.where, Always) or isinstance(operation.scope, Always):
            return (yield from self.inner.search(operation))
        compiler: PineconeCompiler = self.inner._compile  # type: ignore[attr-defined]  # noqa: SLF001 - a mutant
        scope, where = compiler.scope(operation.scope), compiler.scope(operation.where)
        if isinstance(scope, bool) or isinstance(where, bool):
            return (yield from self.inner.search(operation))
        flow = self.inner.search(replace(operation, scope=ALWAYS))
        request: Any = next(flow)
        while True:
            reply = yield replace(request, filter=self.made(scope, where))
            try:
                request = flow.send(reply)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]


class Merged(Filtered):
    """The two filters are merged as dictionaries: a key of the caller's replaces the scope's."""

    def made(self, scope: Any, where: Any) -> Any:
        """Merge."""
        return {**scope, **where}


class Either(Filtered):
    """The scope is one branch of an $or."""

    def made(self, scope: Any, where: Any) -> Any:
        """Widen."""
        return {"$or": [scope, where]}


class FanOut(AdapterWrapper):
    """Ranks every tenant's namespace and keeps the own rows: right results."""

    def search(self, operation: Search) -> Flow[Found]:
        """Rank all."""
        result = yield from self.inner.search(operation)
        for tenant in self.tenants():
            if tenant != operation.partition:
                namespace = namespace_of("vectoracl-", tenant)
                vector = [float(one) for one in operation.query.vector]  # type: ignore[union-attr]
                query = Query(operation.partition, namespace, vector, operation.k, metadata=True)
                yield Past(operation.partition, query)
        return result


class FetchAnywhere(AdapterWrapper):
    """A fetch looks for the id in every namespace."""

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Fetch from all."""
        rows = yield from self.inner.fetch(operation)
        decode, compiler = self.inner._decode, self.inner._compile  # type: ignore[attr-defined]  # noqa: SLF001
        where = compiler.refs(operation.refs)
        hits = list(rows.hits)
        for tenant in self.tenants():
            if tenant != operation.partition:
                query = replace(compiler.query(tenant, where, 100, rows=True, values=True), partition=None)
                matches = yield Past(operation.partition, query)
                hits += forged(decode.listed(matches, operation.include), operation.partition)
        return Rows(hits)


class DeleteAnywhere(AdapterWrapper):
    """A delete by id looks for the id in every namespace."""

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete from all."""
        count = yield from self.inner.delete(operation)
        if operation.refs is not None:
            compiler = self.inner._compile  # type: ignore[attr-defined]  # noqa: SLF001 - a mutant
            where = compiler.refs(operation.refs)
            for tenant in self.tenants():
                if tenant != operation.partition:
                    matches = yield Past(operation.partition, compiler.query(tenant, where, 100))
                    ids = [match.id for match in matches]
                    if ids:
                        yield Past(operation.partition, compiler.remove(tenant, ids, ALL_ROWS))
        return count


class DirtyDefault(AdapterWrapper):
    """There are records in the default namespace, and the posture looks away."""

    def posture(self) -> Flow[Posture]:
        """Look away."""
        yield from self.inner.posture()
        return Posture(self.capabilities.grade, ())


def _wrapped(kind: Callable[[Adapter, Store], AdapterWrapper]) -> Callable[[Opened, Store], Opened]:
    def wrap(opened: Opened, store: Store) -> Opened:
        port, aport = opened.port, opened.aport
        return replace(
            opened,
            adapter=kind(opened.adapter, store),
            port=lambda: PastPort(port()),
            aport=lambda: AsyncPastPort(aport()),
        )

    return wrap


def _mutant(name: str, breaks: str, expected: str, kind: Callable[[Adapter, Store], AdapterWrapper]) -> Mutant:
    return Mutant(name, breaks, expected, _wrapped(kind))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("no namespace", "every request is one to the default namespace", "R3", Fallback),
    _mutant("no namespace in a search", "the search alone is one to the default namespace", "R2", SearchFallback),
    _mutant("no namespace in a count", "the count alone has no namespace", "R12", CountFallback),
    _mutant("no namespace in a scan", "the scan alone has no namespace", "R11", ScanFallback),
    _mutant("no namespace in a fetch", "the fetch alone has no namespace", "R10", FetchFallback),
    _mutant("no namespace in a delete", "the delete alone has no namespace", "W7", DeleteFallback),
    _mutant("a blank namespace", "all tenants share the namespace of one blank", "R1", Blank),
    _mutant("a folded namespace", "tenants whose ids differ by case share a namespace", "P2", Folded),
    _mutant("delete_all", "a delete empties the namespace", "W7", Emptied),
    _mutant("merged filters", "a key of the caller's filter replaces the scope's", "R5", Merged),
    _mutant("the scope in $or", "the scope is one branch of an $or", "R5", Either),
    _mutant("every namespace is ranked", "the search asks every namespace and keeps the own rows", "E2s", FanOut),
    _mutant("a fetch by bare id", "the fetch looks in every namespace", "R10", FetchAnywhere),
    _mutant("a delete by bare id", "the delete looks in every namespace", "W6", DeleteAnywhere),
    Mutant(
        "default namespace",
        "records in the default namespace are not noticed",
        "X2",
        _wrapped(DirtyDefault),
    ),
)
