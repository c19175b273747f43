"""The kit's view of a Weaviate's wire: the decoder of its two protocols, the judge of its requests, its shards.

Everything here is read from the wire, from the server's log and from its metrics, and shares nothing with the adapter
but the form of a tenant's name, which is written down a second time.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from weaviate.proto.v1 import aggregate_pb2, batch_delete_pb2, batch_pb2, search_get_pb2, tenants_pb2

from vectoracl_conformance.evidence import Judge, by_carries, by_preface
from vectoracl_conformance.evidence.protocols import grpc, http1
from vectoracl_conformance.evidence.protocols.http1 import HttpRequest, HttpResponse

SERVICE = "/weaviate.v1.Weaviate/"
_CLASSES: dict[str, Any] = {
    f"{SERVICE}Search": (search_get_pb2.SearchRequest, search_get_pb2.SearchReply),
    f"{SERVICE}Aggregate": (aggregate_pb2.AggregateRequest, aggregate_pb2.AggregateReply),
    f"{SERVICE}BatchObjects": (batch_pb2.BatchObjectsRequest, batch_pb2.BatchObjectsReply),
    f"{SERVICE}BatchDelete": (batch_delete_pb2.BatchDeleteRequest, batch_delete_pb2.BatchDeleteReply),
    f"{SERVICE}TenantsGet": (tenants_pb2.TenantsGetRequest, tenants_pb2.TenantsGetReply),
}
_CONTROL = re.compile(r"GET /v1/(meta|users/own-info|schema/[A-Za-z0-9_]+)\Z")
_SERIES = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)\Z")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ANSWERED = frozenset(
    {"weaviate_http_request_duration_seconds_count", "weaviate_grpc_server_request_duration_seconds_count"}
)
_READ = frozenset(
    {"lsm_memtable_durations_ms_count", "queries_filtered_vector_durations_ms_count", "objects_durations_ms_count"}
)


def named(tenant: str) -> str:
    """Return Weaviate's name of a tenant of the kit, whose ids are UUIDs."""
    return f"t_{tenant}"


def _rows_of_call(call: grpc.Call) -> int | None:
    if call.path == f"{SERVICE}Aggregate":
        return sum(len(reply.grouped_results.groups) for reply in call.replies)
    if call.path != f"{SERVICE}Search":
        return 0
    return sum(len(reply.results) for reply in call.replies)


def _rows_of_rest(request: HttpRequest, response: HttpResponse) -> int | None:  # noqa: ARG001 - the decoder's form
    return 0 if request.method == "PATCH" or not request.target.startswith("/v1/objects") else None


DECODE = by_preface(http1.decoder(_rows_of_rest), grpc.decoder(_CLASSES, _rows_of_call))
"""Decodes a session of either port."""


def judge_of(collection: str) -> Judge:
    """Return the judge of every request: the tenant in the message itself, where nothing can widen it."""

    def carries(request: Any, tenant: str) -> bool | None:
        target = (collection, named(tenant))
        if isinstance(request, HttpRequest):
            return _rest_carries(request, *target)
        return all(_message_carries(message, *target) for message in request.requests) and bool(request.requests)

    return by_carries(carries, lambda request: not _is_control(request))


def _is_control(request: Any) -> bool:
    if not isinstance(request, HttpRequest):
        return False
    return bool(_CONTROL.match(f"{request.method} {request.target}")) and not request.body


def _rest_carries(request: HttpRequest, collection: str, name: str) -> bool:
    body = request.json()
    if request.method == "POST" and request.target == f"/v1/schema/{collection}/tenants":
        return [one.get("name") for one in body] == [name]
    if request.method == "PATCH" and request.target.startswith(f"/v1/objects/{collection}/"):
        return bool(body.get("tenant") == name and body.get("class") == collection and "?" not in request.target)
    return False


def _message_carries(message: Any, collection: str, name: str) -> bool:
    if isinstance(message, tenants_pb2.TenantsGetRequest):
        return message.collection == collection and list(message.names.values) == [name]
    if isinstance(message, batch_pb2.BatchObjectsRequest):
        return bool(message.objects) and all(
            (one.collection, one.tenant) == (collection, name) for one in message.objects
        )
    return bool((message.collection, message.tenant) == (collection, name))


def series(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Read the text form of Prometheus: name, labels, value."""
    for line in text.splitlines():
        match = _SERIES.match(line)
        if match:
            yield match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])


def metrics(port: int) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """Read the server's metrics from their own port, which is not a request of the API."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        yield from series(answer.read().decode())


def answered(port: int) -> int:
    """Count the requests that the server has answered, over both protocols."""
    counts = [
        value
        for name, labels, value in metrics(port)
        if name in ANSWERED and labels.get("grpc_service", "weaviate.v1.Weaviate") == "weaviate.v1.Weaviate"
    ]
    return int(sum(counts))


class WeaviateShards:
    """One collection's shards, by the slow-query log (a line for each query) and the metrics."""

    def __init__(self, collection: str, log: Path, port: int, ask: Callable[[str, str, Any], Any]) -> None:
        self._collection = collection
        self._log = log
        self._port = port
        self._ask = ask
        self._at = log.stat().st_size
        self._rankings: dict[str, int] = {}

    def part(self, tenant: str) -> str:
        """Return the shard's name, which is the tenant's."""
        return named(tenant)

    def rankings(self) -> Mapping[str, int]:
        """Count the log's lines on rankings, by tenant."""
        time.sleep(0.1)  # a line is written when its query ends, and read when it is whole
        with self._log.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._at += whole
        for line in data[:whole].splitlines():
            if b"Slow query" not in line:
                continue
            entry = json.loads(line)
            ranking = entry.get("query") == "ObjectVectorSearch" or entry.get("keyword_ranking")
            if entry.get("collection") == self._collection and ranking:
                tenant = str(entry.get("tenant") or entry.get("shard"))
                self._rankings[tenant] = self._rankings.get(tenant, 0) + 1
        return dict(self._rankings)

    def work(self) -> Mapping[str, float]:
        """Add up, for each shard, the counters of reads of objects, filters and texts."""
        totals: dict[str, float] = {}
        for name, labels, value in metrics(self._port):
            if name in _READ and labels.get("class_name") == self._collection:
                shard = labels.get("shard_name", "")
                totals[shard] = totals.get(shard, 0.0) + value
        return totals

    def rank(self, tenant: str, vector: Sequence[float], k: int) -> int | None:
        """Rank by GraphQL in one tenant, with the root's key."""
        query = (
            f'{{Get{{{self._collection}(tenant:"{named(tenant)}",limit:{k},nearVector:{{vector:{json.dumps(list(vector))}}})'
            "{content}}}"
        )
        answer = self._ask("POST", "/v1/graphql", {"query": query})
        if answer.get("errors"):
            return None
        return len(answer["data"]["Get"][self._collection])

    def shut(self, tenants: Sequence[str]) -> None:
        """Deactivate *tenants*."""
        self._change(tenants, "COLD")

    def open(self, tenants: Sequence[str]) -> None:
        """Activate *tenants*."""
        self._change(tenants, "HOT")

    def _change(self, tenants: Sequence[str], status: str) -> None:
        body = [{"name": named(tenant), "activityStatus": status} for tenant in tenants]
        self._ask("PUT", f"/v1/schema/{self._collection}/tenants", body)
