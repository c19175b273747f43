"""Hook implementations of the Weaviate adapter."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vectoracl._util import toml
from vectoracl.adapter_api import store_identity
from vectoracl.adapter_api.contract import AsyncPort, Capabilities, DemoStore, OpenContext, Opened, Port
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.adapter_api.posture import Rule
from vectoracl.errors import ConfigError, without_context
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.capabilities import capabilities
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.ports import AsyncWeaviatePort, WeaviatePort

_DEMO_KEY = "VECTORACL_DEMO_WEAVIATE_KEY"


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return WeaviateConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return what the adapter can do."""
    return capabilities(WeaviateConfig(url="http://localhost", dimension=1))


@hookimpl
def vectoracl_open(config: WeaviateConfig, context: OpenContext) -> Opened:
    """Return the adapter; nothing is contacted before the first use."""
    if context.client is not None:
        raise ConfigError("The Weaviate adapter opens its own connections, since it sends a key with each request.")
    base, debug = Path(context.base), context.debug_errors

    def port() -> Port:
        return WeaviatePort(config, base, debug=debug)

    def aport() -> AsyncPort:
        return AsyncWeaviatePort(config, base, debug=debug)

    def operator() -> Any:
        from vectoracl_weaviate.operator import WeaviateOperator

        return WeaviateOperator(
            config, context.fields, base, debug=debug, store=context.name, embedder=context.embedder
        )

    def server() -> str:
        return f"Weaviate server, weaviate-client {version('weaviate-client')}"

    def found(_: Port) -> frozenset[str]:
        return frozenset({f"{store_identity.address(config.url, {'http': 80, 'https': 443})}/{config.collection}"})

    return Opened(
        WeaviateAdapter(config, context.fields, governed=context.governed), port, aport, operator, server, found
    )


@hookimpl
def vectoracl_rules() -> Sequence[Rule]:
    """Return every rule of the posture check."""
    from vectoracl_weaviate.rules import RULES

    return tuple(RULES.values())


@hookimpl
def vectoracl_template(settings: Mapping[str, Any], dimension: int, name: str) -> str:
    """Return `[stores.main]` as commented TOML."""
    return f"""\
{toml.store_head("weaviate", dimension)}\
collection = {toml.value("Vectoracl" + name.capitalize())}

# The REST address, and the port of gRPC on the same host.
{toml.lines(settings or {"url": "http://localhost:8080", "grpc_port": 50_051})}\
# api_key = {{ env = "VECTORACL_WEAVIATE_API_KEY" }}
# Per-tenant keys, if the server has roles enabled: `vectoracl provision` writes them to this file.
# tenant_keys = "weaviate-keys.json"
# operator_key = {{ env = "VECTORACL_WEAVIATE_OPERATOR_KEY" }}
"""


@hookimpl
@without_context
def vectoracl_demo_place(say: Callable[[str], None]) -> DemoStore:
    """Return the server that the environment names, else start one: see `local_servers`. Raises: MissingServerError."""
    url = os.environ.get("VECTORACL_WEAVIATE_URL")
    if url:
        settings: dict[str, Any] = {"url": url}
        if os.environ.get("VECTORACL_WEAVIATE_GRPC_PORT"):
            settings["grpc_port"] = int(os.environ["VECTORACL_WEAVIATE_GRPC_PORT"])
        if os.environ.get("VECTORACL_WEAVIATE_API_KEY"):
            settings["api_key"] = {"env": "VECTORACL_WEAVIATE_API_KEY"}
        return DemoStore(settings)
    from vectoracl.adapter_api.local_servers.start import start
    from vectoracl_weaviate.demo_server import SPEC

    running = start(SPEC, say=say)
    os.environ[_DEMO_KEY] = running.key  # not in the demo's folder: the server ends with this process
    server = f"{running.used}, weaviate-client {version('weaviate-client')}"
    note = "The server was stopped with the demo; set VECTORACL_WEAVIATE_URL to use one that keeps running."
    return DemoStore(
        {"url": running.url, "grpc_port": running.ports["grpc"], "api_key": {"env": _DEMO_KEY}},
        kept=False,
        note=note,
        server=server,
        close=running.close,
    )
