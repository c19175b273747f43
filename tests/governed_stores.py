"""Stores under a registry, for the tests of governance: each kind of server is started once a session."""

from __future__ import annotations

import secrets
from contextlib import contextmanager

import httpx
import pytest

import vectoracl as v
from tests.test_governance import BOSS, Clock, config, created
from vectoracl import Entry
from vectoracl.adapter_api.local_servers import start
from vectoracl.client.registry_setup import provision_registry


@pytest.fixture
def settings(request):
    """Return a function from a kind of store to the settings of a new one; all are removed at the end."""
    ends = []

    def make(kind, dimension=3):
        found, end = globals()[f"_{kind}"](request, dimension)
        ends.append(end)
        return {"adapter": kind, "dimension": dimension, "metadata": {"lang": "keyword", "year": "number"}, **found}

    yield make
    for end in ends:
        end()


def _qdrant(*_):
    from vectoracl_qdrant import local

    name = f"test_{secrets.token_hex(6)}"
    shared = local.acquire(f"memory:{name}")
    return {"memory": True, "name": name, "collection": name}, shared.release


def _weaviate(request, _):
    running = request.getfixturevalue("weaviate_server")
    name = f"Test{secrets.token_hex(6)}"
    port = running.ports.get("grpc", 50_051)

    def end():
        headers = {"authorization": f"Bearer {running.key}"} if running.key else {}
        httpx.delete(f"{running.url}/v1/schema/{name}", headers=headers, timeout=60)

    settings = {"url": running.url, "grpc_port": port, "collection": name}
    return {**settings, "api_key": running.key} if running.key else settings, end


def _pinecone(request, dimension):
    needle, name = request.getfixturevalue("needle"), f"test-{secrets.token_hex(6)}"
    needle.create(name, dimension, "dotproduct")
    settings = {"host": needle.host(name), "api_key": needle.key, "negation": "nin", "metric": "inner"}
    return {**settings, "kind": "vector", "lexical": True}, lambda: needle.drop(name)


@pytest.fixture(scope="session")
def needle():
    from vectoracl_pinecone.conformance.needledb_server import Needle

    try:
        made = Needle()
    except start.MissingServerError as error:
        start.missing(error, pytest.skip, pytest.fail)
        raise
    yield made
    made.close()


@pytest.fixture(scope="session")
def weaviate_server():
    from vectoracl_weaviate.demo_server import SPEC

    with server(SPEC) as running:
        yield running


@contextmanager
def server(spec):
    try:
        running = start.start(spec)
    except start.MissingServerError as error:
        start.missing(error, pytest.skip, pytest.fail)
        raise
    with running:
        yield running


def governed(tmp_path, store, **registry):
    """Return the configuration of a registry over the store of these settings."""
    given = config(tmp_path, single_host=True, **registry)
    return created({**given, "stores": {"main": store}})


def provision(given):
    """Create the store, and bring it under the registry if the configuration has one; return what was done."""
    with v.VectorACL(given) as acl:
        operator = acl.operator(reason="a test of governance")
        lines = operator.provision()
        operator.close()
        return lines + (provision_registry(acl, ["main"]) if "registry" in given else [])


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def acl(tmp_path, clock, settings, kind):
    given = governed(tmp_path, settings(kind))
    provision(given)
    with v.connect(given) as acl:
        acl.registry.database._clock = clock
        govern = acl.governance(BOSS)
        govern.define_label("open", entries=[Entry("tenant", write=True)])
        govern.define_label("hr", entries=[Entry("group:hr", write=True)])
        yield acl


@pytest.fixture
def govern(acl):
    return acl.governance(BOSS)


__all__ = ["acl", "clock", "govern", "governed", "httpx", "needle", "provision", "settings", "weaviate_server"]
