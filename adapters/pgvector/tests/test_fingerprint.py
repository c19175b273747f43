"""The fingerprint differs after every change that the posture check could see, and after no other that is usual."""

# ruff: noqa: E501 - statements are easier to read on fewer lines
from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectoracl_pgvector import schema
from vectoracl_pgvector.accepted import Accept
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.posture import check
from vectoracl_pgvector.posture import fingerprint as fingerprints
from vectoracl_pgvector.posture.check import Target
from vectoracl_pgvector.posture.sql import STATEMENTS

from pgvector_support.clusters import binaries, start_cluster, stop_cluster
from pgvector_support.holes import HOLES
from pgvector_support.more_holes import MORE_HOLES

CONFIG = PgvectorConfig(dsn="postgresql://unused", dimension=3)
TARGET = Target(runtime_role="vectoracl_runtime", vector_column="embedding")
ROWS = """INSERT INTO vectoracl.chunks (tenant_id, document, generation, chunk_id, label, rev, expires, producer, path,
  written_at, position, content, metadata, embedding)
SELECT t, 'd', 0, n::text, 'l', 0, 1e18, 'p', '/', 0, 0, 'secret of ' || t, '{}', '[1,2,3]'
  FROM unnest(ARRAY['acme', 'evil']) t, generate_series(1, 9) n"""
