"""What the adapter asks of PostgreSQL, pinned: statements, values and settings of every shape of an operation.

A change shows as a diff of tests/golden/requests.json; `nox -s "golden(pgvector)"` writes it anew.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, And, Eq, F, Predicate
from vectoracl.filters.validation import check_filter
from vectoracl.model.queries import HybridQuery, Lexical, VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.conformance.harness import PgStore
from vectoracl_pgvector.requests import ArrayParam, Transaction, VectorParam, VectorsParam
from vectoracl_pgvector.word_index import WordIndex

GOLDEN = Path(__file__).parent / "golden" / "requests.json"
TENANT = "acme"
FIELDS = {"year": FieldType.NUMBER, "lang": FieldType.KEYWORD, "tags": FieldType.KEYWORDS}
ADAPTER = PgvectorAdapter(PgvectorConfig(dsn="-", dimension=2), FIELDS)  # type: ignore[arg-type]
BITS = PgvectorAdapter(PgvectorConfig(dsn="-", dimension=2, bits=True), FIELDS)  # type: ignore[arg-type]  # a Secret reads text
VECTOR = np.array([1.0, 0.5], np.float32)
SCOPE = And((Eq("@label", "public"), Eq("@document", "d")))
TEXT, ALL = frozenset({"text"}), frozenset({"text", "metadata", "vector"})
READS = ("search", "lexical", "hybrid", "fetch", "count", "facets", "scan")


def late() -> Predicate:
    return check_filter(F.year > 1, FIELDS)


def records(count: int) -> tuple[Record, ...]:
    made = []
    for i in range(count):
        tag = Tag(TENANT, "d", f"c{i}", time=2.5, position=i)
        made.append(Record(tag, f"text {i}", VECTOR, {"year": 2020}))
    return tuple(made)


def decided(way: str) -> Any:
    """Return the flow of a search whose way the server decided before, as it answers in a row."""
    adapter = PgvectorAdapter(BITS.config, FIELDS)
    search = Search(TENANT, SCOPE, ALWAYS, VectorQuery(VECTOR), 5, TEXT)
    flow = adapter.search(search)
    next(flow)
    row = (True, TENANT, "d", 0, "c", "default", 0, 1.0, "", "", 1.0, 0, "", None, None, 0.5, way, 9_000, 1.0, 9.0)
    with contextlib.suppress(StopIteration):
        flow.send(([row],))
    return adapter.search(search)


def after_deciding(search: Search, **config: Any) -> Iterator[Transaction]:
    """Yield the request of a search by bits that asks for the decision first."""
    flow = PgvectorAdapter(PgvectorConfig(dsn="-", dimension=2, bits=True, **config), FIELDS).search(search)  # type: ignore[arg-type]  # a Secret reads text
    request = next(flow)
    while "SELECT way, visible, own, usable" not in request.statements[0].sql:
        request = flow.send(([],))  # no index of words
    yield flow.send(([("bits", 50_000, False, True)],))


def flows() -> Iterator[tuple[str, Any]]:
    queries = {"search": VectorQuery(VECTOR), "lexical": Lexical("a word"), "hybrid": HybridQuery("a word", VECTOR)}
    where = check_filter((F.lang == "en") & ~F.tags.contains_any(["a", "b"]) | F.year.is_missing(), FIELDS)
    for name, query in queries.items():
        yield name, ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, query, 5, TEXT))
        yield f"{name} in a scope", ADAPTER.search(Search(TENANT, SCOPE, where, query, 5, ALL))
        yield f"{name} exact", ADAPTER.search(Search(TENANT, SCOPE, late(), query, 5, TEXT, exact=True))
        grouped = Search(TENANT, SCOPE, late(), query, 5, TEXT, group_by="document", per_group=2)
        yield f"{name} grouped", ADAPTER.search(grouped)
    yield "search by bits", BITS.search(Search(TENANT, ALWAYS, ALWAYS, VectorQuery(VECTOR), 5, TEXT))
    yield "search by bits in a scope", BITS.search(Search(TENANT, SCOPE, ALWAYS, VectorQuery(VECTOR), 5, ALL))
    yield "search by bits with a filter", BITS.search(Search(TENANT, SCOPE, where, VectorQuery(VECTOR), 5, TEXT))
    yield "search by bits, decided", decided("bits")
    yield "search through HNSW, decided", decided("hnsw")
    yield "search by bits, explained", BITS.ranking(TENANT, SCOPE)
    grouped = Search(TENANT, SCOPE, ALWAYS, VectorQuery(VECTOR), 5, TEXT, group_by="document", per_group=2)
    yield "search grouped, deciding", BITS.search(grouped)
    yield "search grouped by bits", after_deciding(grouped)
    hybrid = Search(TENANT, SCOPE, ALWAYS, HybridQuery("a word", VECTOR), 5, TEXT)
    yield "hybrid by bits", after_deciding(hybrid)
    refs = (ChunkRef("c1"), ChunkRef("c2", "d"))
    yield "fetch", ADAPTER.fetch(Fetch(TENANT, SCOPE, refs, ALL))
    yield "count", ADAPTER.count(Count(TENANT, SCOPE, late()))
    begins = check_filter(F.lang.starts_with("e") & ~F["@document"].starts_with("d%"), FIELDS)
    yield "count by prefixes", ADAPTER.count(Count(TENANT, SCOPE, begins))
    yield "facets", ADAPTER.facets(Facets(TENANT, ALWAYS, ALWAYS, "lang"))
    yield "facets of a number in a scope", ADAPTER.facets(Facets(TENANT, SCOPE, late(), "year", 7))
    yield "facets of a list in a scope", ADAPTER.facets(Facets(TENANT, SCOPE, where, "tags"))
    yield "facets of documents", ADAPTER.facets(Facets(TENANT, SCOPE, late(), "@document"))
    yield "scan", ADAPTER.scan(Scan(TENANT, SCOPE, late(), 3, None, TEXT))
    yield "scan after a key", ADAPTER.scan(Scan(TENANT, SCOPE, ALWAYS, 3, Position("d", 0, "c0"), ALL))
    yield "upsert", ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(2)))
    yield "upsert in a scope", ADAPTER.upsert(Upsert(TENANT, SCOPE, records(1)))
    yield "replace", ADAPTER.replace(Replace(TENANT, SCOPE, "d", records(1)))
    yield "replace with nothing", ADAPTER.replace(Replace(TENANT, ALWAYS, "d", ()))
    yield "delete ids", ADAPTER.delete(Delete(TENANT, SCOPE, refs=refs))
    yield "delete a document", ADAPTER.delete(Delete(TENANT, ALWAYS, document="d"))
    yield "delete by filter", ADAPTER.delete(Delete(TENANT, SCOPE, where=late()))


def shown(value: Any) -> Any:
    match value:
        case VectorParam():
            return {"vector": value.vector.tolist()}
        case VectorsParam():
            return {"vectors": value.matrix.tolist()}
        case ArrayParam():
            return {value.kind: [one.decode() if isinstance(one, bytes) else one for one in value.values]}
        case list() | tuple():
            return [shown(one) for one in value]
    return value


def by_bm25() -> Iterator[tuple[str, Transaction]]:
    """Every way of a ranking by BM25, which the adapter chooses after it has looked for an index."""
    compiler = PgCompiler(PgvectorConfig(dsn="-", dimension=2, words="bm25"), FIELDS)  # type: ignore[arg-type]  # a Secret reads text
    index = WordIndex('"public"', '"vectoracl"."chunks_t_acme_bm25"')
    for name, query in {"lexical": Lexical("a word"), "hybrid": HybridQuery("a word", VECTOR)}.items():
        operation = Search(TENANT, SCOPE, late(), query, 5, TEXT)
        yield f"{name} by bm25", compiler.search(operation, query, exact=False)
        yield f"{name} by an index of words", compiler.search(operation, query, exact=False, index=index)
        yield f"{name} exact, by an index of words", compiler.search(operation, query, exact=True, index=index)
    operation = Search(TENANT, SCOPE, late(), HybridQuery("a word", VECTOR), 5, TEXT)
    for way in ("bits", "exact"):
        request = compiler.search(operation, operation.query, exact=False, index=index, leg=(way, 2000))
        yield f"hybrid by {way} and an index of words", request
    grouped = Search(TENANT, SCOPE, late(), Lexical("a word"), 5, TEXT, group_by="document", per_group=2)
    yield "lexical grouped, by bm25", compiler.search(grouped, Lexical("a word"), exact=True)
    yield "lexical, find the index of words", compiler.find_words(TENANT)


REQUESTS: dict[str, Transaction] = {name: next(flow) for name, flow in flows()} | dict(by_bm25())


def test_what_is_asked_is_what_was_pinned(request: pytest.FixtureRequest) -> None:
    got = {
        name: {
            "read_only": one.read_only,
            "settings": [list(pair) for pair in one.settings],
            "statements": [[statement.sql, shown(statement.params)] for statement in one.statements],
        }
        for name, one in REQUESTS.items()
    }
    if request.config.getoption("--rewrite-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(got, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    assert got == json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name in REQUESTS if name.startswith(READS)])
def test_the_tenant_is_a_condition_of_each_read_of_the_table(name: str) -> None:
    request = REQUESTS[name]
    assert request.partition == TENANT
    assert request.read_only
    assert PgStore.carries(None, request, TENANT)  # type: ignore[arg-type]  # it needs nothing of a store
    assert not PgStore.carries(None, request, "beta")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", REQUESTS)
def test_the_scope_is_set_first_and_for_the_same_tenant(name: str) -> None:
    request = REQUESTS[name]
    assert request.settings[0] == ("vectoracl.tenant", TENANT)
    assert request.settings[1] == ("search_path", "pg_catalog, pg_temp")
    assert request.read_only == name.startswith(READS)
