"""Moves one tenant back into the shared partition. `move.demote` describes the cost."""

from __future__ import annotations

import time

from psycopg.errors import LockNotAvailable, QueryCanceled

from vectoracl.errors import RefusedError, StoreError, without_context
from vectoracl_pgvector.tiers.base import Mover, milliseconds
from vectoracl_pgvector.tiers.partitions import own_partitions


class Demotion(Mover):
    """The move of one tenant back into the shared partition."""

    def demote(self) -> list[str]:
        """Run the move; see `move.demote`."""
        own = own_partitions(self._connection, self._config).get(self._tenant)
        _, lines = self._remove_leftovers(keep=False)
        if own is None:
            return [*lines, f"{self._tenant!r} is in the shared partition already; nothing was moved"]
        self._wait_for_old_snapshots()
        self._progress("switching", 0, None)
        deadline = time.monotonic() + self._timeouts.total
        pause = 0.1
        while True:
            self._wait_until_idle(deadline)
            try:
                moved = self._move_back(own)
                break
            except LockNotAvailable:
                pause = self._back_off(pause, deadline)
        # Only VACUUM lets a search by bits read the index alone.
        self._run(f"{'VACUUM (ANALYZE)' if self._config.has_bits else 'ANALYZE'} {self._names.default}")
        return [*lines, f"{self._tenant!r} is in the shared partition: {moved} rows; {own} was removed"]

    def _move_back(self, own: str) -> int:
        names = self._names
        written = ", ".join(self._shadow.columns)
        moved = 0

        @without_context
        def switch() -> None:
            nonlocal moved
            self._run(f"ALTER TABLE {names.table} DETACH PARTITION {own}")
            stall, start = self._timeouts.stall, time.monotonic()
            self._run("SELECT pg_catalog.set_config('statement_timeout', %s, true)", (milliseconds(stall),))
            try:
                moved = self._run(f"INSERT INTO {names.default} ({written}) SELECT {written} FROM {own}").rowcount
            except QueryCanceled:
                if time.monotonic() - start < stall:  # cancelled by another session
                    raise
                raise RefusedError(
                    f"Copying the {before} rows back takes longer than {stall:g} s, during which all readers and "
                    "writers would wait, so nothing was moved. Leave the tenant where it is; or, at a quiet time, "
                    "set demote_stall in the store's configuration to the seconds that it may take, and try again.",
                    field="demote_stall",
                ) from None
            self._run(f"DROP TABLE {own}")

        with self._transaction(self._timeouts.lock * 5):
            self._run(
                "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(%s, 0))", (self._writer_lock_key,)
            )
            before = self._fetch_value(f"SELECT count(*) FROM {own}")
            self._run_with_exclusive_lock(switch, names.default, own)
            if moved != before:
                raise StoreError(
                    f"The partition had {before} rows and {moved} were moved; nothing was switched.",
                    code="copy_differs",
                    adapter="pgvector",
                    sent="no",
                )
        return moved
