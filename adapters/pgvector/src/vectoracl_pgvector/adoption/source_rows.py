"""The rows of the table that is imported: read in batches, and mapped to records that an upsert would accept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import psycopg

from vectoracl.adapter_api import adoption
from vectoracl.adapter_api.adoption import printable
from vectoracl.adapter_api.chunk_validation import check_metadata
from vectoracl.adapter_api.shares import PLACE_BYTES, WHOLE, Share
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.filters.field_types import FieldType
from vectoracl.model.queries import check_vector
from vectoracl.model.records import Chunk, Record
from vectoracl_pgvector.adoption.source_mapping import Source
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.names import EXTENSION_SCHEMA, quote
from vectoracl_pgvector.requests import load_vector

Connection = psycopg.Connection[Any]
_BATCH = 1000


class SourceRow(NamedTuple):
    """A row as it is read: where it is, its key as text, and the parts of a chunk."""

    place: str
    key: list[str]
    tenant: str | None
    document: str | None
    chunk: str | None
    text: str | None
    metadata: str | None
    extra: str | None
    vector: bytes | None


class SourceRows:
    """The rows of one table; with *share* only those in it. *checks* are the checks of an import."""

    def __init__(
        self,
        connection: Connection,
        config: PgvectorConfig,
        fields: Mapping[str, FieldType],
        source: Source,
        checks: adoption.Checks,
        share: Share | None,
    ) -> None:
        self._connection = connection
        self._config = config
        self._fields = fields
        self._source = source
        self._checks = checks
        self._share = share
        self._half = config.type == "halfvec"

    def read(self) -> Iterator[list[SourceRow]]:
        """Yield all rows in batches, in physical order; no lock or snapshot is held between batches."""
        source = self._source
        mine, bounds = self._in_share()
        oid = self.oid(source.vector_type)
        for leaf in source.leaves:
            after = "(0,0)"
            while True:
                cursor = self._connection.cursor(binary=True)
                adapt(cursor, oid)
                cursor.execute(
                    f"SELECT {source.select()} FROM ONLY {leaf} AS source WHERE source.ctid > %s::tid "
                    f"{mine}ORDER BY source.ctid LIMIT %s",
                    (after, *bounds, _BATCH),
                    prepare=False,
                )
                rows = [SourceRow(*row) for row in cursor.fetchall()]
                if rows:
                    yield rows
                if len(rows) < _BATCH:
                    break
                after = rows[-1].place

    def _in_share(self) -> tuple[str, list[Any]]:
        """Return the condition on the rows of the share, and its parameters: `place_of` in SQL.

        `in_share` checks the rows again, so a difference between the two could only leave rows out, which the number
        of rows of the plan shows.
        """
        if self._share is None:
            return "", []
        tenant, document = self._source.tenant.sql, self._source.document_sql
        document = f"pg_catalog.convert_to(%s::text OPERATOR(pg_catalog.||) coalesce({document}, ''), 'UTF8')"
        place = (
            f"pg_catalog.substr(pg_catalog.sha256(pg_catalog.convert_to(coalesce({tenant}, ''), 'UTF8') "
            f"OPERATOR(pg_catalog.||) '\\x00'::pg_catalog.bytea OPERATOR(pg_catalog.||) "
            f"{document}), 1, {PLACE_BYTES})"
        )
        prefix = self._config.adopt.prefix
        low = self._share.low.to_bytes(PLACE_BYTES)
        condition, bounds = f"AND {place} OPERATOR(pg_catalog.>=) %s::pg_catalog.bytea ", [prefix, low]
        if self._share.high < WHOLE:
            condition += f"AND {place} OPERATOR(pg_catalog.<) %s::pg_catalog.bytea "
            bounds += [prefix, self._share.high.to_bytes(PLACE_BYTES)]
        return condition, bounds

    def oid(self, kind: str) -> int:
        """Return the object id of the vector type *kind*. Raises: RefusedError if the database has none."""
        name = f"{quote(self._config.extension_schema or EXTENSION_SCHEMA)}.{quote(kind)}"
        row = self._connection.execute(
            "SELECT pg_catalog.to_regtype(%s)::pg_catalog.oid::int8", (name,), prepare=False
        ).fetchone()
        if row is None or row[0] is None:
            raise RefusedError(f"The database has no type {name}. Set extension_schema to the schema of the extension.")
        return int(row[0])

    def record(self, row: SourceRow) -> Record:
        """Return *row* as a record that an upsert would accept. Raises: RefusedError with the reason."""
        tenant = adoption.tenant_in(row.tenant)
        if row.chunk is None or row.document is None:
            raise RefusedError(f"No {'chunk id' if row.chunk is None else 'document'}.")
        if row.vector is None:
            raise RefusedError("No vector.")
        metadata = check_metadata(self._metadata(row), self._fields)
        text = adoption.text_at(row.text, self._source.text_keys)
        vector = load_vector(row.vector, half=self._source.vector_type == "halfvec")
        chunk = Chunk(row.chunk, row.document, text or "", vector, metadata=metadata)
        record = self._checks.record(tenant, chunk)
        if self._half:
            with np.errstate(over="ignore"):
                check_vector(
                    vector.astype(np.float16).astype(np.float32),
                    self._config.dimension,
                    nonzero=self._config.metric == "cosine",
                )
        return record

    def _metadata(self, row: SourceRow) -> dict[str, Any]:
        """Merge the metadata and the other columns; keys with NULL or null are omitted."""
        metadata = loaded(row.metadata) if row.metadata is not None else {}
        if metadata is None:
            metadata = {}
        if not isinstance(metadata, dict):
            raise RefusedError("The metadata is not a JSON object.")
        for part in (self._source.tenant, self._source.document):
            if part is not None and part.key is not None and part.column == self._source.metadata:
                metadata.pop(part.key, None)
        if len(self._source.text_keys) == 1 and self._source.text == self._source.metadata:
            metadata.pop(self._source.text_keys[0], None)
        extra = {key: value for key, value in (loaded(row.extra) or {}).items() if value is not None}
        both = metadata.keys() & extra.keys()
        if both:
            raise RefusedError(f"The key {min(both)!r} is both a column and a metadata key: leave one out.")
        return self._checks.metadata({**metadata, **extra})


def shown(key: list[str]) -> str:
    """Return the key of a row for people."""
    return ", ".join("NULL" if part is None else printable(part) for part in key)


def loaded(text: str | None) -> Any:
    """Parse JSON. Raises: InvalidInputError for a number that would be rounded."""
    return None if text is None else json.loads(text, parse_float=_float)


def _float(text: str) -> float:
    number = float(text)
    if Decimal(repr(number)) != Decimal(text):
        raise InvalidInputError(
            "The metadata holds a number with more digits than a float can represent.", field="metadata"
        )
    return number
