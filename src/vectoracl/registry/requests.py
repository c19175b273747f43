"""Requests to the registry, as data: each is one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from vectoracl.adapter_api.contract import Request
from vectoracl.model.principal import Principal
from vectoracl.registry.restores import Closing, Marks, SeenMarks
from vectoracl.registry.scopes import Confirmation, GovernedScope, Probe, Quarantine
from vectoracl.registry.values import Captured, Expected, Pending, Place, Ticket

if TYPE_CHECKING:
    from vectoracl.registry.sql_registry import Registry

R_co = TypeVar("R_co", covariant=True)


class RegistryRequest(Request[R_co]):
    """A request to the registry; `perform` is its one transaction."""

    __slots__ = ()
    port: ClassVar[str] = "registry"

    def perform(self, registry: Registry) -> Any:
        """Perform the request on *registry*."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ProbeVersions(RegistryRequest[Probe]):
    """Read the versions of tenants."""

    tenants: tuple[str, ...]

    def perform(self, registry: Registry) -> Probe:
        """Read them by one indexed query."""
        return registry.probe(self.tenants)


@dataclass(frozen=True, slots=True)
class TakeScope(RegistryRequest[GovernedScope]):
    """Take the scope of a principal in partitions; with `family`, its parent's partition is added for reads."""

    principal: Principal
    partitions: tuple[str, ...]
    for_writes: bool
    family: bool

    def perform(self, registry: Registry) -> GovernedScope:
        """Take it, with its versions, from one transaction."""
        return registry.take(self)


@dataclass(frozen=True, slots=True)
class Confirm(RegistryRequest[Confirmation]):
    """The second lock: what holds now for the documents, (tenant, document), of an answer under `scope`."""

    asked: TakeScope
    scope: GovernedScope
    documents: tuple[tuple[str, str], ...]

    def perform(self, registry: Registry) -> Confirmation:
        """Read it in one transaction."""
        return registry.confirm(self.asked, self.scope, self.documents)


@dataclass(frozen=True, slots=True)
class MarkStale(RegistryRequest[None]):
    """Put documents into the overlay whose chunks do not say what the registry says."""

    tenant: str
    documents: tuple[str, ...]

    def perform(self, registry: Registry) -> None:
        """Enter them."""
        registry.mark_stale(self.tenant, self.documents)


@dataclass(frozen=True, slots=True)
class TakeTickets(RegistryRequest[list[Ticket] | None]):
    """Ask for the right to write the next generation of documents, with room for that many new quarantine rules."""

    principal: Principal
    tenant: str
    documents: tuple[str, ...]
    rules: int = 0

    def perform(self, registry: Registry) -> list[Ticket] | None:
        """Give them out."""
        return registry.tickets(self.principal, self.tenant, self.documents, self.rules)


@dataclass(frozen=True, slots=True)
class Publish(RegistryRequest[bool]):
    """Publish the generations of tickets, with their numbers of chunks, and put quarantine rules into force with them.

    A rule comes with its reason.
    """

    principal: Principal
    tenant: str
    generations: tuple[tuple[Ticket, int], ...]
    rules: tuple[tuple[Quarantine, str], ...] = ()

    def perform(self, registry: Registry) -> bool:
        """Publish all or none."""
        return registry.publish(self.principal, self.tenant, self.generations, self.rules)


@dataclass(frozen=True, slots=True)
class Abandon(RegistryRequest[None]):
    """Give tickets back."""

    tenant: str
    tickets: tuple[Ticket, ...]

    def perform(self, registry: Registry) -> None:
        """Give them back."""
        registry.abandon(self.tenant, self.tickets)


@dataclass(frozen=True, slots=True)
class BeginErasing(RegistryRequest[list[Pending]]):
    """Decide that documents are deleted; `principal` is None for a governor."""

    principal: Principal | None
    tenant: str
    documents: tuple[str, ...]
    by: str
    reason: str
    only_expired: bool = False
    generations: tuple[tuple[str, int], ...] | None = None

    def perform(self, registry: Registry) -> list[Pending]:
        """Decide it, unless one is held."""
        return registry.begin_erasing(
            self.principal,
            self.tenant,
            self.documents,
            self.by,
            self.reason,
            only_expired=self.only_expired,
            generations=None if self.generations is None else dict(self.generations),
        )


@dataclass(frozen=True, slots=True)
class NoteErased(RegistryRequest[list[str] | None]):
    """Note that the chunks of deleted documents are gone; None if nothing could be closed."""

    tenant: str
    documents: tuple[Pending, ...]
    closing: Closing

    def perform(self, registry: Registry) -> list[str] | None:
        """Note it."""
        return registry.erased(self.tenant, self.documents, self.closing)


@dataclass(frozen=True, slots=True)
class CapturePending(RegistryRequest[Captured]):
    """Capture documents of the overlay whose chunks may be written now, from after a place."""

    tenant: str
    limit: int
    after: Place | None = None

    def perform(self, registry: Registry) -> Captured:
        """Capture them."""
        return registry.pending(self.tenant, self.limit, self.after)


@dataclass(frozen=True, slots=True)
class CaptureDocuments(RegistryRequest[list[Pending]]):
    """Capture documents by name."""

    tenant: str
    documents: tuple[str, ...]

    def perform(self, registry: Registry) -> list[Pending]:
        """Capture them."""
        return registry.capture(self.tenant, self.documents)


