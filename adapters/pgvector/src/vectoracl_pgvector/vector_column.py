"""Checks of the existing table's columns, and the comment that records whose vectors the vector column holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from vectoracl.adapter_api import store_notes
from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, literal
from vectoracl_pgvector.schema import expected, fits

_FOUND = """
SELECT t.typname::text, a.atttypmod, pg_catalog.col_description(a.attrelid, a.attnum)
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s AND NOT a.attisdropped"""


_COLUMNS = """
SELECT a.attname::text, t.typname::text, pg_catalog.format_type(a.atttypid, a.atttypmod)
  FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""


def check_columns(connection: psycopg.Connection[Any], config: PgvectorConfig) -> None:
    """Refuse to provision a table whose other columns are missing or of other types; changes nothing.

    Raises:
        RefusedError: The existing table does not fit. The message names the columns that are needed.
    """
    table = Names.of(config).table
    columns = {name: (kind, text) for name, kind, text in connection.execute(_COLUMNS, (table,)).fetchall()}
    if not columns:
        return
    added = (config.columns.lexemes, config.columns.word_count)  # by `provision` itself
    wrong = []
    for name, needed, _ in expected(config):
        column = columns.get(name)
        if column is None and name not in added:
            wrong.append(f"has no column {name}")
        elif column is not None and needed not in ("vector", "halfvec") and not fits(column[0], needed):
            wrong.append(f"has the column {name} of type {column[1]}, and {needed} is needed")
    bits = columns.get(config.columns.bits)
    if config.has_bits and bits is not None and bits[1] != f"bit({config.dimension})":
        wrong.append(f"has the column {config.columns.bits} of type {bits[1]}, which is not that of the bits")
    if wrong:
        raise RefusedError(
            f"The table {table} {'; it '.join(wrong)}. Correct the names under columns in the configuration, or name "
            "another table and copy the chunks there (vectoracl copy).",
            field="columns",
        )


def check(connection: psycopg.Connection[Any], config: PgvectorConfig, store: str, embedder: str | None) -> None:
    """Refuse to provision a table whose vectors differ from the configured ones; changes nothing.

    Raises:
        RefusedError: The existing column has another type, dimension or embedder. The message says what to do.
    """
    names = Names.of(config)
    row = connection.execute(_FOUND, (names.table, config.columns.vector)).fetchone()
    if row is None:
        return
    kind, modifier, comment = row
    # `retype` changes between vector and halfvec of the same dimension.
    if kind not in ("vector", "halfvec") or modifier not in (config.dimension, -1):
        holds = f"{kind}({modifier})" if modifier > 0 else kind
        raise RefusedError(
            f"The column {config.columns.vector} of {names.table} is of type {holds}, but the configuration says "
            f"{config.type}({config.dimension}). Set the dimension to that of the table, or name another table and "
            "copy the chunks there (vectoracl copy --reembed).",
            field="dimension",
        )
    store_notes.learned(store, store_notes.embedder_of(store_notes.read(comment)), embedder)


def keep(config: PgvectorConfig, embedder: str | None) -> Iterator[str]:
    """Yield the statement that adds *embedder* to the column's comment, unless one is recorded there."""
    if embedder is None:
        return
    names = Names.of(config)
    line = store_notes.written(None, {store_notes.EMBEDDER: embedder, store_notes.DIMENSION: config.dimension})
    column = f"{names.table}.{names.c.vector}"
    yield (
        "DO $vectoracl$ DECLARE kept text := (SELECT pg_catalog.col_description(attrelid, attnum) FROM "
        f"pg_catalog.pg_attribute WHERE attrelid = {literal(names.table)}::regclass AND attname = "
        f"{literal(config.columns.vector)}); BEGIN IF kept IS NULL OR pg_catalog.strpos(kept, '[vectoracl] ') = 0 THEN "
        f"EXECUTE pg_catalog.format({literal(f'COMMENT ON COLUMN {escaped(column)} IS %L')}, "
        f"pg_catalog.concat_ws(E'\\n', kept, {literal(line)})); END IF; END $vectoracl$;"
    )


def mark(connection: psycopg.Connection[Any], config: PgvectorConfig, registry: str | None) -> None:
    """Note in the column's comment which registry governs the table; None removes the note."""
    names = Names.of(config)
    row = connection.execute(_FOUND, (names.table, config.columns.vector)).fetchone()
    if row is None:
        raise RefusedError(
            "The table to mark as governed does not exist. Run `vectoracl provision` first.", field="registry"
        )
    text = store_notes.marked(row[2], registry)
    connection.execute(f"COMMENT ON COLUMN {names.table}.{names.c.vector} IS {literal(text)}")


def escaped(text: str) -> str:
    """Return *text* escaped for the pattern of PostgreSQL's `format`."""
    return text.replace("%", "%%")
