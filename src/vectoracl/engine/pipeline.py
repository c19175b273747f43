"""The request pipeline.

Every operation runs these steps, in this order (`Pipeline.run`):

1. *Decide.* The policy gets the principal and the action. Its decision is compiled for the store once (`Plan`) and
   cached by principal, action and policy version. A policy that raises, answers too late or returns anything but a
   whole `Decision` denies.
2. *Record.* The decision is written to the audit sink. If it cannot be written, nothing is sent.
3. *Refuse.* A scope without an exact form on this store, or a denial, is raised now, after its record.
4. *Short-circuit.* An empty scope answers a read with nothing and denies a write. It never reaches a store.
   With `[tenants] routes` the call now holds the routes of its tenants until it has ended (`engine.routes`).
5. *Embed.* Query and document texts become vectors, outside the store's time limit.
   A write is then shown to the validators of `[ingest]` (`engine.validating`); what they refuse is not sent.
   Under a registry the scope is joined with what the registry permits now (`registry.scopes`), before it is compiled.
   A cached plan is used only while the versions of its tenants are the present ones, which every call reads; where
   the registry is in the store's own database, the statements of step 6 assert them instead (`engine.asserting`).
6. *Run the adapter.* One leg (`Leg`) per partition of the scope; each is confined to its partition (`drivers.confined`)
   and retried where that is safe (`retried`). The partition, the scope's predicate and the caller's filter are three
   operands that are never merged. If the decision may end in the meantime, it is checked before each request.
7. *Verify.* The second lock tests every returned row against the scope (`second_lock`). It is a tripwire; the control
   is the filter that the store applied. Under a registry it also asks the registry what holds now (`governed_reads`);
   an answer that was overtaken by a change is dropped and the call runs again.
8. *Note the outcome.* What became of the decision is kept in memory and written with the next record.

The steps are generators over frozen requests: a flow yields a request and receives the reply, and only the two drivers
(`drivers.run`, `drivers.arun`) call a port. So the order is written once and serves both sync and async callers. A flow
never yields in `finally`: it may be closed at any request, by Ctrl-C or cancellation.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, TypeVar

import orjson

from vectoracl.access.policy import Decision, Policy, TenantPolicy
from vectoracl.access.scope import Grant, Scope
from vectoracl.adapter_api.chunk_validation import name_store
from vectoracl.adapter_api.contract import Adapter, Capabilities, Flow
from vectoracl.adapter_api.versions import RIGHTS_CHANGED, Asserting, VersionTable
from vectoracl.audit.returned_hashes import ReturnedIds
from vectoracl.audit.sinks import Sink
from vectoracl.engine.asserting import assertable, asserting, expectations
from vectoracl.engine.core_ports import Decide, LateRecordError, PolicyFailedError, ReadVersion, Sleep, WriteRecord
from vectoracl.engine.drivers import close_flow, wrapped
from vectoracl.engine.routes import Hold, ReroutedError, Routes, admitted
from vectoracl.errors import (
    BusyError,
    DeniedError,
    RefusedError,
    ScopeViolationError,
    SourceRefusedError,
    StoppedTenantError,
    StoreError,
    UnsupportedPredicateError,
    VectorACLError,
    unchained,
)
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import ALWAYS, NEVER, Always, Predicate, Range, conjunction, operands_of
from vectoracl.filters.semantics import Test, compile_test
from vectoracl.filters.validation import check_scope_predicate, fields_of
from vectoracl.model.actions import READ, Action
from vectoracl.model.principal import Principal
from vectoracl.model.records import Hit
from vectoracl.registry.requests import MarkStale, ProbeVersions, TakeScope
from vectoracl.registry.scopes import GovernedScope
from vectoracl.registry.settings import RegistrySettings

T = TypeVar("T")
_log = logging.getLogger("vectoracl")
_CACHE = 4096
DECISION_TTL = 5.0
"""Lifetime, in seconds, of a decision without `valid_until`."""
STALE_ATTEMPTS = 6
"""How often a call runs under a registry before it reports that rights keep changing."""
_STALE_PAUSE = 0.01
"""The pause before the second attempt, in seconds; each further one is twice as long."""
GOVERNED_FIELDS = frozenset({"@label", "@expires", "@rev", "@generation", "@docgen"})
"""The fields of the tag whose meaning is the registry's; `reconcile` writes them later than they hold."""
LONGEST_PAUSE = 10.0
"""The longest pause, in seconds, that a call makes before another attempt because the store asks for it."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One partition of a decided scope, compiled: `test` is None where the whole partition is permitted."""

    partition: str
    predicate: Predicate
    test: Test | None
    needs_metadata: bool
    written: Test | None = None
    """The test of a new chunk; differs from `test` under a registry, whose filter is about stored chunks."""
    given: Predicate = ALWAYS
    """The filter of the policy and the handle alone, without that of the registry."""


