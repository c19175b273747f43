"""The flows of the reads: search, fetch, count and pages, over every partition of the scope."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import orjson

from vectoracl.adapter import Flow
from vectoracl.drive import confined, side_by_side
from vectoracl.errors import InvalidInputError, UnsupportedPredicateError
from vectoracl.fields import check_filter
from vectoracl.guard import Asker, Guard, Leg, Plan, Store, check_supported, retried
from vectoracl.ids import check_id, plain
from vectoracl.operations import MAX_FETCHED, ChunkRef, Count, Fetch, Found, Include, Position, Rows, Scan, Search
from vectoracl.ports import EmbedQueries
from vectoracl.predicate import ALWAYS, Predicate, check_predicate
from vectoracl.queries import (
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
from vectoracl.records import Hit, Page, Result
from vectoracl.verify import verify

T = TypeVar("T")
INCLUDE: Include = frozenset({"text", "metadata"})
_INCLUDABLE: Include = frozenset({"text", "metadata", "vector"})
MAX_FETCH = 1_000
MAX_PAGE = 10_000
MAX_CURSOR = 8_192
MAX_TIMEOUT = 86_400  # a day; servers count milliseconds in 31 bits
_MAX_FLOAT = sys.float_info.max  # compared, since math.isfinite raises for an integer beyond it


class Ask(NamedTuple):
    """The checked arguments of a search, but for the query."""

    k: int
    where: Predicate
    min_score: float | None
    group_by: Literal["document"] | None
    per_group: int
    include: Include
    exact: bool
    tuning: Mapping[str, int]


def check_include(include: object) -> Include:
    """Return *include* as a set of "text", "metadata" and "vector". Raises: InvalidInputError."""
    if include is INCLUDE:
        return INCLUDE
    if isinstance(include, str) or not isinstance(include, Iterable):
        raise InvalidInputError('include is a collection, for example {"text", "vector"}.', field="include")
    named = list(include)
    wanted = frozenset(one for one in _INCLUDABLE if one in named)
    if not all(isinstance(one, str) and plain(one) in _INCLUDABLE for one in named):
        raise InvalidInputError(f"include holds only {', '.join(sorted(_INCLUDABLE))}.", field="include")
    return wanted


def integer(value: object, name: str, low: int, high: int) -> int:
    """Return *value* if it is an integer from *low* to *high*. Raises: InvalidInputError."""
    if type(value) is int and low <= value <= high:
        return value
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise InvalidInputError(f"{name} must be an integer from {low} to {high:,}.", field=name)
    return int(value)


def check_timeout(timeout: object) -> None:
    """Refuse what is no positive number of seconds. Raises: InvalidInputError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidInputError(
            f"timeout must be a positive number of seconds, {MAX_TIMEOUT:,} at most.", field="timeout"
        )


def check_where(store: Store, where: object) -> Predicate:
    """Check a caller's filter against the store's fields and abilities. Raises: RefusedError's kinds."""
    if where is ALWAYS:
        return ALWAYS
    checked = check_filter(check_predicate(where), store.fields)
    check_supported(checked, store.capabilities)
    return checked


def check_ask(
    store: Store,
    k: object,
    where: object,
    min_score: object,
    group_by: object,
    per_group: object,
    include: object,
    exact: object,
    tuning: object,
) -> Ask:
    """Check the arguments of a search against what the store can. Raises: InvalidInputError and its kin."""
    can = store.capabilities
    if min_score is not None and (
        isinstance(min_score, bool) or not isinstance(min_score, int | float) or not abs(min_score) <= _MAX_FLOAT
    ):
        raise InvalidInputError("min_score must be a finite number.", field="min_score")
    if group_by not in (None, "document"):
        raise InvalidInputError('group_by is None or "document".', field="group_by")
    if group_by is not None and not can.group_by:
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot group.", field="group_by")
    if not isinstance(exact, bool):
        raise InvalidInputError("exact must be True or False.", field="exact")
    if exact and not can.exact:
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot rank exactly.", field="exact")
    if not isinstance(tuning, Mapping):
        raise InvalidInputError("tuning must be a mapping.", field="tuning")
    settings: dict[str, int] = {}
    for name, value in tuning.items():
        if name not in can.tuning:
            known = ", ".join(sorted(can.tuning)) or "none"
            raise UnsupportedPredicateError(f"The store has no setting {name!r}; it has: {known}.", field="tuning")
        settings[name] = integer(value, name, *can.tuning[name])
    return Ask(
        integer(k, "k", 1, can.max_k),
        check_where(store, where),
        None if min_score is None else float(min_score),
        "document" if group_by is not None else None,
        integer(per_group, "per_group", 1, can.max_k),
        check_include(include),
        exact,
        settings,
    )


