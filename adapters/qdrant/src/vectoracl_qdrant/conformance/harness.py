"""The harness of the Qdrant adapter: a server, or the client's local mode where none is available.

A server is the one that `VECTORACL_QDRANT_URL` names, else a program `qdrant` on the PATH, else Docker's image.

With `VECTORACL_QDRANT_URL` (and `VECTORACL_QDRANT_API_KEY`; `VECTORACL_QDRANT_GRPC=1` for gRPC, at the port
`VECTORACL_QDRANT_GRPC_PORT`, 6334 if it is not given) each store is a separate collection on that server, dropped at
the end. The census scrolls without a filter and reads the payload by itself: it shares nothing with the adapter but the
default names of the payload's keys.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from qdrant_client import QdrantClient, models

from vectoracl.adapter_api.local_servers import start
from vectoracl.adapter_api.local_servers.start import Place, Running, ServerSpec
from vectoracl.model.records import Record, Tag
from vectoracl_conformance.evidence import Tap, Taps, Wire
from vectoracl_conformance.harness import Engine, Harness, HarnessError, Mutant, Needs, Server, Store, Weakening
from vectoracl_qdrant import local
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.conformance.wire_decoding import DECODE, HEADS, JUDGE, Counted, QdrantEngine
from vectoracl_qdrant.requests import Rank, RankGroups, RankLegs, RankWords, Scroll, Write

_TENANT = "group_id"
_CENSUS = """
import json
from datetime import datetime
import numpy as np
from vectoracl.model.records import Record, Tag
from vectoracl_qdrant import local

NAMES = ("group_id", "document", "chunk_id", "generation", "label", "rev", "expires", "producer", "path", "written_at",
         "position")

def record(point):
    payload = point.payload
    metadata = json.loads(payload["metadata"])
    for name, kind in {fields!r}.items():
        if kind == "datetime" and name in metadata:
            metadata[name] = datetime.fromisoformat(metadata[name])
    vector = np.asarray(point.vector[""] if isinstance(point.vector, dict) else point.vector, np.float32)
    return Record(Tag(*(payload[name] for name in NAMES)), payload["content"], vector, metadata)

def census(client):
    place = local.acquire({key!r})
    try:
        with place.lock:
            points, after = [], None
            while True:
                some, after = place.client.scroll(
                    {collection!r}, limit=1000, offset=after, with_payload=True, with_vectors=True
                )
                points += some
                if after is None:
                    break
        return [record(point) for point in points if point.payload.get("group_id") not in (None, "*heads")]
    finally:
        place.release()
"""
"""The same as `QdrantStore.census`, for local mode, where the rows are in the process of the client."""
_CHANGE = """
from qdrant_client import models
from vectoracl_qdrant import local

def work(client):
    place = local.acquire({key!r})
    try:
        with place.lock:
            place.client.{call}
    finally:
        place.release()
