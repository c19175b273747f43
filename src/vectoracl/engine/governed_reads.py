"""The second lock in its registry form: after an answer, the registry is asked what holds now.

The filter that the store applied was right when its scope was taken. In the meantime a document may have been held or
moved, a label narrowed, a generation published; and a store that was restored, or a request that arrived late, may
have left chunks that contradict the registry. So each hit is permitted by the registry's row of its document, as it is
now, and never by the label that the chunk carries. An answer that was overtaken is dropped and the call runs again with
a new scope; this is not a `ScopeViolationError`, since the store did what it was asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import Include
from vectoracl.engine.closing import check_restored
from vectoracl.engine.governed_store import scan_all
from vectoracl.engine.pipeline import Governance, Leg, Plan, StaleScopeError, Store
from vectoracl.engine.second_lock import verify
from vectoracl.filters.predicate import Predicate
from vectoracl.model.records import Hit
from vectoracl.registry.requests import Confirm
from vectoracl.registry.scopes import DocumentState, GovernedScope

MARK_SECONDS = 60.0
"""How often reads of a process look whether a store was restored."""


def confirm_hits(plan: Plan, store: Store, hits: Sequence[Hit], decision_id: str) -> Flow[None]:
    """Check *hits* against the registry as it is now.

    Raises: StaleScopeError; with the documents that the store shows although nothing has changed since.
    StoppedTenantError for a store that was restored, which is looked for once a minute: no hit rests on it.
    """
    part = plan.governance
    if part is None:
        return
    elapsed = part.monotonic() - part.probed
    documents = tuple(sorted({(hit.tenant, hit.document) for hit in hits}))
    answer = yield from Confirm(part.asked, part.scope, documents)
    if answer.fresh is not None and elapsed > part.settings.max_read_seconds:
        raise StaleScopeError  # `reconcile` may have moved chunks away from under this read
    partitions = (answer.fresh or part.scope).partitions
    wrong = set()
    for hit in hits:
        scope = partitions.get(hit.tenant)
        key = (hit.tenant, hit.document)
        state = answer.documents.get(key)
        if scope is None or not scope.permits(hit.tag, state):
            wrong.add(key)
        elif answer.fresh is not None and changed_since(part.scope, hit.tenant, state):
            raise StaleScopeError  # its chunks may have been on their way from one label to another
    if wrong:
        raise StaleScopeError(() if answer.fresh is not None else tuple(sorted(wrong)))
    for leg in plan.legs:
        last = part.compared.get((store.name, leg.partition))
        if last is None or not 0 <= part.monotonic() - last < MARK_SECONDS:
            yield from _check(part, store, leg.partition, decision_id)


def _check(part: Governance, store: Store, partition: str, decision_id: str) -> Flow[None]:
    yield from check_restored(store, partition, decision_id)
    part.compared[store.name, partition] = part.monotonic()


def by_rows(plan: Plan, store: Store) -> bool:
    """Return whether numbers under this plan are counted here, row by row, and never taken from the store.

    Its filter alone is not enough: it is evaluated at several moments, or by a replica that lags behind.
    """
    return plan.governance is not None and store.capabilities.governed_numbers == "rows"


def confirmed_rows(
    plan: Plan, leg: Leg, store: Store, where: Predicate, include: Include, decision_id: str
) -> Flow[list[Hit]]:
    """Return the rows of *leg* that match, each permitted by the registry's row of its document as it is now.

    Raises: StaleScopeError.
    """
    more: Include = include | {"metadata"} if leg.needs_metadata else include
    hits = yield from scan_all(store, leg.partition, leg.predicate, where, more, decision_id)
    test, needs = leg.test, leg.needs_metadata
    verify(hits, leg.partition, test, needs_metadata=needs, adapter=store.adapter_name, decision_id=decision_id)
    yield from confirm_hits(plan, store, hits, decision_id)
    return hits


def changed_since(scope: GovernedScope, tenant: str, state: DocumentState | None) -> bool:
    """Return whether the document was changed or published after *scope* was taken."""
    taken = scope.partitions.get(tenant)
    return taken is None or state is None or state.rev > taken.version


def confirm_unchanged(plan: Plan, store: Store, decision_id: str) -> Flow[None]:
    """Check an answer without hits: it counts only if nothing has changed since its scope was taken.

    It rests on what the chunks carry, so the store is asked each time whether it was restored.
    Raises: StaleScopeError, StoppedTenantError.
    """
    part = plan.governance
    if part is None:
        return
    answer = yield from Confirm(part.asked, part.scope, ())
    if answer.fresh is not None:
        raise StaleScopeError
    for leg in plan.legs:
        yield from _check(part, store, leg.partition, decision_id)
