"""Records that lie in an index already are taken over: planned, refused where they are not whole, copied, verified."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import vectoracl as v
from vectoracl import hazmat, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.sharding import AdoptJob

from pinecone_support.stores import Provisioned


def put(store: Provisioned, namespace: str, *records: dict[str, Any]) -> None:
    made = [{"values": [1.0, 2, 3, 4, 5, 6, 7, 8], **one} for one in records]
    store.ask("POST", "/vectors/upsert", json={"namespace": namespace, "vectors": made})


def old(number: int, tenant: str | None, **more: Any) -> dict[str, Any]:
    metadata = {"text": f"text {number}", "year": 2000 + number, "source": f"doc {number % 2}", **more}
    return {"id": f"r{number}", "metadata": metadata if tenant is None else {"tenant_id": tenant, **metadata}}


def adopt(store: Provisioned, source: str, **settings: Any) -> tuple[str, Any]:
    seen: list[str] = []
    with v.VectorACL(store.with_(**settings)) as acl:
        operator = acl.operator()
        plan = operator.plan(adopt=source)
        try:
            done: Any = operator.provision(adopt=source, progress=lambda what, *_: seen.append(what))
        except v.VectorACLError as error:
            done = error
        operator.close()
    assert "checking records" in seen
    return plan, done


def test_a_namespace_is_copied_to_its_tenants_and_stays_as_it_was(store: Provisioned) -> None:
    put(store, "old", *(old(i, ["acme", "Bêta"][i % 2]) for i in range(7)))
    plan, done = adopt(store, "old")
    assert "7 records of 2 tenants" in plan
    assert "vectoracl-t-acme" in plan
    assert all(line.startswith("#") for line in plan.splitlines())
    assert "7 records copied, 0 were there already" in done[0]
    assert "0 records copied, 7 were there already" in adopt(store, "old")[1][0]
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        hits = list(docs.scan())
        assert [(hit.document, hit.id, hit.text, hit.metadata) for hit in hits] == [
            ("doc 0", f"r{i}", f"text {i}", {"year": 2000 + i}) for i in (0, 2, 4, 6)
        ]
        docs.replace("doc 0", [v.Chunk("new", "doc 0", "new", np.ones(8))])
        assert docs.count() == 1
    assert "0 records copied" in adopt(store, "old")[1][0]
    with v.connect(store.config) as acl:
        assert [hit.id for hit in acl.scoped(testing.principal("alice", "acme")).scan()] == ["new"]
    assert store.namespaces()["old"] == 7


def test_an_adoption_leaves_a_record_with_its_numbers(store: Provisioned) -> None:
    put(store, "good", *(old(i, ["acme", "beta"][i % 2]) for i in range(7)))
    put(store, "bad", old(8, "acme"), old(9, None))
    sink = MemorySink()
    with v.VectorACL(store.config, sink=sink) as acl:
        operator = acl.operator()
        for source in ("good", "good", "bad"):
            try:
                hazmat.adopt(acl, source, operator=operator, reason="a test of its record")
            except v.RefusedError:
                assert source == "bad"
        operator.close()
    assert [one["action"] for one in sink.records] == ["hazmat.adopt"] * 3
    numbers = [tuple(one[key] for key in ("returned", "there", "tenants", "refused")) for one in sink.outcomes]
    assert numbers == [(7, 0, 2, 0), (0, 7, 2, 0), (0, 0, 1, 1)]


def test_the_default_namespace_is_adopted_and_has_to_be_emptied_by_its_owner(store: Provisioned) -> None:
    put(store, "", *(old(i, "acme") for i in range(3)))
    with pytest.raises(v.PostureError, match="PC005"):
        v.connect(store.config)
    _, done = adopt(store, "__default__")
    assert "3 records copied" in done[0]
    assert "delete" in done[1]
    assert store.namespaces() == {"": 3, "vectoracl-t-acme": 3}
    with pytest.raises(v.PostureError, match="PC005"):
        v.connect(store.config)
    store.ask("POST", "/vectors/delete", json={"deleteAll": True})
    with v.connect(store.config) as acl:
        assert acl.scoped(testing.principal("alice", "acme")).count() == 3


def test_each_namespace_is_a_tenant(store: Provisioned) -> None:
    put(store, "acme", old(1, None), old(2, None))
    put(store, "Beta", old(1, None))
    _, done = adopt(store, "*")
    assert "3 records copied" in done[0]
    with v.connect(store.config) as acl:
        assert acl.scoped(testing.principal("alice", "Beta")).count() == 1
        assert acl.scoped(testing.principal("alice", "acme")).count() == 2


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([old(1, "acme"), old(2, None)], "No tenant. Ids: 'r2'"),
        ([old(1, "acme"), old(2, "ACME")], "look alike"),
        ([old(1, "acme"), old(2, " ")], "No tenant"),
        ([old(1, "acme*")], "wildcard"),
        ([old(1, "acme", document_id="d")], "Several keys may be the document"),
        ([old(1, "acme", **{"@label": "x", "adopted_@label": "y"})], "name of the framework"),
        ([old(1, "acme", year="2001")], "number"),
    ],
)
def test_one_record_that_cannot_be_taken_stops_all(store: Provisioned, records: list[Any], said: str) -> None:
    put(store, "old", *records)
    plan, done = adopt(store, "old")
    assert isinstance(done, v.RefusedError)
    assert said in plan
    assert said in str(done)
    assert store.namespaces() == {"old": len(records)}


def test_a_namespace_that_is_not_there_is_said(store: Provisioned) -> None:
    put(store, "old", old(1, "acme"))
    with v.VectorACL(store.config) as acl:
        operator = acl.operator()
        with pytest.raises(v.RefusedError, match="'old'"):
            operator.plan(adopt="elsewhere")
        operator.close()


def test_records_that_changed_since_are_brought_up_to_date(store: Provisioned) -> None:
    put(store, "old", *(old(i, "acme") for i in range(6)))
    adopt(store, "old")
    with v.connect(store.config) as acl:
        acl.scoped(testing.principal("alice", "acme")).upsert([v.Chunk("r0", "doc 0", "ours", np.ones(8))])
    put(store, "old", old(0, "acme", text="theirs"), old(1, "acme", text="theirs"), old(2, "acme", year=7))
    assert "0 records copied, 2 brought up to date, 4 were there" in adopt(store, "old")[1][0]
    assert "0 records copied, 6 were there" in adopt(store, "old")[1][0]
    with v.connect(store.config) as acl:
        hits = acl.scoped(testing.principal("alice", "acme")).fetch(["r0", "r1", "r2"])
        assert [(hit.text, hit.metadata.get("year")) for hit in hits] == [
            ("ours", None), ("theirs", 2001), ("text 2", 7)
        ]  # fmt: skip


def test_two_namespaces_with_the_same_ids_stay_apart(store: Provisioned) -> None:
    for name in ("one", "two"):
        put(store, name, *(old(i, "acme", text=f"{name} {i}") for i in range(3)))
    adopt(store, "one")
    assert "prefix = " in str(adopt(store, "two")[1])
    assert "3 records copied" in adopt(store, "two", adopt={"prefix": "two/"})[1][0]
    assert "0 records copied, 3 were there" in adopt(store, "two", adopt={"prefix": "two/"})[1][0]
    with v.connect(store.config) as acl:
        hits = acl.scoped(testing.principal("alice", "acme")).fetch(["r1", "two/r1"])
        assert [hit.text for hit in hits] == ["one 1", "two 1"]


def test_a_text_inside_json_and_names_of_the_framework(store: Provisioned) -> None:
    node = json.dumps({"text": "THE TEXT"})
    put(store, "old", {"id": "r", "metadata": {"tenant_id": "acme", "_node_content": node, "Namespace": "n"}})
    plan, done = adopt(store, "old")
    assert "_node_content->>text" in plan
    assert "'Namespace' is a name of the framework: 'adopted_Namespace'" in plan
    assert "1 records copied" in done[0]
    with v.connect(store.config) as acl:
        (hit,) = acl.scoped(testing.principal("alice", "acme")).fetch(["r"])
        assert (hit.text, hit.metadata) == ("THE TEXT", {"_node_content": node, "adopted_Namespace": "n"})


@pytest.mark.parametrize("count", [1, 3])
def test_an_import_in_shards_is_the_import(store: Provisioned, count: int) -> None:
    put(store, "old", *(old(i, ["acme", "Bêta"][i % 2]) for i in range(12)))
    with v.VectorACL(store.config) as acl:
        job = AdoptJob(acl, "old", reason="a test of shards")
        plan = job.plan_shards(count)
        assert set(store.namespaces()) == {"old"}, "a plan copies nothing"
        results = [job.run_shard(json.loads(json.dumps(one))) for one in [*plan.shards, plan.shards[0]]]
        total = job.finish(plan, results)
        assert (total.good, {one.tenant: one.rows for one in total.census}) == (True, {"acme": 6, "Bêta": 6})
        operator = acl.operator()
        assert "0 records copied, 12 were there already" in operator.provision(adopt="old")[0]
        operator.close()
    with v.connect(store.config) as acl:
        assert acl.scoped(testing.principal("alice", "acme")).count() == 6


def test_an_import_in_shards_ends_when_rows_came_or_went(store: Provisioned) -> None:
    put(store, "old", *(old(i, "acme") for i in range(12)))
    with v.VectorACL(store.config) as acl:
        job = AdoptJob(acl, "old", reason="a test of shards")
        plan = job.plan_shards(2)
        put(store, "old", *(old(i, "acme") for i in range(12, 20)))
        total = job.finish(plan, [job.run_shard(one) for one in plan.shards])
        assert (total.good, total.written) == (False, 20)
        (census,) = total.census
        assert census.rows == 20
        assert census.faults == {"Rows came or went in the source after the import was planned.": 8}