START = """
CREATE ROLE other; CREATE ROLE reader;
CREATE TABLE vectoracl.part PARTITION OF vectoracl.chunks FOR VALUES IN ('part');
CREATE TABLE vectoracl.free (LIKE vectoracl.chunks INCLUDING ALL);
CREATE FUNCTION vectoracl.helper() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION vectoracl.fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE VIEW vectoracl.seen AS SELECT 1 AS one;
CREATE SCHEMA side;
CREATE TRIGGER always AFTER DELETE ON vectoracl.chunks_default FOR EACH ROW EXECUTE FUNCTION vectoracl.fires();
"""
# Statements in pairs: a change, and the one that undoes it. Any of them can be run at any time.
PAIRS = (
    ("ALTER TABLE vectoracl.{table} DISABLE ROW LEVEL SECURITY", "ALTER TABLE vectoracl.{table} ENABLE ROW LEVEL SECURITY"),
    ("ALTER TABLE vectoracl.{table} NO FORCE ROW LEVEL SECURITY", "ALTER TABLE vectoracl.{table} FORCE ROW LEVEL SECURITY"),
    ("ALTER TABLE vectoracl.{table} OWNER TO {role}", "ALTER TABLE vectoracl.{table} OWNER TO vectoracl_owner"),
    ("ALTER SCHEMA vectoracl OWNER TO {role}", "ALTER SCHEMA vectoracl OWNER TO vectoracl_owner"),
    ("GRANT {privilege} ON vectoracl.{table} TO {role}", "REVOKE {privilege} ON vectoracl.{table} FROM {role}"),
    ("GRANT SELECT (content) ON vectoracl.{table} TO {role}", "REVOKE SELECT (content) ON vectoracl.{table} FROM {role}"),
    ("GRANT {role} TO vectoracl_runtime", "REVOKE {role} FROM vectoracl_runtime"),
    ("GRANT CREATE ON SCHEMA public TO {role}", "REVOKE CREATE ON SCHEMA public FROM {role}"),
    ("ALTER ROLE {role} BYPASSRLS", "ALTER ROLE {role} NOBYPASSRLS"),
    ("ALTER ROLE {role} CREATEROLE", "ALTER ROLE {role} NOCREATEROLE"),
    ("ALTER ROLE {role} REPLICATION LOGIN", "ALTER ROLE {role} NOREPLICATION NOLOGIN"),
    ("ALTER ROLE {role} SET row_security = off", "ALTER ROLE {role} RESET row_security"),
    ("ALTER ROLE vectoracl_runtime SET vectoracl.tenant = 'acme'", "ALTER ROLE vectoracl_runtime RESET vectoracl.tenant"),
    ("ALTER DATABASE ground SET log_statement = 'all'", "ALTER DATABASE ground RESET log_statement"),
    ("CREATE POLICY p ON vectoracl.{table} USING (true)", "DROP POLICY IF EXISTS p ON vectoracl.{table}"),
    ("ALTER POLICY vectoracl_select_permissive ON vectoracl.{table} USING (true)",
     "ALTER POLICY vectoracl_select_permissive ON vectoracl.{table} USING "
     "(tenant_id = current_setting('vectoracl.tenant', true))"),
    ("ALTER POLICY vectoracl_select_permissive ON vectoracl.{table} RENAME TO q",
     "ALTER POLICY q ON vectoracl.{table} RENAME TO vectoracl_select_permissive"),
    ("ALTER POLICY vectoracl_select_permissive ON vectoracl.{table} TO PUBLIC",
     "ALTER POLICY vectoracl_select_permissive ON vectoracl.{table} TO vectoracl_owner"),
    ("DROP POLICY IF EXISTS vectoracl_select_restrictive ON vectoracl.{table}",
     "CREATE POLICY vectoracl_select_restrictive ON vectoracl.{table} AS RESTRICTIVE FOR SELECT USING "
     "(tenant_id = NULLIF(current_setting('vectoracl.tenant', true), ''))"),
    ("ALTER TABLE vectoracl.chunks DETACH PARTITION vectoracl.part",
     "ALTER TABLE vectoracl.chunks ATTACH PARTITION vectoracl.part FOR VALUES IN ('part')"),
    ("ALTER TABLE vectoracl.chunks ATTACH PARTITION vectoracl.free FOR VALUES IN ('free')",
     "ALTER TABLE vectoracl.chunks DETACH PARTITION vectoracl.free"),
    ("ALTER TABLE vectoracl.part SET SCHEMA side", "ALTER TABLE side.part SET SCHEMA vectoracl"),
    ("CREATE TRIGGER t AFTER UPDATE ON vectoracl.{table} FOR EACH ROW EXECUTE FUNCTION vectoracl.fires()",
     "DROP TRIGGER IF EXISTS t ON vectoracl.{table}"),
    ("ALTER TABLE vectoracl.{table} DISABLE TRIGGER USER", "ALTER TABLE vectoracl.{table} ENABLE TRIGGER USER"),
    ("CREATE RULE r AS ON DELETE TO vectoracl.{table} DO ALSO SELECT 1", "DROP RULE IF EXISTS r ON vectoracl.{table}"),
    ("ALTER DEFAULT PRIVILEGES FOR ROLE vectoracl_owner GRANT SELECT ON TABLES TO {role}",
     "ALTER DEFAULT PRIVILEGES FOR ROLE vectoracl_owner REVOKE SELECT ON TABLES FROM {role}"),
    ("ALTER TABLE vectoracl.chunks ALTER COLUMN content DROP NOT NULL",
     "ALTER TABLE vectoracl.chunks ALTER COLUMN content SET NOT NULL"),
    ("ALTER TABLE vectoracl.chunks ALTER COLUMN tenant_id SET DEFAULT 'acme'",
     "ALTER TABLE vectoracl.chunks ALTER COLUMN tenant_id DROP DEFAULT"),
    ("ALTER TABLE vectoracl.chunks ALTER COLUMN position TYPE bigint", "ALTER TABLE vectoracl.chunks ALTER COLUMN position TYPE integer"),
    ("ALTER TABLE vectoracl.chunks RENAME COLUMN producer TO maker", "ALTER TABLE vectoracl.chunks RENAME COLUMN maker TO producer"),
    ("COMMENT ON COLUMN vectoracl.chunks.embedding IS 'other'", "COMMENT ON COLUMN vectoracl.chunks.embedding IS NULL"),
    ("CREATE UNIQUE INDEX u ON vectoracl.part (chunk_id)", "DROP INDEX IF EXISTS vectoracl.u"),
    ("CREATE INDEX h ON vectoracl.chunks_default (content)", "DROP INDEX IF EXISTS vectoracl.h"),
    ("ALTER TABLE vectoracl.chunks ADD CONSTRAINT k CHECK (tenant_id <> 'x')", "ALTER TABLE vectoracl.chunks DROP CONSTRAINT k"),
    ("CREATE OR REPLACE FUNCTION vectoracl.helper() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 2'",
     "CREATE OR REPLACE FUNCTION vectoracl.helper() RETURNS int LANGUAGE sql AS 'SELECT 1'"),
    ("ALTER FUNCTION vectoracl.helper() LEAKPROOF", "ALTER FUNCTION vectoracl.helper() NOT LEAKPROOF"),
    ("ALTER FUNCTION vectoracl.helper() OWNER TO {role}", "ALTER FUNCTION vectoracl.helper() OWNER TO vectoracl_owner"),
    ("GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {role}", "REVOKE EXECUTE ON FUNCTION pg_read_file(text) FROM {role}"),
    ("CREATE OR REPLACE VIEW vectoracl.seen AS SELECT 2 AS one", "CREATE OR REPLACE VIEW vectoracl.seen AS SELECT 1 AS one"),
    ("ALTER VIEW vectoracl.seen SET (security_invoker = true)", "ALTER VIEW vectoracl.seen RESET (security_invoker)"),
    ("CREATE PUBLICATION b FOR TABLE vectoracl.chunks", "DROP PUBLICATION IF EXISTS b"),
    ("CREATE FOREIGN DATA WRAPPER w", "DROP FOREIGN DATA WRAPPER IF EXISTS w"),
    ("SELECT lo_create(4242)", "SELECT lo_unlink(4242)"),
    ("ALTER EXTENSION plpgsql DROP FUNCTION plpgsql_validator(oid)", "ALTER EXTENSION plpgsql ADD FUNCTION plpgsql_validator(oid)"),
    ("UPDATE pg_catalog.pg_class SET relrowsecurity = false WHERE oid = 'vectoracl.chunks'::regclass",
     "UPDATE pg_catalog.pg_class SET relrowsecurity = true WHERE oid = 'vectoracl.chunks'::regclass"),
    ("UPDATE pg_catalog.pg_index SET indisvalid = false WHERE indrelid = 'vectoracl.part'::regclass",
     "UPDATE pg_catalog.pg_index SET indisvalid = true WHERE indrelid = 'vectoracl.part'::regclass"),
)  # fmt: skip
TABLES = ("chunks", "chunks_default", "part", "tenants")
ROLES = ("vectoracl_runtime", "other", "reader")
PRIVILEGES = ("SELECT", "TRUNCATE", "REFERENCES", "TRIGGER", "ALL")
changes = st.builds(
    lambda pair, way, table, role, privilege: pair[way].format(table=table, role=role, privilege=privilege),
    st.sampled_from(PAIRS), st.integers(0, 1), st.sampled_from(TABLES), st.sampled_from(ROLES),
    st.sampled_from(PRIVILEGES),
)  # fmt: skip


