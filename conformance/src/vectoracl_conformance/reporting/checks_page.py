"""Generates the list of checks in docs/conformance.md: `python -m vectoracl_conformance.reporting.checks_page PAGE`."""

from __future__ import annotations

import sys
from pathlib import Path

from vectoracl_conformance.checks import CHECKS
from vectoracl_conformance.verdict import PROVISIONAL, REQUIRED

_GROUPS = {
    "R": "Read",
    "W": "Write",
    "P": "Principal",
    "S": "Session",
    "X": "Side channels and the kit",
    "G": "Rights inside a tenant, under a registry",
    "C": "Generated calls",
}


def markdown() -> str:
    """Return the checks as Markdown tables: title, attack and breach of each."""
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


def main(arguments: list[str]) -> None:
    """Replace the list at the end of the page: everything from its first group on."""
    path = Path(arguments[0])
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: text.index(f"### {_GROUPS['R']}\n")] + markdown(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
