"""Unusual but correct adapters over the memory store; all of them must pass.

A kit that requires a certain implementation instead of a certain result would fail one of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from vectoracl.adapter_api.contract import Adapter, AsyncPort, Capabilities, Flow, Opened, Port
from vectoracl.adapter_api.operations import (
    ChunkRef,
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Include,
    Position,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.operations import Replace as ReplaceOperation
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import And, ContainsAny, Eq, In, Not, Or, Predicate, StartsWith
from vectoracl.memory.ports import _NAMED
from vectoracl.model.records import Facet, Hit, Record, Tag
from vectoracl_conformance.context.corpus import FIELDS
from vectoracl_conformance.harness import Mutant, Needs, Store
from vectoracl_conformance.harnesses.memory import MemoryHarness, MemoryStore
from vectoracl_conformance.isolated.source_bundle import bundle, bundled
from vectoracl_conformance.mutants.lexical import Worded
from vectoracl_conformance.verdict import MODES
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, by_listing, wrapped

_TURNS = 20
LAG = 0.01
"""How long a write may take to be seen, in seconds."""
_ALL: Include = frozenset({"text", "metadata", "vector"})
Wrap = Callable[[Opened, Store], Opened]


class OddHarness(MemoryHarness):
    """The memory adapter under its own wrapper, which only the kit's own tests put around it: `variant`.

    Args:
        wrap: The wrapper.
        lag: How long a write may take to be seen, in seconds.
    """

    def __init__(self, wrap: Wrap, lag: float = 0.0) -> None:
        self.wrap = wrap
        self.lag = lag

    @property
    def variant(self) -> Mutant:
        """The adapter as text, as it is put into its process."""
        (name,) = (name for name, one in ODD.items() if one is self)
        source = f"""{bundle(__name__)}
from {bundled(__name__, __name__)} import as_written as restored, elsewhere
def dress(opened):
    return elsewhere({name!r}, opened)
"""
        return Mutant(name, "nothing", "", source=source, modes=MODES)

    def fresh(self, needs: Needs) -> Store:
        """Return a store whose clients are wrapped."""
        return OddStore(needs, lag=self.lag)


_CENSUS = """
_rows_as_stored = census

def census(client):
    return restored(_rows_as_stored(client))
"""


class OddStore(MemoryStore):
    """A memory store whose adapter is wrapped when it is opened.

    In the adapter's process, `names` are the ids that its adapter gave to chunks, with the true ones; `seen` are the
    partitions as they were after each write, with the time. Either is kept by one oddity only.
    """

    def __init__(self, needs: Needs, name: str = "", lag: float = 0.0) -> None:
        super().__init__(needs, name)
        self._lag = lag
        self.census_source += _CENSUS
        self.names: dict[str, str] = {}
        self.seen: list[tuple[float, Any]] = [(0.0, {})]

    def settle(self) -> None:
        """Wait as long as a write may take to be seen."""
        time.sleep(self._lag)


@cache
def _kept() -> OddStore:
    """Return the only store of a process."""
    ((name, shelf),) = _NAMED.items()
    return OddStore(Needs(shelf.dimension, FIELDS, metric=shelf.metric), name)


def elsewhere(name: str, opened: Opened) -> Opened:
    """Return the odd adapter of *name*."""
    return ODD[name].wrap(opened, _kept())


def as_written(rows: Iterable[Record]) -> list[Record]:
    """Return *rows* with the ids that they were written under."""
    names = _kept().names
    return [row._replace(tag=row.tag._replace(chunk=names.get(row.tag.chunk, row.tag.chunk))) for row in rows]


def adapted(kind: Callable[[Adapter, Store], AdapterWrapper]) -> Wrap:
    """Return the wrapper that puts *kind* around the adapter."""
    return lambda opened, store: replace(opened, adapter=kind(opened.adapter, store))


class Normalises(AdapterWrapper):
    """Stores unit vectors for the cosine, as some stores do."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Normalise."""
        return self.inner.upsert(replace(operation, records=self._stored(operation.records)))

    def replace(self, operation: ReplaceOperation) -> Flow[int]:
        """Normalise."""
        return self.inner.replace(replace(operation, records=self._stored(operation.records)))

    def _stored(self, records: Sequence[Record]) -> tuple[Record, ...]:
        return tuple(map(_unit, records)) if self.capabilities.metric == "cosine" else tuple(records)


def _unit(record: Record) -> Record:
    tag: Any = record.tag
    if not isinstance(tag, Tag):  # a check hands in records with other tags
        return record
    return record._replace(vector=np.asarray(record.vector / np.linalg.norm(record.vector), np.float32))


class Distances(AdapterWrapper):
    """Gets distances from its store, lower is better, and turns them around on the way out."""

    def search(self, operation: Search) -> Flow[Found]:
        """Turn twice."""
        floor = operation.min_score
        result = yield from self.inner.search(replace(operation, min_score=None if floor is None else floor))
        away = [hit._replace(score=1.0 - hit.score) for hit in result.hits]
        return result._replace(hits=[hit._replace(score=1.0 - hit.score) for hit in away])