@dataclass(frozen=True, slots=True)
class Governance:
    """The registry's part of a plan: the scope that it was compiled with, and what the second lock asks with.

    `probed` is the monotonic time at which the versions were last found to be those of the scope; a scope that is
    `trusted` was not compared in this call, so its reads have to assert them. `compared` holds, for each (store,
    partition), the monotonic time at which their marks were last compared with the registry.
    """

    asked: TakeScope
    scope: GovernedScope
    settings: RegistrySettings
    monotonic: Callable[[], float]
    probed: float
    compared: dict[tuple[str, str], float]
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, compiled once for one store: its legs, and its record without id and time.

    `refusal` is the reason why the scope has no form on this store; it is raised after the decision was recorded.
    `cause` is the exception that the policy raised instead of deciding. `granted` is a digest of what the policy and
    the handle permit, without the registry. `governance` is the registry's part; None without one. `asked` and `made`
    are the times at which the policy was called and had answered, as (wall clock, monotonic clock); None for a plan
    that is not cached.
    """

    decision: Decision
    legs: tuple[Leg, ...]
    record: Mapping[str, Any]
    refusal: VectorACLError | None = None
    cause: Exception | None = None
    asked: tuple[float, float] | None = None
    made: tuple[float, float] | None = None
    granted: str = ""
    governance: Governance | None = None


class StaleScopeError(StoreError):
    """Rights changed while a call was under way, so that its answer was dropped; the pipeline runs it again.

    `documents` are those, as (tenant, document), whose chunks in the store contradict the registry.
    """

    def __init__(self, documents: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(
            "Rights kept changing while the call was under way, so nothing was returned. Try again.",
            code=RIGHTS_CHANGED,
            sent="no",
            retryable=True,
        )
        self.documents = documents


@dataclass(frozen=True, slots=True)
class Store:
    """One configured store, as the flows see it.

    `embedder` returns the identity of the embedder that is noted in the store; None while it is not known. With
    `expiring`, chunks may have a time to live, and no read sees one whose time has passed. `asserts` returns the
    registry's table if it is certain to be in the store's own database, so that reads assert the versions themselves.
    """

    name: str
    adapter_name: str
    adapter: Adapter
    fields: Mapping[str, FieldType]
    embedder: Callable[[], str | None] = lambda: None
    expiring: bool = False
    asserts: Callable[[], VersionTable | None] = lambda: None

    @property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a call, with the actions and the filter that its handle was narrowed to.

    `source` is the pipeline that the handle writes for; it is noted in the tags of what is written.
    """

    principal: Principal
    actions: frozenset[Action]
    narrow: Predicate
    source: str | None = None


