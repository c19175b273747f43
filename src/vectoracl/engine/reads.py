"""The flows of search, fetch and count over every partition of the scope (`paging` has scans, `facets` facets)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeVar, assert_never

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import MAX_FETCHED, ChunkRef, Count, Fetch, Found, Include, Rows, Search
from vectoracl.engine.arguments import SearchArguments
from vectoracl.engine.core_ports import EmbedQueries
from vectoracl.engine.drivers import confined, side_by_side
from vectoracl.engine.embedding import embedded
from vectoracl.engine.governed_reads import by_rows, confirm_hits, confirm_unchanged, confirmed_rows
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store, retried
from vectoracl.engine.second_lock import counted, verify
from vectoracl.errors import InvalidInputError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.filters.semantics import compile_test
from vectoracl.model.queries import (
    Hybrid,
    HybridQuery,
    Lexical,
    Like,
    Query,
    ResolvedQuery,
    VectorQuery,
    check_query,
    check_vector,
)
from vectoracl.model.records import Hit, Result

T = TypeVar("T")
_Query = str | VectorQuery | Lexical | Hybrid | Like
"""A query as `check_query` returns it."""


def _supported(store: Store, query: _Query) -> None:
    kind: Literal["vector", "lexical", "hybrid"] = "vector"
    if isinstance(query, Lexical):
        kind = "lexical"
    elif isinstance(query, Hybrid):
        kind = "hybrid"
    if kind not in store.capabilities.queries:
        raise UnsupportedPredicateError(
            f"The adapter {store.adapter_name!r} does not support {kind} queries. It supports: "
            f"{', '.join(sorted(store.capabilities.queries))}.",
            field="query",
        )


def _mergeable(store: Store, plan: Plan, query: object) -> None:
    if len(plan.legs) > 1 and isinstance(query, Lexical) and store.capabilities.lexical_scores != "comparable":
        raise UnsupportedPredicateError(
            f"Lexical scores of {store.adapter_name!r} depend on each tenant's texts, so hits of several tenants "
            "cannot be merged by score. Search as a principal of one tenant, or use Hybrid, which merges by rank.",
            field="query",
        )


def included(leg: Leg, include: Include) -> Include:
    """Return *include* with the parts that the second lock needs."""
    return include | {"metadata"} if leg.needs_metadata else include


def locked(plan: Plan, leg: Leg, store: Store, decision_id: str, flow: Callable[[], Flow[Found | Rows]]) -> Flow[Any]:
    """Run an adapter's flow: confined to its leg's partition, retried, and verified by the second lock."""
    result = yield from retried(lambda: confined(flow(), leg.partition))
    verify(
        result.hits,
        leg.partition,
        leg.test,
        needs_metadata=leg.needs_metadata,
        adapter=store.adapter_name,
        decision_id=decision_id,
    )
    yield from confirm_hits(plan, store, result.hits, decision_id)
    return result


def stripped(hits: list[Hit], include: Include) -> list[Hit]:
    """Return *hits* without metadata that was fetched only for the second lock."""
    if "metadata" in include or not any(hit.metadata is not None for hit in hits):
        return hits
    return [hit._replace(metadata=None) for hit in hits]


_names = itemgetter(Hit._fields.index("tenant"), Hit._fields.index("document"), Hit._fields.index("id"))
_score = itemgetter(Hit._fields.index("score"))


def merge(found: Sequence[Found], ask: SearchArguments) -> Found:
    """Merge the partitions' hits by score, ties by tenant, document and id; keep the best `k` (hits or documents)."""
    if len(found) == 1:
        return found[0]
    hits = [hit for one in found for hit in one.hits]
    if len(set(map(_score, hits))) < len(hits):
        hits.sort(key=_names)  # the next sort is stable, so equal scores stay in this order
    hits.sort(key=_score, reverse=True)
    incomplete = next((one for one in found if not one.complete), None)
    return Found(_best(hits, ask), incomplete is None, incomplete.shortfall if incomplete else None)


def _best(hits: list[Hit], ask: SearchArguments) -> list[Hit]:
    """Keep the first `k` of ordered *hits*, or the first `per_group` of each of the first `k` documents."""
    if ask.group_by is None:
        return hits[: ask.k]
    groups: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        groups.setdefault((hit.tenant, hit.document), []).append(hit)
    identities = {id(hit) for group in list(groups.values())[: ask.k] for hit in group[: ask.per_group]}
    return [hit for hit in hits if id(hit) in identities]


