"""The flows of a governor: each change is one transaction of the registry; the work on the store follows it.

A change is in force when its transaction has ended: at the next query of every process, without a write to any chunk.
`reconcile` then writes labels into the chunks and empties the overlay. It changes no answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Count, Search
from vectoracl.engine import governed_store as stored
from vectoracl.engine.closing import drop_marks, seal
from vectoracl.engine.drivers import confined
from vectoracl.engine.governed_writes import erase, in_turn
from vectoracl.engine.label_writes import write_labels
from vectoracl.engine.operator_flows import recorded, too_many_expired
from vectoracl.engine.pipeline import Pipeline, Store, check_supported, retried
from vectoracl.engine.second_lock import counted, verify
from vectoracl.errors import RefusedError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, Eq, F
from vectoracl.model.actions import GovernAction
from vectoracl.model.principal import Principal
from vectoracl.model.queries import VectorQuery
from vectoracl.registry.requests import (
    BeginErasing,
    CapturePending,
    Clear,
    FindExpired,
    Govern,
    ProbeVersions,
)
from vectoracl.registry.scopes import Quarantine
from vectoracl.registry.settings import subjects_of
from vectoracl.registry.values import Place

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Governor:
    """Who governs which tenant, and whether the operator's own door was used, which no configuration closes."""

    principal: Principal
    operator: bool = False


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The result of `reconcile`.

    Attributes:
        written: The documents whose chunks now carry what the registry says.
        erased: The documents whose deletion was completed.
        left: The number of documents that are still in the overlay.
        wait: The seconds until more of them may be written; 0 if none waits.
        incomplete: Documents whose stored chunks are not those that the registry counts: they stay in the overlay.
    """

    written: tuple[str, ...] = ()
    erased: tuple[str, ...] = ()
    left: int = 0
    wait: float = 0.0
    incomplete: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Receipt:
    """The result of an erasure, with the places that it has looked at.

    Attributes:
        tenant: The tenant.
        documents: The documents of which nothing was found afterwards.
        left: Documents of which chunks are still there, or that were written in the meantime; repeat the erasure.
        time: The registry's time after it.
        looked_at: The places that were scanned.
        shared: With `erase_producer`, documents that others have written too: nothing of them was erased.
        signed: The receipt as JSON in canonical form, with a signature where a key is configured: a file to keep.
            Empty without the extra `receipts`.
    """

    tenant: str
    documents: tuple[str, ...]
    left: tuple[str, ...]
    time: float
    looked_at: tuple[str, ...]
    shared: tuple[str, ...] = ()
    signed: bytes = b""


def refusals(pipeline: Pipeline, governor: Governor, action: GovernAction) -> tuple[str, ...]:
    """Return the reasons why *governor* may not do *action*; no one governs unless the configuration names them."""
    settings = pipeline.registry
    if settings is None:
        raise RefusedError(
            "There is no [registry] in the configuration, so there is nothing to govern. Add it and "
            "run `vectoracl provision` (docs/governance.md)."
        )
    if governor.operator:
        return ()
    if action == "family":
        return ("only an operator connects two tenants (hazmat.govern)",)  # a child's governor is not its parent's
    if governor.principal.expired(pipeline.now()[0]):
        return ("the principal has expired",)
    if settings.governors.isdisjoint(subjects_of(governor.principal)[1:]):
        return ("no one governs unless [registry] governors names them",)
    return ()


def check_quarantine(store: Store, rule: Quarantine) -> None:
    """Refuse a rule without an exact form in *store*: in force, it would refuse every call of the tenant.

    Raises: UnsupportedPredicateError.
    """
    try:
        check_supported(rule.predicate(), store.capabilities)
    except UnsupportedPredicateError:
        refused = UnsupportedPredicateError(
            f"The store {store.name!r} has no filter for an operation of every pipeline. Name a pipeline as the "
            "source, or quarantine by producer, document or time of writing.",
            field="source",
        )
    else:
        return
    raise refused


def governed(
    pipeline: Pipeline,
    store: Store,
    governor: Governor,
    action: GovernAction,
    reason: str,
    body: Callable[[str], Flow[T]],
    *,
    size: Callable[[T], int | None] = lambda _: None,
) -> Flow[T]:
    """Decide and record *action*, then run *body*. Raises: DeniedError for whoever is not a governor."""
    denial = refusals(pipeline, governor, action)
    return recorded(
        pipeline,
        store,
        action,
        reason,
        [governor.principal.tenant],
        body,
        size=size,
        door="govern",
        principal=governor.principal,
        denial=denial,
    )


def change(
    pipeline: Pipeline, store: Store, governor: Governor, action: GovernAction, reason: str, request: Govern
) -> Flow[Any]:
    """Make one change, or one look, in the registry."""

    def body(_: str) -> Flow[Any]:
        return (yield from request)

    return governed(
        pipeline, store, governor, action, reason, body, size=lambda found: len(found) if _sized(found) else None
    )


def _sized(found: object) -> bool:
    return isinstance(found, list | tuple)


def reconcile(
    pipeline: Pipeline, store: Store, governor: Governor, reason: str, after: Place | None = None
) -> Flow[tuple[Reconciled, Place | None]]:
    """Write one round of changed documents to the store, as one recorded call with the store's time limit.

    Returns what was done, and the place *after* which the next round goes on; None at the end of the overlay.
    """
    tenant = governor.principal.tenant

    def body(decision_id: str) -> Flow[tuple[Reconciled, Place | None]]:
        return (yield from reconcile_round(store, tenant, decision_id, after))

    return governed(pipeline, store, governor, "reconcile", reason, body, size=lambda done: len(done[0].written))


class Rounds:
    """The rounds of one `reconcile`: when it goes on, waits or ends.

    A pass goes once through the overlay, so that documents which cannot be finished do not keep others from it. Another
    pass follows while the last one has finished something, or something may be written after a wait.
    """

    def __init__(self, limit: int, patience: float, progress: Callable[[int], None] | None) -> None:
        self.total = Reconciled()
        self._limit = limit
        self._patience = patience
        self._progress = progress
        self._before = 0
        self._incomplete: tuple[str, ...] = ()
        self.place: Place | None = None

    def after(self, done: tuple[Reconciled, Place | None]) -> float | None:
        """Add the result of a round; return the seconds to wait before the next one, or None at the end."""
        one, self.place = done
        self._incomplete += one.incomplete
        self.total = Reconciled(
            self.total.written + one.written, self.total.erased + one.erased, one.left, one.wait, self._incomplete
        )
        finished = len(self.total.written) + len(self.total.erased)
        if self._progress is not None:
            self._progress(finished)
        if finished >= self._limit:
            return None
        return 0.0 if self.place is not None else self._next_pass(one, finished)

    def _next_pass(self, one: Reconciled, finished: int) -> float | None:
        advanced, self._before = finished > self._before, finished
        if one.left and advanced:
            wait = 0.0
        elif one.left and 0 < one.wait <= self._patience:
            wait = one.wait
        else:
            return None
        self._patience -= wait
        self._incomplete = ()
        return wait


def reconcile_round(
    store: Store, tenant: str, decision_id: str, after: Place | None = None
) -> Flow[tuple[Reconciled, Place | None]]:
    """Write one round of changed documents to the store: delete what was superseded, re-label, count, clear.

    The row goes only if the document's rev is what it was when it was captured: a change in the meantime keeps it.
    """
    pending, wait, last = yield from CapturePending(tenant, stored.ROUND, after)
    live = [one for one in pending if one.state == "live"]
    erasing = [one for one in pending if one.state == "erasing"]
    gone = (yield from erase(store, tenant, erasing, decision_id)) if erasing else []
    written: list[str] = []
    incomplete: tuple[str, ...] = ()
    if live:
        rest = [part for part in map(stored.superseded, live) if part is not None]
        if rest:
            yield from stored.delete_generations(store, tenant, rest)
        _, busy = yield from write_labels(store, tenant, live)
        wait = max(wait, busy)
        if not busy:
            closing = yield from seal(store, tenant, decision_id)
            whole = yield from stored.census(store, tenant, live, decision_id)
            names = {one.document for one in whole}
            incomplete = tuple(one.document for one in live if one.due and one.document not in names)
            cleared = (yield from Clear(tenant, tuple(whole), closing)) if whole else None
            written = cleared or []
            yield from drop_marks(store, tenant, closing, closed=cleared is not None)
    left = yield from Govern("overlay_size", (tenant,))
    return Reconciled(tuple(written), tuple(gone), left, wait, incomplete), last


def erase_documents(
    pipeline: Pipeline,
    store: Store,
    governor: Governor,
    action: GovernAction,
    reason: str,
    documents: Sequence[str],
    generations: Mapping[str, int] | None = None,
) -> Flow[Receipt]:
    """Delete *documents*, one part of an erasure, and look for what is left.

    A held one stops the whole part; a sweep leaves it out. With *generations*, a document is deleted only while its
    published generation is that one.
    """
    tenant = governor.principal.tenant

    def body(decision_id: str) -> Flow[Receipt]:
        by, swept = governor.principal.id, action == "sweep"  # what was extended or held since it was found is kept
        only = None if generations is None else tuple(generations.items())
        request = BeginErasing(None, tenant, tuple(documents), by, reason, only_expired=swept, generations=only)
        chosen = yield from in_turn(request)
        gone = (yield from erase(store, tenant, chosen, decision_id)) if chosen else []
        found = yield from looked_for(store, tenant, gone, decision_id)
        now = (yield from ProbeVersions((tenant,))).now
        erased = tuple(one for one in gone if one not in found)
        moved = () if only is None else tuple(one for one in documents if one not in {name.document for name in chosen})
        left = tuple(one.document for one in chosen if one.document not in erased)
        return Receipt(tenant, erased, (*left, *moved), now, looked_at(store))

    return governed(pipeline, store, governor, action, reason, body, size=lambda receipt: len(receipt.documents))


def looked_for(store: Store, tenant: str, documents: Sequence[str], decision_id: str) -> Flow[frozenset[str]]:
    """Look for chunks of *documents* by the store's other ways: its ranking by vectors, and its count."""
    if not documents:
        return frozenset()
    where = F["@document"].in_(sorted(documents))
    vector = np.zeros(store.capabilities.dimension, np.float32)
    vector[0] = 1.0
    search = Search(tenant, ALWAYS, where, VectorQuery(vector), 100, frozenset(), exact=store.capabilities.exact)
    hits = (yield from retried(lambda: confined(store.adapter.search(search), tenant))).hits
    verify(hits, tenant, None, adapter=store.adapter_name, decision_id=decision_id)
    if hits:
        return frozenset(hit.document for hit in hits)
    if store.capabilities.count == "none":
        return frozenset()
    number = yield from retried(lambda: confined(store.adapter.count(Count(tenant, ALWAYS, where)), tenant))
    return frozenset(documents) if counted(number, store.adapter_name) else frozenset()


