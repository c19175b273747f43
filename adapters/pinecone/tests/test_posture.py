"""What the posture check says of an index, and what provisioning does to it."""

from __future__ import annotations

from typing import Any

import pytest

import vectoracl as v
from vectoracl import testing
from vectoracl_pinecone import schema
from vectoracl_pinecone.plugin import vectoracl_rules
from vectoracl_pinecone.posture import Seen, judge
from vectoracl_pinecone.requests import Stats

from pinecone_support.shapes import config
from pinecone_support.stores import Provisioned
from pinecone_support.stub import KEY, Answer, stub

ALICE = testing.principal("alice", "acme")
RIGHT = Stats(2, "cosine", 0, {}, "vector", "docs")


def rules_of(found: Any) -> set[str]:
    return {one.rule.id for one in found.findings}


@pytest.mark.parametrize(
    ("seen", "ids", "grade"),
    [
        (Seen(RIGHT), set(), "partition"),
        (Seen(RIGHT, missing=True), {"PC001"}, "none"),
        (Seen(RIGHT, refused=True), {"PC002"}, "none"),
        (Seen(RIGHT._replace(dimension=3)), {"PC003"}, "none"),
        (Seen(RIGHT, dimension=False), {"PC003"}, "none"),
        (Seen(RIGHT._replace(metric="euclidean")), {"PC004"}, "none"),
        (Seen(RIGHT, stray=True), {"PC005"}, "none"),
        (Seen(RIGHT, writes=False), {"PC006"}, "partition"),
        (Seen(None), {"PC007"}, "partition"),
    ],
)
def test_each_finding_has_its_rule_and_its_grade(seen: Seen, ids: set[str], grade: str) -> None:
    found = judge(config(index="docs"), seen)
    assert (rules_of(found), found.grade) == (ids, grade)
    assert all(one.fix and one.message for one in found.findings)


def test_an_address_without_encryption_is_said_but_for_this_machine() -> None:
    for host, ids in (("http://index.example", {"PC008"}), ("http://127.0.0.1:5080", set()), ("index.example", set())):
        assert rules_of(judge(config(host=host), Seen(RIGHT))) == ids


def test_every_rule_can_be_found() -> None:
    assert {rule.id for rule in vectoracl_rules()} == {f"PC{number:03}" for number in range(1, 11)}


def test_a_live_index(store: Provisioned) -> None:
    with v.VectorACL(store.config) as acl:
        (found,) = acl.check().values()
        assert (found.grade, rules_of(found)) == ("partition", {"PC007"})
        store.ask("POST", "/vectors/upsert", json={"vectors": [{"id": "stray", "values": [1.0] * 8}]})
        (found,) = acl.check().values()
        assert (found.grade, rules_of(found)) == ("none", {"PC005", "PC007"})
    with pytest.raises(v.PostureError, match="PC005"):
        v.connect(store.config)


def test_the_wrong_dimension_the_wrong_index_and_the_wrong_key(store: Provisioned) -> None:
    for settings, ids in (
        ({"dimension": 9}, {"PC003", "PC007"}),
        ({"host": store.needle.host("nowhere")}, {"PC001"}),
        ({"api_key": "not-the-key"}, {"PC002"}),
    ):
        with v.VectorACL(store.with_(**settings)) as acl:
            (found,) = acl.check().values()
        assert (found.grade, rules_of(found)) == ("none", ids)


def test_a_key_that_may_only_read_serves_reads(store: Provisioned) -> None:
    key = store.needle.make_key("read")
    with v.connect(store.with_(api_key=key)) as acl:
        (found,) = acl.check().values()
        assert (found.grade, rules_of(found)) == ("partition", {"PC006", "PC007"})
        assert acl.scoped(ALICE).count() == 0
        with pytest.raises(v.StoreError) as failed:
            acl.scoped(ALICE).upsert([v.Chunk("c", "d", "", [1.0] * 8)])
        assert (failed.value.code, failed.value.sent) == ("unauthorized", "no")


def test_the_wrong_metric_is_found_by_the_control_plane_and_by_provisioning(store: Provisioned) -> None:
    with v.VectorACL(store.with_(metric="l2")) as acl:
        operator = acl.operator()
        with pytest.raises(v.PostureError, match="ranks by cosine"):
            operator.plan()
        with pytest.raises(v.PostureError, match="ranks by cosine"):
            operator.provision()
        operator.close()
    with stub(metric="dotproduct") as server:
        main = {"adapter": "pinecone", "index": "docs", "control_host": server.host, "api_key": KEY, "dimension": 8}
        with v.VectorACL({"version": 1, "stores": {"main": main}}) as acl:
            (found,) = acl.check().values()
        assert (found.grade, rules_of(found)) == ("none", {"PC004"})


def test_a_key_of_the_data_plane_alone_is_enough() -> None:
    with stub() as server:
        server.fault = lambda one: Answer(403) if one.path.startswith("/indexes") else None
        main = {"adapter": "pinecone", "index": "docs", "host": server.host, "control_host": server.host,
                "kind": "vector", "api_key": KEY, "dimension": 8}  # fmt: skip
        with v.connect({"version": 1, "stores": {"main": main}}) as acl:
            assert acl.scoped(ALICE).count() == 0


def test_what_is_asked_before_serving_does_not_name_a_tenant(store: Provisioned) -> None:
    with stub() as server:
        main = {"adapter": "pinecone", "host": server.host, "api_key": KEY, "dimension": 8}
        with v.connect({"version": 1, "stores": {"main": main}}):
            pass
        asked = [(one.path, {**one.params, **(one.body or {})}.get("namespace", "")) for one in server.asked]
    unused_namespace = "vectoracl-nobody-"
    itself = ("/query", "vectoracl-about-")  # what the index keeps of itself
    assert asked == [("/query", unused_namespace), ("/vectors/list", ""), ("/vectors/delete", unused_namespace), itself]


def test_the_plan_of_an_index_that_is_not_there() -> None:
    step = schema.index(config(index="docs", host=None, metric="l2"))
    assert '"_values":{"type":"dense_vector","dimension":2,"metric":"euclidean"}' in schema.text_of(step)
    step = schema.index(config(index="docs", host=None, kind="document"))
    assert '"embedding":{"type":"dense_vector"' in schema.text_of(step)
    with pytest.raises(v.RefusedError, match="dimension 2"):
        schema.index(config())


def test_namespaces_that_are_nobodys_are_told_to_the_operator(store: Provisioned) -> None:
    body = {"namespace": "theirs", "vectors": [{"id": "x", "values": [1.0] * 8}]}
    store.ask("POST", "/vectors/upsert", json=body)
    with v.VectorACL(store.config) as acl:
        operator = acl.operator()
        assert "1 namespaces with 1 records" in operator.plan()
        assert operator.tenants() == []
        for move in (operator.promote, operator.demote):
            with pytest.raises(v.RefusedError):
                move("acme")
        operator.close()
