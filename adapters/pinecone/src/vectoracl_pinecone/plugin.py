"""Hook implementations of the Pinecone adapter."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pinecone import AsyncIndex, Index
from pydantic import BaseModel

from vectoracl._util import toml
from vectoracl.adapter_api import store_identity
from vectoracl.adapter_api.contract import AsyncPort, Capabilities, DemoStore, OpenContext, Opened, Port
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.adapter_api.posture import Rule
from vectoracl.errors import ConfigError, without_context
from vectoracl_pinecone.adapter import PineconeAdapter
from vectoracl_pinecone.capabilities import capabilities
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.ports import AsyncPineconePort, PineconePort


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return PineconeConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return what the adapter can do at its best."""
    best = {"api_key": "none", "index": "index", "kind": "document", "lexical": True, "dimension": 1}
    return capabilities(PineconeConfig.model_validate(best))


@hookimpl
def vectoracl_open(config: PineconeConfig, context: OpenContext) -> Opened:
    """Return the adapter; nothing is contacted before the first use."""
    client: Any = context.client
    if client is not None and not isinstance(client, Index | AsyncIndex):
        raise ConfigError("The client of a Pinecone store must be a pinecone Index or AsyncIndex.")
    if client is not None and config.kind is None and config.index is not None and config.host is None:
        raise ConfigError('With a client that is passed, set the kind of its index: kind = "vector" or "document".')
    base, debug = Path(context.base), context.debug_errors

    def port() -> Port:
        return PineconePort(config, base, debug=debug, client=client if isinstance(client, Index) else None)

    def aport() -> AsyncPort:
        return AsyncPineconePort(config, base, debug=debug, client=client if isinstance(client, AsyncIndex) else None)

    def operator() -> Any:
        from vectoracl_pinecone.operator import PineconeOperator

        return PineconeOperator(
            config, context.fields, base, port, debug=debug, store=context.name, embedder=context.embedder
        )

    def found(port: Port) -> frozenset[str]:
        assert isinstance(port, PineconePort)
        return frozenset(
            {f"{store_identity.address(port.host, {'http': 80, 'https': 443, '': 443})}/{config.namespace_prefix}"}
        )

    return Opened(
        PineconeAdapter(config, context.fields, governed=context.governed), port, aport, operator, _server, found
    )


def _server() -> str:
    return f"Pinecone API, pinecone {version('pinecone')}"


@hookimpl
def vectoracl_rules() -> Sequence[Rule]:
    """Return every rule of the posture check."""
    from vectoracl_pinecone.rules import RULES

    return tuple(RULES.values())


@hookimpl
def vectoracl_template(settings: Mapping[str, Any], dimension: int, name: str) -> str:
    """Return `[stores.main]` as commented TOML."""
    usual = {"index": f"vectoracl-{name.replace('_', '-')}", "api_key": {"env": "PINECONE_API_KEY"}}
    return f"""\
{toml.store_head("pinecone", dimension)}\

# The name of the index; or host = "…", its address, with which nothing is looked up.
{toml.lines(settings or usual)}\
# wait_visible = 10               # seconds that a write waits until readers see it
"""


@hookimpl
@without_context
def vectoracl_demo_place(dimension: int, say: Callable[[str], None]) -> DemoStore:
    """Return the index that the environment names, else one in an engine with Pinecone's API."""
    host = os.environ.get("VECTORACL_PINECONE_HOST")
    # The index may hold other data: a prefix keeps the demo's namespaces apart.
    separate: dict[str, Any] = {"namespace_prefix": "vectoracl-demo-", "wait_visible": 60}
    if host:
        return DemoStore({"host": host, "api_key": {"env": "VECTORACL_PINECONE_API_KEY"}, **separate})
    from vectoracl.adapter_api.local_servers.start import start
    from vectoracl_pinecone.demo_server import SPEC, VERSION, create_index

    say("starting needledb")
    running = start(SPEC, say=say)
    try:
        index = create_index(running, "demo", dimension)
    except BaseException:
        running.close()
        raise
    server = f"needledb {VERSION}, an independent engine behind Pinecone's API, pinecone {version('pinecone')}"
    note = (
        f"This was not Pinecone but needledb {VERSION}, which was stopped with the demo; "
        "set VECTORACL_PINECONE_HOST and VECTORACL_PINECONE_API_KEY to use an index at Pinecone."
    )
    # Its key is valid only while it runs; its $nin is the complement of $in on lists too.
    settings = {"host": index, "api_key": running.key, "negation": "nin", **separate}
    return DemoStore(settings, kept=False, note=note, server=server, close=running.close)
