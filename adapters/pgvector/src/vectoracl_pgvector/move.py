"""A tenant to a partition of its own and back, while reads and writes go on. Blocking, on the owner's connection.

`promote`, in its order (mirror.py says what keeps the copy exact):

1. one transaction makes an empty copy, closed to everybody, and the triggers that keep it in step;
2. it is filled in short transactions in key order;
3. its HNSW index is built CONCURRENTLY;
4. snapshots that are older than the filling are waited for, so that whoever is left sees the whole copy;
5. both sides are compared byte by byte, in one snapshot, without a lock;
6. the tenant's writers pause (their advisory lock), and the switch is one transaction: DELETE, then a check constraint
   is validated, all beside readers and other tenants' writers; only then ACCESS EXCLUSIVE on the parent for ATTACH.

The parent has to be locked first: a reader that only waited for the shared partition would hold a plan from before the
switch and run it with a snapshot from after it, and find nothing. Requests for that lock are short and repeated, since
everybody queues behind them, and are made only when no transaction is seen to hold on to the table.

Whatever is interrupted leaves either nothing or a copy that stays in step: calling `promote` again resumes it, calling
`demote` throws it away. The connection has to keep its session (no pooler in transaction mode).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable, OperationalError

from vectoracl.adapter import Progress
from vectoracl.errors import RefusedError, StoreError
from vectoracl_pgvector import schema
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.mirror import CONSTRAINT, TRIGGERS, Mirror, marker_prefix
from vectoracl_pgvector.names import SETTING, Names, quote

Connection = psycopg.Connection[Any]
_BATCH = 1000
_BOUND = re.compile(r"FOR VALUES IN \('((?:[^']|'')*)'\)\Z")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a move waits, in seconds.

    `lock`: one request for a lock that others queue behind; `pause`: how long the tenant's writers stay paused while
    the switch asks for its lock; `total`: for others to end, before the move gives up.
    """

    lock: float = 0.1
    pause: float = 2.0
    total: float = 600.0


PATIENCE = Patience()


def own_partitions(connection: Connection, config: PgvectorConfig) -> dict[str, str]:
    """Return the tenants that have a partition of their own, each with the quoted name of that partition.

    A partition that someone made for several tenants is nobody's own and is left out.
    """
    rows = connection.execute(
        "SELECT pg_catalog.pg_get_expr(child.relpartbound, child.oid), "
        "pg_catalog.current_setting('standard_conforming_strings'), space.nspname, child.relname "
        "FROM pg_catalog.pg_inherits AS link JOIN pg_catalog.pg_class AS child ON child.oid = link.inhrelid "
        "JOIN pg_catalog.pg_namespace AS space ON space.oid = child.relnamespace "
        "WHERE link.inhparent = pg_catalog.to_regclass(%s)",
        (Names.of(config).table,),
    ).fetchall()
    found = {}
    for bound, conforming, space, name in rows:
        match = _BOUND.match(bound or "")
        if match is not None:
            # ruleutils.c, simple_quote_literal: ' is doubled, and \ as well unless strings conform to the standard.
            tenant = match[1].replace("''", "'")
            found[tenant if conforming == "on" else tenant.replace("\\\\", "\\")] = f"{quote(space)}.{quote(name)}"
    return found


