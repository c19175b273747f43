"""What a look at a store's real posture found: data that the command line, `check()` and start-up share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
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

    @property
    def page(self) -> str:
        """Where the documentation explains it; empty for the rules of an adapter that is not one of ours."""
        return f"rules.md#{self.id.lower()}" if self.id[:2] in PREFIXES else ""


PREFIXES: Mapping[str, str] = MappingProxyType(
    {"VA": "vectoracl", "PG": "pgvector", "QD": "qdrant", "WV": "weaviate", "PC": "pinecone"}
)
"""How the ids of our own rules begin, and whose they are."""


class Rules(dict[str, Rule]):
    """The rules of an adapter, by their ids."""

    def add(self, id_: str, title: str, severity: Severity, explanation: str, *, lowers: bool) -> Rule:
        """Make a rule, keep it and return it."""
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
    """How a store is really configured: the isolation grade that was found, and every finding.

    `grade` is one of "none", "predicate", "partition", "engine", "credential" (weakest first). `facts` holds what
    was read (versions, role, counts), as strings, for people and reports. `script` is what to run, in this order, as
    (title, text), where a store can be changed by a script; several postures can share a part. `embedder`
    is the identity of the embedder whose vectors the store holds, where it keeps it. `accepted` are findings that the
    configuration accepts, each with its reason: they lower nothing, and are not among `findings`.
    """

    grade: str
    findings: tuple[Finding, ...]
    facts: tuple[tuple[str, str], ...] = ()
    script: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    embedder: str | None = None
    accepted: tuple[tuple[Finding, str], ...] = ()

    @property
    def acceptances(self) -> tuple[str, ...]:
        """What is accepted and why, a line each, as reports and the audit record say it."""
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


def demand(posture: Posture, demanded: str | None, store: str, grades: Sequence[str]) -> Posture:
    """Return *posture* with a finding where it does not reach the grade that the configuration demands."""
    if demanded is None or (posture.grade in grades and grades.index(posture.grade) >= grades.index(demanded)):
        return posture
    lowering = ", ".join(sorted({f.rule.id for f in posture.findings if f.rule.lowers}))
    cure = f"fix {lowering}" if lowering else "choose a store or a setup that reaches it"
    made = Finding(
        MINIMUM_GRADE,
        store,
        f"The store {store} reaches the grade {posture.grade}; minimum_grade demands {demanded}.",
        f"-- {cure[0].upper()}{cure[1:]}; or lower minimum_grade in the configuration.",
    )
    return replace(posture, findings=(*posture.findings, made))


def judged(posture: Posture, store: str, embedder: str | None) -> Posture:
    """Return *posture* with a finding where the store keeps another embedder than *embedder*, the configured one."""
    if embedder is None or posture.embedder in (None, embedder):
        return posture
    found = Finding(
        EMBEDDER,
        store,
        f"the store holds vectors of {posture.embedder!r}, and the configured embedder is {embedder!r}",
        "configure the store's embedder, or embed into a new place: "
        "vectoracl copy --reembed --from OLD.toml --to NEW.toml",
    )
    return replace(posture, findings=(*posture.findings, found))
