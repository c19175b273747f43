"""The BM25 index of a tenant's own partition (extension `pg_textsearch`): its definition, and how it is found. Pure.

An index serves a search only if it is proved to hold exactly one tenant's texts: it is an ordinary index with the
expected name, column and options, valid, on a partition of the table whose bound is this tenant alone. Its statistics
are then the tenant's. An index of a partitioned table, or of the partition that tenants share, is never used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from vectoracl.text.sparse_words import K1, B
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, literal, quote
from vectoracl_pgvector.requests import Statement

EXTENSION: Final = "pg_textsearch"
# Since this release a score is computed only for roles that may read the indexed column itself.
GRANT_SINCE: Final = (1, 4)
MAX_RANKED: Final = 1000
"""The most rows that are ranked by the index: each of them is scored once more, for the reply."""

FIND: Final = (
    "SELECT space.nspname::pg_catalog.text, extension.extversion::pg_catalog.text, "
    "pg_catalog.has_schema_privilege(space.oid, 'USAGE'), "
    "pg_catalog.has_column_privilege(part.oid, %s::pg_catalog.text, 'SELECT') "
    "FROM pg_catalog.pg_class AS part "
    "JOIN pg_catalog.pg_inherits AS link ON link.inhrelid = part.oid "
    "JOIN pg_catalog.pg_index AS entry ON entry.indrelid = part.oid "
    "JOIN pg_catalog.pg_class AS kind ON kind.oid = entry.indexrelid "
    "JOIN pg_catalog.pg_am AS method ON method.oid = kind.relam "
    "JOIN pg_catalog.pg_depend AS member ON member.classid = 'pg_catalog.pg_am'::pg_catalog.regclass "
    "AND member.objid = method.oid AND member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass "
    "JOIN pg_catalog.pg_extension AS extension ON extension.oid = member.refobjid "
    "JOIN pg_catalog.pg_namespace AS space ON space.oid = extension.extnamespace "
    "JOIN pg_catalog.pg_attribute AS field ON field.attrelid = part.oid AND field.attnum = entry.indkey[0] "
    "WHERE part.oid = pg_catalog.to_regclass(%s::pg_catalog.text) AND part.relkind = 'r' "
    "AND link.inhparent = pg_catalog.to_regclass(%s::pg_catalog.text) "
    "AND pg_catalog.pg_get_expr(part.relpartbound, part.oid) = %s::pg_catalog.text "
    "AND kind.relname = %s::pg_catalog.name AND kind.relkind = 'i' AND method.amname = 'bm25' "
    f"AND extension.extname = '{EXTENSION}' AND entry.indisvalid AND entry.indisready AND entry.indislive "
    "AND entry.indnatts = 1 AND field.attname = %s::pg_catalog.name "
    "AND entry.indexprs IS NULL AND entry.indpred IS NULL AND kind.reloptions = %s::pg_catalog.text[]"
)


@dataclass(frozen=True, slots=True)
class WordIndex:
    """A usable index: the schema of its extension and its own qualified name, both quoted."""

    schema: str
    name: str


def options(config: PgvectorConfig) -> dict[str, str]:
    """Return the options of the index: the text search configuration, and the parameters of BM25."""
    space, _, short = config.text_search.rpartition(".")
    return {"text_config": f"{quote(space or 'pg_catalog')}.{quote(short)}", "k1": str(K1), "b": str(B)}


def build_sql(config: PgvectorConfig, tenant: str) -> str:
    """Return the statement that builds the index of *tenant*'s own partition."""
    names = Names.of(config)
    given = ", ".join(f"{key} = {literal(value)}" for key, value in options(config).items())
    return (
        f"CREATE INDEX CONCURRENTLY {quote(names.word_index_name(tenant))} ON {names.partition(tenant)} "
        f"USING bm25 ({names.c.text}) WITH ({given})"
    )


def index_name(names: Names, tenant: str) -> str:
    """Return the qualified and quoted name of the index."""
    return f"{names.schema}.{quote(names.word_index_name(tenant))}"


def bound(tenant: str) -> str:
    """Return the bound of a partition of *tenant* alone, as PostgreSQL prints it with standard_conforming_strings."""
    return "FOR VALUES IN ('" + tenant.replace("'", "''") + "')"


def find(config: PgvectorConfig, tenant: str) -> Statement:
    """Return the statement that finds the usable index of *tenant*; `found` takes its rows."""
    names = Names.of(config)
    values = (
        config.columns.text,
        names.partition(tenant),
        names.table,
        bound(tenant),
        names.word_index_name(tenant),
        config.columns.text,
        [f"{key}={value}" for key, value in options(config).items()],
    )
    return Statement(FIND, values)


def found(config: PgvectorConfig, tenant: str, rows: Sequence[tuple[Any, ...]]) -> WordIndex | None:
    """Return the index from the rows of `find`, or None if it is missing or the current role may not use it."""
    if not rows:
        return None
    space, version, usable, readable = rows[0]
    if not usable or (release(version) >= GRANT_SINCE and not readable) or "%" in space:
        return None
    return WordIndex(quote(space), index_name(Names.of(config), tenant))


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as "1.4.0" or "1.5.0-dev"."""
    return tuple(int(part) for part in version.partition("-")[0].split(".") if part.isdigit())
