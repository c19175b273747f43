"""Adapters that are unusual but right: layers that are put around an adapter, one peculiarity each.

This file is handed to the adapter's process as text, with `peculiar_storage` and a line that sets `LAYERS`
(`generated_unusual`), so it uses nothing but the library. Each layer keeps the contract of `vectoracl.adapter_api`, in
a way that our own adapters do not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from vectoracl.adapter_api.chunk_validation import check_tagged, dump_metadata
from vectoracl.adapter_api.contract import flow_of
from vectoracl.adapter_api.operations import (
    METHODS,
    ChunkRef,
    Count,
    Delete,
    Facets,
    Fetch,
    Position,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.operations import Replace as ReplaceDocument
from vectoracl.errors import DeniedError, InvalidInputError, StoreError
from vectoracl.filters.predicate import (
    ALWAYS,
    Eq,
    In,
    Predicate,
)
from vectoracl.model.records import Facet, Hit

ALL: Any = frozenset({"text", "metadata", "vector"})


class Layer:
    """An adapter around another one; `declares` changes its capabilities, by values or by functions of the old one.

    `reading` performs searches, fetches and scans, `writing` upserts and replaces, `anything` every operation; a method
    with an operation's name goes before them.
    """

    declares: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        kind = "reading" if name in ("search", "fetch", "scan") else "writing" if name in ("upsert", "replace") else ""
        for method in (kind, "anything") if name in METHODS else ():
            if method and hasattr(type(self), method):
                return getattr(self, method)
        return getattr(self.inner, name)

    @property
    def capabilities(self) -> Any:
        """The capabilities with those that are declared here."""
        able = self.inner.capabilities
        changes = {name: one(getattr(able, name)) if callable(one) else one for name, one in self.declares.items()}
        return replace(able, **changes)

    def do(self, operation: Any) -> Any:
        """Perform *operation* as the adapter inside does."""
        return flow_of(self.inner, operation)

    @classmethod
    def around(cls, opened: Any) -> Any:
        """Return *opened* with this layer."""
        return replace(opened, adapter=cls(opened.adapter))


def declaring(**changes: Any) -> type[Layer]:
    """Return a layer that only declares something else."""
    return type("Declaring", (Layer,), {"declares": changes})


def without(node: type[Predicate]) -> type[Layer]:
    """Return a layer that does not declare *node*."""
    return declaring(predicates=lambda nodes: nodes - {node})


def unable(action: str) -> type[Layer]:
    """Return a layer that does not declare an action."""
    return declaring(operations=lambda actions: actions - {action})


# Small and declared limits.


class SmallLimits(Layer):
    """Takes five records and returns twenty hits at the most."""

    declares: ClassVar = {"max_batch": 5, "max_k": 20}


class ShortChunks(Layer):
    """Keeps at most 30,000 bytes of a chunk."""

    declares: ClassVar = {"max_chunk_bytes": 30_000}

    def writing(self, operation: Any) -> Any:
        """Write."""
        for one in operation.records:
            if len(one.text.encode()) + 2 * len(dump_metadata(one.metadata)) > 30_000:
                raise InvalidInputError("A chunk has at most 30,000 bytes of text and metadata.", field="chunks")
        return (yield from self.do(operation))


class Tuned(Layer):
    """Declares settings of a query, and takes them off before it ranks."""

    declares: ClassVar = {"tuning": {"effort": (1, 100), "probes": (1, 8)}}

    def search(self, operation: Search) -> Any:
        """Rank."""
        return self.inner.search(replace(operation, tuning={}))


class Uncounted(Layer):
    """Deletes without a count."""

    declares: ClassVar = {"delete_counts": False}

    def delete(self, operation: Delete) -> Any:
        """Delete."""
        yield from self.inner.delete(operation)


def graded(name: str) -> type[Layer]:
    """Return a layer whose store has the grade *name*, and says so."""

    class OfGrade(Layer):
        declares: ClassVar = {"grade": name}

        def posture(self) -> Any:
            """Return the posture."""
            posture = yield from self.inner.posture()
            return replace(posture, grade=name)

    return OfGrade


# Answers.


class Approximate(Layer):
    """Never claims that a search is complete, unless it was to be exact."""

    def search(self, operation: Search) -> Any:
        """Rank."""
        result = yield from self.inner.search(operation)
        return result if operation.exact else result._replace(complete=False, shortfall="an approximate index")


class Unsure(Layer):
    """Never claims that a search is complete, and cannot rank exactly."""

    declares: ClassVar = {"exact": False}

    def search(self, operation: Search) -> Any:
        """Rank."""
        result = yield from self.inner.search(operation)
        return result._replace(complete=False, shortfall="an approximate index")


class Distances(Layer):
    """Gets distances from its store, lower is better, and turns them around."""

    def search(self, operation: Search) -> Any:
        """Rank."""
        result = yield from self.inner.search(operation)
        away = [hit._replace(score=4.0 - hit.score) for hit in result.hits]
        return result._replace(hits=[hit._replace(score=4.0 - hit.score) for hit in away])


class SingleScores(Layer):
    """Computes scores in single precision, and returns NumPy's numbers."""

    def search(self, operation: Search) -> Any:
        """Rank."""
        result = yield from self.inner.search(operation)
        return result._replace(hits=[hit._replace(score=np.float64(np.float32(hit.score))) for hit in result.hits])

    def count(self, operation: Count) -> Any:
        """Count."""
        return np.int64((yield from self.inner.count(operation)))


