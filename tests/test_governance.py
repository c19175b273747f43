"""Documents decide, chunks inherit: the registry on the memory store, as an application sees it (G1 to G6, G8, G11)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest

import vectoracl as v
from vectoracl import ALWAYS, Chunk, DeniedError, Entry, F, HeldError, Like, RefusedError, StoreError, hazmat
from vectoracl.client.registry_setup import read_tags
from vectoracl.registry import labels as labels_module
from vectoracl.registry.restores import MARK_DOCUMENT, Closing
from vectoracl.registry.settings import RegistrySettings
from vectoracl.registry.sql_registry import Registry, new_identity
from vectoracl.testing import principal

V = [1.0, 0.0, 0.0]
BOSS = principal("boss", "acme", roles=["records"])
ANN = principal("ann", "acme", groups=["hr"])
BOB = principal("bob", "acme", groups=["sales"])
EVE = principal("eve", "globex", groups=["hr"])


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


def config(tmp_path, **registry):
    given = {
        "default_label": "open",
        "governors": {"role": "records"},
        "max_read_seconds": 0,
        "attributes": {
            "sensitivity": {"levels": ["public", "internal", "secret"]},
            "region": {},
            "owner": {},
            "cost": {"type": "number"},
            "draft": {"type": "boolean"},
        },
        **registry,
    }
    fields = {"lang": "keyword", "year": "number"}
    return {
        "version": 1,
        "stores": {"main": {"adapter": "memory", "dimension": 3, "metadata": fields}},
        "tenants": {"shared": ["commons"]},
        "registry": {"url": f"sqlite:///{tmp_path / 'registry.db'}", **given},
    }


@functools.cache
def template():
    """Return an empty registry's file: each test gets a copy, with an id that is its own."""
    path = Path(tempfile.mkdtemp(prefix="vectoracl-registry-")) / "registry.db"
    registry = Registry(f"sqlite:///{path}", RegistrySettings())
    registry.create()
    registry.close()
    return path


def created(given):
    path = given["registry"]["url"].removeprefix("sqlite:///")
    if not Path(path).exists():
        shutil.copy(template(), path)
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE vectoracl_meta SET value = ? WHERE name = 'id'", (new_identity(),))
        connection.close()
    return given


def opened(given, **more):
    return v.connect(created(given), **more)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def acl(tmp_path, clock):
    with opened(config(tmp_path)) as acl:
        acl.registry.database._clock = clock
        govern = acl.governance(BOSS)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("hr", entries=[Entry("group:hr", write=True)])
        yield acl


@pytest.fixture
def govern(acl):
    return acl.governance(BOSS)


def chunk(name, document, **metadata):
    return Chunk(id=name, document=document, text=f"word {name} of {document}", vector=V, metadata=metadata)


def fill(acl, *documents, who=ANN):
    acl.scoped(who).upsert([chunk(f"c{i}", one, lang="en", year=2000 + i) for one in documents for i in range(3)])


def seen(acl, who, **given):
    """Return the documents that every kind of read shows; all kinds have to agree."""
    docs = acl.scoped(who)
    hits = docs.search(V, k=100, **given)
    found = sorted((hit.document, hit.id) for hit in hits)
    if not given:
        assert docs.count() == len(found)
        assert sorted((hit.document, hit.id) for hit in docs.scan(size=2)) == found
        assert sorted((hit.document, hit.id) for hit in docs.search(v.Lexical("word"), k=100)) == found
        if stored(acl).capabilities.facets != "none":
            assert {one.value: one.count for one in docs.facets("@document")} == {
                one: sum(document == one for document, _ in found) for one, _ in found
            }
    return sorted({document for document, _ in found})


def stored(acl):
    return acl._stores["main"].store


def rows(acl, tenant="acme"):
    found = read_tags(acl, "main", tenant)
    return {(tag.document, tag.chunk): tag for tag in found if tag.document != MARK_DOCUMENT}


def writes(acl):
    """Return what differs after every write to the store."""
    if stored(acl).adapter_name == "memory":
        return acl._stores["main"].port._shelf.writes
    return read_tags(acl, "main", "acme")


# --- G1, G2: a revocation or a grant is in force at the next query, and no chunk is written -------------------------


def test_g1_a_label_changes_in_place(acl, govern):
    govern.classify(["pay", "rota"], "hr")
    fill(acl, "pay", "rota", "menu")
    assert seen(acl, ANN) == ["menu", "pay", "rota"]
    assert seen(acl, BOB) == ["menu"]
    before = writes(acl)
    govern.define_label("hr", entries=[Entry("group:sales")])
    assert seen(acl, ANN) == ["menu"]
    assert seen(acl, BOB) == ["menu", "pay", "rota"]
    assert writes(acl) == before


