"""Ways round the tenant's policy, as data: what sets one up in a provisioned database, and what it then shows.

`setup` runs as a superuser, `exploit` as the runtime role in the scope of the tenant "acme". An exploit proves the
hole: the rows or notices that come back hold the word "evil", which only stands in rows of the tenant of that name. Some
holes show nothing by themselves (they end a session, or change a setting); those have no exploit.
"""

# ruff: noqa: E501 - statements are easier to read on fewer lines
from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass

DEFINER = "LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
PLPGSQL = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
READ = "SELECT string_agg(content, ';') FROM vectoracl.chunks"
OPEN = "CREATE SCHEMA x; GRANT USAGE ON SCHEMA x TO PUBLIC;"


@dataclass(frozen=True)
class Hole:
    """One way round: its name, the statements that open it, and the one that goes through it."""

    name: str
    setup: str
    exploit: str | None = None
    since: int = 15


# A role whose own policy reads another setting; the restrictive policy would narrow it.
OTHER_POLICY = (
    "CREATE ROLE aside; GRANT USAGE ON SCHEMA vectoracl TO aside; GRANT SELECT ON vectoracl.chunks TO aside; "
    "DROP POLICY vectoracl_select_restrictive ON vectoracl.chunks; "
    "CREATE POLICY aside ON vectoracl.chunks FOR SELECT TO aside "
    "USING (tenant_id = NULLIF(current_setting('other.tenant', true), ''));"
)
BYPASS = "CREATE ROLE strong BYPASSRLS; GRANT USAGE ON SCHEMA vectoracl TO strong; GRANT SELECT ON vectoracl.chunks TO strong;"

