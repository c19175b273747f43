"""Groups and hybrid searches by bits: against comparing every vector, with generated scopes, and with hostile data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.adapter_api.operations import Search
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, In, Predicate
from vectoracl.model.queries import HybridQuery, VectorQuery
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.connection.ports import PgPort

DIMENSION = 64
ROWS = 4000
LABELS = 10
TOPICS = 80
WORDS = [f"w{n}" for n in range(30)]
"""Of each text three, the first of them by its topic: so words and vectors agree in part."""


class Run:
    """Performs searches of one adapter and keeps what the last one sent."""

    def __init__(self, store: Any, **changes: Any) -> None:
        self.pg = PgvectorConfig(**{**store.pg.model_dump(by_alias=True, exclude_unset=True), **changes})
        extension = Extension(self.pg)
        self.adapter = PgvectorAdapter(self.pg, {}, extension)
        self.port = PgPort(self.pg, extension, lambda: store.runtime, lambda: store.owner, debug=True)
        self.sent: list[str] = []
        self.too_slow = 0  # the exact search of groups that is made to reach its time limit

    def perform(self, flow: Any) -> Any:
        self.sent = []
        request = next(flow)
        while True:
            sql = request.statements[0].sql
            self.sent.append(sql)
            try:
                if self.too_slow and "dense_rank" in sql and "near_distance" not in sql:
                    raise StoreError("too slow", code="timeout")
                reply = self.port.execute(request, 30)
            except Exception as error:
                try:
                    request = flow.throw(error)
                except StopIteration as stop:
                    return stop.value
                continue
            try:
                request = flow.send(reply)
            except StopIteration as stop:
                return stop.value

    def search(self, query: Any, k: int = 10, scope: Predicate = ALWAYS, where: Predicate = ALWAYS, **more: Any) -> Any:
        return self.perform(self.adapter.search(Search("acme", scope, where, query, k, frozenset(), **more)))

    def groups(self, vector: Any, k: int = 10, scope: Predicate = ALWAYS, *, per_group: int = 3, **more: Any) -> Any:
        return self.search(VectorQuery(vector), k, scope, group_by="document", per_group=per_group, **more)

    @property
    def by_bits(self) -> list[bool]:
        """Of the searches that were sent, without the decision: whether by bits."""
        return ["near_distance" in one for one in self.sent if "SELECT way, visible, own, usable" not in one]


def made(seed: int, count: int) -> tuple[Any, list[str]]:
    """Return vectors of topics, as embeddings are, and texts whose words depend on the topic in part."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, TOPICS, count)
    vectors = rng.normal(size=(TOPICS, DIMENSION))[topic] + 0.7 * rng.normal(size=(count, DIMENSION))
    texts = [" ".join([WORDS[one % 10], *rng.choice(WORDS, 2)]) for one in topic]
    return vectors.astype(np.float32), texts


@pytest.fixture(scope="module")
def filled(provisioned: Callable[..., Any]) -> Any:
    """A tenant of 4,000 chunks in 400 documents of different sizes, between the chunks of another tenant."""
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=60, words="bm25", ef_search=40)
    vectors, texts = made(1, 2 * ROWS)
    rng = np.random.default_rng(2)
    documents = np.minimum(rng.integers(0, 400, ROWS), rng.integers(0, 400, ROWS))
    with v.connect(store.config) as acl:
        for number, tenant in enumerate(("acme", "globex")):
            docs = acl.scoped(testing.principal("alice", tenant))
            chunks = [
                Chunk(f"c{i:04}", f"d{documents[i]}", texts[2 * i + number], vectors[2 * i + number])
                for i in range(ROWS)
            ]
            for start in range(0, ROWS, 1000):
                docs.upsert(chunks[start : start + 1000])
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute(f"UPDATE vectoracl.chunks SET label = 'l' || substr(chunk_id, 2)::int % {LABELS}")
        superuser.execute("VACUUM (ANALYZE) vectoracl.chunks_default")
    return store, vectors[::2], texts[::2]


_RUNS: dict[str, Run] = {}


def run_of(store: Any) -> Run:
    """Return the same one each time, so that generated searches share connections and what was learned."""
    if store.runtime not in _RUNS:
        _RUNS[store.runtime] = Run(store)
    return _RUNS[store.runtime]


