"""C3: a walk of reads and writes by many principals, with failures, cancellations, other rules and calls in flight.

The calls are those of the plans, in another order. After a failure the next call is another principal's, and is
compared whole; after a write whose reply was lost, the store holds the old rows or the new ones and nothing between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vectoracl.errors import StoreError
from vectoracl.filters.predicate import F
from vectoracl.model.records import Chunk
from vectoracl_conformance.generated.calls import After, Call, Cut, Fault, Rules, Together
from vectoracl_conformance.generated.comparison import Outcome, error_of, shown
from vectoracl_conformance.generated.pair import Difference, Pair, writes
from vectoracl_conformance.generated.reference import Mode, Side, conflicted, late, unsent, writer
from vectoracl_conformance.generated.world import World
from vectoracl_conformance.verdict import MODES

_WIDTHS = (2, 3, 8, 19, 20, 21, 33, 64)
_FAULTS: tuple[dict[int, Any], ...] = (
    {1: "unknown"},
    {1: "after"},
    {1: "before"},
    {2: "before"},
    {2: "after"},
    {2: "unknown"},
    {1: "before", 2: "before", 3: "before"},
)
_CUTS = (0.0005, 0.002, 0.01, 0.05)
_WITHOUT_LIMIT = frozenset({"scan", "load"})
"""The methods that have no time limit as a whole."""
_AGAIN = {True: 20, False: 6}
"""How many reads are asked again by another principal and after a write, in a whole walk or a shorter one."""
_LATE = 0.25
"""How long a write may go on in the store after its caller has stopped waiting, in seconds."""


def drawn_changes(world: World, reads: Sequence[Call], count: int = 200) -> list[Call]:
    """Return writes by the principals of *reads*, with their scopes, and by principals that may write everything."""
    rng = random.Random(world.seed)  # noqa: S311 - repeatable
    full = [name for name, chunks in world.tenants.items() if chunks]
    changes = []
    for _ in range(count):
        tenant = rng.choice(full)
        call = Call(writer(tenant), "upsert")
        if rng.random() < 0.5:
            call = rng.choice([one for one in reads if one.principal.tenant in full])
        method, arguments = _change(rng, world.tenants[call.principal.tenant], call)
        changes.append(replace(call, method=method, arguments=arguments))
    return changes


def _change(rng: random.Random, chunks: Sequence[Chunk], call: Call) -> tuple[str, dict[str, Any]]:
    """Return the method and the arguments of one write to a tenant that has *chunks*."""
    some = rng.sample(chunks, min(len(chunks), rng.choice((1, 2, 3, 30))))
    document = some[0].document
    match rng.choice(("upsert", "upsert", "replace", "replace", "ids", "pairs", "document", "where")):
        case "upsert":
            return "upsert", {"chunks": [_mixed(rng, chunks, one) for one in some]}
        case "replace":
            own = [one for one in chunks if one.document == document][: rng.choice((0, 1, 3))]
            return "replace", {"document": document, "chunks": [_mixed(rng, chunks, one) for one in own]}
        case "ids":
            return "delete", {"ids": [one.id for one in some]}
        case "pairs":
            return "delete", {"ids": [(one.document, one.id) for one in some]}
        case "document":
            return "delete", {"document": document}
        case _:
            return "delete", {"where": call.arguments.get("where", F["@document"] == document)}


def _mixed(rng: random.Random, chunks: Sequence[Chunk], one: Chunk) -> Chunk:
    """Return *one* with the content of others, or under a new id."""
    other = rng.choice(chunks)
    id_ = one.id if rng.random() < 0.6 else f"{other.id[:200]}{rng.randrange(1000)}"
    return replace(other, id=id_, document=one.document, metadata=rng.choice(chunks).metadata)


@dataclass(frozen=True)
class Drawn:
    """One drawn step of a walk: its kind, the mode and the calls."""

    kind: str
    mode: Mode
    calls: tuple[Call, ...]
    detail: Any = None


def walk(seed: int, reads: Sequence[Call], changes: Sequence[Call], rules: Rules, *, whole: bool) -> list[Drawn]:
    """Return the steps of one walk.

    Every method meets every kind of failure and cancellation, and is then called by another principal. The order is
    drawn.

    Args:
        seed: The seed.
        reads: Reads to choose from.
        changes: Writes to choose from.
        rules: The policy's table.
        whole: Whether also the second and third request of a call fail, and every time and number of calls is taken.
    """
    rng = random.Random(seed)  # noqa: S311 - a repeatable order
    by_method: dict[str, list[Call]] = {}
    for call in (*reads, *changes):
        by_method.setdefault(call.method, []).append(call)
    steps: list[Drawn] = []

    def add(kind: str, detail: Any, *calls: Call) -> None:
        steps.append(Drawn(kind, rng.choice(MODES), calls, detail))

    for own in by_method.values():
        for fault in _FAULTS if whole else _FAULTS[:3]:
            add("fault", fault, _first(rng.choice(own)), rng.choice(own), rng.choice(own), rng.choice(reads))
        for after in _CUTS if whole else rng.sample(_CUTS, 1):
            if own[0].method not in _WITHOUT_LIMIT:
                add("cut", after, _first(rng.choice(own)), rng.choice(own), rng.choice(reads))
        add("rules", _changed(rng, one := rng.choice(own), rules), one, *rng.choices(reads, k=2))
        for _ in range(4 if writes(own[0]) else 1):
            add("calls", None, *rng.choices(own, k=2), *rng.choices(reads, k=2))
    for call in rng.sample(reads, min(len(reads), _AGAIN[whole])):
        add("calls", None, *_asked_again(rng, call, reads, changes))
    for width in _WIDTHS if whole else (3, 12, 21, 64):
        for number in (0, 4, 30) if whole and width > 32 else (0, 4):
            some = rng.sample(changes, min(len(changes), number))
            add("together", width, *some, *rng.choices(reads, k=width))
    for own in by_method.values() if whole else ():
        if not writes(own[0]):
            add("together", max(_WIDTHS), *rng.choices(own, k=max(_WIDTHS)))
    rng.shuffle(steps)
    return steps


def _asked_again(rng: random.Random, call: Call, reads: Sequence[Call], changes: Sequence[Call]) -> Sequence[Call]:
    """Return *call*, the same question of another principal of the tenant, a write there, and both again."""
    tenant = call.principal.tenant
    others = [one for one in reads if one.principal.tenant == tenant and one.principal != call.principal]
    writing = [one for one in changes if one.principal.tenant == tenant]
    other = rng.choice(others or [call])
    asked = (call, replace(call, principal=other.principal, narrowings=other.narrowings))
    return (*asked, *rng.sample(writing, min(len(writing), 1)), *asked)


def _first(call: Call) -> Call:
    """Return the call for the first page: the requests for the pages before would meet the failure."""
    return replace(call, arguments={name: one for name, one in call.arguments.items() if not isinstance(one, After)})


def _changed(rng: random.Random, call: Call, rules: Rules) -> Rules:
    """Return other rules for the principal of *call*: those of another one, none, or the tenant's."""
    name = call.principal.id
    choice = rng.random()
    if choice < 0.3 or not rules:
        return {name: {}}
    return {name: rules[rng.choice(sorted(rules))]}


