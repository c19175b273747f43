"""Every shape of an operation, and the flows driven by a scripted server, while what is sent is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from weaviate.proto.v1 import search_get_pb2

from vectoracl import ALWAYS, NEVER, F
from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.operations import (
    Count,
    Delete,
    Facets,
    Search,
    Upsert,
)
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import check_fields, check_scope_predicate
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl.model.records import Record
from vectoracl_conformance.adapter_tests import shapes
from vectoracl_conformance.adapter_tests.shapes import ALL, QUERY, TENANT, TEXT, VECTOR
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.compile import NO_MARK, NO_VERSION, WeaviateCompiler
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.requests import Create, Drop, Dropped, Find, Groups, Merge, Put, State, Tally

FIELDS = check_fields({**shapes.FIELDS, "sizes": "number[]"})
CONFIG = WeaviateConfig(url="http://localhost:8080", dimension=2, page=2)
ADAPTER = WeaviateAdapter(CONFIG, FIELDS)
COMPILER = WeaviateCompiler(CONFIG, FIELDS)
SCOPE = shapes.scope("staff", FIELDS)
PREDICATES = {**shapes.PREDICATES, "contains a number": F.sizes.contains_any([1, 2.5])}


def checked(predicate: Predicate) -> Predicate:
    return check_scope_predicate(predicate, FIELDS)


def records(count: int, tenant: str = TENANT) -> tuple[Record, ...]:
    return shapes.records(count, tenant, sizes=[1, 2.5])


def flows() -> Iterator[tuple[str, Any]]:
    """Yield every shape's name and its flow."""
    for name, predicate in PREDICATES.items():
        where = checked(predicate)
        yield f"search where {name}", ADAPTER.search(Search(TENANT, ALWAYS, where, QUERY, 2, TEXT))
    yield "search in a scope", ADAPTER.search(Search(TENANT, SCOPE, checked(F.year > 1), QUERY, 5, ALL))
    yield "search never", ADAPTER.search(Search(TENANT, SCOPE, NEVER, QUERY, 5, TEXT))
    for name, query in (
        ("vector", QUERY),
        ("lexical", Lexical("text One")),
        ("hybrid", HybridQuery("text One", VECTOR)),
    ):
        yield f"{name} in a scope", ADAPTER.search(Search(TENANT, SCOPE, checked(F.year > 1), query, 2, ALL))
        grouped = Search(TENANT, SCOPE, ALWAYS, query, 5, TEXT, group_by="document", per_group=2)
        yield f"{name} grouped", ADAPTER.search(grouped)
    yield "count everything", ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS))
    yield "facets", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "ok"))
    yield "facets of a list in a scope", ADAPTER.facets(Facets(TENANT, SCOPE, checked(F.year > 1), "sizes"))
    yield "facets of documents", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "@document", 7))
    yield "upsert of a copy", ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(1), verbatim=True))
    yield "delete everything", ADAPTER.delete(Delete(TENANT, ALWAYS, where=ALWAYS))
    yield from shapes.flows(ADAPTER, SCOPE, FIELDS, records)


def result(record: Record, version: str = NO_VERSION, pending: str = NO_MARK) -> Any:
    """Return *record* as a search returns it."""
    (one,) = COMPILER.put(TENANT, [(record, version)], pending).message.objects
    made = search_get_pb2.SearchResult()
    made.metadata.id = one.uuid
    made.metadata.score = 1.0
    made.metadata.vectors.extend(one.vectors)
    fields = made.properties.non_ref_props.fields
    for several in one.properties.text_array_properties:
        fields[several.prop_name].list_value.text_values.values.extend(several.values)
    for name, value in one.properties.non_ref_properties.fields.items():
        kind = value.WhichOneof("kind")
        if kind == "string_value":
            fields[name].text_value = value.string_value
        elif kind == "number_value":
            fields[name].number_value = value.number_value
        else:
            fields[name].bool_value = value.bool_value
    return made


def server(*, marked: bool = False) -> Callable[[Request[Any]], Any]:
    """Return what answers: a tenant whose document "d" has one chunk, unless what is asked for excludes that."""
    (kept,) = records(1)

    def answer(request: Any) -> Any:
        match request:
            case Find(message=message):
                text = str(message.filters)
                again = "_id" in text  # "is it still answered", "is it there already"
                later = "generation" in text and "version" in text  # "a document that was replaced"
                return [] if again or later or "seek" in text else [result(kept)][: message.limit]
            case Tally():
                return 0 if "pending" in str(request.message.filters) and not marked else 1
            case Groups():
                return []
            case Drop():
                dropping.append(request)
                return Dropped(len(dropping) % 2, len(dropping) % 2, 0)
            case Merge():
                return True
            case State():
                return "active"
            case Put() | Create():
                return None
        raise AssertionError(type(request))

    dropping: list[Any] = []
    return answer


def sent(flow: Any) -> list[Request[Any]]:
    """Drive *flow*; return every request in order."""
    return shapes.sent(flow, server())
