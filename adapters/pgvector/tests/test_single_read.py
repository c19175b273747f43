"""Reads without BEGIN and COMMIT, and prepared statements: what the server is sent and keeps, what errors leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg.pq import TransactionStatus

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl.adapter_api.contract import OpenContext
from vectoracl.adapter_api.operations import Search
from vectoracl.engine.drivers import run
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.queries import VectorQuery
from vectoracl_conformance.wrappers.adapter_wrapper import wrapped
from vectoracl_pgvector.conformance.mutants import GENERIC_PLANS, MISLEADING_INDEX, TrustsThePlan
from vectoracl_pgvector.connection.exchange import exchange
from vectoracl_pgvector.connection.session import Preparing, Session, attach, session_of
from vectoracl_pgvector.connection.wire import pipeline
from vectoracl_pgvector.plugin import vectoracl_open
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.proxy import Proxy

pytestmark = pytest.mark.server
SCOPE = (("vectoracl.tenant", "acme"),)
OURS = "SELECT name, statement, generic_plans, custom_plans FROM pg_prepared_statements ORDER BY name"


def opened(dsn: str, prepare: Any = "auto", **more: Any) -> psycopg.Connection[Any]:
    connection = attach(psycopg.connect(dsn, autocommit=True, prepare_threshold=None, **more), Preparing(prepare))
    pipeline(connection, Transaction(None, (Statement("SELECT 1"),)), None)
    return connection


@pytest.fixture
def connection(store: Any) -> Iterator[psycopg.Connection[Any]]:
    with opened(store.runtime) as one:
        yield one


def session(connection: psycopg.Connection[Any]) -> Session:
    found = session_of(connection)
    assert found is not None
    return found


def ask(connection: psycopg.Connection[Any], sql: str, *params: Any, timeout: float | None = 5.0) -> list[Any]:
    (rows,) = pipeline(connection, Transaction("acme", (Statement(sql, params),), SCOPE), timeout)
    return list(rows)


def nothing_left(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the connection is idle, by itself, and has no scope."""
    idle = connection.info.transaction_status == TransactionStatus.IDLE
    (row,) = connection.execute(
        "SELECT current_setting('vectoracl.tenant', true), current_setting('plan_cache_mode'), "
        "current_setting('transaction_read_only'), current_setting('statement_timeout')"
    ).fetchall()
    return idle and row[0] in (None, "") and row[1:] == ("auto", "off", "0")


def test_the_settings_hold_for_the_statement_and_end_with_it(connection: Any) -> None:
    asked = (
        "SELECT current_setting('vectoracl.tenant'), current_setting('jit'), current_setting('statement_timeout'), "
        "current_setting('transaction_read_only'), current_setting('transaction_isolation'), %s::text"
    )
    for _ in range(4):
        assert ask(connection, asked, "x") == [("acme", "off", "5s", "on", "read committed", "x")]
        assert nothing_left(connection)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_an_error_undoes_the_whole_message(connection: Any, times: int) -> None:
    wrong = "SELECT set_config('vectoracl.tenant', 'later', false), 1 / (%s::int8 - 1)"
    for _ in range(times):
        with pytest.raises(psycopg.errors.DivisionByZero):
            ask(connection, wrong, 1)
        assert nothing_left(connection)
    assert len(connection.execute(OURS).fetchall()) <= 2, "an error left a statement that the session lacks"
    assert ask(connection, "SELECT %s::int8", 7) == [(7,)]


def test_an_error_undoes_a_write_that_precedes_it_in_the_message(store: Any, connection: Any) -> None:
    """This is PostgreSQL's own rule, which single reads rely on."""
    pgconn = connection.pgconn
    tenants = store.names.tenants
    pgconn.enter_pipeline_mode()
    pgconn.send_query_params(b"SELECT set_config('vectoracl.tenant', 'acme', true)", None)
    pgconn.send_query_params(f"INSERT INTO {tenants} (tenant_id) VALUES ('acme')".encode(), None)
    pgconn.send_query_params(b"SELECT 1 / 0", None)
    pgconn.pipeline_sync()
    results: list[Any] = []
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.wait(exchange(pgconn, results, 3, None))
    assert results[1].command_tuples == 1
    assert nothing_left(connection)
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        assert superuser.execute(f"SELECT count(*) FROM {tenants} WHERE tenant_id = 'acme'").fetchone() == (0,)


def test_a_read_cannot_write(store: Any, connection: Any) -> None:
    for _ in range(3):
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            ask(connection, f"INSERT INTO {store.names.tenants} (tenant_id) VALUES (%s::text) RETURNING 1", "acme")
        assert nothing_left(connection)


def test_a_time_limit_is_the_servers(connection: Any) -> None:
    for _ in range(3):
        with pytest.raises(psycopg.errors.QueryCanceled):
            ask(connection, "SELECT pg_sleep(%s::float8)", 5.0, timeout=0.05)
        assert nothing_left(connection)


