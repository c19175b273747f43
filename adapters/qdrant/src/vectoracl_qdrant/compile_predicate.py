"""A predicate as a Qdrant filter, with exactly the reference meaning.

Every leaf is a condition that is false where the payload has no such value, `Not` is `must_not` around one nested
filter, and presence is a list of names. Numbers are compared by ranges (Qdrant has no equality of floats), datetimes
too; their bounds are exact to the microsecond. `Always` and `Never` are folded away, so that no empty clause, which
Qdrant reads as "everything", is ever sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final, assert_never

from qdrant_client import models

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.fields import TAG_FIELDS, FieldType
from vectoracl.predicate import Always, And, ContainsAny, Eq, In, Missing, Never, Not, Or, Predicate, Range, Scalar
from vectoracl_qdrant.config import Payload
from vectoracl_qdrant.names import field_path, flag

Condition = models.FieldCondition | models.Filter | models.HasIdCondition
Compiled = Condition | bool
"""A condition, or True (every point) or False (none)."""

EVERY: Final = True
NONE: Final = False


class Compiler:
    """Compiles predicates over the payload of one configured collection."""

    def __init__(self, payload: Payload, fields: Mapping[str, FieldType]) -> None:
        self._payload = payload
        self._fields = fields
        self._tags = {
            "@document": payload.document,
            "@chunk": payload.chunk,
            "@generation": payload.generation,
            "@docgen": payload.docgen,
            "@label": payload.label,
            "@rev": payload.rev,
            "@expires": payload.expires,
            "@producer": payload.producer,
            "@path": payload.path,
            "@time": payload.time,
            "@position": payload.position,
        }

    def compile(self, predicate: Predicate) -> Compiled:
        """Return *predicate* as a condition, or True or False. Raises: UnsupportedPredicateError."""
        match predicate:
            case Never():
                return NONE
            case Always():
                return EVERY
            case And(operands):
                return every([self.compile(one) for one in operands])
            case Or(operands):
                return some([self.compile(one) for one in operands])
            case Not(operand):
                return none(self.compile(operand))
            case Missing(name):
                if name in TAG_FIELDS:
                    return NONE
                return none(keyword(self._payload.present, name))
            case Eq(name, value):
                return self._among(name, (value,))
            case In(name, values) | ContainsAny(name, values):
                return self._among(name, values)
            case Range():
                return self._range(predicate)
        raise UnsupportedPredicateError(f"{type(predicate).__name__} has no form in Qdrant.")

    def path(self, name: str) -> tuple[str, FieldType]:
        """Return the payload path of the field *name*, and its type. Raises: UnsupportedPredicateError."""
        if name in TAG_FIELDS:
            return self._tags[name], TAG_FIELDS[name]
        kind = self._fields.get(name)
        if kind is None:
            raise UnsupportedPredicateError(f"The field {name!r} is not declared.", field=name)
        return field_path(self._payload, name, kind), kind

    def _among(self, name: str, values: tuple[Scalar, ...]) -> Compiled:
        path, kind = self.path(name)
        match kind:
            case FieldType.KEYWORD | FieldType.KEYWORDS:
                return keyword(path, *(one for one in values if isinstance(one, str)))
            case FieldType.BOOLEAN:
                return keyword(path, *(flag(one) for one in values if isinstance(one, bool)))
            case FieldType.NUMBER | FieldType.NUMBERS:
                numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
                return some([numeric(path, gte=one, lte=one) for one in numbers])
            case FieldType.DATETIME:
                moments = [one for one in values if isinstance(one, datetime)]
                return some([_moments(path, gte=one, lte=one) for one in moments])
            case _:
                assert_never(kind)

    def _range(self, node: Range) -> Compiled:
        path, kind = self.path(node.field)
        bounds = {side: getattr(node, side) for side in ("gt", "gte", "lt", "lte")}
        given = {side: bound for side, bound in bounds.items() if bound is not None}
        if kind is FieldType.NUMBER:
            return numeric(path, **given)
        if kind is FieldType.DATETIME:
            return _moments(path, **given)
        raise UnsupportedPredicateError(f"The field {node.field!r} has no order.", field=node.field)


def every(parts: list[Compiled]) -> Compiled:
    """Return the conjunction of *parts*, each an operand of its own."""
    if any(one is NONE for one in parts):
        return NONE
    kept = [one for one in parts if not isinstance(one, bool)]
    if not kept:
        return EVERY
    return kept[0] if len(kept) == 1 else models.Filter(must=list(kept))


def some(parts: list[Compiled]) -> Compiled:
    """Return the disjunction of *parts*; of none of them it is False."""
    if any(one is EVERY for one in parts):
        return EVERY
    kept = [one for one in parts if not isinstance(one, bool)]
    if not kept:
        return NONE
    return kept[0] if len(kept) == 1 else models.Filter(should=list(kept))


def none(part: Compiled) -> Compiled:
    """Return the negation of *part*."""
    if isinstance(part, bool):
        return not part
    return models.Filter(must_not=[part])


def keyword(path: str, *values: str) -> Compiled:
    """Return that *path* has one of *values*; of none of them it is False."""
    if not values:
        return NONE
    if len(values) == 1:
        return models.FieldCondition(key=path, match=models.MatchValue(value=values[0]))
    return models.FieldCondition(key=path, match=models.MatchAny(any=list(values)))


def numeric(path: str, **bounds: float) -> models.FieldCondition:
    """Return that *path* has a number within *bounds* (gt, gte, lt, lte)."""
    return models.FieldCondition(key=path, range=models.Range(**bounds))


def _moments(path: str, **bounds: datetime) -> models.FieldCondition:
    return models.FieldCondition(key=path, range=models.DatetimeRange(**bounds))
