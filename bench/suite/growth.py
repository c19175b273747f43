"""One tenant of fixed size in tables of which the last is sixteen times the first: what a search of it costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from data import Array, Corpus, name
from layouts import Naive, Ours, analyze
from measure import interleaved, ratio, recall
from server import Database


def add_rows(database: Database, corpus: Corpus, start: int, stop: int, *, naive: bool = False) -> None:
    """Add rows of other tenants, as a superuser, to our table and, with *naive*, to that one."""
    with database.superuser() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE fresh (id bigint, tenant_id text, embedding vector)")
        with cursor.copy("COPY fresh FROM STDIN") as copy:
            for row in range(start, stop):
                numbers = ",".join(f"{one:.6f}" for one in corpus.vectors[row])
                copy.write_row((row, f"g{row % 100}", f"[{numbers}]"))
        cursor.execute(
            "INSERT INTO vectoracl.chunks (tenant_id, document, generation, chunk_id, label, rev, expires, producer, "
            "path, written_at, position, content, metadata, embedding) SELECT tenant_id, 'd' || id / 20, 0, id::text, "
            "'default', 0, 253402300799, 'bench', 'upsert', 0, 0, 'chunk ' || id, '{}', embedding FROM fresh"
        )
        if naive:
            cursor.execute("DROP INDEX IF EXISTS naive.shared_hnsw")  # building it again is quicker than row by row
            cursor.execute("INSERT INTO naive.chunks SELECT id, tenant_id, 'chunk ' || id, embedding FROM fresh")
            cursor.execute("CREATE INDEX shared_hnsw ON naive.chunks USING hnsw (embedding vector_cosine_ops)")


def measure(
    make: Callable[[int], Database],
    corpus: Corpus,
    tenant_rows: int,
    steps: tuple[int, ...],
    rounds: int,
    progress: Callable[..., Any],
) -> dict[str, list[dict[str, float]]]:
    """Return, for each layout, p50, recall and the ratio to the smallest, at each number of rows of *steps*.

    Two tenants of *tenant_rows* rows each: one stays in the shared partition, one has its own. *make* gives a database
    for each step; all are asked in turns, so that what slows the machine slows every step.
    """
    shared, own = 10_000, 10_001
    rng = np.random.default_rng(9)
    mine = rng.choice(len(corpus.vectors) - steps[-1], tenant_rows, replace=False) + steps[-1]
    vectors = corpus.vectors[mine]
    fixed = Corpus(
        np.concatenate([vectors, vectors]),
        np.repeat(np.array([shared, own], np.int32), tenant_rows),
        {},
        corpus.centres,
        corpus.seed,
    )
    queries: Array = corpus.queries("overlap", 50)
    searches: dict[tuple[str, int], tuple[Callable[..., list[int]], int, int]] = {}
    with ExitStack() as stack:
        for number, rows in enumerate(steps):
            database = make(rows)
            ours = Ours(database)
            stack.callback(ours.close)
            Naive.build(database)
            ours.load(fixed, lambda *_: None)
            ours.promote([own], lambda *_: None)
            with database.superuser() as connection:
                connection.execute(
                    "INSERT INTO naive.chunks SELECT 1000000000 + chunk_id::bigint, tenant_id, content, embedding "
                    "FROM vectoracl.chunks WHERE tenant_id = %s",
                    (name(shared),),
                )
            add_rows(database, corpus, 0, rows, naive=True)
            analyze(database, "vectoracl.chunks", "naive.chunks")
            strict = Naive(database, ("hnsw.iterative_scan", "strict_order"), ("enable_sort", "off"))
            stack.callback(strict.close)
            searches["ours, shared partition", rows] = (ours.search, shared, 0)
            searches["ours, own partition", rows] = (ours.search, own, 0)
            searches["strict iterative scan", rows] = (strict.search, shared, 1_000_000_000)
            progress(number + 1, len(steps))
        calls = {
            f"{title} {rows}": (
                lambda number, search=search, tenant=tenant: search(tenant, queries[number % len(queries)], 10)
            )
            for (title, rows), (search, tenant, _) in searches.items()
        }
        timings = interleaved(calls, rounds)
        found: dict[str, list[dict[str, float]]] = {}
        for (title, rows), (search, tenant, offset) in searches.items():
            recalls = [
                recall([one - offset for one in search(tenant, query, 10)], fixed.nearest(tenant, query, 10))
                for query in queries[:20]
            ]
            timing = timings[f"{title} {rows}"]
            found.setdefault(title, []).append(
                {
                    "rows": rows,
                    "p50_ms": timing.p50,
                    "ratio": ratio(timing, timings[f"{title} {steps[0]}"]),
                    "recall": float(np.mean(recalls)),
                }
            )
    return found
