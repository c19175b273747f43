"""The one order of everything: decide, record, empty scope?, embed, adapter flow, second lock, note the outcome.

It is written once, here, and driven twice (see `drive`). If the policy fails, the answer is no; if the record cannot
be written, nothing is sent; an empty scope never reaches a store.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

import orjson

from vectoracl.actions import READ, Action
from vectoracl.adapter import Adapter, Capabilities, Flow
from vectoracl.audit import Sink
from vectoracl.drive import wrapped
from vectoracl.errors import (
    DeniedError,
    RefusedError,
    ScopeViolationError,
    StoreError,
    UnsupportedPredicateError,
    VectorACLError,
)
from vectoracl.fields import FieldType, check_scope_predicate, fields_of
from vectoracl.meaning import Test, compile_test
from vectoracl.policy import Decision, Policy
from vectoracl.ports import Decide, Sleep, WriteRecord
from vectoracl.predicate import Always, And, Not, Or, Predicate
from vectoracl.prepare import name_store
from vectoracl.principal import Principal
from vectoracl.scope import Grant, Scope

T = TypeVar("T")
_log = logging.getLogger("vectoracl")
_CACHE = 4096
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

    A *refusal* is why its scope has no form on this store: it is raised when the decision has been recorded.
    """

    decision: Decision
    legs: tuple[Leg, ...]
    record: Mapping[str, Any]
    refusal: VectorACLError | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """One configured store, as the flows see it."""

    name: str
    adapter_name: str
    adapter: Adapter
    fields: Mapping[str, FieldType]

    @property
    def capabilities(self) -> Capabilities:
        """What the adapter can do."""
        return self.adapter.capabilities


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks, with what the handle leaves: an immutable part of a handle."""

    principal: Principal
    actions: frozenset[Action]
    narrow: Predicate


class Guard:
    """Decides, with a cache by principal, action and policy version, and wraps every flow in the one order."""

    def __init__(
        self,
        policy: Policy,
        sink: Sink,
        route: Callable[[str], str],
        *,
        debug: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.sink = sink
        self.route = route
        self.debug = debug
        self.clock = clock
        self._plans: OrderedDict[tuple[Asker, Action, str], Plan] = OrderedDict()
        self._lock = Lock()
        self._stamped = 0.0

    def stamp(self) -> float:
        """Return the time of a write, in POSIX seconds: now, but later than every earlier one of this process.

        Rows that were written by one call are told from those of any other by it, also where the clock is coarse.
        """
        with self._lock:
            self._stamped = max(self.clock(), math.nextafter(self._stamped, math.inf))
            return self._stamped

    def plan(self, asker: Asker, action: Action, store: Store) -> Flow[Plan]:
        """Decide *action* for *asker*, from the cache where the decision still holds.

        Raises: nothing of the policy's: what it raises is a denial, and a scope that has no form on this store (it
        spans two, it names a field that is not declared) is a plan with a refusal, so that it leaves a record too.
        """
        now = self.clock()
        principal = asker.principal
        if action not in asker.actions:
            return self._compile(Decision.deny("the handle does not have this action", "handle"), asker, action, store)
        if principal.expired(now):
            return self._compile(Decision.deny("the principal has expired", "expiry"), asker, action, store)
        key = (asker, action, store.name)
        try:
            version = self.policy.version
            if type(version) is not str:
                raise TypeError("not a version")
        except Exception:  # noqa: BLE001 - whatever breaks in a policy is a denial
            return self._compile(Decision.deny("the policy failed", "unknown"), asker, action, store)
        kept = self._plans.get(key)
        if kept is not None:
            decision = kept.decision
            if decision.policy_version == version and (decision.valid_until is None or now < decision.valid_until):
                return kept
        try:
            decision = yield from Decide(principal, action)
            if not _whole(decision):
                raise TypeError("not a decision")
        except Exception as error:
            if isinstance(error, StoreError) and (error.code, error.sent) == ("timeout", "no"):
                raise  # the caller's time was over before the policy was asked: nothing was decided, nothing is sent
            _log.warning("policy failed: %s", type(error).__name__)
            return self._compile(Decision.deny("the policy failed", version), asker, action, store)
        plan = self._compile(decision, asker, action, store)
        if plan.refusal is not None:
            return plan  # not kept: an error that is raised belongs to one call
        with self._lock:
            self._plans[key] = plan
            self._plans.move_to_end(key)
            while len(self._plans) > _CACHE:
                self._plans.popitem(last=False)
        return plan

    def _compile(self, decision: Decision, asker: Asker, action: Action, store: Store) -> Plan:
        scope = decision.scope if decision.permit else Scope()
        legs: tuple[Leg, ...] = ()
        refusal: VectorACLError | None = None
        try:
            scope = scope.narrowed(asker.narrow)
            legs = tuple([self._leg(grant, store) for grant in scope.grants])
            granted: list[Any] = [(leg.partition, leg.predicate) for leg in legs]
        except VectorACLError as error:
            legs, refusal = (), error
            granted = [(grant.partition, grant.predicate) for grant in scope.grants]
        principal = asker.principal
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

    def explained(self, asker: Asker, action: Action, store: Store) -> Flow[Plan]:
        """Decide *action* without acting on it; recorded as every decision is, with the outcome "explained".

        Raises: StoreError with the code "audit" if the record cannot be kept; the refusal of the plan.
        """
        started = time.perf_counter_ns()
        plan = yield from self.plan(asker, action, store)
        decision_id = os.urandom(16).hex()
        yield WriteRecord({**plan.record, "id": decision_id, "time": self.clock()})
        outcome = "explained" if plan.refusal is None else f"error:{plan.refusal.code}"
        self._noted(decision_id, outcome, None, started)
        if plan.refusal is not None:
            raise plan.refusal
        return plan

    def guarded(
        self,
        asker: Asker,
        action: Action,
        store: Store,
        body: Callable[[Plan, str], Flow[T]],
        *,
        empty: Callable[[str], T],
        size: Callable[[T], int | None],
    ) -> Flow[T]:
        """Run *body* with the plan and the decision's id, in the one order; *empty* makes the answer of no scope.

        Raises: DeniedError; StoreError with the code "audit" if the record cannot be kept; what *body* raises.
        """
        if action not in store.capabilities.operations:
            raise UnsupportedPredicateError(f"The adapter {store.adapter_name!r} cannot {action}.", field=action)
        started = time.perf_counter_ns()
        plan = yield from self.plan(asker, action, store)
        decision_id = os.urandom(16).hex()
        yield WriteRecord({**plan.record, "id": decision_id, "time": self.clock()})
        outcome, returned = "cancelled", None
        try:
            if plan.refusal is not None:
                raise plan.refusal
            if not plan.decision.permit:
                outcome = "denied"
                raise denied(action, decision_id, plan.decision.reasons)
            if not plan.legs:
                if action not in READ:
                    outcome = "denied"
                    raise denied(action, decision_id, ("nothing may be written",))
                outcome, returned = "empty", 0
                return empty(decision_id)
            result = yield from body(plan, decision_id)
            outcome, returned = "ok", size(result)
            return result
        except ScopeViolationError:
            outcome = "violation"
            raise
        except VectorACLError as error:
            outcome = outcome if outcome == "denied" else f"error:{error.code}"
            name_store(error, store.name, store.adapter_name)
            raise
        except Exception as error:  # noqa: BLE001 - re-raised as ours
            # Whatever an adapter did not foresee: its text may quote rows, filters or a connection string.
            outcome = "error:internal"
            message = (
                f"The adapter {store.adapter_name!r} failed in a way that it does not know ({type(error).__name__}); "
                "debug_errors = true shows what it said."
            )
            raise wrapped(error, message, debug=self.debug, code="internal") from (error if self.debug else None)
        finally:
            self._noted(decision_id, outcome, returned, started)

    def _noted(self, decision_id: str, outcome: str, returned: int | None, started: int) -> None:
        spent = (time.perf_counter_ns() - started) // 1000 / 1000
        self.note({"decision": decision_id, "outcome": outcome, "returned": returned, "ms": spent})

    def note(self, outcome: Mapping[str, Any]) -> None:
        """Keep what became of a decision; never raises."""
        try:
            self.sink.note(outcome)
        except Exception as error:  # noqa: BLE001 - a sink that breaks its promise must not hide a result or an error
            _log.error("audit sink failed to note an outcome: %s", type(error).__name__)


def _digest(granted: Iterable[tuple[str, Predicate]]) -> str:
    """Return a digest of what was granted: 32 hex digits over the scope's JSON form."""
    described = [[partition, predicate.to_dict()] for partition, predicate in granted]
    return hashlib.blake2b(orjson.dumps(described, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


def _whole(decision: object) -> bool:
    """Tell whether *decision* is a decision in all its parts; what a policy returns otherwise is a denial."""
    return (
        type(decision) is Decision
        and type(decision.permit) is bool
        and type(decision.scope) is Scope
        and type(decision.reasons) is tuple
        and all(isinstance(one, str) for one in decision.reasons)
        and type(decision.policy_version) is str
        and (
            decision.valid_until is None
            or (type(decision.valid_until) in (int, float) and not math.isnan(decision.valid_until))
        )
    )


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
