"""A recording stub of Pinecone's API on loopback: no product, and never called one.

It holds records in memory, answers what the adapter asks in both APIs (vectors, documents) and of the control plane,
keeps every request, and refuses a body that the client's own request models do not accept. What Pinecone's
documentation leaves open it does the other way than needledb: `$ne` and `$nin` do not match records without the key,
and on a list they match if any element is another. Faults are told by `Stub.fault`.

By words it is a small exact engine, of the formula that Pinecone documents: the score of a vector index with the
metric "dotproduct" is the dense product plus the sparse one, in float32; a document index scores by its sparse field
alone. `shortlist` lets the dense product alone choose how many records of a vector index are ranked at all, as some
report of Pinecone; `blur` moves every score a little.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from pinecone.models.documents import requests as models

KEY = "stub-key"
_DOCUMENTS = {
    "search": models.SearchDocumentsRequest,
    "fetch": models.FetchDocumentsRequest,
    "delete": models.DeleteDocumentsRequest,
    "list": models.ListDocumentsRequest,
}


class RefusedError(Exception):
    pass


def passes(condition: Any, metadata: dict[str, Any]) -> bool:
    """Evaluate a filter, with the meanings that the documentation leaves open the other way than needledb."""
    if not isinstance(condition, dict) or not condition:
        raise RefusedError("a filter is an object with at least one condition")
    return all(_one(key, value, metadata) for key, value in condition.items())


def _one(key: str, value: Any, metadata: dict[str, Any]) -> bool:
    if key in ("$and", "$or"):
        if not isinstance(value, list) or not value:
            raise RefusedError(f"{key} takes a list of filters")
        parts = [passes(one, metadata) for one in value]
        return all(parts) if key == "$and" else any(parts)
    if key == "$not":
        return not passes(value, metadata)
    if key.startswith("$") or not isinstance(value, dict) or not value:
        raise RefusedError("a field takes an operator")
    return all(_test(operator, wanted, metadata.get(key)) for operator, wanted in value.items())


def _test(operator: str, wanted: Any, has: Any) -> bool:
    if operator == "$exists":
        return (has is not None) is wanted
    values = has if isinstance(has, list) else [has]
    if operator in ("$in", "$nin"):
        if not isinstance(wanted, list) or not 0 < len(wanted) <= 10_000:
            raise RefusedError(f"{operator} takes 1 to 10,000 values")
        if has is None:
            return False
        return any((one in wanted) is (operator == "$in") for one in values)
    if has is None:
        return False
    if operator in ("$eq", "$ne"):
        if isinstance(wanted, list | dict):
            raise RefusedError("no lists")
        return any((one == wanted and type(one) is not bool) is (operator == "$eq") for one in values)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float):
        raise RefusedError("ranges take numbers")
    if isinstance(has, str | list | bool):
        return False
    return {"$gt": has > wanted, "$gte": has >= wanted, "$lt": has < wanted, "$lte": has <= wanted}[operator]


@dataclass
class Asked:
    method: str
    path: str
    body: Any
    params: dict[str, Any]
    headers: dict[str, str]


@dataclass
class Answer:
    status: int
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    cut: bool = False


@dataclass
class Stub:
    """The stub's state; `kind`, `metric` and `offers` say what it is. `lag` is how many reads are behind a write.

    `words` is the sparse field of a document index, where it has one.
    """

    kind: str = "vector"
    dimension: int = 8
    metric: str = "cosine"
    offers: set[str] = field(default_factory=lambda: {"fetch_by_metadata", "not"})
    words: str | None = None
    shortlist: int | None = None
    blur: float = 0.0
    lsn: bool = False
    lag: int = 0
    asked: list[Asked] = field(default_factory=list)
    spaces: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    fault: Callable[[Asked], Answer | None] = lambda _: None
    there: bool = True
    port: int = 0
    committed: int = 0
    reads: int = 0

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, one: Asked) -> Answer:
        self.asked.append(one)
        fault = self.fault(one)
        if fault is not None:
            return fault
        if one.headers.get("api-key") != KEY:
            return Answer(401, {"error": {"code": "UNAUTHENTICATED", "message": f"invalid key for {one.path}"}})
        try:
            return self._answer(one)
        except RefusedError as refused:
            return Answer(400, {"error": {"code": "INVALID_ARGUMENT", "message": str(refused)}})

    def _answer(self, one: Asked) -> Answer:
        parts = one.path.strip("/").split("/")
        if parts[0] == "indexes":
            return self._index(one)
        if not self.there:
            return Answer(404, {"error": {"code": "NOT_FOUND", "message": "no such index"}})
        if one.path == "/describe_index_stats":
            counts = {name: {"vectorCount": len(some)} for name, some in self.spaces.items() if some}
            total = sum(one["vectorCount"] for one in counts.values())
            body = {"namespaces": counts, "dimension": self.dimension, "metric": self.metric, "totalVectorCount": total}
            return Answer(200, body)
        if parts[0] == "namespaces" and one.method == "DELETE" and "namespaces" in self.offers:
            name = unquote(parts[1])
            self._space(name)
            if self.spaces.pop(name, None) is None:
                return Answer(404, {"error": {"code": "NOT_FOUND", "message": "no such namespace"}})
            return Answer(202, {})
        if parts[0] == "namespaces" and parts[2:3] == ["documents"]:
            return self._documents(unquote(parts[1]), parts[3], one.body)
        if self.kind == "vector" and parts[0] in ("query", "vectors"):
            return self._vectors(one)
        return Answer(404, {"error": {"code": "NOT_FOUND", "message": "no such path"}})

    def _index(self, one: Asked) -> Answer:
        if one.method == "POST":
            if self.there:
                return Answer(409, {"error": {"code": "ALREADY_EXISTS", "message": "there"}})
            self.there = True
            (name, vector), *more = one.body["schema"]["fields"].items()
            for other, sparse in more:
                if sparse != {"type": "sparse_vector"} or name == "_values" or self.words is not None:
                    raise RefusedError("schema")
                self.words = other
            self.kind = "vector" if name == "_values" else "document"
            self.dimension, self.metric = vector["dimension"], vector["metric"]
        if not self.there:
            return Answer(404, {"error": {"code": "NOT_FOUND", "message": "no such index"}})
        name = "_values" if self.kind == "vector" else "embedding"
        vector = {"type": "dense_vector", "dimension": self.dimension, "metric": self.metric}
        sparse = {} if self.words is None else {self.words: {"type": "sparse_vector"}}
        body = {
            "name": "docs", "host": self.host, "status": {"ready": True, "state": "Ready"},
            "schema": {"fields": {name: vector, **sparse}}, "deletion_protection": "disabled",
            "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1",
                           "environment": "us-east-1-aws"},
        }  # fmt: skip
        return Answer(200, body)

    def _space(self, name: Any) -> dict[str, dict[str, Any]]:
        if name == "__default__":
            return self.spaces.get("", {})
        if not isinstance(name, str) or not name.startswith("vectoracl-"):
            raise RefusedError("the stub refuses every namespace that is not a tenant's")
        return self.spaces.get(name, {})

    def _wrote(self) -> dict[str, str]:
        self.committed += 1
        self.reads = 0
        if not self.lsn:
            return {}
        name = "x-pinecone-request-lsn" if self.kind == "document" else "x-pinecone-lsn-committed"
        return {name: str(self.committed)}

    def _read(self) -> dict[str, str]:
        self.reads += 1
        seen = self.committed if self.reads > self.lag else self.committed - 1
        name = "x-pinecone-max-indexed-lsn" if self.kind == "document" else "x-pinecone-lsn-reconciled"
        return {name: str(seen)} if self.lsn else {}

    def _ranked(self, space: Any, vector: Any, top: int, where: Any) -> list[tuple[str, dict[str, Any], float]]:
        if not 1 <= top <= 10_000 or len(vector) != self.dimension:
            raise RefusedError("top_k or dimension")
        wanted = np.asarray(vector, np.float32)
        if not wanted.any():
            raise RefusedError("Dense vectors must contain at least one non-zero value.")
        found = []
        for id_, one in space.items():
            if where is not None and not passes(where, one["metadata"]):
                continue
            has = np.asarray(one["values"], np.float32)
            if self.metric == "euclidean":
                score = float(((has - wanted) ** 2).sum())
            else:
                score = float(has @ wanted)
                if self.metric == "cosine":
                    score /= float(np.linalg.norm(has) * np.linalg.norm(wanted))
            found.append((id_, one, score))
        found.sort(key=lambda one: one[2] if self.metric == "euclidean" else -one[2])
        return found[:top]

    def _by_words(
        self, space: Any, vector: Any, sparse: Any, top: int, where: Any
    ) -> list[tuple[str, dict[str, Any], float]]:
        """Rank by words: beside *vector* in a vector index, alone (None) in a document index."""
        self._check_sparse(sparse)
        asked = dict(zip(sparse["indices"], sparse["values"], strict=True))
        if vector is None:
            ranked = [(id_, one, 0.0) for id_, one in space.items() if where is None or passes(where, one["metadata"])]
        else:
            if self.metric != "dotproduct":
                raise RefusedError("Index configuration does not support sparse values")
            ranked = self._ranked(space, vector, 10_000, where)[: self.shortlist]
        found = []
        for id_, one, dense in ranked:
            has = one.get("sparse") or {"indices": [], "values": []}
            score = np.float32(dense)
            for place, weight in zip(has["indices"], has["values"], strict=True):
                if place in asked:
                    score += np.float32(weight) * np.float32(asked[place])
            if vector is not None or score > 0:  # what shares no word is no result of a sparse search
                score = float(score) * (1 + self.blur * (hash(id_) % 1000 / 1000 - 0.5))
                found.append((id_, one, score))
        found.sort(key=lambda one: -one[2])
        return found[:top]

    def _check_sparse(self, sparse: Any) -> None:
        indices, values = sparse["indices"], sparse["values"]
        if set(sparse) != {"indices", "values"} or not 0 < len(indices) == len(values) <= 1000:
            raise RefusedError("1 to 1,000 non-zero values")
        if len(set(indices)) != len(indices) or not all(type(one) is int and 0 <= one < 1 << 32 for one in indices):
            raise RefusedError("indices")
        if not all(type(one) is float and one != 0 and abs(one) < float("inf") for one in values):
            raise RefusedError("values")

    def _checked(self, records: Any) -> None:
        if not isinstance(records, list) or not 0 < len(records) <= 1000:
            raise RefusedError("1 to 1,000 records")
        for one in records:
            metadata = one.get("metadata", {})
            if len(json.dumps(metadata).encode()) > 40_960:
                raise RefusedError("40 KB of metadata")
            if len(one["values"]) != self.dimension or not 0 < len(one["id"]) <= 512 or not one["id"].isascii():
                raise RefusedError("id or dimension")
            if not any(one["values"]):
                raise RefusedError(f"Dense vectors must contain at least one non-zero value. Vector ID {one['id']!r}")
            if one.get("sparse") is not None:
                self._check_sparse(one["sparse"])
            for key, value in metadata.items():
                fine = isinstance(value, str | int | float | bool) or (
                    isinstance(value, list) and all(isinstance(part, str) for part in value)
                )
                if key.startswith("$") or not fine:
                    raise RefusedError("metadata")

    def _page(self, space: Any, prefix: Any, limit: Any, token: Any) -> tuple[list[str], dict[str, Any]]:
        limit = 100 if limit is None else int(limit)
        if not 1 <= limit <= 100:
            raise RefusedError("limit")
        ids = sorted(one for one in space if one.startswith(prefix or "") and one > (token or ""))
        return ids[:limit], ({"pagination": {"next": ids[limit - 1]}} if len(ids) > limit else {})

    def _vectors(self, one: Asked) -> Answer:
        body = one.body if one.method == "POST" else one.params
        name = body.get("namespace") or ""
        # The one thing that is asked of the default namespace: whether there is anything in it.
        stray = one.path == "/vectors/list" and not name and body.get("limit") == "1"
        space = self.spaces.get("", {}) if stray else self._space(name)
        match one.path:
            case "/query":
                top, where = body["topK"], body.get("filter")
                if "sparseVector" in body:
                    ranked = self._by_words(space, body["vector"], body["sparseVector"], top, where)
                else:
                    ranked = self._ranked(space, body["vector"], top, where)
                matches = [
                    {"id": id_, "score": score, **({"values": it["values"]} if body.get("includeValues") else {}),
                     **({"metadata": it["metadata"]} if body.get("includeMetadata") else {})}
                    for id_, it, score in ranked
                ]  # fmt: skip
                return Answer(200, {"matches": matches, "namespace": name}, self._read())
            case "/vectors/upsert":
                records = [
                    {"id": it["id"], "values": it["values"], "metadata": it.get("metadata", {}),
                     "sparse": it.get("sparseValues")}
                    for it in body["vectors"]
                ]  # fmt: skip
                self._checked(records)
                self.spaces.setdefault(name, {}).update({it["id"]: it for it in records})
                return Answer(200, {"upsertedCount": len(records)}, self._wrote())
            case "/vectors/list":
                ids, more = self._page(space, body.get("prefix"), body.get("limit"), body.get("paginationToken"))
                return Answer(200, {"vectors": [{"id": it} for it in ids], "namespace": name, **more})
            case "/vectors/fetch_by_metadata" if "fetch_by_metadata" in self.offers:
                hits = {id_: it for id_, it in space.items() if passes(body["filter"], it["metadata"])}
                ids, more = self._page(hits, None, body.get("limit"), body.get("paginationToken"))
                found = {it: {key: hits[it][key] for key in ("id", "values", "metadata")} for it in ids}
                return Answer(200, {"vectors": found, "namespace": name, **more})
            case "/vectors/fetch":
                found = {it: {key: space[it][key] for key in ("id", "values", "metadata")} for it in body["ids"]}
                return Answer(200, {"vectors": found, "namespace": name})
            case "/vectors/update":
                if body["id"] in space:
                    space[body["id"]]["metadata"].update(body["setMetadata"])
                return Answer(200, {}, self._wrote())
            case "/vectors/delete":
                return self._deleted(space, body)
        return Answer(404, {"error": {"code": "NOT_FOUND", "message": "no such path"}})

    def _deleted(self, space: Any, body: Any) -> Answer:
        if sum(key in body for key in ("ids", "filter", "deleteAll", "delete_all")) != 1:
            raise RefusedError("one selector")
        if body.get("deleteAll"):
            space.clear()
            return Answer(200, {}, self._wrote())
        gone = (
            body["ids"]
            if "ids" in body
            else [it for it, one in space.items() if passes(body["filter"], one["metadata"])]
        )
        if not 0 < len(gone) <= 1000 and "ids" in body:
            raise RefusedError("1 to 1,000 ids")
        number = sum(space.pop(it, None) is not None for it in gone)
        return Answer(200, {"matched_records": number} if self.kind == "document" else {}, self._wrote())

    def _documents(self, name: str, verb: str, body: Any) -> Answer:
        if self.kind != "document":
            return Answer(400, {"error": {"code": "INVALID_ARGUMENT", "message": "not a document index"}})
        if verb in _DOCUMENTS:
            try:
                _DOCUMENTS[verb](**body)
            except (TypeError, ValueError) as error:
                raise RefusedError(f"not the client's own form: {error}") from None
        space = self._space(name)
        usage = {"read_units": 1}
        match verb:
            case "search":
                (scored,) = body["score_by"]
                top, where = body["top_k"], body.get("filter")
                if scored["type"] == "sparse_vector" and scored["field"] == self.words:
                    ranked = self._by_words(space, None, scored["sparse_values"], top, where)
                elif scored["type"] == "dense_vector" and scored["field"] == "embedding":
                    ranked = self._ranked(space, scored["values"], top, where)
                else:
                    raise RefusedError("score_by")
                fields = body.get("include_fields") or []
                matches = [{"_id": id_, "_score": score, **self._fields(it, fields)} for id_, it, score in ranked]
                return Answer(200, {"matches": matches, "namespace": name, "usage": usage}, self._read())
            case "upsert":
                records = []
                for one in body["documents"]:
                    rest = {key: it for key, it in one.items() if key not in ("_id", "embedding", self.words)}
                    sparse = None if self.words is None else one.get(self.words)
                    records.append({"id": one["_id"], "values": one["embedding"], "metadata": rest, "sparse": sparse})
                self._checked(records)
                self.spaces.setdefault(name, {}).update({it["id"]: it for it in records})
                return Answer(200, {"upserted_count": len(records)}, self._wrote())
            case "list":
                ids, more = self._page(space, body.get("prefix"), body.get("limit"), body.get("pagination_token"))
                return Answer(
                    200, {"documents": [{"_id": it} for it in ids], "namespace": name, "usage": usage, **more}
                )
            case "fetch":
                hits = {id_: it for id_, it in space.items() if passes(body["filter"], it["metadata"])}
                ids, more = self._page(hits, None, body.get("limit"), body.get("pagination_token"))
                found = {it: {"_id": it, **self._fields(hits[it], ["*"])} for it in ids}
                return Answer(200, {"documents": found, "namespace": name, "usage": usage, **more})
            case "update":  # documents that do not exist are not created
                patches = {one["_id"]: one for one in body["documents"] if one["_id"] in space}
                for id_, one in patches.items():
                    space[id_]["metadata"].update({key: it for key, it in one.items() if key != "_id"})
                return Answer(200, {"matched_records": len(patches)}, self._wrote())
            case "delete":
                return self._deleted(space, body)
        return Answer(404, {"error": {"code": "NOT_FOUND", "message": "no such path"}})

    def _fields(self, one: dict[str, Any], fields: list[str]) -> dict[str, Any]:
        whole = {**one["metadata"], "embedding": one["values"]}
        if one.get("sparse") is not None:
            whole[self.words] = one["sparse"]
        return whole if fields == ["*"] else {key: whole[key] for key in fields if key in whole}


@contextmanager
def stub(of: type[Stub] = Stub, **state: Any) -> Iterator[Stub]:
    """Serve a stub on a free port of loopback."""
    made = of(**state)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer goes in one piece: in two, each waits for the other side's delayed acknowledgement

        def _serve(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(size)
            parts = urlsplit(self.path)
            params = {key: value if key == "ids" else value[0] for key, value in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            answer = made.answer(Asked(self.command, parts.path, json.loads(raw) if raw else None, params, headers))
            if answer.wait:
                time.sleep(answer.wait)
            if answer.cut:
                self.close_connection = True
                self.connection.close()
                return
            body = json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for key, value in {"content-type": "application/json", **answer.headers}.items():
                self.send_header(key, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
