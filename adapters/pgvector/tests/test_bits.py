"""Ranking by bits: right answers inside the scope, the way by the number of visible rows, and what does without it."""

from __future__ import annotations

import asyncio
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
from vectoracl.filters.predicate import ALWAYS, F, In, Predicate
from vectoracl.model.queries import VectorQuery
from vectoracl_pgvector import join
from vectoracl_pgvector.adapter import PgvectorAdapter
from vectoracl_pgvector.compile_ranking import WAY
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.conformance.mutants import CandidatesBeforeTheFilter
from vectoracl_pgvector.connection.extension import Extension

DIMENSION = 64
ROWS = 1500
LABELS = 10


@pytest.fixture(scope="module")
def filled(provisioned: Callable[..., Any]) -> Any:
    """A tenant of 1,500 chunks with ten labels between those of another one, and its vectors."""
    store = provisioned(dimension=DIMENSION, metadata={"year": "number"}, bits=True, exact_rows=60, bits_rows=700)
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(2 * ROWS, DIMENSION)).astype(np.float32)
    with v.connect(store.config) as acl:
        for start in range(0, ROWS, 500):
            for number, tenant in enumerate(("acme", "globex")):
                docs = acl.scoped(testing.principal("alice", tenant))
                docs.upsert(
                    [
                        Chunk(f"c{i:04}", f"d{i % 50}", "", vectors[2 * i + number], metadata={"year": i % 7})
                        for i in range(start, start + 500)
                    ]
                )
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute(f"UPDATE vectoracl.chunks SET label = 'l' || substr(chunk_id, 2)::int % {LABELS}")
        superuser.execute("VACUUM (ANALYZE) vectoracl.chunks_default")
    return store, vectors[::2]


_RUNS: dict[str, Run] = {}


class Run:
    """Performs one search of the adapter and keeps what it sent."""

    def __init__(self, store: Any, **changes: Any) -> None:
        from vectoracl_pgvector.connection.ports import PgPort

        self.pg = PgvectorConfig(**{**store.pg.model_dump(by_alias=True, exclude_unset=True), **changes})
        extension = Extension(self.pg)
        self.adapter = PgvectorAdapter(self.pg, {}, extension)
        self.port = PgPort(self.pg, extension, lambda: store.runtime, lambda: store.owner, debug=True)
        self.sent: list[Any] = []
        self.ways: list[str] = []

    @classmethod
    def of(cls, store: Any) -> Run:
        """Return the same one each time, so that generated searches share connections and what was learned."""
        if store.runtime not in _RUNS:
            _RUNS[store.runtime] = cls(store)
        return _RUNS[store.runtime]

    def search(
        self, query: Any, k: int = 10, scope: Predicate = ALWAYS, where: Predicate = ALWAYS, *, exact: bool = False
    ) -> Any:
        self.sent, self.ways = [], []
        asked = Search("acme", scope, where, VectorQuery(query), k, frozenset({"text"}), exact=exact)
        flow = self.adapter.search(asked)
        request = next(flow)
        while True:
            self.sent.append(request)
            try:
                reply = self.port.execute(request, 30)
            except Exception as error:
                request = flow.throw(error)
                continue
            self.ways += [row[WAY] for row in reply[0][:1] if len(row) > WAY]
            try:
                request = flow.send(reply)
            except StopIteration as stop:
                return stop.value


def truth(vectors: Any, query: Any, k: int, labels: set[int] | None = None) -> list[str]:
    similarity = vectors @ query / np.linalg.norm(vectors, axis=1)
    order = np.argsort(-similarity, kind="stable")
    return [f"c{i:04}" for i in order if labels is None or i % LABELS in labels][:k]


