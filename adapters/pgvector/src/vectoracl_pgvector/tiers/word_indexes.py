"""Builds the missing indexes of words of tenants' own partitions, as part of `vectoracl provision`."""

from __future__ import annotations

from typing import Any

import psycopg

from vectoracl.adapter_api.contract import Progress
from vectoracl_pgvector import word_index
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.tiers.base import MOVE_TIMEOUTS
from vectoracl_pgvector.tiers.partitions import own_partitions
from vectoracl_pgvector.tiers.promotion import Promotion


def build(connection: psycopg.Connection[Any], config: PgvectorConfig, progress: Progress | None) -> list[str]:
    """Build the indexes that are missing, invalid or of another configuration, without blocking; return a line each.

    Raises:
        RefusedError: A move is in progress.
    """
    lines = []
    for tenant in sorted(unindexed(connection, config)):
        promotion = Promotion(connection, config, tenant, progress, MOVE_TIMEOUTS, None)
        with promotion.holding_move_lock():
            if promotion.build_word_index():
                lines.append(f"{tenant!r} has an index of words: {Names.of(config).partition(tenant)}")
    return lines


def unindexed(connection: psycopg.Connection[Any], config: PgvectorConfig) -> set[str]:
    """Return the tenants with their own partition, and without an index of words that searches may use."""
    if config.words != "bm25":
        return set()
    names = Names.of(config)
    usable = _usable(connection, config)
    own = {one for one, table in own_partitions(connection, config).items() if table == names.partition(one)}
    return {one for one in own if names.word_index_name(one) not in usable}


def _usable(connection: psycopg.Connection[Any], config: PgvectorConfig) -> set[str]:
    """Return the names of all indexes that the runtime role's searches may use, in one statement."""
    rows = connection.execute(
        "SELECT kind.relname, extension.extversion, pg_catalog.has_column_privilege(%s, part.oid, %s, 'SELECT') "
        "FROM pg_catalog.pg_inherits AS link JOIN pg_catalog.pg_class AS part ON part.oid = link.inhrelid "
        "JOIN pg_catalog.pg_index AS entry ON entry.indrelid = part.oid "
        "JOIN pg_catalog.pg_class AS kind ON kind.oid = entry.indexrelid "
        "JOIN pg_catalog.pg_am AS method ON method.oid = kind.relam "
        "CROSS JOIN pg_catalog.pg_extension AS extension "
        "WHERE link.inhparent = pg_catalog.to_regclass(%s) AND extension.extname = %s AND method.amname = 'bm25' "
        "AND kind.relname = part.relname || '_bm25' AND entry.indisvalid AND entry.indisready "
        "AND kind.reloptions = %s::pg_catalog.text[]",
        (
            config.runtime_role,
            config.columns.text,
            Names.of(config).table,
            word_index.EXTENSION,
            [f"{key}={value}" for key, value in word_index.options(config).items()],
        ),
    ).fetchall()
    return {name for name, version, granted in rows if granted or word_index.release(version) < word_index.GRANT_SINCE}
