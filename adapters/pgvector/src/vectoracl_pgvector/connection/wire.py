"""Sends one request as one message and waits once: the whole transaction behind one Sync, then all of its results.

This uses libpq's own calls (`psycopg.pq`) in generators, as psycopg does, so that sync and async share it. psycopg's
`pipeline()` would send, poll and lock once for each statement. libpq sends nothing after the Sync, which matters behind
PgBouncer in transaction mode: the server connection is released with the answer to Sync, and a later Flush (which
psycopg's pipeline sends) would take a connection again that nothing releases.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import PQGen
from psycopg.adapt import AdaptersMap, PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from vectoracl_pgvector.connection.binary import adapt
from vectoracl_pgvector.connection.liveness import GRACE, HungUpError
from vectoracl_pgvector.names import NO_JIT
from vectoracl_pgvector.requests import RankAll, Statement, Transaction

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_PLACEHOLDER = re.compile(r"%(?:(s)|\((\w+)\)s|(%)|)")
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)
_TEXT_OID = 25
_Message = tuple[bytes, Sequence[Any] | None, Sequence[int] | None, Sequence[int] | None, int]
_BEGIN_READING: _Message = (f"{BEGIN} READ ONLY".encode(), None, None, None, Format.TEXT)
_BEGIN_WRITING: _Message = (BEGIN.encode(), None, None, None, Format.TEXT)
_COMMIT: _Message = (b"COMMIT", None, None, None, Format.TEXT)
_AnyConnection = Connection[Any] | AsyncConnection[Any]


@lru_cache(maxsize=64)
def _settings_sql(count: int) -> str:
    return "SELECT " + ", ".join(["pg_catalog.set_config(%s, %s, true)"] * count)


def settings_of(request: Transaction | RankAll, timeout: float | None) -> list[tuple[str, str]]:
    """Return the settings of this transaction: the scope, a time limit for the server, and jit = off.

    PostgreSQL's just-in-time compilation (on by default in Debian) takes up to seconds for statements that run for
    milliseconds, because the cost estimates of row-level security and of catalog functions are far too high.
    """
    settings = [*request.settings, NO_JIT]
    if timeout is not None:  # at most 86,400 seconds (`arguments.MAX_TIMEOUT`), so it fits 31 bits
        settings.append(("statement_timeout", str(max(1, math.ceil(timeout * 1000)))))
    return settings


def settings_statement(settings: Sequence[tuple[str, str]]) -> Statement:
    """Return the statement that applies all *settings* until the transaction ends."""
    return Statement(_settings_sql(len(settings)), tuple([part for pair in settings for part in pair]))


@lru_cache(maxsize=512)
def _native(sql: str) -> tuple[bytes, int, tuple[str, ...]]:
    """Return *sql* with `$1`, `$2`, … as placeholders, the number of positional ones, and the names of the others."""
    names: list[str] = []
    count = 0

    def number(match: re.Match[str]) -> str:
        nonlocal count
        positional, name, percent = match.groups()
        if percent:
            return percent
        if positional:
            count += 1
            return f"${count}"
        if name is None:
            raise psycopg.ProgrammingError("a percent sign in a statement must be written twice")
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = _PLACEHOLDER.sub(number, sql)
    return text.encode(), count, tuple(names)


class _LocalContext:
    """An adaptation context with our types, for a connection of the application's, which must not keep them."""

    def __init__(self, connection: _AnyConnection, oid: int) -> None:
        self.connection = connection
        self.adapters = AdaptersMap(connection.adapters)
        adapt(self, oid)


def transact(connection: _AnyConnection, request: Transaction, timeout: float | None, oid: int) -> PQGen[Any]:
    """Perform *request* on an idle autocommit connection.

    An error of the server leaves the failed transaction open, and the caller has to end it. A connection that was
    interrupted in the middle of an exchange is closed.

    Args:
        connection: The connection; sync and async differ only in how the caller drives the generator.
        request: The settings and statements.
        timeout: The server's time limit in seconds. A server that is silent for longer, plus a grace, is hung up on.
        oid: The vector type's OID if the connection is the application's, so that only this request adapts our types.

    Returns:
        The replies of the statements, in order.

    Raises:
        psycopg.Error: The first error that the server reported, or the loss of the connection.
    """
    # Values that cannot be sent fail here, before anything is sent.
    context: Any = _LocalContext(connection, oid) if oid else connection
    settings = _settings_message(settings_statement(settings_of(request, timeout)))
    messages: list[_Message] = [_BEGIN_READING if request.read_only else _BEGIN_WRITING, settings]
    before = len(messages)
    pgconn = connection.pgconn
    is_sent = [one.since <= pgconn.server_version for one in request.statements]
    messages += [_message(context, one) for one, sent in zip(request.statements, is_sent, strict=True) if sent]
    messages.append(_COMMIT)
    _send(pgconn, messages)
    until = None if timeout is None else time.monotonic() + timeout + GRACE
    results = yield from _exchange(pgconn, len(messages), until)
    if results[-1].command_status != b"COMMIT":
        raise psycopg.InternalError("the transaction was not committed")
    answers = iter(results[before:-1])
    return tuple(
        _reply(context, one, next(answers)) if sent else []
        for one, sent in zip(request.statements, is_sent, strict=True)
    )


