"""More ways round the tenant's policy, of kinds that `holes` does not have; see there for the form."""

# ruff: noqa: E501 - statements are easier to read on fewer lines
from __future__ import annotations

from pgvector_support.holes import BYPASS, DEFINER, OPEN, PLPGSQL, READ, Hole

QUOTED = READ.replace("'", "''")
ROW = (
    "tenant_id, document, generation, chunk_id, label, rev, expires, producer, path, written_at, position, content, "
    "metadata, embedding"
)
# The tenant "evil" in a partition of its own, which nobody protected.
LEAF = (
    f"CREATE TABLE public.kept AS SELECT {ROW} FROM vectoracl.chunks WHERE tenant_id = 'evil'; DELETE FROM "
    "vectoracl.chunks WHERE tenant_id = 'evil'; CREATE TABLE vectoracl.part PARTITION OF vectoracl.chunks FOR VALUES IN "
    f"('evil'); INSERT INTO vectoracl.chunks ({ROW}) SELECT {ROW} FROM public.kept; DROP TABLE public.kept; "
)
FROM_LEAF = "SELECT content FROM vectoracl.part"
ALL = "SELECT content FROM vectoracl.chunks"
# Without the restrictive ones, which no permissive policy gets past.
BARE = "".join(
    f"DROP POLICY vectoracl_{command}_restrictive ON vectoracl.{table}; "
    for table in ("chunks", "chunks_default")
    for command in ("select", "insert", "update", "delete")
)
SPEAKS = f"'BEGIN RAISE NOTICE ''%'', ({QUOTED}); RETURN true; END'"
PROTECTED = (
    OPEN + "CREATE TABLE x.c AS SELECT tenant_id, content FROM vectoracl.chunks; ALTER TABLE x.c ENABLE ROW LEVEL "
    "SECURITY; CREATE POLICY p ON x.c USING (tenant_id = NULLIF(current_setting('vectoracl.tenant', true), '')); "
)


def policy(using: str, more: str = "") -> str:
    """Return what puts the condition *using* in the place of the tenant's for reading."""
    return f"{BARE}{more}ALTER POLICY vectoracl_select_permissive ON vectoracl.chunks USING ({using})"


def other(tenant: str) -> str:
    """Return what adds a row of *tenant* that says evil."""
    return (
        f"INSERT INTO vectoracl.chunks ({ROW}) SELECT '{tenant}', document, generation, chunk_id, label, rev, expires, "
        "producer, path, written_at, position, content, metadata, embedding FROM vectoracl.chunks WHERE tenant_id = "
        "'evil'; "
    )


NOW = "NULLIF(current_setting('vectoracl.tenant', true), '')"

