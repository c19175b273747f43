"""A scoped search beside a bare, unscoped query, through a proxy that adds a round-trip time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
from data import Array, name
from layouts import Ours
from measure import Timing, interleaved, ratio
from pgvector.psycopg import register_vector
from proxy import proxy
from server import Database

_SQL = (
    "SELECT chunk_id, document, content, metadata::text, embedding <=> %s AS distance FROM vectoracl.chunks "
    "WHERE tenant_id = %s ORDER BY embedding <=> %s LIMIT %s"
)


class Bare:
    """The query alone: no row-level security (a superuser), no transaction, no pool, one round trip."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        register_vector(self.connection)

    def search(self, tenant: int, query: Array, k: int) -> list[Any]:
        return self.connection.execute(_SQL, (query, name(tenant), query, k), binary=True).fetchall()


class Interactive:
    """The scope as it is mostly set by hand: BEGIN, set_config, the query and COMMIT, one after the other."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
        register_vector(self.connection)

    def search(self, tenant: int, query: Array, k: int) -> list[Any]:
        with self.connection.transaction():
            self.connection.execute("SELECT set_config('vectoracl.tenant', %s, true)", (name(tenant),))
            return self.connection.execute(_SQL, (query, name(tenant), query, k), binary=True).fetchall()


def measure(
    database: Database, tenant: int, queries: Array, rounds: int, round_trips: tuple[float, ...]
) -> dict[float, dict[str, Any]]:
    """Return, for each round-trip time in seconds, the timings and their ratios to the bare query."""
    found: dict[float, dict[str, Any]] = {}
    for round_trip in round_trips:
        with ExitStack() as stack:
            dsn: Callable[[str], str]
            if round_trip:
                port = stack.enter_context(proxy(database.server.port, round_trip))

                def dsn(role: str, port: int = port) -> str:
                    return database.dsn(role, tcp=True).replace(f":{database.server.port}/", f":{port}/")

            else:
                dsn = database.dsn
            bare, control, interactive = Bare(dsn("bootstrap")), Bare(dsn("bootstrap")), Interactive(dsn("runtime"))
            ours = Ours(database, dsn("runtime"))
            stack.callback(ours.close)
            for one in (bare, control, interactive):
                stack.callback(one.connection.close)
            searches = {
                "bare": bare.search,
                "bare (A/A control)": control.search,
                "scoped": ours.search,
                "four round trips": interactive.search,
            }
            calls = {
                name: (lambda number, search=search: search(tenant, queries[number % len(queries)], 10))
                for name, search in searches.items()
            }
            plain: dict[str, Timing] = interleaved(calls, rounds)
            select = interleaved({"SELECT 1": lambda _, one=bare: one.connection.execute("SELECT 1")}, min(rounds, 50))
            found[round_trip] = {
                "ms": {name: timing.p50 for name, timing in plain.items()},
                "ratio": {name: ratio(timing, plain["bare"]) for name, timing in plain.items() if name != "bare"},
                "select_1_ms": select["SELECT 1"].p50,
            }
    return found
