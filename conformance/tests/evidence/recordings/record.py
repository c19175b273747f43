"""Records what the official clients and real servers say to each other; run by hand when a protocol has moved on.

    python record.py weaviate HTTP_PORT GRPC_PORT
    python record.py needledb PORT

Both servers have to listen on 127.0.0.1 and be empty; the clients (weaviate-client, pinecone) have to be installed.
needledb is recorded behind Starlette's GZipMiddleware where it is to compress; the file says what was recorded.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vectoracl_conformance.evidence import Session, Tap, Taps
from vectoracl_conformance.evidence.sessions import Piece

HERE = Path(__file__).parent


def save(name: str, about: str, sessions: tuple[Session, ...]) -> None:
    """Write *sessions* to one file."""
    data = {
        "about": about,
        "sessions": [
            {
                "number": session.number,
                "pieces": [[piece.side, base64.b64encode(piece.data).decode()] for piece in session.pieces],
            }
            for session in sessions
        ],
    }
    (HERE / f"{name}.json.gz").write_bytes(gzip.compress(json.dumps(data).encode(), 9, mtime=0))


def load(name: str) -> tuple[Session, ...]:
    """Read them; moments were not kept."""
    data = json.loads(gzip.decompress((HERE / f"{name}.json.gz").read_bytes()))
    return tuple(
        Session(
            one["number"],
            0.0,
            1.0,
            tuple(Piece(0.0, side, base64.b64decode(text)) for side, text in one["pieces"]),
        )
        for one in data["sessions"]
    )


def _ended(taps: Taps) -> tuple[Session, ...]:
    until = time.monotonic() + 5
    while time.monotonic() < until and any(session.closed is None for session in taps.sessions()):
        time.sleep(0.05)
    return taps.sessions()


async def _weaviate(host: str, http: int, grpc_port: int) -> None:
    import grpc
    import weaviate
    from weaviate.classes.config import Configure, DataType, Property
    from weaviate.classes.data import DataObject
    from weaviate.classes.query import Filter
    from weaviate.classes.tenants import Tenant
    from weaviate.exceptions import WeaviateQueryError
    from weaviate.proto.v1 import search_get_pb2, weaviate_pb2_grpc

    client = weaviate.use_async_with_local(host=host, port=http, grpc_port=grpc_port)
    await client.connect()
    made = await client.collections.create(
        "Kit",
        multi_tenancy_config=Configure.multi_tenancy(enabled=True),
        vector_config=Configure.Vectors.self_provided(),
        properties=[Property(name="text", data_type=DataType.TEXT)],
    )
    await made.tenants.create([Tenant(name="aa"), Tenant(name="bb")])
    for tenant in ("aa", "bb"):
        data = made.with_tenant(tenant).data
        await data.insert_many(
            [DataObject(properties={"text": f'canary-{tenant}-{n}- "é"'}, vector=[0.1 * n] * 8) for n in range(20)]
        )
        await data.insert({"text": f"canary-{tenant}-single-"}, vector=[0.3] * 8)
    own = made.with_tenant("aa")
    calls = [
        made.with_tenant(tenant).query.near_vector([0.2] * 8, limit=5 + n) for n in range(8) for tenant in ("aa", "bb")
    ]
    await asyncio.gather(*calls)  # interleaved on one connection
    await own.query.bm25("canary", limit=3)
    await own.query.hybrid("canary", vector=[0.2] * 8, limit=3)
    await own.query.fetch_objects(limit=50, include_vector=True)
    await own.aggregate.over_all(total_count=True)
    for wrong in (made, made.with_tenant("zz")):
        try:
            await wrong.query.near_vector([0.2] * 8)
        except WeaviateQueryError:
            pass
        else:
            raise AssertionError("it has to be refused")
    await own.data.delete_many(where=Filter.by_property("text").like("*canary-aa-1-*"))
    async with grpc.aio.insecure_channel(f"{host}:{grpc_port}", compression=grpc.Compression.Gzip) as channel:
        ask = search_get_pb2.SearchRequest(collection="Kit", tenant="bb", limit=30, uses_127_api=True)
        await weaviate_pb2_grpc.WeaviateStub(channel).Search(ask)
    await client.collections.delete("Kit")
    await client.close()


def _needledb(host: str, port: int) -> None:
    import httpx
    from pinecone import Pinecone

    base = f"http://{host}:{port}"
    httpx.post(f"{base}/indexes", json={"name": "kit", "dimension": 8, "metric": "cosine"}).raise_for_status()
    index: Any = Pinecone(api_key="none").Index(host=f"{base}/indexes/kit")
    for tenant in ("aa", "bb"):
        rows = [
            {"id": f"{tenant}-{n}", "values": [0.1 + n, *[0.2] * 7], "metadata": {"text": f'canary-{tenant}-{n}- "é"'}}
            for n in range(20)
        ]
        index.upsert(vectors=rows, namespace=tenant)
    index.query(vector=[0.2] * 8, top_k=5, namespace="aa", include_metadata=True, include_values=True)
    index.query(vector=[0.2] * 8, top_k=5, namespace="aa", filter={"text": {"$eq": 'canary-aa-3- "é"'}})
    index.fetch(ids=["aa-1", "bb-1"], namespace="aa")
    index.delete(ids=["aa-2"], namespace="aa")
    index.describe_index_stats()
    # The official client asks for no compression, another one does.
    ask = {"vector": [0.2] * 8, "topK": 5, "namespace": "aa", "includeMetadata": True, "includeValues": True}
    httpx.post(f"{base}/indexes/kit/query", json=ask).raise_for_status()
    httpx.delete(f"{base}/indexes/kit")


def main() -> None:
    """Record one of the two."""
    which, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
    taps = Taps(*(Tap.tcp("127.0.0.1", port) for port in ports))
    taps.start()
    try:
        host, *through = taps.address
        if which == "weaviate":
            asyncio.run(_weaviate(str(host), int(through[0]), int(through[1])))
            about = f"Weaviate, weaviate-client {version('weaviate-client')}, grpcio {version('grpcio')}"
        else:
            _needledb(str(host), int(through[0]))
            about = f"needledb {version('needledb')} behind GZipMiddleware, pinecone {version('pinecone')}"
        sessions = _ended(taps)
    finally:
        taps.stop()
    save(which, about, sessions)


if __name__ == "__main__":
    main()
