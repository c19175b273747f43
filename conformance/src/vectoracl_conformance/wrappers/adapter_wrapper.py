"""The wrapper from which every mutant is built: a complete adapter in which single flows can be replaced.

A mutant that needs rows outside of the scope asks a port in front of the real one: `Everywhere` reads all tenants (from
the census, and the recorder sees it), `Elsewhere` performs an operation on another partition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from vectoracl.adapter_api.contract import Adapter, Capabilities, Flow, Opened, Request, flow_of
from vectoracl.adapter_api.operations import (
    METHODS,
    Count,
    Facets,
    Fetch,
    Found,
    Operation,
    Position,
    Relabel,
    Scan,
    Search,
    UpdateMetadata,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.engine.drivers import arun, run
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.semantics import compile_test, getter, tallied, values_of
from vectoracl.model.queries import ResolvedQuery, VectorQuery
from vectoracl.model.records import Facet, Hit, Record, Tag
from vectoracl_conformance.context.corpus import FIELDS
from vectoracl_conformance.context.oracle import Oracle, key
from vectoracl_conformance.harness import Store


@dataclass(frozen=True, slots=True, eq=False)
class Everywhere(Request[list[Hit]]):
    """All rows that match the operation's filter, of every tenant: ranked for a search, else in the census's order.

    `bare` rows have nothing that could be read but their vectors.
    """

    partition: str | None
    operation: Search | Fetch | Count | Facets | Scan
    bare: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Elsewhere(Request[Any]):
    """Perform `operation`, which names another partition than `partition`."""

    partition: str | None
    operation: Operation


@dataclass(frozen=True, slots=True)
class Nap(Request[None]):
    """Wait a little, so that others come between."""

    partition: str | None
    seconds: float = 0.003


def hit_of(row: Record, score: float = 0.0) -> Hit:
    """Return a row of the census as a hit with everything in it."""
    tag = row.tag
    return Hit(tag.chunk, tag.document, score, tag.tenant, tag.position, row.text, row.metadata, row.vector, tag)


def forged(hits: Iterable[Hit], tenant: str) -> list[Hit]:
    """Return *hits* as if they belonged to *tenant*, so that the second lock sees nothing."""
    return [hit._replace(tenant=tenant, tag=hit.tag._replace(tenant=tenant)) for hit in hits]


def everywhere(store: Store, operation: Search | Fetch | Count | Facets | Scan) -> list[Hit]:
    """Answer `Everywhere`."""
    rows = list(store.census())
    if isinstance(operation, Fetch):
        refs = set(operation.refs)
        named = {(ref.document, ref.chunk) for ref in refs}
        return [
            hit_of(row) for row in rows if (None, row.tag.chunk) in named or (row.tag.document, row.tag.chunk) in named
        ]
    test = compile_test(operation.where)
    rows = [row for row in rows if test(row.tag, row.metadata)]
    if not isinstance(operation, Search) or not isinstance(operation.query, VectorQuery):
        return [hit_of(row) for row in sorted(rows, key=key)]
    by_key = {key(row): row for row in rows}
    ranked = Oracle.rank(rows, operation.query.vector).rows
    return [hit_of(by_key[place], score) for place, score in ranked]


class CheatPort:
    """A sync port that also answers what no right port would."""

    def __init__(self, port: Any, adapter: Adapter, store: Store) -> None:
        self._port = port
        self._adapter = adapter
        self._store = store
        self.parallel = port.parallel

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        match request:
            case Everywhere(operation=operation, bare=bare):
                hits = everywhere(self._store, operation)
                if bare:
                    hits = [hit_of(Record(Tag("", "", ""), "", hit.vector, {})) for hit in hits]  # type: ignore[arg-type]
                self._port.note(request, hits)
                return hits
            case Elsewhere(operation=operation):
                return run(flow_of(self._adapter, operation), {"store": self._port}, timeout=timeout)
            case Nap(seconds=seconds):
                time.sleep(seconds)
                return None
        return self._port.execute(request, timeout)

    def close(self) -> None:
        """Close the port."""
        self._port.close()


class AsyncCheatPort:
    """The same for asyncio."""

    def __init__(self, port: Any, adapter: Adapter, store: Store) -> None:
        self._port = port
        self._adapter = adapter
        self._store = store
        self.parallel = port.parallel

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        match request:
            case Everywhere(operation=operation, bare=bare):
                hits = everywhere(self._store, operation)
                if bare:
                    hits = [hit_of(Record(Tag("", "", ""), "", hit.vector, {})) for hit in hits]  # type: ignore[arg-type]
                self._port.note(request, hits)
                return hits
            case Elsewhere(operation=operation):
                return await arun(flow_of(self._adapter, operation), {"store": self._port}, timeout=timeout)
            case Nap(seconds=seconds):
                await asyncio.sleep(seconds)
                return None
        return await self._port.execute(request, timeout)

    async def close(self) -> None:
        """Close the port."""
        await self._port.close()


def by_listing(inner: Adapter, operation: Facets) -> Flow[list[Facet]]:
    """Count by value by listing the rows: what any adapter can do."""
    name = operation.field
    kind = FieldType.KEYWORD if name.startswith("@") else FieldType(FIELDS[name])
    get, hits = getter(name), list[Hit]()
    after, more = None, True
    while more:
        scan = Scan(operation.partition, operation.scope, operation.where, 500, after, frozenset({"metadata"}))
        rows = yield from inner.scan(scan)
        hits += rows.hits
        more = rows.more
        if rows.hits:
            last = rows.hits[-1]
            after = Position(last.document, last.tag.generation, last.id)
    return tallied((values_of(kind, get(hit.tag, hit.metadata or {})) for hit in hits), operation.most)


class AdapterWrapper:
    """A right adapter, to be subclassed: the method of one operation may be replaced, or `perform` for all of them."""

    def __init__(self, inner: Adapter, store: Store) -> None:
        self.inner = inner
        self.store = store

    @property
    def capabilities(self) -> Capabilities:
        """The declared capabilities."""
        return self.inner.capabilities

    def perform(self, operation: Operation) -> Flow[Any]:
        """Perform an operation that has no method here."""
        return flow_of(self.inner, operation)

    def __getattr__(self, name: str) -> Callable[[Any], Flow[Any]]:
        """Return `perform` for each method of the table of operations."""
        if name in METHODS:
            return self.perform
        raise AttributeError(name)

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write labels; an adapter that declares `Capabilities.relabel` has this flow."""
        flow: Flow[int | None] = self.inner.relabel(operation)  # type: ignore[attr-defined]  # see `Relabeling`
        return flow

    def update_metadata(self, operation: UpdateMetadata) -> Flow[int]:
        """Change metadata in place; an adapter that declares `Capabilities.atomic_update` has this flow."""
        flow: Flow[int] = self.inner.update_metadata(operation)  # type: ignore[attr-defined]  # see `Updating`
        return flow

    def posture(self) -> Flow[Posture]:
        """Look."""
        return self.inner.posture()

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank everything, for `hazmat`."""
        return self.inner.unscoped(query, k)

    def tenants(self) -> list[str]:
        """List all tenants."""
        return sorted({row.tag.tenant for row in self.store.census()})


def wrapped(kind: Callable[[Adapter, Store], AdapterWrapper]) -> Callable[[Opened, Store], Opened]:
    """Return what makes an opened adapter the broken one of *kind*, in both modes."""

    def wrap(opened: Opened, store: Store) -> Opened:
        inner, port, aport = opened.adapter, opened.port, opened.aport
        return replace(
            opened,
            adapter=kind(inner, store),
            port=lambda: CheatPort(port(), inner, store),
            aport=lambda: AsyncCheatPort(aport(), inner, store),
        )

    return wrap
