"""The only doors past the scope. Each takes a written reason and leaves a record.

Nothing here belongs into an application's request path: it is for the demo, for audits and for the operator who holds
the store's credentials anyway.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from vectoracl.adapter_api.contract import Adopted, Flow, Operator, Progress
from vectoracl.adapter_api.operations import Position, Rows
from vectoracl.client.connect import VectorACL
from vectoracl.engine import operator_flows
from vectoracl.engine.core_ports import EMBEDDING, EmbedDocuments, EmbedQueries
from vectoracl.engine.drivers import run
from vectoracl.engine.embedding import embedded
from vectoracl.engine.operator_flows import recorded
from vectoracl.engine.pipeline import Store
from vectoracl.engine.recorded_operator import unrecorded
from vectoracl.errors import InvalidInputError
from vectoracl.model.principal import Principal
from vectoracl.model.queries import VectorQuery, check_query, check_vector
from vectoracl.model.records import Hit, Record, Result, Vector

T = TypeVar("T")


def _reason(reason: object) -> str:
    if not isinstance(reason, str) or len(reason.split()) < 3:
        raise InvalidInputError("hazmat needs a reason: a sentence of at least three words.", field="reason")
    return reason.strip()


def operator_principal(id: str, tenant: str, reason: str) -> Principal:  # noqa: A002 - the field's own name
    """Return a principal for an operator who acts as *id* of *tenant*, as the command line's `--as` does.

    It is marked as such (`kind` "operator") in the record of every decision. Raises: InvalidInputError.
    """
    return Principal(id, tenant, kind="operator", authenticated_by=f"operator: {_reason(reason)}")


def _hits(result: Result) -> Sequence[Hit]:
    return result.hits


class Unscoped:
    """A search over all tenants, ranked without any scope."""

    def __init__(self, acl: VectorACL, reason: str) -> None:
        self._acl = acl
        self._reason = reason

    def search(self, query: object, k: int = 10) -> Result:
        """Return the *k* best chunks of the whole default store, whoever they belong to.

        Raises: RefusedError where the store gives no operator's access; StoreError.
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
            found = yield from named.store.adapter.unscoped(resolved, k)
            return Result(found.hits, complete=found.complete, shortfall=found.shortfall, decision_id=decision_id)

        flow = recorded(acl.pipeline, named.store, "unscoped", self._reason, ["*"], body, size=len, hits=_hits)
        core = acl.core_port
        ports = {"store": named.port, "audit": core, "embedder": core}
        return run(flow, ports, timeout=named.config.timeout, separate_limit=EMBEDDING)


class Operated:
    """One store, read and written row by row past every scope: what `vectoracl copy` works with."""

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
        """The isolation grade that the store was found to reach."""
        assert self._named.posture is not None
        return self._named.posture.grade

    def _run(self, flow: Flow[T]) -> T:
        return self._acl.run(self.store, flow, None)

    @property
    def embedder(self) -> str | None:
        """The identity of the embedder whose vectors the store holds: what it keeps, else the configured one."""
        return self.store.embedder() or self._acl.embedder_identity

    def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Embed *texts*. Raises: RefusedError where the store keeps another embedder; StoreError."""
        can = self.store.capabilities
        made = self._run(embedded(EmbedDocuments, texts, self.store))
        return [check_vector(one, can.dimension, nonzero=can.metric == "cosine", name="embedding") for one in made]

    def read(self, tenant: str, size: int, after: Position | None = None) -> Rows:
        """Return a page of *tenant*'s rows, whole, in the order of document, generation and chunk id.

        Raises: UnsupportedPredicateError if the adapter cannot scan; ScopeViolationError; StoreError.
        """
        return self._run(operator_flows.read_page(self._acl.pipeline, self.store, self._reason, tenant, size, after))

    def write(self, tenant: str, records: Sequence[Record]) -> int:
        """Write rows of *tenant* with their tags as they are, all or none.

        Raises: UnsupportedPredicateError if the adapter cannot; InvalidInputError, UntaggedWriteError; StoreError.
        """
        return self._run(operator_flows.write_rows(self._acl.pipeline, self.store, self._reason, tenant, records))

    def clear(self, tenant: str) -> int | None:
        """Delete every row of *tenant*; return how many, or None where the store cannot count. Raises: StoreError."""
        return self._run(operator_flows.clear(self._acl.pipeline, self.store, self._reason, tenant))

    def count(self, tenant: str) -> int:
        """Count *tenant*'s rows. Raises: UnsupportedPredicateError where the store cannot count; StoreError."""
        return self._run(operator_flows.count_rows(self._acl.pipeline, self.store, self._reason, tenant))


