"""The benchmarks of the pgvector adapter: `python bench/pgvector.py [--full] [--only SECTION …]`.

It starts a server of its own, measures the layouts side by side, prints the goals with what was reached, and writes
bench/out/pgvector.json and the plots. Trust ratios of one run, not absolute times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bulk
import data
import goals
import growth
import layouts
import numpy as np
import own_cost
import plots
import roundtrip
import server
import timing
import visible
from measure import interleaved, ratio, recall
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

OUT = Path(__file__).parent.parent / "out"
SECTIONS = ("own-cost", "bulk", "sizes", "searches", "round-trips", "growth", "timing", "bits")
K = 10


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rows: int
    tenants: int
    queries: int
    rounds: int
    growth: tuple[int, ...]
    growth_rows: int
    bulk: int
    shared: tuple[int, ...]
    visible: int


QUICK = Size(60_000, 300, 30, 60, (5_000, 20_000, 80_000), 400, 2_000, (5_000, 20_000), 20_000)
FULL = Size(
    200_000, 1_000, 100, 200, (25_000, 100_000, 400_000), 1_000, 5_000, (2_000, 5_000, 10_000, 20_000, 50_000), 200_000
)


class Bench:
    """One run."""

    def __init__(self, size: Size, console: Console) -> None:
        self.size = size
        self.console = console
        self.results: dict[str, Any] = {}

    @contextmanager
    def bar(self, title: str) -> Iterator[Callable[[int, int], None]]:
        """Show progress; the callback takes how many are done of how many."""
        columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(title, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    def own_cost(self) -> None:
        with self.bar("overhead, null store"):
            timings = own_cost.measure(max(30, self.size.rounds // 2))
        self.results["own_cost"] = {name: round(one.p50, 2) for name, one in timings.items()}

    def bulk(self, one: server.embedded.EmbeddedServer) -> None:
        with self.bar("bulk writes"):
            found = bulk.measure(server.database(one, "bench_bulk"), 12, self.size.bulk)
        raw = min((name for name in found if name.startswith("raw")), key=lambda name: found[name].p50)
        self.results["bulk"] = {
            "rows_a_call": self.size.bulk,
            "rows_a_second": {name: round(self.size.bulk / timing.p50 * 1e3) for name, timing in found.items()},
            "fastest_raw": raw,
            "ratio_to_fastest_raw": round(ratio(found[raw], found["ours"]), 4),
            "ratio_a_a": round(ratio(found["ours (A/A control)"], found["ours"]), 4),
        }

    def load(self, one: server.embedded.EmbeddedServer) -> tuple[server.Database, data.Corpus]:
        database = server.database(one, "bench_search")
        corpus = data.make(self.size.rows, self.size.tenants)
        ours = layouts.Ours(database)
        with self.bar("loading (documents)") as progress:
            ours.load(corpus, progress)
        large = [tenant for tenant in range(self.size.tenants) if len(corpus.rows(tenant)) > layouts.PROMOTE]
        with self.bar("promoting large tenants") as progress:
            ours.promote(large, progress)
        ours.close()
        layouts.analyze(database)
        return database, corpus

    def searches(self, database: server.Database, corpus: data.Corpus) -> None:
        with self.bar("indexes of the other layouts") as progress:
            layouts.Naive.build(database)
            progress(1, 2)
            layouts.Wardowl.build(database)
            progress(2, 2)
        strict = ("hnsw.iterative_scan", "strict_order")
        ours, other = layouts.Ours(database), layouts.Wardowl(database)
        by_hand = [
            layouts.Naive(database),
            layouts.Naive(database, strict),
            layouts.Naive(database, strict, ("enable_sort", "off")),
        ]
        contestants: dict[str, layouts.Search] = {
            "naive": by_hand[0].search,
            "strict, planner's choice": by_hand[1].search,
            "strict, index forced": by_hand[2].search,
            f"wardowl {other.version}": other.search,
            "ours": ours.search,
            "ours (A/A control)": ours.search,
            "ours, ef_search 800": ours.searcher(tuning={"ef_search": 800}),
            "ours, exact": ours.searcher(exact=True),
        }
        rows: list[dict[str, Any]] = []
        pairs = [(geometry, role) for geometry in ("overlap", "hostile") for role in corpus.measured]
        with self.bar("searches") as progress:
            for number, (geometry, role) in enumerate(pairs):
                rows += self._searches(corpus, geometry, role, contestants)
                progress(number + 1, len(pairs))
        for one in (*by_hand, ours, other):
            one.close()
        self.results["searches"] = {"rows": rows, "k": K}

    def _searches(
        self, corpus: data.Corpus, geometry: str, role: str, contestants: dict[str, layouts.Search]
    ) -> list[dict[str, Any]]:
        tenant = corpus.measured[role]
        queries = corpus.queries(geometry, self.size.queries)
        truth = [corpus.nearest(tenant, query, K) for query in queries]
        calls = {
            name: (lambda number, search=search: search(tenant, queries[number % len(queries)], K))
            for name, search in contestants.items()
        }
        timings = interleaved(calls, self.size.rounds)
        rows = []
        for name, search in contestants.items():
            found = [search(tenant, query, K) for query in queries]
            owned = min(K, len(corpus.rows(tenant)))
            rows.append(
                {
                    "geometry": geometry,
                    "role": role,
                    "tenant_rows": len(corpus.rows(tenant)),
                    "layout": name,
                    "p50_ms": round(timings[name].p50, 3),
                    "p95_ms": round(timings[name].p95, 3),
                    "ratio_to_ours": round(ratio(timings[name], timings["ours"]), 3),
                    "recall": round(float(np.mean([recall(*one) for one in zip(found, truth, strict=True)])), 4),
                    "rows": round(float(np.mean([len(one) for one in found])), 2),
                    "full": round(float(np.mean([len(one) == owned for one in found])), 4),
                }
            )
        return rows

    def round_trips(self, database: server.Database, corpus: data.Corpus) -> None:
        with self.bar("round trips"):
            found = roundtrip.measure(
                database,
                corpus.measured["0.5 %"],
                corpus.queries("overlap", self.size.queries),
                self.size.rounds,
                (0.0, 0.001, 0.005),
            )
        self.results["round_trips"] = {str(key): one for key, one in found.items()}

    def sizes(self, one: server.embedded.EmbeddedServer) -> None:
        with self.bar("scoped over bare, by size"):
            self.results["sizes"] = roundtrip.at_sizes(server.database(one, "bench_sizes"), self.size.rounds * 5)

    def growth(self, one: server.embedded.EmbeddedServer) -> None:
        size = self.size
        corpus = data.make(size.growth[-1] + size.growth_rows * 4, 100, seed=21)
        with self.bar("growth") as progress:
            self.results["growth"] = growth.measure(
                lambda rows: server.database(one, f"bench_growth_{rows}"),
                corpus,
                size.growth_rows,
                size.growth,
                size.rounds,
                progress,
            )

    def timing(self, one: server.embedded.EmbeddedServer) -> None:
        databases = (server.database(one, "bench_few"), server.database(one, "bench_many"))
        corpus = data.make(timing.ROWS + timing.MANY, 100, seed=31)
        with self.bar("timing of foreign rows"):
            self.results["timing"] = timing.measure(databases, corpus, self.size.rounds * 2)

    def bits(self, one: server.embedded.EmbeddedServer) -> None:
        size = self.size
        with self.bar("tenants in the shared partition") as progress:
            rows = visible.shared(server.bare(one, "bench_shared"), size.shared, size.queries, size.rounds, progress)
        self.results["bits_shared"] = rows
        with self.bar("part of a large tenant") as progress:
            found = visible.visible(
                server.bare(one, "bench_visible"), size.visible, size.queries, size.rounds, progress
            )
        self.results["bits_visible"] = found

    def show(self) -> None:
        """Print what was measured, section by section."""
        found = self.results.get("searches")
        if found:
            for geometry in ("overlap", "hostile"):
                table = Table(title=f"{geometry}: recall@{K} / p50 ms (rows, where short)")
                roles = list(dict.fromkeys((one["role"], one["tenant_rows"]) for one in found["rows"]))
                table.add_column("layout")
                for role, count in roles:
                    table.add_column(f"{role}\n{count:,} rows", justify="right")
                picked = [one for one in found["rows"] if one["geometry"] == geometry]
                for layout in dict.fromkeys(one["layout"] for one in picked):
                    cells = []
                    for one in (one for one in picked if one["layout"] == layout):
                        short = f" ({one['rows']:.1f})" if one["full"] < 1 else ""
                        cells.append(f"{one['recall']:.3f} / {one['p50_ms']:.2f}{short}")
                    table.add_row(layout, *cells)
                self.console.print(table)
        for name in ("own_cost", "bulk", "sizes", "round_trips", "growth", "timing", "bits_shared", "bits_visible"):
            if name in self.results:
                self.console.print(f"[bold]{name}[/]")
                self.console.print_json(json.dumps(self.results[name]))


def machine() -> dict[str, Any]:
    """Say what was measured with, without naming the machine."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "load_at_start": load,
        **{name: version(name) for name in ("vectoracl", "vectoracl-pgvector", "psycopg", "numpy", "wardowl")},
    }


