"""A search over several partitions (shared tenants), run side by side, beside each of its partitions alone.

On pgvector, through a proxy that adds a round-trip time, with a connection for each partition. What is compared takes
turns in one run; the goal is at most 1.5 times the slowest partition alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from data import DIMENSION
from measure import Timing, interleaved
from proxy import proxy
from server import database, server

import vectoracl
from vectoracl import Chunk, testing

PARTITIONS = 8
GOAL = 1.5
K = 10


def _chunks(number: int, rows: int) -> list[Chunk]:
    rng = np.random.default_rng(number)
    vectors = rng.normal(size=(rows, DIMENSION)).astype(np.float32)
    return [Chunk(f"c{i}", f"d{i // 20}", "a text of some length " * 8, one) for i, one in enumerate(vectors)]


def _slowest(times: dict[str, Timing], over: str) -> list[float]:
    """Return, for each round, the time of *over* divided by the slowest partition's alone in the same round."""
    alone = [one.times for name, one in times.items() if name != over]
    return [whole / max(some) for whole, *some in zip(times[over].times, *alone, strict=True)]


def _typical(times: dict[str, Timing], over: str) -> float:
    """Return the median of *over*, divided by the largest median of one partition alone."""
    return times[over].p50 / max(one.p50 for name, one in times.items() if name != over)


def measure(rows: int, rounds: int, round_trips: tuple[float, ...]) -> dict[str, Any]:
    """Return the ratios, for each round-trip time in seconds, sync and async."""
    names = [f"t{i}" for i in range(PARTITIONS)]
    found: dict[str, Any] = {"rows of a partition": rows, "partitions": PARTITIONS, "rounds": rounds}
    with server() as one:
        made = database(one, "across")
        whole = {**made.config(pool_max=PARTITIONS, pool_min=PARTITIONS), "tenants": {"shared": names[1:]}}
        with vectoracl.connect(made.config()) as acl:
            for number, name in enumerate(names):
                acl.scoped(testing.principal("loader", name)).upsert(_chunks(number, rows))
        queries = np.random.default_rng(99).normal(size=(rounds + 10, DIMENSION)).astype(np.float32)
        for round_trip in round_trips:
            both: dict[str, dict[str, float]] = {}
            for how, contest in (("sync", _sync), ("async", lambda *some: asyncio.run(_async(*some)))):
                # Each contestant has a proxy of its own, with room for its pool and the connection that looks first.
                with ExitStack() as stack:
                    dsns = []
                    for _ in range(2):
                        port = stack.enter_context(proxy(one.port, round_trip, 2 * PARTITIONS))
                        dsns.append(made.dsn("runtime", tcp=True).replace(f":{one.port}/", f":{port}/"))
                    over = {**whole, "stores": {"main": {**whole["stores"]["main"], "dsn": dsns[0]}}}
                    both[how] = contest(over, made.config(dsn=dsns[1], pool_max=1), names, queries, rounds)
            found[f"{round_trip * 1e3:g} ms"] = both
    return found


def _sync(over: Any, lone: Any, names: list[str], queries: Any, rounds: int) -> dict[str, float]:
    with vectoracl.connect(over) as acl, vectoracl.connect(lone) as single:
        everyone = acl.scoped(testing.principal("alice", names[0]))
        assert len({hit.tenant for hit in everyone.search(queries[0], 200)}) == PARTITIONS
        handles = {name: single.scoped(testing.principal("alice", name)) for name in names}
        calls: dict[str, Any] = {"eight": lambda number: everyone.search(queries[number], K)}
        for name, handle in handles.items():
            calls[name] = lambda number, handle=handle: handle.search(queries[number], K)
        return _result(interleaved(calls, rounds))


async def _async(over: Any, lone: Any, names: list[str], queries: Any, rounds: int) -> dict[str, float]:
    async with vectoracl.aconnect(over) as acl, vectoracl.aconnect(lone) as single:
        loop = asyncio.get_running_loop()
        everyone = acl.scoped(testing.principal("alice", names[0]))
        handles = {name: single.scoped(testing.principal("alice", name)) for name in names}
        contestants = {"eight": everyone, **handles}
        times: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(-5, rounds):
            for name in np.random.default_rng(abs(number)).permutation(list(contestants)):
                begin = loop.time()
                await contestants[name].search(queries[number + 5], K)
                if number >= 0:
                    times[name].append((loop.time() - begin) * 1e3)
        return _result({name: Timing(some) for name, some in times.items()})


def _result(times: dict[str, Timing]) -> dict[str, float]:
    return {
        "eight, ms": times["eight"].p50,
        "slowest alone, ms": max(one.p50 for name, one in times.items() if name != "eight"),
        "ratio of medians": _typical(times, "eight"),
        "ratio to the slowest of the round": statistics.median(_slowest(times, "eight")),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500, help="chunks of a partition")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("bench/out/partitions.json"))
    options = parser.parse_args()
    found = measure(options.rows, options.rounds, (0.001, 0.010))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{PARTITIONS} partitions of {options.rows} chunks, goal: at most {GOAL} times the slowest alone")
    for name, some in found.items():
        if isinstance(some, dict):
            for how, one in some.items():
                print(
                    f"  {name:>6} round trip, {how:<5}  "
                    + ", ".join(f"{key} {value:.2f}" for key, value in one.items())
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
