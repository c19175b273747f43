"""The schema as SQL: pure. `migrations` can be run again at any time, and `provision --sql` prints the same text.

Roles: an owner, which has everything and serves nothing, and a runtime role, which owns nothing, has neither SUPERUSER
nor BYPASSRLS and reaches the table only through row-level security. Partitions are closed to it: a parent's policies do
not protect a partition that is queried by name, so each also has its own (PostgreSQL docs, "Row Security Policies").
"""

from __future__ import annotations

from collections.abc import Iterator

from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import SETTING, Names, literal, quote

VERSION = 2
COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")
# An unset setting reads as NULL in a fresh session and as '' after a transaction that set it; both must match nothing.
TENANT_NOW = f"NULLIF(pg_catalog.current_setting('{SETTING}', true), '')"


def roles(config: PgvectorConfig) -> Iterator[str]:
    """Yield what a superuser runs once: the two roles, the extension and the schema's owner. Passwords are not set."""
    for role in (config.owner_role, config.runtime_role):
        yield (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {literal(role)}) THEN "
            f"CREATE ROLE {quote(role)} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT; "
            "END IF; END $$;"
        )
    yield f"CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {quote(config.extension_schema)};"
    yield f"CREATE SCHEMA IF NOT EXISTS {quote(config.schema_name)} AUTHORIZATION {quote(config.owner_role)};"


def migrations(config: PgvectorConfig) -> Iterator[str]:
    """Yield what the owner runs, in order; each statement can be repeated."""
    names = Names.of(config)
    c = names.c
    runtime = quote(config.runtime_role)
    # IF NOT EXISTS asks for the right to create one even where it exists, which an owner need not have.
    yield (
        f"DO $$ BEGIN IF pg_catalog.to_regnamespace({literal(names.schema)}) IS NULL THEN "
        f"CREATE SCHEMA {names.schema}; END IF; END $$;"
    )
    yield f"REVOKE ALL ON SCHEMA {names.schema} FROM PUBLIC;"
    yield f"GRANT USAGE ON SCHEMA {names.schema} TO {runtime};"
    yield (
        f"CREATE TABLE IF NOT EXISTS {names.table} (\n"
        f"    {c.tenant} text COLLATE \"C\" NOT NULL CHECK ({c.tenant} <> ''),\n"
        f"    {c.document} text COLLATE \"C\" NOT NULL CHECK ({c.document} <> ''),\n"
        f"    {c.generation} bigint NOT NULL CHECK ({c.generation} >= 0),\n"
        f"    {c.chunk} text COLLATE \"C\" NOT NULL CHECK ({c.chunk} <> ''),\n"
        f"    {c.label} text COLLATE \"C\" NOT NULL CHECK ({c.label} <> ''),\n"
        f"    {c.rev} bigint NOT NULL CHECK ({c.rev} >= 0),\n"
        f"    {c.expires} double precision NOT NULL,\n"
        f'    {c.producer} text COLLATE "C" NOT NULL,\n'
        f'    {c.path} text COLLATE "C" NOT NULL,\n'
        f"    {c.time} double precision NOT NULL,\n"
        f"    {c.position} integer NOT NULL,\n"
        f"    {c.text} text NOT NULL,\n"
        f"    {c.metadata} jsonb NOT NULL CHECK (jsonb_typeof({c.metadata}) = 'object'),\n"
        f"    {c.vector} {names.vector_type}({config.dimension}) NOT NULL,\n"
        f"    PRIMARY KEY ({c.tenant}, {c.document}, {c.generation}, {c.chunk})\n"
        f") PARTITION BY LIST ({c.tenant});"
    )
    yield f"CREATE TABLE IF NOT EXISTS {names.default} PARTITION OF {names.table} DEFAULT;"
    yield f"ALTER TABLE {names.table} ALTER COLUMN {c.vector} SET STORAGE {_storage(config)};"
    yield f"ALTER TABLE {names.default} ALTER COLUMN {c.vector} SET STORAGE {_storage(config)};"
    if config.lexical:
        yield from _lexemes(config, names)
    yield from protection(config, names.table)
    yield from protection(config, names.default)
    yield f"REVOKE ALL ON {names.table} FROM PUBLIC, {runtime};"
    yield f"GRANT {', '.join(COMMANDS)} ON {names.table} TO {runtime};"
    yield f"REVOKE ALL ON {names.default} FROM PUBLIC, {runtime};"
    yield from _tenants(config, names)
    yield (
        f"CREATE TABLE IF NOT EXISTS {names.versions} (version integer PRIMARY KEY, "
        "applied timestamptz NOT NULL DEFAULT now());"
    )
    yield f"REVOKE ALL ON {names.versions} FROM PUBLIC, {runtime};"
    yield f"INSERT INTO {names.versions} (version) VALUES ({VERSION}) ON CONFLICT DO NOTHING;"