MORE_HOLES = (
    # --- partitions and children
    Hole("leaf without row security", LEAF + "GRANT SELECT ON vectoracl.part TO vectoracl_runtime", FROM_LEAF),
    Hole("column of a leaf without row security", LEAF + "GRANT SELECT (content) ON vectoracl.part TO PUBLIC", FROM_LEAF),
    Hole("leaf with a policy of its own", LEAF + "ALTER TABLE vectoracl.part ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL "
         "SECURITY; CREATE POLICY p ON vectoracl.part USING (true); GRANT SELECT ON vectoracl.part TO vectoracl_runtime",
         FROM_LEAF),
    Hole("leaf that the role owns", LEAF + "ALTER TABLE vectoracl.part ENABLE ROW LEVEL SECURITY; ALTER TABLE "
         "vectoracl.part OWNER TO vectoracl_runtime", FROM_LEAF),
    Hole("leaf in another schema", LEAF + OPEN + "ALTER TABLE vectoracl.part SET SCHEMA x; GRANT SELECT ON x.part TO PUBLIC",
         "SELECT content FROM x.part"),
    Hole("detached leaf", LEAF + "ALTER TABLE vectoracl.chunks DETACH PARTITION vectoracl.part; GRANT SELECT ON "
         "vectoracl.part TO vectoracl_runtime", FROM_LEAF),
    Hole("leaf of a leaf", LEAF + "ALTER TABLE vectoracl.chunks DETACH PARTITION vectoracl.part; CREATE TABLE vectoracl.mid "
         "(LIKE vectoracl.chunks INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING DEFAULTS) PARTITION BY LIST (tenant_id); ALTER TABLE vectoracl.mid ATTACH PARTITION vectoracl.part FOR "
         "VALUES IN ('evil'); ALTER TABLE vectoracl.chunks ATTACH PARTITION vectoracl.mid FOR VALUES IN ('evil'); GRANT "
         "SELECT ON vectoracl.part TO vectoracl_runtime", FROM_LEAF),
    Hole("shared partition without row security", "ALTER TABLE vectoracl.chunks_default DISABLE ROW LEVEL SECURITY; GRANT "
         "SELECT ON vectoracl.chunks_default TO vectoracl_runtime", "SELECT content FROM vectoracl.chunks_default"),
    Hole("view of a plain role over a leaf", LEAF + OPEN + "CREATE ROLE plain; GRANT USAGE ON SCHEMA vectoracl TO plain; "
         "GRANT SELECT ON vectoracl.part TO plain; CREATE VIEW x.v AS SELECT content FROM vectoracl.part; ALTER VIEW x.v "
         "OWNER TO plain; GRANT SELECT ON x.v TO vectoracl_runtime", "SELECT content FROM x.v"),
    Hole("definer of a plain role that reads a leaf", LEAF + OPEN + "CREATE ROLE plain; GRANT USAGE ON SCHEMA vectoracl TO "
         "plain; GRANT SELECT ON vectoracl.part TO plain; CREATE FUNCTION x.f() RETURNS SETOF text " + DEFINER
         + f"'{FROM_LEAF}'; ALTER FUNCTION x.f() OWNER TO plain", "SELECT x.f()"),
    Hole("owner's view over a leaf that is not forced", OPEN + "ALTER TABLE vectoracl.chunks_default NO FORCE ROW LEVEL "
         "SECURITY; CREATE VIEW x.v AS SELECT content FROM vectoracl.chunks_default; ALTER VIEW x.v OWNER TO "
         "vectoracl_owner; GRANT SELECT ON x.v TO vectoracl_runtime", "SELECT content FROM x.v"),
    Hole("TRIGGER on a leaf", LEAF + "GRANT TRIGGER ON vectoracl.part TO vectoracl_runtime"),
    Hole("child of a protected copy", PROTECTED + "CREATE TABLE x.kid () INHERITS (x.c); INSERT INTO x.kid SELECT * FROM "
         "x.c; GRANT SELECT ON x.kid TO vectoracl_runtime", "SELECT content FROM x.kid"),
    # --- policies
    Hole("row security off on the table", "ALTER TABLE vectoracl.chunks DISABLE ROW LEVEL SECURITY", ALL),
    Hole("open policy", BARE + "CREATE POLICY more ON vectoracl.chunks USING (true)", ALL),
    Hole("restrictive policy that is another role's", "ALTER POLICY vectoracl_select_restrictive ON vectoracl.chunks TO "
         "vectoracl_owner; CREATE POLICY more ON vectoracl.chunks FOR SELECT TO vectoracl_runtime USING (true)", ALL),
    Hole("open policy of a role that it can become", BARE + "CREATE ROLE staff; GRANT staff TO vectoracl_runtime; GRANT "
         "USAGE ON SCHEMA vectoracl TO staff; GRANT SELECT ON vectoracl.chunks TO staff; CREATE POLICY more ON "
         "vectoracl.chunks TO staff USING (true)", "SET LOCAL ROLE staff; " + ALL),
    Hole("open policy of a view's owner", BARE + OPEN + "CREATE ROLE plain; GRANT USAGE ON SCHEMA vectoracl TO plain; "
         "GRANT SELECT ON vectoracl.chunks TO plain; CREATE POLICY more ON vectoracl.chunks TO plain USING (true); CREATE "
         "VIEW x.v AS SELECT content FROM vectoracl.chunks; ALTER VIEW x.v OWNER TO plain; GRANT SELECT ON x.v TO PUBLIC",
         "SELECT content FROM x.v"),
    Hole("policy for UPDATE alone", BARE + "CREATE POLICY more ON vectoracl.chunks FOR UPDATE USING (true) WITH CHECK (true)",
         "UPDATE vectoracl.chunks SET tenant_id = 'acme', document = gen_random_uuid()::text; " + ALL),
    Hole("policy for DELETE alone", BARE + "CREATE POLICY more ON vectoracl.chunks FOR DELETE USING (true)"),
    Hole("policy for INSERT alone", BARE + "CREATE POLICY more ON vectoracl.chunks FOR INSERT WITH CHECK (true)"),
    Hole("policy that falls back", policy(f"tenant_id = coalesce({NOW}, tenant_id)"),
         "SELECT set_config('vectoracl.tenant', '', true); " + ALL),
    Hole("policy with chance in it", policy(f"tenant_id = {NOW} OR random() >= 0"), ALL),
    Hole("policy on another column", policy(f"{NOW} IS NOT NULL AND document = 'd'"), ALL),
    Hole("policy by LIKE", policy("tenant_id LIKE current_setting('vectoracl.tenant', true)"),
         "SELECT set_config('vectoracl.tenant', '%', true); " + ALL),
    Hole("policy without case", other("ACME") + policy(f"lower(tenant_id) = lower({NOW})"), ALL),
    Hole("policy by prefix", other("acme2") + policy(f"starts_with(tenant_id, {NOW})"), ALL),
    Hole("policy by a list in the setting", policy("tenant_id = ANY (string_to_array(current_setting('vectoracl.tenant', "
         "true), ','))"), "SELECT set_config('vectoracl.tenant', 'acme,evil', true); " + ALL),
    Hole("policy that cuts", other("acm") + policy(f"left(tenant_id, 3) = left({NOW}, 3)"), ALL),
    Hole("policy that casts to a short type", other("acmX") + policy(f"tenant_id::varchar(3) = {NOW}::varchar(3)"), ALL),
    Hole("policy with a tenant more", policy(f"tenant_id = {NOW} OR tenant_id = 'evil'"), ALL),
    Hole("policy by a column that anybody may write", policy(f"tenant_id = {NOW} OR label = 'l'"), ALL),
    Hole("policy with a collation", "CREATE COLLATION public.ci (provider = icu, locale = 'und-u-ks-level2', deterministic "
         "= false); " + other("ACME") + policy(f"tenant_id COLLATE public.ci = {NOW}"), ALL),
    Hole("policy by a table that the role writes", policy("tenant_id IN (SELECT t FROM x.members)", OPEN + "CREATE TABLE "
         "x.members (t text); GRANT SELECT, INSERT ON x.members TO vectoracl_runtime; "),
         "INSERT INTO x.members VALUES ('evil'); " + ALL),
    Hole("policy that keeps what it sees", "CREATE POLICY aaa ON vectoracl.chunks AS RESTRICTIVE FOR SELECT USING "
         "(set_config('x.seen', concat(current_setting('x.seen', true), content), true) IS NOT NULL)"),
    Hole("permissive policy that keeps what it sees", policy("set_config('x.seen', concat(current_setting('x.seen', true), "
         f"content), true) IS NOT NULL AND tenant_id = {NOW}"),
         "SELECT count(*) FROM vectoracl.chunks; SELECT current_setting('x.seen')"),
    Hole("policy that tells others", "CREATE POLICY aaa ON vectoracl.chunks AS RESTRICTIVE FOR SELECT USING "
         "(pg_notify('heard', content)::text = '')"),
    Hole("open list of tenants", "DROP POLICY vectoracl_own_alone ON vectoracl.chunks_tenants; INSERT INTO "
         "vectoracl.chunks_tenants VALUES ('evil'); CREATE POLICY more ON vectoracl.chunks_tenants USING (true)",
         "SELECT tenant_id FROM vectoracl.chunks_tenants"),
    Hole("list of tenants without row security", "INSERT INTO vectoracl.chunks_tenants VALUES ('evil'); ALTER TABLE "
         "vectoracl.chunks_tenants DISABLE ROW LEVEL SECURITY", "SELECT tenant_id FROM vectoracl.chunks_tenants"),
    # --- settings
    Hole("tenant of a role", "ALTER ROLE vectoracl_runtime SET vectoracl.tenant = 'evil'"),
    Hole("tenant of the database", "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET vectoracl.tenant = ''evil''', "
         "current_database()); END $$"),
    Hole("tenant of everybody", "ALTER ROLE ALL SET vectoracl.tenant = 'evil'"),
    # --- roles
    Hole("BYPASSRLS by SET alone", BYPASS + "GRANT strong TO vectoracl_runtime WITH INHERIT FALSE, SET TRUE",
         "SET LOCAL ROLE strong; " + ALL, since=16),
    Hole("BYPASSRLS in two steps", BYPASS + "CREATE ROLE mid; GRANT strong TO mid; GRANT mid TO vectoracl_runtime",
         "SET LOCAL ROLE strong; " + ALL),
    Hole("BYPASSRLS by ADMIN alone", BYPASS + "GRANT strong TO vectoracl_runtime WITH ADMIN TRUE, INHERIT FALSE, SET FALSE",
         "GRANT strong TO vectoracl_runtime; SET LOCAL ROLE strong; " + ALL, since=16),
    Hole("the owner by INHERIT alone", "GRANT vectoracl_owner TO vectoracl_runtime WITH INHERIT TRUE, SET FALSE",
         "ALTER TABLE vectoracl.chunks NO FORCE ROW LEVEL SECURITY; " + ALL, since=16),
    Hole("CREATEROLE in reach", "CREATE ROLE maker CREATEROLE; GRANT maker TO vectoracl_runtime"),
    Hole("REPLICATION", "ALTER ROLE vectoracl_runtime REPLICATION"),
    Hole("pg_write_all_data", "GRANT pg_write_all_data TO vectoracl_runtime"),
    Hole("pg_write_server_files", "GRANT pg_write_server_files TO vectoracl_runtime"),
    Hole("pg_read_all_stats", "GRANT pg_read_all_stats TO vectoracl_runtime"),
    Hole("pg_read_all_settings", "GRANT pg_read_all_settings TO vectoracl_runtime"),
    Hole("pg_stat_scan_tables", "GRANT pg_stat_scan_tables TO vectoracl_runtime"),
    Hole("owner of the database in reach", "CREATE ROLE dbo; GRANT dbo TO vectoracl_runtime; DO $$ BEGIN EXECUTE "
         "format('ALTER DATABASE %I OWNER TO dbo', current_database()); END $$"),
    Hole("owner of the schema in reach", "CREATE ROLE dev; GRANT dev TO vectoracl_runtime; ALTER SCHEMA vectoracl OWNER TO dev"),
    # --- rights
    Hole("CREATE on the system's schema", "GRANT CREATE ON SCHEMA pg_catalog TO vectoracl_runtime"),
    Hole("CREATE on the information schema", "GRANT CREATE ON SCHEMA information_schema TO PUBLIC"),
    Hole("CREATE on the table's schema", "GRANT CREATE ON SCHEMA vectoracl TO vectoracl_runtime"),
    Hole("values in extended statistics", "CREATE STATISTICS vectoracl.s (mcv) ON tenant_id, content FROM "
         "vectoracl.chunks_default; ANALYZE vectoracl.chunks_default; GRANT SELECT ON pg_catalog.pg_statistic_ext_data TO "
         "vectoracl_runtime", "SELECT (pg_mcv_list_items(stxdmcv)).values::text FROM pg_statistic_ext_data"),
    Hole("connection strings of subscriptions", "GRANT SELECT ON pg_catalog.pg_subscription TO vectoracl_runtime"),
    Hole("passwords of user mappings", "GRANT SELECT ON pg_catalog.pg_user_mapping TO PUBLIC"),
    Hole("pg_shadow", "GRANT SELECT ON pg_catalog.pg_shadow TO vectoracl_runtime"),
    Hole("rules of authentication", "GRANT EXECUTE ON FUNCTION pg_catalog.pg_hba_file_rules() TO vectoracl_runtime"),
    # --- code
    Hole("definer in an index", OPEN + "CREATE FUNCTION x.f(int) RETURNS boolean IMMUTABLE " + PLPGSQL + SPEAKS + "; CREATE "
         "TABLE x.t (a int); CREATE INDEX ON x.t (x.f(a)); GRANT INSERT ON x.t TO vectoracl_runtime",
         "INSERT INTO x.t VALUES (1)"),
    Hole("definer in a constraint", OPEN + "CREATE FUNCTION x.f(int) RETURNS boolean " + PLPGSQL + SPEAKS + "; CREATE TABLE "
         "x.t (a int CHECK (x.f(a))); GRANT INSERT ON x.t TO vectoracl_runtime", "INSERT INTO x.t VALUES (1)"),
    Hole("definer behind an operator class", OPEN + "CREATE TYPE x.t AS (a int); CREATE FUNCTION x.lt(x.t, x.t) RETURNS "
         "boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; CREATE OPERATOR x.< (LEFTARG = x.t, RIGHTARG = x.t, FUNCTION = "
         "x.lt); CREATE OPERATOR x.= (LEFTARG = x.t, RIGHTARG = x.t, FUNCTION = x.lt); CREATE FUNCTION x.f(x.t, x.t) RETURNS int IMMUTABLE " + PLPGSQL + f"'BEGIN RAISE NOTICE ''%'', ({QUOTED}); "
         "RETURN 0; END'; REVOKE ALL ON FUNCTION x.f(x.t, x.t) FROM PUBLIC; CREATE OPERATOR CLASS x.o DEFAULT FOR TYPE x.t "
         "USING btree AS OPERATOR 1 x.<, OPERATOR 3 x.=, FUNCTION 1 x.f(x.t, x.t)",
         "SELECT * FROM (VALUES (ROW(1)::x.t), (ROW(2)::x.t)) v(a) ORDER BY a USING OPERATOR(x.<)"),
    Hole("event trigger at login", OPEN + "CREATE FUNCTION x.f() RETURNS event_trigger " + PLPGSQL + f"'BEGIN RAISE NOTICE "
         f"''%'', ({QUOTED}); END'; CREATE EVENT TRIGGER e ON login EXECUTE FUNCTION x.f()", since=17),
    Hole("trigger INSTEAD on a view", OPEN + "CREATE VIEW x.v AS SELECT ''::text AS a; CREATE FUNCTION x.f() RETURNS trigger "
         + PLPGSQL + f"'BEGIN NEW.a := ({QUOTED}); RETURN NEW; END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE TRIGGER "
         "t INSTEAD OF INSERT ON x.v FOR EACH ROW EXECUTE FUNCTION x.f(); GRANT INSERT, SELECT ON x.v TO vectoracl_runtime",
         "INSERT INTO x.v VALUES ('') RETURNING a"),
    Hole("trigger on the table that answers", OPEN + "CREATE FUNCTION x.f() RETURNS trigger " + PLPGSQL + f"'BEGIN RAISE "
         f"NOTICE ''%'', ({QUOTED}); RETURN NEW; END'; REVOKE ALL ON FUNCTION x.f() FROM PUBLIC; CREATE TRIGGER t BEFORE "
         "UPDATE ON vectoracl.chunks_default FOR EACH ROW EXECUTE FUNCTION x.f()",
         "UPDATE vectoracl.chunks SET position = 1"),
    Hole("trigger that tells others", OPEN + "CREATE FUNCTION x.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM "
         "pg_notify(''heard'', NEW.content); RETURN NEW; END'; CREATE TRIGGER t AFTER INSERT ON vectoracl.chunks_default FOR "
         "EACH ROW EXECUTE FUNCTION x.f()"),
    Hole("trigger with transition tables that fills a copy", OPEN + "CREATE TABLE x.log (what text); GRANT SELECT, INSERT "
         "ON x.log TO vectoracl_runtime; CREATE FUNCTION x.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO x.log "
         "SELECT content FROM fresh; RETURN NULL; END'; CREATE TRIGGER t AFTER UPDATE ON vectoracl.chunks_default REFERENCING "
         "NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION x.f(); UPDATE vectoracl.chunks_default SET position = 1",
         "SELECT what FROM x.log"),
    Hole("rule on the table that answers from a copy", OPEN + "CREATE TABLE x.c AS SELECT content AS b FROM vectoracl.chunks; "
         "GRANT USAGE ON SCHEMA x TO vectoracl_owner; GRANT SELECT ON x.c TO vectoracl_owner; CREATE RULE r AS ON DELETE TO "
         "vectoracl.chunks DO INSTEAD SELECT b FROM x.c", "DELETE FROM vectoracl.chunks"),
    Hole("default on the table that calls a definer", OPEN + "CREATE FUNCTION x.f() RETURNS text " + DEFINER + f"$$ {READ} $$; "
         "ALTER TABLE vectoracl.chunks ALTER COLUMN content SET DEFAULT x.f()", "SELECT x.f()"),
    Hole("definer in SQL's own form", OPEN + "CREATE FUNCTION x.f() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path "
         "= pg_catalog BEGIN ATOMIC SELECT string_agg(content, ';') FROM vectoracl.chunks; END", "SELECT x.f()"),
    Hole("leakproof behind an operator", OPEN + "CREATE SCHEMA hidden; CREATE FUNCTION hidden.f(text, text) RETURNS boolean "
         "LANGUAGE plpgsql LEAKPROOF COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$; CREATE OPERATOR x.### "
         "(LEFTARG = text, RIGHTARG = text, FUNCTION = hidden.f)",
         "SELECT count(*) FROM vectoracl.chunks WHERE content OPERATOR(x.###) 'a'"),
    Hole("leakproof for a role in reach", OPEN + "CREATE ROLE staff; GRANT staff TO vectoracl_runtime; GRANT USAGE ON SCHEMA "
         "vectoracl TO staff; GRANT SELECT ON vectoracl.chunks TO staff; CREATE FUNCTION x.f(text) RETURNS boolean LANGUAGE "
         "plpgsql LEAKPROOF COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$; REVOKE ALL ON FUNCTION "
         "x.f(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION x.f(text) TO staff"),
    # --- copies
    Hole("unlogged copy", OPEN + "CREATE UNLOGGED TABLE x.c AS SELECT content FROM vectoracl.chunks; GRANT SELECT ON x.c TO "
         "PUBLIC", "SELECT content FROM x.c"),
    Hole("part of another table alone", OPEN + "CREATE TABLE x.p (k int, b text) PARTITION BY LIST (k); CREATE TABLE x.p1 "
         "PARTITION OF x.p DEFAULT; INSERT INTO x.p SELECT 1, content FROM vectoracl.chunks; GRANT SELECT ON x.p1 TO "
         "vectoracl_runtime", "SELECT b FROM x.p1"),
    Hole("protected copy that the role owns", PROTECTED + "ALTER TABLE x.c OWNER TO vectoracl_runtime", "SELECT content FROM x.c"),
    Hole("superuser's view over a protected copy", PROTECTED + "CREATE VIEW x.v AS SELECT content FROM x.c; GRANT SELECT ON "
         "x.v TO vectoracl_runtime", "SELECT content FROM x.v"),
    Hole("protected copy with a policy for a role in reach", PROTECTED + "CREATE ROLE staff; GRANT staff TO vectoracl_runtime; "
         "GRANT SELECT ON x.c TO staff; CREATE POLICY more ON x.c TO staff USING (true)",
         "SET LOCAL ROLE staff; SELECT content FROM x.c"),
    Hole("column of a materialized view", OPEN + "CREATE MATERIALIZED VIEW x.m AS SELECT content AS b FROM vectoracl.chunks; "
         "GRANT SELECT (b) ON x.m TO vectoracl_runtime", "SELECT b FROM x.m"),
    Hole("column of a view", OPEN + "CREATE VIEW x.v AS SELECT content AS b FROM vectoracl.chunks; GRANT SELECT (b) ON x.v TO "
         "vectoracl_runtime", "SELECT b FROM x.v"),
    Hole("copy as names", OPEN + "CREATE TABLE x.c AS SELECT content::name AS n FROM vectoracl.chunks; GRANT SELECT ON x.c TO "
         "PUBLIC", "SELECT n FROM x.c"),
    Hole("copy as bits", OPEN + "CREATE TABLE x.c (b bit varying); INSERT INTO x.c SELECT B'0110'; GRANT SELECT ON x.c TO PUBLIC"),
    # --- ownership
    Hole("own domain in another's table", OPEN + "CREATE DOMAIN x.d AS text; CREATE TABLE x.t (a x.d); ALTER DOMAIN x.d OWNER TO "
         "vectoracl_runtime"),
    Hole("own text search configuration in the words", OPEN + "CREATE TEXT SEARCH CONFIGURATION x.c (COPY = simple); ALTER TABLE "
         "vectoracl.chunks ADD COLUMN w tsvector GENERATED ALWAYS AS (to_tsvector('x.c'::regconfig, content)) STORED; ALTER "
         "TEXT SEARCH CONFIGURATION x.c OWNER TO vectoracl_runtime"),
    Hole("own function in an index of the table", OPEN + "CREATE FUNCTION x.f(text) RETURNS text LANGUAGE sql IMMUTABLE AS "
         "'SELECT $1'; CREATE INDEX ON vectoracl.chunks_default (x.f(label)); ALTER FUNCTION x.f(text) OWNER TO "
         "vectoracl_runtime"),
    Hole("own publication", "CREATE PUBLICATION p FOR TABLE vectoracl.chunks; ALTER PUBLICATION p OWNER TO vectoracl_owner; "
         "GRANT vectoracl_owner TO vectoracl_runtime"),
    Hole("own subscription", "CREATE SUBSCRIPTION s CONNECTION 'host=/nowhere dbname=x password=y' PUBLICATION p WITH "
         "(connect = false, enabled = false, slot_name = NONE); ALTER SUBSCRIPTION s OWNER TO vectoracl_runtime", since=16),
)  # fmt: skip
