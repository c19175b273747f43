"""The caller's own transaction: scoped searches and writes that commit, or roll back, with the application's work."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import tuple_row

from vectoracl.actions import Action
from vectoracl.adapter import Flow, Port
from vectoracl.client import VectorACL
from vectoracl.drive import run
from vectoracl.errors import InvalidInputError, PostureError, RefusedError, VectorACLError, apart
from vectoracl.guard import Store
from vectoracl.ports import CORE_PORTS
from vectoracl.principal import Principal
from vectoracl.retriever import ScopedRetriever
from vectoracl_pgvector.arguments import check_encoding
from vectoracl_pgvector.binary import adapt
from vectoracl_pgvector.extension import Extension
from vectoracl_pgvector.failures import mapped
from vectoracl_pgvector.names import Names
from vectoracl_pgvector.requests import Transaction
from vectoracl_pgvector.wire import settings_of, settings_statement

T = TypeVar("T")
# It runs before the search_path is ours, so its operators are named in full too.
_BYPASS = (
    "SELECT rolsuper OR rolbypassrls OR pg_catalog.pg_has_role(rolname, "
    "(SELECT relowner FROM pg_catalog.pg_class WHERE oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(%s)), "
    "'MEMBER'), pg_catalog.current_setting('transaction_isolation') FROM pg_catalog.pg_roles "
    "WHERE rolname OPERATOR(pg_catalog.=) current_user"
)
# One operation at a time on a connection, whichever handles it belongs to: two would mix up each other's scopes.
_TURNS: WeakKeyDictionary[psycopg.Connection[Any], Lock] = WeakKeyDictionary()
_TURNS_LOCK = Lock()


def join(
    acl: VectorACL, principal: Principal, connection: Any, *, actions: Iterable[Action] | None = None
) -> ScopedRetriever:
    """Return a handle whose every statement runs on *connection*, inside the transaction that is open there.

    *connection* is a psycopg 3 connection, an SQLAlchemy `Connection` or `Session` over psycopg, or a Django
    connection over psycopg 3. Each operation sets the scope for its own statements, in a savepoint, and restores what
    was set before, also when it fails; nothing is ever committed or rolled back beyond that savepoint.

    Policy is asked, and decisions are recorded, as by `acl.scoped`. Raises: InvalidInputError for another kind of
    connection; RefusedError where no transaction is open (autocommit) or the open one has failed, and for writes in
    another isolation level than READ COMMITTED; PostureError where the role of the connection goes around row-level
    security.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError(f"join() takes a VectorACL, not {type(acl).__name__}.", field="acl")
    handle = acl.scoped(principal, actions=actions)
    _raw(connection)
    return handle.driven_by(_Joined(acl, connection))


def _raw(connection: Any) -> psycopg.Connection[Any]:
    """Return the psycopg connection inside of *connection*. Raises: InvalidInputError."""
    found = connection
    for kind in type(connection).__mro__:
        module = kind.__module__.partition(".")[0]
        if module == "sqlalchemy":
            if hasattr(found, "get_bind"):
                found = found.connection()  # a Session: the Connection of its transaction
            found = found.connection.driver_connection
            break
        if module == "django":
            found.ensure_connection()
            if not found.in_atomic_block and found.get_autocommit():
                raise RefusedError("The Django connection is in autocommit mode: use it inside transaction.atomic().")
            found = found.connection
            break
    if not isinstance(found, psycopg.Connection):
        raise InvalidInputError(
            f"join() takes a psycopg 3, SQLAlchemy or Django connection over psycopg 3, "
            f"not {type(connection).__name__}.",
            field="connection",
        )
    return found


class _Joined:
    """Drives a handle's flows with the store's port on the caller's connection."""

    def __init__(self, acl: VectorACL, connection: Any) -> None:
        self._acl = acl
        self._connection = connection

    def run(self, store: Store, flow: Flow[T], timeout: float | None) -> T:
        # Looked up each time: a framework gives its connection back, and then it serves somebody else's transaction.
        ports: dict[str, Port] = dict.fromkeys(CORE_PORTS, self._acl.core_port)
        ports["store"] = JoinedPort(self._raw(), store)
        return run(flow, ports, timeout=timeout)

    @apart
    def _raw(self) -> psycopg.Connection[Any]:
        try:
            return _raw(self._connection)
        except VectorACLError:
            raise
        except Exception as error:  # noqa: BLE001 - the framework's own
            raise RefusedError(f"The connection cannot be used any more ({type(error).__name__}).") from None


