"""A store that costs nothing: its port returns a prepared reply, so what is left is the framework's own cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vectoracl.adapter_api.contract import Capabilities, Flow, Opened, Request
from vectoracl.adapter_api.operations import Found, Search
from vectoracl.adapter_api.posture import Posture
from vectoracl.audit.sinks import Sink
from vectoracl.client.connect import VectorACL, _OpenStore
from vectoracl.config import StoreConfig
from vectoracl.engine.pipeline import Store
from vectoracl.filters.predicate import Always
from vectoracl.model.records import Hit, Tag

DIMENSION = 128
HITS = 10


@dataclass(frozen=True, slots=True)
class Ask(Request[Found]):
    partition: str | None


def prepared(tenant: str) -> Found:
    """Return the reply of *tenant*'s partition, best first."""
    hits = []
    for place in range(HITS):
        document, chunk = f"d{place // 2}", f"c{place}"
        tag = Tag(tenant, document, chunk, producer="bench", path="upsert", time=0.0, position=place)
        score = 1.0 - place / 100 - (0.005 if tenant == "shared" else 0.0)
        hits.append(Hit(chunk, document, score, tenant, place, "some text", {"year": 2020}, None, tag))
    return Found(hits)


class NullAdapter:
    """Answers each search by one request."""

    capabilities = Capabilities(
        grade="partition",
        metric="cosine",
        dimension=DIMENSION,
        operations=frozenset({"search"}),
        predicates=frozenset({Always}),
    )

    def search(self, operation: Search) -> Flow[Found]:
        return (yield from Ask(operation.partition))

    def posture(self) -> Flow[Posture]:
        return Posture("partition", ())
        yield


class NullPort:
    """Answers at once."""

    def __init__(self, tenants: tuple[str, ...], parallel: int) -> None:
        self.parallel = parallel
        self._replies = {tenant: prepared(tenant) for tenant in tenants}

    def execute(self, request: Ask, timeout: float | None) -> Found:  # noqa: ARG002 - the contract's signature
        return self._replies[request.partition or ""]

    def close(self) -> None:
        pass


def null_acl(shared: tuple[str, ...] = (), *, parallel: int = 1, sink: Sink | None = None) -> Any:
    """Return a VectorACL over the null store; with *shared* tenants a search spans several partitions."""
    acl = VectorACL(
        {
            "version": 1,
            "stores": {"null": {"adapter": "memory", "dimension": DIMENSION}},
            "tenants": {"shared": list(shared)},
        },
        sink=sink,
    )
    opened = Opened(NullAdapter(), lambda: NullPort(("acme", *shared), parallel), lambda: None)  # type: ignore[arg-type,return-value]
    store = Store("null", "null", NullAdapter(), {})  # type: ignore[arg-type]
    acl._stores["null"] = _OpenStore(store, opened, StoreConfig(adapter="null"))
    return acl.open()
