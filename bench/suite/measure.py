"""Timing side by side: what is compared takes turns in one run, so that a busy machine slows all of it alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[int], object]


@dataclass
class Timing:
    """The times of one contestant, in milliseconds, in the order in which they were taken."""

    times: list[float]

    @property
    def p50(self) -> float:
        return statistics.median(self.times)

    @property
    def p95(self) -> float:
        return sorted(self.times)[int(len(self.times) * 0.95)]


def interleaved(
    calls: Mapping[str, Call], rounds: int, *, warm: int = 5, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Timing]:
    """Call each contestant once a round, in a shuffled order; *rounds* calls each. A call gets the round's number."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm):
        for name in names:
            calls[name](number)
    gc.collect()
    for number in range(rounds):
        # In a new order each round: who comes after a slow neighbour finds cold caches.
        for name in random.Random(number).sample(names, len(names)):
            begin = clock()
            calls[name](number)
            times[name].append((clock() - begin) * 1e3)
    return {name: Timing(found) for name, found in times.items()}


def ratio(over: Timing, under: Timing) -> float:
    """Return the median of the ratios of neighbours in time: what slowed both drops out."""
    return statistics.median(a / b for a, b in zip(over.times, under.times, strict=True))


def recall(found: Sequence[int], truth: set[int]) -> float:
    """Return the share of the true nearest rows that were found."""
    return len(truth.intersection(found)) / len(truth)
