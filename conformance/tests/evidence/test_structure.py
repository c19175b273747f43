"""E2s: what is proved about SQL, what is not, and how the grade reads it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectoracl_conformance.evidence.calls import ScopedCall
from vectoracl_conformance.evidence.exchanges import Decoded, Exchange
from vectoracl_conformance.evidence.outcome import Graded
from vectoracl_conformance.evidence.protocols.postgres import Statement
from vectoracl_conformance.evidence.protocols.postgres_settings import Setting, Settings
from vectoracl_conformance.evidence.protocols.postgres_values import Param
from vectoracl_conformance.evidence.sessions import Mark, Place, Recording, Session, Window
from vectoracl_conformance.evidence.sql_scope import SqlScope, prove, sql_judge
from vectoracl_conformance.evidence.structure import Proof, by_carries, grade_structure

T = "tenant-1"
SCOPE = SqlScope(
    {("v", "chunks"): "tenant_id", ("v", "docs"): "tenant_id"}, "v.tenant", frozenset({("v", "versions")}),
    operators=frozenset({"public.<=>"}), default="v",
)  # fmt: skip
IN_FORCE = Settings(values={"v.tenant": Setting(T, local=True), "search_path": Setting("pg_catalog", local=True)})
NO_PATH = Settings(values={"v.tenant": Setting(T, local=True)})


def judge(sql: str, *params: Any, settings: Settings = IN_FORCE, tenant: str | None = T, **more: Any) -> Proof:
    bound = tuple(one if isinstance(one, Param) else Param(one, 0, binary=False) for one in params)
    return prove(Statement(sql, bound, settings, **more), tenant, SCOPE)


RIGHT = [
    "SELECT * FROM v.chunks WHERE tenant_id = $1",
    "SELECT * FROM v.chunks WHERE $1 = tenant_id",
    'SELECT * FROM "v"."chunks" WHERE "tenant_id" = $1::text AND "year" > 3 ORDER BY e <=> $2 LIMIT 5',
    "SELECT * FROM v.chunks AS c WHERE c.tenant_id = $1::pg_catalog.text AND (a OR b)",
    "SELECT * FROM v.chunks WHERE (tenant_id = $1 AND (a OR b))",
    "SELECT * FROM v.chunks WHERE ((tenant_id = 'tenant-1')) -- a comment\n AND NOT x /* OR /* nested */ 1=1 */",
    "SELECT * FROM v.chunks WHERE tenant_id OPERATOR(pg_catalog.=) $1",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 ORDER BY e OPERATOR(public.<=>) $2 LIMIT 5",
    "SELECT * FROM v.chunks WHERE tenant_id = ANY ($3::text[])",
    "SELECT * FROM v.chunks WHERE tenant_id = ANY ($4)",
    "SELECT * FROM v.chunks WHERE tenant_id IN ($1)",
    "SELECT * FROM v.chunks WHERE tenant_id = current_setting('v.tenant')",
    "SELECT * FROM v.chunks WHERE tenant_id = NULLIF(pg_catalog.current_setting('v.tenant', true), '')",
    "SELECT * FROM v.chunks WHERE a IS DISTINCT FROM b AND tenant_id = $1",
    "SELECT CASE WHEN a OR b THEN 1 ELSE 2 END FROM v.chunks WHERE CASE WHEN a OR b THEN c END AND tenant_id = $1",
    "SELECT x AS where, c.from FROM v.chunks c WHERE c.tenant_id = $1 GROUP BY 1 HAVING count(*) > 2",
    "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY d ORDER BY e <=> $2) AS r FROM v.chunks "
    "WHERE tenant_id = $1) AS s WHERE r < 3 ORDER BY e LIMIT 5",
    "SELECT * FROM v.chunks c JOIN v.docs d ON c.d = d.d WHERE c.tenant_id = $1 AND d.tenant_id = $1",
    "SELECT * FROM v.chunks c LEFT JOIN v.docs AS d ON c.d = d.d, unnest($2) AS u(x) "
    "WHERE c.tenant_id = $1 AND d.tenant_id = $1",
    "WITH a AS (SELECT * FROM v.chunks WHERE tenant_id = $1), b AS MATERIALIZED (SELECT * FROM a) "
    "SELECT * FROM b, a AS x",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 UNION ALL "
    "(SELECT * FROM v.docs WHERE tenant_id = $1) ORDER BY 1 LIMIT 3",
    "SELECT count(*) FILTER (WHERE x > 1), extract(year FROM t), left(a, 2) FROM v.chunks WHERE tenant_id = $1",
    "SELECT (SELECT max(g) FROM v.docs WHERE tenant_id = $1), ARRAY(SELECT 1) FROM v.chunks WHERE tenant_id = $1",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 AND EXISTS (SELECT FROM v.docs d WHERE d.tenant_id = $1 AND d.x = y)",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 FOR UPDATE SKIP LOCKED",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 AND e::numeric(10, 2) > 1 AND m ->> 'a''b' = E'x\\'y'",
    "INSERT INTO v.chunks (id, tenant_id) VALUES ($2, $1), ('b', 'tenant-1') ON CONFLICT DO NOTHING RETURNING id",
    "INSERT INTO v.chunks AS old (tenant_id, id) SELECT $1::text, new.id FROM unnest($2::text[]) AS new(id) "
    "ON CONFLICT (tenant_id, id) DO UPDATE SET id = EXCLUDED.id WHERE old.x = 1",
    "UPDATE v.chunks SET x = 1, y = (SELECT 2) WHERE tenant_id = $1 AND id = 'a'",
    "UPDATE v.chunks c SET x = d.x FROM v.docs d WHERE c.tenant_id = $1 AND d.tenant_id = $1",
    "DELETE FROM v.chunks WHERE tenant_id = $1 AND FALSE",
    "DELETE FROM v.chunks AS c USING v.docs AS d WHERE c.tenant_id = $1 AND d.tenant_id = $1 AND c.d = d.d",
    "WITH gone AS (DELETE FROM v.chunks WHERE tenant_id = $1 RETURNING id) SELECT count(*) FROM gone",
    "WITH RECURSIVE t AS (SELECT id FROM v.docs WHERE tenant_id = $1 UNION SELECT d.id FROM v.docs d JOIN t "
    "ON d.p = t.id WHERE d.tenant_id = $1) SELECT * FROM t",
    "SELECT 1;",
]
PARAMS = (T, "x", (T,), "{tenant-1}")

WRONG = [
    # no scope, or only a mention of it
    "SELECT * FROM v.chunks",
    "SELECT * FROM v.chunks WHERE id = $1",
    "SELECT $1 AS tenant_id FROM v.chunks",
    "SELECT * FROM v.chunks WHERE tenant_id = tenant_id",
    "SELECT * FROM v.chunks WHERE $1 = $1",
    "SELECT * FROM v.chunks c WHERE c.tenant_id = c.tenant_id AND $1 = $1",
    "SELECT * FROM v.chunks WHERE tenant_id <> $1",
    "SELECT * FROM v.chunks WHERE tenant_id >= $1",
    "SELECT * FROM v.chunks WHERE tenant_id LIKE $1",
    "SELECT * FROM v.chunks ORDER BY tenant_id = $1 DESC, e <=> $2 LIMIT 5",
    "SELECT * FROM v.chunks ORDER BY CASE WHEN tenant_id = $1 THEN 0 ELSE 1 END LIMIT 5",
    "SELECT count(*) FILTER (WHERE tenant_id = $1) FROM v.chunks",
    "SELECT * FROM v.chunks GROUP BY id HAVING tenant_id = $1",
    # comments and strings
    "SELECT * FROM v.chunks -- WHERE tenant_id = $1",
    "SELECT * FROM v.chunks /* WHERE tenant_id = $1 */",
    "SELECT * FROM v.chunks /* /* */ WHERE tenant_id = $1 */",
    "SELECT * FROM v.chunks WHERE x = ' AND tenant_id = $1 AND '",
    "SELECT * FROM v.chunks WHERE x = $q$ AND tenant_id = $1 AND $q$",
    "SELECT * FROM v.chunks WHERE x = E'\\' AND tenant_id = $1 AND '''",
    "SELECT * FROM v.chunks WHERE x = U&'\\0027' AND tenant_id = $1",
    'SELECT * FROM v.chunks WHERE "x AND tenant_id = $1 AND y"',
    "SELECT * FROM v.chunks WHERE tenant_id = 'tenant-' '1'",
    # weakened
    "SELECT * FROM v.chunks WHERE tenant_id = $1 OR TRUE",
    "SELECT * FROM v.chunks WHERE a AND tenant_id = $1 OR b",
    "SELECT * FROM v.chunks WHERE (tenant_id = $1 OR public)",
    "SELECT * FROM v.chunks WHERE NOT tenant_id = $1",
    "SELECT * FROM v.chunks WHERE NOT (tenant_id = $1)",
    "SELECT * FROM v.chunks WHERE (tenant_id = $1) IS NOT NULL",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 IS NOT NULL",
    "SELECT * FROM v.chunks WHERE coalesce(tenant_id = $1, true)",
    "SELECT * FROM v.chunks WHERE CASE WHEN a THEN b AND tenant_id = $1 ELSE true END",
    "SELECT * FROM v.chunks WHERE CASE tenant_id WHEN $1 THEN true ELSE true END",
    "SELECT * FROM v.chunks WHERE 1 BETWEEN 0 AND tenant_id = $1",
    "SELECT * FROM v.chunks WHERE x IN (tenant_id = $1)",
    "SELECT * FROM v.chunks WHERE lower(tenant_id) = lower($1)",
    "SELECT * FROM v.chunks WHERE tenant_id::varchar(3) = $1",
    "SELECT * FROM v.chunks WHERE tenant_id = $1::varchar(3)",
    "SELECT * FROM v.chunks WHERE tenant_id = $1::name",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 COLLATE evil",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 || ''",
    "SELECT * FROM v.chunks WHERE tenant_id = left($1, 3)",
    "SELECT * FROM v.chunks WHERE tenant_id OPERATOR(evil.=) $1",
    "SELECT * FROM v.chunks WHERE tenant_id = ALL ($3)",
    "SELECT * FROM v.chunks WHERE tenant_id = ANY ($5::text[])",
    "SELECT * FROM v.chunks WHERE tenant_id = ANY ($1)",
    "SELECT * FROM v.chunks WHERE tenant_id = $4",
    "SELECT * FROM v.chunks WHERE tenant_id IN ($1, 'other')",
    "SELECT * FROM v.chunks WHERE tenant_id NOT IN ($1)",
    "SELECT * FROM v.chunks WHERE tenant_id IN (SELECT $1)",
    "SELECT * FROM v.chunks WHERE tenant_id = 'other'",
    "SELECT * FROM v.chunks WHERE tenant_id = $2",
    "SELECT * FROM v.chunks WHERE tenant_id = $9",
    "SELECT * FROM v.chunks WHERE tenant_id = NULLIF($1, 'x')",
    "SELECT * FROM v.chunks WHERE tenant_id = coalesce(current_setting('v.tenant', true), tenant_id)",
    "SELECT * FROM v.chunks WHERE tenant_id = current_setting('v.other')",
    "SELECT * FROM v.chunks WHERE tenant_id = current_setting($1)",
    # in the wrong place
    "SELECT * FROM (SELECT * FROM v.chunks ORDER BY e <=> $2 LIMIT 100) AS s WHERE tenant_id = $1",
    "SELECT * FROM (SELECT * FROM v.chunks) AS s WHERE tenant_id = $1 LIMIT 5",
    "WITH s AS (SELECT * FROM v.chunks ORDER BY e LIMIT 9) SELECT * FROM s WHERE tenant_id = $1",
    "WITH chunks AS (SELECT * FROM chunks) SELECT * FROM chunks WHERE tenant_id = $1",
    "WITH RECURSIVE a AS (SELECT 1) (SELECT * FROM chunks) ORDER BY 1, chunks LIMIT 1",
    "SELECT * FROM v.chunks WHERE id IN (SELECT id FROM v.chunks WHERE tenant_id = $1)",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 AND id IN (SELECT id FROM v.chunks ORDER BY e LIMIT 9)",
    "SELECT * FROM v.chunks WHERE EXISTS (SELECT 1 WHERE tenant_id = $1 OR true)",
    "SELECT (SELECT string_agg(t, ',') FROM v.chunks) FROM v.chunks WHERE tenant_id = $1",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 ORDER BY (SELECT max(id) FROM v.docs)",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 UNION SELECT * FROM v.chunks",
    "SELECT * FROM v.chunks UNION SELECT * FROM v.chunks WHERE tenant_id = $1",
    "SELECT * FROM v.chunks c JOIN v.docs d ON d.tenant_id = c.tenant_id WHERE c.tenant_id = $1",
    "SELECT * FROM v.chunks c, v.docs d WHERE tenant_id = $1",
    "SELECT * FROM v.chunks a, v.chunks b WHERE a.tenant_id = $1 AND a.tenant_id = $1",
    "SELECT * FROM v.docs d LEFT JOIN v.chunks c ON c.tenant_id = $1 WHERE d.tenant_id = $1",
    "SELECT * FROM v.chunks JOIN v.docs USING (tenant_id) WHERE tenant_id = $1",
    "SELECT * FROM v.chunks NATURAL JOIN v.versions WHERE tenant_id = $1",
    "SELECT * FROM v.chunks AS c(a, b, tenant_id) WHERE tenant_id = $1",
    "SELECT * FROM v.chunks WHERE other.tenant_id = $1",
    # what is not known
    "SELECT * FROM v.everything WHERE tenant_id = $1",
    "SELECT * FROM v.chunks_default WHERE tenant_id = $1",
    "SELECT * FROM chunks WHERE tenant_id = $1",  # with pg_catalog as search_path it has no schema
    "SELECT * FROM leak($1) AS chunks(tenant_id) WHERE tenant_id = $1",
    "SELECT leak(), * FROM v.chunks WHERE tenant_id = $1",
    "SELECT v.count(*) FROM v.chunks WHERE tenant_id = $1",
    "SELECT query_to_xml('select * from v.chunks', true, true, '')",
    "SELECT * FROM pg_catalog.pg_stats",
    "SELECT lo_get(1), pg_read_file('x')",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 AND a @#@ b",
    "SELECT e OPERATOR(leaky.<=>) $2 FROM v.chunks WHERE tenant_id = $1",
    "SELECT e OPERATOR(<=>) $2 FROM v.chunks WHERE tenant_id = $1",
    "SELECT e OPERATOR(public.<->) $2 FROM v.chunks WHERE tenant_id = $1",
    "TABLE v.chunks",
    "SELECT * FROM (TABLE v.chunks) AS s WHERE tenant_id = $1",
    "SELECT * INTO copy FROM v.chunks WHERE tenant_id = $1",
    "SELECT * FROM v.chunks TABLESAMPLE system (10) WHERE tenant_id = $1",
    "SELECT * FROM ROWS FROM (leak()) AS x",
    "DECLARE c CURSOR FOR SELECT * FROM v.chunks WHERE tenant_id = $1",
    "PREPARE p AS SELECT * FROM v.chunks WHERE tenant_id = $1",
    "EXECUTE p",
    "COPY v.chunks TO STDOUT",
    "DO $$ BEGIN PERFORM 1; END $$",
    "CALL p()",
    "EXPLAIN ANALYZE SELECT * FROM v.chunks WHERE tenant_id = $1",
    "TRUNCATE v.chunks",
    "MERGE INTO v.chunks USING v.docs ON true WHEN MATCHED THEN DELETE",
    "CREATE TABLE x AS SELECT * FROM v.chunks",
    "SELECT 1; SELECT * FROM v.chunks WHERE tenant_id = $1",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 garbage here (",
    "SELECT 'open",
    # settings
    "SET v.tenant = 'tenant-1'",
    "SET LOCAL v.tenant = 'other'",
    "SET ROLE postgres",
    "SET LOCAL ROLE postgres",
    "SET SESSION AUTHORIZATION x",
    "SET search_path = evil",
    "SET LOCAL row_security = off",
    "RESET ROLE",
    "SELECT set_config('v.tenant', $1, false)",
    "SELECT set_config('v.tenant', $2, true)",
    "SELECT set_config('role', 'postgres', true)",
    "SELECT set_config($2, $1, $2)",
    "SELECT 1, set_config('v.tenant', $1, true)",
    "SELECT * FROM v.chunks WHERE tenant_id = $1 AND set_config('v.tenant', 'x', true) = ''",
    # writes
    "INSERT INTO v.chunks VALUES ($1, 'x')",
    "INSERT INTO v.chunks (id) VALUES ($1)",
    "INSERT INTO v.chunks (id, tenant_id) VALUES ($1, $2)",
    "INSERT INTO v.chunks (id, tenant_id) VALUES ('a', $1), ('b', 'other')",
    "INSERT INTO v.chunks (id, tenant_id) SELECT *, $1 FROM v.docs WHERE tenant_id = $1",
    "INSERT INTO v.chunks (id, tenant_id) SELECT 1, tenant_id FROM v.docs WHERE tenant_id = $1",
    "INSERT INTO v.chunks (id, tenant_id) SELECT 1, $1 UNION SELECT 2, 'other'",
    "INSERT INTO v.chunks (tenant_id, id) SELECT $1, id FROM v.docs",
    "INSERT INTO v.chunks (tenant_id, id) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET id = 2",
    "INSERT INTO v.chunks (tenant_id, id) VALUES ($1, 1) ON CONFLICT ON CONSTRAINT k DO UPDATE SET id = 2",
    "INSERT INTO v.chunks (tenant_id, id) VALUES ($1, 1) ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = 'x'",
    "INSERT INTO v.chunks (tenant_id, id) VALUES ($1, 1) ON CONFLICT (tenant_id) DO UPDATE "
    "SET (id, tenant_id) = (1, 'x')",
    "INSERT INTO v.chunks DEFAULT VALUES",
    "UPDATE v.chunks SET x = 1",
    "UPDATE v.chunks SET tenant_id = 'other' WHERE tenant_id = $1",
    "UPDATE v.chunks SET (a, tenant_id) = (1, 'other') WHERE tenant_id = $1",
    "UPDATE v.chunks SET x = 1 FROM v.docs d WHERE d.tenant_id = $1",
    "UPDATE v.chunks SET x = 1 WHERE CURRENT OF c",
    "DELETE FROM v.chunks",
    "DELETE FROM v.chunks USING v.docs d WHERE d.tenant_id = $1",
    "WITH gone AS (DELETE FROM v.chunks RETURNING *) SELECT 1 FROM v.docs WHERE tenant_id = $1",
]  # fmt: skip


@pytest.mark.parametrize("sql", RIGHT)
def test_proved(sql: str) -> None:
    assert judge(sql, *PARAMS) == Proof(proved=True, data=sql != "SELECT 1;")


@pytest.mark.parametrize("sql", WRONG)
def test_not_proved(sql: str) -> None:
    assert judge(sql, *PARAMS, (T, "other")).proved is False


@pytest.mark.parametrize("sql", [sql for sql in RIGHT[:-1] if "current_setting" not in sql])
def test_whatever_is_proved_for_one_tenant_is_not_for_another(sql: str) -> None:
    others = Settings(values={**IN_FORCE.values, "v.tenant": Setting("tenant-2", local=True)})
    assert judge(sql, *PARAMS, tenant="tenant-2", settings=others).proved is False
    assert judge(sql, *PARAMS, tenant=None).proved is False


@pytest.mark.parametrize(
    "force",
    [
        Settings(),
        Settings(known=False, values=IN_FORCE.values),
        Settings(values={"v.tenant": Setting(T, local=False)}),
        Settings(values={"v.tenant": Setting("other", local=True)}),
        Settings(values={"v.tenant": Setting(None, local=True)}),
        Settings(values={**IN_FORCE.values, "search_path": Setting("evil, pg_catalog", local=True)}),
        Settings(values={**IN_FORCE.values, "search_path": Setting(None, local=True)}),
    ],
)
def test_the_settings_have_to_agree(force: Settings) -> None:
    assert judge(RIGHT[0], T, settings=force).proved is False


def test_names_without_a_schema() -> None:
    assert judge("SELECT * FROM chunks WHERE tenant_id = $1", T, settings=NO_PATH).proved
    path = Settings(values={**NO_PATH.values, "search_path": Setting('"v", public', local=True)})
    assert judge("SELECT * FROM chunks WHERE tenant_id = $1", T, settings=path).proved
    path = Settings(values={**NO_PATH.values, "search_path": Setting("evil, v", local=True)})
    assert not judge("SELECT * FROM chunks WHERE tenant_id = $1", T, settings=path).proved


def test_parameters_by_type_and_format() -> None:
    sql = "SELECT * FROM v.chunks WHERE tenant_id = $1"
    assert judge(sql, Param(T, 25, binary=True)).proved
    assert judge(sql, Param(T.encode(), 0, binary=True)).proved
    assert not judge(sql, Param(T, 19, binary=False)).proved  # name cuts at 63 bytes
    assert not judge(sql, Param(T, 18, binary=False)).proved  # "char" cuts at one
    assert not judge(sql, Param((T,), 0, binary=True)).proved
    assert not judge(sql, Param(None, 0, binary=True)).proved
    assert not judge("SELECT * FROM v.chunks WHERE tenant_id = ANY ($1)", Param((T, None), 1009, binary=True)).proved


def test_start_parameters() -> None:
    for startup, right in (
        ((("user", "a"), ("options", "-c statement_timeout=5 -cTimeZone=UTC")), True),
        ((("user", "a"), ("DateStyle", "ISO")), True),
        ((("user", "a"), ("options", "-c search_path=evil,pg_catalog")), False),
        ((("user", "a"), ("search_path", "evil")), False),
        ((("user", "a"), ("options", "--role=postgres")), False),
    ):
        assert judge(RIGHT[0], T, startup=startup).proved is right


CONTROL = [
    "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", "COMMIT", "ROLLBACK", "START TRANSACTION READ ONLY, DEFERRABLE",
    "SELECT pg_catalog.set_config($1, $2, true), set_config('a.b', 'c', true)", "SET LOCAL statement_timeout = 50",
    "SET application_name TO 'x'", "SET TRANSACTION READ ONLY", "SHOW server_version", "DISCARD ALL", "DEALLOCATE ALL",
    "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0))", "SELECT version FROM v.versions", "", " ; ",
    "SELECT relname FROM pg_catalog.pg_class c WHERE c.oid = 1 OR true", "SAVEPOINT x", "RELEASE x", "ROLLBACK TO x",
]  # fmt: skip


@pytest.mark.parametrize("sql", CONTROL)
def test_control_statements_reach_no_data(sql: str) -> None:
    assert judge(sql, "v.tenant", T, settings=Settings()) == Proof(proved=True, data=False)


def test_the_posture_reaches_catalogs_only() -> None:
    from vectoracl_pgvector.posture.sql import STATEMENTS

    for name, sql in STATEMENTS:
        numbered = re.sub(r"%\((\w+)\)s", "$1", sql).replace("%%", "%")
        assert judge(numbered, "x", settings=Settings(), tenant=None) == Proof(proved=True, data=False), name


pieces = st.sampled_from(
    ["SELECT", "*", "FROM", "v.chunks", "WHERE", "tenant_id", "=", "$1", "AND", "OR", "(", ")", "CASE", "WHEN", "END",
     ",", "UNION", "WITH", "x", "AS", "'", '"', "--", "/*", "*/", "$$", ";", "NOT", "IN", "ANY", "JOIN", "ON", "[", "]",
     "::", "text", "BETWEEN", "LIMIT", "1", ".", "LATERAL", "VALUES", "INSERT", "INTO", "é", "\0", "\n"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(pieces, max_size=25).map(" ".join))
def test_any_text_is_judged_without_raising(sql: str) -> None:
    assert judge(sql, T).proved in (True, False)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([sql for sql in RIGHT if " WHERE " in sql and "CASE" not in sql]), st.data())
def test_an_or_anywhere_at_the_top_takes_the_proof(sql: str, data: Any) -> None:
    """Of every right statement, each WHERE that ends the text, weakened by OR TRUE, is not proved."""
    before, _, after = sql.rpartition(" WHERE ")
    if any(word in after for word in (")", "ORDER", "GROUP", "RETURNING", "UNION", "FOR", "--", ";", "old.x")):
        return
    assert judge(f"{before} WHERE {after} OR TRUE", *PARAMS).proved is False
    assert judge(f"{before} WHERE ({after}) OR (TRUE)", *PARAMS).proved is False


def test_deep_nesting_is_not_proved() -> None:
    assert judge("SELECT " + "(" * 500 + "1" + ")" * 500).proved is False
    assert judge("(" * 5000 + "SELECT 1" + ")" * 5000).proved is False


# --- the grade


SESSION = Session(1, 0.0, 1.0, ())
RECORDING = Recording((SESSION,), 1)
QUESTION = ScopedCall(T, Window(Mark({1: Place(0, 100, 0)}), Mark({1: Place(0, 200, 0)})), 2)


def exchange(number: int, start: int, sql: str, *params: str, force: Settings = IN_FORCE) -> Exchange:
    statement = Statement(sql, tuple(Param(one, 0, binary=False) for one in params), force)
    return Exchange(1, number, start, "SELECT", statement, (), 0, complete=True)


GOOD = exchange(2, 150, RIGHT[0], T)


def structure(*exchanges: Exchange, recording: Recording = RECORDING, doubts: tuple[str, ...] = ()) -> Graded:
    return grade_structure(recording, [Decoded(exchanges, doubts)], [QUESTION], sql_judge(SCOPE))


def test_the_grade() -> None:
    assert structure(GOOD).outcome == "passed"
    assert structure(GOOD).facts["data"] == 1
    assert structure(exchange(1, 10, "SELECT 1"), GOOD).outcome == "passed"
    assert structure(GOOD, exchange(3, 160, "SELECT * FROM v.chunks")).outcome == "failed"
    assert structure(exchange(1, 10, RIGHT[0], T), GOOD).outcome == "failed"  # data before the question
    assert structure(GOOD, exchange(3, 200, RIGHT[0], T)).outcome == "failed"  # and after it
    assert structure(replace(GOOD, request=None)).outcome == "abstained"
    assert structure().outcome == "abstained"
    assert structure(exchange(1, 110, "SELECT 1")).outcome == "abstained"
    assert structure(GOOD, doubts=("cut off",)).outcome == "abstained"
    assert structure(GOOD, recording=replace(RECORDING, served=2)).outcome == "abstained"
    assert structure(GOOD, recording=replace(RECORDING, served=None)).outcome == "abstained"
    assert structure(GOOD, recording=Recording((replace(SESSION, dropped=1),), 1)).outcome == "abstained"
    assert structure(GOOD, recording=Recording((replace(SESSION, closed=None),), 1)).outcome == "abstained"


def test_overlapping_questions_abstain() -> None:
    decoded = [Decoded((GOOD,))]
    graded = grade_structure(RECORDING, decoded, [QUESTION, QUESTION], sql_judge(SCOPE))
    assert graded.outcome == "abstained"
    assert grade_structure(RECORDING, decoded, [], sql_judge(SCOPE)).outcome != "passed"


def test_judges_of_other_stores() -> None:
    def graded(answer: object, is_data: bool | None = True, start: int = 150) -> str:
        def carries(request: Any, tenant: str) -> bool | None:
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[return-value]

        decoded = [Decoded((replace(GOOD, request="a message", start=start),))]
        return grade_structure(RECORDING, decoded, [QUESTION], by_carries(carries, lambda _: is_data)).outcome

    assert graded(True) == "passed"
    assert graded(False) == "failed"
    assert graded(None) == "abstained"
    assert graded(ValueError()) == "abstained"
    assert graded(True, is_data=None) == "abstained"
    assert graded(True, is_data=False) == "abstained"  # then nothing was asked
    assert graded(True, start=10) == "failed"
    assert sql_judge(SCOPE)("no statement", T).proved is None
