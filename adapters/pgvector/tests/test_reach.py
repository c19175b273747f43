"""The judgement by reach: holes that are proved real are found and lower the grade, and what is harmless does not."""

# ruff: noqa: E501 - statements are easier to read on fewer lines
from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from vectoracl.adapter_api.posture import Posture
from vectoracl_pgvector import schema
from vectoracl_pgvector.accepted import ACCEPTABLE, Accept
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.posture import check, function_proofs, recognised, snapshot
from vectoracl_pgvector.posture.check import Target
from vectoracl_pgvector.posture.rows import Relation

from pgvector_support.clusters import binaries, start_cluster, stop_cluster
from pgvector_support.holes import HOLES, OPEN, Hole, combinations
from pgvector_support.more_holes import MORE_HOLES

pytestmark = pytest.mark.server
CONFIG = PgvectorConfig(dsn="postgresql://unused", dimension=3)
TARGET = Target()
ROWS = """INSERT INTO vectoracl.chunks (tenant_id, document, generation, chunk_id, label, rev, expires, producer, path,
  written_at, position, content, metadata, embedding)
SELECT t, 'd', 0, n::text, 'l', 0, 1e18, 'p', '/', 0, 0, 'secret of ' || t, '{}', '[1,2,3]'
  FROM unnest(ARRAY['acme', 'evil']) t, generate_series(1, 9) n"""


def preloaded(programs: Path) -> list[str]:
    """The options of a server whose extensions have to be loaded when it starts, as far as they are installed."""
    there = [name for name in ("pg_cron", "pgaudit") if (programs.parent / "lib" / f"{name}.so").exists()]
    options = [f"-c shared_preload_libraries={','.join(there)}"] if there else []
    return options + (["-c cron.database_name=ground"] if "pg_cron" in there else [])


class Ground:
    """A provisioned database with rows of two tenants. Each hole is dug in a transaction that is rolled back."""

    def __init__(self, where: str, major: int) -> None:
        self.where, self.major = where, major
        with psycopg.connect(f"{where} user=boss dbname=postgres", autocommit=True) as boss:
            try:
                boss.execute("SELECT query_to_xml('SELECT 1 AS a', true, false, '')")
                self.xml = True
            except psycopg.errors.FeatureNotSupported:
                self.xml = False  # the wheel's servers are built without libxml

    def dig(
        self, setup: str, exploit: str | None = None, target: Target = TARGET, role: str = "vectoracl_runtime"
    ) -> tuple[Posture, str]:
        """Return the posture after *setup*, and all that the exploit came by."""
        notices: list[str] = []
        with psycopg.connect(f"{self.where} user=boss dbname=ground") as conn:
            conn.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
            conn.execute(setup.encode())
            conn.execute(f"SET SESSION AUTHORIZATION {role}".encode())
            found = check.read_posture(conn, target)
            rows: list[Any] = []
            if exploit is not None:
                conn.execute("SELECT set_config('vectoracl.tenant', 'acme', true)")
                cursor = conn.execute(exploit.encode())
                while True:
                    rows += cursor.fetchall() if cursor.description else []
                    if not cursor.nextset():
                        break
            conn.rollback()
        return found, f"{rows} {notices}"


@pytest.fixture(scope="module", params=[18, 16, 15])
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    programs = binaries(request.param)
    if programs is None:
        pytest.skip(f"not run: PostgreSQL {request.param} is not installed")
    folder = Path(tempfile.mkdtemp(prefix="vr"))
    try:
        _, where = start_cluster(folder, programs, *preloaded(programs))
        with psycopg.connect(f"{where} user=boss dbname=postgres", autocommit=True) as boss:
            boss.execute("CREATE DATABASE ground")
        with psycopg.connect(f"{where} user=boss dbname=ground", autocommit=True) as boss:
            vectors = boss.execute("SELECT FROM pg_available_extensions WHERE name = 'vector'").fetchone() is not None
            for statement in (*schema.roles(CONFIG), "SET ROLE vectoracl_owner", *schema.migrations(CONFIG)):
                if not vectors:  # Debian's server without pgvector: vectors as arrays of numbers
                    if "CREATE EXTENSION" in statement or "SET STORAGE" in statement:
                        continue
                    statement = statement.replace('"public"."vector"(3)', "real[]")
                boss.execute(statement.encode())
            boss.execute("RESET ROLE")
            boss.execute(ROWS.replace("[1,2,3]", "[1,2,3]" if vectors else "{1,2,3}"))
            boss.execute("ANALYZE vectoracl.chunks")
        yield Ground(where, request.param)
    finally:
        stop_cluster(folder, programs)


