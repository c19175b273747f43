"""Every shape of an operation, and the flows driven against the stub, which keeps what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from vectoracl import ALWAYS, NEVER, F
from vectoracl.adapter_api.operations import ChunkRef, Count, Delete, Fetch, Position, Replace, Scan, Search, Upsert
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import check_fields, check_scope_predicate
from vectoracl.model.queries import HybridQuery, Lexical, VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig

FIELDS = check_fields(
    {"year": "number", "lang": "keyword", "ok": "boolean", "when": "datetime", "tags": "keyword[]", "nums": "number[]"}
)
TENANT = "acme"
QUERY = VectorQuery(np.array([1.0, 0.5], np.float32))
MOMENT = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
TEXT: Any = frozenset({"text", "metadata"})
ALL: Any = TEXT | {"vector"}


def config(**settings: Any) -> PineconeConfig:
    given = {"host": "https://docs.example", "api_key": "stub-key", "dimension": 2, "page": 3, **settings}
    return PineconeConfig.model_validate(given)


def checked(predicate: Predicate) -> Predicate:
    return check_scope_predicate(predicate, FIELDS)


SCOPE = checked((F["@label"].in_(["public", "default"]) & (F["@expires"] > 1.0)) | (F["@docgen"] == "1:d:0"))
PREDICATES = {
    "always": ALWAYS,
    "equal": F.lang == "en",
    "empty text": F.lang == "",
    "not equal": F.lang != "en",
    "in": F.lang.in_(["en", "fr"]),
    "not in": F.lang.not_in(["en", "fr"]),
    "number": F.year == 2020,
    "numbers": F.year.in_([2020, 2020.5]),
    "range": (F.year >= 2020) & (F.year < 2024.5),
    "not in a range": ~((F.year >= 2020) & (F.year < 2024.5)),
    "boolean": F.ok == True,  # noqa: E712 - a filter
    "moment": F.when == MOMENT,
    "after": F.when > MOMENT,
    "not after": ~(F.when > MOMENT),
    "contains": F.tags.contains_any(["a", "b"]),
    "contains all": F.tags.contains_all(["a", "b"]),
    "contains none": ~F.tags.contains_any(["a", "b"]),
    "contains a number": F.nums.contains_any([1, 2.5]),
    "missing": F.year.is_missing(),
    "exists": F.year.exists(),
    "nested": ~((F.lang == "en") | ~(F.year > 1)) | (F["@document"] == "d"),
}


def records(count: int, tenant: str = TENANT) -> tuple[Record, ...]:
    metadata: dict[str, Any] = {"year": 2020, "lang": "en", "ok": True, "when": MOMENT, "tags": ["a"], "a.b": [1, "x"]}
    return tuple(
        Record(
            Tag(tenant, "d", f"c{i}", producer="alice", path="upsert", time=2.5, position=i),
            f"text {i}",
            np.array([1.0, float(i)], np.float32),
            metadata,
        )
        for i in range(count)
    )


def flows(adapter: PineconeAdapter) -> Iterator[tuple[str, Any]]:
    """Yield every shape's name and its flow."""
    for name, predicate in PREDICATES.items():
        yield f"search where {name}", adapter.search(Search(TENANT, ALWAYS, checked(predicate), QUERY, 2, TEXT))
    yield "search in a scope", adapter.search(Search(TENANT, SCOPE, checked(F.year > 1), QUERY, 2, ALL))
    yield "search never", adapter.search(Search(TENANT, SCOPE, NEVER, QUERY, 2, TEXT))
    yield "search for more than a reply holds", adapter.search(Search(TENANT, SCOPE, ALWAYS, QUERY, 5, TEXT))
    refs = (ChunkRef("c1"), ChunkRef("c2", "d"), ChunkRef("c3", "d"), ChunkRef("c4", "e"))
    yield "fetch", adapter.fetch(Fetch(TENANT, SCOPE, refs, TEXT))
    yield "count", adapter.count(Count(TENANT, SCOPE, checked(F.year > 1)))
    yield "count everything", adapter.count(Count(TENANT, ALWAYS, ALWAYS))
    yield "scan from the start", adapter.scan(Scan(TENANT, SCOPE, ALWAYS, 3, None, TEXT))
    yield "scan after a key", adapter.scan(Scan(TENANT, SCOPE, checked(F.year > 1), 1, Position("d", 0, "c0"), ALL))
    yield "upsert", adapter.upsert(Upsert(TENANT, ALWAYS, records(2)))
    yield "upsert in a scope", adapter.upsert(Upsert(TENANT, SCOPE, records(1)))
    yield "replace", adapter.replace(Replace(TENANT, SCOPE, "d", records(2)))
    yield "replace with nothing", adapter.replace(Replace(TENANT, ALWAYS, "d", ()))
    yield "delete ids", adapter.delete(Delete(TENANT, SCOPE, refs=refs))
    yield "delete a document", adapter.delete(Delete(TENANT, ALWAYS, document="d"))
    yield "delete by filter", adapter.delete(Delete(TENANT, SCOPE, where=checked(F.year > 1)))


def worded(adapter: PineconeAdapter) -> Iterator[tuple[str, Any]]:
    """Yield the shapes that an adapter with words has, and their flows."""
    hybrid = HybridQuery("text Words", QUERY.vector)
    for name, query in (("words", Lexical("text Words")), ("words and vector", hybrid)):
        yield f"search by {name}", adapter.search(Search(TENANT, SCOPE, checked(F.year > 1), query, 1, ALL))
        yield (
            f"groups by {name}",
            adapter.search(Search(TENANT, SCOPE, ALWAYS, query, 2, TEXT, group_by="document", per_group=2)),
        )
        yield f"search by {name}, never", adapter.search(Search(TENANT, SCOPE, NEVER, query, 1, TEXT))
    yield "search by no words", adapter.search(Search(TENANT, SCOPE, ALWAYS, Lexical("…"), 1, TEXT))
    none = HybridQuery("…", QUERY.vector)
    yield "search by no words and vector", adapter.search(Search(TENANT, ALWAYS, ALWAYS, none, 1, TEXT))
    yield "upsert", adapter.upsert(Upsert(TENANT, ALWAYS, records(2)))
    wordless = tuple(one._replace(text="…") for one in records(1))
    yield "upsert without a word", adapter.upsert(Upsert(TENANT, ALWAYS, wordless))
    yield "replace", adapter.replace(Replace(TENANT, ALWAYS, "d", records(1)))
