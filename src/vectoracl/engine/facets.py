"""The flow of facets: counts the values of each partition concurrently, adds them up, checks and then limits them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import MAX_FACETS, OPERATIONS, Facets
from vectoracl.engine.drivers import confined, side_by_side
from vectoracl.engine.governed_reads import by_rows, confirm_unchanged, confirmed_rows
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store, retried
from vectoracl.engine.second_lock import counted
from vectoracl.errors import StoreError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.semantics import getter, one_value, tallied, values_of
from vectoracl.model.records import Facet
from vectoracl.model.values import native


def facets(
    pipeline: Pipeline, store: Store, caller: Caller, field: str, kind: FieldType, where: Predicate, limit: int
) -> Flow[list[Facet]]:
    """Count the values of *field* exactly, over every partition; return the *limit* most frequent ones.

    The action is "scan", since facets reveal values; a principal that may only count would have to guess them.
    """
    ask: Callable[[Facets], Flow[list[Facet]]] | None = getattr(store.adapter, "facets", None)  # see `Faceted`
    if store.capabilities.facets == "none" or ask is None:
        raise UnsupportedPredicateError(
            f"The adapter {store.adapter_name!r} cannot count the values of a field exactly. Use count() for each "
            "known value, or iterate with scan().",
            field="facets",
        )

    def body(plan: Plan, decision_id: str) -> Flow[list[Facet]]:
        def leg_flow(leg: Leg) -> Flow[list[Facet]]:
            if by_rows(plan, store):
                rows = yield from confirmed_rows(plan, leg, store, where, frozenset({"metadata"}), decision_id)
                return tallied((values_of(kind, value(hit.tag, hit.metadata or {})) for hit in rows), MAX_FACETS)
            operation = Facets(leg.partition, leg.predicate, where, field)
            return (yield from retried(lambda: confined(ask(operation), leg.partition)))

        value = getter(field)

        leg_facets = yield from side_by_side([leg_flow(leg) for leg in plan.legs])
        yield from confirm_unchanged(plan, store, decision_id)
        for one in leg_facets:
            if len(one) > MAX_FACETS:
                raise StoreError(
                    f"The field {field!r} has more than {MAX_FACETS:,} values among the matching chunks, and a part of "
                    "them would not be exact. Narrow the filter, or iterate with scan().",
                    code="too_many_values",
                    adapter=store.adapter_name,
                    sent="no",
                )
        return summed((facet for one in leg_facets for facet in one), kind, store.adapter_name)[:limit]

    return (yield from pipeline.run(caller, OPERATIONS[Facets].action, store, body, empty=lambda _: [], size=len))


def summed(found: Iterable[Facet], kind: FieldType, adapter: str) -> list[Facet]:
    """Add up the counts of equal values; the most frequent first, ties by value.

    Raises: StoreError with the code "malformed" for a value that is not of the type *kind*, and for an invalid count.
    """
    counts: dict[str | int | float | bool, int] = {}
    for raw_value, number in found:
        value, count = native(raw_value), counted(number, adapter)
        if not _is_value(kind, value) or count < 1:
            raise StoreError(
                f"The adapter {adapter!r} counted a value that the field cannot have. This is a fault of the adapter: "
                "report it to its author.",
                code="malformed",
                adapter=adapter,
                sent="no",
            )
        one = one_value(value)  # type: ignore[arg-type]  # checked: a value of the field's type
        counts[one] = counts.get(one, 0) + count
    totals = [Facet(value, count) for value, count in counts.items()]
    return sorted(totals, key=lambda facet: (-facet.count, facet.value))


def _is_value(kind: FieldType, value: object) -> bool:
    match kind.element:
        case FieldType.KEYWORD:
            return type(value) is str
        case FieldType.NUMBER:
            return type(value) is int or (type(value) is float and math.isfinite(value))
        case FieldType.BOOLEAN:
            return type(value) is bool
        case _:
            return False
