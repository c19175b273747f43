"""Databases that are provisioned for a configuration: the fixtures `provisioned` and `store`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.embedded.server import EmbeddedServer
from vectoracl_pgvector.names import Names

from pgvector_support.databases import new_database

REGISTRY_ROLE = "vectoracl_registry"
FIELDS = {
    "year": "number",
    "lang": "keyword",
    "ok": "boolean",
    "when": "datetime",
    "tags": "keyword[]",
    "nums": "number[]",
}


@dataclass(frozen=True)
class Store:
    """A provisioned database: its configuration for `vectoracl.connect`, its names, and connection strings."""

    config: dict[str, Any]
    pg: PgvectorConfig
    names: Names
    bootstrap: str
    owner: str
    runtime: str

    def changed(self, **settings: Any) -> dict[str, Any]:
        """Return the configuration with other settings of the store."""
        return {**self.config, "stores": {"main": {**self.config["stores"]["main"], **settings}}}


def registry_urls(store: Store) -> dict[str, str]:
    """Return the URLs of a registry in the store's own database, with a separate role, which is made here."""
    database = psycopg.conninfo.conninfo_to_dict(store.bootstrap)["dbname"]
    with psycopg.connect(store.bootstrap, autocommit=True) as connection:
        connection.execute(
            f"DO $$ BEGIN CREATE ROLE {REGISTRY_ROLE} LOGIN NOINHERIT PASSWORD '{REGISTRY_ROLE}'; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        connection.execute(f'GRANT CONNECT ON DATABASE "{database}" TO {REGISTRY_ROLE}')
    url, owner = (one.replace("postgresql://", "postgresql+psycopg://", 1) for one in (store.runtime, store.owner))
    return {"url": re.sub("//[^@]*@", f"//{REGISTRY_ROLE}:{REGISTRY_ROLE}@", url), "owner_url": owner}


@pytest.fixture(scope="module")
def provisioned(server: EmbeddedServer) -> Iterator[Callable[..., Store]]:
    """A factory of provisioned databases, dropped at the end of the module."""
    with ExitStack() as stack:

        def make(metadata: Mapping[str, str] | None = None, **settings: Any) -> Store:
            database = stack.enter_context(new_database(server, f"s_{secrets.token_hex(6)}"))
            given = {"dsn": database.runtime, "owner_dsn": database.owner, "dimension": 8, **settings}
            pg = PgvectorConfig(**given)
            with psycopg.connect(database.owner) as owner:
                for statement in schema.migrations(pg):
                    owner.execute(statement)
            main = {"adapter": "pgvector", "metadata": dict(FIELDS if metadata is None else metadata), **given}
            config = {"version": 1, "stores": {"main": main}}
            return Store(config, pg, Names.of(pg), database.bootstrap, database.owner, database.runtime)

        yield make


@pytest.fixture
def store(provisioned: Callable[..., Store]) -> Store:
    """A fresh provisioned store of 8 dimensions, cosine."""
    return provisioned()
