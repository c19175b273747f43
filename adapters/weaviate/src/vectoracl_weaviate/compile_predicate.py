"""Compiles predicates to Weaviate filters, and records how reliable each filter is under concurrent writes.

The server evaluates each comparison of a filter at a different moment, while objects are written in several steps:
first the object, then its properties one by one. So a negation matches every object whose property is not written yet
(measured on 1.39: 41 % of negated counts next to three writers were wrong), and a conjunction can combine a match from
before a rewrite with one from after it (4 %). A single comparison and a disjunction are reliable: their matches did
match.

A `Condition` therefore has two filters. `rows` finds every matching row and some that do not match: rows are returned,
and each is compared here by the reference semantics. `sure` has the same meaning for results that cannot be compared,
such as a count. It contains no negation and no conjunction of changing values; it is None if no such form exists. A
negated comparison becomes the ranges on both sides of the value, or the other boolean; "is missing" is a marker that
each writer sets.

A field's property and marker are set only by writers that knew the field. Objects of other writers are `strange`:
`rows` finds all of them, `sure` none.

Keywords are compared in their stored form, numbers as doubles, datetimes as text of fixed width (Weaviate's dates end
in 2262). `Always` and `Never` are folded away: an empty clause is never sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, assert_never, get_args

from weaviate.proto.v1 import base_pb2

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters import boolean_compiler
from vectoracl.filters.boolean_compiler import BOOLEAN_NODES, NO_ROWS, BooleanCompiler, bounds, kind_of
from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import (
    Always,
    And,
    ContainsAny,
    Eq,
    In,
    Leaf,
    Missing,
    Never,
    Not,
    Or,
    Predicate,
    Range,
    Scalar,
    node_of,
)
from vectoracl.filters.semantics import Test, compile_test
from vectoracl.filters.validation import fields_of
from vectoracl_weaviate.config import Properties
from vectoracl_weaviate.names import escape, known, property_of

Comparison = Eq | In | Range | ContainsAny
"""The comparisons that have an exact form in Weaviate; what is not among them is refused by the core."""
PREDICATES = BOOLEAN_NODES | {Missing, *get_args(Comparison)}
Filters = base_pb2.Filters
Compiled = base_pb2.Filters | bool
"""A filter, or True (every object) or False (none)."""

_BOUNDS = {
    "gt": Filters.OPERATOR_GREATER_THAN,
    "gte": Filters.OPERATOR_GREATER_THAN_EQUAL,
    "lt": Filters.OPERATOR_LESS_THAN,
    "lte": Filters.OPERATOR_LESS_THAN_EQUAL,
}

ALGEBRA: BooleanCompiler[Filters] = BooleanCompiler(
    all_of=lambda parts: Filters(operator=Filters.OPERATOR_AND, filters=parts),
    one_of=lambda parts: Filters(operator=Filters.OPERATOR_OR, filters=parts),
    negated=lambda part: Filters(operator=Filters.OPERATOR_NOT, filters=[part]),
)
every, some, none = ALGEBRA.every, ALGEBRA.some, ALGEBRA.none


_BESIDE = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
"""The comparison that is true of a number where a bound is not met."""


class Condition(NamedTuple):
    """A condition on rows, in the forms that the server understands; see the module.

    `test` is the reference meaning, None where every row meets it. `fields` are the declared fields that it reads.
    `fixed` says that it reads only what never changes of an object, and negates nothing: then `rows` is right too.
    """

    rows: Compiled
    sure: Compiled | None
    strange: Compiled
    test: Test | None
    fields: frozenset[str]
    fixed: bool


class Compiler:
    """Compiles predicates over the properties of one configured collection."""

    def __init__(self, properties: Properties, fields: Mapping[str, FieldType]) -> None:
        self._properties = properties
        self._fields = fields
        self._tags = {name: str(getattr(properties, name.removeprefix("@"))) for name in TAG_FIELDS}
        keys = properties
        self._lasting = frozenset({"_id", keys.document, keys.generation, keys.docgen, keys.chunk, keys.version})

    def condition(self, *predicates: Predicate) -> Condition:
        """Return the conjunction of *predicates*, each a separate operand. Raises: UnsupportedPredicateError."""
        some_fields = [fields_of(one) for one in predicates]
        fields = frozenset(name for names in some_fields for name in names if name not in TAG_FIELDS)
        rows = every([ALGEBRA.compile_pushed(one, self._found) for one in predicates])
        parts = [self._surely(one) for one in predicates]
        sure = None if any(one is None for one in parts) else every([one for one in parts if one is not None])
        if sure is not None and not self._steady(sure):
            sure = None
        tests = [compile_test(one) for one in predicates if not isinstance(one, Always)]
        fixed = sure is not None and not fields and self._lasts(sure)
        server_filter = sure if fixed and sure is not None else rows
        return Condition(server_filter, sure, self.strange(fields), _all_of(tests), fields, fixed)

    def strange(self, fields: Iterable[str]) -> Compiled:
        """Return that the object's writer did not know one of *fields* as what it is here.

        It is a negation: objects that are being written are among those that it finds.
        """
        declared = [(name, self._fields[name]) for name in sorted(fields) if name not in TAG_FIELDS]
        return some([none(keyword(self._properties.present, *known(name, kind))) for name, kind in declared])

    # The form that finds rows

    def _found(self, node: Leaf, negated: bool) -> Compiled:  # noqa: FBT001 - as `compile_pushed` calls it
        """Return a leaf, or its negation, that holds of every row that matches and of all strange rows."""
        if isinstance(node, Missing):
            return none(self._marker(node.field, present=not negated))
        if negated:
            return none(self._leaf(node))
        return some([self._leaf(node), self.strange(fields_of(node))])

    # The form that is sure

    def _surely(self, predicate: Predicate, *, negated: bool = False) -> Compiled | None:
        node = node_of(predicate)
        match node:
            case Never() | Always():
                return isinstance(node, Always) is not negated
            case Not(operand):
                return self._surely(operand, negated=not negated)
            case And(operands) | Or(operands):
                together = isinstance(node, And) is not negated
                return self._surely_all(operands, negated=negated, together=together)
            case Missing(name) if name in TAG_FIELDS:
                return negated
            case _:
                return self._sure_leaf(node, negated=negated, absent=True)

    def _surely_all(self, operands: Sequence[Predicate], *, negated: bool, together: bool) -> Compiled | None:
        """Return the conjunction (*together*) or the disjunction of *operands*, or of their negations.

        In a conjunction "the field is there" goes without saying next to a comparison that only a value can meet.
        """
        there: set[str] = set()
        if together:
            there = {one.operand.field for one in operands if _is_present(one) and not negated}  # type: ignore[attr-defined]
        compared = {
            name
            for one in operands
            if isinstance(one.operand if isinstance(one, Not) else one, Comparison)
            for name in fields_of(one)
        }
        parts: list[Compiled | None] = []
        for one in operands:
            if _is_present(one) and one.operand.field in there & compared:  # type: ignore[attr-defined]
                continue
            if there and isinstance(one, Not) and isinstance(one.operand, Eq | In | Range):
                parts.append(self._sure_leaf(one.operand, negated=True, absent=one.operand.field not in there))
            else:
                parts.append(self._surely(one, negated=negated))
        if any(one is None for one in parts):
            return None
        filters = [one for one in parts if one is not None]
        return every(filters) if together else some(filters)

    def _sure_leaf(self, node: Leaf, *, negated: bool, absent: bool) -> Compiled | None:
        """Return a leaf, or its negation, which holds of rows without the field too where *absent* says so."""
        if isinstance(node, Missing):
            return self._marker(node.field, present=negated)
        if not negated:
            return self._leaf(node)
        beside = self._beside(node)
        (name,) = fields_of(node)
        if beside is None or not absent or name in TAG_FIELDS:
            return beside
        return some([beside, self._marker(name, present=False)])

    def _beside(self, node: Leaf) -> Compiled | None:
        """Return that the field has a value, and one that does not meet *node*."""
        match node:
            case Range(name):
                path, kind = self._path(name)
                sides = {_BESIDE[side]: one for side, one in bounds(node).items()}
                return some([self._side(path, kind, side, one) for side, one in sides.items()])
            case Eq(name, value):
                values: tuple[Scalar, ...] = (value,)
            case In(name, values):
                pass
            case _:
                return None  # a list has other values in addition to the one that is not wanted
        path, kind = self._path(name)
        if kind is FieldType.BOOLEAN:
            return some([_boolean(path, one) for one in (True, False) if one not in values])
        if len(values) > 1:
            return None
        stored = escape(values[0]) if isinstance(values[0], str) else values[0]
        return some([self._side(path, kind, side, stored) for side in ("lt", "gt")])

    def _side(self, path: str, kind: FieldType, side: str, value: Any) -> Compiled:
        if kind is FieldType.NUMBER:
            return numeric(path, **{side: value})
        return leaf(_BOUNDS[side], path, value_text=value if isinstance(value, str) else datetime_text(value))

    def _marker(self, name: str, *, present: bool) -> Compiled:
        kind = kind_of(name, self._fields)
        return keyword(self._properties.present, known(name, kind)[not present])

    def _steady(self, where: Compiled) -> bool:
        """Return whether no conjunction in *where* joins two things that can change."""
        if isinstance(where, bool):
            return True
        if where.operator == Filters.OPERATOR_AND and sum(not self._lasts(one) for one in where.filters) > 1:
            return False
        return all(self._steady(one) for one in where.filters)

    def _lasts(self, where: Compiled) -> bool:
        """Return whether *where* reads only what never changes of an object."""
        if isinstance(where, bool):
            return True
        if where.filters:
            return all(self._lasts(one) for one in where.filters)
        return where.target.property in self._lasting

    # Leaves

    def _leaf(self, node: Leaf) -> Compiled:
        if not isinstance(node, Comparison):
            raise UnsupportedPredicateError(f"{type(node).__name__} has no form in Weaviate.")
        match node:
            case Eq(name, value):
                return self._among(name, (value,))
            case In(name, values) | ContainsAny(name, values):
                return self._among(name, values)
            case Range():
                return self._range(node)
            case _:
                assert_never(node)

    def _path(self, name: str) -> tuple[str, FieldType]:
        kind = kind_of(name, self._fields)
        if name in TAG_FIELDS:
            return self._tags[name], kind
        return property_of(name, kind), kind

    def _among(self, name: str, values: tuple[Scalar, ...]) -> Compiled:
        path, kind = self._path(name)
        match kind:
            case FieldType.KEYWORD | FieldType.KEYWORDS:
                return keyword(path, *boolean_compiler.texts(values))
            case FieldType.BOOLEAN:
                return some([_boolean(path, one) for one in dict.fromkeys(values) if isinstance(one, bool)])
            case FieldType.NUMBER | FieldType.NUMBERS:
                return numbers(path, [float(one) for one in boolean_compiler.numbers(values)])
            case FieldType.DATETIME:
                return _texts(path, [datetime_text(one) for one in values if isinstance(one, datetime)])
            case _:
                assert_never(kind)

    def _range(self, node: Range) -> Compiled:
        path, kind = self._path(node.field)
        limits = bounds(node)
        if kind is FieldType.NUMBER:
            return numeric(path, **limits)
        if kind is FieldType.DATETIME:
            return every([leaf(_BOUNDS[side], path, value_text=datetime_text(one)) for side, one in limits.items()])
        raise UnsupportedPredicateError(f"The field {node.field!r} has no order.", field=node.field)


def _is_present(node: Predicate) -> bool:
    return isinstance(node, Not) and isinstance(node.operand, Missing)


def _all_of(tests: Sequence[Test]) -> Test | None:
    if not tests:
        return None
    return tests[0] if len(tests) == 1 else lambda tag, metadata: all(test(tag, metadata) for test in tests)


def leaf(operator: Any, path: str, **value: Any) -> Filters:
    """Return one comparison of one property."""
    return Filters(operator=operator, target=base_pb2.FilterTarget(property=path), **value)


def keyword(path: str, *values: str) -> Compiled:
    """Return that *path* has one of *values*, in their stored form; of none of them it is False."""
    return _texts(path, [escape(one) for one in values])


def _texts(path: str, values: Sequence[str]) -> Compiled:
    if not values:
        return NO_ROWS
    if len(values) == 1:
        return leaf(Filters.OPERATOR_EQUAL, path, value_text=values[0])
    return leaf(Filters.OPERATOR_CONTAINS_ANY, path, value_text_array=base_pb2.TextArray(values=values))


def ids(values: Sequence[str]) -> Compiled:
    """Return that the object has one of the ids *values*."""
    if not values:
        return NO_ROWS
    return leaf(Filters.OPERATOR_CONTAINS_ANY, "_id", value_text_array=base_pb2.TextArray(values=values))


def numbers(path: str, values: Sequence[float]) -> Compiled:
    """Return that *path* has one of *values*; of none of them it is False."""
    if not values:
        return NO_ROWS
    if len(values) == 1:
        return leaf(Filters.OPERATOR_EQUAL, path, value_number=values[0])
    return leaf(Filters.OPERATOR_CONTAINS_ANY, path, value_number_array=base_pb2.NumberArray(values=values))


def numeric(path: str, **bounds: float) -> Compiled:
    """Return that *path* has a number within *bounds* (gt, gte, lt, lte)."""
    return every([leaf(_BOUNDS[side], path, value_number=float(one)) for side, one in bounds.items()])


def _boolean(path: str, value: bool) -> Filters:  # noqa: FBT001 - it is the value itself
    return leaf(Filters.OPERATOR_EQUAL, path, value_boolean=value)
