"""Shapes of operations for golden requests: filters, records and operations that every store compiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from vectoracl import ALWAYS, F
from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.operations import ChunkRef, Count, Delete, Fetch, Position, Replace, Scan, Upsert
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import check_scope_predicate
from vectoracl.model.queries import VectorQuery
from vectoracl.model.records import Record, Tag

TENANT: Final = "acme"
VECTOR: Final = np.array([1.0, 0.5], np.float32)
QUERY: Final = VectorQuery(VECTOR)
MOMENT: Final = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
TEXT: Any = frozenset({"text", "metadata"})
ALL: Any = TEXT | {"vector"}
FIELDS: Final = {"year": "number", "lang": "keyword", "ok": "boolean", "when": "datetime", "tags": "keyword[]"}
METADATA: Final = {"year": 2020, "lang": "en", "ok": True, "when": MOMENT, "tags": ["a"]}
PREDICATES: Final[Mapping[str, Predicate]] = {
    "always": ALWAYS,
    "equal": F.lang == "en",
    "empty text": F.lang == "",
    "not equal": F.lang != "en",
    "in": F.lang.in_(["en", "fr"]),
    "not in": F.lang.not_in(["en", "fr"]),
    "number": F.year == 2020,
    "numbers": F.year.in_([2020, 2020.5]),
    "range": (F.year >= 2020) & (F.year < 2024.5),
    "boolean": F.ok == True,  # noqa: E712 - a filter
    "moment": F.when == MOMENT,
    "after": F.when > MOMENT,
    "contains": F.tags.contains_any(["a", "b"]),
    "contains all": F.tags.contains_all(["a", "b"]),
    "missing": F.year.is_missing(),
    "exists": F.year.exists(),
    "nested": ~((F.lang == "en") | ~(F.year > 1)) | (F["@document"] == "d"),
}


def scope(label: str, fields: Mapping[str, FieldType]) -> Predicate:
    """Return a scope with alternatives and fields of the tag; *label* is one of the two labels that it names."""
    predicate = (F["@label"].in_(["public", label]) & (F["@expires"] > 1.0)) | (F["@docgen"] == "1:d:0")
    return check_scope_predicate(predicate, fields)


def records(count: int, tenant: str = TENANT, **metadata: Any) -> tuple[Record, ...]:
    """Return the first *count* chunks of one document, with further *metadata*."""
    return tuple(
        Record(
            Tag(tenant, "d", f"c{i}", producer="alice", path="upsert", time=2.5, position=i),
            f"text {i}",
            np.array([1.0, float(i)], np.float32),
            {**METADATA, **metadata, "a.b": [1, "x"]},
        )
        for i in range(count)
    )


def flows(
    adapter: Any,
    scope: Predicate,
    fields: Mapping[str, FieldType],
    records: Callable[[int], tuple[Record, ...]] = records,
) -> Iterator[tuple[str, Any]]:
    """Yield the name and the flow of each operation that is not a search: reads by name, and writes."""
    late = check_scope_predicate(F.year > 1, fields)
    refs = (ChunkRef("c1"), ChunkRef("c2", "d"), ChunkRef("c3", "d"), ChunkRef("c4", "e"))
    yield "fetch", adapter.fetch(Fetch(TENANT, scope, refs, TEXT))
    yield "count", adapter.count(Count(TENANT, scope, late))
    yield "scan from the start", adapter.scan(Scan(TENANT, scope, ALWAYS, 3, None, TEXT))
    yield "scan after a key", adapter.scan(Scan(TENANT, scope, late, 1, Position("d", 0, "c0"), ALL))
    yield "upsert", adapter.upsert(Upsert(TENANT, ALWAYS, records(2)))
    yield "upsert in a scope", adapter.upsert(Upsert(TENANT, scope, records(1)))
    yield "replace", adapter.replace(Replace(TENANT, scope, "d", records(2)))
    yield "replace with nothing", adapter.replace(Replace(TENANT, ALWAYS, "d", ()))
    yield "delete ids", adapter.delete(Delete(TENANT, scope, refs=refs))
    yield "delete a document", adapter.delete(Delete(TENANT, ALWAYS, document="d"))
    yield "delete by filter", adapter.delete(Delete(TENANT, scope, where=late))


def sent(flow: Any, answer: Callable[[Request[Any]], Any]) -> list[Request[Any]]:
    """Drive *flow* with the replies of *answer*; return every request in order."""
    requests: list[Request[Any]] = []
    reply: Any = None
    while True:
        try:
            step = flow.send(reply)
        except StopIteration:
            return requests
        legs = step if isinstance(step, tuple) else (step,)
        requests += legs
        replies = [answer(one) for one in legs]
        reply = tuple(replies) if isinstance(step, tuple) else replies[0]
        assert len(requests) < 50, "the flow does not end"
