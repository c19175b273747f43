"""Calls on handles as data: generated, sent to the adapter's process and to the reference, shrunk, and printed.

What a call holds are the library's values, since it is performed where the kit is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vectoracl.filters.predicate import Predicate
from vectoracl.model.actions import Action
from vectoracl.model.principal import Principal
from vectoracl_conformance.context.check_context import claims_of
from vectoracl_conformance.context.table_policy import Rules as Rules

ACTIONS: Mapping[str, Action] = {
    "search_many": "search", "facets": "scan", "page": "scan", "load": "upsert", "update_metadata": "upsert",
}  # fmt: skip
"""The actions of the methods that are not named after theirs."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a public method of a handle.

    Attributes:
        principal: Who asks.
        method: The method's name, such as "search". A scan is read to its end.
        arguments: The arguments, all by name.
        narrowings: The arguments of `narrow`, applied one after the other before the call.
    """

    principal: Principal
    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    narrowings: tuple[tuple[Predicate, frozenset[Action] | None], ...] = ()

    def message(self) -> tuple[Any, ...]:
        """Return the call in the form in which it is sent."""
        return claims_of(self.principal), list(self.narrowings), self.method, (), dict(self.arguments)

    @property
    def action(self) -> Action:
        """The action by which the policy decides."""
        action: Any = ACTIONS.get(self.method, self.method)
        return action  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class After:
    """In place of the argument `after` of a page: the cursor behind page number `pages` of the same scan, or of *call*.

    Each store has its own cursors, so the pages before it are read on both. With `kept` it is the cursor that came with
    the page of this scan which was read last, before the calls in between.
    """

    pages: int = 1
    call: Call | None = None
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Together:
    """Calls that are performed side by side, by at most `width` threads in sync mode."""

    calls: tuple[Call, ...]
    width: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A call that is cancelled, or whose time is up after `after` seconds."""

    call: Call
    after: float


@dataclass(frozen=True, slots=True)
class Fault:
    """The next requests to the store fail: by their number from 1, "before" they are sent, "after" they were performed.

    "unknown" is a request that was not performed although the failure does not tell.
    """

    plan: Mapping[int, Literal["before", "after", "unknown"]]


Step = Call | Together | Cut | Fault


def calls_in(step: Step) -> tuple[Call, ...]:
    """Return the calls that a step performs."""
    match step:
        case Call():
            return (step,)
        case Cut(call, _):
            return (call,)
        case Together(calls, _):
            return calls
    return ()


def tenants(call: Call, rules: Rules) -> frozenset[str]:
    """Return the tenants whose rows the call may concern."""
    table = rules.get(call.principal.id)
    if table is None:
        return frozenset({call.principal.tenant})
    return frozenset(table.get(call.action, {}))
