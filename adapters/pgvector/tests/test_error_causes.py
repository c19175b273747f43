"""Each cause of a failure has its own words: a connection that cannot be made, an answer of the server, a limit."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import _sqlcodes as known  # type: ignore[attr-defined]

import vectoracl as v
from vectoracl import Chunk, testing
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.connect_failures import cause_of, connect_failed
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.posture.inspect import inspect
from vectoracl_pgvector.requests import Statement, Transaction

from pgvector_support.driven import KINDS, Driven, everything

ANN = testing.principal("ann", "acme")
STATES = sorted(code for code in known if len(code) == 5)
SECRET = "pw-canary-77"


def answer(state: str, text: str = "canary of a row") -> psycopg.Error:
    """An error of the server's with *state*, also where psycopg has no class for it."""
    base = known.get(state, psycopg.DatabaseError)
    return type("Answer", (base,), {"sqlstate": state})(text)  # type: ignore[no-any-return]


# --- the server's answers


@given(st.one_of(st.sampled_from(STATES), st.from_regex(r"\A[0-9A-Z]{5}\Z")), st.booleans())
def test_no_answer_of_the_server_is_a_server_that_cannot_be_reached(state: str, writes: bool) -> None:
    used = mapped(answer(state), debug=False, writes=writes)
    first = connect_failed(f"postgresql://u:{SECRET}@db.example/app", answer(state), debug=False)
    for made in (used, first):
        assert made.code != "unreachable"
        assert "could not be made" not in made.message
        assert "canary" not in made.message
        assert made.message.endswith(".")
        assert SECRET not in " ".join(everything(made))
    if isinstance(used, v.StoreError):
        assert used.sent == ("unknown" if state[:2] in ("08", "57") and state not in ("57014", "57P03") else
                             "unknown" if state == "40003" else "no")  # fmt: skip


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("28P01", "auth", "login"),
        ("28000", "auth", "login"),
        ("3D000", "no_database", "database does not exist"),
        ("53300", "too_many_connections", "CONNECTION LIMIT"),
        ("53100", "unavailable", "disk"),
        ("53200", "unavailable", "memory"),
        ("57P01", "unavailable", "Try again"),
        ("57P03", "unavailable", "starting, stopping or recovering"),
        ("42501", "rejected", "privilege"),
        ("42704", "not_provisioned", "provision"),
        ("42883", "not_provisioned", "provision"),
        ("42P01", "not_provisioned", "provision"),
        ("3F000", "not_provisioned", "provision"),
        ("25006", "unavailable", "replica"),
        ("40001", "unavailable", "rolled the transaction back"),
        ("40P01", "unavailable", "deadlock"),
        ("55P03", "locked", "lock_timeout"),
        ("57014", "timeout", "time limit"),
        ("58030", "system", "system"),
        ("P0001", "foreign_code", "trigger or function"),
        ("XX001", "internal", "damaged data"),
        ("22P02", "sqlstate:22P02", "SQLSTATE 22P02"),
    ],
)
def test_each_class_of_answers_has_its_words(state: str, code: str, words: str) -> None:
    made = mapped(answer(state), debug=False)
    assert made.code == code
    assert words in made.message


# --- connections that cannot be made


@contextmanager
def listener(reply: bytes | None) -> Iterator[int]:
    """Give the port of something that sends *reply* to whoever connects and hangs up; None: says nothing."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(16)
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                link, _ = sock.accept()
            except OSError:
                return
            kept.append(link)
            if reply is not None:
                link.recv(4096)
                link.sendall(reply)
                link.close()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(sock.getsockname()[1])
    finally:
        sock.close()
        for link in kept:
            link.close()


def refusal(severity: str, state: str, text: str) -> bytes:
    """PostgreSQL's ErrorResponse."""
    fields = b"".join(
        kind + value.encode() + b"\0"
        for kind, value in ((b"S", severity), (b"V", "FATAL"), (b"C", state), (b"M", text))
    )
    return b"E" + (len(fields) + 5).to_bytes(4, "big") + fields + b"\0"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def place(port: int, **more: str) -> str:
    return make_conninfo(f"host=127.0.0.1 port={port} user=ann dbname=app password={SECRET} sslmode=disable", **more)