def test_g1_a_document_is_moved(acl, govern):
    fill(acl, "menu", "plan")
    before = writes(acl)
    assert govern.move("plan", "hr") == ["plan"]
    assert seen(acl, BOB) == ["menu"]
    assert seen(acl, ANN) == ["menu", "plan"]
    assert acl.scoped(BOB).fetch([("plan", "c0")]) == []
    assert len(acl.scoped(BOB).search(Like("c0", "plan"))) == 0
    assert writes(acl) == before
    report = govern.reconcile()
    assert "plan" in report.written  # and "menu" where a first publication waits for it too
    assert (report.left, report.incomplete) == (0, ())
    assert {tag.label for (document, _), tag in rows(acl).items() if document == "plan"} == {"hr"}
    assert seen(acl, BOB) == ["menu"]
    assert seen(acl, ANN) == ["menu", "plan"]


def test_g2_a_grant(acl, govern):
    govern.classify("pay", "hr")
    fill(acl, "pay")
    assert seen(acl, BOB) == []
    govern.move("pay", "open")
    assert seen(acl, BOB) == ["pay"]
    govern.reconcile()
    assert seen(acl, BOB) == ["pay"]


def test_a_denial_wins_and_accumulates(acl, govern):
    govern.define_label("space", entries=[Entry("tenant"), Entry("user:ann", allow=False)])
    govern.define_label("page", parent="space", entries=[Entry("user:ann", write=True), Entry("group:sales")])
    govern.define_label("leaf", parent="page")
    govern.classify("p", "leaf")
    acl.governance(BOSS).define_label("leaf", parent="page", entries=[Entry("user:boss", write=True)])
    fill(acl, "p", who=BOSS)
    assert seen(acl, BOSS) == ["p"]
    govern.define_label("leaf", parent="page")
    assert seen(acl, BOB) == ["p"]
    assert seen(acl, ANN) == []  # allowed by the page, denied by the space above it
    govern.define_label("space", entries=[Entry("tenant")])
    assert seen(acl, ANN) == ["p"]


def test_names_are_exact_strings(acl, govern):
    odd = ["read:*", "a b", "%a", "_b", "A", "group:x", "a%", "a:b:c"]
    govern.define_label("odd", entries=[Entry(f"group:{one}", write=True) for one in odd])
    govern.classify("x", "odd")
    fill(acl, "x", who=principal("w", "acme", groups=odd))
    for one in odd:
        assert seen(acl, principal("p", "acme", groups=[one])) == ["x"]
        assert seen(acl, principal("p", "acme", roles=[one])) == []
    for one in ("read:all", "ab", "b", "a", "x", "group:read:*"):
        assert seen(acl, principal("p", "acme", groups=[one])) == [], one


def test_an_entry_begins_and_ends(acl, govern, clock):
    govern.define_label("bid", entries=[Entry("group:sales", valid_from=clock.now + 10, valid_until=clock.now + 20)])
    hazmat.govern(acl, "acme", reason="a test of times").classify("b", "bid")
    writer = [Entry("user:ann", write=True)]
    govern.define_label("bid", entries=[*govern.labels()[0].entries, *writer])
    fill(acl, "b")
    assert seen(acl, BOB) == []
    clock.now += 10
    assert seen(acl, BOB) == ["b"]
    clock.now += 10
    assert seen(acl, BOB) == []


# --- G3: holds ---------------------------------------------------------------------------------------------------


def attempts_to_delete(acl, govern):
    docs = acl.scoped(ANN)
    yield lambda: docs.delete(document="d")
    yield lambda: docs.delete(ids=[("d", "c0")])
    yield lambda: docs.delete(where=ALWAYS)
    yield lambda: docs.delete(where=F["@document"] == "d")
    yield lambda: docs.narrow(F.lang == "en").delete(document="d")
    yield lambda: docs.replace("d", [chunk("new", "d")])
    yield lambda: docs.replace("d", [])
    yield lambda: docs.upsert([chunk("c0", "d")])
    yield lambda: docs.load([chunk("c0", "d")])
    yield lambda: govern.erase("d", reason="an erasure")
    yield lambda: govern.sweep(largest_share=1)
    yield lambda: hazmat.on_tenant(
        acl, lambda op: op.remove("acme"), action="remove", tenant="acme", reason="a tenant is removed"
    )
    yield lambda: acl.operator().remove("acme")
    yield lambda: hazmat.operate(acl, reason="a copy with overwrite").clear("acme")


@pytest.mark.parametrize("number", range(14))
@pytest.mark.parametrize("drained", [False, True])
def test_g3_a_hold_hides_and_no_path_deletes(acl, govern, clock, number, drained):
    fill(acl, "d", "other")
    govern.retain("d", clock.now + 5)
    govern.reconcile()
    text = {key: tag for key, tag in rows(acl).items() if key[0] == "d"}
    assert len(text) == 3
    assert govern.hold("d", "smith v. acme", reason="litigation") == ["d"]
    if drained:
        assert govern.reconcile().left == 0
        assert {tag.label for key, tag in rows(acl).items() if key[0] == "d"} == {"#held"}
    assert seen(acl, ANN) == ["other"]
    clock.now += 6
    attempt = list(attempts_to_delete(acl, govern))[number]
    with contextlib.suppress(HeldError, RefusedError):
        attempt()
    govern.reconcile()
    after = {key: tag for key, tag in rows(acl).items() if key[0] == "d" and tag.generation == 0}
    assert after.keys() == text.keys()
    govern.retain("d", None)
    govern.release("smith v. acme", reason="settled")
    assert "d" in seen(acl, ANN)
    govern.reconcile()
    assert "d" in seen(acl, ANN)


