"""The rows of the memory adapter, and the port that performs its requests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import RLock
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np

from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.operations import (
    ChunkRef,
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Include,
    Operation,
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    UpdateMetadata,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.errors import ClosedError, DeniedError, InvalidInputError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Always, Predicate
from vectoracl.filters.semantics import compile_test, getter, tallied, values_of
from vectoracl.memory import lexical
from vectoracl.model.queries import HybridQuery, Lexical, ResolvedQuery, VectorQuery
from vectoracl.model.records import Facet, Hit, Tag, Vector, hit_of

R = TypeVar("R")
_KEPT = 64
"""For how many partitions and predicates a port keeps which rows they permit."""
Key = tuple[str, int, str]
_Plain = Search | Fetch | Count | Scan | Upsert | Replace | Delete


@dataclass(frozen=True, slots=True)
class Perform(Request[R]):
    """Perform one operation on one partition; `kind` is the type of the field of facets."""

    partition: str | None
    operation: Operation
    kind: FieldType | None = None

    @property
    def writes(self) -> bool:
        """Whether the operation changes rows."""
        return isinstance(self.operation, Upsert | Replace | Delete)


@dataclass(frozen=True, slots=True)
class ChangeMetadata(Request[int]):
    """Change the metadata of a document's chunks."""

    partition: str | None
    operation: UpdateMetadata

    @property
    def writes(self) -> bool:
        """Whether it changes rows: it does."""
        return True


@dataclass(frozen=True, slots=True)
class ChangeLabels(Request[int]):
    """Write the labels of documents into their chunks."""

    partition: str | None
    operation: Relabel

    @property
    def writes(self) -> bool:
        """Whether it changes rows: it does."""
        return True


@dataclass(frozen=True, slots=True)
class Look(Request[Posture]):
    """Describe the store."""

    partition: str | None


@dataclass(frozen=True, slots=True)
class RankAll(Request[Found]):
    """Rank over all partitions."""

    partition: str | None
    query: ResolvedQuery
    k: int


class Row(NamedTuple):
    """One stored row."""

    tag: Tag
    text: str
    vector: Vector
    metadata: Mapping[str, Any]


class Shelf:
    """The rows: one dictionary per partition, by (document, generation, chunk id)."""

    def __init__(self, metric: Literal["cosine", "inner", "l2"], dimension: int) -> None:
        self.metric = metric
        self.dimension = dimension
        self.place = f"process {os.getpid()}, {uuid4().hex}"
        self.embedder: str | None = None
        self.registry: str | None = None
        self.lock = RLock()
        self.partitions: dict[str, dict[Key, Row]] = {}
        self.writes = 0  # counts what may have changed rows, also the removal of a tenant


_NAMED: WeakValueDictionary[str, Shelf] = WeakValueDictionary()
_NAMING = RLock()


def shelf_of(
    metric: Literal["cosine", "inner", "l2"],
    dimension: int,
    name: str | None,
    embedder: str | None = None,
    registry: str | None = None,
) -> Shelf:
    """Return a new shelf, or that with *name*; it notes the first *embedder* that it is opened with.

    It also notes the *registry*, if it holds no rows yet.

    Raises: InvalidInputError if the shelf of that name has another metric or dimension.
    """
    if name is None:
        shelf = Shelf(metric, dimension)
    else:
        with _NAMING:
            named_shelf = _NAMED.get(name)
            shelf = _NAMED[name] = Shelf(metric, dimension) if named_shelf is None else named_shelf
    if shelf.metric != metric:
        raise InvalidInputError(f"The memory store {name!r} ranks by {shelf.metric}, not by {metric}.", field="metric")
    if shelf.dimension != dimension:
        raise InvalidInputError(
            f"The dimension of the memory store {name!r} is {shelf.dimension}, not {dimension}. Set dimension = "
            f"{shelf.dimension}, or use another name.",
            field="dimension",
        )
    with shelf.lock:
        shelf.embedder = shelf.embedder or embedder
        if not any(shelf.partitions.values()):
            shelf.registry = shelf.registry or registry
    return shelf


