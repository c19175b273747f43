"""The client's errors as ours: whether anything was sent, and never PostgreSQL's own text, which quotes rows."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from vectoracl.errors import ClosedError, DeniedError, PostureError, StoreError, VectorACLError, caused
from vectoracl.prepare import stored_form
from vectoracl_pgvector.compile_predicate import FOREIGN_FORM
from vectoracl_pgvector.liveness import HungUpError
from vectoracl_pgvector.mirror import CONSTRAINT

ADAPTER = "pgvector"
_FOREIGN_FORM = re.compile(f"{FOREIGN_FORM}((?:[0-9a-f]{{2}})+)")
_TRANSIENT = ("08", "53", "57P", "40001", "40P01", "25006")
P = ParamSpec("P")
R = TypeVar("R")


def apart(function: Callable[P, R]) -> Callable[P, R]:
    """Raise the errors of *function* without the client's own one in their chain.

    `from None` keeps Python from printing it; what collects errors walks the chain all the same, and psycopg's errors
    hold the state of their connection, password included.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except VectorACLError as error:
            failed = error
        if failed.__cause__ is None:
            failed.__context__ = None
        raise failed

    return call


def mapped(error: BaseException, *, debug: bool, action: str = "write") -> VectorACLError:
    """Return *error* as ours. PostgreSQL's text quotes rows and filters, so it is a cause only with *debug*.

    Raise it after the `except` block, or under `apart`: in it Python attaches *error* as its `__context__`.
    """
    if isinstance(error, VectorACLError):
        return error
    return caused(_mapped(error, action), error, debug=debug)


def _mapped(error: BaseException, action: str) -> VectorACLError:
    if isinstance(error, PoolTimeout):
        text = "No connection became free in time. Raise pool_max, or find what holds the connections."
        return StoreError(text, code="pool_timeout", adapter=ADAPTER, sent="no")
    if isinstance(error, PoolClosed):
        return ClosedError("The connection pool was closed.")
    if isinstance(error, TimeoutError | HungUpError):
        return StoreError("PostgreSQL did not answer in time.", code="timeout", adapter=ADAPTER)
    state = getattr(error, "sqlstate", None)
    if state is None:
        # A connection that is lost while results are read comes as the bare DatabaseError, without a SQLSTATE.
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
        if lost or type(error) is psycopg.DatabaseError:
            text = "The connection to PostgreSQL was lost or could not be made."
            return StoreError(text, code="unavailable", adapter=ADAPTER, retryable=True)
        if isinstance(error, psycopg.DataError | psycopg.ProgrammingError | ValueError | TypeError):
            return StoreError("A value could not be sent to PostgreSQL.", code="bad_value", adapter=ADAPTER, sent="no")
        return StoreError(f"The PostgreSQL client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)
    match state:
        case "22012":
            return DeniedError("The write touches a chunk outside of what this handle may write.", action=action)
        case "57014":
            return StoreError(
                "PostgreSQL stopped the statement at its time limit.", code="timeout", adapter=ADAPTER, sent="no"
            )
        case "42501":
            text = "PostgreSQL refused the statement: row-level security or a missing privilege. Run `vectoracl check`."
            return StoreError(text, code="rejected", adapter=ADAPTER, sent="no")
        case "23514" if getattr(getattr(error, "diag", None), "constraint_name", None) == CONSTRAINT:
            text = (
                "This tenant is moved to another partition now. If it stays so, the move was broken off in its last "
                "moment: `vectoracl tenants list` ends what is left of one."
            )
            return StoreError(text, code="moving", adapter=ADAPTER, sent="no", retryable=True)
        case "22P02" if (field := foreign_form(error)) is not None:
            made = stored_form(field)
            made.adapter = ADAPTER
            return made
        case "54000":
            text = (
                "A text has more words than PostgreSQL's full text search keeps of one (1 MB of them), and nothing was "
                "written. Split the chunk, or set lexical = false for this store."
            )
            return StoreError(text, code="too_large", adapter=ADAPTER, sent="no")
        case "42602":  # "hnsw" is a reserved prefix: the server's pgvector has no setting of that name
            text = (
                "The server's pgvector lacks a setting that every search uses (iterative scans, since 0.8.0). Install "
                "pgvector 0.8.4 or later on the server, then, as the extension's owner: ALTER EXTENSION vector UPDATE; "
                "`vectoracl check` shows the version that is in use."
            )
            return StoreError(text, code="pgvector_version", adapter=ADAPTER, sent="no")
        case "42P01" | "3F000" | "42703" | "42704" | "42883":
            text = "The schema is not what this configuration expects. Run `vectoracl provision`."
            return StoreError(text, code="not_provisioned", adapter=ADAPTER, sent="no")
    if state.startswith(_TRANSIENT):
        lost = state.startswith(("08", "57P"))
        text = f"PostgreSQL is not able to serve this now (SQLSTATE {state})."
        return StoreError(text, code="unavailable", adapter=ADAPTER, sent="unknown" if lost else "no", retryable=True)
    text = f"PostgreSQL reported SQLSTATE {state}. Nothing was changed."
    return StoreError(text, code=f"sqlstate:{state}", adapter=ADAPTER, sent="no")


def foreign_form(error: BaseException) -> str | None:
    """Return the datetime field whose stored text a statement could not compare (`compile_predicate`), or None."""
    said = _FOREIGN_FORM.search(getattr(getattr(error, "diag", None), "message_primary", None) or "")
    return None if said is None else bytes.fromhex(said[1]).decode()


def unreachable(dsn: str, error: BaseException, *, debug: bool) -> VectorACLError:
    """Return the error of a first contact that failed: where to, and never the password."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.Error:
        parts = {}
        text = "The dsn is no valid connection string of PostgreSQL (postgresql://user@host/database)."
    else:
        where = ", ".join(f"{key}={parts[key]}" for key in ("host", "port", "dbname", "user") if parts.get(key))
        text = (
            f"PostgreSQL did not accept a connection ({where or 'defaults of libpq'}). Check that the server runs "
            "there and that database, user and password are right."
        )
    return caused(StoreError(text, code="unreachable", adapter=ADAPTER, sent="no"), error, debug=debug)


def interrupted(error: BaseException) -> bool:
    """Tell whether *error* came up while psycopg ended a statement because of Ctrl-C, which must not be lost."""
    seen: BaseException | None = error
    for _ in range(8):
        if seen is None:
            return False
        if isinstance(seen, KeyboardInterrupt):
            return True
        seen = seen.__context__
    return False


def no_connection() -> StoreError:
    """Return the error of a request for which no connection could be made."""
    text = "The connection to PostgreSQL was lost and no new one could be made in time."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no")


def refused_pooler() -> PostureError:
    """Return the error of a pooler that takes transactions apart."""
    return PostureError(
        "The pooler does not allow transactions (PgBouncer in statement mode), so a scope cannot be set. "
        "Set pool_mode = transaction."
    )