class OtherTies(Layer):
    """Orders equal scores by descending ids."""

    def search(self, operation: Search) -> Any:
        """Rank."""
        result = yield from self.inner.search(operation)
        hits = sorted(result.hits, key=lambda hit: (hit.document, hit.id), reverse=True)
        return result._replace(hits=sorted(hits, key=lambda hit: -hit.score))


class Generous(Layer):
    """Returns text, metadata and vector whether they were asked for or not: all of it is the principal's own."""

    def reading(self, operation: Any) -> Any:
        """Include everything."""
        return self.do(replace(operation, include=ALL))


class OverAsking(Layer):
    """Asks for three rows more of the own ones, and leaves them out."""

    def search(self, operation: Search) -> Any:
        """Rank."""
        if operation.group_by is not None:
            return (yield from self.inner.search(operation))
        result = yield from self.inner.search(replace(operation, k=operation.k + 3))
        return result._replace(hits=result.hits[: operation.k])


class Tuples(Layer):
    """Returns tuples and read-only mappings, as some clients do."""

    def reading(self, operation: Any) -> Any:
        """Read."""
        answer = yield from self.do(operation)
        return answer._replace(hits=tuple(map(_frozen, answer.hits)))


def _frozen(hit: Hit) -> Hit:
    if hit.vector is not None:
        hit.vector.flags.writeable = False
    return hit if hit.metadata is None else hit._replace(metadata=MappingProxyType(hit.metadata))


class UnsortedFacets(Layer):
    """Returns counts by value in any order, numbers as doubles."""

    def facets(self, operation: Facets) -> Any:
        """Count by value."""
        values = yield from self.inner.facets(operation)
        return [
            Facet(float(value), count) if type(value) is int else Facet(value, count) for value, count in values[::-1]
        ]


class Doubles(Layer):
    """Keeps numbers of metadata as doubles, so that 3 comes back as 3.0."""

    def reading(self, operation: Any) -> Any:
        """Read."""
        return mapped(self.do(operation), _doubled)


def mapped(flow: Any, change: Callable[[Hit], Hit]) -> Any:
    """Return the flow of an answer whose hits are changed."""
    answer = yield from flow
    return answer._replace(hits=[change(hit) for hit in answer.hits])


def _doubled(hit: Hit) -> Hit:
    def value(one: Any) -> Any:
        if isinstance(one, Mapping):
            return {name: value(inner) for name, inner in one.items()}
        if isinstance(one, list):
            return [value(inner) for inner in one]
        return float(one) if type(one) is int else one

    return hit if hit.metadata is None else hit._replace(metadata=value(hit.metadata))


