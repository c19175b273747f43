"""Facets beside what an application would do without them: count the same chunks, or go through them.

On whatever server the store's harness for the conformance kit finds. Two tenants of the same size; the one asks, by a
filter that about half of its chunks pass. The contestants take turns in one run.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from typing import Any

import numpy as np
from measure import interleaved, ratio

import vectoracl
from vectoracl import Chunk, F, testing
from vectoracl_conformance.harness import Needs, load_harness

DIMENSION = 32
FIELDS = {"lang": "keyword", "tags": "keyword[]", "year": "number"}
WHERE = F.year >= 2010


def _chunk(place: int, vector: Any) -> Chunk:
    metadata = {"lang": f"l{place % 7}", "tags": [f"t{place % 11}", f"t{place % 5}"], "year": 1990 + place % 40}
    return Chunk(str(place), f"d{place // 20}", "a text of some length " * 20, vector, metadata=metadata)


def measure(name: str, rows: int, rounds: int) -> dict[str, Any]:
    """Return the medians in milliseconds, and their ratios to the scan's and the count's."""
    harness = load_harness(name)
    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        with vectoracl.connect({"version": 1, "stores": {"main": {**store.config, "metadata": FIELDS}}}) as acl:
            vectors = np.random.default_rng(1).normal(size=(rows, DIMENSION)).astype(np.float32)
            for tenant in ("acme", "beta"):
                acl.scoped(testing.principal("loader", tenant)).load(map(_chunk, range(rows), vectors))
            docs = acl.scoped(testing.principal("alice", "acme"))

            def gone_through() -> dict[Any, int]:
                return Counter((hit.metadata or {})["lang"] for hit in docs.scan(WHERE, include={"metadata"}))

            assert dict(docs.facets("lang", where=WHERE)) == dict(gone_through())
            matching = docs.count(WHERE)
            contest = {
                "count": lambda _: docs.count(WHERE),
                "scan": lambda _: gone_through(),
                **{
                    f"facets of {field}": lambda _, field=field: docs.facets(field, where=WHERE)
                    for field in ("lang", "tags", "@document")
                },
            }
            times = interleaved(contest, rounds)
    finally:
        store.close()
        harness.close()
    ratios = {
        one: {to: round(ratio(timing, times[to]), 2) for to in ("scan", "count")}
        for one, timing in times.items()
        if one.startswith("facets")
    }
    shown = {one: round(timing.p50, 1) for one, timing in times.items()}
    return {"store": name, "server": harness.server().version, "chunks": rows, "matching": matching, "ms": shown,
            "ratios": ratios}  # fmt: skip


def main() -> None:
    """Measure the stores that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", default=["pgvector", "qdrant", "weaviate"])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    for name in asked.stores:
        print(json.dumps(measure(name, asked.rows, asked.rounds), indent=1), flush=True)


if __name__ == "__main__":
    main()
