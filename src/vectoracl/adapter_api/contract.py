"""The contract that an adapter fulfils: pure flows over requests, and a port that performs them.

A flow is a generator. It yields a `Request` (plain, frozen data that compares equal) or a tuple of them, and gets the
reply, or a tuple of replies. It performs no I/O, so it is tested without a server, and the same flow serves sync and
async callers. Rules: one request is one transaction and nothing is held across a yield; a flow never yields while it
is closed (no yield in `finally`, a bare `except` or `except BaseException`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Generator, Mapping, Sequence
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
    Relabel,
    Replace,
    Rows,
    Scan,
    Search,
    UpdateMetadata,
    Upsert,
)
from vectoracl.adapter_api.posture import Posture
from vectoracl.adapter_api.shares import Share
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
    """A request to a port, as frozen data that compares equal; `reply = yield from request` is typed.

    Attributes:
        port: The name of the port that performs it: "store" for an adapter's requests, or one of the core's ports.
        partition: The one partition that it touches; None only for a request that touches no rows.
    """

    __slots__ = ()
    port: ClassVar[str] = "store"
    partition: str | None

    @property
    def writes(self) -> bool:
        """Whether the request changes rows.

        Where a write takes several requests, those that change rows return True: if a later one fails, the error says
        that something may have been applied (`sent` is "unknown"), and the core does not write a second time.
        """
        return False

    def __iter__(self) -> Generator[Request[Any], Any, R_co]:
        reply: R_co = yield self
        return reply


Step = Request[Any] | tuple[Request[Any], ...]
Flow = Generator[Step, Any, R]


class Port(Protocol):
    """Performs requests, sync; any number of threads may call it at the same time.

    Every exception that it raises is a VectorACLError, as a rule a StoreError without the client's text, which quotes
    rows and parameters. `StoreError.sent` is "no" only where certainly nothing was applied, otherwise "unknown".
    Making a port may contact the store; the core wraps what that raises.

    Attributes:
        parallel: The number of requests of one flow step that it performs concurrently.
    """

    parallel: int

    def execute(self, request: Any, timeout: float | None) -> Any:
        """Perform *request* as one transaction and return its reply.

        Args:
            request: A request of the adapter's flows.
            timeout: The rest of the caller's limit in seconds; None for the port's default.

        Raises:
            DeniedError: A row outside of the scope would be overwritten; nothing was.
            StoreError: The client failed or the time is up (code "timeout").
        """
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
    """A base of ports over a client: usable until it is closed, and only in the process that made it."""

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
    """An async port that performs requests of a sync port in threads, for a client without an async form.

    A call that is cancelled continues in its thread, so its write may still be applied.
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
            call.exception()  # retrieved, so that asyncio does not log "exception was never retrieved"

    async def close(self) -> None:
        """Close the sync port, when every call has ended: a client is not closed while a thread is in it."""
        if self._running:
            await asyncio.wait(self._running)
        await asyncio.to_thread(self._port.close)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The abilities of an adapter, as configured. The core refuses what is not declared, before any I/O.

    Attributes:
        grade: The isolation grade that is claimed: "predicate" where a condition is all that separates two tenants,
            "partition" where each has a separate part, "engine" where the store itself refuses a forgotten scope,
            "credential" where each tenant has a credential. The posture has to reach it at start-up.
        metric: The metric of the vectors.
        dimension: The number of components of a vector.
        operations: The actions that the adapter performs. None is declared by default, so an action that is added to
            the library later is refused until the adapter names it.
        predicates: The nodes of filters that the adapter compiles exactly; none by default either.
        queries: The kinds of queries.
        lexical_scores: "comparable" if a lexical score depends on the chunk alone, so that scores of several
            partitions are merged; "partition" if it depends on statistics of the partition (BM25).
        count: "exact", "paged" (exact, by several requests) or "none".
        facets: The same for counts by value; needs a `Faceted` adapter.
        exact: Whether `Search.exact` is possible.
        group_by: Whether `Search.group_by` is possible.
        delete_counts: Whether `delete` returns the number of deleted rows.
        atomic_upsert: Whether an upsert writes all records or none.
        atomic_replace: Whether readers see a document either before or after its replacement.
        visible: Whether a write is visible to the next read ("immediate") or later ("eventual").
        max_batch: The most records of one write.
        max_write_bytes: The most bytes of one write; None if its size is not limited, or far beyond `max_batch` chunks.
            A load makes its batches no larger by an estimate, with `number_bytes` for each component of a vector; what
            does not fit nevertheless is refused with TooLargeError and written in halves.
        number_bytes: The bytes of one component of a vector in a write.
        writes_in_flight: The number of upserts that a load keeps in flight, at most `parallel`. Concurrent upserts of
            different chunks of the same document must each keep their promises.
        max_chunk_bytes: The most bytes of text, metadata and tag of one chunk, as they are stored. A larger chunk is
            refused with InvalidInputError. Metadata may be stored in several forms; a chunk whose text and metadata as
            JSON have a quarter of this size is always taken. The default is more than the library lets through.
        max_k: The largest `Search.k`.
        deadlines: What stops a request whose time is up: the server, the client or nothing.
        parallel: The number of requests of one handle that may run concurrently.
        tuning: The smallest and the largest value of each setting of a query, by its name.
        verbatim: Whether `Upsert.verbatim` is honoured, so that the store can be the target of `vectoracl copy`.
        vectors: The precision of stored vectors: "single" is float32, "half" is float16. With the metric "cosine"
            only the direction has to be kept.
        relabel: How `Relabeling.relabel` changes the chunks of one document: "transaction" if a reader sees all of them
            changed or none, "conditional" if each chunk is changed only where its `rev` is lower at that moment,
            "blind" if the `rev` is read before: then one process at a time writes labels, and a request that arrives
            late is waited for. "none" if the adapter has no such flow, so that a registry cannot govern its store.
        atomic_update: How `Updating.update_metadata` changes the chunks of one document: "transaction" if a reader sees
            all of them changed or none, "chunks" if a reader may see a part of them changed. "none" if the adapter has
            no such flow.
        governed_numbers: What a count, and counts by value, rest on under a registry: the "store", where its filter is
            right about labels at every moment, or the "rows", whose tags the core reads and compares with the registry.
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
    max_write_bytes: int | None = None
    number_bytes: int = 4
    writes_in_flight: int = 1
    max_chunk_bytes: int = 1 << 25
    max_k: int = 10_000
    deadlines: Literal["server", "client", "none"] = "client"
    parallel: int = 1
    tuning: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    verbatim: bool = False
    vectors: Literal["single", "half"] = "single"
    relabel: Literal["none", "conditional", "blind", "transaction"] = "none"
    atomic_update: Literal["none", "chunks", "transaction"] = "none"
    governed_numbers: Literal["store", "rows"] = "store"