def problem(run: Run, vectors: Any) -> str | None:
    """Ask in scopes of several sizes; return what is wrong with the answers."""
    queries = np.random.default_rng(2).normal(size=(15, DIMENSION)).astype(np.float32)
    for labels in (None, {3}, {1, 2, 5}):
        scope = ALWAYS if labels is None else In("@label", tuple(f"l{one}" for one in sorted(labels)))
        recall = []
        for query in queries:
            found = run.search(query, 10, scope)
            ids = [hit.id for hit in found.hits]
            if not found.complete or len(ids) != 10:
                return "there are fewer hits than visible rows"
            recall.append(len(set(ids) & set(truth(vectors, query, 10, labels))) / 10)
        if np.mean(recall) < 0.97:
            return "hits are missing"
    return None


def test_the_answers_are_right_and_complete_in_every_scope(filled: Any) -> None:
    """The vectors have no direction in common, which is the worst for bits: the search has to widen."""
    store, vectors = filled
    assert problem(Run(store), vectors) is None


def test_candidates_before_the_filter_would_be_noticed(filled: Any) -> None:
    """The control: the ranking by bits without scope and filter, which are then applied after the LIMIT."""
    store, vectors = filled
    run = Run(store)
    run.adapter = CandidatesBeforeTheFilter(run.adapter, None)  # type: ignore[assignment, arg-type]  # a wrapper with the methods that the run uses
    assert problem(run, vectors) is not None


def test_a_search_that_does_not_widen_would_be_noticed(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, vectors = filled
    monkeypatch.setattr("vectoracl_pgvector.vector_search.reaches_far", lambda _: False)
    assert problem(Run(store), vectors) == "hits are missing"


CONDITIONS = st.recursive(
    st.one_of(
        st.sets(st.integers(0, LABELS - 1), min_size=1).map(lambda some: In("@label", tuple(f"l{i}" for i in some))),
        st.sets(st.integers(0, 49), min_size=1).map(lambda some: In("@document", tuple(f"d{i}" for i in some))),
        st.integers(0, ROWS).map(lambda one: F["@chunk"] == f"c{one:04}"),
        st.just(F["@expires"] > 0),
        st.just(F["@rev"] == 0),
    ),
    lambda inner: st.one_of(inner.map(lambda one: ~one), st.tuples(inner, inner).map(lambda two: two[0] | two[1]),
                            st.tuples(inner, inner).map(lambda two: two[0] & two[1])),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scope=CONDITIONS, where=CONDITIONS, k=st.integers(1, 60), data=st.integers(0, ROWS - 1))
def test_whatever_the_scope_as_many_hits_as_by_comparing_every_vector(
    filled: Any, scope: Predicate, where: Predicate, k: int, data: int
) -> None:
    store, vectors = filled
    run = Run.of(store)
    right = run.search(vectors[data], k, scope, where, exact=True)
    for _ in range(2):  # as the server decides, and as it is remembered
        found = run.search(vectors[data], k, scope, where)
        assert found.complete
        assert len(found.hits) == len(right.hits)
        assert {hit.id for hit in found.hits[:1]} == {hit.id for hit in right.hits[:1]}


@pytest.mark.parametrize(("labels", "way"), [((3,), "bits"), ((), "bits"), (("none",), None)])
def test_the_number_of_visible_rows_decides(filled: Any, labels: tuple[Any, ...], way: str | None) -> None:
    store, vectors = filled
    run = Run(store)
    run.search(vectors[0], 10, In("@label", tuple(f"l{one}" for one in labels)) if labels else ALWAYS)
    assert run.ways[:1] == ([way] if way else [])
    few = Run(store, exact_rows=ROWS)
    few.search(vectors[0])
    assert few.ways == ["exact"]


def test_a_field_that_the_index_lacks_is_not_ranked_by_bits(filled: Any) -> None:
    store, vectors = filled
    run = Run(store)
    found = run.search(vectors[0], 10, where=F["@rev"] == 0)
    assert len(found.hits) == 10
    assert run.ways == ["exact"]
    assert "near_distance" not in run.sent[0].statements[0].sql


def test_rows_that_a_narrow_scope_leaves_are_compared_whatever_else_the_filter_says(
    provisioned: Callable[..., Any],
) -> None:
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=10)
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(400, DIMENSION)).astype(np.float32)
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        docs.upsert([Chunk(f"c{i:04}", f"d{i % 10}", "", one) for i, one in enumerate(vectors)])
        operator = acl.operator()
        operator.promote("acme")
        operator.close()
    run = Run(store)
    other = F["@rev"] == 0
    for scope, way in (
        (F["@document"] == "d3", "exact"),
        (ALWAYS, "hnsw"),
        ((F["@document"] == "d3") & other, "exact"),
    ):
        found = run.search(vectors[3], 5, scope, other)
        assert (run.ways, found.hits[0].id, len(found.hits)) == ([way], "c0003", 5)


