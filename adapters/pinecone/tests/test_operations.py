"""Every operation against the engine, held against the memory store, which is the reference meaning itself."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, hazmat, testing
from vectoracl.model.records import Tag
from vectoracl_conformance.adapter_tests import operations
from vectoracl_conformance.adapter_tests.operations import (  # noqa: F401 - tests that run here too
    test_a_narrowed_handle_cannot_overwrite_what_it_may_not_see,
    test_a_narrowed_handle_deletes_what_the_filter_names_and_nothing_else,
    test_an_update_keeps_identity_and_replaces_content,
)
from vectoracl_conformance.strategies import FIELDS, predicate, rows, unit
from vectoracl_pinecone import writes

from pinecone_support.stores import Provisioned, make

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "Beta & sons")
ONES = np.ones(8)


@pytest.fixture(scope="module", params=["cosine", "l2", "inner"])
def pair(request: pytest.FixtureRequest, needle: Any) -> Any:
    """The same rows in the engine and in memory, for two tenants."""
    store = make(needle, metric=request.param, metadata=FIELDS, page=20)
    here = v.connect(store.config)
    memory = operations.reference(request.param)
    for acl in (here, memory):
        acl.scoped(ALICE).upsert(rows(60))
        acl.scoped(BOB).upsert(rows(20))  # the same ids, and the same vectors, as another tenant
    yield here, memory, request.param
    here.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, k=st.integers(1, 40), grouped=st.booleans(), seed=st.integers(0, 5), size=st.integers(3, 40))
def test_every_filter_means_what_the_reference_means(
    pair: Any, where: v.Predicate, k: int, grouped: bool, seed: int, size: int
) -> None:
    here, memory, metric = pair
    query = unit(np.random.default_rng(seed))
    more: dict[str, Any] = {"group_by": "document", "per_group": 1 + seed % 3} if grouped else {}
    got, wanted = (
        acl.scoped(ALICE).search(query, k, where=where, include={"text", "metadata", "vector"}, **more)
        for acl in (here, memory)
    )
    assert got.complete
    assert len(got) == len(wanted)
    for one, two in zip(got, wanted, strict=True):
        assert math.isclose(one.score, two.score, abs_tol=2e-3 if metric == "l2" else 1e-5, rel_tol=1e-4)
        assert (one.text, one.metadata, one.tenant) == (two.text, two.metadata, "acme")
        assert (one.document, one.id) == (two.document, two.id)
        assert np.allclose(one.vector, two.vector, atol=1e-5)
    assert here.scoped(ALICE).count(where) == memory.scoped(ALICE).count(where)
    scans = [[(hit.document, hit.id) for hit in acl.scoped(ALICE).scan(where, size=size)] for acl in (here, memory)]
    assert scans[0] == scans[1]


@pytest.fixture
def acl(store: Provisioned) -> Any:
    with v.connect(store.config) as opened:
        yield opened


def test_metadata_comes_back_as_it_was_written(acl: v.VectorACL) -> None:
    chunks = [
        changed(one, metadata={key: value for key, value in one.metadata.items() if key not in ("when", "year")})
        for one in rows(24)
    ]
    operations.assert_metadata_returns(acl, chunks)


def test_a_field_that_is_declared_later_reads_what_was_written_before(acl: v.VectorACL, store: Provisioned) -> None:
    operations.write_undeclared(acl)
    for kind, where, wanted in operations.LATE:
        with v.connect(store.with_(metadata={"late": kind})) as later:
            assert {hit.id for hit in later.scoped(ALICE).scan(where, include=set())} == wanted, kind


@pytest.mark.parametrize("more", [1, 9])
def test_an_upsert_into_a_replaced_document_joins_its_generation(acl: v.VectorACL, more: int) -> None:
    """Few documents are listed each; of many it is asked at once which were ever replaced."""
    docs = acl.scoped(ALICE)
    for number in range(3):
        docs.replace("d", [Chunk("c", "d", f"v{number}", ONES)])
    docs.upsert([Chunk("c", "d", "changed", ONES), *(Chunk("n", f"new {i}", "", ONES) for i in range(more))])
    hits = list(docs.scan())
    assert {(hit.document, hit.id, hit.text) for hit in hits if hit.document == "d"} == {("d", "c", "changed")}
    assert {hit.document: hit.tag.generation for hit in hits} == {"d": 3, **{f"new {i}": 0 for i in range(more)}}


def test_an_upsert_joins_the_generation_of_a_document_also_where_one_reply_cannot_tell_it(
    acl: v.VectorACL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one query for many documents has at most `_MOST` records, and one document may fill it."""
    monkeypatch.setattr(writes, "_MOST", 10)
    docs = acl.scoped(ALICE)
    names = [f"d{i}" for i in range(9)]
    for name in names:
        for number in range(2):
            docs.replace(name, [Chunk(str(i), name, f"v{number}", ONES) for i in range(4)])
    docs.upsert([Chunk("0", name, "changed", ONES) for name in names])
    hits = list(docs.scan())
    assert len(hits) == 36
    assert {hit.tag.generation for hit in hits} == {2}


