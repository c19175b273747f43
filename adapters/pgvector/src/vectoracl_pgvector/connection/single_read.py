"""Sends a single read as one message without BEGIN and COMMIT: the settings, the statement and one Sync.

PostgreSQL runs everything up to a Sync as one implicit transaction (documentation, "Pipelining"), so the settings hold
for the statement and end with it, an error undoes all of them, and the statement cannot run without them: after an
error the server skips the rest. Compared with BEGIN and COMMIT this saves two statements. The transaction is made read
only by a setting; its isolation level is the connection's default, which has to be READ COMMITTED (`session`).

Where the server remembers them, the two statements are prepared: the server then neither parses them nor adds the
policies again. The statement is planned each time it is executed, for its own tenant: the settings of every message
that runs a prepared statement contain `plan_cache_mode = force_custom_plan`, and a statement without parameters, for
which PostgreSQL ignores that setting, is never prepared. (The statement with the settings reads no table. Its plan is
the same for everyone.)
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from vectoracl_pgvector.connection.exchange import deadline, exchange, native
from vectoracl_pgvector.connection.session import Key, Prepared, Session
from vectoracl_pgvector.connection.settings import TIME_LIMIT, milliseconds, settings_sql
from vectoracl_pgvector.names import NO_EXCLUSION, NO_JIT, READ_ONLY
from vectoracl_pgvector.requests import Transaction, VectorParam

_FLOAT = struct.Struct(">d")
_BY_CAST, _TEXT, _INT8, _FLOAT8 = 0, 25, 20, 701  # 0: PostgreSQL takes the type from the cast around the placeholder
_INT8_RANGE = range(-(2**63), 2**63)
_Values = tuple[Sequence[Any], tuple[int, ...], Sequence[Any]]


class _Part(NamedTuple):
    """One statement of the message; `key` is its text and the types of its parameters."""

    key: Key
    values: Sequence[Any]
    formats: Sequence[Any] | None
    result_format: Format


def is_single_read(session: Session, request: Transaction) -> bool:
    """Return whether *request* may be sent in this form on the connection of *session*."""
    if not session.implicit or not request.read_only or request.snapshot or len(request.statements) != 1:
        return False
    (statement,) = request.statements
    return statement.rows and bool(statement.params) and isinstance(statement.params, tuple) and not statement.since


def read(
    connection: Connection[Any] | AsyncConnection[Any], session: Session, request: Transaction, timeout: float | None
) -> PQGen[tuple[Any, ...]]:
    """Perform *request* on an idle autocommit connection of ours.

    If a prepared statement is not usable any more, nothing has been read, and the message is sent once more with the
    statements prepared again.

    Raises:
        psycopg.Error: The first error that the server reported, or the loss of the connection.
    """
    until = deadline(timeout)
    try:
        return (yield from _read(connection, session, request, timeout, until))
    except psycopg.Error as error:
        if not session.lost(error):
            raise
    return (yield from _read(connection, session, request, timeout, until))


def _read(
    connection: Connection[Any] | AsyncConnection[Any],
    session: Session,
    request: Transaction,
    timeout: float | None,
    until: float | None,
) -> PQGen[tuple[Any, ...]]:
    pgconn = connection.pgconn
    plans = session.plans
    prepares = plans is not None
    session.reused = False
    settings, statement = _parts(connection, request, timeout, plans)
    if pgconn.transaction_status != TransactionStatus.IDLE:  # the settings would outlive the message
        pgconn.finish()
        raise psycopg.OperationalError("the connection was not idle")
    results: list[PGresult] = []
    new: list[tuple[int, Key, bytes]] = []
    pgconn.enter_pipeline_mode()
    try:
        expected = _put(pgconn, session, settings, 0, new, prepares=prepares)
        expected = answer = _put(pgconn, session, statement, expected, new, prepares=prepares)
        for name in session.closing:
            pgconn.send_close_prepared(name)
            expected += 1
        pgconn.pipeline_sync()
    except BaseException:  # a part may have been sent, and nothing else may follow it
        pgconn.finish()
        raise
    try:
        yield from exchange(pgconn, results, expected, until)
    finally:
        for place, key, name in new:
            if place < len(results) and results[place].status == ExecStatus.COMMAND_OK:
                session.keep(key, name)
    if pgconn.transaction_status != TransactionStatus.IDLE:
        pgconn.finish()
        raise psycopg.InternalError("the message left a transaction open")
    del session.closing[: expected - answer]
    return (_load(connection, session.prepared(statement.key) if prepares else None, results[answer - 1]),)


def _parts(
    context: Any, request: Transaction, timeout: float | None, plans: tuple[str, str] | None
) -> tuple[_Part, _Part]:
    """Return the settings and the statement. What cannot be sent fails here, before anything is sent."""
    settings = _settings(request.settings, timeout, plans)
    (statement,) = request.statements
    assert isinstance(statement.params, tuple)
    text, count, names = native(statement.sql)
    if names or count != len(statement.params):
        raise psycopg.ProgrammingError("the values do not match the placeholders of the statement")
    values, types, formats = _plain(statement.params) or _dumped(context, statement.params)
    result_format = Format.BINARY if statement.binary else Format.TEXT
    return settings, _Part((text, types), values, formats, result_format)


def _settings(settings: tuple[tuple[str, str], ...], timeout: float | None, plans: tuple[str, str] | None) -> _Part:
    """Return the statement for *settings* and for those that every read has. The first setting is the tenant."""
    first = tuple([name for name, _ in settings[:1]])
    key, constant = _constant(first, settings[1:], plans, timed=timeout is not None)
    values = [_text(value) for _, value in settings[:1]]
    values += constant
    if timeout is not None:
        values.append(milliseconds(timeout).encode())
    return _Part(key, values, None, Format.TEXT)


@lru_cache(maxsize=256)
def _constant(
    first: tuple[str, ...], rest: tuple[tuple[str, str], ...], plans: tuple[str, str] | None, *, timed: bool
) -> tuple[Key, list[bytes]]:
    """Return the statement's key and the values that stay the same: all but those of *first* and of the time limit."""
    pairs = [*rest, NO_JIT, NO_EXCLUSION, READ_ONLY, *([plans] if plans else [])]
    names = (*first, *[name for name, _ in pairs], *([TIME_LIMIT] if timed else []))
    return (native(settings_sql(names))[0], (_TEXT,) * len(names)), [_text(value) for _, value in pairs]