def test_explain_names_the_way_and_why(filled: Any) -> None:
    store, _ = filled

    def told(**settings: Any) -> str:
        with v.connect(store.changed(**settings)) as acl:
            return acl.explain(testing.principal("alice", "acme")).summary()

    assert "ranks 'acme' by bits, then the nearest of these by distance: more than 60 chunks" in told()
    assert "groups, too; a hybrid search compares every vector, up to 6,000 chunks." in told()
    assert "groups and the vectors of hybrid searches, too." in told(ef_search=10, bits_rows=2000)
    assert "ranks 'acme' by comparing every vector: 1,500 chunks are visible, at most 2,000" in told(exact_rows=2000)
    assert "this store has no bits" in told(bits=False)


def test_fewer_visible_rows_than_hits_are_all_returned(filled: Any) -> None:
    store, vectors = filled
    run = Run(store, exact_rows=1)
    scope = In("@document", ("d1", "d2"))
    for _ in range(2):  # as the server chooses, and as it is remembered
        found = run.search(vectors[0], 100, scope)
        assert found.complete
        assert len(found.hits) == 60


def test_the_plan_reads_the_index_alone_and_only_permitted_rows(filled: Any) -> None:
    store, vectors = filled
    run = Run(store)
    run.search(vectors[0], 10, In("@label", ("l3", "l4")))
    run.search(vectors[0], 10, In("@label", ("l3", "l4")))
    for request in run.sent:
        plan = explained(store, request)
        ranking = next(line for line in plan if "Index Only Scan using chunks_default_bits" in line)
        condition, *rest = plan[plan.index(ranking) + 1 :]
        assert "tenant_id = 'acme'" in condition
        assert "label = ANY" in condition
        assert "Heap Fetches: 0" in rest
        assert not [line for line in plan if "Seq Scan" in line and "never executed" not in line]


def explained(store: Any, request: Any) -> list[str]:
    """Return the lines of the plan of *request*, as the runtime role."""
    (statement,) = request.statements
    with psycopg.connect(store.runtime) as runtime:
        for setting in request.settings:
            runtime.execute("SELECT set_config(%s, %s, true)", setting)
        params = [str(one.vector.tolist()) if hasattr(one, "vector") else one for one in statement.params]
        rows = runtime.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statement.sql, params).fetchall()
    return [line.strip().removeprefix("->").strip() for (line,) in rows]


def test_vectors_whose_bits_say_nothing_are_found_all_the_same(provisioned: Callable[..., Any]) -> None:
    """All numbers are positive, so all bits are equal: the hits lie anywhere among the candidates."""
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=60)
    rng = np.random.default_rng(3)
    vectors = np.abs(rng.normal(size=(1300, DIMENSION))).astype(np.float32)
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        docs.upsert([Chunk(f"c{i:04}", "d", "", one) for i, one in enumerate(vectors)])
    run = Run(store)
    lengths = []
    for query in np.abs(rng.normal(size=(8, DIMENSION))).astype(np.float32):
        assert {hit.id for hit in run.search(query).hits} == set(truth(vectors, query, 10))
        lengths.append(len(run.sent))
    assert lengths[0] == 2  # by bits, then exactly
    assert lengths[-1] == 1  # and in the end it was learned


