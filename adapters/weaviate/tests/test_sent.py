"""What a write says of itself where one of its requests fails after another has written; and counts beside writes."""

from __future__ import annotations

import numpy as np
import pytest

import vectoracl as v
from vectoracl import ALWAYS, Chunk
from vectoracl.adapter_api.connect_failures import Address
from vectoracl.adapter_api.operations import Count, Delete, Facets, Replace, Upsert
from vectoracl.engine.drivers import confined, run
from vectoracl.engine.pipeline import retried
from vectoracl.errors import StoreError
from vectoracl.model.records import Record, Tag
from vectoracl.testing import principal
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.failures import status
from vectoracl_weaviate.requests import Drop, Dropped, Find, Merge, Put, State, Tally

ADAPTER = WeaviateAdapter(WeaviateConfig.model_validate({"url": "http://127.0.0.1:1", "dimension": 3}), {})
RECORD = Record(Tag("acme", "d", "c", producer="u", path="upsert", time=1.0), "text", np.ones(3, np.float32), {})
E = np.eye(8, dtype=np.float32)
AT = Address("Weaviate", "127.0.0.1:1", "url")


class Served:
    """A tenant that is served; every read after the first request that wrote fails with *number*, once."""

    parallel = 1

    def __init__(self, number, state="active"):
        self.number, self.state, self.wrote, self.failed = number, state, [], False

    def execute(self, request, timeout):
        if isinstance(request, Put | Merge | Drop):
            if isinstance(request, Drop) and len(self.wrote) == 1:
                raise status(self.number, AT, write=True)
            self.wrote.append(type(request))
            return {Put: None, Merge: True, Drop: Dropped(3, 3, 0)}[type(request)]
        if isinstance(request, State):
            return self.state
        if self.wrote and not self.failed:
            self.failed = True
            raise status(self.number, AT, write=False)
        return [] if isinstance(request, Find) else 5 if len(self.wrote) == 0 and isinstance(request, Tally) else 0

    def close(self):
        pass


class Clock(Served):
    def execute(self, request, timeout):
        return None


@pytest.mark.parametrize("number", [403, 422, 429, 503])
@pytest.mark.parametrize("state", ["active", "inactive", None])
@pytest.mark.parametrize("operation", [Upsert("acme", ALWAYS, (RECORD,)), Replace("acme", ALWAYS, "d", (RECORD,))])
def test_what_was_written_is_not_written_again(number, state, operation):
    port = Served(number, state)
    flow = getattr(ADAPTER, type(operation).__name__.lower())
    with pytest.raises(StoreError) as caught:
        run(
            retried(lambda: confined(flow(operation), "acme"), write=True),
            {"store": port, "clock": Clock(0)},
            timeout=5,
        )
    assert caught.value.sent == "unknown"
    assert port.wrote.count(Put) == 1


@pytest.mark.parametrize("state", ["active", "inactive", None])
@pytest.mark.parametrize("number", [422, 503])
def test_a_delete_that_was_cut_off_never_says_that_nothing_went(number, state, monkeypatch):
    port = Served(number, state)
    marks = iter([0, 5, 0, 0, 0, 0])

    def execute(request, timeout):
        return next(marks) if isinstance(request, Tally) and not port.wrote else Served.execute(port, request, timeout)

    monkeypatch.setattr(port, "execute", execute)
    with pytest.raises(StoreError) as caught:
        run(confined(ADAPTER.delete(Delete("acme", ALWAYS, None, "d", None)), "acme"), {"store": port}, timeout=5)
    assert caught.value.sent == "unknown"
    assert port.wrote == [Drop]


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("what", ["facets", "count"])
def test_a_replacement_beside_a_count_is_one_version(stores, what, first):
    with v.connect(stores(metadata={"year": "number"}).config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        docs.replace("d", [Chunk(f"old{i}", "d", "", E[0], metadata={"year": 1}) for i in (0, 1)])
        named = acl._stores["main"]
        adapter, port = named.store.adapter, named.ports["store"]
        records = tuple(
            Record(Tag("acme", "d", f"new{i}", producer="u", path="replace", time=2.0), "", E[1], {"year": 2})
            for i in range(3)
        )

        def steps(flow):
            """Perform *flow* request by request; give each step before it is performed, and the result at the end."""
            reply = None
            while True:
                try:
                    step = flow.send(reply)
                except StopIteration as stop:
                    return stop.value
                yield step
                each = step if isinstance(step, tuple) else (step,)
                replies = tuple(port.execute(one, 10) for one in each)
                reply = replies if isinstance(step, tuple) else replies[0]

        replacing = steps(adapter.replace(Replace("acme", ALWAYS, "d", records)))
        asked = adapter.facets(Facets("acme", ALWAYS, ALWAYS, "year")) if what == "facets" else None
        counting = steps(asked or adapter.count(Count("acme", ALWAYS, ALWAYS)))
        for _ in range(first + 1):  # the question begins before the replacement has, or after it
            next(counting)
        for step in replacing:
            if any(
                isinstance(one, Merge) and "committed" in str(one)
                for one in (step if isinstance(step, tuple) else (step,))
            ):
                break  # both versions are there, and nothing is decided
        try:
            while True:
                next(counting)
        except StopIteration as stop:
            found = stop.value
        for _ in replacing:
            pass
        assert found in (2, [(1, 2)]), "the old version alone was published when it was asked"
        assert docs.count() == 3
