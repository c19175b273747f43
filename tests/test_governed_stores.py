"""The tests of governance on in-process Qdrant; `test_governed_servers.py` runs them on the other stores."""

from __future__ import annotations

import pytest

import vectoracl as v
from tests.governed_stores import acl, clock, govern, governed, needle, provision, settings, weaviate_server
from tests.test_governance import (
    ANN,
    BOB,
    BOSS,
    chunk,
    fill,
    seen,
    test_a_denial_wins_and_accumulates,
    test_a_document_that_is_moved_during_a_write_is_not_published,
    test_a_hold_while_the_deletion_is_under_way_is_told_so,
    test_a_load_resumes,
    test_a_poisoned_chunk_is_not_laundered_by_a_later_upsert,
    test_a_sweep_keeps_what_has_changed_since_it_looked,
    test_an_entry_begins_and_ends,
    test_an_operator_under_a_registry_moves_and_deletes_nothing_whatever_it_is_called,
    test_explain_names_no_document_that_is_hidden,
    test_g1_a_document_is_moved,
    test_g1_a_label_changes_in_place,
    test_g2_a_grant,
    test_g3_a_hold_hides_and_no_path_deletes,
    test_g3_the_last_matter_releases,
    test_g4_an_extension_is_in_force_at_once,
    test_g4_expired_is_invisible_and_swept,
    test_g5_nearest_is_hidden,
    test_g6_families,
    test_quarantine,
    test_shared_tenants_by_label,
    test_staged_chunks_of_a_writer_that_stopped,
    test_upsert_replace_and_delete_keep_their_meaning,
    test_writers_of_one_document_take_turns,
)
from vectoracl import Entry
from vectoracl.adapter_api import StartsWith
from vectoracl.client.registry_setup import read_tags

__all__ = ["acl", "clock", "govern", "needle", "settings", "weaviate_server"]
__all__ += [
    "test_a_denial_wins_and_accumulates",
    "test_a_document_that_is_moved_during_a_write_is_not_published",
    "test_a_hold_while_the_deletion_is_under_way_is_told_so",
    "test_a_load_resumes",
    "test_a_poisoned_chunk_is_not_laundered_by_a_later_upsert",
    "test_a_sweep_keeps_what_has_changed_since_it_looked",
    "test_an_entry_begins_and_ends",
    "test_an_operator_under_a_registry_moves_and_deletes_nothing_whatever_it_is_called",
    "test_explain_names_no_document_that_is_hidden",
    "test_g1_a_document_is_moved",
    "test_g1_a_label_changes_in_place",
    "test_g2_a_grant",
    "test_g3_a_hold_hides_and_no_path_deletes",
    "test_g3_the_last_matter_releases",
    "test_g4_an_extension_is_in_force_at_once",
    "test_g4_expired_is_invisible_and_swept",
    "test_g5_nearest_is_hidden",
    "test_g6_families",
    "test_quarantine",
    "test_shared_tenants_by_label",
    "test_staged_chunks_of_a_writer_that_stopped",
    "test_upsert_replace_and_delete_keep_their_meaning",
    "test_writers_of_one_document_take_turns",
]  # the same as on the memory store


@pytest.fixture
def kind():
    return "qdrant"


# --- what each store adds --------------------------------------------------------------------------------------------


def found(acl, tenant="acme"):
    return sorted(read_tags(acl, "main", tenant), key=lambda tag: (tag.document, tag.generation, tag.chunk))


def test_a_late_label_neither_creates_nor_overwrites(acl):
    from vectoracl.adapter_api import LabelChange, Relabel
    from vectoracl.engine.drivers import run

    def relabel(tenant, *changes):
        named = acl._stores["main"]
        return run(named.store.adapter.relabel(Relabel(tenant, changes)), {"store": named.port}, timeout=30)

    acl.scoped(ANN).upsert([chunk("a", "d")])
    acl.scoped(ANN).upsert([chunk("a", "x")])
    acl.governance(BOSS).reconcile()
    tag, other = found(acl)
    relabel("acme", LabelChange("d", 0, "secret", 0.0, tag.rev), LabelChange("none", 0, "secret", 0.0, 99))
    relabel("acme", LabelChange("d", 1, "secret", 0.0, 99))
    relabel("globex", LabelChange("d", 0, "secret", 0.0, 99))
    assert found(acl) == [tag, other]
    assert found(acl, "globex") == []
    relabel("acme", LabelChange("d", 0, "secret", 7.0, tag.rev + 1))
    assert found(acl) == [tag._replace(label="secret", expires=7.0, rev=tag.rev + 1), other]