class Pipeline:
    """The request pipeline of one configuration: policy, decision cache, audit sink and clocks (see the module)."""

    def __init__(
        self,
        policy: Policy,
        sink: Sink,
        route: Callable[[str], str],
        *,
        debug: bool = False,
        decision_ttl: float = DECISION_TTL,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        returned: ReturnedIds | None = None,
        registry: RegistrySettings | None = None,
        routes: Routes | None = None,
        sources: frozenset[str] | None = None,
        validated: bool = False,
    ) -> None:
        self.sources = sources
        self.validated = validated
        self._verdicts: dict[str, list[dict[str, Any]]] = {}
        self.registry = registry
        self.routes = routes
        self._compared: dict[tuple[str, str], float] = {}
        self.policy = policy
        self.sink = sink
        self.route = route
        self.debug = debug
        self.decision_ttl = decision_ttl
        self.clock = clock
        self.monotonic = monotonic
        self.returned = returned
        self._plans: OrderedDict[tuple[Caller, Action, str], Plan] = OrderedDict()
        self._lock = Lock()
        self._stamped = 0.0
        self._read_at = -math.inf
        self._held: dict[str, Mapping[str, Any]] = {}

    def stamp(self) -> float:
        """Return the time of a write, in POSIX seconds: now, but later than every earlier one of this process.

        It distinguishes the rows of one call from those of any other, also where the clock is coarse.
        """
        with self._lock:
            self._stamped = max(self.clock(), math.nextafter(self._stamped, math.inf))
            return self._stamped

    def now(self) -> tuple[float, float]:
        """Return the time by the wall clock (POSIX seconds) and by the monotonic one.

        A clock that raises or returns anything but a finite number reads as infinity, so every decision has expired.
        A clock that was set back does not keep a decision alive either (`_holds`).
        """
        tick = self.monotonic()
        try:
            wall_time = float(self.clock())
        except Exception:  # noqa: BLE001 - without a clock nothing is known to be valid
            return math.inf, tick
        return (wall_time if math.isfinite(wall_time) else math.inf), tick

    def plan(self, caller: Caller, action: Action, store: Store, *, trust: bool = False) -> Flow[Plan]:
        """Decide *action* for *caller*, see `_decided`; reads of a store whose chunks may expire see none that has."""
        plan = yield from self._decided(caller, action, store, trust=trust)
        if not store.expiring or self.registry is not None or action not in READ:
            return plan
        alive = self.alive(store)
        return replace(plan, legs=tuple([_unexpired(leg, alive) for leg in plan.legs]))

    def alive(self, store: Store) -> Predicate:
        """Return the condition on the chunks of *store* whose time has not passed; without a clock, on none.

        Under a registry, and where chunks cannot expire, it is all of them.
        """
        if not store.expiring or self.registry is not None:
            return ALWAYS
        now = self._read_time()
        return Range("@expires", gt=now) if math.isfinite(now) else NEVER

    def _read_time(self) -> float:
        """Return the time of a read; a clock that is set back does not bring back what has expired."""
        with self._lock:
            self._read_at = max(self._read_at, self.now()[0])
            return self._read_at

    def _decided(self, caller: Caller, action: Action, store: Store, *, trust: bool) -> Flow[Plan]:
        """Decide *action* for *caller*, from the cache where the decision still holds.

        With *trust*, the registry's scope of a cached plan is taken as it is if the reads will assert its versions.

        An exception of the policy becomes a denial. A scope without a form on this store (it spans two stores, or
        names a field that is not declared) becomes a plan with a refusal, so that it is recorded too.
        """
        start = self.now()
        principal = caller.principal
        if action not in caller.actions:
            return self._compile(Decision.deny("the handle does not have this action", "handle"), caller, action, store)
        if principal.expired(start[0]):
            return self._compile(Decision.deny("the principal has expired", "expiry"), caller, action, store)
        key = (caller, action, store.name)
        try:
            version = self.policy.version if self._plain_version() else (yield from ReadVersion())
            if version is not None and type(version) is not str:
                raise TypeError(f"version must be a str or None, not {type(version).__name__}")
        except Exception as error:  # noqa: BLE001 - whatever breaks in a policy is a denial
            _raise_timeout(error)
            return self._failed(error, "unknown", caller, action, store)
        cached_plan = self._plans.get(key) if version is not None else None
        if (
            cached_plan is not None
            and cached_plan.decision.policy_version == version
            and self._holds(cached_plan, cached_plan.asked, start)
        ):
            return (yield from self._governed_again(cached_plan, caller, action, store, key, trust=trust))
        try:
            decision = yield from Decide(principal, action)
            if not _whole(decision, version):
                raise TypeError(f"decide() returned {type(decision).__name__}, which is not a complete Decision")
        except Exception as error:  # noqa: BLE001 - whatever breaks in a policy is a denial
            _raise_timeout(error)
            return self._failed(error, version, caller, action, store)
        end = self.now()
        if principal.expired(end[0]):  # while the policy was deciding
            return self._compile(Decision.deny("the principal has expired", "expiry"), caller, action, store)
        if decision.valid_until is not None and end[0] >= decision.valid_until:
            ended = Decision.deny("the policy's decision was no longer valid", decision.policy_version)
            return self._compile(ended, caller, action, store)
        plan = yield from self._governed(decision, caller, action, store)
        plan = replace(plan, asked=start, made=end)
        if version is not None:
            self._keep(key, plan)
        return plan

    def _keep(self, key: tuple[Caller, Action, str], plan: Plan) -> None:
        if plan.refusal is not None:
            return  # an error instance that is raised belongs to one call
        with self._lock:
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > _CACHE:
                self._plans.popitem(last=False)

    def _governed(self, decision: Decision, caller: Caller, action: Action, store: Store) -> Flow[Plan]:
        """Compile *decision*, with the registry's scope if there is a registry. One that fails refuses."""
        settings = self.registry
        if settings is None or not decision.permit or decision.scope.empty:
            return self._compile(decision, caller, action, store)
        if type(decision.scope) is not Scope:
            raise TypeError("a decision's scope must be a Scope")
        # Another policy than the default one grants a parent's partition itself, or it does not mean it.
        family = type(self.policy) is TenantPolicy
        asked = TakeScope(caller.principal, decision.scope.partitions, action not in READ, family)
        probed = self.monotonic()
        try:
            scope = yield from asked
        except (StoreError, StoppedTenantError) as error:
            plan = self._compile(Decision.deny(_no_scope(error), None), caller, action, store)
            return replace(plan, refusal=error)
        part = Governance(asked, scope, settings, self.monotonic, probed, self._compared)
        return self._compile(decision, caller, action, store, part)

    def _governed_again(
        self, plan: Plan, caller: Caller, action: Action, store: Store, key: tuple[Caller, Action, str], *, trust: bool
    ) -> Flow[Plan]:
        """Return *plan*, whose decision still holds, if its scope does; else compile it with a new scope."""
        part = plan.governance
        if part is None:
            return plan
        probed = self.monotonic()
        if trust and _asserted_in(plan, action, store) is not None:
            return replace(plan, governance=replace(part, probed=probed, trusted=True))
        try:
            found = yield from ProbeVersions(tuple(part.scope.partitions))
        except (StoreError, StoppedTenantError) as error:
            denial = self._compile(Decision.deny(_no_scope(error), None), caller, action, store)
            return replace(denial, refusal=error)
        if part.scope.holds(found):
            return replace(plan, governance=replace(part, probed=probed))
        again = yield from self._governed(plan.decision, caller, action, store)
        again = replace(again, asked=plan.asked, made=plan.made)
        self._keep(key, again)
        return again

    def _plain_version(self) -> bool:
        """Return whether the policy's version is a plain attribute: reading a property might wait for a database."""
        if type(self.policy) is TenantPolicy:
            return True
        return isinstance(inspect.getattr_static(self.policy, "version", self), str | None)

    def _holds(self, plan: Plan, since: tuple[float, float] | None, now: tuple[float, float], ttl: float = -1) -> bool:
        """Return whether the decision of *plan*, counted from *since*, may be used *now*.

        Both clocks have to agree: a wall clock that was set back, or a monotonic clock that stopped while the machine
        slept, must not keep a decision alive. If they disagree, the policy decides again.
        """
        if since is None:
            return False
        wall, tick = now[0] - since[0], now[1] - since[1]
        valid_until = plan.decision.valid_until
        life = (self.decision_ttl if ttl < 0 else ttl) if valid_until is None else valid_until - since[0]
        return 0 <= wall < life and 0 <= tick < life

    def _failed(self, error: Exception, version: str | None, caller: Caller, action: Action, store: Store) -> Plan:
        """Return the plan of a policy that did not decide: a denial. The policy's exception is logged."""
        cause = error.error if isinstance(error, PolicyFailedError) else error
        # The policy sees a principal and an action but no chunk, so its message may appear in the operator's log.
        _log.warning("policy failed: %s", type(cause).__name__, exc_info=(type(cause), cause, cause.__traceback__))
        plan = self._compile(Decision.deny("the policy failed", version), caller, action, store)
        return replace(plan, cause=cause)

    def _compile(
        self,
        decision: Decision,
        caller: Caller,
        action: Action,
        store: Store,
        part: Governance | None = None,
    ) -> Plan:
        scope = decision.scope if decision.permit else Scope()
        legs: tuple[Leg, ...] = ()
        refusal: VectorACLError | None = None
        permitted = ""
        try:
            if part is not None:
                _check_ungoverned(scope)
                scope = Scope((*scope.grants, *(Grant(one, ALWAYS) for one in part.scope.added)))
            scope = scope.narrowed(caller.narrow)
            written = {grant.partition: grant.predicate for grant in scope.grants}
            if part is not None:
                permitted = _digest((grant.partition, grant.predicate) for grant in scope.grants)
                scope = Scope.of(
                    Grant(one.partition, conjunction((part.scope.predicate(one.partition), one.predicate)))
                    for one in scope.grants
                )
            legs = tuple([self._leg(grant, store, written[grant.partition]) for grant in scope.grants])
            granted: list[Any] = [(leg.partition, leg.predicate) for leg in legs]
        except VectorACLError as error:
            legs, refusal = (), error
            granted = [(grant.partition, grant.predicate) for grant in scope.grants]
        record: dict[str, Any] = {
            "v": 1,
            "action": action,
            "permit": decision.permit,
            "reasons": list(decision.reasons),
            "policy": decision.policy_version,
            "store": store.name,
            "partitions": list(scope.partitions),
            "scope": _digest(granted),
            "principal": described(caller.principal),
        }
        if caller.source is not None:
            record["source"] = caller.source
        if part is not None:
            record["registry"] = part.scope.versions
        return Plan(decision, legs, record, refusal, granted=permitted or record["scope"], governance=part)

    def _leg(self, grant: Grant, store: Store, written: Predicate) -> Leg:
        """Compile one grant for *store*. Raises: RefusedError or a subclass where it has no exact form there."""
        if self.route(grant.partition) != store.name:
            kind = RefusedError if self.routes is None else ReroutedError
            raise kind(
                "The scope spans two stores, and their scores are not comparable. Under [tenants.store], route the "
                "tenants that are read together to the same store."
            )
        predicate = check_scope_predicate(grant.predicate, store.fields)
        check_supported(predicate, store.capabilities)
        test = None if isinstance(predicate, Always) else compile_test(predicate)
        new = test
        if self.registry is not None:
            checked = check_scope_predicate(written, store.fields)
            new = None if isinstance(checked, Always) else compile_test(checked)
        needs = any(not name.startswith("@") for name in fields_of(predicate))
        return Leg(grant.partition, predicate, test, needs, new, written)

    def record(self, record: Mapping[str, Any]) -> Flow[None]:
        """Write *record*, of a decision that is about to be acted upon.

        A record may still be written later, by a thread that did not end in time or whose caller was cancelled; its
        outcome is noted here, since no operation follows. Raises: StoreError with the code "audit" or "timeout" if the
        record cannot be written; then nothing is sent.
        """
        started, outcome = time.perf_counter_ns(), None
        try:
            yield WriteRecord(record)
        except LateRecordError as error:
            outcome = f"error:{error.code}"
            raise
        except GeneratorExit:
            outcome = "cancelled"
            raise
        finally:
            if outcome is not None:
                self._noted(str(record["id"]), outcome, None, started)

    def _identified(self, plan: Plan) -> dict[str, Any]:
        """Return the record of *plan* with an id and the time."""
        now = self.now()[0]
        return {**plan.record, "id": os.urandom(16).hex(), "time": now if math.isfinite(now) else None}

    def explained(self, caller: Caller, action: Action, store: Store) -> Flow[Plan]:
        """Decide *action* without acting on it; recorded like every decision, with the outcome "explained".

        Raises: StoreError with the code "audit" if the record cannot be written; the refusal of the plan.
        """
        started = time.perf_counter_ns()
        plan = yield from self.plan(caller, action, store)
        record = self._identified(plan)
        yield from self.record(record)
        outcome = "explained" if plan.refusal is None else f"error:{plan.refusal.code}"
        self._noted(record["id"], outcome, None, started)
        if plan.refusal is not None:
            raise plan.refusal
        return plan

    def run(
        self,
        caller: Caller,
        action: Action,
        store: Store,
        body: Callable[[Plan, str], Flow[T]],
        *,
        empty: Callable[[str], T],
        size: Callable[[T], int | None],
        hits: Callable[[T], Iterable[Hit]] | None = None,
    ) -> Flow[T]:
        """Run *body*, which gets the plan and the decision's id, through the steps of the pipeline.

        *empty* makes the answer to an empty scope. *size* is the number that the outcome reports as returned. *hits*
        returns the chunks of a result, for the keyed hashes of the outcome where the configuration asks for them.

        Raises: DeniedError; StoreError with the code "audit" if the record cannot be written; what *body* raises.
        """
        if action not in store.capabilities.operations:
            raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot {action}.", field=action)
        if action not in READ:
            self.check_source(caller)
        if self.registry is None:
            return (yield from self._once(caller, action, store, body, empty=empty, size=size, hits=hits))
        stale = StaleScopeError()
        for attempt in range(STALE_ATTEMPTS):
            if attempt:
                yield Sleep(_STALE_PAUSE * 2 ** (attempt - 1))
            try:
                # The second attempt asks before it reads; after it, no statement asserts anything.
                return (
                    yield from self._once(
                        caller, action, store, body, empty=empty, size=size, hits=hits, attempt=attempt
                    )
                )
            except StoreError as error:
                if error.code != RIGHTS_CHANGED:
                    raise
                stale = error if isinstance(error, StaleScopeError) else StaleScopeError()
            for tenant, documents in _by_tenant(stale.documents).items():
                yield from MarkStale(tenant, documents)
        raise stale

    def check_source(self, caller: Caller) -> None:
        """Refuse a write of a handle that names none of `[ingest] sources`. Raises: SourceRefusedError."""
        if self.sources is None or caller.source in self.sources:
            return
        if caller.source is None:
            text = "The configuration lists the pipelines that may write, and this handle names none of them."
        else:
            text = f"The pipeline {caller.source!r} is not one of those that may write by the configuration."
        raise SourceRefusedError(
            f"{text} Nothing was sent. Pass scoped(source=…), on the command line --source, with a name that [ingest] "
            "sources lists.",
            field="source",
            source=caller.source,
        )

    def _once(
        self,
        caller: Caller,
        action: Action,
        store: Store,
        body: Callable[[Plan, str], Flow[T]],
        *,
        empty: Callable[[str], T],
        size: Callable[[T], int | None],
        hits: Callable[[T], Iterable[Hit]] | None,
        attempt: int = 0,
    ) -> Flow[T]:
        """Run *body* once, under one decision; see `run`."""
        started = time.perf_counter_ns()
        plan = yield from self.plan(caller, action, store, trust=attempt == 0)
        record = self._identified(plan)
        decision_id: str = record["id"]
        yield from self.record(record)
        outcome, returned, ids = "cancelled", None, None
        held: list[Hold] = []
        try:
            if plan.refusal is not None:
                raise plan.refusal
            if not plan.decision.permit:
                raise self._denial(action, decision_id, plan)
            if not plan.legs:
                if action not in READ:
                    raise denied(action, decision_id, ("nothing may be written",))
                outcome, returned = "empty", 0
                return empty(decision_id)
            if self.routes is not None:
                for leg in plan.legs:
                    yield from admitted(self.routes, leg.partition, store.name, held, write=action not in READ)
            flow = body(plan, decision_id)
            table = None if attempt > 1 else _asserted_in(plan, action, store)
            if table is not None:
                flow = _asserting(flow, plan, store, table)
            if self._may_end(caller, plan):
                flow = self._while_it_holds(flow, caller, action, store, plan, decision_id)
            result = yield from flow
            if self.returned is not None and hits is not None:
                ids = self.returned.of(hits(result))
            outcome, returned = "ok", size(result)
            return result
        except Exception as error:  # noqa: BLE001 - mapped, and raised after the block
            outcome, failed = self.failure(error, store, decision_id)
        finally:
            for hold in held:
                hold.release()
            self._noted(decision_id, outcome, returned, started, ids)
        raise failed

    def failure(self, error: Exception, store: Store, decision_id: str) -> tuple[str, VectorACLError]:
        """Return the outcome of *error* and the vectoracl error to raise, without a client's exception in its chain.

        Raise it after the `except` block: inside the block Python would attach *error* as its `__context__`.
        """
        if isinstance(error, VectorACLError):
            outcome = f"error:{error.code}"
            if isinstance(error, ScopeViolationError):
                outcome = "violation"
            elif isinstance(error, DeniedError):  # also one that an adapter found inside the store
                outcome = "denied"
                error.decision_id = error.decision_id or decision_id
            name_store(error, store.name, store.adapter_name)
            return outcome, unchained(error, debug=self.debug)
        # An exception that the adapter did not map: its text may quote rows, filters or a connection string.
        message = (
            f"The adapter {store.adapter_name!r} raised an unexpected {type(error).__name__}. Set debug_errors = true "
            "to see it as the cause of this error."
        )
        return "error:internal", wrapped(error, message, debug=self.debug, code="internal")

    def _denial(self, action: Action, decision_id: str, plan: Plan) -> DeniedError:
        error = denied(action, decision_id, plan.decision.reasons)
        if self.debug:
            error.__cause__ = plan.cause
        return error

    def _may_end(self, caller: Caller, plan: Plan) -> bool:
        """Return whether the decision may end during the call; the rules of the default policy are fixed."""
        return (
            type(self.policy) is not TenantPolicy
            or caller.principal.expires_at is not None
            or plan.decision.valid_until is not None
        )

    def _while_it_holds(
        self, flow: Flow[T], caller: Caller, action: Action, store: Store, plan: Plan, decision_id: str
    ) -> Flow[T]:
        """Pass *flow* on; check before each request to the store that principal and decision have not ended.

        Embedding, long series of requests and the pauses before retries all take time. Once a request has written, the
        rest of that attempt is not checked: a half-done replacement is worse than one that was permitted a moment
        earlier. Raises: DeniedError; *flow* is closed and cannot swallow it.
        """
        value: Any = None
        error: Exception | None = None
        writing = False
        try:
            while True:
                try:
                    step = flow.send(value) if error is None else flow.throw(error)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]
                value, error = None, None
                requests = step if isinstance(step, tuple) else (step,)
                if isinstance(step, Sleep):
                    writing = False
                elif not writing and any(one.port == "store" for one in requests):
                    plan = yield from self._still(caller, action, store, plan, decision_id)
                    writing = any(one.writes for one in requests)
                try:
                    value = yield step
                except Exception as caught:  # noqa: BLE001 - handed to the flow, whose error it is
                    error = caught
        finally:
            close_flow(flow)

    def _still(self, caller: Caller, action: Action, store: Store, plan: Plan, decision_id: str) -> Flow[Plan]:
        """Return *plan* while it holds, else a new plan that grants the same. Raises: DeniedError if it grants less."""
        now = self.now()
        if caller.principal.expired(now[0]):
            raise denied(action, decision_id, ("the principal has expired",))
        if self._holds(plan, plan.made, now, self.decision_ttl or DECISION_TTL):
            return plan
        again = yield from self.plan(caller, action, store)
        if not again.decision.permit:
            raise self._denial(action, decision_id, again)
        # Under a registry the partitions may differ by the parent's; what it permits is asked again after the answer.
        moved = plan.governance is None and again.record["partitions"] != plan.record["partitions"]
        if again.refusal is not None or moved or again.granted != plan.granted:
            raise denied(action, decision_id, ("the scope changed during the call; call again",))
        return again

    def _noted(
        self,
        decision_id: str,
        outcome: str,
        returned: int | None,
        started: int,
        ids: Mapping[str, Any] | None = None,
    ) -> None:
        spent = (time.perf_counter_ns() - started) // 1000 / 1000
        record: dict[str, Any] = {"decision": decision_id, "outcome": outcome, "returned": returned, "ms": spent}
        if ids is not None:
            record["ids"] = ids
        self.note(record)

    def note(self, outcome: Mapping[str, Any]) -> None:
        """Pass the outcome of a decision to the sink, with the verdicts of its validators; never raises."""
        verdicts = self._verdicts.pop(str(outcome.get("decision")), None)
        if verdicts is not None:
            outcome = {**outcome, "validators": verdicts}
        try:
            self.sink.note(outcome)
        except Exception as error:  # noqa: BLE001 - a sink that breaks its promise must not hide a result or an error
            _log.error("audit sink failed to note an outcome: %s", type(error).__name__)

    def judged(self, decision_id: str, verdicts: list[dict[str, Any]]) -> None:
        """Keep the verdicts about what a decision writes, for its outcome."""
        self._verdicts[decision_id] = verdicts

    def hold(self, outcome: Mapping[str, Any]) -> None:
        """Keep *outcome*, of a write in the caller's own transaction, until `settle` reports how that ended."""
        self._held[outcome["decision"]] = outcome

    def settle(self, decision_id: str, ended: str) -> None:
        """Note the outcome that was held for this decision, once, as *ended* ("ok", "rolled_back", …); never raises."""
        held = self._held.pop(decision_id, None)
        if held is not None:
            self.note({**held, "outcome": ended})

    def settle_rest(self) -> None:
        """Note the outcomes that are still held as "unknown", before the audit sink is closed; never raises."""
        for decision_id in list(self._held):
            self.settle(decision_id, "unknown")

    def noting(self, sink: Sink) -> Pipeline:
        """Return the same pipeline, with the same cache, which notes outcomes in *sink*."""
        pipeline = copy.copy(self)
        pipeline.sink = sink
        return pipeline


