"""The handles: what an application holds. A handle is bound to one principal and has no method that reaches others.

`ScopedRetriever` and `AsyncScopedRetriever` differ in who drives: each method builds the same flow
(`handle.ScopedBase`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from vectoracl.adapter_api.contract import Flow
from vectoracl.client.bulk_load import LoadProgress, LoadReport, Pieces, batches
from vectoracl.engine import arguments
from vectoracl.engine.handle import UNSET, Ids, ScopedBase
from vectoracl.engine.load_journal import Journal
from vectoracl.engine.pipeline import Store
from vectoracl.errors import ClosedError, InvalidInputError, TooLargeError
from vectoracl.filters.predicate import ALWAYS, Predicate
from vectoracl.model.queries import Query
from vectoracl.model.records import Chunk, Facet, Hit, Page, Result, Written

T = TypeVar("T")
_BATCH = 500


class ScopedRetriever(ScopedBase):
    """Search and write as one principal. A plain value: it holds no connection, and policy is asked at each call.

    `with` is optional; it only makes later use an error.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.end()

    def _run(self, work: tuple[Store, Flow[T]], timeout: float | None = None) -> T:
        store, flow = work
        if timeout is not None:
            arguments.check_timeout(timeout)
        return self._driver.run(store, flow, timeout)  # type: ignore[no-any-return]

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

        *query* is text (config names an embedder), a vector of the store's dimension, or `Lexical`, `Hybrid`, `Like`.
        *where* narrows inside the scope. *min_score* drops hits below it. With *group_by* = "document", *k* counts
        documents and each gives up to *per_group* hits. *include* chooses among "text", "metadata" and "vector".
        *exact* demands exact ranking; *tuning* holds settings that the adapter declares (pgvector: ef_search).
        *timeout* is in seconds for the whole call.

        Raises: InvalidInputError, ReservedFieldError, UnsupportedPredicateError before any I/O; DeniedError;
        StoreError; ScopeViolationError.
        """
        work = self._search(
            (query,),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=include,
            exact=exact,
            tuning=tuning or {},
        )
        return self._run(work, timeout)[0]

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
        """Search by each of *queries* under one decision, embedding their texts together; all answer or it raises."""
        work = self._search(
            _queries(queries),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=include,
            exact=exact,
            tuning=tuning or {},
        )
        return self._run(work, timeout)

    def fetch(self, ids: Ids, *, include: Iterable[str] = arguments.INCLUDE, timeout: float | None = None) -> list[Hit]:
        """Return the chunks of *ids* (chunk ids, or (document, chunk id) pairs), at most 1,000 ids.

        A chunk id alone names the chunk in every document; more than 10,000 chunks are refused. What does not exist
        and what may not be seen are left out alike.
        """
        return self._run(self._fetch(ids, include), timeout)

    def count(self, where: Predicate = ALWAYS, *, timeout: float | None = None) -> int:
        """Return how many chunks this principal sees that match *where*, exactly."""
        return self._run(self._count(where), timeout)

    def facets(
        self, field: str, *, where: Predicate = ALWAYS, limit: int = 100, timeout: float | None = None
    ) -> list[Facet]:
        """Return the values of *field* among the visible chunks that match *where*, with how many chunks have each.

        Exactly, the most frequent first, ties by value, *limit* (1 to 10,000) at most. *field* is a declared field of
        keywords, numbers or booleans, or of a list of them, or "@document". The count of a value is what `count`
        returns for *where* and `F[field] == value`, or `.contains(value)` for a list: a chunk counts once for each
        different element, and one without the field for none.

        Raises: InvalidInputError for another field, ReservedFieldError, UnsupportedPredicateError where the store
        cannot count by value, all before any I/O; DeniedError (the action is "scan"); StoreError with the code
        "too_many_values" where a tenant's chunks have more than 10,000 values, since some of them are no answer.
        """
        return self._run(self._facets(field, where, limit), timeout)

    def page(
        self,
        where: Predicate = ALWAYS,
        size: int = 100,
        after: str | None = None,
        *,
        include: Iterable[str] = arguments.INCLUDE,
        timeout: float | None = None,
    ) -> Page:
        """Return one page of a scan; pass `page.after` for the next. A cursor is bound to scope and filter.

        Over all pages a document comes in one version, the first that was seen. What is left of one that was replaced
        meanwhile, or deleted and written again, is skipped.
        """
        return self._run(self._page(where, size, after, include), timeout)

    def scan(
        self, where: Predicate = ALWAYS, *, size: int = 1000, include: Iterable[str] = arguments.INCLUDE
    ) -> Iterator[Hit]:
        """Iterate over all chunks that match *where*, in pages of *size*; policy is asked again for every page.

        Each document comes in one version (see `page`).
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
        """Write all *chunks* or none: new ones are added, those with the same document and id overwritten.

        Raises: InvalidInputError, ReservedFieldError before any I/O; DeniedError, with nothing written; StoreError,
        whose `sent` is "unknown" where the write may have been applied.
        """
        return self._run(self._upsert(chunks), timeout)

    def replace(self, document: str, chunks: Iterable[Chunk], *, timeout: float | None = None) -> Written:
        """Make *chunks* the whole content of *document*, as a new generation; none of them removes its content.

        Atomic where `capabilities.atomic_replace`: readers see the old version or the new one. Raises: as `upsert`.
        """
        return self._run(self._replace(document, chunks), timeout)

    def delete(
        self,
        *,
        ids: Ids = UNSET,
        document: str = UNSET,
        where: Predicate = UNSET,
        timeout: float | None = None,
    ) -> Written:
        """Delete by exactly one selector; what does not exist or may not be deleted is left alone, alike.

        `count` of the answer is how many chunks were deleted, None where the store cannot say.
        """
        return self._run(self._delete(ids, document, where), timeout)

    def load(
        self,
        stream: Iterable[Chunk],
        *,
        batch: int | None = None,
        resume: str | Path | None = None,
        progress: LoadProgress | None = None,
    ) -> LoadReport:
        """Write a stream of any length in batches, in bounded memory; each batch is written whole or not at all.

        *batch* None is 500 chunks, or as many as the store takes at once; of texts that have to be embedded, as many as
        take a few seconds.

        *resume* is the path of a small journal: if the file exists, the chunks that it says were written are skipped,
        after a look at whether the store really has them with their content. What it has not, what was corrected in the
        stream since, and what this principal may not read (so that it cannot be looked at) is written again.
        *progress* is called with the number written after each batch. If it is interrupted, the exception carries a
        note with what was written, and `error.written` where it is ours.

        Raises: as `upsert`; InvalidInputError if the journal belongs to another stream, tenant or store, or if another
        load goes on with it; StoreError with the code "journal" if it cannot be written any more.
        """
        report = LoadReport()
        size = self._batch(batch)
        places = frozenset[str]() if resume is None else self._places()
        with Journal(resume, self._caller.principal.tenant, places, self._embedder()) as journal:
            pieces = Pieces(automatic=batch is None)
            for part in batches(stream, size, journal, report):
                if part.known:
                    with report.interruptible(journal, sending=False):
                        there = self._run(self._look(part.chunks, journal))
                    if there:
                        journal.skipped(part.chunks)
                        report.skipped += len(part.chunks)
                        continue
                left = pieces.of(part.chunks)
                while left:
                    piece, started = left.pop(0), time.monotonic()
                    try:
                        with report.interruptible(journal):
                            self._run(self._upsert(piece, "load"))
                    except TooLargeError as error:
                        left[:0] = pieces.smaller(piece, error)
                        continue
                    left = pieces.wrote(piece, time.monotonic() - started, left)
                    with report.interruptible(journal, sending=False):
                        report.wrote(piece)
                        journal.wrote(piece)
                        if progress is not None:
                            progress(report.written)
            with report.interruptible(journal, sending=False):
                journal.finish()
        return report

    def _batch(self, batch: int | None) -> int:
        return _batch(batch, self._open().capabilities.max_batch)

    def _places(self) -> frozenset[str]:
        return self._where()(self._open().name)  # type: ignore[no-any-return]


