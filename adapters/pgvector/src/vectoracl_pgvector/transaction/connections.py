"""The psycopg connection inside of what an application passes to `join`."""

from __future__ import annotations

from typing import Any, Final, NoReturn

import psycopg

from vectoracl.errors import InvalidInputError, RefusedError

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

# What opens connections has no transaction; by the module and the class, as none of these libraries has to be there.
_CURES: Final = {
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


def kinds(connection: Any) -> set[tuple[str, str]]:
    """Return the classes of *connection*, each with the top package that it comes from."""
    return {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(connection).__mro__}


def check_kind(connection: Any, *, is_async: bool) -> None:
    """Refuse what opens connections, and the other colour of what is one. Raises: InvalidInputError."""
    found = kinds(connection)
    for kind, cure in _CURES.items():
        if kind in found:
            raise InvalidInputError(
                f"join() works inside an open transaction, and {'an' if kind[1][0] in 'AEa' else 'a'} {kind[1]} opens "
                f"connections. Pass a connection or session: {cure}.",
                field="connection",
            )
    asyncs = {
        ("psycopg", "AsyncConnection"), ("sqlalchemy", "AsyncConnection"), ("sqlalchemy", "AsyncSession"),
        ("sqlalchemy", "async_scoped_session"),
    }  # fmt: skip
    of_async = bool(found & asyncs)
    if of_async and not is_async:
        refuse_colour(connection, "async connections need an AsyncVectorACL: acl = vectoracl.aconnect(config)")
    if is_async and not of_async:
        if isinstance(connection, psycopg.Connection) or {name for name, _ in found} & {"sqlalchemy", "django"}:
            refuse_colour(connection, "sync connections need a VectorACL: acl = vectoracl.connect(config)")
        refuse(connection, is_async=True)


def refuse(connection: Any, *, is_async: bool) -> NoReturn:
    """Raise: InvalidInputError that names what can be passed."""
    wanted = "psycopg 3 or SQLAlchemy async" if is_async else "psycopg 3, SQLAlchemy or Django"
    raise InvalidInputError(
        f"join() takes a {wanted} connection over psycopg 3, not {type(connection).__name__}.", field="connection"
    )


def refuse_colour(connection: Any, cure: str) -> NoReturn:
    """Raise: InvalidInputError for an async connection with a sync acl, or the other way round."""
    raise InvalidInputError(f"join() cannot use {type(connection).__name__} here: {cure}.", field="connection")


def raw(connection: Any) -> psycopg.Connection[Any]:
    """Return the psycopg connection inside of *connection*. Raises: InvalidInputError, RefusedError."""
    check_kind(connection, is_async=False)
    found, packages = connection, {package for package, _ in kinds(connection)}
    if "sqlalchemy" in packages:
        if hasattr(found, "get_bind"):
            found = found.connection()  # a Session: the Connection of its transaction
        if not hasattr(found, "driver_connection"):  # which Engine.raw_connection() has itself
            found = getattr(found, "connection", None)
        found = getattr(found, "driver_connection", None)
    elif "django" in packages and hasattr(found, "ensure_connection"):
        found.ensure_connection()
        if not found.in_atomic_block and found.get_autocommit():
            raise RefusedError("The Django connection is in autocommit mode: use it inside transaction.atomic().")
        found = found.connection
    if isinstance(found, psycopg.AsyncConnection):
        refuse_colour(connection, "async connections need an AsyncVectorACL: acl = vectoracl.aconnect(config)")
    if not isinstance(found, psycopg.Connection):
        refuse(connection, is_async=False)
    return found


async def araw(connection: Any) -> psycopg.AsyncConnection[Any]:
    """Return the psycopg AsyncConnection inside of *connection*. Raises: InvalidInputError."""
    check_kind(connection, is_async=True)
    found = connection
    if "sqlalchemy" in {package for package, _ in kinds(connection)}:
        if hasattr(found, "get_bind"):
            found = await found.connection()
        found = (await found.get_raw_connection()).driver_connection
    if not isinstance(found, psycopg.AsyncConnection):
        refuse(connection, is_async=True)
    return found