def promote(
    connection: Connection,
    config: PgvectorConfig,
    tenant: str,
    progress: Progress | None = None,
    *,
    patience: Patience = PATIENCE,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Give *tenant* a partition of its own; *step* is called with every statement before it runs.

    Raises: RefusedError (unknown tenant, another move is under way, the partition's name is taken, somebody holds on
    to the table for longer than *patience*), StoreError (the copy differs).
    """
    move = _Move(connection, config, tenant, progress, patience, step)
    with move.alone():
        return move.promote()


def demote(
    connection: Connection,
    config: PgvectorConfig,
    tenant: str,
    progress: Progress | None = None,
    *,
    patience: Patience = PATIENCE,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Move *tenant* back into the shared partition, or throw away what an interrupted promotion left.

    The switch is one transaction which copies the rows while everybody waits (the shared partition cannot take them
    before): about 20 µs a row and more for long vectors, so it is meant for the small tenants that are advised.
    A REPEATABLE READ transaction which took its snapshot just before the switch, and touched the table only after it,
    finds the tenant empty; older ones are waited for, and READ COMMITTED is exact.
    Raises: as `promote`.
    """
    move = _Move(connection, config, tenant, progress, patience, step)
    with move.alone():
        return move.demote()


def release(connection: Connection, config: PgvectorConfig) -> bool:
    """Let a tenant write again whose mover died in its last second; tell whether there was one.

    From `_Move._switch` on, until ATTACH, a constraint keeps the tenant's rows out of the shared partition. It belongs
    to whoever holds the movers' lock, which ends with his session: where nobody holds it, nobody will take the
    constraint away.
    """
    move = _Move(connection, config, "", None, PATIENCE, None)
    if not move.stuck():
        return False
    try:
        with move.alone(known=False):
            return move.unstick()
    except RefusedError:  # the mover is alive
        return False


class _Move:
    """One move of one tenant."""

    def __init__(
        self,
        connection: Connection,
        config: PgvectorConfig,
        tenant: str,
        progress: Progress | None,
        patience: Patience,
        step: Callable[[str], None] | None,
    ) -> None:
        self._connection = connection
        self._config = config
        self._tenant = tenant
        self._progress = progress or (lambda *_: None)
        self._patience = patience
        self._step = step or (lambda _: None)
        self._mirror = Mirror(config, tenant)
        self._names = self._mirror.names
        self._space = f"vectoracl:{config.schema_name}.{config.table}"

    # --- statements

    def _run(self, sql: str, params: tuple[Any, ...] = ()) -> psycopg.Cursor[Any]:
        self._step(sql)
        return self._connection.execute(sql, params or None, prepare=False)

    def _all(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._run(statement)

    def _one(self, sql: str, params: tuple[Any, ...] = ()) -> Any:
        row = self._run(sql, params).fetchone()
        return None if row is None else row[0]

    @contextmanager
    def _transaction(self, lock: float, **settings: str) -> Iterator[None]:
        """Run one transaction in the tenant's scope; each wait for a lock ends after *lock* seconds."""
        wanted = {SETTING: self._tenant, "search_path": "pg_catalog", "lock_timeout": _ms(lock)}
        wanted |= {"vectoracl." + name: value for name, value in settings.items()}
        with self._connection.transaction():
            calls = ", ".join("pg_catalog.set_config(%s, %s, true)" for _ in wanted)
            self._run(f"SELECT {calls}", tuple(part for pair in wanted.items() for part in pair))
            yield

    def _short(self, statements: Callable[[], Iterable[str]]) -> None:
        """Run *statements* as one transaction whose locks others may have to queue behind, until it gets them."""
        deadline = time.monotonic() + self._patience.total
        pause = 0.02
        while True:
            self._calm(deadline)
            try:
                with self._transaction(self._patience.lock):
                    self._all(statements())
                return
            except LockNotAvailable:
                pause = self._rest(pause, deadline)

    def _rest(self, pause: float, deadline: float) -> float:
        if time.monotonic() + pause > deadline:
            raise RefusedError(
                "The table was in use all the time, so the move was not made. Nothing is lost, and a copy that was "
                "begun stays in step: call it again, or look in pg_locks for the transaction that does not end."
            )
        time.sleep(pause)
        return min(pause * 2, 2.0)

    def _calm(self, until: float) -> None:
        """Wait, *until* then at most, for nobody to be seen twice, 50 ms apart, with a lock on the table.

        Asking for a lock earlier would be in vain and make others queue.
        """
        seen = self._holders()
        while seen and time.monotonic() < until:
            time.sleep(0.05)
            seen &= self._holders()

    def _holders(self) -> set[str]:
        rows = self._run(
            "SELECT virtualtransaction FROM pg_catalog.pg_locks WHERE locktype = 'relation' AND granted "
            "AND pid <> pg_catalog.pg_backend_pid() AND database = (SELECT oid FROM pg_catalog.pg_database "
            "WHERE datname = pg_catalog.current_database()) "
            "AND relation IN (pg_catalog.to_regclass(%s), pg_catalog.to_regclass(%s))",
            (self._names.table, self._names.default),
        ).fetchall()
        return {row[0] for row in rows}

    # --- around a move

    @contextmanager
    def alone(self, *, known: bool = True) -> Iterator[None]:
        """Hold the lock of movers of this table. Raises: RefusedError if another one has it, or (*known*) no tenant."""
        key = f"vectoracl-move:{self._space}"  # which no tenant's own lock can be, whatever the tenant is called
        if not self._one("SELECT pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended(%s, 0))", (key,)):
            raise RefusedError("Another move is under way on this table; call it again when that is done.")
        try:
            listed = f"SELECT true FROM {self._names.tenants} WHERE tenant_id = %s"
            if known and self._one(listed, (self._tenant,)) is None:
                raise RefusedError("There is no such tenant in this store. `vectoracl tenants` lists them.")
            yield
        finally:
            self._unlock(key)

    def _unlock(self, key: str) -> None:
        if not self._connection.closed:
            self._run("SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended(%s, 0))", (key,))

    def stuck(self) -> bool:
        """Tell whether a tenant is kept out of the shared partition, by a move under way or by one that died."""
        return bool(
            self._one(
                "SELECT true FROM pg_catalog.pg_constraint WHERE conrelid = pg_catalog.to_regclass(%s) "
                "AND conname = %s",
                (self._names.default, CONSTRAINT),
            )
        )

    def unstick(self) -> bool:
        """End that; to be called while no other move can be under way."""
        if not self.stuck():
            return False
        self._short(lambda: (self._mirror.allow(),))
        return True

    def _clean(self, *, keep: bool) -> tuple[bool, list[str]]:
        """Remove what interrupted moves left; with *keep* not this tenant's copy. Return whether it is there."""
        mirror, names = self._mirror, self._names
        done: list[str] = []
        self.unstick()
        self._run(f"DROP TABLE IF EXISTS {mirror.barrier}")
        prefix = marker_prefix(self._config)
        found = self._run(
            "SELECT kind.relname, pg_catalog.obj_description(kind.oid, 'pg_class') FROM pg_catalog.pg_class AS kind "
            "WHERE kind.relnamespace = pg_catalog.to_regnamespace(%s) AND kind.relkind = 'r' "
            "AND NOT kind.relispartition AND pg_catalog.starts_with("
            "pg_catalog.obj_description(kind.oid, 'pg_class'), %s)",
            (names.schema, prefix),
        ).fetchall()
        triggers = self._one(
            "SELECT count(*) FROM pg_catalog.pg_trigger WHERE tgrelid = pg_catalog.to_regclass(%s) "
            "AND tgname = ANY(%s) AND tgenabled IN ('O', 'A')",
            (names.default, list(TRIGGERS)),
        )
        kept = keep and triggers == len(TRIGGERS) and [row[1] for row in found] == [mirror.marker]
        kept = kept and not self._one(  # one from before a column was added cannot be attached
            "SELECT count(*) FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s) AND attnum > 0 "
            "AND NOT attisdropped AND attname NOT IN (SELECT attname FROM pg_catalog.pg_attribute "
            "WHERE attrelid = pg_catalog.to_regclass(%s) AND NOT attisdropped)",
            (names.table, mirror.copy),
        )
        if not kept:
            if triggers:
                self._short(mirror.remove)
            for name, comment in found:
                self._run(f"DROP TABLE {names.schema}.{quote(name)}")
                whose = "" if comment == mirror.marker else " of another tenant"
                done.append(f"the copy that an interrupted move{whose} left was removed")
        return kept, done

    # --- promote

    def promote(self) -> list[str]:
        """See the module's text."""
        names, mirror = self._names, self._mirror
        if self._tenant in own_partitions(self._connection, self._config):
            _, done = self._clean(keep=False)
            return [*done, f"{self._tenant!r} has a partition of its own already; nothing was moved"]
        kept, done = self._clean(keep=True)
        if kept:
            done.append("an interrupted move is resumed")
        else:
            if self._one("SELECT pg_catalog.to_regclass(%s)", (mirror.copy,)) is not None:
                raise RefusedError(
                    f"The name of the partition, {mirror.copy}, is taken by a table that is not part of a move. "
                    "Rename that table, or choose another table name in the configuration."
                )
            self._short(mirror.create)
        rows = self._fill()
        self._index()
        self._outlive()
        self._progress("comparing", 0, rows)
        with self._transaction(self._patience.total):
            different = self._one(mirror.differences(), (self._tenant,))
        if different:
            self._clean(keep=False)
            raise StoreError(
                f"{different} rows of the copy differ from their originals, so nothing was switched and the copy was "
                "removed. Call it again; if it happens again, something else writes to the partition.",
                code="copy_differs",
                adapter="pgvector",
                sent="no",
            )
        moved = self._switch()
        for table in (mirror.copy, names.default):
            self._run(f"ANALYZE {table}")
        index = "an HNSW index" if self._config.indexable else "no vector index (too many dimensions for one)"
        return [*done, f"{self._tenant!r} has a partition of its own with {index}: {moved} rows in {mirror.copy}"]

    def _fill(self) -> int:
        """Copy all rows, a batch a transaction; rows that are there already stay, the triggers keep them right."""
        total = self._count(f"ONLY {self._names.default}")
        copied = 0
        after: tuple[Any, ...] = ()
        pause, deadline = 0.02, time.monotonic() + self._patience.total
        while True:
            self._progress("copying", copied, max(total, copied))
            try:
                with self._transaction(self._patience.lock * 5):
                    # The adapter's own writers wait a moment, instead of meeting this batch in a deadlock.
                    self._run(
                        "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))", (self._key,)
                    )
                    params = (self._tenant, *after, _BATCH)
                    row = self._run(self._mirror.fill(first=not after), params).fetchone()
            except LockNotAvailable:
                pause = self._rest(pause, deadline)
                continue
            pause, deadline = 0.02, time.monotonic() + self._patience.total
            assert row is not None
            copied += int(row[0])
            if row[0] < _BATCH:
                self._progress("copying", copied, copied)
                return copied
            after = tuple(row[1:])

    def _count(self, table: str) -> int:
        sql = f"SELECT count(*) FROM {table} WHERE {self._names.c.tenant} = %s::text"
        with self._transaction(self._patience.total):
            number: int = self._one(sql, (self._tenant,))
        return number

    @property
    def _key(self) -> str:
        """What the tenant's writers lock; see compile.PgCompiler._write."""
        return f"{self._space}:{self._tenant}"

    @contextmanager
    def _session(self, **settings: str) -> Iterator[None]:
        """Set *settings* for statements that cannot run in a transaction."""
        try:
            for name, value in settings.items():
                self._run("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))
            yield
        finally:
            if not self._connection.closed:
                for name in settings:
                    self._run(f"RESET {name}")

    def _index(self) -> None:
        """Build the copy's HNSW index while the triggers go on; an invalid one, of an interrupted build, goes first."""
        if not self._config.indexable:
            return
        mirror = self._mirror
        index = f"{self._names.schema}.{quote(mirror.index)}"
        valid = self._one(
            "SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass(%s)", (index,)
        )
        if valid:
            return
        if valid is not None:
            self._run(f"DROP INDEX {index}")
        build = schema.vector_index(self._config, mirror.copy, mirror.index)
        build = build.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1)
        self._progress("building the vector index", 0, None)
        with self._giving_up(), self._session(lock_timeout=_ms(self._patience.total)):
            try:
                with self._session(maintenance_work_mem=self._memory()):
                    self._run(build)
            except OperationalError as error:
                # Class 53: no memory. Parallel builds use /dev/shm, of which a container often has 64 MB only.
                if not (error.sqlstate or "").startswith("53"):
                    raise
                self._run(f"DROP INDEX IF EXISTS {index}")
                with self._session(max_parallel_maintenance_workers="0"):
                    self._run(build)

    def _memory(self) -> str:
        """Return maintenance_work_mem for the build: what the graph needs, 1 GB at most, never less than is set."""
        rows = self._count(self._mirror.copy)
        # A vector, and neighbours: m = 16 on a level, twice on the lowest, at 8 bytes with some overhead.
        size = rows * (self._config.dimension * (4 if self._config.type == "vector" else 2) + 700)
        now = self._one("SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))")
        return f"{max(int(now), min(size, 2**30)) // 1024}kB"

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except LockNotAvailable:
            raise RefusedError(
                "A transaction that began before the move is still open, and moving now could hide rows from it. End "
                "it (pg_stat_activity, the smallest xact_start) and call it again; what was copied stays in step."
            ) from None

    def _outlive(self) -> None:
        """Wait until every snapshot of this database that is older than now is gone.

        PostgreSQL does that at the end of CREATE INDEX CONCURRENTLY (indexcmds.c, WaitForOlderSnapshots), and needs no
        privilege for it, while the snapshots of others are shown to superusers only.
        """
        self._progress("waiting for older transactions", 0, None)
        barrier = self._mirror.barrier
        with self._giving_up(), self._session(lock_timeout=_ms(self._patience.total)):
            self._run(f"CREATE TABLE {barrier} (nothing integer)")
            try:
                self._run(f"CREATE INDEX CONCURRENTLY ON {barrier} (nothing)")
            finally:
                if not self._connection.closed:
                    self._run(f"DROP TABLE IF EXISTS {barrier}")

    def _switch(self) -> int:
        """Make the copy the tenant's partition; return its rows."""
        self._progress("switching", 0, None)
        deadline = time.monotonic() + self._patience.total
        pause = 0.1
        while True:
            self._calm(deadline)
            try:
                with self._paused():
                    try:
                        with self._transaction(self._patience.lock):
                            self._run(self._mirror.forbid())
                        return self._swap()
                    except BaseException:
                        # The tenant could not write while the constraint stands, so it goes before the pause ends.
                        if not self._connection.closed:
                            self._short(lambda: (self._mirror.allow(),))
                        raise
            except LockNotAvailable:
                pause = self._rest(pause, deadline)

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Keep the tenant's writers waiting, over several transactions."""
        with self._transaction(self._patience.lock * 5):
            self._run("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended(%s, 0))", (self._key,))
        try:
            yield
        finally:
            self._unlock(self._key)

    def _swap(self) -> int:
        names, mirror = self._names, self._mirror
        with self._transaction(self._patience.pause, moving="switch"):
            gone = self._run(
                f"DELETE FROM ONLY {names.default} WHERE {names.c.tenant} = %s::text", (self._tenant,)
            ).rowcount
            there = self._one(f"SELECT count(*) FROM {mirror.copy}")
            if gone != there:
                raise StoreError(
                    f"The shared partition had {gone} rows of the tenant and the copy {there}; nothing was switched.",
                    code="copy_differs",
                    adapter="pgvector",
                    sent="no",
                )
            self._run(f"ALTER TABLE ONLY {names.default} VALIDATE CONSTRAINT {CONSTRAINT}")
            self._locked(lambda: self._all(mirror.attach()), names.default)
        return int(there)

    def _locked(self, then: Callable[[], None], *tables: str) -> None:
        """Lock the parent, then *tables*, in ACCESS EXCLUSIVE MODE and call *then*; ask again while the pause lasts."""
        until = time.monotonic() + self._patience.pause
        while True:
            self._calm(until)
            try:
                with self._connection.transaction():
                    self._run("SELECT pg_catalog.set_config('lock_timeout', %s, true)", (_ms(self._patience.lock),))
                    for table in (self._names.table, *tables):
                        self._run(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")
                    then()
                return
            except LockNotAvailable:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    # --- demote

    def demote(self) -> list[str]:
        """See the module's text."""
        own = own_partitions(self._connection, self._config).get(self._tenant)
        _, done = self._clean(keep=False)
        if own is None:
            return [*done, f"{self._tenant!r} is in the shared partition already; nothing was moved"]
        self._outlive()
        self._progress("switching", 0, None)
        deadline = time.monotonic() + self._patience.total
        pause = 0.1
        while True:
            self._calm(deadline)
            try:
                moved = self._back(own)
                break
            except LockNotAvailable:
                pause = self._rest(pause, deadline)
        self._run(f"ANALYZE {self._names.default}")
        return [*done, f"{self._tenant!r} is in the shared partition: {moved} rows; {own} was removed"]

    def _back(self, own: str) -> int:
        names = self._names
        written = ", ".join(self._mirror.columns)
        moved = 0

        def switch() -> None:
            nonlocal moved
            self._run(f"ALTER TABLE {names.table} DETACH PARTITION {own}")
            moved = self._run(f"INSERT INTO {names.default} ({written}) SELECT {written} FROM {own}").rowcount
            self._run(f"DROP TABLE {own}")

        with self._transaction(self._patience.lock * 5):
            self._run("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))", (self._key,))
            before = self._one(f"SELECT count(*) FROM {own}")
            self._locked(switch, names.default, own)
            if moved != before:
                raise StoreError(
                    f"The partition had {before} rows and {moved} were moved; nothing was switched.",
                    code="copy_differs",
                    adapter="pgvector",
                    sent="no",
                )
        return moved


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
