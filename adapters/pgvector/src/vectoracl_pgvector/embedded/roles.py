"""The roles and the database of an embedded server."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
from psycopg import sql

_ROLES = {
    "owner": "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT",
    "runtime": "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT",
}


def create_roles(connection: psycopg.Connection[tuple[object, ...]], password: Callable[[str], str]) -> None:
    """Create or reset `vectoracl_owner` and `vectoracl_runtime`, as the bootstrap role. Can be repeated.

    Only a SCRAM verifier is sent, so that no password can appear in the server's log.
    """
    for role, attributes in _ROLES.items():
        name = f"vectoracl_{role}"
        role_exists = connection.execute("SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = %s", [name]).fetchone()
        verifier = connection.pgconn.encrypt_password(password(role).encode(), name.encode(), b"scram-sha-256")
        connection.execute(
            sql.SQL("{verb} ROLE {name} {attributes} PASSWORD {verifier}").format(
                verb=sql.SQL("ALTER" if role_exists else "CREATE"),
                name=sql.Identifier(name),
                attributes=sql.SQL(attributes),
                verifier=sql.Literal(verifier.decode()),
            )
        )
    for database in ("postgres", "template1"):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))


def create_database(dsn: Callable[[str], str], name: str) -> None:
    """Create the database *name* with the extension `vector` and the schema `vectoracl`. Can be repeated.

    The owner role owns database and schema; the runtime role may connect and owns nothing.

    Args:
        dsn: Maps a database's name to the bootstrap role's connection string.
        name: The database's name.
    """
    identifier, owner = sql.Identifier(name), sql.Identifier("vectoracl_owner")
    with psycopg.connect(dsn("postgres"), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_catalog.pg_database WHERE datname = %s", [name]).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(identifier, owner))
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(identifier))
        connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO vectoracl_runtime").format(identifier))
    with psycopg.connect(dsn(name), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector WITH SCHEMA public")
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS vectoracl AUTHORIZATION {}").format(owner))
