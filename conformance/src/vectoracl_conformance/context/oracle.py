"""The expected results: the reference semantics of a predicate over the census. Expected rows are never hand-written.

An empty or complete set proves nothing, so the oracle refuses it: a check that gets one has to be fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vectoracl.adapter_api.operations import MAX_FACETS
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.filters.semantics import compile_test, getter, tallied, values_of
from vectoracl.model.records import Facet, Hit, Record, Vector
from vectoracl_conformance.context.corpus import FIELDS

Key = tuple[str, str, str]
TOLERANCE = 2e-4
NEAR = 4e-4  # half precision keeps a number between -1 and 1 to this; two chunks of the corpus are further apart


class UnfitError(Exception):
    """The kit's own control failed: the set would prove nothing."""


def key(one: Record | Hit) -> Key:
    """Return (tenant, document, chunk id)."""
    return (one.tag.tenant, one.tag.document, one.tag.chunk)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The result of an exact search: (key, score), best first."""

    rows: tuple[tuple[Key, float], ...]

    def problem(self, hits: Sequence[Hit], k: int) -> str | None:
        """Say how *hits* differ from the best *k* (equal scores may come in any order), or None."""
        best = self.rows[:k]
        if len(hits) != len(best):
            return f"{len(hits)} hits came back, {len(best)} are right (k = {k})"
        scores = dict(self.rows)
        keys: set[Key] = set()
        for place, (hit, (right, score)) in enumerate(zip(hits, best, strict=True)):
            mine = key(hit)
            if mine not in scores:
                return f"hit {place} is {mine[2]!r} of {mine[0]!r}, which is not among the rows that may come"
            if mine in keys:
                return f"hit {place} is {mine[2]!r}, which came twice"
            keys.add(mine)
            if abs(scores[mine] - score) > TOLERANCE:
                return f"hit {place} is {mine[2]!r}; {right[2]!r} is nearer"
            if abs(hit.score - scores[mine]) > TOLERANCE:
                return f"the score of hit {place} is {hit.score:.6f}, the exact one {scores[mine]:.6f}"
        return None


class Oracle:
    """Answers from a census."""

    def __init__(self, rows: Iterable[Record]) -> None:
        self.rows = tuple(rows)
        if not self.rows:
            raise UnfitError("the census is empty")

    def select(self, grants: Mapping[str, Predicate], where: Predicate = ALWAYS) -> list[Record]:
        """Return the rows of each granted tenant that match its predicate and *where*.

        Raises: UnfitError if that is nothing, or every row of the census.
        """
        test = compile_test(where)
        tests = {tenant: compile_test(predicate) for tenant, predicate in grants.items()}
        rows = [
            row
            for row in self.rows
            if row.tag.tenant in tests and tests[row.tag.tenant](row.tag, row.metadata) and test(row.tag, row.metadata)
        ]
        if not rows:
            raise UnfitError("the oracle's set is empty, which proves nothing")
        if len(rows) == len(self.rows):
            raise UnfitError("the oracle's set is everything, which proves nothing")
        return rows

    def of(self, tenant: str, where: Predicate = ALWAYS) -> list[Record]:
        """Return the rows of one tenant that match *where*."""
        return self.select({tenant: ALWAYS}, where)

    def narrowing(self, tenant: str, where: Predicate) -> list[Record]:
        """Return the tenant's rows that match *where*, which has to be some of them and not all."""
        rows = self.of(tenant, where)
        if len(rows) == len(self.of(tenant)):
            raise UnfitError("the filter matches every row of the tenant, which proves nothing")
        return rows

    @staticmethod
    def facets(rows: Iterable[Record], field: str) -> list[Facet]:
        """Count *rows* by the values of a field of the corpus, or by document; the most frequent first, ties by value.

        Raises: UnfitError if they have none.
        """
        kind = FieldType.KEYWORD if field == "@document" else FieldType(FIELDS[field])
        get = getter(field)
        counted = tallied((values_of(kind, get(row.tag, row.metadata)) for row in rows), MAX_FACETS)
        if not counted:
            raise UnfitError(f"the rows have no value of {field}, which proves nothing")
        return sorted(counted, key=lambda facet: (-facet.count, facet.value))

    @staticmethod
    def rank(rows: Iterable[Record], query: Vector) -> Ranked:
        """Rank *rows* by the cosine of their vector and *query*."""
        known = list(rows)
        if not known:
            return Ranked(())
        direction = query.astype(np.float64) / np.linalg.norm(query)
        vectors = np.array([row.vector for row in known], np.float64)
        scores = (vectors @ direction / np.linalg.norm(vectors, axis=1)).tolist()
        scored = zip(map(key, known), scores, strict=True)
        return Ranked(tuple(sorted(scored, key=lambda one: (-one[1], one[0]))))


class Directions:
    """Finds by its direction whose a vector is: each of the corpus is one of a kind, whatever its length."""

    def __init__(self, rows: Iterable[Record]) -> None:
        self.rows = tuple(rows)
        matrix = np.stack([row.vector for row in self.rows]).astype(np.float64)
        self._matrix = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)

    def owner(self, vector: Vector) -> Record | None:
        """Return the row that *vector* is of; None if it is of none, as a query's is."""
        length = float(np.linalg.norm(vector))
        if not length:
            return None
        away = np.abs(self._matrix - np.asarray(vector, np.float64) / length).max(axis=1)
        place = int(away.argmin())
        return self.rows[place] if away[place] < NEAR else None
