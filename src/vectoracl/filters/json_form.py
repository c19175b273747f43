"""The JSON form of a predicate and its schema."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, assert_never

from vectoracl.errors import InvalidInputError
from vectoracl.filters.datetimes import MOMENT_PATTERN, datetime_text, parse_datetime
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import (
    ALWAYS,
    MAX_DEPTH,
    MAX_EXACT_INT,
    NEVER,
    Always,
    And,
    ContainsAny,
    Eq,
    Field,
    In,
    Missing,
    Never,
    Not,
    Or,
    Predicate,
    Range,
    Scalar,
    StartsWith,
    conjunction,
    disjunction,
    node_of,
)

_COMPARE = ("eq", "ne", "lt", "lte", "gt", "gte", "contains", "starts_with")
_LISTS = ("in", "not_in", "contains_any", "contains_all")
_BARE = ("missing", "exists")
_FORMS = 'use one of {"and": […]}, {"or": […]}, {"not": …}, {"field": …, "op": …, "value": …}'


def _plain(value: Scalar) -> str | int | float | bool:
    return datetime_text(value) if isinstance(value, datetime) else value


def to_dict(predicate: Predicate) -> dict[str, Any]:
    """Return the JSON form of *predicate*; datetimes become RFC 3339 text."""
    node = node_of(predicate)
    match node:
        case Never():
            return {"never": True}
        case Always():
            return {"always": True}
        case Eq(name, value):
            return {"field": name, "op": "eq", "value": _plain(value)}
        case In(name, values):
            return {"field": name, "op": "in", "value": [_plain(value) for value in values]}
        case ContainsAny(name, values):
            return {"field": name, "op": "contains_any", "value": [_plain(value) for value in values]}
        case StartsWith(name, prefix):
            return {"field": name, "op": "starts_with", "value": prefix}
        case Missing(name):
            return {"field": name, "op": "missing"}
        case Range(name):
            sides = ((side, getattr(node, side)) for side in ("gt", "gte", "lt", "lte"))
            parts = [{"field": name, "op": side, "value": _plain(bound)} for side, bound in sides if bound is not None]
            return parts[0] if len(parts) == 1 else {"and": parts}
        case And(operands):
            return {"and": [to_dict(one) for one in operands]}
        case Or(operands):
            return {"or": [to_dict(one) for one in operands]}
        case Not(operand):
            return {"not": to_dict(operand)}
        case _:
            assert_never(node)


def from_dict(data: object, _place: str = "filter", _depth: int = 1) -> Predicate:
    """Read the JSON form; see `Predicate.from_dict`."""
    if _depth > MAX_DEPTH:
        raise InvalidInputError(f"The filter is nested deeper than {MAX_DEPTH} levels; flatten it.", field="where")
    if not isinstance(data, Mapping) or not data:
        raise InvalidInputError(
            f"{_place}: a non-empty object is needed; {_FORMS}. To filter by nothing, leave the filter out.",
            field="where",
        )
    keys = frozenset(data)
    if keys == {"and"} or keys == {"or"}:
        (word,) = keys
        parts = data[word]
        if not isinstance(parts, list) or not parts:
            raise InvalidInputError(f"{_place}.{word}: a list of at least one filter is needed.", field="where")
        read = [from_dict(part, f"{_place}.{word}[{index}]", _depth + 1) for index, part in enumerate(parts)]
        return conjunction(read) if word == "and" else disjunction(read)
    if keys == {"not"}:
        return ~from_dict(data["not"], f"{_place}.not", _depth + 1)
    if keys == {"never"} or keys == {"always"}:
        (word,) = keys
        if data[word] is not True:
            raise InvalidInputError(f"{_place}.{word}: must be true.", field="where")
        return NEVER if word == "never" else ALWAYS
    if keys in ({"field", "op"}, {"field", "op", "value"}):
        return _comparison(data, _place)
    raise InvalidInputError(f"{_place}: unknown form; {_FORMS}. There is no implicit and.", field="where")


def _comparison(data: Mapping[str, Any], place: str) -> Predicate:
    name, op = data["field"], data["op"]
    if not isinstance(name, str):
        raise InvalidInputError(f"{place}.field: must be a string.", field="where")
    ref = Field(name)
    has_value = "value" in data
    if not isinstance(op, str):
        raise InvalidInputError(f"{place}.op: must be a string.", field="where")
    if op in _BARE:
        if has_value:
            raise InvalidInputError(f"{place}: {op} takes no value.", field="where")
        return ref.is_missing() if op == "missing" else ref.exists()
    if op not in _COMPARE + _LISTS:
        known = ", ".join(_COMPARE + _LISTS + _BARE)
        raise InvalidInputError(f"{place}.op: unknown; use one of {known}.", field="where")
    if not has_value:
        raise InvalidInputError(f"{place}: {op} needs a value.", field="where")
    value = data["value"]
    if op in _LISTS:
        if not isinstance(value, list):
            raise InvalidInputError(f"{place}.value: {op} needs a list.", field="where")
        method = {
            "in": ref.in_,
            "not_in": ref.not_in,
            "contains_any": ref.contains_any,
            "contains_all": ref.contains_all,
        }
        return method[op](value)
    match op:
        case "eq":
            return ref.__eq__(value)
        case "ne":
            return ref.__ne__(value)
        case "contains":
            return ref.contains(value)
        case "starts_with":
            return ref.starts_with(value)
    if isinstance(value, str):
        # Only datetimes are ordered text; the check against the declared type reads it or refuses it.
        value = parse_datetime(name, value)
    return {"lt": ref.__lt__, "lte": ref.__le__, "gt": ref.__gt__, "gte": ref.__ge__}[op](value)


def json_schema(fields: Mapping[str, FieldType]) -> dict[str, Any]:
    """Return the JSON schema (2020-12) of the JSON form over *fields*; see `Predicate.json_schema`."""
    value_of: dict[FieldType, dict[str, Any]] = {
        FieldType.KEYWORD: {"type": "string", "maxLength": 1024, "pattern": "^[^\\u0000]*$"},
        FieldType.NUMBER: {"type": "number", "minimum": -MAX_EXACT_INT, "maximum": MAX_EXACT_INT},
        FieldType.BOOLEAN: {"type": "boolean"},
        FieldType.DATETIME: {"type": "string", "format": "date-time", "pattern": MOMENT_PATTERN},
    }

    def comparison(name: str, ops: tuple[str, ...], value: dict[str, Any] | None) -> dict[str, Any]:
        properties: dict[str, Any] = {"field": {"const": name}, "op": {"enum": list(ops)}}
        if value is not None:
            properties["value"] = value
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    leaves: list[dict[str, Any]] = []
    for name, kind in fields.items():
        one = value_of[kind.element]
        some = {"type": "array", "items": one, "maxItems": 10_000}
        if kind.is_list:
            leaves.append(comparison(name, ("contains",), one))
            leaves.append(comparison(name, ("contains_any",), some))
            leaves.append(comparison(name, ("contains_all",), {**some, "minItems": 1}))
        else:
            ordered = ("lt", "lte", "gt", "gte") if kind in (FieldType.NUMBER, FieldType.DATETIME) else ()
            leaves.append(comparison(name, ("eq", "ne", *ordered), one))
            leaves.append(comparison(name, ("in", "not_in"), some))
            if kind is FieldType.KEYWORD:
                leaves.append(comparison(name, ("starts_with",), {**one, "minLength": 1}))
        leaves.append(comparison(name, _BARE, None))
    nested = {"type": "array", "items": {"$ref": "#/$defs/filter"}, "minItems": 1}

    def only(word: str, value: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {word: value},
            "required": [word],
            "additionalProperties": False,
        }

    forms = [only("and", nested), only("or", nested), only("not", {"$ref": "#/$defs/filter"}), *leaves]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/filter",
        "$defs": {"filter": {"oneOf": forms}},
    }