def test_g3_the_last_matter_releases(acl, govern):
    fill(acl, "d")
    govern.hold("d", "one", reason="first")
    govern.hold("d", "two", reason="second")
    govern.release("one", reason="done")
    assert seen(acl, ANN) == []
    with pytest.raises(HeldError):
        acl.scoped(ANN).delete(document="d")
    govern.reconcile()
    assert seen(acl, ANN) == []
    govern.release("two", ["d"], reason="done")
    assert seen(acl, ANN) == ["d"]
    assert acl.scoped(ANN).delete(document="d").count == 3
    assert rows(acl) == {}


def test_a_hold_while_the_deletion_is_under_way_is_told_so(acl, govern):
    fill(acl, "d")
    acl.registry.begin_erasing(None, "acme", ["d"], "boss", "x")
    with pytest.raises(RefusedError) as refused:
        govern.hold("d", "late", reason="too late")
    assert refused.value.code == "erasing"
    assert seen(acl, ANN) == []
    assert govern.reconcile().erased == ("d",)
    assert rows(acl) == {}


# --- G4: retention -----------------------------------------------------------------------------------------------


def test_g4_expired_is_invisible_and_swept(acl, govern, clock):
    fill(acl, "a", "b", "c")
    govern.retain(["a", "b"], clock.now + 10)
    assert seen(acl, ANN) == ["a", "b", "c"]
    clock.now += 9.5
    assert seen(acl, ANN) == ["a", "b", "c"]
    clock.now += 0.5
    assert seen(acl, ANN) == ["c"]
    govern.reconcile()
    assert seen(acl, ANN) == ["c"]
    clock.now -= 1000  # a clock that is set back brings nothing back
    assert seen(acl, ANN) == ["c"]
    with pytest.raises(RefusedError, match="share"):
        govern.sweep()
    assert govern.sweep(largest_share=0.7).documents == ("a", "b")
    assert {document for document, _ in rows(acl)} == {"c"}
    fill(acl, "a")  # written again, it is a new document
    assert seen(acl, ANN) == ["a", "c"]
    assert {tag.generation for (document, _), tag in rows(acl).items() if document == "a"} == {1}


def test_g4_an_extension_is_in_force_at_once(acl, govern, clock):
    fill(acl, "a")
    govern.retain("a", clock.now + 10)
    govern.reconcile()
    govern.retain("a", clock.now + 100)
    clock.now += 50
    assert seen(acl, ANN) == ["a"]
    govern.reconcile()
    assert seen(acl, ANN) == ["a"]


# --- G5: attributes before ranking -------------------------------------------------------------------------------


def test_g5_rules_over_ordered_levels(tmp_path):
    rules = [
        {"allow": {"label.sensitivity": "<= principal.clearance", "label.region": "in principal.regions"}},
        {"allow": {"label.owner": "== principal.id"}, "write": True},
        {"allow": {"label.cost": "< principal.budget"}},
    ]
    with opened(config(tmp_path, rules=rules, default_label=None)) as acl:
        govern = acl.governance(BOSS)
        for level in ("public", "internal", "secret"):
            for region in ("eu", "us"):
                name = f"{level}-{region}"
                govern.define_label(name, attributes={"sensitivity": level, "region": region, "owner": "boss"})
                govern.classify(name, name)
        govern.define_label("bare", attributes={"region": "eu", "owner": "boss"})
        govern.define_label("no", parent="public-eu", entries=[Entry("user:kim", allow=False)])
        govern.classify("bare", "bare")
        govern.classify("no", "no")
        names = [f"{level}-{region}" for level in ("public", "internal", "secret") for region in ("eu", "us")]
        fill(acl, *names, "bare", "no", who=BOSS)

        def sees(**attributes):
            return seen(acl, principal("kim", "acme", attributes=attributes))

        assert sees(clearance="internal", regions=("eu",)) == ["internal-eu", "public-eu"]
        assert sees(clearance="secret", regions=("eu", "us")) == sorted(names)
        assert sees(clearance="unheard", regions=("eu",)) == []
        assert sees(clearance="internal", regions="eu") == []  # not a list
        assert sees(regions=("eu",)) == []
        assert sees(clearance=2, regions=("eu",)) == []
        assert sees(budget=10) == []  # no label has a cost: a missing attribute denies
        assert seen(acl, BOSS) == sorted([*names, "bare", "no"])  # its own documents only
        with pytest.raises(DeniedError):
            acl.scoped(principal("kim", "acme", attributes={"clearance": "secret", "regions": ("eu",)})).upsert(
                [chunk("x", "public-eu")]
            )


