"""Moves several tenants to their own partitions for one reading of the shared partition.

PostgreSQL reads the whole shared partition before it attaches another one, which is nearly all that the move
of a small tenant costs. Here each tenant's copy is made as by a single promotion (`promotion`), with its own triggers,
and the switch is one transaction for all: one constraint keeps all of these tenants out of the shared partition, so one
reading proves it for every ATTACH. Their writers pause together, and all others wait for all ATTACHes, so their number
is limited (`shadow_copy.TOGETHER`). If the process dies, the next move removes what it left: no tenant is half moved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

from psycopg.errors import LockNotAvailable

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.names import CONSTRAINT, SETTING
from vectoracl_pgvector.tiers.base import Connection, Mover, MoveTimeouts
from vectoracl_pgvector.tiers.partitions import own_partitions
from vectoracl_pgvector.tiers.promotion import Promotion
from vectoracl_pgvector.tiers.shadow_copy import forbid


class JointPromotion(Mover):
    """The move of several tenants, each to its own partition."""

    def __init__(
        self,
        connection: Connection,
        config: PgvectorConfig,
        tenants: Sequence[str],
        progress: Progress | None,
        timeouts: MoveTimeouts,
        step: Callable[[str], None] | None,
    ) -> None:
        super().__init__(connection, config, "", progress, timeouts, step)
        self._tenants = sorted(dict.fromkeys(tenants))
        self._parts = [
            Promotion(connection, config, tenant, None, timeouts, step, number)
            for number, tenant in enumerate(self._tenants, 1)
        ]

    def promote(self) -> list[str]:
        """Run the moves; see `move.promote_together`."""
        self._check()
        _, lines = self._remove_leftovers(keep=False)
        for part in self._parts:
            part.check_name()
            with self._transaction(self._timeouts.lock * 5):
                self._run_all(part.shadow.create_table())
        self._run_with_short_lock(lambda: (sql for part in self._parts for sql in part.shadow.create_triggers()))
        for done, part in enumerate(self._parts):
            self._progress("copying", done, len(self._parts))
            part.fill()
            part.build_indexes()
        self._wait_for_old_snapshots()
        for done, part in enumerate(self._parts):
            self._progress("comparing", done, len(self._parts))
            part.compare()
        moved = self._switch()
        for part in self._parts:
            part.analyze()
        self._run(f"ANALYZE {self._names.default}")
        return [*lines, *(part.done(rows) for part, rows in zip(self._parts, moved, strict=True))]

    def _check(self) -> None:
        """Refuse unknown tenants, and those that have their own partition. Raises: RefusedError."""
        listed = f"SELECT count(*) FROM {self._names.tenants} WHERE tenant_id = ANY(%s)"
        own = own_partitions(self._connection, self._config).keys() & set(self._tenants)
        if own or self._fetch_value(listed, (self._tenants,)) != len(self._tenants):
            raise RefusedError(
                "One of the tenants is unknown or has its own partition already, so none was moved. `vectoracl tenants "
                "list` lists them."
            )

    def _switch(self) -> list[int]:
        self._progress("switching", 0, None)
        deadline = time.monotonic() + self._timeouts.total
        pause = 0.1
        while True:
            self._wait_until_idle(deadline)
            try:
                with ExitStack() as paused:
                    for part in self._parts:
                        paused.enter_context(part.writers_paused())
                    return self._forbidden()
            except LockNotAvailable:
                pause = self._back_off(pause, deadline)

    def _forbidden(self) -> list[int]:
        try:
            with self._transaction(self._timeouts.lock):
                self._run(forbid(self._config, self._tenants))
            return self._swap()
        except BaseException:
            # The tenants cannot write while the constraint exists, so remove it before the pause ends.
            if not self._connection.closed:
                self._run_with_short_lock(lambda: (self._shadow.allow(),))
            raise

    def _swap(self) -> list[int]:
        with self._transaction(self._timeouts.pause, moving="switch"):
            moved = [self._emptied(part) for part in self._parts]
            self._run(f"ALTER TABLE ONLY {self._names.default} VALIDATE CONSTRAINT {CONSTRAINT}")
            last = list(self._last())
            self._run_with_exclusive_lock(lambda: self._run_all(last), self._names.default)
        return moved

    def _emptied(self, part: Promotion) -> int:
        """Delete the tenant's rows from the shared partition, under its scope; return their number."""
        self._run("SELECT pg_catalog.set_config(%s, %s, true)", (SETTING, part.tenant))
        return part.delete_originals()

    def _last(self) -> Iterator[str]:
        """Yield the statements that all others wait for: every ATTACH while the constraint holds, then the cleaning."""
        yield from (part.shadow.attach() for part in self._parts)
        for part in self._parts:
            yield from part.shadow.remove()
        yield self._shadow.allow()
        for part in self._parts:
            yield from part.shadow.forget()
