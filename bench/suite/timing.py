"""What a tenant can learn from its own latency: the same 500 rows beside few and beside many rows of others.

Figures of the threat model. Two databases that differ in the others' rows only, searches in turns; "A/A control" is the
first database asked twice. A ratio near 1 tells nothing; the control says what near is on this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from data import Corpus, name
from growth import add_rows
from layouts import Ours, analyze
from measure import interleaved, ratio
from server import Database

ROWS = 500
FEW, MANY = 500, 20_000


def measure(databases: tuple[Database, Database], corpus: Corpus, rounds: int) -> dict[str, Any]:
    """Return the ratio of p50 beside `MANY` to beside `FEW` foreign rows, by the tenant's tier, and the control's."""
    shared, own = 20_000, 20_001
    mine = corpus.vectors[:ROWS]
    fixed = Corpus(
        np.concatenate([mine, mine]),
        np.repeat(np.array([shared, own], np.int32), ROWS),
        {},
        corpus.centres,
        corpus.seed,
    )
    queries = corpus.queries("overlap", 50)
    with ExitStack() as stack:
        sides = []
        for database, others in zip(databases, (FEW, MANY), strict=True):
            ours = Ours(database)
            stack.callback(ours.close)
            # Mixed, as rows arrive: the tenant's lie scattered between those of others.
            step = max(1, others // 25)
            documents = fixed.documents()
            for place, (tenant, rows) in enumerate(documents):
                part = Corpus(
                    fixed.vectors[rows], np.full(len(rows), tenant, np.int32), {}, corpus.centres, corpus.seed
                )
                ours.load_as(part, f"p{place}")
                start = ROWS + place * step // 2
                add_rows(database, corpus, start, min(ROWS + others, start + step // 2))
            ours.promote([own], lambda *_: None)
            analyze(database)
            sides.append(ours)
        few, many = sides
        calls: dict[str, Callable[[int], Any]] = {}
        for title, tenant in (("shared", shared), ("own", own)):
            for side, ours in (("few", few), ("many", many), ("control", few)):
                calls[f"{title} {side}"] = lambda number, ours=ours, tenant=tenant: ours.handle(tenant).search(
                    queries[number % len(queries)], 10
                )
        timings = interleaved(calls, rounds)
    return {
        "rows": ROWS,
        "foreign": [FEW, MANY],
        "ms": {title: round(one.p50, 3) for title, one in timings.items()},
        "ratio": {
            f"{title} partition{more}": round(ratio(timings[f"{title} {side}"], timings[f"{title} few"]), 3)
            for title in ("shared", "own")
            for side, more in (("many", ""), ("control", " (A/A control)"))
        },
        "tenants": [name(shared), name(own)],
    }
