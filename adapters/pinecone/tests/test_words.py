"""Queries by words, and by words and vector, against the stub's small exact engine: no product, and none certified.

needledb has no sparse vectors. The scores expected here are computed from the texts by the core's own formula, the
rows by the predicate's reference meaning.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, Hybrid, Lexical, hazmat, testing
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.model.queries import RRF_K
from vectoracl.text import sparse_words
from vectoracl_conformance.strategies import unit
from vectoracl_pinecone import lexical
from vectoracl_pinecone.compile import TINY
from vectoracl_pinecone.config import PineconeConfig

from pinecone_support.stub import KEY, Stub, stub

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")
ONES = np.ones(8) / math.sqrt(8)
FIELDS = {"year": "number", "lang": "keyword"}
WORDS = ["apple", "Pear", "plum", "кот", "straße", "数", "a_1"]
KINDS = ("vector", "document")


def settings(server: Stub, **more: Any) -> dict[str, Any]:
    metric = {"dotproduct": "inner", "cosine": "cosine", "euclidean": "l2"}[server.metric]
    main = {"adapter": "pinecone", "host": server.host, "api_key": KEY, "dimension": 8, "kind": server.kind,
            "metric": metric, "lexical": True, "metadata": FIELDS, **more}  # fmt: skip
    return {"version": 1, "stores": {"main": main}}


def served(kind: str, **state: Any) -> Any:
    return stub(kind=kind, metric="dotproduct", words="words" if kind == "document" else None, **state)


def normal(seed: int) -> np.ndarray:
    made = unit(np.random.default_rng(seed))
    return np.asarray(made / np.linalg.norm(made), np.float32)


def rows(count: int, seed: int = 1) -> list[Chunk]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        text = " ".join(rng.choice(WORDS, size=int(rng.integers(0, 9)))) if i % 5 else "…"
        metadata = {"year": 2000 + i % 7} | ({"lang": ["en", "fr"][i % 2]} if i % 3 else {})
        made.append(Chunk(f"c{i:03}", f"d{i % 4}", text, normal(seed * 1000 + i), position=i, metadata=metadata))
    return made


def score(query: str, text: str) -> float:
    held = sparse_words.weights(text)
    return round(sum(held.get(one, 0.0) for one in sparse_words.token_indices(query)), 4)


def expected(chunks: list[Chunk], query: str) -> list[tuple[float, str, str]]:
    """The leg by words, as it has to be: by score, ties by document and chunk."""
    found = [(score(query, one.text), one.document, one.id) for one in chunks]
    return sorted((one for one in found if one[0] > 0), key=lambda one: (-one[0], *one[1:]))


def nearest(chunks: list[Chunk], vector: np.ndarray) -> list[tuple[str, str]]:
    order = sorted(chunks, key=lambda one: (-float(np.float32(one.vector) @ np.float32(vector)), one.document, one.id))
    return [(one.document, one.id) for one in order]


def keys(found: Any) -> list[tuple[str, str]]:
    return [(hit.document, hit.id) for hit in found]


PREDICATES = {
    "always": (v.ALWAYS, lambda _: True),
    "late": (F.year >= 2003, lambda one: one["year"] >= 2003),
    "not english": (F.lang != "en", lambda one: one.get("lang", "en") != "en"),
    "no language": (F.lang.is_missing(), lambda one: "lang" not in one),
}


@pytest.fixture(scope="module", params=KINDS)
def filled(request: pytest.FixtureRequest) -> Any:
    with served(request.param) as server, v.connect(settings(server, page=20)) as acl:
        acl.scoped(ALICE).upsert(rows(60))
        acl.scoped(BOB).upsert(rows(60, seed=2))
        yield acl, server


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.lists(st.sampled_from([*WORDS, "nowhere"]), min_size=1, max_size=4).map(" ".join),
    where=st.sampled_from(sorted(PREDICATES)),
    k=st.integers(1, 70),
)
def test_by_words_the_rows_and_scores_are_those_of_the_texts(filled: Any, query: str, where: str, k: int) -> None:
    acl, _ = filled
    predicate, passes = PREDICATES[where]
    wanted = expected([one for one in rows(60) if passes(one.metadata)], query)
    found = acl.scoped(ALICE).search(Lexical(query), k, where=predicate)
    assert [(hit.score, hit.document, hit.id) for hit in found] == wanted[:k]
    assert (found.complete, {hit.tenant for hit in found} <= {"acme"}) == (True, True)
    narrowed = acl.scoped(ALICE).narrow(predicate).search(Lexical(query), k)
    assert list(narrowed) == list(found)


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.lists(st.sampled_from([*WORDS, "nowhere", "…"]), min_size=1, max_size=4).map(" ".join),
    where=st.sampled_from(sorted(PREDICATES)),
    k=st.integers(1, 70),
    seed=st.integers(0, 5),
)
def test_a_hybrid_is_the_fusion_of_both_legs(filled: Any, query: str, where: str, k: int, seed: int) -> None:
    acl, _ = filled
    predicate, passes = PREDICATES[where]
    mine = [one for one in rows(60) if passes(one.metadata)]
    vector = normal(9_000 + seed)
    legs = [nearest(mine, vector), [one[1:] for one in expected(mine, query)]]
    place = {(one.document, one.id): number for number, one in enumerate(mine)}
    scores = fused([[place[one] for one in leg] for leg in legs])
    order = sorted(place, key=lambda one: (-scores[place[one]], *one))
    found = acl.scoped(ALICE).search(Hybrid(query, vector), k, where=predicate, include={"text", "vector"})
    assert keys(found) == order[:k]
    assert [round(hit.score, 12) for hit in found] == [round(scores[place[one]], 12) for one in order[:k]]
    assert found.complete
    assert all(hit.vector is not None and hit.text is not None for hit in found)


def test_documents_are_grouped_by_words_and_by_both(filled: Any) -> None:
    acl, _ = filled
    query = "apple plum"
    best: dict[str, list[str]] = {}
    for _, document, chunk in expected(rows(60), query):
        best.setdefault(document, []).append(chunk)
    for per_group in (1, 2):
        found = acl.scoped(ALICE).search(Lexical(query), 3, group_by="document", per_group=per_group)
        groups: dict[str, list[str]] = {}
        for hit in found:
            groups.setdefault(hit.document, []).append(hit.id)
        assert groups == {name: some[:per_group] for name, some in itertools.islice(best.items(), 3)}
        hybrid = acl.scoped(ALICE).search(Hybrid(query, ONES), 3, group_by="document", per_group=per_group)
        assert len({hit.document for hit in hybrid}) == 3
        assert len(hybrid) == 3 * per_group


def test_a_minimum_score_is_one_of_words(filled: Any) -> None:
    acl, _ = filled
    wanted = [one for one in expected(rows(60), "apple") if one[0] >= 1.9]
    assert 0 < len(wanted) < 5 < len(expected(rows(60), "apple"))
    found = acl.scoped(ALICE).search(Lexical("apple"), 70, min_score=1.9)
    assert keys(found) == [one[1:] for one in wanted]


def test_a_text_without_words_is_found_by_its_vector_alone(filled: Any) -> None:
    acl, _ = filled
    docs = acl.scoped(ALICE)
    assert list(docs.search(Lexical("… !"), 5)) == []
    assert keys(docs.search(Hybrid("… !", ONES), 60)) == nearest(rows(60), ONES)


# What is sent


@pytest.mark.parametrize("kind", KINDS)
def test_each_leg_carries_namespace_scope_and_filter(kind: str) -> None:
    with served(kind) as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE).narrow(F.lang == "en")
        docs.count()
        for query in (Lexical("apple"), Hybrid("apple", ONES)):
            server.asked.clear()
            docs.search(query, 3, where=F.year > 2000)
            asked = [one.body for one in server.asked]
            assert len(asked) >= (2 if isinstance(query, Lexical) else 3)
            for one, body in zip(server.asked, asked, strict=True):
                space = body["namespace"] if kind == "vector" else one.path.split("/")[2]
                assert space == "vectoracl-t-acme"
                scope, where = body["filter"]["$and"][0]["$and"] if "$and" in body["filter"]["$and"][0] else body[
                    "filter"
                ]["$and"][:2]  # fmt: skip
                assert (scope, where) == ({"field_kw_lang": {"$eq": "en"}}, {"field_num_year": {"$gt": 2000}})


def test_a_leg_by_words_in_a_vector_index_has_a_vector_that_cannot_matter() -> None:
    with served("vector") as server, v.connect(settings(server)) as acl:
        acl.scoped(ALICE).search(Lexical("apple"), 3)
        (body,) = [
            one.body for one in server.asked if one.body and "sparseVector" in one.body and one.body["topK"] == 4
        ]
        assert body["vector"] == [TINY, *[0.0] * 7]
        assert body["sparseVector"] == {"indices": sparse_words.token_indices("apple"), "values": [1.0]}
        # Of vectors as large as float32 gets short of overflowing, against the smallest difference of two scores.
        assert TINY * 1e20 < 1e-4 / 1000


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_of_a_text_is_its_own(kind: str) -> None:
    with served(kind) as server, v.connect(settings(server)) as acl:
        acl.scoped(ALICE).upsert([Chunk("c", "d", "apple apple pear", ONES), Chunk("n", "d", "…", ONES)])
        acl.scoped(BOB).upsert([Chunk("c", "d", "apple apple pear", ONES)])
        mine, theirs = (server.spaces[f"vectoracl-t-{name}"] for name in ("acme", "beta"))
        by_chunk = {one["metadata"]["acl_chunk"]: one for one in mine.values()}
        (other,) = theirs.values()
        held = sparse_words.weights("apple apple pear")
        assert by_chunk["c"]["sparse"] == other["sparse"] == {"indices": list(held), "values": list(held.values())}
        assert by_chunk["c"]["metadata"]["acl_words"] == [f"{one:08x}" for one in held]
        assert by_chunk["n"].get("sparse") is None
        assert by_chunk["n"]["metadata"]["acl_words"] == ["-"]


# What Pinecone may do otherwise


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_exact_and_ties_in_order_whatever_the_servers_rounding(kind: str) -> None:
    """The server's scores only say how deep to read; twenty chunks that match alike are read as one tie."""
    with served(kind, blur=1e-5) as server, v.connect(settings(server, page=10)) as acl:
        docs = acl.scoped(ALICE)
        made = [Chunk(f"c{i:02}", f"d{i % 3}", f"apple x{i} y", normal(i)) for i in range(40)]
        docs.upsert([*made, Chunk("best", "d9", "apple", ONES)])
        wanted = expected([*made, Chunk("best", "d9", "apple", ONES)], "apple")
        for k in (1, 2, 7, 41):
            found = docs.search(Lexical("apple"), k)
            assert [(hit.score, hit.document, hit.id) for hit in found] == wanted[:k]