def test_what_happens_without_the_index(provisioned: Callable[..., Any]) -> None:
    """Without the column, without the index, with an invalid one: the next best way, and a finding of `check`."""
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=10)
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(100, DIMENSION)).astype(np.float32)
    right = truth(vectors, vectors[0], 10)

    def state() -> tuple[list[str], set[str]]:
        run = Run(store)
        assert [hit.id for hit in run.search(vectors[0]).hits] == right
        with v.connect(store.config) as acl:
            findings = acl.check()["main"].findings
        return run.ways, {one.rule.id for one in findings} & {"PG116", "PG117"}

    with v.connect(store.config) as acl, psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        docs = acl.scoped(testing.principal("alice", "acme"))
        docs.upsert([Chunk(f"c{i:04}", "d", "", one) for i, one in enumerate(vectors)])
        assert state() == (["bits"], set())  # without statistics nothing is known of the visibility map
        superuser.execute("ANALYZE vectoracl.chunks_default")
        assert state() == (["exact"], {"PG117"})
        operator = acl.operator()
        assert any("was vacuumed" in line for line in operator.provision())
        assert state() == (["bits"], set())
        superuser.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = "
                          "'vectoracl.chunks_default_bits'::regclass")  # fmt: skip
        assert state() == (["exact"], {"PG116"})
        operator.provision()
        assert state() == (["bits"], set())
        superuser.execute("DROP INDEX vectoracl.chunks_default_bits")
        assert state() == (["exact"], {"PG116"})
        superuser.execute("ALTER TABLE vectoracl.chunks DROP COLUMN bits")
        run = Run(store)
        assert [hit.id for hit in run.search(vectors[0]).hits] == right
        assert len(run.sent) == 2  # refused, and repeated without bits
        run.search(vectors[0])
        assert len(run.sent) == 1  # which is remembered
        assert state() == ([], {"PG116"})
        operator.provision()
        operator.close()
        assert state() == (["bits"], set())


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_an_own_partition_has_the_index_too(provisioned: Callable[..., Any], kind: str) -> None:
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=10, bits_rows=200, type=kind)
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(500, DIMENSION)).astype(np.float32)
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        docs.upsert([Chunk(f"c{i:04}", f"d{i % 10}", "", one) for i, one in enumerate(vectors)])
        operator = acl.operator()
        operator.promote("acme")
        run = Run(store)
        run.search(vectors[0])
        assert run.ways == ["hnsw"]  # 500 of 500 are visible
        run.search(vectors[0], 10, In("@document", ("d1", "d2")))
        assert run.ways == ["bits"]  # 100 of 500
        # the other type: the bits are made again, with the index of each partition
        operator.close()
        changed = store.changed(type="halfvec" if kind == "vector" else "vector")
        with v.connect(changed) as other:
            again = other.operator()
            again.provision()
            again.close()
            assert not {one.rule.id for one in other.check()["main"].findings} & {"PG116", "PG117"}
        operator = acl.operator()
        operator.demote("acme")
        operator.close()
        run = Run(store)
        run.search(vectors[0])
        assert run.ways == ["bits"]


def test_a_table_of_an_older_version_gets_bits(provisioned: Callable[..., Any]) -> None:
    store = provisioned(dimension=DIMENSION, metadata={}, bits=False)
    rng = np.random.default_rng(6)
    vectors = rng.normal(size=(300, DIMENSION)).astype(np.float32)
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        docs.upsert([Chunk(f"c{i:04}", "d", "", one) for i, one in enumerate(vectors)])
        operator = acl.operator()
        operator.promote("acme")
        operator.close()
    with v.connect(store.changed(bits=True)) as acl:
        operator = acl.operator()
        script = operator.plan()
        lines = operator.provision()
        assert "binary_quantize" in script
        assert any("vacuumed" in line for line in lines)
        assert not [line for line in operator.provision() if "vacuumed" in line]
        operator.close()
        assert not {one.rule.id for one in acl.check()["main"].findings} & {"PG116", "PG117"}
    with psycopg.connect(store.bootstrap) as superuser:
        rows = superuser.execute("SELECT relname FROM pg_class WHERE relname LIKE '%\\_bits' ORDER BY 1").fetchall()
    assert rows == [("chunks_default_bits",), ("chunks_t_acme_bits",)]


