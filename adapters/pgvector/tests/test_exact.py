"""An exact search is exact in a partition with a vector index as well, where the planner would like to use it."""

from __future__ import annotations

from typing import Any

import numpy as np

import vectoracl as v
from vectoracl import Chunk, testing

DIMENSION = 32
ROWS = 4000


def test_exact_search_never_takes_the_vector_index(provisioned: Any) -> None:
    store = provisioned(dimension=DIMENSION, metadata={})
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(ROWS, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alice = testing.principal("alice", "acme")
    with v.connect(store.config) as acl:
        docs = acl.scoped(alice)
        docs.upsert([Chunk(f"c{i:04}", "d", "", vectors[i]) for i in range(ROWS)])
        operator = acl.operator()
        operator.promote("acme")
        operator.close()
        missed = 0
        for query in rng.normal(size=(20, DIMENSION)).astype(np.float32):
            truth = [f"c{i:04}" for i in np.argsort(-(vectors @ query), kind="stable")[:10]]
            assert [hit.id for hit in docs.search(query, exact=True)] == truth
            missed += len(set(truth) - {hit.id for hit in docs.search(query, tuning={"ef_search": 10})})
        assert missed, "the index missed nothing, so the test shows nothing"