def test_g5_nearest_is_hidden(acl, govern):
    govern.classify("near", "hr")
    near = [Chunk(id=f"n{i}", document="near", text="x", vector=[1.0, 0.001 * i, 0.0]) for i in range(40)]
    far = [Chunk(id=f"f{i}", document="far", text="x", vector=[1.0, 1.0 + i, 0.0]) for i in range(10)]
    acl.scoped(ANN).upsert([*near, *far])
    result = acl.scoped(BOB).search(V, k=5)
    assert [hit.id for hit in result] == ["f0", "f1", "f2", "f3", "f4"]
    assert result.complete


# --- G6: families ------------------------------------------------------------------------------------------------


def test_g6_families(acl):
    reason = "a test of families"
    for tenant in ("holding", "north", "south"):
        govern = hazmat.govern(acl, tenant, reason=reason)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("down", children=True, entries=[Entry("tenant", write=True)])
        govern.classify(f"{tenant}-down", "down")
        fill(acl, f"{tenant}-down", f"{tenant}-own", who=principal("w", tenant))
    hazmat.govern(acl, "north", reason=reason).set_parent("holding")
    hazmat.govern(acl, "south", reason=reason).set_parent("holding")
    with pytest.raises(DeniedError, match="only an operator"):
        acl.governance(principal("boss", "globex", roles=["records"])).set_parent("holding")

    def sees(tenant):
        return sorted({hit.document for hit in acl.scoped(principal("p", tenant)).search(V, k=100)})

    assert sees("north") == ["holding-down", "north-down", "north-own"]
    assert sees("south") == ["holding-down", "south-down", "south-own"]
    assert sees("holding") == ["holding-down", "holding-own"]
    with pytest.raises(RefusedError, match="below itself"):
        hazmat.govern(acl, "holding", reason=reason).set_parent("north")
    hazmat.govern(acl, "holding", reason=reason).define_label("down", entries=[Entry("tenant")])
    assert sees("north") == ["north-down", "north-own"]
    child = acl.scoped(principal("p", "north"))
    child.delete(where=ALWAYS)
    assert sees("holding") == ["holding-down", "holding-own"]


def test_g6_more_than_eight_levels_are_refused(acl):
    for i in range(7):
        acl.registry.set_parent(f"t{i}", f"t{i + 1}", "operator", "x")
    with pytest.raises(RefusedError, match="at most 8"):
        acl.registry.set_parent("t7", "t8", "operator", "x")


def test_labels_form_no_circle(acl, govern, monkeypatch):
    govern.define_label("a")
    govern.define_label("b", parent="a")
    with pytest.raises(RefusedError, match="below itself"):
        govern.define_label("a", parent="b")
    with pytest.raises(RefusedError, match="no label"):
        govern.define_label("c", parent="nowhere")
    monkeypatch.setattr(labels_module, "MAX_LABEL_DEPTH", 3)
    govern.define_label("c", parent="b")
    with pytest.raises(RefusedError, match="levels"):
        govern.define_label("d", parent="c")
    govern.define_label("top")
    with pytest.raises(RefusedError, match="levels"):
        govern.define_label("a", parent="top")


def test_shared_tenants_by_label(acl):
    govern = hazmat.govern(acl, "commons", reason="a shared tenant")
    govern.define_label("open", entries=[Entry("tenant", write=True)])
    govern.define_label("all", shared=True, entries=[Entry("tenant", write=True)])
    govern.classify("law", "all")
    fill(acl, "law", "draft", who=principal("w", "commons"))
    assert seen(acl, EVE) == ["law"]
    govern.define_label("all", shared=True, entries=[Entry("tenant", allow=False)])
    assert seen(acl, EVE) == []


# --- G8: the cap of the overlay ----------------------------------------------------------------------------------


def test_g8_beyond_the_cap(tmp_path):
    with opened(config(tmp_path, overlay_max=4)) as acl:
        govern = acl.governance(BOSS)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("hr", entries=[Entry("tenant", write=True)])
        govern.classify("safe", "hr")
        names = [f"d{i}" for i in range(8)]
        for one in (*names, "safe"):
            fill(acl, one)
        assert len(seen(acl, ANN)) == 9
        with pytest.raises(RefusedError, match="overlay_max"):
            govern.move(names[:5], "hr")
        govern.hold(names[:6], "big", reason="a hold of many documents")
        assert seen(acl, ANN) == ["safe"]  # the whole label is withdrawn: it fails closed
        with pytest.raises(RefusedError, match="overlay_max"):
            acl.scoped(ANN).replace("safe", [chunk("n", "safe")])
        assert govern.reconcile().left == 0
        assert seen(acl, ANN) == ["d6", "d7", "safe"]


