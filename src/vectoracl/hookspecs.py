"""What an adapter's plugin module implements; the whole of it fits one screen.

A distribution names its module in the entry point group "vectoracl", under the adapter's name. Only the module of an
adapter that config names is ever imported.
"""

from __future__ import annotations

from typing import Any

import pluggy
from pydantic import BaseModel

from vectoracl.adapter import Capabilities, OpenContext, Opened

PROJECT = "vectoracl"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class AdapterSpec:
    """The hooks of one adapter."""

    @hookspec(firstresult=True)
    def vectoracl_config_model(self) -> type[BaseModel]:
        """Return the pydantic model of `[stores.NAME]` (without the core's keys); `extra="forbid"`."""
        raise NotImplementedError  # a specification has no body; pluggy never calls it

    @hookspec(firstresult=True)
    def vectoracl_open(self, config: Any, context: OpenContext) -> Opened:
        """Return the adapter and the makers of its ports. Contacts nothing. Raises: ConfigError."""
        raise NotImplementedError  # likewise

    @hookspec(firstresult=True)
    def vectoracl_describe(self) -> Capabilities:
        """Return what the adapter can do at best, for `vectoracl adapters`; contacts nothing."""
        raise NotImplementedError  # likewise
