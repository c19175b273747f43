"""An existing collection is taken over: planned, checked, copied, verified, and never changed."""

from __future__ import annotations

import json
import secrets
import uuid

import numpy as np
import pytest

import vectoracl as v
from vectoracl import F, Lexical, hazmat, testing
from vectoracl.audit.sinks import MemorySink
from vectoracl.errors import RefusedError, StoreError
from vectoracl.sharding import AdoptJob
from vectoracl_weaviate import tenant_keys

ALICE = testing.principal("alice", "acme")
BOB = testing.principal("bob", "beta")
FLAT = [
    ("tenant_id", "text"),
    ("text", "text"),
    ("doc_id", "text"),
    ("year", "int"),
    ("day", "date"),
    ("tags", "text[]"),
]


def flat(i):
    tenant = "acme" if i % 3 else "beta"
    return {"tenant_id": tenant, "text": f"text {i} apple", "doc_id": f"d{i % 7}", "year": 2000 + i % 5,
            "day": f"2020-01-0{1 + i % 9}T00:00:00Z", "tags": ["a", f"b{i}"]}  # fmt: skip


def vector_of(i):
    return (np.random.default_rng(i).standard_normal(8) * 3).astype(np.float32).tolist()


class Old:
    """Somebody else's collections, dropped at the end."""

    def __init__(self, store):
        self.store = store
        self.made = []

    def fill(self, objects, *, properties=FLAT, tenants=(), named="", metric="cosine", dimension=8):
        """Write (tenant or None, properties) each, with an id that tells its number."""
        name = f"Old{secrets.token_hex(6)}"
        index = {"vectorIndexConfig": {"distance": metric}, "vectorIndexType": "hnsw"}
        body = {"class": name, "properties": [{"name": key, "dataType": [kind]} for key, kind in properties]}
        body |= (
            {"vectorConfig": {named: {"vectorizer": {"none": {}}, **index}}}
            if named
            else {"vectorizer": "none", **index}
        )
        if tenants:
            body["multiTenancyConfig"] = {"enabled": True}
        self.store.ask("POST", "/v1/schema", body)
        self.made.append(name)
        if tenants:
            self.store.ask("POST", f"/v1/schema/{name}/tenants", [{"name": one} for one in tenants])
        batch = []
        for i, (tenant, held) in enumerate(objects):
            one = {"class": name, "id": str(uuid.UUID(int=i + 1)), "properties": held}
            vector = vector_of(i)[:dimension]
            one |= {"vectors": {named: vector}} if named else {"vector": vector}
            batch.append(one | ({"tenant": tenant} if tenant else {}))
        for start in range(0, len(batch), 500):
            answer = self.store.ask("POST", "/v1/batch/objects", {"objects": batch[start : start + 500]})
            assert not [one for one in answer if one["result"].get("errors")]
        return name

    def rows(self, name, tenant=None):
        more = f"&tenant={tenant}" if tenant else ""
        return self.store.ask("GET", f"/v1/objects?class={name}&limit=1000&include=vector{more}")["objects"]

    def close(self):
        for name in self.made:
            self.store.ask("DELETE", f"/v1/schema/{name}")


@pytest.fixture
def fields():
    return {"year": "number", "day": "datetime", "tags": "keyword[]"}


@pytest.fixture
def into(stores, fields):
    return stores(metadata=fields, page=50)


@pytest.fixture
def old(into):
    made = Old(into)
    yield made
    made.close()