def looked_at(store: Store) -> tuple[str, ...]:
    """Return the places in which an erasure looks for what is left."""
    counts = () if store.capabilities.count == "none" else (f"{store.name}: the count of their chunks",)
    return (
        f"{store.name}: a scan of their chunks, of every version",
        f"{store.name}: the ranking by vectors",
        *counts,
        "the registry: the documents are noted as erased",
    )


NOT_LOOKED_AT = (
    "backups and snapshots",
    "audit records, the registry's history and its journal, which name documents and hold no content",
    "journals of loads, checkpoints of copies and files of the application",
)


def find_of_producer(
    pipeline: Pipeline, store: Store, governor: Governor, reason: str, producer: str
) -> Flow[tuple[Mapping[str, int], tuple[str, ...]]]:
    """Return the documents that *producer* alone has written, with their generations, and those of others too."""
    tenant = governor.principal.tenant

    def body(decision_id: str) -> Flow[tuple[Mapping[str, int], tuple[str, ...]]]:
        where = Eq("@producer", producer)
        hits = yield from stored.scan_all(store, tenant, ALWAYS, where, frozenset(), decision_id)
        names = sorted({hit.document for hit in hits})
        alone: dict[str, int] = {}
        shared: list[str] = []
        for start in range(0, len(names), stored.ROUND):
            part = names[start : start + stored.ROUND]
            published = yield from Govern("published", (tenant, tuple(part)))
            chosen = F["@document"].in_(part)
            chunks = yield from stored.scan_all(store, tenant, ALWAYS, chosen, frozenset(), decision_id)
            for name in part:
                generation = published.get(name)
                writers = {
                    hit.tag.producer for hit in chunks if (hit.document, hit.tag.generation) == (name, generation)
                }
                if writers == {producer}:
                    alone[name] = generation
                elif producer in writers:
                    shared.append(name)
        return alone, tuple(shared)

    return governed(pipeline, store, governor, "erase", reason, body, size=lambda found: len(found[0]))