def test_rows_come_even_where_the_dense_vector_chooses_what_is_ranked() -> None:
    """Which rows hold a word is the filter's matter: a server that shortlists by vector shortlists among those."""
    with served("vector", shortlist=10) as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk(f"c{i:03}", "d", "filler", normal(i)) for i in range(200)])
        docs.upsert([Chunk(f"w{i}", "d", "apple", -np.eye(8)[0]) for i in range(8)])
        found = docs.search(Lexical("apple"), 9)
        assert keys(found) == [("d", f"w{i}") for i in range(8)]
        assert found.complete
        assert {hit.id for hit in docs.search(Hybrid("apple", ONES), 20)} >= {f"w{i}" for i in range(8)}
        # Where more hold it than are ranked, some are missing, and that is said.
        docs.upsert([Chunk(f"v{i}", "d", "apple", np.eye(8)[1]) for i in range(8)])
        short = docs.search(Lexical("apple"), 16)
        assert len(short) == 10
        assert not short.complete


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_goes_between_the_ranking_and_its_rows_is_asked_for_again(kind: str) -> None:
    with served(kind) as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk("far", "d", "apple", -ONES), Chunk("near", "e", "pear", ONES)])
        gone: list[str] = []

        def vanish(one: Any) -> None:
            asks_rows = one.body and "acl_record" in str(one.body.get("filter"))
            if asks_rows and not gone:
                space = server.spaces["vectoracl-t-acme"]
                gone.extend(id_ for id_, it in space.items() if it["metadata"]["acl_chunk"] == "near")
                for id_ in gone:
                    del space[id_]

        server.fault = vanish  # type: ignore[assignment]  # it changes the store and answers nothing
        assert keys(docs.search(Hybrid("apple", ONES), 1)) in ([("d", "far")], [("e", "near")])
        assert keys(docs.search(Hybrid("apple", ONES), 5)) == [("d", "far")]


