"""Checks the rows of stores in shards of key ranges: whether each row is one that the store would take today.

Rows may have been written by an older version, imported, restored or changed past vectoracl. A row is checked like a
write: ids, tag, text, metadata by the declared fields, and vector. Nothing is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Progress
from vectoracl.client.connect import VectorACL
from vectoracl.copying.compare import RowsDigest, first, rows, within
from vectoracl.copying.planning import PAGE
from vectoracl.engine.operator_flows import checked_row
from vectoracl.engine.pipeline import Store
from vectoracl.errors import ConfigError, RefusedError, without_context
from vectoracl.hazmat import Operated
from vectoracl.model.identifiers import check_tenant
from vectoracl.model.records import Hit, Record, Tag
from vectoracl.sharding import ranges
from vectoracl.sharding.job import Job, Tally
from vectoracl.sharding.journal import Journal
from vectoracl.sharding.results import Census
from vectoracl.sharding.shards import Plan, Shard, digest_of, planned
from vectoracl.sharding.stores import store_key


class CheckJob(Job):
    """A check of every row of some stores, in shards. It reads all tenants past the policy, and is recorded so.

    Args:
        acl: The opened configuration.
        reason: A sentence of at least three words, recorded with each read.
        stores: The names of the stores; None means all of them.
        tenants: The tenants, each in the store that it is routed to; None means all that the adapters list.
        batch: The maximum number of rows per request.
    """

    kind = "check"

    def __init__(
        self,
        acl: VectorACL,
        *,
        reason: str,
        stores: Sequence[str] | None = None,
        tenants: Sequence[str] | None = None,
        batch: int = PAGE,
    ) -> None:
        self._acl = acl
        self._reason = reason
        self._stores = sorted(acl.config.stores if stores is None else set(stores))
        self._tenants = None if tenants is None else sorted({check_tenant(one) for one in tenants})
        self._batch = batch
        self._opened: dict[str, Operated] = {}
        self._notes: list[str] = []

    @property
    def options(self) -> Mapping[str, Any]:
        """The stores and tenants that are checked."""
        return {"stores": self._stores, "tenants": None if self._tenants is None else digest_of(self._tenants)}

    def _operated(self, store: str) -> Operated:
        if store not in self._opened:
            self._opened[store] = hazmat.operate(self._acl, store=store, reason=self._reason)
        return self._opened[store]

    def _planned(self, count: int, progress: Progress) -> Plan:
        progress("planning", 0, None)
        self._notes.clear()
        tenants = [
            ranges.Tenant.of(store, tenant, rows, partial(self._operated(store).keys, tenant))
            for store, tenant, rows in self._sizes()
        ]
        hands = ranges.dealt_evenly(tenants, count, progress)
        stores = {name: store_key(self._acl, name) for name in self._stores}
        return planned(
            [
                Shard(job="check", index=n, of=count, options=dict(self.options), stores=stores, ranges=tuple(hand))
                for n, hand in enumerate(hands)
            ],
            self._notes,
        )

    def _sizes(self) -> Iterator[tuple[str, str, int | None]]:
        """Yield each tenant with its store and its number of rows, None if that is unknown."""
        if self._tenants is not None:
            for tenant in self._tenants:
                store = self._acl.store_of(tenant)
                if store in self._stores:
                    yield store, tenant, None
            return
        for store in self._stores:
            for tenant, row_count in self._listed(store):
                yield store, check_tenant(tenant), row_count

    @without_context
    def _listed(self, store: str) -> list[tuple[str, int]]:
        try:
            operator = self._acl.operator(store, reason=self._reason)
        except ConfigError:
            raise
        except RefusedError:
            raise RefusedError(
                f"The adapter of the store {store!r} cannot list its tenants. Pass them: tenants=[…].", field="tenants"
            ) from None
        try:
            listed = operator.tenants()
        finally:
            operator.close()
        for one in listed:
            if one.state != "active":
                self._notes.append(f"not checked, since the store does not serve it: {one.tenant!a} ({one.state})")
        return [(one.tenant, one.rows) for one in listed if one.state == "active"]

    def _check_stores(self, shard: Shard) -> None:
        for one in shard.ranges:
            if one.store not in self._stores or (self._tenants is not None and one.tenant not in self._tenants):
                raise RefusedError(
                    f"The shard reads {one.tenant!a} in {one.store!r}, which is not checked.", field="shard"
                )
        for name in sorted({one.store for one in shard.ranges}):
            self._check_store(shard, name, store_key(self._acl, name))

    def _run(self, shard: Shard, tally: Tally, journal: Journal | None, progress: Progress) -> None:
        del journal
        whole = sum(one.rows or 0 for one in shard.ranges)
        for part in shard.ranges:
            operated = self._operated(part.store)
            digest, faults, examples = RowsDigest(), dict[str, int](), list[str]()
            count = 0
            read = within(partial(operated.read, part.tenant), part.end)
            for hit in rows(read, self._batch, f"The store {part.store!r}", part.begin):
                digest.add(hit)
                count += 1
                fault = fault_of(hit, operated.store)
                if fault is not None:
                    faults[fault] = faults.get(fault, 0) + 1
                    examples = first(examples, [f"{hit.tag.document} / {hit.tag.chunk}: {fault}"])
                tally.present += 1
                if tally.present % self._batch == 0:
                    progress("checking rows", tally.present, max(whole, tally.present))
            tally.census.append(
                Census(
                    store=part.store,
                    tenant=part.tenant,
                    rows=count,
                    digest=digest.hexdigest(),
                    faults=faults,
                    examples=tuple(examples),
                )
            )
        progress("checking rows", tally.present, max(whole, tally.present))


def fault_of(hit: Hit, store: Store) -> str | None:
    """Return why *store* would not take the row *hit* today; None if it would. Quotes no content."""
    assert hit.text is not None and hit.vector is not None and hit.metadata is not None  # noqa: PT018 - the flow demands it
    fault = _tag_fault(hit.tag)
    if fault is not None:
        return fault
    try:
        checked_row(Record(hit.tag, hit.text, hit.vector, hit.metadata), store)
    except RefusedError as error:
        return error.message
    return None


def _tag_fault(tag: Tag) -> str | None:
    """Return the first part of *tag* that vectoracl would not have written."""
    parts: dict[str, Any] = tag._asdict()
    for name in ("generation", "rev", "position"):
        if type(parts[name]) is not int or parts[name] < 0:
            return f"The tag's {name} is not a whole number from 0."
    for name in ("expires", "time"):
        if not isinstance(parts[name], int | float) or math.isnan(parts[name]):
            return f"The tag's {name} is not a number."
    for name in ("label", "producer", "path"):
        if not isinstance(parts[name], str):
            return f"The tag's {name} is not a text."
    return None
