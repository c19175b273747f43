"""The exchange of one message with the server: everything up to one Sync is sent, then all results are read.

This uses libpq's own calls (`psycopg.pq`) in generators, as psycopg does, so that sync and async share it. psycopg's
`pipeline()` would send, poll and lock once for each statement. libpq sends nothing after the Sync, which matters behind
PgBouncer in transaction mode: the server connection is released with the answer to Sync, and a later Flush (which
psycopg's pipeline sends) would take a connection again that nothing releases.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, PipelineStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

from vectoracl_pgvector.connection.liveness import GRACE, HungUpError

_PLACEHOLDER = re.compile(r"%(?:(s)|\((\w+)\)s|(%)|)")
_FAILED = (ExecStatus.FATAL_ERROR, ExecStatus.BAD_RESPONSE)


@lru_cache(maxsize=512)
def native(sql: str) -> tuple[bytes, int, tuple[str, ...]]:
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


def deadline(timeout: float | None) -> float | None:
    """Return the time by which the server has to have answered."""
    return None if timeout is None else time.monotonic() + timeout + GRACE


def exchange(pgconn: PGconn, results: list[PGresult], expected: int, until: float | None) -> PQGen[None]:
    """Send the buffer and read the *expected* number of results up to the answer to Sync.

    Also after an error, *results* has those that were received.

    Raises:
        psycopg.Error: The first error among the results.
        HungUpError: Nothing was received by the time *until*.
    """
    last: PGresult | None = None
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
        last = next(iter(server_errors or _failed(results)), None)
        if last is None:
            raise
    except BaseException:  # the remaining answers would be taken for those of the next request
        pgconn.finish()
        raise
    if last is not None:
        raise error_from_result(last, "utf-8")
    pgconn.exit_pipeline_mode()
    for result in _failed(results):
        raise error_from_result(result, "utf-8")
    if len(results) != expected:
        pgconn.finish()
        raise psycopg.InternalError("the number of results does not match the statements")


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
