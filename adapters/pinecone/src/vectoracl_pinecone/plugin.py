"""What pluggy sees of the Pinecone adapter."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pinecone import AsyncIndex, Index
from pydantic import BaseModel

from vectoracl.adapter import AsyncPort, Capabilities, OpenContext, Opened, Port
from vectoracl.errors import ConfigError
from vectoracl.findings import Rule
from vectoracl.hookspecs import hookimpl
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.capabilities import capabilities
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.execute import AsyncPineconePort, PineconePort


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return PineconeConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return what the adapter can do."""
    return capabilities(PineconeConfig.model_validate({"api_key": "none", "index": "index", "dimension": 1}))


@hookimpl
def vectoracl_open(config: PineconeConfig, context: OpenContext) -> Opened:
    """Return the adapter; nothing is contacted before the first use."""
    client: Any = context.client
    if client is not None and not isinstance(client, Index | AsyncIndex):
        raise ConfigError("The client of a Pinecone store is a pinecone Index or AsyncIndex.")
    if client is not None and config.kind is None and config.index is not None and config.host is None:
        raise ConfigError('With a client of your own say which kind its index is: kind = "vector" or "document".')
    base, debug = Path(context.base), context.debug_errors

    def port() -> Port:
        return PineconePort(config, base, debug=debug, client=client if isinstance(client, Index) else None)

    def aport() -> AsyncPort:
        return AsyncPineconePort(config, base, debug=debug, client=client if isinstance(client, AsyncIndex) else None)

    def operator() -> Any:
        from vectoracl_pinecone.operator import PineconeOperator

        return PineconeOperator(config, context.fields, base, port, debug=debug)

    return Opened(PineconeAdapter(config, context.fields), port, aport, operator, _server)


def _server() -> str:
    return f"Pinecone API, pinecone {version('pinecone')}"


@hookimpl
def vectoracl_rules() -> Sequence[Rule]:
    """Return every rule of the posture check."""
    from vectoracl_pinecone.rules import RULES

    return tuple(RULES.values())
