"""Connections that the other side has closed, and networks that have fallen silent: sync and async alike."""

from __future__ import annotations

import select
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

# Seconds that the server's own time limit has to answer in before we hang up.
GRACE = 2.0


class HungUpError(psycopg.OperationalError):
    """The server was silent for longer than its own limit allows; the connection was closed.

    No TimeoutError, which is an OSError: psycopg's waiting takes those for a socket that was closed.
    """


def _until(generator: Generator[Any, Any, Any], connection: Any, until: float) -> Generator[Any, Any, Any]:
    """Pass on what psycopg waits for, and hang up when *until* has passed and nothing came."""
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
    """Let nothing on *connection*, sync or async, wait for more than *timeout* seconds and a grace.

    psycopg waits for ever on a network that has fallen silent; TCP's limits do not help where something between
    keeps the connection up. `wait` is what psycopg awaits everything with; it is the connection's own again after.
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
    except psycopg.Error:  # what the end of a pipeline says of the connection that we closed in its middle
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
    """Tell without a round trip whether an idle connection was closed by the other side; if so, close ours.

    An idle server sends nothing but its farewell (and, rarely, a notice). Without this, each connection that a restart
    left in the pool would cost one failed request.
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
    """Take a connection of *pool* that is alive, to be given back; dead ones go back to be replaced."""
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
    """Take a connection of *pool* that is alive; see `borrow`."""
    until = time.monotonic() + timeout
    while True:
        connection = await pool.getconn(max(0.0, until - time.monotonic()))
        try:
            if alive(connection):
                return connection  # type: ignore[no-any-return]  # the pool's type names no connection
        except BaseException:
            await pool.putconn(connection)
            raise
        await pool.putconn(connection)


def recover(connection: Connection[Any]) -> None:
    """End the transaction that an error left open; a connection that cannot is closed."""
    try:
        connection.rollback()
    except BaseException as error:
        connection.pgconn.finish()
        if not isinstance(error, Exception):
            raise


async def arecover(connection: AsyncConnection[Any]) -> None:
    """End the transaction that an error left open; see `recover`."""
    try:
        await connection.rollback()
    except BaseException as error:
        connection.pgconn.finish()
        if not isinstance(error, Exception):
            raise
