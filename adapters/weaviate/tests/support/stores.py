"""A server for the session, and collections on it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import vectoracl as v
from vectoracl.adapter_api.local_servers import start
from vectoracl.adapter_api.local_servers.start import MissingServerError, Running
from vectoracl_weaviate.conformance.harness import RBAC
from vectoracl_weaviate.demo_server import SPEC


@dataclass
class Made:
    """One collection: `config` for connect(), `ask` to look at it and to change it by hand."""

    config: dict[str, Any]
    running: Running
    collection: str
    http: httpx.Client

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code < 300, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    def schema(self, **changes: Any) -> dict[str, Any]:
        """Return the collection as it is configured, or change parts of that first."""
        path = f"/v1/schema/{self.collection}"
        if changes:
            self.ask("PUT", path, {**self.ask("GET", path), **changes})
        return self.ask("GET", path)

    def tenants(self) -> dict[str, str]:
        found = self.ask("GET", f"/v1/schema/{self.collection}/tenants")
        return {one["name"]: one["activityStatus"] for one in found}

    def with_(self, **settings: Any) -> dict[str, Any]:
        """Return the configuration with other settings of the store."""
        return {**self.config, "stores": {"main": {**self.config["stores"]["main"], **settings}}}

    @contextmanager
    def operator(self, **settings: Any) -> Iterator[Any]:
        with v.VectorACL(self.with_(**settings)) as acl:
            operator = acl.operator()
            try:
                yield operator
            finally:
                operator.close()


def started(environment: Mapping[str, str] | None = None, *, own: bool = False, unguarded: bool = False) -> Running:
    try:
        return start.start(SPEC, environment=environment, own=own, unguarded=unguarded)
    except MissingServerError as error:
        start.missing(error, pytest.skip, pytest.fail)
        raise


def made(
    running: Running,
    *,
    key: str | None = None,
    provision: bool = True,
    metadata: Mapping[str, str] | None = None,
    **more: Any,
) -> Made:
    """Make a collection; *key* is the one to look at it with, where the configuration has others in *more*."""
    collection = f"Test{secrets.token_hex(6)}"
    if key is None:
        key = running.key
        more = {**({"api_key": key} if key else {}), **more}
    own = {"adapter": "weaviate", "url": running.url, "grpc_port": running.ports.get("grpc", 50_051),
           "collection": collection, "dimension": 8, **more}  # fmt: skip
    config = {"version": 1, "stores": {"main": {**own, "metadata": dict(metadata or {})}}}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    one = Made(config, running, collection, httpx.Client(base_url=running.url, headers=headers, timeout=60))
    if provision:
        with one.operator() as operator:
            operator.provision()
    return one


@pytest.fixture(scope="session")
def server() -> Iterator[Running]:
    """A server without roles."""
    with started() as running:
        yield running


@pytest.fixture(scope="session")
def keyed_server() -> Iterator[Running]:
    """A server with roles and keys."""
    with started(RBAC, own=True) as running:
        yield running


@pytest.fixture
def own_server() -> Iterator[Running]:
    """A server that the test may end."""
    with started(own=True) as running:
        yield running


@pytest.fixture
def stores(server: Running) -> Iterator[Callable[..., Made]]:
    """A factory of collections."""
    kept: list[Made] = []

    def make(**settings: Any) -> Made:
        kept.append(made(server, **settings))
        return kept[-1]

    yield make
    for one in kept:
        one.http.delete(f"/v1/schema/{one.collection}")
        one.http.close()


@pytest.fixture
def store(stores: Callable[..., Made]) -> Made:
    """A collection with two fields."""
    return stores(metadata={"year": "number", "lang": "keyword"})


@pytest.fixture
def keyed_store(keyed_server: Running, tmp_path: Path) -> Iterator[Made]:
    """A collection with a key for each tenant; the process's own key may read its configuration alone."""
    one = made(
        keyed_server,
        key=keyed_server.key,
        metadata={"year": "number"},
        operator_key=keyed_server.key,
        tenant_keys=str(tmp_path / "keys.json"),
    )
    user = one.collection.lower()
    rights = [{"action": "read_collections", "collections": {"collection": one.collection}}]
    one.ask("POST", "/v1/authz/roles", {"name": user, "permissions": rights})
    key = one.ask("POST", f"/v1/users/db/{user}", {})["apikey"]
    one.ask("POST", f"/v1/authz/users/{user}/assign", {"roles": [user], "userType": "db"})
    one.config = one.with_(api_key=key)
    yield one
    with one.operator() as operator:
        for name in one.tenants():
            operator.remove(name[2:])
    one.http.delete(f"/v1/users/db/{user}")
    one.http.delete(f"/v1/authz/roles/{user}")
    one.http.delete(f"/v1/schema/{one.collection}")
    one.http.close()
