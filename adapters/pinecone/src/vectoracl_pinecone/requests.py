"""The requests of the adapter, as data: one request is one call of the client, in one namespace.

A vector index and a document index get the same requests; `ports` and `documents` map them to the API of each kind.
Filters are in Pinecone's filter language; None means no filter, and an empty filter is never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from vectoracl.adapter_api.contract import Request

Filter = Mapping[str, Any]


class Match(NamedTuple):
    """One record of a reply; `score` is Pinecone's own, 0.0 where nothing was ranked."""

    id: str
    score: float = 0.0
    metadata: Mapping[str, Any] | None = None
    values: list[float] | None = None


class Page(NamedTuple):
    """One page of a listing; `token` asks for the next one, None at the end."""

    matches: tuple[Match, ...]
    token: str | None


class Sparse(NamedTuple):
    """A sparse vector: places, each once, and as many weights."""

    indices: list[int]
    values: list[float]


ANY_WORD = Sparse([1], [1.0])
"""The query where any word will do."""


class Record(NamedTuple):
    """One record as it is written. `size` is about how many bytes it takes in a request; `words` None: it has none."""

    id: str
    values: list[float]
    metadata: Mapping[str, Any]
    size: int = 0
    words: Sparse | None = None


class Done(NamedTuple):
    """The result of a write: the log position at which it was committed, if the server reports it."""

    lsn: int | None = None


@dataclass(frozen=True, slots=True)
class Query(Request[tuple[Match, ...]]):
    """Rank the records that pass `filter` by `vector`, or by `words` where they are given; return the best `top_k`.

    A vector index ranks by the sum of both products, so with words `vector` is too small to matter (`compile.TINY`).
    """

    partition: str | None
    namespace: str
    vector: list[float]
    top_k: int
    filter: Filter | None = None
    metadata: bool = False
    values: bool = False
    words: Sparse | None = None


@dataclass(frozen=True, slots=True)
class Listing(Request[Page]):
    """Return one page of record ids, in the order of the ids, that begin with `prefix`."""

    partition: str | None
    namespace: str
    prefix: str | None = None
    token: str | None = None
    limit: int = 100


@dataclass(frozen=True, slots=True)
class FetchBy(Request[Page]):
    """Return one page of whole records that pass `filter`, in no order. Not every server has it."""

    partition: str | None
    namespace: str
    filter: Filter
    limit: int
    token: str | None = None


@dataclass(frozen=True, slots=True)
class Put(Request[Done]):
    """Write `records`, adding or overwriting."""

    partition: str | None
    namespace: str
    records: tuple[Record, ...]

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Patch(Request[bool]):
    """Set metadata of one record and keep the rest; a record that is not there is not created."""

    partition: str | None
    namespace: str
    id: str
    metadata: Mapping[str, Any]

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Remove(Request[Done]):
    """Delete the records that are named by `ids`, or those that pass `filter`: exactly one of the two."""

    partition: str | None
    namespace: str
    ids: tuple[str, ...] | None = None
    filter: Filter | None = None

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Drop(Request[None]):
    """Delete the namespace with every record in it; for operators only. Not every server has it."""

    partition: str
    namespace: str

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Settle(Request[None]):
    """Wait until a query has seen the log position `lsn`; without one, until `seen` matches and `gone` does not."""

    partition: str | None
    namespace: str
    vector: list[float]
    lsn: int | None = None
    seen: Filter | None = None
    gone: Filter | None = None


class Stats(NamedTuple):
    """The description of an index; `namespaces` maps names to numbers of records, and "" is the default one.

    `dense` and `sparse` are the names of its vector fields; None if only the index itself was asked.
    """

    dimension: int | None
    metric: str | None
    total: int
    namespaces: Mapping[str, int]
    kind: str = "vector"
    name: str | None = None
    dense: tuple[str, ...] | None = None
    sparse: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Describe(Request[Stats]):
    """Read how the index is configured and which namespaces it has, of all tenants; for operators and `hazmat`."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class Schema(Request[Stats | None]):
    """Read the index's configuration from the control plane, which does not list namespaces; None without its name."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class MayRead(Request[bool]):
    """Return whether a query with a vector of the configured dimension is answered, in an unused namespace."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class MayRank(Request[bool]):
    """Return whether a lexical query is answered, in an unused namespace."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class MayWrite(Request[bool]):
    """Return whether the key may write, by deleting a record that cannot exist, in an unused namespace."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class DefaultNamespaceProbe(Request[bool]):
    """Return whether there is a record in the default namespace, where no tenant's can be."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class SourceIds(Request[Page]):
    """Return one page of the ids of a namespace that is adopted; for operators only."""

    namespace: str
    token: str | None = None
    partition: None = None


@dataclass(frozen=True, slots=True)
class SourceRows(Request[tuple[Match, ...]]):
    """Return whole records of a namespace by their ids, with their vectors; for operators only."""

    namespace: str
    ids: tuple[str, ...]
    partition: None = None


Standing = Describe | Schema | MayRead | MayRank | MayWrite | DefaultNamespaceProbe | SourceIds | SourceRows
"""Requests without a tenant, which no flow of an operation makes."""
AnyRequest = Query | Listing | FetchBy | Put | Patch | Remove | Drop | Settle | Standing
