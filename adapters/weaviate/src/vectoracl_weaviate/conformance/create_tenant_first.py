"""With a key for each tenant no key of the process can make one: an operator signs a tenant up before its first write.

For whoever plays both parts in one process: the harness, and the process in which it measures out of sight.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vectoracl.adapter_api.chunk_validation import check_tagged
from vectoracl.adapter_api.contract import Adapter, Flow, Opened
from vectoracl.adapter_api.operations import Replace, Upsert
from vectoracl_weaviate import tenant_keys
from vectoracl_weaviate.names import tenant_name


class TenantCreation:
    """The operator of one store: *config* is its `[stores.NAME]`, with `operator_key` and `tenant_keys`."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._acl: Any = None
        self._operator: Any = None

    def __call__(self, tenant: str) -> None:
        """Make *tenant* with its key, if it has none."""
        with self._lock:
            if tenant_name(tenant) not in tenant_keys.read(Path(self._config["tenant_keys"])):
                self.operator.create(tenant)

    @property
    def operator(self) -> Any:
        """The operator, opened when it is first needed."""
        if self._operator is None:
            from vectoracl import VectorACL

            self._acl = VectorACL({"version": 1, "stores": {"main": dict(self._config)}})
            self._operator = self._acl.operator()
        return self._operator

    def close(self) -> None:
        """Close the connections."""
        if self._operator is not None:
            self._operator.close()
            self._acl.close()
            self._acl = self._operator = None


class _SignedUp:
    """An adapter whose writes are preceded by the sign-up of their tenant."""

    def __init__(self, inner: Adapter, sign_up: TenantCreation) -> None:
        self._inner = inner
        self._sign_up = sign_up
        self._known: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _first(self, operation: Upsert | Replace) -> None:
        check_tagged(operation.records, operation.partition)
        if operation.records and operation.partition not in self._known:
            self._sign_up(operation.partition)
            self._known.add(operation.partition)

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Sign up, then write."""
        self._first(operation)
        return (yield from self._inner.upsert(operation))

    def replace(self, operation: Replace) -> Flow[int]:
        """Sign up, then write."""
        self._first(operation)
        return (yield from self._inner.replace(operation))


def signed_up(opened: Opened, sign_up: TenantCreation) -> Opened:
    """Return *opened* with an adapter whose tenants are signed up before their first write."""
    return replace(opened, adapter=_SignedUp(opened.adapter, sign_up))