class AsyncScopedRetriever(ScopedBase):
    """`ScopedRetriever` for asyncio: the same methods, awaited; `scan` is an async iterator."""

    __slots__ = ()

    async def __aenter__(self) -> Self:
        if not self._life.open():
            raise ClosedError("This handle was closed. Ask for a new one: acl.scoped(principal).")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.end()

    async def _arun(self, work: tuple[Store, Flow[T]], timeout: float | None = None) -> T:
        store, flow = work
        if timeout is not None:
            arguments.check_timeout(timeout)
        return await self._driver.arun(store, flow, timeout)  # type: ignore[no-any-return]

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
        work = self._search(
            (query,),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=include,
            exact=exact,
            tuning=tuning or {},
        )
        return (await self._arun(work, timeout))[0]

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
        work = self._search(
            _queries(queries),
            k=k,
            where=where,
            min_score=min_score,
            group_by=group_by,
            per_group=per_group,
            include=include,
            exact=exact,
            tuning=tuning or {},
        )
        return await self._arun(work, timeout)

    async def fetch(
        self,
        ids: Ids,
        *,
        include: Iterable[str] = arguments.INCLUDE,
        timeout: float | None = None,
    ) -> list[Hit]:
        """See `ScopedRetriever.fetch`."""
        return await self._arun(self._fetch(ids, include), timeout)

    async def count(self, where: Predicate = ALWAYS, *, timeout: float | None = None) -> int:
        """See `ScopedRetriever.count`."""
        return await self._arun(self._count(where), timeout)

    async def facets(
        self, field: str, *, where: Predicate = ALWAYS, limit: int = 100, timeout: float | None = None
    ) -> list[Facet]:
        """See `ScopedRetriever.facets`."""
        return await self._arun(self._facets(field, where, limit), timeout)

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
        return await self._arun(self._page(where, size, after, include), timeout)

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
        return await self._arun(self._upsert(chunks), timeout)

    async def replace(
        self,
        document: str,
        chunks: Iterable[Chunk],
        *,
        timeout: float | None = None,
    ) -> Written:
        """See `ScopedRetriever.replace`."""
        return await self._arun(self._replace(document, chunks), timeout)

    async def delete(
        self,
        *,
        ids: Ids = UNSET,
        document: str = UNSET,
        where: Predicate = UNSET,
        timeout: float | None = None,
    ) -> Written:
        """See `ScopedRetriever.delete`."""
        return await self._arun(self._delete(ids, document, where), timeout)

    async def load(
        self,
        stream: Iterable[Chunk],
        *,
        batch: int | None = None,
        resume: str | Path | None = None,
        progress: LoadProgress | Callable[[int], Awaitable[None]] | None = None,
    ) -> LoadReport:
        """See `ScopedRetriever.load`; *progress* may be a coroutine function."""
        report = LoadReport()
        size = _batch(batch, self._open().capabilities.max_batch)
        places = frozenset[str]() if resume is None else await self._places()
        with Journal(resume, self._caller.principal.tenant, places, self._embedder()) as journal:
            pieces = Pieces(automatic=batch is None)
            for part in batches(stream, size, journal, report):
                if part.known:
                    with report.interruptible(journal, sending=False):
                        there = await self._arun(self._look(part.chunks, journal))
                    if there:
                        journal.skipped(part.chunks)
                        report.skipped += len(part.chunks)
                        continue
                left = pieces.of(part.chunks)
                while left:
                    piece, started = left.pop(0), time.monotonic()
                    try:
                        with report.interruptible(journal):
                            await self._arun(self._upsert(piece, "load"))
                    except TooLargeError as error:
                        left[:0] = pieces.smaller(piece, error)
                        continue
                    left = pieces.wrote(piece, time.monotonic() - started, left)
                    with report.interruptible(journal, sending=False):
                        report.wrote(piece)
                        journal.wrote(piece)
                        if progress is not None:
                            waiting = progress(report.written)
                            if waiting is not None:
                                await waiting
            with report.interruptible(journal, sending=False):
                journal.finish()
        return report

    async def _places(self) -> frozenset[str]:
        return await self._where()(self._open().name)  # type: ignore[no-any-return]


def _queries(queries: object) -> tuple[Query, ...]:
    if isinstance(queries, str | bytes | Mapping) or not isinstance(queries, Iterable):
        raise InvalidInputError("search_many() takes a list of queries.", field="queries")
    listed = tuple(queries)
    if not 1 <= len(listed) <= 1000:
        raise InvalidInputError("search_many() takes 1 to 1,000 queries.", field="queries")
    return listed


def _batch(given: int | None, most: int) -> int:
    """Return how many chunks `load` writes at once. Raises: InvalidInputError."""
    return min(_BATCH, most) if given is None else arguments.integer(given, "batch", 1, most)