# --- quarantine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [{"producer": "crawler"}, {"source": "nightly"}, {"since": 1_000_100.0, "until": 1_000_200.0}]
)
def test_quarantine(acl, govern, clock, rule):
    fill(acl, "good")
    clock.now = 1_000_150.0
    crawler = principal("crawler", "acme")
    acl.scoped(crawler, source="nightly").upsert([chunk("c0", "bad"), chunk("c1", "bad")])
    clock.now = 1_000_300.0
    fill(acl, "late")
    before = writes(acl)
    assert seen(acl, ANN) == ["bad", "good", "late"]
    govern.move("bad", "hr")  # in the overlay, so readable by its generation: the rule stands outside of that
    govern.quarantine("incident", **rule, reason="poisoned")
    assert seen(acl, ANN) == ["good", "late"]
    assert acl.scoped(ANN).fetch([("bad", "c0")]) == []
    assert writes(acl) == before
    with pytest.raises(RefusedError):
        govern.quarantine("incident", **rule, reason="again")
    govern.lift("incident", reason="false alarm")
    assert seen(acl, ANN) == ["bad", "good", "late"]


def test_a_rule_needs_a_part(govern):
    with pytest.raises(RefusedError, match="every chunk"):
        govern.quarantine("all", reason="everything")


def test_a_poisoned_chunk_is_not_laundered_by_a_later_upsert(acl, govern):
    acl.scoped(principal("crawler", "acme")).upsert([chunk("bad", "d")])
    acl.scoped(ANN).upsert([chunk("good", "d")])
    govern.quarantine("q", producer="crawler", reason="poisoned")
    assert [hit.id for hit in acl.scoped(ANN).search(V)] == ["good"]


# --- G11: who may govern -----------------------------------------------------------------------------------------


def governing_calls(govern):
    yield lambda: govern.define_label("x")
    yield lambda: govern.drop_label("hr")
    yield lambda: govern.classify("d", "hr")
    yield lambda: govern.move("d", "hr")
    yield lambda: govern.hold("d", "m", reason="x")
    yield lambda: govern.release("m", reason="x")
    yield lambda: govern.retain("d", None)
    yield lambda: govern.quarantine("q", producer="x", reason="x")
    yield lambda: govern.lift("q", reason="x")
    yield lambda: govern.reconcile()
    yield lambda: govern.sweep()
    yield lambda: govern.erase("d", reason="x")
    yield lambda: govern.labels()
    yield lambda: govern.documents()
    yield lambda: govern.rules()
    yield lambda: govern.history()


@pytest.mark.parametrize("number", range(16))
def test_g11_nobody_governs_by_default(acl, number):
    fill(acl, "d")
    for who in (ANN, principal("records", "acme", groups=["records"]), principal("boss", "acme")):
        with pytest.raises(DeniedError):
            list(governing_calls(acl.governance(who)))[number]()
    assert seen(acl, ANN) == ["d"]
    foreign = acl.governance(principal("boss", "globex", roles=["records"]))
    with contextlib.suppress(VectorError):
        list(governing_calls(foreign))[number]()
    assert seen(acl, ANN) == ["d"]  # a governor governs its own tenant


VectorError = v.VectorACLError


def test_g11_without_governors(tmp_path):
    with opened(config(tmp_path, governors={})) as acl, pytest.raises(DeniedError):
        acl.governance(BOSS).define_label("x")


def test_every_change_is_recorded(acl, govern):
    with pytest.raises(DeniedError):
        acl.governance(ANN).hold("d", "m", reason="no")
    fill(acl, "d")
    govern.hold("d", "m", reason="litigation")
    records = [one for one in acl.sink.records if one["action"] == "govern.hold"]
    assert [(one["permit"], one["principal"]["id"]) for one in records] == [(False, "ann"), (True, "boss")]
    (held,) = [one for one in govern.history() if one["kind"] == "hold"]
    assert (held["subject"], held["by"], held["reason"]) == ("d", "boss", "litigation")


# --- writing -----------------------------------------------------------------------------------------------------


def test_a_document_must_be_registered(tmp_path):
    with opened(config(tmp_path, default_label=None)) as acl:
        govern = acl.governance(BOSS)
        govern.define_label("hr", entries=[Entry("group:hr", write=True), Entry("group:sales")])
        for write in (
            lambda docs: docs.upsert([chunk("c", "d")]),
            lambda docs: docs.replace("d", [chunk("c", "d")]),
            lambda docs: docs.load([chunk("c", "d")]),
        ):
            with pytest.raises(DeniedError) as unknown:
                write(acl.scoped(ANN))
        govern.classify("d", "hr")
        govern.define_label("sales", entries=[Entry("group:sales", write=True)])
        with pytest.raises(DeniedError) as unwritable:
            acl.scoped(BOB).replace("d", [chunk("c", "d")])
        assert unwritable.value.reasons == unknown.value.reasons  # they answer alike
        assert rows(acl) == {}
        acl.scoped(ANN).upsert([chunk("c", "d")])
        assert seen(acl, BOB) == ["d"]
        assert acl.scoped(BOB).delete(where=ALWAYS).count == 0
        assert acl.scoped(BOB).delete(document="d").count == 0
        assert seen(acl, BOB) == ["d"]


