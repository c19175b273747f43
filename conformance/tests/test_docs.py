"""The page about the checks says what the kit says."""

from __future__ import annotations

from pathlib import Path

from vectoracl_conformance.checks import CHECKS
from vectoracl_conformance.reporting.checks_page import markdown

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_the_page_is_made_from_the_registry() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(markdown())
    assert all(f"| {check} |" in markdown() for check in CHECKS)