def taken(connection: psycopg.Connection[Any], target: Target = TARGET) -> str:
    """Return the fingerprint, read in a transaction of *connection*'s."""
    params, server = check.parameters(target), connection.info.server_version
    for name, value in fingerprints.ORDERED:
        connection.execute(f"SET LOCAL {name} = {value}")
    replies = [
        connection.execute(sql.encode(), params if "%(" in sql else None, prepare=False).fetchall()
        if since <= server
        else []
        for sql, since in fingerprints.STATEMENTS
    ]
    found = fingerprints.fingerprint(target, replies)
    assert found is not None
    return found


class Ground:
    """A provisioned database on a server that no other test uses."""

    def __init__(self, where: str, major: int) -> None:
        self.where, self.major = where, major

    def connect(self, database: str = "ground", user: str = "boss") -> psycopg.Connection[Any]:
        return psycopg.connect(f"{self.where} user={user} dbname={database}", autocommit=True)

    def taken(self, user: str = "boss", target: Target = TARGET) -> str:
        with self.connect(user=user) as connection, connection.transaction():
            return taken(connection, target)


def provision(where: str, folder: Path) -> None:
    with psycopg.connect(f"{where} user=boss dbname=postgres", autocommit=True) as boss:
        boss.execute("CREATE DATABASE ground")
    with psycopg.connect(f"{where} user=boss dbname=ground", autocommit=True) as boss:
        boss.execute("SET allow_system_table_mods = on")
        vectors = boss.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'").fetchone() is not None
        for statement in (*schema.roles(CONFIG), "SET ROLE vectoracl_owner", *schema.migrations(CONFIG)):
            if not vectors:  # Debian's server without pgvector: vectors as arrays of numbers
                if "CREATE EXTENSION" in statement or "SET STORAGE" in statement:
                    continue
                statement = statement.replace('"public"."vector"(3)', "real[]")
            boss.execute(statement.encode())
        boss.execute("RESET ROLE")
        boss.execute(ROWS.replace("[1,2,3]", "[1,2,3]" if vectors else "{1,2,3}"))
        boss.execute(START.encode())


