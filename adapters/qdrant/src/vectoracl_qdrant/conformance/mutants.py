"""Faults that only a Qdrant adapter can have: for the conformance kit, each with the check that has to notice.

Most rewrite what the right adapter sends. On a server strict mode refuses some of them, which is also noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from qdrant_client import models

from vectoracl.adapter_api.contract import Flow, flow_of
from vectoracl.adapter_api.operations import (
    OPERATIONS,
    Operation,
)
from vectoracl_conformance.harness import Mutant
from vectoracl_conformance.wrappers.adapter_wrapper import AdapterWrapper, wrapped
from vectoracl_qdrant.requests import Rank, RankGroups, RankLegs, RankWords, Scroll, Write

_KEY = "group_id"
Change = Callable[[Any], Any]


class Rewritten(AdapterWrapper):
    """Sends what `change` makes of each request of the operations named in `where`."""

    change: Change
    where: frozenset[str] = frozenset()

    def perform(self, operation: Operation) -> Flow[Any]:
        """Change the requests of the operations that are named."""
        flow = flow_of(self.inner, operation)
        if OPERATIONS[type(operation)].method not in self.where:
            return (yield from flow)
        reply: Any = None
        while True:
            try:
                step = flow.send(reply)
            except StopIteration as stop:
                return stop.value
            change = type(self).change
            reply = yield tuple(change(one) for one in step) if isinstance(step, tuple) else change(step)


def _rest(where: models.Filter) -> list[Any]:
    """Return the conditions of *where* but the tenant's, which is the first."""
    must: Any = where.must
    return [one for one in must if getattr(one, "key", None) != _KEY]


def _tenant(where: models.Filter) -> list[Any]:
    must: Any = where.must
    return [one for one in must if getattr(one, "key", None) == _KEY]


def without(where: models.Filter) -> models.Filter:
    """Leave the tenant out; what is left may be nothing, which is everything."""
    return models.Filter(must=_rest(where))


def in_should(where: models.Filter) -> models.Filter:
    """Put the tenant next to a condition that every point meets."""
    anything = models.FieldCondition(key="generation", range=models.Range(gte=0))
    return models.Filter(must=_rest(where), should=[*_tenant(where), anything])


def in_must_not(where: models.Filter) -> models.Filter:
    """Put the tenant where it means everybody else."""
    return models.Filter(must=_rest(where), must_not=_tenant(where))


def _filters(change: Callable[[models.Filter], models.Filter], *kinds: type[Any]) -> Change:
    def work(request: Any) -> Any:
        return replace(request, filter=change(request.filter)) if isinstance(request, kinds) else request

    return work


def _leg(number: int) -> Change:
    def work(request: Any) -> Any:
        if not isinstance(request, RankLegs):
            return request
        legs = list(request.legs)
        legs[number] = replace(legs[number], filter=without(legs[number].filter))
        return replace(request, legs=tuple(legs))

    return work


def _collection_wide(request: Any) -> Any:
    """Leave the corpus of the statistics out, so that the server takes everybody's."""
    if isinstance(request, RankWords):
        return replace(request, idf=False)
    if isinstance(request, RankLegs):
        return replace(request, legs=tuple(_collection_wide(one) for one in request.legs))
    return request


def _steps(change: Callable[[Any], Any]) -> Change:
    def work(request: Any) -> Any:
        if not isinstance(request, Write):
            return request
        return replace(request, operations=tuple(change(one) for one in request.operations))

    return work


def _delete_all(step: Any) -> Any:
    if not isinstance(step, models.DeleteOperation):
        return step
    return models.DeleteOperation(delete=models.FilterSelector(filter=without(step.delete.filter)))  # type: ignore[union-attr]


def _set_all(step: Any) -> Any:
    if not isinstance(step, models.SetPayloadOperation):
        return step
    change = step.set_payload
    assert change.filter is not None
    return models.SetPayloadOperation(
        set_payload=models.SetPayload(payload=change.payload, filter=without(change.filter))
    )


