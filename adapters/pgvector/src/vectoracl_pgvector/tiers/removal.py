"""Removes one tenant: its rows, partition, unfinished copy, and its name in the list of tenants and in statistics.

The tenant's writers wait while it runs. Rows and partition are removed in one transaction; the name follows in a second
one, together with the statistics that contain it. A tenant is therefore listed as long as anything of it may be left,
and calling `remove` again completes an interrupted removal. PostgreSQL's write-ahead log, backups, and dead bytes in
pages that are not reused yet are outside of tables and remain.
"""

from __future__ import annotations

import secrets
import time

from psycopg.errors import LockNotAvailable

from vectoracl_pgvector import schema
from vectoracl_pgvector.names import SETTING
from vectoracl_pgvector.tiers.base import Mover
from vectoracl_pgvector.tiers.partitions import own_partitions


class Removal(Mover):
    """One removal of one tenant."""

    def remove(self) -> list[str]:
        """Run the removal; return what was done, or an empty list if nothing of the tenant exists."""
        lines: list[str] = []
        if any(marker == self._shadow.marker for _, marker in self._copies()):
            _, lines = self._remove_leftovers(keep=False)
        self._allow_forgetting()
        deadline, pause = time.monotonic() + self._timeouts.total, 0.1
        while True:
            self._wait_until_idle(deadline)
            try:
                with self.writers_paused():
                    return [*lines, *self._delete_everything()]
            except LockNotAvailable:
                pause = self._back_off(pause, deadline)

    def _delete_everything(self) -> list[str]:
        names = self._names
        own = own_partitions(self._connection, self._config).get(self._tenant)
        listed = self._fetch_value(f"SELECT true FROM {names.tenants} WHERE tenant_id = %s", (self._tenant,))
        with self._transaction(self._timeouts.lock * 5):
            rows = self._fetch_value(
                f"SELECT count(*) FROM {names.table} WHERE {names.c.tenant} = %s::text", (self._tenant,)
            )
            if not (rows or own or listed):
                return []
            self._run(f"DELETE FROM ONLY {names.default} WHERE {names.c.tenant} = %s::text", (self._tenant,))
            if own is not None:
                self._run_with_exclusive_lock(lambda: self._run_all([f"DROP TABLE {own}"]), names.default, own)
        # Truncate the emptied pages, so that the statistics below sample the remaining rows.
        self._run(f"VACUUM {names.default}")
        with self._transaction(self._timeouts.total):
            self._run(f"DELETE FROM {names.tenants} WHERE tenant_id = %s", (self._tenant,))
            self._forget_statistics()
        for table in (names.default, names.tenants):
            self._run(f"VACUUM {table}")
        where = "" if own is None else f", and its partition {own}"
        return [f"{self._tenant!r} was removed: {rows} rows{where}", *self._forget_in_catalogs()]

    def _forget_in_catalogs(self) -> list[str]:
        """Refresh the catalogs' statistics if autovacuum sampled the names of the tenant's partition.

        Runs after everything is dropped. ANALYZE waits for a concurrent ANALYZE of the same table, which may have
        sampled before the drop, so the final statistics are from after the drop. Only the database's owner may do this;
        otherwise the returned line says what to run.
        """
        for catalog in self._catalogs_that_name_it():
            self._run(f"ANALYZE pg_catalog.{catalog}")  # without the privilege this is only a warning
        remaining = [f"ANALYZE pg_catalog.{catalog};" for catalog in self._catalogs_that_name_it()]
        if not remaining:
            return []
        return [
            "statistics of PostgreSQL's catalogs still contain the name of its partition, which every role can read "
            f"until autovacuum refreshes them; the owner of the database can remove it now: {' '.join(remaining)}"
        ]

    def _catalogs_that_name_it(self) -> list[str]:
        # PostgreSQL shortens long index and constraint names in the middle, so compare only the beginning.
        stem = self._names.partition_name(self._tenant)[: max(28, len(self._config.table) + 4)]
        rows = self._run(
            "SELECT DISTINCT tablename FROM pg_catalog.pg_stats WHERE schemaname = 'pg_catalog' AND pg_catalog.strpos("
            "pg_catalog.concat(most_common_vals, histogram_bounds), %s) > 0 ORDER BY 1",
            (stem,),
        )
        return [str(row[0]) for row in rows]

    def _forget_statistics(self) -> None:
        """Refresh the tables' statistics without the tenant, in the transaction that removes its name.

        ANALYZE keeps the old statistics of a table in which it finds no row, so a placeholder row is inserted and
        removed in the same transaction.
        """
        names, c = self._names, self._names.c
        placeholder = f"removed-{secrets.token_hex(8)}"
        self._run("SELECT pg_catalog.set_config(%s, %s, true)", (SETTING, placeholder))
        self._run(f"INSERT INTO {names.tenants} (tenant_id) VALUES (%s)", (placeholder,))
        self._run(
            f"INSERT INTO {names.default} ({', '.join(names.written)}) VALUES (%s, '-', 0, '-', '-', 0, 0, '', '', 0, "
            f"0, '', '{{}}', pg_catalog.array_fill(1::real, ARRAY[%s])::{names.vector_type})",
            (placeholder, self._config.dimension),
        )
        for table in (names.default, names.tenants, *self._analyzed_parent()):
            self._run(f"ANALYZE {table}")
        self._run(f"DELETE FROM {names.tenants} WHERE tenant_id = %s", (placeholder,))
        self._run(f"DELETE FROM {names.default} WHERE {c.tenant} = %s", (placeholder,))

    def _analyzed_parent(self) -> list[str]:
        """Return the parent if it has statistics, which PostgreSQL does not create automatically."""
        is_analyzed = self._fetch_value(
            "SELECT reltuples >= 0 AND (reltuples > 0 OR pg_catalog.current_setting('server_version_num')::int4 "
            ">= 140000) FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)",
            (self._names.table,),
        )
        only = "ONLY " if self._connection.info.server_version >= 180_000 else ""
        return [only + self._names.table] if is_analyzed else []

    def _allow_forgetting(self) -> None:
        """Add the policy by which the owner deletes from the list of tenants; older stores lack it."""
        name, policy = schema.forget_policy(self._config)
        exists = self._fetch_value(
            "SELECT true FROM pg_catalog.pg_policy WHERE polrelid = pg_catalog.to_regclass(%s) AND polname = %s",
            (self._names.tenants, name),
        )
        if not exists:
            self._run_with_short_lock(lambda: (policy,))
