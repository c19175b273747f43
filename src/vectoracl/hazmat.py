"""Access past the scope. Each function takes a written reason and leaves an audit record; there is no other way.

Nothing in this module belongs in an application's request path. It is for the demo, for audits, and for the operator,
who holds the store's credentials anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from vectoracl._util.signatures import takes
from vectoracl.adapter_api.contract import Adopted, Flow, Operator, Progress, ShareAdopter
from vectoracl.adapter_api.operations import Position, Rows
from vectoracl.adapter_api.shares import Share
from vectoracl.client.connect import VectorACL
from vectoracl.client.governance import Governance
from vectoracl.engine import operator_flows
from vectoracl.engine.core_ports import EMBEDDING, EmbedDocuments, EmbedQueries
from vectoracl.engine.drivers import run
from vectoracl.engine.embedding import embedded
from vectoracl.engine.operator_flows import recorded
from vectoracl.engine.pipeline import Store
from vectoracl.engine.recorded_operator import (
    check_import,
    check_imports,
    checked_operator,
    under_registry,
    unrecorded,
)
from vectoracl.engine.routes import held_open
from vectoracl.errors import InvalidInputError, RefusedError
from vectoracl.model.identifiers import check_tenant
from vectoracl.model.principal import Principal
from vectoracl.model.queries import VectorQuery, check_query, check_vector
from vectoracl.model.records import Hit, Record, Result, Vector

T = TypeVar("T")


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or len(reason.split()) < 3:
        raise InvalidInputError("hazmat requires a reason: a sentence of at least three words.", field="reason")
    return reason.strip()


def operator_principal(id: str, tenant: str, reason: str) -> Principal:  # noqa: A002 - the field's own name
    """Return a principal for an operator who acts as a user of a tenant, as `--as` of the command line does.

    The audit record of each of its decisions shows the kind "operator".

    Args:
        id: The user's id.
        tenant: The tenant's id.
        reason: A sentence of at least three words.

    Returns:
        The principal.

    Raises:
        InvalidInputError: The reason is too short, or an id has the wrong form.
    """
    return Principal(id, tenant, kind="operator", authenticated_by=f"operator: {_reason(reason)}")


def _ungoverned(acl: VectorACL, what: str) -> None:
    """Refuse *what* where a registry governs rows: it would show, copy or delete what the registry hides or holds."""
    if acl.registry is not None:
        raise RefusedError(f"{what} does not ask the registry, so it is refused under one.", field="registry")


def govern(acl: VectorACL, tenant: str, *, reason: str) -> Governance:
    """Return a handle that governs *tenant* for the operator, whom `[registry] governors` need not name.

    Each of its changes is recorded with the kind "operator" and *reason*.

    Args:
        acl: The opened configuration.
        tenant: The tenant's id.
        reason: A sentence of at least three words.

    Returns:
        The handle.

    Raises:
        InvalidInputError: The reason is too short.
        ConfigError: There is no `[registry]`.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError("hazmat.govern takes a VectorACL.", field="acl")
    who = operator_principal("operator", tenant, reason)
    return acl._governance(Governance, who, operator=True, reason=_reason(reason))  # noqa: SLF001 - hazmat is the owner's own back door


def _hits(result: Result) -> Sequence[Hit]:
    return result.hits


class Unscoped:
    """A search over all tenants, without a scope."""

    def __init__(self, acl: VectorACL, reason: str) -> None:
        self._acl = acl
        self._reason = reason

    def search(self, query: object, k: int = 10) -> Result:
        """Return the *k* best chunks of the whole default store, of any tenant.

        Args:
            query: A text or a vector.
            k: The number of hits.

        Returns:
            The hits, best first.

        Raises:
            InvalidInputError: An argument has the wrong form.
            RefusedError: The store has no operator access.
            StoreError: The store, the embedder or the audit sink failed.
        """
        acl = self._acl
        named = acl._ready(acl.config.default)  # noqa: SLF001 - hazmat is the owner's own back door
        assert named.port is not None
        can = named.store.capabilities
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= can.max_k:
            raise InvalidInputError(f"k must be an integer from 1 to {can.max_k:,}.", field="k")
        checked = check_query(query, dimension=can.dimension, nonzero=can.metric == "cosine")
        if not isinstance(checked, str | VectorQuery):
            raise InvalidInputError("An unscoped search takes text or a vector.", field="query")

        def body(decision_id: str) -> Flow[Result]:
            resolved = checked
            if isinstance(resolved, str):
                (vector,) = yield from embedded(EmbedQueries, (resolved,), named.store)
                resolved = VectorQuery(check_vector(vector, can.dimension, nonzero=can.metric == "cosine"))
            result = yield from named.store.adapter.unscoped(resolved, k)
            return Result(result.hits, complete=result.complete, shortfall=result.shortfall, decision_id=decision_id)

        flow = recorded(acl.pipeline, named.store, "unscoped", self._reason, ["*"], body, size=len, hits=_hits)
        core = acl.core_port
        ports = {"store": named.port, "audit": core, "embedder": core}
        return run(flow, ports, timeout=named.config.timeout, separate_limit=EMBEDDING)


