"""Several addresses of one cluster, and what a result says of replicas; `test_cluster` has the real nodes."""

from __future__ import annotations

import asyncio
import socket

import grpc
import numpy as np
import pytest
from pydantic import ValidationError

import vectoracl as v
from vectoracl import Chunk
from vectoracl.testing import principal
from vectoracl_weaviate.capabilities import capabilities
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.failures import mapped, rpc_at

AT = rpc_at("127.0.0.1:50051")
WHO = principal("u", "acme")
E = np.eye(8, dtype=np.float32)


def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def test_an_address_that_does_not_answer_is_gone_around(store):
    real = store.config["stores"]["main"]
    node = {"url": real["url"], "grpc_port": real["grpc_port"]}
    config = store.with_(url=f"http://127.0.0.1:{closed()}", grpc_port=closed(), nodes=[node])

    async def asked() -> int:
        async with v.aconnect(config) as acl:
            docs = acl.scoped(WHO)
            await docs.upsert([Chunk("async", "d", "", E[1])])
            return await docs.count()

    with v.connect(config) as acl:
        docs = acl.scoped(WHO)
        docs.upsert([Chunk("sync", "d", "", E[0])])
        assert [hit.id for hit in docs.search(E[0])] == ["sync"]
    assert asyncio.run(asked()) == 2


@pytest.mark.parametrize(
    ("settings", "complete"),
    [({}, True), ({"replication_factor": 1}, True), ({"replication_factor": 1, "consistency": "one"}, True)],
)
def test_with_one_replica_a_result_is_complete(stores, settings, complete):
    with v.connect(stores(**settings).config) as acl:
        docs = acl.scoped(WHO)
        docs.upsert([Chunk("c", "d", "", E[0])])
        assert docs.search(E[0]).complete is complete


@pytest.mark.parametrize("consistency", [None, "one", "quorum", "all"])
@pytest.mark.parametrize("factor", [None, 1, 2, 3])
def test_with_replicas_writes_are_not_visible_at_once(factor, consistency):
    """Not with "all" either: a node that is down when it is written is not among them (1.39.0)."""
    config = WeaviateConfig(url="http://h", dimension=1, replication_factor=factor, consistency=consistency)
    assert capabilities(config).visible == ("immediate" if factor in (None, 1) else "eventual")


def test_addresses_of_one_cluster_are_alike():
    for url in ("https://b", "http://user:pw@b", "http://b/path", "b"):
        with pytest.raises(ValidationError):
            WeaviateConfig(url="http://a", dimension=1, nodes=[{"url": url}])
    config = WeaviateConfig(url="http://a", dimension=1, nodes=[{"url": "http://[::1]:80", "grpc_port": 7}])
    assert config.addresses == (("http://a", "a:50051"), ("http://[::1]:80", "[::1]:7"))


class Failed(grpc.RpcError):
    def __init__(self, code, details):
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


@pytest.mark.parametrize("write", [True, False])
@pytest.mark.parametrize(
    "details",
    ['cannot achieve consistency level "ALL": broadcast: cannot reach enough replicas', "dial tcp: connection refused"],
)
def test_a_node_that_is_down_is_unavailable_and_may_be_asked_again(details, write):
    error = mapped(Failed(grpc.StatusCode.UNKNOWN, details), write=write, debug=False, at=AT)
    assert (error.code, error.retryable, error.sent) == ("unavailable", True, "unknown" if write else "no")
    assert mapped(Failed(grpc.StatusCode.UNKNOWN, "no such prop"), write=write, debug=False, at=AT).code == "rejected"