def check_refs(ids: object, name: str = "ids") -> tuple[ChunkRef, ...]:
    """Return *ids* (chunk ids, or (document, chunk id) pairs) as references. Raises: InvalidInputError."""
    if isinstance(ids, str | bytes | Mapping) or not isinstance(ids, Iterable):
        raise InvalidInputError(f"{name} must be a list of chunk ids or (document, chunk id) pairs.", field=name)
    refs: dict[ChunkRef, None] = {}
    for one in ids:
        if isinstance(one, tuple):
            if len(one) != 2:
                raise InvalidInputError(f"{name}: a pair is (document, chunk id).", field=name)
            refs[ChunkRef(check_id(one[1], "chunk id"), check_id(one[0], "document"))] = None
        else:
            refs[ChunkRef(check_id(one, "chunk id"))] = None
        if len(refs) > MAX_FETCH:
            raise InvalidInputError(f"{name} holds at most {MAX_FETCH:,} ids.", field=name)
    return tuple(refs)


def _supported(store: Store, query: str | VectorQuery | Lexical | Hybrid | Like) -> None:
    kind: Literal["vector", "lexical", "hybrid"] = "vector"
    if isinstance(query, Lexical):
        kind = "lexical"
    elif isinstance(query, Hybrid):
        kind = "hybrid"
    if kind not in store.capabilities.queries:
        raise UnsupportedPredicateError(
            f"The adapter {store.adapter_name!r} cannot answer a {kind} query; it can: "
            f"{', '.join(sorted(store.capabilities.queries))}.",
            field="query",
        )


def _include(leg: Leg, include: Include) -> Include:
    return include | {"metadata"} if leg.needs_metadata else include


def locked(leg: Leg, store: Store, decision_id: str, flow: Callable[[], Flow[Found | Rows]]) -> Flow[Any]:
    """Run an adapter's flow confined to its leg's partition, retried, and behind the second lock."""
    found = yield from retried(lambda: confined(flow(), leg.partition))
    verify(
        found.hits,
        leg.partition,
        leg.test,
        needs_metadata=leg.needs_metadata,
        adapter=store.adapter_name,
        decision_id=decision_id,
    )
    return found


def _stripped(hits: list[Hit], include: Include) -> list[Hit]:
    """Take away what was fetched for the second lock only."""
    if "metadata" in include or not any(hit.metadata is not None for hit in hits):
        return hits
    return [hit._replace(metadata=None) for hit in hits]


_names = itemgetter(Hit._fields.index("tenant"), Hit._fields.index("document"), Hit._fields.index("id"))
_score = itemgetter(Hit._fields.index("score"))


def merge(found: Sequence[Found], ask: Ask) -> Found:
    """Merge the partitions' hits by score, ties by tenant, document and id; keep the best `k` (hits or documents)."""
    if len(found) == 1:
        return found[0]
    hits = [hit for one in found for hit in one.hits]
    if len(set(map(_score, hits))) < len(hits):
        hits.sort(key=_names)  # the next sort is stable, so equal scores stay in this order
    hits.sort(key=_score, reverse=True)
    incomplete = next((one for one in found if not one.complete), None)
    return Found(_best(hits, ask), incomplete is None, incomplete.shortfall if incomplete else None)


def _best(hits: list[Hit], ask: Ask) -> list[Hit]:
    """Keep the first `k` of ordered *hits*, or the first `per_group` of each of the first `k` documents."""
    if ask.group_by is None:
        return hits[: ask.k]
    groups: dict[tuple[str, str], list[Hit]] = {}
    for hit in hits:
        groups.setdefault((hit.tenant, hit.document), []).append(hit)
    kept = {id(hit) for group in list(groups.values())[: ask.k] for hit in group[: ask.per_group]}
    return [hit for hit in hits if id(hit) in kept]