def first_errors(dsn: str) -> Iterator[v.VectorACLError]:
    """Yield what each first contact raises: serving, sync and async, the operator, and a look at a database."""
    settings = {"adapter": "pgvector", "dimension": 8, "connect_timeout": 0.3}
    config = {"version": 1, "stores": {"main": {**settings, "dsn": dsn, "owner_dsn": dsn}}}
    for kind in KINDS:
        with pytest.raises(v.VectorACLError) as failed:
            Driven(kind, config).close()
        yield failed.value
    opened: Any = v.VectorACL(config)
    operator = opened.operator()
    with pytest.raises(v.VectorACLError) as failed:
        operator.provision()
    yield failed.value
    with pytest.raises(v.VectorACLError) as failed:
        inspect(dsn, None, None, None)
    yield failed.value


def same_cause(dsn: str) -> v.StoreError:
    """Return the one cause that all ways name, without the password in any of it."""
    made = list(first_errors(dsn))
    assert {type(one) for one in made} == {v.StoreError}
    assert len({(one.code, one.message) for one in made}) == 1
    assert not any(SECRET in text for one in made for text in everything(one))
    assert {one.sent for one in made} == {"no"}  # type: ignore[attr-defined]
    return made[0]  # type: ignore[return-value]


def test_five_causes_on_the_way_there_have_five_texts(server: Any) -> None:
    said = {}
    said["dns"] = same_cause(place(5432).replace("127.0.0.1", "no-such-host.invalid"))
    said["refused"] = same_cause(place(closed_port()))
    with listener(None) as port:
        said["timeout"] = same_cause(place(port, connect_timeout="2"))
    said["tls"] = same_cause(make_conninfo(server.dsn("runtime", tcp=True), sslmode="require", password=SECRET))
    said["auth"] = same_cause(make_conninfo(server.dsn("runtime", tcp=True), password=SECRET))
    assert {name: one.code for name, one in said.items()} == {
        "dns": "unreachable", "refused": "unreachable", "timeout": "unreachable", "tls": "tls", "auth": "auth",
    }  # fmt: skip
    assert len({one.message for one in said.values()}) == 5
    expected = {"dns": "DNS", "refused": "server listens", "timeout": "in time", "tls": "sslmode", "auth": "password"}
    for name, words in expected.items():
        assert words in said[name].message
    assert "host=no-such-host.invalid, port=5432, dbname=app, user=ann" in said["dns"].message


def test_a_real_servers_refusals(server: Any, database: Any) -> None:
    made = database()
    name = f"r_{secrets.token_hex(4)}"
    at = conninfo_to_dict(server.dsn("runtime", made.name, tcp=True))
    with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as boss:
        verifier = boss.pgconn.encrypt_password(SECRET.encode(), name.encode(), b"scram-sha-256").decode()
        boss.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{verifier}'")
        try:
            dsn = make_conninfo(host=at["host"], port=at["port"], dbname=made.name, user=name, password=SECRET)
            assert same_cause(dsn).code == "permission", "no CONNECT on that database"
            assert same_cause(make_conninfo(dsn, dbname="no_such_database")).code == "no_database"
            assert same_cause(make_conninfo(dsn, user="no_such_role")).code == "auth"
            boss.execute(f"GRANT CONNECT ON DATABASE {made.name} TO {name}")
            assert same_cause(make_conninfo(dsn, options="-c no_such_setting=1")).code == "startup_parameter"
            boss.execute(f"ALTER ROLE {name} CONNECTION LIMIT 0")
            full = same_cause(dsn)
            assert (full.code, full.retryable) == ("too_many_connections", True)
            boss.execute(f"ALTER ROLE {name} NOLOGIN")
            assert same_cause(dsn).code == "auth"
        finally:
            boss.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize(
    ("severity", "state", "text", "code"),
    [
        ("FATAL", "57P03", "the database system is starting up", "unavailable"),
        ("FATAL", "57P03", "the database system is not yet accepting connections", "unavailable"),
        ("FATAL", "53300", "sorry, too many clients already", "too_many_connections"),
        ("FATAL", "53300", "remaining connection slots are reserved for roles with SUPERUSER", "too_many_connections"),
        (
            "FATAL",
            "28000",
            'no pg_hba.conf entry for host "1.2.3.4", user "ann", database "app", no encryption',
            "auth",
        ),
        ("FATAL", "08P01", "unsupported startup parameter: options", "startup_parameter"),
        ("FATAL", "08P01", "no such database: app", "no_database"),
        ("FATAL", "XX000", "Tenant or user not found", "auth"),
        ("FEHLER", "28P01", "Passwort-Authentifizierung für Benutzer »ann« fehlgeschlagen", "rejected"),
        ("ВАЖНО", "3D000", 'база данных "app" не существует', "rejected"),
    ],
)
def test_what_servers_and_poolers_answer(severity: str, state: str, text: str, code: str) -> None:
    with listener(refusal(severity, state, text)) as port:
        assert same_cause(place(port)).code == code


