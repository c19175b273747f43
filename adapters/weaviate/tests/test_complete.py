"""`complete` says the truth of a vector index that lacks rows: of hits, of groups and of what is in a group.

An index lacks the rows that its graph does not reach, those that it has not indexed yet (ASYNC_INDEXING), and all of
them where it was lost with its node. The server's words and counts are whole then.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from weaviate.proto.v1 import search_get_pb2

from vectoracl import F
from vectoracl.adapter_api.operations import Found, Search
from vectoracl.engine.drivers import run
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.queries import HybridQuery, Lexical, VectorQuery
from vectoracl_conformance.adapter_tests.lost_rows import CASES, ROWS, records
from vectoracl_conformance.adapter_tests.shapes import TENANT
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.compile_predicate import Compiled, Filters
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.names import escape
from vectoracl_weaviate.requests import Find, Tally

from weaviate_support.shapes import COMPILER, FIELDS, checked, result, sent

ADAPTER = WeaviateAdapter(WeaviateConfig(url="http://localhost", dimension=2, metric="inner"), {})
FLAT = WeaviateAdapter(WeaviateConfig(url="http://localhost", dimension=2, metric="inner", index="flat"), {})
VECTOR = np.array([1.0, 0.5], np.float32)


class Server:
    """A model of a server whose vector index lacks some chunks."""

    parallel = 1

    def __init__(self, *lost: tuple[str, str]) -> None:
        self.lost = {(escape(document), escape(chunk)) for document, chunk in lost}
        self.counted = 0
        self.objects = [
            result(record) for document, chunks in ROWS.items() for record in records(document, chunks, "text")
        ]

    def execute(self, request: Any, timeout: float | None) -> Any:
        del timeout
        message = request.message
        passing = [one for one in self.objects if not message.HasField("filters") or passes(one, message.filters)]
        match request:
            case Tally():
                self.counted += 1
                return len(passing)
            case Find() if message.HasField("near_vector"):
                ranked = [self._near(one) for one in passing if key(one) not in self.lost]
                return sorted(ranked, key=lambda one: one.metadata.distance)[: message.limit]
        return passing[: message.limit]

    def _near(self, one: Any) -> Any:
        ranked = search_get_pb2.SearchResult()
        ranked.CopyFrom(one)
        ranked.metadata.distance = -float(VECTOR @ np.frombuffer(one.metadata.vectors[0].vector_bytes, "<f4"))
        return ranked

    def close(self) -> None:
        """There is nothing to close."""


def key(one: Any) -> tuple[str, str]:
    fields = one.properties.non_ref_props.fields
    return fields["document"].text_value, fields["chunk_id"].text_value


def passes(one: Any, condition: Any) -> bool:
    parts = condition.filters
    match condition.operator:
        case Filters.OPERATOR_AND:
            return all(passes(one, part) for part in parts)
        case Filters.OPERATOR_OR:
            return any(passes(one, part) for part in parts)
        case Filters.OPERATOR_NOT:
            return not passes(one, parts[0])
    value = getattr(condition, condition.WhichOneof("test_value"))
    held = one.properties.non_ref_props.fields[condition.target.property]
    has = getattr(held, held.WhichOneof("kind"))
    match condition.operator:
        case Filters.OPERATOR_CONTAINS_ANY:
            return has in value.values
        case Filters.OPERATOR_GREATER_THAN:
            return bool(has > value)
        case Filters.OPERATOR_LESS_THAN:
            return bool(has < value)
    assert condition.operator == Filters.OPERATOR_EQUAL
    return bool(has == value)


def searched(server: Server, query: Any, k: int, per_group: int | None, adapter: WeaviateAdapter = ADAPTER) -> Found:
    more: dict[str, Any] = {} if per_group is None else {"group_by": "document", "per_group": per_group}
    return run(adapter.search(Search(TENANT, ALWAYS, ALWAYS, query, k, frozenset(), **more)), {"store": server})


@pytest.mark.parametrize(("lost", "k", "per_group", "complete"), CASES)
def test_what_the_ranking_lost_is_said(
    lost: list[tuple[str, str]], k: int, per_group: int | None, complete: bool
) -> None:
    found = searched(Server(*lost), VectorQuery(VECTOR), k, per_group)
    assert found.complete == complete
    assert (found.shortfall is None) == complete


@pytest.mark.parametrize("per_group", [None, 1])
@pytest.mark.parametrize(("lost", "complete"), [([], True), ([("two", "c1")], False)])
def test_a_hybrid_query_says_that_one_of_its_rankings_lacks_a_row(
    lost: list[tuple[str, str]], complete: bool, per_group: int | None
) -> None:
    """The words find as many rows as are requested, at ranks that they would not have."""
    found = searched(Server(*lost), HybridQuery("text", VECTOR), 4, per_group)
    assert len(found.hits) == (4 if per_group is None else 3)
    assert found.complete == complete


@pytest.mark.parametrize("per_group", [None, 3])
def test_no_count_where_the_ranking_is_whole_by_itself(per_group: int | None) -> None:
    for query, adapter in ((Lexical("text"), ADAPTER), (VectorQuery(VECTOR), FLAT)):
        server = Server()
        assert searched(server, query, 10, per_group, adapter).complete
        assert server.counted == 0


@pytest.mark.parametrize(
    "where",
    [ALWAYS, F.lang == "en", F.lang != "en", (F.lang == "en") | ~(F.year >= 2020)],
    ids=["all", "one", "not", "or not"],
)
@pytest.mark.parametrize("query", [VectorQuery(VECTOR), HybridQuery("text", VECTOR)], ids=["vector", "hybrid"])
def test_a_ranking_by_vector_names_its_objects(where: Any, query: Any) -> None:
    """An HNSW index compares each of the objects that a filter names; without one it walks its graph."""
    adapter = WeaviateAdapter(WeaviateConfig(url="http://localhost", dimension=2), FIELDS)
    search = Search(TENANT, ALWAYS, checked(where), query, 5, frozenset())
    ranked = [one.message for one in sent(adapter.search(search)) if _by_vector(one)]
    assert ranked
    assert all(_names_the_tenant(one.filters) for one in ranked)


def test_a_search_of_all_tenants_names_its_objects_too() -> None:
    message = COMPILER.near_of("t_acme", VECTOR, 5).message
    assert message.filters.operator == Filters.OPERATOR_GREATER_THAN_EQUAL
    assert (message.filters.target.property, message.filters.value_number) == ("generation", 0)


def _by_vector(request: Any) -> bool:
    return isinstance(request, Find) and request.message.HasField("near_vector")


def _names_the_tenant(condition: Compiled) -> bool:
    parts = condition.filters if condition.operator == Filters.OPERATOR_AND else [condition]
    return any(
        (one.operator, one.target.property, one.value_text) == (Filters.OPERATOR_EQUAL, "tenant", escape(TENANT))
        for one in parts
    )