def test_upsert_replace_and_delete_keep_their_meaning(acl, govern):
    docs = acl.scoped(ANN)
    docs.upsert([chunk("a", "d", year=1), chunk("b", "d", year=2)])
    docs.upsert([chunk("b", "d", year=3), chunk("c", "d", year=4), chunk("z", "e", year=5)])
    assert {(hit.document, hit.id): hit.metadata["year"] for hit in docs.scan()} == {
        ("d", "a"): 1,
        ("d", "b"): 3,
        ("d", "c"): 4,
        ("e", "z"): 5,
    }
    assert docs.delete(ids=[("d", "a"), "nothing"]).count == 1
    assert docs.delete(where=F.year > 4).count == 1
    assert [(hit.document, hit.id) for hit in docs.scan()] == [("d", "b"), ("d", "c")]
    narrow = docs.narrow(F.year == 3)
    with pytest.raises(DeniedError):
        narrow.replace("d", [chunk("x", "d", year=3)])
    assert narrow.delete(document="d").count == 1
    assert [hit.id for hit in docs.scan()] == ["c"]
    docs.replace("d", [chunk("y", "d")])
    assert [hit.id for hit in docs.scan()] == ["y"]
    govern.reconcile()
    assert [hit.id for hit in docs.scan()] == ["y"]
    assert set(rows(acl)) == {("d", "y")}


def test_a_load_resumes(acl, tmp_path):
    docs = acl.scoped(ANN)
    chunks = [chunk(f"c{i}", f"d{i // 4}") for i in range(20)]
    journal = tmp_path / "journal"

    def broken():
        yield from chunks[:13]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        docs.load(broken(), batch=3, resume=journal)
    assert docs.count() == 12
    report = docs.load(iter(chunks), batch=3, resume=journal)
    assert (report.written, report.skipped) == (8, 12)
    assert docs.count() == 20


def test_staged_chunks_of_a_writer_that_stopped(acl, govern, clock):
    fill(acl, "d")
    docs = acl.scoped(ANN)
    (ticket,) = acl.registry.tickets(ANN, "acme", ["d"])
    with pytest.raises(StoreError) as taken:
        docs.replace("d", [chunk("x", "d")], timeout=1)
    assert taken.value.code in ("conflict", "timeout")
    clock.now += 121
    docs.replace("d", [chunk("new", "d")])
    assert not acl.registry.publish(ANN, "acme", [(ticket, 1)])
    assert [hit.id for hit in docs.scan()] == ["new"]


def test_writers_of_one_document_take_turns(acl):
    def write(i):
        acl.scoped(ANN).upsert([chunk(f"c{i}", "d")])

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [hit.id for hit in acl.scoped(ANN).scan()] == [f"c{i}" for i in range(6)]


# --- failing closed ----------------------------------------------------------------------------------------------


def test_a_registry_that_is_down_denies(acl, tmp_path, monkeypatch):
    fill(acl, "d")
    docs = acl.scoped(ANN)
    assert len(docs.search(V)) == 3
    monkeypatch.setattr(acl.registry._quick, "_path", str(tmp_path / "gone" / "x.db"))
    acl.registry._quick._free.clear()
    for read_or_write in (lambda: docs.search(V), docs.count, lambda: docs.upsert([chunk("x", "d")])):
        with pytest.raises(StoreError) as down:
            read_or_write()
        assert (down.value.code, down.value.sent) == ("registry", "no")
    assert acl.sink.records[-1]["permit"] is False


def test_a_store_under_a_registry_is_marked(tmp_path):
    given = config(tmp_path)
    given["stores"]["main"]["name"] = "marked"
    with opened(given) as acl:
        acl.governance(BOSS).define_label("open", entries=[Entry("tenant", write=True)])
        fill(acl, "d")
        without = {key: value for key, value in given.items() if key != "registry"}
        with pytest.raises(v.PostureError, match=r"no \[registry\]"):
            v.connect(without)
        other = config(tmp_path, url=f"sqlite:///{tmp_path / 'other.db'}")
        other["stores"] = given["stores"]
        with pytest.raises(v.PostureError, match="another registry"):
            opened(other)


def test_a_store_with_rows_is_not_taken_over_silently(tmp_path):
    given = config(tmp_path)
    given["stores"]["main"]["name"] = "filled"
    without = {key: value for key, value in given.items() if key != "registry"}
    with v.connect(without) as plain:
        plain.scoped(ANN).upsert([chunk("c", "d")])
        with pytest.raises(v.PostureError, match="not yet under the registry"):
            opened(given)


def test_without_tables_nothing_opens(tmp_path):
    with pytest.raises(v.ConfigError, match="provision"):
        v.connect(config(tmp_path))