class JoinedPort:
    """Performs requests on a connection that is not ours, inside its open transaction."""

    parallel = 1

    def __init__(self, connection: psycopg.Connection[Any], store: Store) -> None:
        self._connection = connection
        extension = getattr(store.adapter, "extension", None)
        if not isinstance(extension, Extension):
            raise RefusedError("join() needs a store of the pgvector adapter.")
        self._extension = extension
        self._names = Names.of(extension.config)

    def close(self) -> None:
        """Nothing of this is ours to close."""

    @apart
    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* in a savepoint. Raises: RefusedError, PostureError, StoreError."""
        if not isinstance(request, Transaction):
            raise RefusedError("This operation needs connections of its own; use acl.scoped().")
        with _TURNS_LOCK:
            turn = _TURNS.setdefault(self._connection, Lock())
        with turn:
            return self._alone(request, timeout)

    @apart
    def _alone(self, request: Transaction, timeout: float | None) -> Any:
        self._check()
        try:
            check_encoding(self._connection)
            return self._perform(request, timeout)
        except Exception as error:  # noqa: BLE001 - every error of the client is wrapped here
            raise mapped(error, debug=False) from None

    def _check(self) -> None:
        status = self._connection.info.transaction_status
        if status == TransactionStatus.INERROR:
            raise RefusedError("The transaction on this connection has failed; roll it back first.")
        if status not in (TransactionStatus.INTRANS, TransactionStatus.IDLE):
            raise RefusedError("The connection is busy or broken.")
        if status == TransactionStatus.IDLE and self._connection.autocommit:
            raise RefusedError(
                "The connection is in autocommit mode without a transaction: open one, for example with "
                "`with connection.transaction():`."
            )

    def _perform(self, request: Transaction, timeout: float | None) -> tuple[Any, ...]:
        names = self._names
        settings = settings_of(request, timeout)
        setting = settings_statement(settings)
        wanted = [name for name, _ in settings]
        reads = ", ".join("pg_catalog.current_setting(%s, true)" for _ in wanted)
        # NULL resets a setting to its default, for those that did not exist before.
        restore = ", ".join("pg_catalog.set_config(%s, %s::text, true)" for _ in wanted)
        replies: list[Any] = []
        # First a statement of the caller's own transaction: psycopg opens it here if none is open yet, so that the
        # block below is a savepoint in it, and not a transaction that would be committed at its end.
        with self._cursor() as first:
            bypass = first.execute(_BYPASS, (names.table,), prepare=False).fetchone()
        if bypass is None or bypass[0] is not False:
            raise PostureError(
                "The role of this connection goes around row-level security (SUPERUSER, BYPASSRLS, or a member of the "
                "table's owner). Connect as the runtime role."
            )
        if not request.read_only and bypass[1] != "read committed":
            # A snapshot from before the document's lock does not show the generation that others have written since.
            raise RefusedError(
                f"The transaction is {bypass[1].upper()}; writes in it could mix two generations of a document. "
                "Use READ COMMITTED, or write by acl.scoped()."
            )
        # The savepoint undoes a failed statement and its settings, so that the caller's transaction stays usable.
        with self._connection.transaction(), self._cursor() as plain:
            before = plain.execute(f"SELECT {reads}", wanted, prepare=False).fetchone() or ()
            plain.execute(setting.sql, setting.params, prepare=False)
            asked = self._extension.asked()
            oid = self._extension.learn(plain.execute(asked.sql, asked.params, prepare=False).fetchall())
            for statement in request.statements:
                if statement.since > self._connection.info.server_version:
                    replies.append([])
                    continue
                with self._cursor(binary=statement.binary) as cursor:
                    adapt(cursor, oid)
                    cursor.execute(statement.sql, statement.params or None, prepare=False)
                    replies.append(cursor.fetchall() if statement.rows else cursor.rowcount)
            values = [part for name, value in zip(wanted, before, strict=True) for part in (name, value)]
            plain.execute(f"SELECT {restore}", values, prepare=False)
        return tuple(replies)

    def _cursor(self, *, binary: bool = False) -> psycopg.Cursor[tuple[Any, ...]]:
        """A cursor of psycopg's own kind: frameworks set others, which bind in the client and know no binary form."""
        cursor = psycopg.Cursor(self._connection, row_factory=tuple_row)
        cursor.format = Format.BINARY if binary else Format.TEXT
        return cursor
