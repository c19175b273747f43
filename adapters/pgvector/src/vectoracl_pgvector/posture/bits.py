"""Whether searches can use the index of bits (`vectoracl_pgvector.bits`). Its absence costs time and opens nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector.names import BITS_SUFFIX
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.snapshot import Snapshot, make_finding, name_of


class Unusable(NamedTuple):
    """A partition whose searches cannot use the index well, and why."""

    schema: str
    partition: str
    why: str


# One row for each partition where something is amiss; none if the configuration has no bits (an empty column name).
BITS: Final = f"""
SELECT n.nspname::text, c.relname::text,
       CASE WHEN b.attnum IS NULL THEN 'column' WHEN x.indexrelid IS NULL THEN 'missing'
            WHEN NOT x.indisvalid THEN 'invalid' ELSE 'map' END
  FROM pg_catalog.pg_class t JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
  JOIN pg_catalog.pg_inherits h ON h.inhparent = t.oid
  JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid AND c.relkind = 'r'
  LEFT JOIN pg_catalog.pg_attribute b ON b.attrelid = c.oid AND b.attname = %(bits)s::text AND NOT b.attisdropped
  LEFT JOIN pg_catalog.pg_class i ON i.relnamespace = c.relnamespace
        AND i.relname = pg_catalog.left(c.relname::text, {63 - len(BITS_SUFFIX)}) || '{BITS_SUFFIX}'
  LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = i.oid AND x.indrelid = c.oid
 WHERE n.nspname = %(schema)s::text AND t.relname = %(table)s::text AND %(bits)s::text <> ''
   AND (b.attnum IS NULL OR x.indisvalid IS DISTINCT FROM true OR c.relallvisible * 2 < c.relpages)
 ORDER BY 2"""

_PROVISION = advice(
    "Run `vectoracl provision`. It rewrites the table and blocks reads and writes while it runs. Or set bits = false."
)


def bits(snapshot: Snapshot) -> Iterator[Finding]:
    """Report partitions that are searched in the next best way: the index is missing or cannot be used."""
    if snapshot.table is None:
        return
    at = name_of(snapshot.table)
    by_reason: dict[str, list[Unusable]] = defaultdict(list)
    for row in snapshot.read("bits", Unusable):
        by_reason[row.why].append(row)
    if "column" in by_reason:
        message = f"{at} has no column with the bits of its vectors, which the configuration asks for."
        yield make_finding("PG116", at, message, _PROVISION)
        return
    for why, text, fix in (
        ("missing", "has no index of bits", "Run `vectoracl provision`, which builds it."),
        ("invalid", "has an index of bits that is being built, or whose build was interrupted",
         "If no session is building it, run `vectoracl provision`, which builds it again."),
    ):  # fmt: skip
        if rows := by_reason[why]:
            yield make_finding("PG116", at, f"{_named(rows)} {text}.", advice(fix))
    if rows := by_reason["map"]:
        statements = " ".join(f"VACUUM (ANALYZE) {ident(row.schema, row.partition)};" for row in rows[:_NAMED])
        yield make_finding("PG117", at, f"{_named(rows)} was not vacuumed since most of it was written.", statements)


_NAMED = 5


def _named(rows: list[Unusable]) -> str:
    more = f" and {len(rows) - _NAMED:,} more" if len(rows) > _NAMED else ""
    return f"Each of {', '.join(row.partition for row in rows[:_NAMED])}{more}" if len(rows) > 1 else rows[0].partition
