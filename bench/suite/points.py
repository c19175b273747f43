"""The Qdrant adapter beside the raw client with the same filter, side by side in one run.

With VECTORACL_QDRANT_URL (and VECTORACL_QDRANT_API_KEY) both go to that server, through a proxy that adds a round-trip
time of 1 ms. Without it the client's local mode stands in: in process, without a round trip, where every search
reads every point; it measures our own cost on top of the client's and says nothing of a server.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from measure import interleaved, ratio
from proxy import proxy
from qdrant_client import QdrantClient, models

import vectoracl
from vectoracl import Chunk, testing
from vectoracl.model.records import Record, Tag
from vectoracl_qdrant import local, ports, words
from vectoracl_qdrant.compile import NO_VERSION, QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig

DIMENSION = 384
K = 10
_MOST = 5000  # connections: on loopback the client makes one for each request
TEXT = "the quick brown fox jumps over the lazy dog and is " * 4
URL = os.environ.get("VECTORACL_QDRANT_URL")
KEY = os.environ.get("VECTORACL_QDRANT_API_KEY")


def _vectors(seed: int, count: int) -> Any:
    return np.random.default_rng(seed).normal(size=(count, DIMENSION)).astype(np.float32)


def _chunks(tenant: int, count: int) -> list[Chunk]:
    return [Chunk(f"c{i}", f"d{i // 20}", f"{TEXT}{i}", one) for i, one in enumerate(_vectors(tenant, count))]


@contextmanager
def _place(round_trip: float) -> Iterator[tuple[dict[str, Any], QdrantClient]]:
    """Give the place of the store as configuration, and a raw client of the same place."""
    if URL is None:
        name = f"bench-{secrets.token_hex(4)}"
        shared = local.acquire(f"memory:{name}")
        yield {"memory": True, "name": name}, shared.client
        shared.release()
        return
    parts = urlsplit(URL)
    host, port = parts.hostname, parts.port or 6333
    if host not in ("127.0.0.1", "localhost") or parts.scheme != "http":
        raise SystemExit("The proxy adds its round trip to a server of this machine over http only.")
    key = {"api_key": KEY} if KEY else {}
    with proxy(port, round_trip, _MOST) as near, proxy(port, round_trip, _MOST) as other, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        client = QdrantClient(url=f"http://127.0.0.1:{other}", check_compatibility=False, timeout=60, **key)
        yield {"url": f"http://127.0.0.1:{near}", "parallel": 1, **key}, client
        client.close()


def _config(place: dict[str, Any], collection: str) -> dict[str, Any]:
    own = {"adapter": "qdrant", **place, "collection": collection, "dimension": DIMENSION}
    return {"version": 1, "stores": {"main": own}}


def _provision(config: dict[str, Any]) -> None:
    if URL is not None:  # past the proxy, which serves few connections
        config = {**config, "stores": {"main": {**config["stores"]["main"], "url": URL}}}
    with vectoracl.VectorACL(config) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()


def searches(tenants: int, rows: int, rounds: int) -> dict[str, Any]:
    """Return a scoped search's time divided by the raw client's, with the same filter, payload and limit."""
    with _place(0.001) as (place, client):
        collection = f"bench_{secrets.token_hex(4)}"
        config = _config(place, collection)
        _provision(config)
        with vectoracl.connect(config) as acl:
            for tenant in range(tenants):
                acl.scoped(testing.principal("loader", f"t{tenant}")).upsert(_chunks(tenant, rows))
            handle = acl.scoped(testing.principal("alice", "t0"))
            queries = _vectors(999, 32)
            handle.search(queries[0], K)
            sent: list[Any] = []
            call = ports.call
            ports.call = lambda *some: (sent.append(some[2]), call(*some))[1]  # type: ignore[assignment]
            handle.search(queries[0], K)
            ports.call = call
            (request,) = sent

            def raw(number: int) -> Any:
                return client.query_points(
                    collection,
                    query=queries[number % 32].tolist(),
                    query_filter=request.filter,
                    limit=K,
                    with_payload=models.PayloadSelectorInclude(include=list(request.payload)),
                )

            times = interleaved(
                {
                    "raw": raw,
                    "raw (A/A control)": raw,
                    "scoped": lambda number: handle.search(queries[number % 32], K),
                },
                rounds,
            )
        client.delete_collection(collection)
    found = {"requests of a search": len(sent), "raw p50, ms": times["raw"].p50}
    for name in ("raw (A/A control)", "scoped"):
        found[f"{name}: ratio"] = ratio(times[name], times["raw"])
        found[f"{name}: ratio of p50"] = times[name].p50 / times["raw"].p50
        found[f"{name}: ratio of p95"] = times[name].p95 / times["raw"].p95
    return found


def bulk(rows: int, rounds: int) -> dict[str, Any]:
    """Return the raw client's time for the same points, payload and words among them, divided by ours (rate ratio)."""
    with _place(0.001) as (place, client):
        ours, theirs = (f"bench_{secrets.token_hex(4)}" for _ in range(2))
        for collection in (ours, theirs):
            _provision(_config(place, collection))
        batches = [_chunks(number, rows) for number in range(rounds + 5)]
        with vectoracl.connect(_config(place, ours)) as acl:
            handles = [acl.scoped(testing.principal("loader", f"t{number}")) for number in range(len(batches))]

            def bare(number: int) -> None:
                # The same points, built from the same parts by hand.
                points = [
                    models.PointStruct(
                        id=str(uuid.UUID(int=number * rows + at)),
                        vector={"": one.vector.tolist(), "words": words.stored(one.text)},  # type: ignore[union-attr]
                        payload={"group_id": f"t{number}", "document": one.document, "generation": 0,
                                 "docgen": f"{len(one.document)}:{one.document}:0", "chunk_id": one.id,
                                 "label": "default", "rev": 0, "expires": 253402300799.0, "producer": "loader",
                                 "path": "upsert", "written_at": 1700000000.5, "position": at, "order": at,
                                 "version": "", "content": one.text, "metadata": json.dumps(one.metadata),
                                 "fields": {}, "present": []},
                    )
                    for at, one in enumerate(batches[number])
                ]  # fmt: skip
                client.upsert(theirs, points, wait=True)

            contest = {"raw": bare, "ours": lambda number: handles[number].upsert(batches[number])}
            timed = interleaved(contest, rounds, warm=3)
        for collection in (ours, theirs):
            client.delete_collection(collection)
    return {"rows of a call": rows, "our rate / the raw client's": 1 / ratio(timed["ours"], timed["raw"])}


