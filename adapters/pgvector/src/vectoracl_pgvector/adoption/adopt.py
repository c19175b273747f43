"""Imports an existing pgvector table: plan, validate every row, copy tenant by tenant, verify.

The source table is only read. A single invalid row stops the import before anything is copied, and there is no default
tenant. Rows are validated by the same checks as an upsert.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import psycopg

from vectoracl.adapter_api import adoption
from vectoracl.adapter_api.adoption import PATH, PRODUCER, SHOWN, Findings, printable
from vectoracl.adapter_api.chunk_validation import dump_metadata
from vectoracl.adapter_api.contract import Adopted, Progress
from vectoracl.adapter_api.shares import Share, ShareCounter
from vectoracl.errors import RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.model.records import DEFAULT_LABEL, NEVER_EXPIRES, Record
from vectoracl_pgvector.adoption.source_mapping import HELPER, SCOPE, find
from vectoracl_pgvector.adoption.source_rows import SourceRow, SourceRows, loaded, shown
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.names import Names, literal
from vectoracl_pgvector.requests import VectorsParam, load_vector

Connection = psycopg.Connection[Any]
_ORDER = ("tenant", "document", "generation", "chunk", "label", "rev", "expires", "producer", "path", "time",
          "position", "text", "metadata", "vector")  # fmt: skip


def plan(
    connection: Connection, config: PgvectorConfig, source: str, fields: Mapping[str, FieldType] | None = None
) -> str:
    """Return the plan of an import as text: the mapping of columns, tenants, refused rows, and the SQL.

    Every row is read and checked.

    Args:
        connection: The owner's connection.
        config: The store's configuration.
        source: The table, as "schema.table" or "table".
        fields: The declared metadata fields.

    Raises:
        RefusedError: The table cannot be imported as it is.
    """
    lines = _Adoption(connection, config, fields or {}, source, None).plan()
    # A line break in a name or key would end its comment, and the text is meant to be run as SQL.
    return "".join(f"{printable(line)}\n" for line in lines)


def adopt(
    connection: Connection,
    config: PgvectorConfig,
    fields: Mapping[str, FieldType],
    source: str,
    progress: Progress | None,
    adopted: Adopted | None = None,
) -> list[str]:
    """Copy *source* into the governed table. Can be repeated: existing rows stay.

    Args:
        connection: The owner's connection.
        config: The store's configuration.
        fields: The declared metadata fields.
        source: The table, as "schema.table" or "table".
        progress: Called with the step, the rows done and the rows in total.
        adopted: Updated during the copy, for its audit record.

    Returns:
        What was done, a line each.

    Raises:
        RefusedError: Rows were refused, which the message lists; nothing was copied.
        StoreError: A tenant's rows differ at the end, because either table was written concurrently.
    """
    return _Adoption(connection, config, fields, source, progress).copy(adopted or Adopted())


def survey(
    connection: Connection,
    config: PgvectorConfig,
    fields: Mapping[str, FieldType],
    source: str,
    parts: Sequence[Share],
    progress: Progress | None,
) -> list[Share]:
    """Check every row of *source* as `adopt` does; return *parts* with their tenants. Raises: RefusedError."""
    return _Adoption(connection, config, fields, source, progress).survey(parts)


def adopt_share(
    connection: Connection,
    config: PgvectorConfig,
    fields: Mapping[str, FieldType],
    source: str,
    share: Share,
    progress: Progress | None,
    adopted: Adopted | None = None,
) -> dict[str, int]:
    """Copy and compare the rows of *share*; return the number of rows by tenant. Raises: as `adopt`."""
    return _Adoption(connection, config, fields, source, progress, share).copy_share(adopted or Adopted())


def adopt_end(
    connection: Connection,
    config: PgvectorConfig,
    fields: Mapping[str, FieldType],
    source: str,
    tenants: Mapping[str, int],
) -> list[str]:
    """Do what is left after all shares: drop the policy that made the source readable; return advice, a line each."""
    return _Adoption(connection, config, fields, source, None).finished(tenants)


class _Adoption:
    """The import of one table; with *share* only of the rows in it."""

    def __init__(
        self,
        connection: Connection,
        config: PgvectorConfig,
        fields: Mapping[str, FieldType],
        source: str,
        progress: Progress | None,
        share: Share | None = None,
    ) -> None:
        self._share = share
        self._counter: ShareCounter | None = None
        self._counts: Counter[str] = Counter()  # rows that were compared, by tenant
        self._connection = connection
        self._config = config
        self._fields = fields
        self._progress = progress or (lambda *_: None)
        self._names = Names.of(config)
        self._source = find(connection, config, source)
        self._half = config.type == "halfvec"
        self._matched: Counter[str] = Counter()  # by tenant: imported rows that match a row of the source
        self._checks = adoption.Checks(
            fields, config.dimension, config.metric, source=self._source.table, prefix=config.adopt.prefix
        )
        self._rows = SourceRows(connection, config, fields, self._source, self._checks, share)

    # --- checking

    def _check_rows(self) -> Findings:
        """Check every row."""
        findings = Findings("row", ids="Keys")
        checked = 0
        total = self._estimate()
        for rows in self._rows.read():
            keys: dict[tuple[str, str, str], str] = {}
            groups: dict[str, list[Record]] = {}
            for row in rows:
                key = shown(row.key)
                if row.tenant is not None:
                    findings.show(row.tenant, key)
                    findings.take(row.tenant)
                try:
                    record = self._rows.record(row)
                except RefusedError as error:
                    findings.refuse(error.message, [key])
                else:
                    if self._counter is not None:
                        self._counter.take(record.tag.tenant, record.tag.document)
                    keys[record.tag.tenant, record.tag.document, record.tag.chunk] = key
                    groups.setdefault(record.tag.tenant, []).append(record)
            for tenant, records in groups.items():
                conflicts = self._from_other_sources(tenant, records)
                findings.refuse_taken([keys[tenant, one.tag.document, one.tag.chunk] for one in conflicts])
            checked += len(rows)
            self._progress("checking rows", checked, max(total, checked))
        self._look_alikes(findings)
        self._duplicates(findings)
        return findings

    def _estimate(self) -> int:
        row = self._connection.execute(
            "SELECT sum(greatest(reltuples, 0))::int8 FROM pg_catalog.pg_class WHERE oid = ANY(%s::regclass[])",
            (list(self._source.leaves),),
        ).fetchone()
        return int(row[0] or 0) if row else 0

    def _from_other_sources(self, tenant: str, records: Sequence[Record]) -> list[Record]:
        """Return the *records* whose documents contain rows that were imported from another source."""
        c = self._names.c
        documents = sorted({record.tag.document for record in records})
        with self._connection.transaction():
            if self._table_exists():
                self._connection.execute(SCOPE, (tenant,), prepare=False)
                rows = self._connection.execute(
                    f"SELECT DISTINCT {c.document}, {c.path} FROM {self._names.table} WHERE {c.tenant} = %s::text "
                    f"AND {c.document} = ANY (%s::text[])",
                    (tenant, documents),
                    prepare=False,
                ).fetchall()
            else:
                rows = []
        foreign_documents = {document for document, path in rows if adoption.from_another(path, self._source.table)}
        return [record for record in records if record.tag.document in foreign_documents]

    def _table_exists(self) -> bool:
        """Return whether the governed table exists: a plan can be made before it is provisioned."""
        row = self._connection.execute("SELECT pg_catalog.to_regclass(%s)", (self._names.table,)).fetchone()
        return row is not None and row[0] is not None

    def _look_alikes(self, findings: Findings) -> None:
        """Refuse tenants that a person could confuse, in the table or with a tenant of the store."""
        known_tenants: set[str] = set()
        row = self._connection.execute("SELECT pg_catalog.to_regclass(%s)", (self._names.tenants,)).fetchone()
        if row is not None and row[0] is not None:
            rows = self._connection.execute(f"SELECT tenant_id FROM {self._names.tenants}").fetchall()
            known_tenants = {row[0] for row in rows}
        findings.refuse_look_alikes(known_tenants)

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
        """Yield the lines of the plan, as SQL and SQL comments."""
        source = self._source
        yield f"-- Adopt {source.table} into {self._names.table}. {source.table} is only read, never changed."
        yield f"-- tenant      {source.tenant}"
        yield f"-- document    {source.document or f'{source.chunk} (each chunk is its own document)'}"
        yield f"-- chunk id    {source.chunk}"
        yield f"-- text        {'->>'.join((source.text, *source.text_keys)) if source.text else 'none: left empty'}"
        rounded = " (rounded to half precision)" if self._half and source.vector_type == "vector" else ""
        yield f"-- vector      {source.vector}{rounded}"
        metadata = [f"all of {source.metadata}"] if source.metadata else []
        yield f"-- metadata    {', '.join([*metadata, *source.extra]) or 'none'}"
        for column in source.left_out:
            yield f"-- left out    {column.name} ({column.type})"
        findings = self._check_rows()
        yield from (f"-- {line}" for line in self._checks.described())
        yield from (f"-- {line}" for line in findings.summary(sum(findings.tenants.values())))
        yield "-- For each part of the table, in batches; each tenant's rows are written under its own scope:"
        for leaf in source.leaves:
            yield f"SELECT {source.select()} FROM ONLY {leaf} AS source WHERE source.ctid > $1 ORDER BY ctid LIMIT $2;"
        yield SCOPE.replace("%s", "$1") + ";"
        for statement in (self._tenant_insert, self._insert, self._update):
            first, *rest = statement.split("%s")
            yield first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1)) + ";"

    # --- the copy

    @property
    def _tenant_insert(self) -> str:
        return f"INSERT INTO {self._names.tenants} (tenant_id) VALUES (%s::text) ON CONFLICT DO NOTHING"

    @property
    def _insert(self) -> str:
        names = self._names
        c = names.c.model_dump()
        written = ", ".join(c[name] for name in _ORDER)
        return (
            f"INSERT INTO {names.table} ({written}) SELECT new.tenant, new.document, 0, new.chunk, "
            f"{literal(DEFAULT_LABEL)}, 0, {NEVER_EXPIRES!r}, {literal(PRODUCER)}, %s::text, %s::float8, 0, "
            "new.text, new.metadata, new.vector FROM (SELECT %s::text AS tenant, one.* FROM unnest(%s::text[], "
            f"%s::text[], %s::text[], %s::jsonb[], %s::{names.vector_type}[]) "
            "AS one(document, chunk, text, metadata, vector)) AS new "
            # A document that was replaced since the import has a later generation; its old chunks must not reappear.
            f"WHERE NOT EXISTS (SELECT 1 FROM {names.table} AS there WHERE there.{c['tenant']} = new.tenant "
            f"AND there.{c['document']} = new.document AND there.{c['generation']} > 0) ON CONFLICT DO NOTHING"
        )

    @property
    def _update(self) -> str:
        """The statement that updates rows which an import of this source wrote and nothing else has changed since."""
        names = self._names
        c = names.c
        return (
            f"UPDATE {names.table} AS there SET {c.text} = new.text, {c.metadata} = new.metadata, "
            f"{c.vector} = new.vector, {c.path} = %s::text, {c.time} = %s::float8 FROM "
            "(SELECT %s::text AS tenant, one.* FROM unnest(%s::text[], "
            f"%s::text[], %s::text[], %s::jsonb[], %s::{names.vector_type}[]) "
            "AS one(document, chunk, text, metadata, vector)) AS new "
            f"WHERE there.{c.tenant} = new.tenant AND there.{c.document} = new.document AND there.{c.generation} = 0 "
            f"AND there.{c.chunk} = new.chunk AND there.{c.path} = ANY (%s::text[]) AND (there.{c.text} <> new.text "
            # Compared as text, since operators of types in other schemas are not on the search path.
            f"OR there.{c.metadata}::text <> new.metadata::text OR there.{c.vector}::text <> new.vector::text)"
        )

    def copy(self, adopted: Adopted) -> list[str]:
        """Run the import; see `adopt`."""
        source = self._source.table
        findings = self._check_rows()
        findings.settle(adopted, f"{source} was not")
        total = sum(findings.tenants.values())
        self._copy_rows(adopted, total)
        self._verify(total)
        lines = [findings.report(source, adopted, "keys, texts, metadata and vectors")]
        lines += self._missing_in_source(findings)
        lines += self._drop_helper()
        return lines + self._large(findings.tenants)

    def _copy_rows(self, adopted: Adopted, total: int) -> None:
        read = 0
        for rows in self._rows.read():
            new, changed = self._write(rows)
            read += len(rows)
            adopted.copied += new
            adopted.changed += changed
            adopted.there = read - adopted.copied - adopted.changed
            self._progress("copying", read, max(total, read))

    def _large(self, tenants: Mapping[str, int]) -> list[str]:
        large = sorted(tenant for tenant, count in tenants.items() if count > self._config.promotes_above)
        if not large:
            return []
        return [f"large enough for their own partition (vectoracl tenants promote): {', '.join(map(ascii, large))}"]

    # --- the copy in shares

    def survey(self, parts: Sequence[Share]) -> list[Share]:
        """Check every row; see `survey`."""
        self._counter = ShareCounter(parts)
        findings = self._check_rows()
        findings.settle(Adopted(), f"{self._source.table} was not")
        return self._counter.shares()

    def copy_share(self, adopted: Adopted) -> dict[str, int]:
        """Copy and compare the rows of the share; see `adopt_share`."""
        assert self._share is not None
        adopted.tenants = len(self._share.tenants)
        total = sum(self._share.tenants.values())
        self._copy_rows(adopted, total)
        self._verify(total)
        return dict(self._counts)

    def finished(self, tenants: Mapping[str, int]) -> list[str]:
        """Do what is left after all shares; see `adopt_end`."""
        return [*self._drop_helper(), *self._large(tenants)]

    def _groups(self, rows: Collection[SourceRow]) -> adoption.Groups:
        groups = adoption.by_tenant(
            rows, self._rows.record, lambda row: shown(row.key), self._source.table, "row with the key"
        )
        return groups if self._share is None else adoption.in_share(groups, self._share, self._source.table)

    def _write(self, rows: list[SourceRow]) -> tuple[int, int]:
        """Write one batch in one transaction, each tenant's rows under its own scope.

        Returns:
            The number of new rows, and the number of rows of an earlier import that were updated.
        """
        groups = self._groups(rows)
        oid = self._rows.oid(self._config.type)
        mine = [PATH, adoption.path_of(self._source.table)]
        new = changed = 0
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
                cursor.execute(self._tenant_insert, (tenant,), prepare=False)
                tags = [record.tag for record in records]
                arrays = (
                    [tag.document for tag in tags],
                    [tag.chunk for tag in tags],
                    [record.text for record in records],
                    [dump_metadata(record.metadata).decode() for record in records],
                    VectorsParam(np.stack([record.vector for record in records]), half=self._half),
                )
                values = (mine[1], self._checks.time, tenant, *arrays)
                cursor.execute(self._insert, values, prepare=False)
                inserted = cursor.rowcount
                new += inserted
                if inserted < len(records):
                    cursor.execute(self._update, (*values, mine), prepare=False)
                    changed += cursor.rowcount
        return new, changed

    def _verify(self, total: int) -> None:
        """Compare every row's text, metadata and vector with its copy. Raises: StoreError."""
        self._matched.clear()
        self._counts.clear()
        different, _ = adoption.compare(self._rows.read(), self._groups, self._differing, self._progress, total)
        if different:
            what = f"{sum(different.values())} rows"
            raise adoption.differs("pgvector", self._source.table, what, sorted(different))

    def _differing(self, tenant: str, records: Sequence[Record]) -> int:
        """Return the number of *records* without an equal copy; rows that were written here since are ignored."""
        c = self._names.c
        with self._connection.transaction():
            cursor = self._connection.cursor(binary=True)
            adapt(cursor, self._rows.oid(self._config.type))
            cursor.execute(SCOPE, (tenant,), prepare=False)
            cursor.execute(
                f"SELECT {c.document}, {c.chunk}, {c.generation}, {c.path}, {c.text}, {c.metadata}::text, {c.vector} "
                f"FROM {self._names.table} WHERE {c.tenant} = %s::text AND {c.document} = ANY (%s::text[])",
                (tenant, sorted({record.tag.document for record in records})),
                prepare=False,
            )
            rows = cursor.fetchall()
        replaced = {row[0] for row in rows if row[2] > 0}
        copies = {(row[0], row[1]): row[3:] for row in rows}
        mine = adoption.path_of(self._source.table)
        self._counts[tenant] += len(records)
        here = [copies.get((record.tag.document, record.tag.chunk)) for record in records]
        self._matched[tenant] += sum(copy is not None and copy[0] == mine for copy in here)
        return sum(
            not self._same(record, copies.get((record.tag.document, record.tag.chunk)))
            for record in records
            if record.tag.document not in replaced
        )

    def _same(self, record: Record, copy: Sequence[Any] | None) -> bool:
        if copy is None:
            return False
        path, text, metadata, vector = copy
        if not adoption.was_adopted(path, self._source.table):
            # Modified through the normal API since the import: not a difference.
            return not adoption.from_another(path, self._source.table)
        if text != record.text or loaded(metadata) != json.loads(dump_metadata(record.metadata)):
            return False
        ours = record.vector if not self._half else record.vector.astype(np.float16).astype(np.float32)
        return self._checks.alike(ours, load_vector(vector, half=self._half))

    def _missing_in_source(self, findings: Findings) -> Iterator[str]:
        """Yield, for each tenant, the number of imported rows that no longer have a source row."""
        c = self._names.c
        for tenant in sorted(findings.tenants):
            with self._connection.transaction():
                self._connection.execute(SCOPE, (tenant,), prepare=False)
                row = self._connection.execute(
                    f"SELECT count(*) FROM {self._names.table} WHERE {c.tenant} = %s::text AND {c.path} = %s::text",
                    (tenant, adoption.path_of(self._source.table)),
                    prepare=False,
                ).fetchone()
            over = (row[0] if row is not None else 0) - self._matched[tenant]
            if over > 0:
                yield (
                    f"{over} chunks of {tenant!a} were adopted from {self._source.table} and no longer have a row "
                    "there: delete them by id if they should be removed here too"
                )

    def _drop_helper(self) -> Iterator[str]:
        """Drop the policy by which the owner role may read the source; yield what was done, or what to run."""
        table = self._source.table
        policy = self._connection.execute(
            "SELECT 1 FROM pg_catalog.pg_policy WHERE polrelid = pg_catalog.to_regclass(%s) AND polname = %s",
            (table, HELPER),
        ).fetchone()
        if policy is None:
            return
        statement = f"DROP POLICY {HELPER} ON {table}"
        try:
            with self._connection.transaction():
                self._connection.execute(statement, prepare=False)
        except psycopg.errors.InsufficientPrivilege:
            yield f"now drop the policy that made the rows readable, as the owner of {table}: {statement};"
        else:
            yield f"removed the policy {HELPER} of {table}"
