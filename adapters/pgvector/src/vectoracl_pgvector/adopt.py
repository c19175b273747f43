"""An existing pgvector table becomes governed: planned, checked as a whole, copied under each tenant's scope, verified.

The old table is only read. One row that cannot be taken stops all: nothing is copied until it is mended, and there is
no default tenant. What a row may hold is what `upsert` would take, by the same checks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import psycopg

from vectoracl import adopting
from vectoracl.adapter import Adopted, Progress
from vectoracl.adopting import PATH, PRODUCER, SHOWN, Findings, printable
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.fields import FieldType
from vectoracl.prepare import check_metadata, dump_metadata
from vectoracl.queries import check_vector
from vectoracl.records import DEFAULT_LABEL, NEVER_EXPIRES, Chunk, Record
from vectoracl_pgvector.adopt_source import SCOPE, find
from vectoracl_pgvector.binary import adapt
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import EXTENSION_SCHEMA, Names, literal, quote
from vectoracl_pgvector.requests import VectorsParam, load_vector

Connection = psycopg.Connection[Any]
_BATCH = 1000
_ORDER = ("tenant", "document", "generation", "chunk", "label", "rev", "expires", "producer", "path", "time",
          "position", "text", "metadata", "vector")  # fmt: skip


class _Row(NamedTuple):
    place: str
    key: list[str]
    tenant: str | None
    document: str | None
    chunk: str | None
    text: str | None
    metadata: str | None
    extra: str | None
    vector: bytes | None


def plan(
    connection: Connection, config: PgvectorConfig, source: str, fields: Mapping[str, FieldType] | None = None
) -> str:
    """Return, as text, how *source* would be adopted: what its columns hold, its tenants, refused rows, and the SQL.

    Every row is read and checked. Raises: RefusedError if the table cannot be adopted as it is.
    """
    lines = _Adoption(connection, config, fields or {}, source, None).plan()
    # A line break inside of a name or key would end the comment it stands in, and the text is made to be run.
    return "".join(f"{printable(line)}\n" for line in lines)


def adopt(
    connection: Connection,
    config: PgvectorConfig,
    fields: Mapping[str, FieldType],
    source: str,
    progress: Progress | None,
    adopted: Adopted | None = None,
) -> list[str]:
    """Copy *source* into the governed table; return what was done. Can be run again: rows that are there stay.

    *adopted* is kept up to date meanwhile.
    Raises: RefusedError with the list of refused rows, and then nothing is copied; StoreError if in the end a tenant's
    rows differ (written to meanwhile, here or there).
    """
    return _Adoption(connection, config, fields, source, progress).copy(adopted or Adopted())


class _Adoption:
    """One table that is taken over."""

    def __init__(
        self,
        connection: Connection,
        config: PgvectorConfig,
        fields: Mapping[str, FieldType],
        source: str,
        progress: Progress | None,
    ) -> None:
        self._connection = connection
        self._config = config
        self._fields = fields
        self._progress = progress or (lambda *_: None)
        self._names = Names.of(config)
        self._source = find(connection, config, source)
        self._half = config.type == "halfvec"
        self._checks = adopting.Checks(fields, config.dimension, config.metric)

    # --- reading

    def _read(self) -> Iterator[list[_Row]]:
        """Yield all rows in batches, in the order in which they lie; no lock and no snapshot is kept between them."""
        source = self._source
        oid = self._oid(source.vector_type)
        for leaf in source.leaves:
            after = "(0,0)"
            while True:
                cursor = self._connection.cursor(binary=True)
                adapt(cursor, oid)
                cursor.execute(
                    f"SELECT {source.select()} FROM ONLY {leaf} AS source WHERE source.ctid > %s::tid "
                    "ORDER BY source.ctid LIMIT %s",
                    (after, _BATCH),
                    prepare=False,
                )
                rows = [_Row(*row) for row in cursor.fetchall()]
                if rows:
                    yield rows
                if len(rows) < _BATCH:
                    break
                after = rows[-1].place

    def _oid(self, kind: str) -> int:
        name = f"{quote(self._config.extension_schema or EXTENSION_SCHEMA)}.{quote(kind)}"
        row = self._connection.execute(
            "SELECT pg_catalog.to_regtype(%s)::pg_catalog.oid::int8", (name,), prepare=False
        ).fetchone()
        if row is None or row[0] is None:
            raise RefusedError(f"The database has no type {name}. Set extension_schema to where the extension is.")
        return int(row[0])

    def _record(self, row: _Row) -> Record:
        """Return *row* as a chunk that `upsert` would take. Raises: RefusedError with the reason."""
        tenant = adopting.tenant_in(row.tenant)
        if row.chunk is None or row.document is None:
            raise RefusedError(f"No {'chunk id' if row.chunk is None else 'document'}.")
        if row.vector is None:
            raise RefusedError("No vector.")
        metadata = check_metadata(self._metadata(row), self._fields)
        vector = load_vector(row.vector, half=self._source.vector_type == "halfvec")
        made = Chunk(row.chunk, row.document, row.text or "", vector, metadata=metadata)
        record = self._checks.record(tenant, made)
        if self._half:
            with np.errstate(over="ignore"):
                check_vector(
                    vector.astype(np.float16).astype(np.float32),
                    self._config.dimension,
                    nonzero=self._config.metric == "cosine",
                )
        return record

    def _metadata(self, row: _Row) -> dict[str, Any]:
        """Join the metadata and the other columns; a column that is NULL is a key that is not there."""
        found = _load(row.metadata) if row.metadata is not None else {}
        if found is None:
            found = {}
        if not isinstance(found, dict):
            raise RefusedError("The metadata is not a JSON object.")
        for part in (self._source.tenant, self._source.document):
            if part is not None and part.key is not None and part.column == self._source.metadata:
                found.pop(part.key, None)
        extra = {key: value for key, value in (_load(row.extra) or {}).items() if value is not None}
        both = found.keys() & extra.keys()
        if both:
            raise RefusedError(f"The key {min(both)!r} is both a column and in the metadata: leave one out.")
        return {**found, **extra}

    # --- checking

    def _look(self) -> Findings:
        """Check every row."""
        findings = Findings("row", ids="Keys")
        seen = 0
        total = self._estimate()
        for rows in self._read():
            for row in rows:
                key = _shown(row.key)
                if row.tenant is not None:
                    findings.show(row.tenant, key)
                    findings.take(row.tenant)
                try:
                    self._record(row)
                except RefusedError as error:
                    findings.refuse(error.message, [key])
            seen += len(rows)
            self._progress("checking rows", seen, max(total, seen))
        self._look_alikes(findings)
        self._duplicates(findings)
        return findings

    def _estimate(self) -> int:
        row = self._connection.execute(
            "SELECT sum(greatest(reltuples, 0))::int8 FROM pg_catalog.pg_class WHERE oid = ANY(%s::regclass[])",
            (list(self._source.leaves),),
        ).fetchone()
        return int(row[0] or 0) if row else 0

    def _look_alikes(self, findings: Findings) -> None:
        """Refuse tenants that a person could take for each other, in the table or with one that is in the store."""
        known: set[str] = set()
        there = self._connection.execute("SELECT pg_catalog.to_regclass(%s)", (self._names.tenants,)).fetchone()
        if there is not None and there[0] is not None:
            rows = self._connection.execute(f"SELECT tenant_id FROM {self._names.tenants}").fetchall()
            known = {row[0] for row in rows}
        findings.refuse_look_alikes(known)

    def _duplicates(self, findings: Findings) -> None:
        source = self._source
        if source.key == (source.chunk,):
            return
        parts = f"{source.tenant.sql}, {source.document_sql}, {source.chunk_sql}"
        row = self._connection.execute(
            f"SELECT count(*), (array_agg(one.key))[1:{SHOWN}] FROM (SELECT array_to_string(ARRAY[{source.keys}], "
            f"', ', 'NULL') AS key, count(*) OVER (PARTITION BY {parts}) AS same FROM {source.table} AS source "
            f"WHERE {source.tenant.sql} IS NOT NULL) AS one WHERE one.same > 1"
        ).fetchone()
        if row is not None and row[0]:
            findings.refuse_same(row[1], row[0])

    # --- the plan

    def plan(self) -> Iterator[str]:
        """Yield the plan's lines, as SQL comments and SQL."""
        source = self._source
        yield f"-- Adopt {source.table} into {self._names.table}. {source.table} is read and never changed."
        yield f"-- tenant      {source.tenant}"
        yield f"-- document    {source.document or f'{source.chunk} (each chunk is a document of its own)'}"
        yield f"-- chunk id    {source.chunk}"
        yield f"-- text        {source.text or 'none: left empty'}"
        rounded = " (rounded to half precision)" if self._half and source.vector_type == "vector" else ""
        yield f"-- vector      {source.vector}{rounded}"
        metadata = [f"all of {source.metadata}"] if source.metadata else []
        yield f"-- metadata    {', '.join([*metadata, *source.extra]) or 'none'}"
        for column in source.left_out:
            yield f"-- left out    {column.name} ({column.type})"
        findings = self._look()
        yield from (f"-- {line}" for line in findings.summary(sum(findings.tenants.values())))
        yield "-- For each part of the table, in batches; each tenant's rows are written under its own scope:"
        for leaf in source.leaves:
            yield f"SELECT {source.select()} FROM ONLY {leaf} AS source WHERE source.ctid > $1 ORDER BY ctid LIMIT $2;"
        yield SCOPE.replace("%s", "$1") + ";"
        for statement in (self._known, self._insert):
            first, *rest = statement.split("%s")
            yield first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1)) + ";"

    # --- the copy

    @property
    def _known(self) -> str:
        return f"INSERT INTO {self._names.tenants} (tenant_id) VALUES (%s::text) ON CONFLICT DO NOTHING"

    @property
    def _insert(self) -> str:
        names = self._names
        c = names.c.model_dump()
        written = ", ".join(c[name] for name in _ORDER)
        return (
            f"INSERT INTO {names.table} ({written}) SELECT new.tenant, new.document, 0, new.chunk, "
            f"{literal(DEFAULT_LABEL)}, 0, {NEVER_EXPIRES!r}, {literal(PRODUCER)}, {literal(PATH)}, %s::float8, 0, "
            "new.text, new.metadata, new.vector FROM (SELECT %s::text AS tenant, one.* FROM unnest(%s::text[], "
            f"%s::text[], %s::text[], %s::jsonb[], %s::{names.vector_type}[]) "
            "AS one(document, chunk, text, metadata, vector)) AS new "
            # A document that was replaced since lives in a later generation; its old chunks do not come back.
            f"WHERE NOT EXISTS (SELECT 1 FROM {names.table} AS there WHERE there.{c['tenant']} = new.tenant "
            f"AND there.{c['document']} = new.document AND there.{c['generation']} > 0) ON CONFLICT DO NOTHING"
        )

    def copy(self, adopted: Adopted) -> list[str]:
        """See `adopt`."""
        source = self._source.table
        findings = self._look()
        findings.settle(adopted, f"{source} was not")
        total = sum(findings.tenants.values())
        read = new = 0
        for rows in self._read():
            new += self._write(rows)
            read += len(rows)
            adopted.copied, adopted.there = new, read - new
            self._progress("copying", read, max(total, read))
        self._verify()
        done = [findings.report(source, new, read - new, "counts, keys, texts and vectors")]
        large = sorted(tenant for tenant, count in findings.tenants.items() if count > self._config.promote_rows)
        if large:
            done.append(f"worth a partition of their own (vectoracl tenants promote): {', '.join(map(ascii, large))}")
        return done

    def _write(self, rows: list[_Row]) -> int:
        """Write one batch in one transaction, each tenant's rows under its own scope; return how many are new."""
        groups = adopting.by_tenant(
            rows, self._record, lambda row: _shown(row.key), self._source.table, "row with the key"
        )
        oid = self._oid(self._config.type)
        new = 0
        with self._connection.transaction():
            for tenant, records in groups:
                cursor = self._connection.cursor()
                adapt(cursor, oid)
                cursor.execute(SCOPE, (tenant,), prepare=False)
                cursor.execute(
                    "SELECT pg_catalog.pg_advisory_xact_lock_shared(pg_catalog.hashtextextended(%s, 0))",
                    (f"vectoracl:{self._config.schema_name}.{self._config.table}:{tenant}",),
                    prepare=False,
                )
                cursor.execute(self._known, (tenant,), prepare=False)
                tags = [record.tag for record in records]
                arrays = (
                    [tag.document for tag in tags],
                    [tag.chunk for tag in tags],
                    [record.text for record in records],
                    [dump_metadata(record.metadata).decode() for record in records],
                    VectorsParam(np.stack([record.vector for record in records]), half=self._half),
                )
                cursor.execute(self._insert, (self._checks.time, tenant, *arrays), prepare=False)
                new += cursor.rowcount
        return new

    def _verify(self) -> None:
        """Compare counts and sums over keys, texts and vectors, tenant by tenant. Raises: StoreError."""
        self._progress("verifying", 0, None)
        source, names = self._source, self._names
        c = names.c
        cast = f"{names.vector_type}({self._config.dimension})"
        text = "''" if source.text is None else f"COALESCE(source.{quote(source.text)}::text, '')"
        theirs = _sum(source.document_sql, source.chunk_sql, text, f"source.{quote(source.vector)}::{cast}")
        ours = _sum(c.document, c.chunk, c.text, c.vector)
        expected = self._connection.execute(
            f"SELECT {source.tenant.sql}, count(*), {theirs} FROM {source.table} AS source GROUP BY 1"
        ).fetchall()
        different = []
        for tenant, *numbers in expected:
            with self._connection.transaction():
                self._connection.execute(SCOPE, (tenant or "",), prepare=False)
                row = self._connection.execute(
                    f"SELECT count(*), {ours} FROM {names.table} WHERE {c.tenant} = %s::text AND {c.path} = %s::text",
                    (tenant, PATH),
                    prepare=False,
                ).fetchone()
            if row is None or list(row) != numbers:
                different.append(tenant)
        if different:
            raise adopting.differs("pgvector", source.table, "the rows", different)


def _sum(document: str, chunk: str, text: str, vector: str) -> str:
    parts = " || ".join(f"length({part})::text || ':' || {part}" for part in (document, chunk, text))
    return f"COALESCE(sum(hashtextextended({parts} || ({vector})::text, 0)::numeric), 0)"


def _shown(key: list[str]) -> str:
    return ", ".join("NULL" if part is None else printable(part) for part in key)


def _load(text: str | None) -> Any:
    """Read JSON. Raises: InvalidInputError for a number that would be rounded."""
    return None if text is None else json.loads(text, parse_float=_float)


def _float(text: str) -> float:
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise InvalidInputError("The metadata holds a number with more digits than a float keeps.", field="metadata")
    return number
