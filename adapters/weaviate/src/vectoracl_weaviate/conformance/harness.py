"""The harness of the Weaviate adapter: a collection each, on a real server, with and without a key for each tenant.

The server is found or started by `vectoracl.adapter_api.local_servers.start`; the collections are those of `store`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import httpx

from vectoracl.adapter_api.local_servers import start
from vectoracl.adapter_api.local_servers.start import Running
from vectoracl_conformance.harness import Harness, HarnessError, Mutant, Needs, Server, Store
from vectoracl_weaviate.conformance.store import KeyedStore, WeaviateStore
from vectoracl_weaviate.demo_server import SPEC

RBAC = {
    "AUTHORIZATION_RBAC_ENABLED": "true",
    "AUTHORIZATION_RBAC_ROOT_USERS": "root",
    "AUTHENTICATION_DB_USERS_ENABLED": "true",
}
"""Settings that turn on roles, along with `SPEC`'s own environment: the server's key is that of the root user then."""


class WeaviateHarness(Harness):
    """A real Weaviate."""

    adapter = "weaviate"
    store = "Weaviate"
    metrics = ("cosine", "inner", "l2")
    environment: Mapping[str, str] = {}
    kind: type[WeaviateStore] = WeaviateStore

    def __init__(self) -> None:
        self._running: Running | None = None
        self._http: httpx.Client | None = None

    def running(self) -> Running:
        """Return the server, found or started. Raises: MissingServerError."""
        if self._running is None:
            own = bool(self.environment)
            self._running = start.start(SPEC, environment=self.environment, own=own, unguarded=True)
            key = self._running.key
            headers = {"authorization": f"Bearer {key}"} if key else {}
            self._http = httpx.Client(base_url=self._running.url, headers=headers, timeout=60, trust_env=False)
        return self._running

    def server(self) -> Server:
        """Ask the server its version. Raises: HarnessError or MissingServerError."""
        running = self.running()
        assert self._http is not None
        try:
            version = self._http.get("/v1/meta").json()["version"]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise HarnessError(f"Weaviate cannot be reached: {type(error).__name__}.") from None
        return Server("real", f"Weaviate {version} ({running.used})")

    def fresh(self, needs: Needs) -> Store:
        """Make a collection."""
        running = self.running()
        assert self._http is not None
        return self.kind(needs, running, self._http)

    def mutants(self) -> Sequence[Mutant]:
        """Return the faults that only Weaviate can have."""
        from vectoracl_weaviate.conformance.mutants import MUTANTS

        return MUTANTS

    def close(self) -> None:
        """Stop the server, if it was started for this."""
        if self._http is not None:
            self._http.close()
            self._http = None
        if self._running is not None:
            self._running.close()
            self._running = None


class KeyedHarness(WeaviateHarness):
    """A real Weaviate with roles, and a key for each tenant: `vectoracl_weaviate.conformance.harness:rbac`."""

    environment = RBAC
    kind = KeyedStore


harness = WeaviateHarness
rbac = KeyedHarness
