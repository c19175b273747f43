"""Runs constructed mutants on the memory store: `python -m vectoracl_conformance.running.run_constructed`.

Each result is appended to a file of JSON lines as soon as it is known, so a run that was interrupted continues where it
ended, and several machines can each run a shard.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty
from typing import Annotated, Any

import typer

from vectoracl_conformance.generated.bench import Bench, memory_capabilities
from vectoracl_conformance.generated.values import DIMENSIONS
from vectoracl_conformance.generated.world import Size, build_world
from vectoracl_conformance.mutants.constructed import CONTROL, Constructed, constructed, drawn

ENOUGH_DRAWN, ENOUGH_OF_ALL = 0.95, 0.98
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_SEEDS = 200


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one mutant.

    Attributes:
        name: Its name.
        operation: The operation that it breaks.
        loss: What it loses.
        seed: The seed of the world and of the calls.
        problem: The first difference; "" if it survived.
        seconds: The time that it took.
    """

    name: str
    operation: str
    loss: str
    seed: int
    problem: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether it died."""
        return bool(self.problem)


class Benches:
    """A bench for each dimension that a mutant needs, made when it is first needed."""

    def __init__(self, seed: int, size: Size) -> None:
        self._seed = seed
        self._size = size
        self._benches: dict[int, Bench] = {}

    def of(self, mutant: Constructed) -> Bench:
        """Return a bench whose vectors have more components than *mutant* needs."""
        for bench in self._benches.values():
            if bench.world.dimension > mutant.dimension:
                return bench
        seed = self._seed if not mutant.dimension else self._seed_with(mutant.dimension)
        self._benches[mutant.dimension] = Bench(seed, self._size)
        return self._benches[mutant.dimension]

    def _seed_with(self, dimension: int) -> int:
        if max(DIMENSIONS) <= dimension:
            raise ValueError(f"No generated world has more than {dimension} dimensions.")
        able = memory_capabilities()
        for seed in range(self._seed, self._seed + _SEEDS):
            if build_world(seed, able, size="quick", metrics=(able.metric,)).dimension > dimension:
                return seed
        raise ValueError(f"None of {_SEEDS} seeds gives more than {dimension} dimensions.")

    def close(self) -> None:
        """End all processes."""
        for bench in self._benches.values():
            bench.close()


def tried(mutant: Constructed, bench: Bench) -> Result:
    """Run one mutant."""
    started = time.monotonic()
    found = bench.kill(mutant.source, mutant.operation, steps=mutant.steps)
    problem = "" if found is None else str(found)[:300]
    seconds = round(time.monotonic() - started, 2)
    return Result(mutant.name, mutant.operation, mutant.loss, bench.world.seed, problem, seconds)


def _work(names: Any, results: Any, seed: int, size: Size) -> None:
    known = {one.name: one for one in (CONTROL, *constructed())}
    benches = Benches(seed, size)
    try:
        while True:
            try:
                name = names.get_nowait()
            except Empty:
                return
            results.put(tried(known[name], benches.of(known[name])))
    finally:
        benches.close()
        results.put(None)


def run_all(mutants: Sequence[Constructed], seed: int, size: Size, jobs: int) -> Iterator[Result]:
    """Run *mutants* in *jobs* processes, and yield each result when it is known.

    Raises: RuntimeError if an adapter in which nothing is broken dies, or was not run.
    """
    spawn = multiprocessing.get_context("spawn")
    names, results = spawn.Queue(), spawn.Queue()
    for one in (*mutants[: len(mutants) // 2], CONTROL, *mutants[len(mutants) // 2 :]):
        names.put(one.name)
    workers = [spawn.Process(target=_work, args=(names, results, seed, size)) for _ in range(min(jobs, len(mutants)))]
    for worker in workers:
        worker.start()
    try:
        yield from _collected(workers, results)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def _collected(workers: Sequence[Any], results: Any) -> Iterator[Result]:
    running, controlled = len(workers), False
    while running:
        try:
            result = results.get(timeout=5)
        except Empty:
            if not any(worker.is_alive() for worker in workers):
                raise RuntimeError("the workers ended without a result") from None
            continue
        if result is None:
            running -= 1
        elif result.name != CONTROL.name:
            yield result
        elif result.killed:
            raise RuntimeError(f"an adapter in which nothing is broken died: {result.problem}")
        else:
            controlled = True
    if not controlled:
        raise RuntimeError("the adapter in which nothing is broken was not run: a process ended")


def read(path: Path) -> list[Result]:
    """Return the results in the file *path*; the last one of each mutant."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return list({one["name"]: Result(**one) for one in map(json.loads, lines)}.values())


def shard(mutants: Sequence[Constructed], part: str) -> Sequence[Constructed]:
    """Return the part of *mutants* that *part* names, such as "2/8". Raises: ValueError for another form."""
    number, of = map(int, part.split("/"))
    if not 1 <= number <= of:
        raise ValueError(f"A shard is a number from 1 to {of}, not {number}.")
    return mutants[number - 1 :: of]


def summary(results: Sequence[Result]) -> Mapping[str, Any]:
    """Return the numbers of *results* and the names of those that survived."""
    survivors = sorted(one.name for one in results if not one.killed)
    share = 1 - len(survivors) / len(results) if results else 0.0
    return {"mutants": len(results), "killed": len(results) - len(survivors), "share": share, "survivors": survivors}


@app.command()
def main(
    drawn_: Annotated[int, typer.Option("--drawn", min=0, help="Draw this many by the seed; 0 runs all of them.")] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="The seed of the draw, the world and the calls.")
    ] = None,
    part: Annotated[str, typer.Option("--shard", metavar="I/N", help="Run only part I of N.")] = "1/1",
    results: Annotated[
        Path | None, typer.Option("--results", metavar="FILE", help="Append results here, and skip those that it has.")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="The number of processes.")] = 2,
    size: Annotated[str, typer.Option("--size", help="The size of the world: quick or full.")] = "full",
) -> None:
    """Run broken adapters that are constructed, on the memory store.

    Exit code 0 if enough of them died: 95 % of a draw, 98 % of all; 2 if some were not run. Survivors are listed.
    """
    number = random.SystemRandom().randrange(2**31) if seed is None else seed
    wanted = shard(drawn(number, drawn_) if drawn_ else constructed(), part)
    done = {one.name: one for one in read(results)} if results is not None else {}
    rest = [one for one in wanted if one.name not in done]
    random.Random(number).shuffle(rest)  # noqa: S311 - so that a part of a run is a sample of all
    typer.echo(f"{len(wanted)} mutants, {len(wanted) - len(rest)} of them run before; seed {number}")
    kept = [done[one.name] for one in wanted if one.name in done]
    for result in run_all(rest, number, "quick" if size == "quick" else "full", jobs):
        kept.append(result)
        if results is not None:
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result), ensure_ascii=False) + "\n")
        if not result.killed or len(kept) % 100 == 0:
            typer.echo(f"{len(kept)} of {len(wanted)}: {'survived: ' + result.name if not result.killed else '…'}")
    numbers = summary(kept)
    typer.echo(f"{numbers['killed']} of {numbers['mutants']} killed ({numbers['share']:.1%}); seed {number}")
    for name in numbers["survivors"]:
        typer.echo(f"  survived: {name}")
    if len(kept) < len(wanted):
        typer.echo(f"{len(wanted) - len(kept)} were not run: a process ended. Run the same command again.", err=True)
        sys.exit(2)
    sys.exit(numbers["share"] < (ENOUGH_DRAWN if drawn_ else ENOUGH_OF_ALL))


if __name__ == "__main__":
    app()
