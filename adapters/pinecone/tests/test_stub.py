"""What no server at hand can show, against the recording stub: documents, log positions, and filters' open meanings.

The stub reads `$ne` and `$nin` the other way than needledb where Pinecone's documentation leaves it open, so filters
have to mean the same on both.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import vectoracl as v
from vectoracl import Chunk, F, hazmat, testing
from vectoracl_conformance.strategies import FIELDS, predicate, rows, unit

from pinecone_support.stub import KEY, Stub, stub

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")
ONES = np.ones(8)


def settings(server: Stub, **more: Any) -> dict[str, Any]:
    main = {"adapter": "pinecone", "host": server.host, "api_key": KEY, "dimension": 8, "kind": server.kind, **more}
    return {"version": 1, "stores": {"main": {"metadata": FIELDS, **main}}}


@pytest.fixture(scope="module", params=["vector", "document"])
def pair(request: pytest.FixtureRequest) -> Any:
    with stub(kind=request.param) as server:
        here = v.connect(settings(server, page=20))
        memory = v.connect({"version": 1, "stores": {"m": {"adapter": "memory", "dimension": 8, "metadata": FIELDS}}})
        for acl in (here, memory):
            acl.scoped(ALICE).upsert(rows(40))
            acl.scoped(BOB).upsert(rows(10))
        yield here, memory
        here.close()


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=predicate, k=st.integers(1, 30), size=st.integers(3, 30))
def test_filters_mean_the_same_where_the_open_questions_are_answered_the_other_way(
    pair: Any, where: v.Predicate, k: int, size: int
) -> None:
    here, memory = (acl.scoped(ALICE) for acl in pair)
    query = unit(np.random.default_rng(3))
    got, wanted = (
        docs.search(query, k, where=where, include={"text", "metadata", "vector"}) for docs in (here, memory)
    )
    assert [(hit.document, hit.id, hit.text, hit.metadata) for hit in got] == [
        (hit.document, hit.id, hit.text, hit.metadata) for hit in wanted
    ]
    assert all(math.isclose(one.score, two.score, abs_tol=1e-5) for one, two in zip(got, wanted, strict=True))
    assert here.count(where) == memory.count(where)
    assert [(hit.document, hit.id) for hit in here.scan(where, size=size)] == [
        (hit.document, hit.id) for hit in memory.scan(where, size=size)
    ]


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_every_operation_on_both_kinds_of_index(kind: str) -> None:
    with stub(kind=kind) as server, v.connect(settings(server)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(rows(30))
        acl.scoped(BOB).upsert(rows(5))
        docs.replace("d0", [Chunk("n", "d0", "new", ONES)])
        docs.upsert([Chunk("m", "d0", "more", ONES)])
        assert {(hit.id, hit.tag.generation) for hit in docs.scan(F["@document"] == "d0")} == {("n", 1), ("m", 1)}
        assert [hit.text for hit in docs.fetch(["n"])] == ["new"]
        before = docs.count()
        assert docs.delete(ids=[("d0", "m"), "nowhere"]).count == 1
        assert docs.delete(where=F["@document"] == "d1").count == before - 1 - docs.count()
        assert docs.delete(document="d0").count == 1
        assert [hit.id for hit in docs.search(v.Like("c003"), 3)]
        hits = hazmat.unscoped(acl, reason="a test of it").search(ONES, 5)
        assert len(hits) == 5
        operator = acl.operator()
        assert {one.tenant for one in operator.tenants()} == {"acme", "beta"}
        operator.close()
        assert acl.scoped(BOB).count() == 5


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_many_matches_come_by_metadata_where_that_is_offered_and_by_listing_where_not(kind: str) -> None:
    made = [Chunk("same", f"d{i}", "", unit(np.random.default_rng(i))) for i in range(60)]
    with stub(kind=kind) as server, v.connect(settings(server, page=20)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert(made)
        assert len(docs.fetch(["same"])) == 60
        path = "/vectors/fetch_by_metadata" if kind == "vector" else "/namespaces/vectoracl-t-acme/documents/fetch"
        assert sum(one.path == path for one in server.asked) == 3
    if kind == "vector":
        with stub(offers=set()) as server, v.connect(settings(server, page=20)) as acl:
            docs = acl.scoped(ALICE)
            docs.upsert(made)
            for _ in range(3):
                assert len(docs.fetch(["same"])) == 60
            assert sum(one.path == path for one in server.asked) == 1  # asked once, then known


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_a_write_waits_until_a_query_has_seen_its_log_position(kind: str) -> None:
    with stub(kind=kind, lsn=True, lag=3) as server, v.connect(settings(server, wait_visible=5)) as acl:
        docs = acl.scoped(ALICE)
        docs.count()
        server.asked.clear()
        docs.upsert([Chunk("c", "d", "", ONES)])
        ends = [one.path.rsplit("/", 1)[-1] for one in server.asked]
        after = ends[ends.index("upsert") + 1 :]
        # Four until it is seen, and then one whether the document was replaced meanwhile.
        assert after == ["query" if kind == "vector" else "search"] * 5

        async def go() -> int:
            async with v.aconnect(settings(server, wait_visible=5)) as other:
                await other.scoped(ALICE).upsert([Chunk("e", "d", "", ONES)])
                return await other.scoped(ALICE).count()

        assert asyncio.run(go()) == 2


def test_a_write_that_is_not_seen_in_time_is_told_from_one_that_failed() -> None:
    with stub(lsn=True, lag=10_000) as server, v.connect(settings(server, wait_visible=0.2)) as acl:
        begun = time.monotonic()
        with pytest.raises(v.StoreError, match="committed") as failed:
            acl.scoped(ALICE).upsert([Chunk("c", "d", "", ONES)])
        assert failed.value.code == "not_visible"
        assert time.monotonic() - begun < 5
        assert len(server.spaces["vectoracl-t-acme"]) == 1


def test_without_log_positions_the_written_record_itself_is_waited_for() -> None:
    with stub() as server, v.connect(settings(server, wait_visible=5)) as acl:
        docs = acl.scoped(ALICE)
        docs.upsert([Chunk("c", "d", "", ONES)])
        docs.delete(document="d")
        probes = [one.body["filter"] for one in server.asked if one.path == "/query" and one.body.get("filter")]
        assert any("acl_time" in str(one) for one in probes)
        assert docs.count() == 0


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_the_kind_of_an_index_is_found_out_and_the_index_is_created(kind: str) -> None:
    with stub(kind=kind, there=False) as server:
        given: dict[str, Any] = {"index": "docs", "host": None, "control_host": server.host, "kind": None}
        if kind == "document":
            given["kind"] = "document"
        with pytest.raises(v.VectorACLError):
            v.connect(settings(server, **given))
        with v.VectorACL(settings(server, **given)) as acl:
            operator = acl.operator()
            # A port cannot be made to an index that is not there: the plan says so without one.
            assert "POST /indexes" in operator.plan()
            assert operator.provision() == ["POST /indexes"]
            operator.close()
        given["kind"] = None
        with v.connect(settings(server, **given)) as acl:
            (posture,) = acl.check().values()
            assert (posture.grade, posture.findings) == ("partition", ())
            assert dict(posture.facts)["kind"] == f"{kind} index"
            acl.scoped(ALICE).upsert([Chunk("c", "d", "", ONES)])
            assert acl.scoped(ALICE).count() == 1

        async def go() -> int:
            async with v.aconnect(settings(server, **given)) as other:
                return await other.scoped(ALICE).count()

        assert asyncio.run(go()) == 1
        assert any(one.path.endswith("/documents/upsert") for one in server.asked) is (kind == "document")


@pytest.mark.parametrize("kind", ["vector", "document"])
def test_records_in_the_default_namespace_are_found_on_both_kinds_of_index(kind: str) -> None:
    with stub(kind=kind) as server, v.VectorACL(settings(server)) as acl:
        assert "PC005" not in {one.rule.id for one in acl.check()["main"].findings}
        server.spaces[""] = {"x": {"id": "x", "values": [1.0] * 8, "metadata": {}}}
        assert "PC005" in {one.rule.id for one in acl.check()["main"].findings}
