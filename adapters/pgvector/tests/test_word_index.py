"""Words by BM25: through the index of `pg_textsearch` on a tenant's own partition, and without one."""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, testing
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.errors import UnsupportedPredicateError
from vectoracl.text.sparse_words import K1, B, words
from vectoracl_conformance.running.runner import Ask, run
from vectoracl_pgvector import compile_bm25, join, schema, word_index
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.word_index import WordIndex
from vectoracl_pgvector.word_search import WordSearch

from pgvector_support.driven import KINDS, Driven
from pgvector_support.stores import Store

pytestmark = pytest.mark.server
ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")
VOCABULARY = [f"w{number}" for number in range(60)]
EVERYONE = "CREATE INDEX everyone ON vectoracl.chunks_default USING bm25 (content) WITH (text_config = 'simple')"
CLOSE = 1e-5  # the index adds in single precision


def chunks(count: int, seed: int, longest: int = 120) -> list[Chunk]:
    """Chunks whose words have very different frequencies, and of which some are empty or equal."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(VOCABULARY) + 1)
    made = []
    for i in range(count):
        text = " ".join(rng.choice(VOCABULARY, rng.integers(0, longest), p=weights / weights.sum()))
        metadata = {"year": 2000 + i % 20}
        made.append(Chunk(f"c{i:03}", f"d{i % 7}", text, rng.normal(size=8).astype(np.float32), metadata=metadata))
    return made + [Chunk(f"e{i}", "equal", "w1 w2", np.ones(8, np.float32), metadata={"year": 1990}) for i in range(3)]


def rounded(length: int) -> int:
    """Lucene's SmallFloat: four significant bits beyond 40."""
    if length < 40:
        return length
    shift = (length - 24).bit_length() - 4
    return ((length - 24 >> shift) << shift) + 24


def oracle(text: str, texts: dict[str, str]) -> dict[str, float]:
    """BM25 over *texts*, which are one tenant's, with the lengths that the extension stores."""
    bags = {key: Counter(words(one)) for key, one in texts.items() if words(one)}
    average = sum(sum(bag.values()) for bag in bags.values()) / len(bags)
    scores: dict[str, float] = {}
    for word, times in Counter(words(text)).items():
        holders = [key for key, bag in bags.items() if word in bag]
        rarity = math.log(1 + (len(bags) - len(holders) + 0.5) / (len(holders) + 0.5))
        for key in holders:
            often, length = bags[key][word], rounded(sum(bags[key].values()))
            part = times * rarity * often * (K1 + 1) / (often + K1 * (1 - B + B * length / average))
            scores[key] = scores.get(key, 0.0) + part
    return scores


def check_ranking(hits: Any, scores: dict[str, float], k: int) -> None:
    """Assert that *hits* are the best k of *scores*; rows with the same score have no order."""
    assert hits.complete
    assert len({hit.id for hit in hits}) == len(hits) == min(k, len(scores))
    best = sorted(scores.values(), reverse=True)[:k]
    assert [hit.score for hit in hits] == pytest.approx(best, rel=CLOSE)
    assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], rel=CLOSE)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways that searches by words went."""
    gone: list[str] = []
    for name in ("by_index", "filtered", "linear"):
        real = getattr(compile_bm25, name)

        def way(*args: Any, real: Any = real, name: str = name) -> Any:
            gone.append(name)
            return real(*args)

        monkeypatch.setattr(compile_bm25, name, way)
    return gone


def promote(config: Any, *tenants: str) -> list[str]:
    with v.connect(config) as acl:
        operator = acl.operator()
        lines = [line for tenant in tenants for line in operator.promote(tenant)]
        operator.close()
    return lines


def provision(config: Any) -> list[str]:
    with v.connect(config) as acl:
        operator = acl.operator()
        try:
            return list(operator.provision())
        finally:
            operator.close()


@pytest.fixture(scope="module")
def filled(word_stores: Callable[..., Store]) -> tuple[Store, list[Chunk], list[Chunk]]:
    """A tenant with its own partition and index, and one in the shared partition."""
    store, mine, theirs = word_stores(), chunks(400, 1), chunks(150, 2)
    with v.connect(store.config) as acl:
        acl.scoped(ANN).upsert(mine)
        acl.scoped(BOB).upsert(theirs)
    (line,) = promote(store.config, "acme")
    assert "an HNSW index and an index of words" in line
    return store, mine, theirs


@pytest.fixture(scope="module")
def handles(filled: Any) -> Iterator[Callable[[str], Any]]:
    """The handle and the chunks of the tenant in a tier."""
    store, mine, theirs = filled
    with v.connect(store.config) as acl:
        tenants = {"own": (acl.scoped(ANN), mine), "shared": (acl.scoped(BOB), theirs)}
        yield lambda tier: tenants[tier]


QUERIES = st.lists(st.sampled_from([*VOCABULARY, "nowhere"]), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=QUERIES,
    k=st.sampled_from([1, 5, 50, 1000, 1001]),
    since=st.sampled_from([None, 1980, 2010, 2019, 2500]),
    narrowed=st.booleans(),
    exact=st.booleans(),
    tier=st.sampled_from(["own", "shared"]),
)
def test_a_ranking_is_bm25_over_the_tenants_texts(
    handles: Callable[[str], Any], text: str, k: int, since: int | None, narrowed: bool, exact: bool, tier: str
) -> None:
    """In every way, filter and handle: the statistics are the tenant's, and a filter holds before the ranking."""
    docs, rows = handles(tier)
    scores = oracle(text, {chunk.id: chunk.text for chunk in rows})
    if since is None:
        check_ranking(docs.search(Lexical(text), k, exact=exact), scores, k)
        return
    permitted = {chunk.id for chunk in rows if chunk.metadata["year"] >= since}
    scores = {key: score for key, score in scores.items() if key in permitted}
    where = F.year >= since
    found = docs.narrow(where).search(Lexical(text), k) if narrowed else docs.search(Lexical(text), k, where=where)
    check_ranking(found, scores, k)


