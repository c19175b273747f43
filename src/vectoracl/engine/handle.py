"""The base of sync and async handles: checks of the arguments, and the flows. A handle is bound to one principal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

from vectoracl.adapter_api.chunk_validation import (
    ValidatedChunk,
    check_expires,
    until_at_most,
    validate_chunks,
)
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import MAX_FACETS, ChunkRef, Include
from vectoracl.audit.sinks import Sink
from vectoracl.engine import arguments, facets, governed_writes, metadata_updates, paging, reads, writes
from vectoracl.engine.load_journal import Journal
from vectoracl.engine.pipeline import Caller, Pipeline, Store
from vectoracl.errors import ClosedError, DeniedError, InvalidInputError, RefusedError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, Predicate, check_predicate, conjunction
from vectoracl.model.actions import Action, check_actions
from vectoracl.model.identifiers import check_id
from vectoracl.model.queries import Query
from vectoracl.model.records import NEVER_EXPIRES, Chunk, Facet, Hit, Page, Result, Updated, Written

T = TypeVar("T")
UNSET: Any = object()
_LOOKED_AT = 500
Ids = Iterable[str | tuple[str, str]]


class Lifetime:
    """The open or closed state of a handle; a narrowed handle ends with the one that it was made from."""

    __slots__ = ("_ended", "_owner")

    def __init__(self, owner: Callable[[], bool]) -> None:
        self._owner = owner
        self._ended = False

    def end(self) -> None:
        """Mark the handle as closed."""
        self._ended = True

    def open(self) -> bool:
        """Return whether the handle is open."""
        return not self._ended and self._owner()


class _Again:
    """An iterable over what *iterator* yields, from its beginning each time; it is read no further than needed."""

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator
        self._seen: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        yield from self._seen
        for one in self._iterator:
            self._seen.append(one)
            yield one


class ScopedBase:
    """The base of `ScopedRetriever` and `AsyncScopedRetriever`: checks arguments and builds flows."""

    __slots__ = ("_caller", "_driver", "_life", "_pipeline", "_store")

    def __init__(
        self, pipeline: Pipeline, store: Callable[[], Store], driver: Any, caller: Caller, life: Lifetime
    ) -> None:
        self._pipeline = pipeline
        self._store = store
        self._driver = driver
        self._caller = caller
        self._life = life

    def __repr__(self) -> str:
        principal = self._caller.principal
        return f"<{type(self).__name__} of {principal.id!r}, tenant {principal.tenant!r}>"

    def __reduce__(self) -> tuple[object, ...]:
        raise InvalidInputError("A handle cannot be serialised. Create one from a verified principal where it is used.")

    def narrow(self, where: Predicate = ALWAYS, actions: Iterable[Action] | None = None) -> Self:
        """Return a handle that can do less, for an agent or a tool.

        It can never widen: filters are joined by "and" and actions by intersection. It ends with this handle.

        Args:
            where: A filter that every row must match in addition to the scope.
            actions: The actions that are left; None keeps those of this handle.

        Returns:
            A handle of the same class.

        Raises:
            InvalidInputError: *where* is not a predicate, or *actions* holds an unknown action.
            ReservedFieldError: *where* names a field that is reserved for the framework.
            UnsupportedPredicateError: The store has no exact form of *where*.
            ClosedError: This handle was closed.
        """
        store = self._open()
        checked = arguments.check_where(store, check_predicate(where))
        remaining_actions = self._caller.actions if actions is None else self._caller.actions & check_actions(actions)
        narrow = conjunction((self._caller.narrow, checked))
        caller = Caller(self._caller.principal, remaining_actions, narrow, self._caller.source)
        return type(self)(self._pipeline, self._store, self._driver, caller, Lifetime(self._life.open))

    def with_driver(self, driver: Any, sink: Sink | None = None) -> Self:
        """Return the same handle, driven by *driver*: for adapters that work inside the caller's own transaction.

        Outcomes are noted in *sink*, if given; it may hold them back until that transaction has ended.
        """
        self._open()
        if self._pipeline.registry is not None:
            raise RefusedError(
                "A handle inside the caller's own transaction is not possible under a registry: the registry could not "
                "be asked what holds at its end. Use the handle by itself.",
                field="registry",
            )
        if self._pipeline.routes is not None:
            raise RefusedError(
                "A handle inside the caller's own transaction is not possible with [tenants] routes: a switch could "
                "not wait for the end of the transaction. Use the handle by itself.",
                field="routes",
            )
        pipeline = self._pipeline if sink is None else self._pipeline.noting(sink)
        return type(self)(pipeline, self._store, driver, self._caller, Lifetime(self._life.open))

    def _again(self, given: T) -> T | _Again:
        """Return *given* in a form that can be iterated again, if the call may have to be made again."""
        return _Again(given) if self._pipeline.routes is not None and isinstance(given, Iterator) else given

    def _open(self) -> Store:
        if not self._life.open():
            raise ClosedError("This handle was closed. Get a new one with acl.scoped(principal).")
        return self._store()

    def _search(self, queries: Sequence[Query], **given: Any) -> tuple[Store, Flow[list[Result]]]:
        store = self._open()
        ask = arguments.check_ask(store, **given)
        return store, reads.search(self._pipeline, store, self._caller, queries, ask)

    def _fetch(self, ids: object, include: object) -> tuple[Store, Flow[list[Hit]]]:
        store = self._open()
        refs = arguments.check_refs(ids)
        return store, reads.fetch(self._pipeline, store, self._caller, refs, arguments.check_include(include))

    def _count(self, where: object) -> tuple[Store, Flow[int]]:
        store = self._open()
        return store, reads.count(self._pipeline, store, self._caller, arguments.check_where(store, where))

    def _facets(self, field: str, where: object, limit: int) -> tuple[Store, Flow[list[Facet]]]:
        store = self._open()
        kind = arguments.check_facet(store, field)
        checked = arguments.check_where(store, where)
        maximum = arguments.integer(limit, "limit", 1, MAX_FACETS)
        return store, facets.facets(self._pipeline, store, self._caller, field, kind, checked, maximum)

    def _page(self, where: object, size: int, after: str | None, include: object) -> tuple[Store, Flow[Page]]:
        store = self._open()
        checked = arguments.check_where(store, where)
        return store, paging.page(
            self._pipeline, store, self._caller, checked, size, after, arguments.check_include(include)
        )

    def _prepared(self, chunks: Iterable[Chunk]) -> tuple[Store, tuple[ValidatedChunk, ...]]:
        store = self._open()
        can = store.capabilities
        prepared = validate_chunks(
            chunks, store.fields, can.dimension, nonzero=can.metric == "cosine", limit=can.max_batch
        )
        if any(one.chunk.expires is not None for one in prepared):
            self._check_expiring(store)
        return store, prepared

    def _check_expiring(self, store: Store) -> None:
        """Refuse a time to live of a chunk where reads would not look at it. Raises: RefusedError."""
        if self._pipeline.registry is not None:
            raise RefusedError(
                "Under a registry a document expires as a whole: use replace(expires=…), or let a governor set it with "
                "retain.",
                field="expires",
            )
        if not store.expiring:
            raise RefusedError(
                f"Chunks of the store {store.name!r} cannot expire. Set expiring = true in [stores.{store.name}], in "
                "every process that reads it.",
                field="expires",
            )

    def _upsert(self, chunks: Iterable[Chunk], path: str = "upsert") -> tuple[Store, Flow[Written]]:
        store, prepared = self._prepared(chunks)
        path = self._path(path)
        if self._pipeline.registry is not None:
            return store, governed_writes.upsert(self._pipeline, store, self._caller, prepared, path)
        return store, writes.upsert(self._pipeline, store, self._caller, prepared, path)

    def _path(self, operation: str) -> str:
        """Return the path that chunks are tagged with: the operation, and the pipeline that the handle names."""
        source = self._caller.source
        return operation if source is None else f"{operation}:{source}"

    def _where(self) -> Any:
        """Return the driver's method that identifies a store. Raises: InvalidInputError if it has none."""
        method = getattr(self._driver, "identity_for_journal", None)
        if method is None:
            raise InvalidInputError(
                "load() inside your own transaction cannot keep a journal: its chunks may be rolled back. Omit resume.",
                field="resume",
            )
        return method

    def _embedder(self) -> str | None:
        return getattr(self._driver, "embedder_identity", None)

    def _look(self, chunks: Sequence[Chunk], journal: Journal) -> tuple[Store, Flow[bool]]:
        """Return whether the store holds *chunks* as a load wrote them; False also if the principal may not fetch."""
        store = self._open()

        def flow() -> Flow[bool]:
            for start in range(0, len(chunks), _LOOKED_AT):
                _, prepared = self._prepared(chunks[start : start + _LOOKED_AT])
                refs = tuple(ChunkRef(one.chunk.id, one.chunk.document) for one in prepared)
                has_vectors = any(one.vector is not None for one in prepared)
                include: Include = arguments.INCLUDE | {"vector"} if has_vectors else arguments.INCLUDE
                try:
                    hits = yield from reads.fetch(self._pipeline, store, self._caller, refs, include)
                except (DeniedError, UnsupportedPredicateError):
                    return False
                if not journal.fits(prepared, hits, self._caller.principal.tenant, store.capabilities):
                    return False
            return True

        return store, flow()

    def _replace(
        self, document: str, chunks: Iterable[Chunk], expires: float | None = None
    ) -> tuple[Store, Flow[Written]]:
        document = check_id(document, "document")
        store, prepared = self._prepared(chunks)
        until = check_expires(expires)
        if any(one.chunk.document != document for one in prepared):
            raise InvalidInputError(
                "replace() takes only chunks of the document that is its first argument.", field="document"
            )
        if self._pipeline.registry is not None:
            path = self._path("replace")
            return store, governed_writes.replace(
                self._pipeline, store, self._caller, document, prepared, path, NEVER_EXPIRES if until is None else until
            )
        if until is not None:
            self._check_expiring(store)
            prepared = tuple([until_at_most(one, until) for one in prepared])
        return store, writes.replace(self._pipeline, store, self._caller, document, prepared, self._path("replace"))

    def _update_metadata(self, document: str, changes: object) -> tuple[Store, Flow[Updated]]:
        store = self._open()
        document = check_id(document, "document")
        checked = metadata_updates.check_changes(store, changes)
        if self._pipeline.registry is not None:
            return store, governed_writes.update_metadata(self._pipeline, store, self._caller, document, checked)
        return store, metadata_updates.update_metadata(self._pipeline, store, self._caller, document, checked)

    def _delete(self, ids: Any, document: Any, where: Any) -> tuple[Store, Flow[Written]]:
        store = self._open()
        if sum(one is not UNSET for one in (ids, document, where)) != 1:
            raise InvalidInputError("delete() takes exactly one of ids=, document= and where=.", field="delete")
        refs: tuple[ChunkRef, ...] | None = None
        selected: Predicate | None = None
        if ids is not UNSET:
            refs = arguments.check_refs(ids)
        elif document is not UNSET:
            document = check_id(document, "document")
        else:
            selected = arguments.check_where(store, where)
        named = None if document is UNSET else document
        if self._pipeline.registry is not None:
            return store, governed_writes.delete(self._pipeline, store, self._caller, refs, named, selected)
        return store, writes.delete(self._pipeline, store, self._caller, refs, named, selected)
