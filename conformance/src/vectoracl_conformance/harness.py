"""The harness: the one object that an adapter's author writes to create fresh stores and read them without the adapter.

    class MyHarness(Harness):
        adapter = "mystore"
        def server(self): return Server("real", "MyStore 4.2")
        def fresh(self, needs): return MyStore(...)      # an empty store, ready to serve

    harness = MyHarness()                                # `vectoracl conformance my_package:harness`

Everything below `census` is optional: a part that a store does not offer is reported as not run, never as passed.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vectoracl.adapter_api.contract import Opened
from vectoracl.model.records import Record

if TYPE_CHECKING:  # a harness has no need of what reads the wire, and neither has a mutant in the adapter's process
    from vectoracl_conformance.evidence.wire import Wire

GROUP = "vectoracl.conformance"
_OURS = {
    "memory": "vectoracl_conformance.harnesses.memory:harness",
    "pgvector": "vectoracl_pgvector.conformance.harness:harness",
    "pgvector-pgbouncer": "vectoracl_pgvector.conformance.pgbouncer:harness",
    "qdrant": "vectoracl_qdrant.conformance.harness:harness",
    "weaviate": "vectoracl_weaviate.conformance.harness:harness",
    "weaviate-rbac": "vectoracl_weaviate.conformance.harness:rbac",
    "pinecone": "vectoracl_pinecone.conformance.harness:harness",
}


class HarnessError(Exception):
    """The harness cannot be used, or cannot make a store here: nothing was measured."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server that answered, and its version.

    `kind` is "real" (the product), "independent" (another engine behind the same protocol) or "in-process".
    """

    kind: Literal["real", "independent", "in-process"]
    version: str


@dataclass(frozen=True, slots=True)
class Needs:
    """The requirements for a fresh store: vectors of `dimension` numbers and the declared metadata fields."""

    dimension: int
    metadata: Mapping[str, str]
    metric: Literal["cosine", "inner", "l2"] = "cosine"


@dataclass(frozen=True, slots=True)
class Weakening:
    """One way to misconfigure the store out of band, which the adapter's posture has to notice.

    For a store that lives in the adapter's process (`Store.census_source`), `apply` and `undo` are Python texts that
    define `work(client)`, and are run there.
    """

    name: str
    apply: Callable[[], None] | str
    undo: Callable[[], None] | str


@runtime_checkable
class Engine(Protocol):
    """A counter in the store's own engine: how many vectors it scored since it was made, whoever asked."""

    def scored(self) -> int:
        """Return the count, after everything that was sent so far has been counted."""
        ...

    def unscoped(self, vector: Sequence[float], k: int) -> int:
        """Rank all rows without the adapter (the control) and return how many rows came back."""
        ...


@runtime_checkable
class PartEngine(Engine, Protocol):
    """An engine that also counts by index and by part, for what `scored` is blind to (vectors scored in an index).

    A part is where the store keeps rows apart by tenant: a partition, a shard, a segment.
    """

    def give_own_part(self, tenant: str) -> None:
        """Move *tenant* into its own indexed part, as an operator does with a large one."""
        ...

    def others(self, tenant: str) -> Mapping[str, int]:
        """Return counters, by name, that no read for *tenant* may move.

        Searches of every vector index that covers rows of others, and rows read in every part that holds no row
        of *tenant*. After everything that was sent so far has been counted, and without moving them itself.
        """
        ...

    def own_index(self, tenant: str) -> int:
        """Return how often the vector index of *tenant*'s own part was searched."""
        ...

    def sweep(self, vector: Sequence[float]) -> None:
        """Search every vector index and read every part without the adapter (the control)."""
        ...

    def lock(self, tenant: str) -> AbstractContextManager[None]:
        """Hold *tenant*'s own part for a while, so that whoever wants it has to wait."""
        ...

    def explain(self, requests: Sequence[Any]) -> str:
        """Replay what the adapter sent and say in a few words how the store performed it; it explains, only."""
        ...


@runtime_checkable
class Shards(Protocol):
    """An engine that keeps each tenant in a separate part and counts no vectors: E3 at shard level."""

    def part(self, tenant: str) -> str:
        """Return the name of the part that holds *tenant*."""
        ...

    def rankings(self) -> Mapping[str, int]:
        """Return how many rankings each part was asked for since the store was made, whoever asked."""
        ...

    def work(self) -> Mapping[str, float]:
        """Return, for each part, a number that moves when something is read there."""
        ...

    def rank(self, tenant: str, vector: Sequence[float], k: int) -> int | None:
        """Rank in the part of *tenant* without the adapter (the control); None: it is not served."""
        ...

    def shut(self, tenants: Sequence[str]) -> None:
        """Take the parts of *tenants* out of service."""
        ...

    def open(self, tenants: Sequence[str]) -> None:
        """Serve them again."""
        ...