class PagesOfOne(AdapterWrapper):
    """Its store gives one row a page; it asks until it has what was asked for."""

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Ask row by row."""
        hits: list[Hit] = []
        after, more = operation.after, True
        while more and len(hits) < operation.size:
            rows = yield from self.inner.scan(replace(operation, size=1, after=after))
            hits += rows.hits
            more = rows.more
            if rows.hits:
                last = rows.hits[-1]
                after = Position(last.document, last.tag.generation, last.id)
        return Rows(hits, more)


class Generous(AdapterWrapper):
    """Returns text, metadata and vector whether they were asked for or not: all of it is the principal's own."""

    def search(self, operation: Search) -> Flow[Found]:
        """Include everything."""
        return self.inner.search(replace(operation, include=_ALL))

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Include everything."""
        return self.inner.scan(replace(operation, include=_ALL))


class Modest(AdapterWrapper):
    """Declares little: no grouping, no exact ranking, no counts, uncounted deletes, no filters by lists."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare little."""
        return replace(
            self.inner.capabilities,
            predicates=self.inner.capabilities.predicates - {ContainsAny},
            count="none",
            facets="none",
            exact=False,
            group_by=False,
            delete_counts=False,
            max_batch=150,
        )

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete without counting."""
        yield from self.inner.delete(operation)
        return None


class PagedCount(AdapterWrapper):
    """Counts, also by value, by paging through the rows."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        return replace(self.inner.capabilities, count="paged", facets="paged")

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count page by page; numbers come back as doubles, as they do from some stores."""
        counts = yield from by_listing(self.inner, operation)
        return [Facet(float(one), count) if type(one) is int else Facet(one, count) for one, count in counts]

    def count(self, operation: Count) -> Flow[int]:
        """Count page by page."""
        total, after, more = 0, None, True
        while more:
            scan = Scan(operation.partition, operation.scope, operation.where, 7, after, frozenset())
            rows = yield from self.inner.scan(scan)
            total += len(rows.hits)
            more = rows.more
            if rows.hits:
                last = rows.hits[-1]
                after = Position(last.document, last.tag.generation, last.id)
        return total


class TwoQuestions(AdapterWrapper):
    """Ranks first and fetches the rows of the hits then."""

    def search(self, operation: Search) -> Flow[Found]:
        """Ask twice."""
        for _ in range(_TURNS):
            result = yield from self.inner.search(replace(operation, include=frozenset()))
            if not result.hits:
                return result
            refs = tuple(ChunkRef(hit.id, hit.document) for hit in result.hits)
            rows = yield from self.inner.fetch(Fetch(operation.partition, operation.scope, refs, operation.include))
            # A row that was deleted or written again in between is not the one that was ranked.
            by_tag = {hit.tag: hit for hit in rows.hits}
            hits = [by_tag[hit.tag]._replace(score=hit.score) for hit in result.hits if hit.tag in by_tag]
            if len(hits) == len(result.hits):
                return result._replace(hits=hits)
        raise StoreError("The rows changed while they were read.", code="conflict", sent="no", retryable=True)


class _Slow:
    def __init__(self, port: Port, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self.parallel = 8

    def execute(self, request: Any, timeout: float | None) -> Any:
        time.sleep(self._seconds)
        return self._port.execute(request, timeout)

    def close(self) -> None:
        self._port.close()


class _SlowAsync:
    def __init__(self, port: AsyncPort, seconds: float) -> None:
        self._port = port
        self._seconds = seconds
        self.parallel = 8

    async def execute(self, request: Any, timeout: float | None) -> Any:
        await asyncio.sleep(self._seconds)
        return await self._port.execute(request, timeout)

    async def close(self) -> None:
        await self._port.close()


class Renames(AdapterWrapper):
    """Its store has ids of another form; the adapter translates them in both directions, in filters too."""

    store: OddStore

    def _in(self, chunk: str) -> str:
        self.store.names[f"id-{chunk}"] = chunk
        return f"id-{chunk}"

    def _predicate(self, predicate: Predicate) -> Predicate:
        match predicate:
            case And(operands) | Or(operands):
                return replace(predicate, operands=tuple(map(self._predicate, operands)))
            case Not(operand):
                return Not(self._predicate(operand))
            case Eq("@chunk", value):
                return Eq("@chunk", self._in(str(value)))
            case In("@chunk", values):
                return In("@chunk", tuple(self._in(str(one)) for one in values))
            case StartsWith("@chunk", prefix):
                return StartsWith("@chunk", f"id-{prefix}")
            case _:
                return predicate

    def _operation(self, operation: Any) -> Any:
        predicates = {name: getattr(operation, name, None) for name in ("scope", "where")}
        return replace(
            operation, **{name: self._predicate(one) for name, one in predicates.items() if isinstance(one, Predicate)}
        )

    def _records(self, operation: Any) -> Any:
        return replace(
            self._operation(operation),
            records=tuple(
                one._replace(tag=one.tag._replace(chunk=self._in(one.tag.chunk)))
                if isinstance(one.tag, Tag) and one.tag.chunk
                else one
                for one in operation.records
            ),
        )

    def _refs(self, refs: tuple[ChunkRef, ...]) -> tuple[ChunkRef, ...]:
        return tuple(ref._replace(chunk=self._in(ref.chunk)) for ref in refs)

    def _out(self, hits: Iterable[Hit]) -> list[Hit]:
        names = ((hit, hit.id.removeprefix("id-")) for hit in hits)
        return [hit._replace(id=name, tag=hit.tag._replace(chunk=name)) for hit, name in names]

    def search(self, operation: Search) -> Flow[Found]:
        """Name the hits."""
        result = yield from self.inner.search(self._operation(operation))
        return result._replace(hits=self._out(result.hits))

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Ask by the other ids, and name the hits."""
        rows = yield from self.inner.fetch(replace(self._operation(operation), refs=self._refs(operation.refs)))
        return rows._replace(hits=self._out(rows.hits))

    def count(self, operation: Count) -> Flow[int]:
        """Count by the other ids."""
        return self.inner.count(self._operation(operation))

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by the other ids."""
        inner: Any = self.inner
        return inner.facets(self._operation(operation))  # type: ignore[no-any-return]  # an optional method

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Continue after the other id, and name the hits."""
        after = operation.after
        operation = self._operation(operation)
        if after is not None:
            operation = replace(operation, after=after._replace(chunk=self._in(after.chunk)))
        rows = yield from self.inner.scan(operation)
        return rows._replace(hits=self._out(rows.hits))

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write under the other ids."""
        return self.inner.upsert(self._records(operation))

    def replace(self, operation: ReplaceOperation) -> Flow[int]:
        """Write under the other ids."""
        return self.inner.replace(self._records(operation))

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete by the other ids."""
        refs = operation.refs
        operation = self._operation(operation)
        return self.inner.delete(operation if refs is None else replace(operation, refs=self._refs(refs)))