def _moving(step: Any) -> Any:
    """Let the metadata of a chunk lie next to its tag: a key of the user's is a key of the point."""
    if not isinstance(step, models.UpsertOperation):
        return step
    import orjson

    points = []
    for point in step.upsert.points:  # type: ignore[union-attr]
        payload = dict(point.payload or {})
        payload.update(orjson.loads(payload.get("metadata", "{}")))
        points.append(point.model_copy(update={"payload": payload}))
    return models.UpsertOperation(upsert=step.upsert.model_copy(update={"points": points}))


def _sticky() -> type[Rewritten]:
    """Keep the first tenant's condition and send it for everybody."""

    class Sticky(Rewritten):
        where = frozenset({"search", "fetch", "count", "scan"})
        first: Any = None

        @staticmethod
        def change(request: Any) -> Any:
            if not isinstance(request, Rank | RankGroups | RankWords | Scroll):
                return request
            if Sticky.first is None:
                Sticky.first = _tenant(request.filter)
            return replace(request, filter=models.Filter(must=[*Sticky.first, *_rest(request.filter)]))

    return Sticky


def _made(name: str, breaks: str, expected: str, where: str, change: Change) -> Mutant:
    kind = type("Made", (Rewritten,), {"change": staticmethod(change), "where": frozenset(where.split())})
    return Mutant(f"qdrant: {name}", breaks, expected, wrapped(kind))


def _bare(old: Callable[..., str]) -> Callable[..., str]:
    return lambda _tenant, *rest: old("", *rest)


_READS = (Rank, RankWords, RankGroups, Scroll)


def mutants() -> Sequence[Mutant]:
    """Return all of them."""
    return (
        _made("tenant in should", "the tenant is one alternative of a search", "R1", "search",
              _filters(in_should, Rank)),
        _made("tenant in must_not", "a search means everybody else", "R1", "search", _filters(in_must_not, Rank)),
        _made("search without the tenant", "a search has no tenant", "R1", "search", _filters(without, Rank)),
        _made("groups without the tenant", "a grouped search has no tenant", "R2", "search",
              _filters(without, RankGroups)),
        _made("fetch by bare ids", "chunks are read by their ids alone", "R10", "fetch", _filters(without, Scroll)),
        _made("count without the tenant", "counting pages through everybody's keys", "R12", "count",
              _filters(without, Scroll)),
        _made("facets without the tenant", "counting by value pages through everybody's points", "R12", "facets",
              _filters(without, Scroll)),
        _made("facets with the tenant in should", "the tenant is one alternative of a count by value", "R12", "facets",
              _filters(in_should, Scroll)),
        _made("scan without the tenant", "a scroll has no tenant", "R11", "scan", _filters(without, Scroll)),
        _made("delete without the tenant", "a delete has no tenant", "W6", "delete",
              lambda request: _steps(_delete_all)(_filters(without, Scroll)(request))),
        _made("old generation of everybody", "a replacement removes others' documents", "W4", "replace",
              _steps(_delete_all)),
        _made("marks on everybody's points", "a replacement marks others' documents", "W4", "replace",
              _steps(_set_all)),
        _made("the leg of words without the tenant", "one leg of a hybrid query is unscoped", "R13", "search", _leg(1)),
        _made("the leg of vectors without the tenant", "one leg of a hybrid query is unscoped", "R13", "search",
              _leg(0)),
        _made("lexical without the tenant", "a search by words has no tenant", "R13", "search",
              _filters(without, RankWords)),
        _made("statistics of everybody", "the rarity of words is that of the whole collection", "R13", "search",
              _collection_wide),
        _made("metadata next to the tag", "a user's key is a key of the point", "R8", "upsert replace",
              _steps(_moving)),
        Mutant("qdrant: the first tenant sticks", "the first tenant's condition is sent for everybody", "R2",
               wrapped(_sticky())),
        Mutant("qdrant: ids without the tenant", "a point's id does not depend on the tenant", "W4",
               patches=(("vectoracl_qdrant.names", "point_id", _bare),)),
    )  # fmt: skip
