"""What a look at a store's real posture found: data that the command line, `check()` and start-up share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A stable rule of an adapter's posture check.

    `id` never changes its meaning (for example "PG001"). `lowers` is True where a finding of this rule means that
    the store does not reach the isolation grade that the adapter claims, so that start-up has to refuse.
    """

    id: str
    title: str
    severity: Severity
    lowers: bool
    explanation: str


class Rules(dict[str, Rule]):
    """The rules of an adapter, by their ids."""

    def add(self, id_: str, title: str, severity: Severity, explanation: str, *, lowers: bool) -> Rule:
        """Make a rule, keep it and return it."""
        self[id_] = Rule(id_, title, severity, lowers, explanation)
        return self[id_]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it has to be: where (`subject`), what (`message`), and what mends it (`fix`)."""

    rule: Rule
    subject: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Posture:
    """How a store is really configured: the isolation grade that was found, and every finding.

    `grade` is one of "none", "predicate", "partition", "engine", "credential" (weakest first). `facts` holds what
    was read (versions, role, counts), as strings, for people and reports.
    """

    grade: str
    findings: tuple[Finding, ...]
    facts: tuple[tuple[str, str], ...] = ()
