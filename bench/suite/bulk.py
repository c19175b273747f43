"""Bulk writes beside the raw client's ways into the same table, as the same role, with the same result.

Row-level security refuses COPY into the table, so the raw ways of the runtime role are psycopg's `executemany` and one
INSERT from arrays; the fastest is what ours is held to. COPY in binary form into a temporary table and one INSERT from
there needs a privilege that the role has not in a database of ours (TEMPORARY); it is measured beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import psycopg
from data import DIMENSION
from measure import Timing, interleaved
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb
from server import Database

import vectoracl
from vectoracl import Chunk, testing
from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.requests import VectorsParam

_COLUMNS = (
    "tenant_id, document, generation, chunk_id, label, rev, expires, producer, path, written_at, position, content, "
    "metadata, embedding"
)
_UPDATE = ", ".join(
    f"{one} = EXCLUDED.{one}"
    for one in (
        "label",
        "rev",
        "expires",
        "producer",
        "path",
        "written_at",
        "position",
        "content",
        "metadata",
        "embedding",
    )
)
_CONFLICT = f"ON CONFLICT (tenant_id, document, generation, chunk_id) DO UPDATE SET {_UPDATE}"
_FIXED = "'default', 0, 253402300799, 'bench', 'raw', 0"
_TEXT = "It is the scope of whoever asks that decides, and it does so before the store ranks anything at all. " * 5


class Rows:
    """One batch of new rows, as an application has them."""

    def __init__(self, count: int, number: int, who: str, rng: np.random.Generator) -> None:
        self.documents = [f"{who}{number}-{place // 20}" for place in range(count)]
        self.chunks = [f"c{place % 20}" for place in range(count)]
        self.positions = [place % 20 for place in range(count)]
        self.texts = [f"{place} {_TEXT}" for place in range(count)]
        self.metadata = [{"year": 2000 + place % 25, "source": "bench"} for place in range(count)]
        self.matrix = rng.normal(size=(count, DIMENSION)).astype(np.float32)

    def as_chunks(self) -> list[Chunk]:
        parts = zip(self.chunks, self.documents, self.texts, self.matrix, self.positions, self.metadata, strict=True)
        return [Chunk(*one) for one in parts]


def _many(connection: psycopg.Connection[Any], tenant: str, rows: Rows) -> None:
    sql = f"INSERT INTO vectoracl.chunks ({_COLUMNS}) VALUES (%s, %s, 0, %s, {_FIXED}, %s, %s, %s, %s) {_CONFLICT}"
    parts = zip(rows.documents, rows.chunks, rows.positions, rows.texts, rows.metadata, rows.matrix, strict=True)
    values = [(tenant, d, c, p, t, orjson.dumps(m).decode(), v) for d, c, p, t, m, v in parts]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('vectoracl.tenant', %s, true)", (tenant,))
        cursor.executemany(sql, values)


def _copy(connection: psycopg.Connection[Any], tenant: str, rows: Rows) -> None:
    parts = zip(rows.documents, rows.chunks, rows.positions, rows.texts, rows.metadata, rows.matrix, strict=True)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('vectoracl.tenant', %s, true)", (tenant,))
        cursor.execute(
            f"CREATE TEMP TABLE fresh (d text, c text, p int4, t text, m jsonb, v vector({DIMENSION})) ON COMMIT DROP"
        )
        with cursor.copy("COPY fresh FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["text", "text", "int4", "text", "jsonb", "vector"])
            for d, c, p, t, m, v in parts:
                copy.write_row((d, c, p, t, Jsonb(m, orjson.dumps), v))
        cursor.execute(
            f"INSERT INTO vectoracl.chunks ({_COLUMNS}) SELECT %s, d, 0, c, {_FIXED}, p, t, m, v FROM fresh "
            f"{_CONFLICT}",
            (tenant,),
        )


def _arrays(connection: psycopg.Connection[Any], tenant: str, rows: Rows) -> None:
    sql = (
        f"INSERT INTO vectoracl.chunks ({_COLUMNS}) SELECT %s, d, 0, c, {_FIXED}, p, t, m, v FROM "
        f"unnest(%s::text[], %s::text[], %s::int4[], %s::text[], %s::jsonb[], %s::vector[]) AS new(d, c, p, t, m, v) "
        f"{_CONFLICT}"
    )
    metadata = [orjson.dumps(one).decode() for one in rows.metadata]
    with connection.transaction(), connection.cursor(binary=True) as cursor:
        cursor.execute("SELECT set_config('vectoracl.tenant', %s, true)", (tenant,))
        arrays = (rows.documents, rows.chunks, rows.positions, rows.texts, metadata, VectorsParam(rows.matrix))
        cursor.execute(sql, (tenant, *arrays))


def measure(database: Database, rounds: int, size: int) -> dict[str, Timing]:
    """Return the milliseconds of writing *size* new rows, for ours and each raw way; two of ours are an A/A control."""
    rng = np.random.default_rng(5)
    calls: dict[str, Callable[[int], Any]] = {}
    acl = vectoracl.connect(database.config())
    with database.superuser() as connection:  # for that one way; a runtime role has no need of it
        connection.execute(f'GRANT TEMPORARY ON DATABASE "{database.name}" TO vectoracl_runtime')
    raw = psycopg.connect(database.dsn("runtime"), autocommit=True)
    register_vector(raw)
    oid = raw.execute("SELECT 'vector'::regtype::oid").fetchone()
    assert oid is not None
    adapt(raw, oid[0])
    batches: dict[str, list[Any]] = {}

    def add(name: str, tenant: str, write: Callable[[Any], Any], prepare: Callable[[Rows], Any]) -> None:
        queue = batches.setdefault(name, [])

        def call(_: int) -> None:
            write(queue.pop())

        queue.extend(prepare(Rows(size, number, tenant, rng)) for number in range(rounds + 1))
        calls[name] = call

    for name, tenant in (("ours", "bulk-a"), ("ours (A/A control)", "bulk-b")):
        docs = acl.scoped(testing.principal("bench", tenant))
        add(name, tenant, docs.upsert, Rows.as_chunks)
    for name, tenant, way in (
        ("raw: executemany", "bulk-c", _many),
        ("not permitted to the role: COPY to a temporary table", "bulk-d", _copy),
        ("raw: one INSERT from arrays", "bulk-e", _arrays),
    ):
        add(name, tenant, lambda rows, tenant=tenant, way=way: way(raw, tenant, rows), lambda rows: rows)
    try:
        found = interleaved(calls, rounds, warm=1)
    finally:
        raw.close()
        acl.close()
        with database.superuser() as connection:
            connection.execute("DELETE FROM vectoracl.chunks WHERE tenant_id LIKE 'bulk-%'")
            connection.execute("VACUUM vectoracl.chunks")
    return found
