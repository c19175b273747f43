"""Tiers: what is sent, and the promotion against a cluster that is killed, fails or is slow at every step."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

import vectoracl as v
from vectoracl import testing
from vectoracl.adapter_api.operations import Count, Delete, Replace, Search, Upsert
from vectoracl.errors import RefusedError, StoreError
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl_conformance.strategies import unit
from vectoracl_qdrant import operator as operators
from vectoracl_qdrant import schema, tiers
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import shard_of
from vectoracl_qdrant.ports import call
from vectoracl_qdrant.requests import Scroll

from qdrant_support.shapes import FIELDS, QUERY, TENANT, TEXT, records, sent
from qdrant_support.stores import NEEDS_SERVER, Provisioned

CONFIG = QdrantConfig(url="http://localhost:6333", dimension=2, page=2, tiers=True)
ADAPTER = QdrantAdapter(CONFIG, FIELDS)
OWN = {"target": "tenant:acme", "fallback": "shared"}


class WireRecorder:
    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **given: self.calls.append((name, given))


def selectors(value: Any) -> list[Any]:
    """Return every shard key that a call names, wherever it is."""
    found = []
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("shard_key", "shard_key_selector"):
                found.append(one)
            else:
                found.extend(selectors(one))
    elif isinstance(value, list | tuple):
        for one in value:
            found.extend(selectors(one))
    elif hasattr(value, "model_dump"):
        found.extend(selectors(value.model_dump(exclude_none=True)))
    return [one.model_dump() if hasattr(one, "model_dump") else one for one in found]


def test_every_request_names_the_tenants_shard_and_the_shared_one() -> None:
    hybrid = HybridQuery("text One", QUERY.vector)
    flows = [
        ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, QUERY, 5, TEXT)),
        ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, QUERY, 5, TEXT, group_by="document")),
        ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, Lexical("text"), 5, TEXT)),
        ADAPTER.search(Search(TENANT, ALWAYS, ALWAYS, hybrid, 5, TEXT)),
        ADAPTER.count(Count(TENANT, ALWAYS, ALWAYS)),
        ADAPTER.upsert(Upsert(TENANT, ALWAYS, records(2))),
        ADAPTER.replace(Replace(TENANT, ALWAYS, "d", records(2))),
        ADAPTER.delete(Delete(TENANT, ALWAYS, document="d")),
    ]
    for flow in flows:
        for request in sent(flow):
            recorder = WireRecorder()
            call(recorder, CONFIG, request, None)  # type: ignore[arg-type]
            ((_, given),) = recorder.calls
            found = selectors(given)
            wanted = len(getattr(request, "legs", getattr(request, "operations", (None,))))
            assert found == [OWN] * wanted, request
    recorder = WireRecorder()
    call(recorder, CONFIG, Scroll(None, models.Filter(), 1, shard="shared"), None)  # type: ignore[arg-type]
    assert selectors(recorder.calls[0][1]) == ["shared"]


def test_no_tenants_shard_can_be_the_shared_one() -> None:
    assert shard_of("shared") != "shared"
    assert shard_of("a") != shard_of("tenant:a")
    with pytest.raises(ValueError, match="shared_shard"):
        QdrantConfig(url="http://localhost", dimension=2, tiers=True, shared_shard="tenant:acme")
    with pytest.raises(ValueError, match="tiers"):
        QdrantConfig(memory=True, dimension=2, tiers=True)


class Killed(BaseException):
    """The operator's process ends here."""


class Clustered:
    """A cluster as Qdrant 1.19 behaves: reads and writes are routed by the states of the shards.

    `deaths` are the numbers of the acts in the middle of which the operator is killed; `failing` transfers end
    without the shard becoming active.
    """

    def __init__(
        self, *, rows: int = 5, steps: int = 2, failing: int = 0, deaths: frozenset[int] = frozenset()
    ) -> None:
        self.shared = {TENANT: set(range(rows)), "beta": {100}}
        self.own: set[int] | None = None
        self.state = ""
        self.left_steps = 0
        self.steps, self.failing, self.deaths = steps, failing, deaths
        self.acts = 0
        self.calls: list[str] = []

    def read(self) -> set[int]:
        return set(self.own or ()) if self.state == "Active" else set(self.shared[TENANT])

    def write(self, row: int) -> None:
        if self.state == "Active":
            assert self.own is not None
            self.own.add(row)
            return
        self.shared[TENANT].add(row)
        if self.left_steps and self.own is not None:
            self.own.add(row)  # forwarded by the transfer

    def cluster(self) -> tiers.Cluster:
        if self.left_steps:
            self.left_steps -= 1
            if not self.left_steps:
                if self.failing:
                    self.failing -= 1
                    self.state = "Dead"
                else:
                    self.state = "Active"
        if not self.state:
            return tiers.Cluster(custom=True, states={"shared": (("Active",),)})
        states = {"shared": (("Active",),), shard_of(TENANT): ((self.state,),)}
        moving = frozenset({shard_of(TENANT)} if self.left_steps else ())
        return tiers.Cluster(custom=True, states=states, moving=moving)

    def left(self, tenant: str) -> bool:
        return bool(self.shared[tenant])

    def act(self, task: tiers.Task, tenant: str) -> None:
        self.acts += 1
        self.calls.append(task)
        before = self.acts * 2 - 1 in self.deaths
        if before:
            raise Killed
        match task:
            case "create":
                if self.state:
                    raise StoreError("it is there", code="rejected", adapter="qdrant")
                self.state, self.own = "Partial", set()
            case "replicate":
                if self.left_steps:
                    raise StoreError("it is under way", code="rejected", adapter="qdrant")
                self.state, self.own, self.left_steps = "Partial", set(self.shared[tenant]), self.steps
            case "clear":
                assert self.state == "Active", "the shared shard is emptied only when the own one is read"
                self.shared[tenant].clear()
        if self.acts * 2 in self.deaths:
            raise Killed


