"""The flows of upsert, replace and delete under a registry.

A write never touches a published generation. It takes a *ticket* for the next generation of each document, inserts the
chunks as `#staged` (a label that is allowed to no one), and *publishes* them in one transaction of the registry, which
looks for holds and for the right to write once more. A generation that a validator wants to be quarantined gets its
rule in the same transaction, so that no reader sees it in between. From then on readers see the new generation, by its
name in the filter, and not the old one; `reconcile` writes the label into the chunks and deletes what was superseded. A
writer that stops half-way leaves staged chunks, which no reader sees and `reconcile` removes.

An upsert, and a delete by ids or by a filter, copy the other chunks of the document into the new generation, with their
producer, path and time, so that a quarantine rule still finds what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from vectoracl.adapter_api.chunk_validation import ValidatedChunk, check_tagged, record_of
from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import MAX_FETCHED, ChunkRef, Fetch, Rows
from vectoracl.engine import governed_store as stored
from vectoracl.engine.closing import drop_marks, seal
from vectoracl.engine.core_ports import Sleep
from vectoracl.engine.drivers import confined
from vectoracl.engine.governed_reads import confirm_hits
from vectoracl.engine.label_writes import write_labels
from vectoracl.engine.metadata_updates import Changes, check_rows, moved
from vectoracl.engine.metadata_updates import run as run_update
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store, denied, retried
from vectoracl.engine.second_lock import verify
from vectoracl.engine.validating import validate_changes, validate_chunks_of
from vectoracl.engine.writes import embed_chunks, guarded, one_leg, operation_of
from vectoracl.errors import (
    DeniedError,
    InvalidInputError,
    RefusedError,
    StoppedTenantError,
    StoreError,
    VectorACLError,
)
from vectoracl.filters.predicate import ALWAYS, Eq, Predicate
from vectoracl.filters.semantics import compile_test
from vectoracl.model.actions import Action
from vectoracl.model.records import NEVER_EXPIRES, Chunk, Hit, Record, Tag, Updated, Written
from vectoracl.registry.requests import (
    Abandon,
    BeginErasing,
    CaptureDocuments,
    Clear,
    NoteErased,
    Publish,
    RegistryRequest,
    TakeTickets,
)
from vectoracl.registry.scopes import Quarantine
from vectoracl.registry.values import Pending, Ticket, busy

T = TypeVar("T")
TURNS = 9
"""How often a write asks for its turn at a document that another writer has; the pauses add up to about ten seconds."""


def upsert(
    pipeline: Pipeline, store: Store, caller: Caller, prepared: Sequence[ValidatedChunk], path: str
) -> Flow[Written]:
    """Write all chunks of *prepared* or none; chunks of their documents that are not among them stay."""

    def body(plan: Plan, decision_id: str) -> Flow[Written]:
        if not prepared:
            return Written(0, decision_id)
        write = _Write(store, caller, one_leg(plan, caller), "upsert", path, decision_id)
        vectors = yield from embed_chunks(store, prepared)
        write.held = yield from validate_chunks_of(pipeline, caller, operation_of(path), prepared, vectors, decision_id)
        documents = tuple(dict.fromkeys(one.chunk.document for one in prepared))
        yield from write.publish(documents, lambda ticket, old: write.merged(prepared, vectors, ticket, old))
        return Written(len(prepared), decision_id, tuple(write.held))

    return (yield from guarded(pipeline, store, caller, "upsert", body))


def replace(
    pipeline: Pipeline,
    store: Store,
    caller: Caller,
    document: str,
    prepared: Sequence[ValidatedChunk],
    path: str,
    expires: float,
) -> Flow[Written]:
    """Replace the whole content of *document* by *prepared*; nothing leaves a document without content.

    The document is invisible from *expires* on, or from an earlier time that it has already.
    """

    def body(plan: Plan, decision_id: str) -> Flow[Written]:
        write = _Write(store, caller, one_leg(plan, caller), "replace", path, decision_id, expires)
        vectors = yield from embed_chunks(store, prepared)
        write.held = yield from validate_chunks_of(
            pipeline, caller, operation_of(path), prepared, vectors, decision_id, document
        )
        yield from write.publish((document,), lambda ticket, old: write.replaced(prepared, vectors, ticket, old))
        return Written(len(prepared), decision_id, tuple(write.held))

    return (yield from guarded(pipeline, store, caller, "replace", body))


def delete(
    pipeline: Pipeline,
    store: Store,
    caller: Caller,
    refs: tuple[ChunkRef, ...] | None,
    document: str | None,
    where: Predicate | None,
) -> Flow[Written]:
    """Delete by the one selector that is not None."""

    def body(plan: Plan, decision_id: str) -> Flow[Written]:
        leg = one_leg(plan, caller)
        write = _Write(store, caller, leg, "delete", "delete", decision_id)
        if document is not None and leg.written is None:
            request = BeginErasing(caller.principal, leg.partition, (document,), caller.principal.id, "delete")
            chosen = yield from in_turn(request)
            yield from erase(store, leg.partition, chosen, decision_id)
            return Written(sum(one.chunks for one in chosen), decision_id)
        count = yield from write.delete_rows(plan, refs, document, where)
        return Written(count, decision_id)

    return (yield from guarded(pipeline, store, caller, "delete", body))


def update_metadata(pipeline: Pipeline, store: Store, caller: Caller, document: str, changes: Changes) -> Flow[Updated]:
    """Change the metadata of every chunk of *document*, in a new generation: readers see all of it changed or none."""

    def body(plan: Plan, decision_id: str) -> Flow[Updated]:
        write = _Write(store, caller, one_leg(plan, caller), "upsert", "upsert", decision_id)
        write.held = yield from validate_changes(pipeline, caller, document, changes.given, decision_id)
        return (yield from write.update_metadata(plan, document, changes))

    return (yield from run_update(pipeline, store, caller, body))


def in_turn(request: RegistryRequest[T]) -> Flow[T]:
    """Make *request*, and again while another writer has one of its documents."""
    for turn in range(TURNS):
        try:
            return (yield from request)
        except StoreError as error:
            if error.code != "conflict" or turn == TURNS - 1:
                raise
        yield Sleep(min(0.05 * 2**turn, 2.0))
    raise AssertionError("unreachable")


def erase(store: Store, partition: str, chosen: Sequence[Pending], decision_id: str) -> Flow[list[str]]:
    """Delete the chunks of documents that are *erasing*; return those of which nothing is left.

    Where reads may lag behind, that is known only `max_read_seconds` later: `reconcile` looks again.
    """
    done: list[str] = []
    for start in range(0, len(chosen), stored.ROUND):
        part = chosen[start : start + stored.ROUND]
        whole = [stored.generations_until(one.document, one.last_generation) for one in part]
        yield from stored.delete_generations(store, partition, whole)
        closing = yield from seal(store, partition, decision_id)
        gone = yield from stored.gone(store, partition, part, decision_id)
        if store.capabilities.visible == "eventual":  # a replica may not show yet what was written before
            gone = [one for one in gone if one.due]
        noted = (yield from NoteErased(partition, tuple(gone), closing)) if gone else None
        done += noted or []
        yield from drop_marks(store, partition, closing, closed=noted is not None)
    return done


def settle(store: Store, partition: str, documents: tuple[str, ...], decision_id: str) -> Flow[None]:
    """Write the labels of documents that were published for the first time, at once, so that the filter stays short.

    There is nothing to wait for. A reader that began before has none of their chunks in its scope; one that sees a part
    of them, between two labels, finds a document that has changed since, and reads again (`confirm_hits`). If it fails,
    or another process writes labels, `reconcile` does it.
    """
    captured = yield from CaptureDocuments(partition, documents)
    changed, busy = yield from write_labels(store, partition, captured)
    if busy or (store.capabilities.relabel == "transaction" and changed != sum(one.chunks for one in captured)):
        return
    closing = yield from seal(store, partition, decision_id)
    whole = yield from stored.census(store, partition, captured, decision_id)
    cleared = (yield from Clear(partition, tuple(whole), closing)) if whole else None
    yield from drop_marks(store, partition, closing, closed=cleared is not None)


class _Write:
    """One write of one principal into one partition."""

    def __init__(
        self,
        store: Store,
        caller: Caller,
        leg: Leg,
        action: Action,
        path: str,
        decision_id: str,
        until: float = NEVER_EXPIRES,
    ) -> None:
        self.held: Mapping[str, str] = {}  # documents to quarantine, with the reasons
        self._until = until
        self._store = store
        self._caller = caller
        self._leg = leg
        self._action = action
        self._path = path
        self._decision_id = decision_id

    @property
    def _partition(self) -> str:
        return self._leg.partition

    def publish(self, documents: tuple[str, ...], make: Callable[[Ticket, list[Hit]], list[Record]]) -> Flow[None]:
        """Write the next generation of each document, as *make* returns it from the rows of the published one."""
        principal = self._caller.principal
        tickets = yield from in_turn(TakeTickets(principal, self._partition, documents, rules=len(self.held)))
        if tickets is None:
            raise self._denied("a document's label may not be written, or the document is not registered")
        until = self._until
        copies = self._action != "replace"
        tickets = [one._replace(expires=min(one.expires, until), until=until, copies=copies) for one in tickets]
        try:
            yield from self._fill(tickets, make)
        except VectorACLError as error:
            with suppress(StoreError):  # the ticket ends by itself
                yield from Abandon(self._partition, tuple(tickets))
            if isinstance(error, StoreError) and error.code != "registry":
                error.undone = True  # what was written is staged: no reader sees it
                error.sent = "no"
            raise
        # Of a document that had content or a writer before, other chunks may be left, which `reconcile` looks for.
        first = tuple(one.document for one in tickets if one.base is None and one.generation == 0)
        if first and self._store.capabilities.visible == "immediate":
            with suppress(StoreError, StoppedTenantError):
                yield from settle(self._store, self._partition, first, self._decision_id)

    def _fill(self, tickets: Sequence[Ticket], make: Callable[[Ticket, list[Hit]], list[Record]]) -> Flow[None]:
        records: list[Record] = []
        generations: list[tuple[Ticket, int]] = []
        for ticket in tickets:
            old: list[Hit] = []
            if ticket.copies and ticket.quarantined:  # a copy has another generation, which the rule does not name
                raise RefusedError(
                    f"A quarantine rule names the present generation of the document {ticket.document!r}, and this "
                    "write would copy its chunks into another one. Replace the document as a whole.",
                    field="document",
                )
            if ticket.base is not None:
                old = yield from self._published(ticket, ticket.base)
            if self._action != "replace" and len(old) != ticket.chunks:  # else a loss would become official
                raise StoreError(
                    f"The store returned {len(old):,} of the {ticket.chunks:,} chunks of the document "
                    f"{ticket.document!r}, so nothing was written. Replace the document as a whole.",
                    code="incomplete",
                    sent="no",
                )
            made = make(ticket, old)
            records += made
            generations.append((ticket, len(made)))
        check_tagged(records, self._partition)
        yield from stored.write_generation(self._store, self._partition, records)
        rules = self._rules([ticket for ticket, _ in generations])
        published = yield from Publish(self._caller.principal, self._partition, tuple(generations), rules)
        if not published:
            raise busy(tickets[0].document)

    def _rules(self, tickets: Sequence[Ticket]) -> tuple[tuple[Quarantine, str], ...]:
        """Return the rules, with their reasons, that take the new generations out of retrieval."""
        held = [one for one in tickets if one.document in self.held]
        return tuple(
            (
                Quarantine(f"ingest:{self._decision_id}:{number}", document=one.document, generation=one.generation),
                self.held[one.document],
            )
            for number, one in enumerate(held, 1)
        )

    def _published(self, ticket: Ticket, generation: int) -> Flow[list[Hit]]:
        """Return the rows of the published generation; where reads may lag behind, asked for until it is whole."""
        lags = self._store.capabilities.visible == "eventual"
        for turn in range(TURNS if lags else 1):
            if turn:
                yield Sleep(min(0.05 * 2 ** (turn - 1), 2.0))
            hits = yield from stored.read_generation(
                self._store, self._partition, ticket.document, generation, self._decision_id
            )
            if len(hits) == ticket.chunks:
                break
        return hits

    def merged(
        self, prepared: Sequence[ValidatedChunk], vectors: Sequence[object], ticket: Ticket, old: list[Hit]
    ) -> list[Record]:
        """Return the published chunks of a document with the new ones in place of those that have their ids."""
        new = self._new(prepared, vectors, ticket)
        ids = {record.tag.chunk for record in new}
        self._check_rows(hit for hit in old if hit.id in ids)
        kept = [hit for hit in old if hit.id not in ids]
        return [*self.copied(kept, ticket), *new]

    def replaced(
        self, prepared: Sequence[ValidatedChunk], vectors: Sequence[object], ticket: Ticket, old: list[Hit]
    ) -> list[Record]:
        """Return the new content of a document, all of whose published chunks may be written."""
        self._check_rows(old)
        return self._new(prepared, vectors, ticket)

    def copied(self, hits: Iterable[Hit], ticket: Ticket) -> list[Record]:
        """Return published chunks in the new generation, with their other tags unchanged."""
        return [
            stored.record_of_hit(hit, stored.staged(hit.tag, ticket.generation)._replace(expires=ticket.expires))
            for hit in hits
        ]

    def _new(self, prepared: Sequence[ValidatedChunk], vectors: Sequence[object], ticket: Ticket) -> list[Record]:
        """Return the new chunks of one document: checked as they will be when they are published, then staged."""
        own = [
            (one, vector)
            for one, vector in zip(prepared, vectors, strict=True)
            if one.chunk.document == ticket.document
        ]
        producer = self._caller.principal.id

        def make_tag(chunk: Chunk) -> Tag:
            return Tag(
                self._partition,
                chunk.document,
                chunk.id,
                ticket.generation,
                ticket.label,
                0,
                ticket.expires,
                producer,
                self._path,
                ticket.time,  # the registry's, and the same for the whole call
                chunk.position,
            )

        records = record_of([one for one, _ in own], [vector for _, vector in own], make_tag)  # type: ignore[misc]  # a list of vectors, one a chunk
        test = self._leg.written
        if test is not None and not all(test(one.tag, one.metadata) for one in records):
            raise self._denied("a chunk is outside the scope in which this handle may write")
        return [record._replace(tag=stored.staged(record.tag, ticket.generation)) for record in records]

    def _check_rows(self, hits: Iterable[Hit]) -> None:
        test = self._leg.written
        if test is not None and not all(test(hit.tag, hit.metadata or {}) for hit in hits):
            raise self._denied("an existing chunk is outside the scope in which this handle may write")

    def _denied(self, reason: str) -> DeniedError:
        return denied(self._action, self._decision_id, (reason,))

    def delete_rows(
        self, plan: Plan, refs: tuple[ChunkRef, ...] | None, document: str | None, where: Predicate | None
    ) -> Flow[int]:
        """Delete rows that the scope permits: each document gets a generation without them."""
        chosen = _chooser(refs, document, where)
        hits = yield from self._matching(plan, refs, document, where)
        documents = tuple(dict.fromkeys(hit.document for hit in hits))
        count = 0

        def rest(ticket: Ticket, old: list[Hit]) -> list[Record]:
            nonlocal count
            test = self._leg.written
            out = [hit for hit in old if chosen(hit) and (test is None or test(hit.tag, hit.metadata or {}))]
            count += len(out)
            names = {hit.id for hit in out}
            return self.copied([hit for hit in old if hit.id not in names], ticket)

        for start in range(0, len(documents), stored.ROUND):
            done = count
            try:
                yield from self.publish(documents[start : start + stored.ROUND], rest)
            except VectorACLError as error:
                if done:
                    error.add_note(f"{done:,} chunks of other documents were deleted before.")
                    if isinstance(error, StoreError):
                        error.sent, error.undone = "unknown", False
                raise
        return count

    def update_metadata(self, plan: Plan, document: str, changes: Changes) -> Flow[Updated]:
        """Write the next generation of *document* with changed metadata, if this handle sees and may write it."""
        seen = yield from self._matching(plan, None, document, None)
        if not seen:
            return Updated(0, atomic=True, decision_id=self._decision_id)
        generation, count = seen[0].tag.generation, 0

        def changed(ticket: Ticket, old: list[Hit]) -> list[Record]:
            nonlocal count
            if ticket.base != generation:
                raise moved(document)
            if not check_rows(self._leg.written, self._store, old, changes, self._decision_id):
                raise self._denied("an existing chunk is outside the scope in which this handle may write")
            count = len(old)
            records = self.copied(old, ticket)
            return [one._replace(metadata=changes.applied(one.metadata, self._store)) for one in records]

        yield from self.publish((document,), changed)
        return Updated(count, atomic=True, decision_id=self._decision_id, quarantined=bool(self.held))

    def _matching(
        self, plan: Plan, refs: tuple[ChunkRef, ...] | None, document: str | None, where: Predicate | None
    ) -> Flow[list[Hit]]:
        leg, store = self._leg, self._store
        if refs is not None:
            if not refs:
                return []
            operation = Fetch(leg.partition, leg.predicate, refs, frozenset())
            rows: Rows = yield from retried(lambda: confined(store.adapter.fetch(operation), leg.partition))
            if len(rows.hits) > MAX_FETCHED:
                raise InvalidInputError(
                    f"The ids match more than {MAX_FETCHED:,} chunks; pass (document, chunk id) pairs.", field="ids"
                )
            hits: list[Hit] = list(rows.hits)
            verify(hits, leg.partition, None, adapter=store.adapter_name, decision_id=self._decision_id)
        else:
            selector = compile_where(document, where)
            hits = yield from stored.scan_all(
                store, leg.partition, leg.predicate, selector, frozenset(), self._decision_id
            )
        yield from confirm_hits(plan, store, hits, self._decision_id)
        return hits


def compile_where(document: str | None, where: Predicate | None) -> Predicate:
    """Return the selector of a delete by document or by a filter as a predicate."""
    if document is not None:
        return Eq("@document", document)
    if where is None:
        raise RefusedError("A delete requires a selector.")
    return where


def _chooser(refs: tuple[ChunkRef, ...] | None, document: str | None, where: Predicate | None) -> Callable[[Hit], bool]:
    if refs is not None:
        named = frozenset(refs)
        return lambda hit: ChunkRef(hit.id) in named or ChunkRef(hit.id, hit.document) in named
    selector = compile_where(document, where)
    if selector == ALWAYS:
        return lambda _: True
    test = compile_test(selector)
    return lambda hit: test(hit.tag, hit.metadata or {})