class Operated:
    """One store, read and written row by row without a scope, for `vectoracl copy`."""

    def __init__(self, acl: VectorACL, store: str, reason: str) -> None:
        self._acl = acl
        self._reason = reason
        self._named = acl._ready(store)  # noqa: SLF001 - hazmat is the owner's own back door

    @property
    def store(self) -> Store:
        """The store, with its capabilities and declared fields."""
        return self._named.store

    @property
    def reached(self) -> str:
        """The isolation grade that the store reaches."""
        assert self._named.posture is not None
        return self._named.posture.grade

    def _run(self, flow: Flow[T]) -> T:
        return self._acl.run(self.store, flow, None)

    def _write(self, tenant: str, flow: Flow[T]) -> T:
        return self._run(held_open(self._acl.routes, check_tenant(tenant), self.store.name, flow))

    @property
    def embedder(self) -> str | None:
        """The identity of the embedder of the stored vectors: the one noted in the store, else the configured one."""
        return self.store.embedder() or self._acl.embedder_identity

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Embed *texts*.

        Args:
            texts: The texts.

        Returns:
            One float32 vector of the store's dimension per text.

        Raises:
            RefusedError: Another embedder is noted in the store.
            StoreError: The embedder failed.
        """
        can = self.store.capabilities
        vectors = self._run(embedded(EmbedDocuments, texts, self.store))
        return [check_vector(one, can.dimension, nonzero=can.metric == "cosine", name="embedding") for one in vectors]

    def read(self, tenant: str, size: int, after: Position | None = None) -> Rows:
        """Return a page of a tenant's complete rows, in the order of document, generation and chunk id.

        Args:
            tenant: The tenant's id.
            size: The maximum number of rows.
            after: The position of the last row of the previous page.

        Returns:
            The rows, and whether more follow.

        Raises:
            UnsupportedPredicateError: The adapter cannot scan.
            ScopeViolationError: The store returned rows of another tenant.
            StoreError: The store or the audit sink failed.
        """
        return self._run(operator_flows.read_page(self._acl.pipeline, self.store, self._reason, tenant, size, after))

    def keys(self, tenant: str, size: int, after: Position | None = None) -> tuple[list[Position], bool]:
        """Return the keys of a page of a tenant's rows, without their content, and whether more follow.

        Args:
            tenant: The tenant's id.
            size: The maximum number of rows.
            after: The last key of the previous page.

        Returns:
            The keys in their order, and whether more follow.

        Raises:
            UnsupportedPredicateError: The adapter cannot scan.
            ScopeViolationError: The store returned rows of another tenant.
            StoreError: The store or the audit sink failed.
        """
        pipeline = self._acl.pipeline
        page = self._run(operator_flows.read_page(pipeline, self.store, self._reason, tenant, size, after, frozenset()))
        return [Position(hit.tag.document, hit.tag.generation, hit.tag.chunk) for hit in page.hits], page.more

    def write(self, tenant: str, records: Sequence[Record], *, foreign: bool = True) -> int:
        """Write rows of a tenant with unchanged tags, all or none.

        Args:
            tenant: The tenant's id.
            records: The rows.
            foreign: Whether `[ingest] validators` see the rows. False is for rows that are moved from another store of
                the same configuration.

        Returns:
            The number of written rows.

        Raises:
            UnsupportedPredicateError: The adapter cannot keep tags unchanged.
            InvalidInputError: A row cannot be written to this store.
            ContentRefusedError: A validator does not accept a document.
            UntaggedWriteError: A row has no tag, or that of another tenant.
            StoreError: The store or the audit sink failed.
        """
        who = operator_principal("operator", tenant, self._reason) if foreign else None
        flow = operator_flows.write_rows(self._acl.pipeline, self.store, self._reason, tenant, records, validate_as=who)
        return self._write(tenant, flow)

    def clear(self, tenant: str) -> int | None:
        """Delete every row of a tenant.

        Args:
            tenant: The tenant's id.

        Returns:
            The number of deleted rows; None if the store cannot count them.

        Raises:
            StoreError: The store or the audit sink failed.
        """
        flow = operator_flows.clear(self._acl.pipeline, self.store, self._reason, tenant)
        return self._write(tenant, flow)

    def delete(self, tenant: str, document: str, chunks: Sequence[str] | None = None) -> int | None:
        """Delete chunks of a document.

        Args:
            tenant: The tenant's id.
            document: The document's id.
            chunks: The chunks' ids; None means all chunks of the document.

        Returns:
            The number of deleted rows; None if the store cannot count them.

        Raises:
            StoreError: The store or the audit sink failed.
        """
        flow = operator_flows.delete_rows(self._acl.pipeline, self.store, self._reason, tenant, document, chunks)
        return self._write(tenant, flow)

    def sweep(self, tenant: str, *, largest_share: float = 0.2) -> int:
        """Delete the rows of a tenant whose time has passed (`Chunk.expires`), in a store without a registry.

        Args:
            tenant: The tenant's id.
            largest_share: The share of the rows above which nothing is deleted: a clock may be wrong.

        Returns:
            The number of deleted rows.

        Raises:
            RefusedError: More than *largest_share* of the rows have expired, or the store is not `expiring`, or there
                is a registry.
            StoreError: The store or the audit sink failed.
        """
        if self._acl.registry is not None:
            raise RefusedError("Under a registry expired documents are erased by hazmat.govern(…).sweep().")
        flow = operator_flows.sweep(self._acl.pipeline, self.store, self._reason, tenant, float(largest_share))
        return self._write(tenant, flow)

    def count(self, tenant: str) -> int:
        """Count the rows of a tenant.

        Args:
            tenant: The tenant's id.

        Returns:
            The exact number of rows.

        Raises:
            UnsupportedPredicateError: The store cannot count.
            StoreError: The store or the audit sink failed.
        """
        return self._run(operator_flows.count_rows(self._acl.pipeline, self.store, self._reason, tenant))


def operate(acl: VectorACL, *, store: str | None = None, reason: str) -> Operated:
    """Return access to a store without a scope. It contacts the store and requires its posture.

    Args:
        acl: The opened configuration.
        store: The store's name; None means the default store.
        reason: A sentence of at least three words, recorded with each use.

    Returns:
        The access.

    Raises:
        InvalidInputError: The reason is too short.
        StoreError: The store cannot be reached.
        PostureError: The store does not reach the required isolation grade.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError("hazmat.operate takes a VectorACL.", field="acl")
    _ungoverned(acl, "Reading and writing rows without a scope")
    return Operated(acl, acl._known(store), _reason(reason))  # noqa: SLF001 - hazmat is the owner's own back door