HOLES = (
    # --- copies
    Hole("copy in another schema", OPEN + "CREATE TABLE x.c AS SELECT * FROM vectoracl.chunks; GRANT SELECT ON x.c "
         "TO vectoracl_runtime", "SELECT content FROM x.c"),
    Hole("copy in public", "CREATE TABLE public.c AS SELECT * FROM vectoracl.chunks; GRANT SELECT ON public.c TO PUBLIC",
         "SELECT content FROM public.c"),
    Hole("copy beside the table", "CREATE TABLE vectoracl.c AS SELECT * FROM vectoracl.chunks; GRANT SELECT ON "
         "vectoracl.c TO vectoracl_runtime", "SELECT content FROM vectoracl.c"),
    Hole("copy with the tenant renamed", "CREATE TABLE vectoracl.c AS SELECT tenant_id AS who, content, embedding FROM "
         "vectoracl.chunks; GRANT SELECT ON vectoracl.c TO vectoracl_runtime", "SELECT content FROM vectoracl.c"),
    Hole("copy with every column renamed", OPEN + "CREATE TABLE x.archive AS SELECT tenant_id AS a, content AS b FROM "
         "vectoracl.chunks; GRANT SELECT ON x.archive TO vectoracl_runtime", "SELECT b FROM x.archive"),
    Hole("copy of one column by a column's grant", OPEN + "CREATE TABLE x.c AS SELECT content AS b, 1 AS n FROM "
         "vectoracl.chunks; GRANT SELECT (b) ON x.c TO vectoracl_runtime", "SELECT b FROM x.c"),
    Hole("copy as JSON", OPEN + "CREATE TABLE x.c AS SELECT to_jsonb(c) AS j FROM vectoracl.chunks c; GRANT SELECT ON "
         "x.c TO vectoracl_runtime", "SELECT j FROM x.c"),
    Hole("copy as bytes", OPEN + "CREATE TABLE x.c AS SELECT convert_to(content, 'UTF8') AS j FROM vectoracl.chunks; "
         "GRANT SELECT ON x.c TO vectoracl_runtime", "SELECT convert_from(j, 'UTF8') FROM x.c"),
    Hole("copy in an array", OPEN + "CREATE TABLE x.c AS SELECT array_agg(content) AS j FROM vectoracl.chunks; GRANT "
         "SELECT ON x.c TO vectoracl_runtime", "SELECT j FROM x.c"),
    Hole("copy in a composite type", OPEN + "CREATE TYPE x.t AS (a text); CREATE TABLE x.c AS SELECT "
         "ROW(content)::x.t AS j FROM vectoracl.chunks; GRANT SELECT ON x.c TO vectoracl_runtime", "SELECT j FROM x.c"),
    Hole("copy in a domain", OPEN + "CREATE DOMAIN x.d AS text; CREATE TABLE x.c AS SELECT content::x.d AS j FROM "
         "vectoracl.chunks; GRANT SELECT ON x.c TO vectoracl_runtime", "SELECT j FROM x.c"),
    Hole("copy that a trigger fills", OPEN + "CREATE TABLE x.log (what text); GRANT SELECT ON x.log TO "
         "vectoracl_runtime; CREATE FUNCTION x.f() RETURNS trigger " + PLPGSQL + "'BEGIN INSERT INTO x.log VALUES "
         "(NEW.content); RETURN NEW; END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE TRIGGER t AFTER INSERT OR "
         "UPDATE ON vectoracl.chunks_default FOR EACH ROW EXECUTE FUNCTION x.f(); "
         "UPDATE vectoracl.chunks SET position = position", "SELECT what FROM x.log"),
    Hole("copy that a trigger without rights fills", OPEN + "CREATE TABLE x.log (what text); GRANT SELECT, INSERT ON "
         "x.log TO vectoracl_runtime, vectoracl_owner; CREATE FUNCTION x.f() RETURNS trigger LANGUAGE plpgsql AS "
         "'BEGIN INSERT INTO x.log VALUES (NEW.content); RETURN NEW; END'; CREATE TRIGGER t AFTER UPDATE ON "
         "vectoracl.chunks_default FOR EACH ROW EXECUTE FUNCTION x.f(); UPDATE vectoracl.chunks SET position = 1",
         "SELECT what FROM x.log"),
    Hole("copy that a rule fills", OPEN + "CREATE TABLE x.log (what text); GRANT SELECT ON x.log TO vectoracl_runtime; "
         "GRANT INSERT ON x.log TO vectoracl_owner; GRANT USAGE ON SCHEMA x TO vectoracl_owner; CREATE RULE r AS ON "
         "UPDATE TO vectoracl.chunks DO ALSO INSERT INTO x.log VALUES (NEW.content); "
         "UPDATE vectoracl.chunks SET position = 1", "SELECT what FROM x.log"),
    Hole("copy in a materialized view", OPEN + "CREATE MATERIALIZED VIEW x.m AS SELECT content FROM vectoracl.chunks; "
         "GRANT SELECT ON x.m TO vectoracl_runtime", "SELECT content FROM x.m"),
    Hole("materialized view over a function", OPEN + f"CREATE FUNCTION x.g() RETURNS text LANGUAGE sql AS $$ {READ} $$; "
         "CREATE MATERIALIZED VIEW x.m AS SELECT x.g() AS g; REVOKE ALL ON FUNCTION x.g() FROM PUBLIC; GRANT SELECT ON "
         "x.m TO vectoracl_runtime", "SELECT g FROM x.m"),
    Hole("view of a superuser over a copy", OPEN + "CREATE TABLE x.c AS SELECT content AS b FROM vectoracl.chunks; "
         "CREATE VIEW x.v AS SELECT b FROM x.c; GRANT SELECT ON x.v TO vectoracl_runtime", "SELECT b FROM x.v"),
    Hole("partition of another table", OPEN + "CREATE TABLE x.p (k int, b text) PARTITION BY LIST (k); CREATE TABLE "
         "x.p1 PARTITION OF x.p DEFAULT; INSERT INTO x.p SELECT 1, content FROM vectoracl.chunks; GRANT SELECT ON x.p TO "
         "vectoracl_runtime", "SELECT b FROM x.p"),
    Hole("copy with row security that binds nothing", OPEN + "CREATE TABLE x.c AS SELECT * FROM vectoracl.chunks; ALTER "
         "TABLE x.c ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON x.c USING (true); GRANT "
         "SELECT ON x.c TO vectoracl_runtime", "SELECT content FROM x.c"),
    Hole("copy whose policy reads another setting", OPEN + "CREATE TABLE x.c AS SELECT * FROM vectoracl.chunks; ALTER "
         "TABLE x.c ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY p ON x.c USING (tenant_id = "
         "current_setting('other.tenant', true)); GRANT SELECT ON x.c TO vectoracl_runtime",
         "SELECT set_config('other.tenant', 'evil', true); SELECT content FROM x.c"),
    Hole("copy whose policy calls a function", OPEN + "CREATE TABLE x.c AS SELECT * FROM vectoracl.chunks; CREATE "
         "FUNCTION x.ok(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; ALTER TABLE x.c ENABLE ROW LEVEL SECURITY; "
         "CREATE POLICY p ON x.c USING (x.ok(tenant_id)); GRANT SELECT ON x.c TO vectoracl_runtime",
         "SELECT content FROM x.c"),
    Hole("copy that the role owns", OPEN + "CREATE TABLE x.c AS SELECT content AS b FROM vectoracl.chunks; ALTER TABLE "
         "x.c OWNER TO vectoracl_runtime", "SELECT b FROM x.c"),
    Hole("copy that a role of the role may read", OPEN + "CREATE TABLE x.c AS SELECT content AS b FROM "
         "vectoracl.chunks; CREATE ROLE readers; GRANT SELECT ON x.c TO readers; GRANT readers TO vectoracl_runtime",
         "SET LOCAL ROLE readers; SELECT b FROM x.c"),
    Hole("large object", "SELECT lo_from_bytea(4711, convert_to(string_agg(content, ';'), 'UTF8')) FROM "
         "vectoracl.chunks; GRANT SELECT ON LARGE OBJECT 4711 TO vectoracl_runtime",
         "SELECT convert_from(lo_get(4711), 'UTF8')"),
    Hole("large object of PUBLIC", "SELECT lo_from_bytea(4711, convert_to(string_agg(content, ';'), 'UTF8')) FROM "
         "vectoracl.chunks; GRANT ALL ON LARGE OBJECT 4711 TO PUBLIC", "SELECT convert_from(lo_get(4711), 'UTF8')"),
    # --- code with more rights
    Hole("definer of the owner", OPEN + "CREATE FUNCTION x.f() RETURNS text " + PLPGSQL + "'BEGIN ALTER TABLE "
         f"vectoracl.chunks NO FORCE ROW LEVEL SECURITY; RETURN ({READ.replace(chr(39), chr(39) * 2)}); END'; "
         "ALTER FUNCTION x.f() OWNER TO vectoracl_owner", "SELECT x.f()"),
    Hole("ts_stat", OPEN + "CREATE FUNCTION x.f() RETURNS SETOF text " + DEFINER + "$$ SELECT word FROM "
         "ts_stat('SELECT to_tsvector(''simple'', content) FROM vectoracl.chu' || 'nks') $$", "SELECT x.f()"),
    Hole("query_to_xml", OPEN + "CREATE FUNCTION x.f(q text) RETURNS text " + DEFINER + "$$ SELECT "
         "query_to_xml(q, true, false, '')::text $$", "SELECT x.f('SELECT content FROM vectoracl.chunks')"),
    Hole("table_to_xml in SQL's own form", OPEN + "CREATE FUNCTION x.f(r text) RETURNS text LANGUAGE sql SECURITY "
         "DEFINER SET search_path = pg_catalog BEGIN ATOMIC SELECT table_to_xml(r::regclass, true, false, '')::text; END",
         "SELECT x.f('vectoracl.chunks')"),
    Hole("schema_to_xml", OPEN + "CREATE FUNCTION x.f() RETURNS text " + DEFINER + "$$ SELECT schema_to_xml('vectoracl', "
         "true, false, '')::text $$", "SELECT x.f()"),
    Hole("EXECUTE", OPEN + "CREATE FUNCTION x.f(q text) RETURNS text " + PLPGSQL + "'DECLARE t text; BEGIN EXECUTE q INTO "
         "t; RETURN t; END'", f"SELECT x.f($q${READ}$q$)"),
    Hole("spelt with escapes", OPEN + "CREATE FUNCTION x.f() RETURNS text " + DEFINER + '$$ SELECT string_agg(content, '
         '\';\') FROM U&"\\0076ectoracl".U&"chunk\\0073" $$', "SELECT x.f()"),
    Hole("pinned to the schema", OPEN + "CREATE FUNCTION x.f() RETURNS text LANGUAGE sql SECURITY DEFINER SET "
         "search_path = vectoracl, pg_temp AS $$ SELECT string_agg(content, ';') FROM chunks $$", "SELECT x.f()"),
    Hole("through an invoker's helper", OPEN + f"CREATE FUNCTION x.h() RETURNS text LANGUAGE sql AS $$ {READ} $$; REVOKE "
         "ALL ON FUNCTION x.h() FROM PUBLIC; CREATE FUNCTION x.f() RETURNS text " + PLPGSQL + "'BEGIN RETURN x.h(); "
         "END'", "SELECT x.f()"),
    Hole("through a view in the body", OPEN + "CREATE VIEW x.v AS SELECT content FROM vectoracl.chunks; CREATE FUNCTION "
         "x.f() RETURNS text " + DEFINER + "$$ SELECT string_agg(content, ';') FROM x.v $$", "SELECT x.f()"),
    Hole("through an operator in the body", OPEN + f"CREATE FUNCTION x.h(text, text) RETURNS text LANGUAGE sql AS $$ "
         f"{READ} $$; CREATE OPERATOR x.### (LEFTARG = text, RIGHTARG = text, FUNCTION = x.h); REVOKE ALL ON FUNCTION "
         "x.h(text, text) FROM PUBLIC; CREATE FUNCTION x.f() RETURNS text " + DEFINER
         + "$$ SELECT 'a'::text OPERATOR(x.###) 'b'::text $$", "SELECT x.f()"),
    Hole("through a cast in the body", OPEN + "CREATE TYPE x.t AS (a text); CREATE FUNCTION x.h(x.t) RETURNS text "
         f"LANGUAGE sql AS $$ {READ} $$; CREATE CAST (x.t AS text) WITH FUNCTION x.h(x.t); REVOKE ALL ON FUNCTION "
         "x.h(x.t) FROM PUBLIC; CREATE FUNCTION x.f() RETURNS text " + DEFINER + "$$ SELECT ROW('a')::x.t::text $$",
         "SELECT x.f()"),
    Hole("of an extension", OPEN + "CREATE FUNCTION x.f() RETURNS text " + DEFINER + f"$$ {READ} $$; ALTER EXTENSION "
         "plpgsql ADD FUNCTION x.f()", "SELECT x.f()"),
    Hole("procedure", OPEN + "CREATE PROCEDURE x.p(INOUT t text) " + DEFINER + f"$$ {READ} $$", "CALL x.p('')"),
    Hole("window function's kind of call", OPEN + "CREATE FUNCTION x.s(text, text) RETURNS text " + DEFINER
         + f"$$ {READ} $$; REVOKE ALL ON FUNCTION x.s(text, text) FROM PUBLIC; CREATE AGGREGATE x.a(text) (SFUNC = x.s, "
         "STYPE = text, INITCOND = '')", "SELECT x.a('b')"),
    Hole("a function in the system's schema", "CREATE FUNCTION pg_catalog.harmless() RETURNS text " + DEFINER
         + f"$$ {READ} $$", "SELECT harmless()"),
    Hole("definer of a BYPASSRLS role", OPEN + BYPASS + "CREATE FUNCTION x.f() RETURNS text " + DEFINER + f"$$ {READ} $$; "
         "ALTER FUNCTION x.f() OWNER TO strong", "SELECT x.f()"),
    Hole("definer of a member of a BYPASSRLS owner", OPEN + "CREATE ROLE mid; GRANT vectoracl_owner TO mid; CREATE FUNCTION "
         "x.f() RETURNS text " + PLPGSQL + "'BEGIN ALTER TABLE vectoracl.chunks NO FORCE ROW LEVEL SECURITY; RETURN ("
         + READ.replace("'", "''") + "); END'; ALTER FUNCTION x.f() OWNER TO mid", "SELECT x.f()"),
    Hole("definer of a member of pg_read_all_data", OPEN + "CREATE ROLE reader; GRANT pg_read_all_data TO reader; CREATE "
         "FUNCTION x.f() RETURNS text " + DEFINER + "$$ SELECT string_agg(stavalues1::text || coalesce(stavalues2::text, "
         "''), ';') FROM pg_statistic WHERE starelid = 'vectoracl.chunks_default'::regclass $$; ALTER FUNCTION x.f() "
         "OWNER TO reader", "SELECT x.f()"),
    Hole("definer of a role with its own policy", OPEN + OTHER_POLICY + "CREATE FUNCTION x.f() RETURNS text " + DEFINER
         + f"$$ {READ} $$; ALTER FUNCTION x.f() OWNER TO aside",
         "SELECT set_config('other.tenant', 'evil', true); SELECT x.f()"),
    Hole("view of a role with its own policy", OPEN + OTHER_POLICY + "CREATE VIEW x.v AS SELECT content FROM "
         "vectoracl.chunks; ALTER VIEW x.v OWNER TO aside; GRANT SELECT ON x.v TO vectoracl_runtime",
         "SELECT set_config('other.tenant', 'evil', true); SELECT content FROM x.v"),
    Hole("definer of a plain role that reads a copy", OPEN + "CREATE ROLE plain; CREATE TABLE x.c AS SELECT content AS b "
         "FROM vectoracl.chunks; GRANT SELECT ON x.c TO plain; CREATE FUNCTION x.f() RETURNS text " + DEFINER
         + "$$ SELECT string_agg(b, ';') FROM x.c $$; ALTER FUNCTION x.f() OWNER TO plain", "SELECT x.f()"),
    Hole("definer of a plain role that calls another", OPEN + "CREATE ROLE plain; CREATE SCHEMA y; GRANT USAGE ON SCHEMA "
         "y TO plain; CREATE FUNCTION y.g() RETURNS text " + DEFINER + f"$$ {READ} $$; REVOKE ALL ON FUNCTION y.g() FROM "
         "PUBLIC; GRANT EXECUTE ON FUNCTION y.g() TO plain; CREATE FUNCTION x.f() RETURNS text " + DEFINER
         + "'SELECT y.g()'; ALTER FUNCTION x.f() OWNER TO plain", "SELECT x.f()"),
    Hole("view of a superuser", OPEN + "CREATE VIEW x.v AS SELECT content FROM vectoracl.chunks; GRANT SELECT ON x.v TO "
         "PUBLIC", "SELECT content FROM x.v"),
    Hole("view over a view over a partition", OPEN + "CREATE VIEW x.a AS SELECT content FROM vectoracl.chunks_default; "
         "CREATE VIEW x.v AS SELECT * FROM x.a; GRANT SELECT ON x.v TO vectoracl_runtime", "SELECT content FROM x.v"),
    Hole("writable view that returns", OPEN + "CREATE VIEW x.v AS SELECT * FROM vectoracl.chunks; GRANT UPDATE, SELECT "
         "(content, position) ON x.v TO vectoracl_runtime; GRANT UPDATE ON x.v TO vectoracl_runtime",
         "UPDATE x.v SET position = 1 RETURNING content"),
    Hole("trigger that answers with other rows", OPEN + "CREATE TABLE x.t (a text); GRANT INSERT, SELECT ON x.t TO "
         "vectoracl_runtime; CREATE FUNCTION x.f() RETURNS trigger " + PLPGSQL + "'BEGIN NEW.a := ("
         + READ.replace("'", "''") + "); RETURN NEW; END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE TRIGGER t "
         "BEFORE INSERT ON x.t FOR EACH ROW EXECUTE FUNCTION x.f()", "INSERT INTO x.t VALUES ('') RETURNING a"),
    Hole("trigger on a table of numbers that speaks", OPEN + "CREATE TABLE x.t (a int); GRANT INSERT ON x.t TO "
         "vectoracl_runtime; CREATE FUNCTION x.f() RETURNS trigger " + PLPGSQL + "'BEGIN RAISE NOTICE ''%'', ("
         + READ.replace("'", "''") + "); RETURN NEW; END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE TRIGGER t "
         "BEFORE INSERT ON x.t FOR EACH ROW EXECUTE FUNCTION x.f()", "INSERT INTO x.t VALUES (1)"),
    Hole("trigger that a cascade fires", OPEN + "CREATE TABLE x.p (a int PRIMARY KEY); INSERT INTO x.p VALUES (1); GRANT "
         "DELETE, SELECT ON x.p TO vectoracl_runtime; CREATE TABLE x.t (a int REFERENCES x.p ON DELETE CASCADE); INSERT "
         "INTO x.t VALUES (1); CREATE FUNCTION x.f() RETURNS trigger " + PLPGSQL + "'BEGIN RAISE NOTICE ''%'', ("
         + READ.replace("'", "''") + "); RETURN OLD; END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE TRIGGER t "
         "BEFORE DELETE ON x.t FOR EACH ROW EXECUTE FUNCTION x.f()", "DELETE FROM x.p WHERE a = 1"),
    Hole("definer trigger function for a table of one's own", OPEN + "CREATE FUNCTION x.f() RETURNS trigger " + PLPGSQL
         + "'BEGIN RAISE NOTICE ''%'', (" + READ.replace("'", "''") + "); RETURN NEW; END'",
         "CREATE TEMP TABLE mine (a int); CREATE TRIGGER t BEFORE INSERT ON mine FOR EACH ROW EXECUTE FUNCTION x.f(); "
         "INSERT INTO mine VALUES (1)"),
    Hole("event trigger of a definer", OPEN + "CREATE FUNCTION x.f() RETURNS event_trigger " + PLPGSQL + "'BEGIN RAISE "
         "NOTICE ''%'', (" + READ.replace("'", "''") + "); END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE EVENT "
         "TRIGGER e ON ddl_command_end EXECUTE FUNCTION x.f()", "CREATE TEMP TABLE mine (a int)"),
    Hole("rule that answers with other rows", OPEN + "CREATE TABLE x.t (a text); GRANT INSERT ON x.t TO "
         "vectoracl_runtime; CREATE RULE r AS ON INSERT TO x.t DO INSTEAD SELECT content FROM vectoracl.chunks",
         "INSERT INTO x.t VALUES ('')"),
    Hole("policy that calls a definer", OPEN + "CREATE FUNCTION x.f(text) RETURNS boolean " + PLPGSQL + "'BEGIN RAISE "
         "NOTICE ''%'', (" + READ.replace("'", "''") + "); RETURN false; END'; CREATE POLICY more ON vectoracl.chunks AS "
         "RESTRICTIVE FOR SELECT USING (x.f(tenant_id))", "SELECT count(*) FROM vectoracl.chunks"),
    Hole("default that calls a definer", OPEN + "CREATE FUNCTION x.f() RETURNS text " + DEFINER + f"$$ {READ} $$; CREATE "
         "TABLE x.t (n int, a text DEFAULT x.f()); GRANT INSERT, SELECT ON x.t TO vectoracl_runtime",
         "INSERT INTO x.t (n) VALUES (1) RETURNING a"),
    Hole("domain that calls a definer", OPEN + "CREATE FUNCTION x.f(int) RETURNS boolean " + PLPGSQL + "'BEGIN RAISE "
         "NOTICE ''%'', (" + READ.replace("'", "''") + "); RETURN true; END'; CREATE DOMAIN x.d AS int CHECK "
         "(x.f(VALUE))", "SELECT 1::x.d"),
    Hole("leakproof function", "CREATE FUNCTION public.leak(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS "
         "$$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$",
         "DO $$ BEGIN PERFORM count(*) FROM vectoracl.chunks WHERE public.leak(content); END $$"),
    Hole("leakproof function of the system's own", "ALTER FUNCTION pg_catalog.jsonb_in(cstring) LEAKPROOF"),
    Hole("leakproof function of an extension", "CREATE FUNCTION public.leak(text) RETURNS bool LANGUAGE plpgsql LEAKPROOF "
         "COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$; ALTER EXTENSION plpgsql ADD FUNCTION "
         "public.leak(text)", "DO $$ BEGIN PERFORM count(*) FROM vectoracl.chunks WHERE public.leak(content); END $$"),
    Hole("internal function under another name", OPEN + "CREATE FUNCTION x.rf(text) RETURNS bytea LANGUAGE internal AS "
         "'pg_read_binary_file_all'", "SELECT left(encode(x.rf('PG_VERSION'), 'escape') || ' evil', 99)"),
    Hole("operator over a definer", OPEN + "CREATE FUNCTION x.h(text, text) RETURNS text " + DEFINER + f"$$ {READ} $$; "
         "CREATE OPERATOR x.### (LEFTARG = text, RIGHTARG = text, FUNCTION = x.h)",
         "SELECT 'a'::text OPERATOR(x.###) 'b'::text"),
    Hole("cast over a definer in a closed schema", OPEN + "CREATE SCHEMA hidden; CREATE TYPE x.t AS (a text); CREATE "
         "FUNCTION hidden.h(x.t) RETURNS text " + DEFINER + f"$$ {READ} $$; CREATE CAST (x.t AS text) WITH FUNCTION "
         "hidden.h(x.t)", "SELECT ROW('a')::x.t::text"),
    Hole("definer without a search_path", OPEN + "CREATE TABLE public.rates (r text); CREATE FUNCTION x.f() RETURNS text "
         "LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN (SELECT max(r) FROM rates); END'",
         "CREATE TEMP TABLE base (r text); CREATE FUNCTION pg_temp.peek() RETURNS text LANGUAGE sql AS $$ "
         + READ + " $$; CREATE TEMP VIEW rates AS SELECT pg_temp.peek() AS r; SELECT x.f()"),
    # --- rights
    Hole("SELECT on pg_statistic", "GRANT SELECT ON pg_catalog.pg_statistic TO vectoracl_runtime",
         "SELECT stavalues1::text, stavalues2::text FROM pg_statistic WHERE starelid = 'vectoracl.chunks_default'::regclass"),
    Hole("a column of pg_statistic", "GRANT SELECT (starelid, stavalues1) ON pg_catalog.pg_statistic TO PUBLIC",
         "SELECT stavalues1::text FROM pg_statistic WHERE starelid = 'vectoracl.chunks_default'::regclass"),
    Hole("pg_statistic by a role", "CREATE ROLE readers; GRANT readers TO vectoracl_runtime; GRANT SELECT ON "
         "pg_catalog.pg_statistic TO readers", "SET LOCAL ROLE readers; SELECT stavalues1::text FROM pg_statistic WHERE "
         "starelid = (SELECT oid FROM pg_class WHERE relname = 'chunks_default')"),
    Hole("view of a superuser over pg_statistic", OPEN + "CREATE VIEW x.v AS SELECT stavalues1::text AS a FROM "
         "pg_statistic WHERE starelid = 'vectoracl.chunks_default'::regclass; GRANT SELECT ON x.v TO PUBLIC",
         "SELECT a FROM x.v"),
    Hole("rule over pg_statistic", OPEN + "CREATE TABLE x.t (a int); GRANT INSERT ON x.t TO vectoracl_runtime; CREATE RULE "
         "r AS ON INSERT TO x.t DO INSTEAD SELECT stavalues1::text AS a FROM pg_statistic WHERE starelid = "
         "'vectoracl.chunks_default'::regclass", "INSERT INTO x.t VALUES (1)"),
    Hole("the pages of long texts", "UPDATE vectoracl.chunks SET content = (SELECT string_agg('evil' || md5(i::text), '') "
         "FROM generate_series(1, 4000) i); DO $$ DECLARE t text; BEGIN SELECT reltoastrelid::regclass::text INTO t FROM "
         "pg_class WHERE oid = 'vectoracl.chunks_default'::regclass; EXECUTE format('GRANT SELECT ON %s TO "
         "vectoracl_runtime', t); GRANT USAGE ON SCHEMA pg_toast TO vectoracl_runtime; END $$"),
    Hole("pg_authid", "GRANT SELECT ON pg_catalog.pg_authid TO vectoracl_runtime"),
    Hole("pg_largeobject", "SELECT lo_from_bytea(4711, convert_to(string_agg(content, ';'), 'UTF8')) FROM "
         "vectoracl.chunks; GRANT SELECT ON pg_catalog.pg_largeobject TO vectoracl_runtime",
         "SELECT convert_from(data, 'UTF8') FROM pg_largeobject"),
    Hole("SET on a parameter", "GRANT SET ON PARAMETER session_preload_libraries TO vectoracl_runtime"),
    Hole("ALTER SYSTEM on a parameter", "GRANT ALTER SYSTEM ON PARAMETER archive_command TO vectoracl_runtime"),
    Hole("SET on a parameter for PUBLIC", "GRANT SET ON PARAMETER session_replication_role TO PUBLIC"),
    Hole("pg_maintain", "GRANT pg_maintain TO vectoracl_runtime", since=17),
    Hole("pg_signal_backend", "GRANT pg_signal_backend TO vectoracl_runtime"),
    Hole("pg_create_subscription", "GRANT pg_create_subscription TO vectoracl_runtime", since=16),
    Hole("pg_monitor", "GRANT pg_monitor TO vectoracl_runtime"),
    Hole("pg_read_all_data", "GRANT pg_read_all_data TO vectoracl_runtime",
         "SET LOCAL ROLE pg_read_all_data; SELECT stavalues1::text FROM pg_statistic WHERE starelid = "
         "'vectoracl.chunks_default'::regclass"),
    Hole("pg_read_server_files", "GRANT pg_read_server_files TO vectoracl_runtime"),
    Hole("pg_execute_server_program", "GRANT pg_execute_server_program TO vectoracl_runtime"),
    Hole("file function", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_file(text) TO vectoracl_runtime"),
    Hole("listing function", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_waldir() TO PUBLIC"),
    Hole("large object import", "GRANT EXECUTE ON FUNCTION pg_catalog.lo_import(text) TO vectoracl_runtime"),
    Hole("log function", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_current_logfile() TO vectoracl_runtime"),
    Hole("own function in an event trigger", OPEN + "CREATE FUNCTION x.f() RETURNS event_trigger LANGUAGE plpgsql AS "
         "'BEGIN END'; CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION x.f(); ALTER FUNCTION x.f() OWNER TO "
         "vectoracl_runtime"),
    Hole("own function in a policy", OPEN + "CREATE FUNCTION x.f(text) RETURNS boolean LANGUAGE sql AS 'SELECT true'; "
         "CREATE POLICY more ON vectoracl.chunks AS RESTRICTIVE FOR SELECT USING (x.f(tenant_id)); ALTER FUNCTION "
         "x.f(text) OWNER TO vectoracl_runtime"),
    Hole("own function in another table's policy", OPEN + "CREATE TABLE x.t (a int); ALTER TABLE x.t ENABLE ROW LEVEL "
         "SECURITY; CREATE FUNCTION x.f() RETURNS boolean LANGUAGE sql AS 'SELECT true'; CREATE POLICY p ON x.t USING "
         "(x.f()); ALTER FUNCTION x.f() OWNER TO vectoracl_runtime"),
    Hole("own function in a superuser's view", OPEN + "CREATE FUNCTION x.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; "
         "CREATE VIEW x.v AS SELECT x.f() AS f; ALTER FUNCTION x.f() OWNER TO vectoracl_runtime"),
    Hole("own function behind an operator", OPEN + "CREATE FUNCTION x.f(text, text) RETURNS boolean LANGUAGE sql AS "
         "'SELECT true'; CREATE OPERATOR x.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = x.f); ALTER FUNCTION "
         "x.f(text, text) OWNER TO vectoracl_runtime"),
    Hole("own function of a role it can become", OPEN + "CREATE ROLE dev; GRANT dev TO vectoracl_runtime; CREATE TABLE "
         "x.t (a int); CREATE FUNCTION x.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER "
         "t BEFORE INSERT ON x.t FOR EACH ROW EXECUTE FUNCTION x.f(); ALTER FUNCTION x.f() OWNER TO dev"),
    Hole("owner of the extension's schema", "ALTER SCHEMA public OWNER TO vectoracl_runtime"),
    Hole("owner of the table's schema", "ALTER SCHEMA vectoracl OWNER TO vectoracl_runtime"),
    Hole("owner of the database", "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO vectoracl_runtime', "
         "current_database()); END $$"),
    Hole("CREATE on the database", "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO vectoracl_runtime', "
         "current_database()); END $$"),
    Hole("CREATE on the extension's schema", "GRANT CREATE ON SCHEMA public TO vectoracl_runtime"),
    Hole("foreign server", "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN "
         "SERVER s TO vectoracl_runtime"),
    Hole("foreign-data wrapper", "CREATE FOREIGN DATA WRAPPER w; GRANT USAGE ON FOREIGN DATA WRAPPER w TO PUBLIC"),
    Hole("foreign table", "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE "
         "public.ft (a int) SERVER s; GRANT SELECT ON public.ft TO vectoracl_runtime"),
    Hole("untrusted language that counts as trusted", "UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'c'; "
         "GRANT USAGE ON LANGUAGE c TO vectoracl_runtime"),
    Hole("ADMIN on the owner", "GRANT vectoracl_owner TO vectoracl_runtime WITH ADMIN OPTION",
         "SET LOCAL ROLE vectoracl_owner; ALTER TABLE vectoracl.chunks NO FORCE ROW LEVEL SECURITY; SELECT content FROM "
         "vectoracl.chunks"),
    Hole("TRIGGER on the table", "GRANT TRIGGER ON vectoracl.chunks TO vectoracl_runtime"),
)  # fmt: skip


# --- combinations
_OWNERS = {
    "superuser": ("", "", ""),
    "owner": ("", "vectoracl_owner", "EXECUTE 'ALTER TABLE vectoracl.chunks NO FORCE ROW LEVEL SECURITY';"),
    "BYPASSRLS": (BYPASS, "strong", ""),
    "reader": ("CREATE ROLE reader; GRANT pg_read_all_data TO reader;", "reader", ""),
    "own policy": (OTHER_POLICY, "aside", ""),
}
_FROM = {
    "quoted": 'FROM "vectoracl"."chunks"',
    "escapes": 'FROM U&"\\0076ectoracl".U&"chunk\\0073"',
    "dynamic": None,
    "run as text": None,
    "helper": None,
}
_CARRIERS = {
    "function": ("", "SELECT x.g('')"),
    "procedure": (
        "CREATE PROCEDURE x.p(INOUT t text) LANGUAGE plpgsql AS 'BEGIN t := x.g(t); END';", "CALL x.p('')"),
    "operator": ("CREATE OPERATOR x.### (RIGHTARG = text, FUNCTION = x.g);", "SELECT OPERATOR(x.###) 'a'::text"),
    "cast": (
        "CREATE TYPE x.t AS (a text); CREATE FUNCTION x.c(x.t) RETURNS text LANGUAGE sql AS $$ SELECT x.g('') $$; "
        "CREATE CAST (x.t AS text) WITH FUNCTION x.c(x.t);", "SELECT ROW('a')::x.t::text"),
    "aggregate": (
        "CREATE FUNCTION x.s(text, text) RETURNS text LANGUAGE sql AS $$ SELECT x.g('') $$; "
        "CREATE AGGREGATE x.a(text) (SFUNC = x.s, STYPE = text, INITCOND = '');", "SELECT x.a('b')"),
    "domain": (
        "CREATE FUNCTION x.k(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', x.g(''''); RETURN true; "
        "END'; CREATE DOMAIN x.d AS int CHECK (x.k(VALUE));", "SELECT 1::x.d"),
    "default": (
        "CREATE TABLE x.t (n int, a text DEFAULT x.g('')); GRANT INSERT, SELECT ON x.t TO vectoracl_runtime;",
        "INSERT INTO x.t (n) VALUES (1) RETURNING a"),
    "view": ("CREATE VIEW x.v AS SELECT x.g('') AS g; GRANT SELECT ON x.v TO PUBLIC;", "SELECT g FROM x.v"),
    "rule": (
        "CREATE TABLE x.t (a int); GRANT INSERT ON x.t TO vectoracl_runtime; CREATE RULE r AS ON INSERT TO x.t DO INSTEAD "
        "SELECT x.g('');", "INSERT INTO x.t VALUES (1)"),
    "trigger": (
        "CREATE TABLE x.t (a text); GRANT INSERT, SELECT ON x.t TO vectoracl_runtime; CREATE FUNCTION x.f() RETURNS "
        "trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := x.g(''''); RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON x.t "
        "FOR EACH ROW EXECUTE FUNCTION x.f();", "INSERT INTO x.t VALUES ('') RETURNING a"),
    "policy": (
        "CREATE TABLE x.t (a int); INSERT INTO x.t VALUES (1); GRANT SELECT ON x.t TO vectoracl_runtime; ALTER TABLE x.t "
        "ENABLE ROW LEVEL SECURITY; CREATE FUNCTION x.k(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE "
        "''%'', x.g(''''); RETURN true; END'; CREATE POLICY p ON x.t USING (x.k(a));", "SELECT a FROM x.t"),
    "event trigger": (
        "CREATE FUNCTION x.e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE NOTICE ''%'', x.g(''''); END'; "
        "CREATE EVENT TRIGGER e ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION x.e();", "CREATE TEMP TABLE mine (a int)"),
    "generated column": (
        "CREATE TABLE x.t (n int, a text GENERATED ALWAYS AS (x.g(n::text)) STORED); GRANT INSERT, SELECT ON x.t TO "
        "vectoracl_runtime;", "INSERT INTO x.t (n) VALUES (1) RETURNING a"),
}  # fmt: skip


def combinations(seed: int, size: int) -> Iterator[Hole]:
    """Draw *size* of: what carries the call × who owns the code × how it spells what it reads."""
    every = list(itertools.product(_CARRIERS, _OWNERS, _FROM))
    for carrier, owner, spelling in random.Random(seed).sample(every, size):
        roles, name, first = _OWNERS[owner]
        select = (
            "SELECT string_agg(stavalues1::text, ';') FROM pg_catalog.pg_statistic "
            "WHERE starelid = 'vectoracl.chunks_default'::regclass"
            if owner == "reader"
            else f"SELECT string_agg(content, ';') {_FROM[spelling] or 'FROM vectoracl.chunks'}"
        )
        helper = ""
        quoted = select.replace("'", "''")
        if spelling == "dynamic":
            body = f"EXECUTE '{quoted[:20]}' || '{quoted[20:]}' INTO t;" if "'" not in select[:20] else ""
        elif spelling == "run as text":
            inner = select.replace("SELECT string_agg(", "SELECT to_tsvector('simple', ").replace(", ';')", ")")
            body = f"t := (SELECT string_agg(word, ';') FROM ts_stat('{inner.replace(chr(39), chr(39) * 2)}'));"
        elif spelling == "helper":
            helper = (
                "CREATE SCHEMA away; GRANT USAGE ON SCHEMA away TO PUBLIC; CREATE FUNCTION away.h() RETURNS text "
                f"LANGUAGE sql AS $h$ {select} $h$;"
            )
            body = "t := away.h();"
        else:
            body = f"t := ({select});"
        lend = f"ALTER FUNCTION x.g(text) OWNER TO {name};" if name else ""
        setup = (
            f"{OPEN}{roles}{helper}CREATE FUNCTION x.g(text) RETURNS text IMMUTABLE {PLPGSQL}$g$ DECLARE t text; BEGIN "
            f"{first} {body} RETURN t; END $g$; {lend}{_CARRIERS[carrier][0]}"
        )
        # What a stable or immutable function may not do needs a volatile one.
        volatile = carrier != "generated column"
        setup = setup.replace(" IMMUTABLE ", " ") if volatile else setup
        proof: str | None = _CARRIERS[carrier][1]
        if not volatile and owner == "owner":
            proof = None
        if owner == "own policy":
            proof = f"SELECT set_config('other.tenant', 'evil', true); {proof}"
        yield Hole(f"{carrier}, {owner}, {spelling}", setup, proof)
