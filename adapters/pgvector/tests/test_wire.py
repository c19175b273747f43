"""The transaction on the wire: what is refused before anything is sent, and what is left when a server misbehaves."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from vectoracl_pgvector.connection.wire import BEGIN, pipeline
from vectoracl_pgvector.requests import Statement, Transaction

ONE = Statement("SELECT 1")


@pytest.fixture
def connection(store: Any) -> Any:
    with psycopg.connect(store.runtime, autocommit=True, prepare_threshold=None) as opened:
        yield opened


def usable(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the connection is idle, has no scope and takes the next request."""
    connection.rollback()
    scope = Statement("SELECT current_setting('vectoracl.tenant', true)")
    ((row,),) = pipeline(connection, Transaction(None, (scope,)), None)
    return connection.info.transaction_status == TransactionStatus.IDLE and row[0] in (None, "")


def test_replies_come_in_order_with_rows_or_counts(connection: Any) -> None:
    statements = (
        Statement("SELECT %s::int8, %s::text", (7, "a%sb")),
        Statement("SELECT 1 WHERE %s::boolean", (False,)),
        Statement("SELECT '100%%', %s::int4", (1,)),
        Statement("SELECT %(b)s::text, %(a)s::text, %(b)s::text", {"a": "x", "b": "y"}),
        Statement("SELECT generate_series(1, 3)", rows=False),
        Statement("SELECT 'x%s'"),
    )
    assert pipeline(connection, Transaction(None, statements), 5.0) == (
        [(7, "a%sb")], [], [("100%", 1)], [("y", "x", "y")], 3, [("x%s",)]
    )  # fmt: skip
    assert usable(connection)


@pytest.mark.parametrize(
    "statement",
    [
        Statement("SELECT %s, %s", (1,)),
        Statement("SELECT %s", (1, 2)),
        Statement("SELECT 1", (1,)),
        Statement("SELECT %(a)s", (1,)),
        Statement("SELECT %s", {"a": 1}),
        Statement("SELECT 10 % 3, %s", (1,)),
        Statement("SELECT %d", (1,)),
        Statement("SELECT %s", (object(),)),
        Statement("SELECT %s::text", ("a\0b",)),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_is(connection: Any, statement: Statement) -> None:
    with pytest.raises(psycopg.Error):
        pipeline(connection, Transaction("acme", (ONE, statement), (("vectoracl.tenant", "acme"),)), None)
    assert connection.info.transaction_status == TransactionStatus.IDLE
    assert usable(connection)


def test_a_setting_is_never_cut_at_a_nul(connection: Any) -> None:
    with pytest.raises(psycopg.DataError):
        pipeline(connection, Transaction("acme", (ONE,), (("vectoracl.tenant", "acme\0beta"),)), None)
    assert usable(connection)


def test_the_first_error_is_raised_and_nothing_after_it_ran(connection: Any) -> None:
    statements = (
        Statement("SELECT set_config('vectoracl.tenant', 'later', false)"),
        Statement("SELECT 1 / 0"),
        Statement("SELECT nowhere"),
    )
    with pytest.raises(psycopg.errors.DivisionByZero):
        pipeline(connection, Transaction("acme", statements, (("vectoracl.tenant", "acme"),)), 5.0)
    assert connection.info.transaction_status == TransactionStatus.INERROR
    assert usable(connection)


def test_a_read_cannot_write(connection: Any) -> None:
    write = Statement("INSERT INTO vectoracl.chunks_tenants (tenant_id) VALUES ('acme')", rows=False)
    scope = (("vectoracl.tenant", "acme"),)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        pipeline(connection, Transaction("acme", (write,), scope), None)
    assert usable(connection)
    assert pipeline(connection, Transaction("acme", (write,), scope, read_only=False), None) == (1,)
    assert usable(connection)


def test_more_than_the_socket_takes_at_once_both_ways(connection: Any) -> None:
    text = "x" * 3_000_000
    statements = tuple(Statement("SELECT %s::text, repeat('y', 3000000)", (text,)) for _ in range(6))
    for rows in pipeline(connection, Transaction(None, statements), 30.0):
        assert [(len(one), len(other)) for one, other in rows] == [(3_000_000, 3_000_000)]
    assert usable(connection)


def test_a_connection_whose_server_process_ends_in_the_middle_is_closed(store: Any, connection: Any) -> None:
    pid = connection.info.backend_pid
    with psycopg.connect(store.bootstrap, autocommit=True) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s)", (pid,))
    with pytest.raises(psycopg.OperationalError):
        for _ in range(20):
            pipeline(connection, Transaction(None, (Statement("SELECT pg_sleep(0.05)"),)), 5.0)
    assert connection.closed


def test_the_isolation_level_is_the_requests_own(connection: Any) -> None:
    connection.execute("SET default_transaction_isolation = 'serializable'")
    level = Statement("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")
    assert pipeline(connection, Transaction(None, (level,)), None) == ([("read committed", "on")],)
    assert BEGIN.endswith("READ COMMITTED")
