"""The typed fields that a filter may use: the metadata that config declares, and the tag's own."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import assert_never, cast

from vectoracl.errors import (
    ConfigError,
    InvalidInputError,
    ReservedFieldError,
    UnsupportedPredicateError,
    without_context,
)
from vectoracl.filters.datetimes import parse_datetime
from vectoracl.filters.field_types import CALLER_TAG_FIELDS, TAG_FIELDS, FieldType
from vectoracl.filters.predicate import (
    MAX_KEYWORD_BYTES,
    MAX_VALUES,
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
    scalar,
)
from vectoracl.model.identifiers import invisible

MAX_NODES = 1_000
_WORDS = frozenset({FieldType.KEYWORD, FieldType.KEYWORDS})
_NUMBERS = frozenset({FieldType.NUMBER, FieldType.NUMBERS})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}\Z")
# Refused on top of the encoding that already keeps user keys apart from tags: who writes these means the tag.
_RESERVED_KEYS = frozenset({"tenant", "tenant_id", "tenantid", "group_id", "groupid", "namespace", "docgen"})
_RESERVED_PREFIXES = ("@", "$", "vectoracl", "_vectoracl", "#")


def declarable(name: str) -> bool:
    """Tell whether a metadata key has the form of a field: only such keys can be declared, now or later."""
    return _NAME.match(name) is not None


def reserved_key(key: str) -> bool:
    """Tell whether a metadata key, in any case, means the framework's tag."""
    if not key.isascii():
        # Wide letters and invisible characters are for a person the same name.
        key = "".join(char for char in unicodedata.normalize("NFKC", key) if not invisible(char))
    folded = key.casefold().strip()
    return folded in _RESERVED_KEYS or folded.startswith(_RESERVED_PREFIXES)


@without_context
def check_fields(declared: Mapping[str, str]) -> dict[str, FieldType]:
    """Return the declared metadata fields with their types.

    Raises: ConfigError for a name that is not an identifier of up to 63 ASCII characters, that is reserved or that
    differs from another in case only (some stores fold names), and for an unknown type.
    """
    fields: dict[str, FieldType] = {}
    folded: set[str] = set()
    for name, kind in declared.items():
        if not _NAME.match(name):
            raise ConfigError(f"The metadata field {name!r} must be a name of letters, digits and _, 63 at most.")
        if reserved_key(name):
            raise ConfigError(f"The metadata field {name!r} is a name of the framework; choose another.")
        if name.casefold() in folded:
            raise ConfigError(f"The metadata field {name!r} is declared twice in different case.")
        folded.add(name.casefold())
        try:
            fields[name] = FieldType(kind)
        except ValueError:
            known = ", ".join(one.value for one in FieldType)
            raise ConfigError(f"The metadata field {name!r} has an unknown type; use one of {known}.") from None
    return fields


def typed(name: str, kind: FieldType, value: object) -> Scalar:
    """Return *value* as one value of the type *kind*; datetimes may come as RFC 3339 text.

    Raises: InvalidInputError if the type differs (nothing is coerced: neither True nor "1" is a number).
    """
    # The usual values, without a chain of tests: this runs for every value of every chunk.
    if type(value) is str and kind in _WORDS and value.isascii() and len(value) <= MAX_KEYWORD_BYTES:
        if "\0" not in value:
            return value
    elif type(value) is float and kind in _NUMBERS and math.isfinite(value):
        return value + 0.0  # -0.0 becomes 0.0
    if isinstance(value, list | tuple):
        raise InvalidInputError(f"The field {name!r} holds a {kind.value}, not {type(value).__name__}.", field=name)
    one = scalar(value, f"The value for {name!r}")
    match kind:
        case FieldType.KEYWORD | FieldType.KEYWORDS:
            fits = isinstance(one, str)
        case FieldType.NUMBER | FieldType.NUMBERS:
            fits = isinstance(one, int | float) and not isinstance(one, bool)
        case FieldType.BOOLEAN:
            fits = isinstance(one, bool)
        case FieldType.DATETIME:
            if isinstance(one, str):
                one = parse_datetime(name, one)
            fits = isinstance(one, datetime)
        case _:
            assert_never(kind)
    if not fits:
        raise InvalidInputError(f"The field {name!r} holds a {kind.value}, not {type(value).__name__}.", field=name)
    return one


def _plain_words(values: tuple[Scalar, ...]) -> bool:
    """Return whether *values* are ASCII strings that `typed` would return unchanged; a long list is checked as one."""
    if type(values) is not tuple or {*map(type, values)} != {str}:
        return False
    words = cast("tuple[str, ...]", values)
    whole = "".join(words)
    return whole.isascii() and "\0" not in whole and max(map(len, words)) <= MAX_KEYWORD_BYTES