# Records without words


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_that_were_written_without_words_make_an_answer_incomplete(kind: str) -> None:
    with served(kind) as server:
        with v.connect(settings(server, lexical=False)) as before:
            before.scoped(ALICE).upsert(
                [Chunk("old", "d", "apple", ONES, metadata={"year": 1999}), Chunk("new", "d", "apple", ONES)]
            )
            with pytest.raises(v.UnsupportedPredicateError):
                before.scoped(ALICE).search(Lexical("apple"))
        with v.connect(settings(server)) as acl:
            docs = acl.scoped(ALICE)
            docs.upsert([Chunk("new", "d", "apple", ONES)])
            for query, wanted in ((Lexical("apple"), {"new"}), (Hybrid("apple", ONES), {"new", "old"})):
                found = docs.search(query, 1 if query is Lexical else 5)
                assert {hit.id for hit in found} == wanted
                assert not found.complete
                assert "lexical = true" in (found.shortfall or "")
            # Only what is in the scope counts, and nobody else's.
            assert docs.search(Lexical("apple"), 5, where=F.year.is_missing()).complete
            assert acl.scoped(BOB).search(Lexical("apple"), 5).complete
            assert docs.search(ONES, 5).complete
            docs.upsert([Chunk("old", "d", "apple", ONES, metadata={"year": 1999})])  # loaded again
            found = docs.search(Lexical("apple"), 5)
            assert (len(found), found.complete) == (2, True)