def lowering(found: Posture) -> set[tuple[str, str]]:
    return {(one.rule.id, one.subject) for one in found.findings if one.rule.lowers}


def test_a_provisioned_database_needs_no_entry(ground: Ground) -> None:
    found, seen = ground.dig("SELECT 1", "SELECT content FROM vectoracl.chunks")
    assert found.grade == "engine", lowering(found)
    assert "acme" in seen
    assert "evil" not in seen


def test_parts_of_one_value_and_policies_alike_are_told(ground: Ground) -> None:
    make = "".join(
        f"CREATE TABLE vectoracl.part_{n} PARTITION OF vectoracl.chunks FOR VALUES IN ({values});"
        for n, values in enumerate(("'one'", "'{CONST two'", "'three', 'four'", "NULL"))
    )
    protect = " ".join(" ".join(schema.protection(CONFIG, f"vectoracl.part_{n}")) for n in range(4))
    with psycopg.connect(f"{ground.where} user=boss dbname=ground") as conn:
        conn.execute((make + protect).encode())
        conn.execute(check.SAFE_PATH)
        rows = {
            name: conn.execute(sql, params).fetchall()
            for name, sql, params in check.queries(TARGET)
            if name in ("relations", "policies")
        }
        conn.rollback()
    parts = {one.name: one.one_value for one in (Relation(*row) for row in rows["relations"])}
    assert parts == {
        "chunks": False, "chunks_default": False, "part_0": True, "part_1": True, "part_2": False, "part_3": False
    }  # fmt: skip
    (alike,) = {len(row[0]) for row in rows["policies"] if "select" in row[1]}
    assert alike == 6, "one row for all relations"


def check_hole(ground: Ground, hole: Hole) -> None:
    if ground.major < hole.since:
        pytest.skip(f"not run: of PostgreSQL {hole.since}")
    exploit = hole.exploit if ground.xml or "_to_xml" not in hole.setup + (hole.exploit or "") else None
    try:
        found, seen = ground.dig(hole.setup, exploit)
    except psycopg.errors.FeatureNotSupported as error:  # such as ICU, without which the wheel's servers are built
        pytest.skip(f"not run: {error.diag.message_primary}")
    if exploit is not None:
        assert "evil" in seen, f"the hole is none: {seen[:300]}"
    assert found.grade == "none"
    assert {rule for rule, _ in lowering(found)} - {"PG110"}, "it was not found; a statement failed"
    assert "PG110" not in {one.rule.id for one in found.findings}
    for one in found.findings:
        assert one.message
        assert one.fix.startswith("-- ") or one.fix.endswith(";")


@pytest.mark.parametrize("hole", [*HOLES, *MORE_HOLES], ids=lambda hole: hole.name)
def test_a_hole_is_found_and_lowers_the_grade(ground: Ground, hole: Hole) -> None:
    check_hole(ground, hole)


def test_combinations_of_carrier_owner_and_spelling(ground: Ground) -> None:
    drawn = list(combinations(ground.major, 60 if ground.major == 18 else 15))
    missed = []
    for hole in drawn:
        try:
            check_hole(ground, hole)
        except AssertionError as error:
            missed.append(f"{hole.name}: {str(error)[:200]}")
    assert missed == []


