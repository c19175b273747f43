"""The pages for contributors name files and folders; each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "docs" / "how-it-works.md", *sorted((ROOT / "docs" / "adr").glob("*.md"))]
# A path may be written from one of these folders on; NAME and STORE stand for any adapter.
BASES = (
    "",
    "src/vectoracl",
    "conformance/src/vectoracl_conformance",
    "adapters/*/src/*",
    "adapters/*/src/*/*",
    "adapters/*/tests",
)
WRITTEN = {"~/.cache/vectoracl/servers", "vectoracl.toml"}  # by vectoracl, at its users'


def paths(page: Path) -> list[str]:
    found = re.findall(r"`([\w.*~/-]+)`|\]\(([\w./-]+?)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
    named = {code for code, _ in found if "/" in code or re.search(r"\.(py|md|toml|txt|yml)$", code)}
    return sorted(named - WRITTEN) + [str((page.parent / link).relative_to(ROOT)) for _, link in found if link]


def exists(path: str) -> bool:
    pattern = re.sub(r"(?<![A-Z])(NAME|STORE)(?![A-Z])", "*", path.rstrip("/"))
    return any(any(ROOT.glob(f"{base}/{pattern}".lstrip("/"))) for base in BASES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_on_a_page_for_contributors_exists(page):
    assert [path for path in paths(page) if not exists(path)] == []


def test_the_check_can_fail():
    assert not exists("src/vectoracl/guard.py")
    assert exists("engine/pipeline.py")
