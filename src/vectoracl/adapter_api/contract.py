"""The contract that an adapter fulfils: pure flows over requests, and a port that performs them.

A flow is a generator. It yields a `Request` (plain, frozen data that compares equal) or a tuple of them, and gets the
reply, or a tuple of replies. It performs no I/O, so it is tested without a server, and the same flow serves sync and
async callers. Rules: one request is one transaction and nothing is held across a yield; a flow never yields while it
is closed (no yield in `finally`, a bare `except` or `except BaseException`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

from vectoracl.adapter_api.operations import (
    OPERATIONS,
    Count,
    Delete,
    Facets,
    Fetch,
    Found,
    Operation,
    Replace,
    Rows,
    Scan,
    Search,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.errors import ClosedError, UnsupportedPredicateError
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Predicate
from vectoracl.model.actions import Action
from vectoracl.model.queries import ResolvedQuery
from vectoracl.model.records import Facet

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

Grade = Literal["none", "predicate", "partition", "engine", "credential"]
GRADES: tuple[Grade, ...] = ("none", "predicate", "partition", "engine", "credential")


class Request(Generic[R_co]):
    """One thing to be performed by a port, as data; `reply = yield from request` is typed.

    `port` is the performer's name: "store" for an adapter's own requests, else one of the core's ports. `partition`
    is the one partition that a request to a store touches; None only for requests that touch no rows. `writes` is
    whether it changes rows: what fails after such a request was performed did not leave everything as it was.
    """

    __slots__ = ()
    port: ClassVar[str] = "store"
    partition: str | None

    @property
    def writes(self) -> bool:
        """Whether the request changes rows."""
        return False

    def __iter__(self) -> Generator[Request[Any], Any, R_co]:
        reply: R_co = yield self
        return reply


Step = Request[Any] | tuple[Request[Any], ...]
Flow = Generator[Step, Any, R]


class Port(Protocol):
    """Performs requests, sync, for as many threads as like. Every exception it raises is a VectorACLError.

    That is a StoreError as a rule, without the client's own text, which quotes rows and parameters. To make a port
    is to contact the store; what that raises is wrapped by the core.
    """

    parallel: int

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* within *timeout* seconds (None: the port's own limit) and return its reply."""
        ...

    def close(self) -> None:
        """Release everything; further calls raise."""
        ...


class AsyncPort(Protocol):
    """Performs requests, async; see `Port`."""

    parallel: int

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* within *timeout* seconds and return its reply."""
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


class OneProcess:
    """What ports over a client are: open until they are closed, in the process that made them and in no other."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._closed = False

    def _check(self) -> None:
        """Raise: ClosedError where the port must not be used."""
        if self._closed:
            raise ClosedError("The store was closed.")
        if os.getpid() != self._pid:
            raise ClosedError("A client is not used across a fork: call connect() in the child process.")


