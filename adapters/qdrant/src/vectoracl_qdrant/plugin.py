"""Hook implementations of the Qdrant adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from qdrant_client import AsyncQdrantClient, QdrantClient

from vectoracl._util import toml
from vectoracl.adapter_api.contract import AsyncPort, Capabilities, DemoStore, OpenContext, Opened, Port
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.adapter_api.posture import Rule
from vectoracl.errors import ConfigError
from vectoracl_qdrant import local
from vectoracl_qdrant.adapter import QdrantAdapter
from vectoracl_qdrant.capabilities import capabilities
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.ports import (
    Administrator,
    AsyncLocalPort,
    AsyncQdrantPort,
    LocalPort,
    QdrantPort,
    check_client,
)


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return QdrantConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return what the adapter can do."""
    return capabilities(QdrantConfig(url="http://localhost", dimension=1))


@hookimpl
def vectoracl_open(config: QdrantConfig, context: OpenContext) -> Opened:
    """Return the adapter; nothing is contacted before the first use."""
    check_client()
    client: Any = context.client
    if client is not None and (config.local or not isinstance(client, QdrantClient | AsyncQdrantClient)):
        raise ConfigError("The client of a Qdrant store with a url must be a QdrantClient or an AsyncQdrantClient.")
    base, debug = Path(context.base), context.debug_errors
    key = local.key_of(config, base) if config.local else ""

    def sync() -> LocalPort | QdrantPort:
        if config.local:
            return LocalPort(config, key, debug=debug, registry=context.registry)
        return QdrantPort(config, base, debug=debug, client=client if isinstance(client, QdrantClient) else None)

    def port() -> Port:
        return sync()

    def aport() -> AsyncPort:
        if config.local:
            return AsyncLocalPort(LocalPort(config, key, debug=debug, registry=context.registry))
        async_client = client if isinstance(client, AsyncQdrantClient) else None
        return AsyncQdrantPort(config, base, debug=debug, client=async_client)

    def operator() -> Any:
        from vectoracl_qdrant.operator import QdrantOperator

        administrator = lambda: Administrator(sync(), config)  # noqa: E731 - opened when it is needed
        return QdrantOperator(
            config, context.fields, port, administrator, store=context.name, embedder=context.embedder
        )

    def places(port: Port) -> frozenset[str]:
        if config.local:
            return frozenset({f"{key}/{config.collection}"})
        assert isinstance(port, QdrantPort)
        return Administrator(port, config).places()

    adapter = QdrantAdapter(config, context.fields, governed=context.governed)
    return Opened(adapter, port, aport, operator, lambda: _server(config), places, kept=not config.memory)


def _server(config: QdrantConfig) -> str:
    client = f"qdrant-client {version('qdrant-client')}"
    return f"{client}, local mode" if config.local else f"Qdrant server, {client}"


@hookimpl
def vectoracl_rules() -> Sequence[Rule]:
    """Return every rule of the posture check."""
    from vectoracl_qdrant.rules import RULES

    return tuple(RULES.values())


@hookimpl
def vectoracl_template(settings: Mapping[str, Any], dimension: int, name: str) -> str:
    """Return `[stores.main]` as commented TOML."""
    return f"""\
{toml.store_head("qdrant", dimension)}\
collection = {toml.value("vectoracl_" + name)}

# Either a folder, for a first try without a server: one process at a time can use it, and it enforces nothing.
# Or the address of a server (REST; grpc = true for gRPC).
{toml.lines(settings or {"path": ".vectoracl/qdrant"})}\
# url = "http://localhost:6333"
# api_key = {{ env = "VECTORACL_QDRANT_API_KEY" }}
"""


@hookimpl
def vectoracl_demo_place() -> DemoStore:
    """Return the server that the environment names, else a folder for the client's local mode."""
    url = os.environ.get("VECTORACL_QDRANT_URL")
    if not url:
        note = "No server was available, so the client's local mode was used (VECTORACL_QDRANT_URL names a server)."
        return DemoStore({"path": Path("qdrant")}, note=note)
    settings: dict[str, Any] = {"url": url}
    if os.environ.get("VECTORACL_QDRANT_API_KEY"):
        settings["api_key"] = {"env": "VECTORACL_QDRANT_API_KEY"}
    return DemoStore(settings)
