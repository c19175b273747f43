"""What is asked becomes SQL, and rows become hits: pure, so that it is tested without a database."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from orjson import Fragment, dumps

from vectoracl.adapter_api.chunk_validation import check_tagged, dump_metadata, load_metadata
from vectoracl.adapter_api.contract import Capabilities, Flow, Request
from vectoracl.adapter_api.operations import Count, Delete, Fetch, Found, Operation, Replace, Rows, Scan, Search, Upsert
from vectoracl.adapter_api.posture import Finding, Posture, Rule
from vectoracl.errors import RefusedError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Always, And, ContainsAny, Eq, In, Missing, Never, Not, Or, Predicate, Range
from vectoracl.model.queries import ResolvedQuery, VectorQuery
from vectoracl.model.records import Hit, Tag

Row = tuple[Any, ...]
Statement = tuple[str, Row]
# A column has the name that its field has in a predicate: those of the tag begin with "@", as no metadata can.
TAG_TYPES = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE"}
TYPES = dict(zip(FieldType, ("VARCHAR", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ", "VARCHAR[]", "DOUBLE[]"), strict=True))
DOCGEN = """"@docgen" VARCHAR AS (length("@document") || ':' || "@document" || ':' || "@generation")"""
SQL = {And: " AND ", Or: " OR ", Eq: '"{}" = ?', In: 'list_contains(?, "{}")', ContainsAny: 'list_has_any("{}", ?)'}
ACTIONS = frozenset({"search", "fetch", "count", "scan", "upsert", "replace", "delete"})
NODES = frozenset({Always, Never, And, Or, Not, Missing, Eq, In, ContainsAny, Range})
IDS = """EXISTS(FROM (SELECT unnest(?::TEXT[]) c, unnest(?::TEXT[]) d) WHERE c = "@chunk" AND d IN ('', "@document"))"""
KEY = '"@document", "@generation", "@chunk"'
COLUMNS = (*Tag._fields, "text", "metadata", "vector")
SCORE = 'list_cosine_similarity("@vector"::DOUBLE[], ?::DOUBLE[]) AS score'
BEST = 'ORDER BY score DESC, "@document", "@chunk"'
NEWEST = 'SELECT max("@generation") FROM chunks o WHERE o."@tenant" = {0}."@tenant" AND o."@document" = {0}."@document"'
LOOK = "SELECT count(DISTINCT sql[strpos(sql, '('):]), current_setting('default_collation') FROM duckdb_tables()"
# Under another collation names that differ are equal: the one thing that would make one tenant of two.
RULE = Rule("DUCK001", "another table or collation", "error", lowers=True, explanation="Tenants could merge.")


@dataclass(frozen=True, slots=True)
class Transaction(Request[list[Row]]):
    """One transaction; the reply is its last statement's rows. If `forbidden` finds a row, `action` is denied."""

    partition: str | None
    statements: tuple[Statement, ...]
    action: str = ""
    forbidden: Statement | None = None


def compiled(predicate: Predicate) -> Statement:
    """Return a condition that is true exactly where the reference says so, and never NULL, so that NOT is exact."""
    match predicate:
        case Always() | Never():
            return ("TRUE" if isinstance(predicate, Always) else "FALSE"), ()
        case And(operands) | Or(operands):
            parts, some = zip(*map(compiled, operands), strict=True)
            return f"({SQL[type(predicate)].join(parts)})", tuple(value for one in some for value in one)
        case Not(operand):
            sql, values = compiled(operand)
            return f"(NOT {sql})", values
        case Missing(name):
            return f'("{name}" IS NULL)', ()
        case Eq(name, value) | In(name, value) | ContainsAny(name, value):
            sql, values = SQL[type(predicate)].format(name), (value,)
        case Range(name, gt, gte, lt, lte):
            bounds = {sign: one for sign, one in {">": gt, ">=": gte, "<": lt, "<=": lte}.items() if one is not None}
            sql, values = " AND ".join(f'"{name}" {sign} ?' for sign in bounds), tuple(bounds.values())
    return f"COALESCE({sql}, FALSE)", values


def chosen_by(operation: Operation) -> Statement:
    """Return the condition of the rows that *operation* names, whoever may touch them."""
    refs: tuple[tuple[str, str], ...] = ()  # (chunk, document), "" for every document
    match operation:
        case Search(where=where) | Count(where=where) | Scan(where=where) | Delete(where=Predicate() as where):
            return compiled(where)
        case Replace(document=str(document)) | Delete(document=str(document)):
            return '"@document" = ?', (document,)
        case Fetch(refs=tuple(named)) | Delete(refs=tuple(named)):
            refs = tuple((chunk, document or "") for chunk, document in named)
        case Upsert(records=records):
            refs = tuple((record.tag.chunk, record.tag.document) for record in records)
    return IDS, tuple(zip(*refs, strict=True)) or ((), ())


def rows_of(verb: str, operation: Operation, *, outside: bool = False) -> Statement:
    """Return *verb* over the named rows that the scope permits or, *outside*, over those that it does not permit."""
    (scope, values), (chosen, more) = compiled(operation.scope), chosen_by(operation)
    sql = f'{verb} FROM chunks WHERE "@tenant" = ? AND {"NOT " if outside else ""}{scope} AND {chosen}'
    return sql, (operation.partition, *values, *more)