def test_a_collection_is_planned_copied_and_verified_and_stays_as_it_is(into, old):
    name = old.fill([(None, flat(i)) for i in range(450)])
    before = old.rows(name)
    told = []
    with into.operator() as operator:
        plan = operator.plan(adopt=name)
        assert all(line.startswith("#") for line in plan.splitlines() if line)
        for part in ("tenant      tenant_id", "document    doc_id", "text        text", "450 objects of 2 tenants"):
            assert part in plan
        assert "REFUSED" not in plan
        assert into.tenants() == {}, "a plan changes nothing"
        done = operator.provision(adopt=name, progress=lambda *one: told.append(one))
        assert "450 objects copied, 0 were there already" in done[-1]
        assert {what for what, _, _ in told} >= {"checking objects", "creating tenants", "copying", "verifying"}
        assert operator.provision(adopt=name)[-1].startswith(f"adopted {name}: 0 objects copied, 450 were there")
    assert old.rows(name) == before
    with v.connect(into.config) as acl:
        alice, bob = acl.scoped(ALICE), acl.scoped(BOB)
        assert (alice.count(), bob.count()) == (300, 150)
        assert alice.count(where=F.year >= 2003) == sum(1 for i in range(450) if i % 3 and i % 5 >= 3)
        assert alice.count(where=F.tags.contains("b1")) == 1
        assert len(alice.search(Lexical("apple"), 5)) == 5
        (hit,) = bob.fetch([str(uuid.UUID(int=1))], include={"text", "metadata", "vector"})
        assert (hit.document, hit.text, hit.metadata["year"], hit.metadata["tags"]) == (
            "d0",
            "text 0 apple",
            2000,
            ["a", "b0"],
        )
        assert np.allclose(hit.vector, vector_of(0), atol=1e-5), "lengths too"


def test_an_adoption_leaves_a_record_with_its_numbers(into, old):
    good = old.fill([(None, flat(i)) for i in range(30)])
    bad = old.fill([(None, flat(i) if i != 3 else {"text": "whose?"}) for i in range(30)])
    sink = MemorySink()
    with v.VectorACL(into.config, sink=sink) as acl, into.operator() as operator:
        for name in (good, good, bad):
            try:
                hazmat.adopt(acl, name, operator=operator, reason="a test of its record")
            except RefusedError:
                assert name == bad
    assert [one["action"] for one in sink.records] == ["hazmat.adopt"] * 3
    numbers = [tuple(one[key] for key in ("returned", "there", "tenants", "refused")) for one in sink.outcomes]
    # The other collection has the same ids as the first one, so every object of it is refused.
    assert numbers == [(30, 0, 2, 0), (0, 30, 2, 0), (0, 0, 2, 30)]


def test_each_tenant_of_a_multi_tenant_collection_is_a_tenant(into, old):
    held = [("text", "text"), ("source", "text")]
    objects = [(["acme", "Beta-2"][i % 2], {"text": f"t{i}", "source": f"s{i % 3}"}) for i in range(30)]
    name = old.fill(objects, properties=held, tenants=["acme", "Beta-2", "empty"], named="mine")
    with into.operator() as operator:
        plan = operator.plan(adopt=name)
        assert "tenant      the tenant of the collection" in plan
        assert "vector      mine" in plan
        operator.provision(adopt=name)
    assert set(into.tenants()) == {"t_acme", "t_Beta-2"}
    with v.connect(into.config) as acl:
        assert acl.scoped(ALICE).count() == 15
        other = acl.scoped(testing.principal("b", "Beta-2"))
        assert {hit.text for hit in other.scan()} == {f"t{i}" for i in range(1, 30, 2)}
    assert len(old.rows(name, "acme")) == 15


def test_what_was_written_since_is_kept(into, old):
    name = old.fill([(None, flat(i)) for i in range(30)])
    first = str(uuid.UUID(int=1))
    with into.operator() as operator:
        operator.provision(adopt=name)
        with v.connect(into.config) as acl:
            bob = acl.scoped(BOB)
            bob.upsert([v.Chunk(first, "d0", "changed", [1.0] * 8)])
            bob.replace("d3", [v.Chunk("new", "d3", "replaced", [1.0] * 8)])
            assert "0 objects copied" in operator.provision(adopt=name)[-1]
            assert bob.fetch([first])[0].text == "changed"
            assert [hit.id for hit in bob.scan(where=F["@document"] == "d3")] == ["new"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"tenant_id": None}, "No tenant"),
        ({"tenant_id": "  "}, "No tenant"),
        ({"tenant_id": "*"}, "tenant"),
        ({"tenant_id": "ACME"}, "look alike"),
        ({"doc_id": None}, "No document"),
        ({"doc_id": "a\u0000b"}, "d"),
    ],
)
def test_one_object_that_cannot_be_taken_stops_all(into, old, bad, reason):
    name = old.fill([(None, {**flat(i), **(bad if i == 17 else {})}) for i in range(30)])
    with into.operator() as operator:
        plan = operator.plan(adopt=name)
        assert "REFUSED" in plan
        with pytest.raises(RefusedError, match="nothing was copied") as error:
            operator.provision(adopt=name)
    assert reason in str(error.value)
    if reason != "look alike":
        assert str(uuid.UUID(int=18)) in str(error.value)
    assert into.tenants() == {}
    assert "text 17" not in str(error.value)
    assert "text 17" not in plan