def test_a_promotion_keeps_order_and_scores(word_stores: Callable[..., Store], ways: list[str]) -> None:
    store = word_stores()
    questions = ["w1", "w3 w50", "w0 w0 w7", "w59 w58 w57", "nowhere"]
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(chunks(300, 5))
        before = [docs.search(Lexical(one), 20) for one in questions]
        assert set(ways) == {"linear"}
        promote(store.config, "acme")
        docs.search(Lexical("w1"), 1)  # sees that the rows have moved
        ways.clear()
        after = [docs.search(Lexical(one), 20) for one in questions]
        assert set(ways) == {"by_index", "filtered"}  # some of the words have fewer than 20 hits
    for one, other in zip(before, after, strict=True):
        assert [hit.score for hit in one] == pytest.approx([hit.score for hit in other], rel=CLOSE)
        places = {hit.id: hit.score for hit in one}
        assert all(places.get(hit.id, one[-1].score) == pytest.approx(hit.score, rel=CLOSE) for hit in other)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hybrid_query_is_the_fusion_of_both_legs(filled: Any, ways: list[str], kind: str) -> None:
    store, mine, _ = filled
    place = {chunk.id: number for number, chunk in enumerate(mine)}
    query = np.random.default_rng(3).normal(size=8).astype(np.float32)
    with Driven(kind, store.config) as driven:
        docs = driven.scoped(ANN)
        for text, where in (("w40 w50", F.year >= 1900), ("w59", F.year >= 2015), ("nowhere", F.year >= 1900)):
            near = [place[hit.id] for hit in docs.search(query, 500, where=where, exact=True)]
            said = [place[hit.id] for hit in docs.search(Lexical(text), 500, where=where)]
            ways.clear()
            for exact in (False, True):
                wanted = fused([near, said]) if exact else fused([near[:200], said[:50]])
                result = docs.search(Hybrid(text, query), 10, where=where, exact=exact)
                assert [hit.score for hit in result] == pytest.approx(sorted(wanted.values(), reverse=True)[:10])
                assert result.complete
            assert ways == ["by_index", "filtered"]