def opening(tenants: int) -> dict[str, Any]:
    """Return how many requests the first search of a new handle makes, with *tenants* tenants in the store."""
    with _place(0.0) as (place, client):
        collection = f"bench_{secrets.token_hex(4)}"
        config = _config(place, collection)
        _provision(config)
        compiled = QdrantCompiler(QdrantConfig(url="http://localhost", dimension=DIMENSION), {})
        vector = _vectors(1, 1)[0]
        for start in range(0, tenants, 500):
            some = [Record(Tag(f"t{i}", "d", "c"), "text", vector, {}) for i in range(start, min(start + 500, tenants))]
            client.upsert(collection, compiled.points(some, compiled.words_of(some), NO_VERSION), wait=True)
        with vectoracl.connect(config) as acl:
            acl.scoped(testing.principal("alice", "t0")).search(vector, 1)
            sent: list[Any] = []
            call = ports.call
            ports.call = lambda *some: (sent.append(some[2]), call(*some))[1]  # type: ignore[assignment]
            for number in range(1, 21):
                handle = acl.scoped(testing.principal("alice", f"t{number * (tenants // 21)}"))
                assert len(handle.search(vector, 1)) == 1
            ports.call = call
        client.delete_collection(collection)
    return {"tenants": tenants, "requests of the first search of a handle": len(sent) / 20}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--tenants", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("bench/out/qdrant.json"))
    options = parser.parse_args()
    where = f"the server at {URL}, 1 ms round trip" if URL else "the client's local mode (no server: see the module)"
    found = {
        "measured on": where,
        "scoped search (goal: at most 1.05)": searches(20 if URL else 5, 200, options.rounds),
        "bulk upsert (goal: at least .9)": bulk(200, 20),
        "opening a scope (goal: no extra request)": opening(options.tenants if URL else min(options.tenants, 2000)),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