def tenants(call: Call, rules: Rules) -> frozenset[str]:
    """Return the tenants whose rows the call may concern."""
    table = rules.get(call.principal.id)
    if table is None:
        return frozenset({call.principal.tenant})
    return frozenset(table.get(call.action, {}))


class Walk:
    """Performs the steps of a walk on a pair of stores."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self._steps: dict[str, Callable[[Drawn], list[Difference]]] = {
            "calls": self._calls,
            "fault": self._fault,
            "cut": self._cut,
            "together": self._together,
            "rules": self._rules,
        }

    def perform(self, steps: Iterable[Drawn]) -> Difference | None:
        """Perform steps until one differs. Returns: the difference, or None."""
        for step in steps:
            found = self.step(step)
            if found:
                return found[0]
        return None

    def step(self, step: Drawn) -> list[Difference]:
        """Perform one step. Returns: what differs."""
        return self._steps[step.kind](step)

    def _calls(self, step: Drawn) -> list[Difference]:
        return self.pair.perform([(step.mode, call) for call in step.calls])

    def _rules(self, step: Drawn) -> list[Difference]:
        pair = self.pair
        before = pair.reference.rules
        for side in (pair.reference, *pair.sides):
            side.rules = {**before, **step.detail}
        named = next(iter(step.detail))
        concerned = [call for call in step.calls if call.principal.id == named]
        found = pair.perform([(step.mode, call) for call in (*concerned, *step.calls)])
        for side in (pair.reference, *pair.sides):
            side.rules = before
        return found or pair.perform([(step.mode, call) for call in concerned])

    def _fault(self, step: Drawn) -> list[Difference]:
        pair, (call, *others) = self.pair, step.calls
        pair.history.append((step.mode, Fault(step.detail)))
        pair.store.fail(step.mode, step.detail)
        try:
            (got,) = pair.store.attempt(step.mode, call)
        finally:
            pair.store.fail(step.mode, {})
        found = self._uncertain(step.mode, call, got, first=1 in step.detail)
        return found or pair.perform([(step.mode, one) for one in others])

    def _cut(self, step: Drawn) -> list[Difference]:
        pair, (call, *others) = self.pair, step.calls
        pair.history.append((step.mode, Cut(call, step.detail)))
        got = pair.store.cut(step.mode, call, step.detail)
        found: list[Difference] = []
        if not writes(call):
            return self._uncertain(step.mode, call, got) or pair.perform([(step.mode, one) for one in others])
        if got[0] != "ok":
            time.sleep(_LATE if pair.store.read_census is not None else 0.02)
        found = self._uncertain(step.mode, call, got)
        return found or pair.perform([(step.mode, one) for one in others])

    def _uncertain(self, mode: Mode, call: Call, got: Outcome, *, first: bool = False) -> list[Difference]:
        """Judge a call that may have failed on the way: a success is right, and a failure is the store's.

        *first*: the first request failed, so an error that says that nothing was sent has to be right.
        """
        pair = self.pair
        if not writes(call):
            (right,) = pair.reference.calls(mode, [call])
            return [] if _failure(got) else pair.judge(mode, [call], [right], [got])
        if got[0] == "ok":
            right = pair.reference.calls(mode, [call])[0]
            return pair.judge(mode, [call], [right], [got]) or _some(pair.compare_census(mode, call))
        if not _failure(got):
            return self._refused(mode, call, got)
        return self._either(mode, call, got, certain=first and got[0] == "error" and got[1][3].get("sent") == "no")

    def _refused(self, mode: Mode, call: Call, got: Outcome) -> list[Difference]:
        right = self.pair.reference.calls(mode, [call])[0]
        return self.pair.judge(mode, [call], [right], [got]) or _some(self.pair.unchanged(mode, call))

    def _either(self, mode: Mode, call: Call, got: Outcome, *, certain: bool) -> list[Difference]:
        """Demand that a failed write left the old rows or made the new ones."""
        pair = self.pair
        pair.history.append((mode, call))
        if pair.is_unchanged():
            return []
        before = self._view(pair.reference, call)
        pair.reference.calls(mode, [call])
        difference = pair.compare_census(mode, call)
        if difference is None:
            problem = f"it was performed, and reports that it was not: {shown(got)}"
            return [pair.difference(mode, call, problem)] if certain else []
        if _whole(pair, call) and not self._seen_whole(call, before):
            problem = f"after {shown(got)}, the rows are neither the old ones nor the new ones: {difference.problem}"
            return [replace(difference, problem=problem)]
        # What readers see is right. The rows that a broken-off write left are replaced when a program writes again.
        (again,) = pair.store.calls(mode, [call])
        if again[0] == "error":
            return [pair.difference(mode, call, f"after a failed write it cannot be made again: {shown(again)}")]
        pair.reference.calls(mode, [call])
        return _some(pair.compare_census(mode, call))

    def _view(self, side: Side, call: Call) -> Outcome:
        """Return the rows that a reader of the tenant sees."""
        include = {"include": {"text", "metadata", "vector"}}
        return side.calls("sync", [Call(writer(call.principal.tenant), "scan", include)])[0]

    def _seen_whole(self, call: Call, before: Outcome) -> bool:
        """Return whether readers of the store see the rows before the write, or those after it."""
        pair = self.pair
        got, after = self._view(pair.store, call), self._view(pair.reference, call)
        scan = Call(writer(call.principal.tenant), "scan")
        return any(pair.comparison.problem(scan, right, got) is None for right in (before, after))

    def _together(self, step: Drawn) -> list[Difference]:
        pair = self.pair
        changes, reads = self._independent(step.calls)
        calls = [*changes, *reads]
        pair.history.append((step.mode, Together(tuple(calls), step.detail)))
        got = pair.store.together(step.mode, calls, step.detail)
        for place, (call, one) in enumerate(zip(calls, got, strict=True)):
            if conflicted(one) or late(one, call) or unsent(one):
                got[place] = pair.store.calls(step.mode, [call])[0]
        done, seen = got[: len(changes)], got[len(changes) :]
        found = pair.judge(step.mode, reads, pair.reference.calls(step.mode, reads), seen)
        if changes:
            doubtful = {id(one.call): one for one in found}
            found = pair.judge(step.mode, changes, pair.reference.calls(step.mode, changes), done)
            later = [place for place, call in enumerate(reads) if id(call) in doubtful]
            again = [reads[place] for place in later]
            right = pair.reference.calls(step.mode, again)
            found += pair.judge(step.mode, again, right, [seen[place] for place in later])
            found += _some(pair.compare_census(step.mode, changes[-1]))
        return found

    def _independent(self, calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
        """Return writes that concern different tenants, and reads that concern at most one of those writes each."""
        rules = self.pair.reference.rules
        changes: list[Call] = []
        touched: list[frozenset[str]] = []
        for call in filter(writes, calls):
            own = tenants(call, rules)
            if not any(own & other for other in touched):
                changes.append(call)
                touched.append(own)
        reads = [call for call in calls if not writes(call)]
        return changes, [call for call in reads if sum(bool(tenants(call, rules) & one) for one in touched) < 2]


def _failure(got: Outcome) -> bool:
    """Return whether the outcome is a failure of the store, or a cancellation."""
    return got[0] == "cut" or (got[0] == "error" and error_of(got)[0] == StoreError.__name__)


def _whole(pair: Pair, call: Call) -> bool:
    """Return whether the store declares that such a write happens as a whole or not at all."""
    can = pair.comparison.capabilities
    if call.method == "replace":
        return can.atomic_replace
    return can.atomic_upsert


def _some(difference: Difference | None) -> list[Difference]:
    return [] if difference is None else [difference]
