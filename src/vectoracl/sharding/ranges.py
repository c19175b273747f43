"""Divides the rows of tenants into key ranges of about equal size, and deals these to shards."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from vectoracl.adapter_api.contract import Progress
from vectoracl.adapter_api.operations import Position
from vectoracl.errors import StoreError
from vectoracl.sharding.shards import KeyRange

KEYS = 1_000
"""The most keys of one request."""
_FINER = 2  # ranges per shard of a large tenant: they can be dealt more evenly
ReadKeys = Callable[[int, Position | None], tuple[list[Position], bool]]


class Tenant(NamedTuple):
    """A tenant of a store: its number of rows, and how its keys are read."""

    store: str
    tenant: str
    rows: int
    keys: ReadKeys

    @classmethod
    def of(cls, store: str, tenant: str, rows: int | None, keys: ReadKeys) -> Tenant:
        """Return a tenant; if its number of *rows* is unknown (None), its keys are counted."""
        return cls(store, tenant, sum(1 for _ in _all(keys, store)) if rows is None else rows, keys)


def dealt_evenly(tenants: Sequence[Tenant], count: int, progress: Progress) -> list[Sequence[KeyRange]]:
    """Divide the rows of *tenants* into ranges, and deal these to *count* shards."""
    most = size_of(sum(one.rows for one in tenants), count)
    found: list[KeyRange] = []
    for number, one in enumerate(tenants, 1):
        found += divided(*one[:3], most, one.keys)
        progress("planning", number, len(tenants))
    return dealt(found, count)


def divided(store: str, tenant: str, rows: int, most: int, keys: ReadKeys) -> Iterator[KeyRange]:
    """Yield the ranges of a tenant, of about *most* rows each; together they hold every key, also future ones.

    A tenant with more rows is read by its *keys* once.
    """
    if rows <= most:
        yield KeyRange(store=store, tenant=tenant, rows=rows)
        return
    begin: Position | None = None
    last: Position | None = None
    count = 0
    for key in _all(keys, store):
        if count == most:
            # The range ends with the key before this one, so that the last range of a tenant is never empty.
            yield KeyRange(store=store, tenant=tenant, after=begin, upto=last, rows=count)
            begin, count = last, 0
        last, count = key, count + 1
    yield KeyRange(store=store, tenant=tenant, after=begin, upto=None, rows=count)


def _all(keys: ReadKeys, store: str) -> Iterator[Position]:
    after: Position | None = None
    while True:
        page, more = keys(KEYS, after)
        for key in page:
            if after is not None and key <= after:
                raise StoreError(f"The store {store!r} does not return its keys in order.", code="order", sent="no")
            after = key
            yield key
        if not more or not page:
            return


def size_of(total: int, count: int) -> int:
    """Return the number of rows of a range, if *total* rows are dealt to *count* shards."""
    return max(1, -(-total // (count * _FINER)) if count > 1 else total)


def dealt(ranges: Iterable[KeyRange], count: int) -> list[Sequence[KeyRange]]:
    """Deal *ranges* to *count* shards, the largest first, each to the shard with the fewest rows so far."""
    hands: list[list[KeyRange]] = [[] for _ in range(count)]
    loads = [(0, index) for index in range(count)]
    for one in sorted(ranges, key=lambda one: (-(one.rows or 0), one.store, one.tenant, one.after or ("", -1, ""))):
        load, index = heapq.heappop(loads)
        hands[index].append(one)
        heapq.heappush(loads, (load + (one.rows or 0), index))
    return [sorted(hand, key=lambda one: (one.store, one.tenant, one.after or ("", -1, ""))) for hand in hands]
