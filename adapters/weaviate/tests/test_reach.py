"""The Weaviate that is started for tests, the kit and the demo: what is on every address refuses without its key."""

from __future__ import annotations

import socket

import grpc
import httpx
import pytest
from weaviate.proto.v1 import aggregate_pb2, search_get_pb2, tenants_pb2, weaviate_pb2_grpc

import vectoracl as v
from vectoracl import Chunk
from vectoracl.adapter_api.local_servers import network
from vectoracl.testing import principal
from vectoracl_conformance.servers.listening import listening
from vectoracl_weaviate.conformance.harness import RBAC

from weaviate_support.stores import made, started

DATA = ("/clusterapi.ReplicationService/FindUUIDs", "/clusterapi.FileReplicationService/ReleaseReplicaSnapshot")
PATHS = ("/nodes/status", "/nodes/statistics", "/indices/{0}/shards/t_acme/objects", "/cluster/users/db/info",
         "/replicas/indices/{0}/shards/t_acme/objects/_digest", "/cluster/object_ttl/status")  # fmt: skip
# Whatever is configured these ask for no password (1.39.0); each needs a module of the server that is not loaded.
UNLOCKED = ("/backups/can-commit", "/backups/commit", "/backups/status", "/exports/prepare", "/exports/status")


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "in everybody's network"])
@pytest.mark.parametrize("kind", ["tests", "roles", "kit"])
def test_nothing_is_reachable_without_the_key(kind, alone, monkeypatch):
    if not alone:
        monkeypatch.setattr(network, "possible", lambda: False)
    elif not network.possible():
        pytest.skip("not run: this machine gives no process a network of its own")
    with started(RBAC if kind == "roles" else None, own=True, unguarded=kind == "kit") as running:
        assert running.guard is not None
        store = made(running)
        with v.connect(store.config) as acl:
            acl.scoped(principal("u", "acme")).upsert([Chunk("c", "d", "SECRETTEXT", [1] * 8)])
        assert ("metrics" in running.ports) is (kind == "kit" and alone)
        if "metrics" in running.ports:
            assert httpx.get(f"http://127.0.0.1:{running.ports['metrics']}/metrics").status_code == 200
        outside = {one.port for one in listening(running.guard.pid) if one.outside}
        assert outside == (set() if alone else {running.ports["grpc"], running.ports["data"]})
        for host in {"127.0.0.1"} if alone else {"127.0.0.1", _address()}:
            _grpc_is_locked(f"{host}:{running.ports['grpc']}", store.collection)
            if not alone:
                _data_is_locked(f"{host}:{running.ports['data']}", store.collection)
        for path in ("/v1/schema", "/v1/meta", f"/v1/objects?class={store.collection}&tenant=t_acme"):
            assert httpx.get(f"{running.url}{path}").status_code == 401


def _address() -> str:
    """Return an address of this machine that is not loopback, where there is one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            one.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return one.getsockname()[0]


def _grpc_is_locked(target: str, collection: str) -> None:
    with grpc.insecure_channel(target) as channel:
        stub = weaviate_pb2_grpc.WeaviateStub(channel)
        for call, message in (
            (stub.Search, search_get_pb2.SearchRequest(collection=collection, tenant="t_acme", limit=5)),
            (
                stub.Aggregate,
                aggregate_pb2.AggregateRequest(collection=collection, tenant="t_acme", objects_count=True),
            ),
            (stub.TenantsGet, tenants_pb2.TenantsGetRequest(collection=collection)),
        ):
            for metadata in ((), (("authorization", "Bearer root-of-the-kit"),)):
                with pytest.raises(grpc.RpcError) as caught:
                    call(message, timeout=5, metadata=metadata)
                assert "SECRETTEXT" not in str(caught.value)
                assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNKNOWN)
                assert "auth" in str(caught.value.details()) or "key" in str(caught.value.details())


def _data_is_locked(target: str, collection: str) -> None:
    for path in PATHS:
        for auth in (None, ("cluster", "wrong")):
            for method in ("GET", "POST", "PUT", "DELETE"):
                answer = httpx.request(method, f"http://{target}{path.format(collection)}", auth=auth)
                assert answer.status_code in (401, 404, 405), (method, path, answer.status_code, answer.text)
                assert "SECRETTEXT" not in answer.text
            assert httpx.get(f"http://{target}{path.format(collection)}", auth=auth).status_code == 401, path
    for path in UNLOCKED:
        body = {"method": "create", "id": "b", "backend": "filesystem", "classes": [collection]}
        answer = httpx.post(f"http://{target}{path}", json=body)
        assert "SECRETTEXT" not in answer.text
        assert answer.status_code >= 400 or "backend" in answer.text or "err" in answer.text.lower(), (
            path,
            answer.text,
        )
    with grpc.insecure_channel(target) as channel:
        for method in DATA:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(method)(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method
