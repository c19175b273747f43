"""What a predicate means: the one reference of every adapter, the memory store, the kit's oracle and the second lock.

A row is (tag, metadata): a field that begins with "@" is read from the tag, any other from the metadata. Values are
those of `fields.typed`; a row's metadata was checked against the declared types when it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from vectoracl.errors import InvalidInputError
from vectoracl.predicate import (
    Always,
    And,
    ContainsAny,
    Eq,
    In,
    Missing,
    Never,
    Not,
    Or,
    Predicate,
    Range,
    Scalar,
)
from vectoracl.records import Tag

Row = tuple[Tag, Mapping[str, Any]]
Test = Callable[[Tag, Mapping[str, Any]], bool]
_ABSENT: Any = object()


def _family(value: object) -> type:
    """Return the type by which values are compared: numbers together, everything else by its own type."""
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    if isinstance(value, datetime):
        return datetime
    return type(value)


def _getter(name: str) -> Callable[[Tag, Mapping[str, Any]], Any]:
    if name.startswith("@"):
        attribute = name[1:]
        return lambda tag, _: getattr(tag, attribute)
    return lambda _, metadata: metadata.get(name, _ABSENT)


def _keys(values: tuple[Scalar, ...]) -> frozenset[tuple[type, Scalar]]:
    return frozenset((_family(value), value) for value in values)


def compile_test(predicate: Predicate) -> Test:
    """Compile *predicate* to a closure over (tag, metadata); one call costs about a microsecond.

    The meaning, for a field f of a row: Eq, In and Range are true only if f is present and has the value's type;
    ContainsAny only if f is a list with one of the values; Missing if f is absent; And, Or and Not are two-valued.
    """
    match predicate:
        case Never():
            return lambda _tag, _metadata: False
        case Always():
            return lambda _tag, _metadata: True
        case Eq(name, value):
            return _equals(_getter(name), value)
        case In(name, values):
            get, wanted = _getter(name), _keys(values)

            def among(tag: Tag, metadata: Mapping[str, Any]) -> bool:
                found = get(tag, metadata)
                return isinstance(found, str | int | float | datetime) and (_family(found), found) in wanted

            return among
        case ContainsAny(name, values):
            get, wanted = _getter(name), _keys(values)

            def contains(tag: Tag, metadata: Mapping[str, Any]) -> bool:
                found = get(tag, metadata)
                return isinstance(found, list | tuple) and any((_family(one), one) in wanted for one in found)

            return contains
        case Range():
            return _within(predicate)
        case Missing(name):
            get = _getter(name)
            return lambda tag, metadata: get(tag, metadata) is _ABSENT
        case And(operands):
            tests = tuple(compile_test(one) for one in operands)
            return lambda tag, metadata: all(test(tag, metadata) for test in tests)
        case Or(operands):
            tests = tuple(compile_test(one) for one in operands)
            return lambda tag, metadata: any(test(tag, metadata) for test in tests)
        case Not(operand):
            test = compile_test(operand)
            return lambda tag, metadata: not test(tag, metadata)
    raise InvalidInputError(f"{type(predicate).__name__} is not a part of the algebra.")


def _equals(get: Callable[[Tag, Mapping[str, Any]], Any], value: Scalar) -> Test:
    family = _family(value)

    def equals(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        found = get(tag, metadata)
        return found is not _ABSENT and _family(found) is family and bool(found == value)

    return equals


def _within(predicate: Range) -> Test:
    get = _getter(predicate.field)
    gt, gte, lt, lte = predicate.gt, predicate.gte, predicate.lt, predicate.lte
    family = _family(next(bound for bound in (gt, gte, lt, lte) if bound is not None))

    def within(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        found = get(tag, metadata)
        if found is _ABSENT or _family(found) is not family:
            return False
        return (
            (gt is None or found > gt)
            and (gte is None or found >= gte)
            and (lt is None or found < lt)
            and (lte is None or found <= lte)
        )

    return within


def matches(predicate: Predicate, tag: Tag, metadata: Mapping[str, Any]) -> bool:
    """Tell whether the row matches, by the reference meaning of `compile_test`."""
    return compile_test(predicate)(tag, metadata)
