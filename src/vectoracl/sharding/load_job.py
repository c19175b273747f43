"""Loads a stream of chunks in shards of documents.

Every worker reads the same stream and writes the chunks of its documents (`place_of`), in their order. So a chunk that
occurs twice is written twice by one worker, and the later one wins as in one load. Reading a stream costs little
compared with embedding and writing it. The principal is the worker's: the policy decides about every batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from vectoracl.adapter_api.contract import Progress
from vectoracl.adapter_api.shares import Share, shares
from vectoracl.client.bulk_load import LoadReport
from vectoracl.client.connect import AsyncVectorACL, VectorACL
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.model.principal import Principal
from vectoracl.model.records import Chunk
from vectoracl.sharding.job import BaseJob, Job, Tally, noted, nothing
from vectoracl.sharding.journal import Journal, opened
from vectoracl.sharding.results import Result
from vectoracl.sharding.shards import Documents, Json, Kind, Plan, Shard, StoreKey, planned
from vectoracl.sharding.stores import async_store_key, store_key

Stream = Callable[[], Iterable[Chunk]]


def of_share(stream: object, tenant: str, share: Share) -> Iterator[Chunk]:
    """Yield the chunks whose documents are in *share*.

    What is not a chunk, or has no document, is yielded to every share, so that the write refuses it.
    """
    if isinstance(stream, str | bytes) or not isinstance(stream, Iterable):
        raise InvalidInputError(f"A load takes an iterable of Chunk, got {type(stream).__name__}.", field="stream")
    for chunk in stream:
        document = getattr(chunk, "document", None)
        if not isinstance(document, str) or share.has(tenant, document):
            yield chunk


class _LoadJob:
    """The options of both jobs, and the shards of a tenant."""

    kind: ClassVar[Kind] = "load"

    def __init__(self, tenant: str, stream: Stream, batch: int | None, source: str | None) -> None:
        if not callable(stream):
            raise InvalidInputError(
                "stream must be a function that returns the stream from its beginning: each worker calls it.",
                field="stream",
            )
        self._tenant = tenant
        self._source = source
        self._stream = stream
        self._batch = batch

    @property
    def options(self) -> Mapping[str, Any]:
        """The tenant, and the pipeline if there is one."""
        return {"tenant": self._tenant, **({} if self._source is None else {"source": self._source})}

    def _plan(self, count: int, store: str, key: StoreKey) -> Plan:
        return planned(
            [
                Shard(
                    job="load",
                    index=number,
                    of=count,
                    options=dict(self.options),
                    stores={store: key},
                    documents=Documents(low=share.low, high=share.high, tenants={}),
                )
                for number, share in enumerate(shares(count))
            ]
        )

    def _part(self, shard: Shard) -> Iterator[Chunk]:
        if shard.documents is None:
            raise RefusedError("The shard names no documents. Take it from the plan again.", field="shard")
        return of_share(self._stream(), self._tenant, shard.documents.share)


class LoadJob(_LoadJob, Job):
    """A load of a stream in shards, as one principal; see `ScopedRetriever.load`.

    Args:
        acl: The opened configuration.
        principal: The principal that writes.
        stream: A function that returns the stream of chunks from its beginning, the same on every worker.
        batch: The number of chunks per batch; see `ScopedRetriever.load`.
        source: The name of the pipeline; see `VectorACL.scoped`.
    """

    def __init__(
        self,
        acl: VectorACL,
        principal: Principal,
        stream: Stream,
        *,
        batch: int | None = None,
        source: str | None = None,
    ) -> None:
        self._handle = acl.scoped(principal, source=source)
        super().__init__(principal.tenant, stream, batch, source)
        self._acl = acl

    def _planned(self, count: int, progress: Progress) -> Plan:
        progress("planning", 0, 1)
        store = self._acl.store_of(self._tenant)
        return self._plan(count, store, store_key(self._acl, store))

    def _check_stores(self, shard: Shard) -> None:
        store = self._acl.store_of(self._tenant)
        self._check_store(shard, store, store_key(self._acl, store))

    def _run(self, shard: Shard, tally: Tally, journal: Journal | None, progress: Progress) -> None:
        resume = None if journal is None else journal.load_path(shard)

        def wrote(written: int) -> None:
            tally.written = written
            progress("loading", written, None)

        counted(tally, self._handle.load(self._part(shard), batch=self._batch, resume=resume, progress=wrote))


class AsyncLoadJob(_LoadJob, BaseJob):
    """`LoadJob` for asyncio: `plan_shards` and `run_shard` are coroutines."""

    def __init__(
        self,
        acl: AsyncVectorACL,
        principal: Principal,
        stream: Stream,
        *,
        batch: int | None = None,
        source: str | None = None,
    ) -> None:
        self._handle = acl.scoped(principal, source=source)
        super().__init__(principal.tenant, stream, batch, source)
        self._acl = acl

    async def plan_shards(self, count: int, *, journal: Journal | str | Path | None = None) -> Plan:
        """See `Job.plan_shards`."""
        kept = opened(journal)
        store = self._acl.store_of(self._tenant)
        key = await async_store_key(self._acl, store)
        if kept is None:
            return self._made(None, count) or self._plan(count, store, key)
        # The thread that takes the lock releases it: a cancelled call would not get it back from a thread that waits.
        return await asyncio.to_thread(self._plan_once, kept, count, store, key)

    def _plan_once(self, kept: Journal, count: int, store: str, key: StoreKey) -> Plan:
        with kept.planning():
            plan = self._made(kept, count)
            if plan is None:
                plan = self._plan(count, store, key)
                kept.keep(plan)
        return plan

    async def run_shard(
        self, shard: Json, *, journal: Journal | str | Path | None = None, progress: Progress | None = None
    ) -> Json:
        """See `Job.run_shard`."""
        kept = opened(journal)
        part = self._parsed(shard, kept)
        if kept is None:
            return (await self._ran(part, None, progress or nothing)).data()
        with kept.claimed(part):
            result = kept.kept(part)
            if result is None:
                result = await self._ran(part, kept, progress or nothing)
                kept.finish(part, result)
        return result.data()

    async def _ran(self, shard: Shard, journal: Journal | None, progress: Progress) -> Result:
        store = self._acl.store_of(self._tenant)
        self._check_store(shard, store, await async_store_key(self._acl, store))
        tally = Tally(shard)
        resume: Path | None = None if journal is None else journal.load_path(shard)

        def wrote(written: int) -> None:
            tally.written = written
            progress("loading", written, None)

        with noted(shard, tally):
            load = self._handle.load(self._part(shard), batch=self._batch, resume=resume, progress=wrote)
            counted(tally, await load)
        return tally.result()


def counted(tally: Tally, report: LoadReport) -> None:
    """Note the result of a load in *tally*."""
    tally.written, tally.present = report.written, report.skipped