def main() -> int:
    """Run the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the default: a few minutes")
    parser.add_argument("--full", action="store_true", help="200,000 rows and 1,000 tenants")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, metavar="SECTION")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped and its folder removed
    console = Console()
    bench = Bench(FULL if given.full else QUICK, console)
    about: dict[str, Any] = {"size": "full" if given.full else "quick", **machine()}
    began = time.monotonic()

    def keep() -> list[goals.Goal]:
        """Write what there is so far, so that a run that is broken off is not lost."""
        about["seconds"] = round(time.monotonic() - began)
        found = goals.goals(bench.results)
        given.out.mkdir(parents=True, exist_ok=True)
        written = {"about": about, "goals": goals.as_json(found), "results": bench.results}
        (given.out / "pgvector.json").write_text(json.dumps(written, indent=1) + "\n")
        return found

    if "own-cost" in given.only:
        bench.own_cost()
        keep()
    if set(given.only) - {"own-cost"}:
        with server.server() as one:
            if "bulk" in given.only:
                bench.bulk(one)
                keep()
            if "sizes" in given.only:
                bench.sizes(one)
                about |= server.versions(server.Database(one, "bench_sizes"))
                keep()
            if {"searches", "round-trips"} & set(given.only):
                database, corpus = bench.load(one)
                about |= server.versions(database)
                if "round-trips" in given.only:
                    bench.round_trips(database, corpus)
                    keep()
                if "searches" in given.only:
                    bench.searches(database, corpus)
                    keep()
            if "growth" in given.only:
                bench.growth(one)
                keep()
            if "timing" in given.only:
                bench.timing(one)
                keep()
            if "bits" in given.only:
                bench.bits(one)
    found = keep()
    bench.show()
    goals.show(console, found)
    drawn = plots.draw(bench.results, given.out)
    console.print(f"{about['seconds']} s; written: {', '.join(['pgvector.json', *drawn])} in {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