class Store:
    """One fresh store. `config` is `[stores.NAME]` without `metadata`, with the adapter's name.

    `single` is the same for at most one connection (None: the adapter has no such setting). `secrets` are texts that
    must never be shown (passwords in connection strings).

    `census_source` is for a store that lives in the process that opens it, where nothing outside can read it: Python
    text that defines `census(client)`, which returns what `census` returns, and uses nothing of the kit or the harness.
    It is put into the adapter's process after the calls, and its rows are judged outside. The report calls that an
    in-process census.
    """

    config: Mapping[str, Any]
    single: Mapping[str, Any] | None = None
    secrets: Sequence[str] = ()
    census_source: str = ""

    def census(self) -> Sequence[Record]:
        """Read every row of the store, of all tenants, without the adapter's code; vectors may be normalised.

        Metadata has its declared types, datetimes as aware datetimes (read by `vectoracl.adapter_api.load_metadata`).
        A store with `census_source` needs no other census: by default, it is run here as well. Raises: HarnessError.
        """
        if not self.census_source:
            raise HarnessError("The harness's store has neither census nor census_source.")
        names: dict[str, Any] = {}
        exec(compile(self.census_source, "<string>", "exec"), names)  # noqa: S102 - the harness's own text
        return names["census"](None)  # type: ignore[no-any-return]

    def parts(self) -> frozenset[str] | None:
        """Name what the store keeps per tenant (namespaces, registrations); None if it keeps no such thing."""
        return None

    def admit(self, tenant: str) -> None:
        """Register *tenant* before the first write for it, as an operator does; for adapters whose writes cannot."""

    def settle(self) -> None:
        """Wait until everything written is visible to every reader; for stores that are eventually consistent."""

    def carries(self, request: Any, tenant: str) -> bool | None:  # noqa: ARG002 - the form of an override
        """Say whether *request*, as it was sent, has the tenant as an unconditional conjunct; None: cannot tell."""
        return None

    def wire(self) -> Wire | None:
        """Describe the wire, so that the kit can stand in front of it; None: there is none to be heard."""
        return None

    def weakenings(self) -> Sequence[Weakening]:
        """List misconfigurations that the posture has to notice."""
        return ()

    def engine(self) -> Engine | Shards | None:
        """Return the engine's own counter, where there is one; or what its parts show."""
        return None

    def close(self) -> None:
        """Remove the store."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A deliberately broken adapter: what it breaks, and the check that has to notice.

    `wrap` gets the opened adapter (its flows and its ports) and returns the broken one; of the store that it gets, it
    may use `census` and `parts`. `store` breaks the store instead, out of band, after the corpus was written. `patches`
    replaces attributes of the core: (module, attribute, function of the old value). `modes` are the modes in which the
    fault is there. `source` is Python text that defines `dress(opened)` and needs nothing of the kit.

    A mutant is put into the adapter's process as text: `source`, or the module that defines it with what that imports
    of the kit, under other names. There it is found by its name among the mutants of the harness, or of `home`, which
    is "module:attribute". So that module has to import by absolute names.
    """

    name: str
    breaks: str
    expected: str
    wrap: Callable[[Opened, Store], Opened] | None = None
    store: Callable[[Store], None] | None = None
    patches: Sequence[tuple[str, str, Callable[[Any], Any]]] = ()
    modes: tuple[Literal["sync", "async"], ...] = ("sync",)
    needs: frozenset[str] = field(default_factory=frozenset)
    source: str = ""
    home: str = ""


class Harness(ABC):
    """An adapter as the kit knows it: the name that config uses, and the product's.

    `metrics` are those that `fresh` can make a store for. All its stores have one configuration, but for the place, the
    dimension and the metric: the report certifies that one. `thousands` is whether a tenant of the generated calls may
    have thousands of rows, and a read 64 partitions. A store that reads every row in Python for each request may leave
    them out, and the report says so.
    """

    adapter: str
    store: str = ""
    metrics: Sequence[Literal["cosine", "inner", "l2"]] = ("cosine",)
    thousands: bool = True

    @abstractmethod
    def server(self) -> Server:
        """Describe what will answer. Raises: HarnessError or MissingServerError if it is not there."""

    @abstractmethod
    def fresh(self, needs: Needs) -> Store:
        """Make an empty store. Raises: HarnessError or MissingServerError."""

    def mutants(self) -> Sequence[Mutant]:
        """Return the faults that only this store can have; called also in the adapter's process, on a bare object."""
        return ()

    def close(self) -> None:  # noqa: B027 - likewise
        """Release what the stores shared."""


def load_harness(name: str) -> Harness:
    """Return the harness of an installed adapter (*name*) or of `module:attribute`. Raises: HarnessError."""
    points = [point.value for point in entry_points(group=GROUP) if point.name == name]
    if len(set(points)) > 1:
        raise HarnessError(f"Several distributions offer a harness for {name!r}: name one as module:attribute.")
    target = name if ":" in name else (points[0] if points else _OURS.get(name, ""))
    if not target:
        known = sorted({*(point.name for point in entry_points(group=GROUP)), *_OURS})
        near = get_close_matches(name, known, 1)
        hint = f"; do you mean {near[0]!r}?" if near else "."
        raise HarnessError(
            f"No harness for {name!r}{hint} Known: {', '.join(known)}. Pass another one as module:attribute, or "
            f"register it in the entry point group {GROUP!r}."
        )
    module, _, attribute = target.partition(":")
    try:
        target_object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise HarnessError(f"The harness {target} cannot be imported: {error}.") from error
    harness = target_object() if isinstance(target_object, type) else target_object
    if not isinstance(harness, Harness):
        raise HarnessError(f"{target} is not a Harness but {type(harness).__name__}.")
    return harness
