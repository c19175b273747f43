"""The page of the kill matrix is made from reports, a part for each store, and keeps what it is not told anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vectoracl_conformance.reporting.kill_matrix_page import HEAD, main, page


def report(store: str, died: list[str]) -> dict[str, Any]:
    return {
        "adapter": f"{store} 0.1.0 (x)",
        "store": store.upper(),
        "server": {"kind": "real", "version": "v 1"},
        "decoys": 600,
        "mutants": [{"name": "m|1", "breaks": "b", "expected": "R1", "killed_by": died}],
    }


def test_parts_are_replaced_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(report("one", ["R1", "X4"])))
    (tmp_path / "two.json").write_text(json.dumps(report("two", ["R2"])))
    where = tmp_path / "page.md"
    main([str(where), str(tmp_path / "one.json"), str(tmp_path / "two.json")])
    text = where.read_text()
    assert text.startswith(HEAD)
    assert "1 broken adapters, 1 killed by the named check." in text
    assert "0 killed by the named check; not killed by it: m|1." in text
    assert "| m\\|1 | b | R1 | **R1** X4 |" in text
    assert text.count("Every check was run against each of them.") == 1
    assert text.count("The named check was run first, and the others only if it did not kill the adapter.") == 1
    again = page(text, [report("two", ["R1"])])
    assert again.count("\n## ") == 2
    assert "not killed by it" not in again
    assert "**R1** X4" in again
    assert page(again, []) == again
