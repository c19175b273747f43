"""The decoder of PostgreSQL's protocol, on bytes of a real client and a real server."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
import pytest
from evidence_support.shop import OWN, OWNED, Level, right, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectoracl_conformance.evidence.exchanges import Decoded, Exchange
from vectoracl_conformance.evidence.protocols import postgres
from vectoracl_conformance.evidence.protocols.postgres_settings import Setting
from vectoracl_conformance.evidence.sessions import Piece, Session
from vectoracl_conformance.evidence.tap import Tap


def record(level: Level, work: Any, role: str = "bootstrap") -> Session:
    with Tap.tcp(level.server.host, level.server.port) as tap:
        with psycopg.connect(level.dsn(role, tap), autocommit=True) as connection:
            work(connection)
        assert tap.settle()
        (session,) = tap.sessions()
    return session


def told(session: Session) -> list[Exchange]:
    decoded = postgres.decode(session)
    assert decoded.doubts == ()
    return [exchange for exchange in decoded.exchanges if exchange.request is not None]


@pytest.fixture(scope="module")
def adapters(shop: dict[int, Level]) -> Session:
    take = run(shop[60], right)
    return take.recording.sessions[-1]


def test_the_adapters_search(shop: dict[int, Level]) -> None:
    take = run(shop[60], right)
    assert take.recording.doubts() == ()
    inside = [
        exchange
        for session in take.recording.sessions
        for exchange in told(session)
        if take.window.holds(exchange.session, exchange.start)
    ]
    names = [exchange.name for exchange in inside]
    assert set(names) == {"SELECT"}  # the settings and the search: one implicit transaction
    search = next(exchange for exchange in inside if "ORDER BY" in exchange.request.sql)
    assert search.rows == OWNED
    assert search.complete
    assert search.request.params[1].value == OWN
    assert search.request.settings.known
    assert search.request.settings.values["vectoracl.tenant"] == Setting(OWN, local=True)
    assert search.request.settings.values["search_path"] == Setting("pg_catalog, pg_temp", local=True)
    assert any(OWN.encode() in value for value in search.values)
    assert inside[-1].request.settings.values
    assert dict(search.request.startup)["application_name"] == "vectoracl"


def test_parameters_in_text_and_binary(shop: dict[int, Level]) -> None:
    def work(connection: psycopg.Connection[Any]) -> None:
        for binary in ("t", "b"):
            marks = ", ".join(f"%{binary}" for _ in range(8))
            connection.execute(
                f"SELECT {marks}", ("é", 7, 70000, 2**40, 1.5, [1, 2], ["a", None], None), prepare=False, binary=True
            )

    first, second = told(record(shop[0], work))
    assert [param.value for param in second.request.params] == ["é", 7, 70000, 2**40, 1.5, (1, 2), ("a", None), None]
    assert first.request.params[0].value == "é"
    assert all(isinstance(param.value, str | None) for param in first.request.params)
    assert second.rows == 1
    assert "é".encode() in second.values


def test_vectors_stay_bytes(shop: dict[int, Level]) -> None:
    vector = np.ones(8, ">f4")
    body = b"\0\x08\0\0" + vector.tobytes()

    class Raw:
        pass

    class Dumper(psycopg.adapt.Dumper):
        format = psycopg.pq.Format.BINARY
        oid = 0

        def dump(self, obj: Any) -> bytes:
            return body

    def work(connection: psycopg.Connection[Any]) -> None:
        connection.adapters.register_dumper(Raw, Dumper)
        connection.execute("SELECT %s::vector", (Raw(),), binary=True)

    (search,) = told(record(shop[0], work))
    assert search.request.params[0].value == body
    assert search.values == (body,)


def test_simple_queries_with_several_statements(shop: dict[int, Level]) -> None:
    def work(connection: psycopg.Connection[Any]) -> None:
        connection.execute("BEGIN; SET LOCAL a.b = 'one;two'; SELECT 'x' /* ; */; COMMIT; SELECT 1; SELECT 2")

    found = told(record(shop[0], work))
    assert [exchange.name for exchange in found] == ["BEGIN", "SET", "SELECT", "COMMIT", "SELECT", "SELECT"]
    assert found[2].request.settings.values["a.b"] == Setting("one;two", local=True)
    assert "a.b" not in found[4].request.settings.values
    assert sum(exchange.rows or 0 for exchange in found) == 3


def test_settings_end_with_their_transaction(shop: dict[int, Level]) -> None:
    def work(connection: psycopg.Connection[Any]) -> None:
        connection.execute("SELECT set_config('my.a', %s, true)", ("gone",), prepare=False)
        connection.execute("SELECT 1")
        connection.execute("SET my.b TO 'stays'")
        connection.execute("BEGIN")
        connection.execute("SELECT pg_catalog.set_config('my.b', 'over', true), set_config('my.a', 'in', true)")
        connection.execute("SELECT 2")
        connection.execute("ROLLBACK")
        connection.execute("SELECT 3")
        connection.execute("BEGIN")
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 1/0, set_config('my.a', 'failed', true)")
        connection.execute("ROLLBACK")
        connection.execute("SELECT 4")
        connection.execute("SELECT 5 FROM (SELECT set_config('my.a', 'hidden', false)) AS x")
        connection.execute("SELECT 6")

    by_text = {exchange.request.sql: exchange.request.settings for exchange in told(record(shop[0], work))}
    assert by_text["SELECT 1"].values == {}
    assert by_text["SELECT 2"].values == {"my.a": Setting("in", local=True), "my.b": Setting("over", local=True)}
    assert by_text["SELECT 3"].values == by_text["SELECT 4"].values == {"my.b": Setting("stays", local=False)}
    assert by_text["SELECT 4"].known
    assert not by_text["SELECT 6"].known


def test_prepared_statements_and_pipelines(shop: dict[int, Level]) -> None:
    def work(connection: psycopg.Connection[Any]) -> None:
        for number in range(4):
            connection.execute("SELECT %s::int + 1", (number,), prepare=True)
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int + 2", (number,), prepare=True) for number in range(3)]
        assert [cursor.fetchone() for cursor in cursors] == [(2,), (3,), (4,)]

    found = told(record(shop[0], work))
    assert [exchange.request.sql[-1] for exchange in found] == ["1"] * 4 + ["2"] * 3
    assert [int(exchange.request.params[0].value) for exchange in found] == [0, 1, 2, 3, 0, 1, 2]


def test_errors_and_notices_are_replies(shop: dict[int, Level]) -> None:
    def work(connection: psycopg.Connection[Any]) -> None:
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT 'canary-in-error'::int", prepare=False)
        with pytest.raises(psycopg.Error):
            connection.execute("SELECT nowhere_at_all, %s", ("a",), prepare=False)
        connection.execute("DO $$ BEGIN RAISE NOTICE 'canary-in-notice'; END $$")

    decoded = postgres.decode(record(shop[0], work))
    assert decoded.doubts == ()
    seen = b"".join(value for exchange in decoded.exchanges for value in exchange.values)
    for word in (b"canary-in-error", b"nowhere_at_all", b"canary-in-notice"):
        assert word in seen


def test_copy_and_encryption_are_doubts(shop: dict[int, Level]) -> None:
    def work(connection: psycopg.Connection[Any]) -> None:
        with connection.cursor().copy("COPY (SELECT 1) TO STDOUT") as copy:
            list(copy)

    assert any("COPY" in doubt for doubt in postgres.decode(record(shop[0], work)).doubts)
    ssl = Session(1, 0.0, 1.0, (Piece(0, "client", b"\0\0\0\x08\x04\xd2\x16\x2f"), Piece(0, "server", b"S"),
                                Piece(0, "client", b"\x16\x03\x01"), Piece(0, "server", b"\x16")))  # fmt: skip
    assert any("encrypted" in doubt for doubt in postgres.decode(ssl).doubts)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


GREETING = (8 + 1).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"\0"
READY = message(b"Z", b"I")


def parse(name: bytes, sql: bytes) -> bytes:
    return message(b"P", name + b"\0" + sql + b"\0\0\0")


def bind(name: bytes) -> bytes:
    return message(b"B", b"\0" + name + b"\0\0\0\0\0\0\0")


EXECUTE = message(b"E", b"\0\0\0\0\0")
SYNC = message(b"S", b"")


def synthetic(client: bytes, server: bytes) -> Decoded:
    made = Session(1, 0.0, 1.0, (Piece(0, "client", GREETING + client), Piece(0, "server", READY + server)))
    return postgres.decode(made)


def test_a_redefinition_that_the_server_refused_does_not_hide_what_runs() -> None:
    # The second Parse is refused (the name is taken), so the first text is what the name runs.
    client = parse(b"s", b"SELECT evil") + SYNC + parse(b"s", b"SELECT good") + SYNC + bind(b"s") + EXECUTE + SYNC
    server = message(b"1", b"") + READY + message(b"E", b"C42P05\0\0") + READY
    server += message(b"2", b"") + message(b"C", b"SELECT 0\0") + READY
    decoded = synthetic(client, server)
    assert decoded.doubts == ()
    assert [one.request.sql for one in decoded.exchanges if one.request is not None] == ["SELECT evil"]


def test_a_parse_that_was_skipped_after_an_error_does_not_hide_what_runs() -> None:
    client = parse(b"s", b"SELECT evil") + SYNC
    client += message(b"C", b"Ss\0") + parse(b"s", b"SELECT good") + SYNC + bind(b"s") + EXECUTE + SYNC
    server = message(b"1", b"") + READY + message(b"E", b"C00000\0\0") + READY
    server += message(b"2", b"") + message(b"C", b"SELECT 0\0") + READY
    assert [one.request.sql for one in synthetic(client, server).exchanges if one.request is not None] == [
        "SELECT evil"
    ]


def test_sql_prepare_shares_the_names() -> None:
    client = parse(b"s", b"SELECT good") + SYNC
    client += message(b"Q", b"DEALLOCATE s; PREPARE s AS SELECT evil\0") + bind(b"s") + EXECUTE + SYNC
    server = message(b"1", b"") + READY + message(b"C", b"DEALLOCATE\0") + message(b"C", b"PREPARE\0") + READY
    server += message(b"2", b"") + message(b"C", b"SELECT 0\0") + READY
    assert any("not prepared before" in doubt for doubt in synthetic(client, server).doubts)


def again(session: Session, cuts: list[int]) -> Session:
    """The same bytes in other pieces, each side's bytes first."""
    pieces = []
    for side in ("client", "server"):
        data = session.stream(side)  # type: ignore[arg-type]
        places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
        pieces += [Piece(0.0, side, data[a:b]) for a, b in pairwise(places)]  # type: ignore[arg-type]
    return replace(session, pieces=tuple(pieces))