def test_a_chunk_of_a_restored_store_is_not_returned(acl, govern):
    """The chunks of an earlier state are written back; the registry's rows decide, and `reconcile` repairs them."""
    from vectoracl.adapter_api import Upsert
    from vectoracl.engine import governed_store
    from vectoracl.engine.drivers import run

    fill(acl, "d", "e")
    govern.reconcile()
    named = acl._stores["main"]
    ports = {"store": named.port, "clock": acl.core_port}
    old = run(governed_store.read_generation(named.store, "acme", "d", 0, "x"), ports, timeout=30)
    govern.move("d", "hr")
    assert govern.reconcile().left == 0
    back = tuple(governed_store.record_of_hit(hit, hit.tag) for hit in old)
    run(named.store.adapter.upsert(Upsert("acme", v.ALWAYS, back, verbatim=True)), ports, timeout=30)
    assert {hit.document for hit in acl.scoped(BOB).search([1.0, 0.0, 0.0], k=10)} == {"e"}
    assert acl.registry.overlay_size("acme") == 1
    govern.reconcile()
    assert seen(acl, BOB) == ["e"]
    assert seen(acl, ANN) == ["d", "e"]


def test_a_store_is_marked(tmp_path, settings, kind):
    store = settings(kind)
    given = governed(tmp_path, store)
    provision(given)
    assert provision(given)[-1] == "the store main is under the registry already"
    plain = {key: value for key, value in given.items() if key != "registry"}
    with pytest.raises(v.PostureError, match=r"no \[registry\]"):
        v.connect(plain)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(v.PostureError, match="another registry"):
        v.connect(governed(other, store))
    with pytest.raises(v.PostureError, match="another registry"):
        provision(governed(other, store))
    with v.connect(given) as acl:
        acl.governance(BOSS).define_label("open", entries=[Entry("tenant", write=True)])
        fill(acl, "d")  # a store in memory without rows would take the mark of whoever opens it
        operator = acl.operator(reason="a test of marks")
        operator.mark(None)
        operator.close()
    with v.connect(plain):
        pass
    with pytest.raises(v.PostureError, match="not yet under the registry"):
        v.connect(given)


def test_a_mark_and_the_embedder_are_kept_together(tmp_path, settings, kind):
    given = governed(tmp_path, settings(kind, dimension=8))
    provision(given)
    provision({**given, "embedder": {"use": "hashed:8"}})  # the embedder is noted when the store is marked already
    with v.connect(given) as acl:
        assert acl.check_store("main").embedder is not None
        assert acl.check_store("main").registry == acl.registry.identity()


def test_a_filled_store_comes_under_a_registry(tmp_path, settings, kind):
    given = governed(tmp_path, settings(kind))
    plain = {key: value for key, value in given.items() if key != "registry"}
    provision(plain)
    with v.connect(plain) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([chunk("a", "old"), chunk("b", "old")])
        docs.replace("twice", [chunk("a", "twice"), chunk("c", "twice")])
        docs.replace("twice", [chunk("b", "twice")])
        docs.upsert([chunk("d", "twice")])
        before = found(acl)
    with pytest.raises(v.PostureError, match="not yet under the registry"):
        v.connect(given)
    lines = provision(given)
    assert any("registered 2 documents of the tenant acme, under 1 new labels" in line for line in lines)
    with v.connect(given) as acl:
        govern = acl.governance(BOSS)
        assert found(acl) == before
        assert seen(acl, ANN) == []
        govern.define_label("default", entries=[Entry("tenant", write=True)])
        assert seen(acl, ANN) == ["old", "twice"]
        assert found(acl) == before  # no chunk was written
        assert govern.reconcile().left == 0
        assert seen(acl, ANN) == ["old", "twice"]
        docs = acl.scoped(ANN)
        docs.upsert([chunk("e", "twice")])
        assert {hit.id for hit in docs.scan(v.F["@document"] == "twice")} == {"b", "d", "e"}
        docs.replace("twice", [chunk("f", "twice")])
        assert {hit.id for hit in docs.scan(v.F["@document"] == "twice")} == {"f"}
        assert govern.reconcile().left == 0
        assert [tag.chunk for tag in found(acl)] == ["a", "b", "f"]
        assert govern.erase("twice", reason="a test").documents == ("twice",)
        assert [tag.document for tag in found(acl)] == ["old", "old"]


def test_a_rule_without_a_form_on_the_store_is_refused_before_it_is_in_force(acl, govern):
    fill(acl, "d")
    if StartsWith in acl._stores["main"].store.capabilities.predicates:
        pytest.skip("this store has a form of it")
    with pytest.raises(v.UnsupportedPredicateError, match="producer"):
        govern.quarantine("all", source="upsert", reason="a test")
    assert govern.rules() == ()
    assert seen(acl, ANN) == ["d"]
