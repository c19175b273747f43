"""Changes to a schema that is in use: bounded waits for locks, several attempts, then an error that says what to do.

A statement that changes a table needs it exclusively. While it waits behind a long transaction, every later reader and
writer waits behind *it*. So each wait is short, and everything is rolled back before the next attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, LockNotAvailable

from vectoracl.errors import StoreError
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.schema import LOCK_TIMEOUT

TRIES = 4
_PAUSE = 0.5


def migrate(
    connection: psycopg.Connection[Any],
    statements: Iterable[str],
    transaction: Callable[[], AbstractContextManager[None]],
    names: Names,
    *,
    wait: float = LOCK_TIMEOUT,
    tries: int = TRIES,
) -> None:
    """Run *statements* in one *transaction*, and again if a lock is not granted in time.

    Args:
        connection: The owner's connection, in autocommit mode.
        statements: The statements, each of which can be repeated.
        transaction: Opens the transaction.
        names: Names the schema, for the error.
        wait: Seconds to wait for each lock.
        tries: The number of attempts.

    Raises:
        StoreError: With the code "locked". Nothing was changed; the message names the sessions that hold a lock.
    """
    todo = tuple(statements)
    for attempt in range(1, tries + 1):
        try:
            with transaction():
                connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, true)", (f"{wait:g}s",))
                for statement in todo:
                    connection.execute(statement)
            return
        except (LockNotAvailable, DeadlockDetected):
            holders = _holders(connection, names)
            if attempt < tries:
                time.sleep(_PAUSE * attempt)
    raise StoreError(
        f"{names.table} was continuously in use ({tries} waits of {wait:g} s), so nothing was changed.{holders} "
        "Run it again when these sessions have ended, or end one: SELECT pg_terminate_backend(PID);",
        code="locked",
        adapter="pgvector",
        sent="no",
        retryable=True,
    )


def _holders(connection: psycopg.Connection[Any], names: Names) -> str:
    """Describe the sessions that hold a lock on one of the schema's tables; every role can see process ids."""
    rows = connection.execute(
        "SELECT lock.pid, pg_catalog.min(pg_catalog.format('%%I.%%I', space.nspname, kind.relname)), "
        "pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - pg_catalog.min(activity.xact_start))::text "
        "FROM pg_catalog.pg_locks AS lock JOIN pg_catalog.pg_class AS kind ON kind.oid = lock.relation "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = kind.relnamespace "
        "LEFT JOIN pg_catalog.pg_stat_activity AS activity ON activity.pid = lock.pid "
        "WHERE lock.granted AND lock.pid <> pg_catalog.pg_backend_pid() AND space.nspname = %s "
        "AND lock.database = (SELECT base.oid FROM pg_catalog.pg_database AS base "
        "WHERE base.datname = pg_catalog.current_database()) GROUP BY lock.pid ORDER BY 3 DESC NULLS LAST, 1 LIMIT 5",
        (names.raw_schema,),
    ).fetchall()
    if not rows:
        return ""
    listed = ", ".join(f"{pid} ({table}{f', for {age}' if age else ''})" for pid, table, age in rows)
    return f" Sessions that hold a lock on a table of the schema, by process id: {listed}."
