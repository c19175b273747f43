"""Compiles one operation to one request. Pure.

Two walls separate tenants, and neither replaces the other:

1. Row-level security (`schema`): the policies compare the tenant column with the setting `vectoracl.tenant`, which each
   transaction sets for itself. Alone it is correct but slow, because PostgreSQL prunes partitions late.
2. The explicit predicate: every statement compares the tenant column with a parameter. Alone it is fast, but one
   forgotten line would remove it.

With both, a statement whose predicate and setting differ never executes a scan. Every statement is therefore built from
the same three operands, which are never merged: the tenant, the scope, and the caller's filter (`_rows`).

Searches come in three kinds:

- By vector: exact, through the vector index, or by bits (`compile_ranking`).
- Lexical and hybrid: a common table expression ranks first (`compile_words`, `compile_bm25`).
- Grouped: window functions rank documents and the rows within each, of all documents or of those that are best by bits.

Only the best rows are converted and returned: the inner query ranks, the outer one selects the columns. For vectors the
inner query returns nothing but the place of each row; carrying all columns through the sort takes a third of the time
for 2,000 rows.

Writes take the tenant's advisory lock first, shared for upserts and deletes, exclusive for a replacement. A move to
another tier holds the same lock. A write that touches rows outside its scope fails as a whole by dividing by zero, in
the same round trip (`_all_or_fail`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.operations import (
    ChunkRef,
    Count,
    Delete,
    Facets,
    Fetch,
    Include,
    Relabel,
    Replace,
    Scan,
    Search,
    UpdateMetadata,
    Upsert,
)
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, Always, Predicate
from vectoracl.model.queries import HybridQuery, Lexical, ResolvedQuery, VectorQuery
from vectoracl.model.records import Record, Vector
from vectoracl_pgvector import compile_bm25, word_index
from vectoracl_pgvector.compile_predicate import Compiler, Sql
from vectoracl_pgvector.compile_ranking import (
    PARTLY_FORCED,
    Form,
    Settings,
    Statements,
    effort_settings,
    settings_for,
    unindexed,
)
from vectoracl_pgvector.compile_words import Near, NearByBits, Ranking, Rows, Scored, hybrid, lexical
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import SAFE_PATH, SETTING, Names, literal
from vectoracl_pgvector.ranking import CANDIDATES, Way
from vectoracl_pgvector.requests import ArrayParam, Statement, Transaction, VectorParam, VectorsParam
from vectoracl_pgvector.word_index import MAX_RANKED, WordIndex

MAX_EF = 1000
# Rows of a fusion that the index of words gives. Each is scored once more, which takes 50 to 200 µs.
WORDS_DEPTH = 50


class PgCompiler:
    """Compiles the operations of one configured store."""

    def __init__(self, config: PgvectorConfig, fields: Mapping[str, FieldType]) -> None:
        self.config = config
        self._half = config.type == "halfvec"
        self.names = names = Names.of(config)
        self._predicates = Compiler(names, fields)
        self._conflict = Compiler(names, fields, prefix="old.")
        self._changed = Compiler(names, fields, prefix="old.", metadata="new.metadata")
        c = names.c
        self._key = f"{c.document}, {c.generation}, {c.chunk}"
        self._tag = (
            f"{c.tenant}, {self._key}, {c.label}, {c.rev}, {c.expires}, {c.producer}, {c.path}, {c.time}, {c.position}"
        )
        self._shared = f"tableoid = {literal(names.default)}::regclass"
        self._written = (
            f"{c.tenant}, {c.document}, {c.generation}, {c.chunk}, {c.label}, {c.rev}, {c.expires}, {c.producer}, "
            f"{c.path}, {c.time}, {c.position}, {c.text}, {c.metadata}, {c.vector}"
        )
        updated = (c.label, c.rev, c.expires, c.producer, c.path, c.time, c.position, c.text, c.metadata, c.vector)
        self._updates = ", ".join(f"{column} = EXCLUDED.{column}" for column in updated)
        self._source = (
            "unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::float8[], %s::text[], %s::text[], "
            f"%s::float8[], %s::int4[], %s::text[], %s::jsonb[], %s::{names.vector_type}[]) "
            "AS new(document, chunk, label, rev, expires, producer, path, time, position, text, metadata, vector)"
        )
        self._lock_space = f"vectoracl:{config.schema_name}.{config.table}:"
        self._tenant = f"{c.tenant} = %s::text"
        self._ranking = Statements(config, names, self._select)
        self._distance = self._ranking.distance

    def _select(self, include: Include, shared: str | None = None) -> str:
        c = self.names.c
        text = c.text if "text" in include else "NULL::text"
        metadata = f"{c.metadata}::text" if "metadata" in include else "NULL::text"
        # Cast, since the table may have been changed to the other type since this process started (`retype`).
        vector = f"{c.vector if 'vector' in include else 'NULL'}::{self.names.vector_type}"
        return (
            f"{shared or self._shared}, {self._tag}, {text} AS returned_text, {metadata} AS returned_metadata, "
            f"{vector} AS returned_vector"
        )

    def _ranked_columns(self, include: Include) -> str:
        """Return the columns that a ranking carries along; they are converted only for the best rows."""
        c = self.names.c
        named = (("text", c.text), ("metadata", c.metadata), ("vector", c.vector))
        return ", ".join([f"{self._shared} AS in_shared", self._tag, *[sql for one, sql in named if one in include]])

    def _rows(self, partition: str, scope: Predicate, where: Predicate) -> Sql:
        """Return the WHERE of one partition: tenant, scope and filter as three separate operands."""
        tenant = self._tenant
        predicates = [one for one in (scope, where) if type(one) is not Always]
        if not predicates:
            return tenant, (partition,)
        sql, params = (
            self._predicates.both(*predicates) if len(predicates) > 1 else self._predicates.compile(predicates[0])
        )
        return f"{tenant} AND {sql}", (partition, *params)

    def _scope(self, partition: str) -> tuple[tuple[str, str], ...]:
        # Only pg_catalog: no object that a role may create in another schema can replace a function or operator.
        return ((SETTING, partition), SAFE_PATH)

    def search(
        self,
        operation: Search,
        query: ResolvedQuery,
        *,
        exact: bool,
        index: WordIndex | None = None,
        leg: tuple[Way, int] | None = None,
    ) -> Transaction:
        """Compile a search; *exact* excludes the vector index from the plan, and rankings by the *index* of words.

        *leg* is the way of the vector in a hybrid search, with the number of candidates by bits.
        """
        names = self.names
        rows = Rows(*self._rows(operation.partition, operation.scope, operation.where))
        settings: tuple[tuple[str, str], ...] = ()
        if isinstance(query, Lexical):
            if self.config.words == "bm25":
                best = operation.k if operation.group_by is None else None
                scored = self._scored(operation, query.text, rows, index, exact=exact, limit=best)
                ranking = compile_bm25.ranking(names, scored)
            else:
                ranking = lexical(names, query.text)
        else:
            exact = exact or operation.group_by is not None
            if isinstance(query, VectorQuery) and operation.group_by is None:
                return self.nearest(operation, query, "exact" if exact else "indexed", CANDIDATES)
            effort = self._effort(operation)
            settings = () if exact else effort_settings(effort)
            near: Near | NearByBits = self._near(query.vector, exact=exact)
            if isinstance(query, HybridQuery):
                depth = None if exact else self.depth(operation)
                if depth is not None and leg is not None:
                    near, settings = self._leg(operation, query, rows, leg, depth)
                legs = None
                if self.config.words == "bm25":
                    most = None if depth is None else max(operation.k, WORDS_DEPTH)
                    legs = self._scored(operation, query.text, rows, index, exact=exact, limit=most)
                ranking = hybrid(names, query.text, near, rows, depth=depth, scored=legs)
            else:
                every = self._near(query.vector, exact=True)
                ranking = Ranking(every.distance, names.table, every.params)
        return self._read(operation.partition, self._ranked(operation, ranking, rows), settings)

    def _leg(
        self, operation: Search, query: HybridQuery, rows: Rows, leg: tuple[Way, int], depth: int
    ) -> tuple[Near | NearByBits, Settings]:
        """Return the vector leg of a hybrid search in one of its ways, with the settings of the search."""
        way, candidates = leg
        if way == "bits":
            vector = VectorParam(query.vector, half=self._half)
            return self._ranking.leg(vector, rows, candidates, depth), PARTLY_FORCED
        exact = way == "exact"
        return self._near(query.vector, exact=exact), () if exact else effort_settings(self._effort(operation))

    def depth(self, operation: Search) -> int:
        """Return the number of rows of the vector leg of a hybrid search."""
        return max(self._effort(operation), operation.k)

    def groups(self, operation: Search, query: VectorQuery, candidates: int) -> Transaction:
        """Compile a grouped search by vector, by bits; see `Statements.groups`."""
        rows = Rows(*self._rows(operation.partition, operation.scope, operation.where))
        vector = VectorParam(query.vector, half=self._half)
        ranking = self._ranking.groups(vector, rows, operation.k, candidates)
        return self._read(operation.partition, self._ranked(operation, ranking, rows), PARTLY_FORCED)

    def _scored(
        self, operation: Search, text: str, rows: Rows, index: WordIndex | None, *, exact: bool, limit: int | None
    ) -> Scored:
        """Return the rows that hold a word, ranked by BM25 in the best way that *index* and *exact* allow."""
        if index is None:
            return compile_bm25.linear(self.names, text, operation.partition, rows, limit)
        if exact or limit is None or limit > MAX_RANKED:
            return compile_bm25.filtered(self.names, index, text, rows, limit)
        return compile_bm25.by_index(self.names, index, text, rows, limit)

    def find_words(self, partition: str) -> Transaction:
        """Compile the request for the index of *partition*'s words."""
        return self._read(partition, word_index.find(self.config, partition))

    def nearest(
        self,
        operation: Search,
        query: VectorQuery,
        form: Form,
        candidates: int,
        counted: tuple[Predicate, Predicate] | None = None,
    ) -> Transaction:
        """Compile a search by vector in one of its forms (`compile_ranking`).

        Args:
            operation: The search.
            query: Its vector.
            form: The form.
            candidates: The number of rows that are compared exactly in the form "bits".
            counted: For the form "filtered": the parts of scope and filter whose rows are counted.
        """
        tenant = operation.partition
        rows = Rows(*self._rows(tenant, operation.scope, operation.where))
        some = rows if counted is None else Rows(*self._rows(tenant, *counted))
        vector = VectorParam(query.vector, half=self._half)
        statement = self._ranking.ranked(form, operation.include, vector, rows, operation.k, candidates, tenant, some)
        return self._read(operation.partition, statement, settings_for(form, self._effort(operation)))

    def decision(self, partition: str, counted: Predicate, where: Predicate = ALWAYS, *, filtered: bool) -> Transaction:
        """Compile the decision how a scope is ranked; *counted* is what the index of bits can count of it."""
        rows = Rows(*self._rows(partition, counted, where))
        return self._read(partition, self._ranking.decision(rows, partition, filtered=filtered))

    def _effort(self, operation: Search) -> int:
        """Return the effort of a search of the HNSW index."""
        return max(operation.tuning.get("ef_search", self.config.ef_search), min(operation.k, MAX_EF))

    def _outer(self, operation: Search) -> str:
        return f"SELECT {self._select(operation.include, 'in_shared')}, distance"

    def _ranked(self, operation: Search, ranking: Ranking, rows: Rows) -> Statement:
        """Return the statement for the best rows of an exact *ranking*, or the best documents with their best rows."""
        source = f"FROM {ranking.source} WHERE {rows.where}{ranking.also}"
        columns, distance = self._ranked_columns(operation.include), ranking.distance
        before = f"{ranking.before}{self._outer(operation)}{ranking.last}"
        first = (*ranking.before_params, *ranking.last_params, *ranking.params, *ranking.extra_params)
        columns = f"{columns}, {distance} AS distance{ranking.extra}"
        if operation.group_by is None:
            sql = f"{before} FROM (SELECT {columns} {source} ORDER BY distance, {self._key} LIMIT %s) AS best"
            return Statement(sql, (*first, *rows.params, operation.k))
        document = self.names.c.document
        sql = (
            f"{before} FROM (SELECT *, dense_rank() OVER (ORDER BY best, {document}) "
            f"AS place FROM (SELECT {columns}, "
            f"row_number() OVER (PARTITION BY {document} ORDER BY {distance}, {self._key}) AS turn, "
            f"min({distance}) OVER (PARTITION BY {document}) AS best {source}) AS ranked) AS grouped "
            f"WHERE place <= %s AND turn <= %s ORDER BY distance, {self._key}"
        )
        values = (*first, *ranking.params * 2, *rows.params, operation.k, operation.per_group)
        return Statement(sql, values)

    def _near(self, vector: Vector, *, exact: bool) -> Near:
        param = VectorParam(vector, half=self._half)
        distance = self._distance
        if exact:
            return Near(unindexed(distance), "leg_distance", (param,))
        return Near(distance, distance, (param,))

    def rank_all(self, query: VectorQuery, k: int) -> Statement:
        """Compile the statement that `hazmat` runs once under each tenant's scope."""
        names = self.names
        vector = VectorParam(query.vector, half=self._half)
        distance = self._distance
        sql = (
            f"SELECT {self._select(frozenset({'text', 'metadata'}))}, {unindexed(distance)} AS distance "
            f"FROM {names.table} "
            f"WHERE {names.c.tenant} = current_setting('{SETTING}') ORDER BY distance, {self._key} LIMIT %s"
        )
        return Statement(sql, (vector, k))

    def fetch(self, operation: Fetch) -> Transaction:
        """Compile a fetch by ids."""
        where, params = self._rows(operation.partition, operation.scope, Always())
        named, ids = self._refs(operation.refs)
        sql = f"SELECT {self._select(operation.include)}, 0::float8 AS distance FROM {self.names.table} "
        sql += f"WHERE {where} AND {named} ORDER BY {self._key} LIMIT %s"
        return self._read(operation.partition, Statement(sql, (*params, *ids, operation.most + 1)))

    def _refs(self, refs: tuple[ChunkRef, ...]) -> Sql:
        c = self.names.c
        bare = [ref.chunk for ref in refs if ref.document is None]
        pairs = [(ref.document, ref.chunk) for ref in refs if ref.document is not None]
        sql = (
            f"({c.chunk} = ANY(%s::text[]) OR ({c.document}, {c.chunk}) IN "
            "(SELECT one.document, one.chunk FROM unnest(%s::text[], %s::text[]) AS one(document, chunk)))"
        )
        return sql, (bare, [document for document, _ in pairs], [chunk for _, chunk in pairs])

    def count(self, operation: Count) -> Transaction:
        """Compile a count."""
        where, params = self._rows(operation.partition, operation.scope, operation.where)
        return self._read(
            operation.partition, Statement(f"SELECT count(*) FROM {self.names.table} WHERE {where}", params)
        )

    def facets(self, operation: Facets) -> Transaction:
        """Compile a count by value, with one value more than requested, to detect that there are too many."""
        where, params = self._rows(operation.partition, operation.scope, operation.where)
        values = self._predicates.values(operation.field)
        sql = (
            f"SELECT {values.value}::text, count(*) FROM (SELECT {values.stored} AS stored FROM {self.names.table} "
            f"WHERE {where}) AS found{values.rest} GROUP BY {values.value} LIMIT %s"
        )
        return self._read(operation.partition, Statement(sql, (*params, operation.most + 1)))

    def scan(self, operation: Scan) -> Transaction:
        """Compile a page in key order, with one row more than requested, to detect another page."""
        where, params = self._rows(operation.partition, operation.scope, operation.where)
        after: tuple[object, ...] = ()
        if operation.after is not None:
            where += f" AND ({self._key}) > (%s::text, %s::int8, %s::text)"
            after = tuple(operation.after)
        sql = (
            f"SELECT {self._select(operation.include)}, 0::float8 AS distance FROM {self.names.table} "
            f"WHERE {where} ORDER BY {self._key} LIMIT %s"
        )
        return self._read(operation.partition, Statement(sql, (*params, *after, operation.size + 1)))

    def upsert(self, operation: Upsert) -> Transaction:
        """Compile an upsert of all records in one statement, which fails as a whole for rows outside the scope."""
        names = self.names
        c = names.c
        tenant = operation.partition
        documents = sorted({record.tag.document for record in operation.records})
        present = (
            f"SELECT {c.document} AS document, max({c.generation}) AS generation FROM {names.table} "
            f"WHERE {c.tenant} = %s::text AND {c.document} = ANY(%s::text[]) GROUP BY {c.document}"
        )
        generation_params: tuple[object, ...] = (tenant, documents)
        if operation.verbatim:
            generations = {record.tag.document: record.tag.generation for record in operation.records}
            present = "SELECT * FROM unnest(%s::text[], %s::int8[]) AS kept(document, generation)"
            generation_params = (ArrayParam("text", list(generations)), ArrayParam("int8", list(generations.values())))
        sql = (
            f"INSERT INTO {names.table} AS old ({self._written}) "
            "SELECT %s::text, new.document, COALESCE(present.generation, 0), new.chunk, new.label, new.rev, "
            "new.expires, new.producer, new.path, new.time, new.position, new.text, new.metadata, new.vector "
            f"FROM {self._source} LEFT JOIN ({present}) AS present ON present.document = new.document "
            f"ON CONFLICT ({c.tenant}, {self._key}) DO UPDATE SET {self._updates}"
        )
        params = (tenant, *self._arrays(operation.records), *generation_params)
        statement = self._all_or_fail(sql, params, operation.scope, len(operation.records))
        return self._write(tenant, statement, exclusive=False)

    def _all_or_fail(self, sql: str, params: tuple[object, ...], scope: Predicate, count: int) -> Statement:
        if isinstance(scope, Always):
            return Statement(sql, params, rows=False)
        test, more = self._conflict.compile(scope)
        # WHERE skips rows that the scope does not permit, so fewer rows are written. A division by zero then fails the
        # whole transaction within the same round trip (22012, mapped to DeniedError).
        sql = (
            f"WITH written AS ({sql} WHERE {test} RETURNING 1) "
            "SELECT count(*) / (CASE WHEN count(*) = %s THEN 1 ELSE 0 END) FROM written"
        )
        return Statement(sql, (*params, *more, count))

    def replace(self, operation: Replace) -> Transaction:
        """Compile a replacement: write a generation above all older ones, then delete the older ones."""
        names = self.names
        c = names.c
        tenant, document = operation.partition, operation.document
        statements = []
        if not isinstance(operation.scope, Always):
            test, params = self._predicates.compile(operation.scope)
            sql = (
                f"SELECT 1 / (CASE WHEN EXISTS (SELECT 1 FROM {names.table} WHERE {c.tenant} = %s::text "
                f"AND {c.document} = %s::text AND NOT {test}) THEN 0 ELSE 1 END)"
            )
            statements.append(Statement(sql, (tenant, document, *params)))
        newest = (
            f"(SELECT max({c.generation}) FROM {names.table} WHERE {c.tenant} = %s::text AND {c.document} = %s::text)"
        )
        delete_sql = f"DELETE FROM {names.table} WHERE {c.tenant} = %s::text AND {c.document} = %s::text"
        if not operation.records:
            return self._write(
                tenant,
                *statements,
                Statement(delete_sql, (tenant, document), rows=False),
                exclusive=True,
                adds_tenant=False,
            )
        insert_sql = (
            f"INSERT INTO {names.table} ({self._written}) "
            f"SELECT %s::text, new.document, COALESCE({newest}, -1) + 1, new.chunk, new.label, new.rev, "
            "new.expires, new.producer, new.path, new.time, new.position, new.text, new.metadata, new.vector "
            f"FROM {self._source}"
        )
        statements.append(
            Statement(delete_sql + f" AND {c.generation} < {newest}", (tenant, document, tenant, document), rows=False)
        )
        insert = Statement(insert_sql, (tenant, tenant, document, *self._arrays(operation.records)), rows=False)
        statements.insert(len(statements) - 1, insert)
        return self._write(tenant, *statements, exclusive=True)

    def delete(self, operation: Delete) -> Transaction:
        """Compile a delete by its one selector."""
        where, params = self._rows(
            operation.partition, operation.scope, Always() if operation.where is None else operation.where
        )
        more: tuple[object, ...] = ()
        if operation.refs is not None:
            named, more = self._refs(operation.refs)
            where += f" AND {named}"
        elif operation.document is not None:
            where += f" AND {self.names.c.document} = %s::text"
            more = (operation.document,)
        elif operation.where is None:
            where += " AND FALSE"
        statement = Statement(f"DELETE FROM {self.names.table} WHERE {where}", (*params, *more), rows=False)
        return self._write(operation.partition, statement, exclusive=False, adds_tenant=False)

    def relabel(self, operation: Relabel) -> Transaction:
        """Compile the labels of documents: an update of chunks with a lower rev, which creates none."""
        c, changes = self.names.c, operation.changes
        sql = (
            f"UPDATE {self.names.table} AS old SET {c.label} = new.label, {c.expires} = new.expires, "
            f"{c.rev} = new.rev FROM unnest(%s::text[], %s::int8[], %s::text[], %s::float8[], %s::int8[]) "
            "AS new(document, generation, label, expires, rev) "
            f"WHERE old.{c.tenant} = %s::text AND old.{c.document} = new.document "
            f"AND old.{c.generation} = new.generation AND old.{c.rev} < new.rev"
        )
        params = (
            ArrayParam("text", [one.document for one in changes]),
            ArrayParam("int8", [one.generation for one in changes]),
            ArrayParam("text", [one.label for one in changes]),
            ArrayParam("float8", [one.expires for one in changes]),
            ArrayParam("int8", [one.rev for one in changes]),
            operation.partition,
        )
        statement = Statement(sql, params, rows=False)
        return self._write(operation.partition, statement, exclusive=False, adds_tenant=False)

    def update_metadata(self, operation: UpdateMetadata) -> Transaction:
        """Compile a change of metadata, which runs alone in its tenant and only on the chunks that were read."""
        c, table = self.names.c, self.names.table
        where, selected = self._rows(operation.partition, ALWAYS, operation.where)
        where += f" AND {c.document} = %s::text"
        change = (ArrayParam("text", list(operation.removed)), dump_metadata(operation.values).decode())
        fit, fit_params = self._as_read(operation)
        sql = (
            f"UPDATE {table} SET {c.metadata} = ({c.metadata} - %s::text[]) || %s::jsonb WHERE {where} AND "
            f"(SELECT {fit} FROM (SELECT * FROM {table} WHERE {where}) AS old "
            f"CROSS JOIN LATERAL (SELECT (old.{c.metadata} - %s::text[]) || %s::jsonb AS metadata) AS new)"
        )
        rows = (*selected, operation.document)
        params = (*change, *rows, *fit_params, *rows, *change)
        statement = Statement(sql, params, rows=False)
        return self._write(operation.partition, statement, exclusive=True, adds_tenant=False)

    def _as_read(self, operation: UpdateMetadata) -> Sql:
        """Return an aggregate: whether the rows `old` are those that were read, in the scope before and as `new`."""
        c = self.names.c
        read = (
            ArrayParam("text", [chunk for chunk, _ in operation.read]),
            ArrayParam("float8", [time for _, time in operation.read]),
        )
        same = (
            f"count(*) = %s::int8 AND bool_and(old.{c.generation} = %s::int8 AND (old.{c.chunk}, old.{c.time}) IN "
            "(SELECT * FROM unnest(%s::text[], %s::float8[])))"
        )
        params: tuple[object, ...] = (len(operation.read), operation.generation, *read)
        if isinstance(operation.scope, Always):
            return same, params
        before, of_old = self._conflict.compile(operation.scope)
        after, of_new = self._changed.compile(operation.scope)
        return f"{same} AND bool_and({before} AND {after})", (*params, *of_old, *of_new)

    def _arrays(self, records: tuple[Record, ...]) -> tuple[object, ...]:
        tags = [record.tag for record in records]
        return (
            ArrayParam("text", [tag.document for tag in tags]),
            ArrayParam("text", [tag.chunk for tag in tags]),
            ArrayParam("text", [tag.label for tag in tags]),
            ArrayParam("int8", [tag.rev for tag in tags]),
            ArrayParam("float8", [tag.expires for tag in tags]),
            ArrayParam("text", [tag.producer for tag in tags]),
            ArrayParam("text", [tag.path for tag in tags]),
            ArrayParam("float8", [tag.time for tag in tags]),
            ArrayParam("int4", [tag.position for tag in tags]),
            ArrayParam("text", [record.text for record in records]),
            ArrayParam("jsonb", [dump_metadata(record.metadata) for record in records]),
            VectorsParam(np.stack([record.vector for record in records]), half=self._half),
        )

    def _read(self, partition: str, statement: Statement, settings: tuple[tuple[str, str], ...] = ()) -> Transaction:
        return Transaction(partition, (statement,), (*self._scope(partition), *settings))

    def _write(self, partition: str, *statements: Statement, exclusive: bool, adds_tenant: bool = True) -> Transaction:
        """Compile a write: the tenant's lock first, so that replacements and moves to another tier run alone.

        Args:
            partition: The tenant.
            statements: The statements after the lock.
            exclusive: Take the lock exclusively, for a replacement.
            adds_tenant: Add the tenant to the list of tenants; deletions never do.
        """
        suffix = "" if exclusive else "_shared"
        first = [
            Statement(
                f"SELECT pg_advisory_xact_lock{suffix}(hashtextextended(%s::text, 0))", (self._lock_space + partition,)
            )
        ]
        if adds_tenant:
            sql = f"INSERT INTO {self.names.tenants} (tenant_id) VALUES (%s::text) ON CONFLICT DO NOTHING"
            first.append(Statement(sql, (partition,), rows=False))
        return Transaction(partition, (*first, *statements), self._scope(partition), read_only=False)
