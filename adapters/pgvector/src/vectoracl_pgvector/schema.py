"""The schema as SQL. Pure. `migrations` can be run repeatedly, and `provision --sql` prints the same text.

There are two roles: an owner, which owns everything and serves no requests, and a runtime role, which owns nothing, has
neither SUPERUSER nor BYPASSRLS and reaches the table only through row-level security. Partitions are closed to the
runtime role: a parent's policies do not protect a partition that is queried by name, so each partition also has its own
policies (PostgreSQL documentation, "Row Security Policies").
"""

from __future__ import annotations

from collections.abc import Iterator

from vectoracl_pgvector import bits
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import EXTENSION_SCHEMA, SETTING, Names, literal, quote
from vectoracl_pgvector.word_index import EXTENSION

VERSION = 3
COMMANDS = ("SELECT", "INSERT", "UPDATE", "DELETE")
# Seconds that a statement waits for a table in use. While it waits, all others wait behind it.
LOCK_TIMEOUT = 5
# The tenant that the setting names. Unset, it reads as NULL in a fresh session and as '' after a transaction that set
# it; both must match nothing. Permissive policies use the plain form, which tools that prove policies (pgrls) can read,
# and rely on the column's CHECK (… <> ''); restrictive policies use NULLIF. With the explicit tenant of a query both
# are one-time filters, while `AND … <> ''` in one policy would be evaluated for every row.
TENANT_NOW = f"pg_catalog.current_setting('{SETTING}', true)"
TENANT_NOT_EMPTY = f"NULLIF({TENANT_NOW}, '')"


def roles(config: PgvectorConfig) -> Iterator[str]:
    """Yield the statements that an administrator runs once: roles, extension and the owner's schema; no passwords."""
    for role in (config.owner_role, config.runtime_role):
        yield (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = {literal(role)}) THEN "
            f"CREATE ROLE {quote(role)} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOINHERIT; "
            "END IF; END $$;"
        )
    extension_schema = config.extension_schema or EXTENSION_SCHEMA
    if extension_schema != EXTENSION_SCHEMA:
        yield f"CREATE SCHEMA IF NOT EXISTS {quote(extension_schema)};"
    yield f"CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA {quote(extension_schema)};"
    yield _use_extension(config, extension_schema)
    if config.words == "bm25":
        yield _textsearch(config, extension_schema)
    yield _become_owner(config)
    yield f"CREATE SCHEMA IF NOT EXISTS {quote(config.schema_name)} AUTHORIZATION {quote(config.owner_role)};"


def script(config: PgvectorConfig) -> str:
    """Return the complete script for psql: roles and extension, then the tables as the owner."""
    owner, runtime = quote(config.owner_role), quote(config.runtime_role)
    return "\n".join([
        "-- Run the whole script: psql -v ON_ERROR_STOP=1 -f FILE, as a superuser or as the administrator of a "
        "managed server",
        "-- (CREATEROLE and CREATE on the database; the extension must exist, or be one that it may create).",
        *roles(config),
        "",
        "-- The roles have no passwords yet. Set them in psql, which sends only a verifier of each:",
        f"--   \\password {config.owner_role}",
        f"--   \\password {config.runtime_role}",
        "",
        f"-- As {config.owner_role}; a role that may not SET ROLE to it connects as it and begins here:",
        f"SET ROLE {owner};",
        "BEGIN;",
        "-- While a statement waits for a table, all others wait behind it. If this part ends with 55P03, nothing was",
        "-- changed: run it again when no long transaction is open.",
        f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}s';",
        *migrations(config),
        "COMMIT;",
        "-- If this changed vector to halfvec, or back, tenants' own partitions have no vector index now and are",
        "-- searched exactly: `vectoracl provision` builds the indexes, without blocking readers or writers.",
        "RESET ROLE;",
        f"-- {runtime} serves requests. If you no longer need to act as {owner}: REVOKE {owner} FROM CURRENT_USER;",
        "",
    ])  # fmt: skip


def _become_owner(config: PgvectorConfig) -> str:
    """Return the grant that lets an administrator without SUPERUSER create the owner's schema and act as the owner.

    The creator of a role may grant it. Since PostgreSQL 16 that does not include SET ROLE, so it is granted here.
    """
    owner = literal(config.owner_role)
    return (
        f"DO $$ BEGIN IF current_user = {owner} OR (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = "
        "current_user) THEN RETURN; END IF; "
        "IF pg_catalog.current_setting('server_version_num')::int4 >= 160000 THEN "
        f"IF NOT pg_catalog.pg_has_role({owner}, 'SET') THEN EXECUTE pg_catalog.format("
        f"'GRANT %I TO CURRENT_USER WITH INHERIT FALSE, SET TRUE', {owner}); END IF; "
        f"ELSIF NOT pg_catalog.pg_has_role({owner}, 'MEMBER') THEN "
        f"EXECUTE pg_catalog.format('GRANT %I TO CURRENT_USER', {owner}); END IF; END $$;"
    )


