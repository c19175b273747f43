"""Lexical and hybrid searches: scoped rankings (legs), fused here. Pure flows.

Qdrant's own fusion adds float32 scores from a hash map: if several chunks have the same score, as the first of each leg
always do, it returns different ones from query to query. So both legs are requested in one call, each with the complete
filter, and fused in float64 (`queries.RRF_K`), with ties broken by document and chunk id as everywhere. A leg is never
cut inside a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from qdrant_client import models

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Found, Search
from vectoracl.adapter_api.rank_fusion import fused
from vectoracl.model.queries import HybridQuery, Lexical
from vectoracl.model.records import Vector
from vectoracl_qdrant import words as words_
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Compiled
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.decode import Decoder
from vectoracl_qdrant.pages import Pages
from vectoracl_qdrant.versions import ROUNDS, SHORT_ANSWER_TRIES, Versions, too_many_conflicts

DEPTH = 100
"""How deep each leg of a hybrid query is read at least, in hits."""
_DEEPER = 4
_CUT = "a ranking reached the largest number of hits of a request before there were enough"
_SHORT = "the vector index returned fewer hits than the scope has"

Ranked = list[tuple[float, models.ScoredPoint]]


class _Leg(NamedTuple):
    """One leg's points, best first; `whole` is whether there are no more."""

    ranked: Ranked
    whole: bool