@pytest.fixture(scope="module", params=[18, 15])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    programs = binaries(request.param)
    if programs is None:
        pytest.skip(f"not run: PostgreSQL {request.param} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="vf"))
    try:
        _, where = start_cluster(folder, programs, "-c wal_level=logical")
        provision(where, folder)
        yield Ground(where, request.param)
    finally:
        stop_cluster(folder, programs)


@pytest.fixture
def drawn(ground: Ground) -> Iterator[Ground]:
    """The server with another database, in which changes may stay; those of roles are undone."""
    with ground.connect("postgres") as connection:
        connection.execute("DROP DATABASE IF EXISTS drawn")
        connection.execute("CREATE DATABASE drawn TEMPLATE ground")
        yield ground
        connection.execute("DROP DATABASE drawn WITH (FORCE)")
        for _, undo in PAIRS:
            for role in ROLES if ("{role}" in undo and "ROLE" in undo) or "FROM vectoracl_runtime" in undo else ():
                with suppress(psycopg.Error):
                    connection.execute(undo.format(role=role).encode())
        connection.execute("ALTER ROLE vectoracl_runtime RESET ALL")


@pytest.mark.server
def test_each_known_way_round_the_policy_changes_it(ground: Ground) -> None:
    if ground.major < 18:
        pytest.skip("not run: one version is enough, and they take long")
    hidden: list[str] = []
    tried = 0
    with ground.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        before = ground.taken()
        for hole in (*HOLES, *MORE_HOLES):
            if hole.since > ground.major:
                continue
            try:
                with connection.transaction(force_rollback=True):
                    connection.execute(hole.setup.encode())
                    connection.execute("RESET ROLE; RESET SESSION AUTHORIZATION")
                    after = taken(connection)
            except psycopg.Error:  # an extension that is not there
                continue
            tried += 1
            if after == before:
                hidden.append(hole.name)
        assert ground.taken() == before, "what is rolled back leaves no trace"
    assert hidden == []
    assert tried > 40, tried


@pytest.mark.server
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0][:60])
def test_each_change_and_its_undoing_are_noticed(ground: Ground, pair: tuple[str, str]) -> None:
    """Only rows that were added and removed again leave the same rows as before."""
    before = ground.taken()
    with ground.connect() as connection:
        connection.execute("SET allow_system_table_mods = on")
        first, second = (one.format(table="chunks_default", role="other", privilege="SELECT") for one in pair)
        connection.execute(first.encode())
        changed = ground.taken()
        connection.execute(second.encode())
        undone = ground.taken()
    assert len({before, changed, undone}) == 3 - (undone == before)
    assert changed != before
    if first.startswith(("ALTER TABLE", "ALTER POLICY", "ALTER SCHEMA", "ALTER FUNCTION", "ALTER VIEW", "UPDATE")):
        assert undone != before


@pytest.mark.server
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(several=st.lists(st.lists(changes, min_size=1, max_size=3), min_size=1, max_size=6))
def test_what_the_check_reads_differently_has_another_fingerprint(drawn: Ground, several: list[list[str]]) -> None:
    """Each inner list is one transaction; statements that cannot be run in the present state change nothing."""
    history: dict[str, str] = {}
    with drawn.connect("drawn") as connection:
        connection.execute("SET allow_system_table_mods = on")
        for transaction in [[], *several]:
            for statement in transaction:
                try:
                    with connection.transaction():
                        connection.execute(statement.encode())
                except psycopg.Error:
                    continue
            with connection.transaction(force_rollback=True):
                key = taken(connection)
                rows = repr(full(connection))
                again = taken(connection)
            assert key == again
            assert history.setdefault(key, rows) == rows, "one fingerprint, two readings"


def full(connection: psycopg.Connection[Any]) -> list[Any]:
    server = connection.info.server_version
    late = check.SINCE
    return [
        sorted(map(repr, connection.execute(sql.encode(), params, prepare=False).fetchall()))
        for name, sql, params in check.queries(TARGET)
        if late.get(name, 0) <= server
    ]


@pytest.mark.server
def test_usual_work_leaves_it_as_it_is(ground: Ground) -> None:
    before = ground.taken()
    assert ground.taken() == before
    with ground.connect() as connection:
        connection.execute("UPDATE vectoracl.chunks SET rev = 1")
        connection.execute("DELETE FROM vectoracl.chunks WHERE chunk_id = '9'")
        connection.execute("ANALYZE vectoracl.chunks")
        connection.execute("VACUUM vectoracl.chunks_default")
        connection.execute("VACUUM (FREEZE) pg_catalog.pg_class")
        connection.execute("CHECKPOINT")
        with connection.transaction(force_rollback=True):
            connection.execute("CREATE TABLE vectoracl.brief (a int)")
        assert ground.taken() == before
        # Other databases of the server: their objects, and what roles own in them.
        with ground.connect("postgres") as elsewhere:
            elsewhere.execute("CREATE TABLE IF NOT EXISTS other_table (a int); ALTER TABLE other_table OWNER TO other")
            elsewhere.execute("GRANT SELECT ON other_table TO reader; DROP TABLE other_table")
    assert ground.taken() == before


