"""Runs one mutant, in the worker process.

Its own check runs first, alone and on a fresh store; if it kills the mutant, the result is final. Otherwise, and always
for the complete matrix, all checks run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vectoracl_conformance.context.perform import Options
from vectoracl_conformance.grades.grading import WIRE_GRADES, Grading, engine_grade, wire_grades
from vectoracl_conformance.harness import Harness, Mutant, Needs
from vectoracl_conformance.mutants import GENERAL
from vectoracl_conformance.running.run_checks import MutantResult, run_mutant

BY_GRADE = (*WIRE_GRADES, "E3")


def known(harness: Harness, names: list[str]) -> list[Mutant]:
    """Return the mutants of *names* (of mutants or of checks; none: all) that this harness can have."""
    mutants = [one for one in (*GENERAL, *harness.mutants()) if not names or {one.name, one.expected} & set(names)]
    if any("weakenings" in one.needs for one in mutants) and not _weakenings(harness):
        return [one for one in mutants if "weakenings" not in one.needs]
    return mutants


def _weakenings(harness: Harness) -> bool:
    from vectoracl_conformance.context.corpus import DIMENSION, FIELDS

    store = harness.fresh(Needs(DIMENSION, FIELDS))
    try:
        return bool(store.weakenings())
    finally:
        store.close()


def kill(harness: Harness, mutant: Mutant, options: Options, *, whole: bool) -> MutantResult:
    """Try to kill *mutant*. *whole*: by everything that might, a grade's mutant by the checks too."""
    by_grade = mutant.expected in BY_GRADE
    if not whole:
        first = _graded(harness, mutant, options) if by_grade else _checked(harness, mutant, options, mutant.expected)
        if first.right:
            return first
    kills = [_checked(harness, mutant, options)]
    if by_grade:
        kills.append(_graded(harness, mutant, options, whole=True))
    return replace(
        kills[0],
        killed_by=tuple(one for result in kills for one in result.killed_by),
        reasons=tuple(one for result in kills for one in result.reasons),
    )


def _checked(harness: Harness, mutant: Mutant, options: Options, *only: str) -> MutantResult:
    return run_mutant(harness, mutant, replace(options, only=frozenset(only)))


def _graded(harness: Harness, mutant: Mutant, options: Options, *, whole: bool = False) -> MutantResult:
    failed = [one for one in _gradings(harness, mutant, options, whole=whole) if one.state == "failed"]
    reasons = tuple(f"{one.grade}: {one.reason}" for one in failed)
    return MutantResult(mutant.name, mutant.breaks, mutant.expected, tuple(one.grade for one in failed), reasons)


def _gradings(harness: Harness, mutant: Mutant, options: Options, *, whole: bool) -> Iterator[Grading]:
    if whole or mutant.expected != "E3":
        yield from wire_grades(harness, options, mutant)
    if whole or mutant.expected == "E3":
        yield engine_grade(harness, options, mutant)
