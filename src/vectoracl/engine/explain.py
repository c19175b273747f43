"""The explanation of a decision: what a principal may see, and why."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vectoracl.adapter_api.contract import Flow
from vectoracl.engine import reads
from vectoracl.engine.drivers import confined
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store
from vectoracl.errors import DeniedError, UnsupportedPredicateError
from vectoracl.filters.predicate import ALWAYS, F, Predicate, conjunction
from vectoracl.filters.validation import check_scope_predicate
from vectoracl.model.actions import READ, Action
from vectoracl.model.identifiers import check_id


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and the chunks that it makes visible.

    Attributes:
        permit: Whether the policy permits the action.
        reasons: The policy's reasons.
        policy_version: The version of the policy; None if it has none.
        grants: (partition, filter in JSON form) pairs.
        visible: The number of chunks in the scope; None where nothing was counted (a denial, or a write).
        document: The document that was asked about.
        document_visible: The number of visible chunks of that document; None where nothing was counted.
        ranking: (partition, how a search by vector ranks its visible chunks and why), where the adapter can tell.
        words: (partition, how a search by words ranks its visible chunks and why), where the adapter can tell.
        labels: (partition, the labels that the registry permits there); empty without a registry.
    """

    permit: bool
    reasons: tuple[str, ...]
    policy_version: str | None
    grants: tuple[tuple[str, dict[str, Any]], ...]
    visible: int | None = None
    document: str | None = None
    document_visible: int | None = None
    ranking: tuple[tuple[str, str], ...] = ()
    words: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def summary(self) -> str:
        """Return the explanation as a sentence or two."""
        why = "; ".join(self.reasons)
        if not self.permit:
            return f"Denied: {why}."
        if not self.grants:
            return f"Permitted, but the scope is empty ({why}): every read returns nothing, and nothing is sent."
        where = ", ".join(repr(partition) for partition, _ in self.grants)
        text = f"Permitted ({why}): the scope covers {where}"
        if self.visible is not None:
            text += f" and holds {self.visible:,} chunks"
        text += "."
        if self.visible == 0:
            text += (
                " Nothing was written there yet, or it was written under another tenant id: ids are compared exactly."
            )
        if self.document is not None and self.document_visible is not None:
            if self.document_visible:
                text += f" The document {self.document!r} has {self.document_visible:,} visible chunks."
            else:
                text += f" The document {self.document!r} is not in the scope. It may or may not exist elsewhere."
        text += "".join(f" A search by vector ranks {partition!r} {how}." for partition, how in self.ranking)
        return text + "".join(f" A search by words ranks {partition!r} {how}." for partition, how in self.words)


def explain_flow(
    pipeline: Pipeline, store: Store, caller: Caller, action: Action, document: str | None
) -> Flow[Explanation]:
    """Decide *action* and, for reads, count the visible chunks; each is recorded as a separate decision.

    Raises: InvalidInputError; RefusedError or a subclass where the scope has no form on this store.
    """
    if document is not None:
        check_id(document, "document")
    plan = yield from pipeline.explained(caller, action, store)
    decision = plan.decision
    grants = tuple((leg.partition, _shown(plan, leg).to_dict()) for leg in plan.legs)
    visible = document_count = None
    ranking: list[tuple[str, str]] = []
    words: list[tuple[str, str]] = []
    if decision.permit and action in READ:
        # The numbers stay unknown if the principal may search but not count, or if the store cannot count.
        with contextlib.suppress(DeniedError, UnsupportedPredicateError):
            visible = yield from reads.count(pipeline, store, caller, ALWAYS)
            if document is not None:
                where = check_scope_predicate(F["@document"] == document, store.fields)
                document_count = yield from reads.count(pipeline, store, caller, where)
            ranking = yield from _told(store, plan, "ranking")
            words = yield from _told(store, plan, "words")
    return Explanation(
        decision.permit,
        decision.reasons,
        decision.policy_version,
        grants,
        visible,
        document,
        document_count,
        tuple(ranking),
        tuple(words),
        () if plan.governance is None else tuple((leg.partition, _labels(plan, leg)) for leg in plan.legs),
    )


def _labels(plan: Plan, leg: Leg) -> tuple[str, ...]:
    assert plan.governance is not None
    return tuple(sorted(plan.governance.scope.partitions[leg.partition].labels))


def _shown(plan: Plan, leg: Leg) -> Predicate:
    """Return the scope of *leg* as its principal may know it: without the documents that the registry hides."""
    if plan.governance is None:
        return leg.predicate
    return conjunction((F["@label"].in_(_labels(plan, leg)), leg.given))


def _told(store: Store, plan: Plan, name: str) -> Flow[list[tuple[str, str]]]:
    """Ask the adapter how it ranks each leg's rows, if it can tell. It follows a count, which the record holds."""
    tell: Callable[[str, Predicate], Flow[str]] | None = getattr(store.adapter, name, None)
    told: list[tuple[str, str]] = []
    if tell is None:
        return told
    for leg in plan.legs:
        told.append((leg.partition, (yield from confined(tell(leg.partition, leg.predicate), leg.partition))))
    return told
