"""The flow of facets: every partition's values side by side, added up, checked, and cut behind that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from vectoracl.adapter_api.contract import Flow
from vectoracl.adapter_api.operations import MAX_FACETS, Facets
from vectoracl.engine.drivers import confined, side_by_side
from vectoracl.engine.pipeline import Caller, Leg, Pipeline, Plan, Store, retried
from vectoracl.engine.second_lock import counted
from vectoracl.errors import StoreError, UnsupportedPredicateError
from vectoracl.filters.predicate import Predicate
from vectoracl.filters.semantics import one_value
from vectoracl.filters.validation import FieldType
from vectoracl.model.records import Facet
from vectoracl.model.values import native


def facets(
    pipeline: Pipeline, store: Store, caller: Caller, field: str, kind: FieldType, where: Predicate, limit: int
) -> Flow[list[Facet]]:
    """Count by the values of *field*, exactly, over every partition; the best *limit* come back.

    The action is "scan": it shows values, which who may only count would have to guess.
    """
    ask: Callable[[Facets], Flow[list[Facet]]] | None = getattr(store.adapter, "facets", None)  # see `Faceted`
    if store.capabilities.facets == "none" or ask is None:
        raise UnsupportedPredicateError(
            f"The adapter {store.adapter_name!r} cannot count by the values of a field exactly. Count the values that "
            "you know with count(), or go through scan().",
            field="facets",
        )

    def body(plan: Plan, _decision_id: str) -> Flow[list[Facet]]:
        def leg_flow(leg: Leg) -> Flow[list[Facet]]:
            operation = Facets(leg.partition, leg.predicate, where, field)
            return retried(lambda: confined(ask(operation), leg.partition))

        found = yield from side_by_side([leg_flow(leg) for leg in plan.legs])
        for one in found:
            if len(one) > MAX_FACETS:
                raise StoreError(
                    f"The field {field!r} has more than {MAX_FACETS:,} values among the chunks that match, and only "
                    "all of them are an answer. Narrow the filter, or go through scan().",
                    code="too_many_values",
                    adapter=store.adapter_name,
                    sent="no",
                )
        return summed((facet for one in found for facet in one), kind, store.adapter_name)[:limit]

    return (yield from pipeline.run(caller, "scan", store, body, empty=lambda _: [], size=len))


def summed(found: Iterable[Facet], kind: FieldType, adapter: str) -> list[Facet]:
    """Add up the counts of equal values; the most frequent first, ties by value.

    Raises: StoreError with the code "malformed" for what is no value of the type *kind*, or no number of rows.
    """
    counts: dict[str | int | float | bool, int] = {}
    for given, number in found:
        value, count = native(given), counted(number, adapter)
        if not _is_value(kind, value) or count < 1:
            raise StoreError(
                f"The adapter {adapter!r} counted something that is no value of the field.",
                code="malformed",
                adapter=adapter,
                sent="no",
            )
        one = one_value(value)  # type: ignore[arg-type]  # it is a value of the field
        counts[one] = counts.get(one, 0) + count
    made = [Facet(value, count) for value, count in counts.items()]
    return sorted(made, key=lambda facet: (-facet.count, facet.value))


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
