"""What an adapter's plugin module implements; the whole of it fits one screen.

A distribution names its module in the entry point group "vectoracl", under the adapter's name. Only the module of an
adapter that config names is ever imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pluggy
from pydantic import BaseModel

from vectoracl.adapter_api.contract import Capabilities, DemoStore, OpenContext, Opened
from vectoracl.adapter_api.demo_attacks import AttackContext, Attempt
from vectoracl.adapter_api.posture import Posture, Rule

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

    # What follows is for the command line, and optional.

    @hookspec(firstresult=True)
    def vectoracl_rules(self) -> Sequence[Rule]:
        """Return every rule of the posture check, for `vectoracl check --explain`."""
        raise NotImplementedError  # likewise

    @hookspec(firstresult=True)
    def vectoracl_inspect(
        self, dsn: str, table: str | None, role: str | None, tenant_column: str | None
    ) -> Mapping[str, Posture]:
        """Look at a store that vectoracl never provisioned; changes nothing. Keys are names of tables, for people.

        *table* limits it to one ("schema.table"), *role* is whom to judge if not the one that connects, and
        *tenant_column* stands for the guess. Raises: RefusedError if there is nothing to look at; StoreError.
        """
        raise NotImplementedError  # likewise

    @hookspec(firstresult=True)
    def vectoracl_demo_attacks(self, config: Any, context: OpenContext, forging: AttackContext) -> Sequence[Attempt]:
        """Try what goes around the API on the live store: untagged write, other tenant's tag, stale connection.

        For `vectoracl demo`. Leaves nothing behind, also where an attack succeeds. Raises: StoreError.
        """
        raise NotImplementedError  # likewise

    @hookspec(firstresult=True)
    def vectoracl_template(self, settings: Mapping[str, Any], dimension: int, name: str) -> str:
        """Return `[stores.main]` as commented TOML, for `vectoracl init` and `vectoracl demo`.

        *settings* are keys that say where the store is, from `vectoracl_demo_place` (see `toml_text.lines`); empty for
        the example of `init`. *name* is what a table or collection is called after.
        """
        raise NotImplementedError  # likewise

    @hookspec(firstresult=True)
    def vectoracl_demo_place(self, dimension: int, say: Callable[[str], None]) -> DemoStore:
        """Find or start what `vectoracl demo --store` runs on: an address in the environment first.

        *dimension* is that of the vectors to come; *say* hears what takes long. Raises: RefusedError with what would
        change it, where there is nothing.
        """
        raise NotImplementedError  # likewise
