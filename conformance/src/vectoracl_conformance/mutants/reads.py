"""Mutants of reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from vectoracl.adapter_api.contract import Adapter, Capabilities, Flow, Opened
from vectoracl.adapter_api.operations import Count, Facets, Fetch, Found, Rows, Scan, Search
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, Always, Eq, Missing, Not, Predicate
from vectoracl.filters.semantics import compile_test, getter, tallied, values_of
from vectoracl.filters.validation import fields_of
from vectoracl.model.queries import HybridQuery, Lexical, VectorQuery
from vectoracl.model.records import Facet, Hit
from vectoracl_conformance.context.corpus import FIELDS
from vectoracl_conformance.context.oracle import Oracle, key
from vectoracl_conformance.harness import Mutant, Store
from vectoracl_conformance.wrappers.adapter_wrapper import (
    AdapterWrapper,
    AsyncCheatPort,
    CheatPort,
    Everywhere,
    by_listing,
    forged,
    wrapped,
)


def own(hits: list[Hit], operation: Search) -> list[Hit]:
    """Return the hits of the operation's partition, as a filter after the ranking would."""
    return [hit for hit in hits if hit.tenant == operation.partition][: operation.k]


class PostFilter(AdapterWrapper):
    """Ranks everything, takes factor times k, then filters."""

    factor = 1

    def search(self, operation: Search) -> Flow[Found]:
        """Rank, cut, filter."""
        hits = yield from Everywhere(operation.partition, operation)
        return Found(own(hits[: operation.k * self.factor], operation))


class Twice(PostFilter):
    """Over-fetches by 2."""

    factor = 2


class TenTimes(PostFilter):
    """Over-fetches by 10."""

    factor = 10


class HundredTimes(PostFilter):
    """Over-fetches by 100."""

    factor = 100


class Widen(AdapterWrapper):
    """Takes more and more until it has enough own rows: right results, unscoped ranking."""

    def search(self, operation: Search) -> Flow[Found]:
        """Widen."""
        right = yield from self.inner.search(operation)
        yield from Everywhere(operation.partition, operation)
        return right


class WidenBare(AdapterWrapper):
    """Takes everyone's vectors, and nothing else, to rank them here: right results."""

    def search(self, operation: Search) -> Flow[Found]:
        """Take the vectors."""
        right = yield from self.inner.search(operation)
        yield from Everywhere(operation.partition, operation, bare=True)
        return right


class OthersVectors(AdapterWrapper):
    """The rows are right, and the vectors that come with them are the nearest of anyone."""

    def search(self, operation: Search) -> Flow[Found]:
        """Take the vectors from a wider ranking."""
        result = yield from self.inner.search(operation)
        if "vector" not in operation.include or not isinstance(operation.query, VectorQuery):
            return result
        ranked = Oracle.rank(self.store.census(), operation.query.vector).rows
        vectors = {key(row): row.vector for row in self.store.census()}
        near = [vectors[one] for one, _ in ranked]
        return result._replace(hits=[hit._replace(vector=near[place]) for place, hit in enumerate(result.hits)])


class OthersMetadata(AdapterWrapper):
    """The rows are right, and their metadata are another row's of the same tenant."""

    def search(self, operation: Search) -> Flow[Found]:
        """Shift the metadata."""
        result = yield from self.inner.search(operation)
        shifted = [*result.hits[1:], *result.hits[:1]]
        pairs = zip(result.hits, shifted, strict=True)
        return result._replace(hits=[hit._replace(metadata=other.metadata) for hit, other in pairs])


class Forged(AdapterWrapper):
    """Returns foreign hits under the own tag."""

    def search(self, operation: Search) -> Flow[Found]:
        """Rank everything and forge."""
        hits = yield from Everywhere(operation.partition, operation)
        return Found(forged(hits[: operation.k], operation.partition))


class Honest(AdapterWrapper):
    """Returns foreign hits as they are; only the second lock stands in the way."""

    def search(self, operation: Search) -> Flow[Found]:
        """Rank everything."""
        hits = yield from Everywhere(operation.partition, operation)
        return Found(hits[: operation.k])


