"""The page that explains every check as an attack; made from the registry, so that it cannot say something else."""

from __future__ import annotations

from vectoracl_conformance.checks import CHECKS
from vectoracl_conformance.verdict import PROVISIONAL, REQUIRED

_GROUPS = {"R": "Read", "W": "Write", "P": "Principal", "S": "Session", "X": "Beyond"}


def markdown() -> str:
    """Return the checks as Markdown: what an attacker does, and what a breach looks like."""
    lines: list[str] = []
    group = ""
    for check in (CHECKS[id_] for id_ in REQUIRED):
        if check.id[0] != group:
            group = check.id[0]
            lines += ["", f"### {_GROUPS[group]}", "", "| id | check | the attack | a breach |", "|---|---|---|---|"]
        new = f" (provisional until {PROVISIONAL[check.id]})" if check.id in PROVISIONAL else ""
        cells = (check.id, check.title + new, check.attack, check.breach)
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines).strip() + "\n"