"""


class QdrantStore(Store):
    """One collection."""

    def __init__(self, needs: Needs, place: Mapping[str, Any], client: Callable[[], QdrantClient]) -> None:
        self._needs = needs
        self._collection = f"kit_{secrets.token_hex(6)}"
        self.config = {
            "adapter": "qdrant",
            **place,
            "collection": self._collection,
            "dimension": needs.dimension,
            "metric": needs.metric,
        }
        self._local: local.Local | None = None
        self._metrics: httpx.Client | None = None
        if "url" in place:
            self._client = client()
            self.single = {**self.config, "parallel": 1}
            key = place.get("api_key")
            self.secrets = (str(key),) if key else ()
        else:
            _parse_once()
            own = f"kit-{secrets.token_hex(6)}"
            self.config = {**self.config, "memory": True, "name": own}
            self.single = self.config
            self._local = local.acquire(f"memory:{own}")
            self._client = self._local.client
            self.census_source = _CENSUS.format(
                key=f"memory:{own}", collection=self._collection, fields=dict(needs.metadata)
            )
        self._provision()

    def _provision(self) -> None:
        from vectoracl import VectorACL

        config = {"version": 1, "stores": {"kit": {**self.config, "metadata": dict(self._needs.metadata)}}}
        with VectorACL(config) as acl:
            operator = acl.operator()
            operator.provision()
            operator.close()

    def _points(self) -> list[models.Record]:
        points: list[models.Record] = []
        offset = None
        while True:
            some, offset = self._client.scroll(
                self._collection, limit=1000, offset=offset, with_payload=True, with_vectors=True
            )
            points.extend(some)
            if offset is None:
                return points

    def census(self) -> Sequence[Record]:
        """Read every point of every tenant; heads of documents are not rows."""
        with nullcontext() if self._local is None else self._local.lock:
            points = self._points()
        return [self._record(point) for point in points if (point.payload or {}).get(_TENANT) != HEADS]

    def _record(self, point: models.Record) -> Record:
        payload = point.payload or {}
        names = (_TENANT, "document", "chunk_id", "generation", "label", "rev", "expires", "producer", "path",
                 "written_at", "position")  # fmt: skip
        metadata = json.loads(payload["metadata"])
        for name, kind in self._needs.metadata.items():
            if kind == "datetime" and name in metadata:
                metadata[name] = datetime.fromisoformat(metadata[name])
        vector = np.asarray(point.vector[""] if isinstance(point.vector, dict) else point.vector, np.float32)
        return Record(Tag(*(payload[name] for name in names)), payload["content"], vector, metadata)

    def carries(self, request: Any, tenant: str) -> bool | None:
        """Demand the tenant as a condition of `must`, at the root of the filter of every reading and writing step."""
        match request:
            case RankWords() if not request.idf:
                return False  # the statistics would be everybody's
            case Rank() | RankWords() | RankGroups() | Scroll():
                return _in_must(request.filter, tenant)
            case RankLegs():
                return bool(request.legs) and all(QdrantStore.carries(self, leg, tenant) for leg in request.legs)
            case Write():
                return all(_written_in(step, tenant) for step in request.operations)
        return False

    def wire(self) -> Wire | None:
        """Describe REST's wire, and gRPC's where it is used: without TLS, so that they can be read."""
        if self._local is not None:
            return None
        url = urlsplit(str(self.config["url"]))
        host, port = url.hostname or "localhost", url.port or 6333
        if url.scheme == "https":
            return None

        def config(here: str, rest: int, grpc: int | None = None) -> Mapping[str, Any]:
            own = {**self.config, "url": f"http://{here}:{rest}", "parallel": 1}
            return own if grpc is None else {**own, "grpc_port": grpc}

        def recorder() -> Tap | Taps:
            if not self.config.get("grpc"):
                return Tap.tcp(host, port)
            return Taps(Tap.tcp(host, port), Tap.tcp(host, int(self.config.get("grpc_port", 6334))))

        http = self._http()
        return Wire(recorder=recorder, config=config, answered=Counted(http), decode=DECODE, judge=JUDGE)

    def _http(self) -> httpx.Client:
        if self._metrics is None:
            key = self.config.get("api_key")
            headers = {"api-key": str(key)} if key else {}
            self._metrics = httpx.Client(base_url=str(self.config["url"]), headers=headers, timeout=30)
        return self._metrics

    def engine(self) -> Engine | None:
        """Return the server's own counter of what it scored."""
        if self._local is not None:
            return None
        return QdrantEngine(self._http(), self._collection, self._needs.dimension, self._unguarded)

    def _unguarded(self, vector: list[float], k: int) -> int:
        _strict(self._client, self._collection, enabled=False)
        try:
            exact = models.SearchParams(exact=True)
            return len(self._client.query_points(self._collection, query=vector, limit=k, search_params=exact).points)
        finally:
            _strict(self._client, self._collection, enabled=True)

    def weakenings(self) -> Sequence[Weakening]:
        """Return what an operator may get wrong; in local mode there is little that could be."""
        if self._local is not None:
            texts = [
                _CHANGE.format(key=f"memory:{self.config['name']}", call=call)
                for call in (
                    f"upsert({self._collection!r}, [models.PointStruct(id=1, vector={[1.0] * self._needs.dimension!r}, "
                    "payload={'content': 'untagged'})])",
                    f"delete({self._collection!r}, [1])",
                )
            ]
            return [Weakening("a point without a tenant", *texts)]
        made = [Weakening("a point without a tenant", self._untagged, self._tagged)]
        client, name = self._client, self._collection

        def strict(**settings: Any) -> Callable[[], None]:
            return lambda: _strict(client, name, **settings)

        return (
            *made,
            Weakening("strict mode off", strict(enabled=False), strict(enabled=True)),
            Weakening("exact search allowed", strict(search_allow_exact=True), strict(search_allow_exact=False)),
            Weakening("no index on the tenant's key", self._drop_index, self._provision),
            Weakening("a graph over all tenants", lambda: self._graph(16), lambda: self._graph(0)),
        )

    def _untagged(self) -> None:
        vector = [1.0] * self._needs.dimension
        point = models.PointStruct(id=1, vector=vector, payload={"content": "untagged"})
        self._client.upsert(self._collection, [point], wait=True)

    def _tagged(self) -> None:
        self._client.delete(self._collection, [1], wait=True)

    def _drop_index(self) -> None:
        self._client.delete_payload_index(self._collection, _TENANT, wait=True)

    def _graph(self, links: int) -> None:
        self._client.update_collection(self._collection, hnsw_config=models.HnswConfigDiff(m=links))

    def close(self) -> None:
        """Remove the collection."""
        self._client.delete_collection(self._collection)
        if self._metrics is not None:
            self._metrics.close()
        if self._local is not None:
            self._local.release()