def test_what_alone_is_wrong_with_it_is_said(into, old, stores):
    same = old.fill(
        [(None, {**flat(i), "chunk_id": "same"}) for i in range(30)], properties=[*FLAT, ("chunk_id", "text")]
    )
    two = old.fill([(None, {**flat(i), "org_id": "x"}) for i in range(5)], properties=[*FLAT, ("org_id", "text")])
    none = old.fill([(None, {"text": "t"})], properties=[("text", "text")])
    narrow = old.fill([(None, flat(i)) for i in range(3)], dimension=3)
    typed = old.fill([(None, {**flat(i), "year": "2020"}) for i in range(3)],
                     properties=[(key, "text" if key == "year" else kind) for key, kind in FLAT])  # fmt: skip
    points = old.fill([(None, flat(0))], properties=[*FLAT, ("other", same)])
    resting = old.fill([("acme", {"text": "t"})], properties=[("text", "text")], tenants=["acme", "cold"])
    into.ask("PUT", f"/v1/schema/{resting}/tenants", [{"name": "cold", "activityStatus": "COLD"}])
    ours = stores().collection
    with into.operator() as operator:
        for name, match in (
            (same, "The same tenant, document and chunk id"),
            (two, r"tenant = \"tenant_id\""),
            (none, r"\[stores.NAME.adopt\] tenant"),
            (narrow, "8"),
            (typed, "year"),
            (points, "reference"),
            (resting, "1 tenants of .* are not active.*'cold'"),
            (ours, "vectoracl copy"),
            (into.collection, "own"),
            (into.collection[0].lower() + into.collection[1:], "own|no collection"),
            ("Missing", "no collection"),
            ("../meta", "no collection"),
        ):
            with pytest.raises(RefusedError, match=match):
                operator.provision(adopt=name)
    assert into.tenants() == {}
    with into.operator(adopt={"tenant": "tenant_id", "leave_out": ["org_id"]}) as operator:
        operator.provision(adopt=two)
    with into.operator(adopt={"leave_out": ["other"], "prefix": "points/"}) as operator:
        operator.provision(adopt=points)
    with into.operator(adopt={"tenant": "nowhere"}) as operator, pytest.raises(RefusedError, match="'nowhere'"):
        operator.plan(adopt=two)


def test_a_tenant_that_rests_here_is_not_copied_into(into, old):
    name = old.fill([(None, flat(i)) for i in range(6)])
    with into.operator() as operator:
        operator.create("acme")
        operator.deactivate("acme")
        with pytest.raises(RefusedError, match="is not active here"):
            operator.provision(adopt=name)
        operator.activate("acme")
        operator.provision(adopt=name)


def test_a_copy_that_differs_is_said(into, old, monkeypatch):
    from vectoracl_weaviate.adopt import Adoption

    name = old.fill([(None, flat(i)) for i in range(30)])
    write = Adoption.write
    monkeypatch.setattr(Adoption, "write", lambda self, tenant, records: write(self, tenant, records[1:]))
    with into.operator() as operator, pytest.raises(StoreError) as error:
        operator.provision(adopt=name)
    assert error.value.code == "adopt_differs"


def test_with_keys_each_adopted_tenant_gets_its_own(keyed_store):
    old = Old(keyed_store)
    try:
        properties = [("tenant_id", "text"), ("text", "text")]
        name = old.fill([(None, {"tenant_id": f"x{i % 2}", "text": f"t{i}"}) for i in range(10)], properties=properties)
        with keyed_store.operator() as operator:
            operator.provision(adopt=name)
        path = keyed_store.config["stores"]["main"]["tenant_keys"]
        assert set(tenant_keys.read(__import__("pathlib").Path(path))) == {"t_x0", "t_x1"}
        with v.connect(keyed_store.config) as acl:
            assert acl.scoped(testing.principal("u", "x1")).count() == 5
    finally:
        old.close()


