"""The handles: what an application holds. A handle is bound to one principal and has no method that reaches others.

`ScopedRetriever` and `AsyncScopedRetriever` differ in who drives: each method builds the same flow (`_Handle`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from vectoracl import reads, writes
from vectoracl.actions import Action, check_actions
from vectoracl.adapter import Flow
from vectoracl.errors import ClosedError, InvalidInputError, TooLargeError
from vectoracl.guard import Asker, Guard, Store
from vectoracl.ids import check_id
from vectoracl.load import Journal, LoadProgress, LoadReport, Pieces, batches
from vectoracl.operations import ChunkRef
from vectoracl.predicate import ALWAYS, Predicate, check_predicate, conjunction
from vectoracl.prepare import Prepared, prepare
from vectoracl.queries import Query
from vectoracl.records import Chunk, Hit, Page, Result, Written

T = TypeVar("T")
_BATCH = 500
_UNSET: Any = object()
_Ids = Iterable[str | tuple[str, str]]


class Driver(Protocol):
    """What runs the flows of sync handles."""

    def run(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        """Drive *flow* on *store*; *timeout* in seconds, None for the store's own."""
        ...


class AsyncDriver(Protocol):
    """What runs the flows of async handles."""

    async def arun(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        """Drive *flow* on *store*."""
        ...


class _Life:
    """Whether a handle is open; a narrowed handle ends with the one it came from."""

    __slots__ = ("_ended", "_owner")

    def __init__(self, owner: Callable[[], bool]) -> None:
        self._owner = owner
        self._ended = False

    def end(self) -> None:
        self._ended = True

    def open(self) -> bool:
        return not self._ended and self._owner()


class _Handle:
    """What both kinds of handle share: the checks of the arguments and the flows."""

    __slots__ = ("_asker", "_driver", "_guard", "_life", "_store")

    def __init__(self, guard: Guard, store: Callable[[], Store], driver: Any, asker: Asker, life: _Life) -> None:
        self._guard = guard
        self._store = store
        self._driver = driver
        self._asker = asker
        self._life = life

    def __repr__(self) -> str:
        principal = self._asker.principal
        return f"<{type(self).__name__} of {principal.id!r}, tenant {principal.tenant!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise InvalidInputError("A handle is not serialised; make one from a verified principal where it is used.")

    def narrow(self, where: Predicate = ALWAYS, actions: Iterable[Action] | None = None) -> Self:
        """Return a handle that can do less: only rows that also match *where*, only *actions*.

        What an agent or a tool gets. It can never widen: filters are joined by "and", actions by intersection, and
        it ends with the handle that it came from. Raises: InvalidInputError, ReservedFieldError,
        UnsupportedPredicateError.
        """
        store = self._open()
        checked = reads.check_where(store, check_predicate(where))
        kept = self._asker.actions if actions is None else self._asker.actions & check_actions(actions)
        asker = Asker(self._asker.principal, kept, conjunction((self._asker.narrow, checked)))
        return type(self)(self._guard, self._store, self._driver, asker, _Life(self._life.open))

    def driven_by(self, driver: Any) -> Self:
        """Return the same handle, driven by *driver*: for adapters that work inside the caller's own transaction."""
        self._open()
        return type(self)(self._guard, self._store, driver, self._asker, _Life(self._life.open))

    def _open(self) -> Store:
        if not self._life.open():
            raise ClosedError("This handle was closed. Ask for a new one: acl.scoped(principal).")
        return self._store()

    def _search(self, queries: Sequence[Query], **given: Any) -> tuple[Store, Flow[list[Result]]]:
        store = self._open()
        ask = reads.check_ask(store, **given)
        return store, reads.search(self._guard, store, self._asker, queries, ask)

    def _fetch(self, ids: object, include: object) -> tuple[Store, Flow[list[Hit]]]:
        store = self._open()
        refs = reads.check_refs(ids)
        return store, reads.fetch(self._guard, store, self._asker, refs, reads.check_include(include))

    def _count(self, where: object) -> tuple[Store, Flow[int]]:
        store = self._open()
        return store, reads.count(self._guard, store, self._asker, reads.check_where(store, where))

    def _page(self, where: object, size: int, after: str | None, include: object) -> tuple[Store, Flow[Page]]:
        store = self._open()
        checked = reads.check_where(store, where)
        return store, reads.page(self._guard, store, self._asker, checked, size, after, reads.check_include(include))

    def _prepared(self, chunks: Iterable[Chunk]) -> tuple[Store, tuple[Prepared, ...]]:
        store = self._open()
        can = store.capabilities
        return store, prepare(chunks, store.fields, can.dimension, nonzero=can.metric == "cosine", limit=can.max_batch)

    def _upsert(self, chunks: Iterable[Chunk], path: str = "upsert") -> tuple[Store, Flow[Written]]:
        store, prepared = self._prepared(chunks)
        return store, writes.upsert(self._guard, store, self._asker, prepared, path)

    def _replace(self, document: str, chunks: Iterable[Chunk]) -> tuple[Store, Flow[Written]]:
        document = check_id(document, "document")
        store, prepared = self._prepared(chunks)
        if any(one.chunk.document != document for one in prepared):
            raise InvalidInputError("replace() takes chunks of the one document that it names.", field="document")
        return store, writes.replace(self._guard, store, self._asker, document, prepared)

    def _delete(self, ids: Any, document: Any, where: Any) -> tuple[Store, Flow[Written]]:
        store = self._open()
        if sum(one is not _UNSET for one in (ids, document, where)) != 1:
            raise InvalidInputError("delete() takes exactly one of ids=, document= and where=.", field="delete")
        refs: tuple[ChunkRef, ...] | None = None
        selected: Predicate | None = None
        if ids is not _UNSET:
            refs = reads.check_refs(ids)
        elif document is not _UNSET:
            document = check_id(document, "document")
        else:
            selected = reads.check_where(store, where)
        named = None if document is _UNSET else document
        return store, writes.delete(self._guard, store, self._asker, refs, named, selected)


class ScopedRetriever(_Handle):
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
            reads.check_timeout(timeout)
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
        include: Iterable[str] = reads.INCLUDE,
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
        include: Iterable[str] = reads.INCLUDE,
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

    def fetch(self, ids: _Ids, *, include: Iterable[str] = reads.INCLUDE, timeout: float | None = None) -> list[Hit]:
        """Return the chunks of *ids* (chunk ids, or (document, chunk id) pairs), at most 1,000 ids.

        A chunk id alone names the chunk in every document; more than 10,000 chunks are refused. What does not exist
        and what may not be seen are left out alike.
        """
        return self._run(self._fetch(ids, include), timeout)

    def count(self, where: Predicate = ALWAYS, *, timeout: float | None = None) -> int:
        """Return how many chunks this principal sees that match *where*, exactly."""
        return self._run(self._count(where), timeout)

    def page(
        self,
        where: Predicate = ALWAYS,
        size: int = 100,
        after: str | None = None,
        *,
        include: Iterable[str] = reads.INCLUDE,
        timeout: float | None = None,
    ) -> Page:
        """Return one page of a scan; pass `page.after` for the next. A cursor is bound to scope and filter."""
        return self._run(self._page(where, size, after, include), timeout)

    def scan(
        self, where: Predicate = ALWAYS, *, size: int = 1000, include: Iterable[str] = reads.INCLUDE
    ) -> Iterator[Hit]:
        """Iterate over all chunks that match *where*, in pages of *size*; policy is asked again for every page."""
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
        ids: _Ids = _UNSET,
        document: str = _UNSET,
        where: Predicate = _UNSET,
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

        *batch* None is 500 chunks, or as many as the store takes at once.

        *resume* is the path of a small journal: if the file exists, the chunks that it says were written are skipped
        (and checked to be the same ones). *progress* is called with the number written after each batch. If it is
        interrupted, the exception carries a note with what was written, and `error.written` where it is ours.

        Raises: as `upsert`; InvalidInputError if the journal belongs to another stream.
        """
        report = LoadReport()
        with Journal(resume, self._asker.principal.tenant) as journal:
            pieces = Pieces(automatic=batch is None)
            for part in batches(stream, self._batch(batch), journal, report):
                left = pieces.of(part)
                while left:
                    piece = left.pop(0)
                    try:
                        with report.interruptible(journal):
                            self._run(self._upsert(piece, "load"))
                    except TooLargeError as error:
                        left[:0] = pieces.smaller(piece, error)
                        continue
                    with report.interruptible(journal, sending=False):
                        journal.wrote(piece, report)
                        if progress is not None:
                            progress(report.written)
            journal.finish()
        return report

    def _batch(self, batch: int | None) -> int:
        return _batch(batch, self._open().capabilities.max_batch)


class AsyncScopedRetriever(_Handle):
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
            reads.check_timeout(timeout)
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
        include: Iterable[str] = reads.INCLUDE,
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
        include: Iterable[str] = reads.INCLUDE,
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
        ids: _Ids,
        *,
        include: Iterable[str] = reads.INCLUDE,
        timeout: float | None = None,
    ) -> list[Hit]:
        """See `ScopedRetriever.fetch`."""
        return await self._arun(self._fetch(ids, include), timeout)

    async def count(self, where: Predicate = ALWAYS, *, timeout: float | None = None) -> int:
        """See `ScopedRetriever.count`."""
        return await self._arun(self._count(where), timeout)

    async def page(
        self,
        where: Predicate = ALWAYS,
        size: int = 100,
        after: str | None = None,
        *,
        include: Iterable[str] = reads.INCLUDE,
        timeout: float | None = None,
    ) -> Page:
        """See `ScopedRetriever.page`."""
        return await self._arun(self._page(where, size, after, include), timeout)

    async def scan(
        self, where: Predicate = ALWAYS, *, size: int = 1000, include: Iterable[str] = reads.INCLUDE
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
        ids: _Ids = _UNSET,
        document: str = _UNSET,
        where: Predicate = _UNSET,
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
        with Journal(resume, self._asker.principal.tenant) as journal:
            pieces = Pieces(automatic=batch is None)
            for part in batches(stream, size, journal, report):
                left = pieces.of(part)
                while left:
                    piece = left.pop(0)
                    try:
                        with report.interruptible(journal):
                            await self._arun(self._upsert(piece, "load"))
                    except TooLargeError as error:
                        left[:0] = pieces.smaller(piece, error)
                        continue
                    with report.interruptible(journal, sending=False):
                        journal.wrote(piece, report)
                        if progress is not None:
                            waiting = progress(report.written)
                            if waiting is not None:
                                await waiting
            journal.finish()
        return report


def _queries(queries: object) -> tuple[Query, ...]:
    if isinstance(queries, str | bytes | Mapping) or not isinstance(queries, Iterable):
        raise InvalidInputError("search_many() takes a list of queries.", field="queries")
    listed = tuple(queries)
    if not 1 <= len(listed) <= 1000:
        raise InvalidInputError("search_many() takes 1 to 1,000 queries.", field="queries")
    return listed


def _batch(given: int | None, most: int) -> int:
    """Return how many chunks `load` writes at once. Raises: InvalidInputError."""
    return min(_BATCH, most) if given is None else reads.integer(given, "batch", 1, most)