def _strict(client: QdrantClient, name: str, **settings: Any) -> None:
    client.update_collection(name, strict_mode_config=models.StrictModeConfig(**settings))


def _in_must(where: models.Filter | None, tenant: str) -> bool:
    """Tell whether `group_id == tenant` is a condition of *where*'s own `must`: nothing next to it can widen that.

    Or whether the group of the documents' heads is, and that they are the tenant's.
    """
    must = [] if where is None or where.must is None else where.must
    conditions = must if isinstance(must, list) else [must]

    def has(key: str, value: str) -> bool:
        return models.FieldCondition(key=key, match=models.MatchValue(value=value)) in conditions

    return has(_TENANT, tenant) or (has(_TENANT, HEADS) and has("document", tenant))


def _owner(payload: Mapping[str, Any]) -> Any:
    """Return the tenant that a point is written for; the head of a document has it elsewhere."""
    return payload.get("document") if payload.get(_TENANT) == HEADS else payload.get(_TENANT)


def _written_in(step: Any, tenant: str) -> bool:
    match step:
        case models.UpsertOperation(upsert=models.PointsList() as upsert):
            tagged = all(_owner(point.payload or {}) == tenant for point in upsert.points)
            return tagged and _in_must(upsert.update_filter, tenant)
        case models.DeleteOperation(delete=models.FilterSelector() as selector):
            return _in_must(selector.filter, tenant)
        case models.SetPayloadOperation(set_payload=change):
            return change.points is None and _TENANT not in change.payload and _in_must(change.filter, tenant)
        case models.DeletePayloadOperation(delete_payload=gone):
            return gone.points is None and _TENANT not in gone.keys and _in_must(gone.filter, tenant)
    return False


def _environment(place: Place) -> Mapping[str, str]:
    return {
        "QDRANT__SERVICE__HOST": place.host,
        "QDRANT__SERVICE__HTTP_PORT": str(place.ports["http"]),
        "QDRANT__SERVICE__GRPC_PORT": str(place.ports["grpc"]),
        "QDRANT__STORAGE__STORAGE_PATH": f"{place.folder}/storage",
        "QDRANT__STORAGE__SNAPSHOTS_PATH": f"{place.folder}/snapshots",
        "QDRANT__TELEMETRY_DISABLED": "true",
        "QDRANT__CLUSTER__ENABLED": "true",  # tiers need shard keys, and shard keys a cluster, of one node here
        "QDRANT__CLUSTER__P2P__PORT": str(place.ports["p2p"]),
    }