def test_objects_that_changed_since_are_brought_up_to_date(into, old):
    name = old.fill([(None, flat(i)) for i in range(12)])
    first, third = (str(uuid.UUID(int=i + 1)) for i in (0, 3))
    with into.operator() as operator:
        operator.provision(adopt=name)
        with v.connect(into.config) as acl:
            acl.scoped(BOB).upsert([v.Chunk(first, "d0", "ours", [1.0] * 8)])
        for id_ in (first, third):
            into.ask("PATCH", f"/v1/objects/{name}/{id_}", {"class": name, "properties": {"text": "theirs"}})
        assert "0 objects copied, 1 brought up to date, 11 were there" in operator.provision(adopt=name)[-1]
        assert "0 objects copied, 12 were there" in operator.provision(adopt=name)[-1]
    with v.connect(into.config) as acl:
        assert [hit.text for hit in acl.scoped(BOB).fetch([first, third])] == ["ours", "theirs"]


def test_two_collections_with_the_same_ids_stay_apart(into, old):
    one = old.fill([(None, flat(i)) for i in range(4)])
    two = old.fill([(None, {**flat(i), "text": f"other {i}"}) for i in range(4)])
    first = str(uuid.UUID(int=1))
    with into.operator() as operator:
        operator.provision(adopt=one)
    with into.operator() as operator, pytest.raises(RefusedError, match="prefix = "):
        operator.provision(adopt=two)
    with into.operator(adopt={"prefix": "two/"}) as operator:
        assert "4 objects copied" in operator.provision(adopt=two)[-1]
    with v.connect(into.config) as acl:
        hits = acl.scoped(BOB).fetch([first, f"two/{first}"])
        assert [hit.text for hit in hits] == ["text 0 apple", "other 0"]


def test_a_text_inside_json(into, old):
    node = json.dumps({"text": "THE TEXT"})
    properties = [("tenant_id", "text"), ("_node_content", "text"), ("namespace", "text")]
    held = {"tenant_id": "beta", "_node_content": node, "namespace": "n"}
    name = old.fill([(None, held)], properties=properties)
    with into.operator() as operator:
        plan = operator.plan(adopt=name)
        assert "text        _node_content->>text" in plan
        assert "'namespace' is a name of the framework: 'adopted_namespace'" in plan
        assert "1 objects copied" in operator.provision(adopt=name)[-1]
    with v.connect(into.config) as acl:
        (hit,) = acl.scoped(BOB).fetch([str(uuid.UUID(int=1))])
        assert (hit.text, hit.metadata) == ("THE TEXT", {"_node_content": node, "adopted_namespace": "n"})


@pytest.mark.parametrize("count", [1, 5])
def test_an_import_in_shards_is_the_import(into, old, count):
    name = old.fill([(None, flat(i)) for i in range(90)])
    with v.VectorACL(into.config) as acl:
        job = AdoptJob(acl, name, reason="a test of shards")
        plan = job.plan_shards(count)
        results = [job.run_shard(json.loads(json.dumps(one))) for one in [*plan.shards, plan.shards[0]]]
        total = job.finish(plan, results)
        assert (total.good, {one.tenant: one.rows for one in total.census}) == (True, {"acme": 60, "beta": 30})
        operator = acl.operator()
        assert "0 objects copied, 90 were there already" in operator.provision(adopt=name)[-1]
        operator.close()
    with v.connect(into.config) as acl:
        assert (acl.scoped(ALICE).count(), acl.scoped(BOB).count()) == (60, 30)


def test_an_import_in_shards_ends_when_rows_came_or_went(into, old):
    name = old.fill([(None, flat(i)) for i in range(12)])
    with v.VectorACL(into.config) as acl:
        job = AdoptJob(acl, name, reason="a test of shards")
        plan = job.plan_shards(2)
        into_store = old.store
        for i in (0, 1, 2):
            into_store.ask("DELETE", f"/v1/objects/{name}/{uuid.UUID(int=i + 1)}")
        total = job.finish(plan, [job.run_shard(one) for one in plan.shards])
        assert (total.good, total.rows) == (False, 9)
        assert sum(count for one in total.census for count in one.faults.values()) == 3
