"""Finds the psycopg connection inside the object that an application passes to `join`."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import psycopg

from vectoracl.errors import InvalidInputError, RefusedError

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

# Classes that open connections and have no transaction, by package and name: none of these libraries is required.
_SUGGESTIONS: Final = {
    ("sqlalchemy", "Engine"): "with engine.begin() as connection: join(acl, principal, connection)",
    ("sqlalchemy", "AsyncEngine"): "async with engine.begin() as connection: join(acl, principal, connection)",
    ("sqlalchemy", "sessionmaker"): "with maker.begin() as session: join(acl, principal, session)",
    ("sqlalchemy", "async_sessionmaker"): "async with maker.begin() as session: join(acl, principal, session)",
    ("sqlalchemy", "Pool"): "with engine.begin() as connection: join(acl, principal, connection)",
    ("psycopg_pool", "ConnectionPool"): "with pool.connection() as connection: join(acl, principal, connection)",
    ("psycopg_pool", "AsyncConnectionPool"): (
        "async with pool.connection() as connection: join(acl, principal, connection)"
    ),
}


def class_names(connection: Any) -> set[tuple[str, str]]:
    """Return the names of the classes of *connection*, each with its top-level package."""
    return {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(connection).__mro__}


def check_kind(connection: Any, *, is_async: bool) -> None:
    """Refuse objects that open connections, and a mix of sync and async. Raises: InvalidInputError."""
    names = class_names(connection)
    for kind, suggestion in _SUGGESTIONS.items():
        if kind in names:
            raise InvalidInputError(
                f"join() works inside an open transaction, and {'an' if kind[1][0] in 'AEa' else 'a'} {kind[1]} opens "
                f"connections. Pass a connection or session: {suggestion}.",
                field="connection",
            )
    asyncs = {
        ("psycopg", "AsyncConnection"), ("sqlalchemy", "AsyncConnection"), ("sqlalchemy", "AsyncSession"),
        ("sqlalchemy", "async_scoped_session"),
    }  # fmt: skip
    of_async = bool(names & asyncs)
    if of_async and not is_async:
        refuse_async_mismatch(connection, "async connections need an AsyncVectorACL: acl = vectoracl.aconnect(config)")
    if is_async and not of_async:
        if isinstance(connection, psycopg.Connection) or {package for package, _ in names} & {"sqlalchemy", "django"}:
            refuse_async_mismatch(connection, "sync connections need a VectorACL: acl = vectoracl.connect(config)")
        refuse(connection, is_async=True)


def refuse(connection: Any, *, is_async: bool) -> NoReturn:
    """Raise an InvalidInputError that lists the accepted connections."""
    accepted = "psycopg 3 or SQLAlchemy async" if is_async else "psycopg 3, SQLAlchemy or Django"
    raise InvalidInputError(
        f"join() takes a {accepted} connection over psycopg 3, not {type(connection).__name__}.", field="connection"
    )


def refuse_async_mismatch(connection: Any, suggestion: str) -> NoReturn:
    """Raise an InvalidInputError for an async connection with a sync client, or a sync one with an async client."""
    raise InvalidInputError(f"join() cannot use {type(connection).__name__} here: {suggestion}.", field="connection")


def raw(connection: Any) -> psycopg.Connection[Any]:
    """Return the psycopg connection inside of *connection*. Raises: InvalidInputError, RefusedError."""
    check_kind(connection, is_async=False)
    inner, packages = connection, {package for package, _ in class_names(connection)}
    if "sqlalchemy" in packages:
        if hasattr(inner, "get_bind"):
            inner = inner.connection()  # a Session: the Connection of its transaction
        if not hasattr(inner, "driver_connection"):  # which Engine.raw_connection() has itself
            inner = getattr(inner, "connection", None)
        inner = getattr(inner, "driver_connection", None)
    elif "django" in packages and hasattr(inner, "ensure_connection"):
        inner.ensure_connection()
        if not inner.in_atomic_block and inner.get_autocommit():
            raise RefusedError("The Django connection is in autocommit mode: use it inside transaction.atomic().")
        inner = inner.connection
    if isinstance(inner, psycopg.AsyncConnection):
        refuse_async_mismatch(connection, "async connections need an AsyncVectorACL: acl = vectoracl.aconnect(config)")
    if not isinstance(inner, psycopg.Connection):
        refuse(connection, is_async=False)
    return inner


async def araw(connection: Any) -> psycopg.AsyncConnection[Any]:
    """Return the psycopg AsyncConnection inside of *connection*. Raises: InvalidInputError."""
    check_kind(connection, is_async=True)
    inner = connection
    if "sqlalchemy" in {package for package, _ in class_names(connection)}:
        if hasattr(inner, "get_bind"):
            inner = await inner.connection()
        inner = (await inner.get_raw_connection()).driver_connection
    if not isinstance(inner, psycopg.AsyncConnection):
        refuse(connection, is_async=True)
    return inner
