"""The operations on a real server, sync and async."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import ALWAYS, Chunk, F, Hybrid, Lexical, Like
from vectoracl.adapter_api.operations import Facets, Replace, Search
from vectoracl.engine.drivers import run
from vectoracl.engine.facets import summed
from vectoracl.errors import DeniedError, RefusedError, StoreError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Eq, Not
from vectoracl.filters.semantics import getter, matches, tallied, values_of
from vectoracl.filters.validation import check_fields, check_filter
from vectoracl.model.queries import RRF_K, VectorQuery
from vectoracl.model.records import Record, Tag
from vectoracl.testing import principal
from vectoracl_conformance.strategies import FIELDS, predicate, rows
from vectoracl_weaviate.names import tenant_name
from vectoracl_weaviate.requests import Merge

from weaviate_support.stores import made

E = np.eye(8, dtype=np.float32)


def turned(angle):
    return np.array([np.cos(angle), np.sin(angle), *[0.0] * 6], np.float32)


def test_a_row_comes_back_as_it_was_written(stores):
    store = stores(metadata=FIELDS)
    moment = datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    metadata = {"year": 2**53, "lang": " é|\n ", "ok": False, "when": moment, "tags": ["", "x"], "nums": [0.1, -0.0],
                "free": {"a": [1, None, "x"]}}  # fmt: skip
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("c", "d", "text é", [1, 2, 3, 4, 5, 6, 7, 8], 9, metadata)])
        (hit,) = docs.search(E[0], include={"text", "metadata", "vector"})
    assert (hit.id, hit.document, hit.position, hit.text, hit.tenant) == ("c", "d", 9, "text é", "acme")
    assert hit.metadata == metadata
    assert np.array_equal(hit.vector, np.arange(1, 9, dtype=np.float32))


@pytest.mark.parametrize(("metric", "score"), [("cosine", 0.5), ("inner", 2.0), ("l2", -np.sqrt(13.0))])
def test_scores(stores, metric, score):
    store = stores(metric=metric)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("c", "d", "", 4 * np.array([0.5, np.sqrt(0.75), *[0] * 6], np.float32))])
        (hit,) = docs.search(E[0])
    assert hit.score == pytest.approx(score, abs=1e-5)


@pytest.fixture(scope="module")
def filled(server):
    store = made(server, metadata=FIELDS, index="flat")
    chunks = rows(120)
    acl = v.connect(store.config)
    handle = acl.scoped(principal("u", "acme"))
    handle.upsert(chunks)
    acl.scoped(principal("u", "beta")).upsert(chunks)
    yield handle, {(one.document, one.id): one for one in chunks}
    acl.close()
    store.http.delete(f"/v1/schema/{store.collection}")
    store.http.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(predicate)
def test_a_filter_means_what_the_reference_means(filled, where):
    handle, chunks = filled
    fields = check_fields(FIELDS)
    checked = check_filter(where, fields)
    right = {
        (one.document, one.id)
        for one in chunks.values()
        if matches(checked, Tag("acme", one.document, one.id, position=one.position), one.metadata)
    }
    hits = handle.search(E[0], 500, where=where)
    assert {(hit.document, hit.id) for hit in hits} == right
    assert handle.count(where) == len(right)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(predicate, predicate, st.sampled_from(["year", "lang", "ok", "tags", "nums", "@document"]))
def test_facets_are_the_references(filled, where, inside, field):
    handle, chunks = filled
    fields = check_fields(FIELDS)
    checked = check_filter(where & inside, fields)
    tags = {key: Tag("acme", *key, position=one.position) for key, one in chunks.items()}
    kept = [(tags[key], one.metadata) for key, one in chunks.items() if matches(checked, tags[key], one.metadata)]
    kind, get = fields.get(field, FieldType.KEYWORD), getter(field)
    right = summed(tallied((values_of(kind, get(*row)) for row in kept), 10_000), kind, "the reference")
    found = handle.narrow(inside).facets(field, where=where)
    assert found == right
    assert [type(one.value) for one in found] == [type(one.value) for one in right]


def test_facets_are_all_of_them_beyond_the_servers_own_default(stores):
    """A count by groups that names no limit comes back with the hundred largest, and says nothing of the others."""
    store = stores(metadata=FIELDS)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        for tenant in ("acme", "Acme"):
            chunks = [
                Chunk(f"{i}", f"d{i % 150}", "", E[0], metadata={"year": i % 130, "lang": f" {tenant} {i}\n"})
                for i in range(300)
            ]
            acl.scoped(principal("u", tenant)).upsert(chunks)
        assert docs.facets("year", limit=1000) == [(i, 3 if i < 40 else 2) for i in range(130)]
        assert {one.value for one in docs.facets("lang", limit=1000)} == {f" acme {i}\n" for i in range(300)}
        assert len(docs.facets("@document", limit=1000)) == 150
        adapter, port = acl._stores["main"].store.adapter, acl._stores["main"].ports["store"]
        found = run(adapter.facets(Facets("acme", ALWAYS, ALWAYS, "year", 10)), {"store": port}, timeout=30)
        assert len(found) == 11, "one more than the most, which the core refuses"
        found = run(adapter.facets(Facets("acme", ALWAYS, ALWAYS, "lang", 299)), {"store": port}, timeout=30)
        assert len(found) == 300, "the same of a listing"
        assert acl.scoped(principal("u", "nobody")).facets("year") == []


def test_while_a_document_is_replaced_facets_are_of_one_version(stores):
    with v.connect(stores(metadata=FIELDS).config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        steps, cut, seen = 0, True, set()
        while cut:
            docs.replace(
                "d", [Chunk(f"old{i}", "d", "", E[0], metadata={"year": 1, "tags": ["a", "b"]}) for i in (0, 1)]
            )
            records = tuple(Record(Tag("acme", "d", f"new{i}"), "", E[1], {"year": 2, "tags": ["b"]}) for i in range(3))
            cut = cut_after(acl, Replace("acme", ALWAYS, "d", records), steps)
            steps += 1
            years, documents, tags = (docs.facets(name) for name in ("year", "@document", "tags"))
            old = ([(1, 2)], [("d", 2)], [("a", 2), ("b", 2)])
            assert (years, documents, tags) in (old, ([(2, 3)], [("d", 3)], [("b", 3)]))
            seen.add(years[0])
        assert seen == {(1, 2), (2, 3)}


def test_a_scan_is_in_key_order_whatever_the_page(filled):
    handle, chunks = filled
    for size in (1, 7, 119, 500):
        found = [(hit.document, hit.id) for hit in handle.scan(size=size)]
        assert found == sorted(chunks)


def test_a_scan_is_as_large_as_is_asked_for(stores):
    """The server answers at most 10,000 objects, and the adapter asks for one more than a page has."""
    store = stores(metadata=FIELDS, page=50)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert(rows(120))
        ids = [(hit.document, hit.id) for hit in docs.scan(size=7)]
        for size in (49, 50, 51, 100, 101, 119, 120, 121, 10_000):
            page = docs.page(size=size)
            assert [(hit.document, hit.id) for hit in page.hits] == ids[:size]
            assert (page.after is None) is (size >= 120)
            assert [(hit.document, hit.id) for hit in docs.scan(size=size)] == ids


@pytest.mark.parametrize(
    "where",
    [
        F.year >= 2000, F.year > 1999, F.year < 3000, F.year <= 3000, ~(F.year < 2000),
        (F.year >= 2000) & (F.year < 3000),
        F["@position"] >= 0, F.lang == "en", F.year.exists(), F.when >= datetime(2000, 1, 1, tzinfo=UTC),
    ],
    ids=str,
)  # fmt: skip
def test_a_page_of_a_filtered_scan_has_the_first_rows_not_any(stores, where):
    """A lone range is read by the server only as far as the limit, before it sorts."""
    store = stores(metadata=FIELDS)
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        when = datetime(2001, 1, 1, tzinfo=UTC)
        docs.upsert(
            [
                Chunk(f"{i:02}", "d", "", E[0], 99 - i, {"year": 2100 - i, "lang": "en", "when": when})
                for i in np.random.default_rng(1).permutation(40).tolist()
            ]
        )
        for size in (1, 3, 7):
            assert [hit.id for hit in docs.scan(where, size=size)] == [f"{i:02}" for i in range(40)]
            assert [hit.id for hit in docs.page(where, size).hits] == [f"{i:02}" for i in range(size)]


def test_a_lexical_query_finds_words_of_any_frequency(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert(
            [
                Chunk("1", "d", "the Quick brown fox", E[0]),
                Chunk("2", "d", "the the the", E[1], metadata={"lang": "en"}),
                Chunk("3", "d", "a lazy dog", E[2]),
            ]
        )
        acl.scoped(principal("u", "beta")).upsert([Chunk(str(i), "d", "the quick fox", E[0]) for i in range(20)])
        assert [hit.id for hit in docs.search(Lexical("quick"))] == ["1"]
        assert {hit.id for hit in docs.search(Lexical("the"))} == {"1", "2"}  # no word is left out
        assert [hit.id for hit in docs.search(Lexical("the fox"), where=F.lang == "en")] == ["2"]
        assert list(docs.search(Lexical("?!"))) == []
        assert list(docs.search(Lexical("cat"))) == []


def test_a_hybrid_query_is_the_rank_fusion_of_its_legs(store):
    texts = ["fox fox fox", "fox fox dog cat", "fox bird bird bird cow", "dog", "cat"]
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk(str(i), f"d{i}", text, turned(0.2 * (4 - i))) for i, text in enumerate(texts)])
        near = [hit.id for hit in docs.search(E[0])]
        words = [hit.id for hit in docs.search(Lexical("fox"))]
        assert words == ["0", "1", "2"]
        hits = docs.search(Hybrid("fox", E[0]), 5)
        fused = {one: sum(1 / (RRF_K + leg.index(one) + 1) for leg in (near, words) if one in leg) for one in near}
        assert [hit.score for hit in hits] == pytest.approx([fused[hit.id] for hit in hits])
        assert [hit.score for hit in hits] == sorted(fused.values(), reverse=True)
        assert len(docs.search(Hybrid("nothing", E[0]), 3)) == 3
        grouped = docs.search(Hybrid("fox", E[0]), 2, group_by="document")
        assert [hit.id for hit in grouped] == [hit.id for hit in hits[:2]]


@pytest.mark.parametrize("query", [E[0], Lexical("word"), Hybrid("word", E[0])], ids=["vector", "lexical", "hybrid"])
def test_groups_are_the_best_documents_however_many_hits_the_first_has(stores, query):
    store = stores(index="flat")
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk(f"{i:03}", "large", "word word word", turned(0.001 * i)) for i in range(300)])
        docs.upsert([Chunk(f"{i}", f"small-{i}", "word and others beside it", turned(1 + 0.1 * i)) for i in range(5)])
        hits = docs.search(query, 3, group_by="document", per_group=2)
        counts = {}
        for hit in hits:
            counts[hit.document] = counts.get(hit.document, 0) + 1
        assert len(counts) == 3
        assert counts["large"] == 2
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_like_a_chunk_and_a_minimum_score(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk(str(i), "d", "", turned(0.3 * i)) for i in range(4)])
        assert [hit.id for hit in docs.search(Like("0"))] == ["1", "2", "3"]
        assert [hit.id for hit in docs.search(E[0], min_score=0.9)] == ["0", "1"]
        acl.scoped(principal("u", "beta")).upsert([Chunk("theirs", "d", "", E[0])])
        assert list(docs.search(Like("theirs"))) == list(docs.search(Like("nobody's"))) == []


def test_exact_ranking_is_for_a_flat_index_alone(stores):
    with v.connect(stores(index="flat").config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("1", "d", "", E[0])])
        assert len(docs.search(E[0], exact=True)) == 1
    with v.connect(stores().config) as acl, pytest.raises(UnsupportedPredicateError):
        acl.scoped(principal("u", "acme")).search(E[0], exact=True)


def test_a_query_of_another_size_is_refused_before_anything_is_sent(store):
    with v.connect(store.config) as acl:
        adapter = acl._named("main").opened.adapter
        query = VectorQuery(np.ones(7, np.float32))
        flow = adapter.search(Search("acme", ALWAYS, ALWAYS, query, 5, frozenset()))
        with pytest.raises(RefusedError):
            next(flow)


# --- documents and their versions


def test_a_replacement_is_the_next_generation_and_leaves_nothing(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk(str(i), "d", "old", E[i]) for i in range(4)])
        for number in range(1, 4):
            docs.replace("d", [Chunk(str(i), "d", f"new {number}", E[i]) for i in range(number)])
            hits = list(docs.scan())
            assert [(hit.text, hit.tag.generation) for hit in hits] == [(f"new {number}", number)] * number
            assert docs.count() == number
        docs.upsert([Chunk("9", "d", "added", E[7])])
        assert {hit.tag.generation for hit in docs.scan()} == {3}
        docs.replace("d", [])
        assert docs.count() == 0
    listed = store.ask("GET", f"/v1/objects?class={store.collection}&tenant=t_acme")["objects"]
    assert listed == []


def cut_after(acl, operation, steps):
    """Drive the replacement for some requests only, as if the process had ended there."""
    named = acl._named("main")
    flow = named.opened.adapter.replace(operation)
    port, reply, done = acl._stores["main"].port or named.opened.port(), None, 0
    while True:
        try:
            step = flow.send(reply)
        except StopIteration:
            return False
        some = step if isinstance(step, tuple) else (step,)
        replies = []
        for one in some:
            if done == steps:
                flow.close()
                return True
            replies.append(port.execute(one, 10))
            done += 1
        reply = tuple(replies) if isinstance(step, tuple) else replies[0]


def test_a_replacement_that_was_cut_off_anywhere_shows_the_old_or_the_new_version(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        steps, seen = 0, set()
        while True:
            name = f"d{steps}"
            docs.upsert([Chunk(str(i), name, "old", E[i]) for i in range(3)])
            records = tuple(
                Record(Tag("acme", name, str(i), producer="u", path="replace", time=1.0), "new", E[i + 1], {})
                for i in range(2)
            )
            cut = cut_after(acl, Replace("acme", ALWAYS, name, records), steps)
            where = F["@document"] == name
            listed = [hit.text for hit in docs.scan(where)]
            assert listed in (["old"] * 3, ["new"] * 2), steps
            seen.add(listed[0])
            assert docs.count(where) == len(listed)
            assert [hit.text for hit in docs.search(E[0], 5, where=where)] == listed
            assert [hit.text for hit in docs.search(E[0], 1, where=where)] == listed[:1]
            docs.upsert([Chunk("added", name, "added", E[5])])
            assert docs.count(where) == len(listed) + 1
            docs.replace(name, [Chunk("last", name, "last", E[6])])
            assert [hit.text for hit in docs.scan(where)] == ["last"]
            if not cut:
                break
            steps += 1
        assert seen == {"old", "new"}
        assert steps > 8
        objects = store.ask("GET", f"/v1/objects?class={store.collection}&tenant=t_acme&limit=200")["objects"]
        assert {one["properties"]["content"] for one in objects} == {"last"}  # nothing of the cut ones is left


@pytest.mark.parametrize("change", ["upsert", "delete"])
def test_a_write_to_any_chunk_of_a_replacement_that_was_cut_off_brings_no_other_version_back(store, change):
    """One object of the new version decides the replacement: what is done to it must not undo the decision."""
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        steps, cut = 0, True
        while cut:
            for chunk in ("0", "1", "2"):
                name = f"d{steps}-{chunk}"
                docs.upsert([Chunk(str(i), name, "old", E[i]) for i in range(3)])
                records = tuple(
                    Record(Tag("acme", name, str(i), producer="u", path="replace", time=1.0), "new", E[i + 1], {})
                    for i in range(3)
                )
                cut = cut_after(acl, Replace("acme", ALWAYS, name, records), steps)
                where = F["@document"] == name
                (text,) = {hit.text for hit in docs.scan(where)}
                if change == "upsert":
                    docs.upsert([Chunk(chunk, name, "changed", E[4])])
                else:
                    assert docs.delete(ids=[(name, chunk)]).count == 1
                found = {hit.id: hit.text for hit in docs.scan(where)}
                wanted = {one: text for one in ("0", "1", "2") if one != chunk}
                if change == "upsert":
                    wanted[chunk] = "changed"
                assert found == wanted, (steps, chunk, text)
            steps += 1


def test_a_replacement_whose_deciding_object_is_deleted_meanwhile_is_no_success(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        adapter, port = acl._named("main").opened.adapter, acl._named("main").opened.port()
        seen, steps, done = set(), 0, False
        while not done:
            name = f"d{steps}"
            docs.upsert([Chunk(str(i), name, "old", E[i]) for i in range(3)])
            records = tuple(
                Record(Tag("acme", name, str(i), producer="u", path="replace", time=1.0), "new", E[i], {})
                for i in range(3)
            )
            flow, reply, turn, failed = adapter.replace(Replace("acme", ALWAYS, name, records)), None, 0, False
            while True:
                try:
                    step = flow.send(reply)
                except StopIteration:
                    done = turn <= steps
                    break
                except StoreError as error:
                    failed = error.code == "replacing"
                    break
                if turn == steps:
                    docs.delete(ids=[(name, "0")])
                turn += 1
                reply = tuple(port.execute(one, 10) for one in step) if isinstance(step, tuple) else (
                    port.execute(step, 10))  # fmt: skip
            texts = {hit.text for hit in docs.scan(F["@document"] == name)}
            assert texts == ({"old"} if failed else {"new"}), steps
            seen.add(failed)
            steps += 1
        port.close()
        assert seen == {True, False}


@pytest.mark.parametrize("chunks", [(), ("x",), ("a", "x")], ids=["nothing", "another", "both"])
@pytest.mark.parametrize("scope", [Eq("lang", "own"), Not(Eq("lang", "other"))], ids=["equal", "not equal"])
def test_a_narrowed_replacement_takes_no_chunk_that_is_added_before_it_is_decided(stores, chunks, scope):
    """Another writer adds one between any two of its requests, and that is acknowledged."""

    def committing(step):
        return isinstance(step, Merge) and step.properties.get("committed") is True

    with v.connect(stores(metadata={"lang": "keyword"}, index="flat").config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        adapter, port = acl._named("main").opened.adapter, acl._named("main").opened.port()
        seen, moment, reached = set(), 0, True
        while reached:
            name = f"d{moment}"
            docs.upsert([Chunk(one, name, "old", E[0], metadata={"lang": "own"}) for one in "ab"])
            records = tuple(
                Record(Tag("acme", name, one, producer="u", path="replace", time=1.0), "new", E[1], {"lang": "own"})
                for one in chunks
            )
            flow, reply, turn, reached = adapter.replace(Replace("acme", scope, name, records)), None, 0, False
            outcome = "done"
            try:
                while True:
                    step = flow.send(reply)
                    # What is added at the very moment of the decision is not seen: the server has no such condition.
                    if turn == moment and not committing(step):
                        docs.upsert([Chunk("z", name, "other", E[2], metadata={"lang": "other"})])
                        reached = True
                    elif turn == moment:
                        moment, reached, outcome = moment + 1, True, "skipped"
                        break
                    turn += 1
                    reply = tuple(port.execute(one, 10) for one in step) if isinstance(step, tuple) else (
                        port.execute(step, 10))  # fmt: skip
            except StopIteration:
                pass
            except DeniedError:
                outcome = "denied"
            except StoreError as error:
                outcome = error.code if error.undone and error.sent == "no" else "in doubt"
            if outcome == "skipped":
                continue
            left = {hit.id: hit.text for hit in docs.scan(F["@document"] == name)}
            added = {"z": "other"} if reached else {}
            old = {"a": "old", "b": "old", **added}
            assert left == ({**dict.fromkeys(chunks, "new"), **added} if outcome == "done" else old), moment
            seen.add(outcome)
            moment += 1
        port.close()
        assert seen == ({"denied", "conflict", "done"} if chunks else {"denied", "done"})


def test_a_delete_goes_past_the_servers_limit(stores):
    store = stores()
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.load(Chunk(str(i), "d", "", E[i % 8]) for i in range(2500))
        assert docs.delete(where=ALWAYS).count == 2500
        assert docs.count() == 0


# --- tenants


def test_a_read_of_a_tenant_that_nobody_wrote_creates_nothing(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "ghost"))
        result = docs.search(E[0])
        assert (list(result), result.complete) == ([], True)
        assert (docs.count(), list(docs.scan()), docs.fetch(["x"])) == (0, [], [])
        assert docs.delete(document="x").count == 0
        docs.replace("x", [])
    assert store.tenants() == {}


def test_a_first_write_creates_its_tenant_or_is_refused_by_config(store):
    with v.connect(store.config) as acl:
        acl.scoped(principal("u", "new tenant")).upsert([Chunk("1", "d", "", E[0])])
    assert list(store.tenants()) == [tenant_name("new tenant")]
    with v.connect(store.with_(new_tenants="refuse")) as acl:
        with pytest.raises(StoreError) as caught:
            acl.scoped(principal("u", "other")).upsert([Chunk("1", "d", "", E[0])])
        assert caught.value.code == "tenant_not_served"
        assert caught.value.sent == "no"
    assert list(store.tenants()) == [tenant_name("new tenant")]


def test_a_tenants_life(store):
    with store.operator() as operator, v.connect(store.config) as acl:
        assert operator.create("acme") == ["created the tenant acme"]
        assert operator.create("acme") == ["it already exists"]
        docs, missing = acl.scoped(principal("u", "acme")), acl.scoped(principal("u", "nobody"))
        docs.upsert([Chunk("1", "d", "", E[0])])
        operator.deactivate("acme")
        assert operator.deactivate("acme") == ["it is already inactive"]
        # At rest it reads like one that was never there, and nothing wakes it.
        for one in (docs, missing):
            assert (list(one.search(E[0])), one.count(), one.delete(document="d").count) == ([], 0, 0)
        with pytest.raises(StoreError, match="is not served") as caught:
            docs.upsert([Chunk("2", "d", "", E[1])])
        assert caught.value.code == "tenant_not_served"
        (info,) = operator.tenants()
        assert (info.tenant, info.state, info.tier) == ("acme", "inactive", "own")
        assert store.tenants() == {"t_acme": "INACTIVE"} or store.tenants() == {"t_acme": "COLD"}
        operator.activate("acme")
        assert docs.count() == 1
        assert operator.tenants()[0].rows == 1
        with pytest.raises(RefusedError, match="offload module"):
            operator.offload("acme")
        with pytest.raises(RefusedError, match="its own shard"):
            operator.promote("acme")
        assert "removed the tenant acme" in operator.remove("acme")[0]
        assert operator.remove("acme") == []
        assert store.tenants() == {}
        assert "acme" not in str(store.ask("GET", f"/v1/schema/{store.collection}"))
        with pytest.raises(RefusedError, match="no such tenant"):
            operator.activate("acme")
        assert docs.count() == 0


def test_a_hashed_tenant_is_listed_by_the_id_in_its_tags(store):
    with v.connect(store.config) as acl, store.operator() as operator:
        acl.scoped(principal("u", "a b/é")).upsert([Chunk("1", "d", "", E[0])])
        operator.create("empty one")
        assert {one.tenant for one in operator.tenants()} == {"a b/é", f"({tenant_name('empty one')})"}


def test_a_field_that_is_declared_later_is_given_to_the_objects_that_have_it(store):
    with v.connect(store.config) as acl:
        for tenant in ("acme", "beta"):
            docs = acl.scoped(principal("u", tenant))
            docs.upsert([Chunk(str(i), "d", "", E[0], metadata={"size": i} if i % 2 else {}) for i in range(6)])
    later = store.with_(metadata={"year": "number", "lang": "keyword", "size": "number"})
    with pytest.raises(v.PostureError), v.connect(later) as acl:
        acl.open()
    with store.operator(metadata=later["stores"]["main"]["metadata"]) as operator:
        assert "'size' of every object" in operator.plan()
        operator.provision()
        assert operator.provision() == ["everything is in place"]
    with v.connect(later) as acl:
        for tenant in ("acme", "beta"):
            docs = acl.scoped(principal("u", tenant))
            assert {hit.id for hit in docs.scan(F["size"] >= 3)} == {"3", "5"}
            assert docs.count(F["size"].is_missing()) == 3


def test_writes_outside_of_a_narrowed_handle_change_nothing(store):
    with v.connect(store.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.upsert([Chunk("en", "d", "", E[0], metadata={"lang": "en"}), Chunk("fr", "d", "", E[1])])
        narrow = docs.narrow(F.lang == "en")
        for work in (
            lambda: narrow.upsert([Chunk("fr", "d", "x", E[0], metadata={"lang": "en"})]),
            lambda: narrow.replace("d", [Chunk("en", "d", "x", E[0], metadata={"lang": "en"})]),
            lambda: narrow.replace("d", []),
        ):
            with pytest.raises(DeniedError):
                work()
        assert narrow.delete(document="d").count == 1
        assert [hit.id for hit in docs.scan()] == ["fr"]


def test_asyncio_is_the_same(store):
    async def work():
        async with v.aconnect(store.config) as acl:
            docs = acl.scoped(principal("u", "acme"))
            await docs.upsert([Chunk(str(i), "d", f"text {i}", E[i]) for i in range(4)])
            await docs.replace("d", [Chunk("1", "d", "new", E[1])])
            found = await asyncio.gather(*(docs.search(E[1], 3) for _ in range(20)))
            assert all([hit.text for hit in one] == ["new"] for one in found)
            assert [hit.id async for hit in docs.scan()] == ["1"]
            assert (await docs.search(Hybrid("new", E[1]), 3))[0].id == "1"
            ghost = acl.scoped(principal("u", "ghost"))
            assert (await ghost.count()) == 0

    asyncio.run(work())


@pytest.mark.parametrize("name", ["gone\u3164", "a*b"])
def test_a_tenant_whose_id_is_refused_now_is_listed_and_removed(store, monkeypatch, name):
    """A former version took it. It is neither read nor written any more, and nothing else is done to it."""
    with v.connect(store.config) as acl, store.operator() as operator:
        with monkeypatch.context() as patch:
            patch.setattr("vectoracl.model.identifiers._strict_problem", lambda *_: None)
            acl.scoped(principal("u", name)).upsert([Chunk("1", "d", "", E[0])])
        acl.scoped(principal("u", "other")).upsert([Chunk("1", "d", "", E[0])])
        assert {one.tenant: one.rows for one in operator.tenants()} == {name: 1, "other": 1}
        for act in (operator.create, operator.deactivate, operator.activate):
            with pytest.raises(v.InvalidTenantError):
                act(name)
        with pytest.raises(v.InvalidTenantError):
            operator.remove("never*was")
        assert name in operator.remove(name)[0]
        assert [one.tenant for one in operator.tenants()] == ["other"]
        assert acl.scoped(principal("u", "other")).count() == 1
        with pytest.raises(v.InvalidTenantError):
            operator.remove(name)  # it is there no more


def test_a_tenant_that_says_no_id_is_removed_by_what_is_listed(store):
    """Its name is a hash and it holds nothing, so that it is listed by that name, in brackets."""
    with store.operator() as operator:
        operator.create("an empty one, é")
        operator.create("(t_plain)")
        operator.create("plain")
        listed = sorted(one.tenant for one in operator.tenants())
        assert [one for one in listed if one.startswith("(")] == sorted(one for one in listed if one != "plain")
        for one in listed:
            assert operator.remove(one)
            assert operator.remove(one) == []
        assert operator.tenants() == []