quiet = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quiet
@given(cuts=st.lists(st.integers(0, 10**6), max_size=30))
def test_how_bytes_travel_changes_nothing(adapters: Session, cuts: list[int]) -> None:
    assert postgres.decode(again(adapters, cuts)) == postgres.decode(adapters)


@quiet
@given(side=st.sampled_from(["client", "server"]), cut=st.integers(0, 10**6))
def test_truncated_input_never_raises_and_never_gains(adapters: Session, side: Any, cut: int) -> None:
    data = adapters.stream(side)
    cut %= len(data)
    pieces = [piece for piece in adapters.pieces if piece.side != side]
    decoded = postgres.decode(replace(adapters, pieces=(*pieces, Piece(0.0, side, data[:cut]))))
    whole = postgres.decode(adapters)
    sql = [one.request.sql for one in decoded.exchanges if one.request is not None]
    assert sql == [one.request.sql for one in whole.exchanges if one.request is not None][: len(sql)]
    assert decoded.doubts or decoded != whole


@quiet
@given(
    side=st.sampled_from(["client", "server"]),
    at=st.integers(0, 10**6),
    junk=st.binary(min_size=1, max_size=40),
)
def test_garbage_never_raises(adapters: Session, side: Any, at: int, junk: bytes) -> None:
    data = adapters.stream(side)
    at %= len(data)
    pieces = [piece for piece in adapters.pieces if piece.side != side]
    postgres.decode(replace(adapters, pieces=(*pieces, Piece(0.0, side, data[:at] + junk + data[at + len(junk) :]))))


@settings(max_examples=200, deadline=None)
@given(client=st.binary(max_size=200), server=st.binary(max_size=200))
def test_noise_never_raises(client: bytes, server: bytes) -> None:
    raw = postgres.decode(Session(1, 0.0, 1.0, (Piece(0.0, "client", client), Piece(0.0, "server", server))))
    assert raw.doubts or not client
    synthetic(client, server)
