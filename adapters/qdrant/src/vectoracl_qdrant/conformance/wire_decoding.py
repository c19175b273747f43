"""The judge of Qdrant's wire, without the adapter: REST's JSON and gRPC's messages, compressed or not.

A request proves its scope only by the tenant as a condition of `must`, at the root of its filter and of every
prefetch's own; a query by words also by the same in the corpus of its statistics. A query by a stored id, a look-up in
another collection, a point named by its bare id and an upsert without a conditional filter prove nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import httpx
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from qdrant_client import grpc as messages

from vectoracl_conformance.evidence import by_preface
from vectoracl_conformance.evidence.exchanges import Decoder
from vectoracl_conformance.evidence.protocols import grpc, http1
from vectoracl_conformance.evidence.protocols.grpc import Call
from vectoracl_conformance.evidence.protocols.http1 import HttpRequest, HttpResponse
from vectoracl_conformance.evidence.structure import Judge, by_carries
from vectoracl_conformance.harness import HarnessError

TENANT = "group_id"
HEADS = "*heads"
_OWNER = "document"  # where a document's head names its tenant
_POINTS = re.compile(r"/collections/[^/]+/points(/.*)?\Z")
_CONTROL = re.compile(r"(/|/collections/[^/]+|/collections/[^/]+/exists|/healthz|/readyz)\Z")
_CLASSES: dict[str, tuple[Any, Any]] = {
    "Query": (messages.QueryPoints, messages.QueryResponse),
    "QueryBatch": (messages.QueryBatchPoints, messages.QueryBatchResponse),
    "QueryGroups": (messages.QueryPointGroups, messages.QueryGroupsResponse),
    "Scroll": (messages.ScrollPoints, messages.ScrollResponse),
    "UpdateBatch": (messages.UpdateBatchPoints, messages.UpdateBatchResponse),
    "Facet": (messages.FacetCounts, messages.FacetResponse),
    "Count": (messages.CountPoints, messages.CountResponse),
    "Get": (messages.GetPoints, messages.GetResponse),
}
CLASSES: Mapping[str, Any] = {
    **{f"/qdrant.Points/{name}": pair for name, pair in _CLASSES.items()},
    "/qdrant.Collections/Get": (messages.GetCollectionInfoRequest, messages.GetCollectionInfoResponse),
    "/qdrant.Collections/CollectionExists": (messages.CollectionExistsRequest, messages.CollectionExistsResponse),
    "/qdrant.Qdrant/HealthCheck": (messages.HealthCheckRequest, messages.HealthCheckReply),
}


# Rows: distinct points, so that the two legs of a hybrid query count a point once


def _ids(value: Any) -> Iterator[str]:
    """Yield the ids of the points in a reply."""
    if isinstance(value, dict):
        if "id" in value and ("payload" in value or "version" in value or "score" in value or "vector" in value):
            yield json.dumps(value["id"], sort_keys=True)
            return
        for one in value.values():
            yield from _ids(one)
    elif isinstance(value, list):
        for one in value:
            yield from _ids(one)


def _http_rows(request: HttpRequest, response: HttpResponse) -> int | None:
    if not _POINTS.match(request.target.partition("?")[0]) or response.status >= 300:
        return 0
    try:
        return len(set(_ids(response.json().get("result"))))
    except (ValueError, AttributeError):
        return None


def _grpc_rows(call: Call) -> int | None:
    return len({one for reply in call.replies for one in _ids(MessageToDict(reply).get("result"))})


DECODE: Decoder = by_preface(http1.decoder(_http_rows), grpc.decoder(CLASSES, _grpc_rows))


# Structure


def _is_data(request: Any) -> bool | None:
    if isinstance(request, HttpRequest):
        path = request.target.partition("?")[0]
        if _CONTROL.match(path) and request.method == "GET":
            return False
        if path.endswith("/points/scroll"):
            return not _untagged(request.json().get("filter"))
        return True if _POINTS.match(path) or path.endswith("/facet") else None
    if isinstance(request, Call):
        if request.path.startswith(("/qdrant.Collections/", "/qdrant.Qdrant/")):
            return False
        if request.path == "/qdrant.Points/Scroll":
            return not all(_untagged_message(one) for one in request.requests)
        return True
    return None


def _untagged(where: Any) -> bool:
    """Tell whether a filter asks for points without a tenant, the rows of no one, and nothing else."""
    return bool(where == {"must": [{"is_empty": {"key": TENANT}}]})


def _untagged_message(message: Any) -> bool:
    return bool(MessageToDict(message.filter) == {"must": [{"isEmpty": {"key": TENANT}}]})


def _carries(request: Any, tenant: str) -> bool | None:
    if isinstance(request, HttpRequest):
        return _http(request.target.partition("?")[0], request.json(), tenant)
    if isinstance(request, Call):
        return bool(request.requests) and all(_message(request.path, one, tenant) for one in request.requests)
    return None


JUDGE: Judge = by_carries(_carries, _is_data)


def _clause(where: Any, tenant: str) -> bool:
    """Tell whether the tenant is a condition of *where*'s own `must`, as REST writes it."""
    must = (where or {}).get("must")
    conditions = must if isinstance(must, list) else [must]

    def has(key: str, value: str) -> bool:
        return {"key": key, "match": {"value": value}} in conditions

    return has(TENANT, tenant) or (has(TENANT, HEADS) and has(_OWNER, tenant))


