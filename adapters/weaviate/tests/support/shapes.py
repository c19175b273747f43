"""Every shape of an operation, and the flows driven by a scripted server, while what is sent is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from weaviate.proto.v1 import search_get_pb2

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
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.compile import NO_MARK, NO_VERSION, WeaviateCompiler
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.requests import Create, Drop, Dropped, Find, Groups, Merge, Put, State, Tally

FIELDS = check_fields({"year": "number", "lang": "keyword", "ok": "boolean", "when": "datetime", "tags": "keyword[]",
                       "sizes": "number[]"})  # fmt: skip
CONFIG = WeaviateConfig(url="http://localhost:8080", dimension=2, page=2)
ADAPTER = WeaviateAdapter(CONFIG, FIELDS)
COMPILER = WeaviateCompiler(CONFIG, FIELDS)
TENANT = "acme"
VECTOR = np.array([1.0, 0.5], np.float32)
QUERY = VectorQuery(VECTOR)
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
    "contains a number": F.sizes.contains_any([1, 2.5]),
    "missing": F.year.is_missing(),
    "exists": F.year.exists(),
    "nested": ~((F.lang == "en") | ~(F.year > 1)) | (F["@document"] == "d"),
}


def records(count: int, tenant: str = TENANT) -> tuple[Record, ...]:
    metadata: dict[str, Any] = {
        "year": 2020, "lang": "en", "ok": True, "when": MOMENT, "tags": ["a"], "sizes": [1, 2.5], "a.b": [1, "x"],
    }  # fmt: skip
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
    refs = (ChunkRef("c1"), ChunkRef("c2", "d"), ChunkRef("c3", "d"), ChunkRef("c4", "e"))
    yield "fetch", ADAPTER.fetch(Fetch(TENANT, SCOPE, refs, TEXT))
    yield "count", ADAPTER.count(Count(TENANT, SCOPE, checked(F.year > 1)))
    yield "count everything", ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS))
    yield "facets", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "ok"))
    yield "facets of a list in a scope", ADAPTER.facets(Facets(TENANT, SCOPE, checked(F.year > 1), "sizes"))
    yield "facets of documents", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "@document", 7))
    yield "scan from the start", ADAPTER.scan(Scan(TENANT, SCOPE, ALWAYS, 3, None, TEXT))
    yield "scan after a key", ADAPTER.scan(Scan(TENANT, SCOPE, checked(F.year > 1), 1, Position("d", 0, "c0"), ALL))
    yield "upsert", ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(2)))
    yield "upsert in a scope", ADAPTER.upsert(Upsert(TENANT, SCOPE, records(1)))
    yield "upsert of a copy", ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(1), verbatim=True))
    yield "replace", ADAPTER.replace(Replace(TENANT, SCOPE, "d", records(2)))
    yield "replace with nothing", ADAPTER.replace(Replace(TENANT, ALWAYS, "d", ()))
    yield "delete ids", ADAPTER.delete(Delete(TENANT, SCOPE, refs=refs))
    yield "delete a document", ADAPTER.delete(Delete(TENANT, ALWAYS, document="d"))
    yield "delete by filter", ADAPTER.delete(Delete(TENANT, SCOPE, where=checked(F.year > 1)))
    yield "delete everything", ADAPTER.delete(Delete(TENANT, ALWAYS, where=ALWAYS))


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
    requests: list[Request[Any]] = []
    answer = server()
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
