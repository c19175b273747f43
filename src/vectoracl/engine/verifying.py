"""`registry verify`: a store and its registry are brought together after one of them was restored.

The tenant is stopped while it runs. Four rounds go over the store, each in parts that can be repeated:

1. every registered document: chunks of other generations are deleted, and what the rest carries is written again where
   it contradicts the registry, with a new `rev`, so that requests from before the restore come too late;
2. every chunk: those of documents that the registry does not know are deleted;
3. after the mark of the end was inserted, both once more without changing anything: a store that is restored while this
   runs is noticed;
4. the tenant goes on.

If it stops half-way the tenant stays stopped, and it is run again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any, NamedTuple

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Position, Rows, Scan
from vectoracl.engine import governed_store as stored
from vectoracl.engine.closing import has_marks, insert_mark, see_marks
from vectoracl.engine.drivers import confined
from vectoracl.engine.label_writes import write_labels
from vectoracl.engine.pipeline import Store, retried
from vectoracl.engine.second_lock import verify
from vectoracl.errors import StoreError
from vectoracl.filters.predicate import ALWAYS, F
from vectoracl.model.records import Hit, docgen
from vectoracl.registry.requests import (
    BeginVerify,
    EndVerify,
    Restamp,
    Restamped,
    VerifyKnown,
    VerifyMarks,
    VerifyPage,
)
from vectoracl.registry.restores import MARK_DOCUMENT, Verified
from vectoracl.registry.values import Expected


class Part(NamedTuple):
    """The result of one part over documents; `after` is the last of them, None at the end."""

    after: str | None
    documents: int = 0
    corrected: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()


class Walked(NamedTuple):
    """The result of one page of chunks; `after` is where the next one begins, None at the end."""

    after: Position | None
    deleted: tuple[str, ...] = ()


def begin(store: Store, decision_id: str, *, tenant: str, token: str, accepted: bool) -> Flow[int]:
    """Stop *tenant*; returns the number of changes taken from the journal. Raises: RefusedError."""
    seen = yield from see_marks(store, tenant, decision_id)
    return (yield from BeginVerify(tenant, token, seen.newest, accepted))


def correct_documents(store: Store, decision_id: str, *, tenant: str, token: str, after: str) -> Flow[Part]:
    """Correct the chunks of the next documents."""
    page = yield from VerifyPage(tenant, after, stored.ROUND)
    if not page:
        return Part(None)
    chunks = yield from _chunks_of(store, tenant, page, decision_id)
    plans = [_Plan(one, chunks.get(one.document.document, [])) for one in page]
    wrong = [one for one in plans if one.contradicts]
    if not wrong:
        return Part(page[-1].document.document, len(page))
    live = tuple(one.name for one in wrong if one.live)
    gone = tuple(one.name for one in wrong if not one.live)
    captured = yield from Restamp(tenant, token, live, gone)
    keys = sorted({key for one in wrong for key in one.superfluous})
    if keys:
        yield from stored.delete_generations(store, tenant, [F["@docgen"].in_(keys)])
    again = [one for one in captured if one.document in live]
    _, busy = yield from write_labels(store, tenant, again)
    if busy:
        raise StoreError(
            f"Another process was writing labels of the tenant {tenant!r}; its requests may be under way for another "
            f"{busy:.0f} s. The tenant stays stopped; run `vectoracl registry verify` again then.",
            code="conflict",
            sent="no",
            retryable=True,
        )
    whole = yield from stored.census(store, tenant, again, decision_id)
    erased = [one for one in captured if one.document in gone]
    empty = (yield from stored.gone(store, tenant, erased, decision_id)) if erased else []
    yield from Restamped(tenant, token, (*whole, *empty))
    names = {one.document for one in whole}
    return Part(
        page[-1].document.document,
        len(page),
        tuple(one for one in live if one in names),
        tuple(one.name for one in wrong if one.superfluous),
        tuple(one for one in live if one not in names),
    )


class _Plan:
    """The work on one document: its chunks are compared with what the registry says."""

    def __init__(self, expected: Expected, hits: Sequence[Hit]) -> None:
        self.name = expected.document.document
        document = expected.document
        self.live = document.state == "live"
        published = [hit for hit in hits if self.live and hit.tag.generation == document.generation]
        others = {hit.tag.generation for hit in hits} - {hit.tag.generation for hit in published}
        number = document.chunks if document.generation is not None and self.live else 0
        missing = len(published) != number
        # A held document that has lost its published chunks keeps what is left of it: a hold blocks every deletion.
        keeps = expected.held and missing
        self.superfluous = frozenset() if keeps else frozenset(docgen(self.name, one) for one in others)
        carried = {(hit.tag.label, hit.tag.expires, hit.tag.rev) for hit in published}
        differs = not carried <= {(document.label, document.expires, document.rev)}
        self.contradicts = bool(others) or missing or differs


def _chunks_of(store: Store, tenant: str, page: Sequence[Expected], decision_id: str) -> Flow[dict[str, list[Hit]]]:
    where = F["@document"].in_([one.document.document for one in page])
    hits = yield from stored.scan_all(store, tenant, ALWAYS, where, frozenset(), decision_id)
    found: dict[str, list[Hit]] = {}
    for hit in hits:
        found.setdefault(hit.document, []).append(hit)
    return found


def walk(store: Store, decision_id: str, *, tenant: str, after: Position | None, correct: bool) -> Flow[Walked]:
    """Look at the next page of chunks for documents that are not registered; delete them, or (not *correct*) refuse."""
    operation = Scan(tenant, ALWAYS, ALWAYS, stored.PAGE, after, frozenset())
    rows: Rows = yield from retried(lambda: confined(store.adapter.scan(operation), tenant))
    verify(rows.hits, tenant, None, adapter=store.adapter_name, decision_id=decision_id)
    names = {hit.document for hit in rows.hits} - {MARK_DOCUMENT}
    known = (yield from VerifyKnown(tenant, tuple(sorted(names)))) if names else frozenset()
    unknown = names - known
    if unknown and not correct:
        raise changed_again()
    if unknown:
        keys = sorted({hit.tag.docgen for hit in rows.hits if hit.document in unknown})
        yield from stored.delete_generations(store, tenant, [F["@docgen"].in_(keys)])
    last = rows.hits[-1] if rows.hits and rows.more else None
    position = None if last is None else Position(last.document, last.tag.generation, last.id)
    return Walked(position, tuple(sorted(unknown)))


def compare_documents(store: Store, decision_id: str, *, tenant: str, after: str) -> Flow[Part]:
    """Compare the chunks of the next documents, without changing them. Raises: StoreError where one contradicts."""
    page = yield from VerifyPage(tenant, after, stored.ROUND)
    if not page:
        return Part(None)
    chunks = yield from _chunks_of(store, tenant, page, decision_id)
    for one in page:
        if not one.changed and _Plan(one, chunks.get(one.document.document, [])).contradicts:
            raise changed_again()
    return Part(page[-1].document.document, len(page))


def changed_again() -> StoreError:
    """Return the error of a store that changes although nothing may write to it."""
    return StoreError(
        "The store has changed while it was verified: perhaps it was restored once more. The tenant stays stopped; run "
        "`vectoracl registry verify` again.",
        code="rights_changed",
        sent="no",
        retryable=True,
    )


def insert_last_mark(store: Store, _decision_id: str, *, tenant: str, token: str) -> Flow[tuple[str, int]]:
    """Insert the mark that stands for everything that was written; returns its name and version."""
    drawn = yield from VerifyMarks(tenant, token)
    if not has_marks(store):
        return "", drawn.version
    name = yield from insert_mark(store, tenant, drawn)
    return name, drawn.version


def end(store: Store, decision_id: str, *, tenant: str, token: str, mark: tuple[str, int]) -> Flow[None]:
    """Let *tenant* go on, if its store has the mark. Raises: StoreError."""
    if has_marks(store):
        seen = yield from see_marks(store, tenant, decision_id)
        if mark[0] not in seen.names:
            raise changed_again()
    yield from EndVerify(tenant, token, store.name, *mark)


Step = Callable[[Store, str], Flow[Any]]


class Verification:
    """The steps of one verification, one after the other: `step` returns the next one and `take` gets its result."""

    def __init__(self, tenant: str, *, accepted: bool, progress: Callable[[int], None] | None = None) -> None:
        self._tenant = tenant
        self._progress = progress
        self._steps = self._order(os.urandom(16).hex(), accepted=accepted)
        self._next: Step | None = next(self._steps)
        self.result = Verified(tenant, 0, 0, (), (), ())

    def step(self) -> Step | None:
        """Return the next step, which takes a store and the id of its decision; None at the end."""
        return self._next

    def take(self, result: Any) -> None:
        """Take the result of the step."""
        try:
            self._next = self._steps.send(result)
        except StopIteration:
            self._next = None

    def _order(self, token: str, *, accepted: bool) -> Generator[Step, Any, None]:
        tenant = self._tenant
        replayed: int = yield partial(begin, tenant=tenant, token=token, accepted=accepted)
        self.result = self.result._replace(replayed=replayed)
        after: str | None = ""
        while after is not None:
            part: Part = yield partial(correct_documents, tenant=tenant, token=token, after=after)
            self._add(part)
            after = part.after
        yield from self._pages(correct=True)
        mark: tuple[str, int] = yield partial(insert_last_mark, tenant=tenant, token=token)
        after = ""
        while after is not None:
            part = yield partial(compare_documents, tenant=tenant, after=after)
            after = part.after
        yield from self._pages(correct=False)
        yield partial(end, tenant=tenant, token=token, mark=mark)

    def _pages(self, *, correct: bool) -> Generator[Step, Any, None]:
        position: Position | None = None
        while True:
            page: Walked = yield partial(walk, tenant=self._tenant, after=position, correct=correct)
            deleted = dict.fromkeys((*self.result.deleted, *page.deleted))
            self.result = self.result._replace(deleted=tuple(deleted))
            if page.after is None:
                return
            position = page.after

    def _add(self, part: Part) -> None:
        one = self.result
        self.result = one._replace(
            documents=one.documents + part.documents,
            corrected=one.corrected + part.corrected,
            deleted=one.deleted + part.deleted,
            incomplete=one.incomplete + part.incomplete,
        )
        if self._progress is not None:
            self._progress(self.result.documents)
