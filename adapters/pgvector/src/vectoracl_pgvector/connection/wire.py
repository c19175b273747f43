"""One request as one message out and one wait: the transaction is sent whole, behind one Sync, and read whole.

Written on libpq's own calls (`psycopg.pq`), as psycopg's generators are, so that sync and async share it: psycopg's
`pipeline()` sends, polls and locks once for each statement. libpq sends nothing after the Sync, and that matters:
behind PgBouncer in transaction mode the server's connection goes back with the answer to Sync, and a Flush that came
later (as psycopg's pipeline sends one) would take a connection again that nothing gives back.
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
    """Return what is set for this transaction only: the scope, a limit for the server, and no compilation of plans.

    PostgreSQL's just-in-time compilation (on by default in Debian's) costs up to seconds a statement, for statements
    that take milliseconds: the estimates of row-level security and of the catalog's functions are far too high.
    """
    settings = [*request.settings, NO_JIT]
    if timeout is not None:  # at most 86,400 seconds (`arguments.MAX_TIMEOUT`), so it fits 31 bits
        settings.append(("statement_timeout", str(max(1, math.ceil(timeout * 1000)))))
    return settings


def settings_statement(settings: Sequence[tuple[str, str]]) -> Statement:
    """Return the one statement that sets *settings*, until the transaction ends."""
    return Statement(_settings_sql(len(settings)), tuple([part for pair in settings for part in pair]))


@lru_cache(maxsize=512)
def _native(sql: str) -> tuple[bytes, int, tuple[str, ...]]:
    """Return *sql* with `$1`, `$2`, … for its placeholders, how many go by place, and the names of the others."""
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
    """A context with our types, for a connection that is not ours and so must not learn them."""

    def __init__(self, connection: _AnyConnection, oid: int) -> None:
        self.connection = connection
        self.adapters = AdaptersMap(connection.adapters)
        adapt(self, oid)


def transact(connection: _AnyConnection, request: Transaction, timeout: float | None, oid: int) -> PQGen[Any]:
    """Perform *request* on an idle autocommit connection; the replies of its statements, in order.

    The server has *timeout* seconds for it; one that is silent for longer, and a grace, is hung up on.

    *oid* is given where the connection is not ours, so that only this request knows our types. An error of the server
    leaves the transaction failed and open, for the caller to end; a connection that was left in the middle is closed.

    Raises: psycopg.Error: the first error that the server gave, or that the connection was lost.
    """
    # Whatever cannot be sent is found out before anything is.
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
    """Return the message of settings, which are texts: no adapter needs to be looked up for each."""
    assert isinstance(statement.params, tuple)
    values = [one.encode() for one in statement.params]
    if any(b"\0" in one for one in values):  # the text form ends there, and so would name another tenant
        raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    return _native(statement.sql)[0], values, (_TEXT_OID,) * len(values), None, Format.TEXT


def _message(context: Any, statement: Statement) -> _Message:
    """Return what `send_query_params` takes: the text, the values in their wire form, types, formats, result format."""
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
    except BaseException:  # a part of it may have gone out, and must not be followed by something else
        pgconn.finish()
        raise


def _exchange(pgconn: PGconn, expected: int, until: float | None) -> PQGen[list[PGresult]]:
    """Send what is in the buffer and read the results up to the answer to Sync.

    Raises: the first error among them; HungUpError where nothing has come and *until* is past.
    """
    results: list[PGresult] = []
    try:
        while pgconn.flush():
            ready = yield Wait.RW
            if not ready:
                _check_time(until)
            elif ready & Ready.R:  # a server whose answers nobody reads does not read either
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
        # The server's farewell says more than that the connection is gone.
        for result in server_errors or _failed(results):
            raise error_from_result(result, "utf-8") from None
        raise
    except BaseException:  # left in the middle, its answers would be the next request's
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
    """Move the results that have come into *results*; True at the answer to Sync, and nothing is left then."""
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:  # the end of one statement's results
            continue
        if result.status == ExecStatus.PIPELINE_SYNC:
            return True
        results.append(result)
    return False


def _read_remaining(pgconn: PGconn, results: list[PGresult]) -> None:
    """Read what was answered before the connection was lost."""
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