class Adapter(Protocol):
    """The flows of one store. Each operation names one partition, and every request of its flow the same one.

    The core has checked each predicate: its fields are declared or belong to the tag (`TAG_FIELDS`, with "@docgen",
    see `Tag.docgen`), and its values have the field's type. Datetimes are aware and in UTC; `datetime_text` is a form
    whose order as text is their order in time. Metadata may be stored as `dump_metadata` writes it, which
    `load_metadata` reads.
    """

    @property
    def capabilities(self) -> Capabilities:
        """The abilities of this adapter, as configured."""
        ...

    def search(self, operation: Search) -> Flow[Found]:
        """Rank the rows inside the scope; that includes each leg of a hybrid query and the statistics of a lexical one.

        No reply of a port has more rows than are asked for, so rank in the store or in the port, not in the flow. A
        `HybridQuery` is the reciprocal rank fusion (`RRF_K`) of its two legs.
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
        """Rank over all partitions, for `hazmat` only.

        Raises:
            RefusedError: The adapter has no unscoped search.
        """
        ...


class Faceted(Protocol):
    """An `Adapter` that counts by the values of a field, and declares it as `Capabilities.facets`."""

    def facets(self, operation: Facets) -> Flow[list[Facet]]:
        """Return every value of the field with its number of rows, exactly, or more than `most` of them."""
        ...


class ExplainsWords(Protocol):
    """An `Adapter` that can tell how it would rank the rows of a scope by words, for `explain`."""

    def words(self, partition: str, scope: Predicate) -> Flow[str]:
        """Return the way and the reason, as a clause that ends a sentence; reads no rows."""
        ...


@runtime_checkable
class Fingerprinted(Protocol):
    """An `Adapter` that can say in one request whether anything has changed that its posture depends on.

    Both flows must be defined in the class that defines `posture`.
    """

    def fingerprint(self) -> Flow[str | None]:
        """Return a text that differs after each change of anything that `posture` reads or judges by.

        It covers the store, the configuration and the code that judges; None if one of them cannot be covered.
        """
        ...

    def fingerprinted_posture(self) -> Flow[tuple[Posture, str | None]]:
        """Return the posture, and the fingerprint of the state from before it was read.

        If anything that the posture shows has changed while it was read, every later fingerprint must be another one.
        """
        ...


@runtime_checkable
class ExplainsRanking(Protocol):
    """An `Adapter` that can tell how it would rank the rows of a scope, for `explain`."""

    def ranking(self, partition: str, scope: Predicate) -> Flow[str]:
        """Return the way and the reason, as a clause that ends a sentence; reads no more than a count does."""
        ...


@runtime_checkable
class Relabeling(Protocol):
    """An `Adapter` whose chunks can be re-labelled, and which declares how as `Capabilities.relabel`."""

    def relabel(self, operation: Relabel) -> Flow[int | None]:
        """Write the labels; return how many chunks were changed, or None where the store cannot count."""
        ...


@runtime_checkable
class Updating(Protocol):
    """An `Adapter` that can change metadata in place, and which declares how as `Capabilities.atomic_update`."""

    def update_metadata(self, operation: UpdateMetadata) -> Flow[int]:
        """Change the chunks; return how many: those that were read, or 0 where the document is another one by now."""
        ...


def flow_of(adapter: Adapter, operation: Operation) -> Flow[Any]:
    """Return the flow of *adapter* that performs *operation*. Raises: UnsupportedPredicateError if it has none."""
    method = OPERATIONS[type(operation)].method
    make: Callable[[Operation], Flow[Any]] | None = getattr(adapter, method, None)  # see `Faceted`
    if make is None:
        raise UnsupportedPredicateError(f"The adapter has no flow of {method}.", field=method)
    return make(operation)


class Operator(Protocol):
    """The operator's access to a store, with separate credentials; blocking, used by the command line only."""

    def plan(self, *, adopt: str | None = None) -> str:
        """Return the statements that `provision` would run, as text that can be run."""
        ...

    def provision(
        self, *, adopt: str | None = None, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> list[str]:
        """Create or update what the adapter needs. Can be run again.

        Args:
            adopt: The name of a table or collection whose rows are then imported.
            progress: Called while rows are imported.
            adopted: The figures of the import, kept up to date; passed by `hazmat.adopt` to operators that have this
                parameter. Without it the audit record has no figures.

        Returns:
            A line for each thing that was done.
        """
        ...

    def tenants(self, *, progress: Progress | None = None) -> list[TenantInfo]:
        """List the tenants with their size, their tier and advice.

        Args:
            progress: Called while tenants are counted; passed to operators that have this parameter.
        """
        ...

    def promote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* to a separate physical part while reads and writes continue."""
        ...

    def demote(self, tenant: str, *, progress: Progress | None = None) -> list[str]:
        """Move *tenant* back to the part that small tenants share."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...


@runtime_checkable
class ShareAdopter(Protocol):
    """An `Operator` that can import existing rows in shares of documents, by several processes.

    All chunks of a document are in one share. `provision` is called before.
    """

    def survey(self, source: str, parts: Sequence[Share], *, progress: Progress | None = None) -> list[Share]:
        """Check every row of *source*, and prepare the store for its tenants; copy nothing.

        Args:
            source: The name of a table or collection.
            parts: Shares that together are everything.
            progress: Called while rows are checked.

        Returns:
            *parts*, each with the numbers of rows of its tenants.

        Raises:
            RefusedError: Rows cannot be imported; the message lists them.
        """
        ...

    def adopt_share(
        self, source: str, share: Share, *, progress: Progress | None = None, adopted: Adopted | None = None
    ) -> dict[str, int]:
        """Import the rows of *share* and compare them. Can be repeated: rows that exist stay as they are.

        Returns:
            The number of rows of each tenant that were compared.

        Raises:
            RefusedError: A row cannot be imported, or its tenant is not one of `share.tenants`.
            StoreError: A copy differs in the end.
        """
        ...

    def adopt_end(self, source: str, tenants: Mapping[str, int]) -> list[str]:
        """Do what is left when all shares were imported, which held the rows of *tenants*; return it, a line each."""
        ...


@runtime_checkable
class JointMover(Protocol):
    """An `Operator` that moves several tenants for little more than the price of one."""

    @property
    def together(self) -> int:
        """The number of tenants that `promote_together` takes at most."""
        ...

    def promote_together(self, tenants: Sequence[str], *, progress: Progress | None = None) -> list[str]:
        """Move all of *tenants* to a separate physical part each, or none of them; return a line for each."""
        ...


@runtime_checkable
class RowKeeper(Protocol):
    """An `Operator` with methods that a registry need not be asked for, since what they move stays as it is."""

    @property
    def keeps_rows(self) -> frozenset[str]:
        """The names of these methods.

        At every moment, also after one that was interrupted, each read through the adapter shows every row once, with
        its tag as it is; a write at the same time is made as a whole, or fails. What is not named here is refused.
        """
        ...


@runtime_checkable
class RegistryMarker(Protocol):
    """An `Operator` that marks its store as governed by a registry, as every `Relabeling` adapter's has to."""

    def mark(self, registry: str | None) -> list[str]:
        """Note *registry* in the store itself, where `Posture.registry` reads it; None removes the mark.

        A process without that registry then refuses the store. Can be repeated. Returns a line for what was done.
        """
        ...


@runtime_checkable
class StoreSettler(Protocol):
    """An `Operator` of a store in which interrupted writes leave what only the adapter's own flows tell apart."""

    def settle(self) -> list[str]:
        """Complete or undo what interrupted writes left, so that of each document one version remains: the visible one.

        `provision` calls it before a registry takes over, which knows versions by their generation alone. No chunk
        that a reader sees is changed. Writers have to be stopped before. Can be repeated. Returns a line for what was
        done.
        """
        ...


@runtime_checkable
class TenantRemover(Protocol):
    """An `Operator` that can delete a tenant, as that of every store should."""

    def remove(self, tenant: str) -> list[str]:
        """Delete *tenant* from the store: all of its rows, its credential, and its name wherever the adapter wrote it.

        These are rows of every version and state (also staged and expired ones), the parts that are named after it
        (shard, partition, namespace, tenant), marks of interrupted moves and writes, and the adapter's files. Can be
        repeated after any interruption, and then finishes. Concurrent writes of the tenant either end before the
        removal and are gone, or bring the tenant back whole where the store makes tenants by writing.

        Returns:
            A line for each thing that was done; none where the store holds nothing of the tenant.

        Raises:
            InvalidTenantError: *tenant* cannot be a tenant's name.
            StoreError: The store failed.
        """
        ...


@runtime_checkable
class TenantKeeper(TenantRemover, Protocol):
    """An `Operator` of a store that keeps a part for each tenant and manages its lifecycle.

    Every method can be repeated, and returns a line for each thing that was done.

    Raises:
        RefusedError: The store cannot do it; the message says what to do instead.
        InvalidTenantError: *tenant* cannot be a tenant's name.
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
    """The context in which an adapter is opened.

    Attributes:
        name: The store's name in the configuration.
        fields: The declared metadata fields and their types.
        base: The folder that relative paths of the configuration start from.
        debug_errors: Whether clients' exceptions are attached as causes.
        client: The object that the application passed to `connect(clients=…)` for this store, such as a pool.
        embedder: The identity of the configured embedder. `provision` keeps it in the store, and the posture returns
            it.
        registry: The id of the configured registry; None without one, or before its tables exist. An adapter that holds
            no rows yet may note it as its mark; otherwise `RegistryMarker.mark` does.
        governed: Whether a registry is configured. It then says which generation of a document is read, so an adapter
            that chooses between versions by itself has to show all of them.
    """

    name: str
    fields: Mapping[str, FieldType]
    base: str
    debug_errors: bool = False
    client: Any = None
    embedder: str | None = None
    registry: str | None = None
    governed: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """An adapter with the makers of its ports. A port is made at its first use, in the process that uses it.

    Attributes:
        adapter: The flows.
        port: Makes the sync port.
        aport: Makes the async port; see `Threaded`.
        operator: Makes the operator's access, for `vectoracl provision` and `tenants`; None if there is none.
        server: Describes the store for reports; called after the first contact.
        identity: Says where the rows are, given the store's port: as texts of which two stores share one only if they
            are the same store (see `address` and `replica`). `vectoracl copy` recognises a store by them. Raises what
            the port raises.
        kept: Whether the rows outlive the process.
        in_flight: The number of requests that a port performs at a time, for all callers, for example the size of its
            pool; the core lets further ones in by turns of their tenants. None: no such limit.
        in_flight_wait: The longest wait of a request for its turn in seconds, unless the configuration has another.
            None: the request's time limit.
    """

    adapter: Adapter
    port: Callable[[], Port]
    aport: Callable[[], AsyncPort]
    operator: Callable[[], Operator] | None = None
    server: Callable[[], str] = field(default=lambda: "unknown")
    identity: Callable[[Port], frozenset[str]] = field(default=lambda _: frozenset())
    kept: bool = True
    in_flight: int | None = None
    in_flight_wait: float | None = None


@dataclass(frozen=True, slots=True)
class DemoStore:
    """Where the demo's store is (`vectoracl_demo_place`).

    `settings` are keys of `[stores.main]`; a Path in them is relative to the demo's own folder. `kept` is whether the
    store outlives `close`, so that the user can continue with the data of the demo; `note` is a text for the user.
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
