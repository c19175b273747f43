"""Shrinks a difference to the few rows and calls that show it, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from vectoracl.model.records import Chunk
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.generated.calls import Call, Cut, Fault, Rules, Step, Together, calls_in, tenants
from vectoracl_conformance.generated.pair import Difference, Pair
from vectoracl_conformance.generated.reference import LoadError, Mode
from vectoracl_conformance.generated.sequences import Drawn, Walk
from vectoracl_conformance.isolated.process import OtherError

LIMIT = 20.0
"""The time for one difference, in seconds."""
Rows = Mapping[str, Sequence[Chunk]]
Steps = tuple[tuple[Mode, Step], ...]
Opening = Callable[[Rows], AbstractContextManager[Pair]]
"""Opens a fresh store and the reference, with some rows."""


@dataclass(frozen=True)
class Shrunk:
    """A difference with the rows and the steps that show it; `attempts` is the number of trials."""

    rows: Rows
    steps: Steps
    difference: Difference
    attempts: int


def replay(pair: Pair, steps: Steps) -> Difference | None:
    """Perform steps again. Returns: the first difference, or None."""
    walk, place = Walk(pair), 0
    while place < len(steps):
        mode, step = steps[place]
        match step:
            case Call():
                found = pair.perform([(mode, step)])
            case Fault(plan):
                place += 1
                following = steps[place][1] if place < len(steps) else None
                found = walk.step(Drawn("fault", mode, (following,), plan)) if isinstance(following, Call) else []
            case Cut(call, after):
                found = walk.step(Drawn("cut", mode, (call,), after))
            case Together(calls, width):
                found = walk.step(Drawn("together", mode, calls, width))
        if found:
            return found[0]
        place += 1
    return None


class Shrinker:
    """Tries fewer steps and rows, each time on a fresh store."""

    def __init__(self, opening: Opening, rules: Rules, limit: float = LIMIT) -> None:
        self._opening = opening
        self._rules = rules
        self._deadline = time.monotonic() + limit
        self.attempts = 0

    def shrink(self, rows: Rows, difference: Difference) -> Shrunk | None:
        """Return the smallest set that still differs; None if nothing shows it again on a fresh store."""
        best: Shrunk | None = None
        for steps in _suffixes(difference):
            best = self._try(rows, steps)
            if best is not None or self._late():
                break
        if best is None:
            return None
        best = self._fewer_rows(best)
        return Shrunk(best.rows, best.steps, best.difference, self.attempts)

    def _late(self) -> bool:
        return time.monotonic() > self._deadline

    def _try(self, rows: Rows, steps: Steps) -> Shrunk | None:
        self.attempts += 1
        try:
            with self._opening(rows) as pair:
                found = pair.compare_census() or replay(pair, steps)
        except (Abstain, LoadError, OtherError):
            return None
        return None if found is None else Shrunk(rows, steps, found, self.attempts)

    def _fewer_rows(self, best: Shrunk) -> Shrunk:
        """Try the tenants that are concerned, and then parts of their rows, half of them at first."""
        concerned: set[str] = set()
        for _, step in best.steps:
            for call in calls_in(step):
                concerned |= {call.principal.tenant, *tenants(call, self._rules)}
        best = self._try({name: one for name, one in best.rows.items() if name in concerned}, best.steps) or best
        pieces = [(tenant, chunk) for tenant, chunks in best.rows.items() for chunk in chunks]
        size, start = (len(pieces) + 1) // 2, 0
        while size and not self._late():
            found = self._try(_grouped(pieces[:start] + pieces[start + size :]), best.steps)
            if found is not None:
                best, pieces = found, pieces[:start] + pieces[start + size :]
            else:
                start += size
            if start >= len(pieces):
                size, start = size // 2, 0
        return best


def _grouped(pieces: Sequence[tuple[str, Chunk]]) -> Rows:
    rows: dict[str, list[Chunk]] = {}
    for tenant, chunk in pieces:
        rows.setdefault(tenant, []).append(chunk)
    return rows


def _suffixes(difference: Difference) -> Iterator[Steps]:
    """Yield the failing call alone, then with more and more of the steps before it."""
    own: Steps = () if difference.call is None else ((difference.mode, difference.call),)
    before = difference.before
    if before and before[-1:] == own:
        before = before[:-1]
    number = 0
    while True:
        yield (*before[len(before) - number :], *own)
        if number >= len(before):
            return
        number = min(len(before), max(1, number * 4))
