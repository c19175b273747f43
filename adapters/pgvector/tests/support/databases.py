"""Fresh databases on an embedded server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from vectoracl_pgvector.embedded.roles import create_database
from vectoracl_pgvector.embedded.server import EmbeddedServer


@dataclass(frozen=True, slots=True)
class Database:
    """One database: its server, its name and a connection URI for each role."""

    server: EmbeddedServer
    name: str

    @property
    def bootstrap(self) -> str:
        return self.server.dsn("bootstrap", self.name)

    @property
    def owner(self) -> str:
        return self.server.dsn("owner", self.name)

    @property
    def runtime(self) -> str:
        return self.server.dsn("runtime", self.name)


@contextmanager
def new_database(server: EmbeddedServer, name: str) -> Iterator[Database]:
    """Create database *name*, empty but for the extension and the schema `vectoracl`; drop it at the end."""
    create_database(lambda dbname: server.dsn("bootstrap", dbname), name)
    try:
        yield Database(server, name)
    finally:
        with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