class Short(AdapterWrapper):
    """Returns one hit fewer than k where there are more."""

    def search(self, operation: Search) -> Flow[Found]:
        """Cut."""
        result = yield from self.inner.search(operation)
        return result._replace(hits=result.hits[: max(1, operation.k - 1)])


class Negative(AdapterWrapper):
    """Scores are distances: lower is better."""

    def search(self, operation: Search) -> Flow[Found]:
        """Turn the scores."""
        result = yield from self.inner.search(operation)
        return result._replace(hits=[hit._replace(score=1 - hit.score) for hit in result.hits])


class Worst(AdapterWrapper):
    """Approximates: the best hit is sometimes lost."""

    def search(self, operation: Search) -> Flow[Found]:
        """Lose the best."""
        result = yield from self.inner.search(replace(operation, k=operation.k + 1))
        return result._replace(hits=result.hits[1:] if len(result.hits) > operation.k else result.hits)


class SharedStatistics(AdapterWrapper):
    """Scores depend on how many rows there are, of anyone."""

    def search(self, operation: Search) -> Flow[Found]:
        """Scale."""
        result = yield from self.inner.search(operation)
        factor = 1 - len(self.store.census()) * 1e-6
        return result._replace(hits=[hit._replace(score=hit.score * factor) for hit in result.hits])


class OrMerged(AdapterWrapper):
    """The tenant's condition joins the caller's OR."""

    def search(self, operation: Search) -> Flow[Found]:
        """Merge."""
        if isinstance(operation.where, Always):
            return (yield from self.inner.search(operation))
        hits = yield from Everywhere(operation.partition, operation)
        return Found(forged(hits[: operation.k], operation.partition))


class FilterDropped(AdapterWrapper):
    """The caller's filter does not reach the search."""

    def search(self, operation: Search) -> Flow[Found]:
        """Drop it."""
        return (yield from self.inner.search(replace(operation, where=ALWAYS)))


class ThreeValued(AdapterWrapper):
    """NOT as SQL means it: rows without the field are lost."""

    def search(self, operation: Search) -> Flow[Found]:
        """Demand the fields."""
        where = operation.where
        if isinstance(where, Not) and not isinstance(where.operand, Missing):
            for name in sorted(one for one in fields_of(where) if not one.startswith("@")):
                where = where & Not(Missing(name))
        return (yield from self.inner.search(replace(operation, where=where)))


def _quoted(where: Predicate) -> Predicate:
    """Read a value with a quote as more than text: it matches every row that has the field."""
    if isinstance(where, Eq) and isinstance(where.value, str) and ("'" in where.value or "%" in where.value):
        return Not(Missing(where.field)) if not where.field.startswith("@") else ALWAYS
    return where


class Injected(AdapterWrapper):
    """A filter's value becomes part of the query's text."""

    def search(self, operation: Search) -> Flow[Found]:
        """Inject."""
        return (yield from self.inner.search(replace(operation, where=_quoted(operation.where))))


class LikeLeaks(AdapterWrapper):
    """The look-up behind "like this id" is not scoped."""

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Leak where only the vector is asked for."""
        if operation.include == {"vector"}:
            hits = yield from Everywhere(operation.partition, operation)
            mine = [hit for hit in hits if hit.tenant == operation.partition]
            return Rows(forged(mine or hits[:1], operation.partition))
        return (yield from self.inner.fetch(operation))


class FetchUnscoped(AdapterWrapper):
    """The id alone is enough."""

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Fetch anyone's."""
        hits = yield from Everywhere(operation.partition, operation)
        return Rows(forged(hits, operation.partition))


class FetchWide(AdapterWrapper):
    """A fetch ignores what the handle was narrowed to."""

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Ignore the scope's predicate."""
        return (yield from self.inner.fetch(replace(operation, scope=ALWAYS)))