class Threaded:
    """An async port over a sync one, in threads: for a client that has no async form.

    A call that is cancelled goes on in its thread, so a write of it may still be applied.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self.parallel = port.parallel
        self._running: set[asyncio.Task[Any]] = set()

    async def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* in a thread."""
        call = asyncio.create_task(asyncio.to_thread(self._port.execute, request, timeout))
        self._running.add(call)
        call.add_done_callback(self._ended)
        return await asyncio.shield(call)

    def _ended(self, call: asyncio.Task[Any]) -> None:
        self._running.discard(call)
        if not call.cancelled():
            call.exception()  # of a call that nobody waits for any more, nobody asks it

    async def close(self) -> None:
        """Close the sync port, when every call has ended: a client is not closed while a thread is in it."""
        if self._running:
            await asyncio.wait(self._running)
        await asyncio.to_thread(self._port.close)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an adapter, as configured, can do. What is not declared is refused by the core before any I/O.

    `grade` is the isolation grade that is claimed; the posture has to reach it at start-up. `metric` and `dimension`
    describe the vectors. `operations` are the actions and `predicates` the nodes of filters that the adapter performs
    exactly, each by name: nothing is declared by default, so what comes to the library later is refused until an
    adapter names it. `count`: "exact", "paged" (exact, by several requests) or "none"; `facets` likewise, of an
    adapter that is `Faceted`. `max_batch` is the most records of one upsert. `lexical_scores` says what a lexical score
    is worth beside one of another partition: "comparable" where it depends on the chunk alone, "partition" where
    statistics of the partition's own texts are in it (BM25); the latter are not merged. `tuning` maps the name of a
    per-query setting to its smallest and largest value.
    `parallel` is how many requests of one handle may run side by side. `verbatim` says that `Upsert.verbatim` is
    honoured, so that a store can be the target of `vectoracl copy`. `vectors` is how exactly vectors are kept: "single"
    is float32, "half" float16; with the metric "cosine" only the direction has to be kept.
    """

    grade: Grade
    metric: Literal["cosine", "inner", "l2"]
    dimension: int
    operations: frozenset[Action]
    predicates: frozenset[type[Predicate]]
    queries: frozenset[Literal["vector", "lexical", "hybrid"]] = frozenset({"vector"})
    lexical_scores: Literal["comparable", "partition"] = "partition"
    count: Literal["exact", "paged", "none"] = "exact"
    facets: Literal["exact", "paged", "none"] = "none"
    exact: bool = True
    group_by: bool = True
    delete_counts: bool = True
    atomic_upsert: bool = True
    atomic_replace: bool = True
    visible: Literal["immediate", "eventual"] = "immediate"
    max_batch: int = 10_000
    max_k: int = 10_000
    deadlines: Literal["server", "client", "none"] = "client"
    parallel: int = 1
    tuning: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    verbatim: bool = False
    vectors: Literal["single", "half"] = "single"


class Adapter(Protocol):
    """The flows of one store. Each operation names one partition, and every request of its flow the same one.

    A predicate was checked before it comes here: its fields are declared or of the tag (`fields.TAG_FIELDS`, with
    "@docgen", which is computed), its values are of the field's type, datetimes aware and in UTC. Metadata may be
    stored as `prepare.dump_metadata` writes it, which `prepare.load_metadata` reads.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this adapter, as configured, can do."""
        ...

    def search(self, operation: Search) -> Flow[Found]:
        """Rank inside the scope; each leg of a hybrid query, and the statistics of a lexical one, inside it too.

        A `HybridQuery` is the reciprocal rank fusion (`queries.RRF_K`) of its two legs.
        """
        ...

    def fetch(self, operation: Fetch) -> Flow[Rows]:
        """Return chunks by id."""
        ...

    def count(self, operation: Count) -> Flow[int]:
        """Count exactly."""
        ...

    def scan(self, operation: Scan) -> Flow[Rows]:
        """Return one page in key order."""
        ...

    def upsert(self, operation: Upsert) -> Flow[int]:
        """Write all or none; return the number of records. See `Upsert.verbatim` for what a copy needs."""
        ...

    def replace(self, operation: Replace) -> Flow[int]:
        """Make a new generation of one document; return the number of records."""
        ...

    def delete(self, operation: Delete) -> Flow[int | None]:
        """Delete; return how many, or None where the store cannot count."""
        ...

    def posture(self) -> Flow[Posture]:
        """Read how the store is really configured; touches no rows."""
        ...

    def unscoped(self, query: ResolvedQuery, k: int) -> Flow[Found]:
        """Rank over all partitions, for `hazmat` only. Raises RefusedError where there is no operator's access."""
        ...


class Faceted(Protocol):
    """What an `Adapter` has too that can count by the values of a field; it declares that as `Capabilities.facets`."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Return every value of the field with its number of rows, exactly, or more than `most` of them."""
        ...


def flow_of(adapter: Adapter, operation: Operation) -> Flow[Any]:
    """Return the flow of *adapter* that performs *operation*. Raises: UnsupportedPredicateError if it has none."""
    method = OPERATIONS[type(operation)].method
    make: Callable[[Operation], Flow[Any]] | None = getattr(adapter, method, None)  # see `Faceted`
    if make is None:
        raise UnsupportedPredicateError(f"The adapter has no flow of {method}.", field=method)
    return make(operation)


class Operator(Protocol):
    """What an operator does to a store with its own credentials; blocking, used by the command line only."""

    def plan(self, *, adopt: str | None = None) -> str:
        """Return, as text that can be run, what `provision` would do."""
        ...

    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create or update what the adapter needs; return what was done, a line each. Can be run again.

        With *adopt* what is called so is then copied in; *adopted*, which comes with it from `hazmat.adopt` only, is
        kept up to date meanwhile. An operator without that parameter is not given it, and the record has no figures.
        """
        ...

    def tenants(self) -> list[TenantInfo]:
        """List the tenants with their size and tier, and what is advised."""
        ...

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Give *tenant* a physical part of its own while reads and writes go on."""
        ...

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* back to the part that small tenants share."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


