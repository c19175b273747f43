"""Computes the verdict over the list of required ids, not over the checks that happened to run.

Nothing else decides. Every outcome that is not exactly "passed" counts as not passed, except "unsupported, verified"
for a capability that may be absent; so do missing, duplicate and unknown outcomes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["passed", "failed", "known deviation", "unsupported, verified", "not run", "abstained"]
Verdict = Literal[
    "conformant", "conformant with a declared deviation", "not conformant", "not measured", "nothing certified"
]
EvidenceState = Literal["passed", "failed", "abstained", "not run"]

CallCheck = Literal["C1", "C2", "C3", "C4"]
CALLS: tuple[CallCheck, ...] = ("C1", "C2", "C3", "C4")
"""The checks of generated calls."""
GOVERNANCE: tuple[str, ...] = tuple(f"G{number}" for number in range(1, 13))
"""The checks of a store under a registry, which have a fresh store to themselves."""
REQUIRED: tuple[str, ...] = (
    *(f"R{number}" for number in range(1, 18)),
    *(f"W{number}" for number in range(1, 13)),
    *(f"P{number}" for number in range(1, 6)),
    *(f"S{number}" for number in range(1, 6)),
    *(f"X{number}" for number in range(1, 7)),
    *GOVERNANCE,
    *CALLS,
)
MODES: tuple[Literal["sync", "async"], ...] = ("sync", "async")
OPTIONAL = frozenset({"R12", "R13", "R16", "W11", *GOVERNANCE})
PROVISIONAL: dict[str, str] = dict.fromkeys(("R16", "R17", "W11", "W12", "X6", *GOVERNANCE, *CALLS), "0.2")
"""New checks, and the version of the kit in which they are no longer provisional. They fail like any other."""
_VERSIONS_ONLY = frozenset({"R17", "W12"})
EXCUSABLE = _VERSIONS_ONLY & frozenset(PROVISIONAL)
"""The checks whose deviation can be declared as known, with a reason, as long as they are provisional.

They concern versions of one document that the reader may see in any case. A check of who sees or changes what (R1 to
R3, R16, W11, …), of all calls (C1 to C4) or of the isolated process (X6) cannot be excused.
"""
NOT_QUICK = frozenset({"X6", "G1", "G2", "G4", "G5", "G6", "G8", "G10", *CALLS})
"""The checks that `--quick` leaves out: X6 repeats others, in the same place; the others take long."""
GRADES: tuple[str, ...] = ("E1", "E2v", "E2c", "E2s", "E3")
MISSING = "the check was not run"
EXIT: dict[Verdict, int] = {
    "conformant": 0,
    "conformant with a declared deviation": 0,
    "not conformant": 1,
    "not measured": 2,
    "nothing certified": 3,
}
"""The exit codes. 3 is that of `--quick` where nothing failed: it is never taken for a certificate by mistake."""


@dataclass(slots=True)
class Noted:
    """The outcome of one check in one mode. `controls` and `attacks` count the assertions that it reached.

    `script` is a program that shows the failure without the kit.
    """

    id: str
    mode: str
    outcome: Outcome
    seconds: float = 0.0
    reason: str = ""
    attacked: str = ""
    back: str = ""
    why: str = ""
    reproduce: str = ""
    controls: int = 0
    attacks: int = 0
    script: str = ""


@dataclass(slots=True)
class Judged:
    """The verdict and its basis: one outcome for each id and mode, in order."""

    verdict: Verdict
    checks: list[Noted]
    grades: dict[str, EvidenceState] = field(default_factory=dict)

    @property
    def evidence(self) -> str | None:
        """The highest level that passed together with all levels below it; None if E1 did not pass."""
        reached = None
        for level, parts in (("E1", ("E1",)), ("E2", ("E2v", "E2c", "E2s")), ("E3", ("E3",))):
            if any(self.grades.get(part) != "passed" for part in parts):
                break
            reached = level
        return reached

    @property
    def conformant(self) -> bool:
        """Whether the adapter is conformant, with or without a declared deviation."""
        return self.verdict in ("conformant", "conformant with a declared deviation")

    @property
    def exit_code(self) -> int:
        """0 conformant, 1 not conformant, 2 not measured, 3 nothing failed and nothing is certified."""
        return EXIT[self.verdict]


def settled(note: Noted) -> Noted:
    """Return *note* as it counts: a pass without a control and an attack does not count as run."""
    if note.outcome == "passed" and (note.controls < 1 or note.attacks < 1):
        note.outcome = "not run"
        note.reason = "the check ended before it reached a control and an attack"
    elif note.outcome == "unsupported, verified" and (note.id not in OPTIONAL or note.attacks < 1):
        note.outcome = "failed" if note.attacks else "not run"
        note.reason = "the capability must not be absent" if note.attacks else "no refusal was observed"
    return note


def fine(note: Noted, known: Collection[str] = ()) -> bool:
    """Return whether the adapter is still conformant with *note*, if deviations of *known* checks were declared."""
    return note.outcome in ("passed", "unsupported, verified") or _excused(note, known)


def _excused(note: Noted, known: Collection[str]) -> bool:
    return note.outcome == "known deviation" and note.id in EXCUSABLE and note.id in known


def judge(
    notes: Sequence[Noted],
    grades: dict[str, EvidenceState] | None = None,
    known: Collection[str] = (),
    *,
    left_out: Collection[str] = (),
) -> Judged:
    """Compute the verdict over all required ids in both modes.

    Args:
        notes: The outcomes. A "known deviation" that was not declared is a failure.
        grades: The evidence beyond E1.
        known: The ids of the checks whose deviation was declared; only those of `EXCUSABLE` count.
        left_out: The ids of the checks that the run left out; with any, it certifies nothing.
    """
    by_place: dict[tuple[str, str], Noted] = {}
    spoiled = False
    for note in notes:
        place = (note.id, note.mode)
        if note.id not in REQUIRED or note.mode not in MODES or place in by_place:
            spoiled = True
            continue
        by_place[place] = settled(note)
    checks = []
    for id_ in REQUIRED:
        for mode in MODES:
            missing = Noted(id_, mode, "not run", reason=MISSING)
            checks.append(by_place.get((id_, mode), missing))
    counted = [note for note in checks if note.id not in left_out]
    outcomes = {note.outcome for note in counted}
    states: dict[str, EvidenceState] = {grade: (grades or {}).get(grade, "not run") for grade in GRADES}
    if any(note.outcome in ("failed", "known deviation") and not _excused(note, known) for note in counted):
        states["E1"] = "failed"
    elif spoiled or not all(fine(note, known) for note in counted):
        states["E1"] = "abstained" if "abstained" in outcomes else "not run"
    else:
        states["E1"] = "passed"
    if "failed" in states.values():
        verdict: Verdict = "not conformant"
    elif states["E1"] != "passed":
        verdict = "not measured"
    elif left_out:
        verdict = "nothing certified"
    elif any(_excused(note, known) for note in counted):
        verdict = "conformant with a declared deviation"
    else:
        verdict = "conformant"
    return Judged(verdict, checks, states)