class Eventual(AdapterWrapper):
    """Declares that a write is seen a moment later."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        return replace(self.inner.capabilities, visible="eventual")


class _Lagging:
    """Reads see the rows as they were a moment ago; writes are done at once."""

    def __init__(self, store: OddStore) -> None:
        self._store = store

    @contextmanager
    def around(self, request: Any) -> Iterator[None]:
        """Put the rows of a moment ago in place for a read, and note what a write left."""
        shelf = self._store._shelf  # noqa: SLF001 - one store, two classes
        operation = getattr(request, "operation", None)
        with shelf.lock:
            if isinstance(operation, Search | Fetch | Count | Scan):
                live, past = shelf.partitions, time.monotonic() - LAG
                shelf.partitions = next(rows for when, rows in reversed(self._store.seen) if when <= past)
                try:
                    yield
                finally:
                    shelf.partitions = live
                return
            yield
            if operation is not None:
                own = dict(shelf.partitions.get(operation.partition, {}))
                self._store.seen.append((time.monotonic(), {**self._store.seen[-1][1], operation.partition: own}))
                del self._store.seen[1:-400]


class _LagPort(_Lagging):
    def __init__(self, port: Port, store: OddStore) -> None:
        super().__init__(store)
        self._port = port
        self.parallel = 1

    def execute(self, request: Any, timeout: float | None) -> Any:
        with self.around(request):
            return self._port.execute(request, timeout)

    def close(self) -> None:
        self._port.close()


class _AsyncLagPort(_Lagging):
    def __init__(self, port: AsyncPort, store: OddStore) -> None:
        super().__init__(store)
        self._port = port
        self.parallel = 1

    async def execute(self, request: Any, timeout: float | None) -> Any:
        with self.around(request):  # the memory store never waits, so no other request comes between
            return await self._port.execute(request, timeout)

    async def close(self) -> None:
        await self._port.close()


def lagging(opened: Opened, store: Store) -> Opened:
    """Wrap so that reads lag behind writes."""
    assert isinstance(store, OddStore)
    port, aport = opened.port, opened.aport
    return replace(
        opened,
        adapter=Eventual(opened.adapter, store),
        port=lambda: _LagPort(port(), store),
        aport=lambda: _AsyncLagPort(aport(), store),
    )


def slow(opened: Opened, _: Store) -> Opened:
    """Wrap so that every request takes a while."""
    port, aport = opened.port, opened.aport
    return replace(opened, port=lambda: _Slow(port(), 0.004), aport=lambda: _SlowAsync(aport(), 0.004))


ODD: dict[str, OddHarness] = {
    "normalises": OddHarness(adapted(Normalises)),
    "distances": OddHarness(adapted(Distances)),
    "pages_of_one": OddHarness(adapted(PagesOfOne)),
    "generous": OddHarness(adapted(Generous)),
    "modest": OddHarness(adapted(Modest)),
    "paged_count": OddHarness(adapted(PagedCount)),
    "two_questions": OddHarness(adapted(TwoQuestions)),
    "slow": OddHarness(slow),
    "renames": OddHarness(adapted(Renames)),
    "lagging": OddHarness(lagging, LAG),
    "worded": OddHarness(wrapped(Worded)),
}
