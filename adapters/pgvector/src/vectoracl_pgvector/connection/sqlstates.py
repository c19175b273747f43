"""Maps PostgreSQL's SQLSTATE to an error that says what to do: one table, by code and then by class.

Source: PostgreSQL documentation, appendix "PostgreSQL Error Codes". An error with a SQLSTATE came from the server, so
it is never reported as a server that could not be reached.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from vectoracl.errors import StoreError

ADAPTER: Final = "pgvector"


class _Answer(NamedTuple):
    code: str
    text: str  # `{state}` is the SQLSTATE
    retryable: bool = False
    certain: bool = True  # whether it is certain that nothing was applied


_SCHEMA: Final = _Answer(
    "not_provisioned",
    "The schema does not match this configuration (SQLSTATE {state}). Run `vectoracl provision`; "
    "`vectoracl check` shows the differences.",
)
_LOST: Final = _Answer(
    "unavailable",
    "PostgreSQL ended the connection or cannot serve now (SQLSTATE {state}). Try again; the server's log has the "
    "reason.",
    retryable=True,
    certain=False,
)
_BUSY: Final = _Answer(
    "unavailable",
    "PostgreSQL lacks a resource for this now (SQLSTATE {state}). The server's log has more.",
    retryable=True,
)
# The longest matching prefix of the SQLSTATE counts.
_TABLE: Final[dict[str, _Answer]] = {
    "08": _LOST,
    "25006": _Answer(
        "unavailable",
        "This PostgreSQL is read-only now: it is a replica, or default_transaction_read_only is on. Write to the "
        "primary.",
        retryable=True,
    ),
    "28": _Answer(
        "auth",
        "PostgreSQL refused the login (SQLSTATE {state}). Check that the role exists, has LOGIN and a password, and "
        "that the dsn has the same one.",
    ),
    "3D": _Answer("no_database", "The database does not exist (SQLSTATE {state}). Create it, or correct the dsn."),
    "3F000": _SCHEMA,
    "40001": _Answer(
        "unavailable", "PostgreSQL rolled the transaction back because of concurrent writes. Try again.", retryable=True
    ),
    "40P01": _Answer(
        "unavailable", "PostgreSQL rolled the transaction back to end a deadlock. Try again.", retryable=True
    ),
    "40003": _Answer(
        "unavailable", "PostgreSQL does not know whether the transaction was committed. Read before you repeat it.",
        certain=False,
    ),
    "42501": _Answer(
        "rejected",
        "PostgreSQL refused the statement: row-level security or a missing privilege. Run `vectoracl check`.",
    ),
    "42602": _Answer(  # "hnsw" is a reserved prefix: the server's pgvector has no setting of that name
        "pgvector_version",
        "The server's pgvector lacks a setting that every search uses (iterative scans, since 0.8.0). Install pgvector "
        "0.8.0 or later on the server, then, as the extension's owner: ALTER EXTENSION vector UPDATE; "
        "`vectoracl check` shows the version that is in use.",
    ),
    "42P01": _SCHEMA,
    "42703": _SCHEMA,
    "42704": _SCHEMA,
    "42883": _SCHEMA,
    "53": _BUSY,
    "53100": _Answer(
        "unavailable", "PostgreSQL's disk is full (SQLSTATE 53100). Nothing was changed. Free space.", retryable=True
    ),
    "53200": _Answer(
        "unavailable",
        "PostgreSQL has no memory left for this (SQLSTATE 53200). Nothing was changed. Write fewer chunks at a time, "
        "or give the server more memory.",
        retryable=True,
    ),
    "53300": _Answer(
        "too_many_connections",
        "PostgreSQL has no free connection left for this role (SQLSTATE 53300). Lower pool_max, raise max_connections "
        "or the role's CONNECTION LIMIT, or use a pooler.",
        retryable=True,
    ),
    "55P03": _Answer(
        "locked",
        "Another transaction held a lock on the table for longer than lock_timeout. Try again.",
        retryable=True,
    ),
    "57": _LOST,
    "57014": _Answer("timeout", "PostgreSQL stopped the statement at its time limit."),
    "57P03": _Answer(
        "unavailable", "PostgreSQL accepts no connections now: it is starting, stopping or recovering (SQLSTATE "
        "57P03). Try again.",
        retryable=True,
    ),
    "57P04": _Answer("no_database", "The database was dropped (SQLSTATE 57P04).", certain=False),
    "58": _Answer(
        "system", "The server's operating system reported an error, such as an unreadable file (SQLSTATE {state}). "
        "Nothing was changed. The server's log has more.",
    ),
    "P0": _Answer(
        "foreign_code", "A trigger or function that vectoracl did not create refused the statement (SQLSTATE {state}). "
        "Nothing was changed. `vectoracl check` lists the triggers and functions of the table.",
    ),
    "XX": _Answer(
        "internal", "PostgreSQL reports an internal error or damaged data (SQLSTATE {state}). Nothing was changed. The "
        "server's log has more; where an index is damaged, REINDEX it.",
    ),
}  # fmt: skip


def error_for_sqlstate(state: str) -> StoreError:
    """Return the error for the SQLSTATE *state*. Limits (class 54) are handled by `limits`."""
    for length in (5, 2):
        answer = _TABLE.get(state[:length])
        if answer is not None:
            return StoreError(
                answer.text.format(state=state),
                code=answer.code,
                adapter=ADAPTER,
                sent="no" if answer.certain else "unknown",
                retryable=answer.retryable,
            )
    text = f"PostgreSQL reported SQLSTATE {state}. Nothing was changed."
    return StoreError(text, code=f"sqlstate:{state}", adapter=ADAPTER, sent="no")