@runtime_checkable
class TenantRemover(Protocol):
    """An `Operator` that can delete a tenant: that of every store should be one."""

    def remove(self, tenant: str) -> list[str]:
        """Delete *tenant* from the store: all of its rows, its credential, and its name wherever the adapter wrote it.

        That is rows of every version and state (also staged ones and those that expired), the parts that are named
        after it (shard, partition, namespace, tenant), marks of moves and writes that were broken off, and files of
        the adapter's own. Returns what was done, a line each; no lines where the store holds nothing of the tenant.
        Can be repeated after any interruption, and then finishes. Writes of the tenant that go on meanwhile either end
        before the removal and are gone, or bring the tenant back whole where the store makes tenants by writing.
        Raises: InvalidTenantError; StoreError.
        """
        ...


@runtime_checkable
class TenantKeeper(TenantRemover, Protocol):
    """An `Operator` of a store that keeps a part for each tenant, which has a life of its own. Each can be repeated.

    All return what was done, a line each. Raises: RefusedError with what to do instead, InvalidTenantError.
    """

    def create(self, tenant: str) -> list[str]:
        """Create the part of *tenant*, and its credential where the store has such."""
        ...

    def activate(self, tenant: str) -> list[str]:
        """Serve *tenant* again."""
        ...

    def deactivate(self, tenant: str) -> list[str]:
        """Stop serving *tenant*; its rows stay where they are."""
        ...

    def offload(self, tenant: str) -> list[str]:
        """Stop serving *tenant* and move its rows to cheaper storage."""
        ...


Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how many units are done and how many there are (None: unknown)."""


@dataclass(slots=True)
class Adopted:
    """How far an adoption came, for its record; also where it was refused or broken off.

    `tenants` were found in the source, with `refused` rows that cannot be taken as they are (one that is refused for
    two reasons counts twice; nothing is copied then). `copied` rows are written for sure, `there` were there already,
    and `changed` were there, had changed in the source since, and were written again.
    """

    tenants: int = 0
    refused: int = 0
    copied: int = 0
    there: int = 0
    changed: int = 0


@dataclass(frozen=True, slots=True)
class TenantInfo:
    """One tenant of a store: rows, tier ("shared" or "own"), and advice ("promote", "demote" or "").

    `note` says why where it is not the size, such as a move that was broken off. `state` is "active", or why it is not
    served ("inactive", "offloaded", "changing"): then its rows are not counted.
    """

    tenant: str
    rows: int
    tier: str
    advice: str = ""
    state: str = "active"
    note: str = ""


@dataclass(frozen=True, slots=True)
class OpenContext:
    """What the core gives to an adapter when it is opened.

    `name` is the store's name in config, `fields` the declared metadata, `base` the folder against which relative
    paths of the config are read, `debug_errors` whether clients' exceptions are attached as causes, `client` what the
    application passed to `connect(clients=…)` for this store (pgvector: its own pool). `embedder` is the identity of
    the configured embedder, which `provision` keeps in the store (`notes.learned`) and the posture returns.
    """

    name: str
    fields: Mapping[str, FieldType]
    base: str
    debug_errors: bool = False
    client: Any = None
    embedder: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An adapter with the makers of its ports; a port is made at first use, in the process that uses it.

    `server` describes the store for reports (filled after the first contact). `places` says where the rows are, given
    the store's port, as texts of which two stores share one only if they are the same: what the server says of itself
    where it does (see `places`, also for replicas). It raises what the port raises. `kept` says whether the rows are
    there after the process: a store in its memory is not.
    """

    adapter: Adapter
    port: Callable[[], Port]
    aport: Callable[[], AsyncPort]
    operator: Callable[[], Operator] | None = None
    server: Callable[[], str] = field(default=lambda: "unknown")
    places: Callable[[Port], frozenset[str]] = field(default=lambda _: frozenset())
    kept: bool = True


@dataclass(frozen=True, slots=True)
class DemoStore:
    """Where the demo's store is (`vectoracl_demo_place`).

    `settings` are keys of `[stores.main]`; a Path in them is relative to the demo's own folder. `kept` says whether the
    place is there after `close`, so that a person can go on with what the demo made; `note` says what else to know.
    `server` says what the server really is, where the store itself does not know.
    """

    settings: Mapping[str, Any]
    kept: bool = True
    note: str = ""
    server: str = ""
    close: Callable[[], None] = lambda: None


def together(*requests: Request[R]) -> Flow[tuple[R, ...]]:
    """Perform *requests* side by side; return their replies, or raise the first error in their order."""
    replies = yield requests
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return tuple(replies)
