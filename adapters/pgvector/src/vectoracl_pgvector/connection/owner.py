"""Connections that act as the owner: as the owner itself, or as a stronger role that switches to it.

`owner_dsn` may name a superuser or the administrator of a managed server. Such a connection is opened again as the
owner's (`SET ROLE`, by a start-up option, so that it can neither be forgotten nor stay on a pooler's connection): the
policies bind the owner but would not bind a superuser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

from vectoracl.errors import ConfigError, without_context
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.connection.arguments import connect_arguments, session_arguments
from vectoracl_pgvector.connection.connect_failures import cause_of, connect_failed

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class ConnectedRole:
    """The role of a connection, whether it may create roles, and whether it may become the owner."""

    role: str
    may_create_roles: bool
    owner_exists: bool
    may_become: bool


@without_context
def connect(dsn: str, config: PgvectorConfig, **settings: str) -> Connection:
    """Connect in autocommit mode, without just-in-time compilation.

    Args:
        dsn: The connection string.
        config: The store's configuration.
        settings: Settings for the session. Without any, a pooler that rejects start-up options is used without them.

    Raises:
        StoreError: The connection failed.
    """
    try:
        try:
            return psycopg.connect(dsn, **session_arguments(dsn, config, jit="off", **settings))
        except psycopg.OperationalError as error:
            if settings or cause_of(error).code != "startup_parameter":
                raise
        return psycopg.connect(dsn, **connect_arguments(dsn, config))
    except (psycopg.Error, OSError) as error:
        raise connect_failed(dsn, error, debug=False) from None


def identity_of(connection: Connection, config: PgvectorConfig) -> ConnectedRole:
    """Return the role of *connection* and what it may become."""
    # Up to PostgreSQL 15 every member may SET ROLE; since 16 that is a separate option of the membership.
    right = "SET" if connection.info.server_version >= 160_000 else "MEMBER"
    row = connection.execute(
        "SELECT me.rolname::text, me.rolsuper OR me.rolcreaterole, there.oid IS NOT NULL, "
        "there.oid IS NOT NULL AND pg_catalog.pg_has_role(me.oid, there.oid, %s) FROM pg_catalog.pg_roles AS me "
        "LEFT JOIN pg_catalog.pg_roles AS there ON there.rolname = %s WHERE me.rolname = current_user",
        (right, config.owner_role),
    ).fetchone()
    assert row is not None
    return ConnectedRole(*row)


def connect_owner(dsn: str, config: PgvectorConfig) -> Connection:
    """Connect as the owner, or as a role that may become the owner, and become it.

    Raises:
        ConfigError: The role of `owner_dsn` is not the owner and may not become it.
        StoreError: The connection failed.
    """
    connection = connect(dsn, config)
    try:
        connected = identity_of(connection, config)
    except BaseException:
        connection.close()
        raise
    if connected.role == config.owner_role:
        return connection
    connection.close()
    if not connected.may_become:
        missing = "" if connected.owner_exists else ", which does not exist"
        raise ConfigError(
            f"owner_dsn connects as {connected.role!r}, and owner_role is {config.owner_role!r}{missing}. Connect as "
            f'that role; or as one that may become it (GRANT "{config.owner_role}" TO "{connected.role}"); or set '
            f'owner_role = "{connected.role}". `vectoracl provision --sql` prints the SQL that creates the roles.'
        )
    return connect(dsn, config, role=config.owner_role)
