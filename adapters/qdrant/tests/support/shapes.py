"""Every shape of an operation, and the flows driven by local mode, while what is sent is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from qdrant_client import QdrantClient, models

from vectoracl import ALWAYS, NEVER, F
from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.operations import (
    Facets,
    Search,
)
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import check_fields, check_scope_predicate
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl.model.records import Record
from vectoracl_conformance.adapter_tests import shapes
from vectoracl_conformance.adapter_tests.shapes import ALL, PREDICATES, QUERY, TENANT, TEXT, records
from vectoracl_qdrant import schema
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.compile import NO_VERSION, QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import call, reply_of

FIELDS = check_fields(shapes.FIELDS)
CONFIG = QdrantConfig(url="http://localhost:6333", dimension=2, page=2)
LOCAL = QdrantConfig(memory=True, dimension=2, page=2)
ADAPTER = QdrantAdapter(CONFIG, FIELDS)
SCOPE = shapes.scope("staff", FIELDS)


def checked(predicate: Predicate) -> Predicate:
    return check_scope_predicate(predicate, FIELDS)


def flows() -> Iterator[tuple[str, Any]]:
    """Yield every shape's name and its flow."""
    for name, predicate in PREDICATES.items():
        where = checked(predicate)
        yield f"search where {name}", ADAPTER.search(Search(TENANT, ALWAYS, where, QUERY, 5, TEXT))
    yield "search in a scope", ADAPTER.search(Search(TENANT, SCOPE, checked(F.year > 1), QUERY, 5, ALL))
    yield "search never", ADAPTER.search(Search(TENANT, SCOPE, NEVER, QUERY, 5, TEXT))
    yield (
        "search grouped",
        ADAPTER.search(
            Search(TENANT, SCOPE, ALWAYS, QUERY, 5, TEXT, group_by="document", per_group=2, tuning={"hnsw_ef": 64})
        ),
    )
    hybrid = HybridQuery("text One", QUERY.vector)
    for name, query in (("lexical", Lexical("text One")), ("hybrid", hybrid)):
        yield f"{name} in a scope", ADAPTER.search(Search(TENANT, SCOPE, checked(F.year > 1), query, 5, ALL))
        yield (
            f"{name} grouped",
            ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, query, 2, TEXT, group_by="document", per_group=2)),
        )
    yield "lexical inside a tie", ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, Lexical("text"), 1, TEXT))
    yield "lexical without a word", ADAPTER.search(Search(TENANT, SCOPE, ALWAYS, Lexical("?!"), 5, TEXT))
    wordless = HybridQuery("?!", QUERY.vector)
    yield "hybrid without a word", ADAPTER.search(Search(TENANT, SCOPE, ALWAYS, wordless, 5, TEXT))
    yield "facets", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "ok"))
    yield "facets of a list in a scope", ADAPTER.facets(Facets(TENANT, SCOPE, checked(F.year > 1), "tags"))
    yield "facets of documents", ADAPTER.facets(Facets(TENANT, SCOPE, ALWAYS, "@document"))
    yield from shapes.flows(ADAPTER, SCOPE, FIELDS)


def words(some: tuple[Record, ...]) -> Any:
    return QdrantCompiler(CONFIG, FIELDS).words_of(some)


def stored(count: int, pending: str | None = None) -> list[models.Record]:
    some = records(count)
    points = QdrantCompiler(CONFIG, FIELDS).points(some, words(some), NO_VERSION, pending)
    return [models.Record(id=one.id, payload=one.payload, vector=one.vector) for one in points]


def engine() -> Callable[[Request[Any]], Any]:
    """Return what answers: the client's local mode with `records(3)` of two tenants in it."""
    client = QdrantClient(":memory:")
    (create, *_) = schema.steps(LOCAL, FIELDS, None)
    assert isinstance(create, schema.CreateCollection)
    client.create_collection(LOCAL.collection, vectors_config=create.vectors, sparse_vectors_config=create.words)
    for tenant in (TENANT, "beta"):
        some = records(3, tenant)
        points = QdrantCompiler(LOCAL, FIELDS).points(some, words(some), NO_VERSION)
        client.upsert(LOCAL.collection, points)
    return lambda request: reply_of(request, call(client, LOCAL, request, None))


def sent(flow: Any) -> list[Request[Any]]:
    """Drive *flow*; return every request in order."""
    return shapes.sent(flow, engine())
