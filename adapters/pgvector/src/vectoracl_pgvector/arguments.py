"""What a connection has to be given, and has to be, before anything of ours is sent on it."""

from __future__ import annotations

import math
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig

Pool = ConnectionPool[Any] | AsyncConnectionPool[Any]
_ARGUMENTS: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}


def connect_arguments(dsn: str, config: PgvectorConfig) -> dict[str, Any]:
    """Return libpq's arguments that the dsn does not give: a name, and limits for a server that went away."""
    given = psycopg.conninfo.conninfo_to_dict(dsn)
    wanted = {
        "application_name": "vectoracl",
        "connect_timeout": max(2, math.ceil(config.connect_timeout)),
        "tcp_user_timeout": 30_000,
    }
    # Arrays are sent in binary, in UTF-8; neither PGCLIENTENCODING nor a role's setting may have them read otherwise.
    return {
        **_ARGUMENTS,
        **{key: value for key, value in wanted.items() if key not in given},
        "client_encoding": "UTF8",
    }


def check_encoding(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    """Refuse a connection of the application's that would read what we send, UTF-8, as something else."""
    if connection.info.encoding != "utf-8":
        raise RefusedError("The client_encoding of this connection is not UTF8, which is what the adapter sends.")


def connect_errors(pool: Pool) -> int:
    """Return how often *pool* has failed to connect so far."""
    return pool.get_stats().get("connections_errors", 0)
