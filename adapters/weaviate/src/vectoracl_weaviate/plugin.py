"""What pluggy sees of the Weaviate adapter."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vectoracl.adapter import AsyncPort, Capabilities, OpenContext, Opened, Port
from vectoracl.errors import ConfigError
from vectoracl.findings import Rule
from vectoracl.hookspecs import hookimpl
from vectoracl_weaviate.adapter import WeaviateAdapter
from vectoracl_weaviate.capabilities import capabilities
from vectoracl_weaviate.config import WeaviateConfig
from vectoracl_weaviate.execute import AsyncWeaviatePort, WeaviatePort


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
        raise ConfigError("The Weaviate adapter makes its own connections: a key goes with each request.")
    base, debug = Path(context.base), context.debug_errors

    def port() -> Port:
        return WeaviatePort(config, base, debug=debug)

    def aport() -> AsyncPort:
        return AsyncWeaviatePort(config, base, debug=debug)

    def operator() -> Any:
        from vectoracl_weaviate.operator import WeaviateOperator

        return WeaviateOperator(config, context.fields, base, debug=debug)

    def server() -> str:
        return f"Weaviate server, weaviate-client {version('weaviate-client')}"

    return Opened(WeaviateAdapter(config, context.fields), port, aport, operator, server)


@hookimpl
def vectoracl_rules() -> Sequence[Rule]:
    """Return every rule of the posture check."""
    from vectoracl_weaviate.rules import RULES

    return tuple(RULES.values())
