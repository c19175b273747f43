"""Searches by words in a large tenant, through an index and row by row, and in a small one; hybrid ones beside them.

On a server with `pg_textsearch` that VECTORACL_PGVECTOR_KIT names (a superuser's connection string). Texts have 40 to
140 words with Zipf-distributed frequencies; a question has three words, of which the commonest is in about 9 % of the
texts. The contestants take turns in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from measure import Timing, interleaved

import vectoracl
from vectoracl import Chunk, F, Hybrid, Lexical, testing
from vectoracl_conformance.harness import Needs, load_harness

FIELDS = {"year": "number"}
LARGE, SMALL = "acme", "beta"
_VOCABULARY = np.array([f"w{number}" for number in range(20_000)])
_SHARES = (0.09, 0.01, 0.001)
GOALS = {"lexical, index": 3, "hybrid, index": 8}


def texts(rows: int, seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(60, 60 + len(_VOCABULARY))
    cumulated = np.cumsum(weights / weights.sum())
    for _ in range(rows):
        places = np.searchsorted(cumulated, rng.random(rng.integers(40, 141)))
        yield " ".join(_VOCABULARY[np.minimum(places, len(_VOCABULARY) - 1)])


def chunks(rows: int, dimension: int, seed: int) -> Iterator[Chunk]:
    rng = np.random.default_rng(seed)
    basis = rng.normal(size=(32, dimension)).astype(np.float32)
    for place, text in enumerate(texts(rows, seed)):
        vector = rng.normal(size=32).astype(np.float32) @ basis
        yield Chunk(str(place), f"d{place // 20}", text, vector, metadata={"year": 1990 + place % 40})


def questions(rows: int, count: int) -> list[str]:
    """Return questions of a common, a rarer and a rare word."""
    frequency = Counter(word for text in texts(min(rows, 20_000), 1) for word in set(text.split()))
    ordered = sorted(frequency, key=frequency.__getitem__)
    held = np.array([frequency[word] for word in ordered]) / min(rows, 20_000)
    made = []
    for number in range(count):
        picked = [ordered[min(int(np.searchsorted(held, share)) + number % 5, len(ordered) - 1)] for share in _SHARES]
        made.append(" ".join(picked))
    return made


def measure(rows: int, small: int, dimension: int, rounds: int) -> dict[str, Any]:
    """Return times in milliseconds, with their conditions."""
    harness = load_harness("vectoracl_pgvector.conformance.words:indexed")
    store: Any = harness.fresh(Needs(dimension, FIELDS))
    result: dict[str, Any] = {"server": harness.server().version, "chunks": rows, "dimension": dimension}
    try:
        main = {**store.config, "metadata": FIELDS}
        config = {"version": 1, "stores": {"main": main}}
        begin = time.perf_counter()
        with vectoracl.connect(config) as acl:
            acl.scoped(testing.principal("loader", LARGE)).load(chunks(rows, dimension, 1))
            acl.scoped(testing.principal("loader", SMALL)).load(chunks(small, dimension, 2))
        result["load s"] = round(time.perf_counter() - begin, 1)
        begin = time.perf_counter()
        store.promote(LARGE)
        result["promote s"] = round(time.perf_counter() - begin, 1)
        with store.superuser() as boss:
            boss.execute("VACUUM ANALYZE vectoracl.chunks")
            result["sizes MB"] = {
                name: round(size / 2**20, 1)
                for name, size in boss.execute(
                    "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE relname LIKE 'chunks_t_acme%' AND "
                    "relkind IN ('r', 'i')"
                )
            }
        result["ms"] = by_index(config, questions(rows, 10), dimension, rounds)
        with store.superuser() as boss:
            boss.execute("DROP INDEX vectoracl.chunks_t_acme_bm25")
        result["ms"] |= by_row(config, questions(rows, 10), max(5, rounds // 10))
    finally:
        store.close()
        harness.close()
    result["load average"] = round(os.getloadavg()[0], 1)
    return result


def by_index(config: dict[str, Any], asked: list[str], dimension: int, rounds: int) -> dict[str, Any]:
    query = np.random.default_rng(7).normal(size=dimension).astype(np.float32)
    with vectoracl.connect(config) as acl:
        docs = acl.scoped(testing.principal("alice", LARGE))

        def lexical(number: int, **more: Any) -> None:
            found = docs.search(Lexical(asked[number % len(asked)]), 10, **more)
            assert len(found) == 10
            assert found.complete

        contest = {
            "vector": lambda _: docs.search(query, 10),
            "lexical, index": lexical,
            "lexical, index, 50 % by filter": lambda number: lexical(number, where=F.year >= 2010),
            "lexical, index, 5 % by filter": lambda number: lexical(number, where=F.year >= 2028),
            "lexical, no such word": lambda _: docs.search(Lexical("nowhere"), 10),
            "lexical, exact": lambda number: docs.search(Lexical(asked[number % len(asked)]), 10, exact=True),
            "hybrid, index": lambda number: docs.search(Hybrid(asked[number % len(asked)], query), 10),
        }
        return shown(interleaved(contest, rounds))


def by_row(config: dict[str, Any], asked: list[str], rounds: int) -> dict[str, Any]:
    main = config["stores"]["main"]
    ranked = {**config, "stores": {"main": {**main, "words": "ts_rank"}}}
    with vectoracl.connect(config) as bm25, vectoracl.connect(ranked) as plain:
        contest = {}
        for name, acl in (("bm25", bm25), ("ts_rank", plain)):
            for tenant in (LARGE, SMALL):
                docs = acl.scoped(testing.principal("alice", tenant))
                contest[f"lexical, row by row, {name}, {tenant}"] = lambda number, docs=docs: docs.search(
                    Lexical(asked[number % len(asked)]), 10
                )
        return shown(interleaved(contest, rounds, warm=1))


def shown(times: dict[str, Timing]) -> dict[str, Any]:
    """Return the medians and, since the machine may be shared, the fastest tenth, in milliseconds."""
    return {
        name: {"p50": round(timing.p50, 2), "p10": round(sorted(timing.times)[len(timing.times) // 10], 2)}
        for name, timing in times.items()
    }


def main() -> None:
    """Measure, print and compare with the goals."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--small", type=int, default=2_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=60)
    asked = parser.parse_args()
    result = measure(asked.rows, asked.small, asked.dimension, asked.rounds)
    result["goals"] = {name: [goal, result["ms"][name]["p50"] <= goal] for name, goal in GOALS.items()}
    print(json.dumps(result, indent=1), flush=True)


if __name__ == "__main__":
    main()
