"""Sends one request as one message and waits once: the whole transaction behind one Sync, then all of its results.

There are two forms (`perform` chooses): `transact` sends BEGIN, the settings, the statements and COMMIT; `single_read`
sends one read without BEGIN and COMMIT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.pq import Format
from psycopg.pq.abc import PGconn, PGresult

from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.connection.exchange import deadline, exchange, native
from vectoracl_pgvector.connection.session import PROBE, Session, session_of
from vectoracl_pgvector.connection.settings import settings_of, settings_statement
from vectoracl_pgvector.connection.single_read import is_single_read, read
from vectoracl_pgvector.requests import Statement, Transaction

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_TEXT_OID = 25
_Message = tuple[bytes, Sequence[Any] | None, Sequence[int] | None, Sequence[int] | None, int]
_BEGIN_READING: _Message = (f"{BEGIN} READ ONLY".encode(), None, None, None, Format.TEXT)
_BEGIN_SNAPSHOT: _Message = (b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", None, None, None, Format.TEXT)
_BEGIN_WRITING: _Message = (BEGIN.encode(), None, None, None, Format.TEXT)
_COMMIT: _Message = (b"COMMIT", None, None, None, Format.TEXT)
_AnyConnection = Connection[Any] | AsyncConnection[Any]


class _LocalContext:
    """An adaptation context with our types, for a connection of the application's, which must not keep them."""

    def __init__(self, connection: _AnyConnection, oid: int) -> None:
        self.connection = connection
        self.adapters = AdaptersMap(connection.adapters)
        adapt(self, oid)


def transact(
    connection: _AnyConnection, request: Transaction, timeout: float | None, oid: int, session: Session | None
) -> PQGen[Any]:
    """Perform *request* on an idle autocommit connection, between BEGIN and COMMIT.

    An error of the server leaves the failed transaction open, and the caller has to end it. A connection that was
    interrupted in the middle of an exchange is closed.

    Args:
        connection: The connection; sync and async differ only in how the caller drives the generator.
        request: The settings and statements.
        timeout: The server's time limit in seconds. A server that is silent for longer, plus a grace, is hung up on.
        oid: The vector type's OID if the connection is the application's, so that only this request adapts our types.
        session: What is known of the connection, if it is ours; this request asks what is not known yet.

    Returns:
        The replies of the statements, in order.

    Raises:
        psycopg.Error: The first error that the server reported, or the loss of the connection.
    """
    # Values that cannot be sent fail here, before anything is sent.
    context: Any = _LocalContext(connection, oid) if oid else connection
    settings = _settings_message(settings_statement(settings_of(request, timeout)))
    messages: list[_Message] = [_begin(request), settings]
    before = len(messages)
    pgconn = connection.pgconn
    is_sent = [one.since <= pgconn.server_version for one in request.statements]
    messages += [_message(context, one) for one, sent in zip(request.statements, is_sent, strict=True) if sent]
    unknown = session if session is not None and not session.known else None
    if unknown is not None:
        messages.append(_message(context, PROBE))
    messages.append(_COMMIT)
    _send(pgconn, messages)
    results: list[PGresult] = []
    yield from exchange(pgconn, results, len(messages), deadline(timeout))
    if results[-1].command_status != b"COMMIT":
        raise psycopg.InternalError("the transaction was not committed")
    if unknown is not None:
        unknown.learn(_reply(context, PROBE, results[-2]), pgconn.backend_pid)
    answers = iter(results[before:-1])
    return tuple(
        _reply(context, one, next(answers)) if sent else []
        for one, sent in zip(request.statements, is_sent, strict=True)
    )


def _begin(request: Transaction) -> _Message:
    if not request.read_only:
        return _BEGIN_WRITING
    return _BEGIN_SNAPSHOT if request.snapshot else _BEGIN_READING


def _settings_message(statement: Statement) -> _Message:
    """Return the message of the settings statement. All values are text, so no dumper is looked up."""
    assert isinstance(statement.params, tuple)
    values = [one.encode() for one in statement.params]
    if any(b"\0" in one for one in values):  # the text format ends at NUL, so the value would name another tenant
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return native(statement.sql)[0], values, (_TEXT_OID,) * len(values), None, Format.TEXT


def _message(context: Any, statement: Statement) -> _Message:
    """Return the arguments of `send_query_params`: text, dumped values, types, formats and result format."""
    params = statement.params
    result_format = Format.BINARY if statement.binary else Format.TEXT
    if not params:
        return statement.sql.encode(), None, None, None, result_format
    text, count, names = native(statement.sql)
    named = isinstance(params, Mapping)
    if count != (0 if named else len(params)) or bool(names) != named:
        raise psycopg.ProgrammingError("the values do not match the placeholders of the statement")
    values: Sequence[Any] = [params[name] for name in names] if isinstance(params, Mapping) else params
    transformer = Transformer(context)
    dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    return text, dumped, transformer.types, transformer.formats, result_format


def _send(pgconn: PGconn, messages: Sequence[_Message]) -> None:
    """Put *messages* and one Sync into libpq's buffer."""
    pgconn.enter_pipeline_mode()
    try:
        for message in messages:
            pgconn.send_query_params(*message)
        pgconn.pipeline_sync()
    except BaseException:  # a part may have been sent, and nothing else may follow it
        pgconn.finish()
        raise


def _reply(context: Any, statement: Statement, result: PGresult) -> Any:
    if not statement.rows:
        return result.command_tuples or 0
    transformer = Transformer(context)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def perform(connection: _AnyConnection, request: Transaction, timeout: float | None, oid: int) -> PQGen[Any]:
    """Perform *request* in the shortest form that the connection allows; see `transact` and `single_read.read`."""
    session = session_of(connection)
    if session is not None and is_single_read(session, request):
        return read(connection, session, request, timeout)
    return transact(connection, request, timeout, oid, session)


def pipeline(
    connection: Connection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* in one round trip; see `perform`."""
    with connection.lock:
        return connection.wait(perform(connection, request, timeout, oid))


async def apipeline(
    connection: AsyncConnection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* in one round trip; see `perform`."""
    async with connection.lock:
        return await connection.wait(perform(connection, request, timeout, oid))