def on_tenant(
    acl: VectorACL, act: Callable[[Operator], T], *, action: str, tenant: str, store: str | None = None, reason: str
) -> T:
    """Run *act* on a tenant with the operator's access of its store. No posture is required.

    The record is written before anything is done.

    Args:
        acl: The opened configuration.
        act: The work; it gets the operator.
        action: The action's name in the record, for example "promote".
        tenant: The tenant's id.
        store: The store's name; None means the store to which the configuration routes the tenant.
        reason: A sentence of at least three words.

    Returns:
        The result of *act*.

    Raises:
        InvalidInputError: The reason is too short.
        RefusedError: The adapter has nothing to operate.
        StoreError: With the code "audit", the record could not be written and nothing was done.
    """
    name = acl.store_of(tenant) if store is None else store
    return on_tenants(acl, act, action=action, tenants=[tenant], store=name, reason=reason)


def on_tenants(
    acl: VectorACL, act: Callable[[Operator], T], *, action: str, tenants: Sequence[str], store: str, reason: str
) -> T:
    """Run *act* on several tenants of a store, with one record that names them; see `on_tenant`."""
    name = store
    operator = unrecorded(acl.operator(name))  # the record of this call names what is done
    try:
        if acl.registry is not None:
            check = under_registry(operator)
            check(action, False)  # noqa: FBT003 - it imports nothing
            operator = checked_operator(operator, check)  # whatever *action* calls
        elif acl.pipeline.validated:
            operator = checked_operator(operator, partial(check_import, acl.pipeline))

        def body(_: str) -> Flow[T]:
            yield from ()  # an operator's method is not a request: it blocks, and runs here
            return act(operator)

        named = acl._named(name)  # noqa: SLF001 - hazmat is the owner's own back door
        flow = recorded(
            acl.pipeline, named.store, f"tenants.{action}", _reason(reason), list(tenants), body, size=lambda _: None
        )
        return run(flow, {"audit": acl.core_port}, timeout=None)
    finally:
        operator.close()


def on_route(acl: VectorACL, act: Callable[[], T], *, step: str, tenant: str, store: str, reason: str) -> T:
    """Run *act*, a step of the switch of a tenant to another store.

    The record, whose action is "hazmat.tenants.switch." and the step, is written before anything is done.

    Args:
        acl: The opened configuration.
        act: The step.
        step: Its name: "begin", "flip" or "abort".
        tenant: The tenant's id.
        store: The name of the store to which the tenant is switched.
        reason: A sentence of at least three words.

    Returns:
        The result of *act*.

    Raises:
        InvalidInputError: The reason is too short.
        StoreError: With the code "audit", the record could not be written and nothing was done.
    """

    def body(_: str) -> Flow[T]:
        yield from ()  # it writes to the routes, and runs here
        return act()

    named = acl._named(store)  # noqa: SLF001 - hazmat is the owner's own back door
    action = f"tenants.switch.{step}"
    flow = recorded(acl.pipeline, named.store, action, _reason(reason), [tenant], body, size=lambda _: None)
    return run(flow, {"audit": acl.core_port}, timeout=None)


