"""Lexical and hybrid searches: scoped rankings (legs), fused here. Pure flows.

A text's words are stored as a sparse vector (`vectoracl.text.sparse_words`), and their indices also in its metadata. A
lexical leg requests the records with at least one of the query's indices, as one more operand of the `$and` with the
scope. So the filter decides which rows are returned, as in every other query, independently of how Pinecone ranks; the
sparse product only selects the best ones if more records contain a word than are read. The score is computed here, from
the returned text, so it is exact whatever Pinecone adds to its own.

Pinecone would add both products of a query into one score; vectoracl fuses two legs by rank, as on every store
(`queries.RRF_K`). Ties are broken by document and chunk, which is the order of record ids. A leg is never cut inside a
tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vectoracl.adapter_api.contract import Flow, together
from vectoracl.adapter_api.operations import Found, Search
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl.text import sparse_words as words_
from vectoracl_pinecone.compile import NO_ROWS, PineconeCompiler, numbers
from vectoracl_pinecone.compile_predicate import Compiled, every
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.decode import Decoder
from vectoracl_pinecone.pages import Pages, parts_of, too_many_conflicts
from vectoracl_pinecone.requests import Match, Query

DEPTH = 99
"""How deep each leg of a hybrid query is read at least, in hits."""
_DEEPER = 4
_ROUNDS = 6
_ROUNDING = 1e-4  # of Pinecone's own score, which is a sum of float32 products, relative to it
_CUT = "a ranking reached the largest number of hits of a request before there were enough"
_SHORT = "the index returned fewer hits than the scope has"
_WORDLESS = (
    "some chunks of the scope have no words, since they were written without lexical = true: write them again, or copy "
    "the store (`vectoracl copy`)"
)

Ranked = list[tuple[float, str]]
"""Scores and record ids, best first."""


@dataclass(slots=True)
class _SearchPlan:
    """One search, by the different words of the query and their places; `values`: vectors are included.

    `wordless` is whether a record of the scope was written without words; None until that was looked for.
    """

    partition: str
    where: Compiled
    words: frozenset[str]
    places: list[int]
    vector: list[float] | None
    values: bool
    wordless: bool | None = None


class _Leg(NamedTuple):
    """One leg; `whole` is whether there are no more records. `rows` are the whole records that were read for it."""

    ranked: Ranked
    whole: bool
    rows: dict[str, Match]


class _LegQuery(NamedTuple):
    """How a leg is asked for, to a depth; how its scores are read, and how far apart equal ones may be."""

    query: Callable[[int], Query]
    score: Callable[[float], float]
    rounding: float


class WordSearch:
    """Searches one configured index by words."""

    def __init__(self, config: PineconeConfig, compiled: PineconeCompiler, decode: Decoder, pages: Pages) -> None:
        self._config = config
        self._compile = compiled
        self._decode = decode
        self._pages = pages

    def search(self, operation: Search, query: Lexical | HybridQuery) -> Flow[Found]:
        """Rank inside the scope by words, or by words and vector."""
        vector = numbers(query.vector) if isinstance(query, HybridQuery) else None
        where = self._compile.scope(operation.scope, operation.where)
        words, indices = frozenset(words_.words(query.text)), words_.token_indices(query.text)
        plan = _SearchPlan(operation.partition, where, words, indices, vector, "vector" in operation.include)
        if where is NO_ROWS or (not plan.places and vector is None):
            return Found([])
        for _ in range(_ROUNDS):
            best, known, cut = yield from self._best(operation, plan)
            rows = yield from self._rows(plan, [id_ for _, id_ in best], known)
            if rows is not None:
                break  # else a document was replaced or deleted between the ranking and its rows
        else:
            raise too_many_conflicts()
        shortfall = _WORDLESS if plan.wordless else None
        if shortfall is None and cut:
            shortfall = _CUT
        if shortfall is None and self._config.check_complete:
            pairs = [(self._decode.tag(rows[id_]).document, id_) for _, id_ in best]
            shortfall = yield from self._shortfall(operation, plan, pairs)
        hits = self._decode.scored([(score, rows[id_]) for score, id_ in best], operation.include)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def _rows(self, plan: _SearchPlan, ids: Sequence[str], known: dict[str, Match]) -> Flow[dict[str, Match] | None]:
        """Return the whole records of *ids*, asked for inside the scope again; None if one was deleted or rewritten."""
        missing_ids = [one for one in ids if one not in known]
        rows = yield from self._pages.rows(plan.partition, missing_ids, plan.where, values=plan.values)
        if len(rows) != len(missing_ids):
            return None
        by_id = {**known, **{row.id: row for row in rows}}
        if missing_ids or len(ids) > self._compile.per_reply(values=plan.values):  # else all came in one request
            same = yield from self._pages.one_moment(plan.partition, [by_id[id_] for id_ in ids])
            return by_id if same else None
        return by_id

    def _shortfall(self, operation: Search, plan: _SearchPlan, found: Sequence[tuple[str, str]]) -> Flow[str | None]:
        """Return why there are fewer hits than there could be, if there are: the index is asked for any other."""
        for others in self._compile.missing(operation, found):
            rest = every([plan.where, others])
            if plan.vector is not None:
                more = yield from self._compile.query(plan.partition, rest, 1, plan.vector)
            else:
                rest = every([rest, self._compile.holds(plan.places)])
                more = yield from self._compile.by_words(plan.partition, rest, 1, plan.places)
            if more:
                return _SHORT
        return None

    # Legs

    def _best(self, operation: Search, plan: _SearchPlan) -> Flow[tuple[Ranked, dict[str, Match], bool]]:
        """Return the best records, those that were read whole, and whether legs were cut before there were enough."""
        most = self._config.max_k
        limit = min(most, operation.k if plan.vector is None else max(operation.k, DEPTH))
        while True:
            legs = yield from self._legs(plan, limit)
            cut = not all(leg.whole for leg in legs)
            order = legs[0].ranked if plan.vector is None else _fused(legs)
            best = _kept(order, operation)
            enough = _enough(best, operation)
            if enough or not cut or limit == most:
                known = {id_: row for leg in legs for id_, row in leg.rows.items()}
                return best, known, not enough and cut
            limit = min(most, limit * _DEEPER)

    def _legs(self, plan: _SearchPlan, limit: int) -> Flow[list[_Leg]]:
        """Return each leg at least *limit* deep, and not cut inside a tie. First requests go side by side."""
        compiled, partition = self._compile, plan.partition
        holders = every([plan.where, compiled.holds(plan.places)])
        size = compiled.per_reply(values=plan.values)

        def by_vector(top: int) -> Query:
            return compiled.query(partition, plan.where, top, plan.vector)

        def by_words(top: int) -> Query:
            rows = top <= size
            return compiled.by_words(partition, holders, top, plan.places, rows=rows, values=rows and plan.values)

        asks = [] if plan.vector is None else [_LegQuery(by_vector, self._decode.score, 0.0)]
        if plan.places:
            asks.append(_LegQuery(by_words, float, _ROUNDING))
        top = min(limit + 1, self._config.max_k)
        first = [ask.query(top) for ask in asks]
        if plan.wordless is None and plan.places and self._config.check_complete:
            first.append(compiled.query(partition, every([plan.where, compiled.wordless()]), 1))
        replies = yield from together(*first)
        if len(first) > len(asks):
            plan.wordless = bool(replies[-1])
        legs = []
        for ask, reply in zip(asks, replies, strict=False):
            matches, whole = yield from self._deep(ask, reply, top, limit)
            if ask.query is by_words:
                legs.append((yield from self._scored(plan, holders, matches, limit, whole=whole)))
            else:
                ranked = sorted(((score, one.id) for score, one in matches), key=_order)
                legs.append(_Leg(ranked[:limit], whole and len(ranked) <= limit, {}))
        return legs

    def _deep(
        self, ask: _LegQuery, reply: Sequence[Match], top: int, limit: int
    ) -> Flow[tuple[list[tuple[float, Match]], bool]]:
        """Read on while the cut at *limit* may be inside a tie; return what is not behind it, and whether it is all."""
        most = self._config.max_k
        while True:
            matches = [(ask.score(one.score), one) for one in reply]
            if len(matches) < top:
                return matches, True
            least = matches[min(limit, len(matches)) - 1][0]
            least -= ask.rounding * max(1.0, abs(least))
            # At the limit of a request, a tie is cut where the reply ends.
            if matches[-1][0] < least or top == most:
                return [one for one in matches if one[0] >= least], False
            top = min(most, top * _DEEPER)
            reply = yield from ask.query(top)

    def _scored(
        self, plan: _SearchPlan, holders: Compiled, matches: Sequence[tuple[float, Match]], limit: int, *, whole: bool
    ) -> Flow[_Leg]:
        """Return the leg by words: its records are read whole, and scored by their texts."""
        known = {one.id: one for _, one in matches if one.metadata}
        missing = [one.id for _, one in matches if one.id not in known]
        for row in (yield from self._pages.rows(plan.partition, missing, holders, values=plan.values)):
            known[row.id] = row
        scores = {id_: words_.score(plan.words, self._decode.text(row)) for id_, row in known.items()}
        ranked = sorted(((one, id_) for id_, one in scores.items() if one > 0), key=_order)
        return _Leg(ranked[:limit], whole and len(ranked) <= limit, known)


def _names_of(id_: str) -> tuple[str, str]:
    parts = parts_of(id_)
    return parts.document, parts.chunk


def _order(one: tuple[float, str]) -> tuple[float, str, str]:
    return (-one[0], *_names_of(one[1]))


def _fused(legs: Sequence[_Leg]) -> Ranked:
    """Fuse *legs* by reciprocal rank."""
    scores = fused([id_ for _, id_ in leg.ranked] for leg in legs)
    return sorted(((score, id_) for id_, score in scores.items()), key=_order)


def _groups(ranked: Ranked) -> dict[str, Ranked]:
    groups: dict[str, Ranked] = {}
    for one in ranked:
        groups.setdefault(_names_of(one[1])[0], []).append(one)
    return groups


def _enough(best: Ranked, operation: Search) -> bool:
    """Return whether *best* is all that was asked for: with groups, each of them too."""
    if operation.group_by is None:
        return len(best) >= operation.k
    groups = _groups(best)
    return len(groups) >= operation.k and all(len(group) >= operation.per_group for group in groups.values())


def _kept(ranked: Ranked, operation: Search) -> Ranked:
    """Return the first `k`, or the first `per_group` of each of the first `k` documents, in the same order."""
    if operation.group_by is None:
        return ranked[: operation.k]
    groups = list(_groups(ranked).values())[: operation.k]
    members = {id_ for group in groups for _, id_ in group[: operation.per_group]}
    return [one for one in ranked if one[1] in members]
