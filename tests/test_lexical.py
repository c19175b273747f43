"""Lexical and hybrid queries on the memory store: the reference meaning."""

import pytest

from vectoracl import Chunk, Hybrid, Lexical, VectorACL
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.errors import InvalidInputError, UnsupportedPredicateError
from vectoracl.memory.lexical import bm25, words
from vectoracl.model.queries import MAX_QUERY_WORDS
from vectoracl.testing import principal

TEXTS = {"c1": "the cat sat", "c2": "cat cat dog", "c3": "nothing of the kind"}


CONFIG = {"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 2}}, "tenants": {"shared": ["all"]}}


@pytest.fixture
def acl():
    with VectorACL(CONFIG) as made:
        for tenant in ("acme", "all"):
            chunks = [
                Chunk(id=name, document="d", text=text, vector=[1.0, place])
                for place, (name, text) in enumerate(TEXTS.items())
            ]
            made.scoped(principal(tenant=tenant)).upsert(chunks)
        yield made


def test_words_have_no_case():
    assert words("Straße, STRASSE and_one 2x") == ["strasse", "strasse", "and_one", "2x"]


def test_rare_words_weigh_more_and_a_text_without_them_has_no_score():
    texts = list(TEXTS.values())
    assert set(bm25("CAT", texts)) == {0, 1}
    scores = bm25("the dog", texts)
    assert scores[1] > scores[0] > 0
    assert bm25("zebra", texts) == bm25("", texts) == bm25("cat", []) == {}


def test_fusion_is_by_rank_alone():
    scores = fused([[0, 1], [1, 2]])
    assert scores == {0: 1 / 61, 1: 1 / 62 + 1 / 61, 2: 1 / 62}


def test_other_tenants_texts_are_in_no_score(acl):
    docs = acl.scoped(principal(tenant="all"))
    before = [(hit.id, hit.score) for hit in docs.search(Lexical("cat"), 5)]
    assert [name for name, _ in before] == ["c2", "c1"]
    acl.scoped(principal(tenant="foe")).upsert([Chunk(id="x", document="x", text="cat " * 50, vector=[1.0, 0.0])])
    assert [(hit.id, hit.score) for hit in docs.search(Lexical("cat"), 5)] == before


def test_a_hybrid_query_has_every_visible_chunk_and_the_fused_order(acl):
    hits = acl.scoped(principal(tenant="all")).search(Hybrid("cat", [1.0, 0.0]), 5)
    assert [hit.id for hit in hits] == ["c1", "c2", "c3"]
    assert hits[0].score == pytest.approx(1 / 61 + 1 / 62)


def test_lexical_scores_of_several_tenants_are_not_merged(acl):
    docs = acl.scoped(principal(tenant="acme"))
    with pytest.raises(UnsupportedPredicateError, match="several tenants"):
        docs.search(Lexical("cat"), 5)
    hits = docs.search(Hybrid("cat", [1.0, 0.0]), 4)
    assert [(hit.tenant, hit.id) for hit in hits] == [("acme", "c1"), ("acme", "c2"), ("all", "c1"), ("all", "c2")]


def test_that_refusal_comes_before_anything_is_embedded_or_sent(acl, monkeypatch):
    """Also of one query among several that could be answered, all of which are one call."""
    asked = []
    stores = {"m": {"adapter": "memory", "dimension": 8}}
    with VectorACL({**CONFIG, "stores": stores, "embedder": {"use": "hashed:8"}}) as made:
        made.scoped(principal(tenant="acme")).upsert([Chunk("c1", "d", "the cat sat")])
        docs = made.scoped(principal(tenant="acme"))
        core, adapter = made.core_port, made._stores["m"].store.adapter
        right = core.execute

        def heard(request, timeout):
            asked.append(type(request).__name__)
            return right(request, timeout)

        def search(self, operation):
            asked.append("search")
            return (yield from whole(self, operation))

        whole = type(adapter).search
        monkeypatch.setattr(core, "execute", heard)
        monkeypatch.setattr(type(adapter), "search", search)
        with pytest.raises(UnsupportedPredicateError, match="several tenants"):
            docs.search_many(["a text", Hybrid("another"), [1.0] * 8, Lexical("cat")], 5)
    assert asked
    assert not {"EmbedQueries", "search"} & set(asked)


@pytest.mark.parametrize("query", [Lexical, lambda text: Hybrid(text, [1.0, 0.0])])
def test_a_query_of_too_many_words_is_refused_before_anything_else(acl, query):
    """Stores rank by words times rows: 64 kB of short words kept a PostgreSQL busy until its time limit."""
    docs = acl.scoped(principal(tenant="all"))
    most = " ".join(["cat", *(f"x{number}" for number in range(MAX_QUERY_WORDS - 1)), "CAT x1 x2"])
    assert "c2" in [hit.id for hit in docs.search(query(most), 5)]
    with pytest.raises(InvalidInputError, match="1,000 distinct words"):
        docs.search(query(most + " more"), 5)


def test_a_fused_score_is_no_threshold(acl):
    with pytest.raises(UnsupportedPredicateError, match="only define an order"):
        acl.scoped(principal(tenant="all")).search(Hybrid("cat", [1.0, 0.0]), 5, min_score=0.1)