def _use_extension(config: PgvectorConfig, extension_schema: str) -> str:
    """Return the grants for the extension's actual schema, which fail if that differs from *extension_schema*."""
    moved = (
        "the extension vector is in the schema %: set extension_schema to that in the configuration of the store, and "
        "print this again"
    )
    return (
        "DO $$ DECLARE there name; one name; BEGIN "
        "SELECT nspname INTO there FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS n "
        "ON n.oid = e.extnamespace WHERE e.extname = 'vector'; "
        f"IF there <> {literal(extension_schema)} THEN RAISE EXCEPTION {literal(moved)}, there; END IF; "
        f"FOREACH one IN ARRAY ARRAY[{literal(config.owner_role)}, {literal(config.runtime_role)}]::name[] LOOP "
        "IF NOT pg_catalog.has_schema_privilege(one, there, 'USAGE') THEN "
        "EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', there, one); END IF; "
        "IF NOT pg_catalog.has_database_privilege(one, pg_catalog.current_database(), 'CONNECT') THEN "
        "EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO %I', pg_catalog.current_database(), one); END IF; "
        "END LOOP; END $$;"
    )


def _textsearch(config: PgvectorConfig, extension_schema: str) -> str:
    """Return the statement that creates the extension for indexes of words where the server has loaded its library."""
    roles = ", ".join(literal(role) for role in (config.owner_role, config.runtime_role))
    return (
        "DO $$ DECLARE there name; one name; BEGIN "
        f"IF NOT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = '{EXTENSION}') THEN "
        f"IF pg_catalog.current_setting('{EXTENSION}.library_version', true) IS NULL OR NOT EXISTS "
        f"(SELECT FROM pg_catalog.pg_available_extensions WHERE name = '{EXTENSION}') THEN RETURN; END IF; "
        f"CREATE EXTENSION {EXTENSION} WITH SCHEMA {quote(extension_schema)}; END IF; "
        "SELECT space.nspname INTO there FROM pg_catalog.pg_extension AS e JOIN pg_catalog.pg_namespace AS space "
        f"ON space.oid = e.extnamespace WHERE e.extname = '{EXTENSION}'; "
        f"FOREACH one IN ARRAY ARRAY[{roles}]::name[] LOOP "
        "IF NOT pg_catalog.has_schema_privilege(one, there, 'USAGE') THEN "
        "EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', there, one); END IF; END LOOP; END $$;"
    )