def test_another_default_isolation_keeps_begin(store: Any) -> None:
    with opened(store.runtime, options="-c default_transaction_isolation=serializable") as connection:
        assert not session(connection).implicit
        for _ in range(3):
            assert ask(connection, "SELECT current_setting('transaction_isolation'), %s::int8", 1) == [
                ("read committed", 1)
            ]
        assert connection.execute(OURS).fetchall() == []


def test_a_connection_in_a_transaction_is_closed_and_nothing_is_sent(connection: Any) -> None:
    connection.execute("BEGIN")
    with pytest.raises(psycopg.OperationalError):
        ask(connection, "SELECT %s::int8", 1)
    assert connection.closed


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT %s, %s", (1,)),
        ("SELECT %s", (1, 2)),
        ("SELECT 10 % 3, %s", (1,)),
        ("SELECT %s", (object(),)),
        ("SELECT %s::text", ("a\0b",)),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(connection: Any, sql: str, params: tuple[Any, ...]) -> None:
    with pytest.raises(psycopg.Error):
        ask(connection, sql, *params)
    assert nothing_left(connection)
    with pytest.raises(psycopg.DataError):
        pipeline(
            connection,
            Transaction("acme", (Statement("SELECT %s", (1,)),), (("vectoracl.tenant", "acme\0beta"),)),
            None,
        )
    assert nothing_left(connection)


def test_values_arrive_as_psycopg_would_send_them(connection: Any) -> None:
    sent = ("a", "ä\u2028", "", 0, -(2**63), 2**63 - 1, 0.1, -1e300, float("inf"), ["a", "b"], [], None, True, 2**64)
    kinds = ("text",) * 3 + ("int8",) * 3 + ("float8",) * 3 + ("text[]", "text[]", "text", "bool", "numeric")
    asked = "SELECT " + ", ".join(f"%s::{kind}" for kind in kinds)
    for count in (9, len(sent)):  # without and with values that psycopg itself has to dump
        asked = "SELECT " + ", ".join(f"%s::{kind}" for kind in kinds[:count])
        for _ in range(3):
            assert ask(connection, asked, *sent[:count]) == [sent[:count]]


def test_only_what_is_asked_again_is_prepared_and_never_with_a_generic_plan(connection: Any) -> None:
    for turn in range(12):
        assert ask(connection, "SELECT current_setting('plan_cache_mode'), %s::int8", turn) == [
            ("force_custom_plan", turn)
        ]
        if turn == 0:
            assert connection.execute(OURS).fetchall() == []
    settings, asked = sorted(connection.execute(OURS).fetchall(), key=lambda row: "set_config" not in row[1])
    assert asked[2:] == (0, 11), "a plan was kept"
    assert "FROM" not in settings[1], "its plan is the same for every tenant"


def test_statements_without_parameters_are_never_prepared(connection: Any) -> None:
    for _ in range(5):
        assert ask(connection, "SELECT 1") == [(1,)]
    assert [row for row in connection.execute(OURS).fetchall() if "set_config" not in row[1]] == []


def test_no_more_statements_are_kept_than_the_server_should_hold(connection: Any) -> None:
    for _ in range(2):
        for number in range(100):
            for _ in range(2):
                assert ask(connection, f"SELECT {number}, %s::int8", 1) == [(number, 1)]
    assert len(connection.execute(OURS).fetchall()) <= 64 + 1


def test_a_lost_statement_is_prepared_again_once(connection: Any) -> None:
    for _ in range(3):
        ask(connection, "SELECT %s::int8", 1)
    before = {row[0] for row in connection.execute(OURS).fetchall()}
    connection.execute("DEALLOCATE ALL")
    assert ask(connection, "SELECT %s::int8", 2) == [(2,)]
    after = {row[0] for row in connection.execute(OURS).fetchall()}
    assert len(before) == len(after) == 2
    assert before.isdisjoint(after)
    assert nothing_left(connection)


def test_where_statements_get_lost_again_and_again_they_are_prepared_no_more(connection: Any) -> None:
    for turn in range(8):
        for _ in range(3):
            assert ask(connection, "SELECT %s::int8", turn) == [(turn,)]
        connection.execute("DEALLOCATE ALL")
    assert session(connection).plans is None
    ask(connection, "SELECT %s::int8", 1)
    assert connection.execute(OURS).fetchall() == []


def test_an_altered_column_is_read_in_its_new_type(store: Any, connection: Any) -> None:
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("CREATE TABLE public.altered AS SELECT 1 AS a; GRANT SELECT ON public.altered TO PUBLIC")
        for _ in range(3):
            assert ask(connection, "SELECT a FROM public.altered WHERE %s::text <> ''", "x") == [(1,)]
        superuser.execute("ALTER TABLE public.altered ALTER a TYPE text")
        for _ in range(3):
            assert ask(connection, "SELECT a FROM public.altered WHERE %s::text <> ''", "x") == [("1",)]
    assert session(connection).plans
    assert nothing_left(connection)


