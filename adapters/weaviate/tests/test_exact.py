"""Searches by vector on a real HNSW index are exact: it compares each object, which the server's log says."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

import vectoracl as v
from vectoracl import ALWAYS, Chunk, F
from vectoracl.testing import principal

CUTOFF = 100
ROWS, REWRITES = 60, 3
FILTERS = {"all": ALWAYS, "one": F.lang == "en", "not": F.lang != "de", "not in": ~F.lang.in_(["de", "fr"])}


@pytest.fixture
def index(stores):
    """A collection whose cutoff is above the number of a tenant's objects, and below that of all there ever were."""
    one = stores(metadata={"lang": "keyword"})
    vectors = one.schema()["vectorConfig"]
    settings = vectors["default"]["vectorIndexConfig"]
    one.schema(
        vectorConfig={"default": {**vectors["default"], "vectorIndexConfig": {**settings, "flatSearchCutoff": CUTOFF}}}
    )
    return one


def _rankings(one) -> list[dict]:
    time.sleep(0.2)  # a line is written when its query ends
    lines = (json.loads(line) for line in one.running.log.read_bytes().splitlines() if b"Slow query" in line)
    return [line for line in lines if line.get("collection") == one.collection and "hnsw_flat_search" in line]


def test_each_object_is_compared_whatever_the_filter(index):
    if index.running.log is None:
        pytest.skip("not run: the log of a server that was not started here cannot be read")
    rng = np.random.default_rng(1)
    with v.connect(index.config) as acl:
        docs = acl.scoped(principal("u", "acme"))
        for _ in range(REWRITES):  # another vector is another number in the server's indexes
            vectors = rng.normal(size=(ROWS, 8)).astype(np.float32)
            docs.upsert([Chunk(f"c{i}", "d", "text", one, metadata={"lang": "en"}) for i, one in enumerate(vectors)])
        with index.operator() as operator:  # a shard that was loaded again does not know which numbers are free
            operator.deactivate("acme")
            operator.activate("acme")
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        for number, where in enumerate(FILTERS.values(), start=1):
            query = rng.normal(size=8)
            nearest = [f"c{i}" for i in np.argsort(-(units @ query))[:50]]
            result = docs.search(query.tolist(), 50, where=where)
            assert ([hit.id for hit in result], result.complete) == (nearest, True)
            rankings = _rankings(index)
            assert len(rankings) == number
            assert rankings[-1]["hnsw_flat_search"] is True
