"""The losses of constructed mutants: what a broken adapter loses of an operation. `altered` performs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vectoracl.adapter_api.operations import Count, Delete, Facets, Fetch, Operation, Replace, Scan, Search, Upsert
from vectoracl_conformance.mutants.altered import CHANGES

Group = Literal["wall", "rows", "order", "fields", "counts", "argument"]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss, as the Python expression of a flow in `altered`.

    Attributes:
        name: A stable name, such as "scope".
        flow: The expression.
        group: What it is about. A loss of "wall" lets rows in or out that a predicate or a tenant separates.
        needs: The parts of an operation or of its answer without which nothing can be lost, see `Trigger.without`.
    """

    name: str
    flow: str
    group: Group
    needs: frozenset[str] = frozenset({"rows"})


def _loss(name: str, flow: str, group: Group, *needs: str) -> Loss:
    return Loss(name, flow, group, frozenset({"rows", *needs}))


_WALL = (
    _loss("scope", "scope", "wall", "scope"),
    _loss("tenant", "tenant", "wall"),
    _loss("tenant too", "tenant_too", "wall"),
)
_FILTER = (
    Loss("where", "where", "wall", frozenset({"where"})),
    _loss("where instead of scope", "where_for_scope", "wall", "where", "scope"),
    _loss("or", "without_parentheses", "wall", "where", "or"),
)
_ROWS = (
    _loss("last row", "last_row", "rows"),
    _loss("first row", "first_row", "rows"),
    _loss("half of the rows", "half_of_the_rows", "rows", "many"),
    _loss("doubled row", "doubled_row", "rows"),
    _loss("previous answer", "previous", "rows"),
)
_ORDER = (
    _loss("order", "reversed_rows", "order", "many"),
    _loss("order of two", "swapped_rows", "order", "many"),
)
_FIELDS = (
    _loss("text", "text_empty", "fields", "text"),
    _loss("text cut", "text_cut", "fields", "text"),
    _loss("text trimmed", "text_trimmed", "fields", "text"),
    _loss("metadata key", "metadata_key", "fields", "metadata"),
    _loss("metadata", "metadata_empty", "fields", "metadata"),
    _loss("vector", "vector_rounded", "fields", "vector"),
    _loss("vector reversed", "vector_reversed", "fields", "vector"),
    _loss("position", "position", "fields"),
    _loss("label", "label", "fields"),
    _loss("producer", "producer", "fields"),
    _loss("path", "path", "fields"),
    _loss("expiry", "expiry", "fields"),
    _loss("time", "written_at", "fields"),
)
_READ_FIELDS = (
    *_FIELDS,
    _loss("text of another", "text_of_another", "fields", "text", "many"),
    _loss("include", "argument('include', frozenset())", "fields", "included"),
)
_WRITTEN = (
    _loss("everything", "nothing_written", "rows", "records"),
    _loss("last record", "last_record", "rows", "records"),
    _loss("half of the records", "half_of_the_records", "rows", "records", "many"),
    _loss("text of another", "text_of_another_record", "fields", "records", "many"),
    *(Loss(one.name, one.flow, one.group, one.needs | {"records"}) for one in _FIELDS),
    _loss("count", "less_by_one", "counts", "records"),
)
LOSSES: dict[type[Operation], tuple[Loss, ...]] = {
    Search: (
        *_WALL,
        *_FILTER,
        _loss("scope after ranking", "filtered_after", "wall", "scope"),
        _loss("scope of the lexical leg", "leg", "wall", "scope", "lexical", "hybrid"),
        *_ROWS,
        _loss("one hit too many", "one_more", "rows"),
        *_ORDER,
        _loss("scores", "scores", "order", "scores"),
        _loss("scores of the first", "equal_scores", "order", "scores", "many"),
        _loss("min_score", "argument('min_score', None)", "argument", "min_score"),
        _loss("group_by", "argument('group_by', None)", "argument"),
        _loss("per_group", "argument('per_group', 1)", "argument"),
        *_READ_FIELDS,
    ),
    Fetch: (
        *_WALL,
        *_ROWS,
        _loss("last id", "last_ref", "rows"),
        _loss("document of an id", "bare_refs", "wall"),
        _loss("case of an id", "folded_refs(str.lower)", "rows"),
        _loss("end of an id", "folded_refs(lambda one: one[:100])", "rows"),
        *_READ_FIELDS,
    ),
    Count: (
        *_WALL,
        *_FILTER,
        _loss("one", "less_by_one", "counts"),
        _loss("one too many", "more_by_one", "counts"),
        _loss("previous answer", "previous", "counts"),
    ),
    Facets: (
        *_WALL,
        *_FILTER,
        _loss("a value", "last_value", "counts"),
        _loss("one too many", "one_counted_twice", "counts"),
        _loss("end of a value", "value_cut", "counts"),
        _loss("previous answer", "previous", "counts"),
    ),
    Scan: (
        *_WALL,
        *_FILTER,
        *_ROWS,
        _loss("one row too many", "one_more", "rows"),
        _loss("further pages", "further_pages", "rows"),
        _loss("rest of a document", "rest_of_document", "rows", "after"),
        *_ORDER,
        *_READ_FIELDS,
    ),
    Upsert: (
        *_WALL,
        *_WRITTEN,
        _loss("atomicity", "in_halves", "wall", "many"),
        _loss("bad record skipped", "bad_ones_skipped", "wall", "many"),
        _loss("other chunks of the document", "document_first", "rows"),
        _loss("same id in other documents", "id_in_one_document", "rows"),
    ),
    Replace: (
        *_WALL,
        *_WRITTEN,
        _loss("removal of old chunks", "old_rows_stay", "rows"),
        _loss("documents with a like name", "prefix_too", "rows"),
        _loss("same id in other documents", "id_in_one_document", "rows", "records"),
    ),
    Delete: (
        *_WALL,
        Loss("where", "where", "wall", frozenset({"where"})),
        _loss("everything", "nothing_written", "rows"),
        _loss("last id", "last_ref", "rows", "refs"),
        _loss("document of an id", "bare_refs", "wall", "refs"),
        _loss("whole documents", "document_too", "rows", "refs"),
        _loss("documents with a like name", "prefix_too", "rows", "document"),
        _loss("one", "less_by_one", "counts"),
        _loss("one too many", "more_by_one", "counts"),
    ),
}
"""The losses of each operation."""
ROW_LOSSES = (
    Loss("row", "row_lost", "rows", frozenset()),
    Loss("text", "text_empty", "fields", frozenset({"text"})),
    Loss("text cut", "text_cut", "fields", frozenset({"text"})),
    Loss("metadata key", "metadata_key", "fields", frozenset({"metadata"})),
    Loss("position", "position", "fields", frozenset()),
    Loss("vector", "vector_rounded", "fields", frozenset()),
)
_SPECIAL = (
    ("text with lines", Loss("lines", "text_trimmed", "fields", frozenset())),
    ("metadata.depth", Loss("structure", "metadata_flat", "fields", frozenset())),
    ("metadata>0", Loss("case of keys", "metadata_lower", "fields", frozenset())),
    ("id with capitals", Loss("case of an id", "id_casefolded", "rows", frozenset())),
    ("id not ASCII", Loss("form of an id", "id_compatible", "rows", frozenset())),
    ("id>100", Loss("end of an id", "id_cut", "rows", frozenset())),
    ("id with separators", Loss("separators of an id", "id_joined", "rows", frozenset())),
    ("document not ASCII", Loss("case of a document", "document_casefolded", "rows", frozenset())),
    ("document>100", Loss("end of a document", "document_cut", "rows", frozenset())),
)


def row_losses(trigger: str) -> Iterator[Loss]:
    """Yield what can be lost of a row for which the trigger of this name holds."""
    yield from ROW_LOSSES
    yield from (loss for name, loss in _SPECIAL if trigger.startswith(name))


def changes(operand: str) -> Iterator[tuple[str, Loss]]:
    """Yield the node and the loss of each wrong form of a part of *operand* ("scope" or "where")."""
    for name in CHANGES:
        node = name.partition("-")[0]
        yield node, Loss(f"{operand} {name}", f"changed({operand!r}, {name!r})", "wall", frozenset({operand}))