@given(
    st.sampled_from(["FATAL", "FEHLER", "ВАЖНО", "致命错误"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
    | st.sampled_from(["Connection refused", "timeout expired", "could not translate host name"]),
)
def test_whatever_a_server_answers_it_was_reached(severity: str, text: str) -> None:
    said = f'connection failed: connection to server at "127.0.0.1", port 5432 failed: {severity}:  {text}'
    assert cause_of(psycopg.OperationalError(said)).code != "unreachable"


def test_what_is_no_postgresql_is_said_so() -> None:
    with listener(b"") as port:
        made = same_cause(place(port))
    assert made.code == "unreachable"
    assert "closed before PostgreSQL answered" in made.message


def test_a_wrong_dsn_is_the_dsns_fault() -> None:
    for dsn in ("nonsense", f"postgresql://u:{SECRET}@h/db?foo=bar", f"host=127.0.0.1 port=abc password={SECRET}"):
        for made in first_errors(dsn):
            assert made.code == "bad_dsn"
            assert not any(SECRET in text for text in everything(made))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_at_the_first_statement_is_the_servers(provisioned: Any, kind: str) -> None:
    """The connection stands, and the server answers what is asked first with an error."""
    store = provisioned()
    with psycopg.connect(store.bootstrap, autocommit=True) as boss:
        boss.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.to_regtype(text) FROM PUBLIC")
        boss.execute("REVOKE SELECT ON pg_catalog.pg_extension, pg_catalog.pg_type FROM PUBLIC")
    with pytest.raises(v.StoreError) as failed:
        Driven(kind, store.config).close()
    assert failed.value.code == "rejected"
    assert "privilege" in failed.value.message


@pytest.mark.parametrize("kind", KINDS)
def test_a_pool_that_cannot_connect_any_more_says_why(provisioned: Any, server: Any, kind: str) -> None:
    store = provisioned()
    with Driven(kind, store.changed(pool_min=1, pool_max=1, connect_timeout=0.5)) as driven:
        docs = driven.scoped(ANN)
        docs.upsert([Chunk("c", "d", "", np.eye(8)[0])])
        name = conninfo_to_dict(store.runtime)["dbname"]
        with psycopg.connect(server.dsn("bootstrap", "postgres"), autocommit=True) as boss:
            boss.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            boss.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))
            with pytest.raises(v.StoreError) as failed:
                docs.upsert([Chunk("c", "d", "", np.eye(8)[0])])
            boss.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (failed.value.code, failed.value.sent) == ("no_database", "no")
    assert SECRET not in " ".join(everything(failed.value))


# --- limits


def limited_by(store: Any, sql: str, *, writes: bool) -> v.StoreError:
    """Return our error of the limit that *sql* meets on the real server."""
    with psycopg.connect(store.bootstrap) as boss:
        with pytest.raises(psycopg.Error) as failed:
            for one in sql.split(";;"):
                boss.execute(one)
        boss.rollback()
    assert (failed.value.sqlstate or "").startswith("54"), failed.value
    made = mapped(failed.value, debug=False, writes=writes)
    assert isinstance(made, v.StoreError)
    assert made.sent == "no"
    return made


