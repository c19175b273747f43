"""Detects connections that the other side has closed, and networks that no longer respond. For sync and async."""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

# Seconds after the server's own time limit before the connection is closed.
GRACE = 2.0

_returning: set[asyncio.Future[None]] = set()  # asyncio itself keeps no reference to a task


class HungUpError(psycopg.OperationalError):
    """The server was silent for longer than its own limit allows; the connection was closed.

    It is not a TimeoutError, which is an OSError: psycopg's wait functions treat those as a closed socket.
    """


def _until(generator: Generator[Any, Any, Any], connection: Any, until: float) -> Generator[Any, Any, Any]:
    """Forward what psycopg waits for, and close the connection if nothing was received by the time *until*."""
    try:
        awaited = next(generator)
        while True:
            ready = yield awaited
            if not ready and time.monotonic() >= until:
                connection.pgconn.finish()
                raise HungUpError
            awaited = generator.send(ready)
    except StopIteration as stop:
        return stop.value


@contextmanager
def limited(connection: Any, timeout: float | None) -> Iterator[None]:
    """Limit every wait on *connection*, sync or async, to *timeout* seconds plus a grace.

    psycopg waits for ever on a network that no longer responds, and TCP's limits do not help if a device in between
    keeps the connection up. psycopg waits for everything through `connection.wait`, which is wrapped here and restored
    afterwards.
    """
    if timeout is None:
        yield
        return
    until = time.monotonic() + timeout + GRACE
    wait = connection.wait

    def waiting(generator: Any, *arguments: Any, **more: Any) -> Any:
        return wait(_until(generator, connection, until), *arguments, **more)

    connection.__dict__["wait"] = waiting
    try:
        yield
    except psycopg.Error:  # the pipeline fails because the connection was closed above
        if connection.closed and time.monotonic() >= until:
            raise HungUpError from None
        raise
    finally:
        del connection.__dict__["wait"]


def _readable(descriptor: int) -> bool:
    if hasattr(select, "poll"):
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


def alive(connection: Any) -> bool:
    """Return, without a round trip, whether an idle connection is still open; close it if the server closed it.

    An idle server sends nothing except its closing message and, rarely, a notice. Without this check, each connection
    that a restart left in the pool would cost one failed request.
    """
    pgconn = connection.pgconn
    try:
        for _ in range(16):
            if not _readable(pgconn.socket):
                return True
            pgconn.consume_input()
    except (psycopg.Error, OSError, ValueError):
        pgconn.finish()
        return False
    return True


def borrow(pool: ConnectionPool[Any], timeout: float) -> Connection[Any]:
    """Take a live connection from *pool*, which the caller has to return; dead ones are returned to be replaced."""
    until = time.monotonic() + timeout
    while True:
        connection = pool.getconn(max(0.0, until - time.monotonic()))
        try:
            if alive(connection):
                return connection  # type: ignore[no-any-return]  # the pool's type names no connection
        except BaseException:
            pool.putconn(connection)
            raise
        pool.putconn(connection)


async def aborrow(pool: AsyncConnectionPool[Any], timeout: float) -> AsyncConnection[Any]:
    """Take a live connection from *pool*; see `borrow`."""
    until = time.monotonic() + timeout
    while True:
        connection = await pool.getconn(max(0.0, until - time.monotonic()))
        try:
            if alive(connection):
                return connection  # type: ignore[no-any-return]  # the pool's type names no connection
        except BaseException:
            await give_back(pool, connection)
            raise
        await give_back(pool, connection)


async def give_back(pool: AsyncConnectionPool[Any], connection: AsyncConnection[Any]) -> None:
    """Return *connection* to *pool*, which is completed even if the caller is cancelled.

    The pool waits for its lock to take a connection back. It counts a connection whose return is cancelled there as
    being in use for ever, until none is left.
    """
    returning = asyncio.ensure_future(pool.putconn(connection))
    _returning.add(returning)
    returning.add_done_callback(_returning.discard)
    await asyncio.shield(returning)


def recover(connection: Connection[Any]) -> None:
    """Roll back the transaction that an error left open; close a connection that cannot."""
    try:
        connection.rollback()
    except BaseException as error:
        connection.pgconn.finish()
        if not isinstance(error, Exception):
            raise


async def arecover(connection: AsyncConnection[Any]) -> None:
    """Roll back the transaction that an error left open; see `recover`."""
    try:
        await connection.rollback()
    except BaseException as error:
        connection.pgconn.finish()
        if not isinstance(error, Exception):
            raise
