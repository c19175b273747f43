"""The one order of everything: decide, record, empty scope?, embed, adapter flow, second lock, note the outcome.

It is written once, here, and driven twice (see `drive`). If the policy fails, the answer is no; if the record cannot
be written, nothing is sent; an empty scope never reaches a store.
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
from vectoracl.filters.predicate import Always, And, Not, Or, Predicate
from vectoracl.filters.semantics import Test, compile_test
from vectoracl.filters.validation import FieldType, check_scope_predicate, fields_of
from vectoracl.model.actions import READ, Action
from vectoracl.model.principal import Principal
from vectoracl.model.records import Hit

T = TypeVar("T")
_log = logging.getLogger("vectoracl")
_CACHE = 4096
DECISION_TTL = 5.0
"""How many seconds a decision lives that does not say how long it is valid."""
LONGEST_PAUSE = 10.0
"""How many seconds a call waits at the most because a store asks it to, before each of its further tries."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One partition of a decided scope, compiled: `test` is None where the whole partition is permitted."""

    partition: str
    predicate: Predicate
    test: Test | None
    needs_metadata: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A decision, compiled once for one store: its legs, and its record but for id and time.

    A *refusal* is why its scope has no form on this store: it is raised when the decision has been recorded. *cause* is
    what the policy raised instead of deciding. *asked* and *made* say when the policy was asked and had answered, by
    the wall clock and by the monotonic one; None for a plan that is not kept and need not be asked for again.
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
    """One configured store, as the flows see it; `embedder` returns the identity that it keeps, once it is known."""

    name: str
    adapter_name: str
    adapter: Adapter
    fields: Mapping[str, FieldType]
    embedder: Callable[[], str | None] = lambda: None

    @property
    def capabilities(self) -> Capabilities:
        """What the adapter can do."""
        return self.adapter.capabilities


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, with what the handle leaves: an immutable part of a handle."""

    principal: Principal
    actions: frozenset[Action]
    narrow: Predicate


class Pipeline:
    """Decides, with a cache by principal, action and policy version, and wraps every flow in the one order."""

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

        Rows that were written by one call are told from those of any other by it, also where the clock is coarse.
        """
        with self._lock:
            self._stamped = max(self.clock(), math.nextafter(self._stamped, math.inf))
            return self._stamped

    def now(self) -> tuple[float, float]:
        """Return the time by the wall clock (POSIX seconds) and by the monotonic one.

        A clock that says no number reads as the end of time. One that is set back keeps no decision alive: `_holds`.
        """
        tick = self.monotonic()
        try:
            told = float(self.clock())
        except Exception:  # noqa: BLE001 - without a clock nothing is known to be valid
            return math.inf, tick
        return (told if math.isfinite(told) else math.inf), tick

    def plan(self, caller: Caller, action: Action, store: Store) -> Flow[Plan]:
        """Decide *action* for *asker*, from the cache where the decision still holds.

        Raises: nothing of the policy's: what it raises is a denial, and a scope that has no form on this store (it
        spans two, it names a field that is not declared) is a plan with a refusal, so that it leaves a record too.
        """
        asked = self.now()
        principal = caller.principal
        if action not in caller.actions:
            return self._compile(Decision.deny("the handle does not have this action", "handle"), caller, action, store)
        if principal.expired(asked[0]):
            return self._compile(Decision.deny("the principal has expired", "expiry"), caller, action, store)
        key = (caller, action, store.name)
        try:
            version = self.policy.version if self._plain_version() else (yield from ReadVersion())
            if version is not None and type(version) is not str:
                raise TypeError(f"version is a text or None, not {type(version).__name__}")
        except Exception as error:  # noqa: BLE001 - whatever breaks in a policy is a denial
            _raise_timeout(error)
            return self._failed(error, "unknown", caller, action, store)
        kept = self._plans.get(key) if version is not None else None
        if kept is not None and kept.decision.policy_version == version and self._holds(kept, kept.asked, asked):
            return kept
        try:
            decision = yield from Decide(principal, action)
            if not _whole(decision, version):
                raise TypeError(f"decide() returned {type(decision).__name__} that is not a Decision in all its parts")
        except Exception as error:  # noqa: BLE001 - whatever breaks in a policy is a denial
            _raise_timeout(error)
            return self._failed(error, version, caller, action, store)
        made = self.now()
        if principal.expired(made[0]):  # while the policy was deciding
            return self._compile(Decision.deny("the principal has expired", "expiry"), caller, action, store)
        if decision.valid_until is not None and made[0] >= decision.valid_until:
            ended = Decision.deny("the policy's decision was no longer valid", decision.policy_version)
            return self._compile(ended, caller, action, store)
        plan = replace(self._compile(decision, caller, action, store), asked=asked, made=made)
        if plan.refusal is not None or version is None:
            return plan  # not kept: an error that is raised belongs to one call
        with self._lock:
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > _CACHE:
                self._plans.popitem(last=False)
        return plan

    def _plain_version(self) -> bool:
        """Tell whether reading the policy's version runs no code of its own, which might wait for a database."""
        if type(self.policy) is TenantPolicy:
            return True
        return isinstance(inspect.getattr_static(self.policy, "version", self), str | None)

    def _holds(self, plan: Plan, since: tuple[float, float] | None, now: tuple[float, float], ttl: float = -1) -> bool:
        """Tell whether the decision of *plan*, counted from *since*, may be used *now*.

        Both clocks have to agree, so that one that was set back, or that stood while the machine slept, keeps no
        decision alive; where they do not, the policy is asked again.
        """
        if since is None:
            return False
        wall, tick = now[0] - since[0], now[1] - since[1]
        valid_until = plan.decision.valid_until
        life = (self.decision_ttl if ttl < 0 else ttl) if valid_until is None else valid_until - since[0]
        return 0 <= wall < life and 0 <= tick < life

    def _failed(self, error: Exception, version: str | None, caller: Caller, action: Action, store: Store) -> Plan:
        """Return the plan of a policy that did not decide: a denial. What it raised is in the log."""
        said = error.error if isinstance(error, PolicyFailedError) else error
        # The policy sees a principal and an action, no chunk: its own text is the operator's to read.
        _log.warning("policy failed: %s", type(said).__name__, exc_info=(type(said), said, said.__traceback__))
        plan = self._compile(Decision.deny("the policy failed", version), caller, action, store)
        return replace(plan, cause=said)

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
        """Compile one grant for *store*. Raises: RefusedError and its kinds where it has no exact form there."""
        if self.route(grant.partition) != store.name:
            raise RefusedError(
                "The scope spans two stores, whose scores cannot be compared. Route the tenants that are read "
                "together to one store under [tenants.store]."
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
        """Keep *record*, of a decision that is about to be acted upon.

        Raises: StoreError with the code "audit" or "timeout" if it cannot be kept; then nothing is sent. Of one that
        may still be written, by a thread that did not end in time or whose caller went away, the outcome is noted here.
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
        """Decide *action* without acting on it; recorded as every decision is, with the outcome "explained".

        Raises: StoreError with the code "audit" if the record cannot be kept; the refusal of the plan.
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
        """Run *body* with the plan and the decision's id, in the one order; *empty* makes the answer of no scope.

        *hits* are the chunks of a result, for the outcome's keyed hashes where config asks for them.

        Raises: DeniedError; StoreError with the code "audit" if the record cannot be kept; what *body* raises.
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
        except Exception as error:  # noqa: BLE001 - raised as ours, behind the block
            outcome, failed = self.failure(error, store, decision_id)
        finally:
            self._noted(decision_id, outcome, returned, started, ids)
        raise failed

    def failure(self, error: Exception, store: Store, decision_id: str) -> tuple[str, VectorACLError]:
        """Return the outcome that *error* stands for, and what is raised for it, with nothing foreign in its chain.

        Raise it after the `except` block, not in it: there Python would attach *error* as its `__context__`.
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
        # Whatever an adapter did not foresee: its text may quote rows, filters or a connection string.
        message = (
            f"The adapter {store.adapter_name!r} failed in a way that it does not know ({type(error).__name__}); "
            "debug_errors = true shows what it said."
        )
        return "error:internal", wrapped(error, message, debug=self.debug, code="internal")

    def _denial(self, action: Action, decision_id: str, plan: Plan) -> DeniedError:
        error = denied(action, decision_id, plan.decision.reasons)
        if self.debug:
            error.__cause__ = plan.cause
        return error

    def _may_end(self, caller: Caller, plan: Plan) -> bool:
        """Tell whether what was decided may end while the call is under way; the default policy's rules are fixed."""
        return (
            type(self.policy) is not TenantPolicy
            or caller.principal.expires_at is not None
            or plan.decision.valid_until is not None
        )

    def _while_it_holds(
        self, flow: Flow[T], caller: Caller, action: Action, store: Store, plan: Plan, decision_id: str
    ) -> Flow[T]:
        """Pass *flow* on; before each request to the store, see that principal and decision have not ended meanwhile.

        Embedding takes long, and so do many requests one after the other and the pauses before further tries. Once a
        request has written, the rest of that try is not checked: half a replacement is worse than one that was
        permitted a moment ago. Raises: DeniedError, which *flow* cannot swallow: it is closed.
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
        """Return *plan* while it holds, else a new one that grants the same. Raises: DeniedError where none does."""
        now = self.now()
        if caller.principal.expired(now[0]):
            raise denied(action, decision_id, ("the principal has expired",))
        if self._holds(plan, plan.made, now, self.decision_ttl or DECISION_TTL):
            return plan
        again = yield from self.plan(caller, action, store)
        if not again.decision.permit:
            raise self._denial(action, decision_id, again)
        if again.refusal is not None or any(again.record[one] != plan.record[one] for one in ("partitions", "scope")):
            raise denied(action, decision_id, ("what may be touched changed while the call was under way; call again",))
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
        made: dict[str, Any] = {"decision": decision_id, "outcome": outcome, "returned": returned, "ms": spent}
        if ids is not None:
            made["ids"] = ids
        self.note(made)

    def note(self, outcome: Mapping[str, Any]) -> None:
        """Keep what became of a decision; never raises."""
        try:
            self.sink.note(outcome)
        except Exception as error:  # noqa: BLE001 - a sink that breaks its promise must not hide a result or an error
            _log.error("audit sink failed to note an outcome: %s", type(error).__name__)

    def hold(self, outcome: Mapping[str, Any]) -> None:
        """Keep *outcome*, of a write in the caller's own transaction, until `settle` says how that ended."""
        self._held[outcome["decision"]] = outcome

    def settle(self, decision_id: str, ended: str) -> None:
        """Note the outcome that was held for this decision, once, as *ended*; never raises."""
        held = self._held.pop(decision_id, None)
        if held is not None:
            self.note({**held, "outcome": ended})

    def settle_rest(self) -> None:
        """Note what is still held as "unknown": the audit sink is about to be closed; never raises."""
        for decision_id in list(self._held):
            self.settle(decision_id, "unknown")

    def noting(self, sink: Sink) -> Pipeline:
        """Return the same guard, with the same cache, which notes outcomes in *sink*."""
        made = copy.copy(self)
        made.sink = sink
        return made


def _digest(granted: Iterable[tuple[str, Predicate]]) -> str:
    """Return a digest of what was granted: 32 hex digits over the scope's JSON form; "none" where it has no such form.

    That is a scope which is refused, since a value in it is of a type that no store keeps.
    """
    try:
        described = [[partition, predicate.to_dict()] for partition, predicate in granted]
        data = orjson.dumps(described, option=orjson.OPT_SORT_KEYS)
    except (TypeError, ValueError, AttributeError, VectorACLError):
        return "none"
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _raise_timeout(error: Exception) -> None:
    """Raise *error* if it says that the caller's time was over: then nothing was decided and nothing is sent.

    What the policy itself raises comes inside of a PolicyFailedError, whatever it is.
    """
    if isinstance(error, StoreError) and (error.code, error.sent) == ("timeout", "no"):
        raise error


def _whole(decision: object, version: str | None) -> bool:
    """Tell whether *decision* is a decision in all its parts; what a policy returns otherwise is a denial.

    One without a version comes only from a policy that has none.
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
    """Tell whether *text* can be written; a lone surrogate has no form in a record."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def denied(action: Action, decision_id: str, reasons: tuple[str, ...]) -> DeniedError:
    """Return the error of a denial: it names the reasons of the policy and nothing of the store."""
    return DeniedError(
        f"The policy does not permit {action}: {'; '.join(reasons)}. Decision {decision_id}.",
        action=action,
        decision_id=decision_id,
        reasons=reasons,
    )


def check_supported(predicate: Predicate, capabilities: Capabilities) -> None:
    """Refuse a predicate with a part that the adapter has no exact form of. Raises: UnsupportedPredicateError."""
    if type(predicate) not in capabilities.predicates:
        raise UnsupportedPredicateError(f"The store has no exact form of {type(predicate).__name__}.")
    match predicate:
        case And(operands) | Or(operands):
            for one in operands:
                check_supported(one, capabilities)
        case Not(operand):
            check_supported(operand, capabilities)


def retried(make: Callable[[], Flow[T]], *, write: bool = False, attempts: int = 3, base: float = 0.05) -> Flow[T]:
    """Run the flow that *make* returns, again while it fails with a retryable StoreError; waits *base* · 2ⁿ seconds.

    A store that names a longer pause gets it, up to `LONGEST_PAUSE`; beyond that the error is the caller's at once.
    A *write* is sent again only while it is certain that nothing was applied: somebody else may have written since, and
    a second application would undo that, or bring back what was deleted. The waiting is a request to the clock's port.
    Once an attempt may have been applied, a later one that certainly was not does not change that: `sent` stays
    "unknown".
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
            asked = error.retry_after or 0.0
            if not error.retryable or attempt == attempts - 1 or (write and doubtful) or asked > LONGEST_PAUSE:
                raise
            pause = max(base * 2**attempt, asked)
    raise AssertionError("unreachable")