class FirstPageOnly(AdapterWrapper):
    """Only the first page of a scan is scoped."""

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Forget the tenant with the cursor."""
        if operation.after is None:
            return (yield from self.inner.scan(operation))
        hits = yield from Everywhere(operation.partition, operation)
        after = tuple(operation.after)
        remainder = [hit for hit in hits if (hit.document, hit.tag.generation, hit.id) > after]
        remainder.sort(key=lambda hit: (hit.document, hit.tag.generation, hit.id))
        return Rows(forged(remainder[: operation.size], operation.partition), more=len(remainder) > operation.size)


class PageLoses(AdapterWrapper):
    """Each page but the first loses its first row (the sort order and the cursor disagree)."""

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Lose one."""
        rows = yield from self.inner.scan(operation)
        return rows._replace(hits=rows.hits[1:]) if operation.after is not None and len(rows.hits) > 1 else rows


class ScanFilterDropped(AdapterWrapper):
    """The caller's filter does not reach the scan."""

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Drop it."""
        return (yield from self.inner.scan(replace(operation, where=ALWAYS)))


class CountUnscoped(AdapterWrapper):
    """Counts everyone's."""

    def count(self, operation: Count) -> Flow[int]:
        """Count."""
        return len((yield from Everywhere(operation.partition, operation)))


class CountFilterDropped(AdapterWrapper):
    """Counts without the filter."""

    def count(self, operation: Count) -> Flow[int]:
        """Drop it."""
        return (yield from self.inner.count(replace(operation, where=ALWAYS)))


class CountWide(AdapterWrapper):
    """Counts past what the handle was narrowed to."""

    def count(self, operation: Count) -> Flow[int]:
        """Ignore the scope's predicate."""
        return (yield from self.inner.count(replace(operation, scope=ALWAYS)))


class Faceting(AdapterWrapper):
    """Counts by value as the adapter does, or by listing where it does not, so that every adapter shows the fault."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare it."""
        can = self.inner.capabilities
        return replace(can, facets="paged") if can.facets == "none" else can

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count by value."""
        if self.inner.capabilities.facets == "none":
            return by_listing(self.inner, operation)
        return self.perform(operation)


class FacetsUnscoped(Faceting):
    """Counts everyone's rows by value; how it knows them does not show."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Add everyone else's."""
        own: list[Facet] = yield from self.perform(operation)
        test = compile_test(operation.where)
        others = [
            row for row in self.store.census() if row.tag.tenant != operation.partition and test(row.tag, row.metadata)
        ]
        kind = FieldType.KEYWORD if operation.field.startswith("@") else FieldType(FIELDS[operation.field])
        get = getter(operation.field)
        return own + tallied((values_of(kind, get(row.tag, row.metadata)) for row in others), operation.most)


class FacetsOfLookAlikes(Faceting):
    """Values that differ in case are counted as one."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Fold."""
        counts: list[Facet] = yield from self.perform(operation)
        folded: dict[Any, int] = {}
        for value, count in counts:
            one = value.lower() if isinstance(value, str) else value
            folded[type(one), one] = folded.get((type(one), one), 0) + count
        return [Facet(one, count) for (_, one), count in folded.items()]


class FacetsCut(Faceting):
    """The hundred most frequent values are passed off as all, as some stores' default is."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Cut."""
        counts: list[Facet] = yield from self.perform(operation)
        return sorted(counts, key=lambda facet: -facet.count)[:100]


class FacetsFilterDropped(Faceting):
    """Counts by value without the filter."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Drop it."""
        return (yield from self.perform(replace(operation, where=ALWAYS)))  # type: ignore[no-any-return]


class FacetsWide(Faceting):
    """Counts by value past what the handle was narrowed to."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Ignore the scope's predicate."""
        return (yield from self.perform(replace(operation, scope=ALWAYS)))  # type: ignore[no-any-return]


class FacetsOfElements(Faceting):
    """An element that comes twice in a list counts twice."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Count elements instead of rows."""
        result: list[Facet] = yield from self.perform(operation)
        if operation.field.startswith("@") or not FieldType(FIELDS[operation.field]).is_list:
            return result
        test, where = compile_test(operation.scope), compile_test(operation.where)
        counts: Counter[Any] = Counter()
        for row in self.store.census():
            if row.tag.tenant == operation.partition and all(one(row.tag, row.metadata) for one in (test, where)):
                counts.update(row.metadata.get(operation.field, ()))
        return [Facet(value, count) for value, count in counts.items()]


