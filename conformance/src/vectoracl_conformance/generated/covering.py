"""Covering arrays: few calls in which every two levels of different parameters occur together.

The construction is greedy, one row at a time, each starting from a pair that is still open (AETG: Cohen, Dalal, Fredman
and Patton, "The AETG system: an approach to testing based on combinatorial design", IEEE Transactions on Software
Engineering 23(7), 1997). What is covered is counted afterwards, from the rows alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from vectoracl_conformance.context.check_context import Mode as Mode
from vectoracl_conformance.generated.calls import Call


@dataclass(frozen=True)
class Coverage:
    """The share of the space of calls that a plan covers.

    Attributes:
        calls: The number of calls.
        pairs: Pairs of levels of two parameters of one operation: those covered, and all that are possible.
        triples: Triples of an operation, a form of the scope and a level of an argument: the same two numbers.
        left_out: The reason for each level, argument or pair that is not among those that are possible.
    """

    calls: int
    pairs: tuple[int, int]
    triples: tuple[int, int]
    left_out: Mapping[str, str]

    @classmethod
    def of(cls, parts: Iterable[Coverage]) -> Coverage:
        """Return the sum of *parts*."""
        parts = list(parts)
        left_out: dict[str, str] = {}
        for one in parts:
            left_out.update(one.left_out)
        return cls(
            sum(one.calls for one in parts),
            (sum(one.pairs[0] for one in parts), sum(one.pairs[1] for one in parts)),
            (sum(one.triples[0] for one in parts), sum(one.triples[1] for one in parts)),
            left_out,
        )


@dataclass(frozen=True)
class Planned:
    """One call of a plan.

    Attributes:
        call: The call.
        mode: Whether it is made on a sync or an async client.
        parameters: The level of each parameter, for the coverage and for reports.
        pages: The number of pages to read before, each by the cursor of the one before. The call's own `after` is the
            cursor of the last of them; if that is None, the call is not made.
        sensitive: The parts of the scope and the arguments that change the answer: without any one of them it would
            be another. For the choice of calls and for reports.
    """

    call: Call
    mode: Mode
    parameters: Mapping[str, str]
    pages: int = 0
    sensitive: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """Calls, and what they cover."""

    calls: tuple[Planned, ...]
    coverage: Coverage


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operation with the names of its levels.

    Attributes:
        name: The name.
        levels: The names of the levels.
        alone: Levels that hide what else a call does, such as a filter that matches nothing. A call has at most one.
        dear: The cost of a level: among levels that cover as much, the cheapest is taken.
    """

    name: str
    levels: tuple[str, ...]
    alone: frozenset[str] = frozenset()
    dear: Mapping[str, float] = field(default_factory=dict)


Pair = tuple[tuple[str, str], tuple[str, str]]
"""Two levels of two parameters: ((parameter, level), (parameter, level))."""
Forbidden = Mapping[Pair, str]
"""Pairs that no call has, each with the reason."""
Watch = Callable[[str], None]
"""Receives the progress of the drawing of calls, which takes a minute on a busy machine."""


class Space:
    """The levels of all parameters of one operation, numbered through, and which of them may occur together."""

    def __init__(self, parameters: Sequence[Parameter], forbidden: Forbidden) -> None:
        self.parameters = tuple(parameters)
        self.numbers = {(one.name, level): 0 for one in parameters for level in one.levels}
        for number, key in enumerate(self.numbers):
            self.numbers[key] = number
        self.owner = np.array([place for place, one in enumerate(parameters) for _ in one.levels])
        self.starts = np.cumsum([0, *(len(one.levels) for one in parameters)])
        size = len(self.numbers)
        possible = np.ones((size, size), bool)
        alone = np.array([level in one.alone for one in parameters for level in one.levels])
        possible &= ~np.logical_and.outer(alone, alone)
        for (first, second), _ in forbidden.items():
            if first in self.numbers and second in self.numbers:
                a, b = self.numbers[first], self.numbers[second]
                possible[a, b] = possible[b, a] = False
        same = np.equal.outer(self.owner, self.owner)
        self.possible: NDArray[np.bool_] = possible & ~same
        self.dear = np.array([one.dear.get(level, 0.0) for one in parameters for level in one.levels])

    def names(self, row: Sequence[int]) -> dict[str, str]:
        """Return the levels of *row*, by parameter."""
        return {
            one.name: one.levels[number - start]
            for one, number, start in zip(self.parameters, row, self.starts, strict=False)
        }


