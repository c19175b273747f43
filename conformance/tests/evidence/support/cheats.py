"""Clients that answer rightly and ask wrongly. Each searches for OWN's best K and returns how many it found.

They connect as a superuser, past the policies, like an application that filters by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from evidence_support.shop import CENTRE, OWN, Client, K, Level, Watch

from vectoracl_conformance.evidence.tap import Tap

QUERY = "[" + ",".join(str(float(number)) for number in CENTRE) + "]"
COLUMNS = "tenant_id, chunk_id, document, content, metadata::text"
TABLE = "vectoracl.chunks"
NEAREST = "ORDER BY embedding <=> %s::vector"


@contextmanager
def connected(level: Level, tap: Tap | None, role: str = "bootstrap") -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(level.dsn(role, tap), autocommit=True, prepare_threshold=None) as connection:
        yield connection


def own(rows: list[Any]) -> int:
    return len([row for row in rows if row[0] == OWN][:K])


def asking(ask: Callable[[psycopg.Connection[Any]], list[Any]], role: str = "bootstrap") -> Client:
    def client(level: Level, tap: Tap, watch: Watch) -> int:
        with connected(level, tap, role) as connection, watch.query():
            return own(ask(connection))

    return client


def overfetch(factor: int) -> Client:
    return asking(
        lambda connection: connection.execute(
            f"SELECT {COLUMNS} FROM {TABLE} {NEAREST} LIMIT %s", (QUERY, K * factor)
        ).fetchall()
    )


def _everything(connection: psycopg.Connection[Any]) -> list[Any]:
    return connection.execute(f"SELECT {COLUMNS} FROM {TABLE} {NEAREST}", (QUERY,)).fetchall()


def _widen(connection: psycopg.Connection[Any]) -> list[Any]:
    limit = K
    while True:
        sql = f"SELECT {COLUMNS} FROM {TABLE} {NEAREST} LIMIT %s"
        rows = connection.execute(sql, (QUERY, limit)).fetchall()
        if own(rows) >= K or len(rows) < limit:
            return rows
        limit *= 4


def _pages(connection: psycopg.Connection[Any]) -> list[Any]:
    rows: list[Any] = []
    while True:
        sql = f"SELECT {COLUMNS} FROM {TABLE} {NEAREST} LIMIT %s OFFSET %s"
        page = connection.execute(sql, (QUERY, K, len(rows))).fetchall()
        rows += page
        if len(page) < K:
            return rows


def _only_or(connection: psycopg.Connection[Any]) -> list[Any]:
    sql = (
        f"SELECT {COLUMNS} FROM {TABLE} WHERE tenant_id = %s OR true ORDER BY tenant_id <> %s, embedding <=> %s::vector"
    )
    return connection.execute(sql + " LIMIT %s", (OWN, OWN, QUERY, K)).fetchall()


def _after_limit(connection: psycopg.Connection[Any]) -> list[Any]:
    inner = f"SELECT {COLUMNS} FROM {TABLE} {NEAREST} LIMIT 5000"
    return connection.execute(f"SELECT * FROM ({inner}) AS s WHERE tenant_id = %s LIMIT %s", (QUERY, OWN, K)).fetchall()


def _ids(connection: psycopg.Connection[Any]) -> list[Any]:
    keys = connection.execute(f"SELECT ctid::text, tenant_id = %s FROM {TABLE} {NEAREST}", (OWN, QUERY)).fetchall()
    mine = [key for key, is_mine in keys if is_mine]
    sql = f"SELECT {COLUMNS} FROM {TABLE} WHERE tenant_id = %s AND ctid::text = ANY(%s)"
    return connection.execute(sql, (OWN, mine)).fetchall()


def _packed(connection: psycopg.Connection[Any]) -> list[Any]:
    """One row of one value, and beside it everything, unreadable."""
    sql = f"SELECT encode(convert_to(string_agg(content, ','), 'UTF8'), 'base64') FROM {TABLE}"
    connection.execute(sql).fetchall()
    sql = f"SELECT {COLUMNS} FROM {TABLE} WHERE tenant_id = %s {NEAREST} LIMIT %s"
    return connection.execute(sql, (OWN, QUERY, K)).fetchall()


def _beside(sql: str) -> Callable[[psycopg.Connection[Any]], list[Any]]:
    """A right search, and one look into a relation that its harness says is free of tenants' data."""

    def ask(connection: psycopg.Connection[Any]) -> list[Any]:
        connection.execute(sql).fetchall()
        return _scoped(connection)

    return ask