def _asserted_in(plan: Plan, action: Action, store: Store) -> VersionTable | None:
    """Return the table in which the reads of *plan* assert all versions of its scope; None if they do not."""
    part, table = plan.governance, store.asserts()
    if part is None or table is None or action not in READ:
        return None
    return table if assertable(part.scope, tuple([leg.partition for leg in plan.legs])) else None


def _asserting(flow: Flow[T], plan: Plan, store: Store, table: VersionTable) -> Flow[T]:
    """Pass *flow* on, with assertions in its reads; ask the registry about partitions that were not read.

    Raises: StaleScopeError; StoreError with the code `RIGHTS_CHANGED`.
    """
    part = plan.governance
    assert part is not None
    assert isinstance(store.adapter, Asserting)
    expected = expectations(part.scope, table)
    missing = set(expected)
    result = yield from asserting(flow, store.adapter, expected, missing)
    if missing and part.trusted and not part.scope.holds((yield from ProbeVersions(tuple(expected)))):
        raise StaleScopeError
    return result


def _check_ungoverned(scope: Scope) -> None:
    """Refuse a policy filter over what the registry decides, since chunks may carry an earlier value."""
    named = {name for grant in scope.grants for name in fields_of(grant.predicate)} & GOVERNED_FIELDS
    if named:
        raise RefusedError(
            f"The policy's scope names {', '.join(sorted(named))}, which the registry decides: a chunk may still carry "
            "an earlier value. Express it by access entries, attribute rules or holds.",
            field="scope",
        )


