"""Adapters that are odd but right, over the memory store: all of them have to pass.

A kit that demands how something is done instead of what comes of it fails one of these.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from vectoracl.adapter import Adapter, AsyncPort, Capabilities, Flow, Opened, Port
from vectoracl.operations import ChunkRef, Count, Delete, Found, Include, Position, Rows, Scan, Search, Upsert
from vectoracl.operations import Replace as ReplaceOperation
from vectoracl.records import Hit, Record, Tag
from vectoracl_conformance.harness import Needs, Store
from vectoracl_conformance.harnesses.memory import MemoryHarness, MemoryStore
from vectoracl_conformance.mutants.broken import Broken, wrapped
from vectoracl_conformance.mutants.words import Worded

_ALL: Include = frozenset({"text", "metadata", "vector"})
Wrap = Callable[[Opened, Store], Opened]


class OddHarness(MemoryHarness):
    """The memory adapter under a wrapper of its own; the kit opens every client of its stores through `dress`."""

    def __init__(self, wrap: Wrap) -> None:
        self.wrap = wrap

    def fresh(self, needs: Needs) -> Store:
        """Return a store whose clients are wrapped."""
        return OddStore(needs, self.wrap)


class OddStore(MemoryStore):
    """A memory store whose adapter is wrapped when it is opened."""

    def __init__(self, needs: Needs, wrap: Wrap) -> None:
        super().__init__(needs)
        self._wrap = wrap

    def dress(self, opened: Opened) -> Opened:
        """Return the odd adapter."""
        return self._wrap(opened, self)


def adapted(kind: Callable[[Adapter, Store], Broken]) -> Wrap:
    """Return the wrapper that puts *kind* around the adapter."""
    return lambda opened, store: replace(opened, adapter=kind(opened.adapter, store))


class Normalises(Broken):
    """Stores unit vectors, as some stores do for the cosine."""

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Normalise."""
        return self.inner.upsert(replace(operation, records=tuple(map(_unit, operation.records))))

    def replace(self, operation: ReplaceOperation) -> Flow[int]:
        """Normalise."""
        return self.inner.replace(replace(operation, records=tuple(map(_unit, operation.records))))


def _unit(record: Record) -> Record:
    if not isinstance(record.tag, Tag):
        return record
    return record._replace(vector=np.asarray(record.vector / np.linalg.norm(record.vector), np.float32))


class Distances(Broken):
    """Gets distances from its store, lower is better, and turns them around on the way out."""

    def search(self, operation: Search) -> Flow[Found]:
        """Turn twice."""
        floor = operation.min_score
        found = yield from self.inner.search(replace(operation, min_score=None if floor is None else floor))
        away = [hit._replace(score=1.0 - hit.score) for hit in found.hits]
        return found._replace(hits=[hit._replace(score=1.0 - hit.score) for hit in away])


class PagesOfOne(Broken):
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


class Generous(Broken):
    """Returns text, metadata and vector whether they were asked for or not: all of it is the principal's own."""

    def search(self, operation: Search) -> Flow[Found]:
        """Include everything."""
        return self.inner.search(replace(operation, include=_ALL))

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Include everything."""
        return self.inner.scan(replace(operation, include=_ALL))


class Modest(Broken):
    """Declares little: one query kind, no grouping, no exact ranking, no counts, uncounted deletes."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare little."""
        return replace(
            self.inner.capabilities, count="none", exact=False, group_by=False, delete_counts=False, max_batch=150
        )

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete without counting."""
        yield from self.inner.delete(operation)
        return None


class PagedCount(Broken):
    """Counts by paging through the rows."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        return replace(self.inner.capabilities, count="paged")

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


class TwoQuestions(Broken):
    """Ranks first and fetches the rows of the hits then."""

    def search(self, operation: Search) -> Flow[Found]:
        """Ask twice."""
        from vectoracl.operations import Fetch

        found = yield from self.inner.search(replace(operation, include=frozenset()))
        if not found.hits:
            return found
        refs = tuple(ChunkRef(hit.id, hit.document) for hit in found.hits)
        rows = yield from self.inner.fetch(Fetch(operation.partition, operation.scope, refs, operation.include))
        by_key = {(hit.document, hit.id): hit for hit in rows.hits}
        return found._replace(hits=[by_key[hit.document, hit.id]._replace(score=hit.score) for hit in found.hits])


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
    "worded": OddHarness(wrapped(Worded)),
}
