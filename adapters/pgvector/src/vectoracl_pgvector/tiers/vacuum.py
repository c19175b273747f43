"""Vacuums partitions whose visibility map is empty, so that searches by bits read their index alone."""

from __future__ import annotations

from typing import Any

import psycopg

from vectoracl.adapter_api.contract import Progress
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, quote

# The statistics may be older than the rows, hence also those that have none. An empty table has no pages.
_UNSEEN = """
SELECT space.nspname, child.relname FROM pg_catalog.pg_inherits AS link
  JOIN pg_catalog.pg_class AS child ON child.oid = link.inhrelid AND child.relkind = 'r'
  JOIN pg_catalog.pg_namespace AS space ON space.oid = child.relnamespace
 WHERE link.inhparent = pg_catalog.to_regclass(%s) AND pg_catalog.pg_relation_size(child.oid) > 0
   AND (child.relpages <= 0 OR child.relallvisible * 2 < child.relpages) ORDER BY 1, 2"""


def vacuum(connection: psycopg.Connection[Any], config: PgvectorConfig, progress: Progress | None) -> list[str]:
    """Vacuum those partitions, which blocks no readers or writers; return a line for each."""
    if not config.has_bits:
        return []
    lines = []
    for space, name in connection.execute(_UNSEEN, (Names.of(config).table,)).fetchall():
        if progress is not None:
            progress(f"vacuuming {name}", 0, None)
        connection.execute(f"VACUUM (ANALYZE) {quote(space)}.{quote(name)}")
        lines.append(f"{name} was vacuumed, so that searches by bits read their index alone")
    return lines