def run_until_done(cluster: Clustered, expected: set[int]) -> int:
    """Promote, again after every death, while reads and writes go on; return how often."""
    for number in range(1, 20):
        try:

            def pause(_: float) -> None:
                assert cluster.read() == expected
                row = 1000 + len(expected)
                cluster.write(row)
                expected.add(row)
                assert cluster.read() == expected

            tiers.promote(TENANT, cluster, None, pause)
        except Killed:
            assert cluster.read() == expected, "at no moment is a row missing or read from two places"
            continue
        return number
    raise AssertionError("it never ended")


@pytest.mark.parametrize("deaths", [frozenset(), *({n} for n in range(1, 7)), {1, 3, 5}, {2, 4, 6}, {1, 4, 5, 8}])
@pytest.mark.parametrize("failing", [0, 1])
def test_a_promotion_that_is_killed_anywhere_is_finished_by_running_it_again(deaths: set[int], failing: int) -> None:
    cluster = Clustered(deaths=frozenset(deaths), failing=failing)
    expected = cluster.read()
    run_until_done(cluster, expected)
    assert cluster.read() == expected
    assert cluster.shared == {TENANT: set(), "beta": {100}}
    assert tiers.promote(TENANT, cluster, None, lambda _: None) == ["acme already has its own shard"]


def test_a_transfer_that_always_fails_is_given_up_and_the_tenant_stays_where_it_is() -> None:
    cluster = Clustered(failing=99)
    with pytest.raises(StoreError) as error:
        tiers.promote(TENANT, cluster, None, lambda _: None)
    assert error.value.code == "promotion_failed"
    assert cluster.read() == set(range(5))
    assert cluster.calls.count("replicate") == 3
    assert "clear" not in cluster.calls


def test_a_tenant_without_rows_can_be_promoted() -> None:
    cluster = Clustered(rows=0)
    assert tiers.promote(TENANT, cluster, None, lambda _: None)
    assert cluster.calls == ["create", "replicate"]


def test_what_is_next() -> None:
    def at(*states: str, moving: bool = False, left: bool = True) -> tiers.Task | None:
        key = shard_of(TENANT)
        lying = {"shared": (("Active",),), **({key: (states,)} if states else {})}
        return tiers.next_task(TENANT, tiers.Cluster(True, lying, frozenset({key} if moving else ())), left=left)

    assert at() == "create"
    assert at("Partial") == "replicate"
    assert at("Partial", moving=True) == "wait"
    assert at("ActiveRead") == "wait"
    assert at("Dead") == "replicate"
    assert at("Active") == "clear"
    assert at("Active", left=False) is None
    assert at("Dead", "Active", left=False) is None
    two = tiers.Cluster(True, {shard_of(TENANT): (("Active",), ("Partial",))})
    assert tiers.next_task(TENANT, two, left=True) == "replicate"
    assert tiers.tier_of(TENANT, two) == "shared"
    assert tiers.tier_of(TENANT, tiers.Cluster(True, {shard_of(TENANT): ((),)})) == "shared"


def test_where_there_are_no_tiers_it_is_said_why(store: Provisioned) -> None:
    with v.connect(store.config) as acl:
        operator = acl.operator()
        for move in (operator.promote, operator.demote):
            with pytest.raises(RefusedError, match=r"local mode|tiers = false"):
                move("acme")
        operator.close()
    with pytest.raises(RefusedError, match="not sharded by key"):
        tiers.promote(TENANT, _Automatic(), None, lambda _: None)  # type: ignore[arg-type]


class _Automatic:
    def cluster(self) -> tiers.Cluster:
        return tiers.Cluster(custom=False)


