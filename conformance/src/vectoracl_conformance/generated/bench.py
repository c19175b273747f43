"""Performs the generated calls on broken memory adapters, each in a copy of one process that has the world loaded."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vectoracl.adapter_api.contract import Capabilities
from vectoracl.model.actions import WRITE
from vectoracl_conformance.context.assertions import Abstain
from vectoracl_conformance.generated.calls import After, Call
from vectoracl_conformance.generated.comparison import Comparison, Outcome, shown
from vectoracl_conformance.generated.content import Census
from vectoracl_conformance.generated.covering import Plan, Planned
from vectoracl_conformance.generated.pair import Difference, Pair, runs, writes
from vectoracl_conformance.generated.parameters import plan_data, plan_reads, plan_writes
from vectoracl_conformance.generated.reference import LoadError, Mode, Reference, Side
from vectoracl_conformance.generated.sequences import Walk, drawn_changes, walk
from vectoracl_conformance.generated.simultaneous import rounds
from vectoracl_conformance.generated.world import Size, World, build_world
from vectoracl_conformance.harnesses.memory import census_text
from vectoracl_conformance.isolated.process import Far

_LIMIT = 20.0
_BATCH = 500
_GROUP = 12
_FIRST, _MOST = 16, 160
_METHODS: Mapping[str, Sequence[Collection[str]]] = {
    "search": ({"search", "search_many"},),
    "scan": ({"scan", "page"},),
    "upsert": ({"upsert", "load"},),
    "fetch": ({"fetch"}, {"search", "search_many", "scan", "page"}),
}
"""The methods of a handle that perform an operation, where they are not one of its name, the most direct ones first."""
_SETTINGS = {"adapter": "memory", "metric": "cosine", "name": "shelf"}


def timed(planned: Planned) -> tuple[Mode, Call]:
    """Return a planned call with its mode; the cursor that it continues from is found when it is made."""
    call = planned.call
    if planned.pages:
        call = replace(call, arguments={**call.arguments, "after": After(planned.pages)})
    return planned.mode, call


def groups(plan: Plan, size: int = _GROUP) -> Iterator[list[tuple[Mode, Call]]]:
    """Yield the calls of *plan* in its order, in groups that are followed by a census."""
    calls = [timed(one) for one in plan.calls]
    for start in range(0, len(calls), size):
        yield calls[start : start + size]


def _growing(plan: Plan) -> Iterator[list[tuple[Mode, Call]]]:
    """Yield the calls of *plan* in groups that grow: most broken adapters die soon, and each census takes time."""
    calls, start, size = [timed(one) for one in plan.calls], 0, _GROUP
    while start < len(calls):
        yield calls[start : start + size]
        start, size = start + size, min(2 * size, _MOST)


def _by_method(plan: Plan) -> Mapping[str, Plan]:
    """Divide writes by their method, each with the calls that lay out its rows."""
    parts: dict[str, list[Planned]] = {}
    before: list[Planned] = []
    method = ""
    for one in plan.calls:
        before.append(one)
        if "layout" not in one.parameters:
            method = one.call.method
            parts.setdefault(method, []).extend(before)
            before = []
    if before:
        parts.setdefault(method or before[-1].call.method, []).extend(before)
    return {name: replace(plan, calls=tuple(calls)) for name, calls in parts.items()}


@dataclass(frozen=True)
class Expected:
    """A group of calls with their right outcomes; `census` has the right rows after it, if it has a write."""

    group: Sequence[tuple[Mode, Call]]
    outcomes: Sequence[Outcome]
    census: Census | None = None

    def only(self, methods: Collection[str]) -> Expected:
        """Return the calls of *methods* alone, where none of the group is a write."""
        kept = [pair for pair in zip(self.group, self.outcomes, strict=True) if pair[0][1].method in methods]
        return Expected([call for call, _ in kept], [outcome for _, outcome in kept])


def memory_capabilities(dimension: int = 8) -> Capabilities:
    """Return the capabilities of the memory adapter, as its process declares them."""
    far = Far()
    try:
        side = Side(far, {**_SETTINGS, "dimension": dimension}, {}, {})
        side.open(provision=True)
        return side.capabilities()
    finally:
        far.close()


class Bench:
    """The memory store with a world, on which a broken adapter costs little more than the calls that it survives.

    Args:
        seed: The seed of the world and of the calls.
        size: The size of the world.
    """

    def __init__(self, seed: int, size: Size) -> None:
        capabilities = memory_capabilities()
        self.world: World = build_world(seed, capabilities, size=size, metrics=(capabilities.metric,))
        self.capabilities = replace(capabilities, dimension=self.world.dimension)
        expiring = replace(self.world, expiring=True)
        plans = [
            make(world, self.capabilities, size=size)
            for make, world in ((plan_reads, self.world), (plan_writes, self.world), (plan_data, expiring))
        ]
        self._reference = Reference(self.world.fields, self.world.rules, self.capabilities, self.world.more)
        self._reference.open()
        self._reference.load(self.world.tenants, _BATCH)
        self._start = self._reference.census()
        self._comparison = Comparison(self.capabilities, self._reference.wider, lambda: self._start.rows, words=True)
        self._reads = self._expected_reads(plans[0], random.Random(seed))  # noqa: S311 - a repeatable order
        self._writes = {method: self._expected_scene(plan) for method, plan in _by_method(plans[1]).items()}
        self._reference.expiring = True
        self._data = self._expected_scene(plans[2])
        self._reference.expiring = False
        reads = [timed(one)[1] for one in plans[0].calls]
        telling = [timed(one)[1] for one in plans[0].calls if one.sensitive] or reads
        changes = drawn_changes(self.world, reads)
        laid_out = rounds(self.world, plans[1].calls, whole=size == "full")
        self._steps = walk(self.world, telling, changes, laid_out, whole=size == "full")
        self._far: Far | None = None
        self._rows = self._start

    def _expected_reads(self, plan: Plan, rng: random.Random) -> list[Expected]:
        calls = [timed(one) for one in plan.calls]
        rng.shuffle(calls)
        expected, size = [], _FIRST
        while calls:
            group = sorted(calls[:size], key=lambda one: one[0])
            expected.append(Expected(group, _perform(self._reference, group)))
            calls, size = calls[size:], min(2 * size, _MOST)
        return expected

    def _expected_scene(self, plan: Plan) -> list[Expected]:
        expected = []
        with self._reference.branch():
            census = self._start
            for group in _growing(plan):
                outcomes = _perform(self._reference, group)
                changed = any(writes(call) for _, call in group)
                census = self._reference.census(census) if changed else census
                expected.append(Expected(group, outcomes, census if changed else None))
        return expected

    def kill(self, source: str, operation: str = "", *, steps: Collection[str] = ()) -> Difference | None:
        """Perform the calls on the memory adapter as *source* dresses it.

        Args:
            source: Text that defines `dress(opened)`.
            operation: The only operation that *source* performs otherwise, if there is one: calls of it come first, and
                those that cannot reach it are left out.
            steps: The only kinds of steps in which a fault shows that depends on failures or on calls at the same time.

        Returns:
            The first difference; None if there is none.
        """
        side = self._loaded()
        try:
            found = self._walk(side, source, operation, steps) if steps else None
            for scene in self._reaching(operation) if found is None else ():
                side.expiring = scene is self._data
                with side.branch(source):
                    found = self._first(side, scene)
                if found is not None:
                    break
            side.expiring = False
            return self._walk(side, source, operation) if found is None and not steps else found
        except (Abstain, LoadError) as error:
            self._drop()
            return Difference("sync", None, f"the process did not answer as agreed: {error}")
        except Exception as error:  # noqa: BLE001 - the adapter could not even be opened, or broke the driver
            self._drop()
            return Difference("sync", None, f"{type(error).__name__}: {error}")

    def _walk(self, side: Side, source: str, operation: str, kinds: Collection[str] = ()) -> Difference | None:
        """Walk through the steps of *kinds*, if there are any, which call *operation*, if there is one."""
        own = frozenset().union(*_METHODS.get(operation, ({operation},)))
        steps = [
            step
            for step in self._steps
            if (not kinds or step.kind in kinds) and (not operation or own & {call.method for call in step.calls})
        ]
        with self._reference.branch(), side.branch(source, faulty=True):
            comparison = Comparison(self.capabilities, self._reference.wider, lambda: pair.rows(), words=True)
            pair = Pair([side], self._reference, comparison)
            pair.begin(self._start, self._rows)
            try:
                return Walk(pair).perform(sorted(steps, key=lambda step: -len(step.calls)))
            finally:
                pair.close()

    def _reaching(self, operation: str) -> list[Sequence[Expected]]:
        """Return the scenes with calls that may reach *operation*, the most likely ones first."""
        if operation in WRITE:
            own = frozenset().union(*_METHODS.get(operation, ({operation},)))
            return [*(scene for name, scene in self._writes.items() if name in own), self._data]
        chosen = [self._only(methods) for methods in _METHODS.get(operation, ({operation},))] if operation else []
        return [*(chosen or [self._reads]), self._data, *self._writes.values()]

    def _only(self, methods: Collection[str]) -> list[Expected]:
        """Return the reads of *methods* alone."""
        return [one for one in (group.only(methods) for group in self._reads) if one.group]

    def _first(self, side: Side, scene: Sequence[Expected]) -> Difference | None:
        right, got = self._start, self._rows
        self._comparison.follow = lambda call: side.calls("sync", [call])[0]
        before: list[tuple[Mode, Any]] = []
        for one in scene:
            for (mode, call), expected, outcome in zip(one.group, one.outcomes, _perform(side, one.group), strict=True):
                problem = self._comparison.problem(call, expected, outcome)
                if problem is not None:
                    return Difference(mode, call, problem, shown(expected), shown(outcome), tuple(before))
                before.append((mode, call))
            if one.census is not None:
                census = side.census(got)
                problem = census.problem(one.census, self._comparison.precision, (right, got))
                if problem is not None:
                    return Difference(*one.group[-1], problem, before=tuple(before))
                right, got = one.census, census
        return None

    def _loaded(self) -> Side:
        """Return the process with the world, which is started when there is none."""
        if self._far is None:
            self._far = Far(limit=_LIMIT)
            side = self._side(self._far)
            self._far.ask("source", census_text(side.settings))
            side.open(provision=True)
            side.load(self.world.tenants, _BATCH)
            self._rows = side.census()
        return self._side(self._far)

    def _side(self, far: Far) -> Side:
        settings = {**_SETTINGS, "dimension": self.world.dimension}
        # What these adapters break, they break on the way: what is stored does not change in its place.
        return Side(far, settings, self.world.fields, self.world.rules, more=self.world.more, identical=True)

    def _drop(self) -> None:
        if self._far is not None:
            self._far.close()
            self._far = None

    def close(self) -> None:
        """End the processes."""
        self._drop()
        self._reference.end()


def _perform(side: Side, group: Sequence[tuple[Mode, Call]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for mode, calls, _ in runs(group):
        outcomes += side.calls(mode, calls)
    return outcomes
