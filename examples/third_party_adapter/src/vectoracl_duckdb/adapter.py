"""What is asked becomes SQL, and rows become hits: pure, so that it is tested without a database."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import orjson

from vectoracl.adapter import Capabilities, Flow, Request
from vectoracl.errors import RefusedError, UnsupportedPredicateError
from vectoracl.fields import FieldType
from vectoracl.findings import Finding, Posture, Rule
from vectoracl.operations import ChunkRef, Count, Delete, Fetch, Found, Operation, Replace, Rows, Scan, Search, Upsert
from vectoracl.predicate import Always, And, ContainsAny, Eq, In, Missing, Never, Not, Or, Predicate, Range
from vectoracl.prepare import check_tagged, dump_metadata, load_metadata
from vectoracl.queries import ResolvedQuery, VectorQuery
from vectoracl.records import Hit, Tag

Row = tuple[Any, ...]
Statement = tuple[str, Row]

# A column has the name that its field has in a predicate: those of the tag begin with "@", as no metadata can.
TAG_TYPES = {"generation": "BIGINT", "rev": "BIGINT", "position": "BIGINT", "expires": "DOUBLE", "time": "DOUBLE"}
TYPES = dict(zip(FieldType, ("VARCHAR", "DOUBLE", "BOOLEAN", "TIMESTAMPTZ", "VARCHAR[]", "DOUBLE[]"), strict=True))
DOCGEN = """"@docgen" VARCHAR AS (length("@document") || ':' || "@document" || ':' || "@generation")"""
KEY = '"@document", "@generation", "@chunk"'
BEST = 'ORDER BY score DESC, "@document", "@chunk"'
NEWEST = """(SELECT max("@generation") FROM chunks AS old
    WHERE old."@tenant" = {0}."@tenant" AND old."@document" = {0}."@document")"""

LOOK = """SELECT count(DISTINCT substr(sql, strpos(sql, '('))), current_setting('default_collation')
    FROM duckdb_tables() WHERE table_name = 'chunks'"""
RULE = Rule("DUCK001", "another table or collation", "error", lowers=True, explanation="Unlike tenants may be equal.")


@dataclass(frozen=True, slots=True)
class Transaction(Request[list[Row]]):
    """One transaction; the reply is its last statement's rows. If `forbidden` finds a row, `action` is denied."""

    partition: str | None
    statements: tuple[Statement, ...]
    action: str = ""
    forbidden: Statement | None = None


def compiled(predicate: Predicate) -> Statement:
    """Return a condition that is true exactly where the reference says so, and never NULL, so that NOT is exact."""
    values: Row
    match predicate:
        case Always() | Never():
            return ("TRUE" if isinstance(predicate, Always) else "FALSE"), ()
        case And(operands) | Or(operands):
            parts = [compiled(one) for one in operands]
            word = " AND " if isinstance(predicate, And) else " OR "
            return f"({word.join(sql for sql, _ in parts)})", tuple(value for _, some in parts for value in some)
        case Not(operand):
            sql, values = compiled(operand)
            return f"(NOT {sql})", values
        case Missing(name):
            return f'("{name}" IS NULL)', ()
        case Eq(name, value):
            sql, values = f'"{name}" = ?', (value,)
        case In(name, some):
            sql, values = f'list_contains(?, "{name}")', (some,)
        case ContainsAny(name, some):
            sql, values = f'list_has_any("{name}", ?)', (some,)
        case Range(name, gt, gte, lt, lte):
            bounds = {sign: one for sign, one in {">": gt, ">=": gte, "<": lt, "<=": lte}.items() if one is not None}
            sql, values = " AND ".join(f'"{name}" {sign} ?' for sign in bounds), tuple(bounds.values())
        case _:
            raise UnsupportedPredicateError(f"{type(predicate).__name__} has no form in DuckDB.")
    return f"COALESCE({sql}, FALSE)", values


def named(refs: Iterable[ChunkRef]) -> Predicate:
    """Return the chunks of *refs* as a predicate over their tags."""
    found = ((Eq("@chunk", chunk), document) for chunk, document in refs)
    return Or((Never(), *(one if name is None else And((Eq("@document", name), one)) for one, name in found)))


def rows_of(verb: str, operation: Operation, chosen: Predicate, *, outside: bool = False) -> Statement:
    """Return *verb* over the rows that are *chosen* and that the scope permits (*outside*: that it does not permit)."""
    (scope, mine), (which, more) = compiled(operation.scope), compiled(chosen)
    where = f'"@tenant" = ? AND {"NOT " if outside else ""}{scope} AND {which}'
    return f"{verb} FROM chunks WHERE {where}", (operation.partition, *mine, *more)