LIMITS = {
    "words written": (
        "CREATE TEMP TABLE t (w tsvector);; INSERT INTO t SELECT to_tsvector('simple', string_agg(md5(i::text), ' ')) "
        "FROM generate_series(1, 40000) AS i",
        True, "too_large", "1 MB",
    ),
    "words asked": (
        "SELECT to_tsvector('simple', string_agg(md5(i::text), ' ')) FROM generate_series(1, 40000) AS i",
        False, "too_large", "query text",
    ),
    "an index row": (
        "CREATE TEMP TABLE t (x text PRIMARY KEY);; INSERT INTO t SELECT string_agg(md5(i::text), '') "
        "FROM generate_series(1, 500) AS i",
        True, "too_large", "an index of the table",
    ),
    "a page": (
        "CREATE TEMP TABLE t (a public.vector(1900), b public.vector(1900));; "
        "ALTER TABLE t ALTER a SET STORAGE PLAIN, ALTER b SET STORAGE PLAIN;; "
        "INSERT INTO t SELECT array_fill(1, ARRAY[1900])::public.vector, array_fill(1, ARRAY[1900])::public.vector",
        True, "too_large", "8 kB",
    ),
    "dimensions of hnsw": (
        "CREATE TEMP TABLE t (x public.vector(2001));; CREATE INDEX ON t USING hnsw (x public.vector_cosine_ops)",
        True, "index_dimensions", "halfvec",
    ),
    "dimensions of hnsw over halfvec": (
        "CREATE TEMP TABLE t (x public.halfvec(4001));; CREATE INDEX ON t USING hnsw (x public.halfvec_cosine_ops)",
        True, "index_dimensions", "4,000",
    ),
    "dimensions of a vector": ("SELECT array_fill(1, ARRAY[16001])::public.vector", False, "dimensions", "16,000"),
    "dimensions of a halfvec": ("SELECT array_fill(1, ARRAY[16001])::public.halfvec", False, "dimensions", "16,000"),
    "columns": (
        "DO $$ BEGIN EXECUTE 'CREATE TEMP TABLE t (' || (SELECT string_agg('c' || i || ' int', ',') "
        "FROM generate_series(1, 1700) AS i) || ')'; END $$",
        True, "too_many_columns", "columns",
    ),
    "depth": (
        "CREATE FUNCTION pg_temp.deep(i int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN pg_temp.deep(i + 1); END';; "
        "SELECT pg_temp.deep(1)",
        False, "too_complex", "nested",
    ),
    "an array": ("SELECT array_fill(1, ARRAY[200000000])", False, "too_large", "1 GB"),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_has_its_words(provisioned: Any, name: str, limits_store: Any) -> None:
    sql, writes, code, words = LIMITS[name]
    made = limited_by(limits_store, sql, writes=writes)
    assert made.code == code
    assert words in made.message
    assert writes or "written" not in made.message


@pytest.fixture(scope="module")
def limits_store(provisioned: Callable[..., Any]) -> Any:
    return provisioned()


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_of_too_many_words_was_no_write(provisioned: Any, kind: str) -> None:
    store = provisioned()
    with Driven(kind, store.config) as driven:
        sql = "SELECT to_tsvector('simple', string_agg(md5(i::text), ' ')) FROM generate_series(1, 40000) AS i"
        with pytest.raises(v.StoreError) as failed:
            driven.perform(Transaction("acme", (Statement(sql),), (("vectoracl.tenant", "acme"),)))
    assert failed.value.code == "too_large"
    assert "nothing was read" in failed.value.message


def test_the_configuration_says_what_pgvector_takes() -> None:
    with pytest.raises(ValueError, match="16000"):
        PgvectorConfig(dsn="-", dimension=16_001)  # type: ignore[arg-type]
    assert PgvectorConfig(dsn="-", dimension=2000).indexable  # type: ignore[arg-type]
    assert not PgvectorConfig(dsn="-", dimension=2001).indexable  # type: ignore[arg-type]
    assert PgvectorConfig(dsn="-", dimension=4000, type="halfvec").indexable  # type: ignore[arg-type]
    assert not PgvectorConfig(dsn="-", dimension=4001, type="halfvec").indexable  # type: ignore[arg-type]