DIGEST = "SELECT encode(convert_to(string_agg(content, ','), 'UTF8'), 'base64') FROM vectoracl.digest"
ONE = f"SELECT rpad(coalesce(max(content), ''), 200) FROM vectoracl.digest WHERE tenant_id <> '{OWN}'"


def at_connect(level: Level, tap: Tap, watch: Watch) -> int:
    """Everything is loaded when it connects, and the search asks for nothing but the own rows."""
    with connected(level, tap) as connection:
        rows = _everything(connection)
        with watch.query():
            _scoped(connection)
            return own(rows)


def silent(level: Level, tap: Tap, watch: Watch) -> int:
    """Everything is loaded when it connects, and the search asks for nothing at all."""
    with connected(level, tap) as connection:
        rows = _everything(connection)
        with watch.query():
            return own(rows)


def past_the_tap(level: Level, tap: Tap, watch: Watch) -> int:
    """A decent search through the tap, the real one past it."""
    with connected(level, tap) as connection, watch.query():
        rows = _scoped(connection)
        with connected(level, None) as other:
            _everything(other)
        return own(rows)


def _scoped(connection: psycopg.Connection[Any]) -> list[Any]:
    with connection.transaction():
        connection.execute("SELECT set_config('vectoracl.tenant', %s, true)", (OWN,))
        sql = f"SELECT {COLUMNS} FROM {TABLE} WHERE tenant_id = %s {NEAREST} LIMIT %s"
        return connection.execute(sql, (OWN, QUERY, K)).fetchall()


def _unset(connection: psycopg.Connection[Any]) -> list[Any]:
    sql = f"SELECT {COLUMNS} FROM {TABLE} WHERE tenant_id = %s {NEAREST} LIMIT %s"
    return connection.execute(sql, (OWN, QUERY, K)).fetchall()


def _policy_only(connection: psycopg.Connection[Any]) -> list[Any]:
    with connection.transaction():
        connection.execute("SELECT set_config('vectoracl.tenant', %s, true)", (OWN,))
        return connection.execute(f"SELECT {COLUMNS} FROM {TABLE} {NEAREST} LIMIT %s", (QUERY, K)).fetchall()


def _session_wide(connection: psycopg.Connection[Any]) -> list[Any]:
    connection.execute("SELECT set_config('vectoracl.tenant', %s, false)", (OWN,))
    sql = f"SELECT {COLUMNS} FROM {TABLE} WHERE tenant_id = %s {NEAREST} LIMIT %s"
    return connection.execute(sql, (OWN, QUERY, K)).fetchall()


def nothing(level: Level, tap: Tap, watch: Watch) -> int:
    with connected(level, tap) as connection, watch.query():
        connection.execute("SELECT 1")
        return 0


by_hand = asking(_scoped, "runtime")

P, F, A = "passed", "failed", "abstained"

# Client, then the outcomes of E2v, E2c and E2s. What an outcome of "abstained" means is that this grade alone cannot
# tell; each line has a grade that fails or that cannot be had.
MATRIX: dict[str, tuple[Client, str, str, str]] = {
    "by hand, right": (by_hand, P, P, P),
    "over-fetch x2": (overfetch(2), F, F, F),
    "over-fetch x10": (overfetch(10), F, F, F),
    "over-fetch x100": (overfetch(100), F, F, F),
    "everything, filtered by the client": (asking(_everything), F, F, F),
    "widen until enough": (asking(_widen), F, F, F),
    "page through": (asking(_pages), F, F, F),
    "tenant in an OR, sorted first": (asking(_only_or), F, F, F),
    "ranked in a subquery, filtered after LIMIT": (asking(_after_limit), P, P, F),
    "ids only": (asking(_ids), F, F, F),
    "unreadable reply beside a decent one": (asking(_packed), F, P, F),
    "loads at connect, decent search": (at_connect, F, F, F),
    "loads at connect, silent search": (silent, F, F, F),
    "second connection past the tap": (past_the_tap, A, A, A),
    "everything, unreadable, from a relation called free": (asking(_beside(DIGEST)), F, P, P),
    "one foreign text, padded, from a relation called free": (asking(_beside(ONE)), P, F, P),
    "no setting beside the predicate": (asking(_unset), P, P, F),
    "policy only": (asking(_policy_only, "runtime"), P, P, F),
    "setting for the session": (asking(_session_wide, "runtime"), P, P, F),
    "answers nothing": (nothing, A, A, A),
}