class OneLeg(AdapterWrapper):
    """A hybrid query of which only the vector's leg is scoped."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare hybrid and lexical queries."""
        return replace(self.inner.capabilities, queries=frozenset({"vector", "lexical", "hybrid"}))

    def search(self, operation: Search) -> Flow[Found]:
        """Fuse an unscoped leg in."""
        query = operation.query
        if isinstance(query, VectorQuery):
            return (yield from self.inner.search(operation))
        hits = yield from Everywhere(operation.partition, operation)
        words = [hit for hit in hits if hit.text is not None and query.text in hit.text]
        legs = forged(words, operation.partition)
        if isinstance(query, HybridQuery):
            legs += (yield from self.inner.search(replace(operation, query=VectorQuery(query.vector)))).hits
        return Found(legs[: operation.k])


class CachedForAll(AdapterWrapper):
    """Answers are cached by the query alone."""

    def __init__(self, inner: Adapter, store: Store) -> None:
        super().__init__(inner, store)
        self._kept: dict[Any, Found] = {}

    def search(self, operation: Search) -> Flow[Found]:
        """Look into the cache first."""
        if not isinstance(operation.query, VectorQuery):
            return (yield from self.inner.search(operation))
        place = (operation.query.vector.tobytes(), operation.k, self._of(operation))
        if place not in self._kept:
            self._kept[place] = yield from self.inner.search(operation)
        result = self._kept[place]
        return result._replace(hits=forged(result.hits, operation.partition))

    def _of(self, operation: Search) -> object:
        return (repr(operation.where), operation.include, operation.exact, operation.min_score, operation.group_by)


class CachedForever(CachedForAll):
    """Answers are cached by tenant and query, and no write ends them."""

    def _of(self, operation: Search) -> object:
        return (operation.partition, repr(operation.scope), super()._of(operation))


class GrantsLeak(AdapterWrapper):
    """A grant's predicate is forgotten where the partition is another one than the first."""

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Ignore the scope's predicate."""
        return (yield from self.inner.scan(replace(operation, scope=ALWAYS)))

    def search(self, operation: Search) -> Flow[Found]:
        """Ignore the scope's predicate."""
        return (yield from self.inner.search(replace(operation, scope=ALWAYS)))


class AnswersHybrid(AdapterWrapper):
    """A query kind that is not declared is answered by its vector."""

    @property
    def capabilities(self) -> Capabilities:
        """Declare vectors only."""
        return replace(self.inner.capabilities, queries=frozenset({"vector"}))

    def search(self, operation: Search) -> Flow[Found]:
        """Approximate."""
        query = operation.query
        if isinstance(query, HybridQuery):
            return (yield from self.inner.search(replace(operation, query=VectorQuery(query.vector))))
        if isinstance(query, Lexical):
            return Found([])
        return (yield from self.inner.search(operation))


def _async_differs(opened: Opened, store: Store) -> Opened:
    """Wrap so that only async calls are broken."""
    inner, port, aport = opened.adapter, opened.port, opened.aport
    right, broken = AdapterWrapper(inner, store), Forged(inner, store)

    class Split(AdapterWrapper):
        def search(self, operation: Search) -> Flow[Found]:
            return (broken if opened_async else right).search(operation)

    opened_async: list[int] = []

    def apart() -> AsyncCheatPort:
        opened_async.append(1)
        return AsyncCheatPort(aport(), inner, store)

    return replace(opened, adapter=Split(inner, store), port=lambda: CheatPort(port(), inner, store), aport=apart)


def _mutant(kind: type[AdapterWrapper], name: str, breaks: str, expected: str) -> Mutant:
    return Mutant(name, breaks, expected, wrapped(kind))