def _search_legs(
    store: Store, plan: Plan, ask: Ask, query: ResolvedQuery, decision_id: str, drop: Hit | None = None
) -> Flow[Result]:
    """Search every partition side by side; *drop* is the chunk that a Like query resolved to."""
    if len(plan.legs) > 1 and isinstance(query, Lexical) and store.capabilities.lexical_scores != "comparable":
        raise UnsupportedPredicateError(
            f"The lexical scores of {store.adapter_name!r} depend on each tenant's own texts, so those of several "
            "tenants cannot be merged. Search as a principal of one tenant, or use Hybrid, which is merged by rank.",
            field="query",
        )
    most = store.capabilities.max_k
    wanted = ask
    if drop is not None:  # one more of everything, in place of the chunk that is left out
        wanted = ask._replace(k=min(ask.k + 1, most), per_group=min(ask.per_group + 1, most))

    def leg_flow(leg: Leg) -> Flow[Any]:
        operation = Search(
            leg.partition,
            leg.predicate,
            wanted.where,
            query,
            wanted.k,
            _include(leg, wanted.include),
            wanted.min_score,
            wanted.group_by,
            wanted.per_group,
            wanted.exact,
            wanted.tuning,
        )
        return locked(leg, store, decision_id, lambda: store.adapter.search(operation))

    if len(plan.legs) == 1:
        found: Found = yield from leg_flow(plan.legs[0])
    else:
        found = merge((yield from side_by_side([leg_flow(leg) for leg in plan.legs])), wanted)
    hits = _stripped(found.hits, ask.include)
    if drop is not None:
        same = (drop.tenant, drop.document, drop.id)
        hits = [hit for hit in hits if (hit.tenant, hit.document, hit.id) != same]
        hits = _best(hits, ask)
    return Result(hits, complete=found.complete, shortfall=found.shortfall, decision_id=decision_id)


def _resolve_like(store: Store, plan: Plan, like: Like, decision_id: str) -> Flow[Hit | None]:
    """Find the one chunk that *like* names, inside the scope; None if there is none."""
    refs = (ChunkRef(like.id, like.document),)
    flows = [
        locked(
            leg,
            store,
            decision_id,
            lambda leg=leg: store.adapter.fetch(  # type: ignore[misc]
                Fetch(leg.partition, leg.predicate, refs, _include(leg, frozenset({"vector"})), 1)
            ),
        )
        for leg in plan.legs
    ]
    found = yield from side_by_side(flows)
    hits = [hit for one in found for hit in one.hits]
    if len(hits) > 1:
        raise InvalidInputError("Several documents have a chunk of this id; pass Like(id, document).", field="query")
    return hits[0] if hits else None


def search(
    guard: Guard,
    store: Store,
    asker: Asker,
    queries: Sequence[Query],
    ask: Ask,
) -> Flow[list[Result]]:
    """Search by each of *queries* under one decision; all of them or none."""
    can = store.capabilities
    checked = [check_query(one, dimension=can.dimension, nonzero=can.metric == "cosine") for one in queries]
    for one in checked:
        _supported(store, one)
        if isinstance(one, Hybrid) and ask.min_score is not None:
            raise UnsupportedPredicateError(
                "A hybrid query has no min_score: fused scores only order. Leave min_score out.", field="min_score"
            )
    if len(checked) == 1 and isinstance(checked[0], VectorQuery):
        # Nothing to embed, to resolve or to run side by side: the usual case, without the layers for the others.
        single = checked[0]
        result = yield from guard.guarded(
            asker,
            "search",
            store,
            lambda plan, decision_id: _search_legs(store, plan, ask, single, decision_id),
            empty=lambda decision_id: Result((), complete=True, decision_id=decision_id),
            size=len,
        )
        return [result]

    def body(plan: Plan, decision_id: str) -> Flow[list[Result]]:
        texts = [_text_of(one) for one in checked]
        wanted = tuple(text for text in texts if text is not None)
        vectors = iter((yield from EmbedQueries(wanted)) if wanted else ())
        results: list[Result] = []
        flows: list[Flow[Result]] = []
        for one, text in zip(checked, texts, strict=True):
            vector = None
            if text is not None:
                vector = check_vector(next(vectors), can.dimension, nonzero=can.metric == "cosine", name="embedding")
            flows.append(one_search(plan, decision_id, one, vector))
        if len(flows) == 1:
            results.append((yield from flows[0]))
        else:
            results.extend((yield from side_by_side(flows)))
        return results

    def one_search(plan: Plan, decision_id: str, query: object, vector: Any) -> Flow[Result]:
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
                    return Result((), complete=True, decision_id=decision_id)
                resolved = VectorQuery(like.vector)
                return (yield from _search_legs(store, plan, ask, resolved, decision_id, drop=like))
        raise InvalidInputError("This is no query.", field="query")

    def empty(decision_id: str) -> list[Result]:
        return [Result((), complete=True, decision_id=decision_id) for _ in checked]

    def size(results: list[Result]) -> int:
        return sum(len(one) for one in results)

    return (yield from guard.guarded(asker, "search", store, body, empty=empty, size=size))


def _text_of(query: object) -> str | None:
    if isinstance(query, str):
        return query
    if isinstance(query, Hybrid) and query.vector is None:
        return query.text
    return None


