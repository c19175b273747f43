"""The shape of the code: imports go one way, no flow yields while it is closed, the surface is as promised."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import vectoracl

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("adapters/*/src/**/*.py")])

CLIENTS = {"psycopg", "psycopg_pool", "pgvector", "qdrant_client", "weaviate", "pinecone", "sqlalchemy", "django"}


def test_imports_go_one_way():
    """The contracts stand in pyproject.toml, under `[tool.importlinter]`."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_are_absolute():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.ImportFrom) or node.level == 0, f"{path}: a relative import"


def test_the_core_loads_no_client():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, vectoracl; print(*sorted({m.split('.')[0] for m in sys.modules}))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not CLIENTS & set(loaded.stdout.split())
    assert "vectoracl" in loaded.stdout.split()


def loose_strings(tree):
    """Lines of a string that is a statement but no docstring: the rest of a text that lost its parentheses."""
    described = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    lines = []
    for node in ast.walk(tree):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            for index, child in enumerate(body if isinstance(body, list) else ()):
                text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant | ast.JoinedStr)
                if not text or (isinstance(child.value, ast.Constant) and not isinstance(child.value.value, str)):
                    continue
                first = index == 0 and isinstance(node, described)
                attribute = (
                    index > 0
                    and isinstance(node, ast.Module | ast.ClassDef)
                    and isinstance(body[index - 1], ast.Assign | ast.AnnAssign)
                )
                if not first and not attribute:
                    lines.append(child.lineno)
    return lines


def yields_while_closing(tree):
    """Lines with a yield in `finally`, in a bare `except` or in `except BaseException`; not in nested functions."""
    found = []

    def yields(nodes):
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(node, ast.Yield | ast.YieldFrom):
                found.append(node.lineno)
            yields(ast.iter_child_nodes(node))

    for node in ast.walk(tree):
        if isinstance(node, ast.Try | ast.TryStar):
            yields(node.finalbody)
            for handler in node.handlers:
                caught = "BaseException" if handler.type is None else ast.unparse(handler.type)
                if "BaseException" in caught or "GeneratorExit" in caught:
                    yields(handler.body)
    return found


def test_no_text_has_lost_its_second_half():
    files = [*SOURCES, *ROOT.glob("conformance/src/**/*.py")]
    assert {
        f"{path.relative_to(ROOT)}:{line}"
        for path in files
        for line in loose_strings(ast.parse(path.read_text(encoding="utf-8")))
    } == set()


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f():\n x = 'a'\n 'b'", [3]),
        ("def f():\n yield f'{x}'\n f'{y}'", [3]),
        ("def f():\n 'doc'\n if x:\n  'b'", [4]),
        ("'doc'\nX = 1\n'about X'\nclass C:\n 'doc'\n x: int\n 'about x'\n ...", []),
    ],
)
def test_the_check_of_texts_can_fail(source, lines):
    assert loose_strings(ast.parse(source)) == lines


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_flow_yields_while_it_is_closed(path):
    assert yields_while_closing(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("def f():\n try:\n  yield 1\n finally:\n  yield 2", [5]),
        ("def f():\n try:\n  pass\n except:\n  yield 2", [5]),
        ("def f():\n try:\n  pass\n except BaseException as e:\n  if e:\n   x = yield from g()", [6]),
        ("def f():\n try:\n  pass\n except (ValueError, BaseException):\n  yield 2", [5]),
        ("def f():\n try:\n  yield 1\n except Exception:\n  yield 2\n finally:\n  def g():\n   yield 3", []),
    ],
)
def test_the_check_of_yields_can_fail(source, lines):
    assert yields_while_closing(ast.parse(source)) == lines


def test_the_sources_were_found():
    assert len(SOURCES) > 40
    assert any("vectoracl_pgvector" in str(path) for path in SOURCES)


# --- the public surface ---

SURFACE = {
    "connect": "config store policy sink embedder clients",
    "aconnect": "config store policy sink embedder clients",
    "VectorACL.scoped": "self principal actions source",
    "VectorACL.governance": "self principal",
    "VectorACL.check": "self",
    "VectorACL.explain": "self principal action document",
    "VectorACL.close": "self",
    "ScopedRetriever.narrow": "self where actions",
    "ScopedRetriever.search": "self query k where min_score group_by per_group include exact tuning timeout",
    "ScopedRetriever.search_many": "self queries k where min_score group_by per_group include exact tuning timeout",
    "ScopedRetriever.fetch": "self ids include timeout",
    "ScopedRetriever.count": "self where timeout",
    "ScopedRetriever.facets": "self field where limit timeout",
    "ScopedRetriever.scan": "self where size include",
    "ScopedRetriever.page": "self where size after include timeout",
    "ScopedRetriever.upsert": "self chunks timeout",
    "ScopedRetriever.replace": "self document chunks expires timeout",
    "ScopedRetriever.update_metadata": "self document changes timeout",
    "ScopedRetriever.load": "self stream batch resume progress",
    "ScopedRetriever.delete": "self ids document where timeout",
    "Ingestion": "principal document operation chunks source changes",
    "Verdict": "answer reason",
    "Validator.validate": "self ingestion",
    "Principal": "id tenant roles groups attributes kind authenticated_by expires_at",
    "Principal.service": "id tenant reason",
    "Chunk": "id document text vector position metadata expires",
    "Lexical": "text",
    "Hybrid": "text vector",
    "Like": "id document",
    "Predicate.from_dict": "data",
    "Predicate.to_dict": "self",
    "Predicate.json_schema": "fields",
    "testing.principal": "id tenant claims",
    "testing.assert_isolated": "acl a b k",
    "hazmat.unscoped": "acl reason",
}