class WordSearch:
    """Searches one configured collection by words."""

    def __init__(
        self, config: QdrantConfig, compiled: QdrantCompiler, decode: Decoder, pages: Pages, versions: Versions
    ) -> None:
        self._config = config
        self._compile = compiled
        self._decode = decode
        self._pages = pages
        self._versions = versions

    def search(self, operation: Search, query: Lexical | HybridQuery) -> Flow[Found]:
        """Rank inside the scope by words, or by words and vector."""
        words = words_.wanted(query.text)
        vector = query.vector if isinstance(query, HybridQuery) else None
        if words is None:
            if vector is None:
                return Found([])
            words = models.SparseVector(indices=[], values=[])
        scope = self._compile.scope(operation.scope, operation.where)
        state: dict[str, Any] = {}

        def ask(more: Compiled) -> Flow[Sequence[Any]]:
            where = self._compile.rows(operation.partition, scope, more)
            if where is None:
                state["best"], state["cut"] = [], False
                return []
            state["best"], state["cut"] = yield from self._best(operation, words, vector, where)
            return [point for _, point in state["best"]]

        for turn in range(1, ROUNDS + 1):
            points = yield from self._versions.steady(operation.partition, ask)
            best: Ranked = state["best"]
            if vector is not None and points:
                rows = yield from self._rows(operation, scope, points)
                if rows is None:
                    continue  # between the ranking and its rows a document was replaced or deleted
                best = [(score, rows[str(point.id)]) for score, point in best]
            shortfall = _CUT if state["cut"] else None
            if vector is not None and shortfall is None:
                shortfall = yield from self._shortfall(operation, scope, [point for _, point in best])
                if shortfall is not None and turn < SHORT_ANSWER_TRIES:
                    continue  # see `adapter.QdrantAdapter.search`
            break
        else:
            raise too_many_conflicts()
        hits = self._decode.worded(best)
        if operation.min_score is not None:
            hits = [hit for hit in hits if hit.score >= operation.min_score]
        return Found(hits, shortfall is None, shortfall)

    def _rows(self, operation: Search, scope: Compiled, points: Sequence[Any]) -> Flow[dict[str, Any] | None]:
        """Return what *operation* includes of *points*, which are asked for inside the scope again; None if less."""
        id_condition = self._compile.ids(str(point.id) for point in points)
        where = self._compile.rows(operation.partition, scope, id_condition)
        assert where is not None
        listing = self._compile.listing(operation.partition, where, operation.include)
        rows = yield from self._pages.all(listing)
        if set(map(self._versions.stamp, rows)) != set(map(self._versions.stamp, points)):
            return None
        if (yield from self._versions.stale(operation.partition, rows)):
            return None
        return {str(row.id): row for row in rows}

    def _shortfall(self, operation: Search, scope: Compiled, points: Sequence[Any]) -> Flow[str | None]:
        """Return why there are fewer hits than there could be: a graph may lose some, on a server."""
        missed = not self._config.local and (yield from self._versions.missed(operation, scope, points))
        return _SHORT if missed else None

    def _best(
        self, operation: Search, words: models.SparseVector, vector: Vector | None, where: models.Filter
    ) -> Flow[tuple[Ranked, bool]]:
        """Return the best points with their scores, and whether the legs had to be cut before there were enough."""
        most = self._config.max_k
        limit = min(most, operation.k if vector is None else max(operation.k, DEPTH))
        while True:
            legs = yield from self._legs(operation, words, vector, where, limit)
            cut = not all(leg.whole for leg in legs)
            order = legs[0].ranked if vector is None else self._fused(legs)
            best = self._kept(order, operation)
            enough = self._enough(best, operation)
            if enough or not cut or limit == most:
                return best, cut and not enough
            limit = min(most, limit * _DEEPER)

    def _legs(
        self,
        operation: Search,
        words: models.SparseVector,
        vector: Vector | None,
        where: models.Filter,
        limit: int,
    ) -> Flow[list[_Leg]]:
        """Return each leg at least *limit* deep, and not cut inside a tie."""
        most = self._config.max_k
        while True:
            replies: tuple[Sequence[models.ScoredPoint], ...]
            if vector is None:
                payload = self._compile.payload(operation.include)
                replies = ((yield from self._compile.words(operation, words, where, _one_more(limit, most), payload)),)
            elif not words.indices:
                dense = self._compile.hybrid(operation, words, vector, where, _one_more(limit, most)).legs[0]
                replies = ((yield from dense),)
            else:
                replies = yield from self._compile.hybrid(operation, words, vector, where, _one_more(limit, most))
            legs = [self._leg(reply, limit, sign=self._sign(at, vector)) for at, reply in enumerate(replies)]
            if limit == most or all(leg is not None for leg in legs):
                return [leg if leg is not None else self._all(replies[at], vector, at) for at, leg in enumerate(legs)]
            limit = min(most, limit * _DEEPER)

    def _sign(self, at: int, vector: Vector | None) -> float:
        return -1.0 if vector is not None and at == 0 and self._config.metric == "l2" else 1.0

    def _all(self, reply: Sequence[models.ScoredPoint], vector: Vector | None, at: int) -> _Leg:
        return _Leg(self._ordered(reply, self._sign(at, vector)), whole=False)

    def _leg(self, reply: Sequence[models.ScoredPoint], limit: int, *, sign: float) -> _Leg | None:
        """Return the first *limit* of a reply to one more than that; None where the cut would be inside a tie."""
        ranked = self._ordered(reply, sign)
        if len(ranked) <= limit:
            return _Leg(ranked, whole=True)
        if ranked[limit - 1][0] == ranked[limit][0]:
            return None
        return _Leg(ranked[:limit], whole=False)

    def _ordered(self, reply: Sequence[models.ScoredPoint], sign: float) -> Ranked:
        return sorted(((sign * point.score, point) for point in reply), key=lambda one: (-one[0], *self._names(one[1])))

    def _names(self, point: models.ScoredPoint) -> tuple[str, str]:
        keys, payload = self._config.payload, point.payload or {}
        if keys.chunk not in payload:
            self._decode.tag(point)  # raises what fits
        self._versions.of(point)
        return payload[keys.document], payload[keys.chunk]

    def _fused(self, legs: Sequence[_Leg]) -> Ranked:
        """Fuse *legs* by reciprocal rank."""
        points: dict[str, models.ScoredPoint] = {}
        for leg in legs:
            for _, point in leg.ranked:
                points.setdefault(str(point.id), point)
        scores = fused([str(point.id) for _, point in leg.ranked] for leg in legs)
        ranked = [(scores[id_], point) for id_, point in points.items()]
        return sorted(ranked, key=lambda one: (-one[0], *self._names(one[1])))

    def _documents(self, ranked: Ranked) -> dict[str, Ranked]:
        groups: dict[str, Ranked] = {}
        for one in ranked:
            groups.setdefault(self._names(one[1])[0], []).append(one)
        return groups

    def _enough(self, best: Ranked, operation: Search) -> bool:
        """Return whether *best* is all that was asked for: with groups, each of them too."""
        if operation.group_by is None:
            return len(best) >= operation.k
        groups = self._documents(best)
        return len(groups) >= operation.k and all(len(group) >= operation.per_group for group in groups.values())

    def _kept(self, ranked: Ranked, operation: Search) -> Ranked:
        """Return the first `k`, or the first `per_group` of each of the first `k` documents, in the same order."""
        if operation.group_by is None:
            return ranked[: operation.k]
        groups = list(self._documents(ranked).values())[: operation.k]
        members = {str(point.id) for group in groups for _, point in group[: operation.per_group]}
        return [one for one in ranked if str(one[1].id) in members]


def _one_more(limit: int, most: int) -> int:
    return min(limit + 1, most)