def _tagged(payload: Mapping[str, Any], tenant: str) -> bool:
    """Tell whether a point is written for *tenant*; the head of a document names it elsewhere."""
    return bool(payload.get(_OWNER if payload.get(TENANT) == HEADS else TENANT) == tenant)


def _http(path: str, body: Any, tenant: str) -> bool:
    if path.endswith(("/points/query", "/points/query/groups")):
        return _query(body, tenant)
    if path.endswith("/points/query/batch"):
        return bool(body["searches"]) and all(_query(one, tenant) for one in body["searches"])
    if path.endswith(("/points/scroll", "/points/count", "/facet")):
        return _clause(body.get("filter"), tenant)
    if path.endswith("/points/batch"):
        return bool(body["operations"]) and all(_step(one, tenant) for one in body["operations"])
    return False


def _query(body: Mapping[str, Any], tenant: str) -> bool:
    query = body.get("query")
    if body.get("lookup_from") or body.get("with_lookup") or not _clause(body.get("filter"), tenant):
        return False
    prefetch = body.get("prefetch") or []
    prefetches = prefetch if isinstance(prefetch, list) else [prefetch]
    if prefetches:
        return all(_query(one, tenant) for one in prefetches)
    if isinstance(query, dict) and "nearest" in query:
        query = query["nearest"]
    if isinstance(query, dict) and set(query) == {"indices", "values"}:
        params = body.get("params") or {}
        return _clause((params.get("idf") or {}).get("corpus"), tenant)
    return isinstance(query, list) and all(isinstance(one, int | float) for one in query)


def _step(step: Mapping[str, Any], tenant: str) -> bool:
    match dict(step):
        case {"upsert": {"points": list(points)} as upsert}:
            tagged = all(_tagged(point.get("payload") or {}, tenant) for point in points)
            return tagged and _clause(upsert.get("update_filter"), tenant)
        case {"delete": {"filter": where} as gone}:
            return "points" not in gone and _clause(where, tenant)
        case {"set_payload": change}:
            return not change.get("points") and TENANT not in change["payload"] and _clause(change["filter"], tenant)
        case {"delete_payload": change}:
            return not change.get("points") and TENANT not in change["keys"] and _clause(change["filter"], tenant)
    return False


def _must(where: Any, tenant: str) -> bool:
    """Tell the same of a filter as gRPC writes it."""

    def has(key: str, value: str) -> bool:
        return any(
            one.WhichOneof("condition_one_of") == "field"
            and one.field.key == key
            and one.field.match.WhichOneof("match_value") == "keyword"
            and one.field.match.keyword == value
            for one in where.must
        )

    return has(TENANT, tenant) or (has(TENANT, HEADS) and has(_OWNER, tenant))