class _Check:
    """One walk over a predicate: types, names and size."""

    def __init__(self, fields: Mapping[str, FieldType], tags: Callable[[str], bool]) -> None:
        self._fields = fields
        self._tags = tags
        self._nodes = 0
        self._count = 0

    def kind(self, name: str) -> FieldType:
        if type(name) is not str:  # a subclass could be one name here and another one in the store
            raise InvalidInputError("The name of a field must be a string.", field="where")
        if name.startswith("@"):
            if name not in TAG_FIELDS or not self._tags(name):
                raise ReservedFieldError(
                    f"{name!r} is a field of the tag; a filter may use {', '.join(sorted(CALLER_TAG_FIELDS))}.",
                    field=name,
                )
            return TAG_FIELDS[name]
        kind = self._fields.get(name)
        if kind is None:
            if reserved_key(name):
                raise ReservedFieldError(
                    f"{name!r} is a name of the framework; a filter narrows the scope and never chooses it.",
                    field=name,
                )
            known = ", ".join(sorted(self._fields)) or "none"
            raise UnsupportedPredicateError(
                f"The field {name!r} is not declared, so it cannot be filtered by. Declared: {known}. "
                "Add it under [stores.NAME.metadata].",
                field=name,
            )
        return kind

    def single(self, name: str) -> FieldType:
        kind = self.kind(name)
        if kind.is_list:
            raise UnsupportedPredicateError(
                f"The field {name!r} holds a list; use contains, contains_any or contains_all.", field=name
            )
        return kind

    def walk(self, predicate: Predicate) -> Predicate:
        node = node_of(predicate)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise InvalidInputError(f"A filter has at most {MAX_NODES:,} parts; use in_ for long lists.")
        match node:
            case Never() | Always():
                return node
            case Eq(name, value):
                return Eq(name, typed(name, self.single(name), value))
            case In(name, values):
                return In(name, self.many(name, self.single(name), values))
            case ContainsAny(name, values):
                kind = self.kind(name)
                if not kind.is_list:
                    raise UnsupportedPredicateError(f"The field {name!r} holds one value; use == or in_.", field=name)
                return ContainsAny(name, self.many(name, kind, values))
            case Range(name):
                return self.range(node)
            case StartsWith(name, prefix):
                kind = self.single(name)
                if kind is not FieldType.KEYWORD:
                    raise UnsupportedPredicateError(
                        f"The field {name!r} holds a {kind.value}; only a keyword starts with something.", field=name
                    )
                return StartsWith(name, str(typed(name, kind, prefix)))
            case Missing(name):
                self.kind(name)
                if name.startswith("@"):
                    raise UnsupportedPredicateError(f"Every row has {name!r}; it is never missing.", field=name)
                return node
            case And(operands):
                return And(tuple(self.walk(one) for one in operands))
            case Or(operands):
                return Or(tuple(self.walk(one) for one in operands))
            case Not(operand):
                return Not(self.walk(operand))
            case _:
                assert_never(node)

    def many(self, name: str, kind: FieldType, values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        self._count += len(values)
        if not values or self._count > MAX_VALUES:
            raise InvalidInputError(f"A filter holds 1 to {MAX_VALUES:,} values in its lists.", field=name)
        if kind in _WORDS and _plain_words(values):
            return values
        return tuple(typed(name, kind, value) for value in values)

    def range(self, node: Range) -> Range:
        kind = self.single(node.field)
        if kind not in (FieldType.NUMBER, FieldType.DATETIME):
            raise UnsupportedPredicateError(
                f"The field {node.field!r} holds a {kind.value}, which has no order; use == or in_.",
                field=node.field,
            )
        bounds = {side: getattr(node, side) for side in ("gt", "gte", "lt", "lte")}
        typed_bounds = {side: typed(node.field, kind, value) for side, value in bounds.items() if value is not None}
        if not typed_bounds:
            raise InvalidInputError(f"The range of {node.field!r} has no bound.", field=node.field)
        return Range(node.field, **typed_bounds)  # type: ignore[arg-type]  # typed() has just checked them


def check_filter(where: Predicate, fields: Mapping[str, FieldType]) -> Predicate:
    """Check a caller's filter against the declared *fields*; return it with its values in their types.

    Raises: ReservedFieldError, UnsupportedPredicateError (undeclared field, operator that the type has not),
    InvalidInputError (value of another type, too many parts).
    """
    if isinstance(where, Always):
        return where
    return _Check(fields, CALLER_TAG_FIELDS.__contains__).walk(where)


def check_scope_predicate(predicate: Predicate, fields: Mapping[str, FieldType]) -> Predicate:
    """Check a policy's predicate: as `check_filter`, but all of the tag's fields may be used."""
    if isinstance(predicate, Always | Never):
        return predicate
    return _Check(fields, lambda _: True).walk(predicate)


def fields_of(predicate: Predicate) -> frozenset[str]:
    """Return the names of all fields that *predicate* reads."""
    node = node_of(predicate)
    match node:
        case Never() | Always():
            return frozenset()
        case And(operands) | Or(operands):
            return frozenset().union(*(fields_of(one) for one in operands))
        case Not(operand):
            return fields_of(operand)
        case _:
            return frozenset({node.field})