def described(principal: Principal) -> dict[str, str]:
    """Return *principal* as records show it."""
    return {
        "id": principal.id,
        "tenant": principal.tenant,
        "kind": principal.kind,
        "by": principal.authenticated_by,
    }


def _unexpired(leg: Leg, alive: Predicate) -> Leg:
    """Return *leg* with those chunks only that are *alive*."""
    predicate = conjunction((leg.predicate, alive))
    return replace(leg, predicate=predicate, test=compile_test(predicate))


def _no_scope(error: VectorACLError) -> str:
    return "the registry did not answer" if isinstance(error, StoreError) else "the tenant is stopped"


def _by_tenant(documents: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for tenant, document in documents:
        found[tenant] = (*found.get(tenant, ()), document)
    return found


def _digest(granted: Iterable[tuple[str, Predicate]]) -> str:
    """Return a digest of the granted scope: 32 hex digits over its JSON form; "none" where it has no JSON form.

    A scope without a JSON form holds a value of a type that no store keeps, and is refused.
    """
    try:
        described = [[partition, predicate.to_dict()] for partition, predicate in granted]
        data = orjson.dumps(described, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, AttributeError, VectorACLError):
        return "none"
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _raise_timeout(error: Exception) -> None:
    """Raise *error* if it reports that the caller's time limit was reached: nothing was decided, nothing is sent.

    An exception of the policy itself always arrives inside a PolicyFailedError.
    """
    if isinstance(error, StoreError) and (error.code, error.sent) == ("timeout", "no"):
        raise error


def _whole(decision: object, version: str | None) -> bool:
    """Return whether *decision* is a complete Decision; anything else that a policy returns counts as a denial.

    A decision without a version is only valid from a policy without a version.
    """
    return (
        type(decision) is Decision
        and type(decision.permit) is bool
        and type(decision.scope) is Scope
        and type(decision.reasons) is tuple
        and all(isinstance(one, str) and _utf8(one) for one in decision.reasons)
        and ((decision.policy_version is None and version is None) or type(decision.policy_version) is str)
        and _utf8(decision.policy_version or "")
        and (
            decision.valid_until is None
            or (type(decision.valid_until) in (int, float) and not math.isnan(decision.valid_until))
        )
    )


def _utf8(text: str) -> bool:
    """Return whether *text* can be encoded; a lone surrogate has no form in a record."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def denied(action: Action, decision_id: str, reasons: tuple[str, ...]) -> DeniedError:
    """Return the error of a denial: it names the policy's reasons and nothing about the store's content."""
    return DeniedError(
        f"The policy does not permit {action}: {'; '.join(reasons)}. Decision {decision_id}.",
        action=action,
        decision_id=decision_id,
        reasons=reasons,
    )


def check_supported(predicate: Predicate, capabilities: Capabilities) -> None:
    """Refuse a predicate with a node that the adapter does not declare. Raises: UnsupportedPredicateError."""
    if type(predicate) not in capabilities.predicates:
        raise UnsupportedPredicateError(f"The store has no exact form of {type(predicate).__name__}.")
    for one in operands_of(predicate):
        check_supported(one, capabilities)


def retried(make: Callable[[], Flow[T]], *, write: bool = False, attempts: int = 3, base: float = 0.05) -> Flow[T]:
    """Run the flow that *make* returns, and again after a retryable StoreError, waiting *base* · 2ⁿ seconds.

    A longer pause that the store asks for is kept, up to `LONGEST_PAUSE`; beyond that the error is raised at once.
    A *write* is sent again only if the failed attempt certainly changed nothing: another writer may have written in
    the meantime, and a second application would undo that, or bring back deleted rows. Waiting is a request to the
    clock's port. Once one attempt may have been applied, `sent` stays "unknown", whatever later attempts report.
    """
    doubtful, pause = False, 0.0
    for attempt in range(attempts):
        try:
            if attempt:
                yield Sleep(pause)
            return (yield from make())
        except StoreError as error:
            doubtful = doubtful or error.sent == "unknown"
            if doubtful:
                error.sent = "unknown"
            minimum = error.retry_after or 0.0
            if isinstance(error, BusyError):  # it has waited for as long as the configuration permits
                raise
            if not error.retryable or attempt == attempts - 1 or (write and doubtful) or minimum > LONGEST_PAUSE:
                raise
            pause = max(base * 2**attempt, minimum)
    raise AssertionError("unreachable")