# Configuration, limits, posture


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"kind": None}, "kind"),
        ({"kind": "vector", "metric": "cosine"}, "inner"),
        ({"kind": "vector", "metric": "l2"}, "inner"),
        ({"kind": "document", "words_field": "embedding"}, "words_field"),
        ({"kind": "document", "words_field": "acl_tag"}, None),
        ({"kind": "document", "words_field": "acl_text"}, "words_field"),
    ],
)
def test_words_are_refused_where_pinecone_does_not_serve_them(more: dict[str, Any], said: str | None) -> None:
    main = {"adapter": "pinecone", "host": "https://docs.example", "api_key": "k", "dimension": 8, "lexical": True}
    given = {"version": 1, "stores": {"main": {**main, **more}}}
    if said is None:
        PineconeConfig.model_validate(
            {key: value for key, value in given["stores"]["main"].items() if key != "adapter"}
        )
        return
    with pytest.raises(v.ConfigError, match=said):
        v.connect(given)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_of_too_many_words_is_refused_before_anything_is_sent(kind: str) -> None:
    with served(kind) as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        server.asked.clear()
        fine = " ".join(f"w{i}" for i in range(1000))
        with pytest.raises(v.InvalidInputError, match=r"Chunk 1 .* 1,001 distinct words"):
            docs.upsert([Chunk("a", "d", "fine", ONES), Chunk("b", "d", f"{fine} more", ONES)])
        with pytest.raises(v.InvalidInputError, match="distinct words"):
            docs.replace("d", [Chunk("b", "d", f"{fine} more", ONES)])
        with pytest.raises(v.VectorACLError, match="distinct words"):
            docs.search(Lexical(f"{fine} more"))
        assert server.asked == []
        docs.upsert([Chunk("b", "d", fine, ONES)])
        assert docs.search(Lexical(fine), 3)[0].score == score(fine, fine)


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_that_does_not_rank_by_words_is_not_opened(kind: str) -> None:
    with stub(kind=kind, metric="cosine" if kind == "vector" else "dotproduct") as server:
        with v.VectorACL(settings(server, metric="inner")) as acl:
            found = {one.rule.id for one in acl.check()["main"].findings}
            assert "PC009" in found
        with pytest.raises(v.PostureError):
            v.connect(settings(server, metric="inner"))
        with v.VectorACL(settings(server, metric="inner", lexical=False)) as acl:
            assert "PC009" not in {one.rule.id for one in acl.check()["main"].findings}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("metric", ["inner", "cosine"])
