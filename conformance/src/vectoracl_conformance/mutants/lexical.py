"""Mutants of lexical and hybrid queries: an adapter that answers them by the reference, with a fault in one leg.

They rank the rows of the census, so they work over every store, also one without words. They are killed by their
answers: the recorder sees a correct read of the owned rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import Capabilities, Flow
from vectoracl.adapter_api.operations import Found, Include, Position, Scan, Search
from vectoracl.filters.semantics import compile_test
from vectoracl.memory.lexical import bm25
from vectoracl.model.queries import RRF_K, HybridQuery, VectorQuery
from vectoracl.model.records import Hit, Record
from vectoracl_conformance.context.oracle import Oracle, key
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, forged, hit_of, wrapped

_KINDS: Any = frozenset({"vector", "lexical", "hybrid"})


class Worded(AdapterWrapper):
    """A right adapter for words: each leg ranks the rows in scope that match the filter."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare words; their scores hold for one tenant."""
        return replace(self.inner.capabilities, queries=_KINDS, lexical_scores="partition")

    def search(self, operation: Search) -> Flow[Found]:
        """Rank by words, or fuse both legs."""
        query = operation.query
        if isinstance(query, VectorQuery):
            return (yield from self.inner.search(operation))
        everyone = list(self.store.census())
        legs = [self.by_words(operation, everyone, query.text)]
        if isinstance(query, HybridQuery):
            rows = self.vector_rows(operation, everyone)
            by_key = {key(row): row for row in rows}
            legs.append([(by_key[place], score) for place, score in Oracle.rank(rows, query.vector).rows])
        yield from self.read(operation)
        return Found(forged(self.joined(legs)[: operation.k], operation.partition))

    def read(self, operation: Search) -> Flow[None]:
        """Read the own rows that match, in small pages: they are ranked here."""
        include: Include = operation.include | frozenset[Any]({"text"})
        after, more = None, True
        while more:
            page = Scan(operation.partition, operation.scope, operation.where, operation.k, after, include)
            rows = yield from self.inner.scan(page)
            more = rows.more
            if rows.hits:
                last = rows.hits[-1]
                after = Position(last.document, last.tag.generation, last.id)

    def scoped(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Return the rows that the operation may rank."""
        scope, where = compile_test(operation.scope), compile_test(operation.where)
        return [
            row
            for row in everyone
            if row.tag.tenant == operation.partition and scope(row.tag, row.metadata) and where(row.tag, row.metadata)
        ]

    def word_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Return the rows of the lexical leg."""
        return self.scoped(operation, everyone)

    def vector_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Return the rows of the vector's leg."""
        return self.scoped(operation, everyone)

    def by_words(self, operation: Search, everyone: Sequence[Record], text: str) -> list[tuple[Record, float]]:
        """Rank the lexical leg."""
        rows = self.word_rows(operation, everyone)
        scores = bm25(text, [row.text for row in rows])
        return [(rows[place], score) for place, score in sorted(scores.items(), key=lambda one: (-one[1], one[0]))]

    def joined(self, legs: Sequence[Sequence[tuple[Record, float]]]) -> list[Hit]:
        """Fuse the legs; one is taken as it is."""
        if len(legs) == 1:
            return [hit_of(row, score) for row, score in legs[0]]
        rows = {key(row): row for leg in legs for row, _ in leg}
        scores = dict.fromkeys(rows, 0.0)
        for leg in legs:
            for rank, (row, _) in enumerate(leg, start=1):
                scores[key(row)] += 1 / (RRF_K + rank)
        return [hit_of(rows[one], scores[one]) for one in sorted(rows, key=lambda one: (-scores[one], one))]


class WordsOfAll(Worded):
    """The lexical leg ranks everyone's rows."""

    def word_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:  # noqa: ARG002 - the fault
        """Take everyone's."""
        return list(everyone)


class VectorsOfAll(Worded):
    """The vector's leg of a hybrid query ranks everyone's rows, and is filtered when it is fused."""

    def vector_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Take the best of everyone's that are left after a filter."""
        assert isinstance(operation.query, HybridQuery)
        best = [one for one, _ in Oracle.rank(everyone, operation.query.vector).rows[: 4 * operation.k]]
        return [row for row in self.scoped(operation, everyone) if key(row) in set(best)]


class CutBeforeScope(Worded):
    """The lexical leg takes the best of everyone's rows and filters then."""

    def by_words(self, operation: Search, everyone: Sequence[Record], text: str) -> list[tuple[Record, float]]:
        """Rank, cut, filter."""
        scores = bm25(text, [row.text for row in everyone])
        best = sorted(scores, key=lambda place: -scores[place])[: 2 * operation.k]
        mine = {key(row) for row in self.scoped(operation, everyone)}
        return [(everyone[place], scores[place]) for place in best if key(everyone[place]) in mine]


class SharedFrequencies(Worded):
    """The rows are right; how rare a word is counts everyone's texts."""

    def by_words(self, operation: Search, everyone: Sequence[Record], text: str) -> list[tuple[Record, float]]:
        """Score over everyone's texts."""
        scores = bm25(text, [row.text for row in everyone])
        mine = {key(row) for row in self.scoped(operation, everyone)}
        matches = [(everyone[place], score) for place, score in scores.items() if key(everyone[place]) in mine]
        return sorted(matches, key=lambda one: -one[1])


class WordsUnfiltered(Worded):
    """The caller's filter does not reach the lexical leg."""

    def word_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Drop the filter."""
        scope = compile_test(operation.scope)
        return [row for row in everyone if row.tag.tenant == operation.partition and scope(row.tag, row.metadata)]


class VectorsUnfiltered(Worded):
    """The caller's filter does not reach the vector's leg of a hybrid query."""

    def vector_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Drop the filter."""
        scope = compile_test(operation.scope)
        return [row for row in everyone if row.tag.tenant == operation.partition and scope(row.tag, row.metadata)]


class WordsWide(Worded):
    """The lexical leg ignores what the handle was narrowed to."""

    def word_rows(self, operation: Search, everyone: Sequence[Record]) -> list[Record]:
        """Ignore the scope's predicate."""
        where = compile_test(operation.where)
        return [row for row in everyone if row.tag.tenant == operation.partition and where(row.tag, row.metadata)]


class BothLegsOnly(Worded):
    """A hybrid query returns only what both legs found."""

    def joined(self, legs: Sequence[Sequence[tuple[Record, float]]]) -> list[Hit]:
        """Intersect."""
        common = set.intersection(*({key(row) for row, _ in leg} for leg in legs))
        return [hit for hit in super().joined(legs) if (hit.tenant, hit.document, hit.id) in common]


class VectorForBoth(Worded):
    """A hybrid query is answered by its vector, the words are dropped."""

    def joined(self, legs: Sequence[Sequence[tuple[Record, float]]]) -> list[Hit]:
        """Drop the lexical leg of two."""
        return super().joined(legs[-1:])


class ComparesAnyway(Worded):
    """Declares that scores of several tenants compare, and they do not."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        return replace(super().capabilities, lexical_scores="comparable")


def _mutant(kind: type[AdapterWrapper], name: str, breaks: str) -> Mutant:
    return Mutant(name, breaks, "R13", wrapped(kind))


WORDS = (
    _mutant(WordsOfAll, "lexical leg unscoped", "words rank everyone's rows"),
    _mutant(VectorsOfAll, "vector leg filtered late", "the vector's leg ranks everyone's rows, then filters"),
    _mutant(CutBeforeScope, "lexical leg cut before the scope", "the best of everyone's by words, then filtered"),
    _mutant(SharedFrequencies, "word statistics of everyone", "how rare a word is counts other tenants' texts"),
    _mutant(WordsUnfiltered, "filter missing in the lexical leg", "the caller's filter does not reach it"),
    _mutant(VectorsUnfiltered, "filter missing in the vector leg", "the caller's filter does not reach it"),
    _mutant(WordsWide, "lexical leg past the handle", "the scope's predicate does not reach it"),
    _mutant(BothLegsOnly, "a hybrid of what both legs found", "fewer than min(k, visible) rows"),
    _mutant(VectorForBoth, "a hybrid by its vector", "the words are dropped"),
    _mutant(ComparesAnyway, "scores that do not compare", "statistics of a tenant's texts, declared comparable"),
)
