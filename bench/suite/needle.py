"""The Pinecone adapter beside the raw client, on needledb: an independent engine, so these are not Pinecone's times.

What is compared is what vectoracl adds: the raw client sends the same query (vector, filter, top_k, namespace) and the
same records. Both go through the proxy that adds a round-trip time. A client that sends no namespace, or filters
afterwards, would be faster and is not the same query.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measure import Timing, interleaved, ratio
from pinecone import Index
from proxy import proxy

import vectoracl
from vectoracl import Chunk, F, testing
from vectoracl_pinecone.conformance.needledb_server import Needle
from vectoracl_pinecone.demo_server import VERSION
from vectoracl_pinecone.names import namespace_of
from vectoracl_pinecone.ports import bounded

DIMENSION = 384
ROUND_TRIP = 0.001
TEXT = "It is the scope of whoever asks that decides, and it does so before the store ranks anything at all. " * 5
OUT = Path(__file__).resolve().parents[1] / "out"


def config(needle: Needle, index: str, port: int | None) -> dict[str, Any]:
    main = {
        "adapter": "pinecone", "host": needle.host(index, port), "api_key": needle.key, "dimension": DIMENSION,
        "negation": "nin", "metadata": {"year": "number"},
    }  # fmt: skip
    return {"version": 1, "stores": {"main": main}}


def chunks(count: int, number: int, rng: np.random.Generator) -> list[Chunk]:
    matrix = rng.normal(size=(count, DIMENSION)).astype(np.float32)
    return [
        Chunk(f"c{i % 20}", f"{number}-{i // 20}", f"{i} {TEXT}", matrix[i], i % 20, {"year": 2000 + i % 25})
        for i in range(count)
    ]


def share(timing: Timing, other: Timing, at: float) -> float:
    """Return the ratio of two percentiles."""
    one, two = (sorted(some.times)[int(len(some.times) * at)] for some in (timing, other))
    return one / two


def searches(needle: Needle, rows: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    needle.create("searches", DIMENSION)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        port = stack.enter_context(proxy(needle.port, ROUND_TRIP))
        acl = stack.enter_context(vectoracl.connect(config(needle, "searches", port)))
        docs = acl.scoped(testing.principal("alice", "acme"))
        for start in range(0, rows, 200):
            docs.upsert(chunks(200, start, rng))
        raw, control = (bounded(Index(host=needle.host("searches", port), api_key=needle.key)) for _ in range(2))
        queries = rng.normal(size=(64, DIMENSION)).astype(np.float32)
        namespace = namespace_of("vectoracl-", "acme")
        for name, where, condition in (
            ("plain", None, None),
            ("filtered", F.year >= 2012, {"field_num_year": {"$gte": 2012}}),
        ):

            def bare(index: Any, number: int, condition: Any = condition) -> Any:
                return index.query(
                    namespace=namespace, vector=queries[number % 64].tolist(), top_k=10, filter=condition,
                    include_metadata=True,
                )  # fmt: skip

            def ours(number: int, where: Any = where) -> Any:
                more = {} if where is None else {"where": where}
                return docs.search(queries[number % 64], 10, **more)

            timed = interleaved(
                {"raw": lambda n, one=bare: one(raw, n), "A/A": lambda n, one=bare: one(control, n), "ours": ours},
                rounds,
            )
            found[name] = {
                "raw p50 ms": timed["raw"].p50,
                "ours p50 ms": timed["ours"].p50,
                "p50": ratio(timed["ours"], timed["raw"]),
                "p95": share(timed["ours"], timed["raw"], 0.95),
                "A/A p50": ratio(timed["A/A"], timed["raw"]),
                "A/A p95": share(timed["A/A"], timed["raw"], 0.95),
            }
        raw.close()
        control.close()
    needle.drop("searches")
    return found


def _vectors(some: list[Chunk]) -> list[dict[str, Any]]:
    """Return the records that the adapter writes for *some*, built from the same parts by hand."""
    return [
        {"id": id_, "values": one.vector.tolist(),
         "metadata": {
            "acl_tenant": "acme", "acl_document": one.document, "acl_generation": 0, "acl_chunk": one.id,
            "acl_docgen": f"{len(one.document)}:{one.document}:0", "acl_label": "default", "acl_rev": 0,
            "acl_expires": 253402300799.0, "acl_producer": "alice", "acl_path": "upsert",
            "acl_time": 1700000000.5, "acl_position": one.position, "acl_version": "", "acl_record": id_,
            "acl_text": one.text, "acl_metadata": json.dumps(one.metadata), "has_year": True,
            "field_num_year": one.metadata["year"]}}
        for one in some for id_ in (f"{one.document}.0.{one.id}.{'0' * 32}",)
    ]  # fmt: skip


def bulk(needle: Needle, batch: int, rounds: int) -> dict[str, Any]:
    """Upserts of whole batches beside the raw client, which writes the same keys of the same records."""
    rng = np.random.default_rng(8)
    needle.create("bulk", DIMENSION)
    with ExitStack() as stack:
        port = stack.enter_context(proxy(needle.port, ROUND_TRIP))
        acl = stack.enter_context(vectoracl.connect(config(needle, "bulk", port)))
        docs = acl.scoped(testing.principal("alice", "acme"))
        raw = bounded(Index(host=needle.host("bulk", port), api_key=needle.key))
        ours_batches = [chunks(batch, number, rng) for number in range(rounds + 8)]

        def bare(number: int) -> None:
            raw.upsert(namespace="vectoracl-t-raw", vectors=_vectors(ours_batches[number]))

        timed = interleaved({"raw": bare, "ours": lambda number: docs.upsert(ours_batches[number])}, rounds, warm=3)
        raw.close()
    needle.drop("bulk")
    return {
        "batch": batch,
        "raw rows/s": batch / statistics.median(timed["raw"].times) * 1e3,
        "ours rows/s": batch / statistics.median(timed["ours"].times) * 1e3,
        "share": 1 / ratio(timed["ours"], timed["raw"]),
    }


def loads(needle: Needle, rows: int, batch: int, rounds: int, round_trip: float) -> dict[str, Any]:
    """`load` beside the raw client: one upsert after another, and its own batching with 8 requests in flight."""
    rng = np.random.default_rng(10)
    needle.create("loads", DIMENSION)
    with ExitStack() as stack:
        port = stack.enter_context(proxy(needle.port, round_trip, 64))
        acl = stack.enter_context(vectoracl.connect(config(needle, "loads", port)))
        docs = acl.scoped(testing.principal("alice", "acme"))
        raw = bounded(Index(host=needle.host("loads", port), api_key=needle.key))
        streams = [chunks(rows, number, rng) for number in range(rounds + 6)]

        def serial(number: int) -> None:
            for start in range(0, rows, batch):
                raw.upsert(namespace="vectoracl-t-raw", vectors=_vectors(streams[number][start : start + batch]))

        def batched(number: int) -> None:
            raw.upsert(
                namespace="vectoracl-t-raw", vectors=_vectors(streams[number]), batch_size=batch, show_progress=False
            )

        ours = {
            f"load, batch = {batch}": lambda number: docs.load(streams[number], batch=batch),
            "load, batches by bytes": lambda number: docs.load(streams[number]),
        }
        timed = interleaved({"raw, one after another": serial, "raw, 8 in flight": batched, **ours}, rounds, warm=1)
        raw.close()
    needle.drop("loads")
    return {
        "rows": rows,
        "round trip ms": round_trip * 1e3,
        "rows/s": {name: rows / statistics.median(one.times) * 1e3 for name, one in timed.items()},
        **{
            f"{name}: share of {other}": 1 / ratio(timed[name], timed[other])
            for name in ours
            for other in ("raw, one after another", "raw, 8 in flight")
        },
    }


def tenants(needle: Needle, count: int) -> dict[str, Any]:
    """Requests of a search by one tenant of many that was never asked for before, and of its second search."""
    rng = np.random.default_rng(9)
    needle.create("tenants", DIMENSION)
    vector = rng.normal(size=DIMENSION).astype(np.float32).tolist()
    record = {"id": "x", "values": vector, "metadata": {"note": "somebody's"}}
    for number in range(count):
        body = {"namespace": namespace_of("vectoracl-", f"tenant-{number}"), "vectors": [record]}
        needle.http.post("/indexes/tenants/vectors/upsert", json=body).raise_for_status()
    with vectoracl.connect(config(needle, "tenants", None)) as acl:
        for number in range(10):
            acl.scoped(testing.principal("alice", f"new-{number}")).upsert(
                [Chunk(f"c{i}", "d", "t", vector) for i in range(12)]
            )
        acl.scoped(testing.principal("alice", "new-0")).search(vector, 10)
        asked = []
        for number in range(1, 10):
            docs = acl.scoped(testing.principal("alice", f"new-{number}"))
            for _ in range(2):
                before = needle.counts()["answered"]
                docs.search(vector, 10)
                asked.append(needle.counts()["answered"] - before)
    needle.drop("tenants")
    return {"tenants": count + 10, "requests, first search": max(asked[::2]), "requests, second": max(asked[1::2])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more rows, more rounds, 10,000 tenants")
    parser.add_argument("--only", help="one step: searches, bulk, loads, 'loads, far away' or tenants")
    options = parser.parse_args()
    full = options.full
    needle = Needle()
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "searches": lambda: searches(needle, 4000 if full else 1000, 400 if full else 100),
        "bulk": lambda: bulk(needle, 200, 20 if full else 8),
        "loads": lambda: loads(needle, 4000, 200, 12 if full else 5, ROUND_TRIP),
        "loads, far away": lambda: loads(needle, 4000, 200, 12 if full else 5, 0.02),
        "tenants": lambda: tenants(needle, 10_000 if full else 1000),
    }
    found: dict[str, Any] = {"engine": f"needledb {VERSION}", "client": f"pinecone {version('pinecone')}",
                             "round trip ms": ROUND_TRIP * 1e3, "dimension": DIMENSION}  # fmt: skip
    try:
        for name, step in steps.items():
            if options.only not in (None, name):
                continue
            print(f"measuring {name} …", flush=True)
            found[name] = step()
            print(json.dumps(found[name], indent=1), flush=True)
    finally:
        needle.close()
    if options.only is not None:
        return
    goals = [
        ("scoped search over raw, p50", found["searches"]["plain"]["p50"], "<=", 1.05),
        ("scoped search over raw, p95", found["searches"]["plain"]["p95"], "<=", 1.05),
        ("with a filter, p50", found["searches"]["filtered"]["p50"], "<=", 1.05),
        ("with a filter, p95", found["searches"]["filtered"]["p95"], "<=", 1.05),
        ("bulk upsert, share of the raw client", found["bulk"]["share"], ">=", 0.9),
        (
            "load, share of the raw client's serial rate",
            found["loads"]["load, batches by bytes: share of raw, one after another"],
            ">=",
            0.9,
        ),
        (
            "load, share of the raw client's rate with 8 in flight",
            found["loads"]["load, batches by bytes: share of raw, 8 in flight"],
            ">=",
            0.9,
        ),
        ("requests of a new tenant's first search", found["tenants"]["requests, first search"], "<=", 1),
    ]
    for text, reached, way, target in goals:
        met = reached <= target if way == "<=" else reached >= target
        print(f"{'met    ' if met else 'NOT MET'}  {text}: {reached:.3f} (goal {way} {target})")
    OUT.mkdir(exist_ok=True)
    (OUT / "pinecone.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