def test_a_long_name_keeps_the_order_of_a_scan(acl: v.VectorACL) -> None:
    """Names that share more than what an id can sort by are sorted by themselves, also over pages."""
    docs = acl.scoped(ALICE)
    names = [f"{'n' * 130}{i:02}" for i in (7, 3, 11, 2, 30, 5)] + ["n" * 100, "n" * 99, "o", "a", "n" * 101]
    ids = ["c" * 140 + "2", "c" * 140 + "10", "c", "é" * 60, "é" * 51]
    docs.upsert([Chunk(one, name, "", ONES) for name in names for one in ids])
    wanted = sorted((name, one) for name in names for one in ids)
    for size in (2, 7, 100):
        assert [(hit.document, hit.id) for hit in docs.scan(size=size)] == wanted
    cut = next(name for name in names if len(name) > 130)
    assert docs.delete(ids=[(cut, ids[0]), (cut, "c")]).count == 2
    assert docs.delete(document=cut).count == 3
    assert docs.count() == len(wanted) - 5


def test_more_hits_than_one_reply_holds(store: Provisioned) -> None:
    with v.connect(store.with_(page=7)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(rows(60) and [Chunk(f"{i:03}", "d", "t", unit(np.random.default_rng(i))) for i in range(60)])
        query = unit(np.random.default_rng(99))
        some, all_ = docs.search(query, 30), docs.search(query, 60)
        assert len(all_) == 60
        assert [hit.id for hit in some] == [hit.id for hit in all_][:30]
        assert len(docs.fetch([f"{i:03}" for i in range(0, 60, 2)])) == 30
        assert len(docs.search(query, 61)) == 60


def test_tenants_whose_names_look_alike_have_namespaces_of_their_own(acl: v.VectorACL, store: Provisioned) -> None:
    tenants = ["acme", "ACME", "Acme", "acme.", "acme/x", "é", "e\u0301".encode().hex(), "x-61", "a", "61",
               "__default__", "default", "t" * 101, "t" * 100, "é" * 51, "é" * 50]  # fmt: skip
    for number, tenant in enumerate(tenants):
        acl.scoped(testing.principal("alice", tenant)).upsert([Chunk("c", "d", f"of {number}", ONES)])
    for number, tenant in enumerate(tenants):
        hits = acl.scoped(testing.principal("alice", tenant)).search(ONES, 5)
        assert [(hit.text, hit.tenant) for hit in hits] == [(f"of {number}", tenant)]
    names = store.namespaces()
    assert len(names) == len(tenants)
    assert all(name.startswith("vectoracl-") for name in names)
    operator = acl.operator()
    assert {one.tenant for one in operator.tenants()} == set(tenants)
    operator.close()


def test_async_answers_as_sync_does(store: Provisioned) -> None:
    async def go() -> tuple[Any, ...]:
        async with v.aconnect(store.config) as acl:
            docs = acl.scoped(ALICE)
            await docs.upsert([Chunk(f"c{i}", "d", f"t{i}", unit(np.random.default_rng(i))) for i in range(5)])
            await docs.replace("e", [Chunk("x", "e", "e", ONES)])
            found = await docs.search(ONES, 3)
            page = await docs.page(size=2)
            gone = await docs.delete(ids=["c0", "nowhere"])
            return [hit.id for hit in found], len(page.hits), gone.count, await docs.count()

    ids, page, gone, left = asyncio.run(go())
    with v.connect(store.config) as acl:
        assert acl.scoped(ALICE).count() == left == 5
    assert (len(ids), page, gone) == (3, 2, 1)


def test_a_row_that_was_moved_to_another_namespace_is_a_violation(acl: v.VectorACL, store: Provisioned) -> None:
    acl.scoped(ALICE).upsert([Chunk("c", "d", "alice's", ONES)])
    (name,) = store.namespaces()
    listed = store.ask("GET", "/vectors/list", params={"namespace": name})["vectors"]
    row = store.ask("GET", "/vectors/fetch", params={"namespace": name, "ids": [listed[0]["id"]]})["vectors"]
    (one,) = row.values()
    store.ask("POST", "/vectors/upsert", json={"namespace": "vectoracl-t-beta", "vectors": [one]})
    with pytest.raises(v.ScopeViolationError):
        acl.scoped(testing.principal("bob", "beta")).search(ONES, 3)
    one["metadata"]["acl_tenant"] = "beta"
    store.ask("POST", "/vectors/upsert", json={"namespace": "vectoracl-t-beta", "vectors": [one]})
    with pytest.raises(v.ScopeViolationError):
        acl.scoped(testing.principal("bob", "beta")).fetch(["c"])


def test_nothing_is_created_by_reading(acl: v.VectorACL, store: Provisioned) -> None:
    docs = acl.scoped(testing.principal("eve", "nobody"))
    assert docs.count() == len(docs.search(ONES, 3)) == len(docs.fetch(["c"])) == len(list(docs.scan())) == 0
    assert docs.delete(document="d").count == docs.delete(where=F.year > 1).count == 0
    assert store.namespaces() == {}


def test_the_tag_says_what_was_written(acl: v.VectorACL) -> None:
    acl.scoped(ALICE).upsert([Chunk("c", "d", "t", ONES, position=3)])
    (hit,) = acl.scoped(ALICE).fetch(["c"])
    assert hit.tag[:7] == Tag("acme", "d", "c")[:7]
    assert (hit.tag.producer, hit.tag.path, hit.tag.position) == ("alice", "upsert", 3)


def test_like_finds_neighbours_inside_the_scope_only(acl: v.VectorACL) -> None:
    acl.scoped(ALICE).upsert([Chunk("c", "d", "a", np.eye(8)[0]), Chunk("n", "d", "", ONES)])
    acl.scoped(BOB).upsert([Chunk("theirs", "d", "b", np.eye(8)[1])])
    assert [hit.id for hit in acl.scoped(ALICE).search(v.Like("c"), 5)] == ["n"]
    foreign, absent = (acl.scoped(ALICE).search(v.Like(one), 5) for one in ("theirs", "nowhere"))
    assert foreign == absent
    assert not foreign


def test_concurrent_replacements_of_one_document_leave_one_whole(acl: v.VectorACL) -> None:
    docs = acl.scoped(ALICE)

    def work(name: str) -> None:
        for turn in range(4):
            docs.replace("d", [Chunk(f"{name}{turn}-{i}", "d", f"{name}{turn}", ONES) for i in range(4)])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hits = list(docs.scan())
    assert len({(hit.tag.generation, hit.text) for hit in hits}) == 1
    assert len(hits) == 4


def test_a_search_for_more_than_there_is_asks_whether_there_is_more(acl: v.VectorACL, store: Provisioned) -> None:
    docs = acl.scoped(ALICE)
    docs.upsert([Chunk(f"c{i}", "d", "", unit(np.random.default_rng(i))) for i in range(3)])
    before = store.needle.counts()["answered"]
    assert docs.search(ONES, 3).complete
    assert store.needle.counts()["answered"] == before + 1
    found = docs.search(ONES, 4)
    assert (len(found), found.complete, found.shortfall) == (3, True, None)
    assert store.needle.counts()["answered"] == before + 3


def test_an_index_that_loses_rows_is_said() -> None:
    from vectoracl import ALWAYS
    from vectoracl.adapter_api.operations import Search
    from vectoracl_pinecone.adapter import PineconeAdapter
    from vectoracl_pinecone.requests import Match

    from pinecone_support.shapes import QUERY, TENANT, TEXT, config

    flow = PineconeAdapter(config(), {}).search(Search(TENANT, ALWAYS, ALWAYS, QUERY, 3, TEXT))
    next(flow)
    asked = flow.send(())
    assert asked.top_k == 1
    with pytest.raises(StopIteration) as ended:
        flow.send((Match("somewhere"),))
    assert (ended.value.value.complete, ended.value.value.shortfall is None) == (False, False)


def test_groups_of_a_store_whose_nearest_document_has_many_chunks(acl: v.VectorACL) -> None:
    docs = acl.scoped(ALICE)
    near = [Chunk(f"c{i:03}", "near", "", np.eye(8)[0] + i / 1e4) for i in range(150)]
    far = [Chunk(f"c{i}", f"far {number}", "", np.eye(8)[1] + number / 10) for number in range(6) for i in range(2)]
    docs.upsert([*near, *far])
    found = docs.search(np.eye(8)[0], 4, group_by="document", per_group=2)
    assert [hit.document for hit in found] == ["near"] * 2 + [f"far {number}" for number in (5, 5, 4, 4, 3, 3)]
    assert len(docs.search(np.eye(8)[0], 50, group_by="document")) == 7


def test_a_search_over_all_tenants_reads_no_namespace_that_is_not_a_tenants(
    acl: v.VectorACL, store: Provisioned
) -> None:
    for tenant in ("acme", "Beta & sons", "é" * 60):
        acl.scoped(testing.principal("u", tenant)).upsert([Chunk("c", "d", "t", ONES)])
    for name in ("other", "vectoracl-other", "vectoracl-x-zz"):
        body = {"namespace": name, "vectors": [{"id": "x", "values": [1.0] * 8, "metadata": {"a": 1}}]}
        store.ask("POST", "/vectors/upsert", json=body)
    hits = hazmat.unscoped(acl, reason="a test of it").search(ONES, 9)
    assert {hit.tenant for hit in hits} == {"acme", "Beta & sons", "é" * 60}
