"""What pluggy sees of the memory adapter."""

from __future__ import annotations

from pydantic import BaseModel

from vectoracl.adapter import Capabilities, OpenContext, Opened
from vectoracl.hookspecs import hookimpl
from vectoracl.memory.adapter import MemoryAdapter, capabilities
from vectoracl.memory.config import MemoryConfig
from vectoracl.memory.execute import AsyncMemoryPort, MemoryPort, shelf_of


@hookimpl
def vectoracl_config_model() -> type[BaseModel]:
    """Return the model of `[stores.NAME]`."""
    return MemoryConfig


@hookimpl
def vectoracl_describe() -> Capabilities:
    """Return what the adapter can do."""
    return capabilities(MemoryConfig(dimension=1))


@hookimpl
def vectoracl_open(config: MemoryConfig, context: OpenContext) -> Opened:
    """Open a store that lives as long as a VectorACL that opened it."""
    shelf = shelf_of(config.metric, config.name)
    return Opened(
        MemoryAdapter(config, context.fields),
        lambda: MemoryPort(shelf),
        lambda: AsyncMemoryPort(MemoryPort(shelf)),
        server=lambda: "memory (in-process)",
    )
