"""The tenants that have their own partition."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import Names, quote

_BOUND = re.compile(r"FOR VALUES IN \('((?:[^']|'')*)'\)\Z")


def own_partitions(connection: psycopg.Connection[Any], config: PgvectorConfig) -> dict[str, str]:
    """Return the tenants that have their own partition, each with the quoted name of that partition.

    A partition that was created by hand for several tenants is left out.
    """
    rows = connection.execute(
        "SELECT pg_catalog.pg_get_expr(child.relpartbound, child.oid), "
        "pg_catalog.current_setting('standard_conforming_strings'), space.nspname, child.relname "
        "FROM pg_catalog.pg_inherits AS link JOIN pg_catalog.pg_class AS child ON child.oid = link.inhrelid "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = child.relnamespace "
        "WHERE link.inhparent = pg_catalog.to_regclass(%s)",
        (Names.of(config).table,),
    ).fetchall()
    partitions = {}
    for bound, conforming, space, name in rows:
        match = _BOUND.match(bound or "")
        if match is not None:
            # ruleutils.c, simple_quote_literal: ' is doubled, and so is \ unless standard_conforming_strings is on.
            tenant = match[1].replace("''", "'")
            partitions[tenant if conforming == "on" else tenant.replace("\\\\", "\\")] = f"{quote(space)}.{quote(name)}"
    return partitions


def number_of_partitions(connection: psycopg.Connection[Any], config: PgvectorConfig) -> int:
    """Return the number of the table's partitions besides the shared one."""
    names = Names.of(config)
    row = connection.execute(
        "SELECT count(*) FROM pg_catalog.pg_inherits WHERE inhparent = pg_catalog.to_regclass(%s) "
        "AND inhrelid IS DISTINCT FROM pg_catalog.to_regclass(%s)::oid",
        (names.table, names.default),
    ).fetchone()
    assert row is not None
    return int(row[0])