def _arguments(place: Place) -> Sequence[str]:
    uri = ["--uri", f"http://127.0.0.1:{place.ports['p2p']}"]
    # The image has no entry point, only a command, in the folder that it starts in.
    return uri if place.host == "127.0.0.1" else ["./qdrant", *uri]


SPEC = ServerSpec(
    name="qdrant",
    version="1.19.0",
    address="VECTORACL_QDRANT_URL",
    ports=("http", "grpc", "p2p"),
    binary="qdrant",
    image="qdrant/qdrant:v1.19.0",
    published={"http": 6333, "grpc": 6334, "p2p": 6335},
    arguments=_arguments,
    environment=_environment,
    ready="/readyz",
)
"""How a Qdrant is found and started; no package brings one, so that without any the client's local mode is measured."""


class QdrantHarness(Harness):
    """Qdrant: a server that is named or available, else the client's local mode."""

    adapter = "qdrant"
    metrics = ("cosine", "inner", "l2")

    def __init__(self) -> None:
        self._url = os.environ.get("VECTORACL_QDRANT_URL")
        self._key = os.environ.get("VECTORACL_QDRANT_API_KEY")
        self._grpc = os.environ.get("VECTORACL_QDRANT_GRPC", "") not in ("", "0")
        self._grpc_port = int(os.environ.get("VECTORACL_QDRANT_GRPC_PORT", "6334"))
        self._client: QdrantClient | None = None
        self._running: Running | None = None
        self._looked = bool(self._url)
        self.thousands = bool(self._url)  # local mode applies each filter to every row of all tenants, in Python

    def _look(self) -> None:
        """Start a server where a program or Docker is available, else leave local mode. Raises: MissingServerError."""
        if self._looked:
            return
        self._looked = True
        if start.find(SPEC) is not None:
            self._running = start.start(SPEC)
            self._url, self._grpc_port = self._running.url, self._running.ports["grpc"]
            self.thousands = True

    def _connect(self) -> QdrantClient:
        if self._client is None:
            config = QdrantConfig(url=self._url, dimension=1)
            self._client = QdrantClient(
                url=config.url, api_key=self._key, timeout=config.request_timeout, check_compatibility=False
            )
        return self._client

    def server(self) -> Server:
        """Ask the server its version. Raises: HarnessError or MissingServerError."""
        self._look()
        if not self._url:
            return Server("in-process", f"qdrant-client {version('qdrant-client')}, local mode")
        try:
            info = self._connect().info()
        except Exception as error:  # noqa: BLE001 - whatever the client says, there is no server
            raise HarnessError(
                f"The Qdrant of VECTORACL_QDRANT_URL cannot be reached: {type(error).__name__}."
            ) from None
        used = f", {self._running.used}" if self._running is not None else ""
        return Server("real", f"Qdrant {info.version}{', gRPC' if self._grpc else ''}{used}")

    def fresh(self, needs: Needs) -> Store:
        """Make a collection."""
        self._look()
        place: dict[str, Any] = {}
        if self._url:
            place = {"url": self._url, "grpc": self._grpc, "grpc_port": self._grpc_port}
            if self._key:
                place["api_key"] = self._key
        return QdrantStore(needs, place, self._connect)

    def mutants(self) -> Sequence[Mutant]:
        """Return the faults that only a Qdrant adapter can have."""
        from vectoracl_qdrant.conformance.mutants import mutants

        return mutants()

    def close(self) -> None:
        """Close the client, and end the server if it was started here."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._running is not None:
            self._running.close()
            self._running, self._url, self._looked = None, None, False


def _parse_once() -> None:
    """Let local mode parse a payload path once, not again for each point: the kit asks it some ten thousand times.

    What is parsed is only read, so no answer changes; it saves about a third of a run.
    """
    extractor: Any = import_module("qdrant_client.local.payload_value_extractor")
    if not hasattr(extractor.parse_json_path, "cache_info"):
        extractor.parse_json_path = lru_cache(1 << 12)(extractor.parse_json_path)


harness = QdrantHarness
