"""The hooks of the memory adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from vectoracl._util import toml
from vectoracl.adapter_api.contract import Capabilities, DemoStore, OpenContext, Opened
from vectoracl.adapter_api.hookspecs import hookimpl
from vectoracl.memory.adapter import MemoryAdapter, capabilities
from vectoracl.memory.config import MemoryConfig
from vectoracl.memory.operator import MemoryOperator
from vectoracl.memory.ports import AsyncMemoryPort, MemoryPort, shelf_of


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return MemoryConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return the adapter's capabilities."""
    return capabilities(MemoryConfig(dimension=1))


@hookimpl
def vectoracl_open(config: MemoryConfig, context: OpenContext) -> Opened:
    """Open a store, which lives as long as the VectorACL that opened it."""
    shelf = shelf_of(config.metric, config.dimension, config.name, context.embedder, context.registry)
    return Opened(
        MemoryAdapter(config, context.fields),
        lambda: MemoryPort(shelf),
        lambda: AsyncMemoryPort(MemoryPort(shelf)),
        lambda: MemoryOperator(shelf),
        server=lambda: "memory (in-process)",
        identity=lambda _: frozenset({shelf.place}),
        kept=False,
    )


@hookimpl
def vectoracl_template(settings: Mapping[str, Any], dimension: int) -> str:
    """Return `[stores.main]` as commented TOML."""
    return (
        '[stores.main]\nadapter = "memory"              # lives as long as the process: for tests\n'
        f'dimension = {dimension}\nmetric = "cosine"               # or "inner", "l2"\n{toml.lines(settings)}'
    )


@hookimpl
def vectoracl_demo_place() -> DemoStore:
    """Return a demo store within the process."""
    return DemoStore({}, kept=False, note="A memory store ends with its process.")