def _settings_message(statement: Statement) -> _Message:
    """Return the message of the settings statement. All values are text, so no dumper is looked up."""
    assert isinstance(statement.params, tuple)
    values = [one.encode() for one in statement.params]
    if any(b"\0" in one for one in values):  # the text format ends at NUL, so the value would name another tenant
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return _native(statement.sql)[0], values, (_TEXT_OID,) * len(values), None, Format.TEXT


def _message(context: Any, statement: Statement) -> _Message:
    """Return the arguments of `send_query_params`: text, dumped values, types, formats and result format."""
    params = statement.params
    result_format = Format.BINARY if statement.binary else Format.TEXT
    if not params:
        return statement.sql.encode(), None, None, None, result_format
    text, count, names = _native(statement.sql)
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


def _exchange(pgconn: PGconn, expected: int, until: float | None) -> PQGen[list[PGresult]]:
    """Send the buffer and read the results up to the answer to Sync.

    Raises:
        psycopg.Error: The first error among the results.
        HungUpError: Nothing was received by the time *until*.
    """
    results: list[PGresult] = []
    try:
        while pgconn.flush():
            ready = yield Wait.RW
            if not ready:
                _check_time(until)
            elif ready & Ready.R:  # a server whose answers are not read stops reading too
                pgconn.consume_input()
        while not _read_results(pgconn, results):
            ready = yield Wait.R
            if ready:
                pgconn.consume_input()
            else:
                _check_time(until)
    except psycopg.Error:
        server_errors = list(_failed(results))
        _read_remaining(pgconn, results)
        pgconn.finish()
        # The server's last message is more specific than the loss of the connection.
        for result in server_errors or _failed(results):
            raise error_from_result(result, "utf-8") from None
        raise
    except BaseException:  # the remaining answers would be taken for those of the next request
        pgconn.finish()
        raise
    pgconn.exit_pipeline_mode()
    for result in _failed(results):
        raise error_from_result(result, "utf-8")
    if len(results) != expected:
        pgconn.finish()
        raise psycopg.InternalError("the number of results does not match the statements")
    return results


def _check_time(until: float | None) -> None:
    if until is not None and time.monotonic() >= until:
        raise HungUpError


def _read_results(pgconn: PGconn, results: list[PGresult]) -> bool:
    """Append the received results to *results*; return True at the answer to Sync, after which nothing is left."""
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:  # the end of one statement's results
            continue
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        results.append(result)
    return False


def _read_remaining(pgconn: PGconn, results: list[PGresult]) -> None:
    """Read the results that were received before the connection was lost."""
    if pgconn.pipeline_status == PipelineStatus.OFF:
        return
    try:
        for _ in range(1000):
            if pgconn.is_busy():
                return
            result = pgconn.get_result()
            if result is not None:
                results.append(result)
    except psycopg.Error:
        return


def _failed(results: Sequence[PGresult]) -> Iterator[PGresult]:
    return (one for one in results if one.status in _FAILED)


def _reply(context: Any, statement: Statement, result: PGresult) -> Any:
    if not statement.rows:
        return result.command_tuples or 0
    transformer = Transformer(context)
    transformer.set_pgresult(result)
    return transformer.load_rows(0, result.ntuples, tuple)


def pipeline(
    connection: Connection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* in one round trip; see `transact`."""
    with connection.lock:
        return connection.wait(transact(connection, request, timeout, oid))


async def apipeline(
    connection: AsyncConnection[Any], request: Transaction, timeout: float | None, *, oid: int = 0
) -> tuple[Any, ...]:
    """Perform *request* in one round trip; see `transact`."""
    async with connection.lock:
        return await connection.wait(transact(connection, request, timeout, oid))
