"""What an operator does: provision, and list tenants. Blocking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from vectoracl.adapter import Port, Progress, Request, TenantInfo
from vectoracl.drive import run
from vectoracl.errors import RefusedError, StoreError
from vectoracl.fields import FieldType
from vectoracl_qdrant import schema
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.execute import Administrator
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.requests import Describe, Tenants

R = TypeVar("R")
_NO_TIERS = "Tenants of a Qdrant store lie in one collection; a shard of its own for a tenant is not supported yet."
_NO_ADOPTION = "Taking over an existing Qdrant collection is not supported yet: copy its chunks with load()."


class QdrantOperator:
    """Operator's work on one configured store."""

    def __init__(
        self,
        config: QdrantConfig,
        fields: Mapping[str, FieldType],
        port: Callable[[], Port],
        administrator: Callable[[], Administrator],
    ) -> None:
        self._config = config
        self._fields = fields
        self._open = port
        self._open_administrator = administrator
        self._port: Port | None = None
        self._administrator: Administrator | None = None

    def _ask(self, request: Request[R]) -> R:
        if self._port is None:
            self._port = self._open()
        reply: R = self._port.execute(request, None)
        return reply

    def _steps(self) -> list[schema.Step]:
        try:
            found = self._ask(Describe())
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            found = None
        return list(schema.steps(self._config, self._fields, found))

    def plan(self, *, adopt: str | None = None) -> str:
        """Return the HTTP requests that `provision` would make now; none where all is in place."""
        if adopt is not None:
            raise RefusedError(_NO_ADOPTION)
        steps = self._steps()
        if not steps:
            return "# Everything is in place.\n"
        return "\n\n".join(schema.text_of(step) for step in steps) + "\n"

    def provision(self, *, adopt: str | None = None, progress: Progress | None = None) -> list[str]:
        """Create or update the collection and its indexes; does only what is left, and can be run again."""
        if adopt is not None:
            raise RefusedError(_NO_ADOPTION)
        if self._administrator is None:
            self._administrator = self._open_administrator()
        steps = self._steps()
        done = []
        for number, step in enumerate(steps):
            if progress is not None:
                progress("provisioning", number, len(steps))
            self._administrator.apply(step)
            done.append(schema.text_of(step).splitlines()[0])
        return done or ["everything is in place"]

    def tenants(self) -> list[TenantInfo]:
        """List the tenants with their rows, counted by paging."""
        names = self._ask(Tenants(schema.query_limit(self._config)))
        pages = Pages(self._config, QdrantCompiler(self._config, self._fields))
        return [TenantInfo(name, self._rows(pages, name), "shared") for name in names]

    def _rows(self, pages: Pages, tenant: str) -> int:
        where = QdrantCompiler(self._config, self._fields).rows(tenant)
        assert where is not None
        assert self._port is not None
        return len(run(pages.keys(tenant, where), {"store": self._port}))

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def close(self) -> None:
        """Close the connections."""
        for one in (self._port, self._administrator):
            if one is not None:
                one.close()
        self._port = self._administrator = None
