"""Tiers: small tenants share a shard, a large one gets a shard of its own (custom sharding, Qdrant 1.16 or newer).

Requests name the tenant's shard with the shared one as fallback (`compile.shard_key`); the server routes reads to the
own shard only while every part of it has a readable replica, so a tenant is never read from both. Promotion is the
server's own: a shard that is not yet active, a transfer of the tenant's points into it (writes go on and are
forwarded), and, once it is active, the removal of what the shared shard still holds of the tenant. What is left to do
is read from the cluster each time, so a promotion that was killed is finished by running it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from vectoracl.adapter_api.contract import Progress
from vectoracl.errors import RefusedError, StoreError
from vectoracl_qdrant.config import QdrantConfig
from vectoracl_qdrant.names import shard_of

Task = Literal["create", "replicate", "wait", "clear"]
ACTIVE: Final = "Active"
_PAUSE = 0.5
_TRIES = 3
_TOLD: Final[Mapping[Task, str]] = {
    "create": "created a shard for the tenant, which is not read yet",
    "replicate": "copied the tenant's chunks into it while reads and writes went on",
    "clear": "removed the tenant's chunks from the shared shard",
}
NO_TIERS = (
    "This store keeps all tenants in one kind of shard (tiers = false): provision a new collection with tiers = true, "
    "on a server in cluster mode, and copy the tenants there. Qdrant cannot change how an existing one is sharded."
)
LOCAL = "The client's local mode has no shards, and would answer from all of them: tiers need a server (url)."
NOT_CUSTOM = (
    "The collection is not sharded by key, and Qdrant cannot change that: provision another one with tiers = true."
)
UNFINISHED = "its promotion is not finished; if nobody is at it any more, this goes on with it"
NO_WAY_BACK = (
    "Qdrant cannot move a tenant back while it is served: replication into the shared shard takes that shard out of "
    "service for all of its tenants, and a copy by hand would lose what is written meanwhile. Copy the tenant's chunks "
    "to a store without its shard (`vectoracl copy`)."
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """How one collection lies: by shard key the states of the replicas of each shard, and which keys are copied to."""

    custom: bool
    states: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    moving: frozenset[str] = frozenset()

    def active(self, key: str) -> bool:
        """Tell whether every shard of *key* has an active replica: then the server reads and writes there."""
        shards = self.states.get(key, ())
        return bool(shards) and all(ACTIVE in replicas for replicas in shards)


class Hands(Protocol):
    """What a promotion does to the server; a test's cluster has the same."""

    def cluster(self) -> Cluster:
        """Read how the collection lies."""
        ...

    def left(self, tenant: str) -> bool:
        """Tell whether the shared shard holds a point of *tenant*."""
        ...

    def act(self, task: Task, tenant: str) -> None:
        """Do one task; what is done already raises a StoreError "rejected"."""
        ...


def next_task(tenant: str, cluster: Cluster, *, left: bool) -> Task | None:
    """Return what is to be done next to give *tenant* a shard of its own; None: it has one, and nothing is left.

    *left* is whether the shared shard still holds a point of it, which matters only when the own one is active.
    """
    key = shard_of(tenant)
    if key not in cluster.states:
        return "create"
    if cluster.active(key):
        return "clear" if left else None
    if key in cluster.moving or any("ActiveRead" in replicas for replicas in cluster.states[key]):
        return "wait"
    return "replicate"


def promote(
    tenant: str, hands: Hands, progress: Progress | None, sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Give *tenant* a shard of its own; return what was done. Can be run again after any interruption.

    Raises: RefusedError where there are no such shards; StoreError if the transfer fails again and again.
    """
    done: list[str] = []
    tries: dict[Task, int] = {}
    while True:
        cluster = hands.cluster()
        if not cluster.custom:
            raise RefusedError(NOT_CUSTOM)
        task = next_task(tenant, cluster, left=cluster.active(shard_of(tenant)) and hands.left(tenant))
        if task is None:
            return done or [f"{tenant} has a shard of its own already"]
        if progress is not None:
            progress("promoting: " + ("waiting for the transfer" if task == "wait" else task), len(done), None)
        if task == "wait":
            sleep(_PAUSE)
            continue
        tries[task] = tries.get(task, 0) + 1
        if tries[task] > _TRIES:
            raise StoreError(
                f"Qdrant ended the promotion {_TRIES} times at the step {task!r}. Reads and writes go on in the shard "
                "where the tenant is; look at the server's log and run it again.",
                code="promotion_failed",
                adapter="qdrant",
            )
        try:
            hands.act(task, tenant)
        except StoreError as error:
            if error.code != "rejected" or tries[task] == _TRIES:
                raise
            # Another run got there first, or the cluster has not agreed yet: what is left is read again.
            sleep(_PAUSE)
            continue
        if _TOLD[task] not in done:
            done.append(_TOLD[task])
        sleep(_PAUSE if task == "replicate" else 0)


def tier_of(tenant: str, cluster: Cluster) -> str:
    """Return where *tenant* is served from: "own" or "shared"."""
    return "own" if cluster.active(shard_of(tenant)) else "shared"


def refuse(config: QdrantConfig) -> None:
    """Raises: RefusedError where the configuration has no tiers."""
    if config.local:
        raise RefusedError(LOCAL)
    if not config.tiers:
        raise RefusedError(NO_TIERS)