HARMLESS = {
    "definer that computes": OPEN + "CREATE FUNCTION x.f(a int) RETURNS int LANGUAGE sql SECURITY DEFINER SET "
    "search_path = pg_catalog, pg_temp AS 'SELECT a + 1'",
    "definer in SQL's own form that computes": OPEN + "CREATE FUNCTION x.f(a text) RETURNS text LANGUAGE sql SECURITY "
    "DEFINER SET search_path = pg_catalog, pg_temp BEGIN ATOMIC SELECT lower(a) || current_setting('server_version'); "
    "END",
    "trigger that keeps a time": "CREATE FUNCTION vectoracl.s() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
    "NEW.written_at = NEW.written_at + 0; RETURN NEW; END'; CREATE TRIGGER t BEFORE UPDATE ON vectoracl.chunks FOR EACH "
    "ROW EXECUTE FUNCTION vectoracl.s()",
    "definer trigger that keeps a time": OPEN + "CREATE FUNCTION x.stamp() RETURNS trigger LANGUAGE plpgsql SECURITY "
    "DEFINER SET search_path = pg_catalog, pg_temp AS 'BEGIN NEW.display_name := now(); RETURN NEW; END'",
    "definer nobody may call": OPEN + "CREATE FUNCTION x.f() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT "
    "content FROM vectoracl.chunks'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC",
    "definer in a schema that is closed": "CREATE SCHEMA x; CREATE FUNCTION x.f() RETURNS text LANGUAGE sql SECURITY "
    "DEFINER AS 'SELECT content FROM vectoracl.chunks'",
    "definer of a role that reads nothing": OPEN + "CREATE ROLE plain; CREATE FUNCTION x.f() RETURNS text LANGUAGE sql "
    "SECURITY DEFINER AS 'SELECT 1::text FROM unnest(ARRAY[1])'; ALTER FUNCTION x.f() OWNER TO plain",
    "invoker": OPEN + "CREATE FUNCTION x.f() RETURNS SETOF text LANGUAGE sql AS 'SELECT content FROM vectoracl.chunks'",
    "invoker that runs text": OPEN + "CREATE FUNCTION x.f(q text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; "
    "END'",
    "view of the invoker": OPEN + "CREATE VIEW x.v WITH (security_invoker) AS SELECT content FROM vectoracl.chunks; "
    "GRANT SELECT ON x.v TO vectoracl_runtime",
    "view of the owner, whom FORCE binds": OPEN + "CREATE VIEW x.v AS SELECT content FROM vectoracl.chunks; ALTER VIEW "
    "x.v OWNER TO vectoracl_owner; GRANT SELECT ON x.v TO vectoracl_runtime",
    "table of numbers": OPEN + "CREATE TABLE x.t (a int, b numeric, c timestamptz, d uuid, e boolean, f interval); GRANT "
    "ALL ON x.t TO vectoracl_runtime",
    "table of an enum": OPEN + "CREATE TYPE x.e AS ENUM ('a', 'b'); CREATE TABLE x.t (a x.e); GRANT ALL ON x.t TO "
    "vectoracl_runtime",
    "table with the tenant's policy": OPEN + "CREATE TABLE x.t (org text, body text); ALTER TABLE x.t ENABLE ROW LEVEL "
    "SECURITY; CREATE POLICY p ON x.t USING (org = NULLIF(current_setting('vectoracl.tenant', true), '')); GRANT ALL ON "
    "x.t TO vectoracl_runtime",
    "table with row security and no policy": OPEN + "CREATE TABLE x.t (org text, body text); ALTER TABLE x.t ENABLE ROW "
    "LEVEL SECURITY; GRANT ALL ON x.t TO vectoracl_runtime",
    "table that nobody else reads": OPEN + "CREATE TABLE x.t AS SELECT * FROM vectoracl.chunks",
    "table that may be written, not read": OPEN + "CREATE TABLE x.t (body text); GRANT INSERT ON x.t TO "
    "vectoracl_runtime",
    "own function that only it uses": OPEN + "CREATE FUNCTION x.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER "
    "FUNCTION x.f() OWNER TO vectoracl_runtime",
    "rights on the system's objects for others": "CREATE ROLE auditor; GRANT SELECT ON pg_catalog.pg_statistic TO "
    "auditor; GRANT SET ON PARAMETER log_statement TO auditor; GRANT pg_monitor TO auditor",
    "event trigger of an invoker": OPEN + "CREATE FUNCTION x.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION x.e()",
    "restrictive policy that computes": "CREATE POLICY more ON vectoracl.chunks AS RESTRICTIVE FOR SELECT USING (expires > "
    "extract(epoch FROM now()))",
    "large object of somebody else": "SELECT lo_from_bytea(4711, 'secret')",
}  # fmt: skip


@pytest.mark.parametrize("setup", HARMLESS.values(), ids=HARMLESS)
def test_what_is_proved_harmless_keeps_the_grade(ground: Ground, setup: str) -> None:
    found, _ = ground.dig(setup)
    assert found.grade == "engine", [(one.rule.id, one.message) for one in found.findings if one.rule.lowers]


