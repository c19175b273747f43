"""The page of the kill matrix: `python -m vectoracl_conformance.reporting.kill_matrix_page PAGE REPORT…`.

Each report is a JSON report with mutants. A store's part of the page is replaced by its newer report, the others stay.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HEAD = """# The kill matrix

Every check of the [conformance kit](conformance.md) has witnesses: adapters that are broken in one place, on purpose.
Each has to die by the check that is named for it, and may die by others too. Where a store's part says so, every check
had its turn against every one of them. This page is written by `nox -s mutants` from the reports of its runs, not by
hand.
"""
_ALL = "Every check had its turn against each."
_FIRST = "The named check had its turn first, and the others only where it did not notice."
_PART = re.compile(r"(?m)^## .*?(?=^## |\Z)", re.DOTALL)


def part(report: dict[str, Any]) -> str:
    """Return one store's part of the page."""
    mutants = report["mutants"]
    wrong = [one["name"] for one in mutants if one["expected"] not in one["killed_by"]]
    kills = Counter(id_ for one in mutants for id_ in one["killed_by"])
    lines = [
        f"## {report['adapter'].split()[0]} on {report['store']}",
        "",
        f"{report['server']['version']} ({report['server']['kind']}), {report['decoys']} decoys. {len(mutants)} broken "
        f"adapters, {len(mutants) - len(wrong)} died by the check that is named for them"
        + (f"; these did not: {', '.join(wrong)}. " if wrong else ". ")
        + (_FIRST if all(len(one["killed_by"]) < 2 or one["name"] in wrong for one in mutants) else _ALL),
        "",
        "| broken adapter | what is broken | has to die by | died by |",
        "|---|---|---|---|",
    ]
    for one in mutants:
        died = " ".join(f"**{id_}**" if id_ == one["expected"] else id_ for id_ in one["killed_by"]) or "lives"
        lines.append(f"| {_cell(one['name'])} | {_cell(one['breaks'])} | {one['expected']} | {died} |")
    told = ", ".join(f"{id_} {count}" for id_, count in sorted(kills.items(), key=lambda pair: (-pair[1], pair[0])))
    lines += ["", f"How many of them each check killed: {told}.", ""]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def page(old: str, reports: list[dict[str, Any]]) -> str:
    """Return the page *old* with the parts of *reports* in the place of older ones."""
    parts = {found.splitlines()[0]: found for found in _PART.findall(old)}
    for report in reports:
        made = part(report)
        parts[made.splitlines()[0]] = made
    return HEAD + "\n" + "\n".join(one.rstrip("\n") + "\n" for one in parts.values())


def main(arguments: list[str]) -> None:
    """Write the page."""
    path = Path(arguments[0])
    reports = [json.loads(Path(one).read_text(encoding="utf-8")) for one in arguments[1:]]
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(page(old, reports), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