class DuckAdapter:
    """One table. A search ranks all rows of its scope, and no others, in double precision."""

    def __init__(self, dimension: int, fields: Mapping[str, FieldType]) -> None:
        self.capabilities = Capabilities("predicate", "cosine", dimension, ACTIONS, NODES, max_batch=1_000, parallel=4)
        self._fields = fields
        columns = {f"@{name}": TAG_TYPES[type(value)] for name, value in Tag("", "", "")._asdict().items()}
        columns |= {"@text": "VARCHAR", "@metadata": "JSON", "@vector": f"FLOAT[{dimension}]"}
        columns |= {name: TYPES[kind] for name, kind in fields.items()}
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self.table = f'chunks ({listed}, {DOCGEN}, PRIMARY KEY ("@tenant", {KEY}))'
        records = f"SELECT unnest(from_json(?, '{dumps([columns]).decode()}'), max_depth := 2)"
        generation = f'COALESCE(({NEWEST.format("new")}) + ?, 0) AS "@generation"'
        self._insert = f"INSERT OR REPLACE INTO chunks BY NAME SELECT * REPLACE ({generation}) FROM ({records}) AS new"

    def search(self, operation: Search) -> Flow[Found]:
        if not isinstance(operation.query, VectorQuery):
            raise UnsupportedPredicateError("DuckDB ranks by vector only.", field="query")
        rows, values = rows_of(f"SELECT *, {SCORE}", operation)
        end, counts = f"{BEST} LIMIT ?", [operation.k]
        if operation.group_by is not None:
            rows = f'SELECT *, max(score) OVER (PARTITION BY "@document") AS best FROM ({rows})'
            place = f'row_number() OVER (PARTITION BY "@document" {BEST}) <= ?'
            end = f'QUALIFY {place} AND dense_rank() OVER (ORDER BY best DESC, "@document") <= ? {BEST}'
            counts = [operation.per_group, operation.k]
        sql = f"{_select(operation, 'score')} FROM ({rows}) {end}"
        values = (tuple(operation.query.vector.tolist()), *values, *counts)
        hits = self._hits((yield from Transaction(operation.partition, ((sql, values),))))
        return Found([hit for hit in hits if operation.min_score is None or hit.score >= operation.min_score])

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        sql, values = rows_of(_select(operation), operation)
        return Rows(self._hits((yield from Transaction(operation.partition, ((f"{sql} ORDER BY {KEY}", values),)))))

    def scan(self, operation: Scan) -> Flow[Rows]:
        sql, values = rows_of(_select(operation), operation)
        sql += f" AND ({KEY}) > (?, ?, ?)" if operation.after else ""
        values += (*(operation.after or ()), operation.size + 1)  # the row beyond the page says that there are more
        hits = self._hits((yield from Transaction(operation.partition, ((f"{sql} ORDER BY {KEY} LIMIT ?", values),))))
        return Rows(hits[: operation.size], more=len(hits) > operation.size)

    def count(self, operation: Count) -> Flow[int]:
        return int((yield from Transaction(operation.partition, (rows_of("SELECT count(*)", operation),)))[0][0])

    def upsert(self, operation: Upsert) -> Flow[int]:
        return (yield from self._write(operation, step=0))

    def replace(self, operation: Replace) -> Flow[int]:
        sql, values = rows_of("DELETE", operation)
        older = f'"@generation" {"<" if operation.records else "<="} ({NEWEST.format("chunks")})'
        return (yield from self._write(operation, (f"{sql} AND {older}", values), step=1))

    def _write(self, operation: Upsert | Replace, *more: Statement, step: int) -> Flow[int]:
        check_tagged(operation.records, operation.partition)
        rows = [
            {f"@{name}": value for name, value in one.tag._asdict().items()}
            | {"@text": one.text, "@vector": one.vector.tolist(), "@metadata": Fragment(dump_metadata(one.metadata))}
            | {name: value for name, value in one.metadata.items() if name in self._fields}
            for one in operation.records
        ]
        statements = ((self._insert, (step, dumps(rows).decode())), *more)
        forbidden = rows_of("SELECT 1", operation, outside=True)
        yield from Transaction(operation.partition, statements, type(operation).__name__.lower(), forbidden)
        return len(rows)

    def delete(self, operation: Delete) -> Flow[int | None]:
        return int((yield from Transaction(operation.partition, (rows_of("DELETE", operation),), "delete"))[0][0])

    def posture(self) -> Flow[Posture]:
        ((tables, collation),) = yield from Transaction(None, ((f"CREATE TEMP TABLE {self.table}", ()), (LOOK, ())))
        finding = Finding(RULE, "chunks", f"{tables} forms, collation {collation!r}", "Use a file of its own.")
        return Posture("predicate", ()) if (tables, collation) == (1, "") else Posture("none", (finding,))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:  # noqa: ARG002 - nobody may ask
        raise RefusedError("This adapter has no unscoped search.")

    def _hits(self, rows: list[Row]) -> list[Hit]:
        hits = []
        for *tag, text, stored, array, score in rows:
            one, metadata = Tag(*tag), None if stored is None else load_metadata(stored, self._fields)
            vector = None if array is None else np.array(array, np.float32)
            hits.append(Hit(one.chunk, one.document, score, one.tenant, one.position, text, metadata, vector, one))
        return hits


def _select(operation: Search | Fetch | Scan, score: str = "0e0") -> str:
    shown = (f'"@{name}"' if name in {*Tag._fields, *operation.include} else "NULL" for name in COLUMNS)
    return f"SELECT {', '.join(shown)}, {score}"