def joined(receipts: Sequence[Receipt], tenant: str, store: Store, shared: tuple[str, ...] = ()) -> Receipt:
    """Return several receipts of one erasure as one."""
    return Receipt(
        tenant,
        tuple(one for receipt in receipts for one in receipt.documents),
        tuple(one for receipt in receipts for one in receipt.left),
        max((receipt.time for receipt in receipts), default=0.0),
        looked_at(store),
        shared,
    )


def content_of(receipt: Receipt, store: Store, by: str, reason: str) -> dict[str, Any]:
    """Return what the file of a receipt says."""
    return {
        "tenant": receipt.tenant,
        "store": store.name,
        "adapter": store.adapter_name,
        "by": by,
        "reason": reason,
        "time": receipt.time,
        "erased": list(receipt.documents),
        "left": list(receipt.left),
        "shared": list(receipt.shared),
        "looked_at": list(receipt.looked_at),
        "not_looked_at": list(NOT_LOOKED_AT),
    }


def find_expired(
    pipeline: Pipeline, store: Store, governor: Governor, reason: str, limit: int, largest_share: float
) -> Flow[Sequence[str]]:
    """Return what `sweep` erases; recorded like the erasure."""

    def body(_: str) -> Flow[Sequence[str]]:
        return (yield from expired_documents(governor.principal.tenant, limit, largest_share))

    return governed(pipeline, store, governor, "sweep", reason, body, size=len)


def expired_documents(tenant: str, limit: int, largest_share: float) -> Flow[Sequence[str]]:
    """Return the documents whose time has passed, unless they are more than a share that no retention explains.

    A clock that jumped ahead must not erase a tenant.
    """
    names, number, total = yield from FindExpired(tenant, limit)
    if number > max(1.0, largest_share * total):
        raise too_many_expired("documents", number, total, largest_share)
    return names
