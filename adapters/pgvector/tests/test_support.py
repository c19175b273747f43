"""The test support itself: databases, PgBouncer, the proxy."""

from __future__ import annotations

import time

import psycopg
import pytest

from pgvector_support.proxy import Proxy

pytestmark = pytest.mark.server


def test_database_is_fresh_and_dropped(server, database):
    made = database()
    with psycopg.connect(made.owner, autocommit=True) as connection:
        assert connection.execute("SELECT '[1,2]'::vector <-> '[1,3]'").fetchone() == (1.0,)
        assert connection.execute(
            "SELECT count(*) FROM pg_class WHERE relnamespace = 'vectoracl'::regnamespace"
        ).fetchone() == (0,)
        connection.execute("CREATE TABLE vectoracl.t (v vector(3))")
    with psycopg.connect(made.runtime) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("CREATE TABLE public.t ()")
    assert database().name != made.name


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_pgbouncer(server, pgbouncer, mode):
    bouncer = pgbouncer(mode)
    with psycopg.connect(bouncer.dsn("runtime"), autocommit=True, prepare_threshold=None) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("vectoracl_runtime",)
        if mode == "statement":
            with pytest.raises(psycopg.Error):
                connection.execute("BEGIN")
        else:
            with connection.transaction():
                connection.execute("SELECT 1")


def test_proxy_delays_and_records(server):
    with Proxy(server.host, server.port) as proxy:
        with psycopg.connect(proxy.dsn(server.dsn("runtime", tcp=True)), autocommit=True) as connection:
            proxy.round_trip = 0.1
            began = time.monotonic()
            connection.execute("SELECT 'seen on the wire'")
            assert time.monotonic() - began >= 0.1
            proxy.round_trip = 0.0
        assert b"seen on the wire" in proxy.sent("client")
        assert b"SELECT 1" in proxy.sent("server")


def test_proxy_cuts_at_a_byte(server):
    with Proxy(server.host, server.port) as proxy:
        connection = psycopg.connect(proxy.dsn(server.dsn("runtime", tcp=True)), autocommit=True)
        proxy.cut_after("server", 3)
        before = len(proxy.sent("server"))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert len(proxy.sent("server")) == before + 3
        proxy.heal()
        with psycopg.connect(proxy.dsn(server.dsn("runtime", tcp=True))) as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
            proxy.cut()
            with pytest.raises(psycopg.OperationalError):
                other.execute("SELECT 1")


def test_proxy_falls_silent(server):
    with Proxy(server.host, server.port) as proxy:
        connection = psycopg.connect(proxy.dsn(server.dsn("runtime", tcp=True)), autocommit=True)
        proxy.cut_after("server", 0, silently=True)
        connection.pgconn.send_query(b"SELECT 1")
        connection.pgconn.flush()
        time.sleep(0.2)
        connection.pgconn.consume_input()
        assert connection.pgconn.is_busy()
        connection.close()