def _lexemes(config: PgvectorConfig, names: Names) -> Iterator[str]:
    """Yield the words of each text as a column that PostgreSQL generates: since version 2.

    Adding it rewrites the table and its partitions while nobody else reads or writes. Its comment says which text
    search configuration made it; under another one it is made again. There is no index on it: under row-level
    security none would be used (`compile_words`).
    """
    column, made = names.c.lexemes, literal(f"text search of vectoracl: {config.text_search}")
    name = literal(config.columns.lexemes)
    yield (
        "DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = "
        f"pg_catalog.to_regclass({literal(names.table)}) AND attname = {name} AND NOT attisdropped "
        f"AND pg_catalog.starts_with(pg_catalog.col_description(attrelid, attnum), 'text search of vectoracl: ') "
        f"AND pg_catalog.col_description(attrelid, attnum) <> {made}) THEN "
        f"ALTER TABLE {names.table} DROP COLUMN {column}; END IF; END $$;"
    )
    yield (
        f"ALTER TABLE {names.table} ADD COLUMN IF NOT EXISTS {column} tsvector "
        f"GENERATED ALWAYS AS (pg_catalog.to_tsvector({names.text_search}, {names.c.text})) STORED;"
    )
    yield f"COMMENT ON COLUMN {names.table}.{column} IS {made};"


def _storage(config: PgvectorConfig) -> str:
    """Return how vectors are kept: beside their row while it fits a page of 8 kB (3 times faster), else apart."""
    size = config.dimension * (4 if config.type == "vector" else 2)
    return "PLAIN" if size <= 7000 else "EXTERNAL"


def protection(config: PgvectorConfig, table: str) -> Iterator[str]:
    """Yield row-level security for *table* (quoted): enabled, forced, and policies for each command.

    The tenant's rule stands twice: as the permissive policy that opens, and as a restrictive one, which a permissive
    policy that someone adds later cannot widen (permissive policies are or-ed, restrictive ones and-ed).
    """
    rule = f"{Names.of(config).c.tenant} = {TENANT_NOW}"
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
    yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
    for command in COMMANDS:
        using = "" if command == "INSERT" else f" USING ({rule})"
        check = f" WITH CHECK ({rule})" if command in ("INSERT", "UPDATE") else ""
        for kind in ("PERMISSIVE", "RESTRICTIVE"):
            name = quote(f"vectoracl_{command.lower()}_{kind.lower()}")
            yield f"DROP POLICY IF EXISTS {name} ON {table};"
            yield f"CREATE POLICY {name} ON {table} AS {kind} FOR {command} TO PUBLIC{using}{check};"


def _tenants(config: PgvectorConfig, names: Names) -> Iterator[str]:
    """Yield the list of tenants: a tenant sees and adds itself; the owner reads the ids, and nothing else of them."""
    runtime, owner = quote(config.runtime_role), quote(config.owner_role)
    rule = f"tenant_id = {TENANT_NOW}"
    table = names.tenants
    yield (
        f"CREATE TABLE IF NOT EXISTS {table} (tenant_id text COLLATE \"C\" PRIMARY KEY CHECK (tenant_id <> ''), "
        "since timestamptz NOT NULL DEFAULT now());"
    )
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
    yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
    policies = (
        ("vectoracl_see_own", "SELECT", "PUBLIC", f"USING ({rule})"),
        ("vectoracl_add_own", "INSERT", "PUBLIC", f"WITH CHECK ({rule})"),
        ("vectoracl_owner_lists", "SELECT", owner, "USING (true)"),
    )
    for name, command, role, clause in policies:
        yield f"DROP POLICY IF EXISTS {name} ON {table};"
        yield f"CREATE POLICY {name} ON {table} AS PERMISSIVE FOR {command} TO {role} {clause};"
    yield f"REVOKE ALL ON {table} FROM PUBLIC, {runtime};"
    yield f"GRANT SELECT, INSERT ON {table} TO {runtime};"


def vector_index(config: PgvectorConfig, table: str, name: str) -> str:
    """Return the HNSW index of one tenant's own partition; m and ef_construction are pgvector's defaults."""
    names = Names.of(config)
    return f"CREATE INDEX IF NOT EXISTS {quote(name)} ON {table} USING hnsw ({names.c.vector} {names.opclass});"