@pytest.mark.parametrize("prepare", ["auto", False])
def test_nothing_is_prepared_through_a_pooler_or_when_it_is_off(store: Any, prepare: Any) -> None:
    connection = attach(psycopg.connect(store.runtime, autocommit=True, prepare_threshold=None), Preparing(prepare))
    with connection:
        pid = connection.info.backend_pid + (prepare == "auto")  # as the other number that a pooler makes up
        session(connection).learn([(pid, "read committed")], connection.info.backend_pid)
        for _ in range(5):
            assert ask(connection, "SELECT %s::int8", 1) == [(1,)]
        assert connection.execute(OURS).fetchall() == []


def messages(data: bytes) -> str:
    """The types of the protocol's messages in *data*, a letter each."""
    found, at = "", 0
    while at < len(data):
        found += chr(data[at])
        at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return found


@pytest.mark.parametrize(("prepare", "last"), [("auto", "BDEBDES"), (False, "PBDEPBDES")])
def test_a_search_is_one_message(store: Any, server: Any, prepare: Any, last: str) -> None:
    with Proxy(server.host, server.port) as proxy:
        name = psycopg.conninfo.conninfo_to_dict(store.runtime)["dbname"]
        dsn = proxy.dsn(server.dsn("runtime", name, tcp=True))
        config = store.changed(dsn=f"{dsn}?sslmode=disable", pool_max=1, prepare=prepare)
        with v.connect(config) as acl:
            docs = acl.scoped(testing.principal("ann", "acme"))
            docs.upsert([Chunk("c", "d", "text", np.ones(8))])
            found = []
            for _ in range(4):
                before = len(proxy.sent("client"))
                docs.search(np.ones(8), 1)
                found.append(messages(proxy.sent("client")[before:]))
    assert found == ["PBDEPBDES", "PBDEPBDES", last, last]


def test_plans_of_one_tenant_do_not_serve_another(store: Any) -> None:
    """The statement stays prepared while the tenants, of very different sizes, take turns."""
    people = {name: testing.principal(name, name) for name in ("large", "small", "none")}
    with v.connect(store.changed(pool_max=1)) as acl:
        for name, count in (("large", 300), ("small", 2)):
            rows = [Chunk(f"c{i}", "d", name, np.eye(8)[i % 8] + i / 1000) for i in range(count)]
            acl.scoped(people[name]).upsert(rows)
        for turn in range(30):
            name = ("large", "large", "small", "none")[turn % 4]
            hits = acl.scoped(people[name]).search(np.ones(8), 10, include={"text"})
            assert [hit.text for hit in hits] == [name] * {"large": 10, "small": 2, "none": 0}[name]


def test_a_changed_policy_applies_to_what_is_prepared(store: Any) -> None:
    with v.connect(store.changed(pool_max=1)) as acl, psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        docs = acl.scoped(testing.principal("ann", "acme"))
        docs.upsert([Chunk("c", "d", "text", np.ones(8))])
        for using, count in (("true", 1), ("false", 0), ("true", 1)):
            superuser.execute(f"CREATE POLICY another ON {store.names.table} AS RESTRICTIVE FOR SELECT USING ({using})")
            for _ in range(3):
                assert len(docs.search(np.ones(8), 1)) == docs.count() == count
            superuser.execute(f"DROP POLICY another ON {store.names.table}")


@pytest.mark.parametrize("keeps", [False, True])
def test_what_the_mutant_that_keeps_a_plan_breaks(store: Any, keeps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If each tenant has its own plan, all get their rows, also from an adapter that relies on the planner alone."""
    with v.connect(store.config) as acl:
        for name, count, far in (("large", 600, 0.1), ("small", 2, 3.0)):
            rng = np.random.default_rng(count)
            rows = [Chunk(f"c{i}", "d", name, np.eye(8)[0] + far * rng.normal(size=8)) for i in range(count)]
            acl.scoped(testing.principal("ann", name)).upsert(rows)
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        MISLEADING_INDEX(SimpleNamespace(superuser=lambda: nullcontext(superuser)))  # type: ignore[arg-type]  # a stand-in with what the fault uses
    context = OpenContext("main", {}, base=".")
    opened = vectoracl_open(store.pg.model_copy(update={"pool_max": 1}), context)
    opened = wrapped(TrustsThePlan)(opened, None)  # type: ignore[arg-type]  # this mutant needs no harness
    if keeps:
        monkeypatch.setattr("vectoracl_pgvector.connection.session.CUSTOM_PLANS", GENERIC_PLANS)
    port = opened.port()
    found = []
    for name in ["large"] * 12 + ["small"]:
        search = Search(name, ALWAYS, ALWAYS, VectorQuery(np.eye(8, dtype=np.float32)[0]), 5, frozenset())
        found.append(len(run(opened.adapter.search(search), {"store": port}).hits))
    port.close()
    assert found == [5] * 12 + [0 if keeps else 2]
