"""A predicate becomes a store's filter: the algebra over compiled conditions; the conditions are each adapter's own.

A condition that holds for every row or for none is True or False, never a filter of the store's: `Always` and `Never`
fold away here, so that no empty clause, which some store would read as "everything", is ever sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import Always, And, Leaf, Missing, Never, Not, Or, Predicate, Range, Scalar, node_of

C = TypeVar("C")
ALL_ROWS: Final = True
NO_ROWS: Final = False
BOOLEAN_NODES: Final[frozenset[type[Predicate]]] = frozenset({Never, Always, And, Or, Not})
"""The nodes that `BooleanCompiler` compiles for every store."""


@dataclass(frozen=True, slots=True)
class BooleanCompiler(Generic[C]):
    """How a store says "all of these" and "one of these", of two conditions or more, and "not this"."""

    all_of: Callable[[list[C]], C]
    one_of: Callable[[list[C]], C]
    negated: Callable[[C], C]

    def every(self, parts: Iterable[C | bool]) -> C | bool:
        """Return the conjunction of *parts*, each as a separate operand; of none of them it is True."""
        parts = list(parts)
        if any(one is NO_ROWS for one in parts):
            return NO_ROWS
        operands = [one for one in parts if not isinstance(one, bool)]
        if not operands:
            return ALL_ROWS
        return operands[0] if len(operands) == 1 else self.all_of(operands)

    def some(self, parts: Iterable[C | bool]) -> C | bool:
        """Return the disjunction of *parts*; of none of them it is False."""
        parts = list(parts)
        if any(one is ALL_ROWS for one in parts):
            return ALL_ROWS
        operands = [one for one in parts if not isinstance(one, bool)]
        if not operands:
            return NO_ROWS
        return operands[0] if len(operands) == 1 else self.one_of(operands)

    def none(self, part: C | bool) -> C | bool:  # noqa: FBT001 - a condition that is a constant
        """Return the negation of *part*."""
        return (not part) if isinstance(part, bool) else self.negated(part)

    def compile(self, predicate: Predicate, leaf: Callable[[Leaf], C | bool]) -> C | bool:
        """Return *predicate* as a condition; *leaf* compiles all but constants, `And`, `Or` and `Not`.

        A leaf has to be false for a row without its field, so that its negation is true there.
        """
        node = node_of(predicate)
        match node:
            case Never():
                return NO_ROWS
            case Always():
                return ALL_ROWS
            case And(operands):
                return self.every([self.compile(one, leaf) for one in operands])
            case Or(operands):
                return self.some([self.compile(one, leaf) for one in operands])
            case Not(operand):
                return self.none(self.compile(operand, leaf))
            case Missing(name) if name in TAG_FIELDS:
                return NO_ROWS
            case _:
                return leaf(node)

    def compile_pushed(
        self, predicate: Predicate, leaf: Callable[[Leaf, bool], C | bool], *, negated: bool = False
    ) -> C | bool:
        """Return *predicate*, or its negation, with each `Not` pushed down to the leaves (De Morgan).

        *leaf* compiles a leaf or, where its second argument is True, the leaf's negation.
        """
        node = node_of(predicate)
        match node:
            case Never():
                return negated
            case Always():
                return not negated
            case And(operands):
                parts = [self.compile_pushed(one, leaf, negated=negated) for one in operands]
                return self.some(parts) if negated else self.every(parts)
            case Or(operands):
                parts = [self.compile_pushed(one, leaf, negated=negated) for one in operands]
                return self.every(parts) if negated else self.some(parts)
            case Not(operand):
                return self.compile_pushed(operand, leaf, negated=not negated)
            case Missing(name) if name in TAG_FIELDS:
                return negated
            case _:
                return leaf(node, negated)


def kind_of(name: str, fields: Mapping[str, FieldType]) -> FieldType:
    """Return the type of a field of the tag or of *fields*. Raises: UnsupportedPredicateError if it is neither."""
    kind = TAG_FIELDS.get(name) or fields.get(name)
    if kind is None:
        raise UnsupportedPredicateError(f"The field {name!r} is not declared.", field=name)
    return kind


def texts(values: Sequence[Scalar]) -> list[str]:
    """Return those of *values* that are text."""
    return [one for one in values if isinstance(one, str)]


def numbers(values: Sequence[Scalar]) -> list[int | float]:
    """Return those of *values* that are numbers."""
    return [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]


def bounds(node: Range) -> dict[str, Any]:
    """Return the bounds that *node* gives, by their names: gt, gte, lt, lte."""
    values = {side: getattr(node, side) for side in ("gt", "gte", "lt", "lte")}
    return {side: bound for side, bound in values.items() if bound is not None}
