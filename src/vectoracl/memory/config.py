"""The memory adapter's part of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vectoracl.config import Model


class MemoryConfig(Model):
    """`[stores.NAME]` with adapter = "memory"."""

    dimension: int = Field(ge=1, le=65_536)
    metric: Literal["cosine", "inner", "l2"] = "cosine"
