"""Paging: complete listings, and the next keys in key order. Flows over scrolls. Pure.

Qdrant scrolls by point id or by a number, but the contract requires the order (document, generation, chunk id). So each
point has a number that sorts like the first six bytes of its document's id, and a page is read by that number. The
order is exact where numbers differ; where several documents share a number, all keys with that number are paged through
and only the next ones are kept. A page therefore costs at least one request for keys and one for rows, and at most the
keys of all matching points whose documents begin with the same six bytes. Memory is bounded by the page.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from qdrant_client import models

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Position
from vectoracl.errors import StoreError, without_context
from vectoracl_qdrant.compile import QdrantCompiler
from vectoracl_qdrant.compile_predicate import Compiled, numeric
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import order_of
from vectoracl_qdrant.requests import Order, Scroll

Key = tuple[str, int, str]


class Pages:
    """Pages through one configured collection."""

    def __init__(self, config: QdrantConfig, compiled: QdrantCompiler) -> None:
        self._config = config
        self._compile = compiled

    def all(self, first: Scroll, most: int | None = None) -> Flow[list[models.Record]]:
        """Return all points of a listing, or the first *most*."""
        points: list[models.Record] = []
        request = first
        while True:
            page = yield from request
            points.extend(page.points)
            if page.offset is None or (most is not None and len(points) >= most):
                return points if most is None else points[:most]
            request = Scroll(
                first.partition, first.filter, first.limit, first.payload, first.vectors, page.offset, first.order
            )

    def keys(
        self, partition: str, where: models.Filter, most: int | None = None, *, more: tuple[str, ...] = ()
    ) -> Flow[list[models.Record]]:
        """Return the versions (not the content, but *more*) of all points that pass *where*, or of the first *most*."""
        return (yield from self.all(self.listing(partition, where, more, most), most))

    def listing(
        self, partition: str, where: models.Filter, more: tuple[str, ...] = (), most: int | None = None
    ) -> Scroll:
        """Return the first page of a listing of versions, with the payload *more*."""
        limit = self._config.page if most is None else min(most, self._config.page)
        payload = (*self._compile.versions, *(one for one in more if one not in self._compile.versions))
        return Scroll(partition, where, limit, payload)

    def next(
        self, partition: str, conditions: Sequence[Compiled], after: Position | None, number: int
    ) -> Flow[list[models.Record]]:
        """Return the *number* next keys after *after*, in key order."""
        start = None if after is None else float(order_of(after.document))
        least: Key | None = None if after is None else (after.document, after.generation, after.chunk)
        rows: list[models.Record] = []
        while True:
            where = self._compile.rows(partition, *conditions)
            assert where is not None
            limit = min(number + 1, self._config.page)
            order = Order(self._config.payload.order, start=start)
            payload = (*self._compile.names, self._config.payload.order)
            page = yield from Scroll(partition, where, limit, payload, order=order)
            if len(page.points) < limit:
                return self._first([*rows, *page.points], least, number)
            # The last number of a full page may have more points than came; the others are whole.
            last = self._order(page.points[-1])
            rows = self._first([*rows, *(one for one in page.points if self._order(one) != last)], least, number)
            if len(rows) < number:
                rows = yield from self._same(partition, conditions, last, rows, least, number)
            if len(rows) >= number:
                return rows
            start = last + 1

    def _same(
        self,
        partition: str,
        conditions: Sequence[Compiled],
        order: float,
        found: list[models.Record],
        least: Key | None,
        number: int,
    ) -> Flow[list[models.Record]]:
        """Add to *found* the next keys among all points of one order number."""
        where = self._compile.rows(partition, *conditions, numeric(self._config.payload.order, gte=order, lte=order))
        assert where is not None
        offset: str | None = None
        while True:
            page = yield from Scroll(
                partition, where, self._config.page, (*self._compile.names, self._config.payload.order), offset=offset
            )
            found = self._first([*found, *page.points], least, number)
            if page.offset is None:
                return found
            offset = page.offset

    def _first(self, points: Iterable[models.Record], least: Key | None, number: int) -> list[models.Record]:
        keyed = [(self._key(point), point) for point in points]
        return [
            point
            for _, point in heapq.nsmallest(
                number, (one for one in keyed if least is None or one[0] > least), key=lambda one: one[0]
            )
        ]

    @without_context
    def _key(self, point: models.Record) -> Key:
        keys, payload = self._config.payload, point.payload or {}
        try:
            return payload[keys.document], int(payload[keys.generation]), payload[keys.chunk]
        except (KeyError, TypeError, ValueError):
            raise _malformed() from None

    def _order(self, point: models.Record) -> float:
        order = (point.payload or {}).get(self._config.payload.order)
        if not isinstance(order, int | float):
            raise _malformed()
        return float(order)


def _malformed() -> StoreError:
    return StoreError(
        "A point of the collection has no complete tag, so vectoracl did not write it. Run `vectoracl check`.",
        code="malformed",
        adapter="qdrant",
    )
