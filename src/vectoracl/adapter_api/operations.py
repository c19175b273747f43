"""The operations of an adapter, as data. Each names one partition; the core fans out and merges.

`scope` is the predicate of the partition's grant; `where` is the caller's. Partition, scope and where are three
separate conditions that all have to hold: an adapter never merges their parts and never leaves one out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, assert_never

from vectoracl.filters.predicate import NEVER, Eq, Predicate
from vectoracl.model.actions import WRITE, Action
from vectoracl.model.queries import ResolvedQuery
from vectoracl.model.records import Hit, Record

Include = frozenset[Literal["text", "metadata", "vector"]]


class ChunkRef(NamedTuple):
    """A chunk by its id, in one document or, with `document` None, in every document of the partition."""

    chunk: str
    document: str | None = None


def refs_by_document(refs: Sequence[ChunkRef]) -> tuple[list[str], dict[str, list[str]]]:
    """Return *refs* as the ids that name a chunk in every document, and the ids in each document that is named."""
    bare: list[str] = []
    pairs: dict[str, list[str]] = {}
    for ref in refs:
        if ref.document is None:
            bare.append(ref.chunk)
        else:
            pairs.setdefault(ref.document, []).append(ref.chunk)
    return bare, pairs


class Position(NamedTuple):
    """The key of one partition after which a scan continues."""

    document: str
    generation: int
    chunk: str


@dataclass(frozen=True, slots=True)
class Search:
    """Rank the rows that match and return the best, in the order of their scores.

    Attributes:
        partition: The tenant.
        scope: The rows that the principal may read.
        where: The rows that the caller wants.
        query: A vector, words, or both.
        k: The number of hits; with `group_by` the number of documents, ranked by their best hit.
        include: The parts of a hit to return in addition to its tag; the other parts are None.
        min_score: The lowest score. A higher score is always better: cosine similarity, inner product, or minus the
            L2 distance.
        group_by: "document" to return up to `per_group` hits of each document, still ordered by score.
        per_group: The number of hits of each document.
        exact: Whether approximate ranking is refused.
        tuning: Settings that the adapter declared, see `Capabilities.tuning`.
    """

    partition: str
    scope: Predicate
    where: Predicate
    query: ResolvedQuery
    k: int
    include: Include
    min_score: float | None = None
    group_by: Literal["document"] | None = None
    per_group: int = 1
    exact: bool = False
    tuning: Mapping[str, int] = field(default_factory=dict)


MAX_FETCHED = 10_000
"""The most rows of one fetch."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Return the chunks named by `refs`; those that are absent or not permitted are left out alike.

    Any number of documents may have a chunk with one id. The core refuses more than `most` rows, so an adapter need
    not return more than `most + 1`.
    """

    partition: str
    scope: Predicate
    refs: tuple[ChunkRef, ...]
    include: Include
    most: int = MAX_FETCHED


@dataclass(frozen=True, slots=True)
class Count:
    """Count the rows that match, exactly."""

    partition: str
    scope: Predicate
    where: Predicate


MAX_FACETS = 10_000
"""The most values of a field in one partition that are counted."""


@dataclass(frozen=True, slots=True)
class Facets:
    """Return every value that `field` has among the rows that match, with the number of rows that have it, exactly.

    `field` is a declared metadata field of keywords, numbers or booleans, or a list of them, or "@document". A row with
    a list counts once for each of its different elements (`vectoracl.filters.semantics.values_of` defines a value). The
    order is free. The core refuses more than `most` values, so an adapter need not return more than `most + 1`; it
    never returns some of them as if they were all.
    """

    partition: str
    scope: Predicate
    where: Predicate
    field: str
    most: int = MAX_FACETS


@dataclass(frozen=True, slots=True)
class Scan:
    """Return up to `size` matching rows after `after`, in the order of document, generation and chunk id."""

    partition: str
    scope: Predicate
    where: Predicate
    size: int
    after: Position | None
    include: Include


@dataclass(frozen=True, slots=True)
class Upsert:
    """Write all records or none: new chunks are added, existing ones overwritten if `scope` permits them.

    The generation in a record's tag is a placeholder: the store's current generation of each document is kept, and a
    new document starts with 0. Raises DeniedError, with nothing written, if an existing chunk is outside of `scope`;
    the core adds the decision's id. Every write passes `check_tagged` before it becomes a request.

    `verbatim` is set by `hazmat.operate` alone (`vectoracl copy`), never by a handle: the records are rows of another
    store and every part of their tags is kept, the generation too, whatever generation the document has here; each
    document comes in one generation. The scope is then everything. Writing the same records again changes nothing.
    The core sets it only for adapters with `Capabilities.verbatim`.
    """

    partition: str
    scope: Predicate
    records: tuple[Record, ...]
    verbatim: bool = False


@dataclass(frozen=True, slots=True)
class Replace:
    """Make `records` the document's whole content, as a new generation; no records remove the document.

    Raises DeniedError, with nothing changed, if the document has chunks outside of `scope`.
    """

    partition: str
    scope: Predicate
    document: str
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete by exactly one selector: chunks, a document, or a predicate.

    Rows that `scope` does not permit are neither deleted nor counted; unlike other writes, a delete is not denied for
    them.
    """

    partition: str
    scope: Predicate
    refs: tuple[ChunkRef, ...] | None = None
    document: str | None = None
    where: Predicate | None = None


