"""The state of one connection of a pool of ours: how it may send a single read, and what is prepared on it. Pure.

The first request on a connection is sent in the long form and also asks two things (`PROBE`):

- The default isolation level. A message without BEGIN runs at this level, so it is used only where that is READ
  COMMITTED.
- The id of the server's process. It is also among the first messages of a connection, where a pooler writes another
  number. Unless the two agree, a pooler may give the next message to another server, which lacks what was prepared.

Names of prepared statements are random for each connection, so that a server that a pooler gives to several clients
never holds another statement under a name of ours.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import Transformer

from vectoracl_pgvector.names import CUSTOM_PLANS
from vectoracl_pgvector.requests import Statement

PROBE = Statement("SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('default_transaction_isolation')")
_ATTRIBUTE = "vectoracl_session"
_MOST = 64  # prepared statements of one connection; PostgreSQL keeps each in memory, a search in 32 kB
CAN_CLOSE = psycopg.capabilities.has_send_close_prepared()  # of libpq, since 17
_MOST_SEEN = 1000
_MOST_LOST = 3
# Statements that the server does not know (any more), knows already, or whose columns a change of the table altered.
_LOST = ("26000", "42P05", "0A000")
C = TypeVar("C", bound=Connection[Any] | AsyncConnection[Any])
Prepare = Literal["auto"] | bool
Key = tuple[bytes, tuple[int, ...]]


class Preparing:
    """Whether the connections of one port prepare statements: as configured, and never again where they get lost.

    `plans` is the setting under which prepared statements are executed.
    """

    __slots__ = ("_losses", "_wanted", "plans")

    def __init__(self, wanted: Prepare) -> None:
        self._wanted = wanted
        self._losses = 0
        self.plans = CUSTOM_PLANS

    def allowed(self, *, direct: bool) -> bool:
        """Return whether a connection, *direct* or through a pooler, may prepare statements."""
        return self._losses < _MOST_LOST and (direct if self._wanted == "auto" else self._wanted)

    def lost(self) -> None:
        """Note that a pooler lost a statement."""
        self._losses += 1


class Prepared:
    """A statement that the server has confirmed. `loader` reads its rows, whose columns never change."""

    __slots__ = ("loader", "name")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.loader: Transformer | None = None


class Session:
    """The state of one connection.

    Attributes:
        known: Whether `PROBE` was answered.
        implicit: Whether a single read may be sent without BEGIN and COMMIT.
        reused: Whether the last message used a statement of an earlier one.
        closing: The names that the next message has to close.
    """

    __slots__ = ("_direct", "_number", "_prefix", "_preparing", "_seen", "_statements", "closing", "implicit", "known",
                 "reused")  # fmt: skip

    def __init__(self, preparing: Preparing) -> None:
        self._preparing = preparing
        self._direct = False
        self._prefix = f"vectoracl_{secrets.token_hex(6)}_"
        self._number = 0
        self._seen: set[Key] = set()
        self._statements: dict[Key, Prepared] = {}
        self.closing: list[bytes] = []
        self.known = False
        self.implicit = False
        self.reused = False

    def learn(self, rows: Sequence[tuple[Any, ...]], backend_pid: int) -> None:
        """Take over the reply to `PROBE`; *backend_pid* is the one that the connection received at its start."""
        pid, isolation = rows[0]
        self._direct = pid == backend_pid
        self.implicit = isolation == "read committed"
        self.known = True

    @property
    def plans(self) -> tuple[str, str] | None:
        """The setting of a message that may prepare statements; None if none may be prepared now."""
        return self._preparing.plans if self._preparing.allowed(direct=self._direct) else None

    def prepared(self, key: Key) -> Prepared | None:
        """Return the statement that an earlier message prepared."""
        return self._statements.get(key)

    def new_name(self, key: Key) -> bytes | None:
        """Return a name to prepare *key* under; None the first time, since many statements are sent only once."""
        if key not in self._seen:
            if len(self._seen) >= _MOST_SEEN:
                self._seen.clear()
            self._seen.add(key)
            return None
        if len(self._statements) >= _MOST and not CAN_CLOSE:
            return None
        self._number += 1
        return f"{self._prefix}{self._number}".encode()

    def keep(self, key: Key, name: bytes) -> None:
        """Keep what the server confirmed; the oldest statement is closed in exchange if there are too many."""
        if len(self._statements) >= _MOST:
            self.closing.append(self._statements.pop(next(iter(self._statements))).name)
        self._statements[key] = Prepared(name)

    def lost(self, error: psycopg.Error) -> bool:
        """Return whether *error* means that a prepared statement cannot be used; then all of them are forgotten."""
        if not self.reused or error.sqlstate not in _LOST:
            return False
        if error.sqlstate != "0A000":
            self._preparing.lost()
        self._statements.clear()
        self.closing.clear()
        return True


def attach(connection: C, preparing: Preparing) -> C:
    """Begin to keep what is known of *connection*, which has to be new and ours alone; return it."""
    connection.__dict__[_ATTRIBUTE] = Session(preparing)
    return connection


def session_of(connection: Connection[Any] | AsyncConnection[Any]) -> Session | None:
    """Return what is known of *connection*; None if it is the application's."""
    session: Session | None = connection.__dict__.get(_ATTRIBUTE)
    return session
