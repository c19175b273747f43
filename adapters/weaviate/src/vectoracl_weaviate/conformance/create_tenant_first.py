"""With a key for each tenant no key of the process can make one: an operator signs a tenant up before its first write.

Tenants are created by the harness, in its own process.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
