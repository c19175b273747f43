"""Compiles predicates to Pinecone filters with exactly the reference semantics.

Negation is pushed down to the leaves, so an operator around a whole filter is not needed. A negated leaf states its
meaning for a record without the key (`$exists`), since it is not documented whether `$ne` and `$nin` match such
records. Numbers are compared as doubles, datetimes as whole seconds and microseconds, numbers in lists as text,
booleans as keywords. `Always` and `Never` are folded away: an empty filter would match everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never, get_args

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.boolean_compiler import BOOLEAN_NODES, BooleanCompiler, bounds, kind_of, numbers, texts
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import ContainsAny, Eq, In, Leaf, Missing, Predicate, Range, Scalar
from vectoracl_pinecone.config import PineconeConfig
from vectoracl_pinecone.names import field_key, flag, moment, moment_keys, number_text, present_key
from vectoracl_pinecone.requests import Filter

ExactLeaf = Eq | In | Range | ContainsAny | Missing
"""The leaves that have an exact form in Pinecone; what is not among them is refused by the core."""
PREDICATES = BOOLEAN_NODES | frozenset(get_args(ExactLeaf))
Compiled = Filter | bool
"""A filter, or True (every record of the namespace) or False (none)."""

ALGEBRA: BooleanCompiler[Filter] = BooleanCompiler(
    all_of=lambda parts: {"$and": parts},
    one_of=lambda parts: {"$or": parts},
    negated=lambda part: {"$not": part},
)
every, some, none = ALGEBRA.every, ALGEBRA.some, ALGEBRA.none
MAX_VALUES = 10_000
"""How many values `$in` and `$nin` take (Pinecone's documentation, "Metadata filter limits")."""
_OPPOSITE = {"gt": "$lte", "gte": "$lt", "lt": "$gte", "lte": "$gt"}


class Compiler:
    """Compiles predicates over the metadata of one configured index."""

    def __init__(self, config: PineconeConfig, fields: Mapping[str, FieldType]) -> None:
        self._keys = config.keys
        self._fields = fields
        self._by_not = config.negation == "not"
        self._tags = {name: str(getattr(config.keys, name.removeprefix("@"))) for name in TAG_FIELDS}

    def compile(self, predicate: Predicate, *, negated: bool = False) -> Compiled:
        """Return *predicate*, or its negation, as a filter, or True or False. Raises: UnsupportedPredicateError."""
        return ALGEBRA.compile_pushed(predicate, self._leaf, negated=negated)

    def _leaf(self, leaf: Leaf, negated: bool) -> Compiled:  # noqa: FBT001
        if not isinstance(leaf, ExactLeaf):
            raise UnsupportedPredicateError(f"{type(leaf).__name__} has no form in Pinecone.")
        match leaf:
            case Missing(name):
                return exists(present_key(self._keys, name), there=negated)
            case Eq(name, value):
                return self._among(name, (value,), negated)
            case In(name, values) | ContainsAny(name, values):
                return self._among(name, values, negated)
            case Range():
                return self._range(leaf, negated)
            case _:
                assert_never(leaf)

    def _among(self, name: str, values: tuple[Scalar, ...], negated: bool) -> Compiled:  # noqa: FBT001
        kind = kind_of(name, self._fields)
        match kind:
            case FieldType.KEYWORD:
                operands: list[Any] = texts(values)
            case FieldType.BOOLEAN:
                operands = [flag(one) for one in values if isinstance(one, bool)]
            case FieldType.NUMBER:
                operands = numbers(values)
            case FieldType.KEYWORDS:
                return self._in_list(name, kind, texts(values), negated)
            case FieldType.NUMBERS:
                return self._in_list(name, kind, [number_text(one) for one in numbers(values)], negated)
            case FieldType.DATETIME:
                moments: list[Compiled] = [self._at(name, one, negated) for one in values if isinstance(one, datetime)]
                return every(moments) if negated else some(moments)
            case _:
                assert_never(kind)
        if name in TAG_FIELDS:
            return among(self._tags[name], operands, negated=negated, always=True)
        return among(field_key(self._keys, name, kind), operands, negated=negated, always=False)

    def _in_list(self, name: str, kind: FieldType, values: list[str], negated: bool) -> Compiled:  # noqa: FBT001
        key = field_key(self._keys, name, kind)
        condition = among(key, values, negated=False, always=False)
        if not negated:
            return condition
        if self._by_not or isinstance(condition, bool):
            return none(condition)
        return among(key, values, negated=True, always=False)

    def _at(self, name: str, value: datetime, negated: bool) -> Compiled:  # noqa: FBT001
        whole, part = moment_keys(self._keys, name)
        seconds, micros = moment(value)
        same = [
            among(whole, [seconds], negated=negated, always=False),
            among(part, [micros], negated=negated, always=False),
        ]
        return some(same) if negated else every(same)

    def _range(self, node: Range, negated: bool) -> Compiled:  # noqa: FBT001
        kind = kind_of(node.field, self._fields)
        limits = bounds(node)
        if kind is FieldType.NUMBER:
            tag = node.field in TAG_FIELDS
            key = self._tags[node.field] if tag else field_key(self._keys, node.field, kind)
            parts: list[Compiled] = [_bound(key, side, bound, negated=negated) for side, bound in limits.items()]
            if not negated:
                return every(parts)
            return some(parts if tag else [exists(key, there=False), *parts])
        if kind is FieldType.DATETIME:
            whole, part = moment_keys(self._keys, node.field)
            parts = [_moment_bound(whole, part, side, bound, negated=negated) for side, bound in limits.items()]
            return some([exists(whole, there=False), *parts]) if negated else every(parts)
        raise UnsupportedPredicateError(f"The field {node.field!r} has no order.", field=node.field)


def _bound(key: str, side: str, value: float, *, negated: bool) -> Filter:
    return {key: {_OPPOSITE[side] if negated else f"${side}": value}}


def _moment_bound(whole: str, part: str, side: str, value: datetime, *, negated: bool) -> Compiled:
    """Return that the moment is beyond the bound in seconds, or in its second and beyond it in microseconds."""
    seconds, micros = moment(value)
    operator = _OPPOSITE[side] if negated else f"${side}"
    strict = operator.removesuffix("e")  # $gte: a later second, or this second from these microseconds on
    return some([{whole: {strict: seconds}}, every([{whole: {"$eq": seconds}}, {part: {operator: micros}}])])


def exists(key: str, *, there: bool) -> Filter:
    """Return that the record has *key*, or has not."""
    return {key: {"$exists": there}}


def among(key: str, values: Sequence[Any], *, negated: bool, always: bool) -> Compiled:
    """Return that *key* has one of *values*, or none of them; *always* says that every record has the key.

    Raises: UnsupportedPredicateError if they are more than Pinecone takes.
    """
    if not values:
        return negated
    if len(values) > MAX_VALUES:
        raise UnsupportedPredicateError(
            f"A filter has a list of {len(values):,} values, but Pinecone's limit is {MAX_VALUES:,}; split it into "
            "several calls.",
            field="where",
        )
    if len(values) == 1:
        test: Filter = {key: {"$ne" if negated else "$eq": values[0]}}
    else:
        test = {key: {"$nin" if negated else "$in": list(values)}}
    if not negated or always:
        return test
    return some([exists(key, there=False), test])
