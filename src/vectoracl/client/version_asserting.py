"""Whether reads of a store assert the registry's versions in their own statements: only where that is certain.

The registry and the store each say how they reach the registry's table of tenants (`adapter_api.versions.Witness`).
Unless both name the same table of the same server, and the store's role may read it, the registry is asked before each
read, as for any other store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectoracl.adapter_api.contract import Adapter, Flow
from vectoracl.adapter_api.versions import Asserting, VersionTable, Witness
from vectoracl.errors import VectorACLError

if TYPE_CHECKING:
    from vectoracl.registry.sql_registry import Registry


def witnessing(registry: Registry | None, adapter: Adapter) -> Flow[Witness | None] | None:
    """Return the flow that asks the store; None where there is nothing to ask."""
    if registry is None or not isinstance(adapter, Asserting):
        return None
    table = registry.version_table
    return None if table is None else adapter.witness(table)


def same_table(registry: Registry, found: Witness | None) -> bool:
    """Return whether the store, which answered *found*, reaches the very table of *registry*."""
    try:
        own = registry.witness()
    except VectorACLError:
        return False
    return found is not None and own is not None and own.place is not None and own.place == found.place


def asserted_table(registry: Registry, found: Witness | None) -> VersionTable | None:
    """Return the table in which the store's reads assert versions; None if they do not."""
    if found is None or not found.readable or not same_table(registry, found):
        return None
    return registry.version_table
