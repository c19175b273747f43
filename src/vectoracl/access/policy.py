"""The decision point: a policy maps a principal and an action to a decision. Without a decision, access is denied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vectoracl.access.scope import NOTHING, Grant, Scope
from vectoracl.filters.predicate import ALWAYS
from vectoracl.model.actions import READ, Action
from vectoracl.model.identifiers import check_tenant
from vectoracl.model.principal import Principal


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of a policy.

    Attributes:
        permit: Whether the action is permitted.
        scope: The rows that a permit covers. An empty scope is possible: reads then return nothing.
        reasons: Texts for people and audit records; they must not quote rows.
        policy_version: The version of the rules that decided. None means that the policy has no version; then the
            decision serves one operation only.
        valid_until: The time at which the decision ends, in POSIX seconds. None leaves it to the configuration's
            `decision_ttl`.
    """

    permit: bool
    scope: Scope
    reasons: tuple[str, ...]
    policy_version: str | None
    valid_until: float | None = None

    @classmethod
    def deny(cls, reason: str, policy_version: str | None) -> Decision:
        """Return a denial.

        Args:
            reason: The reason, for people and audit records.
            policy_version: The version of the rules; None if there is none.

        Returns:
            A decision without a scope.
        """
        return cls(permit=False, scope=NOTHING, reasons=(reason,), policy_version=policy_version)


@runtime_checkable
class Policy(Protocol):
    """The protocol of a policy, the decision point.

    A policy runs in a worker thread, so that a `timeout` holds while it waits for a database. If it may only be called
    in the caller's thread (a connection of sqlite3 or Django belongs to one thread), it declares that by an attribute
    `same_thread = True`; then no time limit applies while it waits, and it blocks an event loop.
    """

    @property
    def version(self) -> str | None:
        """The version of everything that decisions depend on.

        A new version invalidates cached decisions at the next operation. A str promises that `decide` returns the same
        for the same principal, action and version. None means that decisions depend on something without a version
        (the application's own tables), so none is cached.
        """
        ...

    def decide(self, principal: Principal, action: Action) -> Decision:
        """Decide whether *principal* may do *action*, and on which rows.

        Args:
            principal: The verified principal.
            action: The action, for example "search".

        Returns:
            The decision. An exception, and anything that is not a complete `Decision`, counts as a denial.
        """
        ...


class TenantPolicy:
    """The default policy: a principal reads its own tenant and the shared ones, and writes only its own tenant.

    Args:
        shared: Tenants that every principal reads and only their own principals write. A missing tenant never means
            shared: a principal always has a tenant.

    Raises:
        InvalidTenantError: An id in *shared* is not a valid tenant id.
    """

    def __init__(self, shared: Iterable[str] = ()) -> None:
        self._shared = tuple(sorted({check_tenant(one) for one in shared}))
        digest = hashlib.blake2b("\n".join(self._shared).encode(), digest_size=4).hexdigest()
        self._version = f"tenant-policy/1+{digest}"

    @property
    def version(self) -> str:
        """The version of the rules."""
        return self._version

    def decide(self, principal: Principal, action: Action) -> Decision:
        """Permit by tenant; see the class.

        Args:
            principal: The verified principal.
            action: The action.

        Returns:
            A permit with the principal's own tenant, and for reads also the shared ones.
        """
        own = Grant(principal.tenant, ALWAYS)
        if action not in READ:
            return _permit(Scope((own,)), ("own tenant",), self._version)
        shared = tuple(Grant(one, ALWAYS) for one in self._shared if one != principal.tenant)
        reasons = ("own tenant", *(f"shared tenant {one.partition}" for one in shared))
        return _permit(Scope((own, *shared)), reasons, self._version)


def _permit(scope: Scope, reasons: tuple[str, ...], version: str) -> Decision:
    return Decision(permit=True, scope=scope, reasons=reasons, policy_version=version)
