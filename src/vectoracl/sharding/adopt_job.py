"""Imports the existing rows of a store in shards of documents.

Planning provisions the store and checks every row of the source, in one process, so that a row that cannot be imported
stops everything before anything is copied. A shard holds documents by their places (`place_of`) and names their
tenants; a tenant that the plan did not see is refused. Each worker copies and compares the rows of its documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from vectoracl import hazmat
from vectoracl.adapter_api.contract import Adopted, Operator, Progress, ShareAdopter
from vectoracl.adapter_api.shares import shares
from vectoracl.client.connect import VectorACL
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.sharding.job import Job, Tally
from vectoracl.sharding.journal import Journal
from vectoracl.sharding.results import Census, Total
from vectoracl.sharding.shards import Documents, Json, Plan, Shard, planned
from vectoracl.sharding.stores import store_key


class AdoptJob(Job):
    """An import of existing rows in shards; see `hazmat.adopt`. Every worker needs the operator's credentials.

    Args:
        acl: The opened configuration.
        source: The existing table, collection or index; it is only read.
        reason: A sentence of at least three words, recorded with each step.
        store: The store's name; None means the default store.
    """

    kind = "adopt"

    def __init__(self, acl: VectorACL, source: str, *, reason: str, store: str | None = None) -> None:
        if not isinstance(source, str) or not source:
            raise InvalidInputError("source must name a table, collection or index.", field="source")
        self._acl = acl
        self._source = source
        self._reason = reason
        self._store = acl.config.default if store is None else store

    @property
    def options(self) -> Mapping[str, Any]:
        """The source and the store."""
        return {"source": self._source, "store": self._store}

    @contextmanager
    def _operator(self) -> Iterator[Operator]:
        operator = self._acl.operator(self._store, reason=self._reason)
        try:
            yield operator
        finally:
            operator.close()

    @staticmethod
    def _sharing(operator: object, adapter: str) -> ShareAdopter:
        if not isinstance(operator, ShareAdopter):
            raise RefusedError(
                f"The adapter {adapter!r} cannot import rows in shares: run `vectoracl provision --adopt` without "
                "shards.",
                field="adopt",
            )
        return operator

    def _planned(self, count: int, progress: Progress) -> Plan:
        with self._operator() as operator:
            sharing = self._sharing(operator, self._acl.config.stores[self._store].adapter)
            notes = operator.provision(progress=progress)
            parts = sharing.survey(self._source, shares(count), progress=progress)
        key = store_key(self._acl, self._store)
        return planned(
            [
                Shard(
                    job="adopt",
                    index=number,
                    of=count,
                    options=dict(self.options),
                    stores={self._store: key},
                    documents=Documents(low=part.low, high=part.high, tenants=dict(part.tenants)),
                )
                for number, part in enumerate(parts)
            ],
            notes,
        )

    def _check_stores(self, shard: Shard) -> None:
        if shard.documents is None:
            raise RefusedError("The shard names no documents. Take it from the plan again.", field="shard")
        self._check_store(shard, self._store, store_key(self._acl, self._store))

    def _run(self, shard: Shard, tally: Tally, journal: Journal | None, progress: Progress) -> None:
        del journal
        assert shard.documents is not None
        share = shard.documents.share
        adopted = Adopted()
        try:
            with self._operator() as operator:
                counts = hazmat.adopt_share(
                    self._acl,
                    self._source,
                    share,
                    operator=operator,
                    store=self._store,
                    reason=self._reason,
                    progress=progress,
                    adopted=adopted,
                )
        finally:
            tally.written, tally.present, tally.changed = adopted.copied, adopted.there, adopted.changed
        for tenant in sorted({*share.tenants, *counts}):
            rows, wanted = counts.get(tenant, 0), share.tenants.get(tenant, 0)
            faults = {} if rows == wanted else {_CHANGED: abs(rows - wanted)}
            tally.census.append(Census(store=self._store, tenant=tenant, rows=rows, faults=faults))

    def finish(self, plan: Plan | Json, results: Iterable[object]) -> Total:
        """See `BaseJob.finish`; then do what is left in the store, whose lines are the sum's `notes`."""
        total = super().finish(plan, results)
        self._check_stores(Plan.parse(plan).parts[0])
        with self._operator() as operator:
            sharing = self._sharing(operator, self._acl.config.stores[self._store].adapter)
            lines = sharing.adopt_end(self._source, {one.tenant: one.rows for one in total.census})
        return total.model_copy(update={"notes": tuple(lines)})


_CHANGED = "Rows came or went in the source after the import was planned."