@pytest.mark.server
def test_a_change_that_is_not_committed_yet_is_seen_when_it_is(ground: Ground) -> None:
    before = ground.taken()
    with ground.connect() as early, ground.connect() as late:
        with early.transaction():
            early.execute("CREATE TABLE side.early (a int)")
            late.execute("CREATE TABLE side.late (a int)")  # with a later id, and committed first
            between = ground.taken()
        after = ground.taken()
        late.execute("DROP TABLE side.early; DROP TABLE side.late")
    assert len({before, between, after}) == 3


@pytest.mark.server
def test_session_and_settings_are_part_of_it(ground: Ground) -> None:
    with ground.connect() as connection:
        # Not by its login, which another test on this server may have taken away.
        connection.execute("SET SESSION AUTHORIZATION vectoracl_runtime")
        found = []
        for setting in ("", "SET LOCAL row_security = off", "SET LOCAL vectoracl.tenant = 'acme'"):
            with connection.transaction(force_rollback=True):
                connection.execute(setting.encode() or b"SELECT 1")
                found.append(taken(connection, replace(TARGET, runtime_role=None)))
    found.append(ground.taken(target=replace(TARGET, runtime_role=None)))
    assert len(set(found)) == 4


@pytest.mark.server
def test_every_catalog_is_read_or_left_out_for_a_reason(ground: Ground) -> None:
    with ground.connect() as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r'"
        ).fetchall()
    known = {*fingerprints.CATALOGS, *fingerprints.LATER, *fingerprints.SHARED, *fingerprints.EXCLUDED}
    assert {name for (name,) in rows} <= known
    assert not set(fingerprints.EXCLUDED) & {*fingerprints.CATALOGS, *fingerprints.LATER, *fingerprints.SHARED}


def test_no_statement_of_the_check_reads_a_catalog_that_is_left_out() -> None:
    # Views and what they show, and session state that the fingerprint reads by the same statements.
    otherwise = {"pg_roles", "pg_settings", "pg_locks", "pg_publication_tables", "pg_subscription", "pg_authid"}
    read = set(fingerprints.CATALOGS) | set(fingerprints.LATER) | set(fingerprints.SHARED) | otherwise
    text = " ".join(sql for _, sql in STATEMENTS)
    named = set(re.findall(r"(?:FROM|JOIN|,)\s+pg_catalog\.(pg_\w+)\s+(?!\()", text))
    assert "pg_policy" in named
    assert named - read == set()
    assert re.findall(r"'pg_catalog\.(pg_\w+)'::pg_catalog\.regclass", text)
    assert set(re.findall(r"'pg_catalog\.(pg_\w+)'::pg_catalog\.regclass", text)) - read == set()
    for name, sql in STATEMENTS:
        if "pg_settings" in sql or "pg_locks" in sql:
            assert sql in {sql for sql, _ in fingerprints.STATEMENTS}, name


def test_target_and_replies_are_part_of_it() -> None:
    replies = [[("a", 1)], [("b", None)]]
    accepted = replace(TARGET, accept=(Accept("PG100", "x", "reason"),))
    targets = (TARGET, accepted, replace(TARGET, table="other"), replace(TARGET, expected=(("a", "b", None),)))
    found = {fingerprints.fingerprint(target, replies) for target in targets}
    found |= {fingerprints.fingerprint(TARGET, other) for other in ([[("a", 1), ("b", None)]], [[("a", 2)]], [])}
    assert len(found) == 7


def test_without_the_packages_files_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_code", lambda: None)
    assert fingerprints.fingerprint(TARGET, []) is None


def test_every_setting_that_the_check_reads_is_part_of_it() -> None:
    pattern = r"current_setting\('([a-z_.]+)'"
    read = set(re.findall(pattern, " ".join(sql for _, sql in STATEMENTS)))
    taken = set(re.findall(pattern, " ".join(sql for sql, _ in fingerprints.STATEMENTS)))
    assert "lo_compat_privileges" in read
    assert read <= taken
