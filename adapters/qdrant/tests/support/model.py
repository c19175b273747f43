"""A model of a collection that performs the adapter's requests: small and quick, so that every order can be tried.

It knows the conditions and the steps that the adapter sends, each as one indivisible thing, and nothing else;
`test_meeting` compares it with the client's local mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from qdrant_client import models

from vectoracl_qdrant.requests import Points, Rank, Scroll, Write

Stored = tuple[Any, dict[str, Any]]


class Model:
    """The points by id, each with its vector and its payload."""

    def __init__(self, points: Mapping[str, Stored] | None = None) -> None:
        self.points: dict[str, Stored] = dict(points or {})

    def __call__(self, request: Any) -> Any:
        match request:
            case Write(operations=operations):
                for one in operations:
                    self._write(one)
                return None
            case Scroll():
                return self._scroll(request)
            case Rank():
                return self._rank(request)
        raise AssertionError(f"The model does not know {type(request).__name__}.")

    def _found(self, where: models.Filter) -> Iterator[str]:
        for id_ in sorted(self.points):
            if passes(where, id_, self.points[id_][1]):
                yield id_

    def _scroll(self, request: Scroll) -> Points:
        ids = [one for one in self._found(request.filter) if request.offset is None or one >= request.offset]
        order = request.order
        if order is not None:
            key = order.key
            values = {one: _at(self.points[one][1], key) for one in ids}
            ids = [one for one in ids if values[one] is not None]
            if order.start is not None:
                ids = [one for one in ids if values[one] >= order.start]
            ids.sort(key=lambda one: (values[one], one), reverse=order.descending)
        page, rest = ids[: request.limit], ids[request.limit :]
        records = [
            models.Record.model_construct(id=one, payload=self._payload(one, request.payload), vector=None)
            for one in page
        ]
        return Points(records, rest[0] if rest and order is None else None)

    def _rank(self, request: Rank) -> list[Any]:
        query = np.asarray(request.vector)
        found = []
        for one in self._found(request.filter):
            vector, _ = self.points[one]
            if isinstance(vector, list):
                score = float(query @ np.asarray(vector))
                payload = self._payload(one, request.payload)
                found.append(
                    models.ScoredPoint.model_construct(id=one, score=score, payload=payload, vector=None, version=0)
                )
        return sorted(found, key=lambda one: -one.score)[: request.limit]

    def _payload(self, id_: str, keys: tuple[str, ...]) -> dict[str, Any]:
        payload = self.points[id_][1]
        tops = {key.partition(".")[0] for key in keys}
        return {key: value for key, value in payload.items() if key in tops}

    def _write(self, step: Any) -> None:
        match step:
            case models.UpsertOperation(upsert=upsert):
                for point in upsert.points:
                    old = self.points.get(point.id)
                    if old is None or passes(upsert.update_filter, point.id, old[1]):
                        self.points[point.id] = (point.vector, dict(point.payload))
            case models.DeleteOperation(delete=selector):
                for one in [*self._found(selector.filter)]:
                    del self.points[one]
            case models.SetPayloadOperation(set_payload=change):
                for one in [*self._found(change.filter)]:
                    vector, payload = self.points[one]
                    self.points[one] = (vector, {**payload, **change.payload})
            case models.DeletePayloadOperation(delete_payload=gone):
                for one in [*self._found(gone.filter)]:
                    vector, payload = self.points[one]
                    self.points[one] = (vector, {key: kept for key, kept in payload.items() if key not in gone.keys})
            case _:
                raise AssertionError(type(step).__name__)


def _at(payload: Mapping[str, Any], path: str) -> Any:
    found: Any = payload
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def passes(where: Any, id_: str, payload: Mapping[str, Any]) -> bool:
    """Tell whether a point passes a condition."""
    match where:
        case models.Filter():
            must, should, must_not = (_all(one) for one in (where.must, where.should, where.must_not))
            return (
                all(passes(one, id_, payload) for one in must)
                and (not should or any(passes(one, id_, payload) for one in should))
                and not any(passes(one, id_, payload) for one in must_not)
            )
        case models.HasIdCondition(has_id=ids):
            return id_ in ids
        case models.FieldCondition(key=key, match=models.MatchValue(value=value)):
            return value in _all(_at(payload, key))
        case models.FieldCondition(key=key, match=models.MatchAny(any=values)):
            return any(one in values for one in _all(_at(payload, key)))
        case models.FieldCondition(key=key, range=models.Range(gt=gt, gte=gte, lt=lt, lte=lte)):
            return any(
                (gt is None or one > gt)
                and (gte is None or one >= gte)
                and (lt is None or one < lt)
                and (lte is None or one <= lte)
                for one in _all(_at(payload, key))
                if isinstance(one, int | float)
            )
    raise AssertionError(type(where).__name__)


def _all(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
