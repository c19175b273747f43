"""Lexical and hybrid queries: what is found, that each leg stays in the scope, and stores from before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg
import pytest

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, testing
from vectoracl.adapter_api.operations import Search
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.errors import StoreError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.memory.lexical import words
from vectoracl.model.queries import HybridQuery
from vectoracl_pgvector import join
from vectoracl_pgvector.compile import PgCompiler
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.driven import KINDS, Driven

ANN = testing.principal("ann", "acme")
BOB = testing.principal("bob", "beta")
VOCABULARY = [f"w{number}" for number in range(60)]


def chunks(count: int, seed: int) -> list[Chunk]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        text = " ".join(rng.choice(VOCABULARY, rng.integers(1, 12)))
        vector = rng.normal(size=8).astype(np.float32)
        made.append(Chunk(f"c{i:03}", f"d{i % 7}", text, vector, metadata={"year": 2000 + i % 20}))
    return made


@pytest.fixture(scope="module", params=["shared", "own"])
def filled(request: pytest.FixtureRequest, provisioned: Any) -> Any:
    """Two tenants' chunks; the first tenant's in the shared partition, or in one of its own with a vector index."""
    store = provisioned()
    mine = chunks(150, 1)
    with v.connect(store.config) as acl:
        acl.scoped(ANN).upsert(mine)
        acl.scoped(BOB).upsert(chunks(150, 2))
        if request.param == "own":
            operator = acl.operator()
            operator.promote("acme")
            operator.close()
    return store, mine


@pytest.mark.parametrize("kind", KINDS)
def test_a_lexical_query_finds_the_own_chunks_that_hold_a_word_and_no_others(filled: Any, kind: str) -> None:
    store, mine = filled
    with Driven(kind, store.config) as driven:
        docs = driven.scoped(ANN)
        for text in ("w1", "W1 w2, w3!", "w59 nowhere", "nowhere", "& | ! ( ' \\"):
            result = docs.search(Lexical(text), 200)
            holders = {chunk.id for chunk in mine if set(words(text)) & set(words(chunk.text))}
            assert {hit.id for hit in result} == holders
            assert result.complete
            scores = [hit.score for hit in result]
            assert scores == sorted(scores, reverse=True)
            assert all(score > 0 for score in scores)
            assert [hit.id for hit in docs.search(Lexical(text), 5)] == [hit.id for hit in result][:5]
        late = docs.search(Lexical("w1 w2"), 200, where=F.year >= 2010)
        assert {hit.id for hit in late} == {
            chunk.id for chunk in mine if {"w1", "w2"} & set(words(chunk.text)) and chunk.metadata["year"] >= 2010
        }
        narrow = docs.narrow(F.year >= 2010).search(Lexical("w1 w2"), 200)
        assert narrow.hits == late.hits


@pytest.mark.parametrize("kind", KINDS)
def test_a_hybrid_query_is_the_fusion_of_its_two_rankings(filled: Any, kind: str) -> None:
    store, mine = filled
    rng = np.random.default_rng(3)
    place = {chunk.id: number for number, chunk in enumerate(mine)}
    with Driven(kind, store.config) as driven:
        docs = driven.scoped(ANN)
        for text, where in (("w1 w2", ALWAYS), ("w9", F.year >= 2015), ("nowhere", ALWAYS)):
            query = rng.normal(size=8).astype(np.float32)
            near = [place[hit.id] for hit in docs.search(query, 200, where=where, exact=True)]
            said = [place[hit.id] for hit in docs.search(Lexical(text), 200, where=where)]
            wanted = fused([near, said])
            for exact in (False, True):
                result = docs.search(Hybrid(text, query), 200, where=where, exact=exact)
                assert {place[hit.id]: pytest.approx(hit.score) for hit in result} == wanted
                assert result.complete
                best = docs.search(Hybrid(text, query), 10, where=where, exact=exact)
                assert [hit.id for hit in best] == [hit.id for hit in result][:10]
                assert all(hit.text == mine[place[hit.id]].text for hit in best)


def test_other_tenants_texts_are_in_no_score(store: Any) -> None:
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert(chunks(20, 1))
        query = np.ones(8, np.float32)
        before = [docs.search(one, 20) for one in (Lexical("w1 w2 w3"), Hybrid("w1 w2 w3", query))]
        acl.scoped(BOB).upsert([Chunk(f"x{i}", "x", "w1 " * i, query) for i in range(1, 200)])
        after = [docs.search(one, 20) for one in (Lexical("w1 w2 w3"), Hybrid("w1 w2 w3", query))]
        assert [[(hit.id, hit.score) for hit in one] for one in before] == [
            [(hit.id, hit.score) for hit in one] for one in after
        ]


def test_scores_of_several_tenants_are_merged(store: Any) -> None:
    config = {**store.config, "tenants": {"shared": ["beta"]}}
    with v.connect(config) as acl:
        for who in (ANN, BOB):
            acl.scoped(who).upsert([Chunk("c1", "d", "cat dog", np.ones(8)), Chunk("c2", "d", "cat", np.ones(8))])
        hits = acl.scoped(ANN).search(Lexical("cat dog"), 4)
        assert [(hit.tenant, hit.id) for hit in hits] == [
            ("acme", "c1"), ("beta", "c1"), ("acme", "c2"), ("beta", "c2")
        ]  # fmt: skip


def test_groups_limits_and_what_is_included(filled: Any) -> None:
    store, mine = filled
    query = np.ones(8, np.float32)
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        for asked in (Lexical("w1 w2 w3"), Hybrid("w1 w2 w3", query)):
            every = docs.search(asked, 200, exact=True)
            best: dict[str, list[v.Hit]] = {}
            for hit in every:
                best.setdefault(hit.document, []).append(hit)
            grouped = docs.search(asked, 3, group_by="document", per_group=2)
            expected = {(hit.document, hit.id) for group in list(best.values())[:3] for hit in group[:2]}
            assert {(hit.document, hit.id) for hit in grouped} == expected
            (hit,) = docs.search(asked, 1, include={"vector"})
            assert (hit.text, hit.metadata) == (None, None)
            assert hit.vector is not None
            assert hit.vector.tobytes() == mine[int(hit.id[1:])].vector.tobytes()  # type: ignore[union-attr]
        every = docs.search(Lexical("w1 w2 w3"), 200)
        limit = every[4].score
        assert [hit.id for hit in docs.search(Lexical("w1 w2 w3"), 200, min_score=limit)] == [
            hit.id for hit in every if hit.score >= limit
        ]


def test_signs_of_the_query_language_are_text(store: Any) -> None:
    texts = ["it's a back\\slash 'quoted'", "foo.com/a?b&c|d", "snake_case foo-bar", "straße ÉCOLE", "1.5 -2e3 a:b*"]
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([Chunk(f"c{i}", "d", text, np.ones(8)) for i, text in enumerate(texts)])
        for i, text in enumerate(texts):
            assert [hit.id for hit in docs.search(Lexical(text), 1)] == [f"c{i}"]
        for text in ("!zebra", "zebra <-> a", "'", "\\", ":*", "%s %", "$1"):
            assert all(set(words(text)) & set(words(hit.text or "")) for hit in docs.search(Lexical(text), 9))


def test_a_leg_without_its_condition_still_sees_one_tenant(filled: Any) -> None:
    """The policy alone holds in each leg, as it does for a plain search."""
    store, mine = filled
    query = HybridQuery("w1 w2 w3", np.ones(8, np.float32))
    operation = Search("acme", ALWAYS, ALWAYS, query, 400, frozenset({"text"}))
    made = PgCompiler(store.pg, {}).search(operation, query, exact=True)
    (statement,) = made.statements
    condition = '"tenant_id" = %s::text'
    assert statement.sql.count(condition) == 3
    bare = Statement(statement.sql.replace(condition, "TRUE"), tuple(one for one in statement.params if one != "acme"))
    with Driven("sync", store.config) as driven:
        (rows,) = driven.perform(Transaction("acme", (bare,), made.settings))
        assert {row[1] for row in rows} == {"acme"}
        assert len(rows) == len(mine)
        other = Transaction("acme", made.statements, (("vectoracl.tenant", "beta"), *made.settings[1:]))
        assert driven.perform(other) == ([],), "condition and setting differ: nothing"
        unset = Transaction("acme", made.statements, made.settings[1:])
        assert driven.perform(unset) == ([],)


def test_no_index_serves_words_under_row_level_security(filled: Any) -> None:
    """Why there is none: `@@` is not leakproof, so behind a policy it is no condition of an index."""
    store, _ = filled
    sql = "EXPLAIN SELECT 1 FROM vectoracl.chunks WHERE lexemes @@ 'w1 | w2'::tsquery"
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("CREATE INDEX words ON vectoracl.chunks USING gin (lexemes)")
        superuser.execute("ANALYZE vectoracl.chunks")
        try:
            with superuser.transaction():
                superuser.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
                free = "\n".join(row[0] for row in superuser.execute(sql).fetchall())
            with psycopg.connect(store.runtime) as connection:
                connection.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
                connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
                bound = "\n".join(row[0] for row in connection.execute(sql).fetchall())
        finally:
            superuser.execute("DROP INDEX vectoracl.words")
    assert "Index Cond: (lexemes @@" in free
    assert "Index Cond: (lexemes @@" not in bound
    assert "(lexemes @@" in bound


def test_a_store_from_before_there_were_words(provisioned: Any) -> None:
    store = provisioned()
    with psycopg.connect(store.owner, autocommit=True) as owner:
        owner.execute("ALTER TABLE vectoracl.chunks DROP COLUMN lexemes")
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([Chunk("c1", "d", "cat dog", np.ones(8))])
        operator = acl.operator()
        operator.promote("acme")
        docs.replace("d", [Chunk("c1", "d", "cat dog", np.ones(8))])
        assert len(docs.search(np.ones(8))) == 1
        for asked in (Lexical("cat"), Hybrid("cat", np.ones(8))):
            with pytest.raises(UnsupportedPredicateError, match="vectoracl provision"):
                docs.search(asked)
        operator.provision()
        operator.provision()
        assert [hit.id for hit in docs.search(Lexical("cat"))] == ["c1"]
        operator.demote("acme")
        assert [hit.id for hit in docs.search(Hybrid("cat", np.ones(8)))] == ["c1"]
        operator.close()


def test_another_text_search_configuration(store: Any) -> None:
    with v.connect(store.config) as acl:
        acl.scoped(ANN).upsert([Chunk("c1", "d", "the cats were running", np.ones(8))])
        assert not acl.scoped(ANN).search(Lexical("cat"))
    with v.connect(store.changed(text_search="english")) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()
        docs = acl.scoped(ANN)
        assert [hit.id for hit in docs.search(Lexical("a cat runs"))] == ["c1"]
        assert not docs.search(Lexical("the were")), "stop words alone ask for nothing"


@pytest.mark.parametrize("name", ["a.b.c", "x'y", "", "public."])
def test_a_text_search_configuration_is_a_name(store: Any, name: str) -> None:
    with pytest.raises(v.errors.ConfigError, match="text_search"):
        v.connect(store.changed(text_search=name))


def test_a_store_without_words(provisioned: Any) -> None:
    store = provisioned(lexical=False)
    with psycopg.connect(store.owner) as owner:
        found = owner.execute("SELECT attname FROM pg_attribute WHERE attname = 'lexemes'").fetchall()
    assert not found
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([Chunk("c1", "d", "cat dog", np.ones(8))])
        for asked in (Lexical("cat"), Hybrid("cat", np.ones(8))):
            with pytest.raises(UnsupportedPredicateError, match="It supports: vector"):
                docs.search(asked)


def test_more_words_than_postgresql_keeps_of_a_text(store: Any) -> None:
    rng = np.random.default_rng(0)
    text = " ".join(f"{one:x}" for one in rng.integers(1 << 28, 1 << 32, 110_000))
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        with pytest.raises(StoreError, match="more words") as failed:
            docs.upsert([Chunk("c1", "d", "short", np.ones(8)), Chunk("c2", "d", text, np.ones(8))])
        assert (failed.value.code, failed.value.sent) == ("too_large", "no")
        assert docs.count() == 0


def test_inside_the_callers_transaction(store: Any) -> None:
    with v.connect(store.config) as acl, psycopg.connect(store.runtime) as connection:
        acl.scoped(BOB).upsert([Chunk("foreign", "d", "cat", np.ones(8))])
        docs = join(acl, ANN, connection)
        docs.upsert([Chunk("c1", "d", "cat dog", np.ones(8)), Chunk("c2", "d", "bird", np.ones(8))])
        assert [hit.id for hit in docs.search(Lexical("cat"))] == ["c1"]
        assert [hit.id for hit in docs.search(Hybrid("bird", np.ones(8)))] == ["c2", "c1"]
        connection.rollback()
        assert acl.scoped(ANN).count() == 0


@pytest.mark.parametrize("form", ["short", "quoted", "one"])
def test_a_query_of_the_largest_size_is_answered(filled: Any, form: str) -> None:
    """Thousands of different words, signs of the query language among them, and one word that never ends."""
    store, mine = filled
    text = {
        "short": " ".join(f"{number:x}" for number in range(999)),
        "quoted": "".join(f"'{number:x}\\ | & ! <-> ( " for number in range(0x1000, 0x1000 + 999)),
        "one": "x" * 65_000,
    }[form][:65_000]
    with v.connect(store.config) as acl:
        docs = acl.scoped(ANN)
        found = docs.search(Lexical(f"w1 {text}"), 200)
        assert {hit.id for hit in found} == {chunk.id for chunk in mine if "w1" in words(chunk.text)}
        assert len(docs.search(Hybrid(f"w1 {text}", [1.0] * 8), 10)) == 10