def fetch(guard: Guard, store: Store, asker: Asker, refs: tuple[ChunkRef, ...], include: Include) -> Flow[list[Hit]]:
    """Fetch by id over every partition, in the order of *refs*; absent and foreign ids are left out alike."""

    def body(plan: Plan, decision_id: str) -> Flow[list[Hit]]:
        if not refs:
            return []
        flows = [
            locked(
                leg,
                store,
                decision_id,
                lambda leg=leg: store.adapter.fetch(  # type: ignore[misc]
                    Fetch(leg.partition, leg.predicate, refs, _include(leg, include))
                ),
            )
            for leg in plan.legs
        ]
        found = yield from side_by_side(flows)
        if sum(len(one.hits) for one in found) > MAX_FETCHED:
            raise InvalidInputError(
                f"The ids name more than {MAX_FETCHED:,} chunks: a chunk id alone names the chunk in every document. "
                "Pass (document, chunk id) pairs, or page() with a filter.",
                field="ids",
            )
        rank = {ref: index for index, ref in enumerate(refs)}

        def place(hit: Hit) -> tuple[int, str, str]:
            known = [rank[ref] for ref in (ChunkRef(hit.id), ChunkRef(hit.id, hit.document)) if ref in rank]
            return (min(known, default=len(rank)), hit.tenant, hit.document)

        return _stripped(sorted((hit for one in found for hit in one.hits), key=place), include)

    return (yield from guard.guarded(asker, "fetch", store, body, empty=lambda _: [], size=len))


def count(guard: Guard, store: Store, asker: Asker, where: Predicate) -> Flow[int]:
    """Count exactly, over every partition."""
    if store.capabilities.count == "none":
        raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot count exactly.", field="count")

    def body(plan: Plan, _decision_id: str) -> Flow[int]:
        def leg_flow(leg: Leg) -> Flow[int]:
            operation = Count(leg.partition, leg.predicate, where)
            return retried(lambda: confined(store.adapter.count(operation), leg.partition))

        return sum((yield from side_by_side([leg_flow(leg) for leg in plan.legs])))

    return (yield from guard.guarded(asker, "count", store, body, empty=lambda _: 0, size=lambda total: total))


def page(
    guard: Guard, store: Store, asker: Asker, where: Predicate, size: int, after: str | None, include: Include
) -> Flow[Page]:
    """Return one page; the partitions come one after the other, in the order of the scope."""
    integer(size, "size", 1, MAX_PAGE)

    def body(plan: Plan, decision_id: str) -> Flow[Page]:
        binding = _binding(asker, plan, where)
        place, position = _read_cursor(after, binding, plan)
        hits: list[Hit] = []
        while place < len(plan.legs):
            leg = plan.legs[place]
            wanted = size - len(hits)
            operation = Scan(leg.partition, leg.predicate, where, wanted, position, _include(leg, include))
            rows = yield from locked(leg, store, decision_id, lambda one=operation: store.adapter.scan(one))  # type: ignore[misc]
            hits.extend(rows.hits)
            if rows.more and rows.hits:
                return Page(tuple(_stripped(hits, include)), _cursor(binding, place, rows.hits[-1]), decision_id)
            place, position = place + 1, None
            if len(hits) >= size and place < len(plan.legs):
                return Page(tuple(_stripped(hits, include)), _cursor(binding, place, None), decision_id)
        return Page(tuple(_stripped(hits, include)), None, decision_id)

    def empty(decision_id: str) -> Page:
        return Page((), None, decision_id)

    return (yield from guard.guarded(asker, "scan", store, body, empty=empty, size=lambda one: len(one.hits)))


def _binding(asker: Asker, plan: Plan, where: Predicate) -> str:
    """Return a digest of whom and what a cursor belongs to; a foreign one is refused, not followed."""
    bound = [
        asker.principal.tenant,
        [leg.partition for leg in plan.legs],
        where.to_dict(),
        asker.narrow.to_dict(),
    ]
    return hashlib.blake2b(orjson.dumps(bound, option=orjson.OPT_SORT_KEYS), digest_size=9).hexdigest()


def _cursor(binding: str, place: int, last: Hit | None) -> str:
    key = None if last is None else [last.document, last.tag.generation, last.id]
    return base64.urlsafe_b64encode(orjson.dumps([binding, place, key])).decode()


def _read_cursor(after: str | None, binding: str, plan: Plan) -> tuple[int, Position | None]:
    if after is None:
        return 0, None
    try:
        if len(after) > MAX_CURSOR:
            raise InvalidInputError("too long")
        bound, place, key = orjson.loads(base64.urlsafe_b64decode(after.encode()))
        position = None if key is None else Position(check_id(key[0], "document"), int(key[1]), check_id(key[2], "id"))
        if position is not None and not 0 <= position.generation < 1 << 53:
            bound = None
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, InvalidInputError):
        bound, place, position = None, 0, None
    if bound != binding or type(place) is not int or not 0 <= place < len(plan.legs):
        raise InvalidInputError("This cursor does not belong to this scan; start again without one.", field="after")
    return place, position
