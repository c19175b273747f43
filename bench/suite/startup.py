"""Start-up by the number of own partitions: `python bench/startup.py --partitions 3000`."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import psycopg
from server import Database, database, server

import vectoracl
from vectoracl import testing
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, literal, quote

mpl.use("Agg")
import matplotlib.pyplot as plt

GOALS = {"connect and first count, unchanged": 500.0, "check": 1000.0}
"""In ms, with 3,000 partitions."""


def add_partitions(base: Database, start: int, stop: int) -> None:
    """Add partitions as a promotion leaves them, for the tenants `own…`, without rows."""
    config = PgvectorConfig(
        **{k: one for k, one in base.config()["stores"]["main"].items() if k not in ("adapter", "metadata")}
    )
    names = Names.of(config)
    with psycopg.connect(base.dsn("owner"), autocommit=True) as owner:
        for first in range(start, stop, 100):
            with owner.transaction():
                for number in range(first, min(stop, first + 100)):
                    tenant = f"own{number}"
                    part = names.partition(tenant)
                    owner.execute(f"CREATE TABLE {part} (LIKE {names.table} INCLUDING ALL)")
                    for statement in schema.protection(config, part):
                        owner.execute(statement)
                    owner.execute(f"REVOKE ALL ON {part} FROM PUBLIC, {quote(config.runtime_role)}")
                    owner.execute(schema.vector_index(config, part, names.partition_name(tenant) + "_hnsw"))
                    attach = f"ATTACH PARTITION {part} FOR VALUES IN ({literal(tenant)})"
                    owner.execute(f"ALTER TABLE {names.table} {attach}")
    with base.superuser() as connection:
        connection.execute("VACUUM ANALYZE")


def timed(call: Callable[[], object]) -> float:
    """Return the milliseconds that *call* takes."""
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def starts(base: Database, rounds: int) -> dict[str, float]:
    """Return the median times of a start without and with a kept posture, and of a check."""
    who = testing.principal("alice", "own0")
    times: dict[str, list[float]] = {}

    def start(config: dict[str, Any]) -> None:
        with vectoracl.connect(config) as acl:
            acl.scoped(who).count()

    measured = base.config(keep_posture=False)
    start(base.config())  # keeps the posture
    for _ in range(rounds):
        times.setdefault("connect and first count, measured", []).append(timed(lambda: start(measured)))
        times.setdefault("connect and first count, unchanged", []).append(timed(lambda: start(base.config())))
        with vectoracl.connect(base.config()) as acl:
            acl.open()
            times.setdefault("check", []).append(timed(acl.check))
    return {name: statistics.median(some) for name, some in times.items()}


def draw(found: list[dict[str, Any]], out: Path) -> None:
    """Draw the times by the number of partitions."""
    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in found[0]["ms"]:
        axis.plot([one["partitions"] for one in found], [one["ms"][name] for one in found], marker="o", label=name)
    axis.set(xlabel="own partitions", ylabel="median, ms")
    axis.legend()
    figure.savefig(out, dpi=120)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=300, help="the largest number of partitions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("bench/out/startup.json"))
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    with server() as one, tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        base = database(one, "startup")
        steps = [1, options.partitions // 10, options.partitions // 3, options.partitions]
        for before, after in zip([0, *steps], steps, strict=False):
            add_partitions(base, before, after)
            found.append({"partitions": after, "ms": starts(base, options.rounds)})
            print(f"{after:>6} partitions  " + ", ".join(f"{k} {v:.0f} ms" for k, v in found[-1]["ms"].items()))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(found, options.out.with_suffix(".png"))
    print(f"goals with 3,000 partitions, ms: {GOALS}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
