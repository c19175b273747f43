"""Judges indexes of words (extension `pg_textsearch`): usable where the configuration needs them, one tenant each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from vectoracl.adapter_api.posture import Finding
from vectoracl_pgvector import word_index
from vectoracl_pgvector.posture import sql_fragments as parts
from vectoracl_pgvector.posture.fix_sql import advice, ident
from vectoracl_pgvector.posture.rows import Extension, Relation
from vectoracl_pgvector.posture.snapshot import Snapshot, make_finding, name_of
from vectoracl_pgvector.posture.table import one_tenant

# The few indexes of words first: no plan may look for them once for each partition.
INDEXES: Final = (
    parts.REACH
    + parts.TREE
    + """,
  bm25 AS MATERIALIZED (
     SELECT c.oid, c.relname, c.relkind, c.reloptions, e.extnamespace
       FROM pg_catalog.pg_extension e
       JOIN pg_catalog.pg_depend d ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
        AND d.refobjid = e.oid AND d.classid = 'pg_catalog.pg_am'::pg_catalog.regclass
       JOIN pg_catalog.pg_am m ON m.oid = d.objid AND m.amname = 'bm25'
       JOIN pg_catalog.pg_class c ON c.relam = m.oid
      WHERE e.extname = 'pg_textsearch')
SELECT i.indrelid::bigint, c.relname::text, c.relkind::text, i.indisvalid AND i.indisready,
       coalesce(c.reloptions, ARRAY[]::text[]), i.indnatts = 1 AND i.indexprs IS NULL AND i.indpred IS NULL,
       coalesce(a.attname::text, ''), pg_catalog.has_schema_privilege(me.oid, c.extnamespace, 'USAGE'),
       a.attname IS NOT NULL AND pg_catalog.has_column_privilege(me.oid, i.indrelid, a.attnum, 'SELECT')
  FROM bm25 c JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid CROSS JOIN me
  LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] AND a.attnum > 0
 WHERE i.indrelid IN (SELECT oid FROM tree) ORDER BY 1, 2"""
)


class WordIndexRow(NamedTuple):  # noqa: D101 - the rows of INDEXES
    relation: int
    name: str
    kind: str
    valid: bool
    options: list[str]
    plain: bool
    column: str
    schema_usable: bool
    readable: bool


def words(snapshot: Snapshot) -> Iterator[Finding]:
    """Judge the indexes of words of the table and its partitions."""
    version = next((e.version for e in snapshot.read("extensions", Extension) if e.name == word_index.EXTENSION), None)
    by_relation: dict[int, list[WordIndexRow]] = defaultdict(list)
    for row in snapshot.read("word_indexes", WordIndexRow):
        by_relation[row.relation].append(row)
    if version is not None and by_relation:
        yield from _release(version)
    for relation in snapshot.relations:
        for index in by_relation[relation.oid] if not one_tenant(snapshot, relation) else ():
            yield make_finding(
                "PG119", f"{relation.schema}.{index.name}",
                f"The index of words {index.name} on {name_of(relation)} holds many tenants.",
                f"DROP INDEX {ident(relation.schema, index.name)};",
            )  # fmt: skip
    if snapshot.target.words_column:
        yield from _missing(snapshot, version, by_relation)


def _release(version: str) -> Iterator[Finding]:
    holes = [text for release, text in _HOLES if word_index.release(version) < release]
    if holes:
        yield make_finding(
            "PG094", word_index.EXTENSION, f"pg_textsearch is {version}: {'; '.join(holes)}.",
            f"ALTER EXTENSION {word_index.EXTENSION} UPDATE;",
        )  # fmt: skip


_HOLES: Final = (
    (
        (1, 1),
        "after a vacuum its statistics still count the deleted rows, so that words are weighed wrongly until "
        "REINDEX INDEX CONCURRENTLY",
    ),
    ((1, 2), "a ranking can miss one of the best rows in a large index, and indexes are not replicated reliably"),
    ((1, 3, 1), "a search while rows are written can return a row twice or miss one, and a vacuum can fail"),
    (word_index.GRANT_SINCE, "any role with SQL can compute how rare a word is in any index, by the index's name"),
)


def _missing(snapshot: Snapshot, version: str | None, by_relation: dict[int, list[WordIndexRow]]) -> Iterator[Finding]:
    partitions = [one for one in snapshot.children if one.is_partition and one_tenant(snapshot, one)]
    if not partitions:
        return
    if version is None:
        names = ", ".join(sorted(name_of(one) for one in partitions)[:4])
        yield make_finding(
            "PG118", snapshot.target.table,
            f"The database has no extension pg_textsearch, so words are searched row by row in {names}"
            + (f" and {len(partitions) - 4} more." if len(partitions) > 4 else "."),
            advice("Install pg_textsearch, add it to shared_preload_libraries, restart the server and run "
                   '`vectoracl provision`; or set words = "ts_rank".'),
        )  # fmt: skip
        return
    for relation in partitions:
        reason = _reason(snapshot, version, relation, by_relation[relation.oid])
        if reason:
            yield make_finding(
                "PG118", name_of(relation), f"Words are searched row by row in {name_of(relation)}: {reason}.",
                advice("Run `vectoracl provision`, which builds it without blocking readers or writers. An index that "
                       "is being built is not valid yet."),
            )  # fmt: skip


def _reason(snapshot: Snapshot, version: str, relation: Relation, rows: list[WordIndexRow]) -> str:
    """Return why no index of *relation* is used; empty if one is."""
    indexes = [row for row in rows if row.name == f"{relation.name}_bm25"]
    if not indexes:
        return "it has no index of words"
    index = indexes[0]
    if not index.valid:
        return "its index of words is not valid"
    if not index.plain or index.column != snapshot.target.words_column or index.kind != "i":
        return f"the index {index.name} is not one of {snapshot.target.words_column} alone"
    if index.options != list(snapshot.target.words_options):
        return "its index of words was built with other options than the configuration's"
    if not index.schema_usable:
        return "the role may not use the schema of pg_textsearch"
    if word_index.release(version) >= word_index.GRANT_SINCE and not index.readable:
        return "the role may not read the column of the index, which this release of pg_textsearch demands"
    return ""
