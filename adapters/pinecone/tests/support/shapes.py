"""Every shape of an operation, and the flows driven against the stub, which keeps what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vectoracl import ALWAYS, NEVER, F
from vectoracl.adapter_api.operations import Count, Replace, Search, Upsert
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import check_fields, check_scope_predicate
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl_conformance.adapter_tests import shapes
from vectoracl_conformance.adapter_tests.shapes import ALL, MOMENT, QUERY, TENANT, TEXT, records
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.config import PineconeConfig

FIELDS = check_fields({**shapes.FIELDS, "nums": "number[]"})


def config(**settings: Any) -> PineconeConfig:
    given = {"host": "https://docs.example", "api_key": "stub-key", "dimension": 2, "page": 3, **settings}
    return PineconeConfig.model_validate(given)


def checked(predicate: Predicate) -> Predicate:
    return check_scope_predicate(predicate, FIELDS)


SCOPE = shapes.scope("default", FIELDS)
PREDICATES = {
    **shapes.PREDICATES,
    "not in a range": ~((F.year >= 2020) & (F.year < 2024.5)),
    "not after": ~(F.when > MOMENT),
    "contains none": ~F.tags.contains_any(["a", "b"]),
    "contains a number": F.nums.contains_any([1, 2.5]),
}


def flows(adapter: PineconeAdapter) -> Iterator[tuple[str, Any]]:
    """Yield every shape's name and its flow."""
    for name, predicate in PREDICATES.items():
        yield f"search where {name}", adapter.search(Search(TENANT, ALWAYS, checked(predicate), QUERY, 2, TEXT))
    yield "search in a scope", adapter.search(Search(TENANT, SCOPE, checked(F.year > 1), QUERY, 2, ALL))
    yield "search never", adapter.search(Search(TENANT, SCOPE, NEVER, QUERY, 2, TEXT))
    yield "search for more than a reply holds", adapter.search(Search(TENANT, SCOPE, ALWAYS, QUERY, 5, TEXT))
    yield "count everything", adapter.count(Count(TENANT, ALWAYS, ALWAYS))
    yield from shapes.flows(adapter, SCOPE, FIELDS)


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