# Requests.


class SmallPages(Layer):
    """Its store gives one to three rows a page, and it hands each page on."""

    size = 3

    def scan(self, operation: Scan) -> Any:
        """Scan."""
        return self.inner.scan(replace(operation, size=min(operation.size, self.size)))


class PagesOfOne(Layer):
    """Its store gives one row a page; it asks until it has what was asked for."""

    def scan(self, operation: Scan) -> Any:
        """Scan."""
        hits: list[Hit] = []
        more, after = True, operation.after
        while more and len(hits) < operation.size:
            rows = yield from self.inner.scan(replace(operation, size=1, after=after))
            hits += rows.hits
            more = rows.more
            after = _end(rows) or after
        return Rows(hits, more)


def _end(rows: Rows) -> Position | None:
    if not rows.hits:
        return None
    last = rows.hits[-1]
    return Position(last.document, last.tag.generation, last.id)


class OneMorePage(Layer):
    """Says that there is more whenever a page is full, as many stores do."""

    def scan(self, operation: Scan) -> Any:
        """Scan."""
        rows = yield from self.inner.scan(operation)
        return rows._replace(more=rows.more or len(rows.hits) == operation.size)


class RankedThenFetched(Layer):
    """Ranks first, and fetches the rows of the hits then."""

    def search(self, operation: Search) -> Any:
        """Rank."""
        for _ in range(20):
            result = yield from self.inner.search(replace(operation, include=frozenset()))
            if not result.hits:
                return result
            refs = tuple(ChunkRef(hit.id, hit.document) for hit in result.hits)
            rows = yield from self.inner.fetch(Fetch(operation.partition, operation.scope, refs, operation.include))
            by_tag = {hit.tag: hit for hit in rows.hits}
            hits = [by_tag[hit.tag]._replace(score=hit.score) for hit in result.hits if hit.tag in by_tag]
            if len(hits) == len(result.hits):
                return result._replace(hits=hits)
        raise StoreError("The rows changed while they were read.", code="conflict", sent="no", retryable=True)


class ListsInParts(Layer):
    """Fetches and deletes at most forty chunks with one request, and counts lists of values in parts."""

    parts = 40

    def fetch(self, operation: Fetch) -> Any:
        """Fetch."""
        hits: dict[Any, Hit] = {}
        for refs in self._parts(operation.refs):
            rows = yield from self.inner.fetch(replace(operation, refs=refs))
            hits.update((hit.tag[:4], hit) for hit in rows.hits)
        return Rows(sorted(hits.values(), key=lambda hit: (hit.document, hit.tag.generation, hit.id)))

    def delete(self, operation: Delete) -> Any:
        """Delete."""
        if operation.refs is None:
            return (yield from self.inner.delete(operation))
        total: int | None = 0
        for refs in self._parts(operation.refs):
            deleted = yield from self.inner.delete(replace(operation, refs=refs))
            total = None if deleted is None or total is None else total + deleted
        return total

    def count(self, operation: Count) -> Any:
        """Count."""
        where = operation.where
        if not isinstance(where, In) or len(where.values) <= self.parts:
            return (yield from self.inner.count(operation))
        total = 0
        for values in self._parts(where.values):
            total += yield from self.inner.count(replace(operation, where=In(where.field, values)))
        return total

    def _parts(self, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(values), self.parts):
            yield values[start : start + self.parts]


class PagedCounts(Layer):
    """Counts by paging through the rows."""

    declares: ClassVar = {"count": "paged"}

    def count(self, operation: Count) -> Any:
        """Count."""
        total, more, after = 0, True, None
        while more:
            scan = Scan(operation.partition, operation.scope, operation.where, 70, after, frozenset())
            rows = yield from self.inner.scan(scan)
            total, more, after = total + len(rows.hits), rows.more, _end(rows) or after
        return total


class PagedFacets(Layer):
    """Declares that counts by value take several requests."""

    declares: ClassVar = {"facets": "paged"}


