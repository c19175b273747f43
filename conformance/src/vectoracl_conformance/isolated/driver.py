"""The text of the program that drives the adapter, under other names in each run.

An adapter can read its program, its frames and its `__main__`. So what `child` calls its functions, its classes, its
variables and the words of its messages are replaced by words of the kind that applications use, drawn for each process;
docstrings and comments go. What remains recognisable is the shape of the program; the certificate says so.
"""

from __future__ import annotations

import ast
import random
import secrets
from collections.abc import Mapping
from pathlib import Path

_VERBS = [
    "load",
    "read",
    "send",
    "list",
    "pick",
    "keep",
    "make",
    "take",
    "find",
    "build",
    "serve",
    "start",
    "update",
    "handle",
    "collect",
    "apply",
    "resolve",
]
_NOUNS = [
    "item",
    "page",
    "order",
    "batch",
    "entry",
    "task",
    "note",
    "reply",
    "answer",
    "group",
    "source",
    "ticket",
    "letter",
    "account",
    "article",
    "record",
]


class _Renamed(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, str], words: Mapping[str, str]) -> None:
        self.names = names
        self.words = words

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if node.attr.startswith("_"):
            node.attr = self.names.get(node.attr, node.attr)
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if isinstance(node.left, ast.Name) and node.left.id == "what":
            for one in ast.walk(node):
                if isinstance(one, ast.Constant) and isinstance(one.value, str):
                    one.value = self.words.get(one.value, one.value)
        return self.generic_visit(node)

    def _defined(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.AST:
        node.name = self.names.get(node.name, node.name)
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:] or [ast.Pass()]
        return self.generic_visit(node)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _defined  # noqa: N815 - as the visitor names them


class Driver:
    """The program as text; `names` and `words` say what the names of `child` and its messages became."""

    def __init__(self) -> None:
        source = (Path(__file__).parent / "child.py").read_text(encoding="utf-8")
        tree = ast.parse(source)
        rng = random.Random(secrets.randbits(64))  # noqa: S311 - no secret
        pool = [f"{verb}_{noun}" for verb in _VERBS for noun in _NOUNS]
        rng.shuffle(pool)
        self.names = {name: _like(name, pool.pop()) for name in sorted(_defined_in(tree))}
        self.words = {word: pool.pop() for word in sorted(_compared_in(tree))}
        if isinstance(tree.body[0], ast.Expr):
            tree.body = tree.body[1:]
        renamed = _Renamed(self.names, self.words).visit(tree)
        self.text = ast.unparse(ast.fix_missing_locations(renamed)) + "\n"


def _like(name: str, words: str) -> str:
    """Return *words* as a name of the kind that *name* is."""
    bare = name.lstrip("_")
    if bare.isupper():
        return words.upper()
    return "".join(one.capitalize() for one in words.split("_")) if bare[:1].isupper() else words


def _defined_in(tree: ast.Module) -> set[str]:
    """Return the names of the module, and of all functions and classes within it that nothing else refers to."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {one.id for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    inner = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return names | inner


def _compared_in(tree: ast.Module) -> set[str]:
    """Return the words of the messages: what `what` is compared with."""
    words = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name) and node.left.id == "what":
            words |= {
                one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
    return words
