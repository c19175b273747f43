"""Maps failed connection attempts to errors that name their cause.

libpq does not expose the SQLSTATE of a rejected start-up, so the cause is read from its message, which is in English
(the wheels contain no translations). The server's part of the message may be in another language. It is recognised by
its form (`SEVERITY:  message`, with two spaces): then the server has answered, whatever the text is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg.errors import ConnectionTimeout

from vectoracl.errors import StoreError, VectorACLError, caused
from vectoracl_pgvector.connection.failures import mapped
from vectoracl_pgvector.connection.liveness import HungUpError
from vectoracl_pgvector.connection.sqlstates import ADAPTER


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause: the error's code, its text (`{where}` is the server's address), and whether a retry may help."""

    code: str
    text: str
    retryable: bool = False


_BAD_DSN: Final = Cause(
    "bad_dsn",
    "The dsn is not a valid PostgreSQL connection string (postgresql://user@host/database). In a password, write @, / "
    "and % as %40, %2F and %25.",
)
_TIMEOUT: Final = Cause(
    "unreachable",
    "PostgreSQL did not answer in time ({where}). Check the host and the port, and whether a firewall drops the "
    "packets; connect_timeout sets how long to wait.",
)
_ANSWERED: Final = Cause(
    "rejected",
    "PostgreSQL answered and refused the connection ({where}). Check the user, the password, the database and the "
    "server's pg_hba.conf; the server's log has the reason.",
)
_NO_ANSWER: Final = Cause(
    "unreachable",
    "The connection was closed before PostgreSQL answered ({where}). Check that PostgreSQL listens there, "
    "and check the server's log.",
)
# The first match counts. The server's answers come before errors of TLS and the network: of several addresses, or of
# TLS and plain text, one may have answered.
_CAUSES: Final[tuple[tuple[str, Cause], ...]] = (
    (
        r"invalid (integer )?value .* for connection option|invalid \w+ value: |definition of service .* not found"
        r"|invalid port number|invalid connection option|could not match \d+ (host|port)",
        _BAD_DSN,
    ),
    (
        r"is starting up|is shutting down|in recovery mode|not (yet )?accepting connections$|hot standby mode"
        r"|recovery state has not|server login has been failing|server conn crashed",
        Cause("unavailable", "PostgreSQL accepts no connections now: it is starting, stopping or recovering "
              "({where}). Try again.", retryable=True),
    ),
    (
        r"too many connections|connection slots|too many clients|no more connections allowed|max_client_conn"
        r"|max clients reached",
        Cause("too_many_connections", "PostgreSQL has no free connection left for this role ({where}). "
              "Lower pool_max, raise max_connections or the role's CONNECTION LIMIT, or use a pooler.",
              retryable=True),
    ),
    (
        r'database "[^\n]*" does not exist|no such database|database "[^\n]*" is not currently accepting',
        Cause("no_database", "The database does not exist, or accepts no connections ({where}). "
              "Create it (createdb), or correct the dsn."),
    ),
    (
        r"permission denied for database",
        Cause("permission", "The role may not connect to this database ({where}). As the "
              "database's owner: GRANT CONNECT ON DATABASE … TO the role."),
    ),
    (
        r"pg_hba\.conf",
        Cause("auth", "No line of PostgreSQL's pg_hba.conf permits this user from this host ({where}). Add "
              "one, or set sslmode = require in the dsn if the server accepts only encrypted connections."),
    ),
    (
        r"startup parameter|unrecognized configuration parameter|invalid value for parameter"
        r"|permission denied to set parameter|permission denied to set role",
        Cause("startup_parameter", "The server, or a pooler in front of it, refuses a start-up parameter of the "
              "connection ({where}). Remove `options` and similar parameters from the dsn and from PGOPTIONS, or "
              "let the pooler accept them (ignore_startup_parameters of PgBouncer)."),
    ),
    (
        r"no password supplied|authentication failed|authentication method|not permitted to log in"
        r'|role "[^\n]*" does not exist|user not found|no such user|SASL|SCRAM|requires a password|empty password',
        Cause("auth", "PostgreSQL refused the login ({where}). Check that the role exists, has LOGIN and "
              "a password, and that the dsn has the same one."),
    ),
    (
        r"SSL|TLS|certificate",
        Cause("tls", "The encrypted connection could not be established ({where}). Check sslmode and sslrootcert in "
        "the dsn, "
              "and the name, the issuer and the dates of the server's certificate."),
    ),
    (r"failed: [^\s:]+:  ", _ANSWERED),
    (
        r"resolve host|translate host name|[Nn]ame or service not known|nodename nor servname|getaddrinfo",
        Cause("unreachable", "The host name could not be resolved ({where}). Check its spelling in the dsn, and "
              "the DNS of this machine."),
    ),
    (
        r"Connection refused|No such file or directory",
        Cause("unreachable", "No PostgreSQL server listens at this address ({where}). Check that the server runs, "
              "that listen_addresses covers this address, and the port."),
    ),
    (r"timeout expired|timed out", _TIMEOUT),
    (
        r"No route to host|etwork is unreachable|Host is down",
        Cause("unreachable", "The host cannot be reached over the network ({where}). Check the address, the VPN "
              "and the firewall."),
    ),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(pattern, re.MULTILINE), cause) for pattern, cause in _CAUSES)


def cause_of(error: BaseException) -> Cause:
    """Return the cause of the failed connect *error*, which has no SQLSTATE."""
    if isinstance(error, psycopg.ProgrammingError):
        return _BAD_DSN
    if isinstance(error, ConnectionTimeout | TimeoutError | HungUpError):
        return _TIMEOUT
    text = str(error)
    for pattern, cause in _COMPILED:
        if pattern.search(text):
            return cause
    pgconn = getattr(error, "pgconn", None)
    return _ANSWERED if pgconn is not None and (pgconn.used_password or pgconn.needs_password) else _NO_ANSWER


def connect_failed(dsn: str, error: BaseException, *, debug: bool) -> VectorACLError:
    """Return the error of a failed first contact, with its cause and the server's address, never the password.

    An error with a SQLSTATE came after the connection was established, and is mapped as during use.
    """
    if isinstance(error, VectorACLError):
        return error
    if getattr(error, "sqlstate", None) is not None:
        return mapped(error, debug=debug, action="connect")
    return caused(refusal(dsn, error), error, debug=debug)


def refusal(dsn: str, error: BaseException) -> StoreError:
    """Return the error of a connection that could not be established, without chaining the original."""
    cause = cause_of(error)
    text = cause.text.format(where=_where(dsn))
    return StoreError(text, code=cause.code, adapter=ADAPTER, sent="no", retryable=cause.retryable)


def _where(dsn: str) -> str:
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        return "an unreadable dsn"
    parameters = ", ".join(f"{key}={parts[key]}" for key in ("host", "port", "dbname", "user") if parts.get(key))
    return parameters or "defaults of libpq"
