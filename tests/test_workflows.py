"""The workflows of the forge: actions pinned by commit, no more rights than needed, every distribution released."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit_with_its_version(path):
    uses = re.findall(r"uses: *(.+)", path.read_text(encoding="utf-8"))
    assert uses
    assert [one for one in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one)] == []


def test_an_action_has_one_commit_in_all_workflows():
    commits: dict[str, set[str]] = {}
    for path in WORKFLOWS:
        for action, commit in re.findall(r"uses: *([^@\s]+)@(\w+)", path.read_text(encoding="utf-8")):
            commits.setdefault(action, set()).add(commit)
    assert {action: found for action, found in commits.items() if len(found) != 1} == {}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_rights_are_declared_and_tokens_are_not_kept(path):
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^permissions:( \{\}|\n  contents: read\n\n)", text, re.MULTILINE)
    assert "secrets." not in text, "trusted publishing needs none"
    assert "pull_request_target" not in text, "code of a stranger would run with the rights of the repository"
    assert text.count("actions/checkout@") == text.count("persist-credentials: false")
    rights = re.findall(r"^ +([a-z-]+): write", text, re.MULTILINE)
    assert rights == (["id-token", "attestations"] if path.name == "release.yml" else [])


def test_an_expression_never_stands_in_a_shell_command():
    """GitHub pastes `${{ … }}` into the script before a shell reads it."""
    for path in WORKFLOWS:
        assert re.findall(r"run:.*\$\{\{", path.read_text(encoding="utf-8")) == []


def test_every_distribution_is_released_the_core_first():
    listed = re.findall(r"^ {10}- (vectoracl[\w-]*)$", (WORKFLOWS[-1]).read_text(encoding="utf-8"), re.MULTILINE)
    folders = [ROOT, ROOT / "conformance", *(ROOT / "adapters").iterdir()]
    tables = [tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")) for folder in folders]
    assert listed[0] == "vectoracl"
    assert sorted(listed) == sorted(table["project"]["name"] for table in tables)


def test_every_distribution_has_the_licence():
    licence = (ROOT / "LICENSE").read_bytes()
    folders = [ROOT / "conformance", *(ROOT / "adapters").iterdir()]
    assert [folder for folder in folders if (folder / "LICENSE").read_bytes() != licence] == []
