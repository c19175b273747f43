"""Compiles a predicate to SQL with exactly the reference semantics: two-valued, so each leaf is closed with IS TRUE.

Metadata is one JSONB object whose declared fields were checked when they were written. A value of another type (in an
imported table) makes a comparison false, as in the reference. Tag fields are columns and never NULL.

Text in a declared datetime field that is not in the one stored form has no defined order, so a statement that would
have to compare it fails as a whole (`FOREIGN_FORM`), whether it reads, counts, writes or deletes. It fails only where
the answer depends on that comparison: the other conditions on the row are evaluated first.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple, assert_never, get_args

import orjson

from vectoracl.errors import UnsupportedPredicateError
from vectoracl.filters.datetimes import datetime_text
from vectoracl.filters.field_types import TAG_FIELDS, FieldType
from vectoracl.filters.predicate import (
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
)
from vectoracl_pgvector.names import Names, literal

ExactNode = Never | Always | And | Or | Not | Eq | In | Range | ContainsAny | StartsWith | Missing
"""The nodes that have an exact form in SQL; what is not among them is refused by the core."""
PREDICATES: frozenset[type[Predicate]] = frozenset(get_args(ExactNode))
Sql = tuple[str, tuple[Any, ...]]
_SIDES = (("gt", ">"), ("gte", ">="), ("lt", "<"), ("lte", "<="))
_JSON_TYPE = {FieldType.KEYWORD: "string", FieldType.NUMBER: "number", FieldType.BOOLEAN: "boolean"}
FOREIGN_FORM = "vectoracl:stored_form:"  # then the field's name in hex; casting it to boolean fails with this text
_FORM = r"YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\""
_COLUMN_TYPE = {FieldType.KEYWORD: "text", FieldType.NUMBER: "float8"}


class Values(NamedTuple):
    """SQL for counting rows by a field: `stored` is selected from each row, `value` from that; `rest` follows FROM."""

    stored: str
    value: str
    rest: str


class Compiler:
    """Compiles predicates over one table. `prefix` precedes each column (in ON CONFLICT: the table's alias).

    With `metadata` that SQL takes the place of the metadata column.
    """

    def __init__(
        self, names: Names, fields: Mapping[str, FieldType], prefix: str = "", metadata: str | None = None
    ) -> None:
        self._fields = fields
        c = names.c
        self._metadata = prefix + c.metadata if metadata is None else metadata
        self._columns = {
            "@document": prefix + c.document,
            "@chunk": prefix + c.chunk,
            "@generation": prefix + c.generation,
            "@docgen": _docgen(prefix + c.document, prefix + c.generation),
            "@label": prefix + c.label,
            "@rev": prefix + c.rev,
            "@expires": prefix + c.expires,
            "@producer": prefix + c.producer,
            "@path": prefix + c.path,
            "@time": prefix + c.time,
            "@position": prefix + c.position,
        }

    def compile(self, predicate: Predicate) -> Sql:
        """Return SQL of type boolean, never NULL, and its parameters. Raises: UnsupportedPredicateError."""
        node = _exact(predicate)
        match node:
            case Never():
                return "FALSE", ()
            case Always():
                return "TRUE", ()
            case And(operands):
                return self._all(operands)
            case Or(operands):
                return self._any(operands)
            case Not(operand):
                sql, params = self.compile(operand)
                return f"(NOT {sql})", params
            case Missing(name):
                return f"(NOT jsonb_exists({self._metadata}, {literal(name)}))", ()
            case Eq(name, value):
                return self._among(name, (value,))
            case In(name, values):
                return self._among(name, values)
            case Range():
                return self._range(node)
            case ContainsAny(name, values):
                items = f"{self._metadata} -> {literal(name)}"
                sql = (
                    f"EXISTS (SELECT 1 FROM jsonb_array_elements(CASE WHEN jsonb_typeof({items}) = 'array' "
                    f"THEN {items} ELSE '[]' END) AS listed(item) WHERE item = ANY(%s::jsonb[]))"
                )
                return sql, ([_json(value) for value in values],)
            case StartsWith(name, prefix):
                return self._starts(name), (prefix,)
            case _:
                assert_never(node)

    def values(self, name: str) -> Values:
        """Return the SQL that counts rows by the values of the field *name*.

        Values are grouped by JSONB equality, as in `_among`: 1 and 1.0 are one value. A list counts once for each of
        its distinct elements. A value of another type than the field's is not counted.

        Raises:
            UnsupportedPredicateError: The field's type cannot be counted.
        """
        if name in TAG_FIELDS:
            return Values(self._columns[name], "stored", "")
        kind = self._fields[name]
        json_type = _JSON_TYPE.get(kind.element)
        if json_type is None:
            raise UnsupportedPredicateError(f"The field {name!r} cannot be counted by value.", field=name)
        stored = f"{self._metadata} -> {literal(name)}"
        if not kind.is_list:
            return Values(stored, "stored", f" WHERE jsonb_typeof(stored) = '{json_type}'")
        each = (
            " CROSS JOIN LATERAL (SELECT DISTINCT item FROM jsonb_array_elements(CASE WHEN jsonb_typeof(stored) = "
            f"'array' THEN stored ELSE '[]' END) AS listed(item) WHERE jsonb_typeof(item) = '{json_type}') AS items"
        )
        return Values(stored, "item", each)

    def both(self, scope: Predicate, where: Predicate) -> Sql:
        """Return SQL for *scope* and *where* as separate operands; rows outside *scope* cannot fail in *where*."""
        sql, params = self.compile(scope)
        if not self._may_fail(where):
            more, values = self.compile(where)
            return f"{sql} AND {more}", (*params, *values)
        return self._before(scope, (where,))

    def _may_fail(self, predicate: Predicate) -> bool:
        """Return whether *predicate* compares a datetime in the metadata, which can fail."""
        node = _exact(predicate)
        match node:
            case And(operands) | Or(operands):
                return any(self._may_fail(one) for one in operands)
            case Not(operand):
                return self._may_fail(operand)
            case Eq(name) | In(name) | Range(name):
                return self._fields.get(name) is FieldType.DATETIME
            case Never() | Always() | ContainsAny() | StartsWith() | Missing():
                return False
            case _:
                assert_never(node)

    def _all(self, operands: tuple[Predicate, ...]) -> Sql:
        safe = tuple(one for one in operands if not self._may_fail(one))
        if not safe or len(safe) == len(operands):
            return self._joined(" AND ", operands)
        return self._before(And(safe), tuple(one for one in operands if self._may_fail(one)))

    def _before(self, first: Predicate, then: tuple[Predicate, ...]) -> Sql:
        """Return SQL for *first* and *then* that evaluates *then* only for rows that meet *first*.

        PostgreSQL evaluates the operands of AND in any order, but CASE in order. If *first* cannot fail, it precedes
        the CASE a second time, where it can be an index condition.
        """
        sql, params = self.compile(first)
        more, values = self._joined(" AND ", then)
        ordered = f"(CASE WHEN {sql} THEN {more} ELSE FALSE END)"
        if self._may_fail(first):
            return ordered, (*params, *values)
        return f"({sql} AND {ordered})", (*params, *params, *values)

    def _any(self, operands: tuple[Predicate, ...]) -> Sql:
        safe = tuple(one for one in operands if not self._may_fail(one))
        if not safe or len(safe) == len(operands):
            return self._joined(" OR ", operands)
        sql, params = self._joined(" OR ", safe)
        more, values = self._joined(" OR ", tuple(one for one in operands if self._may_fail(one)))
        return f"(CASE WHEN {sql} THEN TRUE ELSE {more} END)", (*params, *values)

    def _joined(self, word: str, operands: tuple[Predicate, ...]) -> Sql:
        parts = [self.compile(one) for one in operands]
        return "(" + word.join(sql for sql, _ in parts) + ")", tuple(param for _, params in parts for param in params)

    def _among(self, name: str, values: tuple[Scalar, ...]) -> Sql:
        if name in TAG_FIELDS:
            kind = _COLUMN_TYPE[TAG_FIELDS[name]]
            if len(values) == 1:
                return f"({self._columns[name]} = %s::{kind})", (values[0],)
            # psycopg sends lists of one type only, so numbers are sent in the type of the comparison.
            items = list(values) if kind == "text" else [float(v) for v in values]  # type: ignore[arg-type]  # numbers
            return f"({self._columns[name]} = ANY(%s::{kind}[]))", (items,)
        stored = f"{self._metadata} -> {literal(name)}"
        json_values = [_json(value) for value in values]
        test = f"{stored} = %s::jsonb" if len(values) == 1 else f"{stored} = ANY(%s::jsonb[])"
        if self._fields.get(name) is FieldType.DATETIME:
            test = self._formed(name, test)
        return f"(({test}) IS TRUE)", (json_values[0] if len(values) == 1 else json_values,)

    def _starts(self, name: str) -> str:
        """Return the test of a prefix: by bytes, which in UTF-8 is by code points, whatever the collation."""
        if name in TAG_FIELDS:
            return f'starts_with({self._columns[name]} COLLATE "C", %s::text)'
        stored, text = f"{self._metadata} -> {literal(name)}", f"({self._metadata} ->> {literal(name)})"
        return f"((jsonb_typeof({stored}) = 'string' AND starts_with({text} COLLATE \"C\", %s::text)) IS TRUE)"

    def _formed(self, name: str, test: str) -> str:
        """Return *test* of a stored datetime: NULL for a value that is not text, an error for text in another form."""
        stored, text = f"{self._metadata} -> {literal(name)}", f"({self._metadata} ->> {literal(name)})"
        # The expression has to depend on the row: PostgreSQL evaluates constants while planning.
        fails = f"({literal(FOREIGN_FORM + name.encode().hex())} || left({text}, 0))::boolean"
        return (
            f"CASE WHEN jsonb_typeof({stored}) = 'string' THEN "
            f"CASE WHEN {is_moment(self._metadata, name)} THEN {test} ELSE {fails} END END"
        )

    def _range(self, node: Range) -> Sql:
        bounds = [(sign, getattr(node, side)) for side, sign in _SIDES if getattr(node, side) is not None]
        if node.field in TAG_FIELDS:
            column = self._columns[node.field]
            sql = " AND ".join(f"{column} {sign} %s::float8" for sign, _ in bounds)
            return f"({sql})", tuple(bound for _, bound in bounds)
        stored, text = f"{self._metadata} -> {literal(node.field)}", f"({self._metadata} ->> {literal(node.field)})"
        kind = self._fields[node.field]
        match kind:
            case FieldType.NUMBER:
                json_type, value, cast = "number", f"{text}::numeric", "numeric"
            case FieldType.DATETIME:
                # One fixed-width text form in UTC, so the order of bytes is the order of time.
                json_type, value, cast = "", f'{text} COLLATE "C"', "text"
            case FieldType.KEYWORD | FieldType.BOOLEAN | FieldType.KEYWORDS | FieldType.NUMBERS:
                raise UnsupportedPredicateError(f"The field {node.field!r} has no order.", field=node.field)
            case _:
                assert_never(kind)
        tests = " AND ".join(f"{value} {sign} %s::{cast}" for sign, _ in bounds)
        # CASE fixes the order of evaluation: a value of another type is never cast.
        sql = f"CASE WHEN jsonb_typeof({stored}) = '{json_type}' THEN {tests} END"
        if kind is FieldType.DATETIME:
            sql = self._formed(node.field, tests)
        return f"(({sql}) IS TRUE)", tuple(_ordered(bound) for _, bound in bounds)


def _exact(predicate: Predicate) -> ExactNode:
    if not isinstance(predicate, ExactNode):
        raise UnsupportedPredicateError(f"{type(predicate).__name__} cannot be expressed in SQL.")
    return predicate


def is_moment(metadata: str, name: str) -> str:
    """Return SQL that is true exactly for texts that `load_metadata` reads as datetimes, else false or NULL.

    The text is parsed by its form and written again, and has to be unchanged (JSON has no trailing zeros in a
    fraction). This works on PostgreSQL 13 and fails for no text; a regular expression would be slower.
    """
    text = f"({metadata} ->> {literal(name)})"
    path = literal(f'$."{name}".datetime("{_FORM}")')
    return (
        f"{text} COLLATE \"C\" LIKE '____-__-__T__:__:__.______Z' "
        f"AND jsonb_path_query_first({metadata}, {path}, silent => true) #>> '{{}}' "
        f"= rtrim(rtrim(left({text}, 26), '0'), '.')"
    )


def _docgen(document: str, generation: str) -> str:
    """Return SQL for `records.docgen`: length() counts code points, as Python does."""
    return f"(length({document}) || ':' || {document} || ':' || {generation})"


def _ordered(bound: float | datetime) -> str:
    return datetime_text(bound) if isinstance(bound, datetime) else orjson.dumps(bound).decode()


def _json(value: Scalar) -> str:
    return orjson.dumps(datetime_text(value) if isinstance(value, datetime) else value).decode()