def _message(path: str, message: Any, tenant: str) -> bool:
    match path.rpartition("/")[2]:
        case "Query" | "QueryGroups":
            return _asked(message, tenant)
        case "QueryBatch":
            return bool(message.query_points) and all(_asked(one, tenant) for one in message.query_points)
        case "Scroll" | "Count" | "Facet":
            return _must(message.filter, tenant)
        case "UpdateBatch":
            return bool(message.operations) and all(_operation(one, tenant) for one in message.operations)
    return False


def _asked(message: Any, tenant: str) -> bool:
    if message.HasField("lookup_from") or not _must(message.filter, tenant):
        return False
    if hasattr(message, "with_lookup") and message.HasField("with_lookup"):
        return False
    if message.prefetch:
        return all(_asked(one, tenant) for one in message.prefetch)
    if message.query.WhichOneof("variant") != "nearest":
        return False
    kind = message.query.nearest.WhichOneof("variant")
    if kind == "sparse":
        return _must(message.params.idf.corpus, tenant)
    return bool(kind == "dense")


def _operation(step: Any, tenant: str) -> bool:
    kind = step.WhichOneof("operation")
    change: Any = getattr(step, kind) if kind else None
    if kind == "upsert":
        owners = ({key: point.payload[key].string_value for key in (TENANT, _OWNER)} for point in change.points)
        tagged = all(_tagged(one, tenant) for one in owners)
        return tagged and _must(change.update_filter, tenant)
    if kind == "delete_points":
        return bool(change.points.WhichOneof("points_selector_one_of") == "filter") and _must(
            change.points.filter, tenant
        )
    if kind in ("set_payload", "delete_payload"):
        keys = set(change.payload if kind == "set_payload" else change.keys)
        selected = change.points_selector.WhichOneof("points_selector_one_of") == "filter"
        return selected and TENANT not in keys and _must(change.points_selector.filter, tenant)
    return False


# What the server itself counts


class Counted:
    """The server's own count of the requests that it answered, less the kit's."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http

    def __call__(self) -> int | None:
        """Return the count; None where the server does not tell."""
        try:
            answer = self._http.get("/telemetry", params={"details_level": "3"})
        except httpx.HTTPError:
            return None
        if answer.status_code != 200:
            return None
        requests = answer.json()["result"].get("requests") or {}
        return int(
            sum(
                counted.get("count", 0)
                for kind in ("rest", "grpc")
                for path, by_status in ((requests.get(kind) or {}).get("responses") or {}).items()
                if not path.endswith(("/telemetry", "/metrics"))
                for counted in _leaves(by_status)
            )
        )


def _leaves(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        if "count" in value:
            yield value
        else:
            for one in value.values():
                yield from _leaves(one)


class QdrantEngine:
    """How many vectors of one collection the engine scored: its hardware counter, by the bytes of a vector.

    The counter adds a vector's bytes for each score (dimension x 4); it holds for exact scoring, which is what a
    tenant without a graph gets.
    """

    def __init__(
        self, http: httpx.Client, collection: str, dimension: int, unguarded: Callable[[list[float], int], int]
    ) -> None:
        self._http = http
        self._collection = collection
        self._size = dimension * 4
        self._unguarded = unguarded

    def scored(self) -> int:
        """Return the count so far. Raises: HarnessError where the server does not count."""
        answer = self._http.get("/metrics", params={"per_collection": "true"})
        pattern = rf'^collection_hardware_metric_cpu\{{[^}}]*"{re.escape(self._collection)}"[^}}]*\}} (\S+)$'
        costs = re.findall(pattern, answer.text, re.MULTILINE)
        if answer.status_code != 200:
            raise HarnessError("The server does not show its metrics.")
        return round(sum(float(one) for one in costs) / self._size)

    def unscoped(self, vector: Any, k: int) -> int:
        """Rank everybody's points, with strict mode off for a moment."""
        return self._unguarded([float(one) for one in vector], k)
