"""Operators' commands: provision, import existing records, list tenants, remove one. Blocking."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vectoracl.adapter_api import store_notes
from vectoracl.adapter_api.adoption_template import AdoptsInShares
from vectoracl.adapter_api.contract import Adopted, Port, Progress, Request, TenantInfo
from vectoracl.engine.drivers import run
from vectoracl.errors import PostureError, RefusedError, StoreError
from vectoracl.filters.field_types import FieldType
from vectoracl.model.identifiers import stored_tenant
from vectoracl_pinecone import schema
from vectoracl_pinecone.adopt import Adoption
from vectoracl_pinecone.compile import ALL_ROWS, PineconeCompiler
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.decode import Decoder
from vectoracl_pinecone.names import tenant_of
from vectoracl_pinecone.ports import create
from vectoracl_pinecone.posture import compared, keeping, kept_notes, marking
from vectoracl_pinecone.requests import Describe, Drop, MayRead, Query, Schema, Stats

R = TypeVar("R")
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 10.0)
_NO_TIERS = "Every tenant of a Pinecone store already has its own namespace."


class PineconeOperator(AdoptsInShares):
    """Operator's work on one configured store."""

    def __init__(
        self,
        config: PineconeConfig,
        fields: Mapping[str, FieldType],
        base: Path,
        port: Callable[[], Port],
        *,
        debug: bool = False,
        store: str = "",
        embedder: str | None = None,
    ) -> None:
        self._name = store
        self._embedder = embedder
        self._config = config
        self._fields = fields
        self._compile = PineconeCompiler(config, fields)
        self._decode = Decoder(config, fields)
        self._base = base
        self._debug = debug
        self._open = port
        self._port: Port | None = None

    def _ask(self, request: Request[R]) -> R:
        if self._port is None:
            self._port = self._open()
        reply: R = self._port.execute(request, None)
        return reply

    def _found(self) -> Stats | None:
        try:
            return self._ask(Describe())
        except StoreError as error:
            if error.code != "not_provisioned":
                raise
            return None

    def plan(self, *, adopt: str | None = None) -> str:
        """Return the HTTP request of `provision`, or with *adopt* what it would import; changes nothing."""
        if adopt is not None:
            # A line break in a name would end its comment.
            lines = (line.encode("unicode_escape").decode() for line in self._adoption(adopt, None).plan())
            return "".join(f"# {line}\n" for line in lines)
        stats = self._found()
        if stats is not None:
            return "# The index exists; Pinecone creates a namespace with its first record.\n" + self._strangers(stats)
        return schema.text_of(schema.index(self._config)) + "\n"

    def _compare(self, found: Stats) -> None:
        """Compare the index with the configuration, by its own description and that of the control plane.

        Raises: PostureError for an index of another kind, vector field, dimension or metric.
        """
        known = self._known()
        some = [one for one in (known, found) if one is not None]
        judged = [one for stats in some for one in compared(self._config, "index", stats) if one.rule.lowers]
        wrong = list({one.message: one for one in judged}.values())
        if wrong:
            differences = "; ".join(one.message for one in wrong)
            error = PostureError(f"The index differs from the configuration: {differences}.")
            error.findings = tuple(wrong)
            raise error

    def _known(self) -> Stats | None:
        """Return the control plane's description of the index; None without a name, or without rights to read it."""
        try:
            return self._ask(Schema())
        except StoreError as error:
            if error.code not in ("unauthorized", "not_provisioned"):
                raise
            return None

    def _strangers(self, found: Stats) -> str:
        """Describe the namespaces that do not belong to a tenant. Raises: PostureError if the index is another one."""
        self._compare(found)
        prefix = self._config.namespace_prefix
        others = [name for name in found.namespaces if not name.startswith(prefix)]
        if not others:
            return ""
        records = sum(found.namespaces[name] for name in others)
        return (
            f"# {len(others):,} namespaces with {records:,} records do not begin with {prefix!r}; handles do not reach "
            "them, but the API key does.\n"
        )

    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create the index if it does not exist, and wait until it is ready; can be run again.

        Args:
            adopt: A namespace whose records are then imported, or "*" for all foreign namespaces (see `adopt`).
            progress: Called with the progress of each step.
            adopted: Called with the result of the import.

        Returns: One line for each step that was done.
        """
        stats = self._found()
        if adopt is not None:
            return self._adoption(adopt, progress).copy(adopted)
        if stats is not None:
            self._strangers(stats)
            return ["the index exists; Pinecone creates a namespace with its first record", *self._keep()]
        step = schema.index(self._config)
        if progress is not None:
            progress("creating the index", 0, 1)
        create(self._config, self._base, step, debug=self._debug)
        return [schema.text_of(step).splitlines()[0], *self._keep()]

    def _keep(self) -> list[str]:
        """Store the name of the configured embedder in the index. Raises: RefusedError if it names another."""
        if self._embedder is None:
            return []
        self._ask(MayRead())  # opens the port
        assert self._port is not None
        recorded = run(kept_notes(self._config), {"store": self._port}).embedder
        embedder = store_notes.learned(self._name, recorded, self._embedder)
        if embedder is None:
            return []
        self._ask(keeping(self._config, embedder))
        return [f"recorded the embedder {embedder!r} in the index"]

    def mark(self, registry: str | None) -> list[str]:
        """Note which registry governs the index, and wait until the note is read; None removes it. Raises: StoreError.

        Another process may open the index without the note while a replica lags behind.
        """
        self._ask(MayRead())  # opens the port
        self._ask(marking(self._config, registry))
        assert self._port is not None
        for pause in (*_PAUSES, None):
            if run(kept_notes(self._config), {"store": self._port}).registry == registry:
                text = "marked" if registry else "removed the mark of"
                return [f"{text} the index as governed by the registry"]
            time.sleep(pause or 0.0)
        raise StoreError(
            "The mark of the registry was written and is not yet visible. Run `vectoracl provision` again.",
            code="not_visible",
            adapter="pinecone",
            sent="unknown",
        )

    def _adoption(self, source: str, progress: Progress | None) -> Adoption:
        stats = self._found()
        if stats is None:
            raise RefusedError("The index does not exist; run `vectoracl provision` without --adopt first.")
        self._strangers(stats)
        assert self._port is not None
        return Adoption(self._config, self._fields, self._port, source, progress)

    def tenants(self, *, progress: Progress | None = None) -> list[TenantInfo]:  # noqa: ARG002 - the contract's
        """List the tenants, with the numbers of records that Pinecone reports (which may lag behind)."""
        stats = self._ask(Describe())
        prefix = self._config.namespace_prefix
        listed = []
        for namespace, rows in sorted(stats.namespaces.items()):
            tenant = tenant_of(prefix, namespace)
            if tenant is None and namespace.startswith(f"{prefix}h-"):
                tenant = self._named_inside(namespace)
            if tenant is not None:
                listed.append(TenantInfo(tenant, rows, "own"))
        return sorted(listed, key=lambda one: one.tenant)

    def _named_inside(self, namespace: str) -> str | None:
        """Return the tenant of a namespace whose name is a digest, from the tag of any record in it."""
        matches: Any = self._ask(Query(None, namespace, self._compile.direction, 1, None, metadata=True))
        tenants = {self._decode.tag(match).tenant for match in matches}
        named = [one for one in tenants if self._compile.namespace(one) == namespace]
        return named[0] if named else None

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:  # noqa: ARG002 - the contract's
        """Raises: RefusedError."""
        raise RefusedError(_NO_TIERS)

    def remove(self, tenant: str) -> list[str]:
        """Delete the namespace of *tenant* with every record in it, whatever its generation."""
        tenant = stored_tenant(tenant, lambda: [one.tenant for one in self.tenants()])
        namespace = self._compile.namespace(tenant)
        stats = self._found()
        if stats is None:
            return []
        # The statistics may lag behind, so the records are listed too.
        listed = self._ask(self._compile.listing(tenant)).matches
        if not listed and namespace not in stats.namespaces:
            return []
        try:
            self._ask(Drop(tenant, namespace))
        except StoreError as error:
            if error.code not in ("not_offered", "not_provisioned", "rejected"):
                raise
            return self._emptied(tenant)
        return [f"removed the namespace of the tenant {tenant} with its records"]

    def _emptied(self, tenant: str) -> list[str]:
        """Delete every record of a namespace, on a server that cannot delete namespaces; empty ones do not exist."""
        number = 0
        while listed := self._ask(self._compile.listing(tenant)).matches:
            self._ask(self._compile.remove(tenant, [one.id for one in listed], ALL_ROWS))
            number += len(listed)
        return [f"removed {number:,} records of the tenant {tenant}"] if number else []

    def close(self) -> None:
        """Close the connections."""
        if self._port is not None:
            self._port.close()
        self._port = None
