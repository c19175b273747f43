"""The page about the checks says what the kit says."""

from __future__ import annotations

from pathlib import Path

from vectoracl_conformance.checks import CHECKS
from vectoracl_conformance.reporting.checks_page import markdown
from vectoracl_conformance.running.certificate import NOT_PROVED
from vectoracl_conformance.running.runner import Ask, collected
from vectoracl_conformance.verdict import EXIT

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_the_page_is_made_from_the_registry() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(markdown())
    assert all(f"| {check} |" in markdown() for check in CHECKS)


def test_the_page_of_the_certificate_names_what_the_report_has() -> None:
    page = (PAGE.parent / "certificate.md").read_text(encoding="utf-8")
    assert all(f"\n| {what} | " in page for what, _ in NOT_PROVED)
    assert all(f"`{verdict}`" in page for verdict in EXIT)
    assert all(f"\n| {code} | " in page for code in EXIT.values())
    assert all(f"`{key}`" in page for key in collected(Ask("x"), 1, [], "").as_json())
    assert page.count("\n10. ") == 1
    assert "\n11. " not in page
