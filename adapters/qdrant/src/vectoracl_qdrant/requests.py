"""The requests of the adapter, as data: one request is one call of the client.

Filters are the client's models: they compare equal, and REST, gRPC and local mode accept the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from qdrant_client import models

from vectoracl.adapter_api.contract import Request


class Points(NamedTuple):
    """One page of a scroll; `offset` is where the next one begins, None at the end (and where it was ordered)."""

    points: Sequence[models.Record]
    offset: str | None


@dataclass(frozen=True, slots=True)
class Order:
    """Scroll in the order of a numeric payload key, from `start` on (that value included)."""

    key: str
    descending: bool = False
    start: float | None = None


@dataclass(frozen=True, slots=True)
class Rank(Request[Sequence[models.ScoredPoint]]):
    """Rank the points that pass `filter` by `vector`; return the best `limit`."""

    partition: str | None
    filter: models.Filter
    vector: list[float]
    limit: int
    payload: tuple[str, ...]
    vectors: bool = False
    hnsw_ef: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class RankWords(Request[Sequence[models.ScoredPoint]]):
    """Rank the points that pass `filter` by their words; `idf` weighs these by their rarity among those points."""

    partition: str | None
    filter: models.Filter
    words: models.SparseVector
    limit: int
    payload: tuple[str, ...]
    vectors: bool = False
    idf: bool = False


@dataclass(frozen=True, slots=True)
class RankLegs(Request[tuple[Sequence[models.ScoredPoint], ...]]):
    """Rank by each of `legs`, in one call; every leg has its own filter."""

    partition: str | None
    legs: tuple[Rank | RankWords, ...]


@dataclass(frozen=True, slots=True)
class RankGroups(Request[Sequence[models.ScoredPoint]]):
    """Rank, and return up to `size` points of each of the best `limit` values of the payload key `by`."""

    partition: str | None
    filter: models.Filter
    vector: list[float]
    by: str
    limit: int
    size: int
    payload: tuple[str, ...]
    vectors: bool = False
    hnsw_ef: int | None = None
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Scroll(Request[Points]):
    """Return one page of the points that pass `filter`, in the order of their ids or of a payload key.

    `shard` names the one shard key to be read, for operators; None: where the tenant is.
    """

    partition: str | None
    filter: models.Filter
    limit: int
    payload: tuple[str, ...] = ()
    vectors: bool = False
    offset: str | None = None
    order: Order | None = None
    shard: str | None = None


Operation = models.UpsertOperation | models.DeleteOperation | models.SetPayloadOperation | models.DeletePayloadOperation


@dataclass(frozen=True, slots=True)
class Write(Request[None]):
    """Apply `operations` one after the other; the server has done them all when it answers."""

    partition: str | None
    operations: tuple[Operation, ...]

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Describe(Request[models.CollectionInfo]):
    """Read how the collection is configured."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class Version(Request[str]):
    """Ask the server for its version."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class Tenants(Request[tuple[str, ...]]):
    """List the tenants, if they are fewer than `limit`; for operators and `hazmat` only."""

    limit: int
    partition: None = None


AnyRequest = Rank | RankWords | RankLegs | RankGroups | Scroll | Write | Describe | Version | Tenants