CLEVER = {
    "SELECT of a name": ("sql", "SELECT content", ""),
    "FROM": ("sql", "SELECT 1 FROM t", ""),
    "a call of another function": ("sql", "SELECT peek()", ""),
    "a call that looks like a field": ("plpgsql", "BEGIN RETURN new.peek(); END", ""),
    "a comment": ("sql", "SELECT 1 -- ", ""),
    "an escape": ("sql", "SELECT E'a'", ""),
    "a quoted name": ("sql", 'SELECT "new"', ""),
    "two statements": ("sql", "SELECT 1; DELETE FROM t", ""),
    "PERFORM": ("plpgsql", "BEGIN PERFORM peek(); RETURN NEW; END", ""),
    "EXECUTE": ("plpgsql", "BEGIN EXECUTE 'x'; RETURN NEW; END", ""),
    "an assignment to something else": ("plpgsql", "BEGIN other.x := 1; RETURN NEW; END", ""),
    "a declaration": ("plpgsql", "DECLARE t text; BEGIN RETURN t; END", ""),
    "a block in a block": ("plpgsql", "BEGIN BEGIN RETURN 1; END; END", ""),
    "a subquery": ("plpgsql", "BEGIN NEW.a := (SELECT 1); RETURN NEW; END", ""),
    "another language": ("plpython3u", "return 1", ""),
    "letters that fold": ("sql", "SELECT \u017fession", ""),
    "nothing": ("sql", "", ""),
}


@pytest.mark.parametrize("case", CLEVER.values(), ids=CLEVER)
def test_a_body_that_is_not_understood_is_not_proved(case: tuple[str, str, str]) -> None:
    assert not function_proofs.computes_only(*case)


def test_a_path_that_others_can_write_to_is_not_pinned() -> None:
    assert function_proofs.pinned_to_system(["search_path=pg_catalog, pg_temp"])
    assert function_proofs.pinned_to_system(['search_path=""'])
    assert not function_proofs.pinned_to_system(["search_path=pg_catalog, public"])
    assert not function_proofs.pinned_to_system(["statement_timeout=1s"])
    assert not function_proofs.pinned_to_system([])


# --- accepted, recognised
LEND = OPEN + (
    "CREATE FUNCTION x.report() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
    "'SELECT max(content) FROM vectoracl.chunks WHERE false'; CREATE TABLE x.notes (body text); GRANT SELECT ON x.notes "
    "TO vectoracl_runtime;"
)


def test_an_accepted_finding_stays_in_the_report_and_lowers_nothing(ground: Ground) -> None:
    found, _ = ground.dig(LEND)
    by_rule = lowering(found)
    assert {"PG130"} < {rule for rule, _ in by_rule}
    entries = tuple(Accept(rule, subject.replace("report", "r*"), "looked at in May") for rule, subject in by_rule)
    accepted, _ = ground.dig(LEND, target=replace(TARGET, accept=entries))
    assert accepted.grade == "engine"
    listed = [value for name, value in accepted.facts if name.startswith("accepted")]
    assert len(listed) == len(by_rule)
    for rule, subject in by_rule:
        assert f"{rule} {subject}: looked at in May" in listed
    part, _ = ground.dig(LEND, target=replace(TARGET, accept=entries[:1]))
    assert part.grade == "none"


def test_an_entry_that_covers_nothing_is_a_note(ground: Ground) -> None:
    found, _ = ground.dig("SELECT 1", target=replace(TARGET, accept=(Accept("PG130", "public.*", "gone since"),)))
    assert found.grade == "engine"
    assert [one.subject for one in found.findings if one.rule.id == "PG139"] == ["PG130 public.*"]


@pytest.mark.parametrize(
    "entry",
    [
        {"rule": "PG020", "object": "vectoracl.chunks", "reason": "never mind it"},
        {"rule": "PG001", "object": "vectoracl_runtime", "reason": "never mind it"},
        {"rule": "PG130", "object": "*", "reason": "never mind it"},
        {"rule": "PG130", "object": "", "reason": "never mind it"},
        {"rule": "PG130", "object": "public.notes", "reason": "because"},
        {"rule": "PG130", "object": "public.notes"},
    ],
)
def test_an_entry_has_to_say_what_and_why(entry: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="accept"):
        PgvectorConfig(dsn="postgresql://unused", dimension=3, accept=[entry])


def test_patterns_are_read_literally_but_for_two_signs() -> None:
    entry = PgvectorConfig(
        dsn="postgresql://unused", dimension=3,
        accept=[{"rule": "PG131", "object": "x.f(text[], ?)*", "reason": "looked at in May"}],
    ).accept[0].plain()  # fmt: skip
    finding = snapshot.make_finding("PG131", "x.f(text[], a) more", "m", "f;")
    assert entry.covers(finding)
    assert not entry.covers(replace(finding, subject="x.f(text, a)"))
    assert not entry.covers(replace(finding, rule=snapshot.RULES["PG130"]))


