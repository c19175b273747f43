"""The page "Write an adapter" is the example line by line: nothing on it is invented, and nothing is left out."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "third_party_adapter"
SOURCE = EXAMPLE / "src" / "vectoracl_duckdb"
ADAPTER = [SOURCE / "adapter.py", SOURCE / "plugin.py"]
HARNESS = [SOURCE / "conformance.py"]
SHOWN = [*ADAPTER, *HARNESS]
TESTS = [ROOT / "conformance" / "tests" / "test_strategies.py"]  # one block is a test of the kit's own
PAGE = ROOT / "docs" / "write-an-adapter.md"


def blocks(language: str) -> list[str]:
    tokens = MarkdownIt().parse(PAGE.read_text(encoding="utf-8"))
    return [one.content.rstrip("\n") for one in tokens if one.type == "fence" and one.info.strip() == language]


def code_lines(path: Path) -> int:
    """Count the lines of code: no blank lines, comments and docstrings."""
    text = path.read_text(encoding="utf-8")
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(lines)


def test_each_block_of_the_page_is_in_the_example_as_it_stands() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in [*SHOWN, *TESTS]}
    found = blocks("python")
    assert len(found) > 15
    for block in found:
        where = [name for name, text in sources.items() if f"\n{block}\n" in f"\n{text}"]
        assert len(where) == 1, f"{where} hold this block of the page:\n{block}"


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.name)
def test_each_line_of_the_example_is_on_the_page_in_its_order(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    own = [block for block in blocks("python") if f"\n{block}\n" in f"\n{text}"]
    shown = [line for block in own for line in block.splitlines() if line]
    assert shown == [line for line in text.splitlines() if line]


def test_the_entry_points_on_the_page_are_those_of_the_distribution() -> None:
    metadata = (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    assert sum(block in metadata for block in blocks("toml")) == 1


def test_the_example_is_as_small_as_the_page_says() -> None:
    assert sum(map(code_lines, ADAPTER)) < 200
    assert sum(map(code_lines, HARNESS)) < 40
    assert {path.name for path in SOURCE.glob("*.py")} == {path.name for path in SHOWN} | {"__init__.py"}
    assert code_lines(SOURCE / "__init__.py") == 0
