"""A store for a test: the client's local mode, or a collection on the server that VECTORACL_QDRANT_URL names."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from qdrant_client import QdrantClient

import vectoracl as v
from vectoracl_qdrant import local

URL = os.environ.get("VECTORACL_QDRANT_URL")
KEY = os.environ.get("VECTORACL_QDRANT_API_KEY")
NEEDS_SERVER = pytest.mark.skipif(not URL, reason="not run: only a server can show it; set VECTORACL_QDRANT_URL")


@dataclass
class Provisioned:
    """One provisioned collection: `config` for connect(), `client` to look at it and to change it by hand."""

    config: dict[str, Any]
    client: QdrantClient
    collection: str
    close: Callable[[], None] = field(default=lambda: None)


def make(*, provision: bool = True, metadata: Mapping[str, str] | None = None, **settings: Any) -> Provisioned:
    collection = f"test_{secrets.token_hex(6)}"
    own: dict[str, Any] = {"adapter": "qdrant", "collection": collection, "dimension": 8, **settings}
    if URL:
        own["url"] = URL
        if KEY:
            own["api_key"] = KEY
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # a key over http, in a test
            client = QdrantClient(url=URL, api_key=KEY, check_compatibility=False)

        def close() -> None:
            client.delete_collection(collection)
            client.close()
    else:
        own |= {"memory": True, "name": collection}
        shared = local.acquire(f"memory:{collection}")
        client, close = shared.client, shared.release
    config = {"version": 1, "stores": {"main": {**own, "metadata": dict(metadata or {})}}}
    if provision:
        with v.VectorACL(config) as acl:
            operator = acl.operator()
            operator.provision()
            operator.close()
    return Provisioned(config, client, collection, close)


@pytest.fixture(scope="module")
def provisioned() -> Iterator[Callable[..., Provisioned]]:
    made: list[Provisioned] = []

    def one(**settings: Any) -> Provisioned:
        made.append(make(**settings))
        return made[-1]

    yield one
    for one_made in made:
        one_made.close()


@pytest.fixture
def store() -> Iterator[Provisioned]:
    made = make(metadata={"year": "number", "lang": "keyword"})
    yield made
    made.close()
