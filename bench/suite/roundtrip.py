"""A scoped search beside a bare, unscoped query: through a proxy that adds a round-trip time, and by tenants' sizes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import psycopg
from data import DIMENSION, Array, Corpus, name
from layouts import Ours, analyze
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


SIZES = (50, 500, 2_000)
_OTHERS, _ROWS_OF_ANOTHER = 150, 100


def at_sizes(database: Database, rounds: int) -> dict[str, dict[str, Any]]:
    """Return the timings on a local socket for tenants of SIZES chunks, in a shared partition with 15,000 others."""
    rng = np.random.default_rng(5)
    counts = [*SIZES, *[_ROWS_OF_ANOTHER] * _OTHERS]
    vectors = rng.normal(size=(sum(counts), DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    corpus = Corpus(vectors, np.repeat(np.arange(len(counts), dtype=np.int32), counts), {}, vectors[:1], 5)
    queries = rng.normal(size=(50, DIMENSION)).astype(np.float32)
    ours = Ours(database)
    ours.load(corpus, lambda *_: None)
    analyze(database)
    bare, control = Bare(database.dsn("bootstrap")), Bare(database.dsn("bootstrap"))
    found: dict[str, dict[str, Any]] = {}
    for tenant, size in enumerate(SIZES):
        searches = {"bare": bare.search, "bare (A/A control)": control.search, "scoped": ours.search}
        calls = {
            title: (lambda number, search=search, tenant=tenant: search(tenant, queries[number % len(queries)], 10))
            for title, search in searches.items()
        }
        timings = interleaved(calls, rounds, warm=20)
        found[str(size)] = {
            "ms": {title: timing.p50 for title, timing in timings.items()},
            "ratio": {title: ratio(timing, timings["bare"]) for title, timing in timings.items() if title != "bare"},
        }
    for one in (bare, control):
        one.connection.close()
    ours.close()
    return found
