"""Moves a tenant to its own partition and back while reads and writes continue. Blocking, on the owner's connection.

The problem: PostgreSQL attaches a partition in one step, but the tenant's rows cannot be copied in one step without
blocking. So a copy is kept in sync while it is filled (`shadow_copy`), and only the switch takes strong locks.
`promote` runs these steps:

1. Create an empty copy, closed to every role, and the triggers that keep it in sync, in one transaction.
2. Fill it in key order, in short transactions.
3. Build its HNSW index CONCURRENTLY.
4. Wait until every snapshot older than the filling is gone, so that every remaining reader sees the whole copy.
5. Compare both sides byte by byte, in one snapshot, without a lock.
6. Pause the tenant's writers (their advisory lock) and switch in one transaction: delete the rows from the shared
   partition and validate a check constraint, which block neither readers nor other tenants' writers; only then lock the
   parent in ACCESS EXCLUSIVE MODE and attach the copy.

The parent has to be locked before the partition. A reader that waited only for the shared partition would hold a plan
from before the switch, run it with a snapshot from after the switch, and find no rows. All others queue behind a
request for that lock, so each request is short, is repeated, and waits for a moment when no transaction holds the
table.

An interruption leaves either nothing or a copy that is kept in sync. Calling `promote` again resumes it and calling
`demote` removes it; `vectoracl check` and `vectoracl tenants list` report it. The connection must keep its session, so
it cannot go through a pooler in transaction mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import RefusedError
from vectoracl_pgvector.config import PgvectorConfig
from vectoracl_pgvector.tiers.base import MOVE_TIMEOUTS, Connection, Mover, MoveTimeouts
from vectoracl_pgvector.tiers.demotion import Demotion
from vectoracl_pgvector.tiers.joint_promotion import JointPromotion
from vectoracl_pgvector.tiers.partitions import number_of_partitions, own_partitions
from vectoracl_pgvector.tiers.promotion import Promotion
from vectoracl_pgvector.tiers.removal import Removal
from vectoracl_pgvector.tiers.shadow_copy import TOGETHER

__all__ = [
    "MOVE_TIMEOUTS",
    "TOGETHER",
    "MoveTimeouts",
    "demote",
    "number_of_partitions",
    "own_partitions",
    "promote",
    "promote_together",
    "release",
    "remove",
    "unfinished",
]


def promote(
    connection: Connection,
    config: PgvectorConfig,
    tenant: str,
    progress: Progress | None = None,
    *,
    timeouts: MoveTimeouts = MOVE_TIMEOUTS,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Move *tenant* to its own partition.

    Args:
        connection: The owner's connection, in autocommit mode, without a pooler in transaction mode.
        config: The store's configuration.
        tenant: The tenant's id.
        progress: Called with the step, the rows done and the rows in total.
        timeouts: How long to wait for locks and older transactions.
        step: Called with every statement before it runs.

    Returns:
        What was done, a line each.

    Raises:
        RefusedError: The tenant is unknown, another move is in progress, the partition's name is taken, or another
            transaction held the table for longer than *timeouts*.
        StoreError: The copy differs from the original.
    """
    move = Promotion(connection, config, tenant, progress, timeouts, step)
    with move.holding_move_lock():
        return move.promote()


def promote_together(
    connection: Connection,
    config: PgvectorConfig,
    tenants: Sequence[str],
    progress: Progress | None = None,
    *,
    timeouts: MoveTimeouts = MOVE_TIMEOUTS,
    step: Callable[[str], None] | None = None,
) -> list[str]:
    """Move *tenants*, at most `TOGETHER`, each to its own partition, reading the shared partition once.

    All of them are moved or none; see `joint_promotion`.

    Raises:
        RefusedError: As in `promote`; also if one of them has its own partition already.
        StoreError: A copy differs from the original.
    """
    if not 1 <= len(tenants) <= TOGETHER:
        raise RefusedError(f"From 1 to {TOGETHER} tenants can be moved together, not {len(tenants)}.")
    move = JointPromotion(connection, config, tenants, progress, timeouts, step)
    with move.holding_move_lock(must_exist=False):
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
    """Move *tenant* back into the shared partition, or remove what an interrupted promotion left.

    The switch is one transaction that copies the rows while all other sessions wait. A default partition accepts no row
    of a value that has its own partition, and PostgreSQL cannot detach a partition CONCURRENTLY if there is a default
    one, so the rows can neither be copied before nor in batches afterwards. This takes 15 to 100 µs a row, and more
    where long texts are parsed again for full text search. It is therefore meant for small tenants; a copy that takes
    longer than *timeouts*.stall is rolled back.

    A REPEATABLE READ transaction that took its snapshot just before the switch, and reads the table only after it,
    finds the tenant empty. Older transactions are waited for, and READ COMMITTED is exact.

    Raises:
        RefusedError: As in `promote`; also if all other sessions would have to wait too long.
        StoreError: The numbers of rows differ; nothing was moved.
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
    """Remove *tenant* with all of its data; return what was done, a line each. Can be repeated: see `removal`.

    Raises:
        RefusedError: A move is in progress, or another transaction held the table for longer than *timeouts*.
    """
    move = Removal(connection, config, tenant, None, timeouts, step)
    with move.holding_move_lock(must_exist=False):
        return move.remove()


def unfinished(connection: Connection, config: PgvectorConfig) -> tuple[frozenset[str], bool]:
    """Return the markers (`shadow_copy.marker`) of all unfinished copies, and whether a move is in progress."""
    return Mover(connection, config, "", None, MOVE_TIMEOUTS, None).unfinished()


def release(connection: Connection, config: PgvectorConfig) -> bool:
    """Let a tenant write again if its move died in the last step; return whether there was one.

    In the last step, until ATTACH, a constraint keeps the tenant's rows out of the shared partition. The session that
    holds the move lock removes the constraint. If no session holds the lock, the constraint would stay for ever.
    """
    move = Mover(connection, config, "", None, MOVE_TIMEOUTS, None)
    if not move.is_blocked():
        return False
    try:
        with move.holding_move_lock(must_exist=False):
            return move.unblock()
    except RefusedError:  # a move is in progress
        return False
