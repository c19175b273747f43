"""The ways to rank a search by vector, and what earlier searches learned about them. Pure.

- exact: the distance of every visible row. Right for few rows.
- bits: the nearest by the signs of their numbers (`bits`), read from the index alone, and of these the nearest by
  distance. Right for the middle, and wherever a narrow scope hides most of a partition.
- hnsw: the vector index of a tenant's own partition, for most of a large partition. Hidden rows are left out while it
  is searched, so it misses rows that lie among them.

The number of visible rows decides, counted in the same statement and snapshot as the search, up to the largest number
that makes a difference. What the server decided is remembered for the next searches of the same scope and filter: they
are sent in the shorter form of that way, and after `USES` of them the server decides again. A memory that is out of
date costs time, never rows: every form returns permitted rows with their exact distances.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

Way = Literal["exact", "bits", "hnsw"]
Kind = Literal["hits", "groups", "hybrid"]
USES = 100
CANDIDATES = 400
"""The candidates by bits that are compared exactly; with k above 40, ten for each hit. See docs/benchmarks.md."""
GROWTH = 4
MOST_EXACT = 3
"""An exact search of fewer rows than this many times the candidates is as fast."""
FAR = 5
"""One of this many hits beyond the first quarter of the candidates: others may lie beyond the last one."""
_MOST_KEYS = 10_000
# Searches that needed more candidates, until the following ones begin with more.
_PATIENCE = 3


def candidates(k: int, base: int = CANDIDATES) -> int:
    """Return the number of candidates for *k* hits."""
    return max(base, 10 * k)


@dataclass(slots=True)
class Learned:
    """The decision of the server for one scope and filter: the way, and the number of rows that it counted."""

    way: Way
    visible: int
    base: int = CANDIDATES
    uses: int = USES
    widened: int = 0

    def widen(self) -> None:
        """Note that a search needed more candidates; several times, and the next ones begin with more."""
        self.widened += 1
        if self.widened >= _PATIENCE:
            self.widened = 0
            self.base *= GROWTH
            if self.base * MOST_EXACT >= self.visible:
                self.way = "exact"


class Memory:
    """The decisions by partition, scope and filter."""

    def __init__(self) -> None:
        self._learned: dict[Hashable, Learned] = {}

    def recall(self, key: Hashable) -> Learned | None:
        """Return what was learned for *key*, for at most `USES` searches."""
        learned = self._learned.get(key)
        if learned is None or learned.uses <= 0:
            return None
        learned.uses -= 1
        return learned

    def learn(self, key: Hashable, way: Way, visible: int) -> Learned:
        """Remember the server's decision; the number of candidates that the key needed before stays."""
        base = self.base(key)
        if len(self._learned) >= _MOST_KEYS:
            self._learned.clear()
        self._learned[key] = learned = Learned(way, visible, base)
        return learned

    def base(self, key: Hashable) -> int:
        """Return the number of candidates to begin with."""
        previous = self._learned.get(key)
        if previous is None:
            return CANDIDATES
        # When the server decides again, fewer candidates are tried again: the data may be others now.
        return previous.base if previous.uses > 0 else max(CANDIDATES, previous.base // GROWTH)
