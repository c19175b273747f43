"""The statements and checks of an operation in the caller's transaction. Pure, for sync and async connections.

A generator yields a `Step` and receives the rows of its reply, or the row count if it returns no rows.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from psycopg.pq import TransactionStatus

from vectoracl.errors import PostureError, RefusedError
from vectoracl_pgvector.connection.extension import Extension
from vectoracl_pgvector.connection.settings import settings_of, settings_statement
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.requests import Transaction

R = TypeVar("R")
Steps = Generator["Step", Any, R]

# It runs before the search_path is set, so its operators are qualified too.
_BYPASS = (
    "SELECT rolsuper OR rolbypassrls OR pg_catalog.pg_has_role(rolname, "
    "(SELECT relowner FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%s)), "
    "'MEMBER'), pg_catalog.current_setting('transaction_isolation') FROM pg_catalog.pg_roles "
    "WHERE rolname OPERATOR(pg_catalog.=) current_user"
)
# The id of the whole transaction, and the newest id of this session: the savepoint's, which may be rolled back alone.
_WRITTEN_BY = (
    "SELECT pg_catalog.txid_current(), (SELECT l.transactionid::text::int8 FROM pg_catalog.pg_locks l "
    "WHERE l.locktype = 'transactionid' AND l.granted AND l.pid = pg_catalog.pg_backend_pid() "
    "ORDER BY pg_catalog.age(l.transactionid) LIMIT 1)"
)


@dataclass(frozen=True, slots=True)
class Step:
    """One statement. With `oid`, the cursor adapts pgvector's types and arrays."""

    sql: str
    params: Any = None
    rows: bool = True
    binary: bool = False
    oid: int | None = None


def check_state(status: TransactionStatus, *, autocommit: bool) -> None:
    """Refuse a connection whose transaction cannot be joined. Raises: RefusedError."""
    if status == TransactionStatus.INERROR:
        raise RefusedError("The transaction on this connection has failed; roll it back first.")
    if status not in (TransactionStatus.INTRANS, TransactionStatus.IDLE):
        raise RefusedError("The connection is busy or broken.")
    if status == TransactionStatus.IDLE and autocommit:
        raise RefusedError(
            "The connection is in autocommit mode without a transaction: open one, for example with "
            "`with connection.transaction():`, or `async with` for an async one."
        )


def check_transaction(request: Transaction, names: Names) -> Steps[None]:
    """Check the role and the isolation level. Raises: PostureError, RefusedError.

    This statement runs in the caller's own transaction, which psycopg opens here if none is open yet. The operation is
    then a savepoint in it, not a transaction that would be committed at its end.
    """
    rows = yield Step(_BYPASS, (names.table,))
    if not rows or rows[0][0] is not False:
        raise PostureError(
            "The role of this connection bypasses row-level security (SUPERUSER, BYPASSRLS, or a member of the "
            "table's owner). Connect as the runtime role."
        )
    if not request.read_only and rows[0][1] != "read committed":
        # A snapshot that is older than the document's lock misses generations that others wrote in the meantime.
        raise RefusedError(
            f"The transaction is {rows[0][1].upper()}; writes in it could mix two generations of a document. "
            "Use READ COMMITTED, or write through acl.scoped()."
        )


def perform_steps(
    request: Transaction, extension: Extension, version: int, timeout: float | None
) -> Steps[tuple[Any, int | None]]:
    """Perform *request* in the savepoint: set the scope, run the statements, restore the settings.

    Args:
        request: The settings and statements.
        extension: Finds the vector type.
        version: The server's version; statements that need a newer one have no rows, as in `wire.pipeline`.
        timeout: The server's time limit in seconds.

    Returns:
        The replies and, for a request that writes, the id of the transaction or savepoint that wrote.
    """
    settings = settings_of(request, timeout)
    setting = settings_statement(settings)
    setting_names = [name for name, _ in settings]
    reads = ", ".join("pg_catalog.current_setting(%s, true)" for _ in setting_names)
    previous_values = (yield Step(f"SELECT {reads}", setting_names))[0]
    yield Step(setting.sql, setting.params)
    find_statement = extension.find_statement()
    oid = extension.read_location((yield Step(find_statement.sql, find_statement.params)))
    replies: list[Any] = []
    for one in request.statements:
        if one.since > version:
            replies.append([])
            continue
        replies.append((yield Step(one.sql, one.params or None, rows=bool(one.rows), binary=one.binary, oid=oid)))
    writer = None
    if not request.read_only:
        ((whole, newest),) = yield Step(_WRITTEN_BY)
        # The id in pg_locks has 32 bits, and a savepoint's id follows that of its transaction.
        writer = whole if newest is None else whole + ((newest - whole) & 0xFFFFFFFF)
    # NULL resets settings that did not exist before to their default. So does a blank one of an extension: a savepoint
    # that was rolled back before the extension's library was loaded leaves it, and no such setting may be blank.
    restore = ", ".join("pg_catalog.set_config(%s, %s::text, true)" for _ in setting_names)
    yield Step(
        f"SELECT {restore}",
        [
            part
            for name, value in zip(setting_names, previous_values, strict=True)
            for part in (name, None if value == "" and name.startswith("hnsw.") else value)
        ],
    )
    return tuple(replies), writer
