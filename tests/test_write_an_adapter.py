"""The page "Write an adapter" is the example line by line: nothing on it is invented, and its blocks are run.

`nox -s stranger` runs these tests where the example and DuckDB are installed, and the page's commands before them.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

import vectoracl

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "third_party_adapter"
SOURCE = EXAMPLE / "src" / "vectoracl_duckdb"
ADAPTER = [SOURCE / "adapter.py", SOURCE / "plugin.py"]
HARNESS = [SOURCE / "conformance.py"]
SOURCES = [*ADAPTER, *HARNESS]
TESTS = sorted((EXAMPLE / "tests").glob("*.py"))
PAGE = ROOT / "docs" / "write-an-adapter.md"


def blocks(language: str) -> list[str]:
    """Return the blocks of *language*; without a Markdown parser, which a stranger's environment does not have."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text.rstrip("\n") for kind, text in found if kind == language]


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


def imports(path: Path) -> set[tuple[str, str]]:
    """Return what *path* imports of the project: (distribution, module)."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            # `from vectoracl import adapter_api` imports a module, too.
            modules.update(
                {f"{node.module}.{a.name}" for a in node.names} if node.module == "vectoracl" else {node.module}
            )
    return {(name.partition(".")[0], name) for name in modules if name.startswith("vectoracl")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_example_imports_the_adapter_api_only(path: Path) -> None:
    allowed = {("vectoracl", "vectoracl.adapter_api"), ("vectoracl_duckdb", "vectoracl_duckdb.adapter")}
    if path in HARNESS:
        allowed.add(("vectoracl_conformance", "vectoracl_conformance"))
    assert imports(path) <= allowed


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_the_tests_of_the_example_import_what_is_public(path: Path) -> None:
    public = {"vectoracl", "vectoracl.adapter_api", *(f"vectoracl.{name}" for name in vectoracl.__all__)}
    modules = {module for distribution, module in imports(path) if distribution != "vectoracl_duckdb"}
    assert modules <= public | {"vectoracl_conformance", "vectoracl_conformance.strategies"}


def test_each_block_of_the_page_is_in_the_example_as_it_stands() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in SOURCES}
    shown = blocks("python")
    assert len(shown) > 5
    for block in shown:
        where = [name for name, text in sources.items() if f"\n{block}\n" in f"\n{text}"]
        assert len(where) == 1, f"{where} hold this block of the page:\n{block}"


@pytest.mark.parametrize("path", ADAPTER, ids=lambda path: path.name)
def test_each_line_of_the_adapter_is_on_the_page_in_its_order(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    own = [block for block in blocks("python") if f"\n{block}\n" in f"\n{text}"]
    shown = [line for block in own for line in block.splitlines() if line]
    assert shown == [line for line in text.splitlines() if line]


def test_the_entry_points_on_the_page_are_those_of_the_distribution() -> None:
    entry_points, configuration = blocks("toml")
    assert entry_points in (EXAMPLE / "pyproject.toml").read_text(encoding="utf-8")
    assert tomllib.loads(configuration)["stores"]["main"]["adapter"] == "duckdb"


def test_the_configuration_on_the_page_opens_a_store(tmp_path: Path) -> None:
    pytest.importorskip("vectoracl_duckdb", reason="the example is installed by `nox -s stranger`")
    (tmp_path / "vectoracl.toml").write_text(blocks("toml")[1], encoding="utf-8")
    with vectoracl.connect(tmp_path / "vectoracl.toml") as acl:
        docs = acl.scoped(vectoracl.testing.principal("ann", "acme"))
        docs.upsert([vectoracl.Chunk("c", "d", "text", [1.0] * 384)])
        assert [hit.id for hit in docs.search([1.0] * 384)] == ["c"]
    assert (tmp_path / "chunks.duckdb").exists()


def test_the_example_is_as_small_as_the_page_says() -> None:
    assert sum(map(code_lines, ADAPTER)) < 150
    assert sum(map(code_lines, HARNESS)) <= 40
    assert {path.name for path in SOURCE.glob("*.py")} == {path.name for path in SOURCES} | {"__init__.py"}
    assert code_lines(SOURCE / "__init__.py") == 0


def test_the_page_is_short() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 305
    assert len(text.split()) <= 2_137
