"""Connection arguments, and checks of a connection before the first statement is sent on it."""

from __future__ import annotations

import math
import os
import re
from typing import Any

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig

Pool = ConnectionPool[Any] | AsyncConnectionPool[Any]
_ARGUMENTS: dict[str, Any] = {"autocommit": True, "prepare_threshold": None}


def connect_arguments(dsn: str, config: PgvectorConfig) -> dict[str, Any]:
    """Return libpq arguments that the dsn does not set: an application name, and timeouts for a lost server."""
    dsn_parameters = psycopg.conninfo.conninfo_to_dict(dsn)
    defaults = {
        "application_name": "vectoracl",
        "connect_timeout": max(2, math.ceil(config.connect_timeout)),
        "tcp_user_timeout": 30_000,
    }
    # Arrays are sent in binary, in UTF-8, so neither PGCLIENTENCODING nor a role's setting may change the encoding.
    return {
        **_ARGUMENTS,
        **{key: value for key, value in defaults.items() if key not in dsn_parameters},
        "client_encoding": "UTF8",
    }


def session_arguments(dsn: str, config: PgvectorConfig, **settings: str) -> dict[str, Any]:
    """Return `connect_arguments` with *settings* for the whole session, for connections that are never shared.

    They are added to the options of the dsn, or of PGOPTIONS if it has none. A pooler may reject them.
    """
    arguments = connect_arguments(dsn, config)
    dsn_options = psycopg.conninfo.conninfo_to_dict(dsn).get("options") or os.environ.get("PGOPTIONS", "")
    ours = " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())
    return {**arguments, "options": f"{dsn_options} {ours}".strip()}


def _escaped(value: str) -> str:
    """Return *value* with backslashes and white space escaped, as the server splits options at white space."""
    return re.sub(r"([\\\s])", r"\\\1", value)


def check_encoding(connection: Connection[Any] | AsyncConnection[Any]) -> None:
    """Refuse a connection of the application's whose encoding is not UTF-8, in which values are sent."""
    if connection.info.encoding != "utf-8":
        raise RefusedError("The client_encoding of this connection is not UTF8, in which the adapter sends its values.")


def connect_errors(pool: Pool) -> int:
    """Return the number of failed connects of *pool*."""
    return pool.get_stats().get("connections_errors", 0)