class DeletesByIds(Layer):
    """Looks up what it has to delete, and deletes that by ids, page by page."""

    def delete(self, operation: Delete) -> Any:
        """Delete."""
        if operation.refs is not None:
            return (yield from self.inner.delete(operation))
        document = operation.document
        where: Any = operation.where if document is None else Eq("@document", document)
        total: int | None = 0
        more, after = True, None
        while more:
            scan = Scan(operation.partition, operation.scope, where, 50, after, frozenset())
            rows = yield from self.inner.scan(scan)
            more, after = rows.more, _end(rows) or after
            refs = tuple(ChunkRef(hit.id, hit.document) for hit in rows.hits)
            if refs:
                deleted = yield from self.inner.delete(Delete(operation.partition, operation.scope, refs))
                total = None if deleted is None or total is None else total + deleted
        return total


class InBatches(Layer):
    """Writes seven records at a time, after it made sure that all may be written."""

    declares: ClassVar = {"atomic_upsert": False}

    def upsert(self, operation: Upsert) -> Any:
        """Write."""
        check_tagged(operation.records, operation.partition)
        refs = tuple(ChunkRef(one.tag.chunk, one.tag.document) for one in operation.records)
        yield from self.permitted(operation, Fetch(operation.partition, ALWAYS, refs, frozenset()), "upsert")
        for start in range(0, len(operation.records), 7):
            yield from self.inner.upsert(replace(operation, records=operation.records[start : start + 7]))
        return len(operation.records)

    def permitted(self, operation: Any, fetch: Fetch, action: str) -> Any:
        """Raise DeniedError if one of the named rows is outside of the scope."""
        whole = yield from self.inner.fetch(fetch)
        own = yield from self.inner.fetch(replace(fetch, scope=operation.scope))
        if len(whole.hits) != len(own.hits):
            raise DeniedError("The write affects a chunk outside the scope.", action=action)


class RemovesThenWrites(Layer):
    """Replaces a document by two requests: removes it, and writes the new version."""

    declares: ClassVar = {"atomic_replace": False}

    def replace(self, operation: ReplaceDocument) -> Any:
        """Replace."""
        check_tagged(operation.records, operation.partition)
        own = Eq("@document", operation.document)
        whole = yield from self.inner.count(Count(operation.partition, ALWAYS, own))
        if whole != (yield from self.inner.count(Count(operation.partition, operation.scope, own))):
            raise DeniedError("The replace affects a chunk outside the scope.", action="replace")
        generation = -1
        if whole:
            rows = yield from self.inner.scan(Scan(operation.partition, ALWAYS, own, 1, None, frozenset()))
            generation = max((hit.tag.generation for hit in rows.hits), default=-1)
            yield from self.inner.delete(Delete(operation.partition, operation.scope, document=operation.document))
        if operation.records:
            records = tuple(one._replace(tag=one.tag._replace(generation=generation + 1)) for one in operation.records)
            yield from self.inner.upsert(Upsert(operation.partition, ALWAYS, records, verbatim=True))
        return len(operation.records)


class WritesTwice(Layer):
    """Sends each write of chunks twice: writing the same again changes nothing."""

    def upsert(self, operation: Upsert) -> Any:
        """Write."""
        yield from self.inner.upsert(operation)
        return (yield from self.inner.upsert(operation))


class RetriesInside(Layer):
    """Tries again by itself where a request was certainly not applied."""

    def anything(self, operation: Any) -> Any:
        """Perform *operation*, up to three times."""
        for _ in range(2):
            try:
                return (yield from self.do(operation))
            except StoreError as error:
                if error.sent != "no" or not error.retryable:
                    raise
        return (yield from self.do(operation))


class Conflicts(Layer):
    """Reports a conflict for every ninth write of chunks, with nothing sent."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self._writes = 0
        self._lock = threading.Lock()

    def writing(self, operation: Any) -> Any:
        """Write."""
        check_tagged(operation.records, operation.partition)
        with self._lock:
            self._writes += 1
            due = self._writes % 9 == 0
        if due:
            raise StoreError("Another writer came first.", code="conflict", sent="no", retryable=True)
        return (yield from self.do(operation))