def test_what_the_registry_does_not_know_is_refused(acl):
    for refused in (
        lambda: hazmat.unscoped(acl, reason="look at all of it"),
        lambda: hazmat.operate(acl, reason="copy all of it"),
        lambda: acl.operator().promote("acme"),
        lambda: acl.operator().provision(adopt="table"),
        lambda: acl.scoped(ANN).with_driver(None),
        lambda: hazmat.on_tenant(
            acl, lambda op: op.promote("acme"), action="promote", tenant="acme", reason="move it over"
        ),
    ):
        with pytest.raises(RefusedError) as error:
            refused()
        assert error.value.field == "registry"


def test_the_second_lock_does_not_believe_chunks(acl, govern):
    """A store that was restored shows a chunk under its former label; the registry's row decides."""
    fill(acl, "d", "e")
    old = acl._stores["main"].port._shelf.partitions["acme"].copy()
    govern.move("d", "hr")
    assert govern.reconcile().left == 0
    acl._stores["main"].port._shelf.partitions["acme"].update(old)
    acl._stores["main"].port._shelf.writes += 1
    assert {hit.document for hit in acl.scoped(BOB).search(V)} == {"e"}
    assert acl.registry.overlay_size("acme") == 1  # noticed, and written again by the next reconcile
    assert acl.scoped(BOB).count() == 3
    govern.reconcile()
    assert seen(acl, BOB) == ["e"]


def test_async(tmp_path):
    given = created(config(tmp_path))

    async def main():
        async with v.aconnect(given) as acl:
            govern = acl.governance(BOSS)
            await govern.define_label("open", entries=[Entry("tenant", write=True)])
            await govern.define_label("hr", entries=[Entry("group:hr", write=True)])
            docs = acl.scoped(ANN)
            await docs.upsert([chunk("c", "d"), chunk("c", "e")])
            await govern.move("d", "hr")
            first = await acl.scoped(BOB).search(V)
            await govern.hold("e", "m", reason="litigation")
            report = await govern.reconcile()
            return [hit.document for hit in first], len(await acl.scoped(BOB).search(V)), report.left

    assert asyncio.run(main()) == (["e"], 0, 0)


# --- what a second reading of the protocol found ---------------------------------------------------------------------


class Only:
    """A policy that permits one filter."""

    version = "1"

    def __init__(self, where):
        self.where = where

    def decide(self, who, action):
        scope = v.Scope((v.Grant(who.tenant, self.where),))
        return v.Decision(permit=True, scope=scope, reasons=("test",), policy_version=self.version)


@pytest.mark.parametrize(
    "where",
    [
        F["@label"] == "open",
        ~(F["@label"] == "hr"),
        (F.lang == "en") | (F["@label"] == "open"),
        F["@generation"] >= 0,
        F["@rev"] >= 0,
        F["@expires"] > 0,
        F["@docgen"] == "1:d:0",
    ],
)
def test_a_policy_names_nothing_that_the_registry_decides(tmp_path, where):
    """A chunk may still carry what was before the last change, so such a filter would be one about the past."""
    with opened(config(tmp_path), policy=Only(where)) as acl:
        with pytest.raises(RefusedError, match="the registry decides"):
            acl.scoped(ANN).search(V)
        with pytest.raises(RefusedError, match="the registry decides"):
            acl.scoped(ANN).upsert([chunk("c", "d")])


def test_a_document_that_is_moved_during_a_write_is_not_published(acl, govern, monkeypatch):
    fill(acl, "d")
    publish = acl.registry.publish

    def moved(*args):
        govern.move("d", "hr")
        return publish(*args)

    monkeypatch.setattr(acl.registry, "publish", moved)
    with pytest.raises(StoreError) as caught:
        acl.scoped(ANN).replace("d", [chunk("new", "d")])
    assert (caught.value.code, caught.value.sent) == ("conflict", "no")
    monkeypatch.undo()
    assert {hit.id for hit in acl.scoped(ANN).search(V, k=10)} == {"c0", "c1", "c2"}


@pytest.mark.parametrize("change", ["retain", "hold"])
def test_a_sweep_keeps_what_has_changed_since_it_looked(acl, govern, clock, monkeypatch, change):
    fill(acl, "a", "b")
    govern.retain(["a", "b"], clock.now + 10)
    clock.now += 20
    find = acl.registry.expired

    def found(*args):
        answer = find(*args)
        if change == "retain":
            govern.retain("a", None)
        else:
            govern.hold("a", "matter", reason="a test")
        return answer

    monkeypatch.setattr(acl.registry, "expired", found)
    assert govern.sweep(largest_share=1.0).documents == ("b",)
    if change == "hold":
        govern.release("matter", reason="a test")
        govern.retain("a", None)
    assert seen(acl, ANN) == ["a"]


def test_the_share_of_a_sweep_is_that_of_all_expired_documents(acl, govern, clock):
    fill(acl, *"abcdef")
    govern.retain(list("abcdef"), clock.now + 10)
    clock.now += 20
    for limit in (1, 3, 100):
        with pytest.raises(RefusedError, match="6 of 6 documents"):
            govern.sweep(limit=limit)


