"""The requests of the adapter, as data: one request is one call.

Messages are instances of the client's generated classes, which compare equal: the golden files contain exactly the
bytes that are sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from weaviate.proto.v1 import aggregate_pb2, batch_delete_pb2, batch_pb2, search_get_pb2

from vectoracl.adapter_api.contract import Request

TenantState = Literal["active", "inactive", "offloaded", "changing"]


class Dropped(NamedTuple):
    """The result of one delete by filter; the server takes a limited number of objects a call."""

    matches: int
    successful: int
    failed: int


@dataclass(frozen=True, slots=True)
class Find(Request[Sequence[Any]]):
    """Rank or list the objects of one tenant; the reply is the results of the message's search."""

    partition: str | None
    message: search_get_pb2.SearchRequest


@dataclass(frozen=True, slots=True)
class Tally(Request[int]):
    """Count the objects of one tenant that pass a filter."""

    partition: str | None
    message: aggregate_pb2.AggregateRequest


@dataclass(frozen=True, slots=True)
class Groups(Request[Sequence[tuple[Any, int]]]):
    """Count the objects of one tenant that pass a filter by the values of a property, in the form they are stored in.

    An object with a list is in the group of each of its different elements. `limit` of the message is a silent cut.
    """

    partition: str | None
    message: aggregate_pb2.AggregateRequest


@dataclass(frozen=True, slots=True)
class Put(Request[None]):
    """Write whole objects, each over what has its id; an object that fails is raised, whatever became of the others."""

    partition: str | None
    message: batch_pb2.BatchObjectsRequest

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Drop(Request[Dropped]):
    """Delete by filter, as many as the server takes in one call."""

    partition: str | None
    message: batch_delete_pb2.BatchDeleteRequest

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class Merge(Request[bool]):
    """Set properties of one object of one tenant and keep all others; False where the object is not there."""

    partition: str | None
    tenant: str
    id: str
    properties: Mapping[str, Any]

    @property
    def writes(self) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True, slots=True)
class State(Request[TenantState | None]):
    """Return the state of one tenant; None if it does not exist."""

    partition: str | None
    tenant: str


@dataclass(frozen=True, slots=True)
class Create(Request[None]):
    """Create one tenant, if it is not there."""

    partition: str | None
    tenant: str


@dataclass(frozen=True, slots=True)
class Describe(Request[Mapping[str, Any] | None]):
    """Read how the collection is configured; None: there is none."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class About(Request[Mapping[str, Any]]):
    """Read the server's description of itself."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class Rights(Request[Mapping[str, Any] | None]):
    """Read who a key belongs to and what it may do; `tenant` None is the process's own. None: no such thing there."""

    tenant: str | None
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Keys(Request[tuple[str, ...]]):
    """Return the tenants, by Weaviate's names, that there are keys for; nothing is sent."""

    partition: None = None


@dataclass(frozen=True, slots=True)
class Tenants(Request[Mapping[str, TenantState]]):
    """List the tenants by Weaviate's names; for operators and `hazmat` only."""

    partition: None = None


AnyRequest = Find | Tally | Groups | Put | Drop | Merge | State | Create | Describe | About | Rights | Keys | Tenants
