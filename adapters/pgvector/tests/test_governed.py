"""The registry over pgvector: the same flows on a real server, with the registry in a file or in PostgreSQL."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy as sa

import vectoracl as v
from vectoracl import ALWAYS, Access, Chunk, Entry, HeldError, RefusedError, hazmat
from vectoracl.client.registry_setup import provision_registry, without_marks
from vectoracl.registry import tables as t
from vectoracl.testing import principal

from pgvector_support.stores import registry_urls

BOSS = principal("boss", "acme", roles=["records"])
ANN = principal("ann", "acme", groups=["hr"])
BOB = principal("bob", "acme")


def vector(i=0.0):
    return [1.0, float(i), *([0.0] * 6)]


def chunk(name, document, i=0):
    return Chunk(id=name, document=document, text=f"word {name}", vector=vector(i), metadata={"lang": "en"})


@pytest.fixture(params=["file", "postgresql"])
def governed(request, store, tmp_path):
    """Return a configuration with a registry, whose tables do not exist yet."""
    if request.param == "file":
        urls = {"url": f"sqlite:///{tmp_path / 'registry.db'}"}
    else:
        urls = registry_urls(store)
    registry = {
        **urls,
        "single_host": True,
        "default_label": "open",
        "governors": {"role": "records"},
        "max_read_seconds": 0,
    }
    return {**store.config, "registry": registry}


@pytest.fixture
def acl(governed):
    with v.VectorACL(governed) as setting_up:
        provision_registry(setting_up, ["main"])
    with v.connect(governed) as acl:
        govern = acl.governance(BOSS)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("hr", entries=[Entry("group:hr", write=True)])
        yield acl


def seen(acl, who):
    docs = acl.scoped(who)
    found = sorted((hit.document, hit.id) for hit in docs.search(vector(), k=100))
    assert docs.count() == len(found)
    assert sorted((hit.document, hit.id) for hit in docs.scan(size=2)) == found
    assert sorted((hit.document, hit.id) for hit in docs.search(v.Lexical("word"), k=100)) == found
    return sorted({document for document, _ in found})


def tags(acl, tenant="acme"):
    from vectoracl.adapter_api.operations import Scan
    from vectoracl.engine.drivers import run

    named = acl._stores["main"]
    flow = named.store.adapter.scan(Scan(tenant, ALWAYS, ALWAYS, 1000, None, frozenset()))
    return [hit.tag for hit in without_marks(run(flow, {"store": named.port}, timeout=30).hits)]


def test_the_life_of_documents(acl):
    govern, docs = acl.governance(BOSS), acl.scoped(ANN)
    govern.classify("pay", "hr")
    docs.upsert([chunk("a", "pay"), chunk("b", "pay", 1), chunk("a", "menu", 2)])
    assert {tag.label for tag in tags(acl)} == {"hr", "open"}
    assert acl.registry.overlay_size("acme") == 0
    assert (seen(acl, ANN), seen(acl, BOB)) == (["menu", "pay"], ["menu"])
    before = tags(acl)
    govern.move("pay", "open")
    govern.move("menu", "hr")
    assert (seen(acl, ANN), seen(acl, BOB)) == (["menu", "pay"], ["pay"])
    govern.hold("pay", "smith", reason="litigation")
    assert (seen(acl, ANN), seen(acl, BOB)) == (["menu"], [])
    assert tags(acl) == before  # no chunk was written
    assert govern.reconcile().left == 0
    assert {(tag.document, tag.label) for tag in tags(acl)} == {("pay", "#held"), ("menu", "hr")}
    assert (seen(acl, ANN), seen(acl, BOB)) == (["menu"], [])
    for attempt in (
        lambda: docs.delete(document="pay"),
        lambda: docs.replace("pay", []),
        lambda: docs.upsert([chunk("a", "pay")]),
        lambda: govern.erase("pay", reason="an erasure"),
    ):
        with pytest.raises(HeldError):
            attempt()
    assert docs.delete(where=ALWAYS).count == 1
    govern.release("smith", reason="settled")
    assert (seen(acl, ANN), seen(acl, BOB)) == (["pay"], ["pay"])
    docs.replace("pay", [chunk("new", "pay")])
    assert [hit.id for hit in docs.search(vector())] == ["new"]
    report = govern.reconcile()
    assert (report.left, report.incomplete) == (0, ())
    assert [(tag.chunk, tag.generation, tag.label) for tag in tags(acl)] == [("new", 1, "open")]
    assert docs.delete(document="pay").count == 1
    assert tags(acl) == []


def test_a_source_of_rights(governed):
    """Its records are in force at once, and a stale source vouches for nothing."""
    sources = {"drive": {"max_age_seconds": 2}, "wiki": {"max_age_seconds": 3600}}
    governed = {**governed, "registry": {**governed["registry"], "sources": sources}}
    with v.VectorACL(governed) as setting_up:
        provision_registry(setting_up, ["main"])
    with v.connect(governed) as acl:
        govern, moment = acl.governance(BOSS), time.time() - 60
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("hr", entries=[Entry("group:hr")])
        acl.scoped(ANN).upsert([chunk("1", one) for one in "abcd"])
        records = [
            Access(moment, "a", label="hr"),
            Access(moment, "b", inherits_from="folder"),
            Access(moment, "folder", entries=(Entry("group:hr"), Entry("user:eve", allow=False))),
            Access(moment, "c", entries=()),
        ]
        found = govern.apply_access([*records, Access(time.time())], source="drive")
        assert found.changed == ("a", "b", "c", "folder")
        assert found.unplaced == ()
        assert seen(acl, ANN) in (["a", "b", "d"], ["d"])  # the second, if this took longer than the bound
        assert seen(acl, BOB) == ["d"]
        govern.reconcile()
        time.sleep(2.1)
        assert seen(acl, ANN) == ["d"]
        older = Access(moment - 1, "c", label="open")
        assert govern.apply_access([records[0], older], source="wiki").changed == ("a",)
        assert seen(acl, ANN) == ["a", "d"]
        govern.apply_access([Access(moment, "loop", inherits_from="folder")], source="wiki")
        turned = govern.apply_access([Access(moment + 1, "folder", inherits_from="loop")], source="wiki")
        assert turned.unplaced == ("b", "folder", "loop")
        assert seen(acl, ANN) == ["a", "d"]
        assert {one.name: one.stale for one in govern.sources()} == {"drive": True, "wiki": False}


def test_a_late_label_neither_creates_nor_overwrites(acl):
    from vectoracl.adapter_api import LabelChange, Relabel
    from vectoracl.engine.drivers import run

    acl.scoped(ANN).upsert([chunk("a", "d")])
    named = acl._stores["main"]
    (tag,) = tags(acl)
    old = Relabel("acme", (LabelChange("d", 0, "secret", 0.0, tag.rev), LabelChange("x", 0, "secret", 0.0, 99)))
    assert run(named.store.adapter.relabel(old), {"store": named.port}, timeout=30) == 0
    foreign = Relabel("globex", (LabelChange("d", 0, "secret", 0.0, 99),))
    assert run(named.store.adapter.relabel(foreign), {"store": named.port}, timeout=30) == 0
    assert tags(acl) == [tag]
    new = Relabel("acme", (LabelChange("d", 0, "secret", 7.0, tag.rev + 1),))
    assert run(named.store.adapter.relabel(new), {"store": named.port}, timeout=30) == 1
    assert tags(acl) == [tag._replace(label="secret", expires=7.0, rev=tag.rev + 1)]


def test_a_filled_store_comes_under_a_registry(governed, store):
    plain = {key: value for key, value in governed.items() if key != "registry"}
    with v.connect(plain) as acl:
        acl.scoped(ANN).upsert([chunk("a", "old"), chunk("b", "old", 1)])
        acl.scoped(ANN).replace("twice", [chunk("a", "twice")])
        acl.scoped(ANN).replace("twice", [chunk("b", "twice")])
    with v.VectorACL(governed) as acl:
        lines = provision_registry(acl, ["main"])
        assert any("registered 2 documents of the tenant acme, under 1 new labels" in line for line in lines)
        assert provision_registry(acl, ["main"])[-1] == "the store main is under the registry already"
    with pytest.raises(v.PostureError, match=r"no \[registry\]"):
        v.connect(plain)
    with v.connect(governed) as acl:
        before = tags(acl)
        assert seen(acl, ANN) == []
        acl.governance(BOSS).define_label("default", entries=[Entry("tenant")])
        assert seen(acl, ANN) == ["old", "twice"]
        assert tags(acl) == before
        assert acl.governance(BOSS).reconcile().left == 0
        assert seen(acl, ANN) == ["old", "twice"]


def test_what_the_registry_does_not_govern_is_refused(acl):
    for refused in (
        lambda: acl.operator().provision(adopt="t"),
        lambda: acl.operator().remove("acme"),
        lambda: hazmat.operate(acl, reason="copy all of it"),
        lambda: acl.scoped(ANN).with_driver(None),
    ):
        with pytest.raises(RefusedError) as error:
            refused()
        assert error.value.field == "registry"


def test_a_tenant_moves_between_partitions_while_rights_change(acl):
    """Each change is in force at the next query, wherever the rows are, and none is changed by a move."""
    govern, drawn, moves = acl.governance(BOSS), random.Random(5), []
    names = [f"d{i}" for i in range(12)]
    acl.scoped(ANN).upsert([chunk(str(i), name, i) for name in names for i in range(8)])
    visible, ended = dict.fromkeys(names, True), threading.Event()

    def move():
        while not ended.is_set() or len(moves) < 2:
            action = ("promote", "demote")[len(moves) % 2]
            moves.append(hazmat.on_tenant(acl, lambda op: getattr(op, action)("acme"), **about(action)))  # noqa: B023

    def about(action):
        return {"action": action, "tenant": "acme", "reason": "it has grown a lot"}

    def change():
        name = drawn.choice(names)
        match drawn.choice(("move", "hold", "write", "reconcile")):
            case "move":
                govern.move(name, "hr" if visible[name] else "open")
                visible[name] = not visible[name]
            case "hold":
                held = sorted({one for one in names if drawn.random() < 0.3} | {name})
                govern.hold(held, "smith", reason="litigation")
                assert seen(acl, BOB) == [one for one in sorted(names) if visible[one] and one not in held]
                govern.release("smith", reason="settled")
            case "write" if visible[name]:
                acl.scoped(ANN).replace(name, [chunk(f"n{drawn.randrange(99)}", name, i) for i in range(1)])
            case _:
                govern.reconcile()
        assert seen(acl, BOB) == [one for one in sorted(names) if visible[one]]

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(move)
        try:
            for _ in range(25):
                change()
        finally:
            ended.set()
        moving.result(timeout=100)
    assert len(moves) >= 2
    assert govern.reconcile().left == 0
    before = sorted(tags(acl))
    for action in ("promote", "demote"):
        hazmat.on_tenant(acl, lambda op, action=action: getattr(op, action)("acme"), **about(action))
        assert sorted(tags(acl)) == before
    with pytest.raises(RefusedError, match="without asking the registry"):
        hazmat.on_tenant(acl, lambda op: op.remove("acme"), **about("promote"))


def test_writers_on_many_threads(acl):
    errors = []

    def work(number):
        try:
            for i in range(4):
                acl.registry.classify("acme", [f"d{number}-{i}"], "hr", "me", "r", create=True)
                acl.registry.hold("acme", [f"d{number}-{i}"], "m", "me", "r")
        except Exception as error:
            errors.append(error)

    before = acl.registry.probe(("acme",)).versions["acme"]
    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert errors == []
    assert acl.registry.probe(("acme",)).versions["acme"] == before + 5 * 4 * 2
    assert len(acl.registry.list_documents("acme", matter="m")) == 20


def test_two_changes_of_families_at_once_form_no_circle(acl):
    registry = acl.registry
    pairs = [(f"child{i}", f"parent{i}") for i in range(8)]
    for one in [name for pair in pairs for name in pair]:
        registry.set_parent(one, None, "boss", "a test")

    def connect(pair):
        with suppress(RefusedError):
            registry.set_parent(*pair, "boss", "a test")

    for pair in pairs:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(connect, (pair, pair[::-1])))
    with registry.database.owner.read() as connection:
        parents = dict(connection.execute(sa.select(t.tenants.c.tenant, t.tenants.c.parent)).all())
    for one, other in pairs:
        assert (parents[one] is None) != (parents[other] is None)