def statistics_are_the_tenants(config: Any) -> None:
    """Other tenants' texts, in their own partition and in the shared one, are in no score."""
    with v.connect(config) as acl:
        for who, seed in ((ANN, 1), (BOB, 2)):
            acl.scoped(who).upsert(chunks(60, seed))
        promote(config, "acme", "beta")
        for who, seed in ((ANN, 1), (BOB, 2)):
            texts = {chunk.id: chunk.text for chunk in chunks(60, seed)}
            for text in ("w1 w2 w3", "w30"):
                found = acl.scoped(who).search(Lexical(text), 200)
                check_ranking(found, oracle(text, texts), 200)
        before = [acl.scoped(ANN).search(Lexical(one), 20) for one in ("w1 w2", "w30")]
        for who in (BOB, testing.principal("eve", "gamma")):
            acl.scoped(who).upsert([Chunk(f"x{i}", "x", "w1 w30 " * i, np.ones(8)) for i in range(1, 100)])
        after = [acl.scoped(ANN).search(Lexical(one), 20) for one in ("w1 w2", "w30")]
        assert [[(hit.id, hit.score) for hit in one] for one in before] == [
            [(hit.id, hit.score) for hit in one] for one in after
        ]


def filters_hold_before_the_ranking(config: Any) -> None:
    """The best matches are not permitted, and k permitted ones come nevertheless."""
    with v.connect(config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([Chunk(f"h{i}", "d", "word " * 5, np.ones(8), metadata={"year": 1}) for i in range(50)])
        docs.upsert([Chunk(f"v{i}", "d", "word and more", np.ones(8), metadata={"year": 2}) for i in range(20)])
        promote(config, "acme")
        for handle, where in ((docs, F.year == 2), (docs.narrow(F.year == 2), F.year > 0)):
            found = handle.search(Lexical("word"), 10, where=where)
            assert found.complete
            assert len(found) == 10
            assert all(hit.id.startswith("v") for hit in found)


def test_no_other_tenants_text_is_in_a_score(word_stores: Callable[..., Store]) -> None:
    statistics_are_the_tenants(word_stores().config)


def test_a_filter_holds_before_the_ranking(word_stores: Callable[..., Store], ways: list[str]) -> None:
    filters_hold_before_the_ranking(word_stores().config)
    assert "by_index" in ways


def test_explain_names_the_way_and_why(filled: Any) -> None:
    store, _, _ = filled
    with v.connect(store.config) as acl:
        assert 'by BM25 through the index "vectoracl"."chunks_t_acme_bm25"' in acl.explain(ANN, "search").summary()
        assert "it has no usable index of words" in acl.explain(BOB, "search").summary()
    with v.connect(store.changed(words="ts_rank")) as acl:
        assert "by ts_rank, over all rows" in acl.explain(ANN, "search").summary()


def test_the_index_is_used_under_row_level_security(filled: Any) -> None:
    store, _, _ = filled
    index = WordIndex('"public"', '"vectoracl"."chunks_t_acme_bm25"')
    rows = compile_bm25.Rows('"tenant_id" = %s::text', ("acme",))
    scored = compile_bm25.by_index(store.names, index, "w1 w2", rows, 10)
    sql = f"EXPLAIN (VERBOSE) WITH {scored.expressions} SELECT * FROM scored"
    with psycopg.connect(store.runtime) as connection:
        connection.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
        plan = "\n".join(row[0] for row in connection.execute(sql, scored.params))
        assert "Index Scan using chunks_t_acme_bm25" in plan
        assert "One-Time Filter" in plan
        assert "current_setting('vectoracl.tenant'::text, true)" in plan
        connection.execute("SELECT set_config('vectoracl.tenant', 'beta', true)")
        assert connection.execute(f"WITH {scored.expressions} SELECT * FROM scored", scored.params).fetchall() == []


def test_an_index_that_is_gone_or_invalid_is_not_missed(word_stores: Callable[..., Store], ways: list[str]) -> None:
    store, mine = word_stores(), chunks(80, 1)
    scores = oracle("w1 w2", {chunk.id: chunk.text for chunk in mine})
    invalid = (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vectoracl.chunks_t_acme_bm25'::regclass",
        "DROP INDEX vectoracl.chunks_t_acme_bm25",
        "ALTER INDEX vectoracl.chunks_t_acme_bm25 RENAME TO other",
    )
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(mine)
        promote(store.config, "acme")
        for broken in invalid:
            ways.clear()
            check_ranking(docs.search(Lexical("w1 w2"), 50), scores, 50)
            assert ways == ["by_index"]
            with psycopg.connect(store.bootstrap, autocommit=True) as boss:
                boss.execute(broken)
            with v.connect(store.config) as another:
                ways.clear()
                check_ranking(another.scoped(ANN).search(Lexical("w1 w2"), 50), scores, 50)
                assert ways == ["linear"]
                assert [one.rule.id for one in another.check()["main"].findings if one.rule.id == "PG118"] == ["PG118"]
            check_ranking(docs.search(Lexical("w1 w2"), 50), scores, 50)  # the process that knew the index
            assert "'acme' has an index of words" in "\n".join(provision(store.config))
            docs.search(Lexical("w1"), 1)
        with v.connect(store.config) as another:
            assert not [one for one in another.check()["main"].findings if one.rule.id in ("PG118", "PG119")]
        operator = acl.operator()
        operator.demote("acme")
        operator.close()
        for _ in range(2):
            check_ranking(docs.search(Lexical("w1 w2"), 50), scores, 50)


def test_after_deletions_and_a_vacuum(word_stores: Callable[..., Store], ways: list[str]) -> None:
    """Deleted rows are in no result at once, no other row is lost, and a rebuilt index has the right statistics."""
    store, mine = word_stores(), chunks(300, 1)
    kept = [chunk for chunk in mine if chunk.document not in ("d0", "d3")]
    texts = {chunk.id: chunk.text for chunk in kept}
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(mine)
        promote(store.config, "acme")
        for document in ("d0", "d3"):
            docs.delete(document=document)
        docs.replace(
            "d1", [Chunk(chunk.id, "d1", chunk.text, chunk.vector) for chunk in kept if chunk.document == "d1"]
        )
        for text in ("w1 w2", "w40"):
            found = docs.search(Lexical(text), 500)
            assert found.complete
            assert {hit.id for hit in found} == set(oracle(text, texts))
        with psycopg.connect(store.bootstrap, autocommit=True) as boss:
            boss.execute("VACUUM vectoracl.chunks_t_acme")
        for text in ("w1 w2", "w40", "w59 w0"):
            found = docs.search(Lexical(text), 500)
            assert found.complete
            assert {hit.id for hit in found} == set(oracle(text, texts))
        with psycopg.connect(store.owner, autocommit=True) as owner:
            owner.execute("REINDEX INDEX CONCURRENTLY vectoracl.chunks_t_acme_bm25")
        for text in ("w1 w2", "w40", "w59 w0"):
            check_ranking(docs.search(Lexical(text), 20), oracle(text, texts), 20)
        assert "linear" not in ways


def test_fewer_hits_than_asked_for_are_searched_again(word_stores: Callable[..., Store], ways: list[str]) -> None:
    """The index may stop early among deleted rows, which no statistic counts in time."""
    store, mine = word_stores(), chunks(300, 3)
    texts = {chunk.id: chunk.text for chunk in mine if chunk.document != "d0"}
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(mine)
        promote(store.config, "acme")
        docs.delete(document="d0")
        for k, went in ((2, ["by_index"]), (500, ["by_index", "filtered"])):
            ways.clear()
            found = docs.search(Lexical("w1 w2"), k)
            assert found.complete
            assert {hit.id for hit in found} <= set(oracle("w1 w2", texts))
            assert len(found) == min(k, len(oracle("w1 w2", texts)))
            assert ways == went


def test_beside_a_writer_no_row_comes_twice_and_none_is_missing(word_stores: Callable[..., Store]) -> None:
    store = word_stores()
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(chunks(200, 1))
        promote(store.config, "acme")
        stop = threading.Event()

        def write() -> None:
            for turn in itertools.cycle(range(5)):
                if stop.is_set():
                    return
                docs.upsert([Chunk(f"n{turn}-{i}", "new", f"w1 w2 w{turn}", np.ones(8)) for i in range(20)])

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                for turn in range(40):
                    where = F.year >= 2015 if turn % 2 else F.year >= 1900
                    found = docs.search(Lexical("w1 w2"), 20, where=where)
                    assert found.complete
                    assert len({(hit.document, hit.id) for hit in found}) == len(found) == 20
            finally:
                stop.set()
            writing.result(30)


def test_a_release_that_checks_privileges_gets_the_one_it_needs(
    word_stores: Callable[..., Store], ways: list[str]
) -> None:
    """Since 1.4 a score needs SELECT on the indexed column; an older release is reported, and needs no grant."""
    store = word_stores()

    def release(version: str) -> None:
        with psycopg.connect(store.bootstrap, autocommit=True) as boss:
            boss.execute("UPDATE pg_extension SET extversion = %s WHERE extname = 'pg_textsearch'", (version,))

    def findings() -> set[tuple[str, str]]:
        with v.connect(store.config) as acl:
            found = acl.check()["main"].findings
        return {(one.rule.id, one.subject) for one in found if one.rule.id in ("PG025", "PG094", "PG118", "PG119")}

    release("1.0.0")
    with v.connect(store.config) as acl:
        acl.scoped(ANN).upsert(chunks(40, 1))
    promote(store.config, "acme")
    assert findings() == {("PG094", "pg_textsearch")}
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("REVOKE ALL (content) ON vectoracl.chunks_t_acme FROM vectoracl_runtime")
    release("1.4.0")
    assert findings() == {("PG118", "vectoracl.chunks_t_acme")}
    with v.connect(store.config) as acl:
        acl.scoped(ANN).search(Lexical("w1"))
        assert ways.pop() == "linear"
    provision(store.config)
    assert findings() == set()
    with v.connect(store.config) as acl:
        acl.scoped(ANN).search(Lexical("w1"))
        assert ways.pop() == "by_index"
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("GRANT SELECT (metadata) ON vectoracl.chunks_t_acme TO vectoracl_runtime")
    assert findings() == {("PG025", "vectoracl.chunks_t_acme")}


def test_inside_the_callers_transaction(word_stores: Callable[..., Store]) -> None:
    """An index that vanishes does not abort the caller's transaction; uncommitted rows are found."""
    store = word_stores()
    with v.connect(store.config) as acl:
        acl.scoped(ANN).upsert(chunks(50, 1))
        promote(store.config, "acme")
        acl.scoped(ANN).search(Lexical("w1"))
        with psycopg.connect(store.runtime) as connection:
            docs = join(acl, ANN, connection)
            docs.upsert([Chunk("new", "n", "zebra", np.ones(8))])
            assert [hit.id for hit in docs.search(Lexical("zebra"))] == ["new"]
            connection.rollback()
            assert not docs.search(Lexical("zebra"))
            connection.commit()
            with psycopg.connect(store.bootstrap, autocommit=True) as boss:
                boss.execute("DROP INDEX vectoracl.chunks_t_acme_bm25")
            docs.upsert([Chunk("new", "n", "zebra", np.ones(8))])
            assert [hit.id for hit in docs.search(Lexical("zebra"))] == ["new"]
            connection.commit()
        assert [hit.id for hit in acl.scoped(ANN).search(Lexical("zebra"))] == ["new"]


def shared_index(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """The tenants stay in one partition, whose index holds all their texts, and searches use it."""
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(
            "CREATE INDEX everyone ON vectoracl.chunks_default USING bm25 (content) WITH (text_config='simple')"
        )
    everyone = WordIndex('"public"', '"vectoracl"."everyone"')

    def index(*_: Any) -> Any:
        return everyone
        yield

    monkeypatch.setattr(WordSearch, "index", index)
    monkeypatch.setitem(globals(), "promote", lambda *_: [])


def parents_index(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """Searches use any index of a partition that is named as expected, here one that holds two tenants."""
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(
            "CREATE TABLE vectoracl.chunks_t_acme PARTITION OF vectoracl.chunks FOR VALUES IN ('acme', 'beta')"
        )
        boss.execute("ALTER TABLE vectoracl.chunks_t_acme OWNER TO vectoracl_owner")
    with psycopg.connect(store.owner, autocommit=True) as owner:
        for statement in schema.protection(store.pg, "vectoracl.chunks_t_acme"):
            owner.execute(statement)
        owner.execute(
            "CREATE INDEX chunks_t_acme_bm25 ON vectoracl.chunks_t_acme USING bm25 (content) "
            "WITH (text_config='\"pg_catalog\".\"simple\"', k1='1.2', b='0.75')"
        )
        owner.execute("GRANT SELECT (content) ON vectoracl.chunks_t_acme TO vectoracl_runtime")
    careless = word_index.FIND.replace("pg_catalog.pg_get_expr(part.relpartbound, part.oid) = ", "'' <> ")
    assert careless != word_index.FIND
    monkeypatch.setattr(word_index, "FIND", careless)
    monkeypatch.setitem(globals(), "promote", lambda *_: [])


def late_filter(monkeypatch: pytest.MonkeyPatch, _: Store) -> None:
    """The best rows of the tenant are taken first, and the scope and the filter applied to them."""
    real = compile_bm25.by_index

    def by_index(names: Any, index: Any, text: str, rows: Any, limit: int) -> Any:
        tenant = compile_bm25.Rows(rows.where.partition(" AND ")[0], rows.params[:1])
        return real(names, index, text, tenant, limit)

    monkeypatch.setattr(compile_bm25, "by_index", by_index)
    monkeypatch.setattr("vectoracl_pgvector.adapter.is_complete", lambda *_: True)


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (shared_index, statistics_are_the_tenants),
        (parents_index, statistics_are_the_tenants),
        (late_filter, filters_hold_before_the_ranking),
    ],
)
def test_mutants_are_killed(
    word_stores: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, ways: list[str], mutant: Any, check: Any
) -> None:
    store = word_stores()
    mutant(monkeypatch, store)
    with pytest.raises(AssertionError):
        check(store.config)
    assert "by_index" in ways, "the mutant was not reached"


def test_an_index_of_two_tenants_is_not_used_and_is_reported(
    word_stores: Callable[..., Store], ways: list[str]
) -> None:
    store = word_stores()
    with pytest.MonkeyPatch.context() as patch:
        parents_index(patch, store)
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute(
            "CREATE INDEX everyone ON vectoracl.chunks_default USING bm25 (content) WITH (text_config='simple')"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "promote", lambda *_: [])
        statistics_are_the_tenants(store.config)
    assert set(ways) == {"linear"}
    with v.connect(store.config) as acl:
        found = {(one.rule.id, one.subject) for one in acl.check()["main"].findings}
    assert {("PG119", "vectoracl.everyone"), ("PG119", "vectoracl.chunks_t_acme_bm25")} <= found


def test_a_column_that_is_missing_is_explained(provisioned: Callable[..., Store]) -> None:
    store = provisioned()
    with v.connect(store.changed(words="bm25")) as acl:
        acl.scoped(ANN).upsert(chunks(3, 1))
        for query in (Lexical("w1"), Hybrid("w1", np.ones(8))):
            with pytest.raises(UnsupportedPredicateError, match="vectoracl provision"):
                acl.scoped(ANN).search(query)
        provision(store.changed(words="bm25"))
        assert len(acl.scoped(ANN).search(Lexical("w1 w2"))) >= 3


def test_a_server_without_the_extension_says_what_words_cost(
    provisioned: Callable[..., Store], monkeypatch: pytest.MonkeyPatch, ways: list[str]
) -> None:
    store = provisioned(words="bm25")
    monkeypatch.setattr("vectoracl_pgvector.operator._MUCH", 1)
    with v.connect(store.config) as acl:
        mine = chunks(60, 1)
        acl.scoped(ANN).upsert(mine)
        (line,) = promote(store.config, "acme")
        assert "an index of words" not in line
        check_ranking(acl.scoped(ANN).search(Lexical("w1")), oracle("w1", {c.id: c.text for c in mine}), 10)
        assert set(ways) == {"linear"}
        operator = acl.operator()
        (tenant,) = operator.tenants()
        operator.close()
        assert "reads all 63 chunks, about 1 ms" in tenant.note
        (missing,) = [one for one in acl.check()["main"].findings if one.rule.id == "PG118"]
        assert "no extension pg_textsearch" in missing.message


def test_words_need_the_words_to_be_stored() -> None:
    with pytest.raises(ValueError, match="lexical = false"):
        PgvectorConfig(dsn="-", dimension=8, words="bm25", lexical=False)  # type: ignore[arg-type]  # a Secret reads text


@pytest.mark.timeout(600)
@pytest.mark.parametrize("harness", ["harness", "indexed"])
def test_the_kits_checks_of_words_pass(
    textsearch: Any, server: Any, monkeypatch: pytest.MonkeyPatch, harness: str
) -> None:
    if harness == "indexed":
        dsn = textsearch.connection_string("bootstrap", "postgres")
        monkeypatch.setenv("VECTORACL_PGVECTOR_KIT", dsn)
    report = run(Ask(f"vectoracl_pgvector.conformance.words:{harness}", ("R4", "R13"), seed=9, decoys=50))
    assert not report.problem
    outcomes = {(note.id, note.outcome) for note in report.judged.checks if note.id in ("R4", "R13")}
    assert outcomes == {("R4", "passed"), ("R13", "passed")}
