"""Mutants that only calls of a generated space notice: wrong one step away from what an example asks for."""

from __future__ import annotations

from textwrap import dedent, indent

from vectoracl_conformance.harness import Mutant

_SOURCE = """
from dataclasses import replace
from vectoracl.filters.predicate import ALWAYS

class Altered:
    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

{body}

def dress(opened):
    return replace(opened, adapter=Altered(opened.adapter))
"""


def altered(body: str) -> str:
    """Return text that dresses an adapter in a class with *body*; `self._inner` is the right adapter."""
    return _SOURCE.format(body=indent(dedent(body).strip("\n") or "pass", "    "))


def _mutant(name: str, breaks: str, expected: str, body: str) -> Mutant:
    return Mutant(name, breaks, expected, source=altered(body))


CALLS = (
    _mutant(
        "a count with a filter has no scope",
        "counts drop the predicate of the scope where a filter is given",
        "C1",
        """
        def count(self, operation):
            scope = operation.scope if operation.where is ALWAYS else ALWAYS
            return self._inner.count(replace(operation, scope=scope))
        """,
    ),
    _mutant(
        "a deletion by filter has no scope",
        "deletions by a filter drop the predicate of the scope",
        "C2",
        """
        def delete(self, operation):
            scope = operation.scope if operation.where is None else ALWAYS
            return self._inner.delete(replace(operation, scope=scope))
        """,
    ),
    _mutant(
        "the call after a failure has no scope",
        "after a lost connection the next count drops the predicate of the scope",
        "C3",
        """
        lost = False

        def count(self, operation):
            scope = ALWAYS if self.lost else operation.scope
            self.lost = False
            try:
                return (yield from self._inner.count(replace(operation, scope=scope)))
            except Exception:
                self.lost = True
                raise
        """,
    ),
    _mutant(
        "long texts are cut",
        "texts are cut at 2,000 characters",
        "C4",
        """
        def upsert(self, operation):
            records = tuple(one._replace(text=one.text[:2000]) for one in operation.records)
            return self._inner.upsert(replace(operation, records=records))
        """,
    ),
)
