"""Finds or starts a Weaviate server, for `vectoracl demo` and, with more settings, for the kit's harness."""

from __future__ import annotations

from collections.abc import Mapping

from vectoracl.adapter_api.local_servers.start import Place, ServerSpec

VERSION = "1.39.0"


def _environment(place: Place) -> Mapping[str, str]:
    """Bind what can be bound to loopback, and lock the rest, which is on every address whatever the settings are.

    gRPC asks for the key, as REST does. The data port asks for a user and the key, but for its backups and exports, of
    which there are none without a module for them; the metrics ask for nothing. So the server is alone in its network
    where it can be (`loud`).
    """
    ports = place.ports
    watched = {"PROMETHEUS_MONITORING_ENABLED": "true", "PROMETHEUS_MONITORING_PORT": str(ports.get("metrics", 0))}
    return {
        "PERSISTENCE_DATA_PATH": f"{place.folder}/data",
        "DEFAULT_VECTORIZER_MODULE": "none",
        "CLUSTER_HOSTNAME": "node1",
        "CLUSTER_ADVERTISE_ADDR": "127.0.0.1",
        "CLUSTER_BIND_ADDR": "127.0.0.1",
        "CLUSTER_BASIC_AUTH_USERNAME": "cluster",
        "CLUSTER_BASIC_AUTH_PASSWORD": place.key,
        "CLUSTER_GOSSIP_BIND_PORT": str(ports.get("gossip", 7946)),
        "CLUSTER_DATA_BIND_PORT": str(ports.get("data", 7947)),
        "RAFT_PORT": str(ports.get("raft", 8300)),
        "RAFT_INTERNAL_RPC_PORT": str(ports.get("raft_rpc", 8301)),
        "RAFT_BOOTSTRAP_EXPECT": "1",
        "GRPC_PORT": str(ports["grpc"]),
        **(watched if "metrics" in ports else {}),
        "QUERY_SLOW_LOG_ENABLED": "true",
        "QUERY_SLOW_LOG_THRESHOLD": "1ns",
        "DISABLE_TELEMETRY": "true",
        "GO_PROFILING_DISABLE": "true",
        "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
        "AUTHENTICATION_APIKEY_ENABLED": "true",
        "AUTHENTICATION_APIKEY_ALLOWED_KEYS": place.key,
        "AUTHENTICATION_APIKEY_USERS": "root",
    }


SPEC = ServerSpec(
    name="weaviate",
    version=VERSION,
    address="VECTORACL_WEAVIATE_URL",
    ports=("http", "grpc", "metrics", "gossip", "data", "raft", "raft_rpc"),
    binary="weaviate-server",
    go="github.com/weaviate/weaviate/cmd/weaviate-server",
    image=f"cr.weaviate.io/semitechnologies/weaviate:{VERSION}",
    published={"http": 8080, "grpc": 50051},
    loud=True,
    unguarded=("metrics",),
    arguments=lambda place: ["--host", place.host, "--port", str(place.ports["http"]), "--scheme", "http"],
    environment=_environment,
    ready="/v1/.well-known/ready",
)
"""How a Weaviate is found and started; `VECTORACL_WEAVIATE_GRPC_PORT` goes with the address (50051)."""
