"""Every operation against Qdrant, held against the memory store, which is the reference meaning itself."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from dataclasses import replace as changed
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

import vectoracl as v
from vectoracl import Chunk, F, testing
from vectoracl_conformance.adapter_tests import operations
from vectoracl_conformance.adapter_tests.operations import (  # noqa: F401 - tests that run here too
    test_a_narrowed_handle_cannot_overwrite_what_it_may_not_see,
    test_a_narrowed_handle_deletes_what_the_filter_names_and_nothing_else,
    test_an_update_keeps_identity_and_replaces_content,
    test_facets_are_the_references,
    test_readers_see_the_old_version_or_the_new_one,
)
from vectoracl_conformance.strategies import FIELDS, predicate, rows, unit

from qdrant_support.stores import URL, Provisioned

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")


@pytest.fixture(scope="module", params=["cosine", "l2", "inner"])
def pair(request: pytest.FixtureRequest, provisioned: Any) -> Any:
    """The same rows in Qdrant and in memory, for two tenants."""
    store = provisioned(metric=request.param, metadata=FIELDS, page=20)
    here = v.connect(store.config)
    memory = operations.reference(request.param)
    for acl in (here, memory):
        acl.scoped(ALICE).upsert(rows(60))
        acl.scoped(BOB).upsert(rows(20))  # the same ids, and the same vectors, as another tenant
    yield here, memory, request.param
    here.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, k=st.integers(1, 12), grouped=st.booleans(), seed=st.integers(0, 5), size=st.integers(7, 40))
def test_every_filter_means_what_the_reference_means(
    pair: Any, where: v.Predicate, k: int, grouped: bool, seed: int, size: int
) -> None:
    here, memory, metric = pair
    query = unit(np.random.default_rng(seed))
    more: dict[str, Any] = {"group_by": "document", "per_group": 2} if grouped else {}
    got, wanted = (
        acl.scoped(ALICE).search(query, k, where=where, include={"text", "metadata", "vector"}, **more)
        for acl in (here, memory)
    )
    assert got.complete
    assert len(got) == len(wanted)
    assert {hit.tenant for hit in got} <= {"acme"}
    for one, two in zip(got, wanted, strict=True):
        assert math.isclose(one.score, two.score, abs_tol=1e-5, rel_tol=1e-5)
        assert (one.document, one.id) == (two.document, two.id)
        assert (one.text, one.metadata) == (two.text, two.metadata)
        length = np.linalg.norm(two.vector) if metric == "cosine" else 1.0  # Qdrant normalises for the cosine
        assert np.allclose(one.vector, two.vector / length, atol=1e-6)
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
        config = {**store.config, "stores": {"main": {**store.config["stores"]["main"], "metadata": {"late": kind}}}}
        with v.connect(config, store="main") as later:
            if URL:
                later.operator().provision()
            assert {hit.id for hit in later.scoped(ALICE).scan(where, include=set())} == wanted, kind


def test_an_upsert_into_a_replaced_document_joins_its_generation(acl: v.VectorACL) -> None:
    docs = acl.scoped(ALICE)
    for number in range(3):
        docs.replace("d", [Chunk("c", "d", f"v{number}", np.ones(8))])
    docs.upsert(
        [Chunk("c", "d", "changed", np.ones(8)), Chunk("e", "d", "more", np.ones(8)), Chunk("n", "new", "", np.ones(8))]
    )
    assert {(hit.document, hit.id, hit.tag.generation, hit.text) for hit in docs.scan()} == {
        ("d", "c", 2, "changed"), ("d", "e", 2, "more"), ("new", "n", 0, ""),
    }  # fmt: skip


def test_the_narrowed_handle_itself_writes_and_deletes(acl: v.VectorACL) -> None:
    narrow = acl.scoped(ALICE).narrow(F.year >= 2020)
    narrow.upsert([Chunk("c", "d", "a", np.ones(8), metadata={"year": 2021})])
    narrow.upsert([Chunk("c", "d", "b", np.ones(8), metadata={"year": 2022})])
    narrow.replace("d", [Chunk("e", "d", "c", np.ones(8), metadata={"year": 2023})])
    assert [(hit.id, hit.text) for hit in narrow.scan()] == [("e", "c")]
    assert narrow.delete(ids=[("d", "e"), ("d", "no"), "nowhere"]).count == 1
    assert acl.scoped(ALICE).count() == 0


def test_like_finds_neighbours_inside_the_scope_only(acl: v.VectorACL) -> None:
    acl.scoped(ALICE).upsert([Chunk("c", "d", "a", [1, 0, 0, 0, 0, 0, 0, 0.0]), Chunk("n", "d", "", np.ones(8))])
    acl.scoped(BOB).upsert([Chunk("theirs", "d", "b", [0, 1, 0, 0, 0, 0, 0, 0.0])])
    assert [hit.id for hit in acl.scoped(ALICE).search(v.Like("c"), 5)] == ["n"]
    foreign, missing = (acl.scoped(ALICE).search(v.Like(one), 5) for one in ("theirs", "nowhere"))
    assert foreign == missing
    assert not foreign


def test_the_unscoped_door_ranks_all_tenants(acl: v.VectorACL) -> None:
    from vectoracl import hazmat

    for who in (ALICE, BOB):
        acl.scoped(who).upsert([Chunk("c", "d", who.id, np.ones(8))])
    hits = hazmat.unscoped(acl, reason="a test of it").search(np.ones(8), 5)
    assert {hit.tenant for hit in hits} == {"acme", "beta"}


def test_concurrent_replacements_of_one_document_leave_one_whole(acl: v.VectorACL) -> None:
    """Each is done, or told that it met another one; what is there at the end was acknowledged, and the last to be."""
    docs = acl.scoped(ALICE)
    done: list[str] = []
    refused: list[v.StoreError] = []

    def work(name: str) -> None:
        for turn in range(10):
            text = f"{name}{turn}"
            try:
                docs.replace("d", [Chunk(f"{text}-{i}", "d", text, np.ones(8)) for i in range(4)])
            except v.StoreError as error:
                refused.append(error)
            else:
                done.append(text)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(error.code, error.sent, error.written) for error in refused} <= {("conflict", "no", 0)}
    hits = list(docs.scan())
    assert [hit.tag.generation for hit in hits] == [len(done) - 1] * 4
    assert {hit.text for hit in hits} <= set(done)
    assert len({hit.text for hit in hits}) == 1


def test_sync_and_async_see_the_same_store(store: Provisioned) -> None:
    async def work() -> list[str]:
        async with v.aconnect(store.config) as acl:
            docs = acl.scoped(ALICE)
            await docs.upsert([Chunk("async", "d", "", np.ones(8))])
            return [hit.id for hit in await docs.search(np.ones(8), 5)]

    with v.connect(store.config) as acl:
        acl.scoped(ALICE).upsert([Chunk("sync", "d", "", np.ones(8))])
        assert sorted(asyncio.run(work())) == ["async", "sync"]
        assert acl.scoped(ALICE).count() == 2


def test_a_point_whose_tag_was_rewritten_is_an_incident(acl: v.VectorACL, store: Provisioned) -> None:
    acl.scoped(ALICE).upsert([Chunk("c", "d", "secret", np.ones(8))])
    everything = models.FilterSelector(
        filter=models.Filter(must=[models.FieldCondition(key="group_id", match=models.MatchValue(value="acme"))])
    )
    store.client.set_payload(store.collection, {"group_id": "beta"}, points=everything, wait=True)
    with pytest.raises(v.ScopeViolationError):
        acl.scoped(BOB).search(np.ones(8), 5)


def test_a_write_that_is_too_large_is_refused_before_it_is_sent(provisioned: Any) -> None:
    store = provisioned(max_request_bytes=20_000)
    with v.connect(store.config) as acl:
        docs = acl.scoped(ALICE)
        with pytest.raises(v.InvalidInputError, match="max_request_bytes"):
            docs.upsert([Chunk(str(i), "d", "x" * 1000, np.ones(8)) for i in range(10)])
        assert docs.count() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_port_is_not_used_across_a_fork(store: Provisioned) -> None:
    acl = v.connect(store.config)
    acl.scoped(ALICE).count()
    port = acl._stores["main"].port
    port._pid += 1
    with pytest.raises(v.ClosedError):
        acl.scoped(ALICE).count()
    port._pid -= 1
    acl.close()
