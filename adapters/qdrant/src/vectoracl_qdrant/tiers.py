"""Tiers: small tenants share a shard, and a large tenant has its own (custom sharding, Qdrant 1.16 or newer).

Requests name the tenant's shard with the shared one as fallback (`compile.shard_key`). The server routes reads to the
tenant's shard only while every part of it has a readable replica, so a tenant is never read from both. The server also
does the promotion: it creates a shard that is not active yet, transfers the tenant's points into it while it forwards
writes, and activates it; then the tenant's points are removed from the shared shard. The remaining steps are read from
the cluster each time, so run a promotion that was killed again to finish it.
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
_MESSAGES: Final[Mapping[Task, str]] = {
    "create": "created a shard for the tenant, which is not read yet",
    "replicate": "copied the tenant's chunks into it while reads and writes continued",
    "clear": "removed the tenant's chunks from the shared shard",
}
NO_TIERS = (
    "This store does not use tiers (tiers = false). Provision a new collection with tiers = true on a server in "
    "cluster mode, and copy the tenants there: Qdrant cannot change the sharding of an existing collection."
)
LOCAL = "The client's local mode does not separate shards: tiers need a server (url)."
NOT_CUSTOM = (
    "The collection is not sharded by key, and Qdrant cannot change that: provision another one with tiers = true."
)
UNFINISHED = "its promotion is not finished; unless another process is still running it, run it again"
NO_WAY_BACK = (
    "Qdrant cannot move a tenant back while it is served: replication into the shared shard takes that shard out of "
    "service for all of its tenants, and a manual copy would lose concurrent writes. Copy the tenant's chunks to a "
    "store in which the tenant has no shard (`vectoracl copy`)."
)


@dataclass(frozen=True, slots=True)
class Cluster:
    """The shards of one collection: by shard key, the replica states of each shard, and the keys being copied to."""

    custom: bool
    states: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    moving: frozenset[str] = frozenset()

    def active(self, key: str) -> bool:
        """Return whether every shard of *key* has an active replica: then the server reads and writes there."""
        shards = self.states.get(key, ())
        return bool(shards) and all(ACTIVE in replicas for replicas in shards)


class Actions(Protocol):
    """The actions of a promotion on a server, or on the cluster of a test."""

    def cluster(self) -> Cluster:
        """Read the shards of the collection."""
        ...

    def left(self, tenant: str) -> bool:
        """Return whether the shared shard holds a point of *tenant*."""
        ...

    def act(self, task: Task, tenant: str) -> None:
        """Do one task. A task that was done before raises a StoreError with the code "rejected"."""
        ...


def next_task(tenant: str, cluster: Cluster, *, left: bool) -> Task | None:
    """Return the next task of the promotion of *tenant*; None if it is finished.

    *left* is whether the shared shard still holds a point of the tenant; it matters only if the tenant's is active.
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
    tenant: str, actions: Actions, progress: Progress | None, sleep: Callable[[float], None] = time.sleep
) -> list[str]:
    """Move *tenant* to its own shard, and return the steps that were done. Can be run again after any interruption.

    Raises: RefusedError if the collection is not sharded by key; StoreError if a step fails repeatedly.
    """
    report: list[str] = []
    tries: dict[Task, int] = {}
    while True:
        cluster = actions.cluster()
        if not cluster.custom:
            raise RefusedError(NOT_CUSTOM)
        task = next_task(tenant, cluster, left=cluster.active(shard_of(tenant)) and actions.left(tenant))
        if task is None:
            return report or [f"{tenant} already has its own shard"]
        if progress is not None:
            progress("promoting: " + ("waiting for the transfer" if task == "wait" else task), len(report), None)
        if task == "wait":
            sleep(_PAUSE)
            continue
        tries[task] = tries.get(task, 0) + 1
        if tries[task] > _TRIES:
            raise StoreError(
                f"Qdrant aborted the promotion {_TRIES} times at the step {task!r}. Reads and writes continue in the "
                "shard where the tenant is. Check the server's log, then run it again.",
                code="promotion_failed",
                adapter="qdrant",
            )
        try:
            actions.act(task, tenant)
        except StoreError as error:
            if error.code != "rejected" or tries[task] == _TRIES:
                raise
            # Another run did this task, or the nodes do not agree yet: read the remaining tasks again.
            sleep(_PAUSE)
            continue
        if _MESSAGES[task] not in report:
            report.append(_MESSAGES[task])
        sleep(_PAUSE if task == "replicate" else 0)


def tier_of(tenant: str, cluster: Cluster) -> str:
    """Return the shard from which *tenant* is served: "own" or "shared"."""
    return "own" if cluster.active(shard_of(tenant)) else "shared"


def refuse(config: QdrantConfig) -> None:
    """Raises: RefusedError if the configuration has no tiers."""
    if config.local:
        raise RefusedError(LOCAL)
    if not config.tiers:
        raise RefusedError(NO_TIERS)