def _text(value: str) -> bytes:
    data = value.encode()
    if b"\0" in data:  # the text format ends at NUL, so the value would name another tenant
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return data


def _plain(values: Sequence[Any]) -> _Values | None:
    """Return the bytes, types and formats of text, numbers and vectors; None if there are values of other types."""
    dumped: list[bytes] = []
    types: list[int] = []
    formats: list[int] = []
    vector, data = None, b""
    for value in values:
        kind = type(value)
        if kind is str:
            dumped.append(_text(value))
            types.append(_BY_CAST)
            formats.append(0)
            continue
        if kind is VectorParam:
            if value is not vector:  # it is among the values twice
                vector, data = value, value.dump()
            dumped.append(data)
            types.append(_BY_CAST)
        elif kind is int and value in _INT8_RANGE:
            dumped.append(value.to_bytes(8, "big", signed=True))
            types.append(_INT8)
        elif kind is float:
            dumped.append(_FLOAT.pack(value))
            types.append(_FLOAT8)
        else:
            return None
        formats.append(1)
    return dumped, tuple(types), formats


def _dumped(context: Any, values: Sequence[Any]) -> _Values:
    transformer = Transformer(context)
    dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    return dumped, tuple(transformer.types or ()), transformer.formats or ()


def _put(
    pgconn: PGconn,
    session: Session,
    part: _Part,
    place: int,
    new: list[tuple[int, Key, bytes]],
    *,
    prepares: bool,
) -> int:
    """Put *part* into libpq's buffer; return the number of results of the message so far.

    Args:
        pgconn: The connection.
        session: What is prepared on it.
        part: The statement.
        place: The number of results of what precedes it.
        new: Takes the place of the result, the key and the name of a statement that is prepared here.
        prepares: Whether statements may be prepared.
    """
    key, values, formats, result_format = part
    text, types = key
    known = session.prepared(key) if prepares else None
    if known is not None:
        session.reused = True
        pgconn.send_query_prepared(known.name, values, formats, result_format)
        return place + 1
    name = session.new_name(key) if prepares else None
    if name is None:
        pgconn.send_query_params(text, values, types, formats, result_format)
        return place + 1
    new.append((place, key, name))
    pgconn.send_prepare(name, text, types)
    pgconn.send_query_prepared(name, values, formats, result_format)
    return place + 2


def _load(context: Any, prepared: Prepared | None, result: PGresult) -> list[Any]:
    """Return the rows of *result*. The columns of a prepared statement are the same each time."""
    if prepared is not None and prepared.loader is not None:
        loader = prepared.loader
        loader.set_pgresult(result, set_loaders=False)
    else:
        loader = Transformer(context)
        loader.set_pgresult(result)
        if prepared is not None:
            prepared.loader = loader
    return loader.load_rows(0, result.ntuples, tuple)
