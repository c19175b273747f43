"""The layouts that are compared: the same rows on the same server, the same k, the same tenant's rows as the answer.

* naive: one table, row-level security, one HNSW index for all tenants, a btree on the tenant; pgvector's defaults.
* strict: the same table with `hnsw.iterative_scan = strict_order`, twice: as the planner likes it, and kept to the
  vector index (`enable_sort = off`), which is what the planner does where a tenant has many rows.
* wardowl: its own table as its `create_schema` makes it, its default iterative scan, its tenant authorizer.
* ours: `acl.scoped(principal).search`, small tenants in the shared partition, larger ones promoted.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import psycopg
from data import DIMENSION, Array, Corpus, name
from pgvector.psycopg import register_vector
from psycopg_pool import ConnectionPool
from server import Database

import vectoracl
from vectoracl import Chunk, testing

Search = Callable[[int, Array, int], list[int]]
Step = Callable[[str], None]
Progress = Callable[[int, int], None]
PROMOTE = 2000
_NOW = "NULLIF(current_setting('vectoracl.tenant', true), '')"


class Ours:
    """Our own handles, one a tenant."""

    def __init__(self, database: Database, dsn: str | None = None) -> None:
        self.database = database
        config = database.config() if dsn is None else database.config(dsn=dsn)
        self.acl = vectoracl.connect(config)
        self._handles: dict[int, Any] = {}

    def handle(self, tenant: int) -> Any:
        if tenant not in self._handles:
            self._handles[tenant] = self.acl.scoped(testing.principal("bench", name(tenant)))
        return self._handles[tenant]

    def load(self, corpus: Corpus, progress: Progress) -> None:
        """Write all rows, a document a call, in the order in which the documents arrive."""
        documents = corpus.documents()
        for number, (tenant, rows) in enumerate(documents):
            chunks = [
                Chunk(str(row), f"d{rows[0]}", f"chunk {row}", corpus.vectors[row], place)
                for place, row in enumerate(rows)
            ]
            self.handle(tenant).upsert(chunks)
            if number % 50 == 0:
                progress(number, len(documents))
        progress(len(documents), len(documents))

    def load_as(self, corpus: Corpus, document: str) -> None:
        """Write all rows of a corpus of one tenant as one document."""
        chunks = [Chunk(str(row), document, f"chunk {row}", one, row) for row, one in enumerate(corpus.vectors)]
        self.handle(int(corpus.tenant_of[0])).upsert(chunks)

    def promote(self, tenants: list[int], progress: Progress) -> None:
        operator = self.acl.operator()
        for number, tenant in enumerate(tenants):
            operator.promote(name(tenant))
            progress(number + 1, len(tenants))
        operator.close()

    def search(self, tenant: int, query: Array, k: int) -> list[int]:
        return [int(hit.id) for hit in self.handle(tenant).search(query, k)]

    def searcher(self, **options: Any) -> Search:
        return lambda tenant, query, k: [int(hit.id) for hit in self.handle(tenant).search(query, k, **options)]

    def close(self) -> None:
        self.acl.close()


def analyze(database: Database, *tables: str) -> None:
    """Give the planner what autovacuum would."""
    with database.superuser() as connection:
        for table in tables or ("vectoracl.chunks",):
            connection.execute(f"VACUUM ANALYZE {table}")


class Naive:
    """Row-level security over a shared HNSW index, by hand: BEGIN, the settings, the query, COMMIT, in one pipeline."""

    def __init__(self, database: Database, *settings: tuple[str, str]) -> None:
        self._settings = (("hnsw.ef_search", "40"), *settings)
        self._connection = psycopg.connect(database.dsn("runtime"), autocommit=True, prepare_threshold=None)
        register_vector(self._connection)

    @staticmethod
    def build(database: Database) -> None:
        """Copy the rows out of our table, so that both hold the same."""
        with database.superuser() as connection:
            connection.execute("CREATE SCHEMA naive")
            connection.execute(
                "CREATE TABLE naive.chunks (id bigint PRIMARY KEY, tenant_id text NOT NULL, content text NOT NULL, "
                f"embedding vector({DIMENSION}) NOT NULL)"
            )
            connection.execute(
                "INSERT INTO naive.chunks SELECT chunk_id::bigint, tenant_id, content, embedding FROM vectoracl.chunks"
            )
            connection.execute("CREATE INDEX shared_hnsw ON naive.chunks USING hnsw (embedding vector_cosine_ops)")
            connection.execute("CREATE INDEX ON naive.chunks (tenant_id)")
            connection.execute("ALTER TABLE naive.chunks ENABLE ROW LEVEL SECURITY")
            connection.execute("ALTER TABLE naive.chunks FORCE ROW LEVEL SECURITY")
            connection.execute(f"CREATE POLICY one ON naive.chunks USING (tenant_id = {_NOW})")
            connection.execute("GRANT USAGE ON SCHEMA naive TO vectoracl_runtime")
            connection.execute("GRANT SELECT ON naive.chunks TO vectoracl_runtime")
        analyze(database, "naive.chunks")

    def search(self, tenant: int, query: Array, k: int) -> list[int]:
        calls = ", ".join("set_config(%s, %s, true)" for _ in range(len(self._settings) + 1))
        settings = (("vectoracl.tenant", name(tenant)), *self._settings)
        connection = self._connection
        with connection.pipeline():
            connection.execute("BEGIN")
            connection.execute(f"SELECT {calls}", [part for pair in settings for part in pair])
            cursor = connection.cursor(binary=True).execute(
                "SELECT id, content, embedding <=> %s AS distance FROM naive.chunks ORDER BY embedding <=> %s LIMIT %s",
                (query, query, k),
            )
            connection.execute("COMMIT")
        return [row[0] for row in cursor.fetchall()]

    def close(self) -> None:
        self._connection.close()


class Wardowl:
    """wardowl's retriever over its own pgvector backend, with its own pool and its own table."""

    version = importlib.metadata.version("wardowl")

    def __init__(self, database: Database) -> None:
        from wardowl import PermissionedRetriever, Query, Subject
        from wardowl.authz import TenantAuthorizer
        from wardowl.backends.pgvector import PgVectorBackend

        self._subject, self._query = Subject, Query
        self._pool = ConnectionPool(database.dsn("bootstrap"), min_size=1, max_size=8, open=True)
        self.retriever = PermissionedRetriever(PgVectorBackend(self._pool), TenantAuthorizer())

    @staticmethod
    def build(database: Database) -> None:
        """Make the table by wardowl's own function and fill it with the same rows, as its `add` would."""
        from wardowl.backends.pgvector import create_schema

        with ConnectionPool(database.dsn("bootstrap"), min_size=1, max_size=1, open=True) as pool:
            create_schema(pool, DIMENSION, hnsw=False)
            with pool.connection() as connection:
                connection.execute(
                    "INSERT INTO wardowl_chunks (id, content, metadata, embedding) SELECT chunk_id, content, "
                    "jsonb_build_object('tenant', tenant_id), embedding FROM vectoracl.chunks"
                )
            create_schema(pool, DIMENSION)
        analyze(database, "wardowl_chunks")

    def search(self, tenant: int, query: Array, k: int) -> list[int]:
        subject = self._subject("bench", attributes={"tenant": name(tenant)})
        return [int(hit.id) for hit in self.retriever.retrieve(self._query(vector=query.tolist()), subject, k=k).hits]

    def close(self) -> None:
        self._pool.close()