def test_an_operator_under_a_registry_moves_and_deletes_nothing_whatever_it_is_called(acl, govern):
    fill(acl, "d")
    govern.hold("d", "matter", reason="a test")
    for action in ("create", "tenants", "remove"):
        with pytest.raises(RefusedError, match="registry"):
            hazmat.on_tenant(acl, lambda op: op.remove("acme"), action=action, tenant="acme", reason="a test of holds")
    assert len(rows(acl)) == 3


def test_a_write_does_not_make_a_loss_in_the_store_official(acl, govern):
    fill(acl, "d")
    shelf = acl._stores["main"].port._shelf
    lost = next(key for key, row in shelf.partitions["acme"].items() if row.tag.chunk == "c1")
    del shelf.partitions["acme"][lost]
    with pytest.raises(StoreError) as caught:
        acl.scoped(ANN).upsert([chunk("new", "d")])
    assert caught.value.code == "incomplete"
    acl.scoped(ANN).replace("d", [chunk("new", "d")])
    assert seen(acl, ANN) == ["d"]


def test_a_quarantined_operation_is_that_of_every_pipeline(acl, govern):
    acl.scoped(ANN, source="crawler").upsert([chunk("a", "crawled")])
    acl.scoped(ANN).upsert([chunk("a", "written")])
    acl.scoped(ANN).replace("replaced", [chunk("a", "replaced")])
    govern.quarantine("all", source="upsert", reason="a test")
    assert seen(acl, ANN) == ["replaced"]
    for name in ("upsert", "replace", "load"):
        with pytest.raises(v.InvalidInputError, match="operation"):
            acl.scoped(ANN, source=name)


@pytest.mark.parametrize("generation", ["abc", True, 1.5, -1, 2**70])
def test_the_generation_of_a_rule_is_a_number(acl, govern, generation):
    with pytest.raises(v.InvalidInputError):
        govern.quarantine("rule", generation=generation, reason="a test")
    fill(acl, "d")
    assert seen(acl, ANN) == ["d"]


@pytest.mark.parametrize("bound", [10**400, float("inf"), float("nan"), "x", True])
def test_the_bounds_of_an_entry_are_times(bound):
    with pytest.raises(v.InvalidInputError, match="POSIX"):
        Entry("tenant", valid_until=bound)


def test_explain_names_no_document_that_is_hidden(acl, govern):
    fill(acl, "open-plan", "layoff-plan")
    govern.move("layoff-plan", "hr")
    assert "layoff-plan" not in str(acl.explain(BOB))
    assert "open" in str(acl.explain(BOB).grants)


def test_chunks_that_come_back_after_an_erasure_are_erased_again(acl, govern):
    fill(acl, "d")
    shelf = acl._stores["main"].port._shelf
    before = dict(shelf.partitions["acme"])
    assert govern.erase("d", reason="a test of erasure").documents == ("d",)
    shelf.partitions.setdefault("acme", {}).update(before)
    assert govern.erase("d", reason="a test of erasure").documents == ("d",)
    assert not rows(acl)


def test_documents_that_cannot_be_finished_keep_no_others_from_it(acl, govern, monkeypatch):
    monkeypatch.setattr("vectoracl.engine.governed_store.ROUND", 3)
    fill(acl, *"abcdefghij")
    govern.reconcile()
    shelf = acl._stores["main"].port._shelf
    lost = [key for key, row in shelf.partitions["acme"].items() if row.tag.document < "f" and row.tag.chunk == "c1"]
    assert len(lost) == 5
    for key in lost:
        del shelf.partitions["acme"][key]
    govern.move(list("abcdefghij"), "hr")
    report = govern.reconcile()
    assert sorted(report.written) == list("fghij")
    assert sorted(report.incomplete) == list("abcde")
    assert report.left == 5


def test_a_writer_that_has_stopped_is_not_forgotten_by_an_earlier_capture(acl, govern, clock):
    fill(acl, "d")
    registry = acl.registry
    (ticket,) = registry.tickets(ANN, "acme", ["d"])
    govern.move("d", "hr")
    clock.now += registry.settings.ticket_seconds - 1
    before = registry.pending("acme", 10)
    assert before.pending[0].ticketed
    clock.now += 2
    after = registry.pending("acme", 10)
    assert not after.pending[0].ticketed
    closing = Closing("main", "a-mark", 0, frozenset(), frozenset({"a-mark"}))
    assert registry.clear("acme", before.pending, closing) == []  # what the writer left was not looked for
    assert ticket.generation == after.pending[0].last_generation
    assert registry.overlay_size("acme") == 1


def test_deletions_that_are_under_way_take_no_places_of_a_sweep(acl, govern, clock):
    fill(acl, "a", "b")
    govern.retain(["a"], clock.now + 5)
    govern.retain(["b"], clock.now + 10)
    clock.now += 20
    acl.registry.begin_erasing(None, "acme", ["a"], "boss", "a test")  # and its process stopped
    assert govern.sweep(limit=1, largest_share=1.0).documents == ("b",)
    assert govern.reconcile().erased == ("a",)
    assert rows(acl) == {}
