"""The dynamic index on a server that indexes asynchronously: writes are seen after a while, and that is said."""

from __future__ import annotations

import time

import numpy as np
import pytest

import vectoracl as v
from vectoracl import Chunk
from vectoracl.testing import principal

from weaviate_support.stores import made, started

ROWS, K = 600, 10


@pytest.fixture(scope="module")
def dynamic():
    with started({"ASYNC_INDEXING": "true"}, own=True) as running:
        yield made(running, index="dynamic", async_indexing=True, dynamic_threshold=100)


def test_what_is_not_indexed_yet_is_said_and_then_everything_is_found(dynamic):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(ROWS, 8)).astype(np.float32)
    with v.connect(dynamic.config) as acl:
        large, small = (acl.scoped(principal("u", tenant)) for tenant in ("large", "small"))
        large.upsert([Chunk(f"c{i}", "d", f"large {i}", one) for i, one in enumerate(vectors)])
        small.upsert([Chunk(f"c{i}", "d", f"small {i}", one) for i, one in enumerate(vectors[:K])])
        assert acl._stores["main"].store.capabilities.visible == "eventual"
        assert (large.count(), small.count()) == (ROWS, K)  # rows are there at once, only their ranking is not
        until = time.monotonic() + 30
        for tenant, handle in (("large", large), ("small", small)):
            while True:
                result = handle.search(vectors[0], K)
                assert {hit.tenant for hit in result} <= {tenant}
                assert result.complete is (len(result) == K)
                if result.complete:
                    break
                assert result.shortfall
                assert time.monotonic() < until, "not indexed within 30 seconds"
                time.sleep(0.1)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        while (found := _recall(large, units, rng)) < 0.98:  # beyond the threshold it is HNSW, built meanwhile
            assert time.monotonic() < until, f"recall {found}"
            time.sleep(0.2)


def _recall(handle, units, rng) -> float:
    right = 0
    for query in rng.normal(size=(20, 8)).astype(np.float32):
        nearest = set(np.argsort(-(units @ query))[:K])
        right += len(nearest & {int(hit.id[1:]) for hit in handle.search(query, K)})
    return right / (20 * K)
