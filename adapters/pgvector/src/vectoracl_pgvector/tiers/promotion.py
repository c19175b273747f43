"""Moves one tenant to its own partition. `move` describes the steps and their reasons."""

from __future__ import annotations

import time
from typing import Any

from psycopg.errors import LockNotAvailable, OperationalError

from vectoracl.errors import RefusedError, StoreError
from vectoracl_pgvector import bits, schema, word_index
from vectoracl_pgvector.names import BITS_SUFFIX, CONSTRAINT, quote
from vectoracl_pgvector.posture import releases
from vectoracl_pgvector.tiers.base import Mover, milliseconds
from vectoracl_pgvector.tiers.partitions import own_partitions
from vectoracl_pgvector.tiers.shadow_copy import ShadowCopy, forbid

_BATCH = 1000


class Promotion(Mover):
    """The move of one tenant to its own partition."""

    _has_words = False

    def promote(self) -> list[str]:
        """Run the move; see `move.promote`."""
        names, shadow = self._names, self._shadow
        if self._tenant in own_partitions(self._connection, self._config):
            _, lines = self._remove_leftovers(keep=False)
            return [*lines, f"{self._tenant!r} has its own partition already; nothing was moved"]
        resumed, lines = self._remove_leftovers(keep=True)
        if resumed:
            lines.append("an interrupted move is resumed")
        else:
            self.check_name()
            self._run_with_short_lock(shadow.create)
        rows = self.fill()
        self.build_indexes()
        self._wait_for_old_snapshots()
        self._progress("comparing", 0, rows)
        self.compare()
        moved = self._switch()
        self.analyze()
        self._run(f"ANALYZE {names.default}")
        return [*lines, self.done(moved)]

    @property
    def shadow(self) -> ShadowCopy:
        """The copy."""
        return self._shadow

    @property
    def tenant(self) -> str:
        """The tenant's id."""
        return self._tenant

    def check_name(self) -> None:
        """Refuse a tenant whose partition's name is taken. Raises: RefusedError."""
        if self._fetch_value("SELECT pg_catalog.to_regclass(%s)", (self._shadow.copy,)) is not None:
            raise RefusedError(
                f"The name of the partition, {self._shadow.copy}, is taken by a table that is not part of a move. "
                "Rename that table, or choose another table name in the configuration."
            )

    def compare(self) -> None:
        """Compare the copy with the originals. Raises: StoreError, after everything of the move was removed."""
        with self._transaction(self._timeouts.total):
            different = self._fetch_value(self._shadow.differences(), (self._tenant,))
        if different:
            self._remove_leftovers(keep=False)
            raise StoreError(
                f"{different} rows of the copy differ from their originals, so nothing was switched and the copy was "
                "removed. Try again; if it happens again, something else writes to the partition.",
                code="copy_differs",
                adapter="pgvector",
                sent="no",
            )

    def analyze(self) -> None:
        """Read the statistics of the new partition. Only VACUUM lets a search by bits read the index alone."""
        self._run(f"{'VACUUM (ANALYZE)' if self._config.has_bits else 'ANALYZE'} {self._shadow.copy}")

    def done(self, moved: int) -> str:
        """Return the line that says what was done."""
        index = "an HNSW index" if self._config.indexable else f"no vector index ({self._why_no_index()})"
        words = " and an index of words" if self._has_words else ""
        return f"{self._tenant!r} has its own partition with {index}{words}: {moved} rows in {self._shadow.copy}"

    def fill(self) -> int:
        """Copy all rows, one batch in a transaction; rows that exist already stay, the triggers keep them in sync."""
        total = self._count(f"ONLY {self._names.default}")
        copied = 0
        after: tuple[Any, ...] = ()
        pause, deadline = 0.02, time.monotonic() + self._timeouts.total
        while True:
            self._progress("copying", copied, max(total, copied))
            try:
                with self._transaction(self._timeouts.lock * 5):
                    # Without this lock a batch and the adapter's own writers could deadlock.
                    self._run(
                        "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))",
                        (self._writer_lock_key,),
                    )
                    params = (self._tenant, *after, _BATCH)
                    row = self._run(self._shadow.fill(first=not after), params).fetchone()
            except LockNotAvailable:
                pause = self._back_off(pause, deadline)
                continue
            pause, deadline = 0.02, time.monotonic() + self._timeouts.total
            assert row is not None
            copied += int(row[0])
            if row[0] < _BATCH:
                self._progress("copying", copied, copied)
                return copied
            after = tuple(row[1:])

    def build_indexes(self) -> None:
        """Build the indexes of the copy that the configuration has and the server can."""
        self.build_index()
        self._build_bits_index()
        self._has_words = self.build_word_index()

    def build_index(self) -> None:
        """Build the copy's HNSW index; drop an invalid one of an interrupted build first."""
        if not self._config.indexable:
            return
        shadow = self._shadow
        index = f"{self._names.schema}.{quote(shadow.index)}"
        if self._is_built(index):
            return
        build = schema.vector_index(self._config, shadow.copy, shadow.index)
        build = build.replace("CREATE INDEX ", "CREATE INDEX CONCURRENTLY ", 1)
        self._progress("building the vector index", 0, None)
        with self._explaining_lock_timeout(), self._session_settings(lock_timeout=milliseconds(self._timeouts.total)):
            try:
                with self._session_settings(maintenance_work_mem=self._build_memory(), **self._worker_settings()):
                    self._run(build)
            except OperationalError as error:
                # Class 53: out of memory. Parallel builds use /dev/shm, which is often only 64 MB in a container.
                if not (error.sqlstate or "").startswith("53"):
                    raise
                self._run(f"DROP INDEX IF EXISTS {index}")
                with self._session_settings(max_parallel_maintenance_workers="0"):
                    self._run(build)

    def build_word_index(self) -> bool:
        """Build the BM25 index of the copy's words where the server can; return whether there is one."""
        version = self._fetch_value(
            "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = %s", (word_index.EXTENSION,)
        )
        if self._config.words != "bm25" or version is None:
            return False
        index = word_index.index_name(self._names, self._tenant)
        usable = self._fetch_value(
            "SELECT entry.indisvalid AND kind.reloptions = %s::pg_catalog.text[] FROM pg_catalog.pg_index AS entry "
            "JOIN pg_catalog.pg_class AS kind ON kind.oid = entry.indexrelid "
            "WHERE entry.indexrelid = pg_catalog.to_regclass(%s)",
            ([f"{key}={value}" for key, value in word_index.options(self._config).items()], index),
        )
        if usable is False:  # invalid, or with another text search configuration
            self._drop_index(index)
        if not usable:
            self._progress("building the index of words", 0, None)
            limits = {"lock_timeout": milliseconds(self._timeouts.total)}
            with self._explaining_lock_timeout(), self._session_settings(**limits):
                self._run(word_index.build_sql(self._config, self._tenant))
        if word_index.release(version) >= word_index.GRANT_SINCE:
            # Row-level security is forced on the partition, so the grant shows no other tenant's text.
            column, role = self._names.c.text, quote(self._config.runtime_role)
            self._run(f"GRANT SELECT ({column}) ON {self._shadow.copy} TO {role}")
        return True

    def _is_built(self, index: str) -> bool:
        """Return whether *index* is valid; drop what an interrupted build left."""
        valid = self._fetch_value(
            "SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = pg_catalog.to_regclass(%s)", (index,)
        )
        if valid is False:
            self._drop_index(index)
        return bool(valid)

    def _drop_index(self, index: str) -> None:
        """Drop *index* without blocking the readers and writers of a partition that is in use."""
        with self._explaining_lock_timeout(), self._session_settings(lock_timeout=milliseconds(self._timeouts.total)):
            self._run(f"DROP INDEX CONCURRENTLY {index}")

    def _build_bits_index(self) -> None:
        """Build the copy's index of bits, if the table has bits."""
        shadow, names = self._shadow, self._names
        index = names.bits_index(names.partition_name(self._tenant))
        if not self._config.has_bits or not self._fetch_value(
            "SELECT true FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = %s "
            "AND NOT attisdropped",
            (shadow.copy, self._config.columns.bits),
        ):
            return
        if not self._is_built(index):
            self._progress("building the index of bits", 0, None)
            self._run(bits.index(names, shadow.copy, names.partition_name(self._tenant) + BITS_SUFFIX))

    def _why_no_index(self) -> str:
        if self._config.type == "vector" and self._config.dimension <= 4000:
            return (
                'vector supports none beyond 2,000 dimensions; set type = "halfvec" and run `vectoracl provision`, '
                "which changes the table"
            )
        return "pgvector supports none for this many dimensions"

    def _worker_settings(self) -> dict[str, str]:
        """Disable parallel workers for a pgvector whose parallel build can disclose memory (CVE-2026-3172)."""
        version = self._fetch_value("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'vector'")
        if releases.parts(version) < releases.PGVECTOR_SERIAL_BEFORE:
            return {"max_parallel_maintenance_workers": "0"}
        return {}

    def _build_memory(self) -> str:
        """Return maintenance_work_mem for the build: the size of the graph, at most 1 GB, at least the current one."""
        rows = self._count(self._shadow.copy)
        # A vector and its neighbours: m = 16 a level, twice that on the lowest, 8 bytes each with some overhead.
        size = rows * (self._config.dimension * (4 if self._config.type == "vector" else 2) + 700)
        now = self._fetch_value("SELECT pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))")
        return f"{max(int(now), min(size, 2**30)) // 1024}kB"

    def _switch(self) -> int:
        """Attach the copy as the tenant's partition; return its number of rows."""
        self._progress("switching", 0, None)
        deadline = time.monotonic() + self._timeouts.total
        pause = 0.1
        while True:
            self._wait_until_idle(deadline)
            try:
                with self.writers_paused():
                    try:
                        with self._transaction(self._timeouts.lock):
                            self._run(forbid(self._config, [self._tenant]))
                        return self._swap()
                    except BaseException:
                        # The tenant cannot write while the constraint exists, so remove it before the pause ends.
                        if not self._connection.closed:
                            self._run_with_short_lock(lambda: (self._shadow.allow(),))
                        raise
            except LockNotAvailable:
                pause = self._back_off(pause, deadline)

    def _swap(self) -> int:
        names, shadow = self._names, self._shadow
        with self._transaction(self._timeouts.pause, moving="switch"):
            moved = self.delete_originals()
            self._run(f"ALTER TABLE ONLY {names.default} VALIDATE CONSTRAINT {CONSTRAINT}")
            last = (shadow.attach(), *shadow.remove(), shadow.allow(), *shadow.forget())
            self._run_with_exclusive_lock(lambda: self._run_all(last), names.default)
        return moved

    def delete_originals(self) -> int:
        """Delete the tenant's rows from the shared partition; return their number, which must be the copy's."""
        names, shadow = self._names, self._shadow
        deleted_rows = self._run(
            f"DELETE FROM ONLY {names.default} WHERE {names.c.tenant} = %s::text", (self._tenant,)
        ).rowcount
        copied_rows = self._fetch_value(f"SELECT count(*) FROM {shadow.copy}")
        if deleted_rows != copied_rows:
            raise StoreError(
                f"The shared partition had {deleted_rows} rows of the tenant and the copy {copied_rows}; "
                "nothing was switched.",
                code="copy_differs",
                adapter="pgvector",
                sent="no",
            )
        return int(copied_rows)
