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
`demote` throws it away; `vectoracl check` and `vectoracl tenants list` say that there is one. The connection has to
keep its session (no pooler in transaction mode).
"""

from __future__ import annotations

from collections.abc import Callable

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.tiers.base import MOVE_TIMEOUTS, Connection, Mover, MoveTimeouts
from vectoracl_pgvector.tiers.demotion import Demotion
from vectoracl_pgvector.tiers.partitions import own_partitions
from vectoracl_pgvector.tiers.promotion import Promotion
from vectoracl_pgvector.tiers.removal import Removal

__all__ = ["MOVE_TIMEOUTS", "MoveTimeouts", "demote", "own_partitions", "promote", "release", "remove", "unfinished"]


def promote(
    connection: Connection,
    config: PgvectorConfig,
    tenant: str,
    progress: Progress | None = None,
    *,
    timeouts: MoveTimeouts = MOVE_TIMEOUTS,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Give *tenant* a partition of its own; *step* is called with every statement before it runs.

    Raises: RefusedError (unknown tenant, another move is under way, the partition's name is taken, somebody holds on
    to the table for longer than *patience*), StoreError (the copy differs).
    """
    move = Promotion(connection, config, tenant, progress, timeouts, step)
    with move.holding_move_lock():
        return move.promote()


def demote(
    connection: Connection,
    config: PgvectorConfig,
    tenant: str,
    progress: Progress | None = None,
    *,
    timeouts: MoveTimeouts = MOVE_TIMEOUTS,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Move *tenant* back into the shared partition, or throw away what an interrupted promotion left.

    The switch is one transaction which copies the rows while everybody waits: a default partition takes no row of a
    value that has a partition, and PostgreSQL detaches none CONCURRENTLY beside a default one, so they can neither be
    there before nor come in batches after. That is 15 to 100 µs a row, and more where long texts are read for their
    words again, so it is meant for the small tenants that are advised; one whose copying takes longer than
    *patience*.stall is rolled back.
    A REPEATABLE READ transaction which took its snapshot just before the switch, and touched the table only after it,
    finds the tenant empty; older ones are waited for, and READ COMMITTED is exact.
    Raises: as `promote`; RefusedError also where everybody would have to wait too long.
    """
    move = Demotion(connection, config, tenant, progress, timeouts, step)
    with move.holding_move_lock():
        return move.demote()


def remove(
    connection: Connection,
    config: PgvectorConfig,
    tenant: str,
    *,
    timeouts: MoveTimeouts = MOVE_TIMEOUTS,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Remove *tenant* with all that is there of it; return what was done. Can be repeated: see `removal`.

    Raises: RefusedError (a move is under way, or somebody holds on to the table for longer than *patience*).
    """
    move = Removal(connection, config, tenant, None, timeouts, step)
    with move.holding_move_lock(must_exist=False):
        return move.remove()


def unfinished(connection: Connection, config: PgvectorConfig) -> tuple[frozenset[str], bool]:
    """Return the markers (`mirror.marker`) of the copies that moves left or make now, and whether a mover is alive."""
    return Mover(connection, config, "", None, MOVE_TIMEOUTS, None).unfinished()


def release(connection: Connection, config: PgvectorConfig) -> bool:
    """Let a tenant write again whose mover died in its last second; tell whether there was one.

    In its last step, until ATTACH, a constraint keeps the tenant's rows out of the shared partition. It belongs to
    whoever holds the movers' lock, which ends with his session: where nobody holds it, nobody will take it away.
    """
    move = Mover(connection, config, "", None, MOVE_TIMEOUTS, None)
    if not move.is_blocked():
        return False
    try:
        with move.holding_move_lock(must_exist=False):
            return move.unblock()
    except RefusedError:  # the mover is alive
        return False
