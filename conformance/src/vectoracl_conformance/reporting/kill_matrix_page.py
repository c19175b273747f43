"""Generates docs/kill-matrix.md: `python -m vectoracl_conformance.reporting.kill_matrix_page PAGE REPORT…`.

Each REPORT is a JSON report with mutants. It replaces its store's part of the page; the other parts stay. A file that
ends with `.jsonl` has the results of constructed mutants (`running.run_constructed`), which have a separate part.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vectoracl.adapter_api.operations import OPERATIONS
from vectoracl_conformance.running.run_constructed import Result, read

HEAD = """# The kill matrix

Every check of the [conformance kit](conformance.md) has witnesses: adapters that are deliberately broken in one place.
The named check must kill each of them; other checks may kill it too. Each part states whether every check was run
against every broken adapter. `nox -s kill_matrix` generates this page from the reports of its runs.
"""
_ALL = "Every check was run against each of them."
_FIRST = "The named check was run first, and the others only if it did not kill the adapter."
CONSTRUCTED = "## Constructed adapters on memory"
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


def constructed_part(results: Sequence[Result]) -> str:
    """Return the part of the page on constructed mutants."""
    operations = [kind.method for kind in OPERATIONS.values() if any(one.operation == kind.method for one in results)]
    counts: dict[tuple[str, str], list[bool]] = {}
    for one in results:
        counts.setdefault((one.loss, one.operation), []).append(one.killed)
    killed = sum(one.killed for one in results)
    seeds = ", ".join(str(one) for one in sorted({one.seed for one in results}))
    lines = [
        CONSTRUCTED,
        "",
        f"{len(results):,} adapters that are broken mechanically: one operation is performed wrongly whenever a "
        f"trigger holds. {killed:,} were killed ({killed / max(1, len(results)):.1%}) by the generated calls, with the "
        f"seeds {seeds}. Each cell has the number of killed ones and the number of all, over the triggers; those that "
        "survived are listed below.",
        "",
        f"| what is lost | {' | '.join(operations)} |",
        f"|---|{'---|' * len(operations)}",
    ]
    for loss in sorted({loss for loss, _ in counts}):
        cells = [counts.get((loss, one), []) for one in operations]
        shown = (f"{sum(one)}/{len(one)}" if one else "" for one in cells)
        lines.append(f"| {_cell(loss)} | {' | '.join(shown)} |")
    lines += [
        "",
        *(f"- `{_cell(one.name)}`" for one in sorted(results, key=lambda one: one.name) if not one.killed),
        "",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def page(old: str, reports: list[dict[str, Any]], results: Sequence[Result] = ()) -> str:
    """Return the page *old* with the parts of *reports* and *results* instead of older ones."""
    parts = {text.splitlines()[0]: text for text in _PART.findall(old)}
    for report in reports:
        text = part(report)
        parts[text.splitlines()[0]] = text
    if results:
        parts[CONSTRUCTED] = constructed_part(results)
    return HEAD + "\n" + "\n".join(one.rstrip("\n") + "\n" for one in parts.values())


def main(arguments: list[str]) -> None:
    """Write the page."""
    path = Path(arguments[0])
    files = [Path(one) for one in arguments[1:]]
    reports = [json.loads(one.read_text(encoding="utf-8")) for one in files if one.suffix != ".jsonl"]
    results = [result for one in files if one.suffix == ".jsonl" for result in read(one)]
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(page(old, reports, results), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