Operation = Search | Fetch | Count | Facets | Scan | Upsert | Replace | Delete


class LabelChange(NamedTuple):
    """The label, the expiry and the `rev` that the chunks of one generation of a document should carry."""

    document: str
    generation: int
    label: str
    expires: float
    rev: int


@dataclass(frozen=True, slots=True)
class Relabel:
    """Write label, expiry and `rev` of each change into the chunks of its generation that have a lower `rev`.

    Only the core asks for it, when documents are governed by a registry; no handle reaches it. Chunk by chunk the three
    values change together and nothing else does. A chunk that does not exist is never created, and one whose `rev` is
    not lower is left alone: both keep a request that arrives late from undoing a newer change. Each document is named
    once. See `Capabilities.relabel`.
    """

    partition: str
    changes: tuple[LabelChange, ...]


@dataclass(frozen=True, slots=True)
class UpdateMetadata:
    """Set the keys of `values` in the metadata of a document's chunks and take the keys of `removed` away.

    The document's chunks are those that pass `where`, which leaves out what has expired; the others are neither changed
    nor looked at. All else of the chunks stays. It changes all chunks or none, in one step that no other write comes
    between: none unless they are exactly those that the core has read, of `generation`, and each of them passes `scope`
    both before and after the change. The core has checked that the metadata is as a write takes it.
    See `Capabilities.atomic_update`.

    Attributes:
        partition: The tenant.
        scope: The rows that the principal may write.
        where: The rows that are there.
        document: The document's id.
        generation: The generation of the chunks that were read.
        read: The id and the `@time` of each chunk that was read, sorted; a chunk that was written again has another
            time.
        values: The new values by key.
        removed: The keys that are taken away.
    """

    partition: str
    scope: Predicate
    where: Predicate
    document: str
    generation: int
    read: tuple[tuple[str, float], ...]
    values: Mapping[str, Any]
    removed: tuple[str, ...]


class OperationKind(NamedTuple):
    """One kind of operation: the adapter's method whose flow performs it, and the action that it is decided by."""

    method: str
    action: Action

    @property
    def writes(self) -> bool:
        """Whether the operation changes rows."""
        return self.action in WRITE


OPERATIONS: Mapping[type[Operation], OperationKind] = {
    Search: OperationKind("search", "search"),
    Fetch: OperationKind("fetch", "fetch"),
    Count: OperationKind("count", "count"),
    Facets: OperationKind("facets", "scan"),
    Scan: OperationKind("scan", "scan"),
    Upsert: OperationKind("upsert", "upsert"),
    Replace: OperationKind("replace", "replace"),
    Delete: OperationKind("delete", "delete"),
}
"""All operations. What has to know every one of them (a wrapper that forwards, a list of names) reads this table."""
METHODS: frozenset[str] = frozenset(kind.method for kind in OPERATIONS.values())
"""The methods of an adapter whose flows perform an operation."""


def selected_by(operation: Operation) -> Predicate | tuple[ChunkRef, ...]:
    """Return the selector of *operation*: a predicate, or the chunks that it names.

    It says which rows the operation is about, not which of them the scope permits. A write selects the rows that it
    would overwrite or remove: an upsert the chunks of its records, a replace all chunks of its document.

    Args:
        operation: Any operation.

    Returns:
        The caller's predicate, `Eq("@document", …)` for a document, or references to chunks. No references select no
        row. A delete with any number of selectors but one selects no row.
    """
    match operation:
        case Upsert(records=records):
            return tuple(ChunkRef(record.tag.chunk, record.tag.document) for record in records)
        case Replace(document=document):
            return Eq("@document", document)
        case Fetch(refs=refs):
            return refs
        case Delete(refs=refs, document=document, where=where):
            selectors = [Eq("@document", document)] if document is not None else []
            criteria = [one for one in (refs, *selectors, where) if one is not None]
            return criteria[0] if len(criteria) == 1 else NEVER
        case Search(where=where) | Count(where=where) | Facets(where=where) | Scan(where=where):
            return where
        case _:
            assert_never(operation)


class Found(NamedTuple):
    """The result of a search flow: hits, best first; `complete` unless there may be fewer than min(k, visible) hits.

    `shortfall` gives the reason where the result is not complete.
    """

    hits: list[Hit]
    complete: bool = True
    shortfall: str | None = None


class Rows(NamedTuple):
    """The result of a fetch or scan flow: hits in key order, and whether a scan has `more` rows."""

    hits: list[Hit]
    more: bool = False