def keys(found: Any) -> list[tuple[str, str]]:
    return [(hit.document, hit.id) for hit in found.hits]


def documents_of(found: Any) -> list[str]:
    return list(dict.fromkeys(hit.document for hit in found.hits))


def recall(found: Any, right: Any) -> float:
    return len(set(keys(found)) & set(keys(right))) / max(1, len(right.hits))


def documents(size: int) -> st.SearchStrategy[Predicate]:
    """Draw conditions that at most *size* documents meet."""
    some = st.sets(st.integers(0, 399), min_size=1, max_size=size)
    return some.map(lambda numbers: In("@document", tuple(f"d{one}" for one in sorted(numbers))))


SCOPES = st.one_of(
    st.just(ALWAYS),
    st.sets(st.integers(0, LABELS - 1), min_size=1).map(lambda some: In("@label", tuple(f"l{i}" for i in some))),
    documents(400),
    documents(200).map(lambda one: ~one),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scope=SCOPES, k=st.integers(1, 40), per_group=st.integers(1, 5), data=st.integers(0, ROWS - 1), seed=st.integers()
)
def test_groups_have_the_rows_of_their_documents_and_none_is_missing(
    filled: Any, scope: Predicate, k: int, per_group: int, data: int, seed: int
) -> None:
    """As many documents as exactly; of each exactly its best rows; in the exact order."""
    store, vectors, _ = filled
    run = run_of(store)
    vector = vectors[data] + np.random.default_rng(abs(seed)).normal(size=DIMENSION).astype(np.float32)
    right = run.groups(vector, k, scope, per_group=per_group, exact=True)
    every = run.groups(vector, 1000, scope, per_group=per_group, exact=True)
    assert not any(run.by_bits)
    for _ in range(2):  # as the server decides, and as it is remembered
        found = run.groups(vector, k, scope, per_group=per_group)
        assert found.complete
        assert len(documents_of(found)) == len(documents_of(right))
        chosen = set(documents_of(found))
        assert keys(found) == [one for one in keys(every) if one[0] in chosen]


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("labels", [LABELS, 6])
def test_the_recall_of_groups(filled: Any, k: int, labels: int) -> None:
    store, vectors, _ = filled
    run = Run(store)
    rng = np.random.default_rng(3)
    scope = In("@label", tuple(f"l{one}" for one in range(labels)))
    shares, ways = [], []
    for data in rng.integers(0, ROWS, 60):
        vector = vectors[data] + 0.5 * rng.normal(size=DIMENSION).astype(np.float32)
        found = run.groups(vector, k, scope)
        ways += run.by_bits
        shares.append(recall(found, run.groups(vector, k, scope, exact=True)))
    assert np.mean(shares) >= 0.99
    assert np.mean(ways) > 0.7, "most were by bits"


def hostile(provisioned: Callable[..., Any], crowd: int, others: int = 1000) -> tuple[Any, Any]:
    """Return a store where *crowd* chunks of one document are nearer than those of 200 others, and the query."""
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=60)
    rng = np.random.default_rng(6)
    query = rng.normal(size=DIMENSION).astype(np.float32)
    near = query + 0.3 * rng.normal(size=(crowd, DIMENSION)).astype(np.float32)
    near[0] = query  # the first by bits, too, so that only the number of documents says that others are missing
    # Of the others, the chunks of a document are alike, and the documents come nearer one by one.
    share = np.linspace(0, 1, 200)[np.arange(others) % 200, None]
    vectors = (share * query + rng.normal(size=(others, DIMENSION))).astype(np.float32)
    chunks = [Chunk(f"n{i}", "crowd", "", one) for i, one in enumerate(near)]
    chunks += [Chunk(f"c{i}", f"d{i % 200}", "", one) for i, one in enumerate(vectors)]
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        for start in range(0, len(chunks), 1000):
            docs.upsert(chunks[start : start + 1000])
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("VACUUM (ANALYZE) vectoracl.chunks_default")
    return store, query


