"""A registry over Weaviate: what is special to it (the rest: `tests/test_governed_stores.py`)."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import vectoracl as v
from vectoracl import ALWAYS, Chunk, Entry, RefusedError, StoreError
from vectoracl.adapter_api import Replace
from vectoracl.client.registry_setup import provision_registry, read_tags
from vectoracl.model.records import NEVER_EXPIRES, Record, Tag
from vectoracl.testing import principal

pytestmark = pytest.mark.server
ANN = principal("ann", "acme", groups=["hr"])
BOB = principal("bob", "acme")
BOSS = principal("boss", "acme", roles=["records"])


def chunk(name, document="d"):
    return Chunk(id=name, document=document, text=f"text {name}", vector=[1.0, *([0.0] * 7)])


def records(*names):
    tags = [Tag("acme", "d", name, 0, "default", 0, NEVER_EXPIRES, "ann", "replace", 5.0, 0) for name in names]
    return tuple(Record(tag, f"text {tag.chunk}", np.array([1.0, *([0.0] * 7)], np.float32), {}) for tag in tags)


def governed(made, tmp_path, **more):
    registry = {
        "url": f"sqlite:///{tmp_path}/r.db",
        "single_host": True,
        "max_read_seconds": 0,
        "default_label": "default",
        "governors": {"role": "records"},
        **more,
    }
    return {**made.config, "registry": registry}


def brought_under(made, tmp_path, **more):
    given = governed(made, tmp_path, **more)
    with v.VectorACL(given) as acl:
        provision_registry(acl, ["main"])
    acl = v.connect(given)
    acl.governance(BOSS).define_label("default", entries=[Entry("tenant", write=True)])
    acl.governance(BOSS).define_label("hr", entries=[Entry("group:hr", write=True)])
    return acl


def interrupted(acl, flow, writes):
    """Run *flow* up to the request that follows *writes* that were made; its client dies there."""
    port, value = acl._port(acl._stores["main"], "port"), None
    while True:
        try:
            request = flow.send(value)
        except StopIteration:
            return
        several = request if isinstance(request, tuple) else (request,)
        if any(one.writes for one in several):
            if writes == 0:
                flow.close()
                return
            writes -= 1
        replies = tuple(port.execute(one, None) for one in several)
        value = replies if isinstance(request, tuple) else replies[0]


def ids(docs):
    return sorted((hit.document, hit.id) for hit in docs.scan())


@pytest.mark.parametrize("writes", range(6))
def test_an_interrupted_replacement_is_settled(stores, tmp_path, writes):
    made = stores()
    with v.connect(made.config) as acl:
        docs = acl.scoped(ANN)
        docs.upsert([chunk("x", "other"), chunk("a"), chunk("b")])
        adapter = acl._stores["main"].store.adapter
        interrupted(acl, adapter.replace(Replace("acme", ALWAYS, "d", records("n1", "n2"))), writes)
        visible = ids(docs)
    with brought_under(made, tmp_path) as acl:
        docs, govern = acl.scoped(ANN), acl.governance(BOSS)
        assert ids(docs) == visible
        report = govern.reconcile()
        assert (report.left, report.incomplete) == (0, ())
        assert ids(docs) == visible
        assert sorted((tag.document, tag.chunk) for tag in read_tags(acl, "main", "acme")) == visible
        docs.replace("d", [chunk("last")])
        assert ids(docs) == [("d", "last"), ("other", "x")]
        with pytest.raises(RefusedError, match="reconcile"):
            acl.operator(reason="a test").settle()
        assert govern.reconcile().left == 0
        assert len(read_tags(acl, "main", "acme")) == 2


def test_a_tenant_that_is_not_active_is_activated_first(stores, tmp_path):
    made = stores()
    with v.connect(made.config) as acl:
        acl.scoped(ANN).upsert([chunk("a")])
    with made.operator() as operator:
        operator.deactivate("acme")
    with v.VectorACL(governed(made, tmp_path)) as acl:
        with pytest.raises(RefusedError, match="activate"):
            provision_registry(acl, ["main"])
        operator = acl.operator(reason="a test")
        operator.activate("acme")
        operator.close()
    with brought_under(made, tmp_path) as acl:
        assert ids(acl.scoped(ANN)) == [("d", "a")]


def test_nothing_flickers_while_labels_are_written(stores, tmp_path):
    """Readers of a document see all of it, whichever label its chunks have reached; and the hidden one never."""
    with brought_under(stores(), tmp_path, max_read_seconds=60) as acl:
        docs, govern = acl.scoped(ANN), acl.governance(BOSS)
        docs.upsert([chunk(f"c{i}", document) for document in ("kept", "moved") for i in range(60)])
        acl.registry.settings = replaced(acl.registry.settings, max_read_seconds=0.0)
        govern.reconcile()
        ended, wrong = threading.Event(), []

        def read():
            bob = acl.scoped(BOB)
            while not ended.is_set():
                seen = [hit.document for hit in bob.search([1.0, *([0.0] * 7)], k=200)]
                if seen.count("kept") != 60 or "moved" in seen or bob.count() != 60:
                    wrong.append((seen.count("kept"), seen.count("moved")))

        govern.move("moved", "hr")
        threads = [threading.Thread(target=read) for _ in range(2)]
        for one in threads:
            one.start()
        for _ in range(3):
            govern.hold("kept", "m", reason="a test")
            govern.release("m", reason="a test")
            assert govern.reconcile().left == 0
            govern.retain("kept", 4e9)
            assert govern.reconcile().left == 0
        ended.set()
        for one in threads:
            one.join()
        assert [one for one in wrong if one[1]] == []  # the moved one: never
        held = [one for one in wrong if one[0] not in (0, 60)]
        assert held == []  # held or not: all of it or nothing


def replaced(settings, **given):
    return type(settings)(**{**{name: getattr(settings, name) for name in type(settings).__slots__}, **given})


def test_labels_are_written_under_a_lease(stores, tmp_path):
    """A process that stopped while it wrote labels: the next one waits until its requests have arrived."""
    with brought_under(stores(), tmp_path, ticket_seconds=1, request_seconds=1) as acl:
        govern = acl.governance(BOSS)
        acl.scoped(ANN).upsert([chunk("a")])
        assert govern.reconcile().left == 0
        assert acl.registry.take_lease("acme", "a stopped process") == 0
        govern.move("d", "hr")
        report = govern.reconcile()
        assert (report.written, report.left) == ((), 1)
        assert 1 < report.wait <= 2
        assert [tag.label for tag in read_tags(acl, "main", "acme")] == ["default"]
        assert [hit.id for hit in acl.scoped(ANN).search([1.0, *([0.0] * 7)])] == ["a"]
        with pytest.raises(StoreError, match="another process"):
            acl.registry.renew_lease("acme", "not the one")
        assert govern.reconcile(patience=10).left == 0
        assert [tag.label for tag in read_tags(acl, "main", "acme")] == ["hr"]