READING = (
    _mutant(PostFilter, "filter after the ranking", "k of everyone's rows are ranked, then filtered", "R1"),
    _mutant(Honest, "unscoped search", "foreign rows come back as they are", "R1"),
    _mutant(Forged, "unscoped search, tags forged", "foreign rows come back under the own tag", "R1"),
    Mutant("async differs", "the async path is not scoped", "R1", _async_differs, modes=("async",)),
    _mutant(Twice, "over-fetch ×2", "2 k candidates are ranked unscoped, then filtered", "R2"),
    _mutant(TenTimes, "over-fetch ×10", "10 k candidates are ranked unscoped, then filtered", "R2"),
    _mutant(HundredTimes, "over-fetch ×100", "100 k candidates are ranked unscoped, then filtered", "R2"),
    _mutant(Short, "one hit short", "k - 1 hits come back", "R2"),
    _mutant(Negative, "lower is better", "scores are distances", "R2"),
    _mutant(Worst, "the best hit lost", "an approximate ranking is passed off as complete", "R2"),
    _mutant(Widen, "widen until enough", "everyone's rows are read until there are enough own ones", "R3"),
    _mutant(WidenBare, "everyone's vectors fetched", "vectors alone come out, and are ranked in the client", "R3"),
    _mutant(OthersVectors, "vectors of other rows", "a hit's vector is that of the nearest row of anyone", "R2"),
    _mutant(OthersMetadata, "metadata of other rows", "a hit's metadata are another row's", "R2"),
    _mutant(SharedStatistics, "shared statistics", "scores depend on other tenants' rows", "R4"),
    _mutant(OrMerged, "scope in the caller's OR", "the tenant's condition is an alternative of the filter", "R5"),
    _mutant(FilterDropped, "filter dropped in search", "the caller's filter does not reach the store", "R5"),
    _mutant(ThreeValued, "NOT loses missing fields", "three-valued logic of the store shows through", "R5"),
    _mutant(Injected, "injection", "a value with a quote is read as more than text", "R6"),
    _mutant(LikeLeaks, "like a foreign id", "the look-up of the vector is not scoped", "R9"),
    _mutant(FetchUnscoped, "fetch by id alone", "the tenant is not a condition of a fetch", "R10"),
    _mutant(FetchWide, "fetch past the handle", "the scope's predicate is not a condition of a fetch", "R10"),
    _mutant(FirstPageOnly, "only the first page scoped", "the cursor is enough for the next page", "R11"),
    _mutant(PageLoses, "pages lose rows", "the order and the cursor disagree", "R11"),
    _mutant(ScanFilterDropped, "filter dropped in scan", "the caller's filter does not reach the store", "R11"),
    _mutant(CountUnscoped, "count unscoped", "everyone's rows are counted", "R12"),
    _mutant(CountFilterDropped, "filter dropped in count", "the caller's filter does not reach the store", "R12"),
    _mutant(CountWide, "count past the handle", "the scope's predicate is not a condition of a count", "R12"),
    _mutant(FacetsUnscoped, "facets unscoped", "everyone's rows are counted by value", "R12"),
    _mutant(FacetsOfLookAlikes, "facets fold case", "values that look alike are counted as one", "R12"),
    _mutant(FacetsCut, "facets cut", "some of the values are passed off as all", "R12"),
    _mutant(FacetsFilterDropped, "filter dropped in facets", "the caller's filter does not reach the store", "R12"),
    _mutant(FacetsWide, "facets past the handle", "the scope's predicate is not a condition of facets", "R12"),
    _mutant(FacetsOfElements, "facets of elements", "a row counts several times for one value of its list", "R12"),
    _mutant(OneLeg, "one leg of a hybrid unscoped", "the lexical leg ranks everyone's rows", "R13"),
    _mutant(CachedForAll, "cache without the principal", "answers are kept by the query alone", "R14"),
    _mutant(CachedForever, "cache without an end", "answers survive writes", "R14"),
    _mutant(GrantsLeak, "grants of one partition in another", "the predicate of a grant is dropped", "R15"),
    _mutant(AnswersHybrid, "undeclared queries answered", "a hybrid query is answered by its vector", "X3"),
)  # fmt: skip
