"""PostgreSQL's own counters: calls of the extension's distance functions, index searches, rows read.

A session's counts are written when it ends, so every reading waits until all other sessions have ended.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import psycopg
from psycopg import sql

from vectoracl_conformance.harness import HarnessError
from vectoracl_pgvector.requests import Statement, Transaction, VectorParam

_INDEXES = (
    "SELECT s.indexrelid, s.relid, s.indexrelname, s.idx_scan FROM pg_stat_user_indexes AS s "
    "JOIN pg_class AS i ON i.oid = s.indexrelid JOIN pg_am AS a ON a.oid = i.relam "
    "WHERE a.amname IN ('hnsw', 'ivfflat') AND s.schemaname = 'vectoracl'"
)
_PARTS = (
    "SELECT s.relid, s.relname, s.seq_tup_read + coalesce(s.idx_tup_fetch, 0) FROM pg_stat_user_tables AS s "
    "JOIN pg_inherits AS h ON h.inhrelid = s.relid WHERE h.inhparent = 'vectoracl.chunks'::regclass"
)


class Measured(Protocol):
    """The interface of the store that the counters need."""

    config: Mapping[str, Any]

    def superuser(self, name: str | None = None) -> Any:
        """Return a context manager with a superuser's connection."""
        ...

    def promote(self, tenant: str) -> None:
        """Move a tenant, as the operator."""
        ...

    def alone(self, connection: psycopg.Connection[Any]) -> None:
        """Wait until no other session is in the database."""
        ...


