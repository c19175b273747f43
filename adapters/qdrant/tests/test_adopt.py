"""An existing collection is taken over: planned, checked, copied, verified, and never changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

import vectoracl as v
from vectoracl import F, Hybrid, Lexical, hazmat, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.errors import RefusedError, StoreError
from vectoracl.sharding import AdoptJob
from vectoracl_conformance.strategies import unit

from qdrant_support.stores import Provisioned

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")
Payload = Callable[[int], dict[str, Any]]


def fill(client: QdrantClient, payload: Payload, count: int = 450, *, vector: str | None = None) -> str:
    name = f"old_{np.random.default_rng().integers(1 << 40)}"
    params = models.VectorParams(size=8, distance=models.Distance.COSINE)
    client.create_collection(name, vectors_config=params if vector is None else {vector: params})
    rng = np.random.default_rng(1)
    points = []
    for i in range(count):
        one: Any = unit(rng).tolist()
        points.append(models.PointStruct(id=i, vector=one if vector is None else {vector: one}, payload=payload(i)))
    client.upsert(name, points)
    return name


@contextmanager
def operating(store: Provisioned, **adopt: Any) -> Iterator[Any]:
    config = {"version": 1, "stores": {"main": {**store.config["stores"]["main"], "adopt": adopt}}}
    with v.VectorACL(config) as acl:
        operator = acl.operator()
        yield operator
        operator.close()


def flat(i: int) -> dict[str, Any]:
    tenant = "acme" if i % 3 else "beta"
    return {"tenant_id": tenant, "text": f"text {i} apple", "doc_id": f"d{i % 7}", "year": 2000 + i % 5, "odd": None}


@pytest.fixture
def store(provisioned: Any) -> Provisioned:
    made: Provisioned = provisioned(metadata={"year": "number"}, page=50)
    return made


def rows(client: QdrantClient, name: str) -> list[Any]:
    return client.scroll(name, limit=1000, with_vectors=True)[0]


def test_a_collection_is_planned_copied_and_verified_and_stays_as_it_is(store: Provisioned) -> None:
    old = fill(store.client, flat)
    before = rows(store.client, old)
    told: list[tuple[str, int, int | None]] = []
    with operating(store) as operator:
        plan = operator.plan(adopt=old)
        assert all(line.startswith("#") for line in plan.splitlines() if line)
        for part in ("tenant      tenant_id", "document    doc_id", "text        text", "450 points of 2 tenants"):
            assert part in plan
        assert "REFUSED" not in plan
        assert rows(store.client, store.collection) == [], "a plan changes nothing"
        done = operator.provision(adopt=old, progress=lambda *one: told.append(one))
        assert "450 points copied, 0 were there already" in done[-1]
        assert {what for what, _, _ in told} >= {"checking points", "copying", "verifying"}
        assert operator.provision(adopt=old)[-1].startswith(f"adopted {old}: 0 points copied, 450 were there")
    assert rows(store.client, old) == before
    with v.connect(store.config) as acl:
        alice, bob = acl.scoped(ALICE), acl.scoped(BOB)
        assert (alice.count(), bob.count()) == (300, 150)
        assert alice.count(where=F.year >= 2003) == sum(1 for i in range(450) if i % 3 and i % 5 >= 3)
        for query in (Lexical("apple"), Hybrid("apple", [1.0] * 8)):
            assert len(alice.search(query, 5)) == 5
        (hit,) = bob.fetch(["0"], include={"text", "metadata", "vector"})
        assert (hit.document, hit.text, hit.metadata) == ("d0", "text 0 apple", {"year": 2000})
        assert np.allclose(hit.vector, before[0].vector, atol=1e-5)


def test_an_adoption_leaves_a_record_with_its_numbers(store: Provisioned) -> None:
    def holes(i: int) -> dict[str, Any]:
        return {**flat(i), "tenant_id": None} if i == 3 else flat(i)

    good, bad = fill(store.client, flat, 30), fill(store.client, holes, 30)
    sink = MemorySink()
    with v.VectorACL(store.config, sink=sink) as acl:
        operator = acl.operator()
        for old in (good, good, bad):
            try:
                hazmat.adopt(acl, old, operator=operator, reason="a test of its record")
            except RefusedError:
                assert old == bad
        operator.close()
    assert [one["action"] for one in sink.records] == ["hazmat.adopt"] * 3
    numbers = [tuple(one[key] for key in ("returned", "there", "tenants", "refused")) for one in sink.outcomes]
    # The other collection has the same ids as the first one, so every point of it is refused.
    assert numbers == [(30, 0, 2, 0), (0, 30, 2, 0), (0, 0, 2, 30)]


def test_what_was_written_since_is_kept(store: Provisioned) -> None:
    old = fill(store.client, flat, 30)
    with operating(store) as operator:
        operator.provision(adopt=old)
        with v.connect(store.config) as acl:
            bob = acl.scoped(BOB)
            vector = [1.0] * 8
            bob.upsert([v.Chunk("0", "d0", "changed", vector)])
            bob.replace("d3", [v.Chunk("new", "d3", "replaced", vector)])
            assert "0 points copied" in operator.provision(adopt=old)[-1]
            assert bob.fetch(["0"])[0].text == "changed"
            assert [hit.id for hit in bob.scan(where=F["@document"] == "d3")] == ["new"]


def test_nested_metadata_and_a_named_vector(provisioned: Any) -> None:
    """As LangChain writes it: the text beside one object with everything else."""
    store = provisioned(metadata={"year": "number"}, vector="dense", words="lex")

    def payload(i: int) -> dict[str, Any]:
        return {"page_content": f"text {i}", "metadata": {"tenant_id": "acme", "source": f"d{i}", "year": 2000}}

    old = fill(store.client, payload, 20, vector="old")
    with operating(store) as operator:
        plan = operator.plan(adopt=old)
        assert "tenant      metadata.tenant_id" in plan
        assert "document    metadata.source" in plan
        operator.provision(adopt=old)
    with v.connect(store.config) as acl:
        alice = acl.scoped(ALICE)
        (hit,) = alice.fetch(["7"], include={"text", "metadata", "vector"})
        assert (hit.document, hit.text, hit.metadata) == ("d7", "text 7", {"year": 2000})
        assert hit.vector.shape == (8,)
        assert len(alice.search(hit.vector, 3, include={"vector"})) == 3
        assert len(alice.search(Lexical("text"), 3, include={"vector", "text"})) == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"tenant_id": None}, "No tenant"),
        ({"tenant_id": "  "}, "No tenant"),
        ({"tenant_id": ["acme"]}, "No tenant"),
        ({"tenant_id": "*"}, "tenant"),
        ({"tenant_id": "ACME"}, "look alike"),
        ({"year": "2020"}, "year"),
        ({"doc_id": {"a": 1}}, "No document"),
        ({"text": 5}, "not a string"),
        ({"Tenant": "beta", "adopted_Tenant": "x"}, "framework"),
    ],
)
def test_one_point_that_cannot_be_taken_stops_all(store: Provisioned, bad: dict[str, Any], reason: str) -> None:
    old = fill(store.client, lambda i: {**flat(i), **(bad if i == 17 else {})}, 30)
    with operating(store, **({"tenant": "tenant_id"} if "Tenant" in bad else {})) as operator:
        plan = operator.plan(adopt=old)
        assert "REFUSED" in plan
        with pytest.raises(RefusedError, match="nothing was copied") as error:
            operator.provision(adopt=old)
    assert reason in str(error.value)
    if reason != "look alike":
        assert "17" in str(error.value)
    assert rows(store.client, store.collection) == []
    assert "text 17" not in str(error.value)
    assert "text 17" not in plan


def test_the_same_chunk_twice_is_refused(store: Provisioned) -> None:
    old = fill(store.client, lambda i: {**flat(i), "chunk_id": "same"}, 30)
    with operating(store) as operator, pytest.raises(RefusedError, match="The same tenant, document and chunk id"):
        operator.provision(adopt=old)


def test_what_cannot_be_told_is_asked_for(store: Provisioned) -> None:
    two = fill(store.client, lambda i: {**flat(i), "org_id": "x"}, 5)
    none = fill(store.client, lambda i: {"text": f"t{i}"}, 5)
    with operating(store) as operator:
        with pytest.raises(RefusedError, match=r"tenant = "):
            operator.plan(adopt=two)
        with pytest.raises(RefusedError, match=r"\[stores.NAME.adopt\] tenant"):
            operator.plan(adopt=none)
        with pytest.raises(RefusedError, match="no collection"):
            operator.plan(adopt="missing")
        with pytest.raises(RefusedError, match="own"):
            operator.plan(adopt=store.collection)
    with operating(store, tenant="tenant_id", leave_out=("org_id",)) as operator:
        operator.provision(adopt=two)
    store.client.create_collection("narrow", vectors_config=models.VectorParams(size=3, distance="Cosine"))
    with operating(store) as operator, pytest.raises(RefusedError, match="one dense vector of 8 numbers"):
        operator.plan(adopt="narrow")
    store.client.delete_collection("narrow")


def test_a_cosine_collection_does_not_become_one_of_lengths(provisioned: Any) -> None:
    store = provisioned(metric="inner")
    old = fill(store.client, flat, 5)
    with operating(store) as operator, pytest.raises(RefusedError, match="lengths"):
        operator.plan(adopt=old)


def test_a_copy_that_differs_is_said(store: Provisioned, monkeypatch: pytest.MonkeyPatch) -> None:
    from vectoracl_qdrant.adopt import Adoption

    old = fill(store.client, flat, 30)
    write = Adoption.write

    def half(self: Adoption, tenant: str, records: Any) -> None:
        if len(records) > 1:
            write(self, tenant, records[1:])

    monkeypatch.setattr(Adoption, "write", half)
    with operating(store) as operator, pytest.raises(StoreError) as error:
        operator.provision(adopt=old)
    assert error.value.code == "adopt_differs"


def test_chunks_that_were_written_without_words_get_theirs(provisioned: Any) -> None:
    store: Provisioned = provisioned(words=False, page=20)
    with v.connect(store.config) as acl:
        for principal in (ALICE, BOB):
            some = [v.Chunk(f"c{i}", "d", f"apple {i}", unit(np.random.default_rng(i))) for i in range(45)]
            acl.scoped(principal).upsert([*some, v.Chunk("none", "d", "…", [1.0] * 8)])
    config = {"version": 1, "stores": {"main": {**store.config["stores"]["main"], "words": "words"}}}
    with v.VectorACL(config) as acl:
        operator = acl.operator()
        assert "PUT" in operator.plan()
        done = operator.provision()
        assert done[-1] == "wrote the words of 90 existing chunks"
        assert operator.provision() == ["everything is in place"]
        operator.close()
        got = acl.scoped(ALICE).search(Lexical("apple"), 100)
        assert len(got) == 45
        assert acl.scoped(ALICE).search(Lexical("7"), 3)[0].id == "c7"


def test_points_that_changed_since_are_brought_up_to_date(store: Provisioned) -> None:
    old = fill(store.client, flat, 30)
    with operating(store) as operator:
        operator.provision(adopt=old)
        with v.connect(store.config) as acl:
            acl.scoped(BOB).upsert([v.Chunk("0", "d0", "ours", [1.0] * 8)])
        for number, change in ((0, {"text": "theirs"}), (3, {"text": "theirs"}), (4, {"year": 7})):
            store.client.set_payload(old, change, points=[number])
        assert "0 points copied, 2 brought up to date, 28 were there" in operator.provision(adopt=old)[-1]
        assert "0 points copied, 30 were there" in operator.provision(adopt=old)[-1]
    with v.connect(store.config) as acl:
        assert [hit.text for hit in acl.scoped(BOB).fetch(["0", "3"])] == ["ours", "theirs"]
        assert [hit.metadata["year"] for hit in acl.scoped(ALICE).fetch(["4"])] == [7]


def test_two_collections_with_the_same_numbers_stay_apart(store: Provisioned) -> None:
    one, two = fill(store.client, flat, 12), fill(store.client, lambda i: {**flat(i), "text": f"other {i}"}, 12)
    with operating(store) as operator:
        operator.provision(adopt=one)
        with pytest.raises(RefusedError, match="prefix = "):
            operator.provision(adopt=two)
    with operating(store, prefix="two/") as operator:
        assert "prefix" in operator.plan(adopt=two)
        assert "12 points copied" in operator.provision(adopt=two)[-1]
        assert "0 points copied, 12 were there" in operator.provision(adopt=two)[-1]
    with v.connect(store.config) as acl:
        assert [hit.text for hit in acl.scoped(BOB).fetch(["3", "two/3"])] == ["text 3 apple", "other 3"]


def test_a_text_inside_json_and_names_of_the_framework(store: Provisioned) -> None:
    node = json.dumps({"text": "THE TEXT", "metadata": {}})
    old = fill(store.client, lambda i: {"tenant_id": "acme", "_node_content": node, "Namespace": "n", "x": None}, 3)
    with operating(store) as operator:
        plan = operator.plan(adopt=old)
        assert "text        _node_content->>text" in plan
        assert "'Namespace' is a name of the framework: 'adopted_Namespace'" in plan
        assert "3 points copied" in operator.provision(adopt=old)[-1]
    with v.connect(store.config) as acl:
        (hit,) = acl.scoped(ALICE).fetch(["1"])
        assert (hit.text, hit.metadata) == ("THE TEXT", {"_node_content": node, "adopted_Namespace": "n"})


@pytest.mark.parametrize("count", [1, 5])
def test_an_import_in_shards_is_the_import(store: Provisioned, count: int) -> None:
    old = fill(store.client, flat)
    with v.VectorACL(store.config) as acl:
        job = AdoptJob(acl, old, reason="a test of shards")
        plan = job.plan_shards(count)
        assert rows(store.client, store.collection) == [], "a plan copies nothing"
        results = [job.run_shard(json.loads(json.dumps(one))) for one in plan.shards]
        again = [job.run_shard(one) for one in plan.shards]
        total = job.finish(plan, results)
        assert (total.good, total.written) == (True, 450)
        assert {one.tenant: one.rows for one in total.census} == {"acme": 300, "beta": 150}
        assert sum(one["present"] for one in again) == 450
        operator = acl.operator()
        assert operator.provision(adopt=old)[-1].startswith(f"adopted {old}: 0 points copied, 450 were there")
        operator.close()
    with v.connect(store.config) as acl:
        assert (acl.scoped(ALICE).count(), acl.scoped(BOB).count()) == (300, 150)
