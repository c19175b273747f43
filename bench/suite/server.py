"""The server that everything is measured on: PostgreSQL with pgvector, started for this run and thrown away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from data import DIMENSION

import vectoracl
from vectoracl_pgvector.embedded import server as embedded
from vectoracl_pgvector.embedded.roles import create_database

SETTINGS = {
    "shared_buffers": "1GB",
    "maintenance_work_mem": "1GB",
    "max_wal_size": "8GB",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "jit": "off",
}


@dataclass
class Database:
    """One database of the run."""

    server: embedded.EmbeddedServer
    name: str

    def dsn(self, role: str, *, tcp: bool = False) -> str:
        return self.server.dsn(role, self.name, tcp=tcp)  # type: ignore[arg-type]

    def superuser(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn("bootstrap"), autocommit=True)

    def config(self, **more: Any) -> dict[str, Any]:
        store = {
            "adapter": "pgvector",
            "dsn": self.dsn("runtime"),
            "owner_dsn": self.dsn("owner"),
            "dimension": DIMENSION,
            "metadata": {"year": "number"},
        }
        return {"version": 1, "stores": {"main": store | more}}

    def provision(self) -> None:
        """Make the schema, by the way that users take."""
        with vectoracl.client.connect.VectorACL(self.config()) as acl:
            operator = acl.operator()
            operator.provision()
            operator.close()


@contextmanager
def server() -> Iterator[embedded.EmbeddedServer]:
    """Start a server in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="vectoracl-bench-", ignore_cleanup_errors=True) as folder:
        one = embedded.start(Path(folder) / "pg", settings=SETTINGS, tcp=True)
        try:
            yield one
        finally:
            embedded.stop(one.data, mode="immediate")


def database(one: embedded.EmbeddedServer, name: str) -> Database:
    """Make and provision a database."""
    made = bare(one, name)
    made.provision()
    return made


def bare(one: embedded.EmbeddedServer, name: str) -> Database:
    """Make a database without tables."""
    create_database(lambda dbname: one.dsn("bootstrap", dbname), name)
    return Database(one, name)


def versions(one: Database) -> dict[str, str]:
    """Return the versions of PostgreSQL and pgvector."""
    with one.superuser() as connection:
        row = connection.execute(
            "SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector')"
        ).fetchone()
    assert row is not None
    return {"postgresql": row[0], "pgvector": row[1]}