def unwatched(_: str) -> None:
    """Do nothing with the progress."""


def watched(method: str, rows: Sequence[Mapping[str, str]], watch: Watch) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the rows of *method* with their numbers, and report each to *watch*."""
    for number, row in enumerate(rows):
        watch(f"{method}, {number:,} of {len(rows):,}")
        yield number, row


def rows_of(space: Space, seed: int, most: int | None = None, tries: int = 3) -> list[list[int]]:
    """Return rows of level numbers, one per parameter, that cover every possible pair of *space*.

    With *most*, it stops after that number of rows, which are those that cover most pairs.
    """
    rng = np.random.default_rng(seed)
    open_pairs = space.possible.copy()
    count = len(space.parameters)
    rows: list[list[int]] = []
    while True:
        left = open_pairs.sum(axis=1)
        if not left.any() or len(rows) == most:
            return rows
        best: list[int] = []
        best_gain = -1.0
        for _ in range(tries):
            row = _row(space, open_pairs, left, rng, count)
            if row is None:
                continue
            gain = float(open_pairs[np.ix_(row, row)].sum()) / 2 - float(space.dear[row].sum()) * 0.01
            if gain > best_gain:
                best, best_gain = row, gain
        if not best or not open_pairs[np.ix_(best, best)].any():
            first, second = divmod(int(np.flatnonzero(open_pairs)[0]), len(open_pairs))
            raise ValueError(f"no row can hold the pair of {_named(space, first)} and {_named(space, second)}")
        open_pairs[np.ix_(best, best)] = False
        rows.append(best)


def _named(space: Space, number: int) -> str:
    return " = ".join(next(key for key, one in space.numbers.items() if one == number))


def _row(
    space: Space, open_pairs: NDArray[np.bool_], left: NDArray[np.int_], rng: np.random.Generator, count: int
) -> list[int] | None:
    """Build one row around an open pair; None if the constraints leave a parameter without a level."""
    weights = left - space.dear * 0.5 + rng.random(len(left))
    weights[left == 0] = -np.inf
    first = int(np.argmax(weights))
    partners = np.flatnonzero(open_pairs[first])
    second = int(partners[np.argmax(left[partners] - space.dear[partners] * 0.5 + rng.random(len(partners)))])
    chosen = {int(space.owner[one]): one for one in (first, second)}
    allowed = space.possible[first] & space.possible[second]
    gain = open_pairs[first].astype(np.float64) + open_pairs[second] - space.dear * 0.01
    tie = rng.random(len(left)) * 0.5
    rest = [place for place in rng.permutation(count).tolist() if place not in chosen]
    while rest:
        # Levels without an open pair get a small share, so that what is cheap fills the row.
        value = np.where(allowed, gain + tie + left * 1e-4, -np.inf)
        place = rest.pop()
        start, end = space.starts[place], space.starts[place + 1]
        best = int(start + np.argmax(value[start:end]))
        if value[best] == -np.inf:
            return None
        chosen[place] = best
        allowed &= space.possible[best]
        gain += open_pairs[best]
    return [chosen[place] for place in range(count)]


def measured(
    space: Space, rows: Sequence[Mapping[str, str]], scope: Sequence[str]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Count the pairs of *rows* against those of *space*, and the pairs with a parameter of *scope* among them.

    Returns:
        Two pairs of numbers: pairs covered and possible, and the triples (this operation, form of the scope, level).
    """
    names = [one.name for one in space.parameters]
    seen = {pair for row in rows for pair in combinations([(name, row[name]) for name in names if name in row], 2)}
    total = covered = scoped = scoped_covered = 0
    for (first, a), (second, b) in combinations(space.numbers.items(), 2):
        if not space.possible[a, b]:
            continue
        hit = (first, second) in seen
        total, covered = total + 1, covered + hit
        if first[0] in scope or second[0] in scope:
            scoped, scoped_covered = scoped + 1, scoped_covered + hit
    return (covered, total), (scoped_covered, scoped)