@pytest.mark.parametrize("path", SURFACE)
def test_the_surface(path):
    found = vectoracl
    for part in path.split("."):
        found = getattr(found, part)
    names = list(inspect.signature(found).parameters)
    assert sorted(names) == sorted(SURFACE[path].split())


@pytest.mark.parametrize("name", [name for name in dir(vectoracl.ScopedRetriever) if not name.startswith("_")])
def test_the_async_form_has_the_same_signature(name):
    one = inspect.signature(getattr(vectoracl.ScopedRetriever, name))
    other = inspect.signature(getattr(vectoracl.AsyncScopedRetriever, name))
    for parameter, twin in zip(one.parameters.values(), other.parameters.values(), strict=True):
        assert (parameter.name, parameter.kind, parameter.default) == (twin.name, twin.kind, twin.default)


def test_all_is_sorted_and_whole():
    # Sorted as the linter sorts it: constants, then classes, then the rest.
    def key(name):
        return (0 if (name.isupper() and len(name) > 1) or name == "F" else 1 if name[0].isupper() else 2, name)

    names = list(vectoracl.__all__)
    assert sorted(names) == sorted(set(names))
    groups = [key(name)[0] for name in names if name != "F"]
    assert groups == sorted(groups)
    for name in names:
        assert getattr(vectoracl, name) is not None
    public = {name for name, value in vars(vectoracl).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert public <= set(names)


def test_no_handle_without_a_scope():
    for name in ("unscoped", "as_admin", "all_tenants", "search", "client"):
        assert not hasattr(vectoracl.VectorACL, name)


TYPED = """
from typing import assert_type
import vectoracl
from vectoracl import ALWAYS, Chunk, F, Facet, Hit, LoadReport, Page, Predicate, Principal, Result, Written

def right(acl: vectoracl.VectorACL, who: Principal) -> None:
    docs = acl.scoped(who)
    assert_type(docs, vectoracl.ScopedRetriever)
    assert_type(docs.search([1.0]), Result)
    assert_type(docs.search_many([[1.0]]), list[Result])
    assert_type(docs.search([1.0])[0], Hit)
    assert_type(docs.count(F.year >= 2020), int)
    assert_type(docs.facets("year", where=F.a == 1, limit=3), list[Facet])
    assert_type(docs.facets("year")[0].count, int)
    assert_type(docs.page(), Page)
    assert_type(docs.upsert([Chunk("a", "b")]), Written)
    assert_type(docs.load([]), LoadReport)
    assert_type((F.a == 1) & ~(F.b.in_(["x"])), Predicate)
    assert_type(docs.narrow(F.a == 1, actions=["search"]), vectoracl.ScopedRetriever)

async def also(acl: vectoracl.AsyncVectorACL, who: Principal) -> None:
    docs = acl.scoped(who)
    assert_type(await docs.search([1.0]), Result)
    assert_type(await docs.facets("year"), list[Facet])
    async for hit in docs.scan():
        assert_type(hit, Hit)

def wrong(acl: vectoracl.VectorACL, who: Principal) -> None:
    docs = acl.scoped(who)
    acl.scoped("ann@acme")  # WRONG
    acl.scoped({"id": "ann"})  # WRONG
    docs.search([1.0], where=None)  # WRONG
    docs.search([1.0], where={})  # WRONG
    docs.search([1.0], where=F.year)  # WRONG
    docs.count(True)  # WRONG
    docs.facets(F.year)  # WRONG
    docs.facets("year", F.a == 1)  # WRONG
    docs.delete("c1")  # WRONG
    docs.narrow(actions=["read"])  # WRONG
    Principal("ann", "acme")  # WRONG
    who.tenant = "globex"  # WRONG
    docs.search([1.0], 5, tenant="globex")  # WRONG
    vectoracl.hazmat.unscoped(acl)  # WRONG
    vectoracl.Like("c1", tenant="globex")  # WRONG
    Chunk("a", "b", tenant="globex")  # WRONG
"""


def test_types(tmp_path):
    path = tmp_path / "typed.py"
    path.write_text(TYPED)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--no-error-summary",
            "--hide-error-context",
            "--cache-dir",
            str(tmp_path / "cache"),
            str(path),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    reported = {
        int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line and "typed.py" in line
    }
    wanted = {number for number, line in enumerate(TYPED.splitlines(), 1) if "# WRONG" in line}
    assert reported == wanted, done.stdout + done.stderr
