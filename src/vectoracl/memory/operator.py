"""The operator of a memory store: lists its tenants and removes one."""

from __future__ import annotations

from vectoracl.adapter_api.contract import Adopted, Progress, TenantInfo
from vectoracl.errors import RefusedError
from vectoracl.memory.ports import Shelf
from vectoracl.model.identifiers import stored_tenant

_NO_TIERS = "A memory store always keeps each tenant in a separate part."
_NOTHING = "a memory store needs no provisioning"


class MemoryOperator:
    """The operator of one memory store."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def plan(self, *, adopt: str | None = None) -> str:
        """Return a text that there is nothing to do. Raises: RefusedError with *adopt*."""
        if adopt is not None:
            raise RefusedError("A memory store cannot import existing rows: there are none.", field="adopt")
        return f"# {_NOTHING}\n"

    def provision(
        self,
        *,
        adopt: str | None = None,
        progress: Progress | None = None,  # noqa: ARG002 - the contract's
        adopted: Adopted | None = None,  # noqa: ARG002 - the contract's
    ) -> list[str]:
        """Do nothing: there is nothing to create. Raises: RefusedError with *adopt*."""
        self.plan(adopt=adopt)
        return [_NOTHING]

    def tenants(self, *, progress: Progress | None = None) -> list[TenantInfo]:  # noqa: ARG002 - the contract's
        """List the tenants with their rows."""
        with self._shelf.lock:
            return [TenantInfo(name, len(rows), "own") for name, rows in sorted(self._shelf.partitions.items())]

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def remove(self, tenant: str) -> list[str]:
        """Delete *tenant* with all of its rows."""
        tenant = stored_tenant(tenant, lambda: self._shelf.partitions)
        with self._shelf.lock:
            rows = self._shelf.partitions.pop(tenant, None)
            self._shelf.writes += 1
        return [] if rows is None else [f"removed the tenant {tenant} with {len(rows):,} chunks"]

    def mark(self, registry: str | None) -> list[str]:
        """Note the registry that governs this store."""
        with self._shelf.lock:
            self._shelf.registry = registry
        return ["marked the memory store as governed" if registry else "removed the mark of the memory store"]

    def close(self) -> None:
        """Do nothing: no resources are held."""
