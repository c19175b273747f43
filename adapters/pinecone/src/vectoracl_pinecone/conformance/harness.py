"""The harness of the Pinecone adapter: the index that `VECTORACL_PINECONE_HOST` names, else `needledb`.

With `VECTORACL_PINECONE_HOST` and `VECTORACL_PINECONE_API_KEY` (and `VECTORACL_PINECONE_KIND=independent` where the
host is not Pinecone) each store is a separate namespace prefix in that index, whose namespaces are deleted at the
end. With `VECTORACL_PINECONE_LEXICAL=1` words are certified too: the index is then a vector index with the metric
dotproduct. Without them `needledb` is started, an independent engine, and each store is a separate index in it.

The census lists and fetches with plain HTTP requests, and reads tags by itself: it shares nothing with the adapter but
the default names of the metadata keys.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import numpy as np
import orjson

from vectoracl.model.records import Record, Tag
from vectoracl_conformance.evidence.exchanges import Decoded
from vectoracl_conformance.evidence.protocols.http1 import HttpRequest, HttpResponse, decoder
from vectoracl_conformance.evidence.sessions import Session
from vectoracl_conformance.evidence.structure import by_carries
from vectoracl_conformance.evidence.tap import Tap
from vectoracl_conformance.evidence.wire import Wire
from vectoracl_conformance.harness import Engine, Harness, HarnessError, Mutant, Needs, Server, Store, Weakening
from vectoracl_pinecone.conformance.needledb_server import Needle
from vectoracl_pinecone.demo_server import VERSION
from vectoracl_pinecone.requests import FetchBy, Listing, Put, Query, Remove, Settle

_TAG = ("tenant", "document", "chunk", "generation", "label", "rev", "expires", "producer", "path", "time", "position")
_READABLE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}\Z")
_LAG = 60.0
_PAGES = {False: (100, 25), True: (10_000, 1_000)}
"""How many ids are listed and how many records are fetched at once: of Pinecone, and of the engine here."""
_PAUSE = 2.0


def namespace(prefix: str, tenant: str) -> str:
    """Return the namespace that a tenant has to be in, as the guide says it (not as the adapter's code does)."""
    raw = tenant.encode()
    if _READABLE.match(tenant):
        return f"{prefix}t-{tenant}"
    return (
        f"{prefix}x-{raw.hex()}" if len(raw) <= 100 else f"{prefix}h-{hashlib.blake2b(raw, digest_size=32).hexdigest()}"
    )


class PineconeStore(Store):
    """One index, or one namespace prefix of an index."""

    def __init__(
        self,
        needs: Needs,
        host: str,
        key: str,
        http: httpx.Client,
        *,
        prefix: str,
        needle: Needle | None,
        index: str,
        lexical: bool = False,
    ) -> None:
        self._needs = needs
        self._http = http
        self._path = urlsplit(host).path
        self._prefix = prefix
        self._needle = needle
        self._index = index
        self.config = {
            "adapter": "pinecone",
            "host": host,
            "api_key": key,
            "dimension": needs.dimension,
            "metric": needs.metric,
            "namespace_prefix": prefix,
            "negation": "nin" if needle is not None else "not",
            # The kit's vectors are unit vectors, so that the inner product is the cosine.
            **({"kind": "vector", "metric": "inner", "lexical": True} if lexical else {}),
        }
        self.single = {**self.config, "parallel": 1}
        self.secrets = (key,)

    # The store without the adapter

    def _ask(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self._http.request(method, self._path + path, **arguments)
        answer.raise_for_status()
        return orjson.loads(answer.content)

    def _namespaces(self) -> dict[str, int]:
        counts = self._ask("POST", "/describe_index_stats", json={})["namespaces"]
        return {
            name: one.get("vectorCount", 0)
            for name, one in counts.items()
            if self._needle is not None or name.startswith(self._prefix)
        }

    def parts(self) -> frozenset[str] | None:
        """Name the namespaces."""
        return frozenset(self._namespaces())

    def census(self) -> Sequence[Record]:
        """Read every record of every namespace, but for the store's notes about its embedder and its registry."""
        return [
            self._record(one)
            for name, count in self._namespaces().items()
            if count or self._needle is None
            for one in self._vectors(name)
            if not (name == f"{self._prefix}about-" and one["id"] in ("about", "registry"))
        ]

    def _vectors(self, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        listed, fetched = _PAGES[self._needle is not None]
        token: str | None = None
        while True:
            params = {"namespace": name, "limit": listed, **({"paginationToken": token} if token else {})}
            page = self._ask("GET", "/vectors/list", params=params)
            ids = [one["id"] for one in page["vectors"]]
            for start in range(0, len(ids), fetched):
                some = ids[start : start + fetched]
                vectors = self._fetched(name, some)
                rows.extend(vectors[one] for one in some if one in vectors)
            token = (page.get("pagination") or {}).get("next")
            if not token:
                return rows

    def _fetched(self, name: str, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        wanted = {"ids": ids, "namespace": name}
        if self._needle is None:  # Pinecone takes them in the address, where few have room
            found = self._ask("GET", "/vectors/fetch", params=wanted)
        else:
            found = self._ask("POST", "/vectors/fetch", json=wanted)
        vectors: dict[str, dict[str, Any]] = found["vectors"]
        return vectors

    def _record(self, one: Mapping[str, Any]) -> Record:
        stored = one["metadata"]
        metadata = json.loads(stored["acl_metadata"])
        for name, kind in self._needs.metadata.items():
            if kind == "datetime" and name in metadata:
                metadata[name] = datetime.fromisoformat(metadata[name])
        values = [stored[f"acl_{name}"] for name in _TAG]
        for place in (3, 5, 10):
            values[place] = int(values[place])
        return Record(Tag(*values), stored["acl_text"], np.asarray(one["values"], np.float32), metadata)

    def settle(self) -> None:
        """Wait until the numbers of the namespaces stand still; the engine here answers at once."""
        if self._needle is not None:
            return
        before, until = None, time.monotonic() + _LAG
        while time.monotonic() < until:
            now = self._namespaces()
            if now == before:
                return
            before = now
            time.sleep(_PAUSE)

    # What a request and what a message carry

    def carries(self, request: Any, tenant: str) -> bool | None:
        """Demand the tenant's own namespace of every request, and its own tag of every record."""
        match request:
            case Put():
                tagged = all(one.metadata.get("acl_tenant") == tenant for one in request.records)
                return tagged and request.namespace == namespace(self._prefix, tenant)
            case Query() | Listing() | FetchBy() | Remove() | Settle():
                return request.namespace == namespace(self._prefix, tenant)
        return False

    def wire(self) -> Wire | None:
        """Stand in front of the engine; a server behind TLS is heard blind, if at all."""
        if self._needle is None:
            return None
        needle = self._needle
        return Wire(
            recorder=lambda: Tap.tcp("127.0.0.1", needle.port),
            config=lambda host, port: {**self.single, "host": f"http://{host}:{port}{self._path}"},  # type: ignore[dict-item]
            decode=_readable,
            judge=by_carries(self._sent_in, _is_data),
            answered=lambda: needle.counts()["answered"],
        )

    def _sent_in(self, request: HttpRequest, tenant: str) -> bool | None:
        path, body = _asked(request)
        if body is None:
            return None
        if path == "/vectors/upsert" and not all(one["metadata"]["acl_tenant"] == tenant for one in body["vectors"]):
            return False
        if path == "/vectors/delete" and body.get("deleteAll"):
            return False
        return body.get("namespace") == namespace(self._prefix, tenant)

    def engine(self) -> Engine | None:
        """Return the counter in the engine."""
        return None if self._needle is None else NeedleEngine(self._needle, self)

    def ranked(self, vector: Sequence[float], k: int) -> int:
        """Rank every namespace, with plain requests; return how many rows came."""
        rows = 0
        for name in self._namespaces():
            body = {"vector": list(vector), "topK": k, "namespace": name}
            rows += len(self._ask("POST", "/query", json=body)["matches"])
        return rows

    # What an operator may get wrong

    def weakenings(self) -> Sequence[Weakening]:
        """Return what the posture has to notice."""
        if self._needle is None:
            return ()
        return (Weakening("a record in the default namespace", self._stray, self._cleared),)

    def _stray(self) -> None:
        vector = {"id": "stray", "values": [1.0] * self._needs.dimension, "metadata": {"acl_text": "stray"}}
        self._ask("POST", "/vectors/upsert", json={"vectors": [vector]})

    def _cleared(self) -> None:
        self._ask("POST", "/vectors/delete", json={"deleteAll": True})

    def close(self) -> None:
        """Remove the index, or the namespaces."""
        if self._needle is not None:
            self._needle.drop(self._index)
            return
        for name in self._namespaces():
            self._ask("POST", "/vectors/delete", json={"deleteAll": True, "namespace": name})


class NeedleEngine:
    """Counts the vectors that the engine scored."""

    def __init__(self, needle: Needle, store: PineconeStore) -> None:
        self._needle = needle
        self._store = store

    def scored(self) -> int:
        """Return the count so far."""
        return self._needle.counts()["scored"]

    def unscoped(self, vector: Sequence[float], k: int) -> int:
        """Rank everything without the adapter."""
        return self._store.ranked(vector, k)


def _asked(request: HttpRequest) -> tuple[str, dict[str, Any] | None]:
    """Return the path behind the index, and what is asked in the body or in the address."""
    parts = urlsplit(request.target)
    path = re.sub(r"^/indexes/[^/]+", "", parts.path)
    if request.method == "GET":
        return path, {name: values[0] if name != "ids" else values for name, values in parse_qs(parts.query).items()}
    try:
        return path, request.json()
    except ValueError:
        return path, None


def _is_data(request: HttpRequest) -> bool | None:
    """Tell what reaches tenants' rows; a posture request is in no tenant's namespace, and is recognized by its form."""
    path, body = _asked(request)
    body = body or {}
    namespace = str(body.get("namespace", ""))
    if "-t-" not in namespace:  # which every tenant's namespace has
        if namespace.endswith("-nobody-") and path in ("/query", "/vectors/delete"):
            return False
        if namespace.endswith("-about-") and path == "/query" and body.get("topK") == 1:
            return False  # what the index keeps of itself: its embedder
    if path == "/vectors/list" and not body.get("namespace") and body.get("limit") == "1":
        return False
    known = ("/query", "/vectors/list", "/vectors/fetch", "/vectors/fetch_by_metadata", "/vectors/upsert",
             "/vectors/delete", "/vectors/update", "/describe_index_stats")  # fmt: skip
    return True if path in known else None


_ID = re.compile(rb'"([0-9a-v~]+\.[0-9a-f]+\.[0-9a-v~]+\.[0-9a-f]{32})"')
_BASE32 = bytes.maketrans(b"0123456789abcdefghijklmnopqrstuv", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def _readable(session: Session) -> Decoded:
    """Decode a session, and write the names that record ids stand for next to them, so that canaries in them show."""
    decoded = _DECODE(session)
    exchanges = tuple(
        replace(one, values=(*one.values, *_names(one.values))) if one.complete else one for one in decoded.exchanges
    )
    return replace(decoded, exchanges=exchanges)


def _names(values: Sequence[Any]) -> list[bytes]:
    bodies = [one for one in values if isinstance(one, bytes)]
    ids = {id_ for body in bodies for id_ in _ID.findall(body)}
    return [_name(part) for id_ in ids for part in id_.split(b".")[0:3:2]]


def _name(part: bytes) -> bytes:
    plain = part.split(b"~")[0].translate(_BASE32)
    return base64.b32decode(plain + b"=" * (-len(plain) % 8))


def _rows(request: HttpRequest, response: HttpResponse) -> int | None:
    """Count the rows of a reply; an id that was listed is one too."""
    path, _ = _asked(request)
    body = response.json()
    if path == "/query":
        return len(body["matches"])
    if path in ("/vectors/list", "/vectors/fetch"):
        return len(body["vectors"])
    return 0


_DECODE = decoder(_rows)


class PineconeHarness(Harness):
    """Pinecone's API: an index where one is named, else needledb."""

    adapter = "pinecone"
    store = "Pinecone"

    def __init__(self) -> None:
        self._host = os.environ.get("VECTORACL_PINECONE_HOST")
        self._key = os.environ.get("VECTORACL_PINECONE_API_KEY", "")
        self._lexical = os.environ.get("VECTORACL_PINECONE_LEXICAL", "") == "1"
        self._independent = os.environ.get("VECTORACL_PINECONE_KIND", "") == "independent"
        self._needle: Needle | None = None
        self._http: httpx.Client | None = None

    def _started(self) -> Needle:
        if self._needle is None:
            self._needle = Needle()
        return self._needle

    def _client(self) -> httpx.Client:
        if self._host is None:
            return self._started().http
        if self._http is None:
            parts = urlsplit(self._host if "://" in self._host else f"https://{self._host}")
            headers = {"api-key": self._key, "x-pinecone-api-version": "2026-07"}
            self._http = httpx.Client(base_url=f"{parts.scheme}://{parts.netloc}", headers=headers, timeout=60)
        return self._http

    def server(self) -> Server:
        """Say what answers. Raises: HarnessError or MissingServerError where nothing is available."""
        if self._host is not None:
            if not self._key:
                raise HarnessError("VECTORACL_PINECONE_HOST is set, and VECTORACL_PINECONE_API_KEY is not.")
            if self._independent:
                return Server("independent", "the server of VECTORACL_PINECONE_HOST")
            return Server("real", "Pinecone, API 2026-07")
        self._started()
        return Server("independent", f"needledb {VERSION} (FAISS), behind Pinecone's data-plane API")

    def fresh(self, needs: Needs) -> Store:
        """Make an index, or a prefix."""
        http = self._client()
        if self._host is not None:
            host = self._host if "://" in self._host else f"https://{self._host}"
            prefix = f"kit{secrets.token_hex(5)}-"
            return PineconeStore(
                needs, host, self._key, http, prefix=prefix, needle=None, index="", lexical=self._lexical
            )
        needle = self._started()
        index = f"kit-{secrets.token_hex(6)}"
        needle.create(index, needs.dimension)
        return PineconeStore(
            needs, needle.host(index), needle.key, http, prefix="vectoracl-", needle=needle, index=index
        )

    def mutants(self) -> Sequence[Mutant]:
        """Return the faults that only Pinecone can have."""
        from vectoracl_pinecone.conformance.mutants import MUTANTS

        return MUTANTS

    def close(self) -> None:
        """End the engine."""
        if self._needle is not None:
            self._needle.close()
            self._needle = None
        if self._http is not None:
            self._http.close()
            self._http = None


harness = PineconeHarness
