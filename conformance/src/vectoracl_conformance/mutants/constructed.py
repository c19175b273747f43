"""Constructed mutants: broken adapters that are made mechanically, each as the text of a program.

A mutant performs one operation wrongly whenever a trigger holds; its name says both, such as "search: k>100: scope".
All operations, triggers and losses are joined unless a rule excludes the pair because no caller could observe it
(`excluded`) or because a sample suffices (`sampled`). Survivors never lead to a rule.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vectoracl.adapter_api.operations import OPERATIONS, Fetch, Operation, Replace, Scan, Search, Upsert
from vectoracl_conformance.mutants.losses import LOSSES, ROW_LOSSES, Loss, changes, row_losses
from vectoracl_conformance.mutants.triggers import Trigger, row_triggers, triggers

_STEPS = {
    "in flight": ("together", "laid out"),
    "after a failure": ("fault",),
    "after a cancellation": ("cut",),
    "after a denied": ("calls",),
}


@dataclass(frozen=True, slots=True)
class Constructed:
    """One constructed mutant.

    Attributes:
        operation: The operation's method.
        trigger: When the adapter does wrong.
        loss: What is lost then.
        lines: The lines of Python that follow the text of `altered`.
        dimension: The number of components that vectors must have more of; 0: any.
    """

    operation: str
    trigger: str
    loss: str
    lines: str
    dimension: int = 0

    @property
    def steps(self) -> Sequence[str]:
        """The kinds of steps of a walk in which the trigger may hold; () if it depends on nothing but calls."""
        return next((kinds for start, kinds in _STEPS.items() if self.trigger.startswith(start)), ())

    @property
    def name(self) -> str:
        """The name, which stays the same from run to run."""
        return f"{self.operation}: {self.trigger}: {self.loss}"

    @property
    def source(self) -> str:
        """The text of a program that defines `dress(opened)` and uses only the library."""
        return f"{_base()}\n\n{self.lines}"


@cache
def _base() -> str:
    return Path(__file__).with_name("altered.py").read_text(encoding="utf-8")


def excluded(trigger: Trigger, loss: Loss) -> str:
    """Return the reason why a caller cannot observe *loss* where *trigger* holds; "" if it may be observed.

    A part that is absent where the trigger holds cannot be lost, for example a text that was not asked for.
    """
    missing = sorted(loss.needs & trigger.without)
    if missing:
        return f"there is no {missing[0]}"
    if "included" in loss.needs and {"text", "metadata", "vector"} <= trigger.without:
        return "nothing is included"
    if "hybrid" in loss.needs and trigger.name in ("by vector", "lexical", "min_score"):
        return "the query is not hybrid"
    if loss.name == "min_score" and trigger.name == "hybrid":
        return "the core refuses a lowest score of fused scores"
    return ""


_TURNS = {"wall": 3, "rows": 1, "order": 1, "fields": 1, "counts": 1, "argument": 1}
_ROW_TURNS = 4


def sampled(operation: type[Operation], trigger: Trigger, place: int) -> list[Loss]:
    """Return the losses of *operation* that are joined with *trigger*, which is number *place* of its triggers.

    Every loss is joined with the trigger "always", and every wall with those of arguments. Otherwise the losses of each
    group take turns.
    """
    possible = [one for one in LOSSES[operation] if not excluded(trigger, one)]
    if trigger.kind == "always":
        return possible
    chosen = [one for one in possible if one.group == "wall" and trigger.kind == "argument"]
    for group, count in _TURNS.items():
        members = [one for one in possible if one.group == group]
        for turn in range(min(count, len(members))):
            chosen.append(members[(place * count + turn) % len(members)])
    return list(dict.fromkeys(chosen))


def _of_operations() -> Iterator[Constructed]:
    for operation, kind in OPERATIONS.items():
        for place, trigger in enumerate(triggers(operation)):
            for loss in sampled(operation, trigger, place):
                due = trigger.test if "or" not in loss.needs else f"isinstance(o.scope, Or) and ({trigger.test})"
                yield _constructed(operation, kind.method, trigger, loss, due)


def _of_predicates() -> Iterator[Constructed]:
    """Yield mutants that compile one part of a predicate wrongly: always, and where an argument is given."""
    for operation, kind in OPERATIONS.items():
        operands = [name for name in ("scope", "where") if name in operation.__dataclass_fields__]
        for operand in operands:
            for place, (node, loss) in enumerate(changes(operand)):
                usable = [one for one in triggers(operation) if not excluded(one, loss)]
                arguments = [one for one in usable if one.kind == "argument" and "without" not in one.name]
                states = [one for one in usable if one.kind == "state"]
                always = [one for one in usable if one.kind == "always"]
                turns = [many[place % len(many)] for many in (arguments, states) if many]
                for trigger in dict.fromkeys((*always, *turns)):
                    due = f"has(o.{operand}, {node}) and ({trigger.test})"
                    yield _constructed(operation, kind.method, trigger, loss, due)


def _constructed(operation: type[Operation], method: str, trigger: Trigger, loss: Loss, due: str) -> Constructed:
    lines = [f"OPERATION = {operation.__name__!r}", f"DUE = lambda s, o: {due}", f"LOST = {loss.flow}"]
    if trigger.latency:
        lines.append(f"LATENCY = {trigger.latency}")
    return Constructed(method, trigger.name, loss.name, "\n".join(lines) + "\n", trigger.dimension)


def _of_rows() -> Iterator[Constructed]:
    for operation in (Search, Fetch, Scan, Upsert, Replace):
        for place, trigger in enumerate(row_triggers(operation)):
            every = list(row_losses(trigger.name))
            for loss in dict.fromkeys(
                (
                    *every[len(ROW_LOSSES) :],
                    *(every[(place * 2 + turn) % len(ROW_LOSSES)] for turn in range(_ROW_TURNS)),
                )
            ):
                lines = (
                    f"OPERATION = {operation.__name__!r}\nDUE = lambda s, o: True\n"
                    f"ROW = lambda r: {trigger.test}\nLOST = {loss.flow}\n"
                )
                yield Constructed(OPERATIONS[operation].method, f"row.{trigger.name}", loss.name, lines)


CONTROL = Constructed("", "never", "nothing", "LATENCY = 0.0\n")
"""An adapter in which nothing is broken; a run that kills it measures nothing."""


@cache
def constructed() -> tuple[Constructed, ...]:
    """Return every constructed mutant, in a stable order, each name once."""
    everything = (*_of_operations(), *_of_predicates(), *_of_rows())
    return tuple({one.name: one for one in everything}.values())


def drawn(seed: int, count: int) -> Sequence[Constructed]:
    """Return *count* of the constructed mutants, by *seed*."""
    return random.Random(seed).sample(constructed(), count)  # noqa: S311 - repeatable, and no secret