def _search_legs(
    store: Store, plan: Plan, ask: SearchArguments, query: ResolvedQuery, decision_id: str, drop: Hit | None = None
) -> Flow[Result]:
    """Search all partitions concurrently; *drop* is the chunk that a Like query resolved to."""
    most = store.capabilities.max_k
    request = ask
    if drop is not None:  # one more of everything, in place of the chunk that is left out
        request = ask._replace(k=min(ask.k + 1, most), per_group=min(ask.per_group + 1, most))

    def leg_flow(leg: Leg) -> Flow[Any]:
        operation = Search(
            leg.partition,
            leg.predicate,
            request.where,
            query,
            request.k,
            included(leg, request.include),
            request.min_score,
            request.group_by,
            request.per_group,
            request.exact,
            request.tuning,
        )
        return locked(plan, leg, store, decision_id, lambda: store.adapter.search(operation))

    if len(plan.legs) == 1:
        result: Found = yield from leg_flow(plan.legs[0])
    else:
        result = merge((yield from side_by_side([leg_flow(leg) for leg in plan.legs])), request)
    hits, shortfall = stripped(result.hits, ask.include), result.shortfall
    if drop is not None:
        if result.complete and _took_the_last(hits, drop, ask, most):
            shortfall = f"the store returns at most {most:,} hits, and the chunk of the query was one of them"
        hits = _best([hit for hit in hits if _names(hit) != _names(drop)], ask)
    return Result(hits, complete=shortfall is None, shortfall=shortfall, decision_id=decision_id)


def _took_the_last(hits: list[Hit], drop: Hit, ask: SearchArguments, most: int) -> bool:
    """Return whether *drop* is one of *hits* in a place that another would have had, of which there were at *most*."""
    if _names(drop) not in map(_names, hits):
        return False
    if ask.group_by is None:
        return len(hits) == ask.k == most
    groups = Counter((hit.tenant, hit.document) for hit in hits)
    own = groups[drop.tenant, drop.document]
    return own == ask.per_group == most or (own == 1 and len(groups) == ask.k == most)


def _resolve_like(store: Store, plan: Plan, like: Like, decision_id: str) -> Flow[Hit | None]:
    """Return the one chunk that *like* names, inside the scope; None if there is none."""
    refs = (ChunkRef(like.id, like.document),)
    flows = [
        locked(
            plan,
            leg,
            store,
            decision_id,
            lambda leg=leg: store.adapter.fetch(  # type: ignore[misc]
                Fetch(leg.partition, leg.predicate, refs, included(leg, frozenset({"vector"})), 1)
            ),
        )
        for leg in plan.legs
    ]
    results = yield from side_by_side(flows)
    hits = [hit for one in results for hit in one.hits]
    if len(hits) > 1:
        raise InvalidInputError("Several documents have a chunk of this id; pass Like(id, document).", field="query")
    return hits[0] if hits else None


def search(
    pipeline: Pipeline,
    store: Store,
    caller: Caller,
    queries: Sequence[Query],
    ask: SearchArguments,
) -> Flow[list[Result]]:
    """Search by each of *queries* under one decision; all succeed, or the call raises."""
    checked = _checked(store, queries, ask)
    if len(checked) == 1 and isinstance(checked[0], VectorQuery):
        # The usual case: nothing to embed, to resolve or to run concurrently. It skips the layers for the others.
        single = checked[0]
        result = yield from pipeline.run(
            caller,
            "search",
            store,
            lambda plan, decision_id: _still(pipeline, store, _search_legs(store, plan, ask, single, decision_id)),
            empty=_nothing,
            size=len,
            hits=lambda result: result.hits,
        )
        return [result]
    return (
        yield from pipeline.run(
            caller,
            "search",
            store,
            lambda plan, decision_id: _search_each(pipeline, store, plan, ask, checked, decision_id),
            empty=lambda decision_id: [_nothing(decision_id) for _ in checked],
            size=lambda results: sum(map(len, results)),
            hits=lambda results: (hit for one in results for hit in one),
        )
    )


def _checked(store: Store, queries: Sequence[Query], ask: SearchArguments) -> list[_Query]:
    """Return *queries* as they are searched by. Raises: RefusedError's kinds; nothing was sent."""
    can = store.capabilities
    checked = [check_query(one, dimension=can.dimension, nonzero=can.metric == "cosine") for one in queries]
    for one in checked:
        _supported(store, one)
        if isinstance(one, Hybrid) and ask.min_score is not None:
            raise UnsupportedPredicateError(
                "min_score cannot be used with a hybrid query: fused scores only define an order. Omit min_score.",
                field="min_score",
            )
    return checked


def _nothing(decision_id: str) -> Result:
    """Return the result of a search that cannot find anything."""
    return Result((), complete=True, decision_id=decision_id)


def _still(pipeline: Pipeline, store: Store, flow: Flow[Result]) -> Flow[Result]:
    """Run a search, and leave out hits whose time has passed since it was planned, as while its text was embedded."""
    result = yield from flow
    alive = pipeline.alive(store)
    if alive is ALWAYS:
        return result
    test = compile_test(alive)
    hits = [hit for hit in result if test(hit.tag, {})]
    if len(hits) == len(result):
        return result
    shortfall = result.shortfall or "chunks that were found have expired since; search again"
    return Result(hits, complete=False, shortfall=shortfall, decision_id=result.decision_id)


