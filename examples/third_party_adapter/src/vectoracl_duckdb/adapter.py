"""Operations become SQL, and rows become hits: pure, so that it is tested without a database."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from orjson import Fragment, dumps

import vectoracl.adapter_api as api

Statement = tuple[str, tuple[Any, ...]]
# A column has the name that its field has in a predicate: those of the tag begin with "@", as no metadata can.
TAG_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}
TYPES = dict(zip(api.FieldType, ("VARCHAR", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ", "VARCHAR[]", "DOUBLE[]"), strict=True))
DOCGEN = """"@docgen" VARCHAR AS (length("@document") || ':' || "@document" || ':' || "@generation")"""
TAG = ", ".join(f'"@{name}"' for name in api.Tag._fields)
KEY = '"@document", "@generation", "@chunk"'
NEWEST = 'SELECT max("@generation") FROM chunks o WHERE o."@tenant" = {0}."@tenant" AND o."@document" = {0}."@document"'
REFS = 'EXISTS(FROM (SELECT unnest(?::TEXT[]) c, unnest(?::TEXT[]) d) WHERE c="@chunk" AND ifnull(d="@document", TRUE))'
SCORE = 'list_cosine_similarity("@vector"::DOUBLE[], ?::DOUBLE[])'
# The nodes of a filter that have an exact form here, all of them never NULL, so that NOT is exact.
FORMS = {api.Always: "TRUE", api.Never: "FALSE", api.And: " AND ", api.Or: " OR ", api.Not: "(NOT {})"}
FORMS |= {api.Missing: '("{}" IS NULL)', api.Eq: 'COALESCE("{}" = ?, FALSE)', api.Range: "COALESCE({}, FALSE)"}
FORMS |= {api.In: 'COALESCE(list_contains(?, "{}"), FALSE)', api.ContainsAny: 'COALESCE(list_has_any("{}", ?), FALSE)'}
ACTIONS = frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"})
LOOK = "SELECT count(DISTINCT sql[strpos(sql, '('):]), current_setting('default_collation') FROM duckdb_tables()"
# Under another collation names that differ are equal: the one thing that would make one tenant of two.
RULE = api.Rule("DUCK001", "another table or collation", "error", lowers=True, explanation="Tenants could merge.")


@dataclass(frozen=True, slots=True)
class Transaction(api.Request[list[Any]]):
    """One transaction; the reply is its last statement's rows. If `forbidden` finds a row, `action` is denied."""

    partition: str | None
    statements: tuple[Statement, ...]
    action: str = ""
    forbidden: Statement | None = None


def compiled(predicate: api.Predicate) -> Statement:
    """Return a condition that is true exactly where `vectoracl.filters.semantics` says so."""
    form = FORMS[type(predicate)]
    match predicate:
        case api.And(operands) | api.Or(operands):
            parts, values = zip(*map(compiled, operands), strict=True)
            return f"({form.join(parts)})", tuple(one for some in values for one in some)
        case api.Not(operand):
            sql, values = compiled(operand)
            return form.format(sql), values
        case api.Range(name, gt, gte, lt, lte):
            bounds = {sign: one for sign, one in {">": gt, ">=": gte, "<": lt, "<=": lte}.items() if one is not None}
            return form.format(" AND ".join(f'"{name}" {sign} ?' for sign in bounds)), tuple(bounds.values())
        case api.Eq(name, value) | api.In(name, value) | api.ContainsAny(name, value):
            return form.format(name), (value,)
    return form.format(getattr(predicate, "field", "")), ()


def rows_of(verb: str, operation: api.Operation, *values: Any, outside: bool = False) -> Statement:
    """Return *verb* over the selected rows that the scope permits or, *outside*, over those that it does not permit."""
    (scope, permitted), rows = compiled(operation.scope), api.selected_by(operation)
    named = compiled(rows) if isinstance(rows, api.Predicate) else (REFS, tuple(zip(*rows, strict=True)) or ((), ()))
    sql = f'{verb} FROM chunks WHERE "@tenant" = ? AND {"NOT " if outside else ""}{scope} AND {named[0]}'
    return sql, (*values, operation.partition, *permitted, *named[1])