def test_the_plan_makes_the_shards_by_key() -> None:
    steps = list(schema.steps(CONFIG, FIELDS, None))
    text = "\n".join(schema.text_of(step) for step in steps)
    assert '"sharding_method":"custom"' in text
    assert 'PUT /collections/vectoracl/shards\n{"shard_key":"shared"}' in text
    where = models.Filter(must=[models.FieldCondition(key="group_id", match=models.MatchValue(value="acme"))])
    copied = schema.text_of(schema.CopyTenant("c", where, "shared", "tenant:acme"))
    assert copied.startswith("POST /collections/c/cluster\n")
    assert '"to_shard_key":"tenant:acme"' in copied
    partial = schema.text_of(schema.CreateShard("c", "tenant:acme", partial=True))
    assert '"initial_state":"Partial"' in partial


@NEEDS_SERVER
@pytest.mark.parametrize("stop", ["replicate", "clear"])
def test_a_promotion_that_was_broken_off_is_named_and_goes_on(provisioned: Any, monkeypatch: Any, stop: str) -> None:
    try:
        store = provisioned(tiers=True, page=50)
    except RefusedError:
        pytest.skip("not run: the server is not in cluster mode")
    with v.connect(store.config) as acl:
        docs = acl.scoped(testing.principal("alice", "acme"))
        docs.upsert([v.Chunk(f"c{i}", "d", "word", unit(np.random.default_rng(i))) for i in range(60)])
        operator = acl.operator()
        act = operators._Actions.act

        def killed(self: Any, task: tiers.Task, tenant: str) -> None:
            if task == stop:
                raise KeyboardInterrupt
            act(self, task, tenant)

        monkeypatch.setattr(operators._Actions, "act", killed)
        with pytest.raises(KeyboardInterrupt):
            operator.promote("acme")
        monkeypatch.undo()
        (one,) = operator.tenants()
        assert (one.tenant, one.advice, one.note) == ("acme", "promote", tiers.UNFINISHED)
        assert docs.count() == 60
        operator.promote("acme")
        (one,) = operator.tenants()
        assert (one.tier, one.advice, one.note) == ("own", "", "")
        assert docs.count() == 60
        operator.close()


@NEEDS_SERVER
def test_a_tenant_moves_into_a_shard_of_its_own_while_it_is_read_and_written(provisioned: Any) -> None:
    try:
        store = provisioned(tiers=True, page=50)
    except RefusedError:
        pytest.skip("not run: the server is not in cluster mode")
    alice, bob = testing.principal("alice", "acme"), testing.principal("bob", "beta")
    with v.connect(store.config) as acl:
        for who in (alice, bob):
            some = [v.Chunk(f"c{i:03}", f"d{i % 9}", f"word {i}", unit(np.random.default_rng(i))) for i in range(300)]
            acl.scoped(who).upsert(some)
        docs = acl.scoped(alice)
        stop = threading.Event()
        seen: list[int] = []
        written: list[str] = []

        def read() -> None:
            while not stop.is_set():
                seen.append(docs.count())

        def write() -> None:
            while not stop.is_set():
                name = f"new{len(written)}"
                docs.upsert([v.Chunk(name, "new", "word", unit(np.random.default_rng(1)))])
                written.append(name)
                time.sleep(0.02)

        threads = [threading.Thread(target=one) for one in (read, write)]
        for one in threads:
            one.start()
        operator = acl.operator()
        assert [(one.tenant, one.rows >= 300, one.tier) for one in operator.tenants()] == [
            ("acme", True, "shared"), ("beta", True, "shared"),
        ]  # fmt: skip
        done = operator.promote("acme")
        stop.set()
        for one in threads:
            one.join()
        assert len(done) == 3
        assert seen == sorted(seen), "no count is ever lower than one before: nothing is missed or seen twice"
        assert docs.count() == 300 + len(written)
        assert {hit.id for hit in docs.scan(where=v.F["@document"] == "new")} == set(written)
        assert acl.scoped(bob).count() == 300
        assert operator.promote("acme") == ["acme already has its own shard"]
        assert {one.tenant: one.tier for one in operator.tenants()} == {"acme": "own", "beta": "shared"}
        near = unit(np.random.default_rng(3))
        for query in (near, v.Lexical("word"), v.Hybrid("word", near)):
            assert len(docs.search(query, 10)) == len(acl.scoped(bob).search(query, 10)) == 10
        docs.replace("new", [v.Chunk("one", "new", "word", unit(np.random.default_rng(1)))])
        docs.delete(document="d0")
        assert docs.count(where=v.F["@document"] == "d0") == 0
        with pytest.raises(RefusedError, match="cannot move a tenant back"):
            operator.demote("acme")
        operator.close()
    for shard, wanted in (("shared", {"beta"}), (shard_of("acme"), {"acme"})):
        points, _ = store.client.scroll(store.collection, limit=1000, shard_key_selector=shard)
        assert {(point.payload or {})["group_id"] for point in points} == wanted
