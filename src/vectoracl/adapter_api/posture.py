"""The actual posture of a store and its findings, as data shared by the command line, `check()` and `connect`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A stable rule of an adapter's posture check.

    Attributes:
        id: The rule's id, for example "PG001". Its meaning never changes.
        title: A short title.
        severity: "error", "warning" or "note".
        lowers: Whether a finding means that the store does not reach the isolation grade that the adapter claims, so
            that `connect` refuses it.
        explanation: A text for people.
    """

    id: str
    title: str
    severity: Severity
    lowers: bool
    explanation: str

    @property
    def page(self) -> str:
        """The place in the documentation; empty for the rules of third-party adapters."""
        return f"rules.md#{self.id.lower()}" if self.id[:2] in PREFIXES else ""


PREFIXES: Mapping[str, str] = MappingProxyType(
    {"VA": "vectoracl", "PG": "pgvector", "QD": "qdrant", "WV": "weaviate", "PC": "pinecone"}
)
"""The prefixes of rule ids, and the adapters that they belong to."""


class Rules(dict[str, Rule]):
    """The rules of an adapter, by their ids."""

    def add(self, id_: str, title: str, severity: Severity, explanation: str, *, lowers: bool) -> Rule:
        """Create a rule, add it and return it."""
        self[id_] = Rule(id_, title, severity, lowers, explanation)
        return self[id_]


@dataclass(frozen=True, slots=True)
class Finding:
    """One deviation from the required configuration.

    Attributes:
        rule: The rule that it breaks.
        subject: Where it is, for example the name of a table.
        message: What is wrong.
        fix: The statement or the step that fixes it.
    """

    rule: Rule
    subject: str
    message: str
    fix: str


@dataclass(frozen=True, slots=True)
class Posture:
    """The actual configuration of a store: its isolation grade and its findings.

    Attributes:
        grade: "none", "predicate", "partition", "engine" or "credential" (weakest first).
        findings: The deviations from the required configuration.
        facts: Facts that were read (versions, role, counts) as pairs of str, for people and reports.
        script: Statements that fix the findings, in order, as (title, text) pairs, if the store can be changed by a
            script; several postures can share a part.
        embedder: The identity of the embedder that is noted in the store; None if there is none.
        registry: The id of the registry that governs the store, as it is marked in the store; None if it has no mark.
        accepted: Findings that the configuration accepts, each with its reason. They do not lower the grade and are not
            in `findings`.
    """

    grade: str
    findings: tuple[Finding, ...]
    facts: tuple[tuple[str, str], ...] = ()
    script: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    embedder: str | None = None
    accepted: tuple[tuple[Finding, str], ...] = ()
    registry: str | None = None

    @property
    def acceptances(self) -> tuple[str, ...]:
        """The accepted findings with their reasons, one line each, as in reports and audit records."""
        return tuple(f"{finding.rule.id} {finding.subject}: {reason}" for finding, reason in self.accepted)


CORE_RULES = Rules()
MINIMUM_GRADE = CORE_RULES.add(
    "VA001",
    "The store does not reach the minimum grade",
    "error",
    "The configuration demands an isolation grade (`minimum_grade`) that the store does not reach as it is set up now, "
    "so `connect` refuses to open it. Either another finding lowers the grade, or the adapter cannot reach it at all.",
    lowers=False,
)


EMBEDDER = CORE_RULES.add(
    "VA002",
    "The configured embedder is not the one whose vectors the store holds",
    "error",
    "Vectors of two embedders cannot be compared, even if they have the same length: searches would not find the right "
    "chunks. Texts are refused, for reading and for writing, before they are embedded. Vectors that the caller passes "
    "are not checked.",
    lowers=False,
)
REGISTRY_ROLE = CORE_RULES.add(
    "VA003",
    "The role of the registry could get around its row-level security",
    "error",
    "A registry in PostgreSQL is separated by tenants with forced row-level security. It does not bind a superuser or "
    "a role with BYPASSRLS, an owner can switch it off, CREATEROLE may become one of these before PostgreSQL 16, and "
    "REPLICATION and the predefined roles for data, files and programs of the server read without policies or reach "
    "past grants. So the role of `registry.url` must be none of these and must not be able to become one. `connect` "
    "refuses it.",
    lowers=False,
)
REGISTRY_ROWS = CORE_RULES.add(
    "VA004",
    "A table of the registry is not under its forced row-level security",
    "error",
    "Each table of a registry in PostgreSQL that has rows of tenants needs row-level security, enabled and forced, and "
    "exactly the policies that `vectoracl provision` makes: a transaction reaches the rows of the tenants that it "
    "names. `connect` refuses a table without them, or with another policy; also a rule, a trigger, a child table, a "
    "privilege beyond reading and writing rows, and a connection whose search_path reaches other tables.",
    lowers=False,
)


def with_findings(posture: Posture, findings: Sequence[Finding]) -> Posture:
    """Return *posture* with further *findings*."""
    return replace(posture, findings=(*posture.findings, *findings)) if findings else posture


def demand(posture: Posture, demanded: str | None, store: str, grades: Sequence[str]) -> Posture:
    """Return *posture*, with a finding if it does not reach the grade that the configuration requires."""
    if demanded is None or (posture.grade in grades and grades.index(posture.grade) >= grades.index(demanded)):
        return posture
    lowering = ", ".join(sorted({f.rule.id for f in posture.findings if f.rule.lowers}))
    cure = f"fix {lowering}" if lowering else "choose a store or a setup that reaches it"
    finding = Finding(
        MINIMUM_GRADE,
        store,
        f"The store {store} reaches the grade {posture.grade}; minimum_grade requires {demanded}.",
        f"-- {cure[0].upper()}{cure[1:]}; or lower minimum_grade in the configuration.",
    )
    return replace(posture, findings=(*posture.findings, finding))


def judged(posture: Posture, store: str, embedder: str | None) -> Posture:
    """Return *posture*, with a finding if the noted embedder differs from *embedder*, the configured one."""
    if embedder is None or posture.embedder in (None, embedder):
        return posture
    finding = Finding(
        EMBEDDER,
        store,
        f"the store holds vectors of {posture.embedder!r}, and the configured embedder is {embedder!r}",
        "configure the store's embedder, or embed into a new store: "
        "vectoracl copy --reembed --from OLD.toml --to NEW.toml",
    )
    return replace(posture, findings=(*posture.findings, finding))