class DuckAdapter:
    """One table. A search ranks all rows of its scope, and no others, in double precision."""

    def __init__(self, dimension: int, fields: dict[str, api.FieldType]) -> None:
        can = {"group_by": False, "max_batch": 1_000, "parallel": 4}
        self.capabilities = api.Capabilities("predicate", "cosine", dimension, ACTIONS, frozenset(FORMS), **can)
        self._fields = fields
        columns = {f"@{name}": TAG_TYPES[type(value)] for name, value in api.Tag("", "", "")._asdict().items()}
        columns |= {"@text": "VARCHAR", "@metadata": "JSON", "@vector": f"FLOAT[{dimension}]"}
        columns |= {name: TYPES[kind] for name, kind in fields.items()}
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self.table = f'chunks ({listed}, {DOCGEN}, PRIMARY KEY ("@tenant", {KEY}))'
        records = f"SELECT unnest(from_json(?, '{dumps([columns]).decode()}'), max_depth := 2)"
        generation = f'COALESCE(({NEWEST.format("new")}) + ?, 0) AS "@generation"'
        self._insert = f"INSERT OR REPLACE INTO chunks BY NAME SELECT * REPLACE ({generation}) FROM ({records}) AS new"

    def search(self, operation: api.Search) -> api.Flow[api.Found]:
        if not isinstance(operation.query, api.VectorQuery):
            raise api.UnsupportedPredicateError("DuckDB ranks by vector only.", field="query")
        end, vector = f'ORDER BY "@score" DESC, {KEY} LIMIT ?', operation.query.vector.tolist()
        hits = yield from self._read(operation, end, operation.k, score=SCORE, given=(vector,))
        return api.Found([hit for hit in hits if operation.min_score is None or hit.score >= operation.min_score])

    def fetch(self, operation: api.Fetch) -> api.Flow[api.Rows]:
        return api.Rows((yield from self._read(operation, f"ORDER BY {KEY} LIMIT ?", operation.most + 1)))

    def scan(self, operation: api.Scan) -> api.Flow[api.Rows]:
        end = f"{f'AND ({KEY}) > (?, ?, ?)' if operation.after else ''} ORDER BY {KEY} LIMIT ?"
        # The row beyond the page says that there are more.
        hits = yield from self._read(operation, end, *(operation.after or ()), operation.size + 1)
        return api.Rows(hits[: operation.size], more=len(hits) > operation.size)

    def _read(self, operation: Any, end: str, *values: Any, score: str = "0e0", given: Any = ()) -> api.Flow[list[Any]]:
        content = (f'"@{name}"' if name in operation.include else "NULL" for name in ("text", "metadata", "vector"))
        sql, some = rows_of(f'SELECT {score} AS "@score", {", ".join(content)}, {TAG}', operation, *given)
        rows = yield from Transaction(operation.partition, ((f"{sql} {end}", (*some, *values)),))
        return [self._hit(*row) for row in rows]

    def _hit(self, score: float, text: Any, stored: Any, array: Any, *tag: Any) -> api.Hit:
        metadata = None if stored is None else api.load_metadata(stored, self._fields)
        return api.hit_of(api.Tag(*tag), score, text, metadata, None if array is None else np.array(array, np.float32))

    def count(self, operation: api.Count) -> api.Flow[int]:
        return int((yield from Transaction(operation.partition, (rows_of("SELECT count(*)", operation),)))[0][0])

    def upsert(self, operation: api.Upsert | api.Replace) -> api.Flow[int]:
        api.check_tagged(operation.records, operation.partition)
        rows = [
            {f"@{name}": value for name, value in tag._asdict().items()}
            | {"@text": text, "@vector": vector.tolist(), "@metadata": Fragment(api.dump_metadata(metadata))}
            | {name: metadata.get(name) for name in self._fields}
            for tag, text, vector, metadata in operation.records
        ]
        step, (sql, values) = int(isinstance(operation, api.Replace)), rows_of("DELETE", operation)
        older = f'{sql} AND "@generation" {"<" if rows else "<="} ({NEWEST.format("chunks")})'
        statements = ((self._insert, (step, dumps(rows).decode())), (older, values))
        forbidden = rows_of("SELECT 1", operation, outside=True)
        yield from Transaction(operation.partition, statements, api.OPERATIONS[type(operation)].action, forbidden)
        return len(rows)

    replace = upsert

    def delete(self, operation: api.Delete) -> api.Flow[int | None]:
        return int((yield from Transaction(operation.partition, (rows_of("DELETE", operation),), "delete"))[0][0])

    def posture(self) -> api.Flow[api.Posture]:
        ((tables, collation),) = yield from Transaction(None, ((f"CREATE TEMP TABLE {self.table}", ()), (LOOK, ())))
        finding = api.Finding(RULE, "chunks", f"{tables} forms, collation {collation!r}", "Use a separate file.")
        return api.Posture("predicate", ()) if (tables, collation) == (1, "") else api.Posture("none", (finding,))

    def unscoped(self, query: api.ResolvedQuery, k: int) -> api.Flow[api.Found]:  # noqa: ARG002 - never performed
        raise api.RefusedError("This adapter has no unscoped search.")