def adopt(
    acl: VectorACL,
    source: str,
    *,
    operator: Operator,
    store: str | None = None,
    reason: str,
    progress: Progress | None = None,
) -> list[str]:
    """Provision a store and import the existing rows of *source* into it, for all their tenants.

    The record is written before anything is done. Its outcome, also after a refusal or an error, has the number of
    copied rows (`returned`), of rows that existed already (`there`), of `tenants` and of `refused` rows; without these
    numbers if the operator's `provision` does not take `adopted`.

    Args:
        acl: The opened configuration.
        source: The existing table, collection or index.
        operator: The operator of the store.
        store: The store's name; None means the default store.
        reason: A sentence of at least three words.
        progress: A callback for progress.

    Returns:
        The steps that were done, one line each.

    Raises:
        InvalidInputError: The reason is too short.
        RefusedError: Rows cannot be imported; they are listed, and nothing was copied.
        StoreError: The store failed; with the code "audit", the record could not be written and nothing was done.
    """
    operator = unrecorded(operator)  # the record of this call has numbers
    adopted = Adopted() if takes(operator.provision, "adopted") else None

    def act() -> list[str]:
        if adopted is None:
            return operator.provision(adopt=source, progress=progress)
        return operator.provision(adopt=source, progress=progress, adopted=adopted)

    return _adopting(acl, store, "adopt", reason, act, adopted)


def adopt_share(
    acl: VectorACL,
    source: str,
    share: Share,
    *,
    operator: Operator,
    store: str | None = None,
    reason: str,
    progress: Progress | None = None,
    adopted: Adopted | None = None,
) -> dict[str, int]:
    """Import the rows of one share of *source* into a provisioned store; see `vectoracl.sharding.AdoptJob`.

    The record is written before anything is done; its outcome has the numbers of `adopt`.

    Args:
        acl: The opened configuration.
        source: The existing table, collection or index.
        share: The share of documents, with its tenants.
        operator: The operator of the store.
        store: The store's name; None means the default store.
        reason: A sentence of at least three words.
        progress: A callback for progress.
        adopted: The numbers of the import, kept up to date.

    Returns:
        The number of compared rows of each tenant.

    Raises:
        InvalidInputError: The reason is too short.
        RefusedError: The adapter cannot import in shares; or a row cannot be imported, or its tenant was not planned.
        StoreError: The store failed; with the code "audit", the record could not be written and nothing was done.
    """
    raw: object = unrecorded(operator)  # the record of this call has numbers
    if not isinstance(raw, ShareAdopter):
        raise RefusedError("The adapter cannot import rows in shares: run the import without shards.", field="adopt")
    numbers = Adopted() if adopted is None else adopted

    def act() -> dict[str, int]:
        return raw.adopt_share(source, share, progress=progress, adopted=numbers)

    return _adopting(acl, store, "adopt_share", reason, act, numbers)


def _adopting(
    acl: VectorACL, store: str | None, action: str, reason: str, act: Callable[[], T], adopted: Adopted | None
) -> T:
    """Run *act* under a record of *action*, with the numbers of *adopted* in its outcome."""
    _ungoverned(acl, "Importing rows of another table")
    check_imports(acl.pipeline)
    named = acl._named(acl._known(store))  # noqa: SLF001 - hazmat is the owner's own back door

    def body(_: str) -> Flow[T]:
        yield from ()  # an operator's method is not a request: it blocks, and runs here
        return act()

    def reached() -> Mapping[str, int]:
        if adopted is None:
            return {}
        return {
            "returned": adopted.copied,
            "there": adopted.there,
            "changed": adopted.changed,
            "tenants": adopted.tenants,
            "refused": adopted.refused,
        }

    # The tenants of the rows are not known before all rows were read.
    flow = recorded(
        acl.pipeline, named.store, action, _reason(reason), ["*"], body, size=lambda _: None, reached=reached
    )
    return run(flow, {"audit": acl.core_port}, timeout=None)


def unscoped(acl: VectorACL, *, reason: str) -> Unscoped:
    """Return a search without a scope.

    Args:
        acl: The opened configuration.
        reason: A sentence of at least three words, recorded with each use.

    Returns:
        The search.

    Raises:
        InvalidInputError: The reason is too short.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError("hazmat.unscoped takes a VectorACL.", field="acl")
    _ungoverned(acl, "A search without a scope")
    return Unscoped(acl, _reason(reason))
