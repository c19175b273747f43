"""Governed scopes as values: what a principal may see in each partition, as the registry stood in one transaction.

The filter of a partition is

    ((label in allowed, expires > now, document not in O) or docgen in IN) and not quarantined

O is the overlay: the documents whose chunks do not yet carry what the registry says. IN names, of those, the published
generations that this principal may see now. So a change of rights is in force at the next query and no chunk is written
for it. No label that begins with "#" is ever allowed: `#staged` is an unpublished generation, `#held` a held document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from vectoracl.errors import RefusedError
from vectoracl.filters.predicate import ALWAYS, MAX_VALUES, Eq, F, Predicate, Range, conjunction, disjunction
from vectoracl.filters.semantics import Test, compile_test
from vectoracl.model.records import NEVER_EXPIRES, Tag, docgen
from vectoracl.registry.restores import stopped_error

STAGED = "#staged"
HELD = "#held"


OPERATIONS = ("upsert", "replace", "load")


def from_source(source: str) -> Predicate:
    """Return the condition that a chunk was written by *source*: an operation of any pipeline, or a pipeline's name."""
    if source in OPERATIONS:
        return disjunction((Eq("@path", source), F["@path"].starts_with(f"{source}:")))
    return F["@path"].in_([f"{one}:{source}" for one in OPERATIONS])


@dataclass(frozen=True, slots=True)
class Quarantine:
    """A rule that takes chunks out of retrieval by what the framework wrote into their tags; all its parts must match.

    Attributes:
        name: The rule's name, unique in its tenant.
        producer: The id of the principal that wrote the chunk.
        source: The pipeline that wrote it, or the operation ("upsert", "replace", "load").
        document: The document's id.
        generation: The generation of that document.
        since: The first time of writing, in POSIX seconds.
        until: The end of the times of writing, which is not part of it.
    """

    name: str
    producer: str | None = None
    source: str | None = None
    document: str | None = None
    generation: int | None = None
    since: float | None = None
    until: float | None = None

    def predicate(self) -> Predicate:
        """Return the condition on chunks. A rule without parts would match everything, and is never stored."""
        parts: list[Predicate] = []
        if self.producer is not None:
            parts.append(Eq("@producer", self.producer))
        if self.source is not None:
            parts.append(from_source(self.source))
        if self.document is not None:
            parts.append(Eq("@document", self.document))
        if self.generation is not None:
            parts.append(Eq("@generation", self.generation))
        if self.since is not None or self.until is not None:
            parts.append(Range("@time", gte=self.since, lt=self.until))
        return conjunction(parts)


class DocumentState(NamedTuple):
    """A document's row in the registry, as the second lock needs it."""

    label: str
    generation: int | None
    expires: float
    live: bool
    held: bool
    rev: int


@dataclass(frozen=True, slots=True)
class PartitionScope:
    """The part of a governed scope in one partition.

    Attributes:
        tenant: The tenant that owns the partition.
        version: The tenant's version in the registry.
        now: The registry's time.
        labels: The allowed labels.
        overlay: O, the documents whose chunks do not say what the registry says.
        granted: IN, the published (document, generation) pairs among them that are permitted now.
        rules: The quarantine rules in force.
        withdrawn: Labels that are hidden as a whole, because more documents changed than a filter can name.
    """

    tenant: str
    version: int
    now: float
    labels: frozenset[str]
    overlay: tuple[str, ...] = ()
    granted: tuple[tuple[str, int], ...] = ()
    rules: tuple[Quarantine, ...] = ()
    withdrawn: frozenset[str] = frozenset()
    _excluded: Test | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        excluded = self._exclusion()
        object.__setattr__(self, "_excluded", compile_test(excluded) if self.rules else None)

    def _exclusion(self) -> Predicate:
        return disjunction([rule.predicate() for rule in self.rules])

    def predicate(self) -> Predicate:
        """Return the filter. Raises: RefusedError where it names more values than a store takes."""
        values = len(self.labels) + len(self.overlay) + len(self.granted)
        if values > MAX_VALUES:
            raise RefusedError(
                f"The scope names more labels and changed documents than a filter holds ({MAX_VALUES:,}). Use coarser "
                "labels, and run `vectoracl reconcile` if documents have changed.",
                field="scope",
            )
        by_label = conjunction(
            (
                F["@label"].in_(sorted(self.labels)),
                Range("@expires", gt=self.now),
                ~F["@document"].in_(self.overlay),
            )
        )
        by_generation = F["@docgen"].in_([docgen(document, generation) for document, generation in self.granted])
        visible = disjunction((by_label, by_generation))
        return conjunction((visible, ~self._exclusion())) if self.rules else visible

    def permits(self, tag: Tag, state: DocumentState | None) -> bool:
        """Return whether a chunk with *tag* may be read, by the registry's row of its document and not by its label."""
        return (
            state is not None
            and state.live
            and not state.held
            and state.generation == tag.generation
            and state.expires > self.now
            and state.label in self.labels
            and not (self._excluded is not None and self._excluded(tag, {}))
        )


class Probe(NamedTuple):
    """The versions of some tenants, the registry's time, and the reasons of the tenants that are stopped."""

    versions: dict[str, int]
    now: float
    stopped: Mapping[str, str] = MappingProxyType({})

    def check_running(self) -> None:
        """Raise StoppedTenantError if one of the tenants is stopped."""
        for tenant, reason in self.stopped.items():
            raise stopped_error(tenant, reason)


@dataclass(frozen=True, slots=True)
class GovernedScope:
    """The rows that a principal may touch, taken from one transaction of the registry.

    Attributes:
        partitions: The scope of each partition, by its tenant.
        now: The registry's time.
        valid_until: The registry's time from which it has to be taken again: a grant or a document ends or begins.
        added: Partitions that the registry adds to those of the policy: the parent's, for reads.
    """

    partitions: Mapping[str, PartitionScope]
    now: float
    valid_until: float = NEVER_EXPIRES
    added: tuple[str, ...] = ()

    @property
    def versions(self) -> dict[str, int]:
        """The version of each tenant."""
        return {tenant: one.version for tenant, one in self.partitions.items()}

    def holds(self, found: Probe) -> bool:
        """Return whether nothing has changed since, by the present versions and time."""
        return found.versions == self.versions and self.now <= found.now < self.valid_until

    def predicate(self, tenant: str) -> Predicate:
        """Return the filter of *tenant*'s partition; a partition that the registry did not decide is closed."""
        part = self.partitions.get(tenant)
        return ~ALWAYS if part is None else part.predicate()


class Confirmation(NamedTuple):
    """The answer of the second lock: the scope taken again if it has changed since, and the rows of the documents."""

    fresh: GovernedScope | None
    documents: Mapping[tuple[str, str], DocumentState]
