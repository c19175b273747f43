"""The Weaviate adapter beside the official client doing the same thing in the same tenant, on a real server.

Searches go through proxies that add a round-trip time to both ports. The raw client asks for the same properties with
the same vector, filter and limit, and writes the same objects by its fastest way (`insert_many`, which is one gRPC
request). A client without a tenant is refused by the server, so there is nothing else to compare with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from measure import Timing, interleaved, ratio
from proxy import proxy

import vectoracl
from vectoracl import Chunk, F, testing
from vectoracl.adapter_api.local_servers import start as servers
from vectoracl.adapter_api.local_servers.start import Running
from vectoracl.filters.validation import check_fields
from vectoracl_weaviate.compile import NO_VERSION, WeaviateCompiler
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.conformance.wire_decoding import answered
from vectoracl_weaviate.demo_server import SPEC
from vectoracl_weaviate.names import tenant_name

DIMENSION = 384
ROUND_TRIP = 0.001
TEXT = "It is the scope of whoever asks that decides, and it does so before the store ranks anything at all. " * 5
OUT = Path(__file__).resolve().parents[1] / "out"
FIELDS = {"year": "number"}
KEY = "VECTORACL_BENCH_WEAVIATE_KEY"
# Without groups the server's page of metrics has a set of lines for each tenant, and takes a minute for a thousand.
QUIET = {"QUERY_SLOW_LOG_ENABLED": "false", "PROMETHEUS_MONITORING_GROUP": "true"}


def config(collection: str, http: int, grpc_port: int) -> dict[str, Any]:
    main = {"adapter": "weaviate", "url": f"http://127.0.0.1:{http}", "grpc_port": grpc_port,
            "collection": collection, "dimension": DIMENSION, "index": "flat", "metadata": FIELDS,
            "api_key": {"env": KEY}}  # fmt: skip
    return {"version": 1, "stores": {"main": main}}


def provision(made: dict[str, Any]) -> None:
    with vectoracl.VectorACL(made) as acl:
        operator = acl.operator()
        operator.provision()
        operator.close()


def client(http: int, grpc_port: int) -> Any:
    import weaviate
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout

    return weaviate.connect_to_custom(
        http_host="127.0.0.1", http_port=http, http_secure=False, grpc_host="127.0.0.1", grpc_port=grpc_port,
        grpc_secure=False, skip_init_checks=True, auth_credentials=Auth.api_key(os.environ[KEY]),
        additional_config=AdditionalConfig(timeout=Timeout(query=30)),
    )  # fmt: skip


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


def searches(running: Running, rows: int, rounds: int) -> dict[str, Any]:
    from weaviate.classes.query import Filter, MetadataQuery

    rng = np.random.default_rng(7)
    found: dict[str, Any] = {}
    ports = running.ports
    provision(config("BenchSearches", ports["http"], ports["grpc"]))
    with ExitStack() as stack:
        http = stack.enter_context(proxy(ports["http"], ROUND_TRIP))
        grpc_port = stack.enter_context(proxy(ports["grpc"], ROUND_TRIP))
        acl = stack.enter_context(vectoracl.connect(config("BenchSearches", http, grpc_port)))
        docs = acl.scoped(testing.principal("alice", "acme"))
        for start in range(0, rows, 500):
            docs.upsert(chunks(500, start, rng))
        clients = [stack.enter_context(client(http, grpc_port)) for _ in range(2)]
        raw, control = (one.collections.use("BenchSearches").with_tenant(tenant_name("acme")) for one in clients)
        queries = rng.normal(size=(64, DIMENSION)).astype(np.float32)
        compiler = WeaviateCompiler(WeaviateConfig(url=running.url, dimension=DIMENSION), check_fields(FIELDS))
        names = list(compiler.properties(frozenset({"text", "metadata"})))
        for name, where, condition in (
            ("plain", None, None),
            ("filtered", F.year >= 2012, Filter.by_property("m_num_year").greater_or_equal(2012.0)),
        ):

            def bare(one: Any, number: int, condition: Any = condition) -> Any:
                return one.query.near_vector(
                    queries[number % 64].tolist(), limit=10, filters=condition, return_properties=names,
                    return_metadata=MetadataQuery(distance=True),
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
    return found


def bulk(running: Running, batch: int, rounds: int) -> dict[str, Any]:
    """Upserts of whole batches beside the raw client, which writes the same properties of the same objects."""
    from google.protobuf.json_format import MessageToDict
    from weaviate.classes.data import DataObject

    rng = np.random.default_rng(8)
    ports = running.ports
    made = config("BenchBulk", ports["http"], ports["grpc"])
    provision(made)
    compiler = WeaviateCompiler(WeaviateConfig(url=running.url, dimension=DIMENSION), check_fields(FIELDS))
    with ExitStack() as stack:
        acl = stack.enter_context(vectoracl.connect(made))
        docs = acl.scoped(testing.principal("alice", "acme"))
        ours_batches = [chunks(batch, number, rng) for number in range(rounds + 8)]
        raw_client = stack.enter_context(client(ports["http"], ports["grpc"]))
        collection = raw_client.collections.use("BenchBulk")
        collection.tenants.create("raw")
        raw = collection.with_tenant("raw")
        from vectoracl.model.records import Record, Tag

        # What the raw client is given was made beforehand: building it is no cost of its.
        objects = []
        for some in ours_batches:
            tags = [Tag("acme", one.document, one.id, producer="alice") for one in some]
            records = [Record(tag, c.text, c.vector, c.metadata) for tag, c in zip(tags, some, strict=True)]
            message = compiler.put("acme", [(one, NO_VERSION) for one in records]).message
            objects.append(
                [
                    DataObject(
                        uuid=one.uuid,
                        vector={"default": record.vector.tolist()},
                        properties={
                            **MessageToDict(one.properties.non_ref_properties),
                            **{p.prop_name: list(p.values) for p in one.properties.text_array_properties},
                        },
                    )
                    for one, record in zip(message.objects, records, strict=True)
                ]
            )

        def bare(number: int) -> None:
            assert not raw.data.insert_many(objects[number]).errors

        timed = interleaved({"raw": bare, "ours": lambda number: docs.upsert(ours_batches[number])}, rounds, warm=3)
    return {
        "batch": batch,
        "raw rows/s": batch / statistics.median(timed["raw"].times) * 1e3,
        "ours rows/s": batch / statistics.median(timed["ours"].times) * 1e3,
        "share": 1 / ratio(timed["ours"], timed["raw"]),
    }


def tenants(running: Running, count: int) -> dict[str, Any]:
    """Requests of a search by one tenant of many that was never asked for before, and of its second search."""
    rng = np.random.default_rng(9)
    ports = running.ports
    made = config("BenchTenants", ports["http"], ports["grpc"])
    provision(made)
    vector = rng.normal(size=DIMENSION).astype(np.float32)
    begun = time.perf_counter()
    with client(ports["http"], ports["grpc"]) as raw:
        collection = raw.collections.use("BenchTenants")
        for start in range(0, count, 500):
            collection.tenants.create([tenant_name(f"tenant-{i}") for i in range(start, min(count, start + 500))])
            print(f"  {min(count, start + 500)} of {count} tenants", flush=True)
    created = time.perf_counter() - begun
    with vectoracl.connect(made) as acl:
        step = max(1, count // 12)
        names = [f"tenant-{i}" for i in range(0, count, step)][:10]
        for name in names:
            acl.scoped(testing.principal("alice", name)).upsert([Chunk(f"c{i}", "d", "t", vector) for i in range(12)])
        acl.scoped(testing.principal("alice", names[0])).search(vector, 10)
        asked = []
        for name in names[1:]:
            docs = acl.scoped(testing.principal("alice", name))
            for _ in range(2):
                before = answered(ports["metrics"])
                docs.search(vector, 10)
                asked.append(answered(ports["metrics"]) - before)
    return {"tenants": count, "seconds to create them": created, "requests, first search": max(asked[::2]),
            "requests, second": max(asked[1::2])}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="more rows, more rounds, 10,000 tenants")
    full = parser.parse_args().full
    running = servers.start(SPEC, environment=QUIET, own=True, unguarded=True)
    os.environ[KEY] = running.key
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "searches": lambda: searches(running, 4000 if full else 1000, 400 if full else 100),
        "bulk": lambda: bulk(running, 500, 20 if full else 8),
        "tenants": lambda: tenants(running, 10_000 if full else 1000),
    }
    found: dict[str, Any] = {"server": running.used, "client": f"weaviate-client {version('weaviate-client')}",
                             "round trip ms": ROUND_TRIP * 1e3, "dimension": DIMENSION}  # fmt: skip
    try:
        for name, step in steps.items():
            print(f"measuring {name} …", flush=True)
            found[name] = step()
            print(json.dumps(found[name], indent=1), flush=True)
    finally:
        running.close()
    goals = [
        ("scoped search over raw, p50", found["searches"]["plain"]["p50"], "<=", 1.05),
        ("scoped search over raw, p95", found["searches"]["plain"]["p95"], "<=", 1.05),
        ("with a filter, p50", found["searches"]["filtered"]["p50"], "<=", 1.05),
        ("with a filter, p95", found["searches"]["filtered"]["p95"], "<=", 1.05),
        ("bulk upsert, share of the raw client", found["bulk"]["share"], ">=", 0.9),
        ("requests of a new tenant's first search", found["tenants"]["requests, first search"], "<=", 1),
    ]
    for text, reached, way, target in goals:
        met = reached <= target if way == "<=" else reached >= target
        print(f"{'met    ' if met else 'NOT MET'}  {text}: {reached:.3f} (goal {way} {target})")
    OUT.mkdir(exist_ok=True)
    (OUT / "weaviate.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
