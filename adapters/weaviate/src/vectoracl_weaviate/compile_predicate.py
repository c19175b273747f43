"""A predicate as a Weaviate filter, with exactly the reference meaning.

Every leaf is a condition that is false where the object has no such property, `Not` is the server's own negation
over all objects of the tenant, and presence is a list of names. Keywords are compared in their stored form, numbers
as doubles, datetimes as text of fixed width (Weaviate's own dates end in 2262). `Always` and `Never` are folded away:
no empty clause is ever sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never

from weaviate.proto.v1 import base_pb2

from vectoracl import algebra
from vectoracl.algebra import NONE, Algebra, bounds, kind_of
from vectoracl.errors import UnsupportedPredicateError
from vectoracl.fields import TAG_FIELDS, FieldType, datetime_text
from vectoracl.predicate import ContainsAny, Eq, In, Missing, Predicate, Range, Scalar
from vectoracl_weaviate.config import Properties
from vectoracl_weaviate.names import barred, property_of

Filters = base_pb2.Filters
Compiled = base_pb2.Filters | bool
"""A filter, or True (every object) or False (none)."""

_BOUNDS = {
    "gt": Filters.OPERATOR_GREATER_THAN,
    "gte": Filters.OPERATOR_GREATER_THAN_EQUAL,
    "lt": Filters.OPERATOR_LESS_THAN,
    "lte": Filters.OPERATOR_LESS_THAN_EQUAL,
}

_ALGEBRA: Algebra[Filters] = Algebra(
    all_of=lambda parts: Filters(operator=Filters.OPERATOR_AND, filters=parts),
    one_of=lambda parts: Filters(operator=Filters.OPERATOR_OR, filters=parts),
    negated=lambda part: Filters(operator=Filters.OPERATOR_NOT, filters=[part]),
)
every, some, none = _ALGEBRA.every, _ALGEBRA.some, _ALGEBRA.none


class Compiler:
    """Compiles predicates over the properties of one configured collection."""

    def __init__(self, properties: Properties, fields: Mapping[str, FieldType]) -> None:
        self._properties = properties
        self._fields = fields
        self._tags = {name: str(getattr(properties, name.removeprefix("@"))) for name in TAG_FIELDS}

    def compile(self, predicate: Predicate) -> Compiled:
        """Return *predicate* as a filter, or True or False. Raises: UnsupportedPredicateError."""
        return _ALGEBRA.compile(predicate, self._leaf)

    def _leaf(self, predicate: Predicate) -> Compiled:
        match predicate:
            case Missing(name):
                self._path(name)
                return none(keyword(self._properties.present, name))
            case Eq(name, value):
                return self._among(name, (value,))
            case In(name, values) | ContainsAny(name, values):
                return self._among(name, values)
            case Range():
                return self._range(predicate)
        raise UnsupportedPredicateError(f"{type(predicate).__name__} has no form in Weaviate.")

    def _path(self, name: str) -> tuple[str, FieldType]:
        kind = kind_of(name, self._fields)
        if name in TAG_FIELDS:
            return self._tags[name], kind
        return property_of(name, kind), kind

    def _among(self, name: str, values: tuple[Scalar, ...]) -> Compiled:
        path, kind = self._path(name)
        match kind:
            case FieldType.KEYWORD | FieldType.KEYWORDS:
                return keyword(path, *algebra.texts(values))
            case FieldType.BOOLEAN:
                return some([_boolean(path, one) for one in dict.fromkeys(values) if isinstance(one, bool)])
            case FieldType.NUMBER | FieldType.NUMBERS:
                return numbers(path, [float(one) for one in algebra.numbers(values)])
            case FieldType.DATETIME:
                return _texts(path, [datetime_text(one) for one in values if isinstance(one, datetime)])
            case _:
                assert_never(kind)

    def _range(self, node: Range) -> Compiled:
        path, kind = self._path(node.field)
        given = bounds(node)
        if kind is FieldType.NUMBER:
            return numeric(path, **given)
        if kind is FieldType.DATETIME:
            return every([leaf(_BOUNDS[side], path, value_text=datetime_text(one)) for side, one in given.items()])
        raise UnsupportedPredicateError(f"The field {node.field!r} has no order.", field=node.field)


def leaf(operator: Any, path: str, **value: Any) -> Filters:
    """Return one comparison of one property."""
    return Filters(operator=operator, target=base_pb2.FilterTarget(property=path), **value)


def keyword(path: str, *values: str) -> Compiled:
    """Return that *path* has one of *values*, in their stored form; of none of them it is False."""
    return _texts(path, [barred(one) for one in values])


def _texts(path: str, values: Sequence[str]) -> Compiled:
    if not values:
        return NONE
    if len(values) == 1:
        return leaf(Filters.OPERATOR_EQUAL, path, value_text=values[0])
    return leaf(Filters.OPERATOR_CONTAINS_ANY, path, value_text_array=base_pb2.TextArray(values=values))


def ids(values: Sequence[str]) -> Compiled:
    """Return that the object has one of the ids *values*."""
    if not values:
        return NONE
    return leaf(Filters.OPERATOR_CONTAINS_ANY, "_id", value_text_array=base_pb2.TextArray(values=values))


def numbers(path: str, values: Sequence[float]) -> Compiled:
    """Return that *path* has one of *values*; of none of them it is False."""
    if not values:
        return NONE
    if len(values) == 1:
        return leaf(Filters.OPERATOR_EQUAL, path, value_number=values[0])
    return leaf(Filters.OPERATOR_CONTAINS_ANY, path, value_number_array=base_pb2.NumberArray(values=values))


def numeric(path: str, **bounds: float) -> Compiled:
    """Return that *path* has a number within *bounds* (gt, gte, lt, lte)."""
    return every([leaf(_BOUNDS[side], path, value_number=float(one)) for side, one in bounds.items()])


def _boolean(path: str, value: bool) -> Filters:  # noqa: FBT001 - it is the value itself
    return leaf(Filters.OPERATOR_EQUAL, path, value_boolean=value)
