"""What the documentation says is run: every Python block, page by page, and every command that it names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
NEEDS_SERVER = {"pgvector.md"}  # run by adapters/pgvector/tests/test_docs.py
EXCERPTS = {"write-an-adapter.md"}  # of a distribution with tests of its own; held to it by test_write_an_adapter.py


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """Return the fenced blocks of *language* with their line."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    return [(one.map[0] + 2, one.content) for one in tokens if one.type == "fence" and one.info.strip() == language]


def run(page: Path, namespace: dict[str, object]) -> int:
    found = blocks(page, "python")
    for line, code in found:
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)
    return len(found)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in NEEDS_SERVER | EXCERPTS], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name == "README.md":
        # The README shows a file by name; this is one that fits what it shows.
        (tmp_path / "vectoracl.toml").write_text(
            'version = 1\n[stores.main]\nadapter = "memory"\ndimension = 384\n'
            '[stores.main.metadata]\nyear = "number"\n[embedder]\nuse = "hashed"\n'
        )
    count = run(page, {})
    if page.name in {"README.md", "index.md", "concepts.md"}:
        assert count > 0


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for _, text in blocks(page, "console"):
            for line in text.splitlines():
                match = re.search(r"(?:^|\s|&& )vectoracl (.*)", line.removeprefix("$ "))
                if match:
                    found.append((page.name, match.group(1).split("#")[0].strip()))
    return found


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_that_is_shown_exists_with_its_options(page: str, line: str) -> None:
    from vectoracl.cli.app import app
    from vectoracl_conformance.cli import app as kit

    words = shlex.split(line.split("|")[0])
    command = typer.main.get_command(app)
    if words[:1] == ["conformance"]:  # the core only hands over to the kit's own command, which has the options
        command = typer.main.get_command(kit)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        sub = command.commands.get(words[0])
        assert sub is not None, f"{page} shows `vectoracl {line}`, and there is no such command"
        command = sub
        words.pop(0)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.split("=")[0] in known | {"--help"}, f"{page} shows `vectoracl {line}`: no option {word}"


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in nav, f"{page.name} is not in mkdocs.yml"