def migrations(config: PgvectorConfig) -> Iterator[str]:
    """Yield the owner's statements, in order; each can be repeated."""
    names = Names.of(config)
    c = names.c
    runtime = quote(config.runtime_role)
    # CREATE SCHEMA IF NOT EXISTS needs the privilege to create one even if it exists, which an owner need not have.
    yield (
        f"DO $$ BEGIN IF pg_catalog.to_regnamespace({literal(names.schema)}) IS NULL THEN "
        f"CREATE SCHEMA {names.schema}; END IF; END $$;"
    )
    # The following statements need both tables exclusively. Locked in the order of a write, to avoid deadlocks.
    yield (
        f"DO $$ BEGIN IF pg_catalog.to_regclass({literal(names.tenants)}) IS NOT NULL "
        f"AND pg_catalog.to_regclass({literal(names.table)}) IS NOT NULL THEN "
        f"LOCK TABLE {names.tenants}, {names.table} IN ACCESS EXCLUSIVE MODE; END IF; END $$;"
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
    yield _retype(config, names)
    yield f"ALTER TABLE {names.table} ALTER COLUMN {c.vector} SET STORAGE {_storage(config)};"
    yield f"ALTER TABLE {names.default} ALTER COLUMN {c.vector} SET STORAGE {_storage(config)};"
    if config.lexical:
        yield from _lexemes(config, names)
    if config.words == "bm25":
        yield from _word_count(config, names)
    if config.has_bits:
        yield from bits.migrations(config, names)
    yield from protection(config, names.table)
    yield from protection(config, names.default)
    yield _older_partitions(config, names)
    yield f"REVOKE ALL ON {names.table} FROM PUBLIC, {runtime};"
    yield f"GRANT {', '.join(COMMANDS)} ON {names.table} TO {runtime};"
    yield f"REVOKE ALL ON {names.default} FROM PUBLIC, {runtime};"
    yield from _tenants(config, names)
    yield (
        f"CREATE TABLE IF NOT EXISTS {names.versions} (version integer PRIMARY KEY, "
        "applied timestamptz NOT NULL DEFAULT now());"
    )
    yield f"ALTER TABLE {names.versions} ENABLE ROW LEVEL SECURITY;"
    yield f"ALTER TABLE {names.versions} FORCE ROW LEVEL SECURITY;"
    yield f"DROP POLICY IF EXISTS vectoracl_owner_keeps ON {names.versions};"
    yield (
        f"CREATE POLICY vectoracl_owner_keeps ON {names.versions} AS PERMISSIVE FOR ALL TO {quote(config.owner_role)} "
        "USING (version > 0) WITH CHECK (version > 0);"
    )
    yield f"REVOKE ALL ON {names.versions} FROM PUBLIC, {runtime};"
    yield f"INSERT INTO {names.versions} (version) VALUES ({VERSION}) ON CONFLICT DO NOTHING;"


NO_DIRECTION = "vectoracl:zero_in_half"  # casting this text fails and rolls everything back


def _retype(config: PgvectorConfig, names: Names) -> str:
    """Return the statement that changes the vectors of an existing table to the configured type; see `retype`.

    Row-level security does not hide rows from a rewrite. Values that halfvec cannot represent fail the whole statement:
    too large numbers by the cast itself and, for cosine, vectors that would become zero.
    """
    c, type_ = names.c, names.vector_type
    cast = f"{c.vector}::{type_}({config.dimension})"
    if config.type == "halfvec" and config.metric == "cosine":
        norm = f"{type_.rpartition('.')[0]}.l2_norm({c.vector}::{type_})"
        fails = f"({literal(NO_DIRECTION)} || pg_catalog.left({c.document}, 0))::{type_}"
        cast = f"CASE WHEN {norm} = 0 THEN {fails} ELSE {cast} END"
    table, column = f"pg_catalog.to_regclass({literal(names.table)})", literal(config.columns.vector)
    return (
        "DO $$ DECLARE one record; BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_attribute AS a "
        f"JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid WHERE a.attrelid = {table} AND a.attname = {column} "
        "AND NOT a.attisdropped AND t.typname IN ('vector', 'halfvec') "
        f"AND t.typname <> {literal(config.type)} AND a.atttypmod = {config.dimension}) THEN "
        "FOR one IN SELECT space.nspname, kind.relname FROM pg_catalog.pg_index AS x "
        "JOIN pg_catalog.pg_class AS kind ON kind.oid = x.indexrelid "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = kind.relnamespace "
        "JOIN pg_catalog.pg_am AS method ON method.oid = kind.relam "
        "JOIN pg_catalog.pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = ANY(x.indkey) "
        f"WHERE a.attname = {column} AND method.amname IN ('hnsw', 'ivfflat') AND (x.indrelid = {table} "
        f"OR x.indrelid IN (SELECT link.inhrelid FROM pg_catalog.pg_inherits AS link WHERE link.inhparent = {table})) "
        "ORDER BY kind.relkind LOOP "
        "EXECUTE pg_catalog.format('DROP INDEX IF EXISTS %I.%I', one.nspname, one.relname); END LOOP; "
        f"{bits.removal(config, names)} "
        f"ALTER TABLE {names.table} ALTER COLUMN {c.vector} TYPE {type_}({config.dimension}) USING {cast}; "
        "END IF; END $$;"
    )


def _lexemes(config: PgvectorConfig, names: Names) -> Iterator[str]:
    """Yield the generated column with the words of each text, which exists since schema version 2.

    Adding it rewrites the table and its partitions and blocks all other access. Its comment records the text search
    configuration; the column is created again under another one. It has no index, because none would be used under
    row-level security (`compile_words`).
    """
    column, comment = names.c.lexemes, literal(f"text search of vectoracl: {config.text_search}")
    name = literal(config.columns.lexemes)
    yield (
        "DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = "
        f"pg_catalog.to_regclass({literal(names.table)}) AND attname = {name} AND NOT attisdropped "
        f"AND pg_catalog.starts_with(pg_catalog.col_description(attrelid, attnum), 'text search of vectoracl: ') "
        f"AND pg_catalog.col_description(attrelid, attnum) <> {comment}) THEN "
        f"ALTER TABLE {names.table} DROP COLUMN {column}; END IF; END $$;"
    )
    yield (
        f"ALTER TABLE {names.table} ADD COLUMN IF NOT EXISTS {column} tsvector "
        f"GENERATED ALWAYS AS (pg_catalog.to_tsvector({names.text_search}, {names.c.text})) STORED;"
    )
    yield f"COMMENT ON COLUMN {names.table}.{column} IS {comment};"


_QUOTED = "'(?:[^']|'')*'"  # a word in the text form of a tsvector


def _word_count(config: PgvectorConfig, names: Names) -> Iterator[str]:
    """Yield the generated column with the number of words of each text, which BM25 compares with the average.

    A generated column cannot use another one, so the text is parsed again. A word that occurs several times counts
    each time: the positions are counted in the text form of a tsvector, without the quoted words themselves, in which
    quotes are doubled.
    """
    column, comment = names.c.word_count, literal(f"words of vectoracl: {config.text_search}")
    parsed = f"pg_catalog.to_tsvector({names.text_search}, {names.c.text})::pg_catalog.text"
    positions = f"pg_catalog.regexp_replace({parsed}, {literal(_QUOTED)}, '', 'g')"
    count = f"pg_catalog.cardinality(pg_catalog.string_to_array(pg_catalog.translate({positions}, ' ', ','), ','))"
    yield (
        "DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = "
        f"pg_catalog.to_regclass({literal(names.table)}) AND attname = {literal(config.columns.word_count)} "
        "AND NOT attisdropped AND pg_catalog.starts_with(pg_catalog.col_description(attrelid, attnum), "
        f"'words of vectoracl: ') AND pg_catalog.col_description(attrelid, attnum) <> {comment}) THEN "
        f"ALTER TABLE {names.table} DROP COLUMN {column}; END IF; END $$;"
    )
    yield (f"ALTER TABLE {names.table} ADD COLUMN IF NOT EXISTS {column} integer GENERATED ALWAYS AS ({count}) STORED;")
    yield f"COMMENT ON COLUMN {names.table}.{column} IS {comment};"


def _storage(config: PgvectorConfig) -> str:
    """Return the storage of vectors: in their row if it fits a page of 8 kB (3 times faster), else out of line."""
    size = config.dimension * (4 if config.type == "vector" else 2)
    return "PLAIN" if size <= 7000 else "EXTERNAL"


def protection(config: PgvectorConfig, table: str) -> Iterator[str]:
    """Yield row-level security for *table* (quoted): enabled, forced, and policies for each command.

    The tenant's condition appears twice: in permissive policies that give access to the two roles that need it, and in
    restrictive policies for all roles, which no permissive policy that is added later can widen (permissive policies
    are joined by OR, restrictive ones by AND).
    """
    tenant = Names.of(config).c.tenant
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
    yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
    kinds = (("PERMISSIVE", _served(config), TENANT_NOW), ("RESTRICTIVE", "PUBLIC", TENANT_NOT_EMPTY))
    for command in COMMANDS:
        for kind, roles, now in kinds:
            using = "" if command == "INSERT" else f" USING ({tenant} = {now})"
            check = f" WITH CHECK ({tenant} = {now})" if command in ("INSERT", "UPDATE") else ""
            name = quote(f"vectoracl_{command.lower()}_{kind.lower()}")
            yield f"DROP POLICY IF EXISTS {name} ON {table};"
            yield f"CREATE POLICY {name} ON {table} AS {kind} FOR {command} TO {roles}{using}{check};"


def _served(config: PgvectorConfig) -> str:
    """Return the roles that operate under a scope: the runtime role and the owner, which FORCE binds too."""
    return ", ".join(quote(role) for role in dict.fromkeys((config.runtime_role, config.owner_role)))


_PARTITION = '"a partition"'  # no configured table has a space in its name


def _older_partitions(config: PgvectorConfig, names: Names) -> str:
    """Return the statement that replaces policies of an earlier version on tenants' own partitions.

    Each replacement takes a lock, so partitions with current policies are left unchanged.
    """
    text = literal(" ".join(protection(config, _PARTITION)))
    return (
        "DO $$ DECLARE part record; BEGIN FOR part IN SELECT space.nspname, child.relname "
        "FROM pg_catalog.pg_inherits AS link JOIN pg_catalog.pg_class AS child ON child.oid = link.inhrelid "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = child.relnamespace "
        f"WHERE link.inhparent = pg_catalog.to_regclass({literal(names.table)}) AND child.relkind = 'r' "
        "AND EXISTS (SELECT FROM pg_catalog.pg_policy AS policy WHERE policy.polrelid = child.oid "
        "AND policy.polpermissive AND 0 = ANY (policy.polroles) "
        "AND pg_catalog.starts_with(policy.polname::pg_catalog.text, 'vectoracl_')) LOOP "
        f"EXECUTE pg_catalog.replace({text}, {literal(_PARTITION)}, "
        "pg_catalog.format('%I.%I', part.nspname, part.relname)); END LOOP; END $$;"
    )


def _tenants(config: PgvectorConfig, names: Names) -> Iterator[str]:
    """Yield the list of tenants: a tenant sees and adds itself; the owner reads the ids and nothing else."""
    runtime, owner = quote(config.runtime_role), quote(config.owner_role)
    own, not_empty = f"tenant_id = {TENANT_NOW}", f"tenant_id = {TENANT_NOT_EMPTY}"
    # A role that is a member of the owner role is not the owner.
    listing = f"tenant_id <> '' AND current_user = {literal(config.owner_role)}"
    table = names.tenants
    yield (
        f"CREATE TABLE IF NOT EXISTS {table} (tenant_id text COLLATE \"C\" PRIMARY KEY CHECK (tenant_id <> ''), "
        "since timestamptz NOT NULL DEFAULT now());"
    )
    yield f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;"
    yield f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
    policies = (
        ("vectoracl_see_own", "PERMISSIVE", "SELECT", runtime, f"USING ({own})"),
        ("vectoracl_add_own", "PERMISSIVE", "INSERT", _served(config), f"WITH CHECK ({own})"),
        ("vectoracl_owner_lists", "PERMISSIVE", "SELECT", owner, f"USING ({listing})"),
        # Also for commands without a permissive policy: one that is added later then exposes only the tenant's own row.
        (
            "vectoracl_own_alone",
            "RESTRICTIVE",
            "ALL",
            "PUBLIC",
            f"USING ({not_empty} OR ({listing})) WITH CHECK ({not_empty})",
        ),
    )
    for name, kind, command, roles, clause in policies:
        yield f"DROP POLICY IF EXISTS {name} ON {table};"
        yield f"CREATE POLICY {name} ON {table} AS {kind} FOR {command} TO {roles} {clause};"
    name, policy = forget_policy(config)
    yield f"DROP POLICY IF EXISTS {name} ON {table};"
    yield policy
    yield f"REVOKE ALL ON {table} FROM PUBLIC, {runtime};"
    yield f"GRANT SELECT, INSERT ON {table} TO {runtime};"


def forget_policy(config: PgvectorConfig) -> tuple[str, str]:
    """Return the policy, as name and SQL, by which the owner removes a tenant from the list under its scope."""
    name = "vectoracl_owner_forgets"
    return name, (
        f"CREATE POLICY {name} ON {Names.of(config).tenants} AS PERMISSIVE FOR DELETE TO {quote(config.owner_role)} "
        f"USING (tenant_id = {TENANT_NOW});"
    )


def vector_index(config: PgvectorConfig, table: str, name: str) -> str:
    """Return the statement for the HNSW index of a tenant's own partition, with pgvector's default parameters."""
    names = Names.of(config)
    return f"CREATE INDEX IF NOT EXISTS {quote(name)} ON {table} USING hnsw ({names.c.vector} {names.opclass});"


def expected(config: PgvectorConfig) -> tuple[tuple[str, str, int | None], ...]:
    """Return the required columns: name, bare type name, and the dimension for the vector, else None."""
    kinds = {
        "generation": "int8",
        "rev": "int8",
        "expires": "float8",
        "time": "float8",
        "position": "int4",
        "metadata": "jsonb",
        "vector": config.type,
        "lexemes": "tsvector",
        "word_count": "int4",
    }
    columns = config.columns.model_dump()
    del columns["bits"]  # searches do without it
    if not config.lexical:
        del columns["lexemes"]
    if config.words != "bm25":
        del columns["word_count"]
    return tuple(
        (name, kinds.get(key, "text"), config.dimension if key == "vector" else None) for key, name in columns.items()
    )


def fits(has: str, needed: str) -> bool:
    """Return whether a column of type *has* can serve as one of type *needed* (bare names, as in `expected`)."""
    return has in ({"text", "varchar"} if needed == "text" else {needed})
