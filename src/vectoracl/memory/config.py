"""The memory adapter's part of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vectoracl.adapter_api.settings import Model


class MemoryConfig(Model):
    """`[stores.NAME]` with adapter = "memory".

    Stores with the same `name` are one store within the process, so that sync and async callers share rows; it lives
    as long as one of them is open. Without a name each VectorACL has a separate store.
    """

    dimension: int = Field(ge=1, le=65_536)
    metric: Literal["cosine", "inner", "l2"] = "cosine"
    name: str | None = Field(default=None, min_length=1)