def _order(rows: Sequence[Row], scores: Mapping[int, float]) -> list[int]:
    """Return the indices that have a score, best first, ties by tenant, document and chunk id."""

    def place(index: int) -> tuple[float, str, str, str]:
        tag = rows[index].tag
        return (-scores[index], tag.tenant, tag.document, tag.chunk)

    return sorted(scores, key=place)


class MemoryPort:
    """Performs requests under one lock, so that each is one transaction."""

    parallel = 1

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._closed = False
        self._kept: dict[tuple[int, ...], tuple[Sequence[object], list[Row]]] = {}
        self._kept_at = 0

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def execute(self, request: Any, timeout: float | None) -> Any:  # noqa: ARG002 - nothing here can wait
        """Perform *request*."""
        if self._closed:
            raise ClosedError("The store was closed.")
        with self._shelf.lock:
            match request:
                case Look():
                    shelf = self._shelf
                    return Posture(
                        "partition", (), (("store", "memory"),), embedder=shelf.embedder, registry=shelf.registry
                    )
                case RankAll(query=query, k=k):
                    rows = [row for part in self._shelf.partitions.values() for row in part.values()]
                    return Found(_handed(self._rank(rows, query, frozenset({"text", "metadata"}))[:k]))
                case ChangeLabels(partition=partition, operation=labels) if partition == labels.partition:
                    return self._relabel(self._shelf.partitions.get(partition, {}), labels)
                case ChangeMetadata(partition=partition, operation=update) if partition == update.partition:
                    return self._update(self._shelf.partitions.get(partition, {}), update)
                case Perform(partition=partition, operation=operation, kind=kind) if partition == operation.partition:
                    rows_of = self._shelf.partitions.get(partition, {})
                    if isinstance(operation, Facets):
                        return _tallied(self._permitted(rows_of, operation.scope, operation.where), operation, kind)
                    return self._perform(rows_of, operation)
        raise InvalidInputError("The memory store does not support this request.")

    def _perform(self, rows: dict[Key, Row], operation: _Plain) -> Any:
        match operation:
            case Search():
                return Found(_handed(self._search(rows, operation)))
            case Fetch(scope=scope, refs=refs, include=include, most=most):
                named = _named(refs)
                matches = islice((row for row in self._permitted(rows, scope) if named(row)), most + 1)
                return Rows(_handed(_hit(row, 0.0, include) for row in matches))
            case Count(scope=scope, where=where):
                return sum(1 for _ in self._permitted(rows, scope, where))
            case Scan(scope=scope, where=where, size=size, after=after, include=include):
                start = None if after is None else (after.document, after.generation, after.chunk)
                rest = [row for row in self._permitted(rows, scope, where) if start is None or _key(row.tag) > start]
                return Rows(_handed(_hit(row, 0.0, include) for row in rest[:size]), more=len(rest) > size)
            case Upsert() | Replace() | Delete():
                try:
                    return self._change(rows, operation)
                finally:
                    self._shelf.writes += 1

    def _change(self, rows: dict[Key, Row], operation: Upsert | Replace | Delete) -> int:
        match operation:
            case Upsert():
                return self._upsert(rows, operation)
            case Replace():
                return self._replace(rows, operation)
            case Delete():
                return self._delete(rows, operation)

    def _permitted(self, rows: dict[Key, Row], *predicates: Predicate) -> list[Row]:
        """Return the rows that pass every predicate, in key order.

        The requests of one call repeat their predicates for every query and every page, so what was last found is kept
        until the next write, by the identity of the rows and of the predicates.
        """
        if self._kept_at != self._shelf.writes:
            self._kept.clear()
            self._kept_at = self._shelf.writes
        named = (rows, *predicates)  # kept too, so that no other object can have one of these ids
        key = tuple(map(id, named))
        known = self._kept.get(key)
        if known is not None:
            found = known[1]
        else:
            found = [rows[place] for place in sorted(rows)]
            for one in predicates:
                if not isinstance(one, Always):
                    test = compile_test(one)
                    found = [row for row in found if test(row.tag, row.metadata)]
            self._kept[key] = (named, found)
            if len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return found

    def _search(self, rows: dict[Key, Row], operation: Search) -> list[Hit]:
        hits = self._rank(self._permitted(rows, operation.scope, operation.where), operation.query, operation.include)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        if operation.group_by is None:
            return hits[: operation.k]
        groups: dict[str, list[Hit]] = {}
        for hit in hits:
            groups.setdefault(hit.document, []).append(hit)
        best = list(groups.values())[: operation.k]
        chosen = {id(hit) for group in best for hit in group[: operation.per_group]}
        return [hit for hit in hits if id(hit) in chosen]

    def _rank(self, rows: Iterable[Row], query: ResolvedQuery, include: Include) -> list[Hit]:
        """Score *rows*, which are all permitted, and sort them by score, then tenant, document and chunk id."""
        candidates = list(rows)
        match query:
            case VectorQuery(vector=vector):
                scores = self._similarities(candidates, vector)
            case Lexical(text=text):
                scores = lexical.bm25(text, [row.text for row in candidates])
            case HybridQuery(text=text, vector=vector):
                scores = fused(
                    [
                        _order(candidates, self._similarities(candidates, vector)),
                        _order(candidates, lexical.bm25(text, [row.text for row in candidates])),
                    ]
                )
        return [_hit(candidates[index], scores[index], include) for index in _order(candidates, scores)]

    def _similarities(self, kept: list[Row], vector: Vector) -> dict[int, float]:
        """Return the score of each row by its index in *kept*."""
        if not kept:
            return {}
        matrix = np.stack([row.vector for row in kept]).astype(np.float64)
        target = vector.astype(np.float64)
        # Not `@`: the threads of BLAS wait for each other, on a busy machine ten times as long as one thread takes.
        match self._shelf.metric:
            case "cosine":
                scores = np.einsum("ij,j->i", matrix, target) / (
                    np.linalg.norm(matrix, axis=1) * np.linalg.norm(target)
                )
            case "inner":
                scores = np.einsum("ij,j->i", matrix, target)
            case "l2":
                scores = -np.linalg.norm(matrix - target, axis=1)
        return dict(enumerate(scores.tolist()))

    def _upsert(self, rows: dict[Key, Row], operation: Upsert) -> int:
        permitted = compile_test(operation.scope)
        generations: dict[str, int] = {}
        for document, generation, _ in rows:
            generations[document] = max(generation, generations.get(document, 0))
        new: dict[Key, Row] = {}
        for record in operation.records:
            tag = record.tag
            if not operation.verbatim:
                tag = tag._replace(generation=generations.get(tag.document, 0))
            old = rows.get(_key(tag))
            if old is not None and not permitted(old.tag, old.metadata):
                raise _outside("upsert")
            new[_key(tag)] = Row(tag, record.text, np.array(record.vector, np.float32), _copy(record.metadata))
        self._shelf.partitions.setdefault(operation.partition, {}).update(new)
        return len(new)

    def _replace(self, rows: dict[Key, Row], operation: Replace) -> int:
        permitted = compile_test(operation.scope)
        old = [key for key in rows if key[0] == operation.document]
        if not all(permitted(rows[key].tag, rows[key].metadata) for key in old):
            raise _outside("replace")
        generation = max((key[1] for key in old), default=-1) + 1
        new: dict[Key, Row] = {}
        for record in operation.records:
            tag = record.tag._replace(generation=generation)
            new[_key(tag)] = Row(tag, record.text, np.array(record.vector, np.float32), _copy(record.metadata))
        part = self._shelf.partitions.setdefault(operation.partition, {})
        for key in old:
            del part[key]
        part.update(new)
        return len(new)

    def _relabel(self, rows: dict[Key, Row], operation: Relabel) -> int:
        changes = {(one.document, one.generation): one for one in operation.changes}
        changed = 0
        for key, row in rows.items():
            change = changes.get(key[:2])
            if change is not None and row.tag.rev < change.rev:
                tag = row.tag._replace(label=change.label, expires=change.expires, rev=change.rev)
                rows[key] = row._replace(tag=tag)
                changed += 1
        self._shelf.writes += 1
        return changed

    def _update(self, rows: dict[Key, Row], operation: UpdateMetadata) -> int:
        there, permitted = compile_test(operation.where), compile_test(operation.scope)
        old = [row for key, row in rows.items() if key[0] == operation.document and there(row.tag, row.metadata)]
        if any(row.tag.generation != operation.generation for row in old):
            return 0
        if tuple(sorted((row.tag.chunk, row.tag.time) for row in old)) != operation.read:
            return 0
        new = [row._replace(metadata=_changed(row.metadata, operation)) for row in old]
        if not all(permitted(row.tag, row.metadata) for row in (*old, *new)):
            return 0
        rows.update({_key(row.tag): row for row in new})
        self._shelf.writes += 1
        return len(new)

    def _delete(self, rows: dict[Key, Row], operation: Delete) -> int:
        chosen: Callable[[Row], bool]
        if operation.refs is not None:
            chosen = _named(operation.refs)
        elif operation.document is not None:
            document = operation.document
            chosen = lambda row: row.tag.document == document  # noqa: E731 - three ways to make one test
        elif operation.where is not None:
            test = compile_test(operation.where)
            chosen = lambda row: test(row.tag, row.metadata)  # noqa: E731 - three ways to make one test
        else:
            raise InvalidInputError("A delete requires a selector.")
        gone = [_key(row.tag) for row in self._permitted(rows, operation.scope) if chosen(row)]
        for key in gone:
            del rows[key]
        return len(gone)