def _search_each(
    pipeline: Pipeline, store: Store, plan: Plan, ask: SearchArguments, queries: Sequence[_Query], decision_id: str
) -> Flow[list[Result]]:
    """Embed the texts of *queries* in one call, and search by all of them concurrently."""
    for one in queries:  # before any of them is embedded or sent
        _mergeable(store, plan, one)
    can = store.capabilities
    texts = [_text_of(one) for one in queries]
    batch = tuple(text for text in texts if text is not None)
    vectors = iter((yield from embedded(EmbedQueries, batch, store)))
    flows: list[Flow[Result]] = []
    for one, text in zip(queries, texts, strict=True):
        vector = None
        if text is not None:
            vector = check_vector(next(vectors), can.dimension, nonzero=can.metric == "cosine", name="embedding")
        flows.append(_still(pipeline, store, _search_one(store, plan, ask, one, vector, decision_id)))
    if len(flows) == 1:
        return [(yield from flows[0])]
    return list((yield from side_by_side(flows)))


def _search_one(
    store: Store, plan: Plan, ask: SearchArguments, query: _Query, vector: Any, decision_id: str
) -> Flow[Result]:
    """Search by one query; *vector* is the embedding of its text, if it was embedded."""
    match query:
        case VectorQuery() | Lexical():
            return (yield from _search_legs(store, plan, ask, query, decision_id))
        case str():
            return (yield from _search_legs(store, plan, ask, VectorQuery(vector), decision_id))
        case Hybrid(text=text, vector=given):
            hybrid = HybridQuery(text, vector if given is None else given)  # type: ignore[arg-type]  # checked
            return (yield from _search_legs(store, plan, ask, hybrid, decision_id))
        case Like():
            like = yield from _resolve_like(store, plan, query, decision_id)
            if like is None or like.vector is None:
                return _nothing(decision_id)
            return (yield from _search_legs(store, plan, ask, VectorQuery(like.vector), decision_id, drop=like))
    assert_never(query)


def _text_of(query: object) -> str | None:
    if isinstance(query, str):
        return query
    if isinstance(query, Hybrid) and query.vector is None:
        return query.text
    return None


def fetch(
    pipeline: Pipeline, store: Store, caller: Caller, refs: tuple[ChunkRef, ...], include: Include
) -> Flow[list[Hit]]:
    """Fetch by id over every partition, in the order of *refs*; ids that are absent or not visible are omitted."""

    def body(plan: Plan, decision_id: str) -> Flow[list[Hit]]:
        if not refs:
            return []
        flows = [
            locked(
                plan,
                leg,
                store,
                decision_id,
                lambda leg=leg: store.adapter.fetch(  # type: ignore[misc]
                    Fetch(leg.partition, leg.predicate, refs, included(leg, include))
                ),
            )
            for leg in plan.legs
        ]
        results = yield from side_by_side(flows)
        if sum(len(one.hits) for one in results) > MAX_FETCHED:
            raise InvalidInputError(
                f"The ids match more than {MAX_FETCHED:,} chunks: a chunk id alone names the chunk in every document. "
                "Pass (document, chunk id) pairs, or use page() with a filter.",
                field="ids",
            )
        rank = {ref: index for index, ref in enumerate(refs)}

        def place(hit: Hit) -> tuple[int, str, str]:
            known = [rank[ref] for ref in (ChunkRef(hit.id), ChunkRef(hit.id, hit.document)) if ref in rank]
            return (min(known, default=len(rank)), hit.tenant, hit.document)

        return stripped(sorted((hit for one in results for hit in one.hits), key=place), include)

    def hits(found: list[Hit]) -> list[Hit]:
        return found

    return (yield from pipeline.run(caller, "fetch", store, body, empty=lambda _: [], size=len, hits=hits))


def count(pipeline: Pipeline, store: Store, caller: Caller, where: Predicate) -> Flow[int]:
    """Count exactly, over every partition."""
    if store.capabilities.count == "none":
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot count exactly.", field="count")

    def body(plan: Plan, decision_id: str) -> Flow[int]:
        def leg_flow(leg: Leg) -> Flow[int]:
            if by_rows(plan, store):
                return len((yield from confirmed_rows(plan, leg, store, where, frozenset(), decision_id)))
            operation = Count(leg.partition, leg.predicate, where)
            number = yield from retried(lambda: confined(store.adapter.count(operation), leg.partition))
            return counted(number, store.adapter_name)

        total = sum((yield from side_by_side([leg_flow(leg) for leg in plan.legs])))
        yield from confirm_unchanged(plan, store, decision_id)
        return total

    return (yield from pipeline.run(caller, "count", store, body, empty=lambda _: 0, size=lambda total: total))
