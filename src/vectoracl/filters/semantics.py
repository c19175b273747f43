"""The meaning of a predicate: the one reference of adapters, the memory store, the kit's oracle and the second lock.

A row is (tag, metadata): a field that begins with "@" is read from the tag, any other from the metadata. Values are
those of `fields.typed`; a row's metadata was checked against the declared types when it was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, assert_never

from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import (
    MAX_EXACT_INT,
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
    StartsWith,
    node_of,
)
from vectoracl.model.records import Facet, Tag

Row = tuple[Tag, Mapping[str, Any]]
Test = Callable[[Tag, Mapping[str, Any]], bool]
_ABSENT: Any = object()


_FAMILY_OF: Mapping[type, type] = {str: str, bool: bool, int: float, float: float, datetime: datetime}


def _family(value: object) -> type:
    """Return the type by which values are compared: numbers together, everything else by its own type."""
    known = _FAMILY_OF.get(type(value))  # the usual types, without a chain of tests: this runs for every value
    if known is not None:
        return known
    if isinstance(value, bool):
        return bool
    if isinstance(value, int | float):
        return float
    if isinstance(value, datetime):
        return datetime
    return type(value)


def getter(name: str) -> Callable[[Tag, Mapping[str, Any]], Any]:
    """Return what reads the field *name* of a row; what a row has not reads as a value that equals none."""
    if name.startswith("@"):
        attribute = name[1:]
        return lambda tag, _: getattr(tag, attribute)
    return lambda _, metadata: metadata.get(name, _ABSENT)


def _keys(values: tuple[Scalar, ...]) -> frozenset[tuple[type, Scalar]]:
    return frozenset((_family(value), value) for value in values)


def _among_words(get: Callable[[Tag, Mapping[str, Any]], Any], words: frozenset[Scalar]) -> Test:
    """Return the test of `In` for values that are all strings: without pairs of type and value, long lists are fast."""

    def among(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        field_value = get(tag, metadata)
        return type(field_value) is str and field_value in words

    return among


def compile_test(predicate: Predicate) -> Test:
    """Compile *predicate* to a closure over (tag, metadata); one call costs about a microsecond.

    The meaning, for a field f of a row: Eq, In and Range are true only if f is present and has the value's type;
    ContainsAny only if f is a list with one of the values; StartsWith only if f is text that begins with the prefix;
    Missing if f is absent; And, Or and Not are two-valued.
    """
    node = node_of(predicate)
    match node:
        case Never():
            return lambda _tag, _metadata: False
        case Always():
            return lambda _tag, _metadata: True
        case Eq(name, value):
            return _equals(getter(name), value)
        case In(name, values) if {*map(type, values)} == {str}:
            return _among_words(getter(name), frozenset(values))
        case In(name, values):
            get, keys = getter(name), _keys(values)

            def among(tag: Tag, metadata: Mapping[str, Any]) -> bool:
                field_value = get(tag, metadata)
                return (
                    isinstance(field_value, str | int | float | datetime)
                    and (_family(field_value), field_value) in keys
                )

            return among
        case ContainsAny(name, values):
            get, keys = getter(name), _keys(values)

            def contains(tag: Tag, metadata: Mapping[str, Any]) -> bool:
                field_value = get(tag, metadata)
                return isinstance(field_value, list | tuple) and any(
                    # What is written before a field is declared may hold lists of lists, which equal no value.
                    isinstance(one, str | int | float | datetime) and (_family(one), one) in keys
                    for one in field_value
                )

            return contains
        case Range():
            return _within(node)
        case StartsWith(name, prefix):
            get = getter(name)
            return lambda tag, metadata: isinstance(text := get(tag, metadata), str) and text.startswith(prefix)
        case Missing(name):
            get = getter(name)
            return lambda tag, metadata: get(tag, metadata) is _ABSENT
        case And(operands):
            return _every(tuple(compile_test(one) for one in operands))
        case Or(operands):
            return _some(tuple(compile_test(one) for one in operands))
        case Not(operand):
            test = compile_test(operand)
            return lambda tag, metadata: not test(tag, metadata)
        case _:
            assert_never(node)


def _every(tests: tuple[Test, ...]) -> Test:
    def every(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        for test in tests:  # noqa: SIM110 - a generator costs as much as a test
            if not test(tag, metadata):
                return False
        return True

    return every


def _some(tests: tuple[Test, ...]) -> Test:
    def some(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        for test in tests:  # noqa: SIM110 - a generator costs as much as a test
            if test(tag, metadata):
                return True
        return False

    return some


def _equals(get: Callable[[Tag, Mapping[str, Any]], Any], value: Scalar) -> Test:
    family = _family(value)

    def equals(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        field_value = get(tag, metadata)
        return field_value is not _ABSENT and _family(field_value) is family and bool(field_value == value)

    return equals


def _within(predicate: Range) -> Test:
    get = getter(predicate.field)
    gt, gte, lt, lte = predicate.gt, predicate.gte, predicate.lt, predicate.lte
    family = _family(next(bound for bound in (gt, gte, lt, lte) if bound is not None))

    def within(tag: Tag, metadata: Mapping[str, Any]) -> bool:
        field_value = get(tag, metadata)
        if field_value is _ABSENT or _family(field_value) is not family:
            return False
        return (
            (gt is None or field_value > gt)
            and (gte is None or field_value >= gte)
            and (lt is None or field_value < lt)
            and (lte is None or field_value <= lte)
        )

    return within


def matches(predicate: Predicate, tag: Tag, metadata: Mapping[str, Any]) -> bool:
    """Tell whether the row matches, by the reference meaning of `compile_test`."""
    return compile_test(predicate)(tag, metadata)


_FAMILIES: Mapping[FieldType, type] = {FieldType.KEYWORD: str, FieldType.NUMBER: float, FieldType.BOOLEAN: bool}


def values_of(kind: FieldType, stored: object) -> frozenset[str | int | float | bool]:
    """Return the values that a row has in a field of the type *kind* which holds *stored* (see `getter`).

    Those are the values v for which `Eq(field, v)` is true of the row, and for a list `ContainsAny(field, (v,))`: what
    is of another type than the field's is not a value, an element that comes twice is one, and numbers are one if they
    are equal, so a whole number is an int in either form. Datetimes have no values here.
    """
    family = _FAMILIES.get(kind.element)
    if not kind.is_list:
        held: Iterable[Any] = (stored,)
    elif isinstance(stored, list | tuple):
        held = stored
    else:
        held = ()
    return frozenset(one_value(one) for one in held if _family(one) is family)


def one_value(value: str | int | float | bool) -> str | int | float | bool:  # noqa: FBT001 - it is the value itself
    """Return the one form of *value*: a whole number, up to ±2**53, is an int."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_EXACT_INT:
        return int(value)
    return value


def tallied(rows: Iterable[Iterable[str | int | float | bool]], most: int) -> list[Facet]:
    """Count *rows* by the values that each has; stops at one value more than *most*, which the core refuses."""
    counts: Counter[str | int | float | bool] = Counter()
    for values in rows:
        counts.update(values)
        if len(counts) > most:
            break
    return [Facet(value, count) for value, count in counts.items()]
