"""SQL for the bits of the vectors: the generated column and its index, one for each partition. Pure.

The bits of a vector are the signs of its numbers (`binary_quantize`). The share in which two of them differ grows with
the angle between their vectors, so the nearest by bits contain the nearest by cosine distance if enough of them are
compared exactly. They take a thirty-second of the space of a vector, and the index has everything that the ranking
needs: the tenant, the tag's fields that scopes use, and the key by which the candidates are read. Such a ranking reads
the index alone, provided that the visibility map is set, which VACUUM does.
"""

from __future__ import annotations

from collections.abc import Iterator

from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import BITS_SUFFIX, Names, literal, quote

COVERED = frozenset({"@label", "@document", "@generation", "@docgen", "@chunk", "@expires"})
"""The fields that the index has: a predicate over others cannot be evaluated in it."""


def migrations(config: PgvectorConfig, names: Names) -> Iterator[str]:
    """Yield the statements that add the column and the missing indexes; each can be repeated.

    Adding the column rewrites the table and its partitions and blocks all other access. pgvector before 0.7 has no
    bits; its searches stay as they are.
    """
    yield (
        f"DO $$ BEGIN IF {_has_bits(names)} THEN "
        f"ALTER TABLE {names.table} ADD COLUMN IF NOT EXISTS {names.c.bits} bit({config.dimension}) "
        f"GENERATED ALWAYS AS ({names.quantize}({names.c.vector})) STORED; END IF; END $$;"
    )
    yield _indexes(names)


def index(names: Names, table: str, name: str) -> str:
    """Return the statement that builds the index *name* on *table*, a partition (quoted), without blocking writers."""
    return f"CREATE INDEX CONCURRENTLY {quote(name)} ON {table} {_columns(names)}"


def _columns(names: Names) -> str:
    c = names.c
    return f"({c.tenant}, {c.label}) INCLUDE ({c.document}, {c.generation}, {c.chunk}, {c.expires}, {c.bits})"


def _has_bits(names: Names) -> str:
    return f"pg_catalog.to_regprocedure({literal(f'{names.quantize}({names.vector_type})')}) IS NOT NULL"


def _indexes(names: Names) -> str:
    """Return the statement that builds the index where a partition has none, or one whose build was interrupted."""
    return (
        f"DO $$ DECLARE part record; BEGIN IF NOT ({_has_bits(names)}) THEN RETURN; END IF; "
        "FOR part IN SELECT space.nspname, child.relname, kind.oid IS NOT NULL AS broken "
        "FROM pg_catalog.pg_inherits AS link JOIN pg_catalog.pg_class AS child ON child.oid = link.inhrelid "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = child.relnamespace "
        "LEFT JOIN pg_catalog.pg_class AS kind ON kind.relnamespace = child.relnamespace "
        f"AND kind.relname = pg_catalog.left(child.relname, {63 - len(BITS_SUFFIX)}) || {literal(BITS_SUFFIX)} "
        "LEFT JOIN pg_catalog.pg_index AS x ON x.indexrelid = kind.oid "
        f"WHERE link.inhparent = pg_catalog.to_regclass({literal(names.table)}) AND child.relkind = 'r' "
        "AND x.indisvalid IS DISTINCT FROM true LOOP "
        "IF part.broken THEN EXECUTE pg_catalog.format('DROP INDEX %I.%I', part.nspname, "
        f"pg_catalog.left(part.relname, {63 - len(BITS_SUFFIX)}) || {literal(BITS_SUFFIX)}); END IF; "
        "EXECUTE pg_catalog.format('CREATE INDEX %I ON %I.%I ' || "
        f"{literal(_columns(names).replace('%', '%%'))}, "
        f"pg_catalog.left(part.relname, {63 - len(BITS_SUFFIX)}) || {literal(BITS_SUFFIX)}, part.nspname, "
        "part.relname); END LOOP; END $$;"
    )


def removal(config: PgvectorConfig, names: Names) -> str:
    """Return PL/pgSQL that drops the column with its indexes: the type of the vectors cannot change while it exists."""
    return (
        f"IF EXISTS (SELECT FROM pg_catalog.pg_attribute AS b WHERE b.attrelid = "
        f"pg_catalog.to_regclass({literal(names.table)}) AND b.attname = {literal(config.columns.bits)} "
        "AND NOT b.attisdropped AND b.attgenerated = 's' AND b.atttypid = 'pg_catalog.bit'::pg_catalog.regtype) THEN "
        f"ALTER TABLE {names.table} DROP COLUMN {names.c.bits}; END IF;"
    )