def operate(acl: VectorACL, *, store: str | None = None, reason: str) -> Operated:
    """Return *store* (None: the default one) past every scope, for *reason* (a sentence), recorded with each use.

    Contacts the store and demands its posture. Raises: InvalidInputError without a reason; StoreError, PostureError.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError("hazmat.operate takes a VectorACL.", field="acl")
    return Operated(acl, acl._known(store), _reason(reason))  # noqa: SLF001 - likewise


def on_tenant(
    acl: VectorACL, act: Callable[[Operator], T], *, action: str, tenant: str, store: str | None = None, reason: str
) -> T:
    """Let *act* do *action* to *tenant* with the operator's access of *store* (None: the tenant's own), recorded.

    The record is kept before anything is done. No posture is demanded. Raises: InvalidInputError without a reason;
    RefusedError if the adapter has nothing to operate; StoreError with the code "audit", with nothing done; what *act*
    raises.
    """
    name = acl.store_of(tenant) if store is None else store
    operator = unrecorded(acl.operator(name))  # the record of this call names what is done

    def body(_: str) -> Flow[T]:
        yield from ()  # an operator's work is no request: it is blocking, and done here
        return act(operator)

    try:
        named = acl._named(name)  # noqa: SLF001 - hazmat is the owner's own back door
        flow = recorded(
            acl.pipeline, named.store, f"tenants.{action}", _reason(reason), [tenant], body, size=lambda _: None
        )
        return run(flow, {"audit": acl.core_port}, timeout=None)
    finally:
        operator.close()


def adopt(
    acl: VectorACL,
    source: str,
    *,
    operator: Operator,
    store: str | None = None,
    reason: str,
    progress: Progress | None = None,
) -> list[str]:
    """Let *operator*, of *store* (None: the default one), provision it and copy *source* in, to all its tenants.

    The record is kept before anything is done, its outcome also where it is refused or broken off: how many rows were
    copied (`returned`) or were `there`, of how many `tenants`, and how many are `refused`; no figures where the
    operator's `provision` takes no `adopted`. Returns what was done, a line each. Raises: InvalidInputError without a
    reason; StoreError with the code "audit", with nothing done; RefusedError with the refused rows, and then nothing
    was copied; StoreError.
    """
    named = acl._named(acl._known(store))  # noqa: SLF001 - hazmat is the owner's own back door
    adopted = Adopted()
    operator = unrecorded(operator)  # the record of this call has figures

    counts = _takes(operator.provision, "adopted")

    def body(_: str) -> Flow[list[str]]:
        yield from ()  # likewise
        if not counts:
            return operator.provision(adopt=source, progress=progress)
        return operator.provision(adopt=source, progress=progress, adopted=adopted)

    def reached() -> Mapping[str, int]:
        if not counts:
            return {}
        return {
            "returned": adopted.copied,
            "there": adopted.there,
            "changed": adopted.changed,
            "tenants": adopted.tenants,
            "refused": adopted.refused,
        }

    # Whose rows there are is not known before all of them were read.
    flow = recorded(
        acl.pipeline, named.store, "adopt", _reason(reason), ["*"], body, size=lambda _: None, reached=reached
    )
    return run(flow, {"audit": acl.core_port}, timeout=None)


def _takes(function: Callable[..., object], name: str) -> bool:
    """Tell whether *function* can be given the keyword *name*; yes where that cannot be found out."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def unscoped(acl: VectorACL, *, reason: str) -> Unscoped:
    """Return a search past every scope, for *reason* (a sentence), which is recorded with each use.

    Raises: InvalidInputError without a reason.
    """
    if not isinstance(acl, VectorACL):
        raise InvalidInputError("hazmat.unscoped takes a VectorACL.", field="acl")
    return Unscoped(acl, _reason(reason))