class DuckAdapter:
    """One table. A search ranks all rows of its scope, and no others, in double precision."""

    def __init__(self, dimension: int, fields: Mapping[str, FieldType]) -> None:
        self.capabilities = Capabilities("predicate", "cosine", dimension, max_batch=1_000, parallel=4)
        self._fields = fields
        columns = {f"@{name}": TAG_TYPES.get(name, "VARCHAR") for name in Tag._fields}
        columns |= {"@text": "VARCHAR", "@metadata": "JSON", "@vector": f"FLOAT[{dimension}]"}
        columns |= {name: TYPES[kind] for name, kind in fields.items()}
        listed = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        self.table = f'chunks ({listed}, {DOCGEN}, PRIMARY KEY ("@tenant", {KEY}))'
        records = f"SELECT unnest(from_json(?, '{orjson.dumps([columns]).decode()}'), max_depth := 2)"
        generation = f'COALESCE({NEWEST.format("new")} + ?, 0) AS "@generation"'
        self._insert = f"INSERT OR REPLACE INTO chunks BY NAME SELECT * REPLACE ({generation}) FROM ({records}) AS new"

    def search(self, operation: Search) -> Flow[Found]:
        if not isinstance(operation.query, VectorQuery):
            raise UnsupportedPredicateError("DuckDB ranks by vector only.", field="query")
        least = -inf if operation.min_score is None else operation.min_score
        kind = f"DOUBLE[{self.capabilities.dimension}]"
        score = f'array_cosine_similarity("@vector"::{kind}, ?::{kind}) AS score'
        rows, values = rows_of(f"SELECT *, {score}", operation, operation.where)
        rows, values = f"SELECT * FROM ({rows}) WHERE score >= ?", (operation.query.vector.tolist(), *values, least)
        end, counts = f"{BEST} LIMIT ?", [operation.k]
        if operation.group_by is not None:
            rows = f'SELECT *, max(score) OVER (PARTITION BY "@document") AS best FROM ({rows})'
            place = f'row_number() OVER (PARTITION BY "@document" {BEST}) <= ?'
            end = f'QUALIFY {place} AND dense_rank() OVER (ORDER BY best DESC, "@document") <= ? {BEST}'
            counts = [operation.per_group, operation.k]
        statement = f"{_select(operation, 'score')} FROM ({rows}) {end}", (*values, *counts)
        return Found(self._hits((yield from Transaction(operation.partition, (statement,)))))

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        sql, values = rows_of(_select(operation), operation, named(operation.refs))
        return Rows(self._hits((yield from Transaction(operation.partition, ((f"{sql} ORDER BY {KEY}", values),)))))

    def scan(self, operation: Scan) -> Flow[Rows]:
        sql, values = rows_of(_select(operation), operation, operation.where)
        after = f"AND ({KEY}) > (?, ?, ?)" if operation.after else ""
        values += (*(operation.after or ()), operation.size + 1)  # the row beyond the page says that there are more
        statement = f"{sql} {after} ORDER BY {KEY} LIMIT ?", values
        hits = self._hits((yield from Transaction(operation.partition, (statement,))))
        return Rows(hits[: operation.size], more=len(hits) > operation.size)

    def count(self, operation: Count) -> Flow[int]:
        statement = rows_of("SELECT count(*)", operation, operation.where)
        return int((yield from Transaction(operation.partition, (statement,)))[0][0])

    def upsert(self, operation: Upsert) -> Flow[int]:
        return (yield from self._write(operation, step=0))

    def replace(self, operation: Replace) -> Flow[int]:
        sql, values = rows_of("DELETE", operation, Eq("@document", operation.document))
        older = f'"@generation" {"<" if operation.records else "<="} {NEWEST.format("chunks")}'
        return (yield from self._write(operation, (f"{sql} AND {older}", values), step=1))

    def _write(self, operation: Upsert | Replace, *more: Statement, step: int) -> Flow[int]:
        check_tagged(operation.records, operation.partition)
        rows = [
            {f"@{name}": value for name, value in record.tag._asdict().items()}
            | {"@text": record.text, "@vector": record.vector.tolist()}
            | {"@metadata": orjson.Fragment(dump_metadata(record.metadata))}
            | {name: value for name, value in record.metadata.items() if name in self._fields}
            for record in operation.records
        ]
        old = named(ChunkRef(record.tag.chunk, record.tag.document) for record in operation.records)
        old = Eq("@document", operation.document) if isinstance(operation, Replace) else old
        statements = ((self._insert, (step, orjson.dumps(rows).decode())), *more)
        forbidden = rows_of("SELECT 1", operation, old, outside=True)
        yield from Transaction(operation.partition, statements, type(operation).__name__.lower(), forbidden)
        return len(rows)

    def delete(self, operation: Delete) -> Flow[int | None]:
        chosen = Never() if operation.where is None else operation.where
        if operation.refs is not None:
            chosen = named(operation.refs)
        elif operation.document is not None:
            chosen = Eq("@document", operation.document)
        statement = rows_of("DELETE", operation, chosen)
        return int((yield from Transaction(operation.partition, (statement,), "delete"))[0][0])

    def posture(self) -> Flow[Posture]:
        ((tables, collation),) = yield from Transaction(None, ((f"CREATE TEMP TABLE {self.table}", ()), (LOOK, ())))
        if (tables, collation) == (1, ""):
            return Posture("predicate", ())
        fix = "Use an empty file, and leave default_collation as it is."
        return Posture("none", (Finding(RULE, "chunks", f"{tables} forms, collation {collation!r}", fix),))

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:  # noqa: ARG002 - nobody may ask
        raise RefusedError("This adapter has no unscoped search.")

    def _hits(self, rows: list[Row]) -> list[Hit]:
        hits = []
        for *tag, text, stored, array, score in rows:
            one, metadata = Tag(*tag), None if stored is None else load_metadata(stored, self._fields)
            vector = None if array is None else np.array(array, np.float32)
            hits.append(Hit(one.chunk, one.document, score, one.tenant, one.position, text, metadata, vector, one))
        return hits


def _select(operation: Search | Fetch | Scan, score: str = "0.0") -> str:
    columns = [f'"@{name}"' for name in Tag._fields]
    columns += [f'"@{name}"' if name in operation.include else "NULL" for name in ("text", "metadata", "vector")]
    return f"SELECT {', '.join(columns)}, {score}"
