"""Changes the vectors of an existing table from `vector` to `halfvec` or back, as part of `vectoracl provision`.

halfvec can be indexed up to 4,000 dimensions, vector up to 2,000. PostgreSQL rewrites the table and its partitions in
one transaction, which blocks all other access. Nothing is lost, and a process whose configuration still has the other
type continues to work, since every vector is cast when it is written and read. The vector indexes of the old type are
dropped; those of the new type are built afterwards without blocking. Until then the tenants are searched exactly.
"""

from __future__ import annotations

from typing import Any

import psycopg

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import RefusedError, VectorACLError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, literal
from vectoracl_pgvector.schema import NO_DIRECTION
from vectoracl_pgvector.tiers.base import MOVE_TIMEOUTS, Mover
from vectoracl_pgvector.tiers.partitions import own_partitions
from vectoracl_pgvector.tiers.promotion import Promotion


def pending(connection: psycopg.Connection[Any], config: PgvectorConfig) -> bool:
    """Return whether the type of the table's vectors differs from the configuration."""
    row = connection.execute(
        "SELECT true FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid "
        "WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attname = %s AND t.typname IN ('vector', 'halfvec') "
        "AND t.typname <> %s",
        (Names.of(config).table, config.columns.vector, config.type),
    ).fetchone()
    return row is not None


def check_no_move(connection: psycopg.Connection[Any], config: PgvectorConfig) -> None:
    """Raise RefusedError if a move is in progress: its copy has the old type."""
    if Mover(connection, config, "", None, MOVE_TIMEOUTS, None).unfinished()[1]:
        raise RefusedError(
            "A move of a tenant is in progress, so the type was not changed; try again when it has ended."
        )


def refusal_for(error: psycopg.Error) -> VectorACLError | None:
    """Return the refusal if *error* means that the vectors do not fit the new type; nothing was changed then."""
    message = error.diag.message_primary or ""
    if error.sqlstate == "22003":
        why = "A number of a vector is beyond ±65504, the range of halfvec"
    elif error.sqlstate == "22P02" and NO_DIRECTION in message:
        why = "A vector is zero in half precision, and cosine similarity needs a direction"
    else:
        return None
    return RefusedError(
        f'{why}, so nothing was changed. Keep type = "vector", or scale the embedder\'s vectors and write them again.',
        field="type",
    )


def build_indexes(connection: psycopg.Connection[Any], config: PgvectorConfig, progress: Progress | None) -> list[str]:
    """Build the missing vector indexes of tenants' partitions without blocking; return a line for each.

    Raises:
        RefusedError: A move is in progress.
    """
    if not config.indexable:
        return []
    names = Names.of(config)
    lines = []
    for tenant, partition in sorted(own_partitions(connection, config).items()):
        if partition != names.partition(tenant) or _indexed(connection, config, partition):
            continue
        promotion = Promotion(connection, config, tenant, progress, MOVE_TIMEOUTS, None)
        with promotion.holding_move_lock():
            promotion.build_index()
        lines.append(f"{tenant!r} has a vector index again: {partition}")
    return lines


def _indexed(connection: psycopg.Connection[Any], config: PgvectorConfig, partition: str) -> bool:
    row = connection.execute(
        "SELECT true FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid "
        "JOIN pg_catalog.pg_am AS m ON m.oid = i.relam JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid "
        f"WHERE x.indrelid = pg_catalog.to_regclass({literal(partition)}) AND x.indisvalid AND m.amname = 'hnsw' "
        "AND a.attname = %s AND a.attnum = ANY(x.indkey)",
        (config.columns.vector,),
    ).fetchone()
    return row is not None