def test_a_document_that_crowds_out_all_others(provisioned: Callable[..., Any]) -> None:
    """All candidates are of one document: the search widens, and in the end compares every vector."""
    store, query = hostile(provisioned, 1500)
    run = Run(store)
    right = run.groups(query, exact=True)
    assert len(documents_of(right)) == 10
    lengths = []
    for _ in range(5):
        found = run.groups(query)
        assert found.complete
        assert keys(found) == keys(right)
        lengths.append(len(run.by_bits))
    assert lengths[0] == 2  # by bits, then exactly
    assert lengths[-1] == 1  # and in the end it was learned
    # Another query than that for the crowd learned nothing from it.
    plain = run.search(VectorQuery(query))
    assert len(plain.hits) == 10


def test_a_crowd_is_passed_by_more_candidates(provisioned: Callable[..., Any]) -> None:
    store, query = hostile(provisioned, 150, 6000)
    run = Run(store)
    right = run.groups(query, exact=True)
    found = run.groups(query)
    assert found.complete
    assert recall(found, right) >= 0.9
    assert run.by_bits[:2] == [True, True], "with four times as many"


def test_what_may_have_missed_a_document_is_not_complete(provisioned: Callable[..., Any]) -> None:
    """The exact search reaches the time limit: what was found is returned, and is not called complete."""
    store, query = hostile(provisioned, 1500)
    run = Run(store)
    run.too_slow = 1
    found = run.groups(query)
    assert documents_of(found) == ["crowd"]
    assert not found.complete
    assert "time limit" in found.shortfall


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=SCOPES, k=st.integers(1, 40), data=st.integers(0, ROWS - 1))
def test_a_hybrid_search_has_as_many_hits_and_only_permitted_ones(
    filled: Any, scope: Predicate, k: int, data: int
) -> None:
    store, vectors, texts = filled
    run = run_of(store)
    query = HybridQuery(texts[data], vectors[data])
    right = run.search(query, k, scope, exact=True)
    assert not any(run.by_bits)
    permitted = set(keys(run.search(VectorQuery(vectors[data]), 999, scope, exact=True))) if k < 10 else None
    for _ in range(2):
        found = run.search(query, k, scope)
        assert found.complete
        assert len(found.hits) == len(right.hits)
        assert len(set(keys(found))) == len(found.hits)
        if permitted is not None and len(permitted) < 999:
            assert set(keys(found)) <= permitted


@pytest.mark.parametrize("words", ["ts_rank", "bm25"])
def test_the_recall_of_hybrid_searches(filled: Any, words: str) -> None:
    """Against the same search with every vector compared for its leg, in the order of the fusion."""
    store, vectors, texts = filled
    run, plain = Run(store, words=words), Run(store, words=words, bits=False)
    rng = np.random.default_rng(4)
    shares, ways = [], []
    for data, other in rng.integers(0, ROWS, (40, 2)):
        query = HybridQuery(texts[other], vectors[data])
        found = run.search(query)
        ways += run.by_bits
        shares.append(recall(found, plain.search(query)))
        assert not any(plain.by_bits)
    assert np.mean(shares) >= 0.99
    assert np.mean(ways) > 0.8, "most were by bits"


def test_a_column_that_vanishes_is_not_missed(provisioned: Callable[..., Any]) -> None:
    """Between two searches, of which the second still remembers that bits are the way."""
    store, query = hostile(provisioned, 1500)
    run = Run(store, ef_search=10)
    hybrid = HybridQuery("word", query)
    before = run.search(hybrid), run.groups(query, 1)
    assert run.by_bits[0]
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("ALTER TABLE vectoracl.chunks DROP COLUMN bits")
    assert keys(run.groups(query, 1)) == keys(before[1])
    assert run.by_bits == [True, False]
    assert keys(run.groups(query, 1)) == keys(before[1])
    assert run.by_bits == [False]  # which is remembered
    fresh = Run(store, ef_search=10)
    assert keys(fresh.search(hybrid)) == keys(before[0])


def test_explained_words_that_the_table_lacks(provisioned: Callable[..., Any]) -> None:
    store, query = hostile(provisioned, 1500)
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("ALTER TABLE vectoracl.chunks DROP COLUMN lexemes CASCADE")
    with pytest.raises(v.UnsupportedPredicateError, match="provision"):
        Run(store, ef_search=10).search(HybridQuery("word", query))
