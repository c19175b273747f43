"""Every shape of an operation, and the flows driven by local mode, while what is sent is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from vectoracl import ALWAYS, NEVER, F
from vectoracl.adapter_api.contract import Request
from vectoracl.adapter_api.operations import (
    ChunkRef,
    Count,
    Delete,
    Facets,
    Fetch,
    Position,
    Replace,
    Scan,
    Search,
    Upsert,
)
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.validation import check_fields, check_scope_predicate
from vectoracl.model.queries import HybridQuery, Lexical, VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl_qdrant import schema
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.compile import NO_VERSION, QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import call, reply_of

FIELDS = check_fields({"year": "number", "lang": "keyword", "ok": "boolean", "when": "datetime", "tags": "keyword[]"})
CONFIG = QdrantConfig(url="http://localhost:6333", dimension=2, page=2)
LOCAL = QdrantConfig(memory=True, dimension=2, page=2)
ADAPTER = QdrantAdapter(CONFIG, FIELDS)
TENANT = "acme"
QUERY = VectorQuery(np.array([1.0, 0.5], np.float32))
MOMENT = datetime(2026, 1, 31, 12, 0, 0, 5, tzinfo=UTC)
TEXT: Any = frozenset({"text", "metadata"})
ALL: Any = TEXT | {"vector"}


def checked(predicate: Predicate) -> Predicate:
    return check_scope_predicate(predicate, FIELDS)


SCOPE = checked((F["@label"].in_(["public", "staff"]) & (F["@expires"] > 1.0)) | (F["@docgen"] == "1:d:0"))
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
    "boolean": F.ok == True,  # noqa: E712 - a filter
    "moment": F.when == MOMENT,
    "after": F.when > MOMENT,
    "contains": F.tags.contains_any(["a", "b"]),
    "contains all": F.tags.contains_all(["a", "b"]),
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
    refs = (ChunkRef("c1"), ChunkRef("c2", "d"), ChunkRef("c3", "d"), ChunkRef("c4", "e"))
    yield "fetch", ADAPTER.fetch(Fetch(TENANT, SCOPE, refs, TEXT))
    yield "count", ADAPTER.count(Count(TENANT, SCOPE, checked(F.year > 1)))
    yield "facets", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "ok"))
    yield "facets of a list in a scope", ADAPTER.facets(Facets(TENANT, SCOPE, checked(F.year > 1), "tags"))
    yield "facets of documents", ADAPTER.facets(Facets(TENANT, SCOPE, ALWAYS, "@document"))
    yield "scan from the start", ADAPTER.scan(Scan(TENANT, SCOPE, ALWAYS, 3, None, TEXT))
    yield "scan after a key", ADAPTER.scan(Scan(TENANT, SCOPE, checked(F.year > 1), 1, Position("d", 0, "c0"), ALL))
    yield "upsert", ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(2)))
    yield "upsert in a scope", ADAPTER.upsert(Upsert(TENANT, SCOPE, records(1)))
    yield "replace", ADAPTER.replace(Replace(TENANT, SCOPE, "d", records(2)))
    yield "replace with nothing", ADAPTER.replace(Replace(TENANT, ALWAYS, "d", ()))
    yield "delete ids", ADAPTER.delete(Delete(TENANT, SCOPE, refs=refs))
    yield "delete a document", ADAPTER.delete(Delete(TENANT, ALWAYS, document="d"))
    yield "delete by filter", ADAPTER.delete(Delete(TENANT, SCOPE, where=checked(F.year > 1)))


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
    requests: list[Request[Any]] = []
    answer = engine()
    reply: Any = None
    while True:
        try:
            step = flow.send(reply)
        except StopIteration:
            return requests
        some = step if isinstance(step, tuple) else (step,)
        replies = []
        for one in some:
            requests.append(one)
            replies.append(answer(one))
        reply = tuple(replies) if isinstance(step, tuple) else replies[0]
        assert len(requests) < 50, "the flow does not end"