def test_the_index_is_created_with_what_words_need(kind: str, metric: str) -> None:
    if (kind, metric) == ("vector", "cosine"):
        return  # refused, above
    with stub(kind=kind, there=False) as server:
        given = settings(server, host=None, index="docs", control_host=server.host, metric=metric)
        with v.VectorACL(given) as acl:
            operator = acl.operator()
            assert ("sparse_vector" in operator.plan()) is (kind == "document")
            operator.provision()
            operator.close()
        with v.connect(given) as acl:
            acl.scoped(ALICE).upsert(rows(30))
            assert keys(acl.scoped(ALICE).search(Lexical("apple"), 50)) == [
                one[1:] for one in expected(rows(30), "apple")
            ]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_document_index_of_any_metric_fuses(metric: str) -> None:
    with stub(kind="document", metric=metric, words="words") as server, v.connect(settings(server)) as acl:
        acl.scoped(ALICE).upsert(rows(40))
        found = acl.scoped(ALICE).search(Hybrid("nowhere", ONES), 40)
        assert keys(found) == nearest(rows(40), ONES)
        assert found[0].score == pytest.approx(1 / (RRF_K + 1))


def test_a_search_over_all_tenants_is_by_vector(filled: Any) -> None:
    acl, _ = filled
    with pytest.raises(v.InvalidInputError):
        hazmat.unscoped(acl, reason="a test of it").search(Lexical("apple"), 3)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_two_tenants_compare(kind: str) -> None:
    with served(kind) as server:
        with v.connect(settings(server)) as acl:
            acl.scoped(ALICE).upsert([Chunk("a", "d", "apple pear", ONES)])
            acl.scoped(BOB).upsert([Chunk("b", "d", "apple", ONES), *rows(20)])
        with v.connect({**settings(server), "tenants": {"shared": ["beta"]}}) as acl:
            found = acl.scoped(ALICE).search(Lexical("apple"), 2)
            assert [(hit.tenant, hit.score) for hit in found] == [
                ("beta", score("apple", "apple")),
                ("acme", score("apple", "apple pear")),
            ] or found[0].score >= found[1].score


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_holds_its_best_chunks_however_far_down_they_are(kind: str) -> None:
    """Two documents have the two best chunks; the second best of each come after fifty of them all."""
    with served(kind) as server, v.connect(settings(server, page=20)) as acl:
        docs = acl.scoped(ALICE)
        middle = [Chunk(f"m{i:02}", f"other {i:02}", "apple apple", normal(i)) for i in range(50)]
        ends = [Chunk(f"{one}{i}", one, "apple " * (3 - 2 * i) + "x" * i, ONES) for one in ("a", "b") for i in (0, 1)]
        docs.upsert([*middle, *ends])
        found = docs.search(Lexical("apple"), 2, group_by="document", per_group=2)
        assert {(hit.document, hit.id) for hit in found} == {("a", "a0"), ("a", "a1"), ("b", "b0"), ("b", "b1")}


def test_a_leg_is_read_deeper_where_the_best_documents_are_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "DEPTH", 3)
    with served("vector") as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        many = [Chunk(f"c{i:02}", "one", "apple " * (i + 1), ONES) for i in range(30)]
        docs.upsert([*many, Chunk("x", "two", "apple pear plum", -ONES)])
        for query in (Lexical("apple"), Hybrid("apple", ONES)):
            assert {hit.document for hit in docs.search(query, 2, group_by="document")} == {"one", "two"}
