"""The page of the kill matrix is made from reports, a part for each store, and keeps what it is not told anew."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vectoracl_conformance.reporting.kill_matrix_page import CONSTRUCTED, HEAD, main, page
from vectoracl_conformance.running.run_constructed import Result


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


def test_survivors_of_constructed_ones_are_named(tmp_path: Path) -> None:
    results = [
        Result("count: always: scope", "count", "scope", 1, "1 instead of 2", 0.1),
        Result("count: sync: scope", "count", "scope", 1, "", 0.1),
        Result("scan: always: order", "scan", "order", 1, "another order", 0.1),
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("\n".join(json.dumps(asdict(one)) for one in results))
    (tmp_path / "one.json").write_text(json.dumps(report("one", ["R1"])))
    where = tmp_path / "page.md"
    main([str(where), str(file), str(tmp_path / "one.json")])
    text = where.read_text()
    assert "3 adapters that are broken mechanically" in text
    assert "2 were killed (66.7%)" in text
    assert "| scope | 1/2 |  |" in text
    assert "- `count: sync: scope`" in text
    assert "always" not in text
    assert text.count(CONSTRUCTED) == page(text, []).count(CONSTRUCTED) == 1