class PgEngine:
    """The counters of one database, which needs `track_functions = all`.

    Exact scans, as for tenants of the shared partition, count the calls of distance functions. An HNSW index calls them
    uncounted, so the searches of the index are counted instead.
    """

    def __init__(self, store: Measured) -> None:
        self._store = store
        self._tenants: dict[int, frozenset[str]] | None = None

    def scored(self) -> int:
        """Return the number of calls so far, after every session has ended."""
        with self._store.superuser() as connection:
            self._store.alone(connection)
            row = connection.execute(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_user_functions AS f JOIN pg_depend AS d ON "
                "d.objid = f.funcid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e' JOIN pg_extension AS e ON "
                "e.oid = d.refobjid AND e.extname = 'vector' JOIN pg_proc AS p ON p.oid = f.funcid "
                "WHERE p.prorettype = 'float8'::regtype"
            ).fetchone()
        return int(row[0]) if row else 0

    def unscoped(self, vector: Sequence[float], k: int) -> int:
        """Rank every row as a superuser, in a session that has ended when this returns."""
        with self._store.superuser() as connection:
            rows = connection.execute(
                "SELECT 1 FROM vectoracl.chunks ORDER BY embedding <=> %s::vector LIMIT %s", (str(list(vector)), k)
            ).fetchall()
        return len(rows)

    def give_own_part(self, tenant: str) -> None:
        """Promote *tenant* to its own partition with an HNSW index, and make the planner prefer the index.

        Without that it would choose the exact plan for the few rows of a test.
        """
        self._store.promote(tenant)
        with self._store.superuser() as connection:
            (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
            connection.execute(sql.SQL("ALTER DATABASE {} SET enable_sort = off").format(sql.Identifier(name)))
        self._tenants = None

    def _held(self) -> dict[int, frozenset[str]]:
        """Return the tenants in each partition; read only once, since reads are counted."""
        if self._tenants is None:
            with self._store.superuser() as connection:
                rows = connection.execute(
                    "SELECT tableoid::oid::int8, array_agg(DISTINCT tenant_id) FROM vectoracl.chunks GROUP BY 1"
                ).fetchall()
            self._tenants = {relation: frozenset(tenants) for relation, tenants in rows}
        return self._tenants

    def others(self, tenant: str) -> Mapping[str, int]:
        """Return searches of indexes over others' rows, and rows read in partitions without the tenant's rows."""
        held = self._held()
        with self._store.superuser() as connection:
            self._store.alone(connection)
            indexes = connection.execute(_INDEXES).fetchall()
            parts = connection.execute(_PARTS).fetchall()
        searches = {
            f"searches of {name}": int(count or 0)
            for _, relation, name, count in indexes
            if held.get(relation, frozenset()) - {tenant}
        }
        return searches | {
            f"rows of {name}": int(count or 0)
            for relation, name, count in parts
            if held.get(relation) and tenant not in held[relation]
        }

    def own_index(self, tenant: str) -> int:
        """Return the searches of the vector indexes that cover this tenant's rows alone."""
        held = self._held()
        with self._store.superuser() as connection:
            self._store.alone(connection)
            indexes = connection.execute(_INDEXES).fetchall()
        mine = frozenset({tenant})
        return sum(int(count or 0) for _, relation, _, count in indexes if held.get(relation) == mine)

    def sweep(self, vector: Sequence[float]) -> None:
        """Search each vector index and read each partition, as a superuser."""
        with self._store.superuser() as connection:
            for (name,) in connection.execute("SELECT relname FROM (" + _PARTS + ") AS parts").fetchall():
                table = sql.Identifier("vectoracl", name)
                connection.execute(sql.SQL("SELECT count(*) FROM {}").format(table))
                with connection.transaction():
                    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
                    ranked = sql.SQL("SELECT 1 FROM {} ORDER BY embedding <=> %s::vector LIMIT 5").format(table)
                    connection.execute(ranked, (str(list(vector)),))

    @contextmanager
    def lock(self, tenant: str) -> Iterator[None]:
        """Lock the partition of *tenant*, which has to be its own, against all other sessions."""
        (relation,) = [relation for relation, tenants in self._held().items() if tenants == {tenant}]
        with self._store.superuser() as connection, connection.transaction():
            row = connection.execute("SELECT %s::int8::oid::regclass::text", (relation,)).fetchone()
            assert row is not None
            connection.execute(f"LOCK TABLE ONLY {row[0]} IN ACCESS EXCLUSIVE MODE")
            yield

    def explain(self, requests: Sequence[Any]) -> str:
        """Replay the searches among *requests* under EXPLAIN, as the runtime role with the same parameters."""
        plans = []
        with psycopg.connect(self._store.config["dsn"]) as connection:
            for request in requests:
                if not isinstance(request, Transaction) or not request.partition:
                    continue
                for statement in request.statements:
                    if " AS distance" in statement.sql:
                        plans.append(self._plan(connection, request, statement))
        return "; then ".join(plans) or "no ranking was seen"

    def _plan(self, connection: psycopg.Connection[Any], request: Transaction, statement: Statement) -> str:
        params = [
            str([float(one) for one in value.vector]) if isinstance(value, VectorParam) else value
            for value in statement.params
        ]
        try:
            with connection.transaction():
                for name, value in request.settings:
                    connection.execute("SELECT set_config(%s, %s, true)", (name, value))
                row = connection.execute(
                    "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement.sql,
                    params,
                ).fetchone()
        except psycopg.Error as error:
            return f"it could not be replayed ({type(error).__name__})"
        plan = row[0] if row else []
        if isinstance(plan, str):
            plan = json.loads(plan)
        root = plan[0]["Plan"]
        blocks = root.get("Shared Hit Blocks", 0) + root.get("Shared Read Blocks", 0)
        return f"{' < '.join(_nodes(root))}, {blocks} blocks"


def _nodes(node: Mapping[str, Any]) -> list[str]:
    """Return the nodes of a plan, outermost first, each with the relation or index that it reads."""
    what = node.get("Index Name") or node.get("Relation Name")
    removed = node.get("Rows Removed by Filter", 0)
    text = node["Node Type"] + (f" on {what}" if what else "") + (f" ({removed} rows removed)" if removed else "")
    return [text, *[one for child in node.get("Plans", ()) for one in _nodes(child)]]


def wait_alone(connection: psycopg.Connection[Any], *, patience: float = 60.0) -> None:
    """Wait until *connection* is the database's only session.

    Raises:
        HarnessError: Other sessions stay. Their counts are not written yet, and would be attributed to another check.
    """
    until = time.monotonic() + patience
    while time.monotonic() < until:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        ).fetchone()
        if row == (0,):
            return
        time.sleep(0.01)
    raise HarnessError(f"Other sessions were still open after {patience:g} seconds, so nothing can be counted.")