def test_what_can_be_accepted_is_a_matter_of_judgement_not_of_fact() -> None:
    assert not ACCEPTABLE & {f"PG0{n:02}" for n in (*range(1, 9), *range(10, 37), 40, 50, 60, 64, 88, 90)}


def test_a_recognised_extension_is_one_by_its_digests(ground: Ground) -> None:
    if ground.major != 15:
        pytest.skip("not run: Debian's server has the contrib extensions")
    made = "CREATE SCHEMA ext; GRANT USAGE ON SCHEMA ext TO PUBLIC; "
    names = ("pgcrypto", "uuid-ossp", "pg_trgm", "citext", "hstore", "btree_gin", "unaccent", "pg_stat_statements")
    made += "; ".join(f'CREATE EXTENSION "{name}" SCHEMA ext' for name in names)
    found, _ = ground.dig(made)
    assert found.grade == "engine", lowering(found)
    changed, _ = ground.dig(f"{made}; CREATE OR REPLACE FUNCTION ext.gen_salt(text) RETURNS text LANGUAGE c STRICT "
                            "AS '$libdir/pgcrypto', 'pg_gen_salt_rounds'")  # fmt: skip
    assert ("PG133", "extension pgcrypto 1.3") in lowering(changed)
    added, _ = ground.dig(f"{made}; CREATE FUNCTION ext.peek(text) RETURNS text LANGUAGE c STRICT AS "
                          "'$libdir/pgcrypto', 'pg_gen_salt'; ALTER EXTENSION pgcrypto ADD FUNCTION ext.peek(text)")  # fmt: skip
    assert ("PG133", "extension pgcrypto 1.3") in lowering(added)
    for outside in ("dblink", "adminpack"):
        reached, _ = ground.dig(f"CREATE EXTENSION {outside}")
        expected = {("PG138", f"extension {outside}")} if outside == "dblink" else set()
        assert expected <= lowering(reached)


# What Supabase, RDS and their like offer and Debian packages, as an ordinary installation leaves it, with what it gets.
OFFERED: dict[str, tuple[str, set[tuple[str, str]]]] = {
    "pg_cron": ("GRANT USAGE ON SCHEMA cron TO PUBLIC", set()),
    "pgaudit": ("", set()),
    "pg_partman": ("", set()),
    "pg_repack": ("", set()),
    "pg_stat_statements": ("", set()),
    "pg_trgm": ("", set()),
    "hypopg": ("", set()),
    "postgis": ("", set()),
    "pgrouting": ("", set()),
    "hll": ("", set()),
    "ip4r": ("", set()),
    "plpgsql_check": ("", set()),
    "rum": ("", set()),
    "prefix": ("", set()),
    "plperl": ("", set()),
    "plpython3u": ("", set()),
    "postgres_fdw": ("", set()),
    "dblink": ("", {("PG138", "extension dblink")}),
    "postgres_fdw, granted": ("GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO vectoracl_runtime",
                              {("PG138", "foreign-data wrapper postgres_fdw")}),
    "plpython3u, used": ("CREATE FUNCTION x.f() RETURNS text LANGUAGE plpython3u AS 'return 1'",
                         {("PG133", "x.f()")}),
    "set_user, granted": ("GRANT EXECUTE ON FUNCTION set_user(text) TO vectoracl_runtime",
                          {("PG134", "public.set_user(text)")}),
}  # fmt: skip


@pytest.mark.parametrize("case", OFFERED.items(), ids=OFFERED)
def test_extensions_that_managed_services_offer(ground: Ground, case: tuple[str, tuple[str, set[Any]]]) -> None:
    if ground.major != 15:
        pytest.skip("not run: Debian's server has the extensions")
    name, (more, expected) = case
    name = name.partition(",")[0]
    with psycopg.connect(f"{ground.where} user=boss dbname=ground") as boss:
        row = boss.execute("SELECT FROM pg_available_extensions WHERE name = %s", [name]).fetchone()
    if row is None:
        pytest.skip(f"not run: the extension {name} is not installed")
    found, _ = ground.dig(f"{OPEN}CREATE EXTENSION {name} CASCADE; {more}")
    assert (lowering(found) >= expected) if expected else (lowering(found) == set())
    assert found.grade == ("none" if expected else "engine")


def test_the_table_is_dated_and_whole() -> None:
    table = recognised.table()
    assert table["date"] >= "2026-01-01"
    assert len(table["servers"]) >= 3
    assert "vector" in table["extensions"]
    assert len(table["leakproof"]) > 200


