"""Filters made from the nodes of the algebra themselves, so that a node which is added is tried without a change here.

A node is a dataclass; the names of its fields say what they hold (`field`, `value`, `values`, `prefix`, a bound,
`operand`, `operands`). For each field of the rows there is a filter for each form that the node can have with values
that some rows have. A node with anything else in it has no filter: the checks then refuse its declaration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

from vectoracl.errors import RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import NODES, Always, Never, Not, Predicate, operands_of
from vectoracl.filters.semantics import compile_test, getter
from vectoracl.filters.validation import check_filter
from vectoracl.model.records import Record
from vectoracl_conformance.context.corpus import FIELDS

TAGGED = ("@document", "@chunk", "@position")
"""The fields of the tag that a caller's filter may use and every census holds."""
_TYPES = {name: FieldType(kind) for name, kind in FIELDS.items()}
Named = tuple[str, Predicate]


def nodes_in(where: Predicate) -> frozenset[type[Predicate]]:
    """Return the nodes of which *where* is made."""
    return frozenset({type(where)}).union(*map(nodes_in, operands_of(where)))


def node_filters(
    rows: Iterable[Record], declared: Iterable[type[Predicate]], nodes: Iterable[type[Predicate]] = NODES
) -> list[Named]:
    """Return filters for each of *nodes*, named; each matches some of *rows* and not all.

    Args:
        rows: The rows of one tenant, whose values the filters name.
        declared: The nodes of which operands may be made.
        nodes: The nodes to try.
    """
    known = list(rows)
    leaves = list({name: one for node in NODES if node in declared for name, one in _leaves(node, known)}.items())
    made = [one for node in nodes for one in _of(node, known, leaves)]
    return list({where: (name, where) for name, where in made if _narrows(where, known)}.values())


def _of(node: type[Predicate], rows: list[Record], leaves: list[Named]) -> Iterator[Named]:
    names = {one.name for one in fields(node) if one.init}  # type: ignore[arg-type]  # nodes are dataclasses
    if not names <= {"operand", "operands"}:
        yield from _leaves(node, rows)
    elif not names:
        yield from _constants(node, leaves)
    else:
        count = len(leaves)
        for place, (name, leaf) in enumerate(leaves):
            other, second = leaves[(place + count // 3 + 1) % count]
            if names == {"operand"}:
                yield f"{node.__name__} of {name}", node(leaf)  # type: ignore[call-arg]  # as its fields say
            elif leaf != second:
                yield f"{node.__name__} of {name} and {other}", node((leaf, second))  # type: ignore[call-arg]  # likewise


def _constants(node: type[Predicate], leaves: list[Named]) -> Iterator[Named]:
    """Yield a constant within each node of two operands, where the other operand alone decides."""
    (_, leaf), *_ = leaves or [("", Never())]
    for joint in NODES:
        if {one.name for one in fields(joint) if one.init} == {"operands"}:  # type: ignore[arg-type]  # likewise
            for operands in ((leaf, node()), (node(), leaf)):
                yield f"{joint.__name__} with {node.__name__}", joint(operands)  # type: ignore[call-arg]  # likewise


def _leaves(node: type[Predicate], rows: list[Record]) -> Iterator[Named]:
    for name in (*_TYPES, *TAGGED):
        get = getter(name)
        values = sorted({value for row in rows for value in _flat(get(row.tag, row.metadata))})
        for given in _arguments(node, values):
            form = ", ".join(one for one in given if one != "field")
            try:
                where = check_filter(node(**{"field": name, **given}), _TYPES)
            except (TypeError, RefusedError):
                continue  # the type of the field has no such comparison
            yield f"{node.__name__} {name}{f' by {form}' if form else ''}", where


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        return value
    return () if not isinstance(value, str | int | float | bool) and not hasattr(value, "tzinfo") else (value,)


def _arguments(node: type[Predicate], values: list[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the arguments of *node* in addition to `field`: its required ones, or each optional one alone."""
    init = [one for one in fields(node) if one.init]  # type: ignore[arg-type]  # likewise
    if "field" not in {one.name for one in init}:
        return
    required = [one.name for one in init if one.default is MISSING and one.name != "field"]
    optional = [one.name for one in init if one.default is not MISSING]
    forms = {name: _values(name, values) for name in (*required, *optional)}
    if required:
        for place in range(max(map(len, forms.values()), default=0)):
            if all(place < len(forms[name]) for name in required):
                yield {name: forms[name][place] for name in required}
    elif not optional:
        yield {}
    for name in optional:
        for value in forms[name]:
            yield {name: value}


def _values(name: str, values: list[Any]) -> list[Any]:
    if not values:
        return []
    middle = values[len(values) // 2]
    if name == "values":
        return [(middle,), tuple(values[::2]), tuple(values[:1])]
    if name == "prefix":
        texts = [one for one in values if isinstance(one, str) and one]
        return [texts[len(texts) // 2][:size] for size in (1, 3)] if texts else []
    return [middle, values[0], values[-1]]


def _narrows(where: Predicate, rows: list[Record]) -> bool:
    test = compile_test(where)
    matching = sum(test(row.tag, row.metadata) for row in rows)
    return 0 < matching < len(rows)


def untried(declared: Iterable[type[Predicate]], filters: Iterable[Named]) -> list[str]:
    """Return the names of the *declared* nodes that are in none of *filters*."""
    tried = [nodes_in(where) for _, where in filters]
    return sorted(node.__name__ for node in frozenset(declared).difference(*tried))


def without(node: type[Predicate], where: Predicate) -> Predicate:
    """Return *where* as who does not compile *node* reads it: a comparison holds always, a joint is its first part."""
    parts = operands_of(where)
    if type(where) is node:
        return without(node, parts[0]) if parts else (Never() if node is Always else Always())
    if not parts:
        return where
    changed = tuple(without(node, one) for one in parts)
    return Not(changed[0]) if isinstance(where, Not) else type(where)(changed)  # type: ignore[call-arg]  # likewise
