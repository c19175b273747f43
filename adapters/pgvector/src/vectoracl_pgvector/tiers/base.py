"""The parts that moves in both directions share: short transactions, waits for locks and snapshots, and cleaning up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import CONSTRAINT, NO_JIT, SETTING, quote
from vectoracl_pgvector.tiers.shadow_copy import TOGETHER, TRIGGERS, ShadowCopy, marker_prefix, numbered

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class MoveTimeouts:
    """The time limits of a move, in seconds.

    Attributes:
        lock: Longest wait for one lock request that others queue behind.
        pause: Longest pause of the tenant's writers while the switch requests its lock.
        total: Longest wait for other transactions to end, before the move is refused.
        stall: Longest copying of rows by a demotion, during which all sessions wait, before it is rolled back. The
            locks and the commit around it are not included.
    """

    lock: float = 0.1
    pause: float = 2.0
    total: float = 600.0
    stall: float = 2.0


MOVE_TIMEOUTS = MoveTimeouts()


class Mover:
    """One move of one tenant: the base of promotion, demotion and removal."""

    def __init__(
        self,
        connection: Connection,
        config: PgvectorConfig,
        tenant: str,
        progress: Progress | None,
        timeouts: MoveTimeouts,
        step: Callable[[str], None] | None,
        number: int = 0,
    ) -> None:
        self._connection = connection
        self._config = config
        self._tenant = tenant
        self._progress = progress or (lambda *_: None)
        self._timeouts = timeouts
        self._step = step or (lambda _: None)
        self._shadow = ShadowCopy(config, tenant, number)
        self._names = self._shadow.names
        self._space = f"vectoracl:{config.schema_name}.{config.table}"

    # --- statements

    def _run(self, sql: str, params: tuple[Any, ...] = ()) -> psycopg.Cursor[Any]:
        self._step(sql)
        return self._connection.execute(sql, params or None, prepare=False)

    def _run_all(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._run(statement)

    def _fetch_value(self, sql: str, params: tuple[Any, ...] = ()) -> Any:
        row = self._run(sql, params).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self, lock: float, **settings: str) -> Iterator[None]:
        """Run one transaction in the tenant's scope; a wait for a lock fails after *lock* seconds."""
        all_settings = {SETTING: self._tenant, "search_path": "pg_catalog", "lock_timeout": milliseconds(lock)}
        all_settings |= dict((NO_JIT,))
        all_settings |= {"vectoracl." + name: value for name, value in settings.items()}
        with self._connection.transaction():
            calls = ", ".join("pg_catalog.set_config(%s, %s, true)" for _ in all_settings)
            self._run(f"SELECT {calls}", tuple(part for pair in all_settings.items() for part in pair))
            yield

    def _run_with_short_lock(self, statements: Callable[[], Iterable[str]]) -> None:
        """Run *statements* in one transaction, and repeat it until it gets its locks, which others may queue behind."""
        deadline = time.monotonic() + self._timeouts.total
        pause = 0.02
        while True:
            self._wait_until_idle(deadline)
            try:
                with self._transaction(self._timeouts.lock):
                    self._run_all(statements())
                return
            except LockNotAvailable:
                pause = self._back_off(pause, deadline)

    def _back_off(self, pause: float, deadline: float) -> float:
        if time.monotonic() + pause > deadline:
            raise RefusedError(
                "The table was continuously in use, so the tenant was not moved. Nothing is lost, and a started copy "
                "is kept in sync: try again, or look in pg_locks for the transaction that does not end."
            )
        time.sleep(pause)
        return min(pause * 2, 2.0)

    def _wait_until_idle(self, until: float) -> None:
        """Wait until no session is seen twice, 50 ms apart, with a lock on the table, or until the time *until*.

        An earlier lock request would fail and only make others queue.
        """
        holders = self._lock_holders()
        while holders and time.monotonic() < until:
            time.sleep(0.05)
            holders &= self._lock_holders()

    def _lock_holders(self) -> set[str]:
        rows = self._run(
            "SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted "
            "AND pid <> pg_catalog.pg_backend_pid() AND database = (SELECT oid FROM pg_catalog.pg_database "
            "WHERE datname = pg_catalog.current_database()) "
            "AND relation IN (pg_catalog.to_regclass(%s), pg_catalog.to_regclass(%s))",
            (self._names.table, self._names.default),
        ).fetchall()
        return {row[0] for row in rows}

    # --- around a move

    @property
    def _move_lock_key(self) -> str:
        """The key of the lock that a move holds. No tenant's id can produce it as the key of its writers."""
        return f"vectoracl-move:{self._space}"

    @contextmanager
    def holding_move_lock(self, *, must_exist: bool = True) -> Iterator[None]:
        """Hold the table's move lock.

        Raises:
            RefusedError: Another move holds it or, if *must_exist*, the tenant is unknown.
        """
        key = self._move_lock_key
        if not self._fetch_value("SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))", (key,)):
            raise RefusedError(
                "Another move is in progress on this table; try again when it has ended.", code="move_in_progress"
            )
        try:
            listed = f"SELECT true FROM {self._names.tenants} WHERE tenant_id = %s"
            if must_exist and self._fetch_value(listed, (self._tenant,)) is None:
                raise RefusedError("This store has no such tenant. `vectoracl tenants` lists the tenants.")
            yield
        finally:
            self._unlock(key)

    def _unlock(self, key: str) -> None:
        if not self._connection.closed:
            self._run("SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended(%s, 0))", (key,))

    def is_blocked(self) -> bool:
        """Return whether a constraint keeps a tenant out of the shared partition, of a live or of a dead move."""
        return bool(
            self._fetch_value(
                "SELECT true FROM pg_catalog.pg_constraint WHERE conrelid = pg_catalog.to_regclass(%s) "
                "AND conname = %s",
                (self._names.default, CONSTRAINT),
            )
        )

    def unblock(self) -> bool:
        """Remove that constraint; return whether there was one. Needs the move lock."""
        if not self.is_blocked():
            return False
        self._run_with_short_lock(lambda: (self._shadow.allow(),))
        return True

    def _copies(self) -> list[tuple[str, str]]:
        """Return the copies that are not attached yet, each with its marker."""
        return self._run(
            "SELECT kind.relname, pg_catalog.obj_description(kind.oid, 'pg_class') FROM pg_catalog.pg_class AS kind "
            "WHERE kind.relnamespace = pg_catalog.to_regnamespace(%s) AND kind.relkind = 'r' "
            "AND NOT kind.relispartition AND pg_catalog.starts_with("
            "pg_catalog.obj_description(kind.oid, 'pg_class'), %s)",
            (self._names.schema, marker_prefix(self._config)),
        ).fetchall()

    def unfinished(self) -> tuple[frozenset[str], bool]:
        """Return the markers of those copies, and whether a move is in progress; locks and changes nothing."""
        alive = self._fetch_value(
            "SELECT true FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted "
            "AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) "
            "AND (classid::int8 << 32 | objid::int8) = pg_catalog.hashtextextended(%s, 0)",
            (self._move_lock_key,),
        )
        return frozenset(marker for _, marker in self._copies()), bool(alive)

    def _remove_leftovers(self, *, keep: bool) -> tuple[bool, list[str]]:
        """Remove what interrupted moves left, except, with *keep*, a usable copy of this tenant.

        Returns:
            Whether the copy was kept, and what was done.
        """
        shadow, names = self._shadow, self._names
        lines: list[str] = []
        self.unblock()
        self._run(f"DROP TABLE IF EXISTS {shadow.barrier}")
        copies = self._copies()
        enabled = dict(
            self._run(
                "SELECT tgname, tgenabled IN ('O', 'A') FROM pg_catalog.pg_trigger "
                "WHERE tgrelid = pg_catalog.to_regclass(%s) AND tgname = ANY(%s)",
                (names.default, [numbered(name, number) for name in TRIGGERS for number in range(TOGETHER + 1)]),
            ).fetchall()
        )
        synced = enabled == dict.fromkeys(shadow.triggers, True)
        reusable = keep and synced and [row[1] for row in copies] == [shadow.marker]
        if reusable:  # a copy that is older than a change of the columns cannot be attached
            differing_columns = self._fetch_value(
                "SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s) "
                "AND attnum > 0 AND NOT attisdropped AND (attname, atttypid, atttypmod) NOT IN "
                "(SELECT attname, atttypid, atttypmod FROM pg_catalog.pg_attribute "
                "WHERE attrelid = pg_catalog.to_regclass(%s) AND NOT attisdropped)",
                (names.table, shadow.copy),
            )
            reusable = not differing_columns
        if not reusable:
            numbers = [n for n in range(TOGETHER + 1) if any(numbered(name, n) in enabled for name in TRIGGERS)]
            if numbers:
                of_each = [ShadowCopy(self._config, self._tenant, number) for number in numbers]
                self._run_with_short_lock(lambda: (sql for one in of_each for sql in one.remove()))
            for name, comment in copies:
                self._run(f"DROP TABLE {names.schema}.{quote(name)}")
                whose = "" if comment == shadow.marker else " of another tenant"
                lines.append(f"the copy that an interrupted move{whose} left was removed")
        return reusable, lines

    # --- shared by both directions

    @contextmanager
    def writers_paused(self) -> Iterator[None]:
        """Pause the tenant's writers, across several transactions."""
        with self._transaction(self._timeouts.lock * 5):
            self._run(
                "SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended(%s, 0))", (self._writer_lock_key,)
            )
        try:
            yield
        finally:
            self._unlock(self._writer_lock_key)

    def _count(self, table: str) -> int:
        sql = f"SELECT count(*) FROM {table} WHERE {self._names.c.tenant} = %s::text"
        with self._transaction(self._timeouts.total):
            number: int = self._fetch_value(sql, (self._tenant,))
        return number

    @property
    def _writer_lock_key(self) -> str:
        """The key of the lock that the tenant's writers take; see `compile.PgCompiler._write`."""
        return f"{self._space}:{self._tenant}"

    @contextmanager
    def _session_settings(self, **settings: str) -> Iterator[None]:
        """Set *settings* for the session, for statements that cannot run in a transaction."""
        try:
            for name, value in settings.items():
                self._run("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
            yield
        finally:
            if not self._connection.closed:
                for name in settings:
                    self._run(f"RESET {name}")

    @contextmanager
    def _explaining_lock_timeout(self) -> Iterator[None]:
        try:
            yield
        except LockNotAvailable:
            raise RefusedError(
                "A transaction that began before the move is still open, and moving now could hide rows from it. End "
                "it (pg_stat_activity, the smallest xact_start) and try again; the copied rows are kept in sync."
            ) from None

    def _wait_for_old_snapshots(self) -> None:
        """Wait until every older snapshot of this database is gone.

        PostgreSQL does this at the end of CREATE INDEX CONCURRENTLY (indexcmds.c, WaitForOlderSnapshots), which needs
        no special privilege, while only superusers can see the snapshots of other sessions.
        """
        self._progress("waiting for older transactions", 0, None)
        barrier = self._shadow.barrier
        with self._explaining_lock_timeout(), self._session_settings(lock_timeout=milliseconds(self._timeouts.total)):
            self._run(f"CREATE TABLE {barrier} (nothing integer)")
            try:
                self._run(f"CREATE INDEX CONCURRENTLY ON {barrier} (nothing)")
            finally:
                if not self._connection.closed:
                    self._run(f"DROP TABLE IF EXISTS {barrier}")

    def _run_with_exclusive_lock(self, then: Callable[[], None], *tables: str) -> None:
        """Lock the parent, then *tables*, in ACCESS EXCLUSIVE MODE, and call *then*; retry for `pause` seconds."""
        until = time.monotonic() + self._timeouts.pause
        while True:
            self._wait_until_idle(until)
            try:
                with self._connection.transaction():
                    self._run(
                        "SELECT pg_catalog.set_config('lock_timeout', %s, true)", (milliseconds(self._timeouts.lock),)
                    )
                    for table in (self._names.table, *tables):
                        self._run(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")
                    then()
                return
            except LockNotAvailable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def milliseconds(seconds: float) -> str:
    """Return *seconds* as a PostgreSQL time setting in milliseconds."""
    return f"{max(1, round(seconds * 1000))}ms"
