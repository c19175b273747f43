"""A store for a test: an index of its own in needledb, which is started once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

import vectoracl as v
from vectoracl.adapter_api.local_servers.start import MissingServerError, missing
from vectoracl_pinecone.conformance.needledb_server import Needle


@dataclass
class Provisioned:
    """One index: `config` for connect(), `needle` to look at it and to change it by hand."""

    config: dict[str, Any]
    needle: Needle
    index: str
    path: str

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        answer = self.needle.http.request(method, self.path + path, **arguments)
        answer.raise_for_status()
        return answer.json()

    def namespaces(self) -> dict[str, int]:
        found = self.ask("POST", "/describe_index_stats", json={})["namespaces"]
        return {name: one["vectorCount"] for name, one in found.items()}

    def with_(self, **settings: Any) -> dict[str, Any]:
        main = {**self.config["stores"]["main"], **settings}
        return {**self.config, "stores": {"main": main}}


def make(needle: Needle, *, metadata: Mapping[str, str] | None = None, dimension: int = 8, **settings: Any):
    index = f"test-{secrets.token_hex(6)}"
    metric = {"cosine": "cosine", "inner": "dotproduct", "l2": "euclidean"}[settings.get("metric", "cosine")]
    needle.create(index, dimension, metric)
    own = {
        "adapter": "pinecone",
        "host": needle.host(index),
        "api_key": needle.key,
        "dimension": dimension,
        "negation": "nin",
        **settings,
        "metadata": dict(metadata or {}),
    }
    return Provisioned({"version": 1, "stores": {"main": own}}, needle, index, f"/indexes/{index}")


@pytest.fixture(scope="session")
def needle() -> Iterator[Needle]:
    try:
        made = Needle()
    except MissingServerError as error:
        missing(error, pytest.skip, pytest.fail)
        return
    yield made
    made.close()


@pytest.fixture
def store(needle: Needle) -> Iterator[Provisioned]:
    made = make(needle, metadata={"year": "number", "lang": "keyword"})
    yield made
    needle.drop(made.index)


def handle(acl: v.VectorACL, tenant: str = "acme") -> v.ScopedRetriever:
    return acl.scoped(v.testing.principal("alice", tenant))