@dataclass(frozen=True, slots=True)
class Clear(RegistryRequest[list[str] | None]):
    """Take documents out of the overlay whose chunks carry what was captured; None if nothing could be closed."""

    tenant: str
    documents: tuple[Pending, ...]
    closing: Closing

    def perform(self, registry: Registry) -> list[str] | None:
        """Compare the rev and take them out."""
        return registry.clear(self.tenant, self.documents, self.closing)


@dataclass(frozen=True, slots=True)
class ReadMarks(RegistryRequest[Marks]):
    """Read the marks that a store has to have; see `restores`."""

    tenant: str
    store: str

    def perform(self, registry: Registry) -> Marks:
        """Read them."""
        return registry.marks(self.tenant, self.store)


@dataclass(frozen=True, slots=True)
class CompareMarks(RegistryRequest[None]):
    """Compare the marks that were seen in a store after `before` was read, and stop the tenant if one is missing."""

    tenant: str
    store: str
    before: Marks
    seen: SeenMarks

    def perform(self, registry: Registry) -> None:
        """Compare them."""
        registry.compare_marks(self.tenant, self.store, self.before, self.seen)


@dataclass(frozen=True, slots=True)
class BeginVerify(RegistryRequest[int]):
    """Stop a tenant and begin to verify it; returns the number of changes that the journal had."""

    tenant: str
    token: str
    newest: int
    accepted: bool

    def perform(self, registry: Registry) -> int:
        """Replay the journal and stop the tenant."""
        return registry.begin_verify(self.tenant, self.token, self.newest, accepted=self.accepted)


@dataclass(frozen=True, slots=True)
class VerifyPage(RegistryRequest[list[Expected]]):
    """Read the next documents with what their chunks should carry."""

    tenant: str
    after: str
    size: int

    def perform(self, registry: Registry) -> list[Expected]:
        """Read them."""
        return registry.verify_page(self.tenant, self.after, self.size)


@dataclass(frozen=True, slots=True)
class VerifyKnown(RegistryRequest[frozenset[str]]):
    """Ask which of some documents are registered."""

    tenant: str
    documents: tuple[str, ...]

    def perform(self, registry: Registry) -> frozenset[str]:
        """Read them."""
        return registry.verify_known(self.tenant, self.documents)


@dataclass(frozen=True, slots=True)
class Restamp(RegistryRequest[list[Pending]]):
    """Give new revs to documents whose chunks contradict the registry; `gone` are those that have no content."""

    tenant: str
    token: str
    live: tuple[str, ...]
    gone: tuple[str, ...]

    def perform(self, registry: Registry) -> list[Pending]:
        """Give them, and capture the documents."""
        return registry.restamp(self.tenant, self.token, self.live, self.gone)


@dataclass(frozen=True, slots=True)
class Restamped(RegistryRequest[None]):
    """Note that the chunks of documents are what the registry says."""

    tenant: str
    token: str
    documents: tuple[Pending, ...]

    def perform(self, registry: Registry) -> None:
        """Note it."""
        registry.restamped(self.tenant, self.token, self.documents)


@dataclass(frozen=True, slots=True)
class VerifyMarks(RegistryRequest[Marks]):
    """Draw the mark that ends a verification."""

    tenant: str
    token: str

    def perform(self, registry: Registry) -> Marks:
        """Draw it."""
        return registry.verify_marks(self.tenant, self.token)


@dataclass(frozen=True, slots=True)
class EndVerify(RegistryRequest[None]):
    """End a verification: the mark is required from now on, and the tenant goes on."""

    tenant: str
    token: str
    store: str
    mark: str
    version: int

    def perform(self, registry: Registry) -> None:
        """End it."""
        registry.end_verify(self.tenant, self.token, self.store, self.mark, self.version)


@dataclass(frozen=True, slots=True)
class TakeLease(RegistryRequest[float]):
    """Ask for the lease of writing labels of a tenant; the reply is 0, or the seconds until it may be free."""

    tenant: str
    token: str

    def perform(self, registry: Registry) -> float:
        """Give it, unless another one may still write."""
        return registry.take_lease(self.tenant, self.token)


@dataclass(frozen=True, slots=True)
class RenewLease(RegistryRequest[None]):
    """Extend the lease before the next request."""

    tenant: str
    token: str

    def perform(self, registry: Registry) -> None:
        """Extend it, unless it has ended."""
        registry.renew_lease(self.tenant, self.token)


@dataclass(frozen=True, slots=True)
class EndLease(RegistryRequest[None]):
    """Give the lease back; `clean` if every request under it was answered."""

    tenant: str
    token: str
    clean: bool

    def perform(self, registry: Registry) -> None:
        """End it."""
        registry.end_lease(self.tenant, self.token, clean=self.clean)


@dataclass(frozen=True, slots=True)
class FindExpired(RegistryRequest[tuple[list[str], int, int]]):
    """Find documents whose time has passed."""

    tenant: str
    limit: int

    def perform(self, registry: Registry) -> tuple[list[str], int, int]:
        """Find them."""
        return registry.expired(self.tenant, self.limit)


@dataclass(frozen=True, slots=True)
class Govern(RegistryRequest[Any]):
    """One change or look of a governor: a method of the registry with its arguments."""

    method: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...] = ()

    def perform(self, registry: Registry) -> Any:
        """Call the method."""
        return getattr(registry, self.method)(*self.arguments, **dict(self.options))
