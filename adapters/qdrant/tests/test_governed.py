"""`settle` completes or removes interrupted writes. The tests for every store are in tests/test_governed_stores.py."""

from __future__ import annotations

import numpy as np
import pytest

import vectoracl as v
from vectoracl import ALWAYS, Chunk, Entry, RefusedError
from vectoracl.adapter_api import Replace, Upsert
from vectoracl.client.registry_setup import provision_registry, read_tags
from vectoracl.model.records import NEVER_EXPIRES, Record, Tag
from vectoracl.testing import principal
from vectoracl_qdrant.requests import Write

from qdrant_support.stores import make

ANN = principal("ann", "acme")
BOSS = principal("boss", "acme", roles=["records"])


def chunk(name, document="d"):
    return Chunk(id=name, document=document, text=f"text {name}", vector=[1.0, *([0.0] * 7)])


def records(*names):
    tags = [Tag("acme", "d", name, 0, "default", 0, NEVER_EXPIRES, "ann", "replace", 5.0, 0) for name in names]
    return tuple(Record(tag, f"text {tag.chunk}", np.array([1.0, *([0.0] * 7)], np.float32), {}) for tag in tags)


def interrupted(acl, flow, writes):
    """Run *flow* up to the request to write after *writes* of them, and a half of that one; its client dies there."""
    port, value = acl._port(acl._stores["main"], "port"), None
    while True:
        try:
            request = flow.send(value)
        except StopIteration:
            return False
        several = request if isinstance(request, tuple) else (request,)
        if any(isinstance(one, Write) for one in several):
            if writes == 0:
                half = tuple(request.operations[: len(request.operations) // 2])
                if half:
                    port.execute(Write(request.partition, half), None)
                return True
            writes -= 1
        replies = tuple(port.execute(one, None) for one in several)
        value = replies if isinstance(request, tuple) else replies[0]


@pytest.mark.parametrize("before", [(), ("upsert",), ("upsert", "replace"), ("replace", "replace", "upsert")])
@pytest.mark.parametrize("how", ["replace", "upsert"])
@pytest.mark.parametrize("writes", range(4))
def test_an_interrupted_write_is_settled(tmp_path, before, how, writes):
    made = make()
    registry = {
        "url": f"sqlite:///{tmp_path}/r.db",
        "single_host": True,
        "max_read_seconds": 0,
        "default_label": "default",
        "governors": {"role": "records"},
    }
    given = {**made.config, "registry": registry}
    try:
        with v.connect(made.config) as acl:
            docs = acl.scoped(ANN)
            docs.upsert([chunk("x", "other")])
            for number, one in enumerate(before):
                content = [chunk(f"{number}a"), chunk(f"{number}b")]
                docs.upsert(content) if one == "upsert" else docs.replace("d", content)
            adapter = acl._stores["main"].store.adapter
            if how == "replace":
                flow = adapter.replace(Replace("acme", ALWAYS, "d", records("n1", "n2")))
            else:
                flow = adapter.upsert(Upsert("acme", ALWAYS, records("0a", "n2")))
            interrupted(acl, flow, writes)
            visible = sorted((hit.document, hit.id) for hit in docs.scan())
        with v.VectorACL(given) as acl:
            provision_registry(acl, ["main"])
        with v.connect(given) as acl:
            acl.governance(BOSS).define_label("default", entries=[Entry("tenant", write=True)])
            docs = acl.scoped(ANN)
            assert sorted((hit.document, hit.id) for hit in docs.scan()) == visible
            report = acl.governance(BOSS).reconcile()
            assert (report.left, report.incomplete) == (0, ())
            assert sorted((hit.document, hit.id) for hit in docs.scan()) == visible
            assert sorted((tag.document, tag.chunk) for tag in read_tags(acl, "main", "acme")) == visible
            docs.replace("d", [chunk("last")])
            assert sorted((hit.document, hit.id) for hit in docs.scan()) == [("d", "last"), ("other", "x")]
            with pytest.raises(RefusedError, match="reconcile"):
                acl.operator(reason="a test").settle()
            assert acl.governance(BOSS).reconcile().left == 0
            assert len(read_tags(acl, "main", "acme")) == 2
    finally:
        made.close()


def test_a_mark_that_cannot_be_read_is_the_mark_of_another_registry():
    made = make()
    try:
        for strange in ("x", 7, {"registry": 7}, {}, {"registry": ""}, ["r"]):
            made.client.update_collection(made.collection, metadata={"vectoracl_registry": strange})
            with pytest.raises(v.PostureError, match=r"no \[registry\]"):
                v.connect(made.config)
        made.client.update_collection(made.collection, metadata={"vectoracl_registry": {"registry": None}})
        v.connect(made.config).close()
    finally:
        made.close()
