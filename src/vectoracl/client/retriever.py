"""The handles of an application. A handle is bound to one principal, and none of its methods reaches another's rows.

`ScopedRetriever` and `AsyncScopedRetriever` build the same flows (`engine.handle.ScopedBase`) and differ only in the
driver.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from vectoracl.adapter_api.contract import Flow
from vectoracl.client.bulk_load import Announce, Await, Begin, Load, LoadProgress, LoadReport, Look, Pause, Piece
from vectoracl.engine import arguments
from vectoracl.engine.handle import UNSET, Ids, ScopedBase
from vectoracl.engine.load_journal import Journal
from vectoracl.engine.pipeline import Store
from vectoracl.engine.routes import ReroutedError
from vectoracl.errors import ClosedError, InvalidInputError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.queries import Query
from vectoracl.model.records import Chunk, Facet, Hit, Page, Result, Updated, Written

T = TypeVar("T")
_BATCH = 500
_pause, _apause = time.sleep, asyncio.sleep


class ScopedRetriever(ScopedBase):
    """Searches and writes as one principal.

    A handle is a plain value: it holds no connection, and the policy is asked at each call. `with` is optional; it
    only makes later use an error.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.end()

    def _run(self, make: Callable[[], tuple[Store, Flow[T]]], timeout: float | None = None) -> T:
        """Drive the flow of *make*; make it again if the tenant was switched to another store before it was sent."""
        store, flow = make()
        if timeout is not None:
            arguments.check_timeout(timeout)
        while True:
            try:
                return self._driver.run(store, flow, timeout)  # type: ignore[no-any-return]
            except ReroutedError:
                former = store
                store, flow = make()
                if store.name == former.name:
                    raise

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Predicate = ALWAYS,
        min_score: float | None = None,
        group_by: Literal["document"] | None = None,
        per_group: int = 1,
        include: Iterable[str] = arguments.INCLUDE,
        exact: bool = False,
        tuning: Mapping[str, int] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Return the *k* best chunks that this principal may see.

        Args:
            query: A text (if the configuration names an embedder), a vector of the store's dimension, or a `Lexical`,
                `Hybrid` or `Like` query.
            k: The number of hits, or of documents with *group_by*.
            where: A filter that narrows the search inside the scope.
            min_score: Hits with a lower score are dropped.
            group_by: "document" returns up to *per_group* hits of each of the *k* best documents.
            per_group: The number of hits per document with *group_by*.
            include: The parts of a hit to return, out of "text", "metadata" and "vector".
            exact: Require exact ranking, without an approximate index.
            tuning: Settings that the adapter declares (pgvector: `ef_search`).
            timeout: The time limit of the whole call, in seconds; None applies the configured limits.

        Returns:
            The hits, best first, and whether they are complete.

        Raises:
            InvalidInputError: An argument has the wrong form; nothing was sent.
            ReservedFieldError: *where* names a reserved field; nothing was sent.
            UnsupportedPredicateError: The store has no exact form of the filter or query; nothing was sent.
            DeniedError: The policy does not permit the search.
            StoreError: The store, the embedder or the audit sink failed.
            ScopeViolationError: The store returned a row outside the scope.
        """
        make: Callable[[], tuple[Store, Flow[list[Result]]]] = partial(
            self._search,
            (query,),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=self._again(include),
            exact=exact,
            tuning=tuning or {},
        )
        return self._run(make, timeout)[0]

    def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Predicate = ALWAYS,
        min_score: float | None = None,
        group_by: Literal["document"] | None = None,
        per_group: int = 1,
        include: Iterable[str] = arguments.INCLUDE,
        exact: bool = False,
        tuning: Mapping[str, int] | None = None,
        timeout: float | None = None,
    ) -> list[Result]:
        """Search by each of *queries* under one decision, embedding their texts together.

        Args:
            queries: 1 to 1,000 queries, each as in `search`.
            k: See `search`, as for all further arguments.
            where: See `search`.
            min_score: See `search`.
            group_by: See `search`.
            per_group: See `search`.
            include: See `search`.
            exact: See `search`.
            tuning: See `search`.
            timeout: The time limit of the whole call, in seconds.

        Returns:
            One result per query, in their order.

        Raises:
            VectorACLError: As `search`; if one query fails, the call raises.
        """
        make: Callable[[], tuple[Store, Flow[list[Result]]]] = partial(
            self._search,
            _queries(queries),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=self._again(include),
            exact=exact,
            tuning=tuning or {},
        )
        return self._run(make, timeout)

    def fetch(self, ids: Ids, *, include: Iterable[str] = arguments.INCLUDE, timeout: float | None = None) -> list[Hit]:
        """Return chunks by their ids.

        Args:
            ids: Up to 1,000 chunk ids or (document, chunk id) pairs. A chunk id alone names the chunk in every
                document.
            include: The parts of a hit to return, out of "text", "metadata" and "vector".
            timeout: The time limit of the call, in seconds.

        Returns:
            The chunks in the order of *ids*. Ids that do not exist, and those that are not visible, are omitted.

        Raises:
            InvalidInputError: An id has the wrong form, or the ids match more than 10,000 chunks.
            DeniedError: The policy does not permit it.
            StoreError: The store or the audit sink failed.
            ScopeViolationError: The store returned a row outside the scope.
        """
        return self._run(partial(self._fetch, self._again(ids), self._again(include)), timeout)

    def count(self, where: Predicate = ALWAYS, *, timeout: float | None = None) -> int:
        """Return the exact number of visible chunks that match *where*.

        Args:
            where: A filter that narrows the count inside the scope.
            timeout: The time limit of the call, in seconds.

        Returns:
            The number of chunks.

        Raises:
            UnsupportedPredicateError: The store cannot count, or has no exact form of *where*; nothing was sent.
            DeniedError: The policy does not permit it.
            StoreError: The store or the audit sink failed.
        """
        return self._run(lambda: self._count(where), timeout)

    def facets(
        self, field: str, *, where: Predicate = ALWAYS, limit: int = 100, timeout: float | None = None
    ) -> list[Facet]:
        """Return the values of *field* among the visible chunks that match *where*, each with its number of chunks.

        The count of a value equals `count` for *where* and `F[field] == value`, or `.contains(value)` for a list: a
        chunk counts once for each distinct element, and a chunk without the field does not count.

        Args:
            field: A declared field of keywords, numbers or booleans, or of lists of them; or "@document".
            where: A filter that narrows the count inside the scope.
            limit: The maximum number of values, from 1 to 10,000.
            timeout: The time limit of the call, in seconds.

        Returns:
            The values with exact counts, the most frequent first, ties ordered by value.

        Raises:
            InvalidInputError: The field cannot be counted by; nothing was sent.
            ReservedFieldError: *where* names a reserved field; nothing was sent.
            UnsupportedPredicateError: The store cannot count by value; nothing was sent.
            DeniedError: The policy does not permit the action "scan".
            StoreError: The store failed. The code is "too_many_values" if a tenant's chunks have more than 10,000
                values, since a part of them would not be exact.
        """
        return self._run(lambda: self._facets(field, where, limit), timeout)

    def page(
        self,
        where: Predicate = ALWAYS,
        size: int = 100,
        after: str | None = None,
        *,
        include: Iterable[str] = arguments.INCLUDE,
        timeout: float | None = None,
    ) -> Page:
        """Return one page of a scan, in the order of tenant, document, generation and chunk id.

        Over all pages a document appears in one version, the first that was read. If it is replaced, or deleted and
        written again, in the meantime, the rest of it is skipped.

        Args:
            where: A filter that narrows the scan inside the scope.
            size: The maximum number of chunks, from 1 to 10,000.
            after: The cursor `Page.after` of the previous page; it is bound to the scope and the filter.
            include: The parts of a hit to return, out of "text", "metadata" and "vector".
            timeout: The time limit of the call, in seconds.

        Returns:
            The page; its `after` is None at the end of the scan.

        Raises:
            InvalidInputError: An argument has the wrong form, or the cursor belongs to another scan.
            DeniedError: The policy does not permit it.
            StoreError: The store or the audit sink failed.
            ScopeViolationError: The store returned a row outside the scope.
        """
        return self._run(partial(self._page, where, size, after, self._again(include)), timeout)

    def scan(
        self, where: Predicate = ALWAYS, *, size: int = 1000, include: Iterable[str] = arguments.INCLUDE
    ) -> Iterator[Hit]:
        """Iterate over all visible chunks that match *where*; the policy is asked again for each page.

        Args:
            where: A filter that narrows the scan inside the scope.
            size: The number of chunks per page, from 1 to 10,000.
            include: The parts of a hit to return, out of "text", "metadata" and "vector".

        Yields:
            The chunks; each document appears in one version (see `page`).

        Raises:
            VectorACLError: As `page`.
        """
        after: str | None = None
        while True:
            page = self.page(where, size, after, include=include)
            for hit in page.hits:
                self._open()
                yield hit
            after = page.after
            if after is None:
                return

    def upsert(self, chunks: Iterable[Chunk], *, timeout: float | None = None) -> Written:
        """Write *chunks*, all or none: add new ones, and overwrite those with the same document and id.

        Args:
            chunks: The chunks; at most as many as the store takes in one request.
            timeout: The time limit of the call, in seconds.

        Returns:
            The number of written chunks.

        Raises:
            InvalidInputError: A chunk has the wrong form; nothing was sent.
            ReservedFieldError: A chunk's metadata uses a reserved key; nothing was sent.
            TooLargeError: The chunks do not fit one request of the store.
            SourceRefusedError: The configuration lists the pipelines that may write, and the handle names none of them.
            ContentRefusedError: A validator does not accept a document; nothing was sent.
            DeniedError: The policy does not permit the write; nothing was written.
            StoreError: The store failed; `sent` is "unknown" if the write may have been applied.
        """
        return self._run(partial(self._upsert, self._again(chunks)), timeout)

    def replace(
        self, document: str, chunks: Iterable[Chunk], *, expires: float | None = None, timeout: float | None = None
    ) -> Written:
        """Replace the whole content of *document* by *chunks*, as a new generation.

        It is atomic if the adapter declares `atomic_replace`: readers see the old version or the new one.

        Args:
            document: The document's id.
            chunks: The new content, only chunks of this document; an empty iterable removes the content.
            expires: The time from which the document is invisible, in POSIX seconds. The store needs `expiring = true`,
                or a registry, under which it can end a document's time earlier and never extend it.
            timeout: The time limit of the call, in seconds.

        Returns:
            The number of written chunks.

        Raises:
            VectorACLError: As `upsert`.
        """
        return self._run(partial(self._replace, document, self._again(chunks), expires), timeout)

    def update_metadata(self, document: str, changes: Mapping[str, Any], *, timeout: float | None = None) -> Updated:
        """Change keys of the metadata of every chunk of *document*; its texts and vectors stay.

        Needs the action "upsert". Chunks of the document that the handle may not write refuse the whole call.

        Args:
            document: The document's id.
            changes: The new values by their keys; None takes a key away.
            timeout: The time limit of the call, in seconds.

        Returns:
            The number of changed chunks, and whether every reader saw all of them changed or none.

        Raises:
            DeniedError: The policy does not permit it.
            SourceRefusedError: See `upsert`, as for ContentRefusedError.
            InvalidInputError: A value has the wrong form, or the metadata becomes too large.
            ReservedFieldError: A key is reserved for the framework.
            UnsupportedPredicateError: The adapter cannot change metadata in place.
            StoreError: The store failed; with the code "conflict" the document was written in the meantime.
        """
        return self._run(lambda: self._update_metadata(document, changes), timeout)

    def delete(
        self,
        *,
        ids: Ids = UNSET,
        document: str = UNSET,
        where: Predicate = UNSET,
        timeout: float | None = None,
    ) -> Written:
        """Delete chunks by exactly one selector. Chunks that do not exist or may not be deleted are left alone.

        Args:
            ids: Chunk ids or (document, chunk id) pairs.
            document: The id of a document.
            where: A filter.
            timeout: The time limit of the call, in seconds.

        Returns:
            The number of deleted chunks; None if the store cannot count them.

        Raises:
            InvalidInputError: Not exactly one selector was passed, or it has the wrong form; nothing was sent.
            UnsupportedPredicateError: The store has no exact form of *where*; nothing was sent.
            SourceRefusedError: As `upsert`.
            DeniedError: The policy does not permit it.
            StoreError: The store failed; `sent` is "unknown" if the deletion may have been applied.
        """
        return self._run(partial(self._delete, self._again(ids), document, where), timeout)

    def load(
        self,
        stream: Iterable[Chunk],
        *,
        batch: int | None = None,
        resume: str | Path | None = None,
        progress: LoadProgress | None = None,
    ) -> LoadReport:
        """Write a stream of any length in batches and bounded memory; each batch is written whole or not at all.

        Some stores (`Capabilities.writes_in_flight`) get several batches concurrently, never two with the same chunk.
        If it is interrupted, the exception carries a note with the progress, and a StoreError has it as `written`: that
        many chunks from the beginning of the stream are certainly written, and the batches that were in flight behind
        them may be. They have ended when the exception is raised.

        Args:
            stream: The chunks.
            batch: The number of chunks per batch. None means 500 or the store's maximum, in chunks or in bytes, and for
                texts that have to be embedded as many as take a few seconds.
            resume: The path of a small journal. If the file exists, the chunks that it lists are skipped, after a
                check that the store holds them with their content. Chunks that the store lacks, that were changed in
                the stream, or that this principal may not read (so that they cannot be checked) are written again.
            progress: A callback that gets the number of written chunks after each batch.

        Returns:
            The numbers of written and skipped chunks.

        Raises:
            InvalidInputError: As `upsert`; or the journal belongs to another stream, tenant or store, or another load
                is using it.
            StoreError: As `upsert`; the code is "journal" if the journal cannot be written any more, and
                "rate_limited" if the store still limits the rate after several pauses.
            DeniedError: The policy does not permit the write.
            SourceRefusedError: As `upsert`; nothing was read from the stream.
            ContentRefusedError: As `upsert`; batches before it are written.
        """
        self._pipeline.check_source(self._caller)  # before the stream is read
        places = frozenset[str]() if resume is None else self._where()(self._open().name)
        with Journal(resume, self._caller.principal.tenant, places, self._embedder()) as journal:
            can = self._open().capabilities
            load = Load(stream, _batch(batch, can.max_batch), journal, can, automatic=batch is None)
            try:
                with ThreadPoolExecutor(load.most, thread_name_prefix="vectoracl-load") as threads:
                    self._loading(load, journal, progress, threads)  # at its end, it waits for what is in flight
            except BaseException as error:
                load.ended(error)
                raise
        return load.report

    def _loading(
        self, load: Load, journal: Journal, progress: LoadProgress | None, threads: ThreadPoolExecutor
    ) -> None:
        steps, there = load.steps(), False
        while True:
            try:
                step = steps.send(there) if there else next(steps)
            except StopIteration:
                return
            there = False
            match step:
                case Look(chunks):
                    there = self._run(partial(self._look, chunks, journal))
                case Begin(piece, alone=True):
                    self._write(piece)
                case Begin(piece):
                    piece.task = threads.submit(contextvars.copy_context().run, self._write, piece)
                case Await(piece):
                    piece.task.result()
                case Pause(seconds):
                    _pause(seconds)
                case Announce(written):
                    if progress is not None:
                        progress(written)

    def _write(self, piece: Piece) -> None:
        started = time.monotonic()
        try:
            written = self._run(lambda: self._upsert(piece.chunks, "load"))
        except Exception as error:  # noqa: BLE001 - the outcome, which the load raises in the order of the stream
            piece.end(error, time.monotonic() - started)
        else:
            piece.end(None, time.monotonic() - started, written.quarantined)


class AsyncScopedRetriever(ScopedBase):
    """`ScopedRetriever` for asyncio: the same methods as coroutines; `scan` is an async iterator."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        if not self._life.open():
            raise ClosedError("This handle was closed. Get a new one with acl.scoped(principal).")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.end()

    async def _arun(self, make: Callable[[], tuple[Store, Flow[T]]], timeout: float | None = None) -> T:
        """See `ScopedRetriever._run`."""
        store, flow = make()
        if timeout is not None:
            arguments.check_timeout(timeout)
        while True:
            try:
                return await self._driver.arun(store, flow, timeout)  # type: ignore[no-any-return]
            except ReroutedError:
                former = store
                store, flow = make()
                if store.name == former.name:
                    raise

    async def search(
        self,
        query: Query,
        k: int = 10,
        *,
        where: Predicate = ALWAYS,
        min_score: float | None = None,
        group_by: Literal["document"] | None = None,
        per_group: int = 1,
        include: Iterable[str] = arguments.INCLUDE,
        exact: bool = False,
        tuning: Mapping[str, int] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """See `ScopedRetriever.search`."""
        make: Callable[[], tuple[Store, Flow[list[Result]]]] = partial(
            self._search,
            (query,),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=self._again(include),
            exact=exact,
            tuning=tuning or {},
        )
        return (await self._arun(make, timeout))[0]

    async def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        where: Predicate = ALWAYS,
        min_score: float | None = None,
        group_by: Literal["document"] | None = None,
        per_group: int = 1,
        include: Iterable[str] = arguments.INCLUDE,
        exact: bool = False,
        tuning: Mapping[str, int] | None = None,
        timeout: float | None = None,
    ) -> list[Result]:
        """See `ScopedRetriever.search_many`."""
        make: Callable[[], tuple[Store, Flow[list[Result]]]] = partial(
            self._search,
            _queries(queries),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=self._again(include),
            exact=exact,
            tuning=tuning or {},
        )
        return await self._arun(make, timeout)

    async def fetch(
        self,
        ids: Ids,
        *,
        include: Iterable[str] = arguments.INCLUDE,
        timeout: float | None = None,
    ) -> list[Hit]:
        """See `ScopedRetriever.fetch`."""
        return await self._arun(partial(self._fetch, self._again(ids), self._again(include)), timeout)

    async def count(self, where: Predicate = ALWAYS, *, timeout: float | None = None) -> int:
        """See `ScopedRetriever.count`."""
        return await self._arun(lambda: self._count(where), timeout)

    async def facets(
        self, field: str, *, where: Predicate = ALWAYS, limit: int = 100, timeout: float | None = None
    ) -> list[Facet]:
        """See `ScopedRetriever.facets`."""
        return await self._arun(lambda: self._facets(field, where, limit), timeout)

    async def page(
        self,
        where: Predicate = ALWAYS,
        size: int = 100,
        after: str | None = None,
        *,
        include: Iterable[str] = arguments.INCLUDE,
        timeout: float | None = None,
    ) -> Page:
        """See `ScopedRetriever.page`."""
        return await self._arun(partial(self._page, where, size, after, self._again(include)), timeout)

    async def scan(
        self, where: Predicate = ALWAYS, *, size: int = 1000, include: Iterable[str] = arguments.INCLUDE
    ) -> AsyncIterator[Hit]:
        """See `ScopedRetriever.scan`."""
        after: str | None = None
        while True:
            page = await self.page(where, size, after, include=include)
            for hit in page.hits:
                self._open()
                yield hit
            after = page.after
            if after is None:
                return

    async def upsert(self, chunks: Iterable[Chunk], *, timeout: float | None = None) -> Written:
        """See `ScopedRetriever.upsert`."""
        return await self._arun(partial(self._upsert, self._again(chunks)), timeout)

    async def replace(
        self,
        document: str,
        chunks: Iterable[Chunk],
        *,
        expires: float | None = None,
        timeout: float | None = None,
    ) -> Written:
        """See `ScopedRetriever.replace`."""
        return await self._arun(partial(self._replace, document, self._again(chunks), expires), timeout)

    async def update_metadata(
        self, document: str, changes: Mapping[str, Any], *, timeout: float | None = None
    ) -> Updated:
        """See `ScopedRetriever.update_metadata`."""
        return await self._arun(lambda: self._update_metadata(document, changes), timeout)

    async def delete(
        self,
        *,
        ids: Ids = UNSET,
        document: str = UNSET,
        where: Predicate = UNSET,
        timeout: float | None = None,
    ) -> Written:
        """See `ScopedRetriever.delete`."""
        return await self._arun(partial(self._delete, self._again(ids), document, where), timeout)

    async def load(
        self,
        stream: Iterable[Chunk],
        *,
        batch: int | None = None,
        resume: str | Path | None = None,
        progress: LoadProgress | Callable[[int], Awaitable[None]] | None = None,
    ) -> LoadReport:
        """See `ScopedRetriever.load`; *progress* may be a coroutine function."""
        self._pipeline.check_source(self._caller)
        places = frozenset[str]() if resume is None else await self._where()(self._open().name)
        with Journal(resume, self._caller.principal.tenant, places, self._embedder()) as journal:
            can = self._open().capabilities
            load = Load(stream, _batch(batch, can.max_batch), journal, can, automatic=batch is None)
            try:
                try:
                    await self._loading(load, journal, progress)
                except BaseException as error:
                    await _finished(load.tasks, cancel=isinstance(error, asyncio.CancelledError))
                    raise
            except BaseException as error:
                load.ended(error)
                raise
        return load.report

    async def _loading(
        self,
        load: Load,
        journal: Journal,
        progress: LoadProgress | Callable[[int], Awaitable[None]] | None,
    ) -> None:
        steps, there = load.steps(), False
        while True:
            try:
                step = steps.send(there) if there else next(steps)
            except StopIteration:
                return
            there = False
            match step:
                case Look(chunks):
                    there = await self._arun(partial(self._look, chunks, journal))
                case Begin(piece, alone=True):
                    await self._write(piece)
                case Begin(piece):
                    piece.task = asyncio.create_task(self._write(piece))
                case Await(piece):
                    await asyncio.wait((piece.task,))
                    piece.task.result()
                case Pause(seconds):
                    await _apause(seconds)
                case Announce(written):
                    waiting = None if progress is None else progress(written)
                    if waiting is not None:
                        await waiting

    async def _write(self, piece: Piece) -> None:
        started = time.monotonic()
        try:
            written = await self._arun(lambda: self._upsert(piece.chunks, "load"))
        except Exception as error:  # noqa: BLE001 - the outcome, which the load raises in the order of the stream
            piece.end(error, time.monotonic() - started)
        else:
            piece.end(None, time.monotonic() - started, written.quarantined)


async def _finished(tasks: Sequence[asyncio.Task[None]], *, cancel: bool) -> None:
    """Wait until all *tasks* have ended; with *cancel*, or if the caller is cancelled now, they are cancelled.

    Raises: CancelledError if the caller is cancelled now.
    """
    pending = set(tasks)
    cancelled: asyncio.CancelledError | None = None
    while pending:
        if cancel:
            for task in pending:
                task.cancel()
        try:
            _, pending = await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled, cancel = error, True
            pending = {task for task in pending if not task.done()}
    if cancelled is not None:
        raise cancelled


def _queries(queries: object) -> tuple[Query, ...]:
    if isinstance(queries, str | bytes | Mapping) or not isinstance(queries, Iterable):
        raise InvalidInputError(
            f"search_many() takes a list of queries, got {type(queries).__name__}.", field="queries"
        )
    listed = tuple(queries)
    if not 1 <= len(listed) <= 1000:
        raise InvalidInputError("search_many() takes 1 to 1,000 queries.", field="queries")
    return listed


def _batch(given: int | None, most: int) -> int:
    """Return the number of chunks that `load` writes at once. Raises: InvalidInputError."""
    return min(_BATCH, most) if given is None else arguments.integer(given, "batch", 1, most)
