"""What an adapter is asked to do, as data. Each operation names one partition; the core fans out and merges.

`scope` is the predicate of the partition's grant; `where` is the caller's. Both apply, each as an operand of its
own, next to the partition: an adapter never merges their parts and never leaves one out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, assert_never

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
    """Where a scan goes on: after this key of one partition."""

    document: str
    generation: int
    chunk: str


@dataclass(frozen=True, slots=True)
class Search:
    """Rank the rows that match and return the best.

    `k` counts hits; with `group_by` it counts documents, best first by their best hit, of each of which up to
    `per_group` hits come back. The answer is in the order of the scores, grouped or not.
    `min_score` drops hits below it (in the core's higher-is-better score). `exact` demands exact ranking. `tuning`
    holds settings that the adapter declared (see `Capabilities.tuning`).
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
"""How many rows one fetch returns at most."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """Return the chunks named by `refs`; those that are absent or not permitted are left out alike.

    A bare chunk id may be carried by any number of documents: more than `most` rows are refused by the core, so that
    an adapter need not return more than one row beyond that.
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
"""How many values of a field one partition may have, to be counted by them."""


@dataclass(frozen=True, slots=True)
class Facets:
    """Return every value that `field` has among the rows that match, with the number of rows that have it, exactly.

    `field` is a declared metadata field of keywords, numbers or booleans, or a list of them, or "@document". What a
    value is, `meaning.values_of` says: a row with a list counts once for each of its different elements. In any order.
    More than `most` values are refused by the core, so that an adapter need not return more than one beyond that; it
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
    the core adds the decision's id. Every write passes `prepare.check_tagged` before it becomes a request.

    `verbatim` is for `hazmat.operate` alone (`vectoracl copy`), no handle sets it: the records are rows of another
    store and every part of their tags is kept, the generation too, whatever generation the document has here; each
    document comes in one generation. The scope is then everything. Writing the same records again changes nothing.
    Only adapters with `Capabilities.verbatim` are asked.
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

    What `scope` does not permit is left alone and not counted: unlike the other writes a delete is not denied for it.
    """

    partition: str
    scope: Predicate
    refs: tuple[ChunkRef, ...] | None = None
    document: str | None = None
    where: Predicate | None = None


Operation = Search | Fetch | Count | Facets | Scan | Upsert | Replace | Delete


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
            given = [one for one in (refs, *selectors, where) if one is not None]
            return given[0] if len(given) == 1 else NEVER
        case Search(where=where) | Count(where=where) | Facets(where=where) | Scan(where=where):
            return where
        case _:
            assert_never(operation)


class Found(NamedTuple):
    """What a search flow returns: hits best first, and whether they are min(k, visible) hits."""

    hits: list[Hit]
    complete: bool = True
    shortfall: str | None = None


class Rows(NamedTuple):
    """What fetch and scan flows return: hits in key order; `more` says whether a scan has further rows."""

    hits: list[Hit]
    more: bool = False
