"""Writes of several principals at the same time, each to the rows that were laid out for it.

A write that is wrong only next to others shows only if its own scope decides what it does. The plan of the writes has
such calls, of every form of the scope, each with the rows on which the scope matters.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vectoracl_conformance.generated.calls import Call, tenants
from vectoracl_conformance.generated.covering import Planned
from vectoracl_conformance.generated.pair import added, writes
from vectoracl_conformance.generated.world import World

_LAID = 100
"""The most rows that are laid out for one of the writes."""
_WRITES = 16
"""The most writes at the same time: as many reads as fit are in flight before them."""
_ROUNDS = {True: 6, False: 1}
"""How often writes are made at the same time in a whole walk, or in a shorter one."""


@dataclass(frozen=True)
class Round:
    """Writes that concern different tenants, after those that lay out their rows."""

    laid: tuple[Call, ...]
    writes: tuple[Call, ...]


@dataclass(frozen=True)
class _Unit:
    """A write with those that lay out its rows."""

    laid: tuple[Call, ...]
    write: Call


def _units(planned: Sequence[Planned]) -> Iterator[_Unit]:
    """Yield the writes that have rows laid out for them alone."""
    laid: list[Call] = []
    for one in planned:
        if "layout" in one.parameters:
            laid.append(one.call)
            continue
        if laid and sum(len(added(call)) for call in laid) <= _LAID:
            yield _Unit(tuple(laid), one.call)
        laid = []


def rounds(world: World, planned: Sequence[Planned], *, whole: bool) -> list[Round]:
    """Return writes to make at the same time.

    Args:
        world: The rows and the policy's table.
        planned: The plan of writes, from which they are drawn.
        whole: Whether many are needed.
    """
    units = list(_units([one for one in planned if writes(one.call)]))
    random.Random(world.seed).shuffle(units)  # noqa: S311 - repeatable
    made: list[Round] = []
    while units and len(made) < _ROUNDS[whole]:
        chosen, units = _apart(world, units)
        made.append(Round(tuple(call for one in chosen for call in one.laid), tuple(one.write for one in chosen)))
    return made


def _apart(world: World, units: Sequence[_Unit]) -> tuple[list[_Unit], list[_Unit]]:
    """Return units whose tenants differ, at most `_WRITES`, and the others."""
    chosen: list[_Unit] = []
    rest: list[_Unit] = []
    touched: set[str] = set()
    for unit in units:
        own = {name for call in (*unit.laid, unit.write) for name in tenants(call, world.rules)}
        if touched & own or len(chosen) == _WRITES:
            rest.append(unit)
        else:
            touched |= own
            chosen.append(unit)
    return chosen, rest