# --- managed services
SERVICES = Path(__file__).parents[1] / "tools" / "services"
AS_AUTHENTICATED = "GRANT authenticated TO vectoracl_runtime;"


@pytest.mark.parametrize(
    ("service", "more"),
    [("supabase", ""), ("supabase", AS_AUTHENTICATED), ("rds", "")],
    ids=["supabase", "supabase, as its role", "rds"],
)
def test_a_fresh_managed_service_serves_at_engine(ground: Ground, service: str, more: str) -> None:
    found, _ = ground.dig((SERVICES / f"{service}.sql").read_text() + more)
    assert found.grade == "engine", lowering(found)


AUTH = """CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO PUBLIC; CREATE FUNCTION auth.uid() RETURNS uuid STABLE LANGUAGE
sql AS $$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$; CREATE TABLE
public.docs (id uuid PRIMARY KEY, user_id uuid NOT NULL, body text); ALTER TABLE public.docs ENABLE ROW LEVEL SECURITY,
FORCE ROW LEVEL SECURITY; CREATE POLICY own ON public.docs USING ({0}) WITH CHECK ({0}); GRANT SELECT, INSERT, UPDATE,
DELETE ON public.docs TO vectoracl_runtime; REVOKE ALL ON vectoracl.chunks_tenants FROM vectoracl_runtime;"""


def test_a_policy_that_calls_a_helper_of_supabase_is_told_what_to_write(ground: Ground) -> None:
    target = Target("public", "docs", "user_id", "request.jwt.claims", foreign=True)
    found, _ = ground.dig(AUTH.format("auth.uid() = user_id"), target=target)
    assert found.grade == "none"
    (fix,) = {one.fix for one in found.findings if one.rule.id == "PG035"}
    after, _ = ground.dig(AUTH.format("auth.uid() = user_id") + fix, target=target)
    assert after.grade == "engine", lowering(after)
    claim = "user_id = (auth.jwt() ->> 'org')::uuid"
    jwt = "CREATE SCHEMA auth; CREATE FUNCTION auth.jwt() RETURNS jsonb STABLE LANGUAGE sql AS $$ SELECT '{{}}'::jsonb $$;"
    found, _ = ground.dig(AUTH.replace("CREATE SCHEMA auth;", jwt, 1).format(claim), target=target)
    assert found.grade == "none"
    assert any("user_metadata" in one.fix for one in found.findings if one.rule.id == "PG035")


def test_a_service_is_recognised_by_body_and_owner(ground: Ground) -> None:
    fresh = (SERVICES / "supabase.sql").read_text()
    changed = fresh + (
        "CREATE OR REPLACE FUNCTION graphql.get_schema_version() RETURNS int SECURITY DEFINER LANGUAGE sql AS "
        "'SELECT count(*)::int FROM vectoracl.chunks'; GRANT USAGE ON SCHEMA graphql TO PUBLIC;"
    )
    assert "graphql.get_schema_version()" in {subject for _, subject in lowering(ground.dig(changed)[0])}
    moved = fresh + "ALTER FUNCTION graphql.increment_schema_version() OWNER TO CURRENT_USER;"
    assert "graphql.increment_schema_version()" in {subject for _, subject in lowering(ground.dig(moved)[0])}


def test_a_service_that_is_not_known_takes_a_handful_of_entries(ground: Ground) -> None:
    """What the table does not know, of Supabase's next release say, is accepted by patterns."""
    newer = (SERVICES / "supabase.sql").read_text().replace("end;\n$$;", "null; end;\n$$;") + (
        "CREATE FUNCTION graphql.resolve(q text) RETURNS text SECURITY DEFINER LANGUAGE plpgsql AS 'BEGIN RETURN q; END';"
        "GRANT USAGE ON SCHEMA graphql, realtime TO PUBLIC; CREATE TABLE realtime.tenants (name text);"
        "GRANT SELECT ON realtime.tenants TO PUBLIC;"
    )
    assert ground.dig(newer)[0].grade == "none"
    entries = (
        Accept("PG131", "graphql.*", "of pg_graphql, read by us"),
        Accept("PG073", "graphql.*", "of pg_graphql, read by us"),
        Accept("PG074", "graphql.*", "of pg_graphql, read by us"),
        Accept("PG130", "realtime.*", "holds the service's own names"),
    )
    found, _ = ground.dig(newer, target=replace(TARGET, accept=entries))
    assert found.grade == "engine", lowering(found)
