"""Generates docs/kill-matrix.md: `python -m vectoracl_conformance.reporting.kill_matrix_page PAGE REPORT…`.

Each REPORT is a JSON report with mutants. It replaces its store's part of the page; the other parts stay.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

HEAD = """# The kill matrix

Every check of the [conformance kit](conformance.md) has witnesses: adapters that are deliberately broken in one place.
The named check must kill each of them; other checks may kill it too. Each part states whether every check was run
against every broken adapter. `nox -s mutants` generates this page from the reports of its runs.
"""
_ALL = "Every check was run against each of them."
_FIRST = "The named check was run first, and the others only if it did not kill the adapter."
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
        f"adapters, {len(mutants) - len(wrong)} killed by the named check"
        + (f"; not killed by it: {', '.join(wrong)}. " if wrong else ". ")
        + (_FIRST if all(len(one["killed_by"]) < 2 or one["name"] in wrong for one in mutants) else _ALL),
        "",
        "| broken adapter | what is broken | must be killed by | killed by |",
        "|---|---|---|---|",
    ]
    for one in mutants:
        killed = " ".join(f"**{id_}**" if id_ == one["expected"] else id_ for id_ in one["killed_by"]) or "survived"
        lines.append(f"| {_cell(one['name'])} | {_cell(one['breaks'])} | {one['expected']} | {killed} |")
    counts = ", ".join(f"{id_} {count}" for id_, count in sorted(kills.items(), key=lambda pair: (-pair[1], pair[0])))
    lines += ["", f"Number killed by each check: {counts}.", ""]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def page(old: str, reports: list[dict[str, Any]]) -> str:
    """Return the page *old* with the parts of *reports* instead of older ones."""
    parts = {text.splitlines()[0]: text for text in _PART.findall(old)}
    for report in reports:
        text = part(report)
        parts[text.splitlines()[0]] = text
    return HEAD + "\n" + "\n".join(one.rstrip("\n") + "\n" for one in parts.values())


def main(arguments: list[str]) -> None:
    """Write the page."""
    path = Path(arguments[0])
    reports = [json.loads(Path(one).read_text(encoding="utf-8")) for one in arguments[1:]]
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(page(old, reports), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