class AsyncMemoryPort:
    """`MemoryPort` for asyncio; nothing blocks."""

    parallel = 1

    def __init__(self, port: MemoryPort) -> None:
        self._port = port

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request*."""
        return self._port.execute(request, timeout)

    async def close(self) -> None:
        """Refuse everything from now on."""
        self._port.close()


def _key(tag: Tag) -> Key:
    return (tag.document, tag.generation, tag.chunk)


def _outside(action: str) -> DeniedError:
    return DeniedError(f"The {action} affects a chunk outside the scope in which this handle may write.", action=action)


def _tallied(permitted: list[Row], operation: Facets, kind: FieldType | None) -> list[Facet]:
    if kind is None:
        raise InvalidInputError("A request for facets requires the type of the field.", field="field")
    get = getter(operation.field)
    return tallied((values_of(kind, get(row.tag, row.metadata)) for row in permitted), operation.most)


def _changed(metadata: Mapping[str, Any], operation: UpdateMetadata) -> Mapping[str, Any]:
    kept = {name: value for name, value in metadata.items() if name not in operation.removed}
    return {**kept, **_copy(operation.values)}


def _named(refs: tuple[ChunkRef, ...]) -> Callable[[Row], bool]:
    ref_set = frozenset(refs)
    return lambda row: ChunkRef(row.tag.chunk) in ref_set or ChunkRef(row.tag.chunk, row.tag.document) in ref_set


def _hit(row: Row, score: float, include: Include) -> Hit:
    tag = row.tag
    return hit_of(
        tag,
        score,
        row.text if "text" in include else None,
        row.metadata if "metadata" in include else None,
        row.vector if "vector" in include else None,
    )


def _handed(hits: Iterable[Hit]) -> list[Hit]:
    """Return *hits* with copies of metadata and vectors, through which a caller could otherwise change rows."""
    return [
        hit._replace(
            metadata=None if hit.metadata is None else _copy(hit.metadata),
            vector=None if hit.vector is None else hit.vector.copy(),
        )
        for hit in hits
    ]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(one) for name, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list | tuple) else value
