"""Searches by words and by both: against the engine, against a formula of their own, and against local mode."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, testing
from vectoracl.adapter_api.operations import Search
from vectoracl.errors import InvalidInputError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.filters.validation import check_fields
from vectoracl.model.queries import RRF_K, HybridQuery
from vectoracl.model.records import Record, Tag
from vectoracl.text.sparse_words import token_index, words
from vectoracl_conformance.strategies import unit
from vectoracl_qdrant import words as words_
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.compile import NO_VERSION, QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import head_id, id_of

from qdrant_support.stores import Provisioned

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")
FIELDS = check_fields({"year": "number"})
CONFIG = QdrantConfig(url="http://localhost", dimension=8)
COMPILED = QdrantCompiler(CONFIG, FIELDS)
VOCABULARY = ["apple", "pear", "Plum", "straße", "été", "naïve", "x1", "under_score", "数", "кот"]


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(VOCABULARY, size=int(rng.integers(1, 30)))) for _ in range(count)]


def records(tenant: str, count: int, seed: int) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [
        Record(Tag(tenant, f"d{i % 7}", f"c{i:03}", position=i), text, unit(rng), {"year": 2000 + i % 5})
        for i, text in enumerate(texts(count, seed))
    ]


def formula(query: str, some: dict[str, str]) -> dict[str, float]:
    """Score *some* texts by id, with statistics of just these."""
    scores: dict[str, float] = {}
    for word in set(words(query)):
        holders = [id_ for id_, text in some.items() if word in words(text)]
        idf = math.log((len(some) - len(holders) + 0.5) / (len(holders) + 0.5) + 1)
        for id_ in holders:
            bag = words(some[id_])
            times = Counter(bag)[word]
            norm = 1.2 * (0.25 + 0.75 * len(bag) / 128)
            scores[id_] = scores.get(id_, 0.0) + idf * times * 2.2 / (times + norm)
    return scores


class TestOnTheEngine:
    """`qdrant-edge-py`: the Rust shard that the server has."""

    @pytest.fixture
    def shard(self, tmp_path: Path) -> Any:
        pytest.importorskip("qdrant_edge", reason="not run: pip install qdrant-edge-py")
        from qdrant_support.edge import Shard

        made = Shard(tmp_path, CONFIG, FIELDS, indexed=True)
        yield made
        made.close()

    def fill(self, shard: Any, some: list[Record]) -> None:
        shard.upsert(COMPILED.points(some, COMPILED.words_of(some), NO_VERSION))

    def test_a_score_is_that_of_the_scope_alone_whatever_others_write(self, shard: Any) -> None:
        ours = records("acme", 80, 1)
        self.fill(shard, ours)
        where = COMPILED.rows("acme")
        assert where is not None
        asked = words_.wanted("Apple кот straße nowhere")
        assert asked is not None
        alone = shard.worded(where, asked, 200, where)
        wanted = formula("Apple кот straße nowhere", {id_of(one.tag): one.text for one in ours})
        assert {id_ for id_, _ in alone} == set(wanted)
        assert [score for _, score in alone] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-3)
        self.fill(shard, [one._replace(text="apple " * 30) for one in records("beta", 300, 2)])
        assert shard.worded(where, asked, 200, where) == alone
        # The control: without the corpus the others' texts are in the scores.
        assert shard.worded(where, asked, 200, None) != alone

    def test_the_engine_counts_ranks_from_nought_so_its_k_is_one_more_than_ours(self, shard: Any) -> None:
        ours = records("acme", 60, 1)
        self.fill(shard, [*ours, *records("beta", 60, 1)])
        where = COMPILED.rows("acme")
        query, asked = unit(np.random.default_rng(3)), words_.wanted("pear Plum 数")
        assert where is not None
        assert asked is not None
        legs = [shard.ranked(where, query.tolist(), 100), shard.worded(where, asked, 100, where)]
        wanted: dict[str, float] = {}
        for leg in legs:
            for rank, (id_, _) in enumerate(leg, start=1):
                wanted[id_] = wanted.get(id_, 0.0) + 1 / (RRF_K + rank)
        assert dict(shard.fused(where, asked, query.tolist(), 100, RRF_K + 1)) == pytest.approx(wanted, abs=1e-6)
        assert max(score for _, score in shard.fused(where, asked, query.tolist(), 100, RRF_K)) > max(wanted.values())


def drive(flow: Any, client: QdrantClient, config: QdrantConfig) -> Any:
    from vectoracl_qdrant.ports import call, reply_of

    reply: Any = None
    while True:
        try:
            step = flow.send(reply)
        except StopIteration as stop:
            return stop.value
        reply = reply_of(step, call(client, config, step, None))


def chunks(some: list[Record]) -> list[Chunk]:
    return [Chunk(one.tag.chunk, one.tag.document, one.text, one.vector, metadata=one.metadata) for one in some]


@pytest.fixture(scope="module")
def acl(provisioned: Any) -> Any:
    store: Provisioned = provisioned(metadata={"year": "number"}, page=20)
    made = v.connect(store.config)
    made.scoped(ALICE).upsert(chunks(records("acme", 60, 1)))
    made.scoped(BOB).upsert(chunks(records("beta", 60, 2)))
    yield made
    made.close()


def test_a_lexical_search_is_the_formula_over_the_rows_in_scope(acl: Any) -> None:
    ours = records("acme", 60, 1)
    for where, kept in ((None, ours), (F.year >= 2003, [one for one in ours if one.metadata["year"] >= 2003])):
        wanted = formula("apple Été", {one.tag.chunk: one.text for one in kept})
        assert 0 < len(wanted) < len(kept)
        more = {} if where is None else {"where": where}
        got = acl.scoped(ALICE).search(Lexical("apple Été"), 60, include={"text", "metadata", "vector"}, **more)
        assert got.complete
        assert {hit.id: hit.score for hit in got} == pytest.approx(wanted, abs=2e-3)
        assert all(hit.tenant == "acme" and hit.vector.shape == (8,) and hit.text for hit in got)
        first = acl.scoped(ALICE).search(Lexical("apple Été"), 5, **more)
        assert [hit.id for hit in first] == [hit.id for hit in got][:5]
        floor = got[3].score
        least = acl.scoped(ALICE).search(Lexical("apple Été"), 60, min_score=floor, **more)
        assert [hit.id for hit in least] == [hit.id for hit in got if hit.score >= floor]


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("k", [1, 4, 60])
def test_a_hybrid_search_is_the_fusion_of_its_two_legs(acl: Any, k: int, grouped: bool) -> None:
    query = unit(np.random.default_rng(5))
    alice = acl.scoped(ALICE)
    legs = [alice.search(query, 60), alice.search(Lexical("plum x1"), 60)]
    scores: dict[tuple[str, str], float] = {}
    for leg in legs:
        for rank, hit in enumerate(leg, start=1):
            key = (hit.document, hit.id)
            scores[key] = scores.get(key, 0.0) + 1 / (60 + rank)
    order = sorted(scores, key=lambda key: (-scores[key], key))
    more: dict[str, Any] = {}
    if grouped:
        more = {"group_by": "document", "per_group": 2}
        documents = list(dict.fromkeys(document for document, _ in order))[:k]
        taken: Counter[str] = Counter()
        kept = []
        for document, id_ in order:
            if document in documents and taken[document] < 2:
                taken[document] += 1
                kept.append((document, id_))
        order = kept
    got = alice.search(Hybrid("plum x1", query), k, include={"text", "vector"}, **more)
    assert [(hit.document, hit.id) for hit in got] == (order if grouped else order[:k])
    assert [hit.score for hit in got] == pytest.approx([scores[hit.document, hit.id] for hit in got])
    assert got.complete
    assert all(hit.text and hit.vector.shape == (8,) and hit.metadata is None for hit in got)


def test_what_others_write_is_in_no_score(provisioned: Any) -> None:
    store: Provisioned = provisioned()
    with v.connect(store.config) as acl:
        alice, bob = acl.scoped(ALICE), acl.scoped(BOB)
        alice.upsert(chunks([one._replace(metadata={}) for one in records("acme", 30, 1)]))
        query = unit(np.random.default_rng(6))

        def ask() -> Any:
            found = [alice.search(one, 30) for one in (Lexical("apple кот"), Hybrid("apple кот", query))]
            return [[(hit.id, hit.score) for hit in one] for one in found]

        before = ask()
        bob.upsert([Chunk(f"b{i}", "b", "apple " * 40, query) for i in range(100)])
        assert ask() == before
        assert all(before)


def test_words_that_nobody_has_and_queries_without_a_word(acl: Any) -> None:
    alice = acl.scoped(ALICE)
    for query in (Lexical("nowhere"), Lexical("?! …")):
        got = alice.search(query, 3)
        assert (list(got), got.complete) == ([], True)
    query = unit(np.random.default_rng(7))
    plain = [hit.id for hit in alice.search(query, 4)]
    for text in ("nowhere", "?! …"):
        assert [hit.id for hit in alice.search(Hybrid(text, query), 4)] == plain
    with pytest.raises(InvalidInputError):
        alice.search(Lexical(" "), 3)


def test_equal_scores_are_ordered_by_name_also_where_they_are_cut(provisioned: Any) -> None:
    store: Provisioned = provisioned(page=20, max_k=50)
    with v.connect(store.config) as acl:
        alice = acl.scoped(ALICE)
        vector = unit(np.random.default_rng(1))
        order = np.random.default_rng(2).permutation(40)
        alice.upsert([Chunk(f"c{i:02}", f"d{i % 3}", "same words", vector) for i in order])
        names = sorted((f"d{i % 3}", f"c{i:02}") for i in range(40))
        for query in (Lexical("words"), Hybrid("words", vector)):
            for k in (1, 2, 7, 39, 40):
                got = alice.search(query, k)
                assert [(hit.document, hit.id) for hit in got] == names[:k]
                assert got.complete


def test_a_hybrid_search_reads_deeper_until_there_are_enough_documents() -> None:
    """One document fills the first hundred places of both legs."""
    config = QdrantConfig(memory=True, dimension=2, max_k=1000)
    client = QdrantClient(":memory:")
    from vectoracl_qdrant import schema

    create = next(iter(schema.steps(config, {}, None)))
    assert isinstance(create, schema.CreateCollection)
    client.create_collection(config.collection, vectors_config=create.vectors, sparse_vectors_config=create.words)
    many = [
        Record(Tag("acme", "big", f"c{i:03}"), "apple " * (i % 9 + 2), np.array([1, i / 1e4], np.float32), {})
        for i in range(150)
    ]
    few = [Record(Tag("acme", f"d{i}", "c"), "apple and pear", np.array([0, 1], np.float32), {}) for i in range(3)]
    compiled = QdrantCompiler(config, {})
    client.upsert(config.collection, compiled.points([*many, *few], compiled.words_of([*many, *few]), NO_VERSION))
    query = HybridQuery("apple", np.array([1, 0], np.float32))
    operation = Search("acme", ALWAYS, ALWAYS, query, 3, frozenset(), group_by="document")
    found = drive(QdrantAdapter(config, {}).search(operation), client, config)
    assert [hit.document for hit in found.hits] == ["big", "d0", "d1"]
    assert found.complete


def test_a_group_by_words_holds_its_best_chunks_however_far_down_they_are(provisioned: Any) -> None:
    """Two documents have the two best chunks; the second best of each come after fifty of others."""
    store: Provisioned = provisioned()
    ones = np.ones(8)
    middle = [Chunk(f"m{i:02}", f"other {i:02}", "apple apple", ones) for i in range(50)]
    ends = [Chunk(f"{one}{i}", one, "apple " * (3 - 2 * i) + "x" * i, ones) for one in ("a", "b") for i in (0, 1)]
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([*middle, *ends])
        found = docs.search(Lexical("apple"), 2, group_by="document", per_group=2)
        assert {(hit.document, hit.id) for hit in found} == {("a", "a0"), ("a", "a1"), ("b", "b0"), ("b", "b1")}


def test_a_store_without_words_refuses_before_anything_is_sent(provisioned: Any) -> None:
    store: Provisioned = provisioned(words=False)
    with v.connect(store.config) as acl:
        alice = acl.scoped(ALICE)
        alice.upsert([Chunk("c", "d", "apple", unit(np.random.default_rng(1)))])
        for query in (Lexical("apple"), Hybrid("apple", [1.0] * 8)):
            with pytest.raises(UnsupportedPredicateError):
                alice.search(query, 3)
    (params,) = [store.client.get_collection(store.collection).config.params]
    assert not params.sparse_vectors
    config = CONFIG.model_copy(update={"words": False})
    flow = QdrantAdapter(config, {}).search(Search("acme", ALWAYS, ALWAYS, v.Lexical("apple"), 3, frozenset()))
    with pytest.raises(UnsupportedPredicateError):
        next(flow)


def test_without_idf_scores_depend_on_the_chunk_alone_and_can_be_merged(provisioned: Any) -> None:
    store: Provisioned = provisioned(idf=False)
    with v.connect(store.config) as acl:
        alice = acl.scoped(ALICE)
        some = [one._replace(metadata={}) for one in records("acme", 30, 1)]
        alice.upsert(chunks(some))
        got = {hit.id: hit.score for hit in alice.search(Lexical("apple кот"), 30)}
        own = {one.tag.chunk: words_.stored(one.text) for one in some}
        asked = words_.wanted("apple кот")
        assert asked is not None
        for id_, score in got.items():
            stored = own[id_]
            assert stored is not None
            weights = dict(zip(stored.indices, stored.values, strict=True))
            assert score == pytest.approx(sum(weights.get(at, 0.0) for at in asked.indices), abs=1e-4)
    assert QdrantAdapter(CONFIG.model_copy(update={"idf": False}), {}).capabilities.lexical_scores == "comparable"
    assert QdrantAdapter(CONFIG, {}).capabilities.lexical_scores == "partition"


def test_words_are_caseless_distinct_and_of_any_script() -> None:
    assert words_.wanted("Apple APPLE apple") == words_.wanted("apple")
    assert words_.stored("…") is None
    made = words_.stored("a a a b " + "c " * 500)
    assert made is not None
    assert made.indices == sorted({token_index(one) for one in "abc"})
    assert all(0 < value < 2.2 for value in made.values)
    assert words_.bytes_of([made, None]) >= len(made.model_dump_json()) - len('{"indices":[],"values":[]}')


def test_a_replacement_under_way_shows_one_version_to_a_search_by_words() -> None:
    from qdrant_support.shapes import CONFIG as SHAPE
    from qdrant_support.shapes import FIELDS as SHAPED
    from qdrant_support.shapes import stored

    points = [
        models.ScoredPoint(id=one.id, version=0, score=1.0, payload={**(one.payload or {}), "version": "r:new"})
        for one in stored(2, "r:new")
    ]
    operation = Search("acme", ALWAYS, ALWAYS, v.Lexical("text"), 5, frozenset({"text"}))
    flow = QdrantAdapter(SHAPE, SHAPED).search(operation)
    from vectoracl_qdrant.requests import Points

    head = {"generation": -1, "version": "", "docgen": "r:new", "present": []}
    claimed = Points([models.Record(id=head_id("acme", "d"), payload=head)], None)
    replies: list[Any] = [None, points, claimed, [], claimed]
    with pytest.raises(StopIteration) as stop:
        while True:
            flow.send(replies.pop(0))
    assert stop.value.value.hits == []
    assert replies == []
