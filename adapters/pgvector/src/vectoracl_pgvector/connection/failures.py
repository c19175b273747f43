"""Maps client errors to vectoracl errors that state whether anything was sent.

PostgreSQL's messages quote rows, so they never become part of an error; the original is chained only with
`debug_errors`.
"""

from __future__ import annotations

import re

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from vectoracl.adapter_api.chunk_validation import stored_form
from vectoracl.adapter_api.versions import RIGHTS_CHANGED as CHANGED
from vectoracl.errors import ClosedError, DeniedError, PostureError, StoreError, VectorACLError, caused
from vectoracl_pgvector.compile_predicate import FOREIGN_FORM
from vectoracl_pgvector.connection.limits import limit_error
from vectoracl_pgvector.connection.liveness import HungUpError
from vectoracl_pgvector.connection.sqlstates import ADAPTER, error_for_sqlstate
from vectoracl_pgvector.names import CONSTRAINT, RIGHTS_CHANGED

_FOREIGN_FORM = re.compile(f"{FOREIGN_FORM}((?:[0-9a-f]{{2}})+)")


def mapped(error: BaseException, *, debug: bool, action: str = "write", writes: bool = True) -> VectorACLError:
    """Map *error* to a vectoracl error.

    Raise the result after the `except` block, or under `without_context`: inside the block Python attaches *error* as
    its `__context__`.

    Args:
        error: The client's error, or a vectoracl error, which is returned as it is.
        debug: Chain *error* as the cause. Its text can quote rows and filters.
        action: The action for a DeniedError.
        writes: Whether the transaction could write.
    """
    if isinstance(error, VectorACLError):
        return error
    return caused(_mapped(error, action, writes=writes), error, debug=debug)


def _mapped(error: BaseException, action: str, *, writes: bool) -> VectorACLError:
    if isinstance(error, PoolTimeout):
        text = "No connection became free in time. Raise pool_max, or find out what holds the connections."
        return StoreError(text, code="pool_timeout", adapter=ADAPTER, sent="no")
    if isinstance(error, PoolClosed):
        return ClosedError("The connection pool was closed.")
    if isinstance(error, TimeoutError | HungUpError):
        return StoreError("PostgreSQL did not answer in time.", code="timeout", adapter=ADAPTER)
    state = getattr(error, "sqlstate", None)
    if state is None:
        # A connection that is lost while results are read raises the bare DatabaseError, without a SQLSTATE.
        lost = isinstance(error, psycopg.OperationalError | psycopg.InterfaceError | OSError)
        if lost or type(error) is psycopg.DatabaseError:
            text = "The connection to PostgreSQL was lost or could not be established."
            return StoreError(text, code="unavailable", adapter=ADAPTER, retryable=True)
        if isinstance(error, psycopg.DataError | psycopg.ProgrammingError | ValueError | TypeError):
            return StoreError("A value could not be sent to PostgreSQL.", code="bad_value", adapter=ADAPTER, sent="no")
        return StoreError(f"The PostgreSQL client failed ({type(error).__name__}).", code="client", adapter=ADAPTER)
    diag = getattr(error, "diag", None)
    match state:
        case "22012":
            return DeniedError("The write touches a chunk that this handle may not write.", action=action)
        case "23514" if getattr(diag, "constraint_name", None) == CONSTRAINT:
            text = (
                "This tenant is being moved to another partition. If this error persists, the move was interrupted "
                "in its last step: `vectoracl tenants list` cleans up after it."
            )
            return StoreError(text, code="moving", adapter=ADAPTER, sent="no", retryable=True)
        case "22P02" if RIGHTS_CHANGED in (getattr(diag, "message_primary", None) or ""):
            text = "Rights changed before the rows were read, so nothing was returned. Try again."
            return StoreError(text, code=CHANGED, adapter=ADAPTER, sent="no")
        case "22P02" if (field := foreign_form(error)) is not None:
            stored_form_error = stored_form(field)
            stored_form_error.adapter = ADAPTER
            return stored_form_error
    if state.startswith("54"):
        return limit_error(state, getattr(diag, "source_file", None), writes=writes, adapter=ADAPTER)
    return error_for_sqlstate(state)


def foreign_form(error: BaseException) -> str | None:
    """Return the datetime field whose stored text a statement could not compare (`compile_predicate`), or None."""
    match = _FOREIGN_FORM.search(getattr(getattr(error, "diag", None), "message_primary", None) or "")
    return None if match is None else bytes.fromhex(match[1]).decode()


def interrupted(error: BaseException) -> bool:
    """Return whether *error* occurred while psycopg cancelled a statement because of Ctrl-C, which must not be lost."""
    current: BaseException | None = error
    for _ in range(8):
        if current is None:
            return False
        if isinstance(current, KeyboardInterrupt):
            return True
        current = current.__context__
    return False


def no_connection(refusal: StoreError | None = None) -> StoreError:
    """Return the error of a request that got no connection; *refusal* is the reason, if known.

    A server that cannot be reached is "unavailable" during use, and may be back at the next attempt. A server that
    answers with a refusal keeps the refusal's code.
    """
    if refusal is not None and refusal.code != "unreachable":
        return StoreError(refusal.message, code=refusal.code, adapter=ADAPTER, sent="no", retryable=refusal.retryable)
    text = "The connection to PostgreSQL was lost and no new one could be established in time."
    return StoreError(text, code="unavailable", adapter=ADAPTER, sent="no")


def refused_pooler() -> PostureError:
    """Return the error of a pooler that splits transactions."""
    return PostureError(
        "The pooler does not allow transactions (PgBouncer in statement mode), so a scope cannot be set. "
        "Set pool_mode = transaction."
    )