def test_a_foreign_column_called_bits_is_not_used(provisioned: Callable[..., Any]) -> None:
    store = provisioned(dimension=DIMENSION, metadata={}, bits=False)
    with psycopg.connect(store.owner, autocommit=True) as owner:
        owner.execute("ALTER TABLE vectoracl.chunks ADD COLUMN bits text")
    with v.connect(store.changed(bits=True)) as acl:
        operator = acl.operator()
        with pytest.raises(v.RefusedError, match="columns"):
            operator.provision()
        operator.close()


@pytest.mark.parametrize("settings", [{"metric": "l2"}, {"metric": "inner"}, {"dimension": 4001}])
def test_where_bits_are_not_offered(settings: dict[str, Any]) -> None:
    given = {"dsn": "-", "dimension": 384, **settings}
    assert not PgvectorConfig(**given).has_bits
    with pytest.raises(ValueError, match="bits = true"):
        PgvectorConfig(**given, bits=True)


def test_the_configuration_decides() -> None:
    def has(**settings: Any) -> bool:
        return PgvectorConfig(dsn="-", **settings).has_bits  # type: ignore[arg-type]  # a Secret reads text

    assert has(dimension=384)
    assert has(dimension=2, bits=True)
    assert not has(dimension=384, bits=False)
    assert not has(dimension=128)


def unprovisioned_bits(provisioned: Callable[..., Any]) -> tuple[Any, Any, list[str]]:
    """Return a store whose table lost its column of bits, its vectors, and the right hits for the first of them."""
    store = provisioned(dimension=DIMENSION, metadata={}, bits=True, exact_rows=10)
    vectors = np.random.default_rng(9).normal(size=(60, DIMENSION)).astype(np.float32)
    with v.connect(store.config) as acl:
        chunks = [Chunk(f"c{i:04}", "d", "", one) for i, one in enumerate(vectors)]
        acl.scoped(testing.principal("alice", "acme")).upsert(chunks)
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("ALTER TABLE vectoracl.chunks DROP COLUMN bits")
    return store, vectors, truth(vectors, vectors[0], 10)


def test_inside_the_callers_transaction_without_the_column(provisioned: Callable[..., Any]) -> None:
    """What the server refuses, before the search is repeated without bits, must not abort the transaction."""
    store, vectors, right = unprovisioned_bits(provisioned)
    with v.connect(store.config) as acl, psycopg.connect(store.runtime) as connection:
        # A client and a connection on which nothing has run, so that neither knows of the missing column.
        docs = join(acl, testing.principal("alice", "acme"), connection)
        docs.upsert([Chunk("mine", "d", "", -vectors[0])])
        for _ in range(3):
            assert [hit.id for hit in docs.search(vectors[0])] == right
            assert connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS
        connection.commit()
        assert acl.scoped(testing.principal("alice", "acme")).count() == 61


def test_inside_the_callers_transaction_without_the_column_async(provisioned: Callable[..., Any]) -> None:
    store, vectors, right = unprovisioned_bits(provisioned)

    async def searched() -> int:
        connection = await psycopg.AsyncConnection.connect(store.runtime)
        async with v.AsyncVectorACL(store.config) as acl, connection:
            docs = join(acl, testing.principal("alice", "acme"), connection)
            await docs.upsert([Chunk("mine", "d", "", -vectors[0])])
            for _ in range(3):
                assert [hit.id for hit in await docs.search(vectors[0])] == right
            await connection.commit()
            return await acl.scoped(testing.principal("alice", "acme")).count()

    assert asyncio.run(searched()) == 61
