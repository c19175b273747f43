"""The request pipeline.

Every operation runs these steps, in this order (`Pipeline.run`):

1. *Decide.* The policy gets the principal and the action. Its decision is compiled for the store once (`Plan`) and
   cached by principal, action and policy version. A policy that raises, answers too late or returns anything but a
   whole `Decision` denies.
2. *Record.* The decision is written to the audit sink. If it cannot be written, nothing is sent.
3. *Refuse.* A scope without an exact form on this store, or a denial, is raised now, after its record.
4. *Short-circuit.* An empty scope answers a read with nothing and denies a write. It never reaches a store.
5. *Embed.* Query and document texts become vectors, outside the store's time limit.
6. *Run the adapter.* One leg (`Leg`) per partition of the scope; each is confined to its partition (`drivers.confined`)
   and retried where that is safe (`retried`). The partition, the scope's predicate and the caller's filter are three
   operands that are never merged. If the decision may end in the meantime, it is checked before each request.
7. *Verify.* The second lock tests every returned row against the scope (`second_lock`). It is a tripwire; the control
   is the filter that the store applied.
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
from vectoracl.audit.returned_hashes import ReturnedIds
from vectoracl.audit.sinks import Sink
from vectoracl.engine.core_ports import Decide, LateRecordError, PolicyFailedError, ReadVersion, Sleep, WriteRecord
from vectoracl.engine.drivers import close_flow, wrapped
from vectoracl.errors import (
    DeniedError,
    RefusedError,
    ScopeViolationError,
    StoreError,
    UnsupportedPredicateError,
    VectorACLError,
    unchained,
)
from vectoracl.filters.field_types import FieldType
from vectoracl.filters.predicate import Always, Predicate, operands_of
from vectoracl.filters.semantics import Test, compile_test
from vectoracl.filters.validation import check_scope_predicate, fields_of
from vectoracl.model.actions import READ, Action
from vectoracl.model.principal import Principal
from vectoracl.model.records import Hit

T = TypeVar("T")
_log = logging.getLogger("vectoracl")
_CACHE = 4096
DECISION_TTL = 5.0
"""Lifetime, in seconds, of a decision without `valid_until`."""
LONGEST_PAUSE = 10.0
"""The longest pause, in seconds, that a call makes before another attempt because the store asks for it."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One partition of a decided scope, compiled: `test` is None where the whole partition is permitted."""

    partition: str
    predicate: Predicate
    test: Test | None
    needs_metadata: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, compiled once for one store: its legs, and its record without id and time.

    `refusal` is the reason why the scope has no form on this store; it is raised after the decision was recorded.
    `cause` is the exception that the policy raised instead of deciding. `asked` and `made` are the times at which the
    policy was called and had answered, as (wall clock, monotonic clock); None for a plan that is not cached.
    """

    decision: Decision
    legs: tuple[Leg, ...]
    record: Mapping[str, Any]
    refusal: VectorACLError | None = None
    cause: Exception | None = None
    asked: tuple[float, float] | None = None
    made: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """One configured store, as the flows see it.

    `embedder` returns the identity of the embedder that is noted in the store; None while it is not known.
    """

    name: str
    adapter_name: str
    adapter: Adapter
    fields: Mapping[str, FieldType]
    embedder: Callable[[], str | None] = lambda: None

    @property
    def capabilities(self) -> Capabilities:
        """The adapter's capabilities."""
        return self.adapter.capabilities


@dataclass(frozen=True, slots=True)
class Caller:
    """The principal of a call, with the actions and the filter that its handle was narrowed to."""

    principal: Principal
    actions: frozenset[Action]
    narrow: Predicate


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
    ) -> None:
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

    def plan(self, caller: Caller, action: Action, store: Store) -> Flow[Plan]:
        """Decide *action* for *caller*, from the cache where the decision still holds.

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
            return cached_plan
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
        plan = replace(self._compile(decision, caller, action, store), asked=start, made=end)
        if plan.refusal is not None or version is None:
            return plan  # not cached: an error instance that is raised belongs to one call
        with self._lock:
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > _CACHE:
                self._plans.popitem(last=False)
        return plan

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

    def _compile(self, decision: Decision, caller: Caller, action: Action, store: Store) -> Plan:
        scope = decision.scope if decision.permit else Scope()
        legs: tuple[Leg, ...] = ()
        refusal: VectorACLError | None = None
        try:
            scope = scope.narrowed(caller.narrow)
            legs = tuple([self._leg(grant, store) for grant in scope.grants])
            granted: list[Any] = [(leg.partition, leg.predicate) for leg in legs]
        except VectorACLError as error:
            legs, refusal = (), error
            granted = [(grant.partition, grant.predicate) for grant in scope.grants]
        principal = caller.principal
        record = {
            "v": 1,
            "action": action,
            "permit": decision.permit,
            "reasons": list(decision.reasons),
            "policy": decision.policy_version,
            "store": store.name,
            "partitions": list(scope.partitions),
            "scope": _digest(granted),
            "principal": {
                "id": principal.id,
                "tenant": principal.tenant,
                "kind": principal.kind,
                "by": principal.authenticated_by,
            },
        }
        return Plan(decision, legs, record, refusal)

    def _leg(self, grant: Grant, store: Store) -> Leg:
        """Compile one grant for *store*. Raises: RefusedError or a subclass where it has no exact form there."""
        if self.route(grant.partition) != store.name:
            raise RefusedError(
                "The scope spans two stores, and their scores are not comparable. Under [tenants.store], route the "
                "tenants that are read together to the same store."
            )
        predicate = check_scope_predicate(grant.predicate, store.fields)
        check_supported(predicate, store.capabilities)
        return Leg(
            grant.partition,
            predicate,
            None if isinstance(predicate, Always) else compile_test(predicate),
            any(not name.startswith("@") for name in fields_of(predicate)),
        )

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
        started = time.perf_counter_ns()
        plan = yield from self.plan(caller, action, store)
        record = self._identified(plan)
        decision_id: str = record["id"]
        yield from self.record(record)
        outcome, returned, ids = "cancelled", None, None
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
            flow = body(plan, decision_id)
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
        if again.refusal is not None or any(again.record[one] != plan.record[one] for one in ("partitions", "scope")):
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
        """Pass the outcome of a decision to the sink; never raises."""
        try:
            self.sink.note(outcome)
        except Exception as error:  # noqa: BLE001 - a sink that breaks its promise must not hide a result or an error
            _log.error("audit sink failed to note an outcome: %s", type(error).__name__)

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
            if not error.retryable or attempt == attempts - 1 or (write and doubtful) or minimum > LONGEST_PAUSE:
                raise
            pause = max(base * 2**attempt, minimum)
    raise AssertionError("unreachable")
