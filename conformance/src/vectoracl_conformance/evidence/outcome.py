"""The outcome of a grade of evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["passed", "failed", "abstained"]
Grade = Literal["E2v", "E2c", "E2s"]


@dataclass(frozen=True, slots=True)
class Graded:
    """One grade: the outcome, why, and the facts that it was made from (values that JSON can carry)."""

    grade: Grade
    outcome: Outcome
    reasons: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


def judged(grade: Grade, breaches: Sequence[str], doubts: Sequence[str], facts: Mapping[str, Any]) -> Graded:
    """Return the outcome: what was seen is a breach whatever is in doubt, and without doubt is the only pass."""
    if breaches:
        return Graded(grade, "failed", tuple(breaches), facts)
    if doubts:
        return Graded(grade, "abstained", tuple(doubts), facts)
    return Graded(grade, "passed", (), facts)
