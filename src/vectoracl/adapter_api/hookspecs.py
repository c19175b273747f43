"""The hooks that an adapter's plugin module implements.

A distribution names its module in the entry point group "vectoracl", under the adapter's name. Only the module of an
adapter that a configuration names is ever imported.
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
    """The hooks of one adapter. The bodies are never called; pluggy reads the signatures."""

    @hookspec(firstresult=True)
    def vectoracl_config_model(self) -> type[BaseModel]:
        """Return the pydantic model of `[stores.NAME]`, a subclass of `Model`, without the core's keys."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def vectoracl_open(self, config: Any, context: OpenContext) -> Opened:
        """Return the adapter and the makers of its ports; contact nothing.

        Args:
            config: An instance of the model that `vectoracl_config_model` returns.
            context: The store's name, its declared fields and the folder of the configuration.

        Raises:
            ConfigError: The settings contradict each other.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def vectoracl_describe(self) -> Capabilities:
        """Return the most that the adapter can do, for `vectoracl adapters`; contact nothing."""
        raise NotImplementedError

    # The other hooks are optional; the command line calls them.

    @hookspec(firstresult=True)
    def vectoracl_rules(self) -> Sequence[Rule]:
        """Return every rule of the posture check, for `vectoracl check --explain`."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def vectoracl_inspect(
        self, dsn: str, table: str | None, role: str | None, tenant_column: str | None
    ) -> Mapping[str, Posture]:
        """Return the posture of each table of a database that vectoracl did not provision; change nothing.

        Args:
            dsn: The address of the database.
            table: The only table to inspect ("schema.table"); None for all.
            role: The role to judge; None for the one that connects.
            tenant_column: The column that holds the tenant; None to guess it.

        Raises:
            RefusedError: There is nothing to inspect.
            StoreError: The database cannot be read.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def vectoracl_demo_attacks(self, config: Any, context: OpenContext, forging: AttackContext) -> Sequence[Attempt]:
        """Attack the live store past the API, for `vectoracl demo`; leave nothing behind, even if an attack succeeds.

        Attacks are an untagged write, another tenant's tag, a stale connection.

        Raises:
            StoreError: The store cannot be reached.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def vectoracl_template(self, settings: Mapping[str, Any], dimension: int, name: str) -> str:
        """Return `[stores.main]` as commented TOML, for `vectoracl init` and `vectoracl demo`.

        Args:
            settings: Keys that say where the store is, from `vectoracl_demo_place`; empty for the example of `init`.
            dimension: The dimension of the vectors.
            name: The name of a table or collection.
        """
        raise NotImplementedError

    @hookspec(firstresult=True)
    def vectoracl_demo_place(self, dimension: int, say: Callable[[str], None]) -> DemoStore:
        """Find or start the server of `vectoracl demo --store`; an address in the environment comes first.

        Args:
            dimension: The dimension of the vectors to come.
            say: Prints a line about what takes long.

        Raises:
            RefusedError: There is no server; the message names what would provide one.
        """
        raise NotImplementedError
