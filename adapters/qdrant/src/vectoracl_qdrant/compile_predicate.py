"""Compiles predicates to Qdrant filters with exactly the reference semantics.

Every leaf is a condition that is false if the payload does not have such a value; `Not` is `must_not` around one nested
filter, and presence is a list of names. Numbers are compared by ranges, since Qdrant cannot compare floats for
equality; so are datetimes, whose bounds are exact to the microsecond. `Always` and `Never` are folded away, so that an
empty clause, which Qdrant treats as "everything", is never sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import assert_never, get_args

from qdrant_client import models

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.boolean_compiler import BOOLEAN_NODES, NO_ROWS, BooleanCompiler, bounds, kind_of, numbers, texts
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import ContainsAny, Eq, In, Leaf, Missing, Predicate, Range, Scalar
from vectoracl_qdrant.config import Payload
from vectoracl_qdrant.names import field_path, flag

ExactLeaf = Eq | In | Range | ContainsAny | Missing
"""The leaves that have an exact form in Qdrant; what is not among them is refused by the core."""
PREDICATES = BOOLEAN_NODES | frozenset(get_args(ExactLeaf))
Condition = models.FieldCondition | models.Filter | models.HasIdCondition
Compiled = Condition | bool
"""A condition, or True (every point) or False (none)."""

ALGEBRA: BooleanCompiler[Condition] = BooleanCompiler(
    all_of=lambda parts: models.Filter(must=list(parts)),
    one_of=lambda parts: models.Filter(should=list(parts)),
    negated=lambda part: models.Filter(must_not=[part]),
)
every, some, none = ALGEBRA.every, ALGEBRA.some, ALGEBRA.none


class Compiler:
    """Compiles predicates over the payload of one configured collection."""

    def __init__(self, payload: Payload, fields: Mapping[str, FieldType]) -> None:
        self._payload = payload
        self._fields = fields
        self._tags = {name: str(getattr(payload, name.removeprefix("@"))) for name in TAG_FIELDS}

    def compile(self, predicate: Predicate) -> Compiled:
        """Return *predicate* as a condition, or True or False. Raises: UnsupportedPredicateError."""
        return ALGEBRA.compile(predicate, self._leaf)

    def _leaf(self, leaf: Leaf) -> Compiled:
        if not isinstance(leaf, ExactLeaf):
            raise UnsupportedPredicateError(f"{type(leaf).__name__} has no form in Qdrant.")
        match leaf:
            case Missing(name):
                return none(keyword(self._payload.present, name))
            case Eq(name, value):
                return self._among(name, (value,))
            case In(name, values) | ContainsAny(name, values):
                return self._among(name, values)
            case Range():
                return self._range(leaf)
            case _:
                assert_never(leaf)

    def path(self, name: str) -> tuple[str, FieldType]:
        """Return the payload path of the field *name*, and its type. Raises: UnsupportedPredicateError."""
        kind = kind_of(name, self._fields)
        if name in TAG_FIELDS:
            return self._tags[name], kind
        return field_path(self._payload, name, kind), kind

    def _among(self, name: str, values: tuple[Scalar, ...]) -> Compiled:
        path, kind = self.path(name)
        match kind:
            case FieldType.KEYWORD | FieldType.KEYWORDS:
                return keyword(path, *texts(values))
            case FieldType.BOOLEAN:
                return keyword(path, *(flag(one) for one in values if isinstance(one, bool)))
            case FieldType.NUMBER | FieldType.NUMBERS:
                return some([numeric(path, gte=one, lte=one) for one in numbers(values)])
            case FieldType.DATETIME:
                moments = [one for one in values if isinstance(one, datetime)]
                return some([_moments(path, gte=one, lte=one) for one in moments])
            case _:
                assert_never(kind)

    def _range(self, node: Range) -> Compiled:
        path, kind = self.path(node.field)
        limits = bounds(node)
        if kind is FieldType.NUMBER:
            return numeric(path, **limits)
        if kind is FieldType.DATETIME:
            return _moments(path, **limits)
        raise UnsupportedPredicateError(f"The field {node.field!r} has no order.", field=node.field)


def keyword(path: str, *values: str) -> Compiled:
    """Return that *path* has one of *values*; of none of them it is False."""
    if not values:
        return NO_ROWS
    if len(values) == 1:
        return models.FieldCondition(key=path, match=models.MatchValue(value=values[0]))
    return models.FieldCondition(key=path, match=models.MatchAny(any=list(values)))


def numeric(path: str, **bounds: float) -> models.FieldCondition:
    """Return that *path* has a number within *bounds* (gt, gte, lt, lte)."""
    return models.FieldCondition(key=path, range=models.Range(**bounds))


def _moments(path: str, **bounds: datetime) -> models.FieldCondition:
    return models.FieldCondition(key=path, range=models.DatetimeRange(**bounds))
